//! A shell command in a sandbox of the whole host, read-only: how a package's own build commands and configuration run.
//!
//! Unlike [`crate::Kernel::kbuild`], which shows a build only what a kernel needs, a package's `MAKE=` line may be any
//! command of the host. It sees all of the host but writes only where the caller says, has no network and no capabilities.

use crate::{Error, Result, files};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

/// A writable directory of the sandbox: what lies at `real` is seen at `shown`.
#[derive(Debug, Clone)]
pub struct Mount {
    /// The directory on the host.
    pub real: PathBuf,
    /// Its place inside.
    pub shown: PathBuf,
}

/// Where a root's programs are.
pub const USUAL_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// One run of bash.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// What bash is given with `-c`.
    pub text: String,
    /// `$1`, `$2`, …
    pub arguments: Vec<OsString>,
    /// The working directory, as seen inside.
    pub dir: PathBuf,
    /// Set in the environment beside what is inherited.
    pub environment: Vec<(OsString, OsString)>,
    /// Removed from the inherited environment.
    pub removed: Vec<OsString>,
    /// Writable directories.
    pub writable: Vec<Mount>,
    /// Directories that must be seen although they lie under `/tmp`, which is a fresh one inside.
    pub readable: Vec<PathBuf>,
    /// Killed after this time.
    pub limit: Option<Duration>,
    /// The root whose `/usr` and `/etc` are used (`/` for this machine's own): then of the rest only `readable`, `writable` and
    /// `placed` directories are seen, and a sandbox is a must.
    pub root: Option<PathBuf>,
    /// With a root: links to directories that are seen. Links, as an installed kernel has them: headers find one another from
    /// where they really lie.
    pub placed: Vec<Mount>,
    /// Job tokens that every make in the script shares with others. The caller holds one for the script.
    pub jobserver: Option<jobserver::Client>,
}

/// How a script ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The exit status; 128 + the signal's number for one that was killed.
    pub status: i32,
    /// stdout (and stderr, if both went to one place it was not captured).
    pub stdout: Vec<u8>,
    /// stderr.
    pub stderr: Vec<u8>,
    /// It was killed at the time limit.
    pub late: bool,
    /// What bubblewrap said when it could not make a sandbox, and the script ran without one.
    pub unprotected: Option<String>,
}

/// Where output goes.
#[derive(Debug)]
pub enum Output<'a> {
    /// Into [`Ended`]. Cut at 16 MB each.
    Capture,
    /// stdout and stderr are appended to one file.
    Append(&'a File),
}

const CAPTURE_LIMIT: u64 = 16 << 20;

/// Runs a script in the sandbox. On a machine where no sandbox can be made (no bubblewrap, a chroot that forbids mounts) it
/// runs without one, and [`Ended::unprotected`] says why: a package manager's hooks must work there too.
///
/// # Errors
/// When bash cannot be started, or output cannot be read.
pub fn run_script(script: &Script, output: &Output<'_>) -> Result<Ended> {
    let bwrap = files::find_program("bwrap");
    if bwrap.is_none() && script.root.is_some() {
        return Err(Error::Environment(
            "bubblewrap (bwrap) is needed to build with another root's compiler: `apt-get install bubblewrap`".to_owned(),
        ));
    }
    let Some(bwrap) = bwrap else {
        let mut ended = run(plain(script), script.limit, output)?;
        ended.unprotected = Some("bubblewrap (bwrap) is not installed".to_owned());
        return Ok(ended);
    };
    let mark = length(output);
    let ended = run(sandboxed(script, &bwrap)?, script.limit, output)?;
    match refusal(&ended, output, mark) {
        None => Ok(ended),
        Some(words) if script.root.is_some() => Err(Error::Environment(format!(
            "the sandbox with another root's compiler cannot be made: {words}"
        ))),
        Some(words) => {
            rewind(output, mark);
            let mut ended = run(plain(script), script.limit, output)?;
            ended.unprotected = Some(words);
            Ok(ended)
        }
    }
}

fn length(output: &Output<'_>) -> u64 {
    match output {
        Output::Append(file) => file.metadata().map(|m| m.len()).unwrap_or_default(),
        Output::Capture => 0,
    }
}

fn rewind(output: &Output<'_>, mark: u64) {
    if let Output::Append(file) = output {
        // A log with two lines too many does no harm.
        let _ = file.set_len(mark);
    }
}

/// bubblewrap's own complaint, when it is all that came.
fn refusal(ended: &Ended, output: &Output<'_>, mark: u64) -> Option<String> {
    if ended.status != 1 {
        return None;
    }
    let text = match output {
        Output::Capture => ended.stderr.clone(),
        Output::Append(file) => tail(file, mark).unwrap_or_default(),
    };
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines();
    let first = lines.next()?.strip_prefix("bwrap: ")?.to_owned();
    lines.next().is_none().then_some(first)
}

fn tail(file: &File, mark: u64) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 4096];
    let n = file.read_at(&mut buffer, mark)?;
    buffer.truncate(n);
    Ok(buffer)
}

fn sandboxed(script: &Script, bwrap: &Path) -> Result<Command> {
    let mut command = Command::new(bwrap);
    command.args([
        "--die-with-parent",
        "--unshare-net",
        "--unshare-pid",
        "--unshare-ipc",
        "--cap-drop",
        "ALL",
    ]);
    match &script.root {
        Some(root) => other_root(&mut command, script, root)?,
        None => drop(command.args(["--ro-bind", "/", "/"])),
    }
    command.args(["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]);
    for path in script.readable.iter() {
        if script.root.is_some() || path.starts_with("/tmp") {
            command.arg("--ro-bind-try").arg(path).arg(path);
        }
    }
    for mount in script.placed.iter().filter(|_| script.root.is_some()) {
        command.arg("--symlink").arg(&mount.real).arg(&mount.shown);
    }
    for mount in &script.writable {
        command.arg("--bind").arg(&mount.real).arg(&mount.shown);
    }
    command.arg("--setenv").arg("TMPDIR").arg("/tmp");
    command
        .arg("--chdir")
        .arg(&script.dir)
        .args(["--", "/bin/bash"]);
    finish(&mut command, script);
    Ok(command)
}

/// The programs of another root; what is shown besides must not lie where that root has something else.
fn other_root(command: &mut Command, script: &Script, root: &Path) -> Result<()> {
    let view = crate::sandbox::View {
        root: Some(root),
        readable: script
            .readable
            .iter()
            .cloned()
            .chain(script.placed.iter().map(|m| m.shown.clone()))
            .collect(),
        writable: script.writable.iter().map(|m| m.shown.clone()).collect(),
        dir: &script.dir,
    };
    crate::sandbox::system(command, &view)?;
    // The caller's PATH is this machine's.
    let given = script.environment.iter().rev().find(|(k, _)| k == "PATH");
    let path = given.map_or(OsStr::new(USUAL_PATH), |(_, v)| v.as_os_str());
    command.args(["--setenv", "PATH"]).arg(path);
    Ok(())
}

fn plain(script: &Script) -> Command {
    let mut command = Command::new("/bin/bash");
    command.current_dir(&script.dir);
    finish(&mut command, script);
    command
}

fn finish(command: &mut Command, script: &Script) {
    command.arg("-c").arg(&script.text).arg("bash");
    command.args(&script.arguments);
    for name in &script.removed {
        command.env_remove(name);
    }
    command.envs(script.environment.iter().map(|(k, v)| (k, v)));
    if let Some(pool) = &script.jobserver {
        share(command, script, pool);
    }
}

/// The pool's flags before the variables that the caller sets by `MAKEFLAGS`.
fn share(command: &mut Command, script: &Script, pool: &jobserver::Client) {
    pool.configure_make(command);
    let given = script
        .environment
        .iter()
        .rev()
        .find(|(k, _)| k == "MAKEFLAGS");
    let ours = command
        .get_envs()
        .find_map(|(k, v)| (k == "MAKEFLAGS").then(|| v.map(OsString::from)));
    if let (Some((_, given)), Some(Some(mut all))) = (given, ours) {
        all.push(" -- ");
        all.push(given);
        command.env("MAKEFLAGS", all);
    }
}

fn run(mut command: Command, limit: Option<Duration>, output: &Output<'_>) -> Result<Ended> {
    let trouble = |e| Error::Environment(format!("bash cannot be run: {e}"));
    command.stdin(Stdio::null());
    match output {
        Output::Capture => command.stdout(Stdio::piped()).stderr(Stdio::piped()),
        Output::Append(file) => command
            .stdout(file.try_clone().map_err(trouble)?)
            .stderr(file.try_clone().map_err(trouble)?),
    };
    let mut child = command.spawn().map_err(trouble)?;
    drop(command);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let child = Mutex::new(child);
    let (late, stdout, stderr) = std::thread::scope(|scope| {
        let (done, watch) = mpsc::channel::<()>();
        let shared = &child;
        let watcher = limit.map(|limit| scope.spawn(move || kill_after(shared, &watch, limit)));
        let errors = scope.spawn(move || drain(stderr));
        let stdout = drain(stdout);
        let stderr = errors.join().unwrap_or_default();
        if limit.is_some() && matches!(output, Output::Append(_)) {
            wait_quietly(shared);
        }
        drop(done);
        (
            watcher.is_some_and(|w| w.join().unwrap_or(false)),
            stdout,
            stderr,
        )
    });
    let status = locked(&child).wait().map_err(trouble)?;
    Ok(Ended {
        status: code(status),
        stdout,
        stderr,
        late,
        unprotected: None,
    })
}

fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Waits without holding the lock, so that the watcher can kill.
fn wait_quietly(child: &Mutex<Child>) {
    while matches!(locked(child).try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn drain(stream: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What could be read before an error is still what it said.
        let _ = stream.by_ref().take(CAPTURE_LIMIT).read_to_end(&mut bytes);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    }
    bytes
}

/// True if it had to be killed.
fn kill_after(child: &Mutex<Child>, ended: &mpsc::Receiver<()>, limit: Duration) -> bool {
    let late = ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
    if late {
        let _ = locked(child).kill();
    }
    late
}

fn locked(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Script {
        Script {
            text: text.to_owned(),
            dir: "/".into(),
            ..Script::default()
        }
    }

    #[test]
    fn a_script_writes_nothing_outside_of_its_mounts() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let shown = dir.path().join("shown");
        let real = dir.path().join("real");
        std::fs::create_dir_all(&shown).unwrap();
        std::fs::create_dir_all(&real).unwrap();
        let mut script = script("echo x >shown/a; echo y >b; id -u >/dev/null");
        script.dir = dir.path().to_path_buf();
        script.writable = vec![Mount {
            real: real.clone(),
            shown,
        }];
        let ended = run_script(&script, &Output::Capture).unwrap();
        if ended.unprotected.is_none() {
            assert_eq!(std::fs::read_to_string(real.join("a")).unwrap(), "x\n");
            assert!(!dir.path().join("b").exists());
        }
    }

    #[test]
    fn a_script_that_loops_is_killed() {
        let mut script = script("while :; do :; done");
        script.limit = Some(Duration::from_millis(200));
        assert!(run_script(&script, &Output::Capture).unwrap().late);
        let log = tempfile::tempfile().unwrap();
        assert!(run_script(&script, &Output::Append(&log)).unwrap().late);
    }

    #[test]
    fn the_exit_status_and_both_streams_are_told() {
        let ended = run_script(&script("echo o; echo e >&2; exit 7"), &Output::Capture).unwrap();
        assert_eq!(
            (ended.status, &ended.stdout[..], &ended.stderr[..]),
            (7, &b"o\n"[..], &b"e\n"[..])
        );
    }
}
