//! Gates on meaning: what compiles on the target and may still act otherwise there. Found from facts and sources alone,
//! for ports and for drivers that build unchanged alike.

use crate::driver::OFF;
use crate::gap::{Place, Risk};
use crate::home::Home;
use crate::plan::option_evolution;
use crate::view::View;
use crate::{lex, stub};
use kspan_evolve::{Kind, Library};
use kspan_facts::{Def, Detail, Use, UseKind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A possible change of meaning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// The gate: `config`, `opt-in`, `stub`, `returns`, `core-field`, `locking`.
    pub gate: String,
    /// What it is about.
    pub subject: String,
    /// How far it may change what the driver does.
    pub risk: Risk,
    /// In plain words.
    pub meaning: String,
    /// Where the driver meets it, `file:line`.
    pub places: Vec<String>,
}

/// All findings for a driver on a target. `own` is the target's own version of the driver's files, where it has one.
#[must_use]
pub fn findings(
    built: &Home,
    home: &View,
    target: &View,
    own: Option<&Path>,
    driver_config: &BTreeMap<String, String>,
    library: &Library,
) -> Vec<Finding> {
    let mut out: BTreeMap<(String, String), Finding> = BTreeMap::new();
    let has_on = |name: &str| driver_config.get(name).is_some_and(|value| value != OFF);
    for used in built
        .tus
        .iter()
        .flat_map(|t| &t.tu.uses)
        .filter(|u| u.via_macro.is_none())
    {
        let found = match used.kind {
            UseKind::Config if !has_on(&used.name) => {
                let given = option_evolution(&used.name, home, target, library);
                config(used, home, target).filter(|_| given.is_none())
            }
            UseKind::Function | UseKind::Macro => {
                let named = || stub(used, home, target).or_else(|| returns(used, home, target));
                chosen(used, home, target, library).or_else(named)
            }
            _ => None,
        };
        let Some(finding) = found else { continue };
        let place = place(built, used);
        let entry = out
            .entry((finding.gate.clone(), finding.subject.clone()))
            .or_insert(finding);
        if let Some(place) = place
            && entry.places.len() < 5
            && !entry.places.contains(&place)
        {
            entry.places.push(place);
        }
    }
    let mut findings: Vec<Finding> = out.into_values().collect();
    if let Some(own) = own {
        findings.extend(beside_own(built, (home, target), own, library));
    }
    findings.sort();
    findings
}

fn place(built: &Home, used: &Use) -> Option<String> {
    let place = Place {
        file: built.relative(&used.at.file)?.to_path_buf(),
        line: used.at.line,
    };
    Some(format!("{}:{}", place.file.display(), place.line))
}

fn finding(gate: &str, subject: &str, risk: Risk, meaning: String) -> Finding {
    Finding {
        gate: gate.to_owned(),
        subject: subject.to_owned(),
        risk,
        meaning,
        places: Vec::new(),
    }
}

/// What stands for the function on the target is an evolution that the driver's author has chosen.
fn chosen(used: &Use, home: &View, target: &View, library: &Library) -> Option<Finding> {
    let known = library.for_name(&used.name).into_iter();
    let evolution = known
        .filter(|e| e.opt_in)
        .find(|e| e.applies_to(target) && !e.applies_to(home))?;
    let meaning = format!(
        "{}() is what the evolution {} makes of it, as the driver's opt_in says: {}",
        used.name, evolution.id, evolution.meaning
    );
    Some(finding(
        "opt-in",
        &used.name,
        evolution.risk.into(),
        meaning,
    ))
}

/// A configuration symbol that compiles other code in or out on the target.
fn config(used: &Use, home: &View, target: &View) -> Option<Finding> {
    let at_home = home.facts.config(&used.name);
    let there = target.facts.config(&used.name);
    let text = |v: &Option<String>| v.clone().unwrap_or_else(|| "not set".to_owned());
    let on = |v: &Option<String>| v.as_deref().is_some_and(|v| v != "n");
    if on(&at_home) == on(&there) {
        return None;
    }
    let meaning = format!(
        "{} is {} on {} and {} on {}: other code is compiled",
        used.name,
        text(&at_home),
        home.kernel.release,
        text(&there),
        target.kernel.release
    );
    Some(finding("config", &used.name, Risk::Behaviour, meaning))
}

/// A function that does its work at home and is an empty stub on the target, since it is configured out there.
fn stub(used: &Use, home: &View, target: &View) -> Option<Finding> {
    let there = stub_of(target, &used.name, 2)?;
    if stub_of(home, &used.name, 2).is_some() || !home.has(&used.name) {
        return None;
    }
    let meaning = format!(
        "{}() is a stub on {} ({}): the feature is configured out there",
        used.name, target.kernel.release, there
    );
    Some(finding("stub", &used.name, Risk::Behaviour, meaning))
}

/// What a name's stub does, where it is one, or is an inline function or macro that leads to one.
fn stub_of(view: &View, name: &str, depth: usize) -> Option<String> {
    let defs = view.facts.defs(name);
    if let Some(stub) = defs.iter().find_map(stub_body) {
        return Some(stub);
    }
    let wrapper = defs.iter().find(|d| {
        let short = d.text.len() < 400;
        short
            && matches!(
                d.detail,
                Detail::Function { body: true, .. }
                    | Detail::Macro {
                        params: Some(_),
                        ..
                    }
            )
    })?;
    if depth == 0 {
        return None;
    }
    let open = wrapper.text.find(['{', ')'])?;
    let callees = lex::calls(&wrapper.text[open..]);
    let [callee] = callees.as_slice() else {
        return None;
    };
    let stub = stub_of(view, callee, depth - 1).filter(|_| callee != name)?;
    Some(format!("{callee}() {stub}"))
}

/// The body of a function that does nothing but return a constant.
fn stub_body(def: &Def) -> Option<String> {
    match def.detail {
        Detail::Function { body: true, .. } => stub::effect(&def.text),
        _ => None,
    }
}

/// A result that is a truth value on one kernel and an error code on the other.
fn returns(used: &Use, home: &View, target: &View) -> Option<Finding> {
    let ret = |view: &View| match view.callable(&used.name)?.detail {
        Detail::Function { sig, .. } => Some(sig.ret.canonical),
        _ => None,
    };
    let (at_home, there) = (ret(home)?, ret(target)?);
    let is_bool = |t: &str| t == "_Bool" || t == "bool";
    if is_bool(&at_home) == is_bool(&there) || at_home == "void" || there == "void" {
        return None;
    }
    let meaning = format!(
        "{}() returns {at_home} at home and {there} on the target",
        used.name
    );
    Some(finding("returns", &used.name, Risk::Behaviour, meaning))
}

/// What the target's own version of the driver does that the home version leaves to the core.
fn beside_own(
    built: &Home,
    kernels: (&View, &View),
    own: &Path,
    library: &Library,
) -> Vec<Finding> {
    let Ok(text) = std::fs::read(own) else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&text);
    let mut out = core_fields(built, kernels, &text, library);
    out.extend(locking(built, &text));
    out
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
            let renamed = library
                .fields(record)
                .into_iter()
                .any(|e| matches!(&e.kind, Kind::Field { target, .. } if *target == field.name));
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

    fn function(text: &str) -> Def {
        let sig = crate::understand::signature(crate::cfn::parse("int (void)").unwrap()).unwrap();
        Def {
            name: "f".into(),
            header: "linux/f.h".into(),
            path: "include/linux/f.h".into(),
            lines: (1, 1),
            text: text.into(),
            detail: Detail::Function {
                sig,
                body: true,
                is_static: true,
            },
        }
    }

    #[test]
    fn knows_stubs() {
        assert_eq!(
            stub_body(&function(
                "static inline int f(void)\n{\n\treturn -ENODEV;\n}"
            ))
            .unwrap(),
            "returns -ENODEV"
        );
        assert_eq!(
            stub_body(&function("static inline void f(void) { }")).unwrap(),
            "does nothing"
        );
        assert!(stub_body(&function("static inline int f(void) { return g(); }")).is_none());
    }
}
