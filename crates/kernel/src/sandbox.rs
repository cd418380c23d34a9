//! Commands in a bubblewrap sandbox: no network, nothing writable but what the caller names, a clean environment.

use crate::{Error, Kernel, Result, Toolchain, files};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a sandbox shows.
pub struct View<'a> {
    /// The toolchain whose `/usr` and `/etc` are seen.
    pub root: Option<&'a Path>,
    /// Seen read-only, at their own paths.
    pub readable: Vec<PathBuf>,
    /// Seen and writable, at their own paths.
    pub writable: Vec<PathBuf>,
    /// The working directory.
    pub dir: &'a Path,
}

/// The directories a build on this kernel reads.
pub fn kernel_dirs(kernel: &Kernel) -> Vec<PathBuf> {
    let mut dirs = BTreeSet::new();
    for dir in [&kernel.build_dir, &kernel.source_dir] {
        dirs.insert(dir.clone());
        for link in ["scripts", "tools", "source"] {
            dirs.extend(
                dir.join(link)
                    .canonicalize()
                    .ok()
                    .filter(|p| p.is_dir() && !p.starts_with(dir)),
            );
        }
    }
    dirs.into_iter().collect()
}

/// The command that runs `program` in the sandbox; the caller adds the program's arguments.
pub fn command(view: &View<'_>, program: &str) -> Result<Command> {
    let bwrap = files::find_program("bwrap").ok_or_else(|| {
        Error::Environment("bubblewrap (bwrap) is needed to run builds apart from the system: `apt-get install bubblewrap`".to_owned())
    })?;
    let mut command = Command::new(bwrap);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin")
        .env("LC_ALL", "C");
    command.args([
        "--die-with-parent",
        "--unshare-net",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
    ]);
    system(&mut command, view)?;
    command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
    for path in &view.readable {
        bind(&mut command, "--ro-bind", path)?;
    }
    for path in &view.writable {
        bind(&mut command, "--bind", path)?;
    }
    command.arg("--chdir").arg(view.dir).arg("--").arg(program);
    Ok(command)
}

/// `/usr`, `/etc` and the links or directories beside them.
pub fn system(command: &mut Command, view: &View<'_>) -> Result<()> {
    let root = view.root.unwrap_or(Path::new("/"));
    let wanted: Vec<&Path> = view
        .readable
        .iter()
        .chain(&view.writable)
        .map(PathBuf::as_path)
        .collect();
    for top in ["usr", "etc"] {
        show(command, root, &Path::new("/").join(top), &wanted)?;
    }
    for top in ["bin", "sbin", "lib", "lib64", "lib32", "libx32"] {
        let source = root.join(top);
        let shown = Path::new("/").join(top);
        if let Ok(to) = fs::read_link(&source) {
            command.arg("--symlink").arg(to).arg(shown);
        } else if source.is_dir() {
            command.arg("--ro-bind").arg(source).arg(shown);
        }
    }
    Ok(())
}

/// Shows one directory of the root read-only. Where something must be mounted below it at a place that the root
/// lacks (installed headers in `/usr/src` under another root), it is shown entry by entry instead.
fn show(command: &mut Command, root: &Path, shown: &Path, wanted: &[&Path]) -> Result<()> {
    let source = root.join(shown.strip_prefix("/").unwrap_or(shown));
    let lacks =
        |p: &&Path| p.starts_with(shown) && !root.join(p.strip_prefix("/").unwrap_or(p)).is_dir();
    if !wanted.iter().any(lacks) {
        command.arg("--ro-bind").arg(source).arg(shown);
        return Ok(());
    }
    command.arg("--tmpfs").arg(shown);
    for entry in fs::read_dir(&source).map_err(Error::io(&source))? {
        let entry = entry.map_err(Error::io(&source))?;
        let inner = shown.join(entry.file_name());
        let kind = entry.file_type().map_err(Error::io(&source))?;
        if kind.is_symlink() {
            let to = fs::read_link(entry.path()).map_err(Error::io(&entry.path()))?;
            command.arg("--symlink").arg(to).arg(inner);
        } else if kind.is_dir() {
            show(command, root, &inner, wanted)?;
        } else {
            command.arg("--ro-bind").arg(entry.path()).arg(inner);
        }
    }
    Ok(())
}

/// Binds a directory at the path it was named by and at its canonical one.
fn bind(command: &mut Command, how: &str, path: &Path) -> Result<()> {
    let real = path.canonicalize().map_err(Error::io(path))?;
    let named = std::path::absolute(path).map_err(Error::io(path))?;
    if named != real {
        command.arg(how).arg(&real).arg(named);
    }
    command.arg(how).arg(&real).arg(&real);
    Ok(())
}

/// The view of a kernel's build.
pub fn view<'a>(
    kernel: &Kernel,
    toolchain: &'a Toolchain,
    dir: &'a Path,
    writable: &[&Path],
) -> View<'a> {
    View {
        root: toolchain.root.as_deref(),
        readable: kernel_dirs(kernel),
        writable: writable
            .iter()
            .map(|p| p.to_path_buf())
            .chain([dir.to_path_buf()])
            .collect(),
        dir,
    }
}
