//! Installs downloaded packages as a kernel of the cache: beside its place first, then renamed, so that a killed run
//! leaves no half kernel.

use crate::record::Record;
use crate::{Cache, Error, Kernel, Result, archive, files, kernelpath};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Unpacks and puts in place; `wish` says what and where from. The caller holds the install lock.
pub fn install(cache: &Cache, wish: &Record, debs: &[PathBuf]) -> Result<Kernel> {
    let place = cache.kernel_dir(&wish.id);
    let parent = place.parent().unwrap_or(&place).to_path_buf();
    files::make_dir(&parent)?;
    let temp = tempfile::Builder::new()
        .prefix(".tmp-")
        .tempdir_in(&parent)
        .map_err(Error::io(&parent))?;
    let dir = temp.path().join("kernel");
    for deb in debs {
        archive::unpack_deb(deb, &dir)?;
    }
    archive::make_relocatable(&dir)?;
    let record = describe(wish, &dir)?;
    record.write(&dir)?;
    sync_all(&dir)?;
    files::replace_dir(&dir, &place)?;
    Ok(cache.kernel_of(&place, &record))
}

/// Completes the record with what the unpacked tree says.
fn describe(wish: &Record, dir: &Path) -> Result<Record> {
    let build_dir = PathBuf::from(format!("usr/src/linux-headers-{}", wish.release));
    let tree = kernelpath::describe(&dir.join(&build_dir))?;
    let real = dir.canonicalize().map_err(Error::io(dir))?;
    let source_dir = tree.source_dir.strip_prefix(&real).map_err(|_| {
        Error::Input(format!(
            "{}: its header package names sources outside of itself ({})",
            wish.id,
            tree.source_dir.display()
        ))
    })?;
    if tree.release != wish.release {
        return Err(Error::Input(format!(
            "{}: its header package is for {}",
            wish.id, tree.release
        )));
    }
    Ok(Record {
        version: tree.version,
        arch: tree.arch,
        build_dir,
        source_dir: source_dir.to_path_buf(),
        ..wish.clone()
    })
}

/// Unpacks image and module packages side by side.
pub fn install_image(debs: &[PathBuf], place: &Path) -> Result<()> {
    let parent = place.parent().unwrap_or(place);
    files::make_dir(parent)?;
    let temp = tempfile::Builder::new()
        .prefix(".tmp-")
        .tempdir_in(parent)
        .map_err(Error::io(parent))?;
    let dir = temp.path().join("image");
    for deb in debs {
        archive::unpack_deb(deb, &dir)?;
    }
    sync_all(&dir)?;
    files::replace_dir(&dir, place)
}

/// Unpacks a source package: the tree inside its `linux-source-*.tar.xz`.
pub fn install_source(deb: &Path, place: &Path) -> Result<()> {
    let parent = place.parent().unwrap_or(place);
    files::make_dir(parent)?;
    let temp = tempfile::Builder::new()
        .prefix(".tmp-")
        .tempdir_in(parent)
        .map_err(Error::io(parent))?;
    let outer = temp.path().join("package");
    archive::unpack_deb(deb, &outer)?;
    let inner = source_archive(&outer)?;
    let file = File::open(&inner).map_err(Error::io(&inner))?;
    let name = inner.file_name().unwrap_or_default().to_string_lossy();
    let stream = crate::deb::decompress(&name, file).map_err(Error::Input)?;
    let tree = temp.path().join("tree");
    archive::unpack_tar(stream, &tree, &inner, 1)?;
    if !kernelpath::is_full_source(&tree) {
        return Err(Error::Input(format!(
            "{}: holds no full kernel source tree",
            deb.display()
        )));
    }
    sync_all(&tree)?;
    files::replace_dir(&tree, place)
}

fn source_archive(package: &Path) -> Result<PathBuf> {
    let dir = package.join("usr/src");
    let entries = fs::read_dir(&dir).map_err(Error::io(&dir))?;
    let is_tree = |p: &PathBuf| {
        let name = p.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("linux-source-") && name.contains(".tar")
    };
    let found = entries.flatten().map(|e| e.path()).find(is_tree);
    found.ok_or_else(|| {
        Error::Input(format!(
            "{}: the source package holds no linux-source-*.tar.*",
            dir.display()
        ))
    })
}

/// One `syncfs` for tens of thousands of files: far cheaper than an fsync for each.
fn sync_all(dir: &Path) -> Result<()> {
    let handle = File::open(dir).map_err(Error::io(dir))?;
    rustix::fs::syncfs(&handle).map_err(|e| Error::io(dir)(e.into()))
}
