//! From a package's file to a directory: the tar inside, and the one edit that makes header packages relocatable.

use crate::{Error, Result, deb, files};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// How an unpacked header package's Makefile names its own directory, wherever it lies.
pub const OWN_DIRECTORY: &str = "$(abspath $(dir $(lastword $(MAKEFILE_LIST)))";

/// Unpacks the data of a `.deb` under `dest`.
pub fn unpack_deb(package: &Path, dest: &Path) -> Result<()> {
    let file = File::open(package).map_err(Error::io(package))?;
    let data = deb::data_member(file).map_err(|why| broken(package, &why))?;
    unpack_tar(data, dest, package, 0)
}

fn broken(package: &Path, why: &str) -> Error {
    Error::Input(format!(
        "{}: not a usable Debian package: {why}; remove it and fetch again",
        package.display()
    ))
}

/// Unpacks a tar stream; `strip` leading directories are dropped. Nothing may leave `dest`.
pub fn unpack_tar(stream: impl Read, dest: &Path, origin: &Path, strip: usize) -> Result<()> {
    files::make_dir(dest)?;
    let mut archive = tar::Archive::new(stream);
    archive.set_preserve_mtime(true);
    archive.set_overwrite(true);
    for entry in archive.entries().map_err(Error::io(origin))? {
        let mut entry = entry.map_err(|e| damaged(origin, &e))?;
        let name = entry.path().map_err(|e| damaged(origin, &e))?.into_owned();
        let Some(inner) = stripped(&name, strip).map_err(|why| broken(origin, &why))? else {
            continue;
        };
        unpack_entry(&mut entry, dest, &inner, origin)?;
    }
    Ok(())
}

fn damaged(origin: &Path, error: &std::io::Error) -> Error {
    Error::Input(format!(
        "{}: damaged or cut short ({error}); remove it and fetch again",
        origin.display()
    ))
}

/// The path below the destination, `None` for what stripping leaves empty.
fn stripped(name: &Path, strip: usize) -> std::result::Result<Option<PathBuf>, String> {
    let mut inner = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => inner.push(part),
            Component::CurDir => {}
            _ => {
                return Err(format!(
                    "it holds the path {}, which leaves the destination",
                    name.display()
                ));
            }
        }
    }
    let inner: PathBuf = inner.components().skip(strip).collect();
    Ok((!inner.as_os_str().is_empty()).then_some(inner))
}

fn unpack_entry<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    dest: &Path,
    inner: &Path,
    origin: &Path,
) -> Result<()> {
    use tar::EntryType;
    let target = dest.join(inner);
    refuse_symlinked_parent(dest, inner, origin)?;
    match entry.header().entry_type() {
        EntryType::Directory => files::make_dir(&target),
        EntryType::Symlink => link(entry, dest, inner, origin),
        EntryType::Regular | EntryType::Continuous => {
            if let Some(parent) = target.parent() {
                files::make_dir(parent)?;
            }
            entry
                .unpack(&target)
                .map(drop)
                .map_err(|e| Error::io(&target)(root_cause(e)))
        }
        EntryType::Link => hard_link(entry, dest, &target, origin),
        _ => Ok(()),
    }
}

/// `tar` wraps the operating system's error; a full disk must be recognised.
fn root_cause(error: std::io::Error) -> std::io::Error {
    use std::error::Error as _;
    let inner = error
        .source()
        .and_then(|e| e.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind);
    match inner {
        Some(kind) => std::io::Error::new(kind, error.to_string()),
        None => error,
    }
}

/// A symlink unpacked earlier must not carry a later file elsewhere.
fn refuse_symlinked_parent(dest: &Path, inner: &Path, origin: &Path) -> Result<()> {
    let mut path = dest.to_path_buf();
    for part in inner.parent().unwrap_or(Path::new("")).components() {
        path.push(part);
        if path.is_symlink() {
            return Err(broken(
                origin,
                &format!(
                    "{} would be written through a symbolic link",
                    inner.display()
                ),
            ));
        }
    }
    Ok(())
}

/// Makes a symlink if it stays inside; an absolute one (documentation, `/lib/modules/*/build`) is left out.
fn link<R: Read>(
    entry: &tar::Entry<'_, R>,
    dest: &Path,
    inner: &Path,
    origin: &Path,
) -> Result<()> {
    let Some(to) = entry.link_name().map_err(|e| damaged(origin, &e))? else {
        return Ok(());
    };
    if to.is_absolute() {
        return Ok(());
    }
    if leaves(inner, &to) {
        return Err(broken(
            origin,
            &format!(
                "the symbolic link {} leads outside ({})",
                inner.display(),
                to.display()
            ),
        ));
    }
    let target = dest.join(inner);
    if let Some(parent) = target.parent() {
        files::make_dir(parent)?;
    }
    if target.is_symlink() {
        fs::remove_file(&target).map_err(Error::io(&target))?;
    }
    std::os::unix::fs::symlink(&to, &target).map_err(Error::io(&target))
}

/// Does a relative link from `inner` climb above the destination?
fn leaves(inner: &Path, to: &Path) -> bool {
    let mut depth = inner.components().count() as i64 - 1;
    for component in to.components() {
        depth += match component {
            Component::ParentDir => -1,
            Component::Normal(_) => 1,
            _ => 0,
        };
        if depth < 0 {
            return true;
        }
    }
    false
}

fn hard_link<R: Read>(
    entry: &tar::Entry<'_, R>,
    dest: &Path,
    target: &Path,
    origin: &Path,
) -> Result<()> {
    let name = entry
        .link_name()
        .map_err(|e| damaged(origin, &e))?
        .unwrap_or_default();
    let Some(inner) = stripped(&name, 0).map_err(|why| broken(origin, &why))? else {
        return Ok(());
    };
    refuse_symlinked_parent(dest, &inner, origin)?;
    fs::hard_link(dest.join(inner), target).map_err(Error::io(target))
}

/// Rewrites `/usr/src/…` in the Makefiles of unpacked header packages, so that the tree works wherever it lies.
pub fn make_relocatable(root: &Path) -> Result<()> {
    let src = root.join("usr/src");
    for entry in fs::read_dir(&src).map_err(Error::io(&src))? {
        let dir = entry.map_err(Error::io(&src))?.path();
        let makefile = dir.join("Makefile");
        let is_stub = makefile
            .metadata()
            .is_ok_and(|m| m.is_file() && m.len() < 4096);
        if !is_stub || dir.is_symlink() {
            continue;
        }
        let text = files::read_text(&makefile)?;
        let own = dir.file_name().unwrap_or_default().to_string_lossy();
        let relative = relocatable(&text, &own);
        if relative != text {
            files::write_atomic(&makefile, relative.as_bytes())?;
        }
    }
    Ok(())
}

fn relocatable(makefile: &str, own: &str) -> String {
    let rewrite = |word: &str| match word.strip_prefix("/usr/src/") {
        Some(rest) => match rest.split_once('/') {
            Some((package, file)) => format!("{OWN_DIRECTORY}/../{package})/{file}"),
            None if rest == own => format!("{OWN_DIRECTORY})"),
            None => format!("{OWN_DIRECTORY}/../{rest})"),
        },
        None => word.to_owned(),
    };
    let line = |l: &str| match l.split_once("/usr/src/") {
        Some((before, rest)) => format!(
            "{}{}",
            at_once(before),
            rewrite(&format!("/usr/src/{}", rest.trim_end()))
        ),
        None => l.to_owned(),
    };
    makefile.lines().map(|l| line(l) + "\n").collect()
}

/// `VAR=` becomes `VAR:=`: the name of the Makefile being read is only true while it is read.
fn at_once(before: &str) -> String {
    match before.trim_end().strip_suffix('=') {
        Some(name) if !name.ends_with([':', '?', '+', '!']) => format!("{name}:="),
        _ => before.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_makefiles_become_relocatable() {
        let text = "KBUILD_OUTPUT=/usr/src/linux-headers-7.3\ninclude /usr/src/linux-headers-7.3-common/Makefile\n";
        assert_eq!(
            relocatable(text, "linux-headers-7.3"),
            "KBUILD_OUTPUT:=$(abspath $(dir $(lastword $(MAKEFILE_LIST))))\n\
             include $(abspath $(dir $(lastword $(MAKEFILE_LIST)))/../linux-headers-7.3-common)/Makefile\n"
        );
    }

    #[test]
    fn paths_that_leave_are_refused() {
        assert!(stripped(Path::new("../x"), 0).is_err());
        assert!(stripped(Path::new("/etc/x"), 0).is_err());
        assert_eq!(
            stripped(Path::new("./a/b"), 1),
            Ok(Some(PathBuf::from("b")))
        );
        assert!(leaves(Path::new("a/b"), Path::new("../../x")));
        assert!(!leaves(
            Path::new("usr/src/a/scripts"),
            Path::new("../../lib/k/scripts")
        ));
    }

    #[test]
    fn a_file_through_a_symlink_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        builder.append_link(&mut link, "a", "b").unwrap();
        let mut file = tar::Header::new_gnu();
        file.set_size(1);
        file.set_mode(0o644);
        builder.append_data(&mut file, "a/x", &b"x"[..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        let error = unpack_tar(&bytes[..], dir.path(), Path::new("p.deb"), 0).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }
}
