//! What the cache remembers of a fetched kernel: `kernel.json`, written last, so that its presence means "complete".

use crate::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The file's name in a kernel's directory.
pub const FILE: &str = "kernel.json";

/// One package a kernel was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture (`amd64`, `all`).
    pub architecture: String,
    /// Where it lies below the mirror's base.
    pub filename: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
}

/// What is remembered of a fetched kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `debian/6.1.0-56-amd64`.
    pub id: String,
    /// `uname -r`.
    pub release: String,
    /// The upstream version.
    pub version: String,
    /// The kernel's name for the architecture.
    pub arch: String,
    /// The source package's version, `6.1.192-2`.
    pub package_version: String,
    /// The suite that it was found in, `bookworm-security`.
    pub suite: String,
    /// The flavour, `amd64`, `cloud-amd64`, `rt-amd64`.
    pub flavour: String,
    /// KDIR, relative to the kernel's directory.
    pub build_dir: PathBuf,
    /// The common headers, relative to the kernel's directory.
    pub source_dir: PathBuf,
    /// The packages it was unpacked from.
    pub packages: Vec<Package>,
    /// The package with the full source tree, fetched on demand.
    #[serde(default)]
    pub source: Option<Package>,
    /// The packages with the kernel's image and modules, fetched on demand.
    #[serde(default)]
    pub images: Vec<Package>,
}

impl Record {
    /// Every package that the record names.
    pub fn all_packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().chain(&self.source).chain(&self.images)
    }

    /// Reads the record of a kernel's directory.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let text = files::read_text(&path)?;
        serde_json::from_str(&text).map_err(|e| {
            Error::Input(format!(
                "{}: not a kernel record ({e}); remove {} and fetch it again",
                path.display(),
                dir.display()
            ))
        })
    }

    /// Writes the record into a kernel's directory.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::Input(format!("kernel record: {e}")))?;
        files::write_atomic(&dir.join(FILE), text.as_bytes())
    }
}
