//! A package's own scripts and commands, and how they are announced.

use crate::session::{Package, Session, Target};
use crate::{Result, Stop, disk};
use kspan_kernel::shell::{Mount, Output, Script, run_script};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Where a package is built, and with what.
pub struct Workshop {
    /// The directory on disk.
    pub real: PathBuf,
    /// The one that every command sees: `MODULE/VERSION/build`.
    pub shown: PathBuf,
    /// make.log.
    pub log: File,
    /// Its name, as people are told it.
    pub log_name: PathBuf,
    /// Shell variables and the build environment, before each command.
    pub prelude: String,
    /// Environment of each command.
    pub environment: Vec<(OsString, OsString)>,
    /// More that commands may write to.
    pub also: Vec<Mount>,
    /// Directories under /tmp that they must see.
    pub readable: Vec<PathBuf>,
    /// The root that holds the compiler, where it is not this machine's.
    pub root: Option<PathBuf>,
    /// With a root: what lies at a place of its own.
    pub placed: Vec<Mount>,
    /// Tokens that this build shares with others, and the `make -jN ` that they stand for.
    pub jobserver: Option<(jobserver::Client, String)>,
}

/// Variables of the caller that would change a build.
const UNSET: [&str; 5] = ["CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS"];

impl Session<'_> {
    /// Announces a step, runs it, and says how it went; its exit status.
    pub(crate) fn step(
        &self,
        command: &str,
        description: &str,
        run: impl FnOnce() -> Result<i32>,
    ) -> Result<i32> {
        let verbose = self.verbose();
        if verbose {
            self.say(command);
        } else {
            self.talk.out(&format!("{description}..."));
        }
        let status = run()?;
        if status == 0 {
            self.say(" done.");
        } else if verbose {
            self.talk.out(&format!("(bad exit status: {status})"));
        } else {
            self.say(&format!(
                "(bad exit status: {status})\nFailed command:\n{command}"
            ));
        }
        Ok(status)
    }

    pub(crate) fn verbose(&self) -> bool {
        self.request.verbose || !self.settings.first("verbose").is_empty()
    }

    /// A command of the build: its output goes to make.log.
    pub(crate) fn work(&self, shop: &Workshop, command: &str, description: &str) -> Result<i32> {
        self.step(command, description, || {
            logged(&shop.log, &shop.log_name, command, description, |log| {
                let ended = run_script(
                    &shop.script(command, &self.environment()),
                    &Output::Append(log),
                )?;
                self.warn_of_no_sandbox(ended.unprotected.as_deref());
                Ok(ended.status)
            })
        })
    }

    /// A command of a build that nobody is told of: its exit status.
    pub(crate) fn quietly(&self, shop: &Workshop, command: &str) -> Result<i32> {
        let script = shop.script(command, &self.environment());
        Ok(run_script(&script, &Output::Append(&shop.log))?.status)
    }

    /// What a program says, run as the build's commands are; none if it fails.
    pub(crate) fn output_of(
        &self,
        shop: &Workshop,
        words: Vec<OsString>,
    ) -> Result<Option<Vec<u8>>> {
        let script = Script {
            text: "\"$@\"".to_owned(),
            arguments: words,
            ..shop.script("", &[])
        };
        let ended = run_script(&script, &Output::Capture)?;
        Ok((ended.status == 0).then_some(ended.stdout))
    }

    /// What make would do for a build command, in its own words; whatever it says, nothing is done.
    pub(crate) fn dry_run(&self, shop: &Workshop, command: &str) -> Result<Vec<u8>> {
        let script = Script {
            text: format!(
                "export MAKEFLAGS=\"n${{MAKEFLAGS:+ -- $MAKEFLAGS}}\"\n{}eval \"$1\" 2>/dev/null\n",
                shop.prelude
            ),
            jobserver: None,
            ..shop.script(command, &self.environment())
        };
        Ok(run_script(&script, &Output::Capture)?.stdout)
    }

    /// Runs `pre_build` or `post_build`, if the package has one.
    pub(crate) fn build_script(
        &self,
        shop: &Workshop,
        package: &Package,
        name: &str,
        script: &str,
    ) -> Result<()> {
        if script.is_empty() {
            return Ok(());
        }
        let words: Vec<&str> = script.split_whitespace().collect();
        let file = words.first().copied().unwrap_or_default();
        let own = Path::new("/etc/dkms").join(&package.name);
        let (dir, there) = match executable(&own.join(file)) {
            true => (own.clone(), true),
            false => (shop.shown.clone(), executable(&shop.real.join(file))),
        };
        if !there {
            self.say("");
            self.warn(&[&format!("The {name} script is not executable.")]);
            return Ok(());
        }
        let command = format!("cd {0}/ && {0}/{script}", dir.display());
        let status = self.work(shop, &command, &format!("Running the {name} script"))?;
        if status != 0 {
            self.say(&format!(
                "Consult {} for more information.",
                shop.log_name.display()
            ));
            return Err(Stop::Exit(u8::try_from(status).unwrap_or(1)));
        }
        Ok(())
    }

    /// Runs a script of the source that speaks to the user; true if it went well or there is none.
    pub(crate) fn source_script(
        &self,
        package: &Package,
        target: Option<&Target>,
        name: &str,
        script: &str,
    ) -> Result<bool> {
        let mut words = script.split_whitespace();
        let Some(file) = words.next() else {
            return Ok(true);
        };
        let own = Path::new("/etc/dkms").join(&package.name);
        let dir = if executable(&own.join(file)) {
            own
        } else {
            self.tree.source_link(package)
        };
        let program = dir.join(file);
        if !executable(&program) {
            self.say("");
            self.warn(&[&format!("The {name} script is not executable.")]);
            return Ok(true);
        }
        self.say(&format!("Running the {name} script:"));
        let mut command = Command::new(&program);
        command
            .args(words)
            .current_dir(&dir)
            .envs(self.environment());
        command.env(self.held().0, self.held().1);
        for variable in UNSET {
            command.env_remove(variable);
        }
        if let Some(target) = target {
            command
                .env("kernelver", &target.kernel)
                .env("arch", &target.arch);
        }
        self.talk.child(&mut command);
        match command.status() {
            Ok(status) => Ok(status.success()),
            Err(e) => {
                self.warn(&[&format!(
                    "The {name} script {} cannot be run: {e}",
                    program.display()
                )]);
                Ok(false)
            }
        }
    }

    /// What `--directive` puts into the environment.
    fn environment(&self) -> Vec<(OsString, OsString)> {
        self.request
            .directives
            .iter()
            .filter_map(|d| d.split_once('='))
            .map(|(k, v)| (k.into(), v.into()))
            .collect()
    }

    /// The administrator's command at the end, its output in `post_transaction.log`.
    pub(crate) fn post_transaction(&self) -> Result<()> {
        let target = self.targets.first();
        let variables = vec![
            (
                "kernelver",
                target.map(|t| t.kernel.clone()).unwrap_or_default(),
            ),
            ("arch", target.map(|t| t.arch.clone()).unwrap_or_default()),
            ("module", self.request.module.clone()),
            ("module_version", self.request.version.clone()),
        ];
        let said = crate::framework::read(
            &crate::framework::TRANSACTION,
            variables,
            &self.tree.cache(),
        )?;
        let command = said.first("post_transaction").to_owned();
        let path = self.tree.dkms.join("post_transaction.log");
        let log = File::create(&path).map_err(Stop::io(&path))?;
        let description = "Executing post-transaction command";
        self.step(&command, description, || {
            logged(&log, &path, &command, description, |log| {
                let clone = |l: &File| l.try_clone().map_err(Stop::io(&path));
                let status = Command::new("/bin/bash")
                    .args(["-c", &command])
                    .stdin(std::process::Stdio::null())
                    .stdout(clone(log)?)
                    .stderr(clone(log)?)
                    .env(self.held().0, self.held().1)
                    .status();
                Ok(status
                    .map_err(Stop::io(Path::new("/bin/bash")))?
                    .code()
                    .unwrap_or(1))
            })
        })?;
        Ok(())
    }
}

impl Workshop {
    fn script(&self, command: &str, environment: &[(OsString, OsString)]) -> Script {
        let own = Mount {
            real: self.real.clone(),
            shown: self.shown.clone(),
        };
        Script {
            text: format!("{}eval \"$1\"\n", self.prelude),
            arguments: vec![self.without_jobs(command).into()],
            dir: self.shown.clone(),
            environment: self
                .environment
                .iter()
                .chain(environment)
                .cloned()
                .collect(),
            removed: UNSET.iter().map(|v| OsString::from(*v)).collect(),
            writable: self.also.iter().cloned().chain([own]).collect(),
            readable: self.readable.clone(),
            limit: None,
            root: self.root.clone(),
            placed: self.placed.clone(),
            jobserver: self.jobserver.as_ref().map(|(client, _)| client.clone()),
        }
    }

    /// A make that is told a number of jobs makes tokens of its own, and would not take the shared ones.
    fn without_jobs(&self, command: &str) -> String {
        match &self.jobserver {
            Some((_, own)) => match command.strip_prefix(own.as_str()) {
                Some(rest) => format!("make {rest}"),
                None => command.to_owned(),
            },
            None => command.to_owned(),
        }
    }
}

fn executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Frames a command's output in a log as dkms does.
fn logged(
    mut log: &File,
    name: &Path,
    command: &str,
    description: &str,
    run: impl FnOnce(&File) -> Result<i32>,
) -> Result<i32> {
    let started = Instant::now();
    write!(log, "\n{description}\n# command: {command}\n").map_err(Stop::io(name))?;
    let status = run(log)?;
    let s = started.elapsed().as_secs();
    let line = "-".repeat(64);
    write!(
        log,
        "\n# exit code: {status}\n# elapsed time: {:02}:{:02}:{:02}\n{line}\n",
        s / 3600,
        s / 60 % 60,
        s % 60
    )
    .map_err(Stop::io(name))?;
    Ok(status)
}

/// Opens a log for appending, made if missing.
pub fn open_log(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        disk::make_dir(dir)?;
    }
    File::options()
        .create(true)
        .append(true)
        .read(true)
        .open(path)
        .map_err(Stop::io(path))
}
