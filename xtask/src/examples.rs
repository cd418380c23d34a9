//! `cargo xtask examples`: what the kernel's maintainers wrote where an evolution applies, as its example and evidence.
//!
//! An evolution that a person wrote says what should stand for a use. Where both trees have a file whose maintainers made just that
//! of such a use, it is shown; where they made something else, it is counted against it.

use anyhow::Context;
use kspan_evolve::learn::{self, Key, Outcome, Site};
use kspan_evolve::{Evolution, Kind, Library};
use kspan_kernel::Cache;
use kspan_port::Engine;
use kspan_port::view::View;
use kspan_upstream::upgrade::examples;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Find evolutions' examples and evidence in two kernel trees.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kernel whose form the evolutions take; `HOME:TARGET` for several pairs, comma-separated.
    #[arg(
        long,
        value_name = "HOME:TARGET,…",
        value_delimiter = ',',
        value_parser = pair,
        required = true
    )]
    pairs: Vec<(String, String)>,
    /// The evolutions to read, and to write into.
    #[arg(long, default_value = "evolutions")]
    dir: PathBuf,
    /// Write what was found into the files instead of printing it.
    #[arg(long)]
    write: bool,
}

/// Two kernels, `HOME:TARGET`.
fn pair(text: &str) -> Result<(String, String), String> {
    let parts = text
        .split_once(':')
        .filter(|(h, t)| !h.is_empty() && !t.is_empty());
    let (home, target) = parts.ok_or("write HOME:TARGET")?;
    Ok((home.to_owned(), target.to_owned()))
}

/// What was found for one evolution.
#[derive(Debug, Clone, Default)]
struct Seen {
    files: BTreeSet<String>,
    sites: usize,
    against: usize,
    unresolved: usize,
    places: Vec<String>,
    /// Before and after, the shortest.
    example: Option<(String, String)>,
}

/// Runs it.
///
/// # Errors
/// When a kernel or its source tree is not there, or a file cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let library = Library::load(Some(&args.dir))?;
    let engine = Engine::new(Cache::open()?)?;
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    for (home, target) in &args.pairs {
        let (home, target) = (engine.view(home)?, engine.view(target)?);
        look(&engine, &library, &home, &target, &mut seen)?;
    }
    seen.retain(|_, s| s.example.is_some());
    if !args.write {
        for (id, s) in &seen {
            print!("{id}: {}", block(s, false));
        }
    }
    let mut new = 0;
    for file in std::fs::read_dir(&args.dir)? {
        let path = file?.path();
        if args.write && path.extension().is_some_and(|e| e == "toml") {
            new += extend(&path, &library, &seen)?;
        }
    }
    println!(
        "{} of {} evolutions are what maintainers wrote; {new} were given examples",
        seen.len(),
        library.all().len()
    );
    Ok(ExitCode::SUCCESS)
}

fn look(
    engine: &Engine,
    library: &Library,
    home: &View,
    target: &View,
    seen: &mut BTreeMap<String, Seen>,
) -> anyhow::Result<()> {
    let trees = (
        engine.cache.source_tree(&home.kernel)?,
        engine.cache.source_tree(&target.kernel)?,
    );
    let uses = learn::uses(&home.side(&trees.0), &target.side(&trees.1))?;
    for (key, sites) in uses {
        if let Some(e) = serving(library, &key, home, target) {
            // The pair in which most places speak for it is the one that counts.
            let found = judged(e, &key, &sites);
            let best = seen.entry(e.id.clone()).or_default();
            if found.sites > best.sites {
                *best = found;
            }
        }
    }
    Ok(())
}

/// The evolution that the engine would take for a use.
fn serving<'l>(
    library: &'l Library,
    key: &Key,
    home: &View,
    target: &View,
) -> Option<&'l Evolution> {
    let applies = |e: &&'l Evolution| e.applies_to(target) && !e.opt_in;
    match key {
        Key::Name(name) => library.for_name(name).into_iter().find(|e| {
            let form = match &e.kind {
                Kind::Override { home_arity, .. } => home_arity
                    .iter()
                    .all(|(n, a)| kspan_evolve::KernelView::arity(home, n) == Some(*a)),
                _ => true,
            };
            form && applies(e)
        }),
        Key::Field(r, f) | Key::Write(r, f) | Key::Initialiser(r, f) => {
            let renamed = library
                .fields(r)
                .into_iter()
                .find(|e| matches!(&e.kind, Kind::Field { home, .. } if home == f) && applies(e));
            renamed
                .or_else(|| library.accesses(r, f).into_iter().find(applies))
                .or_else(|| library.drops(r, f).into_iter().find(applies))
        }
        Key::Parameter(..) | Key::Header(_) => None,
    }
}

fn judged(e: &Evolution, key: &Key, sites: &[(String, Site)]) -> Seen {
    let mut seen = Seen::default();
    for (path, site) in sites {
        let after = match &site.outcome {
            Outcome::Edit { after, .. } => after.as_str(),
            Outcome::Deleted => "",
            Outcome::Same => continue,
            Outcome::Unresolved => {
                seen.unresolved += 1;
                continue;
            }
        };
        match shown(e, key, &site.before, after) {
            None => seen.against += 1,
            Some(example) => {
                seen.sites += 1;
                if seen.files.insert(path.clone()) && seen.places.len() < 3 {
                    seen.places.push(format!("{path}:{}", site.line));
                }
                let length = |x: &(String, String)| x.0.len();
                if seen
                    .example
                    .as_ref()
                    .is_none_or(|x| length(&example) < length(x))
                {
                    seen.example = Some(example);
                }
            }
        }
    }
    seen
}

/// A use and what the maintainers made of it, if the evolution makes the same of it.
fn shown(e: &Evolution, key: &Key, before: &str, after: &str) -> Option<(String, String)> {
    let initialiser = matches!(key, Key::Initialiser(..));
    let pairs = if initialiser {
        let value = before.split_once('=').map_or("", |(_, v)| v.trim());
        let table = |entry: String| format!("x = {{ {entry} . kspan = 0 , }} ;");
        let entry = |field: &str| format!(". {field} = {value} ,");
        let now = match after {
            "" => String::new(),
            field => entry(field),
        };
        vec![(table(format!("{before} ,")), table(now))]
    } else {
        let end = |t: &str| match t.trim_end().ends_with(';') || t.is_empty() {
            true => t.to_owned(),
            false => format!("{t} ;"),
        };
        vec![
            (before.to_owned(), after.to_owned()),
            (format!("{before} ;"), end(after)),
        ]
    };
    pairs.into_iter().find_map(|(before, after)| {
        let written = examples::written(e, &before).ok()?;
        let same = spaced(&written) == spaced(&after);
        same.then(|| (pretty(&before), pretty(&after)))
    })
}

/// A text's tokens, one blank between.
fn spaced(text: &str) -> String {
    let tokens = kspan_port::lex::tokens(text.as_bytes());
    let words: Vec<&str> = tokens.filter_map(|(_, r)| text.get(r)).collect();
    words.join(" ")
}

/// Words joined by blanks, as a person writes them.
fn pretty(text: &str) -> String {
    let mut out = String::new();
    let mut last = "";
    for word in text.split_whitespace() {
        let tight = matches!(word, ")" | "," | ";" | "]" | "->" | "++" | "--" | "[")
            || matches!(last, "(" | "[" | "->" | "!" | "~")
            || last == "." && !out.ends_with(" . ")
            || word == "." && !matches!(last, "{" | "," | "")
            || word == "(" && last.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            || matches!(last, "&" | "*") && out.ends_with(['&', '*']) && unary(&out);
        if !tight && !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
        last = word;
    }
    out
}

/// The operator at the end stands before its operand.
fn unary(out: &str) -> bool {
    let before = out.get(..out.len() - 1).unwrap_or("").trim_end();
    before.is_empty() || before.ends_with(['(', ',', '=', '&', '|', '!', '?', ':', '['])
}

/// What goes into the file behind an evolution.
fn block(s: &Seen, has_evidence: bool) -> String {
    let mut out = String::new();
    let quoted = |t: &str| match t.contains('\'') {
        true => format!("{t:?}"),
        false => format!("'{t}'"),
    };
    if let Some((before, after)) = &s.example {
        let _ = write!(
            out,
            "\n[[evolution.example]]\nbefore = {}\nafter = {}\n",
            quoted(before),
            quoted(after)
        );
    }
    if !has_evidence && s.files.len() > 1 {
        let tier = if s.files.len() > 3 && s.against * 4 <= s.sites {
            "proven"
        } else {
            "likely"
        };
        let places: Vec<String> = s.places.iter().map(|p| format!("{p:?}")).collect();
        let _ = write!(
            out,
            "\n[evolution.evidence]\ntier = \"{tier}\"\nfiles = {}\nsites = {}\nagainst = {}\nunresolved = {}\nexamples = [{}]\n",
            s.files.len(),
            s.sites,
            s.against,
            s.unresolved,
            places.join(", ")
        );
    }
    out
}

/// Adds what was found to a file's evolutions that have no example yet; how many.
fn extend(path: &Path, library: &Library, seen: &BTreeMap<String, Seen>) -> anyhow::Result<usize> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (mut out, mut count) = (String::new(), 0);
    let mut parts = text.split("[[evolution]]\n");
    out.push_str(parts.next().unwrap_or(""));
    for part in parts {
        out.push_str("[[evolution]]\n");
        let id = part
            .lines()
            .find_map(|l| l.strip_prefix("id = \"")?.strip_suffix('"'));
        let e = id.and_then(|id| library.all().iter().find(|e| e.id == id));
        let found = id.and_then(|id| seen.get(id));
        match (e, found) {
            (Some(e), Some(found)) if e.examples.is_empty() => {
                let (body, gap) = part.split_at(part.trim_end().len());
                out.push_str(body);
                out.push('\n');
                out.push_str(&block(found, e.evidence.is_some()));
                out.push_str(gap.strip_prefix('\n').unwrap_or(gap));
                count += 1;
            }
            _ => out.push_str(part),
        }
    }
    if count > 0 {
        let dir = path.parent().context("a file has a directory")?;
        let file = tempfile::NamedTempFile::new_in(dir)?;
        std::fs::write(file.path(), out)?;
        file.persist(path)?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_written_as_a_person_writes_them() {
        let cases = [
            ("f ( a , & b -> c )", "f(a, &b->c)"),
            (
                "x = { . old = 3 , . b = 4 , } ;",
                "x = { .old = 3, .b = 4, };",
            ),
            ("a & b", "a & b"),
            ("p . q [ 3 ]", "p.q[3]"),
        ];
        for (words, written) in cases {
            assert_eq!(pretty(words), written);
            assert_eq!(spaced(&pretty(words)), spaced(words));
        }
    }
}
