//! Gates on meaning: what compiles on the target and may still act otherwise there. Found from facts and sources alone,
//! for ports and for drivers that build unchanged alike.

use crate::driver::OFF;
use crate::gap::{Place, Risk};
use crate::home::Home;
use crate::plan::option_evolution;
use crate::view::View;
use crate::{beside, lex, stub};
use kspan_evolve::{KernelView, Library};
use kspan_facts::{Def, Detail, Use, UseKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// A possible change of meaning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// The gate: `config`, `opt-in`, `stub`, `returns`, `parameter`, `core-field`, `left-out`, `locking`, `owner`.
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
                let named = || {
                    stub(used, home, target)
                        .or_else(|| owner(used, home, target, library))
                        .or_else(|| returns(used, home, target, library))
                        .or_else(|| parameters(used, home, target, library))
                };
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
        findings.extend(beside::findings(built, (home, target), own, library));
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

pub(crate) fn finding(gate: &str, subject: &str, risk: Risk, meaning: String) -> Finding {
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

/// A registration that takes note of the module by itself at home, and not on the target: there drivers set the owner in what they
/// register, and nobody does now.
fn owner(used: &Use, home: &View, target: &View, library: &Library) -> Option<Finding> {
    let notes = |view: &View| {
        KernelView::macro_body(view, &used.name).is_some_and(|body| body.contains("THIS_MODULE"))
    };
    let repaired = || {
        let mut known = library.for_name(&used.name).into_iter();
        known.any(|e| e.applies_to(target) && !e.applies_to(home))
    };
    if !notes(home) || notes(target) || !target.has(&used.name) || repaired() {
        return None;
    }
    let meaning = format!(
        "{}() notes the module that calls it on {}, and does not on {}: nothing may keep the module from being unloaded while it is used",
        used.name, home.kernel.release, target.kernel.release
    );
    Some(finding("owner", &used.name, Risk::Behaviour, meaning))
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
    if has_its_own_work(&wrapper.text[open..], callee) {
        return None;
    }
    let stub = stub_of(view, callee, depth - 1).filter(|_| callee != name)?;
    Some(format!("{callee}() {stub}"))
}

/// A body that calls something by the way, without looking at what it answers, and goes on (`debug_dma_mapping_error()` within
/// `dma_mapping_error()`).
fn has_its_own_work(body: &str, callee: &str) -> bool {
    let at = lex::tokens(body.as_bytes()).find(|(_, r)| body.get(r.clone()) == Some(callee));
    let statements = body.matches(';').count();
    at.is_some_and(|(_, r)| statements > 1 && stands_alone(body.as_bytes(), r.start))
}

/// The body of a function that does nothing but return a constant.
fn stub_body(def: &Def) -> Option<String> {
    match def.detail {
        Detail::Function { body: true, .. } => stub::effect(&def.text),
        _ => None,
    }
}

/// A result that is a truth value on one kernel and an error code on the other.
fn returns(used: &Use, home: &View, target: &View, library: &Library) -> Option<Finding> {
    let ret = |view: &View| match view.callable(&used.name)?.detail {
        Detail::Function { sig, .. } => Some(sig.ret.canonical),
        _ => None,
    };
    let (at_home, there) = (ret(home)?, ret(target)?);
    let is_bool = |t: &str| t == "_Bool" || t == "bool";
    if is_bool(&at_home) == is_bool(&there) || at_home == "void" || there == "void" {
        return None;
    }
    // An evolution says what becomes of the value; or nobody looks at it.
    let best = library.best(&used.name, target);
    if best.is_some_and(|e| e.types.contains_key(&used.name)) || is_statement(used) {
        return None;
    }
    let meaning = format!(
        "{}() returns {at_home} at home and {there} on the target",
        used.name
    );
    Some(finding("returns", &used.name, Risk::Behaviour, meaning))
}

/// A call that is a statement by itself.
fn is_statement(used: &Use) -> bool {
    let text = std::fs::read(&used.at.file).unwrap_or_default();
    stands_alone(&text, used.at.offset as usize)
}

/// The call whose name begins at a place opens a statement and is all of it. What stands behind a closing bracket may be cast, and counts as
/// a value.
fn stands_alone(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).and_then(|t| lex::tokens(t).last());
    let opens = match before {
        Some((lex::Token::Punct(p), _)) => matches!(p, b';' | b'{' | b'}'),
        Some((lex::Token::Word, r)) => text.get(r) == Some(b"else"),
        _ => false,
    };
    let rest = text.get(at..).unwrap_or_default();
    let open = lex::tokens(rest).nth(1);
    let close = match open {
        Some((lex::Token::Punct(b'('), r)) => lex::closing(rest, r.start),
        _ => None,
    };
    let behind = close.and_then(|c| lex::tokens(rest.get(c + 1..)?).next());
    opens && matches!(behind, Some((lex::Token::Punct(b';'), _)))
}

/// A number that is another kind of number on the target: the compiler takes the one for the other.
fn parameters(used: &Use, home: &View, target: &View, library: &Library) -> Option<Finding> {
    let of = |view: &View| match view.callable(&used.name)?.detail {
        Detail::Function { sig, .. } => Some(sig.params),
        _ => None,
    };
    let (here, there) = (of(home)?, of(target)?);
    let known = |name: &str| library.best(name, target).is_some();
    if here.len() != there.len() || known(&used.name) {
        return None;
    }
    // Flags that have become a type of their own, and the other way round; not u32 for unsigned int.
    let own_type = |ty: &str| ty.ends_with("_t") || ty.starts_with("enum ");
    let sized = |ty: &str| {
        matches!(
            ty,
            "size_t" | "ssize_t" | "loff_t" | "uint8_t" | "uint16_t" | "uint32_t" | "uint64_t"
        )
    };
    let (a, b) = here.iter().zip(&there).find(|(a, b)| {
        let (x, y) = (
            crate::cfn::bare(&a.ty.spelling),
            crate::cfn::bare(&b.ty.spelling),
        );
        let number = !a.ty.canonical.contains(['*', '(']) && !b.ty.canonical.contains(['*', '(']);
        let named = !a.name.is_empty() && !b.name.is_empty() && a.name != b.name;
        number && x != y && named && (own_type(&x) || own_type(&y)) && !sized(&x) && !sized(&y)
    })?;
    let meaning = format!(
        "{}() takes `{} {}` at home and `{} {}` on the target",
        used.name, a.ty.spelling, a.name, b.ty.spelling, b.name
    );
    Some(finding("parameter", &used.name, Risk::Behaviour, meaning))
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
    fn knows_a_value_that_nobody_looks_at() {
        let alone = |text: &str| stands_alone(text.as_bytes(), text.find("f(").unwrap());
        assert!(alone("{ f(g(1), \")\"); }"));
        assert!(alone("if (x) y(); else f(1) /* ; */ ;"));
        for used in [
            "x = f(1);",
            "return f(1);",
            "{ f(1) + 1; }",
            "{ y((int)f(1)); }",
            "(void)f(1);",
            "; f(",
        ] {
            assert!(!alone(used), "{used}");
        }
    }

    #[test]
    fn a_call_by_the_way_makes_no_stub() {
        assert!(has_its_own_work(
            "{ debug(a); if (a) return -ENOMEM; return 0; }",
            "debug"
        ));
        for whole in [
            "{ debug(a); }",
            "{ return debug(a); }",
            "{ int r = debug(a); return r; }",
        ] {
            assert!(!has_its_own_work(whole, "debug"), "{whole}");
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
