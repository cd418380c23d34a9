//! `cargo xtask census`: what the modules of one kernel take that another lacks, and that neither the engine's general
//! remedies nor an evolution answers, the most used first. It compiles nothing: it shows where the next rule is worth most.

use crate::corpus;
use kspan_evolve::{KernelView, Library};
use kspan_facts::{Def, Detail, Field, Signature};
use kspan_kernel::Cache;
use kspan_port::driver::TreeModule;
use kspan_port::view::View;
use kspan_port::{Engine, adapter, lex};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::process::ExitCode;

/// List names that modules of one kernel use and another kernel does not offer, with no rule for them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kernel that the modules are written for.
    #[arg(long)]
    home: String,
    /// The target.
    #[arg(long)]
    on: String,
    /// Only what at least so many modules use.
    #[arg(long, default_value_t = 2)]
    least: usize,
    /// Count only modules of several files.
    #[arg(long)]
    multi: bool,
    /// A directory of evolutions instead of those compiled in.
    #[arg(long)]
    dir: Option<std::path::PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Something without a rule.
#[derive(Debug, Serialize)]
struct Line {
    /// Modules that name it.
    modules: usize,
    kind: &'static str,
    name: String,
    what: String,
    header: String,
    /// Some of the modules.
    seen_in: Vec<String>,
}

/// The words of each module; a word before which `.` or `->` stands counts as a member too, with a dot before it.
type Users = HashMap<String, Vec<u32>>;

/// Runs it.
///
/// # Errors
/// When a kernel or its source tree is not there.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let library = Library::load(args.dir.as_deref())?;
    let engine = Engine::new(Cache::open()?)?;
    let (home, target) = (engine.view(&args.home)?, engine.view(&args.on)?);
    let root = engine.cache.source_tree(&home.kernel)?;
    let modules: Vec<TreeModule> = corpus::modules_of(&engine, &home)?
        .into_iter()
        .filter(|m| !args.multi || m.objects.len() > 1)
        .collect();
    let users = users(&root, &modules);
    let mut lines = Vec::new();
    for name in home.facts.all_names() {
        for def in home.facts.defs(name) {
            let found = of_def(&def, &home, &target, &library);
            for (kind, word, what) in found {
                let list = using(&users, &word, &def);
                if list.len() < args.least {
                    continue;
                }
                let seen = list.iter().take(4).filter_map(|m| modules.get(*m as usize));
                lines.push(Line {
                    modules: list.len(),
                    kind,
                    name: name.to_owned(),
                    what,
                    header: def.header.clone(),
                    seen_in: seen.map(|m| m.path().display().to_string()).collect(),
                });
            }
        }
    }
    lines.sort_by(|a, b| b.modules.cmp(&a.modules).then(a.name.cmp(&b.name)));
    lines.dedup_by(|a, b| a.name == b.name && a.what == b.what);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&lines)?);
    } else {
        for line in &lines {
            println!(
                "{:5} {:10} {} {} <{}> e.g. {}",
                line.modules,
                line.kind,
                line.name,
                line.what,
                line.header,
                line.seen_in.join(" ")
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The modules that write a word; for a member, those of them that also name its structure.
fn using(users: &Users, word: &str, def: &Def) -> Vec<u32> {
    let of = |word: &str| users.get(word).map(Vec::as_slice).unwrap_or_default();
    let with: HashSet<u32> = of(&def.name).iter().copied().collect();
    let member = word.starts_with('.');
    let all = of(word).iter().copied();
    all.filter(|m| !member || with.contains(m)).collect()
}

fn users(root: &Path, modules: &[TreeModule]) -> Users {
    let words: Vec<HashSet<String>> = modules
        .par_iter()
        .map(|module| {
            let mut out = HashSet::new();
            for file in &module.objects {
                let text = std::fs::read(root.join(file)).unwrap_or_default();
                collect(&String::from_utf8_lossy(&text), &mut out);
            }
            out
        })
        .collect();
    let mut users: Users = HashMap::new();
    for (number, set) in (0u32..).zip(words) {
        for word in set {
            users.entry(word).or_default().push(number);
        }
    }
    users
}

fn collect(text: &str, out: &mut HashSet<String>) {
    let bytes = text.as_bytes();
    let mut before = b' ';
    for (token, range) in lex::tokens(bytes) {
        match token {
            lex::Token::Word => {
                let word = &text[range];
                let member = matches!(before, b'.' | b'>');
                let key = if member {
                    format!(".{word}")
                } else {
                    word.to_owned()
                };
                out.insert(key);
                before = b'w';
            }
            lex::Token::Punct(p) => before = p,
            _ => before = b' ',
        }
    }
}

type Found = (&'static str, String, String);

/// What of a definition has no answer: its kind, the word that its users write, and what is wrong.
fn of_def(def: &Def, home: &View, target: &View, library: &Library) -> Vec<Found> {
    let answered = library.best(&def.name, target).is_some();
    match &def.detail {
        Detail::Function {
            sig, body: false, ..
        } if home.facts.export(&def.name).is_some() => {
            if answered {
                return Vec::new();
            }
            function(def, sig, target).into_iter().collect()
        }
        Detail::Function { sig, .. } if !answered && target.has(&def.name) => {
            function(def, sig, target).into_iter().collect()
        }
        Detail::EnumConst { parent, .. } if !answered && !target.has(&def.name) => {
            let there = !parent.is_empty() && target.has(parent);
            let what = format!("constant of enum {parent}");
            there
                .then(|| ("constant", def.name.clone(), what))
                .into_iter()
                .collect()
        }
        Detail::Record { fields, .. } => record(&def.name, fields, target, library),
        _ => Vec::new(),
    }
}

fn function(def: &Def, sig: &Signature, target: &View) -> Option<Found> {
    let Some(there) = target.callable(&def.name) else {
        return Some(("function", def.name.clone(), "is missing".to_owned()));
    };
    let Detail::Function { sig: other, .. } = &there.detail else {
        return None;
    };
    let (a, b) = (shape(sig, target), shape(other, target));
    (a != b).then(|| ("signature", def.name.clone(), format!("{a} here {b}")))
}

/// A signature as far as it matters to callers: no names, no `const` (which C lets pass one way), integers alike, and tags
/// that the target lacks as anything.
fn shape(sig: &Signature, target: &View) -> String {
    let params: Vec<String> = sig.params.iter().map(|p| rough(&p.ty, target)).collect();
    params.join(", ")
}

fn rough(ty: &kspan_facts::Ty, target: &View) -> String {
    let words: Vec<&str> = ty.canonical.split([' ', '*']).collect();
    let tagged = |w: &[&str]| matches!(w[0], "struct" | "enum" | "union") && !target.has(w[1]);
    let stars = ty.canonical.matches('*').count();
    if words.windows(2).any(tagged) {
        return format!("?{stars}");
    }
    if stars == 0 && !words.contains(&"struct") {
        return "integer".to_owned();
    }
    let plain: Vec<&str> = words
        .into_iter()
        .filter(|w| !matches!(*w, "const" | "" | "unsigned"))
        .collect();
    format!("{}{stars}", plain.join(" "))
}

fn record(tag: &str, fields: &[Field], target: &View, library: &Library) -> Vec<Found> {
    let Some(there) = target.record(tag) else {
        return Vec::new();
    };
    let there: BTreeMap<&str, &Field> = there.iter().map(|f| (f.name.as_str(), f)).collect();
    let mut out = Vec::new();
    for field in fields {
        let word = format!(".{}", field.name.rsplit('.').next().unwrap_or_default());
        match (there.get(field.name.as_str()), &field.callback) {
            (None, _) if field_answered(tag, &field.name, target, library) => {}
            (None, callback) => {
                let kind = if callback.is_some() {
                    "member()"
                } else {
                    "member"
                };
                out.push((kind, word, format!("has no .{}", field.name)));
            }
            (Some(other), Some(have)) => {
                let Some(want) = &other.callback else {
                    continue;
                };
                if let Some(why) = unadaptable(tag, &field.name, have, want, target, library) {
                    out.push(("callback", word, why));
                }
            }
            _ => {}
        }
    }
    out
}

fn field_answered(tag: &str, field: &str, target: &View, library: &Library) -> bool {
    target.renamed_field(library, tag, field).is_some()
        || library
            .accesses(tag, field)
            .iter()
            .chain(&library.drops(tag, field))
            .any(|e| e.applies_to(target as &dyn KernelView))
}

/// Why no adapter can be made for a callback that changed.
fn unadaptable(
    record: &str,
    field: &str,
    have: &Signature,
    want: &Signature,
    target: &View,
    library: &Library,
) -> Option<String> {
    if shape(have, target) == shape(want, target) {
        return None;
    }
    let wanted = adapter::Wanted {
        record,
        field,
        function: "f",
        have,
        want,
        unread: Vec::new(),
    };
    adapter::make(&wanted, library, target)
        .err()
        .map(|why| format!(".{field}: {why}"))
}
