//! `kspan evolution`: list, show, test and begin evolutions.

use super::learn::kind_word;
use super::why::views;
use crate::output;
use anyhow::Context;
use kspan_evolve::judge::{Bench, Outcome, judge};
use kspan_evolve::{Evolution, Kind, Library, Risk};
use kspan_kernel::Cache;
use kspan_port::Engine;
use kspan_upstream::upgrade::examples;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// List, show, test and begin evolutions.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// A directory of evolutions instead of those in use.
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// List them.
    List {
        /// Only those whose id, file, kind, tier or provided names contain this.
        filter: Option<String>,
    },
    /// Show one.
    Show {
        /// Its id.
        id: String,
    },
    /// Print the skeleton of a new one: a header, member, call or name, and what stands for it now.
    New {
        /// What drivers write: `<linux/a.h>`, `struct a.b`, `f({0}, {1})` or `NAME`.
        old: String,
        /// What the newer API has for it; for all but a header any expression of {0}, {1}.
        new: String,
        /// Its id [default: after the old form].
        #[arg(long)]
        id: Option<String>,
    },
    /// Run the examples of each, and compile it on every kernel where its conditions hold; one that applies nowhere is told.
    Test {
        /// Only those whose id, file, kind, tier or provided names contain this.
        filter: Option<String>,
        /// The kernels, comma-separated [default: all in the cache].
        #[arg(long, value_name = "K,K", value_delimiter = ',')]
        on: Vec<String>,
    },
}

/// Runs it.
///
/// # Errors
/// The evolutions do not load, a kernel is not there, or there is no evolution of that id.
pub fn run(
    args: &Args,
    cache: impl FnOnce() -> kspan_kernel::Result<Cache>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let dir = args
        .dir
        .clone()
        .or_else(|| std::env::var_os("KSPAN_EVOLUTIONS").map(PathBuf::from));
    let library = checked(dir.as_deref())?;
    match &args.what {
        What::New { old, new, id } => begin(id.as_deref(), old, new, json),
        What::List { filter } => list(&library, filter.as_deref(), json),
        What::Show { id } => show(&library, id, json),
        What::Test { filter, on } => {
            let engine = Engine::new(cache()?)?;
            test(&engine, &library, filter.as_deref(), on, json)
        }
    }
}

/// The evolutions of a directory, with their examples run; or those compiled in, whose examples kspan's own tests have run.
///
/// # Errors
/// All that is wrong with them, with file and line.
pub fn checked(dir: Option<&Path>) -> anyhow::Result<Library> {
    let library = Library::load(dir)?;
    if dir.is_some() {
        examples::check(library.all())?;
    }
    Ok(library)
}

fn begin(id: Option<&str>, old: &str, new: &str, json: bool) -> anyhow::Result<ExitCode> {
    let text = kspan_evolve::skeleton(id, old, new).map_err(kspan_kernel::Error::Input)?;
    match json {
        true => println!("{}", json!({ "evolution": text })),
        false => print!("{text}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn matches(e: &Evolution, filter: Option<&str>) -> bool {
    let Some(part) = filter else { return true };
    e.id.contains(part)
        || e.file.contains(part)
        || kind_word(&e.kind) == part
        || e.evidence.as_ref().is_some_and(|v| v.tier.word() == part)
        || e.provides.iter().any(|p| p.contains(part))
}

/// What it gives, in one word or two.
fn subject(e: &Evolution) -> String {
    match &e.kind {
        Kind::Define { .. } | Kind::Override { .. } | Kind::Event { .. } => e.provides.join(", "),
        Kind::Field {
            record,
            home,
            target,
        } => format!("{record}.{home} → {target}"),
        Kind::Callback { record, field, .. }
        | Kind::Access { record, field, .. }
        | Kind::DropField { record, field }
        | Kind::Refuse { record, field } => format!("{record}.{field}"),
        Kind::Header { home, target } => format!("{home} → {target}"),
    }
}

fn risk_word(risk: Risk) -> &'static str {
    match risk {
        Risk::None => "none",
        Risk::Default => "default",
        Risk::Behaviour => "behaviour",
        Risk::Unknown => "unknown",
    }
}

fn list(library: &Library, filter: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let some: Vec<&Evolution> = library
        .all()
        .iter()
        .filter(|e| matches(e, filter))
        .collect();
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({ "evolutions": some }))?
        );
        return Ok(output::verdict(!some.is_empty()));
    }
    let width = some.iter().map(|e| e.id.len()).max().unwrap_or(0).min(48);
    for e in &some {
        println!(
            "{:width$}  {:10}  {:9}  {:8}  {}",
            e.id,
            kind_word(&e.kind),
            risk_word(e.risk),
            e.evidence.as_ref().map_or("written", |v| v.tier.word()),
            subject(e)
        );
    }
    println!("{} evolutions", some.len());
    Ok(output::verdict(!some.is_empty()))
}

fn show(library: &Library, id: &str, json: bool) -> anyhow::Result<ExitCode> {
    let Some(e) = library.all().iter().find(|e| e.id == id) else {
        let near: Vec<&str> = library
            .all()
            .iter()
            .filter(|e| matches(e, Some(id)))
            .map(|e| e.id.as_str())
            .take(5)
            .collect();
        let hint = if near.is_empty() {
            "`kspan evolution list` names all".to_owned()
        } else {
            format!("perhaps {}", near.join(", "))
        };
        return Err(
            kspan_kernel::Error::Input(format!("no evolution has the id `{id}`; {hint}")).into(),
        );
    };
    if json {
        println!("{}", serde_json::to_string_pretty(e)?);
        return Ok(output::verdict(true));
    }
    println!("{}:{}", e.file, e.line);
    println!(
        "{}  {}  risk {}",
        e.id,
        kind_word(&e.kind),
        risk_word(e.risk)
    );
    println!("  {}", subject(e));
    for (word, text) in [
        ("why", &e.why),
        ("meaning", &e.meaning),
        ("commit", &e.commit),
    ] {
        if !text.is_empty() {
            println!("  {word}: {text}");
        }
    }
    println!("  applies where: {}", conditions(e));
    if let Some(text) = e.text() {
        text.lines().for_each(|line| println!("    {line}"));
    }
    for example in &e.examples {
        println!("  example: {}", example.before.trim());
        println!("  becomes: {}", example.after.trim());
    }
    if let Some(v) = &e.evidence {
        println!(
            "  {}: {} files, {} sites, {} against, {} not understood",
            v.tier.word(),
            v.files,
            v.sites,
            v.against,
            v.unresolved
        );
        if !v.before.is_empty() {
            println!("    before: {}\n    after:  {}", v.before, v.after);
        }
        v.examples.iter().for_each(|site| println!("    {site}"));
    }
    Ok(output::verdict(true))
}

/// Its conditions in words.
fn conditions(e: &Evolution) -> String {
    let word = |c: &kspan_evolve::Condition| match c {
        kspan_evolve::Condition::Name(n) | kspan_evolve::Condition::Config(n) => n.clone(),
        kspan_evolve::Condition::Field(r, f) => format!("{r}.{f}"),
        kspan_evolve::Condition::Header(h) => format!("<{h}>"),
    };
    let has = e.has.iter().map(|c| format!("has {}", word(c)));
    let lacks = e.lacks.iter().map(|c| format!("lacks {}", word(c)));
    let arity = e.arity.iter().map(|(n, a)| format!("{n} takes {a}"));
    let types = e.types.iter().map(|(n, t)| format!("{n} returns {t}"));
    let body = e.body.iter().map(|(n, t)| format!("{n} says {t}"));
    let not = e
        .body_lacks
        .iter()
        .map(|(n, t)| format!("{n} does not say {t}"));
    let all: Vec<String> = has
        .chain(lacks)
        .chain(arity)
        .chain(types)
        .chain(body)
        .chain(not)
        .collect();
    if all.is_empty() {
        "its kind alone decides".to_owned()
    } else {
        all.join(", ")
    }
}

fn test(
    engine: &Engine,
    library: &Library,
    filter: Option<&str>,
    on: &[String],
    json: bool,
) -> anyhow::Result<ExitCode> {
    let some: Vec<&Evolution> = library
        .all()
        .iter()
        .filter(|e| matches(e, filter))
        .collect();
    if let Some(filter) = filter.filter(|_| some.is_empty()) {
        let why = format!(
            "no evolution serves or is named like `{filter}`; `kspan evolution list` names all"
        );
        return Err(kspan_kernel::Error::Input(why).into());
    }
    let views = views(engine, on)?;
    let work = engine.cache.work_dir("evolution-test")?;
    let all: Vec<Evolution> = some.iter().map(|e| (*e).clone()).collect();
    examples::check(&all)?;
    let (mut rows, mut bad) = (Vec::new(), 0usize);
    for e in &some {
        let applying: Vec<_> = views.iter().filter(|v| e.applies_to(v.as_ref())).collect();
        if applying.is_empty() {
            rows.push((e.id.clone(), String::new(), "applies nowhere".to_owned()));
        }
        for view in applying {
            let bench = Bench {
                cache: &engine.cache,
                kernel: &view.kernel,
                flags: &view.flags,
                view: view.as_ref(),
                work: work.path(),
            };
            let compiled = e.text().is_some() || matches!(e.kind, Kind::Access { .. });
            let word = if compiled {
                match judge(&bench, library, e).with_context(|| e.id.clone())? {
                    Outcome::Good => "compiles".to_owned(),
                    Outcome::NeedsCarry(names) => format!(
                        "needs carried definitions: {}",
                        names.into_iter().collect::<Vec<_>>().join(", ")
                    ),
                    Outcome::Bad(why) => {
                        bad += 1;
                        format!("BAD: {why}")
                    }
                }
            } else {
                "applies; it has no text of its own".to_owned()
            };
            rows.push((e.id.clone(), view.kernel.id.clone(), word));
        }
    }
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(id, kernel, word)| json!({ "id": id, "kernel": kernel, "outcome": word }))
            .collect();
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({ "tests": rows, "bad": bad }))?
        );
    } else {
        for (id, kernel, word) in &rows {
            println!("{id}  {kernel}  {word}");
        }
        println!("{} evolutions, {} tests, {bad} bad", some.len(), rows.len());
    }
    Ok(output::verdict(bad == 0 && !some.is_empty()))
}
