//! Delivery: modules as packages on a customer's machine. Today: a manager that does what dkms 3.4 does, on the same state tree.
//!
//! Never: prints or exits (what is said goes through [`Talk`]), decides what a driver's source should be (that is `kspan-port`),
//! or starts make (a package's commands run through [`kspan_kernel::shell`]). Its main function is [`dkms`].
//!
//! The order and the words of what is said are dkms' contract with the scripts around it; dkms' own `run_test.sh` pins them.

mod add;
mod ahead;
mod args;
mod autoinstall;
mod build;
mod closure;
mod compiler;
mod conf;
mod depmod;
mod disk;
mod distro;
mod evaluate;
mod framework;
mod hooks;
mod initramfs;
mod install;
mod journal;
mod kernels;
mod matching;
mod modinfo;
pub mod package;
pub mod parsers;
mod preflight;
mod rebuild;
mod repair;
mod reuse;
mod scripts;
mod secure_boot;
mod session;
mod show_port;
mod sign;
mod stamps;
mod status;
mod tarball;
mod tree;
mod uninstall;
mod upgraded;
mod verify;
mod version;
mod why;

pub use args::{Action, Request, USAGE};
pub use session::dkms;
pub use version::{VERSION, padded};

use std::path::Path;
use std::process::Command;

/// Where a session's words go, and what its child programs (a package's own scripts) may talk to.
pub trait Talk: Sync {
    /// Text for stdout, as it is.
    fn out(&self, text: &str);
    /// Text for stderr, as it is.
    fn err(&self, text: &str);
    /// Gives a child program the stdout and stderr that it may use.
    fn child(&self, command: &mut Command);
}

/// Why a session ends before its work is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// `Error!` with its lines, and the exit code.
    Error(u8, Vec<String>),
    /// `Warning:` with its lines, and the exit code.
    Warning(u8, Vec<String>),
    /// All has been said.
    Exit(u8),
}

/// The result type of this room.
pub type Result<T> = std::result::Result<T, Stop>;

impl Stop {
    /// An error with one line for each string.
    pub fn error(code: u8, lines: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::Error(code, lines.into_iter().map(Into::into).collect())
    }

    /// A warning that ends the session.
    pub fn warning(code: u8, lines: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::Warning(code, lines.into_iter().map(Into::into).collect())
    }

    /// What the operating system said of a path; for `map_err`.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |e| {
            let cure = match e.kind() {
                std::io::ErrorKind::StorageFull => {
                    "Free some space and run the same command again; nothing was lost."
                }
                std::io::ErrorKind::ReadOnlyFilesystem => "The file system is mounted read-only.",
                std::io::ErrorKind::PermissionDenied => "Run it as root.",
                _ => "",
            };
            let mut lines = vec![format!("{}: {e}", path.display())];
            lines.extend((!cure.is_empty()).then(|| cure.to_owned()));
            Self::Error(1, lines)
        }
    }

    /// The exit code it leads to.
    pub fn code(&self) -> u8 {
        match self {
            Self::Error(code, _) | Self::Warning(code, _) | Self::Exit(code) => *code,
        }
    }
}

impl From<kspan_kernel::Error> for Stop {
    fn from(error: kspan_kernel::Error) -> Self {
        Self::Error(1, vec![error.to_string()])
    }
}
