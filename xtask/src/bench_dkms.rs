//! `cargo xtask bench-dkms`: how long `kspan dkms` takes, beside the real dkms and bare make, in one run on one machine.
//!
//! Everything lies in scratch trees below the cache; the real dkms is Debian's package, unpacked, and is told of the same trees.

use anyhow::{Context, bail};
use kspan_kernel::{Cache, KbuildOptions, Kernel};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Time `kspan dkms` beside the real dkms and bare make.
///
/// A figure is the smallest of a few runs: wall time, and the processor's time of all processes in brackets, which says more on a machine
/// that is busy with other things. The targets hold for a release build on a calm machine: name one with --kspan.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kernel that is built for; its compiler must be this machine's own.
    #[arg(long, default_value = "6.1")]
    kernel: String,
    /// How many modules in the tree of `status`.
    #[arg(long, default_value_t = 20)]
    modules: usize,
    /// For how many kernels each.
    #[arg(long, default_value_t = 5)]
    kernels: usize,
    /// How often each thing is timed.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only figures whose name begins so: `status`, `autoinstall, nothing`, `build`, `autoinstall, 8`.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// The kspan to time [default: the one beside this program].
    #[arg(long)]
    kspan: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Seconds: by the clock, and of the processor.
#[derive(Clone, Copy)]
struct Time {
    wall: f64,
    cpu: f64,
}

/// One figure.
struct Figure {
    what: String,
    kspan: Time,
    dkms: Option<Time>,
    make: Option<Time>,
    /// At most so many seconds, or so many times bare make.
    target: Target,
}

enum Target {
    Seconds(f64),
    TimesMake(f64),
}

impl Figure {
    fn met(&self) -> bool {
        match self.target {
            Target::Seconds(most) => self.kspan.wall <= most,
            Target::TimesMake(most) => self.make.is_some_and(|m| self.kspan.wall <= most * m.wall),
        }
    }

    fn line(&self) -> String {
        let seconds = |t: Option<Time>| {
            t.map_or("-".to_owned(), |t| {
                format!("{:.3} s ({:.3})", t.wall, t.cpu)
            })
        };
        let target = match self.target {
            Target::Seconds(most) => format!("≤ {most} s"),
            Target::TimesMake(most) => format!(
                "≤ {most} × make (is {:.2} ×, of processor time {:.2} ×)",
                self.kspan.wall / self.make.map_or(f64::NAN, |m| m.wall),
                self.kspan.cpu / self.make.map_or(f64::NAN, |m| m.cpu)
            ),
        };
        let word = if self.met() { "met" } else { "MISSED" };
        format!(
            "{:34} kspan {:>18}   dkms {:>18}   make {:>18}   {target}: {word}",
            self.what,
            seconds(Some(self.kspan)),
            seconds(self.dkms),
            seconds(self.make)
        )
    }

    fn json(&self) -> Value {
        let time = |t: Option<Time>| t.map(|t| json!({ "wall": t.wall, "cpu": t.cpu }));
        json!({ "what": self.what, "kspan": time(Some(self.kspan)), "dkms": time(self.dkms), "make": time(self.make), "met": self.met() })
    }
}

/// What makes a figure.
type Measure<'a> = fn(&Bench<'a>) -> anyhow::Result<Figure>;

/// Real packages of Debian 13 that build on 6.1 as they are.
const PACKAGES: [&str; 8] = [
    "bbswitch-dkms",
    "dpdk-kmods-dkms",
    "evdi-dkms",
    "langford-dkms",
    "leds-alix-dkms",
    "tp-smapi-dkms",
    "v4l2loopback-dkms",
    "vhba-dkms",
];

struct Bench<'a> {
    args: &'a Args,
    cache: Cache,
    kernel: Kernel,
    kspan: PathBuf,
    dkms: PathBuf,
    dir: tempfile::TempDir,
}

/// Runs it.
///
/// # Errors
/// When the kernel, the real dkms or kspan cannot be had, or a run fails.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let bench = Bench::new(args)?;
    let all: [(&str, Measure<'_>); 4] = [
        ("status", Bench::status),
        ("autoinstall, nothing to do", Bench::idle_autoinstall),
        ("build, one file", Bench::one_file),
        ("autoinstall, 8 real packages", Bench::autoinstall),
    ];
    let mut figures = Vec::new();
    for (name, measure) in all {
        if !args.only.is_empty() && !args.only.iter().any(|o| name.starts_with(o.as_str())) {
            continue;
        }
        let figure = measure(&bench)?;
        if !args.json {
            println!("{}", figure.line());
        }
        figures.push(figure);
    }
    if args.json {
        let all: Vec<Value> = figures.iter().map(Figure::json).collect();
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({ "figures": all }))?
        );
    }
    Ok(ExitCode::from(u8::from(!figures.iter().all(Figure::met))))
}

const NAME: &str = "kspanbench";
const MODULE: &str = "#include <linux/module.h>\nMODULE_LICENSE(\"GPL\");\nMODULE_DESCRIPTION(\"bench\");\nMODULE_VERSION(\"1\");\n";

impl<'a> Bench<'a> {
    fn new(args: &'a Args) -> anyhow::Result<Self> {
        let cache = Cache::open()?;
        let kernel = cache.resolve(&args.kernel)?;
        if cache.toolchain(&kernel)?.root.is_some() {
            bail!(
                "{}: its compiler is not this machine's own; the real dkms could not build for it",
                kernel.id
            );
        }
        let found = cache.archive_packages("trixie", &|name| name == "dkms", &|_| ())?;
        let offer = found.first().context("trixie offers no dkms")?;
        let dkms = cache
            .unpacked_package(offer, &|_| ())?
            .join("usr/sbin/dkms");
        let dir = tempfile::Builder::new()
            .prefix("bench-dkms-")
            .tempdir_in(cache.root())?;
        let beside = std::env::current_exe()?.with_file_name("kspan");
        Ok(Self {
            kspan: args.kspan.clone().unwrap_or(beside),
            args,
            cache,
            kernel,
            dkms,
            dir,
        })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The source of a module, as dkms wants it.
    fn source(&self, trees: &Path, name: &str) -> anyhow::Result<PathBuf> {
        let dir = trees.join(format!("src/{name}-1"));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(format!("{name}.c")), MODULE)?;
        fs::write(dir.join("Makefile"), format!("obj-m := {name}.o\n"))?;
        let conf = format!(
            "PACKAGE_NAME={name}\nPACKAGE_VERSION=1\nDEST_MODULE_LOCATION=/updates/dkms\nAUTOINSTALL=yes\nBUILT_MODULE_NAME={name}\n"
        );
        fs::write(dir.join("dkms.conf"), conf)?;
        Ok(dir)
    }

    /// Trees in which every module is installed for every kernel.
    fn installed(&self) -> anyhow::Result<PathBuf> {
        let trees = self.at("many");
        let made = self.source(&self.at("one-build"), NAME)?;
        let build = self
            .cache
            .kbuild(&self.kernel, &made, &KbuildOptions::default())?;
        if !build.ok {
            bail!("the bench's module does not build: {}", build.log);
        }
        let module = made.join(format!("{NAME}.ko"));
        for m in 0..self.args.modules {
            let name = format!("bench{m}");
            let source = self.source(&trees, &name)?;
            let package = trees.join("dkms").join(&name).join("1");
            fs::create_dir_all(&package)?;
            symlink(&source, package.join("source"))?;
            for k in 0..self.args.kernels {
                let kernel = format!("6.{k}.0-bench");
                let base = package.join(&kernel).join("x86_64");
                let place = trees.join("lib").join(&kernel).join("updates/dkms");
                for dir in [&base.join("module"), &base.join("log"), &place] {
                    fs::create_dir_all(dir)?;
                }
                fs::write(base.join("log/make.log"), "")?;
                fs::copy(&module, base.join(format!("module/{name}.ko")))?;
                fs::copy(&module, place.join(format!("{name}.ko")))?;
                let active = trees.join(format!("dkms/{name}/kernel-{kernel}-x86_64"));
                symlink(format!("1/{kernel}/x86_64"), active)?;
            }
        }
        Ok(trees)
    }

    fn command(&self, real: bool, trees: &Path, words: &[&str]) -> Command {
        let mut command = if real {
            let mut command = Command::new("bash");
            command.arg(&self.dkms);
            command
        } else {
            let mut command = Command::new(&self.kspan);
            command.arg("dkms");
            command
        };
        command
            .args(words)
            .arg("--dkmstree")
            .arg(trees.join("dkms"));
        command.arg("--sourcetree").arg(trees.join("src"));
        command.arg("--installtree").arg(trees.join("lib"));
        command.env("try_sign_modules", "false");
        command
    }

    /// The smallest time of a few runs; `before` is not timed.
    fn least(
        &self,
        before: &dyn Fn() -> anyhow::Result<()>,
        make: &dyn Fn() -> Command,
    ) -> anyhow::Result<Time> {
        let mut least = Time {
            wall: f64::INFINITY,
            cpu: f64::INFINITY,
        };
        for _ in 0..self.args.runs.max(1) {
            before()?;
            let mut command = make();
            let (start, before) = (Instant::now(), children()?);
            let output = command.output()?;
            least.wall = least.wall.min(start.elapsed().as_secs_f64());
            least.cpu = least.cpu.min(children()? - before);
            if !output.status.success() {
                bail!(
                    "{command:?}: {}{}",
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
        Ok(least)
    }

    fn status(&self) -> anyhow::Result<Figure> {
        let trees = self.installed()?;
        let nothing = || Ok(());
        let time = |real| self.least(&nothing, &|| self.command(real, &trees, &["status"]));
        let lines = self.command(false, &trees, &["status"]).output()?.stdout;
        let lines = String::from_utf8_lossy(&lines).lines().count();
        let want = self.args.modules * self.args.kernels;
        if lines != want {
            bail!("status told of {lines} modules, not of {want}");
        }
        Ok(Figure {
            what: format!("status, {} × {}", self.args.modules, self.args.kernels),
            kspan: time(false)?,
            dkms: Some(time(true)?),
            make: None,
            target: Target::Seconds(0.020),
        })
    }

    fn idle_autoinstall(&self) -> anyhow::Result<Figure> {
        let trees = match self.at("many") {
            made if made.is_dir() => made,
            _ => self.installed()?,
        };
        let kernel = "6.0.0-bench";
        let build = self.kernel.build_dir.display().to_string();
        let words = ["autoinstall", "-k", kernel, "--kernelsourcedir", &build];
        let nothing = || Ok(());
        let time = |real| self.least(&nothing, &|| self.command(real, &trees, &words));
        Ok(Figure {
            what: format!("autoinstall, nothing to do, {}", self.args.modules),
            kspan: time(false)?,
            dkms: Some(time(true)?),
            make: None,
            target: Target::Seconds(0.050),
        })
    }

    fn one_file(&self) -> anyhow::Result<Figure> {
        let trees = self.at("one");
        let source = self.source(&trees, NAME)?;
        let (release, build) = (&self.kernel.release, &self.kernel.build_dir);
        let kdir = build.display().to_string();
        let fresh = || {
            let _ = fs::remove_dir_all(trees.join("dkms"));
            fs::create_dir_all(trees.join("dkms"))?;
            fs::create_dir_all(trees.join("lib").join(release))?;
            self.command(false, &trees, &["add", "-m", NAME, "-v", "1"])
                .output()?;
            Ok(())
        };
        let words = [
            "build",
            "-m",
            NAME,
            "-v",
            "1",
            "-k",
            release,
            "--kernelsourcedir",
            &kdir,
        ];
        let time = |real| self.least(&fresh, &|| self.command(real, &trees, &words));
        let copy = self.at("bare");
        let cc = self.cache.toolchain(&self.kernel)?.cc;
        let bare = || {
            let _ = fs::remove_dir_all(&copy);
            fs::create_dir_all(&copy)?;
            for file in [format!("{NAME}.c"), "Makefile".to_owned()] {
                fs::copy(source.join(&file), copy.join(&file))?;
            }
            Ok(())
        };
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let make = self.least(&bare, &|| {
            let mut command = Command::new("make");
            command.arg(format!("-j{jobs}")).arg("-C").arg(build);
            command.arg(format!("M={}", copy.display()));
            command.arg(format!("CC={cc}"));
            command
        })?;
        Ok(Figure {
            what: "build, one file".to_owned(),
            kspan: time(false)?,
            dkms: Some(time(true)?),
            make: Some(make),
            target: Target::TimesMake(1.05),
        })
    }

    /// The packages' sources.
    fn real_packages(&self) -> anyhow::Result<Vec<PathBuf>> {
        let wanted = |name: &str| PACKAGES.contains(&name);
        let offers = self.cache.archive_packages("trixie", &wanted, &|_| ())?;
        let mut sources = Vec::new();
        for offer in offers {
            let unpacked = self.cache.unpacked_package(&offer, &|_| ())?;
            for entry in fs::read_dir(unpacked.join("usr/src"))?.flatten() {
                if entry.path().join("dkms.conf").is_file() {
                    sources.push(entry.path());
                }
            }
        }
        sources.sort();
        Ok(sources)
    }

    fn add_all(&self, trees: &Path, sources: &[PathBuf]) -> anyhow::Result<()> {
        for dir in ["dkms", "src", "lib"] {
            let _ = fs::remove_dir_all(trees.join(dir));
            fs::create_dir_all(trees.join(dir))?;
        }
        fs::create_dir_all(trees.join("lib").join(&self.kernel.release))?;
        for source in sources {
            let output = self
                .command(false, trees, &["add", &source.display().to_string()])
                .output()?;
            if !output.status.success() {
                bail!("add: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
        Ok(())
    }

    /// Eight real packages, from added to installed.
    fn autoinstall(&self) -> anyhow::Result<Figure> {
        let trees = self.at("eight");
        let sources = self.real_packages()?;
        let release = &self.kernel.release;
        let kdir = self.kernel.build_dir.display().to_string();
        let words = ["autoinstall", "-k", release, "--kernelsourcedir", &kdir];
        let fresh = || self.add_all(&trees, &sources);
        let time = |real| self.least(&fresh, &|| self.command(real, &trees, &words));
        let dkms = time(true)?;
        let kspan = time(false)?;
        let commands = built(&trees, release)?;
        if commands.len() != sources.len() || sources.len() != PACKAGES.len() {
            bail!(
                "autoinstall built {} of {} packages",
                commands.len(),
                sources.len()
            );
        }
        let make = self.bare_makes(&commands)?;
        Ok(Figure {
            what: format!("autoinstall, {} real packages", sources.len()),
            kspan,
            dkms: Some(dkms),
            make: Some(make),
            target: Target::TimesMake(1.1),
        })
    }

    /// The packages' own build commands, one after the other, as a person would type them.
    fn bare_makes(&self, commands: &[(PathBuf, String)]) -> anyhow::Result<Time> {
        let cc = self.cache.toolchain(&self.kernel)?.cc;
        let script: String = commands
            .iter()
            .map(|(dir, command)| format!("cd {} && {command} || exit 1\n", dir.display()))
            .collect();
        let fresh = || {
            for (dir, _) in commands {
                let _ = fs::remove_dir_all(dir);
                let source = dir.with_file_name("source").canonicalize()?;
                let status = Command::new("cp")
                    .arg("-a")
                    .arg(&source)
                    .arg(dir)
                    .status()?;
                if !status.success() {
                    bail!("cp {}", source.display());
                }
            }
            Ok(())
        };
        self.least(&fresh, &|| {
            let mut command = Command::new("bash");
            command
                .args(["-c", &script])
                .env("CC", &cc)
                .env("KERNEL_CC", &cc);
            command.env("MAKEFLAGS", format!("CC={cc}"));
            command
        })
    }
}

/// Processor seconds of all child processes that have ended.
fn children() -> anyhow::Result<f64> {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Where each package of a tree was built for a kernel, and by which command.
fn built(trees: &Path, release: &str) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for name in fs::read_dir(trees.join("dkms"))?.flatten() {
        for version in fs::read_dir(name.path()).into_iter().flatten().flatten() {
            let log = version.path().join(release).join("x86_64/log/make.log");
            let Ok(text) = fs::read_to_string(&log) else {
                continue;
            };
            let (_, after) = text
                .split_once("Building module(s)\n# command: ")
                .with_context(|| format!("{}: no build command", log.display()))?;
            let command = after.lines().next().unwrap_or_default().to_owned();
            found.push((version.path().join("build"), command));
        }
    }
    found.sort();
    Ok(found)
}
