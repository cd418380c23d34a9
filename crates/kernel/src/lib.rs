//! Kernels: find, fetch and describe them; know a toolchain for each; run kbuild and its compiler in a sandbox.
//!
//! Never: reads what a header says (that is `kspan-facts`), prints, or exits.
//! Its main function is [`Cache::resolve`], from a name that a person typed to a [`Kernel`].

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// The result type of this room.
pub type Result<T> = std::result::Result<T, Error>;

/// Where kspan keeps what it fetched and derived: `$KSPAN_CACHE`, else `$XDG_CACHE_HOME/kspan`, else `~/.cache/kspan`.
///
/// Layout: `kernels/<id>/` (unpacked packages + `kernel.json`), `sources/<source package_version>/` (full trees),
/// `roots/<suite>/` (toolchain roots), `facts/`, `work/`.
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
}

impl Cache {
    /// Opens (and makes) the cache at its standard place.
    ///
    /// # Errors
    /// When no home directory is known or the directory cannot be made.
    pub fn open() -> Result<Self> {
        todo!()
    }
    /// Opens (and makes) a cache at a given place.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn at(_root: &Path) -> Result<Self> {
        todo!()
    }
    /// The directory of the cache.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Every kernel in the cache, oldest version first.
    ///
    /// # Errors
    /// When the cache cannot be read; a half-unpacked kernel is skipped, never listed.
    pub fn kernels(&self) -> Result<Vec<Kernel>> {
        todo!()
    }
    /// From a typed name to a kernel: an exact id, a release, an alias (`6.1`: the newest fetched 6.1), or a path to
    /// installed headers, a prepared source tree or a build directory.
    ///
    /// # Errors
    /// Names nothing that is here; says what is and how to fetch.
    pub fn resolve(&self, _name: &str) -> Result<Kernel> {
        todo!()
    }
    /// The full source tree of a kernel, fetched and unpacked on first use; for a path kernel its own tree if complete.
    ///
    /// # Errors
    /// When there is none or the network is away.
    pub fn source_tree(&self, _kernel: &Kernel) -> Result<PathBuf> {
        todo!()
    }
    /// Like [`Cache::source_tree`], but never goes to the network.
    #[must_use]
    pub fn source_tree_if_present(&self, _kernel: &Kernel) -> Option<PathBuf> {
        todo!()
    }
    /// The toolchain that can build for a kernel: the host's compiler when it can, else a minimal root made once.
    ///
    /// # Errors
    /// When neither can be had.
    pub fn toolchain(&self, _kernel: &Kernel) -> Result<Toolchain> {
        todo!()
    }
    /// A command inside the sandbox of a kernel's toolchain: no network, everything read-only but `writable`, cwd `dir`.
    ///
    /// # Errors
    /// When bubblewrap or the toolchain is missing.
    pub fn sandboxed(&self, _kernel: &Kernel, _program: &str, _dir: &Path, _writable: &[&Path]) -> Result<Command> {
        todo!()
    }
    /// The flags kbuild gives any module of this kernel; asked once with an empty module, then kept by content.
    ///
    /// # Errors
    /// When the empty module does not build: the kernel or its toolchain is unusable, with make's words.
    pub fn compile_flags(&self, _kernel: &Kernel) -> Result<CompileFlags> {
        todo!()
    }
    /// `make -C KDIR M=dir modules` in the sandbox; a failed build is `Ok` with `ok: false`.
    ///
    /// # Errors
    /// Only when make could not be run at all.
    pub fn kbuild(&self, _kernel: &Kernel, _dir: &Path, _options: &KbuildOptions) -> Result<Build> {
        todo!()
    }
}
