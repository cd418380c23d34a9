//! `make -C KDIR M=dir modules` in the sandbox, and what it left behind.

use crate::{
    Build, Error, KbuildOptions, Kernel, Result, Toolchain, TuCommand, cmdfile, files, sandbox,
};
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

/// Runs kbuild for a module directory.
pub fn run(
    kernel: &Kernel,
    toolchain: &Toolchain,
    dir: &Path,
    options: &KbuildOptions,
) -> Result<Build> {
    let dir = dir.canonicalize().map_err(Error::io(dir))?;
    let started = Instant::now();
    let mut command = sandbox::command(&sandbox::view(kernel, toolchain, &dir, &[]), "make")?;
    arguments(&mut command, kernel, toolchain, &dir, options);
    let token = options
        .jobserver
        .as_ref()
        .map(jobserver::Client::acquire)
        .transpose();
    let _token =
        token.map_err(|e| Error::Environment(format!("the shared job pool is gone: {e}")))?;
    let (ok, log) = captured(command, options.timeout)?;
    Ok(Build {
        ok,
        log,
        modules: modules(&dir),
        commands: commands(kernel, &dir),
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn arguments(
    command: &mut Command,
    kernel: &Kernel,
    toolchain: &Toolchain,
    dir: &Path,
    options: &KbuildOptions,
) {
    command.arg("-C").arg(&kernel.build_dir);
    command
        .arg(format!("M={}", dir.display()))
        .arg(format!("CC={}", toolchain.cc));
    if options.keep_going {
        command.arg("-k");
    }
    match &options.jobserver {
        // A make that is killed keeps the tokens it took: it gets none beyond the one that is held for it.
        Some(_) if options.timeout.is_some() => drop(command.arg("-j1")),
        Some(pool) => pool.configure_make(command),
        None => drop(command.arg(format!("-j{}", options.jobs.max(1)))),
    }
    command.args(variables(options)).arg("modules");
}

/// The caller's variables, with the diagnostics format joined to its `KCFLAGS`.
fn variables(options: &KbuildOptions) -> Vec<String> {
    let (flags, mut others): (Vec<String>, Vec<String>) = options
        .variables
        .iter()
        .cloned()
        .partition(|v| v.starts_with("KCFLAGS="));
    let json = options
        .json_diagnostics
        .then(|| "-fdiagnostics-format=json".to_owned());
    let flags: Vec<String> = flags
        .iter()
        .filter_map(|f| f.strip_prefix("KCFLAGS=").map(str::to_owned))
        .chain(json)
        .collect();
    if !flags.is_empty() {
        others.push(format!("KCFLAGS={}", flags.join(" ")));
    }
    others
}

/// A log longer than this is cut: a Kbuild that floods it must not eat the memory.
const LOG_LIMIT: u64 = 64 << 20;

/// Runs a command with stdout and stderr in one stream, as a person would see them.
fn captured(mut command: Command, timeout: Option<Duration>) -> Result<(bool, String)> {
    let trouble = |e| {
        Error::Environment(format!(
            "the sandboxed build cannot be started (bwrap): {e}"
        ))
    };
    let (reader, writer) = std::io::pipe().map_err(trouble)?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(trouble)?)
        .stderr(writer);
    let child = Mutex::new(command.spawn().map_err(trouble)?);
    drop(command);
    let shared = &child;
    let (bytes, in_time) = std::thread::scope(|scope| {
        let (done, watch) = mpsc::channel::<()>();
        let watcher = timeout.map(|limit| scope.spawn(move || kill_after(shared, watch, limit)));
        let bytes = drain(reader);
        drop(done);
        (bytes, watcher.is_none_or(|w| w.join().unwrap_or(true)))
    });
    let status = locked(shared).wait().map_err(trouble)?;
    let mut log = String::from_utf8_lossy(&bytes.map_err(trouble)?).into_owned();
    if !in_time {
        log.push_str(&format!(
            "\nkspan: stopped after {} s\n",
            timeout.unwrap_or_default().as_secs()
        ));
    }
    refuse_no_sandbox(&log, status.success())?;
    Ok((status.success(), log))
}

/// All of the stream, of which the beginning is kept.
fn drain(mut reader: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.by_ref().take(LOG_LIMIT).read_to_end(&mut bytes)?;
    std::io::copy(&mut reader, &mut std::io::sink())?;
    Ok(bytes)
}

/// Kills the sandbox, and with it all that runs inside, unless the build ends before. True if it did.
fn kill_after(child: &Mutex<Child>, ended: mpsc::Receiver<()>, limit: Duration) -> bool {
    let in_time = ended.recv_timeout(limit) != Err(mpsc::RecvTimeoutError::Timeout);
    if !in_time {
        let _ = locked(child).kill();
    }
    in_time
}

fn locked(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn refuse_no_sandbox(log: &str, ok: bool) -> Result<()> {
    match log.lines().next().filter(|l| l.starts_with("bwrap: ")) {
        Some(words) if !ok => Err(Error::Environment(format!(
            "the sandbox cannot be made: {words}. Unprivileged user namespaces may be forbidden here (sysctl kernel.unprivileged_userns_clone, AppArmor)"
        ))),
        _ => Ok(()),
    }
}

fn relative_files(dir: &Path) -> impl Iterator<Item = PathBuf> {
    walkdir::WalkDir::new(dir)
        .sort_by_file_name()
        .into_iter()
        .flatten()
        .filter(|e| e.file_type().is_file())
        .map(|e| e.into_path())
}

fn modules(dir: &Path) -> Vec<PathBuf> {
    let is_module = |p: &PathBuf| p.extension() == Some(OsStr::new("ko"));
    relative_files(dir)
        .filter(is_module)
        .filter_map(|p| p.strip_prefix(dir).ok().map(Path::to_path_buf))
        .collect()
}

/// Every compilation whose `.cmd` file lies under the directory, kbuild's own generated sources left out.
fn commands(kernel: &Kernel, dir: &Path) -> Vec<TuCommand> {
    commands_seen(kernel, dir, dir)
}

/// [`commands`] of a directory that its build saw at another place.
pub fn commands_seen(kernel: &Kernel, dir: &Path, shown: &Path) -> Vec<TuCommand> {
    let is_cmd = |p: &PathBuf| {
        p.file_name()
            .is_some_and(|n| n.as_encoded_bytes().ends_with(b".o.cmd"))
    };
    relative_files(dir)
        .filter(is_cmd)
        .filter_map(|p| {
            let seen = shown.join(p.strip_prefix(dir).ok()?);
            tu_command(kernel, shown, &files::read_text(&p).ok()?, &seen)
        })
        .collect()
}

/// One `.cmd` file's text; `seen` is where the build saw it.
fn tu_command(kernel: &Kernel, dir: &Path, text: &str, seen: &Path) -> Option<TuCommand> {
    let file = cmdfile::parse(text);
    let written = file.source.as_deref()?;
    // make runs in KDIR and names objects absolutely, or (newer kbuild) in the module's directory and names them relatively.
    let base = match Path::new(&file.target).is_absolute() {
        true => kernel.build_dir.clone(),
        false => started_in(dir, seen, &file.target),
    };
    let place = |name: &str| cmdfile::normal(&base.join(name));
    let source = place(written).strip_prefix(dir).ok()?.to_path_buf();
    if source.as_os_str().as_encoded_bytes().ends_with(b".mod.c") {
        return None;
    }
    Some(TuCommand {
        object: place(&file.target).strip_prefix(dir).ok()?.to_path_buf(),
        args: cmdfile::compile_args(&file.words, &base, Some(written)),
        headers: file.deps.iter().map(|d| place(d)).collect(),
        source,
    })
}

/// The directory that make was started for: the one from which `target` names the object beside its `.cmd` file. It is the
/// module's directory, or one below it when a package's Makefile calls kbuild for that.
fn started_in(dir: &Path, cmd: &Path, target: &str) -> PathBuf {
    let beside = cmd.parent().unwrap_or(dir);
    let depth = Path::new(target)
        .parent()
        .map_or(0, |p| p.components().count());
    beside.ancestors().nth(depth).unwrap_or(dir).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_objects_tell_where_make_was_started() {
        let at = |cmd: &str, target: &str| started_in(Path::new("/m"), Path::new(cmd), target);
        assert_eq!(at("/m/.a.o.cmd", "a.o"), Path::new("/m"));
        assert_eq!(at("/m/sub/.a.o.cmd", "sub/a.o"), Path::new("/m"));
        assert_eq!(at("/m/sub/.a.o.cmd", "a.o"), Path::new("/m/sub"));
    }

    #[test]
    fn json_diagnostics_join_the_callers_flags() {
        let options = KbuildOptions {
            variables: vec!["A=1".into(), "KCFLAGS=-DX".into()],
            json_diagnostics: true,
            ..KbuildOptions::default()
        };
        assert_eq!(
            variables(&options),
            ["A=1", "KCFLAGS=-DX -fdiagnostics-format=json"]
        );
    }
}
