//! `kspan why`: the life of an API across kernels, and the evolutions that cover it.

use super::learn::kind_word;
use crate::output;
use kspan_evolve::{Condition, Evolution, Kind};
use kspan_facts::{Detail, compare, kind};
use kspan_kernel::Cache;
use kspan_port::Engine;
use kspan_port::view::View;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::Arc;

/// Tell which kernels have a name in which form, and what serves it where it is missing.
///
/// For every fetched kernel: the form that its headers give, and what changed since the kernel before it. Then the evolutions
/// that provide the name, lead to it or use it, with their evidence, and on which kernels they apply.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A function, macro, structure, constant, typedef, header (`linux/x.h`), or a member as `record.member`.
    name: String,
    /// Only these kernels, comma-separated [default: all in the cache].
    #[arg(long, value_name = "K,K", value_delimiter = ',')]
    on: Vec<String>,
}

/// What one kernel has.
struct Form {
    kernel: String,
    /// `None` where it has nothing of that name.
    text: Option<String>,
    header: Option<String>,
    changes: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// No kernel is there, or one cannot be read.
pub fn run(args: &Args, cache: Cache, json: bool) -> anyhow::Result<ExitCode> {
    let engine = Engine::new(cache)?;
    let views = views(&engine, &args.on)?;
    let forms = forms(&views, &args.name);
    let evolutions: Vec<(&Evolution, &str)> = engine
        .library
        .all()
        .iter()
        .filter_map(|e| Some((e, part(e, &args.name)?)))
        .collect();
    let known = forms.iter().any(|f| f.text.is_some()) || !evolutions.is_empty();
    if json {
        let value = json!({
            "name": args.name,
            "kernels": forms.iter().map(form_json).collect::<Vec<_>>(),
            "evolutions": evolutions.iter().map(|(e, part)| evolution_json(e, part, &views)).collect::<Vec<_>>(),
        });
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else {
        print_forms(&args.name, &forms);
        for (e, part) in &evolutions {
            print_evolution(e, part, &views);
        }
        if evolutions.is_empty() {
            println!("No evolution names {}.", args.name);
        }
    }
    Ok(output::verdict(known))
}

/// The kernels, oldest first.
pub fn views(engine: &Engine, on: &[String]) -> anyhow::Result<Vec<Arc<View>>> {
    let names: Vec<String> = if on.is_empty() {
        let mut all = engine.cache.kernels()?;
        all.sort_by(kspan_kernel::kernel_order);
        all.into_iter().map(|k| k.id).collect()
    } else {
        on.to_vec()
    };
    if names.is_empty() {
        return Err(kspan_kernel::Error::Environment(
            "no kernel is in the cache; fetch some with `kspan kernel fetch`".to_owned(),
        )
        .into());
    }
    names.iter().map(|n| Ok(engine.view(n)?)).collect()
}

fn forms(views: &[Arc<View>], name: &str) -> Vec<Form> {
    let mut before: Option<&Arc<View>> = None;
    let mut out = Vec::new();
    for view in views {
        out.push(form(view, before.map(Arc::as_ref), name));
        before = Some(view);
    }
    out
}

fn form(view: &View, before: Option<&View>, name: &str) -> Form {
    let kernel = view.kernel.id.clone();
    if name.ends_with(".h") {
        let there = view.facts.header_exists(name);
        let text = there.then(|| format!("<{name}>, {} names", view.names_in(name).len()));
        return Form {
            kernel,
            text,
            header: None,
            changes: Vec::new(),
        };
    }
    if let Some((record, member)) = name.split_once('.') {
        let field = |v: &View| v.record(record)?.into_iter().find(|f| f.name == member);
        let header = view.facts.headers_of(record).into_iter().next();
        return Form {
            kernel,
            text: field(view).map(|f| format!("{} {}", f.ty.spelling, f.name)),
            header,
            changes: Vec::new(),
        };
    }
    let def = view.facts.defs(name).into_iter().next();
    let old = before.and_then(|v| v.facts.defs(name).into_iter().next());
    let changes = match (&old, &def) {
        (Some(a), Some(b)) => compare(a, b).iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    let text = def.as_ref().map(|d| match &d.detail {
        Detail::Record { fields, .. } => format!("{} of {} members", kind(&d.detail), fields.len()),
        Detail::Enum { constants } => format!("enumeration of {} constants", constants.len()),
        Detail::EnumConst { value, .. } => format!("constant, {value}"),
        detail => format!("{}: {}", kind(detail), first_line(&d.text)),
    });
    Form {
        kernel,
        text,
        header: def.map(|d| d.header),
        changes,
    }
}

/// A definition in one line: up to its body, blanks folded.
fn first_line(text: &str) -> String {
    let end = text.find(['{']).unwrap_or(text.len());
    let head = text.get(..end).unwrap_or(text);
    let words: Vec<&str> = head.split_whitespace().filter(|w| *w != "\\").collect();
    let line = words.join(" ");
    match line.char_indices().nth(160) {
        Some((at, _)) => format!("{} …", line.get(..at).unwrap_or("")),
        None => line,
    }
}

/// What an evolution has to do with the name.
fn part(e: &Evolution, name: &str) -> Option<&'static str> {
    let member = |record: &str, field: &str| name == format!("{record}.{field}");
    let gives = e.provides.iter().any(|p| p == name)
        || match &e.kind {
            Kind::Field { record, home, .. } => member(record, home),
            Kind::Callback { record, field, .. }
            | Kind::Access { record, field, .. }
            | Kind::DropField { record, field }
            | Kind::Refuse { record, field } => member(record, field),
            Kind::Header { home, .. } => home == name,
            Kind::Define { .. } | Kind::Override { .. } | Kind::Event { .. } => false,
        };
    if gives {
        return Some("serves it where it is missing");
    }
    let leads = match &e.kind {
        Kind::Field { record, target, .. } => member(record, target),
        Kind::Header { target, .. } => target == name,
        _ => false,
    };
    let asked = e.has.iter().any(|c| match c {
        Condition::Name(n) | Condition::Header(n) => n == name,
        Condition::Field(r, f) => member(r, f),
        Condition::Config(_) => false,
    });
    (leads || asked).then_some("says another name by it")
}

fn applies<'v>(e: &Evolution, views: &'v [Arc<View>]) -> Vec<&'v str> {
    views
        .iter()
        .filter(|v| e.applies_to(v.as_ref()))
        .map(|v| v.kernel.id.as_str())
        .collect()
}

fn form_json(form: &Form) -> Value {
    json!({ "kernel": form.kernel, "form": form.text, "header": form.header, "changes": form.changes })
}

fn evolution_json(e: &Evolution, part: &str, views: &[Arc<View>]) -> Value {
    json!({ "part": part, "applies_on": applies(e, views), "evolution": e })
}

fn print_forms(name: &str, forms: &[Form]) {
    let width = forms.iter().map(|f| f.kernel.len()).max().unwrap_or(0);
    println!("{name}");
    for form in forms {
        let header = form
            .header
            .as_ref()
            .map(|h| format!("  <{h}>"))
            .unwrap_or_default();
        match &form.text {
            Some(text) => println!("  {:width$}  {text}{header}", form.kernel),
            None => println!("  {:width$}  —", form.kernel),
        }
        for change in &form.changes {
            println!("  {:width$}    - {change}", "");
        }
    }
}

fn print_evolution(e: &Evolution, part: &str, views: &[Arc<View>]) {
    println!("\n{} ({}): {part}", e.id, kind_word(&e.kind));
    println!("  {}:{}", e.file, e.line);
    if !e.provides.is_empty() {
        println!("  provides: {}", e.provides.join(", "));
    }
    if !e.why.is_empty() {
        println!("  why: {}", e.why);
    }
    if !e.commit.is_empty() {
        println!("  commit: {}", e.commit);
    }
    if !e.meaning.is_empty() {
        println!("  meaning: {}", e.meaning);
    }
    let on = applies(e, views);
    println!(
        "  applies on: {}",
        if on.is_empty() {
            "none of these kernels".to_owned()
        } else {
            on.join(", ")
        }
    );
    if let Some(text) = e.text() {
        for line in text.lines() {
            println!("    {line}");
        }
    }
    for example in &e.examples {
        println!("  example: {}", example.before.trim());
        println!("  becomes: {}", example.after.trim());
    }
    if let Some(evidence) = &e.evidence {
        println!(
            "  evidence: {}; {} files, {} sites, {} against, {} not understood",
            evidence.tier.word(),
            evidence.files,
            evidence.sites,
            evidence.against,
            evidence.unresolved
        );
        if !evidence.before.is_empty() {
            println!("    before: {}", evidence.before);
            println!("    after:  {}", evidence.after);
        }
        for site in &evidence.examples {
            println!("    {site}");
        }
    }
}
