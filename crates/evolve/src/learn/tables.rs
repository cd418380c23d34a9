//! Initialisers: members that a table of the home kernel fills and the target's record lacks.

use super::anchors::Anchors;
use super::sites::{Files, Found, Key, Outcome};
use super::template::join;
use super::units::{Source, Unit, closing, split};
use std::ops::Range;

/// `.field = value` somewhere in a table.
#[derive(Debug, Clone)]
pub struct Entry<'t> {
    /// The record that has the member.
    pub record: String,
    /// The member.
    pub field: &'t str,
    /// Its value, words joined by blanks.
    pub value: String,
    /// Token of the member's name.
    pub at: usize,
}

/// All entries of a table, those of inner records too.
#[must_use]
pub fn entries<'t>(anchors: &Anchors, source: &Source<'t>, unit: &Unit<'t>) -> Vec<Entry<'t>> {
    let mut out = Vec::new();
    let text = |at: usize| source.tokens.get(at).map_or("", |t| t.text);
    let tag = (unit.tokens.start..unit.body)
        .find(|at| text(*at) == "struct")
        .map(|at| text(at + 1));
    if let (Some(tag), Some(close)) = (tag, closing(&source.tokens, unit.body)) {
        walk(anchors, source, unit.body..close, tag, &mut out);
    }
    out
}

fn walk<'t>(
    anchors: &Anchors,
    source: &Source<'t>,
    braces: Range<usize>,
    record: &str,
    out: &mut Vec<Entry<'t>>,
) {
    let text = |at: usize| source.tokens.get(at).map_or("", |t| t.text);
    for part in split(&source.tokens, braces.start, braces.end) {
        let first = part.start;
        if text(first) == "." && text(first + 2) == "=" {
            let field = text(first + 1);
            let value = first + 3..part.end;
            let inner = anchors
                .records
                .get(record)
                .and_then(|m| m.get(field))
                .and_then(Option::as_deref);
            if let (Some(inner), "{") = (inner, text(value.start))
                && let Some(close) = closing(&source.tokens, value.start)
            {
                walk(anchors, source, value.start..close, inner, out);
            }
            out.push(Entry {
                record: record.to_owned(),
                field,
                value: join(source.tokens.get(value).unwrap_or(&[])),
                at: first + 1,
            });
            continue;
        }
        // An element of an array: `{ … }` or `[3] = { … }`.
        let open = part.clone().find(|at| text(*at) == "{");
        let element = matches!(text(first), "{" | "[");
        if let Some(open) = open.filter(|_| element)
            && let Some(close) = closing(&source.tokens, open)
        {
            walk(anchors, source, open..close, record, out);
        }
    }
}

/// A value that says which member it belongs to: it names something of the driver's own.
fn tells(value: &str) -> bool {
    !matches!(
        value,
        "NULL" | "true" | "false" | "THIS_MODULE" | "0" | "1" | "KBUILD_MODNAME"
    )
}

/// Compares a table of both kernels.
pub fn read(
    anchors: &Anchors,
    files: &Files<'_, '_>,
    unit: &Unit<'_>,
    other: &Unit<'_>,
    found: &mut Found,
) {
    let here = entries(anchors, files.home, unit);
    let lost = |e: &&Entry<'_>| {
        anchors
            .gone
            .get(&e.record)
            .is_some_and(|g| g.contains(e.field))
    };
    if !here.iter().any(|e| lost(&e)) {
        return;
    }
    let there = entries(anchors, files.target, other);
    for entry in here.iter().filter(lost) {
        let key = Key::Initialiser(entry.record.clone(), entry.field.to_owned());
        let before = format!(". {} = {}", entry.field, entry.value);
        let outcome = counterpart(entry, &here, &there);
        found.push((key, files.site(entry.at, before, outcome)));
    }
}

/// The member of the target's table that holds what this one holds here.
fn counterpart(entry: &Entry<'_>, here: &[Entry<'_>], there: &[Entry<'_>]) -> Outcome {
    let same_place = |e: &&Entry<'_>| e.record == entry.record;
    if there
        .iter()
        .filter(same_place)
        .any(|e| e.field == entry.field)
    {
        return Outcome::Same;
    }
    let new = |e: &&Entry<'_>| {
        same_place(e)
            && !here
                .iter()
                .any(|h| h.record == e.record && h.field == e.field)
    };
    let mut candidates = there
        .iter()
        .filter(new)
        .filter(|e| e.value == entry.value && tells(&e.value));
    match candidates.next() {
        Some(e) => Outcome::Edit {
            args: Vec::new(),
            after: e.field.to_owned(),
            template: e.field.to_owned(),
            statement: false,
        },
        None if there.iter().filter(same_place).any(|e| new(&e)) => Outcome::Unresolved,
        None if there.iter().any(|e| same_place(&e)) => Outcome::Deleted,
        None => Outcome::Unresolved,
    }
}
