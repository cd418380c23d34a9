//! Parameters that a callback of the target does not get: how the target's own functions find the same value.

use super::anchors::{Anchors, lost};
use super::pair::Pair;
use super::sites::{Files, Found, Key, Outcome};
use super::tables::entries;
use super::template::{abstracted, is_expression, join};
use super::units::{Source, Tok, Unit, UnitKind, split};

/// A function in a member of a table.
struct Bound<'s, 't> {
    record: String,
    field: &'t str,
    function: &'s Unit<'t>,
}

fn bound<'s, 't>(anchors: &Anchors, source: &'s Source<'t>) -> Vec<Bound<'s, 't>> {
    let function = |name: &str| {
        source
            .units
            .iter()
            .find(|u| u.kind == UnitKind::Function && u.name == name)
    };
    let tables = source.units.iter().filter(|u| u.kind == UnitKind::Table);
    tables
        .flat_map(|table| entries(anchors, source, table))
        .filter(|e| {
            anchors
                .callbacks
                .contains_key(&(e.record.clone(), e.field.to_owned()))
        })
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

/// Compares the callbacks of both versions of a file.
pub fn read(anchors: &Anchors, files: &Files<'_, '_>, found: &mut Found) {
    let here = bound(anchors, files.home);
    if here.is_empty() {
        return;
    }
    let there = bound(anchors, files.target);
    let mut done: Vec<&str> = Vec::new();
    for b in &here {
        let other = there
            .iter()
            .find(|o| {
                o.record == b.record && o.field == b.field && o.function.name == b.function.name
            })
            .or_else(|| {
                let mut same = there
                    .iter()
                    .filter(|o| o.record == b.record && o.field == b.field);
                same.next().filter(|_| same.next().is_none())
            });
        let Some(other) = other else { continue };
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
