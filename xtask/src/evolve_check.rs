//! `cargo xtask evolve-check`: every evolution that gives C text, compiled on every kernel where its conditions hold.

use anyhow::{Context, bail};
use kspan_evolve::judge::{Bench, Outcome, judge};
use kspan_evolve::{Evolution, Kind, Library};
use kspan_kernel::Cache;
use kspan_port::Engine;
use kspan_port::view::View;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Compile each evolution's text on each kernel where it applies; one that applies nowhere is an error too.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kernels, comma-separated [default: all in the cache].
    #[arg(long, value_delimiter = ',')]
    on: Vec<String>,
    /// A directory of evolutions instead of those compiled in.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Only evolutions whose id or file contains this.
    #[arg(long)]
    only: Option<String>,
}

/// Runs it.
///
/// # Errors
/// When no kernel is there, or the evolutions do not load.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let library = Library::load(args.dir.as_deref())?;
    let engine = Engine::new(Cache::open()?)?;
    let views = views(args, &engine)?;
    let wanted = |e: &&Evolution| {
        args.only
            .as_ref()
            .is_none_or(|o| e.id.contains(o) || e.file.contains(o))
    };
    let evolutions: Vec<&Evolution> = library.all().iter().filter(wanted).collect();
    let work = tempfile::Builder::new()
        .prefix("kspan-evolve-")
        .tempdir_in(engine.cache.root())?;
    let cells: Vec<(&Evolution, &Arc<View>)> = evolutions
        .iter()
        .flat_map(|e| {
            views
                .iter()
                .filter(|v| e.applies_to(v.as_ref()))
                .map(move |v| (*e, v))
        })
        .collect();
    let texts = cells
        .iter()
        .filter(|(e, _)| e.text().is_some() || matches!(e.kind, Kind::Access { .. }));
    let results: Vec<_> = texts
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|(e, v)| (*e, *v, compile(&engine, &library, e, v, work.path())))
        .collect();
    Ok(report(&evolutions, &views, &cells, results))
}

fn views(args: &Args, engine: &Engine) -> anyhow::Result<Vec<Arc<View>>> {
    let names = if args.on.is_empty() {
        engine.cache.kernels()?.into_iter().map(|k| k.id).collect()
    } else {
        args.on.clone()
    };
    if names.is_empty() {
        bail!("no kernel is in the cache; fetch some with `kspan kernel fetch`");
    }
    names
        .iter()
        .map(|n| engine.view(n).with_context(|| n.clone()))
        .collect()
}

fn report(
    evolutions: &[&Evolution],
    views: &[Arc<View>],
    cells: &[(&Evolution, &Arc<View>)],
    results: Vec<(&Evolution, &Arc<View>, anyhow::Result<Outcome>)>,
) -> ExitCode {
    let (mut good, mut carried, mut bad) = (0, 0, 0);
    for (e, view, outcome) in results {
        let place = format!("{}:{}: {} on {}", e.file, e.line, e.id, view.kernel.release);
        match outcome {
            Ok(Outcome::Good) => good += 1,
            Ok(Outcome::NeedsCarry(names)) => {
                carried += 1;
                println!(
                    "needs carry  {place}: {}",
                    names.into_iter().collect::<Vec<_>>().join(", ")
                );
            }
            Ok(Outcome::Bad(why)) => {
                bad += 1;
                println!("BAD          {place}\n{why}");
            }
            Err(why) => {
                bad += 1;
                println!("BAD          {place}: {why:#}");
            }
        }
    }
    let applied: BTreeSet<&str> = cells.iter().map(|(e, _)| e.id.as_str()).collect();
    let never: Vec<&&Evolution> = evolutions
        .iter()
        .filter(|e| !applied.contains(e.id.as_str()))
        .collect();
    for e in &never {
        println!(
            "NEVER        {}:{}: {} applies on none of the kernels",
            e.file, e.line, e.id
        );
    }
    for view in views {
        let n = cells
            .iter()
            .filter(|(_, v)| v.kernel.id == view.kernel.id)
            .count();
        println!("{:32} {n} apply", view.kernel.id);
    }
    println!(
        "{} evolutions; texts compiled: {good} good, {bad} bad, {carried} need carried definitions; {} apply nowhere",
        evolutions.len(),
        never.len()
    );
    if bad + never.len() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}

fn compile(
    engine: &Engine,
    library: &Library,
    evolution: &Evolution,
    view: &View,
    work: &Path,
) -> anyhow::Result<Outcome> {
    let bench = Bench {
        cache: &engine.cache,
        kernel: &view.kernel,
        flags: &view.flags,
        view,
        work,
    };
    Ok(judge(&bench, library, evolution)?)
}
