//! A truth value that a driver only reads, and the target's structure never had: nobody sets it there, so it is false, as from a
//! core that does not know the feature.
//!
//! Never: numbers and pointers, whose zero means something else each time; where the target may hold the value under another name;
//! where the driver keeps a value of its own in the member; where its address or its size is asked for.

use crate::lex::{self, Token};
use crate::member::{Used, initialiser};
use crate::plan::Context;
use crate::take_up::place;
use kspan_facts::{Field, Use, UseKind};

/// The target's structure lacks the member, and it can be taken for false.
#[must_use]
pub fn is_false(ctx: &Context<'_>, record: &str, field: &str) -> bool {
    let (Some(home), Some(target)) = (ctx.home.record(record), ctx.target.record(record)) else {
        return false;
    };
    let own = home.iter().find(|f| f.name == field);
    if !own.is_some_and(|f| is_truth(f) && !may_be_renamed(f, &home, &target)) {
        return false;
    }
    let is_it = |u: &&Use| {
        u.kind == UseKind::Field && u.name == field && u.record.as_deref() == Some(record)
    };
    let uses = ctx.built.tus.iter().flat_map(|t| &t.tu.uses);
    uses.filter(is_it)
        .all(|used| only_read(ctx, used, field) == Some(true))
}

/// A `bool`, or a bit.
fn is_truth(field: &Field) -> bool {
    let plain = field.ty.canonical.replace("const ", "");
    plain.trim() == "_Bool" || field.bit_width == Some(1)
}

/// The target's structure has a member of this type that the home kernel's has not: it may hold the same.
fn may_be_renamed(own: &Field, home: &[Field], target: &[Field]) -> bool {
    target
        .iter()
        .any(|t| t.ty.canonical == own.ty.canonical && home.iter().all(|h| h.name != t.name))
}

/// The place reads the member and does nothing else with it; `None` where its text cannot be found.
fn only_read(ctx: &Context<'_>, used: &Use, field: &str) -> Option<bool> {
    if used.via_macro.is_some() {
        return Some(false);
    }
    let (file, start) = place(ctx, &used.at).ok()?;
    let bytes = std::fs::read(ctx.driver.dir.join(file)).ok()?;
    Some(reads(&bytes, start, field))
}

fn reads(bytes: &[u8], start: usize, field: &str) -> bool {
    if initialiser(bytes, start, field).is_some() {
        return false;
    }
    let Some(used) = Used::at(bytes, start, field).filter(|u| u.assigned.is_none()) else {
        return false;
    };
    let before: Vec<(Token, &[u8])> = lex::tokens(bytes)
        .take_while(|(_, range)| range.end <= used.range.start)
        .map(|(token, range)| (token, bytes.get(range).unwrap_or_default()))
        .collect();
    let nth = |i: usize| before.len().checked_sub(i).and_then(|at| before.get(at));
    let outside = before
        .iter()
        .rev()
        .find(|(token, _)| *token != Token::Punct(b'('));
    let of_its_type: [&[u8]; 5] = [
        b"sizeof",
        b"typeof",
        b"__typeof__",
        b"offsetof",
        b"ARRAY_SIZE",
    ];
    let measured = outside.is_some_and(|(_, text)| of_its_type.contains(text));
    let sign = |i: usize, signs: &[u8]| {
        nth(i).is_some_and(|(token, _)| matches!(token, Token::Punct(p) if signs.contains(p)))
    };
    let counted = sign(1, b"+") && sign(2, b"+") || sign(1, b"-") && sign(2, b"-");
    !(measured || counted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kspan_facts::Ty;

    #[test]
    fn a_member_is_read_where_nothing_else_is_done_with_it() {
        let is_read = |text: &str| {
            let start = lex::find(text.as_bytes(), 0, b"mem").unwrap();
            reads(text.as_bytes(), start, "mem")
        };
        for text in [
            "if (a->mem)",
            "x = a->b.mem + 1;",
            "f(1, a->mem);",
            "b = c & a->mem;",
            "y = 2 * a->mem;",
        ] {
            assert!(is_read(text), "{text}");
        }
        for text in [
            "a->mem = 1;",
            "a->mem |= 1;",
            "++a->mem;",
            "a->mem--;",
            "f(&a->mem);",
            "n = sizeof(a->mem);",
            "struct r x = { .mem = 1 };",
        ] {
            assert!(!is_read(text), "{text}");
        }
    }

    fn field(name: &str, canonical: &str, bit_width: Option<u32>) -> Field {
        Field {
            name: name.to_owned(),
            ty: Ty {
                spelling: canonical.to_owned(),
                canonical: canonical.to_owned(),
            },
            offset_bits: None,
            bit_width,
            callback: None,
        }
    }

    #[test]
    fn truth_values_are_bools_and_bits() {
        assert!(is_truth(&field("a", "_Bool", None)));
        assert!(is_truth(&field("a", "const _Bool", None)));
        assert!(is_truth(&field("a", "unsigned int", Some(1))));
        for ty in ["int", "char *", "_Bool *", "_Bool[2]"] {
            assert!(!is_truth(&field("a", ty, None)), "{ty}");
        }
        assert!(!is_truth(&field("a", "unsigned int", Some(2))));
    }

    #[test]
    fn what_the_target_alone_has_may_be_the_member_under_another_name() {
        let home = [field("kept", "_Bool", None), field("new", "_Bool", None)];
        let there =
            |name: &str, ty: &str| may_be_renamed(&home[1], &home, &[field(name, ty, None)]);
        assert!(there("old", "_Bool"));
        assert!(!there("kept", "_Bool"));
        assert!(!there("old", "int"));
    }
}
