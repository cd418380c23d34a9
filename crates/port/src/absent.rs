//! What a driver only reads, and the target's structure never had: nobody sets it there, so it reads as zero.
//!
//! Never: where the target may hold the value under another name, where the driver keeps a value of its own in the member, where
//! its address, its size or a quotient is asked for, or where it is a pointer.

use crate::lex::{self, Token};
use crate::member::{Used, initialiser};
use crate::plan::Context;
use crate::take_up::place;
use kspan_facts::{Field, Use, UseKind};

/// The value of a member that the target's structure lacks, as C text; `None` where it cannot be known to be zero.
#[must_use]
pub fn value(ctx: &Context<'_>, record: &str, field: &str) -> Option<String> {
    let home = ctx.home.record(record)?;
    let own = home.iter().find(|f| f.name == field)?;
    let zero = zero_of(&own.ty.canonical)?;
    if may_be_renamed(own, &home, &ctx.target.record(record)?) {
        return None;
    }
    let is_it = |u: &&Use| {
        u.kind == UseKind::Field && u.name == field && u.record.as_deref() == Some(record)
    };
    let mut uses = ctx.built.tus.iter().flat_map(|t| &t.tu.uses).filter(is_it);
    uses.all(|used| only_read(ctx, used, field) == Some(true))
        .then_some(zero)
}

/// Zero of a type that a number or a truth value has.
fn zero_of(canonical: &str) -> Option<String> {
    let plain = canonical
        .replace("const ", "")
        .replace("volatile ", "")
        .trim()
        .to_owned();
    if plain.starts_with("enum ") || plain == "_Bool" || plain == "int" {
        return Some("0".to_owned());
    }
    let words = ["unsigned", "signed", "char", "short", "int", "long"];
    let number = plain.split(' ').all(|w| words.contains(&w));
    number.then(|| format!("(({plain})0)"))
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
    let divides = sign(1, b"/%")
        || outside.is_some_and(|(token, _)| matches!(token, Token::Punct(b'/' | b'%')));
    // `*object->member` follows it.
    let followed = sign(1, b"*")
        && !nth(2).is_some_and(|(token, _)| {
            matches!(
                token,
                Token::Word | Token::Literal | Token::Punct(b')' | b']')
            )
        });
    !(measured || counted || divides || followed)
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
            "n = x / a->mem;",
            "n = x % (a->mem);",
            "x = *a->mem;",
            "struct r x = { .mem = 1 };",
        ] {
            assert!(!is_read(text), "{text}");
        }
    }

    #[test]
    fn numbers_have_a_zero_and_pointers_have_none() {
        assert_eq!(zero_of("_Bool").as_deref(), Some("0"));
        assert_eq!(zero_of("const enum kind").as_deref(), Some("0"));
        assert_eq!(
            zero_of("unsigned long").as_deref(),
            Some("((unsigned long)0)")
        );
        for none in [
            "struct a *",
            "char[4]",
            "struct a",
            "void (*)(int)",
            "char *",
        ] {
            assert_eq!(zero_of(none), None, "{none}");
        }
    }

    #[test]
    fn what_the_target_alone_has_may_be_the_member_under_another_name() {
        let field = |name: &str, canonical: &str| Field {
            name: name.to_owned(),
            ty: Ty {
                spelling: canonical.to_owned(),
                canonical: canonical.to_owned(),
            },
            offset_bits: None,
            bit_width: None,
            callback: None,
        };
        let home = [field("kept", "int"), field("new", "int")];
        let there = |name: &str, ty: &str| may_be_renamed(&home[1], &home, &[field(name, ty)]);
        assert!(there("old", "int"));
        assert!(!there("kept", "int"));
        assert!(!there("old", "char"));
    }
}
