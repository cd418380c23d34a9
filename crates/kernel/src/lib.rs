//! Kernels: find, fetch and describe them; know a toolchain for each; run kbuild and its compiler in a sandbox.
//!
//! Never: reads what a header says (that is `kspan-facts`), prints, or exits.
//! Its main function is [`Cache::resolve`], from a name that a person typed to a [`Kernel`].

mod archive;
mod cache;
pub mod cmdfile;
pub mod control;
pub mod deb;
pub mod debversion;
pub mod fetch;
mod files;
mod index;
mod kbuild;
mod kernelpath;
mod lock;
pub mod make;
mod mirror;
pub mod packages;
mod record;
mod sandbox;
pub mod shell;
mod signature;
mod toolchain;
mod unpack;

pub use cache::{KernelInfo, kernel_order};
pub use fetch::{FetchSpec, Image, Progress, Target};
pub use files::hash_tree;
pub use lock::Lock;
pub use record::{Package, Record};

use std::path::PathBuf;

/// What went wrong in this room; each says what, where, why and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The environment lacks something (a program, the network, disk space): exit code 3.
    #[error("{0}")]
    Environment(String),
    /// What the user named is not there or is malformed: exit code 2.
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
}

impl Error {
    /// Gives an I/O error the path it happened at; for `map_err`. A full disk becomes an [`Error::Environment`].
    pub fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::Environment(format!(
                    "no space left while writing {}: free some (`kspan kernel rm KERNEL`, or set KSPAN_CACHE to a larger disk) and run again",
                    path.display()
                ))
            }
            _ => Self::Io {
                path: path.to_path_buf(),
                source,
            },
        }
    }
}

/// The result type of this room.
pub type Result<T> = std::result::Result<T, Error>;

/// Where kspan keeps what it fetched and derived: `$KSPAN_CACHE`, else `$XDG_CACHE_HOME/kspan`, else `~/.cache/kspan`.
///
/// Layout: `kernels/<id>/` (unpacked packages + `kernel.json`, written last), `sources/linux_<version>/` (full trees),
/// `images/`, `roots/<suite>/` (toolchain roots), `toolchains/` (which compiler builds for which kernel, and its flags),
/// `indexes/`, `downloads/`, `locks/`, `work/` (removed when its process is gone), and what other rooms keep (`facts/`).
/// The cache can be moved; names that start with `.tmp-` are leftovers of a killed run and go with the next fetch.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// A compiler and the file system it lives in.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Toolchain {
    /// The compiler's command inside the sandbox, for example `gcc-12`.
    pub cc: String,
    /// The root file system that holds it; `None` is the host's own.
    pub root: Option<PathBuf>,
}

/// One kernel a module can be built for.
///
/// All paths are true on the host and inside the sandbox alike: the header packages' absolute includes are rewritten
/// when they are unpacked, so nothing needs to be bound elsewhere.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Kernel {
    /// `debian/6.1.0-56-amd64`, or `path/<release>` for one given by path.
    pub id: String,
    /// `uname -r`, for example `6.1.0-56-amd64`.
    pub release: String,
    /// The upstream version, `6.1.192`. For people and for ordering; never a fact.
    pub version: String,
    /// The kernel's name for the architecture: `x86`.
    pub arch: String,
    /// KDIR: holds `.config`, `Module.symvers`, `include/generated`.
    pub build_dir: PathBuf,
    /// The header source tree (`linux-headers-*-common`); equals `build_dir` for a kernel built in its tree.
    pub source_dir: PathBuf,
    /// Changes whenever any input of a build on this kernel could differ (package hashes, toolchain). Hex.
    pub digest: String,
}

/// What the compiler is told for any module of a kernel: kbuild's flags less those that name one file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CompileFlags {
    /// The compiler inside the sandbox.
    pub cc: String,
    /// Arguments with absolute include paths; no `-o`, `-c`, `-Wp,-MMD`, `-DKBUILD_*` nor source file.
    pub args: Vec<String>,
}

/// How kbuild compiled one source file, as its `.cmd` file tells.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TuCommand {
    /// The source, relative to the module directory.
    pub source: PathBuf,
    /// The object, relative to the module directory.
    pub object: PathBuf,
    /// The arguments, same shape as [`CompileFlags::args`], plus this file's own flags and `-DKBUILD_MODNAME` etc.
    pub args: Vec<String>,
    /// Headers it read (absolute), from the dependency list.
    pub headers: Vec<PathBuf>,
}

/// What a kbuild run did.
#[derive(Debug, Clone)]
pub struct Build {
    /// make's exit status was 0.
    pub ok: bool,
    /// stdout and stderr as they came.
    pub log: String,
    /// Modules made, relative to the directory.
    pub modules: Vec<PathBuf>,
    /// One for each object whose `.cmd` file exists (also after a failed build).
    pub commands: Vec<TuCommand>,
    /// Wall seconds.
    pub seconds: f64,
}

/// Options for [`Kernel::kbuild`].
#[derive(Debug, Clone, Default)]
pub struct KbuildOptions {
    /// Extra `VAR=value` words for make.
    pub variables: Vec<String>,
    /// `-k`: go on after errors.
    pub keep_going: bool,
    /// `-jN`; 0 means 1.
    pub jobs: usize,
    /// Compiler diagnostics as JSON in the log (`KCFLAGS=-fdiagnostics-format=json`).
    pub json_diagnostics: bool,
    /// A pool of job tokens shared with other builds; then `jobs` is not used. A build takes one token of the pool while
    /// it runs, so the caller must not hold one for it.
    pub jobserver: Option<jobserver::Client>,
    /// Stop the build after this time (a Kbuild may run any shell); it then counts as failed. `None` waits for ever.
    /// With a time limit a build uses one job of a shared pool only.
    pub timeout: Option<std::time::Duration>,
}
