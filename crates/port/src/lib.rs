//! From a driver and a kernel to a port: uses → gaps → remedies → a plain Kbuild directory that builds there.
//!
//! Never: prints, decides by a version number, names a driver, or edits the driver's own directory.
//! Its main function is [`Engine::port`].

pub mod absent;
pub mod adapter;
mod beside;
pub mod carry;
pub mod cfile;
pub mod cfn;
pub mod check;
pub mod derive;
pub mod diag;
pub mod driver;
pub mod edit;
pub mod embedded;
pub mod engine;
pub mod entry;
pub mod event;
pub mod family;
pub mod gap;
pub mod gates;
pub mod home;
pub mod inactive;
pub mod layout;
pub mod lex;
pub mod lift;
pub mod link;
pub mod member;
pub mod nested;
pub mod paste;
pub mod plan;
pub mod private_abi;
pub mod provider;
pub mod site;
pub mod store;
pub mod stub;
pub mod take_up;
pub mod understand;
pub mod unqualify;
pub mod view;
pub mod words;

pub use engine::{Engine, Grade, Port, Verdict};

use std::path::{Path, PathBuf};

/// What went wrong in this room.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A kernel, its toolchain or its facts.
    #[error(transparent)]
    Kernel(#[from] kspan_kernel::Error),
    /// What the user named is malformed.
    #[error("{0}")]
    Input(String),
    /// An I/O failure with its path.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// Something that cannot be; worth a report.
    #[error("{0}; this is a defect of kspan, please report it")]
    Internal(String),
}

impl Error {
    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }
}

/// The result type of this room.
pub type Result<T> = std::result::Result<T, Error>;
