//! `cargo xtask dkms-faults`: `kspan dkms` is killed, or its disk is full, at every system call that changes the disk.
//!
//! After each the state is judged with kmod's own modprobe; then the same command runs again and must repair all.

use anyhow::{Context, bail};
use kspan_kernel::{Cache, KbuildOptions, Kernel};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

/// Kill `kspan dkms` at every system call that changes the disk, and make each of them fail; judge what is left.
///
/// Needs root and strace. Everything happens in a directory of the cache; the host's modules are not touched.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these: install, uninstall, upgrade, autoinstall [default: all].
    scenarios: Vec<String>,
    /// The kernel to build for; this machine's own compiler must fit.
    #[arg(long, default_value = "bookworm")]
    kernel: String,
    /// Only every Nth point.
    #[arg(long, default_value_t = 1)]
    every: usize,
    /// The kspan to test [default: the one beside this program].
    #[arg(long)]
    kspan: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// System calls that change the disk.
const CHANGING: [&str; 19] = [
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "symlink",
    "symlinkat",
    "link",
    "linkat",
    "fsync",
    "write",
    "copy_file_range",
    "sendfile",
    "ftruncate",
    "fchmod",
    "chmod",
];

/// Those that a full disk makes fail, from one point on.
const FILLING: [&str; 11] = [
    "copy_file_range",
    "sendfile",
    "link",
    "linkat",
    "mkdir",
    "mkdirat",
    "symlink",
    "symlinkat",
    "rename",
    "renameat",
    "fsync",
];

const NAME: &str = "kspan_fault";

/// Where everything lies, and how the manager is called.
struct Place {
    dir: tempfile::TempDir,
    kernel: Kernel,
    kspan: PathBuf,
    arch: String,
}

/// One command, from one state.
struct Scenario {
    name: &'static str,
    words: Vec<&'static str>,
    /// The version that is installed when it is done; none after a removal.
    after: Option<&'static str>,
    /// What brings the tree into its state before.
    before: Vec<Vec<&'static str>>,
}

#[derive(Debug, Default)]
struct Tally {
    points: usize,
    bad: Vec<String>,
    unrepaired: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// When the machine lacks what it needs, or the modules do not build.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let place = Place::make(args)?;
    let mut rows = Vec::new();
    for scenario in scenarios() {
        if !args.scenarios.is_empty() && !args.scenarios.iter().any(|s| s == scenario.name) {
            continue;
        }
        for (fault, calls) in [("killed", &CHANGING[..]), ("disk full", &FILLING[..])] {
            let tally = place.trial(&scenario, fault, calls, args.every)?;
            if !args.json {
                tell(&scenario, fault, &tally);
            }
            rows.push((scenario.name, fault, tally));
        }
        let tally = place.depmod_fails(&scenario)?;
        if !args.json {
            tell(&scenario, "depmod fails", &tally);
        }
        rows.push((scenario.name, "depmod fails", tally));
    }
    let clean = rows
        .iter()
        .all(|(_, _, t)| t.bad.is_empty() && t.unrepaired.is_empty());
    if args.json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|(s, f, t)| json!({ "scenario": s, "fault": f, "points": t.points, "bad": t.bad, "unrepaired": t.unrepaired }))
            .collect();
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({ "rows": rows }))?
        );
    }
    Ok(ExitCode::from(u8::from(!clean)))
}

fn tell(scenario: &Scenario, fault: &str, tally: &Tally) {
    println!(
        "{:12} {:13} {:4} points, {:3} bad states, {:3} not repaired by the same command",
        scenario.name,
        fault,
        tally.points,
        tally.bad.len(),
        tally.unrepaired.len()
    );
    tally
        .bad
        .iter()
        .chain(&tally.unrepaired)
        .take(10)
        .for_each(|l| println!("    {l}"));
}

fn scenarios() -> Vec<Scenario> {
    let one = |verb| vec![verb, "-m", NAME, "-v", "1.0"];
    let two = |verb| vec![verb, "-m", NAME, "-v", "2.0"];
    vec![
        Scenario {
            name: "install",
            words: one("install"),
            after: Some("1.0"),
            before: vec![one("build")],
        },
        Scenario {
            name: "uninstall",
            words: one("uninstall"),
            after: None,
            before: vec![one("install")],
        },
        Scenario {
            name: "upgrade",
            words: two("install"),
            after: Some("2.0"),
            before: vec![one("install"), two("build")],
        },
        Scenario {
            name: "autoinstall",
            words: vec!["autoinstall"],
            after: Some("1.0"),
            before: vec![one("build")],
        },
    ]
}

impl Place {
    fn make(args: &Args) -> anyhow::Result<Self> {
        let cache = Cache::open()?;
        let kernel = cache.resolve(&args.kernel)?;
        let dir = tempfile::Builder::new()
            .prefix("dkms-faults-")
            .tempdir_in(cache.root())?;
        let beside = std::env::current_exe()?.with_file_name("kspan");
        let place = Self {
            arch: text(Command::new("uname").arg("-m"))?.trim().to_owned(),
            kspan: args.kspan.clone().unwrap_or(beside),
            kernel,
            dir,
        };
        for version in ["0.9", "1.0", "2.0"] {
            source(&place.at("src").join(format!("{NAME}-{version}")), version)?;
        }
        // The module that the kernel itself has.
        let own = place.at("own");
        source(&own, "0.9")?;
        let build = cache.kbuild(&place.kernel, &own, &KbuildOptions::default())?;
        if !build.ok {
            bail!(
                "the test module does not build for {}: {}",
                place.kernel.id,
                build.log
            );
        }
        fs::create_dir_all(place.at("dkms"))?;
        fs::create_dir_all(place.original().parent().context("no parent")?)?;
        fs::copy(own.join(format!("{NAME}.ko")), place.original())?;
        checked(
            Command::new("depmod")
                .arg("-b")
                .arg(place.dir.path())
                .args(["-a", &place.kernel.release]),
        )?;
        Ok(place)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn lib(&self) -> PathBuf {
        self.at("lib/modules").join(&self.kernel.release)
    }

    /// The kernel's own module.
    fn original(&self) -> PathBuf {
        self.lib().join("kernel/drivers").join(format!("{NAME}.ko"))
    }

    fn options(&self) -> Vec<String> {
        let mut words = Vec::new();
        for (option, value) in [
            ("--dkmstree", self.at("dkms")),
            ("--sourcetree", self.at("src")),
            ("--installtree", self.at("lib/modules")),
            ("--kernelsourcedir", self.kernel.build_dir.clone()),
        ] {
            words.extend([option.to_owned(), value.display().to_string()]);
        }
        words.extend(["-k".to_owned(), self.kernel.release.clone()]);
        words
    }

    fn command(&self, before: &[String], words: &[&str]) -> Command {
        let mut all: Vec<String> = before.to_vec();
        all.push(self.kspan.display().to_string());
        all.push("dkms".to_owned());
        all.extend(words.iter().map(|w| (*w).to_owned()));
        all.extend(self.options());
        let (program, rest) = all
            .split_first()
            .map(|(p, r)| (p.clone(), r.to_vec()))
            .unwrap_or_default();
        let mut command = Command::new(program);
        command.args(rest).env("try_sign_modules", "false");
        command
    }

    fn dkms(&self, words: &[&str]) -> anyhow::Result<Output> {
        self.command(&[], words)
            .output()
            .context("kspan cannot be run")
    }

    /// Brings the trees into a scenario's first state and keeps a copy of it.
    fn prepare(&self, scenario: &Scenario) -> anyhow::Result<()> {
        for (i, words) in scenario.before.iter().enumerate() {
            let output = self.dkms(words)?;
            if !output.status.success() {
                bail!(
                    "{} step {i}: {}",
                    scenario.name,
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
        let kept = self.at("kept");
        fs::create_dir_all(&kept)?;
        checked(
            Command::new("cp")
                .arg("-a")
                .arg(self.at("dkms"))
                .arg(self.at("lib"))
                .arg(&kept),
        )
    }

    fn restore(&self) -> anyhow::Result<()> {
        for name in ["dkms", "lib"] {
            fs::remove_dir_all(self.at(name))?;
            checked(
                Command::new("cp")
                    .arg("-a")
                    .arg(self.at("kept").join(name))
                    .arg(self.at(name)),
            )?;
        }
        Ok(())
    }

    /// Back to a tree in which nothing was ever done.
    fn clear(&self) -> anyhow::Result<()> {
        for version in ["1.0", "2.0"] {
            self.dkms(&["uninstall", "-m", NAME, "-v", version])?;
        }
        fs::remove_dir_all(self.at("dkms"))?;
        fs::create_dir_all(self.at("dkms"))?;
        let _ = fs::remove_dir_all(self.at("kept"));
        Ok(())
    }

    /// How often the command makes each system call.
    fn count(
        &self,
        scenario: &Scenario,
        calls: &[&str],
    ) -> anyhow::Result<BTreeMap<String, usize>> {
        let log = self.at("strace.log");
        let before = ["strace", "-qq", "-o", &log.display().to_string(), "-e"].map(str::to_owned);
        let before = [&before[..], &[format!("trace=?{}", calls.join(",?"))]].concat();
        let output = self
            .command(&before, &scenario.words)
            .output()
            .context("strace")?;
        if !output.status.success() {
            bail!(
                "{} under strace: {}",
                scenario.name,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let mut counts = BTreeMap::new();
        for line in fs::read_to_string(&log)?.lines() {
            if let Some((name, _)) = line.split_once('(') {
                *counts.entry(name.to_owned()).or_default() += 1;
            }
        }
        Ok(counts)
    }

    fn trial(
        &self,
        scenario: &Scenario,
        fault: &str,
        calls: &[&str],
        every: usize,
    ) -> anyhow::Result<Tally> {
        self.prepare(scenario)?;
        let counts = self.count(scenario, calls)?;
        let points = counts
            .iter()
            .flat_map(|(call, n)| (1..=*n).map(move |i| (call, i)));
        let mut tally = Tally::default();
        for (call, i) in points.step_by(every.max(1)) {
            self.restore()?;
            let how = match fault {
                "killed" => format!("inject={call}:signal=KILL:when={i}"),
                _ => format!("inject={call}:error=ENOSPC:when={i}+"),
            };
            let before = [
                "strace",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &format!("trace={call}"),
                "-e",
                &how,
            ]
            .map(str::to_owned);
            self.command(&before, &scenario.words)
                .output()
                .context("strace")?;
            self.judge(scenario, &format!("{fault} at {call} {i}"), &mut tally)?;
        }
        self.clear()?;
        Ok(tally)
    }

    fn depmod_fails(&self, scenario: &Scenario) -> anyhow::Result<Tally> {
        use std::os::unix::fs::PermissionsExt;
        self.prepare(scenario)?;
        let fake = self.at("fake");
        fs::create_dir_all(&fake)?;
        fs::write(fake.join("depmod"), "#!/bin/sh\nexit 1\n")?;
        fs::set_permissions(fake.join("depmod"), fs::Permissions::from_mode(0o755))?;
        let path = format!(
            "{}:{}",
            fake.display(),
            std::env::var("PATH").unwrap_or_default()
        );
        self.command(&[], &scenario.words)
            .env("PATH", path)
            .output()?;
        let mut tally = Tally::default();
        self.judge(scenario, "depmod failed", &mut tally)?;
        self.clear()?;
        Ok(tally)
    }

    fn judge(&self, scenario: &Scenario, what: &str, tally: &mut Tally) -> anyhow::Result<()> {
        tally.points += 1;
        if let Some(why) = self.bad()? {
            tally.bad.push(format!("{what}: {why}"));
        }
        let again = self.dkms(&scenario.words)?;
        let told = format!(
            "{}{}",
            String::from_utf8_lossy(&again.stdout),
            String::from_utf8_lossy(&again.stderr)
        );
        if let Some(why) = self.unfinished(scenario)? {
            tally.unrepaired.push(format!(
                "{what}: {why}; the same command said: {}",
                told.trim().replace('\n', " | ")
            ));
        }
        Ok(())
    }

    /// The versions that status calls installed.
    fn installed(&self) -> anyhow::Result<Vec<String>> {
        let output = self.dkms(&["status", "--json"])?;
        let value: Value = serde_json::from_slice(&output.stdout).context("status --json")?;
        let rows = value["modules"].as_array().cloned().unwrap_or_default();
        let versions = rows
            .iter()
            .filter(|r| r["state"] == "installed")
            .filter_map(|r| r["version"].as_str());
        Ok(versions.map(str::to_owned).collect())
    }

    /// The file that modprobe would load.
    fn resolved(&self) -> Option<Vec<u8>> {
        let mut command = Command::new("modprobe");
        command.arg("-d").arg(self.dir.path()).args([
            "-S",
            &self.kernel.release,
            "--show-depends",
            NAME,
        ]);
        let said = text(&mut command).ok()?;
        let path = said
            .lines()
            .last()?
            .trim()
            .strip_prefix("insmod ")?
            .trim()
            .to_owned();
        fs::read(path).ok()
    }

    fn built(&self, version: &str) -> Option<Vec<u8>> {
        let dir = self
            .at("dkms")
            .join(NAME)
            .join(version)
            .join(&self.kernel.release)
            .join(&self.arch);
        fs::read(dir.join("module").join(format!("{NAME}.ko"))).ok()
    }

    /// Installed but not what modprobe finds; or the kernel's own module is nowhere.
    fn bad(&self) -> anyhow::Result<Option<String>> {
        for version in self.installed()? {
            let built = self.built(&version);
            if built.is_none() || self.resolved() != built {
                return Ok(Some(format!(
                    "{version} counts as installed, and modprobe finds another file or none"
                )));
            }
        }
        let own = fs::read(self.at("own").join(format!("{NAME}.ko")))?;
        let backup = self
            .at("dkms")
            .join(NAME)
            .join("original_module")
            .join(&self.kernel.release)
            .join(&self.arch);
        let there = [self.original(), backup.join(format!("{NAME}.ko"))];
        let kept = there.iter().any(|p| fs::read(p).is_ok_and(|b| b == own));
        Ok((!kept).then(|| "the kernel's own module is lost".to_owned()))
    }

    /// What is not as it should be after the command ran to its end.
    fn unfinished(&self, scenario: &Scenario) -> anyhow::Result<Option<String>> {
        if let Some(why) = self.bad()? {
            return Ok(Some(why));
        }
        let installed = self.installed()?;
        let wanted: Vec<String> = scenario.after.iter().map(|v| (*v).to_owned()).collect();
        if installed != wanted {
            return Ok(Some(format!("installed is {installed:?}, not {wanted:?}")));
        }
        if scenario.after.is_none() && self.resolved() != fs::read(self.original()).ok() {
            return Ok(Some(
                "modprobe does not find the kernel's own module".to_owned(),
            ));
        }
        let left: Vec<String> = fs::read_dir(self.at("dkms/.kspan/journal"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .filter(|n| n.ends_with(".json") && !n.starts_with('.'))
            .collect();
        Ok((!left.is_empty()).then(|| format!("journals are left: {left:?}")))
    }
}

fn source(dir: &Path, version: &str) -> anyhow::Result<()> {
    fs::create_dir_all(dir)?;
    let code = format!(
        "#include <linux/module.h>\nMODULE_LICENSE(\"GPL\");\nMODULE_VERSION(\"{version}\");\nMODULE_DESCRIPTION(\"fault test\");\n"
    );
    fs::write(dir.join(format!("{NAME}.c")), code)?;
    fs::write(dir.join("Makefile"), format!("obj-m := {NAME}.o\n"))?;
    let conf = format!(
        "PACKAGE_NAME={NAME}\nPACKAGE_VERSION={version}\nDEST_MODULE_LOCATION=/kernel/drivers\nAUTOINSTALL=yes\n"
    );
    fs::write(dir.join("dkms.conf"), conf)?;
    Ok(())
}

fn text(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{:?}", command.get_program()))?;
    if !output.status.success() {
        bail!(
            "{:?}: {}",
            command.get_program(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn checked(command: &mut Command) -> anyhow::Result<()> {
    text(command).map(|_| ())
}
