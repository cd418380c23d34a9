//! Evolutions: changes of the kernel's API as data, and which of them apply to a target kernel.
//!
//! An [`Evolution`] says how a name, a member or a callback that a driver's home kernel has is expressed in the terms of a
//! kernel that lacks it. Whether it applies is decided by facts of the target alone ([`KernelView`]).
//!
//! Never: looks at version numbers, names a driver, edits text.
//! Its main functions are [`Library::load`] and, for evolutions that nobody has written yet, [`learn::learn`].

mod conditions;
pub mod judge;
pub mod learn;
mod library;
mod model;
mod read;
mod sanity;
mod skeleton;

pub use conditions::KernelView;
pub use library::{Library, Plan};
pub use model::{
    Becomes, Condition, Evidence, Evolution, Example, InUpgrade, Kind, Made, Moves, Rewrite, Risk,
    Sets, Tier,
};
pub use read::{LoadError, LoadErrors};
pub use skeleton::skeleton;
