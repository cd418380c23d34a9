//! `cargo xtask agreement`: upgrades beside what the kernel's maintainers made of the same files.

use crate::corpus;
use crate::upgrade::in_threads;
use anyhow::Context;
use kspan_evolve::KernelView;
use kspan_evolve::learn::agree::{Accord, Comparer, Use};
use kspan_evolve::learn::hundredth;
use kspan_kernel::{Cache, KbuildOptions};
use kspan_port::Engine;
use kspan_port::driver::{Driver, sample};
use kspan_port::view::View;
use kspan_upstream::upgrade::{Manner, Upgrade, series, upgrade};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Compare upgrades with what the kernel's maintainers made of the same files.
///
/// Drivers that both trees have are upgraded from the old kernel to the new one. Every use of a name that changed is then looked up in
/// the maintainers' text and in kspan's. Rules learned from other files are measured with `KSPAN_EVOLUTIONS` and the same
/// --train-percent that `kspan learn` had.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kernel that the drivers are written for.
    #[arg(long)]
    home: String,
    /// The newer kernel.
    #[arg(long)]
    to: String,
    /// How many drivers.
    #[arg(long, default_value_t = 100)]
    sample: usize,
    /// Which ones: the same seed takes the same drivers of the same tree.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only files whose path falls behind the first so many hundredths, as `kspan learn --train-percent` counts them.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=99))]
    train_percent: u8,
    /// How many drivers at once [default: one for each core].
    #[arg(long)]
    jobs: Option<usize>,
    /// Print every use where the two differ.
    #[arg(long)]
    differing: bool,
    /// Print JSON, with every use.
    #[arg(long)]
    json: bool,
}

/// Uses, each with its file.
type Uses = Vec<(String, Use)>;

/// What one driver showed.
struct Compared {
    path: String,
    builds: bool,
    error: Option<String>,
    uses: Uses,
    /// Lines that kspan changed and the maintainers did not, as `file:line`.
    needless: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// When a kernel or its source tree is not there.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let engine = Engine::new(Cache::open()?)?;
    let (home, target) = (engine.view(&args.home)?, engine.view(&args.to)?);
    let there = engine.cache.source_tree(&target.kernel)?;
    let drivers = drivers(args, &engine, &home, &there)?;
    let has_header = |h: &str| target.header_exists(h);
    let comparer = Comparer::new(&home.facts, &target.facts, &has_header);
    let one = |(path, driver): &(String, Arc<Driver>)| {
        compared(&engine, &comparer, (path, driver), &target, &there)
    };
    let all = in_threads(args.jobs, &drivers, &one);
    let record = record(args, &home, &target, &all);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&record)?);
    } else {
        print_text(args, &record, &all);
    }
    Ok(ExitCode::SUCCESS)
}

/// Drivers of files that nobody learned from and that the maintainers have changed.
fn drivers(
    args: &Args,
    engine: &Engine,
    home: &View,
    there: &Path,
) -> anyhow::Result<corpus::Imported> {
    let here = engine.cache.source_tree(&home.kernel)?;
    let mut modules = corpus::modules_of(engine, home)?;
    modules.retain(|m| {
        let path = m.path();
        let text = |root: &Path| std::fs::read(root.join(&path)).ok();
        hundredth(&path.to_string_lossy()) >= args.train_percent
            && text(there).is_some_and(|t| text(&here).is_some_and(|h| h != t))
    });
    let chosen = sample(&modules, args.sample, args.seed, false);
    let imported = |m: &kspan_port::driver::TreeModule| {
        let path = m.path().to_string_lossy().into_owned();
        let driver = corpus::import_cached(engine, home, &path);
        driver
            .map(|d| (path.clone(), Arc::new(d)))
            .with_context(|| path)
    };
    let results: Vec<_> = chosen.par_iter().map(imported).collect();
    let (good, bad): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    for why in bad.into_iter().filter_map(Result::err) {
        eprintln!("left out: {why:#}");
    }
    Ok(good.into_iter().filter_map(Result::ok).collect())
}

fn compared(
    engine: &Engine,
    comparer: &Comparer<'_>,
    (path, driver): (&str, &Driver),
    target: &View,
    there: &Path,
) -> Compared {
    let options = KbuildOptions {
        jobs: 1,
        ..KbuildOptions::default()
    };
    let mut out = Compared {
        path: path.to_owned(),
        builds: false,
        error: None,
        uses: Vec::new(),
        needless: Vec::new(),
    };
    let done = upgrade(engine, driver, target, &options, Manner::default());
    match done.map_err(anyhow::Error::from) {
        Ok(done) if done.broken.is_some() => out.error = done.broken,
        Ok(done) => {
            out.builds = done.builds;
            match uses(comparer, &done, path, there) {
                Ok((uses, needless)) => (out.uses, out.needless) = (uses, needless),
                Err(why) => out.error = Some(format!("{why:#}")),
            }
        }
        Err(why) => out.error = Some(format!("{why:#}")),
    }
    out
}

/// The uses of all files of a driver that the new tree has in the same place.
fn uses(
    comparer: &Comparer<'_>,
    done: &Upgrade,
    path: &str,
    there: &Path,
) -> anyhow::Result<(Uses, Vec<String>)> {
    let dir = tempfile::tempdir()?;
    series::write_source(done, dir.path())?;
    let place = Path::new(path).parent().unwrap_or(Path::new(""));
    let (mut out, mut needless) = (Vec::new(), Vec::new());
    for (file, old) in &done.before {
        if file.extension().is_none_or(|e| e != "c") {
            continue;
        }
        let in_tree = place.join(file);
        let Ok(theirs) = std::fs::read(there.join(&in_tree)) else {
            continue;
        };
        let ours = std::fs::read(dir.path().join(file))?;
        let text = String::from_utf8_lossy;
        let found = comparer.compare(&text(old), &text(&theirs), &text(&ours));
        let name = in_tree.to_string_lossy().into_owned();
        let lines = Comparer::needless(&text(old), &text(&theirs), &text(&ours));
        needless.extend(lines.iter().map(|line| format!("{name}:{line}")));
        out.extend(found.into_iter().map(|u| (name.clone(), u)));
    }
    Ok((out, needless))
}

fn count(all: &[Compared], accord: Accord) -> usize {
    let uses = all.iter().flat_map(|c| &c.uses);
    uses.filter(|(_, u)| u.accord == accord).count()
}

/// A share in hundredths, or nothing of nothing.
fn share(part: usize, all: usize) -> Value {
    match all {
        0 => Value::Null,
        #[allow(clippy::cast_precision_loss)]
        _ => json!((part as f64 / all as f64 * 1000.0).round() / 10.0),
    }
}

fn record(args: &Args, home: &View, target: &View, all: &[Compared]) -> Value {
    let of = |accord| count(all, accord);
    let (exact, equivalent, other) = (of(Accord::Exact), of(Accord::Equivalent), of(Accord::Other));
    let (missed, wrong, unjudged) = (of(Accord::Missed), of(Accord::False), of(Accord::Unjudged));
    let theirs = exact + equivalent + other + missed;
    let ours = exact + equivalent + other + wrong;
    let files: BTreeMap<&str, Value> = all
        .iter()
        .map(|c| {
            let uses: Vec<Value> = c
                .uses
                .iter()
                .map(|(file, u)| json!({"file": file, "use": u}))
                .collect();
            (
                c.path.as_str(),
                json!({"builds": c.builds, "error": c.error, "uses": uses, "needless": c.needless}),
            )
        })
        .collect();
    json!({
        "home": home.kernel.id, "to": target.kernel.id, "seed": args.seed, "train_percent": args.train_percent,
        "drivers": all.len(), "broken": all.iter().filter(|c| c.error.is_some()).count(),
        "builds": all.iter().filter(|c| c.builds).count(),
        "maintainers_edits": theirs, "kspan_edits": ours,
        "exact": exact, "equivalent": equivalent, "other": other, "missed": missed, "false": wrong, "unjudged": unjudged,
        "needless_lines": all.iter().map(|c| c.needless.len()).sum::<usize>(),
        "recall_exact_percent": share(exact, theirs),
        "recall_percent": share(exact + equivalent, theirs),
        "agree_percent": share(exact + equivalent, ours),
        "files": files,
    })
}

fn print_text(args: &Args, record: &Value, all: &[Compared]) {
    if args.differing {
        for line in all.iter().flat_map(|c| &c.needless) {
            println!("Needless {line}");
        }
        let uses = all.iter().flat_map(|c| &c.uses);
        for (file, u) in uses.filter(|(_, u)| u.accord != Accord::Exact) {
            let words = |w: &Option<String>| w.clone().unwrap_or_else(|| "?".to_owned());
            println!("{:?} {file}:{} {}", u.accord, u.line, u.of);
            println!("    was    {}", u.before);
            println!("    theirs {}", words(&u.theirs));
            println!("    ours   {}", words(&u.ours));
        }
    }
    let number = |key: &str| record[key].as_u64().unwrap_or(0);
    let percent = |key: &str| {
        let share = record[key].as_f64();
        share.map_or_else(|| "-".to_owned(), |s| format!("{s:.1} %"))
    };
    println!(
        "{} drivers of {} upgraded to {}, {} build, {} could not be judged",
        number("drivers"),
        record["home"].as_str().unwrap_or(""),
        record["to"].as_str().unwrap_or(""),
        number("builds"),
        number("broken"),
    );
    println!(
        "{} edits by the maintainers: {} word for word, {} equivalent, {} otherwise, {} not made; recall {} exact, {} with equivalents",
        number("maintainers_edits"),
        number("exact"),
        number("equivalent"),
        number("other"),
        number("missed"),
        percent("recall_exact_percent"),
        percent("recall_percent"),
    );
    println!(
        "{} edits by kspan: {} exact or equivalent; {} where the maintainers changed nothing; {} more cannot be judged, since they rewrote the place",
        number("kspan_edits"),
        percent("agree_percent"),
        number("false"),
        number("unjudged"),
    );
    println!(
        "{} lines that kspan changed and the maintainers kept, of whatever name",
        number("needless_lines")
    );
}
