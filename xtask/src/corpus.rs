//! `cargo xtask corpus`: random in-tree drivers through the engine.

use crate::upgrade;
use anyhow::Context;
use kspan_kernel::Cache;
use kspan_matrix::{Cell, Done, Step};
use kspan_port::driver::{Driver, SourceTree, TreeModule, sample};
use kspan_port::view::View;
use kspan_port::{Engine, Grade, Verdict, store};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Port and build random in-tree drivers, exactly as `kspan build` does.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kernel that the drivers are written for.
    #[arg(long)]
    home: String,
    /// The target.
    #[arg(long)]
    on: String,
    /// How many drivers.
    #[arg(long, default_value_t = 150)]
    sample: usize,
    /// Which ones: the same seed takes the same drivers of the same tree.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Drivers of several source files instead of single-file ones.
    #[arg(long)]
    multi: bool,
    /// Leave out of the sample, by name, what has more C files: a graphics driver alone takes an hour of two processors.
    #[arg(long, value_name = "N")]
    most_files: Option<usize>,
    /// Upgrade the drivers' own sources instead of porting them; of drivers that both trees have.
    #[arg(long)]
    upgrade: bool,
    /// With --upgrade: also port each upgraded source back to the kernel that it came from.
    #[arg(long, requires = "upgrade")]
    round_trip: bool,
    /// Paths in the tree (one a line) instead of a random sample.
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Print the paths of the sample, as --list takes them, and do nothing with them.
    #[arg(long)]
    paths: bool,
    /// How many cells at once [default: one for each core].
    #[arg(long)]
    jobs: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Also print what was gained and lost since an earlier run's JSON.
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// When a kernel or its source tree is not there.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let old = args.compare.as_deref().map(read_record).transpose()?;
    let engine = Engine::new(Cache::open()?)?;
    let home = engine.view(&args.home)?;
    let target = engine.view(&args.on)?;
    let (paths, left_out) = paths(args, &engine, &home, &target)?;
    if args.paths {
        println!("{}", paths.join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let (drivers, failed) = import(&paths, &engine, &home)?;
    if args.upgrade {
        let record = upgrade::record(
            (args.jobs, args.round_trip),
            &engine,
            (&home, &target),
            &drivers,
            &failed,
        );
        if !args.json {
            print_drivers(&record);
        }
        return finish(args, &engine, record, &left_out, old.as_ref());
    }
    let cells: Vec<Cell> = drivers
        .iter()
        .map(|(_, d)| Cell {
            driver: d.clone(),
            target: target.clone(),
        })
        .collect();
    let jobs = args
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let count = AtomicUsize::new(0);
    let talk = std::io::stderr().is_terminal();
    let done = kspan_matrix::run(&engine, &cells, jobs, &|step| {
        if let Step::Cell(done) = step {
            let n = count.fetch_add(1, Ordering::Relaxed) + 1;
            if talk && args.json {
                eprint!("\r{n}/{} {:40}", cells.len(), done.driver);
            }
            // Each as it ends: a run that is cut off has shown its part.
            if !args.json {
                let path = drivers.iter().find(|(_, d)| d.manifest.name == done.driver);
                print_driver(&driver_json(path.map_or(&done.driver, |(p, _)| p), done));
            }
        }
    })?;
    let paths: Vec<&str> = drivers.iter().map(|(p, _)| p.as_str()).collect();
    let record = record(&home, &target, &paths, &done, &failed);
    finish(args, &engine, record, &left_out, old.as_ref())
}

/// Keeps and prints a record.
fn finish(
    args: &Args,
    engine: &Engine,
    mut record: Value,
    left_out: &[String],
    old: Option<&Value>,
) -> anyhow::Result<ExitCode> {
    record["left_out"] = json!(left_out);
    record["seed"] = json!(args.seed);
    record["multi"] = json!(args.multi);
    let stored = store_record(&engine.cache, args, &record)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&record)?);
    } else {
        print_text(&record);
        if !left_out.is_empty() {
            println!("left out, being too large: {}", left_out.join(", "));
        }
        println!("stored in {}", stored.display());
    }
    if let Some(old) = old {
        compare(old, &record, args.json);
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) type Imported = Vec<(String, Arc<Driver>)>;

/// The drivers to run, by path, and those of the sample that are left out.
fn paths(
    args: &Args,
    engine: &Engine,
    home: &View,
    target: &View,
) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    if let Some(file) = &args.list {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
        return Ok((lines.map(str::to_owned).collect(), Vec::new()));
    }
    let root = engine.cache.source_tree(&home.kernel)?;
    let mut modules = modules(engine, home, &root)?;
    if args.upgrade {
        let there = engine.cache.source_tree(&target.kernel)?;
        modules.retain(|m| there.join(m.path()).exists());
    }
    let most = args.most_files.unwrap_or(usize::MAX);
    let names = |of: Vec<TreeModule>| {
        let path = |m: &TreeModule| m.path().to_string_lossy().into_owned();
        of.iter().map(path).collect::<Vec<_>>()
    };
    let (chosen, left_out) = sample(&modules, args.sample, args.seed, args.multi)
        .into_iter()
        .partition(|m| m.objects.len() <= most);
    Ok((names(chosen), names(left_out)))
}

/// Imports drivers, each once, into the cache.
fn import(
    paths: &[String],
    engine: &Engine,
    home: &View,
) -> anyhow::Result<(Imported, Vec<(String, String)>)> {
    let root = engine.cache.source_tree(&home.kernel)?;
    let base = base(engine, home)?;
    let results: Vec<_> = paths
        .par_iter()
        .map(|path| (path.clone(), import_one(engine, home, &root, &base, path)))
        .collect();
    let mut drivers = Vec::new();
    let mut failed = Vec::new();
    for (path, result) in results {
        match result {
            Ok(driver) => drivers.push((path, Arc::new(driver))),
            Err(why) => failed.push((path, format!("{why:#}"))),
        }
    }
    Ok((drivers, failed))
}

/// Where imported drivers of a home kernel are kept.
/// Changes with what an import writes: drivers that were imported before are imported anew.
const IMPORTS: &str = "imports-3";

fn base(engine: &Engine, home: &View) -> anyhow::Result<PathBuf> {
    let digest = &home.kernel.digest;
    let base = engine
        .cache
        .root()
        .join("corpus")
        .join(IMPORTS)
        .join(&digest[..16.min(digest.len())]);
    std::fs::create_dir_all(&base)?;
    Ok(base)
}

/// One driver of the home kernel's tree, imported once.
pub fn import_cached(engine: &Engine, home: &View, path: &str) -> anyhow::Result<Driver> {
    let root = engine.cache.source_tree(&home.kernel)?;
    import_one(engine, home, &root, &base(engine, home)?, path)
}

/// The modules of the home kernel's tree.
pub fn modules_of(engine: &Engine, home: &View) -> anyhow::Result<Vec<TreeModule>> {
    modules(engine, home, &engine.cache.source_tree(&home.kernel)?)
}

fn import_one(
    engine: &Engine,
    home: &View,
    root: &Path,
    base: &Path,
    path: &str,
) -> anyhow::Result<Driver> {
    let dir = base.join(path.replace('/', "__"));
    if let Ok(driver) = Driver::load(&dir) {
        return Ok(driver);
    }
    let config = |symbol: &str| home.facts.config(symbol);
    let index = engine.cache.root().join("facts");
    let tree = SourceTree::open(root, &config, Some(&index))?;
    let staged = tempfile::tempdir_in(base)?;
    tree.import(path, &staged.path().join("driver"), &home.kernel.id)?;
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::rename(staged.path().join("driver"), &dir)?;
    Ok(Driver::load(&dir)?)
}

/// The modules of the home kernel's tree, listed once.
fn modules(engine: &Engine, home: &View, root: &Path) -> anyhow::Result<Vec<TreeModule>> {
    let key = store::key(&["modules-1", &home.kernel.digest]);
    let path = engine
        .cache
        .root()
        .join("facts")
        .join(format!("{key}.modules.json"));
    if let Some(known) = store::read(&path) {
        return Ok(known);
    }
    let config = |symbol: &str| home.facts.config(symbol);
    let modules = SourceTree::open(root, &config, None)?.modules()?.to_vec();
    store::write(&path, &modules)?;
    Ok(modules)
}

fn record(
    home: &View,
    target: &View,
    paths: &[&str],
    done: &[Done],
    failed: &[(String, String)],
) -> Value {
    let mut drivers: Vec<Value> = paths
        .iter()
        .zip(done)
        .map(|(path, d)| driver_json(path, d))
        .collect();
    drivers.extend(failed.iter().map(|(path, why)| {
        json!({"path": path, "verdict": "broken", "grade": null, "seconds": 0.0, "error": why, "open": [], "remedies": [], "risks": []})
    }));
    let is =
        |d: &&Value, key: &str, want: &[&str]| d[key].as_str().is_some_and(|v| want.contains(&v));
    let usable: Vec<&Value> = drivers
        .iter()
        .filter(|d| !is(d, "verdict", &["broken"]))
        .collect();
    let builds = usable
        .iter()
        .filter(|d| is(d, "verdict", &["native", "ported"]))
        .count();
    let native = usable
        .iter()
        .filter(|d| is(d, "verdict", &["native"]))
        .count();
    let clean = usable.iter().filter(|d| is(d, "grade", &["clean"])).count();
    let (n, broken) = (usable.len(), drivers.len() - usable.len());
    json!({
        "home": home.kernel.id, "on": target.kernel.id,
        "n": n, "broken": broken, "native": native, "builds": builds, "clean": clean, "drivers": drivers,
    })
}

fn driver_json(path: &str, done: &Done) -> Value {
    let port = match &done.port {
        Ok(port) => port,
        Err(why) => {
            return json!({"path": path, "verdict": "open", "grade": null, "seconds": 0.0, "error": why,
                "open": [{"gap": "error", "why": why}], "remedies": [], "risks": []});
        }
    };
    let grade = if port.grade == Grade::None {
        Value::Null
    } else {
        json!(port.grade)
    };
    json!({
        "path": path, "verdict": port.verdict, "grade": grade, "seconds": port.seconds,
        "make_seconds": port.make_seconds, "compiles": port.compiles, "open": port.open, "remedies": port.remedies,
        "risks": port.risks(), "warnings": port.warnings, "home_warnings": port.home_warnings,
        "unanalysed": port.unanalysed,
        "error": if port.verdict == Verdict::Broken { json!(port.broken) } else { Value::Null },
        "dir": port.dir,
    })
}

fn store_record(cache: &Cache, args: &Args, record: &Value) -> anyhow::Result<PathBuf> {
    let short = |k: &str| k.replace(['/', '+'], "_");
    let kind = match (args.upgrade, args.multi) {
        (false, false) => "single",
        (false, true) => "multi",
        (true, false) => "upgrade",
        (true, true) => "upgrade-multi",
    };
    let name = format!(
        "{}--{}-{kind}-{}-{}.json",
        short(&args.home),
        short(&args.on),
        args.seed,
        args.sample
    );
    let path = cache.root().join("corpus").join(name);
    store::write(&path, record)?;
    Ok(path)
}

fn print_drivers(record: &Value) {
    let empty = Vec::new();
    for driver in record["drivers"].as_array().unwrap_or(&empty) {
        print_driver(driver);
    }
}

fn print_driver(driver: &Value) {
    let verdict = driver["verdict"].as_str().unwrap_or("?");
    let grade = driver["grade"].as_str().unwrap_or("");
    let mut text = format!(
        "{verdict:7} {grade:7} {:6.1}s {}",
        driver["seconds"].as_f64().unwrap_or(0.0),
        driver["path"].as_str().unwrap_or("")
    );
    let empty = Vec::new();
    for gap in driver["open"].as_array().unwrap_or(&empty).iter().take(4) {
        let says = |key: &str| gap[key].as_str();
        text.push_str("\n          ");
        text.push_str(says("message").or(says("why")).unwrap_or("?"));
    }
    // At once: several end at a time.
    println!("{text}");
}

fn print_text(record: &Value) {
    let n = record["n"].as_u64().unwrap_or(0).max(1);
    let share = |key: &str| {
        let v = record[key].as_u64().unwrap_or(0);
        format!("{v} ({:.1} %)", 100.0 * v as f64 / n as f64)
    };
    println!(
        "\n{} → {} seed {}: n {n}, native {}, builds {}, clean {}, broken at home {}",
        record["home"].as_str().unwrap_or(""),
        record["on"].as_str().unwrap_or(""),
        record["seed"],
        share("native"),
        share("builds"),
        share("clean"),
        record["broken"]
    );
    if let Some(back) = record["back"].as_u64() {
        println!(
            "ported back to {}: {back} of the {} that build",
            record["home"].as_str().unwrap_or(""),
            record["builds"]
        );
    }
    if let Some(count) = record["with_family"].as_u64().filter(|n| *n > 0) {
        println!("{count} of them with modules of their family");
    }
    for (what, count) in frequent_gaps(record) {
        println!("{count:4} {what}");
    }
}

/// The most frequent open gaps, each counted once for a driver.
fn frequent_gaps(record: &Value) -> Vec<(String, usize)> {
    let empty = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for driver in record["drivers"].as_array().unwrap_or(&empty) {
        let mut seen = std::collections::BTreeSet::new();
        for gap in driver["open"].as_array().unwrap_or(&empty) {
            seen.insert(gap_name(gap));
        }
        for name in seen {
            *counts.entry(name).or_default() += 1;
        }
    }
    let mut list: Vec<_> = counts.into_iter().collect();
    list.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    list.truncate(20);
    list
}

fn gap_name(gap: &Value) -> String {
    let field = |k: &str| gap[k].as_str().unwrap_or("");
    let name = match field("gap") {
        "header" => field("header").to_owned(),
        "field" | "callback" => format!("{}.{}", field("record"), field("field")),
        "export" => field("symbol").to_owned(),
        "diagnostic" => field("message").chars().take(90).collect(),
        _ => field("name").to_owned(),
    };
    format!("[{}] {name}", field("gap"))
}

fn read_record(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn compare(old: &Value, new: &Value, json: bool) {
    let builds = |record: &Value| -> BTreeMap<String, bool> {
        let empty = Vec::new();
        let drivers = record["drivers"].as_array().unwrap_or(&empty);
        let fine = |d: &Value| matches!(d["verdict"].as_str(), Some("native" | "ported"));
        drivers
            .iter()
            .map(|d| (d["path"].as_str().unwrap_or("").to_owned(), fine(d)))
            .collect()
    };
    let (before, after) = (builds(old), builds(new));
    let changed = |from: bool| -> Vec<&String> {
        after
            .iter()
            .filter(|(p, now)| before.get(*p) == Some(&from) && **now != from)
            .map(|(p, _)| p)
            .collect()
    };
    let (gained, lost) = (changed(false), changed(true));
    if json {
        eprintln!("{}", json!({"gained": gained, "lost": lost}));
    } else {
        println!(
            "gained {}: {gained:?}\nlost {}: {lost:?}",
            gained.len(),
            lost.len()
        );
    }
}
