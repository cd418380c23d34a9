//! Boots a matrix cell's kernel in QEMU and tries the ported modules there: load, reload, do their job, leave no trace in
//! the kernel's log.
//!
//! Never: prints, builds a port, or trusts a silence: what the guest does not say within its time is a failure.
//! Its main function is [`run`].

mod boot;
mod console;
mod cpio;
mod guest;
mod judge;
mod modules;
mod programs;
mod protocol;
mod qemu;
mod qmp;
mod run;
mod suite;
mod tpm;

pub use judge::{Check, CheckResult, Outcome, Verdict};
pub use modules::{ModuleTree, module_name};
pub use qemu::{Accelerator, Qemu};
pub use run::{Candidate, KernelFiles, Options, Step, run};
pub use suite::Suite;
