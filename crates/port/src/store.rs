//! What the engine keeps on disk: JSON records by content key, and copies of a driver's tree. Whole or not at all.

use crate::{Error, Result, driver::Driver};
use std::io::Write;
use std::path::Path;

/// A key made of the contents that decide a result.
#[must_use]
pub fn key(parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..24].to_owned()
}

/// The record in a file; `None` when there is none or it is damaged, so that it is made anew.
#[must_use]
pub fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Writes a record whole: a temporary file beside it, fsync, rename.
///
/// # Errors
/// When the disk refuses.
pub fn write<T: serde::Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec(value)
        .map_err(|e| Error::Internal(format!("{}: {e}", path.display())))?;
    write_bytes(path, &bytes)
}

/// Writes bytes whole: a temporary file beside the place, fsync, rename.
///
/// # Errors
/// When the disk refuses.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(|e| Error::io(dir, e))?;
    file.write_all(bytes).map_err(|e| Error::io(path, e))?;
    file.as_file().sync_all().map_err(|e| Error::io(path, e))?;
    file.persist(path).map_err(|e| Error::io(path, e.error))?;
    Ok(())
}

/// Moves a finished directory to its place; what stood there goes.
///
/// # Errors
/// When the disk refuses.
pub fn replace_dir(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to).map_err(|e| Error::io(to, e))?;
    }
    std::fs::rename(from, to).map_err(|e| Error::io(to, e))
}

/// Copies a driver's files to an empty directory; what stood there (a killed run's rest) goes first.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy_tree(driver: &Driver, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to).map_err(|e| Error::io(to, e))?;
    }
    for file in driver.sources()? {
        let target = to.join(&file);
        let dir = target.parent().unwrap_or(to);
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        std::fs::copy(driver.dir.join(&file), &target).map_err(|e| Error::io(&target, e))?;
    }
    Ok(())
}
