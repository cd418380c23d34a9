//! make itself, asked what a makefile says: it builds nothing and can write nothing.

use crate::{Error, Result};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// What make printed.
#[derive(Debug)]
pub struct Said {
    /// What the makefile's `$(info …)` printed.
    pub stdout: Vec<u8>,
    /// Its complaints.
    pub stderr: Vec<u8>,
}

impl Said {
    /// make's own words, shortened.
    #[must_use]
    pub fn words(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let lines: Vec<&str> = text.lines().filter(|l| !l.contains("warning:")).collect();
        let from = lines.len().saturating_sub(5);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

/// Runs a makefile that is given as text, in a tree; its goal is `kspan`. Everything is read-only, there is no network, and
/// the environment is empty.
///
/// # Errors
/// make or bubblewrap cannot be run at all, or say nothing.
pub fn evaluate(tree: &Path, script: &str) -> Result<Said> {
    let cannot = |why: std::io::Error| {
        Error::Environment(format!(
            "cannot run make in bubblewrap to read the Makefiles of {}: {why}; install the packages make and bubblewrap",
            tree.display()
        ))
    };
    let mut child = Command::new("bwrap")
        .args([
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--unshare-all",
            "--die-with-parent",
            "--chdir",
        ])
        .arg(tree)
        .args(["make", "--no-print-directory", "-rR", "-f", "-", "kspan"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C")
        .env("TMPDIR", "/dev/shm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    let input = child.stdin.take();
    let out = std::thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(mut pipe) = input {
                // A make that stops early closes the pipe; its own words tell why.
                let _ = pipe.write_all(script.as_bytes());
            }
        });
        child.wait_with_output()
    })
    .map_err(cannot)?;
    let said = Said {
        stdout: out.stdout,
        stderr: out.stderr,
    };
    if said.stdout.is_empty() {
        return Err(Error::Environment(format!(
            "make in bubblewrap said nothing about {}: {}; check that `bwrap --ro-bind / / --unshare-all true` works",
            tree.display(),
            said.words()
        )));
    }
    Ok(said)
}
