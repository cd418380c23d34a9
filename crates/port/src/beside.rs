//! What the target's own version of a driver does that the home version leaves to the core, or says otherwise: signs that the same
//! text means less there.
//!
//! The two texts are compared by their words. Never: looks at what either does with a value.

use crate::gap::Risk;
use crate::gates::{Finding, finding};
use crate::home::Home;
use crate::lex;
use crate::view::View;
use kspan_evolve::{Kind, Library};
use std::collections::BTreeSet;
use std::path::Path;

/// What the target's own version of the driver does that the home version leaves to the core.
pub fn findings(
    built: &Home,
    kernels: (&View, &View),
    own: &Path,
    library: &Library,
) -> Vec<Finding> {
    let Ok(text) = std::fs::read(own) else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&text);
    let ours = Ours::read(built);
    let told = told(&ours, kernels.1, library);
    let mut out = core_fields(built, kernels, &text, library);
    out.extend(left_out_members(&ours, built, kernels.1, &text, library));
    out.extend(gone_constants(&ours, kernels, &text, library));
    out.retain(|f| !told.contains(f.subject.rsplit('.').next().unwrap_or(&f.subject)));
    out.extend(locking(built, &text));
    out
}

/// Every word of a text, members and tags among them.
fn every_word(text: &str) -> Vec<String> {
    lex::tokens(text.as_bytes())
        .filter(|(token, _)| *token == lex::Token::Word)
        .filter_map(|(_, range)| text.get(range).map(str::to_owned))
        .collect()
}

/// Words of the evolutions that serve the driver on the target: what they speak of is done.
fn told(ours: &Ours, target: &View, library: &Library) -> BTreeSet<String> {
    let serving = library
        .all()
        .iter()
        .filter(|e| e.provides.iter().any(|p| ours.words.contains(p)) && e.applies_to(target));
    let texts = serving.filter_map(kspan_evolve::Evolution::text);
    texts.flat_map(every_word).collect()
}

/// The home version's own text.
struct Ours {
    words: BTreeSet<String>,
}

impl Ours {
    fn read(built: &Home) -> Self {
        let files = std::fs::read_dir(&built.dir)
            .into_iter()
            .flatten()
            .flatten();
        let c = |p: &Path| p.extension().is_some_and(|e| e == "c" || e == "h");
        let mut paths: BTreeSet<_> = files.map(|f| f.path()).filter(|p| c(p)).collect();
        paths.extend(built.tus.iter().map(|t| built.dir.join(&t.source)));
        let texts = paths.iter().filter_map(|p| std::fs::read(p).ok());
        Self {
            words: texts
                .flat_map(|t| every_word(&String::from_utf8_lossy(&t)))
                .collect(),
        }
    }
}

/// Members of the kernel's structures that the target's own driver sets and the home version never names: the home kernel's core
/// may set them.
fn left_out_members(
    ours: &Ours,
    built: &Home,
    target: &View,
    own: &str,
    library: &Library,
) -> Vec<Finding> {
    let uses = built.tus.iter().flat_map(|t| &t.tu.uses);
    let bindings = built.tus.iter().flat_map(|t| &t.tu.bindings);
    let of_uses = uses.filter_map(|u| u.record.as_deref());
    let records: BTreeSet<&str> = of_uses
        .chain(bindings.map(|b| b.record.as_str()))
        .filter(|r| !r.is_empty() && !r.starts_with('<'))
        .collect();
    let mut out = Vec::new();
    for field in assigned(own) {
        // Every bus sets the owner of its drivers on each of the kernels, whether a driver does or not.
        if ours.words.contains(&field) || field == "owner" {
            continue;
        }
        let known = |r: &&&str| {
            let fields = target.record(r).unwrap_or_default();
            fields.iter().any(|f| f.name == field) && !is_new_name(library, r, &field)
        };
        if let Some(record) = records.iter().find(known) {
            let meaning = format!(
                "the target's own version of this driver sets {field} (struct {record} has it), this one does not: does its core?"
            );
            out.push(finding("left-out", &field, Risk::Behaviour, meaning));
        }
    }
    out
}

/// An evolution gives a member of the home kernel's this name.
fn is_new_name(library: &Library, record: &str, field: &str) -> bool {
    let mut all = library.fields(record).into_iter();
    all.any(|e| matches!(&e.kind, Kind::Field { target, .. } if target == field))
}

/// Members that a text sets, in tables and by assignments, and that no structure of its own has.
fn assigned(text: &str) -> BTreeSet<String> {
    let tokens: Vec<_> = lex::tokens(text.as_bytes()).collect();
    let word = |i: usize| lex::nth(text, &tokens, i);
    let is_word = |i: usize| matches!(tokens.get(i), Some((lex::Token::Word, _)));
    let mut set = BTreeSet::new();
    let mut own = BTreeSet::new();
    for i in 1..tokens.len() {
        if !is_word(i) {
            continue;
        }
        let arrow = word(i - 1) == ">" && i > 1 && word(i - 2) == "-";
        let member = word(i - 1) == "." || arrow;
        let equals = word(i + 1) == "=" && word(i + 2) != "=";
        if member && equals {
            set.insert(word(i).to_owned());
        }
        let typed = is_word(i - 1) && word(i - 1) != "return" || word(i - 1) == "*";
        if !member && typed && matches!(word(i + 1), ";" | "[" | ":") {
            own.insert(word(i).to_owned());
        }
    }
    set.difference(&own).cloned().collect()
}

/// Constants that the target's own driver uses and the home kernel no longer has: what they said is said otherwise there, or by the
/// core. One that an evolution speaks of is known.
fn gone_constants(
    ours: &Ours,
    (home, target): (&View, &View),
    own: &str,
    library: &Library,
) -> Vec<Finding> {
    let capital =
        |w: &String| w.len() > 4 && w.contains('_') && !w.bytes().any(|b| b.is_ascii_lowercase());
    let words: BTreeSet<String> = lex::words(own).into_iter().filter(capital).collect();
    let gone = |w: &String| target.has(w) && !home.has(w) && !ours.words.contains(w);
    let served = |w: &String| library.best(w, home).is_some();
    words
        .into_iter()
        .filter(|w| gone(w) && !served(w))
        .map(|w| {
            let meaning = format!(
                "the target's own version of this driver uses {w}, which {} no longer has; nothing here stands for it",
                home.kernel.release
            );
            finding("left-out", &w, Risk::Behaviour, meaning)
        })
        .collect()
}

/// Members that the target's own driver sets and that the home kernel no longer has: its core does it now.
fn core_fields(
    built: &Home,
    (home, target): (&View, &View),
    own: &str,
    library: &Library,
) -> Vec<Finding> {
    let records: BTreeSet<&String> = built
        .tus
        .iter()
        .flat_map(|t| &t.tu.bindings)
        .map(|b| &b.record)
        .filter(|r| !r.is_empty())
        .collect();
    let set: BTreeSet<String> = lex::members(own).into_iter().collect();
    let mut out = Vec::new();
    for record in records {
        let (Some(there), Some(at_home)) = (target.record(record), home.record(record)) else {
            continue;
        };
        for field in there
            .iter()
            .filter(|f| f.callback.is_some() && set.contains(&f.name))
        {
            let sets = own.contains(&format!(".{} =", field.name))
                || own.contains(&format!(".{}\t", field.name));
            let renamed = is_new_name(library, record, &field.name);
            if sets && !renamed && !at_home.iter().any(|f| f.name == field.name) {
                let meaning = format!(
                    "the target's own version of this driver sets struct {record}.{}, which {} no longer has",
                    field.name, home.kernel.release
                );
                out.push(finding(
                    "core-field",
                    &format!("struct {record}.{}", field.name),
                    Risk::Behaviour,
                    meaning,
                ));
            }
        }
    }
    out
}

/// Locks that the target's own driver takes and the home version does not: the core may take them at home.
fn locking(built: &Home, own: &str) -> Vec<Finding> {
    const LOCKS: [&str; 6] = [
        "mutex_lock",
        "spin_lock",
        "spin_lock_irqsave",
        "mutex_init",
        "spin_lock_init",
        "down",
    ];
    let used: BTreeSet<&str> = built
        .tus
        .iter()
        .flat_map(|t| &t.tu.uses)
        .map(|u| u.name.as_str())
        .collect();
    let words = lex::words(own);
    let guards = ["guard", "scoped_guard", "devm_mutex_init"]
        .iter()
        .any(|g| used.contains(g));
    let missing =
        |lock: &&&str| words.iter().any(|w| w == **lock) && !used.contains(**lock) && !guards;
    LOCKS
        .iter()
        .filter(missing)
        .map(|lock| {
            let meaning = format!("the target's own version of this driver uses {lock}(), this one does not: does its core lock?");
            finding("locking", lock, Risk::Behaviour, meaning)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_a_text_sets_and_does_not_own() {
        let text = "struct mine { int speed; };\nstatic struct ops o = {\n\t.open = f,\n\t.close\t= g,\n};\n\
                    void f(struct mine *m)\n{\n\tm->speed = 3;\n\tt->dev.parent = d;\n\tif (m->mode == 2)\n\t\treturn;\n}\n";
        let set: Vec<String> = assigned(text).into_iter().collect();
        assert_eq!(set, ["close", "open", "parent"]);
    }
}
