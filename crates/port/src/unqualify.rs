//! Data that the driver has as const and the target's API writes to: at home nothing does, so the driver may well say so;
//! a core from before that says so too writes into the object, and a page of constants takes no write.
//!
//! Found in the sources' text: `const struct X name` at file level, with an initialiser or as a declaration. Other forms (a section
//! of their own, types that are no structures) stay const, and the pointer is all that is cast.

use crate::lex::{self, Token};
use std::ops::Range;

/// The structure that an expression points to: `&name` of an object in one of the texts, or `name` that a text declares as a
/// pointer to const.
#[must_use]
pub fn pointee(expression: &str, own: &str, texts: &[String]) -> Option<String> {
    let bare = expression.trim().trim_matches(['(', ')']).trim();
    match bare.strip_prefix('&') {
        Some(name) => {
            let name = name.trim();
            let all = texts.iter().flat_map(|t| objects(t));
            all.into_iter().find(|o| o.name == name).map(|o| o.record)
        }
        None => pointer(own, bare),
    }
}

/// An object or declaration `const struct X name` at file level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The structure's tag.
    pub record: String,
    /// The object's name.
    pub name: String,
    /// The bytes of `const` and the blanks behind it.
    pub qualifier: Range<usize>,
}

/// All of them in a text.
#[must_use]
pub fn objects(text: &str) -> Vec<Object> {
    let all: Vec<(Token, Range<usize>)> = lex::tokens(text.as_bytes()).collect();
    let mut depth = 0_usize;
    let mut found = Vec::new();
    for (at, (token, _)) in all.iter().enumerate() {
        match token {
            Token::Punct(b'{' | b'(') => depth += 1,
            Token::Punct(b'}' | b')') => depth = depth.saturating_sub(1),
            Token::Word if depth == 0 => found.extend(object(text, &all, at)),
            _ => {}
        }
    }
    found
}

fn word<'a>(text: &'a str, all: &[(Token, Range<usize>)], at: usize) -> Option<&'a str> {
    let (token, range) = all.get(at)?;
    (*token == Token::Word).then(|| text.get(range.clone()))?
}

fn punct(all: &[(Token, Range<usize>)], at: usize) -> Option<u8> {
    match all.get(at)?.0 {
        Token::Punct(byte) => Some(byte),
        _ => None,
    }
}

fn object(text: &str, all: &[(Token, Range<usize>)], at: usize) -> Option<Object> {
    let is = |i: usize, wanted: &str| word(text, all, i) == Some(wanted);
    if !is(at, "const") || !is(at + 1, "struct") {
        return None;
    }
    let (record, name) = (word(text, all, at + 2)?, word(text, all, at + 3)?);
    let mut next = at + 4;
    if punct(all, next) == Some(b'[') {
        next += all
            .get(next..)?
            .iter()
            .position(|t| t.0 == Token::Punct(b']'))?
            + 1;
    }
    let start = |i: usize| Some(all.get(i)?.1.start);
    let qualifier = start(at)?..start(at + 1)?;
    matches!(punct(all, next)?, b'=' | b';').then(|| Object {
        record: record.to_owned(),
        name: name.to_owned(),
        qualifier,
    })
}

/// `const struct X *name`, a variable or parameter.
fn pointer(text: &str, name: &str) -> Option<String> {
    let all: Vec<(Token, Range<usize>)> = lex::tokens(text.as_bytes()).collect();
    let declared = |at: &usize| {
        word(text, &all, *at) == Some("const")
            && word(text, &all, *at + 1) == Some("struct")
            && punct(&all, *at + 3) == Some(b'*')
            && word(text, &all, *at + 4) == Some(name)
    };
    let at = (0..all.len()).find(declared)?;
    word(text, &all, at + 2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
static const struct host_template a_template = {
	.name = \"const struct host_template no = 1;\",
};
extern const struct host_template b_template;
static const struct host_template many[2] = { };
static const struct pci_device_id ids[] __initconst = { };
static int f(const struct host_template *t, const struct other o)
{
	const struct host_template local = { };
	return alloc(t) + alloc(&a_template);
}
";

    #[test]
    fn objects_at_file_level_are_found_with_their_qualifier() {
        let found = objects(TEXT);
        let names: Vec<&str> = found.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names, ["a_template", "b_template", "many"]);
        assert!(found.iter().all(|o| &TEXT[o.qualifier.clone()] == "const "));
    }

    #[test]
    fn what_an_expression_points_to() {
        let texts = [TEXT.to_owned()];
        let of = |e: &str| pointee(e, TEXT, &texts);
        assert_eq!(of("&a_template").as_deref(), Some("host_template"));
        assert_eq!(of("(&b_template)").as_deref(), Some("host_template"));
        assert_eq!(of("t").as_deref(), Some("host_template"));
        assert_eq!(of("&local"), None);
        assert_eq!(of("x->t"), None);
    }
}
