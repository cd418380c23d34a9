//! Installs downloaded packages as a kernel of the cache: beside its place first, then renamed, so that a killed run
//! leaves no half kernel.

use crate::record::{Package, Record};
use crate::{Cache, Error, Kernel, Result, archive, files, kernelpath};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What is known of a kernel before it is unpacked.
pub struct Incoming<'a> {
    /// The suite it was found in.
    pub suite: &'a str,
    /// The source package's version.
    pub package_version: &'a str,
    /// `uname -r`.
    pub release: &'a str,
    /// `amd64`, `cloud-amd64`, …
    pub flavour: &'a str,
    /// The packages and where their files lie now.
    pub packages: Vec<(Package, PathBuf)>,
}

/// Unpacks and puts in place; the caller holds the install lock.
pub fn install(cache: &Cache, incoming: &Incoming<'_>) -> Result<Kernel> {
    let id = format!("debian/{}", incoming.release);
    let place = cache.kernel_dir(&id);
    let parent = place.parent().unwrap_or(&place).to_path_buf();
    files::make_dir(&parent)?;
    let temp = tempfile::Builder::new()
        .prefix(".tmp-")
        .tempdir_in(&parent)
        .map_err(Error::io(&parent))?;
    let dir = temp.path().join("kernel");
    for (_, deb) in &incoming.packages {
        archive::unpack_deb(deb, &dir)?;
    }
    archive::make_relocatable(&dir)?;
    let record = describe(incoming, id, &dir)?;
    record.write(&dir)?;
    sync_all(&dir)?;
    files::replace_dir(&dir, &place)?;
    Ok(cache.kernel_of(&place, &record))
}

fn describe(incoming: &Incoming<'_>, id: String, dir: &Path) -> Result<Record> {
    let build_dir = PathBuf::from(format!("usr/src/linux-headers-{}", incoming.release));
    let tree = kernelpath::describe(&dir.join(&build_dir))?;
    let real = dir.canonicalize().map_err(Error::io(dir))?;
    let source_dir = tree.source_dir.strip_prefix(&real).map_err(|_| {
        Error::Input(format!(
            "{id}: its header package names sources outside of itself ({})",
            tree.source_dir.display()
        ))
    })?;
    Ok(Record {
        id,
        release: tree.release,
        version: tree.version,
        arch: tree.arch,
        package_version: incoming.package_version.to_owned(),
        suite: incoming.suite.to_owned(),
        flavour: incoming.flavour.to_owned(),
        build_dir,
        source_dir: source_dir.to_path_buf(),
        packages: incoming.packages.iter().map(|(p, _)| p.clone()).collect(),
    })
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
pub fn sync_all(dir: &Path) -> Result<()> {
    let handle = File::open(dir).map_err(Error::io(dir))?;
    rustix::fs::syncfs(&handle).map_err(|e| Error::io(dir)(e.into()))
}
