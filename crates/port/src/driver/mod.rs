//! Drivers: the manifest, import from a kernel tree, and which modules a tree holds.
//!
//! Its main functions are [`Driver::load`] and [`SourceTree::import`].

mod capture;
mod import;
mod includes;
mod index;
mod kbuild;
mod makefile;
mod manifest;
mod render;
mod tree;

pub use capture::{Built, capture, freeze_version, version_code};
pub use import::{Import, import};
pub use kbuild::{Kbuild, Statement, init_out_of_tree};
pub use makefile::{DirVars, evaluate, kbuild_file};
pub use manifest::{FILE as MANIFEST_FILE, Manifest, OFF, Origin, Smoke, SmokeEnd};
pub use render::config_macro;
pub use tree::{SourceTree, TreeModule, modules_in_tree, read_config, sample};

use kspan_kernel::{Error, Result};
use std::path::{Path, PathBuf};

/// A driver: the sources of one or more modules, written for one home kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// Its directory, a plain Kbuild directory.
    pub dir: PathBuf,
    /// Its `kspan.toml`.
    pub manifest: Manifest,
}

/// What a build leaves behind; never part of a driver.
const BUILD_SUFFIXES: &[&str] = &[
    ".o", ".ko", ".mod", ".mod.c", ".cmd", ".order", ".symvers", ".a", ".d", ".dwo", ".su",
];

impl Driver {
    /// Opens a driver's directory.
    ///
    /// # Errors
    /// It has no `kspan.toml`, or a malformed one.
    pub fn load(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize().map_err(|source| Error::Io {
            path: dir.to_path_buf(),
            source,
        })?;
        let manifest = Manifest::load(&dir)?;
        Ok(Self { dir, manifest })
    }

    /// All files of the driver, relative to its directory, sorted; hidden files and what a build leaves are not.
    ///
    /// # Errors
    /// A file cannot be read, or a symbolic link leads out of the directory.
    pub fn sources(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let walk = walkdir::WalkDir::new(&self.dir)
            .sort_by_file_name()
            .into_iter();
        for entry in walk
            .filter_entry(|e| e.depth() == 0 || !hidden_or_built(&e.file_name().to_string_lossy()))
        {
            let entry = entry.map_err(|e| Error::Io {
                path: e.path().unwrap_or(&self.dir).to_path_buf(),
                source: e.into(),
            })?;
            // A link that leads nowhere brings nothing (packages link to documentation that stays behind).
            if entry.path_is_symlink() && entry.path().exists() {
                check_inside(&self.dir, entry.path())?;
            }
            if entry.path().is_file()
                && let Ok(relative) = entry.path().strip_prefix(&self.dir)
            {
                found.push(relative.to_path_buf());
            }
        }
        found.sort();
        Ok(found)
    }

    /// A digest over the names and bytes of every file of the driver. Hex.
    ///
    /// # Errors
    /// As [`Driver::sources`].
    pub fn digest(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        for file in self.sources()? {
            let bytes = self.digested(&file)?;
            let name = file.as_os_str().as_encoded_bytes();
            for part in [name, &bytes] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// A file's bytes; of the manifest what a port depends on: how the driver is tried is no part of it.
    fn digested(&self, file: &Path) -> Result<Vec<u8>> {
        if file == Path::new(MANIFEST_FILE) && self.manifest.smoke.is_some() {
            let manifest = Manifest {
                smoke: None,
                ..self.manifest.clone()
            };
            return Ok(manifest.render()?.into_bytes());
        }
        let path = self.dir.join(file);
        std::fs::read(&path).map_err(|source| Error::Io { path, source })
    }
}

/// A hidden file, or one that a build made.
fn hidden_or_built(name: &str) -> bool {
    name.starts_with('.')
        || name == "modules.order"
        || BUILD_SUFFIXES.iter().any(|s| name.ends_with(s))
}

/// Refuses a path that, followed to its end, lies outside a directory; gives the real path.
fn check_inside(root: &Path, path: &Path) -> Result<PathBuf> {
    let real = path.canonicalize().map_err(|source| Error::Io {
        path: path.to_path_buf(),
        source,
    })?;
    let root = root.canonicalize().map_err(|source| Error::Io {
        path: root.to_path_buf(),
        source,
    })?;
    if real.starts_with(&root) {
        return Ok(real);
    }
    Err(Error::Input(format!(
        "{} is a symbolic link that leads out of {} (to {}); replace it by the file itself",
        path.display(),
        root.display(),
        real.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(dir: &Path) -> Driver {
        std::fs::write(
            dir.join("kspan.toml"),
            "name = \"a\"\nhome = \"7.3\"\nmodules = [\"a\"]\n",
        )
        .unwrap();
        std::fs::write(dir.join("Kbuild"), "obj-m += a.o\n").unwrap();
        std::fs::write(dir.join("a.c"), b"int x;\r\n/* \xff */\n").unwrap();
        Driver::load(dir).unwrap()
    }

    #[test]
    fn sources_leave_out_what_a_build_makes() {
        let dir = tempfile::tempdir().unwrap();
        let d = driver(dir.path());
        let before = d.digest().unwrap();
        for name in [
            "a.o",
            "a.ko",
            ".a.o.cmd",
            "Module.symvers",
            "modules.order",
            "a.mod.c",
        ] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        assert_eq!(
            d.sources().unwrap(),
            ["Kbuild", "a.c", "kspan.toml"].map(PathBuf::from)
        );
        assert_eq!(d.digest().unwrap(), before);
        std::fs::write(dir.path().join("a.c"), "int y;").unwrap();
        assert_ne!(d.digest().unwrap(), before);
    }

    #[test]
    fn a_link_out_of_the_driver_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let d = driver(dir.path());
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("b.h")).unwrap();
        assert!(
            d.sources()
                .unwrap_err()
                .to_string()
                .contains("symbolic link")
        );
    }
}
