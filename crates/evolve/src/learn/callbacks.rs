//! Parameters that a callback of the target does not get: how the target's own functions find the same value.

use super::anchors::{Anchors, lost};
use super::pair::Pair;
use super::sites::{Files, Found, Key, Outcome};
use super::tables::entries;
use super::template::{abstracted, is_expression, join};
use super::units::{Source, Tok, Unit, UnitKind, split};
use std::ops::Range;

/// A function in a member of a table.
struct Bound<'s, 't> {
    record: String,
    field: &'t str,
    function: &'s Unit<'t>,
}

/// The functions in a table's members that `wanted` names.
fn bound<'s, 't>(
    anchors: &Anchors,
    source: &'s Source<'t>,
    wanted: &dyn Fn(&(String, String)) -> bool,
) -> Vec<Bound<'s, 't>> {
    let function = |name: &str| {
        source
            .units
            .iter()
            .find(|u| u.kind == UnitKind::Function && u.name == name)
    };
    let tables = source.units.iter().filter(|u| u.kind == UnitKind::Table);
    tables
        .flat_map(|table| entries(anchors, source, table))
        .filter(|e| wanted(&(e.record.clone(), e.field.to_owned())))
        .filter_map(|e| {
            let name = e.value.strip_prefix("& ").unwrap_or(&e.value);
            Some(Bound {
                function: function(name)?,
                record: e.record,
                field: e.field,
            })
        })
        .collect()
}

/// The names of a function's parameters.
fn parameters<'t>(source: &Source<'t>, unit: &Unit<'t>) -> Vec<&'t str> {
    let Some(close) = unit.params.end.checked_sub(1) else {
        return Vec::new();
    };
    split(&source.tokens, unit.params.start, close)
        .into_iter()
        .map(|range| {
            let tokens = source.tokens.get(range).unwrap_or(&[]);
            tokens.iter().rev().find(|t| t.word).map_or("", |t| t.text)
        })
        .collect()
}

/// The target's function for the same member: the one of the same name, else the only one.
fn counterpart<'b, 's, 't>(
    bound: &Bound<'_, '_>,
    there: &'b [Bound<'s, 't>],
) -> Option<&'b Bound<'s, 't>> {
    let member = |o: &&Bound<'_, '_>| o.record == bound.record && o.field == bound.field;
    let mut same = there.iter().filter(member);
    let only = same.next().filter(|_| same.next().is_none());
    let mut named = there.iter().filter(member);
    named
        .find(|o| o.function.name == bound.function.name)
        .or(only)
}

/// The head of a function in a callback whose type changed, as tokens of both files.
pub struct Head {
    /// The record of the callback.
    pub record: String,
    /// Its member.
    pub field: String,
    /// From the function's first token to its body.
    pub here: Range<usize>,
    /// The same of the target's function; none where it has none.
    pub there: Option<Range<usize>>,
}

/// The heads of a file's functions in such callbacks.
#[must_use]
pub fn heads(anchors: &Anchors, files: &Files<'_, '_>) -> Vec<Head> {
    let reshaped = |member: &(String, String)| anchors.reshaped.contains(member);
    let there = bound(anchors, files.target, &reshaped);
    let head = |f: &Unit<'_>| f.tokens.start..f.body;
    let of = |b: Bound<'_, '_>| Head {
        here: head(b.function),
        there: counterpart(&b, &there).map(|o| head(o.function)),
        field: b.field.to_owned(),
        record: b.record,
    };
    bound(anchors, files.home, &reshaped)
        .into_iter()
        .map(of)
        .collect()
}

/// Compares the callbacks of both versions of a file.
pub fn read(anchors: &Anchors, files: &Files<'_, '_>, found: &mut Found) {
    let lost = |member: &(String, String)| anchors.callbacks.contains_key(member);
    let here = bound(anchors, files.home, &lost);
    if here.is_empty() {
        return;
    }
    let there = bound(anchors, files.target, &lost);
    let mut done: Vec<&str> = Vec::new();
    for b in &here {
        let Some(other) = counterpart(b, &there) else {
            continue;
        };
        if done.contains(&b.function.name) {
            continue;
        }
        done.push(b.function.name);
        if let Some(pair) = Pair::new(files.home, b.function, files.target, other.function) {
            one(anchors, files, b, &pair, found);
        }
    }
}

fn one(
    anchors: &Anchors,
    files: &Files<'_, '_>,
    bound: &Bound<'_, '_>,
    pair: &Pair<'_, '_>,
    found: &mut Found,
) {
    let member = (bound.record.clone(), bound.field.to_owned());
    let Some(callback) = anchors.callbacks.get(&member) else {
        return;
    };
    let names = parameters(files.home, pair.unit);
    let target = parameters(files.target, pair.other);
    if names.len() != callback.home.params.len() || target.len() != callback.target.params.len() {
        return;
    }
    let args: Vec<Vec<Tok<'_>>> = target
        .iter()
        .map(|text| vec![Tok { text, word: true }])
        .collect();
    for (index, _) in lost(&callback.home, &callback.target) {
        let Some(name) = names.get(index).filter(|n| !n.is_empty()) else {
            continue;
        };
        let key = Key::Parameter(bound.record.clone(), bound.field.to_owned(), index);
        let uses: Vec<usize> = uses(files.home, pair.unit, name).collect();
        if uses.is_empty() {
            let site = files.site(pair.unit.params.start, (*name).to_owned(), Outcome::Deleted);
            found.push((key, site));
            continue;
        }
        for at in uses {
            let outcome = value(pair, at, name, &args);
            found.push((key.clone(), files.site(at, (*name).to_owned(), outcome)));
        }
    }
}

fn uses<'s>(source: &'s Source<'_>, unit: &Unit<'_>, name: &'s str) -> impl Iterator<Item = usize> {
    let text = |at: usize| source.tokens.get(at).map_or("", |t| t.text);
    (unit.body..unit.tokens.end)
        .filter(move |&at| text(at) == name && !matches!(text(at.saturating_sub(1)), "." | "->"))
}

/// What the target's function has where this one uses the parameter.
fn value(pair: &Pair<'_, '_>, at: usize, name: &str, args: &[Vec<Tok<'_>>]) -> Outcome {
    let Some(there) = pair.mapped(at..at + 1) else {
        return Outcome::Unresolved;
    };
    let mut form = pair.there(there);
    if let [one] = form
        && one.text == name
    {
        // A variable of the same name: its initialiser says where the value comes from.
        match initialiser(pair, name) {
            Some(value) => form = value,
            None => return Outcome::Unresolved,
        }
    }
    if !is_expression(form) {
        return Outcome::Unresolved;
    }
    Outcome::Edit {
        args: args.iter().map(|a| join(a)).collect(),
        after: join(form),
        template: abstracted(form, args),
        statement: false,
    }
}

fn initialiser<'s, 't>(pair: &Pair<'s, 't>, name: &str) -> Option<&'s [Tok<'t>]> {
    let text = |at: usize| pair.target.tokens.get(at).map_or("", |t| t.text);
    let body = pair.other.body..pair.other.tokens.end;
    let at = body.clone().find(|&at| {
        text(at) == name && text(at + 1) == "=" && matches!(text(at.saturating_sub(1)), "*")
    })?;
    let end = (at + 2..body.end).find(|e| matches!(text(*e), ";"))?;
    Some(pair.there(at + 2..end)).filter(|f| f.len() <= 24)
}
