//! What no kernel can make right: evolutions that can never apply, that stand in each other's way, or that lead in circles.
//!
//! Told at load, before a kernel is known, from the evolutions' own conditions alone.

use crate::model::{Condition, Evolution, Kind};
use crate::read::LoadError;
use std::collections::{BTreeMap, BTreeSet};

/// All that is wrong.
pub fn check(all: &[Evolution]) -> Vec<LoadError> {
    let mut errors: Vec<LoadError> = all.iter().filter_map(never).collect();
    errors.extend(contradictions(all));
    errors.extend(circles(all));
    errors
}

fn error(e: &Evolution, message: String) -> LoadError {
    LoadError {
        file: e.file.clone(),
        line: e.line,
        message,
    }
}

/// It wants a kernel that has and lacks the same.
fn never(e: &Evolution) -> Option<LoadError> {
    let both = e.has.iter().find(|c| e.lacks.contains(c))?;
    let why = format!(
        "evolution `{}` never applies: {} stands in both `has` and `lacks`; take it out of one",
        e.id,
        words(both)
    );
    Some(error(e, why))
}

fn words(condition: &Condition) -> String {
    match condition {
        Condition::Name(n) | Condition::Config(n) => format!("`{n}`"),
        Condition::Field(r, f) => format!("`struct {r}.{f}`"),
        Condition::Header(h) => format!("`<{h}>`"),
    }
}

/// What an evolution is asked for.
fn subjects(e: &Evolution) -> Vec<String> {
    match &e.kind {
        Kind::Define { .. } => e.provides.clone(),
        Kind::Override { home_arity, .. } | Kind::Event { home_arity, .. } => {
            let form = |n: &String| home_arity.get(n).map_or(String::new(), |a| format!("/{a}"));
            e.provides
                .iter()
                .map(|n| format!("{n}{}", form(n)))
                .collect()
        }
        Kind::Field { record, home, .. } => vec![format!("struct {record}.{home}")],
        Kind::Access { record, field, .. } | Kind::DropField { record, field } => {
            vec![format!("struct {record}.{field}")]
        }
        Kind::Refuse { record, field } => vec![format!("struct {record}.{field} refused")],
        Kind::Callback { record, field, .. } => vec![format!("struct {record}.{field}()")],
        Kind::Header { home, .. } => vec![format!("<{home}>")],
    }
}

/// Everything that decides whether it applies, in one text.
fn terms(e: &Evolution) -> String {
    let list = |of: &[Condition]| of.iter().map(words).collect::<BTreeSet<_>>();
    let place = match &e.kind {
        // A member's new name must be there: another new name is another condition.
        Kind::Field { target, .. } | Kind::Header { target, .. } => target.as_str(),
        _ => "",
    };
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {place} {} {:?}",
        list(&e.has),
        list(&e.lacks),
        e.arity,
        e.types,
        e.body,
        e.body_lacks,
        e.opt_in,
        e.only_with
    )
}

/// Two that serve the same thing on the same kernels, each in its own way.
fn contradictions(all: &[Evolution]) -> Vec<LoadError> {
    let mut seen: BTreeMap<(String, String), &Evolution> = BTreeMap::new();
    let mut errors = Vec::new();
    for e in all {
        let terms = terms(e);
        let rival = subjects(e)
            .into_iter()
            .find_map(|s| seen.get(&(s, terms.clone())).copied());
        match rival {
            Some(first) if !alike(first, e) => errors.push(error(
                e,
                format!(
                    "evolution `{}` contradicts `{}` at {}:{}: both serve the same on the same kernels; join them, or give one a condition",
                    e.id, first.id, first.file, first.line
                ),
            )),
            _ => {
                for subject in subjects(e) {
                    seen.insert((subject, terms.clone()), e);
                }
            }
        }
    }
    errors
}

/// Two callbacks of which each says what the other does not.
fn alike(a: &Evolution, b: &Evolution) -> bool {
    a.id == b.id || a.kind == b.kind
}

/// No kernel can be meant by both.
fn exclude(a: &Evolution, b: &Evolution) -> bool {
    let clash = |x: &Evolution, y: &Evolution| {
        x.has.iter().any(|c| y.lacks.contains(c))
            || x.arity.iter().any(|(n, k)| {
                y.arity.get(n).is_some_and(|o| o != k)
                    || y.lacks.contains(&Condition::Name(n.clone()))
            })
            || x.body
                .iter()
                .any(|(n, t)| y.body_lacks.get(n).is_some_and(|o| o == t))
    };
    clash(a, b) || clash(b, a)
}

/// Texts that need each other: neither can stand first.
fn circles(all: &[Evolution]) -> Vec<LoadError> {
    let mut by_name: BTreeMap<&str, Vec<&Evolution>> = BTreeMap::new();
    for e in all {
        for name in &e.provides {
            by_name.entry(name).or_default().push(e);
        }
    }
    let mut errors = Vec::new();
    let mut told = BTreeSet::new();
    for e in all.iter().filter(|e| !e.needs.is_empty()) {
        let Some(path) = way_back(e, &by_name) else {
            continue;
        };
        let mut ids: Vec<&str> = path.iter().map(|p| p.id.as_str()).collect();
        ids.sort_unstable();
        if told.insert(ids) {
            let names: Vec<String> = path.iter().map(|p| format!("`{}`", p.id)).collect();
            let why = format!(
                "evolutions need each other in a circle: {} → `{}`; take a name out of one's `needs`",
                names.join(" → "),
                e.id
            );
            errors.push(error(e, why));
        }
    }
    errors
}

/// The evolutions that lead from one through what it needs to itself, all of which one kernel can be meant by.
fn way_back<'e>(
    start: &'e Evolution,
    by_name: &BTreeMap<&str, Vec<&'e Evolution>>,
) -> Option<Vec<&'e Evolution>> {
    let mut open: Vec<Vec<&Evolution>> = vec![vec![start]];
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    while let Some(path) = open.pop() {
        let last = *path.last()?;
        let next = last.needs.iter().filter_map(|n| by_name.get(n.as_str()));
        for other in next.flatten() {
            if path.iter().any(|p| exclude(p, other)) {
                continue;
            }
            if other.id == start.id {
                // A text may name in `needs` what itself provides: no other has to stand before it.
                if path.len() > 1 {
                    return Some(path);
                }
                continue;
            }
            if seen.insert(&other.id) {
                let mut longer = path.clone();
                longer.push(other);
                open.push(longer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::Library;

    fn messages(text: &str) -> Vec<String> {
        match Library::from_texts([("t.toml".to_owned(), text.to_owned())]) {
            Ok(_) => Vec::new(),
            Err(e) => e.0.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_evolutions_that_are_compiled_in_are_sane() {
        let library = Library::load(None).unwrap();
        let told: Vec<String> = super::check(library.all())
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(told, Vec::<String>::new());
    }

    fn define(id: &str, name: &str, more: &str) -> String {
        format!(
            "[[evolution]]\nid = \"{id}\"\nkind = \"define\"\nprovides = [\"{name}\"]\ntext = \"#define {name} {id}\"\n{more}\n"
        )
    }

    #[test]
    fn one_that_can_never_apply_is_told_with_its_line() {
        let text = define("a", "x", "has = [\"y\"]\nlacks = [\"x\", \"y\"]");
        let told = messages(&text);
        assert!(told[0].starts_with("t.toml:1: "), "{told:?}");
        assert!(told[0].contains("never applies: `y`"), "{told:?}");
    }

    #[test]
    fn two_for_the_same_on_the_same_kernels_contradict() {
        let two = define("a", "x", "has = [\"y\"]") + &define("b", "x", "has = [\"y\"]");
        let told = messages(&two);
        assert!(
            told[0].contains("`b` contradicts `a` at t.toml:1"),
            "{told:?}"
        );
        let apart = define("a", "x", "has = [\"y\"]") + &define("b", "x", "has = [\"z\"]");
        assert_eq!(messages(&apart), Vec::<String>::new());
    }

    #[test]
    fn a_circle_is_told_and_a_chain_is_not() {
        let circle = define("a", "x", "needs = [\"y\"]") + &define("b", "y", "needs = [\"x\"]");
        let told = messages(&circle);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("circle"), "{told:?}");
        let chain = define("a", "x", "needs = [\"y\"]") + &define("b", "y", "needs = [\"z\"]");
        assert_eq!(messages(&chain), Vec::<String>::new());
    }

    #[test]
    fn evolutions_of_different_kernels_are_no_circle() {
        let text = define("a", "x", "needs = [\"y\"]\nhas = [\"old\"]")
            + &define("b", "y", "needs = [\"x\"]\nlacks = [\"y\", \"old\"]");
        assert_eq!(messages(&text), Vec::<String>::new());
    }
}
