//! `cargo xtask evolve-check`: every evolution that gives C text, compiled on every kernel where its conditions hold.

use anyhow::{Context, bail};
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

enum Outcome {
    Good,
    /// It needs definitions that a port carries; nothing to compile here.
    NeedsCarry(BTreeSet<String>),
    Bad(String),
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

/// The text with everything it needs, as one source file.
fn source(
    library: &Library,
    evolution: &Evolution,
    view: &View,
) -> Result<String, BTreeSet<String>> {
    let plan = library.plan(evolution.needs.iter().map(String::as_str), view);
    let there = |name: &String| view.has(name);
    let missing: BTreeSet<String> = plan
        .carry
        .iter()
        .chain(&plan.unserved)
        .filter(|n| !there(n))
        .cloned()
        .collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let mut includes: BTreeSet<&str> = ["linux/module.h", "linux/kernel.h", "linux/slab.h"].into();
    let all: Vec<&Evolution> = plan.evolutions.into_iter().chain([evolution]).collect();
    includes.extend(
        all.iter()
            .flat_map(|e| e.includes.iter().map(String::as_str)),
    );
    let mut text = String::from("#include <linux/module.h>\n");
    let includes: String = includes
        .iter()
        .map(|h| format!("#include <{h}>\n"))
        .collect();
    text.push_str(&includes);
    for e in all {
        text.push_str(&format!(
            "#line 1 \"{}\"\n{}\n",
            e.id,
            e.text().unwrap_or_default()
        ));
    }
    text.push_str(&uses(evolution));
    Ok(text)
}

/// Takes the address of every function that the text defines, so that none goes unread.
fn uses(evolution: &Evolution) -> String {
    if let Kind::Access {
        record,
        read,
        write,
        place,
        ..
    } = &evolution.kind
    {
        let read = read.as_deref().or(place.as_deref());
        return use_member(record, read, write.as_deref());
    }
    let text = evolution.text().unwrap_or_default();
    let functions = evolution
        .provides
        .iter()
        .filter(|name| text.lines().any(|line| defines(line, name)));
    functions
        .map(|n| {
            format!(
                "void *kspan_use_{n}(void);\nvoid *kspan_use_{n}(void) {{ return (void *){n}; }}\n"
            )
        })
        .collect()
}

/// A function that reads and writes a member by the evolution's expressions.
fn use_member(record: &str, read: Option<&str>, write: Option<&str>) -> String {
    let fill = |e: &str| e.replace("{0}", "(p)").replace("{1}", "(0)");
    let statement =
        |e: Option<&str>| e.map_or(String::new(), |e| format!("\t(void)({});\n", fill(e)));
    format!(
        "void kspan_use_{record}(struct {record} *p);\nvoid kspan_use_{record}(struct {record} *p)\n{{\n{}{}}}\n",
        statement(read),
        write.map_or(String::new(), |e| format!("\t{};\n", fill(e))),
    )
}

/// The line starts the definition of the function: `static inline int name(`, not `static int kspan_name(`.
fn defines(line: &str, name: &str) -> bool {
    let before = line
        .strip_prefix("static ")
        .and_then(|rest| rest.split_once(&format!("{name}(")))
        .map(|(b, _)| b);
    before.is_some_and(|b| b.ends_with([' ', '*']))
}

fn compile(
    engine: &Engine,
    library: &Library,
    evolution: &Evolution,
    view: &View,
    work: &Path,
) -> anyhow::Result<Outcome> {
    if let Kind::Override { home_arity, .. } = &evolution.kind
        && home_arity.is_empty()
        && evolution.body.is_empty()
        && evolution.body_lacks.is_empty()
    {
        return Ok(Outcome::Bad(
            "an override must say which form it serves: home_arity, body or body_lacks".to_owned(),
        ));
    }
    let text = match source(library, evolution, view) {
        Ok(text) => text,
        Err(missing) => return Ok(Outcome::NeedsCarry(missing)),
    };
    let name = format!(
        "{}-{}.c",
        evolution.id,
        view.kernel.digest.get(..8).unwrap_or("k")
    );
    std::fs::write(work.join(&name), text)?;
    let output = engine
        .cache
        .sandboxed(&view.kernel, &view.flags.cc, work, &[])?
        .args(&view.flags.args)
        .args([
            "-DKBUILD_MODNAME=\"kspan\"",
            "-DKBUILD_BASENAME=\"kspan\"",
            "-D__KBUILD_MODNAME=kmod_kspan",
        ])
        .args(["-std=gnu11", "-fsyntax-only", "-Werror", &name])
        .output()?;
    if output.status.success() {
        return Ok(Outcome::Good);
    }
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<&str> = words
        .lines()
        .filter(|l| l.contains("error"))
        .take(5)
        .collect();
    Ok(Outcome::Bad(errors.join("\n")))
}
