//! `kspan test`: boot, load, smoke test.

use super::drivers;
use super::kernel::Teller;
use crate::output;
use crate::progress::Steps;
use kspan_kernel::{Cache, Error, Kernel};
use kspan_matrix::Cell;
use kspan_port::driver::{Driver, SourceTree, read_config};
use kspan_port::view::View;
use kspan_port::{Engine, Port};
use kspan_vm::{Accelerator, Candidate, KernelFiles, ModuleTree, Options, Suite, module_name};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Boot kernels in QEMU and try the ported modules there.
///
/// Each cell is ported and built as `kspan build` does, then its kernel is booted with the modules: they load in order,
/// unload and load again, leave the kernel's log clean, and pass the smoke test of the driver's kspan.toml, if it has one.
/// A cell `works` (with a smoke test), `loads` (without one), `fails`, `hangs`, `crashes`, or is `skipped` with the reason.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Driver directories (with a kspan.toml).
    #[arg(value_name = "DRIVER", required_unless_present = "suite")]
    drivers: Vec<PathBuf>,
    /// Kernels: ids, releases or aliases such as 6.1, separated by commas [default: the newest of each fetched series].
    #[arg(long, value_name = "K,K", value_delimiter = ',')]
    on: Vec<String>,
    /// `emulated`: the drivers of the newest kernel's tree that QEMU has devices for; or a directory of such a suite.
    #[arg(long, value_name = "SUITE", conflicts_with = "drivers")]
    suite: Option<String>,
    /// Of the suite, only these.
    #[arg(
        long,
        value_name = "NAME,NAME",
        value_delimiter = ',',
        requires = "suite"
    )]
    only: Vec<String>,
    /// How many machines at once [default: one for each core].
    #[arg(long, short, value_name = "N")]
    jobs: Option<usize>,
    /// How many drivers share a machine, at most; each is judged alone.
    #[arg(long, value_name = "N", default_value_t = 4)]
    share: usize,
    /// How often each driver is unloaded and loaded again.
    #[arg(long, value_name = "N", default_value_t = 10)]
    cycles: usize,
    /// How many processors each machine has: with more than one, races can show.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    cpus: u8,
    /// How many seconds a guest may be silent before it counts as hung.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    limit: u64,
    /// How guests run [default: kvm where a guest really runs under it, else tcg].
    #[arg(long, value_name = "HOW")]
    accel: Option<Accel>,
    /// Boot this image instead of the one that the kernel's archive has; for one kernel.
    #[arg(long, value_name = "FILE", requires = "modules")]
    kernel_image: Option<PathBuf>,
    /// The lib/modules/RELEASE directory that belongs to the image.
    #[arg(long, value_name = "DIR", requires = "kernel_image")]
    modules: Option<PathBuf>,
    /// Where consoles are kept, KERNEL/DRIVER.log [default: tests/ in the cache].
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Accel {
    /// The processor's own.
    Kvm,
    /// Translation.
    Tcg,
}

/// A guest's memory in MiB: enough for any of the suite's drivers.
const MEMORY: u64 = 768;
/// How long a kernel may take to come up under translation on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// Runs it.
///
/// # Errors
/// When a driver or kernel is not there, or the machine lacks something.
pub fn run(args: &Args, cache: Cache, json: bool) -> anyhow::Result<ExitCode> {
    let engine = Engine::new(cache)?;
    let targets = drivers::targets(&args.on, &engine)?;
    named_files(args)?;
    if args.kernel_image.is_some() && targets.len() != 1 {
        anyhow::bail!(Error::Input(
            "--kernel-image is for one kernel: name it with --on".into()
        ));
    }
    let drivers = match &args.suite {
        Some(suite) => suite_drivers(suite, args, &engine.cache)?,
        None => args
            .drivers
            .iter()
            .map(|d| Ok(Arc::new(drivers::load(d)?)))
            .collect::<anyhow::Result<_>>()?,
    };
    let jobs = args
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let mut candidates = build(&engine, &drivers, &targets, jobs)?;
    let mut kernels = BTreeMap::new();
    for target in &targets {
        let files = files(args, &engine.cache, &target.kernel).map(Arc::new);
        let files = match files {
            Err(e @ Error::Input(_)) => Err(e.to_string()),
            other => Ok(other?),
        };
        if matches!(&files, Ok(f) if !f.modules.lists_built_in()) {
            find_built_in(&engine.cache, &drivers, &target.kernel, &mut candidates)?;
        }
        kernels.insert(target.kernel.id.clone(), files);
    }
    let options = Options {
        jobs,
        share: args.share,
        cycles: args.cycles,
        limit: Duration::from_secs(args.limit.max(1)),
        boot_limit: BOOT_LIMIT,
        memory: MEMORY,
        cpus: usize::from(args.cpus),
        accelerator: args.accel.map(|a| match a {
            Accel::Kvm => Accelerator::Kvm,
            Accel::Tcg => Accelerator::Tcg,
        }),
        logs: args
            .logs
            .clone()
            .unwrap_or_else(|| engine.cache.root().join("tests")),
    };
    let steps = Steps::new(candidates.len());
    let outcomes = kspan_vm::run(&engine.cache, &kernels, &candidates, &options, &|step| {
        let kspan_vm::Step::Cell(cell) = step;
        let word = cell.verdict.word();
        steps.done(format!("{} on {}: {word}", cell.driver, cell.kernel));
    })?;
    steps.finish();
    if json {
        println!("{}", kspan_report::trial_json(&outcomes)?);
    } else {
        print!("{}", kspan_report::trial_table(&outcomes));
    }
    let well = |o: &kspan_vm::Outcome| o.well();
    Ok(output::verdict(outcomes.iter().all(well)))
}

/// Ports and builds every cell.
fn build(
    engine: &Engine,
    drivers: &[Arc<Driver>],
    targets: &[Arc<View>],
    jobs: usize,
) -> anyhow::Result<Vec<Candidate>> {
    let cell = |driver: &Arc<Driver>, target: &Arc<View>| Cell {
        driver: driver.clone(),
        target: target.clone(),
    };
    let cells: Vec<Cell> = drivers
        .iter()
        .flat_map(|d| targets.iter().map(move |t| cell(d, t)))
        .collect();
    let steps = Steps::new(cells.len() + drivers.len());
    let done = kspan_matrix::run(engine, &cells, jobs, &|step| {
        steps.done(match step {
            kspan_matrix::Step::Home(name) => format!("{name} at home"),
            kspan_matrix::Step::Cell(done) => format!("{} built on {}", done.driver, done.kernel),
        });
    })?;
    steps.finish();
    let candidate = |(done, cell): (kspan_matrix::Done, &Cell)| Candidate {
        driver: done.driver,
        kernel: done.kernel,
        smoke: cell.driver.manifest.smoke.clone(),
        built_in: BTreeSet::new(),
        port: done.port.and_then(|port| modules_of(&port)),
    };
    Ok(done.into_iter().zip(&cells).map(candidate).collect())
}

/// What a kernel has built in when its archive does not say: a module whose symbol, by the Makefile of the tree that the driver
/// came from, is `y` in the kernel's configuration. A driver of another origin has no symbol, and nothing is claimed of it.
fn find_built_in(
    cache: &Cache,
    drivers: &[Arc<Driver>],
    kernel: &Kernel,
    candidates: &mut [Candidate],
) -> anyhow::Result<()> {
    let config = read_config(kernel)?;
    for driver in drivers {
        let built_in = |symbol: &String| config.get(symbol).is_some_and(|v| v == "y");
        let names: BTreeSet<String> = symbols(cache, driver)?
            .into_iter()
            .filter(|(_, symbol)| built_in(symbol))
            .map(|(module, _)| module_name(&module))
            .collect();
        let name = &driver.manifest.name;
        for candidate in candidates
            .iter_mut()
            .filter(|c| c.driver == *name && c.kernel == kernel.id)
        {
            candidate.built_in.clone_from(&names);
        }
    }
    Ok(())
}

/// The symbols of an imported driver's modules, where the tree that it came from is in the cache.
fn symbols(cache: &Cache, driver: &Driver) -> kspan_kernel::Result<BTreeMap<String, String>> {
    let Some(origin) = &driver.manifest.origin else {
        return Ok(BTreeMap::new());
    };
    let Ok(home) = cache.resolve(&origin.kernel) else {
        return Ok(BTreeMap::new());
    };
    let Some(source) = cache.source_tree_if_present(&home) else {
        return Ok(BTreeMap::new());
    };
    let config = read_config(&home)?;
    let value = |name: &str| config.get(name).cloned();
    SourceTree::open(&source, &value, None)?.symbols(&origin.path)
}

/// Where a port's modules are, or why there are none.
fn modules_of(port: &Port) -> Result<(PathBuf, Vec<PathBuf>), String> {
    match (&port.dir, port.builds()) {
        (Some(dir), true) => Ok((dir.clone(), port.modules.clone())),
        _ if !port.broken.is_empty() => Err(format!(
            "it does not build at home: {}",
            port.broken.lines().next().unwrap_or_default()
        )),
        _ => Err(match port.open.first() {
            Some(gap) => format!("{} gaps are open, the first: {}", port.open.len(), gap.why),
            None => "its port does not build".to_owned(),
        }),
    }
}

/// What is named to be booted is there; a cell is skipped for what a machine lacks, not for a slip of the user's.
fn named_files(args: &Args) -> kspan_kernel::Result<()> {
    let Some(vmlinuz) = args.kernel_image.as_deref().filter(|f| !f.is_file()) else {
        return match args.modules.as_deref().filter(|d| !d.is_dir()) {
            Some(dir) => Err(Error::Input(format!(
                "{}: no such directory of modules",
                dir.display()
            ))),
            None => Ok(()),
        };
    };
    Err(Error::Input(format!(
        "{}: no such kernel image",
        vmlinuz.display()
    )))
}

/// What is booted for a kernel: as named, or of the kernel's own archive.
fn files(args: &Args, cache: &Cache, kernel: &Kernel) -> kspan_kernel::Result<KernelFiles> {
    if let (Some(vmlinuz), Some(modules)) = (&args.kernel_image, &args.modules) {
        return Ok(KernelFiles {
            vmlinuz: std::path::absolute(vmlinuz).map_err(Error::io(vmlinuz))?,
            modules: ModuleTree::open(modules)?,
        });
    }
    let teller = Teller::new();
    let image = cache.image(kernel, &|p| teller.tell(&p))?;
    Ok(KernelFiles {
        modules: ModuleTree::open(&image.modules)?,
        vmlinuz: image.vmlinuz,
    })
}

/// Imports the suite's drivers from the newest kernel's tree, once for each state of that tree.
fn suite_drivers(name: &str, args: &Args, cache: &Cache) -> anyhow::Result<Vec<Arc<Driver>>> {
    let dir = (name != "emulated").then(|| Path::new(name));
    if let Some(dir) = dir.filter(|d| !d.is_dir()) {
        anyhow::bail!(Error::Input(format!(
            "no suite {}: name `emulated` or a directory of *.toml files",
            dir.display()
        )));
    }
    let suite = Suite::load(dir)?.only(&args.only)?;
    let none = || {
        Error::Input("no kernel is in the cache; fetch some first, for example `kspan kernel fetch debian/bookworm`".into())
    };
    let home = cache.kernels()?.pop().ok_or_else(none)?;
    let teller = Teller::new();
    let source = cache.source_tree_with(&home, &|p| teller.tell(&p))?;
    let config = read_config(&home)?;
    let value = |name: &str| config.get(name).cloned();
    let index = cache.root().join("index");
    let tree = SourceTree::open(&source, &value, Some(&index))?;
    let place = cache.root().join("emulated").join(&home.digest);
    let mut drivers = Vec::new();
    for entry in suite.entries {
        let dir = place.join(entry.path.replace('/', "_"));
        let mut driver = match Driver::load(&dir) {
            Ok(driver) => driver,
            Err(_) => import(&tree, &entry.path, &dir, &home.id)?,
        };
        driver.manifest.name = entry.name;
        driver.manifest.smoke = Some(entry.smoke);
        drivers.push(Arc::new(driver));
    }
    Ok(drivers)
}

/// Imports beside the place, then renames: whole or not at all.
fn import(
    tree: &SourceTree<'_>,
    path: &str,
    dir: &Path,
    home: &str,
) -> kspan_kernel::Result<Driver> {
    let parent = dir.parent().unwrap_or(dir);
    std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    let staged = tempfile::tempdir_in(parent).map_err(Error::io(parent))?;
    let new = staged.path().join("driver");
    tree.import(path, &new, home)?;
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(Error::io(dir))?;
    }
    std::fs::rename(&new, dir).map_err(Error::io(dir))?;
    Driver::load(dir)
}
