//! One run of the manager: what it was asked, where things lie, and how it speaks.

use crate::args::{Action, Request};
use crate::evaluate::Evaluated;
use crate::tree::Tree;
use crate::{Result, Stop, Talk, USAGE, VERSION, disk, distro, framework, kernels};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// A kernel to work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its release.
    pub kernel: String,
    /// The architecture, as `uname -m` says it.
    pub arch: String,
}

/// A package in the tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// `PACKAGE_NAME`.
    pub name: String,
    /// `PACKAGE_VERSION`.
    pub version: String,
}

impl std::fmt::Display for Package {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "kernel {} ({})", self.kernel, self.arch)
    }
}

/// Runs the manager with the words after the program's name; the exit code.
pub fn dkms(program: &str, words: &[String], talk: &dyn Talk) -> u8 {
    let request = match Request::parse(words) {
        Ok(request) => request,
        Err(stop) => return refuse(program, &stop, talk),
    };
    if request.show_version {
        talk.out(&format!("{VERSION}\n"));
        return 0;
    }
    if request.show_help {
        talk.out(&format!("Usage: {program} {USAGE}"));
        return 0;
    }
    let quiet = Quiet(talk);
    let talk: &dyn Talk = if request.quiet { &quiet } else { talk };
    end(
        Session::open(program, request, talk).and_then(|mut s| s.run()),
        talk,
    )
}

/// `-q`: nothing is said.
struct Quiet<'a>(&'a dyn Talk);

impl Talk for Quiet<'_> {
    fn out(&self, _: &str) {}
    fn err(&self, _: &str) {}
    fn child(&self, command: &mut std::process::Command) {
        self.0.child(command);
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
    }
}

/// Nothing is said, by nobody.
struct Silent;

static SILENT: Silent = Silent;

impl Talk for Silent {
    fn out(&self, _: &str) {}
    fn err(&self, _: &str) {}
    fn child(&self, command: &mut std::process::Command) {
        use std::process::Stdio;
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
}

fn refuse(program: &str, stop: &Stop, talk: &dyn Talk) -> u8 {
    tell(stop, talk);
    if matches!(stop, Stop::Error(2, lines) if lines.first().is_some_and(|l| l.starts_with("Unknown option")))
    {
        talk.out(&format!("Usage: {program} {USAGE}"));
    }
    stop.code()
}

fn end(result: Result<()>, talk: &dyn Talk) -> u8 {
    match result {
        Ok(()) => 0,
        Err(stop) => {
            tell(&stop, talk);
            stop.code()
        }
    }
}

fn tell(stop: &Stop, talk: &dyn Talk) {
    match stop {
        Stop::Error(_, lines) => talk.err(&format!("\nError! {}\n", lines.join("\n"))),
        Stop::Warning(_, lines) => talk.err(&format!("Warning: {}\n", lines.join("\n"))),
        Stop::Exit(_) => {}
    }
}

/// One run.
pub struct Session<'a> {
    pub(crate) program: String,
    pub(crate) request: Request,
    pub(crate) talk: &'a dyn Talk,
    pub(crate) tree: Tree,
    /// Where kernels have their modules: `/lib/modules`.
    pub(crate) install_tree: PathBuf,
    /// For temporary directories.
    pub(crate) tmp: PathBuf,
    pub(crate) settings: Evaluated,
    /// The distribution's family.
    pub(crate) family: String,
    /// `ADDON_MODULES_DIR`, where the system sets it.
    pub(crate) addon: Option<String>,
    pub(crate) targets: Vec<Target>,
    pub(crate) force: bool,
    pub(crate) force_version: bool,
    /// The configuration that was read last was this one: its warnings are not said again.
    pub(crate) last: Option<(Package, Target, PathBuf)>,
    /// The kernel that was looked at and whose signing was prepared.
    pub(crate) prepared: Option<(Target, Option<crate::sign::Signing>)>,
    /// depmod waits until the end; true inside when one is due.
    pub(crate) delayed_depmod: Option<bool>,
    pub(crate) warned_of_no_sandbox: AtomicBool,
    pub(crate) changed: bool,
    /// Builds that go on at the same time share these tokens.
    pub(crate) jobserver: Option<jobserver::Client>,
    /// While a package is built for the kernel that it is written for: that kernel, and its build directory.
    pub(crate) at_home: Option<(String, PathBuf)>,
    pub(crate) stamps: crate::stamps::Stamps,
    pub(crate) lock: Option<File>,
}

impl<'a> Session<'a> {
    fn open(program: &str, request: Request, talk: &'a dyn Talk) -> Result<Self> {
        let family = distro::family()?;
        let defaults = Tree::new("/var/lib/dkms".into(), "/usr/src".into());
        let settings = framework::read(&framework::GENERAL, Vec::new(), &defaults.cache())?;
        let setting = |given: &Option<PathBuf>, name: &str, default: &Path| {
            let said = Some(settings.first(name))
                .filter(|s| !s.is_empty())
                .map(PathBuf::from);
            given
                .clone()
                .or(said)
                .unwrap_or_else(|| default.to_path_buf())
        };
        let tmp = std::env::var_os("TMPDIR").map_or_else(|| "/tmp".into(), PathBuf::from);
        let mut session = Self {
            program: program.to_owned(),
            tree: Tree::new(
                setting(&request.dkms_tree, "dkms_tree", &defaults.dkms),
                setting(&request.source_tree, "source_tree", &defaults.source),
            ),
            install_tree: setting(
                &request.install_tree,
                "install_tree",
                Path::new("/lib/modules"),
            ),
            tmp: setting(&None, "tmp_location", &tmp),
            addon: addon(),
            targets: Vec::new(),
            force: request.force,
            force_version: request.force_version,
            last: None,
            prepared: None,
            delayed_depmod: None,
            warned_of_no_sandbox: AtomicBool::new(false),
            changed: false,
            jobserver: None,
            at_home: None,
            stamps: crate::stamps::Stamps::default(),
            lock: None,
            request,
            talk,
            settings,
            family,
        };
        session.targets = kernels::targets(&session)?;
        Ok(session)
    }

    /// The same run without a voice and without the lock, for a build beside others: give it a talk of its own.
    pub(crate) fn aside(&self) -> Session<'static> {
        Session {
            program: self.program.clone(),
            request: self.request.clone(),
            talk: &SILENT,
            tree: self.tree.clone(),
            install_tree: self.install_tree.clone(),
            tmp: self.tmp.clone(),
            settings: self.settings.clone(),
            family: self.family.clone(),
            addon: self.addon.clone(),
            targets: self.targets.clone(),
            force: self.force,
            force_version: self.force_version,
            last: self.last.clone(),
            prepared: self.prepared.clone(),
            delayed_depmod: self.delayed_depmod,
            warned_of_no_sandbox: AtomicBool::new(
                self.warned_of_no_sandbox
                    .load(std::sync::atomic::Ordering::Relaxed),
            ),
            changed: false,
            jobserver: self.jobserver.clone(),
            at_home: None,
            stamps: crate::stamps::Stamps::default(),
            lock: None,
        }
    }

    /// A line on stdout.
    pub(crate) fn say(&self, line: &str) {
        self.talk.out(&format!("{line}\n"));
    }

    /// `Warning:` with its lines.
    pub(crate) fn warn(&self, lines: &[&str]) {
        self.talk.err(&format!("Warning: {}\n", lines.join("\n")));
    }

    /// Says why something ended, when the session goes on.
    pub(crate) fn tell(&self, stop: &Stop) {
        tell(stop, self.talk);
    }

    /// Runs a step whose knowledge ends with it: what was read and prepared inside is forgotten.
    pub(crate) fn apart<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let (last, prepared) = (self.last.clone(), self.prepared.clone());
        let (force, force_version) = (self.force, self.force_version);
        let result = step(self);
        self.last = last;
        self.prepared = prepared;
        self.force = force;
        self.force_version = force_version;
        result
    }

    fn run(&mut self) -> Result<()> {
        for option in self.request.deprecated.clone() {
            self.talk.err(&format!("Deprecated feature: {option}\n"));
        }
        for word in self.request.unknown.clone() {
            self.warn(&[&format!("I do not know how to handle {word}.")]);
        }
        let Some(action) = self.request.action else {
            tell(
                &Stop::error(
                    2,
                    [format!(
                        "Unknown action specified: \"{}\"",
                        self.request.instead_of_action()
                    )],
                ),
                self.talk,
            );
            self.talk.out(&format!("Usage: {} {USAGE}", self.program));
            return Err(Stop::Exit(2));
        };
        let only_looks = matches!(action, Action::Status | Action::Why | Action::GenerateMok);
        if !only_looks {
            self.lock()?;
            crate::journal::recover(self)?;
        }
        let result = self.act(action);
        self.after(action, &result)?;
        result
    }

    fn act(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Remove | Action::Unbuild | Action::Uninstall => self.take_away(action),
            Action::Add | Action::Build | Action::Install => self.bring(action),
            Action::Autoinstall => {
                self.one_kernel(action)?;
                root()?;
                self.autoinstall()
            }
            Action::Match => {
                root()?;
                self.one_kernel(action)?;
                self.match_kernel()
            }
            Action::Mktarball => {
                self.named(action)?;
                self.not_broken()?;
                self.added()?;
                self.make_tarball()
            }
            Action::Ldtarball => {
                if self.force {
                    root()?;
                }
                if self.load_tarball()? {
                    self.add()
                } else {
                    Ok(())
                }
            }
            Action::Status => self.status(),
            Action::GenerateMok => self.generate_mok(),
            Action::KernelPreinst | Action::KernelPostinst | Action::KernelPrerm => {
                root()?;
                self.kernel_hook(action)
            }
            Action::Verify => self.verify(),
            Action::Rollback => {
                self.one_kernel(action)?;
                self.rollback()
            }
            Action::Why => self.why(),
            Action::Preflight => self.preflight(),
            Action::Port => {
                self.one_kernel(action)?;
                self.show_port()
            }
        }
    }

    fn take_away(&mut self, action: Action) -> Result<()> {
        self.named(action)?;
        self.not_broken()?;
        self.added()?;
        match action {
            Action::Uninstall => root()?,
            _ => self.writable()?,
        }
        match action {
            Action::Uninstall => self.uninstall(),
            Action::Unbuild => self.unbuild(),
            _ => self.remove(),
        }
    }

    fn bring(&mut self, action: Action) -> Result<()> {
        if self.request.all {
            return Err(no_all(action));
        }
        if action != Action::Add {
            self.not_broken()?;
        }
        match action {
            Action::Install => root()?,
            _ => self.writable()?,
        }
        match action {
            Action::Add => self.add(),
            Action::Build => self.build(),
            _ => self.install(),
        }
    }

    /// The administrator's command after what changed a kernel's modules.
    fn after(&mut self, action: Action, result: &Result<()>) -> Result<()> {
        let changes = match action {
            Action::Remove | Action::Unbuild | Action::Uninstall | Action::Install => true,
            Action::Autoinstall => self.changed,
            _ => false,
        };
        if result.is_ok() && changes && !self.settings.first("post_transaction").is_empty() {
            self.post_transaction()?;
        }
        Ok(())
    }

    /// The package that the command line names.
    pub(crate) fn package(&self) -> Package {
        Package {
            name: self.request.module.clone(),
            version: self.request.version.clone(),
        }
    }

    /// Makes sure that a package was named.
    pub(crate) fn named(&self, action: Action) -> Result<()> {
        if !self.request.module.is_empty() && !self.request.version.is_empty() {
            return Ok(());
        }
        let name = action.name();
        Err(Stop::error(
            1,
            [
                "Arguments <module> and <module-version> are not specified.".to_owned(),
                format!("Usage: {name} <module>/<module-version> or"),
                format!("       {name} -m <module>/<module-version> or"),
                format!("       {name} -m <module> -v <module-version>"),
            ],
        ))
    }

    pub(crate) fn not_broken(&self) -> Result<()> {
        let package = self.package();
        if !self.tree.is_broken(&package) {
            return Ok(());
        }
        Err(Stop::error(
            4,
            [
                format!("{package} is broken!"),
                "Missing the source directory or the symbolic link pointing to it.".to_owned(),
                "Manual intervention is required!".to_owned(),
            ],
        ))
    }

    pub(crate) fn added(&self) -> Result<()> {
        let package = self.package();
        if self.tree.is_added(&package) {
            return Ok(());
        }
        Err(Stop::error(
            3,
            [format!(
                "The module/version combo: {package} is not located in the DKMS tree."
            )],
        ))
    }

    fn writable(&self) -> Result<()> {
        let dir = &self.tree.dkms;
        if rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok() {
            return Ok(());
        }
        Err(Stop::error(
            1,
            [format!("No write access to DKMS tree at {}", dir.display())],
        ))
    }

    /// Some actions work on exactly one kernel.
    pub(crate) fn one_kernel(&self, action: Action) -> Result<()> {
        if self.request.all {
            return Err(no_all(action));
        }
        if self.targets.len() == 1 {
            return Ok(());
        }
        Err(Stop::error(
            4,
            [format!(
                "The action {} does not support multiple kernel version parameters on the command line.",
                action.name()
            )],
        ))
    }

    /// One that changes the tree at a time. A script of a package that calls the manager again goes on under its caller's lock.
    fn lock(&mut self) -> Result<()> {
        if std::env::var_os(HELD).is_some_and(|tree| tree == self.tree.dkms) {
            return Ok(());
        }
        let path = self.tree.own("lock");
        if !self.tree.dkms.is_dir() && disk::make_dir(&self.tree.dkms).is_err() {
            return Ok(());
        }
        let opened = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| {
                File::options()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .open(&path)
            });
        match opened {
            Ok(file) => {
                if file.try_lock().is_err() {
                    self.talk.err("Waiting for another dkms that is at work.\n");
                    file.lock().map_err(Stop::io(&path))?;
                }
                self.lock = Some(file);
                Ok(())
            }
            // Without write access the action itself says so, in dkms' words.
            Err(_) => Ok(()),
        }
    }

    /// Makes a child know that the tree is locked for it.
    pub(crate) fn held(&self) -> (&'static str, &Path) {
        (HELD, &self.tree.dkms)
    }
}

/// In the environment of a package's scripts: the tree whose lock their caller holds.
const HELD: &str = "KSPAN_DKMS_LOCKED";

/// For actions on one kernel or one that is named.
fn no_all(action: Action) -> Stop {
    Stop::error(
        5,
        [format!(
            "The action {} does not support the --all parameter.",
            action.name()
        )],
    )
}

/// Only root goes on.
pub(crate) fn root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Stop::error(1, ["You must be root to use this command."]))
}

/// `ADDON_MODULES_DIR` of the environment or of the system's configuration.
fn addon() -> Option<String> {
    let given = std::env::var("ADDON_MODULES_DIR")
        .ok()
        .filter(|v| !v.is_empty());
    given.or_else(|| {
        let text = std::fs::read_to_string("/etc/sysconfig/module-init-tools").ok()?;
        let value = text
            .lines()
            .find_map(|l| l.trim().strip_prefix("ADDON_MODULES_DIR="))?;
        shlex::split(value)?
            .into_iter()
            .next()
            .filter(|v| !v.is_empty())
    })
}
