//! Learned rules beside those that are there: which say the same, which something else, and which are new.

use super::Side;
use super::emit::{Rule, names};
use super::sites::Key;
use crate::library::Library;
use crate::model::{Evolution, Kind};

/// How a learned rule stands to the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stance {
    /// A rule of the library serves the same use by the same names of the target.
    Agrees,
    /// A rule of the library serves the same use otherwise.
    Differs,
    /// No rule of the library serves this use on this target.
    Extends,
}

/// Compares one rule with the library; the id of the library's rule where there is one.
#[must_use]
pub fn stance<'l>(
    rule: &Rule,
    library: &'l Library,
    target: &Side<'_>,
) -> (Stance, Option<&'l str>) {
    match shipped(rule, library, target) {
        None => (Stance::Extends, None),
        Some(e) if same(rule, e) => (Stance::Agrees, Some(&e.id)),
        Some(e) => (Stance::Differs, Some(&e.id)),
    }
}

fn shipped<'l>(rule: &Rule, library: &'l Library, target: &Side<'_>) -> Option<&'l Evolution> {
    let applies = |e: &&'l Evolution| e.applies_to(target.view);
    match &rule.key {
        Key::Name(name) => library.best(name, target.view),
        Key::Field(record, field) | Key::Write(record, field) | Key::Initialiser(record, field) => {
            let renamed = library.fields(record).into_iter().find(|e| {
                matches!(&e.kind, Kind::Field { home, .. } if home == field) && applies(e)
            });
            renamed
                .or_else(|| library.accesses(record, field).into_iter().find(applies))
                .or_else(|| library.drops(record, field).into_iter().find(applies))
        }
        Key::Parameter(record, field, _) => {
            library.callbacks(record, field).into_iter().find(applies)
        }
        Key::Header(header) => library.headers(header).into_iter().find(applies),
    }
}

/// Both say it by the same names.
fn same(rule: &Rule, shipped: &Evolution) -> bool {
    let has = |text: &str| {
        let all: Vec<&str> = text
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .collect();
        let mut wanted = names(&rule.template);
        wanted.retain(|n| n.len() > 1);
        wanted.iter().all(|n| all.contains(n))
    };
    match (&rule.evolution.kind, &shipped.kind) {
        (Kind::Field { target, .. }, Kind::Field { target: other, .. })
        | (Kind::Header { target, .. }, Kind::Header { target: other, .. }) => target == other,
        (Kind::DropField { .. }, Kind::DropField { .. }) => true,
        (Kind::Access { .. }, Kind::Access { read, write, .. }) => {
            has(read.as_deref().unwrap_or("")) || has(write.as_deref().unwrap_or(""))
        }
        (
            Kind::Callback { params, .. },
            Kind::Callback {
                params: other,
                adapter,
                ..
            },
        ) => {
            let squeeze = |t: &str| t.replace([' ', '(', ')'], "");
            let told = |(ty, e): (&String, &String)| {
                other
                    .iter()
                    .any(|(t, o)| squeeze(t) == squeeze(ty) && squeeze(o) == squeeze(e))
            };
            params.iter().all(told) || adapter.as_deref().is_some_and(has)
        }
        (Kind::Define { .. } | Kind::Override { .. }, _) => {
            shipped
                .text()
                .is_some_and(|text| match rule.template.as_str() {
                    "" => text.contains(" 0") || text.contains("do {"),
                    _ => has(text),
                })
        }
        _ => false,
    }
}
