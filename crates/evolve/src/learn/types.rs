//! Which record an expression points to, as far as the declarations of one function and the headers tell.

use super::anchors::Anchors;
use super::sites::Member;
use super::units::{Source, Unit, opening};
use rustc_hash::FxHashMap;

/// The records that a function's variables are or point to.
pub struct Types<'a, 't> {
    anchors: &'a Anchors,
    variables: FxHashMap<&'t str, &'t str>,
}

impl<'a, 't> Types<'a, 't> {
    /// Reads the declarations of a function: `struct tag *name`, `struct tag name`, and what follows after a comma.
    #[must_use]
    pub fn of(anchors: &'a Anchors, source: &Source<'t>, unit: &Unit<'t>) -> Self {
        let mut variables = FxHashMap::default();
        let text = |at: usize| source.tokens.get(at).map_or("", |t| t.text);
        for at in unit.tokens.clone() {
            if !matches!(text(at), "struct" | "union") {
                continue;
            }
            let tag = text(at + 1);
            let mut name = at + 2;
            loop {
                while matches!(text(name), "*" | "const") {
                    name += 1;
                }
                let word = source.tokens.get(name).is_some_and(|t| t.word);
                if !word || !matches!(text(name + 1), "=" | ";" | "," | ")" | "[") {
                    break;
                }
                variables.insert(text(name), tag);
                // `struct a *x, *y;`
                let more = text(name + 1) == "," && matches!(text(name + 2), "*");
                if !more {
                    break;
                }
                name += 2;
            }
        }
        Self { anchors, variables }
    }

    /// Uses of members that the target's record lacks.
    #[must_use]
    pub fn gone(&self, source: &Source<'t>, unit: &Unit<'t>) -> Vec<Member> {
        let text = |at: usize| source.tokens.get(at).map_or("", |t| t.text);
        let members = (unit.body..unit.tokens.end).filter(|&at| {
            matches!(text(at), "." | "->") && source.tokens.get(at + 1).is_some_and(|t| t.word)
        });
        members
            .filter_map(|operator| {
                let (root, record) = self.object(source, operator)?;
                let field = text(operator + 1);
                self.anchors.gone.get(record)?.get(field)?;
                Some(Member {
                    record: record.to_owned(),
                    at: operator + 1,
                    root,
                })
            })
            .collect()
    }

    /// The object before an operator: its first token and its record.
    fn object<'r>(&'r self, source: &Source<'t>, operator: usize) -> Option<(usize, &'r str)>
    where
        'a: 'r,
        't: 'r,
    {
        let text = |at: usize| source.tokens.get(at).map_or("", |t| t.text);
        let mut steps = Vec::new();
        let mut at = operator;
        loop {
            let mut last = at.checked_sub(1)?;
            while text(last) == "]" {
                last = opening(&source.tokens, last)?.checked_sub(1)?;
            }
            if !source.tokens.get(last)?.word {
                return None;
            }
            steps.push(text(last));
            match last.checked_sub(1).map(text) {
                Some("." | "->") => at = last - 1,
                _ => {
                    let mut record: &str = self.variables.get(text(last)).copied()?;
                    for step in steps.iter().rev().skip(1) {
                        record = self.anchors.records.get(record)?.get(*step)?.as_deref()?;
                    }
                    return Some((last, record));
                }
            }
        }
    }
}
