//! Programs of this machine for the guest: busybox, and what a smoke test names, with the libraries they need.

use crate::qemu::find_program;
use kspan_kernel::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A statically linked busybox and the names it answers to.
pub struct Busybox {
    /// The program.
    pub bytes: Vec<u8>,
    /// Its applets.
    pub applets: Vec<String>,
}

/// Reads busybox.
///
/// # Errors
/// When it is missing or not statically linked.
pub fn busybox() -> Result<Busybox> {
    let advice = "`apt-get install busybox-static`, or run scripts/setup.sh";
    let path = find_program("busybox")
        .ok_or_else(|| Error::Environment(format!("busybox is not in PATH: {advice}")))?;
    if !libraries(&path)?.is_empty() {
        return Err(Error::Environment(format!(
            "{} is not statically linked: {advice}",
            path.display()
        )));
    }
    let listed = Command::new(&path)
        .arg("--list")
        .output()
        .map_err(Error::io(&path))?;
    Ok(Busybox {
        bytes: std::fs::read(&path).map_err(Error::io(&path))?,
        applets: String::from_utf8_lossy(&listed.stdout)
            .lines()
            .filter(|l| !l.is_empty() && *l != "busybox")
            .map(str::to_owned)
            .collect(),
    })
}

/// A program and its libraries: where they lie here; `None` when there is no such program. Those that were built with
/// this one are found beside it.
///
/// # Errors
/// When the loader cannot be asked.
pub fn with_libraries(name: &str) -> Result<Option<Vec<PathBuf>>> {
    let sibling = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name(name));
    let Some(program) = sibling
        .filter(|p| p.is_file())
        .or_else(|| find_program(name))
    else {
        return Ok(None);
    };
    let mut files = libraries(&program)?;
    files.push(program);
    Ok(Some(files))
}

/// The libraries that the loader would open for a program; none when it is static or a script.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let out = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .map_err(Error::io(Path::new("ldd")))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let path = |line: &str| {
        line.split_whitespace()
            .find(|w| w.starts_with('/'))
            .map(PathBuf::from)
    };
    Ok(text.lines().filter_map(path).collect())
}
