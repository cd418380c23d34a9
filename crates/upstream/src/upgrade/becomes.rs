//! Tables of the driver that become something else: a driver of one bus that is a driver of another now. What the table named is
//! called by functions that the evolution writes out.

use super::edit::Edit;
use super::job::Job;
use super::member;
use super::names;
use super::sites::sites;
use super::template::Template;
use kspan_evolve::{Becomes, Evolution};
use kspan_port::lex::{self, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The evolution by which a name goes together with the tables of a structure.
#[must_use]
pub fn evolution<'a>(job: &Job<'a>, name: &str) -> Option<(&'a Evolution, &'a Becomes)> {
    let library = job.library;
    library
        .all()
        .iter()
        .filter(|e| e.rewrite.contains_key(name) || is_of(e, name))
        .filter(|e| e.applies_to(job.target))
        .find_map(|e| Some((e, e.upgrade.becomes.as_ref()?)))
}

fn is_of(e: &Evolution, record: &str) -> bool {
    e.upgrade
        .becomes
        .as_ref()
        .is_some_and(|b| b.record == record)
}

/// Puts what a table becomes in its place, and rewrites the names that go with it.
///
/// # Errors
/// Says what in the driver does not fit.
pub fn take(job: &mut Job<'_>, e: &Evolution, becomes: &Becomes) -> Result<bool, String> {
    let mut edits = Vec::new();
    let mut files = BTreeSet::new();
    for (file, text) in job.sources() {
        for table in tables(text, &becomes.record) {
            let members = members(text, table.inside.clone())?;
            let new = written(becomes, table.name, &members)?;
            let known = lex::words(text);
            let made = format!("{}_", table.name);
            let taken = lex::words(&new).into_iter().find(|w| {
                w.starts_with(&made)
                    && known.contains(w)
                    && !members.values().any(|v| v.contains(w.as_str()))
            });
            if let Some(taken) = taken {
                return Err(format!("the driver has a {taken} of its own already"));
            }
            edits.push((file.clone(), Edit::replace(table.whole, new)));
            files.insert(file.clone());
        }
    }
    if edits.is_empty() {
        return Err(format!(
            "the driver writes out no struct {}",
            becomes.record
        ));
    }
    for (name, rule) in &e.rewrite {
        let template = Template::of_rule(&rule.to, 1, rule.statement);
        for (file, text) in job.sources() {
            for site in sites(text, name, None) {
                edits.push((file.clone(), site.replaced_by(text, &template)?));
            }
        }
    }
    let reason = member::of_evolution(e, format!("be no struct {}", becomes.record));
    let changed = job.changes.add(&reason, edits)?;
    job.include_all(&reason, &e.includes, files)?;
    Ok(changed)
}

struct Table<'a> {
    name: &'a str,
    /// From `static` to the semicolon.
    whole: Range<usize>,
    /// Between the braces.
    inside: Range<usize>,
}

fn tables<'a>(text: &'a str, record: &str) -> Vec<Table<'a>> {
    let whole = |(name, inside): (&'a str, Range<usize>)| {
        let end = inside.end + 1 + text.get(inside.end + 1..)?.find(';')? + 1;
        let head = text.get(..inside.start)?.rfind("struct ")?;
        let line = text.get(..head)?.rfind('\n').map_or(0, |n| n + 1);
        Some(Table {
            name,
            whole: line..end,
            inside,
        })
    };
    super::tables::initialised(text, record)
        .into_iter()
        .filter_map(whole)
        .collect()
}

/// The members that are set, with a path for each of an inner structure: `ops.add` → `f`.
fn members(text: &str, inside: Range<usize>) -> Result<BTreeMap<String, String>, String> {
    let inner = text.get(inside.clone()).unwrap_or_default();
    let unusual = || "a table is not written with plain initialisers".to_owned();
    let mut out = BTreeMap::new();
    let mut at = 0;
    while let Some((token, range)) =
        lex::tokens(inner.get(at..).unwrap_or_default().as_bytes()).next()
    {
        let start = at + range.start;
        at += range.end;
        if token == Token::Punct(b',') {
            continue;
        }
        if token != Token::Punct(b'.') {
            return Err(unusual());
        }
        let equals = start
            + inner
                .get(start..)
                .and_then(|t| t.find('='))
                .ok_or_else(unusual)?;
        let path: String = inner
            .get(start + 1..equals)
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let end = lex::expression_end(inner.as_bytes(), equals + 1).unwrap_or(inner.len());
        let value = inner.get(equals + 1..end).unwrap_or_default();
        match value.trim().strip_prefix('{') {
            Some(_) => {
                let open = inside.start + equals + 1 + value.find('{').unwrap_or(0);
                let close = lex::closing(text.as_bytes(), open).ok_or_else(unusual)?;
                for (below, value) in members(text, open + 1..close)? {
                    out.insert(format!("{path}.{below}"), value);
                }
            }
            None => drop(out.insert(path, value.trim().to_owned())),
        }
        at = end;
    }
    Ok(out)
}

/// The evolution's text for one table.
fn written(
    becomes: &Becomes,
    name: &str,
    members: &BTreeMap<String, String>,
) -> Result<String, String> {
    let unknown =
        |m: &&String| !becomes.text.contains(&format!("{{{m}}}")) && !becomes.drops.contains(m);
    if let Some(member) = members.keys().find(unknown) {
        return Err(format!(
            "{name} sets .{member}, for which the evolution has no place"
        ));
    }
    let stands = |line: &str| -> Option<String> {
        let mut line = line;
        while line.starts_with(['?', '!']) {
            let (condition, rest) = line.split_once(' ').unwrap_or((line, ""));
            let set = members.contains_key(condition.get(1..)?);
            if set != condition.starts_with('?') {
                return None;
            }
            line = rest;
        }
        Some(line.to_owned())
    };
    let lines: Vec<String> = becomes
        .text
        .trim_matches('\n')
        .lines()
        .filter_map(stands)
        .collect();
    let mut out = lines.join("\n").replace("{table}", name);
    for (member, value) in members {
        out = out.replace(&format!("{{{member}}}"), value);
    }
    match out.find("{ops.").or(out.find("{ids}")) {
        Some(at) => Err(format!(
            "{name} does not set what stands at `{}`",
            out.get(at..)
                .unwrap_or_default()
                .split('}')
                .next()
                .unwrap_or_default()
        )),
        None => Ok(out),
    }
}

/// The name is taken up here rather than by itself.
///
/// # Errors
/// As [`take`].
pub fn of_name(job: &mut Job<'_>, tu: usize, name: &str) -> Result<bool, String> {
    match evolution(job, name) {
        Some((e, becomes)) => take(job, e, becomes),
        None => names::take(job, tu, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_becomes_another_with_what_it_named() {
        let text = "static int x;\nstatic struct old d = {\n\t.name = \"d\",\n\t.ops = {\n\t\t.add = f,\n\t},\n\t.drv.pm = &pm,\n};\n";
        let table = &tables(text, "old")[0];
        assert!(text[table.whole.clone()].starts_with("static struct old d"));
        let found = members(text, table.inside.clone()).unwrap();
        let becomes = Becomes {
            record: "old".to_owned(),
            text: "\n?ops.add int {table}_p(void) { return {ops.add}(); }\n?ops.gone int no;\n?ops.add !ops.gone int yes;\nstruct new {table} = { {drv.pm} };\n".to_owned(),
            drops: vec!["name".to_owned()],
        };
        assert_eq!(
            written(&becomes, table.name, &found).unwrap(),
            "int d_p(void) { return f(); }\nint yes;\nstruct new d = { &pm };"
        );
        let strict = Becomes {
            drops: Vec::new(),
            ..becomes
        };
        assert!(
            written(&strict, table.name, &found)
                .unwrap_err()
                .contains(".name")
        );
    }
}
