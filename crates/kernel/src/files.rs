//! Files written whole or not at all, content hashes, locks.

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Writes a file through a temporary one in the same directory, so that a reader sees the old or the new, never half.
pub fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    make_dir(dir)?;
    let mut temp = tempfile::NamedTempFile::new_in(dir).map_err(Error::io(dir))?;
    temp.write_all(content).map_err(Error::io(path))?;
    temp.as_file().sync_all().map_err(Error::io(path))?;
    temp.persist(path).map_err(|e| Error::io(path)(e.error))?;
    Ok(())
}

/// `create_dir_all` with the path in the error.
pub fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io(dir))
}

/// A whole file as text; bytes that are not UTF-8 are replaced.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// BLAKE3 of a file.
pub fn hash_file(path: &Path) -> Result<blake3::Hash> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&mut file).map_err(Error::io(path))?;
    Ok(hasher.finalize())
}

/// Hashes every regular file under a directory, names and contents, in a fixed order.
pub fn hash_tree(dir: &Path, hasher: &mut blake3::Hasher) -> Result<()> {
    for entry in walkdir::WalkDir::new(dir).sort_by_file_name() {
        let entry = entry.map_err(|e| walk_error(dir, e))?;
        if !entry.file_type().is_file() {
            continue;
        }
        let name = entry.path().strip_prefix(dir).unwrap_or(entry.path());
        hasher.update(name.as_os_str().as_encoded_bytes());
        let mut content = Vec::new();
        File::open(entry.path())
            .and_then(|mut f| f.read_to_end(&mut content))
            .map_err(Error::io(entry.path()))?;
        hasher.update(&(content.len() as u64).to_le_bytes());
        hasher.update(&content);
    }
    Ok(())
}

fn walk_error(dir: &Path, error: walkdir::Error) -> Error {
    let path = error.path().unwrap_or(dir).to_path_buf();
    Error::io(&path)(error.into())
}

/// Bytes that the files under a directory hold; what cannot be read counts nothing.
pub fn tree_size(dir: &Path) -> u64 {
    walkdir::WalkDir::new(dir)
        .into_iter()
        .flatten()
        .filter(|e| e.file_type().is_file())
        .filter_map(|e| e.metadata().ok())
        .map(|m| m.len())
        .sum()
}

/// Removes a file.
pub fn remove_file(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(Error::io(path))
}

/// Removes a directory tree; one that is not there is fine.
pub fn remove_tree(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(dir)(e)),
        _ => Ok(()),
    }
}

/// Puts a finished directory in its place; what was there is moved aside first and then removed.
pub fn replace_dir(new: &Path, place: &Path) -> Result<()> {
    let parent = place.parent().unwrap_or(Path::new("."));
    make_dir(parent)?;
    if place.exists() {
        let aside = tempfile::Builder::new()
            .prefix(".tmp-old-")
            .tempdir_in(parent)
            .map_err(Error::io(parent))?;
        fs::rename(place, aside.path().join("old")).map_err(Error::io(place))?;
        fs::rename(new, place).map_err(Error::io(place))?;
        return remove_tree(aside.path());
    }
    fs::rename(new, place).map_err(Error::io(place))?;
    sync_dir(parent)
}

/// Asks the disk to remember a directory's entries.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(Error::io(dir))
}

/// Takes an exclusive lock that ends with the returned file; waits for whoever holds it.
pub fn lock(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(Error::io(path))?;
    file.lock().map_err(Error::io(path))?;
    Ok(file)
}

/// The first executable of this name in the directories of `$PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin:/usr/sbin:/sbin".into());
    std::env::split_paths(&path)
        .map(|d| d.join(name))
        .find(|p| p.is_file())
}
