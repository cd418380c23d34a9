//! Evolutions: changes of the kernel's API as data, and which of them apply to a target kernel.
//!
//! Never: looks at version numbers, names a driver, edits text.
//! Its main function is [`Library::load`].
