//! `cargo xtask bench`: the figures for speed, each beside its target. Ratios compare two things of the same run.

use crate::corpus;
use anyhow::Context;
use kspan_facts::Facts;
use kspan_kernel::{Cache, KbuildOptions, Kernel};
use kspan_port::driver::{Driver, sample};
use kspan_port::{Engine, Port};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Instant;

/// Measure speed and memory; the exit code is 1 when a target is missed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kernel that the drivers are written for.
    #[arg(long, default_value = "trixie-backports")]
    home: String,
    /// The targets.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "bullseye,bookworm,trixie,trixie-backports"
    )]
    on: Vec<String>,
    /// How many random single-file drivers are ported and made, one after the other, on the oldest target.
    #[arg(long, default_value_t = 15)]
    sample: usize,
    /// Which ones.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The driver that `check` is timed on, a path in the home kernel's tree; of about 10,000 lines.
    #[arg(long, default_value = "drivers/net/ethernet/intel/ixgbevf")]
    check: String,
    /// Measure only these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Reading kernels, and opening what was read.
    Facts,
    /// `kspan check`.
    Check,
    /// Ports beside bare make.
    Ports,
    /// The largest process.
    Memory,
}

impl Args {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// One measured figure.
#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    /// What it may be at most; none where it only informs.
    at_most: Option<f64>,
}

impl Figure {
    fn missed(&self) -> bool {
        self.at_most.is_some_and(|most| self.value > most)
    }

    fn line(&self) -> String {
        let judged = match self.at_most {
            None => String::new(),
            Some(most) => {
                let word = if self.missed() { "MISSED" } else { "met" };
                format!("  target ≤ {most} {word}")
            }
        };
        format!("{:60} {:>9.2} {}{judged}", self.what, self.value, self.unit)
    }
}

/// Runs it.
///
/// # Errors
/// When a kernel, its source tree or the program under test is not there.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let engine = Engine::new(Cache::open()?)?;
    let kernels: Vec<Kernel> = args
        .on
        .iter()
        .map(|name| engine.cache.resolve(name))
        .collect::<Result<_, _>>()?;
    let mut figures = Vec::new();
    if args.wants(Part::Facts) {
        figures.extend(facts(&engine.cache, &kernels)?);
    }
    if args.wants(Part::Check) {
        figures.push(check(&engine, args)?);
    }
    if args.wants(Part::Ports) {
        figures.extend(ports(&engine, args)?);
    }
    if args.wants(Part::Memory) {
        figures.push(memory(args)?);
    }
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&serde_json::json!({ "figures": figures }))?
        );
    } else {
        figures.iter().for_each(|f| println!("{}", f.line()));
    }
    Ok(ExitCode::from(u8::from(figures.iter().any(Figure::missed))))
}

/// Reading each kernel into an empty store, and opening it again.
fn facts(cache: &Cache, kernels: &[Kernel]) -> anyhow::Result<Vec<Figure>> {
    let place = tempfile::tempdir_in(cache.root())?;
    for shared in ["toolchains", "roots"] {
        std::os::unix::fs::symlink(cache.root().join(shared), place.path().join(shared))?;
    }
    let empty = Cache::at(place.path())?;
    let mut figures = Vec::new();
    for kernel in kernels {
        let before = cpu_seconds()?;
        drop(Facts::open(&empty, kernel)?);
        let cold = cpu_seconds()? - before;
        let mut times = Vec::new();
        for _ in 0..5 {
            let start = Instant::now();
            drop(Facts::open(&empty, kernel)?);
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        let figure = |what: &str, value, unit, most| Figure {
            what: format!("facts of {}, {what}", kernel.release),
            value,
            unit,
            at_most: Some(most),
        };
        figures.push(figure("cold", cold, "CPU-s", 10.0));
        figures.push(figure("opened warm", median(&mut times), "ms", 100.0));
    }
    Ok(figures)
}

/// CPU seconds of this process, its threads, and the children that have ended.
fn cpu_seconds() -> anyhow::Result<f64> {
    let mut micros = 0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        micros += usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    }
    Ok(micros as f64 / 1e6)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// `kspan check` as a user runs it, all kernels, the second time.
fn check(engine: &Engine, args: &Args) -> anyhow::Result<Figure> {
    let driver = imported(engine, args, &args.check)?;
    let lines: usize = driver
        .sources()?
        .iter()
        .filter_map(|f| std::fs::read(driver.dir.join(f)).ok())
        .map(|bytes| bytes.iter().filter(|b| **b == b'\n').count())
        .sum();
    let arguments = ["check", utf8(&driver.dir)?, "--on", &args.on.join(",")];
    kspan(&arguments)?;
    let start = Instant::now();
    kspan(&arguments)?;
    Ok(Figure {
        what: format!("check of {lines} lines on {} kernels, warm", args.on.len()),
        value: start.elapsed().as_secs_f64(),
        unit: "s",
        at_most: Some(1.0),
    })
}

fn imported(engine: &Engine, args: &Args, path: &str) -> anyhow::Result<Arc<Driver>> {
    let home = engine.view(&args.home)?;
    Ok(Arc::new(corpus::import_cached(engine, &home, path)?))
}

/// Runs the program under test, which stands beside this one; a verdict of no is an answer, too.
fn kspan(arguments: &[&str]) -> anyhow::Result<()> {
    let program = std::env::current_exe()?.with_file_name("kspan");
    let status = Command::new(&program)
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .with_context(|| {
            format!(
                "{}: build it first: cargo build --release -p kspan",
                program.display()
            )
        })?;
    anyhow::ensure!(
        matches!(status.code(), Some(0 | 1)),
        "kspan {} failed",
        arguments.join(" ")
    );
    Ok(())
}

fn utf8(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path is not UTF-8")
}

/// Ports random drivers that nothing is known of, then makes the results without kspan.
fn ports(engine: &Engine, args: &Args) -> anyhow::Result<Vec<Figure>> {
    let home = engine.view(&args.home)?;
    let oldest = args.on.first().context("no target")?;
    let target = engine.view(oldest)?;
    let options = KbuildOptions {
        jobs: 1,
        ..KbuildOptions::default()
    };
    let (mut ratios, mut homes) = (Vec::new(), Vec::new());
    let modules = corpus::modules_of(engine, &home)?;
    for module in sample(&modules, args.sample, args.seed, false) {
        let path = module.path().to_string_lossy().into_owned();
        let Ok(known) = imported(engine, args, &path) else {
            continue;
        };
        let fresh = tempfile::tempdir()?;
        let driver = unknown_copy(&known, fresh.path())?;
        let start = Instant::now();
        engine.home(&driver, &options)?;
        homes.push(start.elapsed().as_secs_f64());
        let port = engine.port(&driver, &target, &options)?;
        eprintln!("{path}: {:?} in {:.1} s", port.verdict, port.seconds);
        if port.builds() {
            ratios.push(port.seconds / bare_make(engine, &port, &target.kernel, &options)?);
        }
    }
    let count = ratios.len();
    Ok(vec![
        Figure {
            what: format!("port and final compile ÷ bare make, median of {count}"),
            value: median(&mut ratios),
            unit: "×",
            at_most: Some(3.0),
        },
        Figure {
            what: format!(
                "home build and analysis, once a driver, median of {}",
                homes.len()
            ),
            value: median(&mut homes),
            unit: "s",
            at_most: None,
        },
    ])
}

/// A copy whose content no cache has seen.
fn unknown_copy(driver: &Driver, to: &Path) -> anyhow::Result<Driver> {
    for file in driver.sources()? {
        let place = to.join(&file);
        std::fs::create_dir_all(place.parent().unwrap_or(to))?;
        std::fs::copy(driver.dir.join(&file), place)?;
    }
    std::fs::write(
        to.join("seen-once.txt"),
        format!("{} {:?}", to.display(), std::time::SystemTime::now()),
    )?;
    Ok(Driver::load(to)?)
}

fn bare_make(
    engine: &Engine,
    port: &Port,
    kernel: &Kernel,
    options: &KbuildOptions,
) -> anyhow::Result<f64> {
    let from = port.dir.as_deref().context("a port without a directory")?;
    let work = tempfile::tempdir()?;
    for file in &port.files {
        let place = work.path().join(file);
        std::fs::create_dir_all(place.parent().unwrap_or(work.path()))?;
        std::fs::copy(from.join(file), place)?;
    }
    let build = engine.cache.kbuild(kernel, work.path(), options)?;
    anyhow::ensure!(
        build.ok,
        "{} does not build again: {}",
        port.driver,
        build.log
    );
    Ok(build.seconds)
}

/// The largest process of all that was run as a child (kspan itself, with kernels opened, and compilers).
fn memory(args: &Args) -> anyhow::Result<Figure> {
    let place: PathBuf = tempfile::tempdir()?.keep();
    let cache = Cache::open()?;
    for shared in ["toolchains", "roots"] {
        std::os::unix::fs::symlink(cache.root().join(shared), place.join(shared))?;
    }
    let kernel = cache.resolve(&args.home)?;
    kspan(&[
        "--cache",
        utf8(&place)?,
        "facts",
        utf8(&kernel.build_dir)?,
        "printk",
    ])?;
    std::fs::remove_dir_all(&place)?;
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    Ok(Figure {
        what: "largest process: check, facts from nothing, compilers".to_owned(),
        value: peak as f64 / 1024.0,
        unit: "MiB",
        at_most: Some(1024.0),
    })
}
