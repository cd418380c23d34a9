//! Files that are whole or not there: copies and texts are written beside their place, flushed, then renamed.

use crate::{Result, Stop};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Begins the names of files that a killed run may leave behind. Nothing reads them; they do not end in `.ko`, so depmod does not.
pub const PENDING: &str = ".kspan-new-";

/// `mkdir -p`.
pub fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(Stop::io(dir))
}

/// Asks the disk to remember a directory's entries.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(Stop::io(dir))
}

/// Where a file waits until it is whole.
fn pending(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{PENDING}{name}"))
}

/// Copies a file to its place: whole or not at all. The caller flushes the directory.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let staged = stage(from, to)?;
    rename(&staged, to)
}

/// Copies a file beside its place, flushed, and says where it waits.
pub fn stage(from: &Path, to: &Path) -> Result<PathBuf> {
    let staged = pending(to);
    let copied = fs::remove_file(&staged)
        .or_else(|e| {
            if e.kind() == std::io::ErrorKind::NotFound {
                Ok(())
            } else {
                Err(e)
            }
        })
        .and_then(|()| fs::copy(from, &staged))
        .and_then(|_| File::open(&staged)?.sync_all());
    if let Err(error) = copied {
        let _ = fs::remove_file(&staged);
        return Err(Stop::io(to)(error));
    }
    Ok(staged)
}

/// A hard link beside a place; none where the file systems differ or have no links.
pub fn stage_link(from: &Path, to: &Path) -> Option<PathBuf> {
    let staged = pending(to);
    remove_file(&staged).ok()?;
    fs::hard_link(from, &staged).ok()?;
    Some(staged)
}

/// A text beside its place, flushed.
pub fn stage_text(text: &str, place: &Path) -> Result<PathBuf> {
    if let Some(dir) = place.parent() {
        make_dir(dir)?;
    }
    let staged = pending(place);
    let written = File::create(&staged).and_then(|mut f| {
        f.write_all(text.as_bytes())?;
        f.sync_all()
    });
    if let Err(error) = written {
        let _ = fs::remove_file(&staged);
        return Err(Stop::io(place)(error));
    }
    Ok(staged)
}

/// A symbolic link beside its place.
pub fn stage_symlink(target: &Path, place: &Path) -> Result<PathBuf> {
    if let Some(dir) = place.parent() {
        make_dir(dir)?;
    }
    let staged = pending(place);
    remove_file(&staged)?;
    std::os::unix::fs::symlink(target, &staged).map_err(Stop::io(place))?;
    Ok(staged)
}

/// Puts a symbolic link in its place, over whatever file is there.
pub fn link(target: &Path, place: &Path) -> Result<()> {
    let staged = stage_symlink(target, place)?;
    rename(&staged, place)?;
    place.parent().map_or(Ok(()), sync_dir)
}

/// `rename`, with the place in the error.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Stop::io(to))
}

/// Writes a text whole or not at all, and flushes it.
pub fn write(path: &Path, text: &[u8]) -> Result<()> {
    write_quietly(path, text).map_err(Stop::io(path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// The same without flushing the directory, for what may be lost.
pub fn write_quietly(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut file = tempfile::Builder::new().prefix(PENDING).tempfile_in(dir)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    use std::os::unix::fs::PermissionsExt;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

/// `rm -f`.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Stop::io(path)(e)),
        _ => Ok(()),
    }
}

/// `rm -rf`.
pub fn remove_tree(path: &Path) -> Result<()> {
    let is_dir = path.symlink_metadata().is_ok_and(|m| m.is_dir());
    let done = if is_dir {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match done {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Stop::io(path)(e)),
        _ => Ok(()),
    }
}

/// `cp -a DIR/. PLACE`: links stay links, modes and times are kept.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let root = from.canonicalize().map_err(Stop::io(from))?;
    make_dir(to)?;
    for entry in walkdir::WalkDir::new(&root).min_depth(1) {
        let entry = entry.map_err(|e| Stop::io(from)(e.into()))?;
        let place = to.join(entry.path().strip_prefix(&root).unwrap_or(entry.path()));
        copy_entry(&entry, &place).map_err(Stop::io(entry.path()))?;
    }
    Ok(())
}

/// Removes the links in a copied tree that lead out of it: what they led to did not come along.
pub fn drop_links_out(tree: &Path) -> Result<()> {
    let root = tree.canonicalize().map_err(Stop::io(tree))?;
    for entry in walkdir::WalkDir::new(&root) {
        let entry = entry.map_err(|e| Stop::io(tree)(e.into()))?;
        let leads_in = || {
            entry
                .path()
                .canonicalize()
                .is_ok_and(|p| p.starts_with(&root))
        };
        if entry.path_is_symlink() && !leads_in() {
            fs::remove_file(entry.path()).map_err(Stop::io(entry.path()))?;
        }
    }
    Ok(())
}

fn copy_entry(entry: &walkdir::DirEntry, place: &Path) -> std::io::Result<()> {
    let kind = entry.file_type();
    if kind.is_dir() {
        fs::create_dir_all(place)?;
        return fs::set_permissions(place, entry.metadata()?.permissions());
    }
    if place.symlink_metadata().is_ok() {
        fs::remove_file(place)?;
    }
    if kind.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(entry.path())?, place);
    }
    if kind.is_file() {
        fs::copy(entry.path(), place)?;
        let modified = entry.metadata()?.modified()?;
        // make compares times; who cannot set them (another owner) builds a little more.
        let _ = File::options()
            .write(true)
            .open(place)
            .and_then(|f| f.set_modified(modified));
    }
    Ok(())
}

/// Are the contents of two files the same? A file that cannot be read is like no other.
pub fn same(a: &Path, b: &Path) -> bool {
    let (Ok(x), Ok(y)) = (fs::metadata(a), fs::metadata(b)) else {
        return false;
    };
    x.len() == y.len() && matches!((fs::read(a), fs::read(b)), (Ok(x), Ok(y)) if x == y)
}

/// Names of the entries of a directory, sorted, without hidden ones; none for a directory that cannot be read.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|n| !n.starts_with('.'))
        .collect();
    names.sort_unstable();
    names
}

/// Flushes every file under a directory, and the directories.
pub fn sync_tree(dir: &Path) -> Result<()> {
    for entry in walkdir::WalkDir::new(dir).contents_first(true) {
        let entry = entry.map_err(|e| Stop::io(dir)(e.into()))?;
        if entry.file_type().is_file() || entry.file_type().is_dir() {
            sync_dir(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_fails_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a.ko");
        std::fs::write(&place, "old").unwrap();
        assert!(copy(&dir.path().join("missing"), &place).is_err());
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "old");
        assert_eq!(names(dir.path()), ["a.ko"]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn links_that_lead_out_of_a_tree_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, out) = (dir.path().join("tree"), dir.path().join("out"));
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(&out, "").unwrap();
        std::fs::write(tree.join("x"), "").unwrap();
        for (to, name) in [("nowhere", "a"), ("../out", "b"), ("x", "c")] {
            std::os::unix::fs::symlink(to, tree.join(name)).unwrap();
        }
        drop_links_out(&tree).unwrap();
        assert_eq!(names(&tree), ["c", "x"]);
        assert!(out.exists());
    }

    #[test]
    fn a_tree_is_copied_with_its_links_and_modes() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("d")).unwrap();
        std::fs::write(from.join("d/x"), "x").unwrap();
        std::fs::set_permissions(from.join("d/x"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("nowhere", from.join("l")).unwrap();
        copy_tree(&from, &to).unwrap();
        assert_eq!(
            std::fs::metadata(to.join("d/x"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o755
        );
        assert_eq!(
            std::fs::read_link(to.join("l")).unwrap(),
            Path::new("nowhere")
        );
    }
}
