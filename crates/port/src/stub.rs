//! The stub that the home kernel's header has for a function, for kernels where the feature is configured out.
//!
//! A target that lacks the feature altogether is to a driver what a home kernel without it would be. Facts hold only what
//! the home kernel's configuration makes active, so the stub is read from the header's text.

use crate::lex::{self, Token};
use std::ops::Range;

/// The inactive `static inline` definition of a function in a header's text; `None` when the header has none, or the only one
/// is a macro.
#[must_use]
pub fn find(header: &str, name: &str) -> Option<String> {
    let all: Vec<(Token, Range<usize>)> = lex::tokens(header.as_bytes()).collect();
    let is_name = |i: &usize| {
        all[*i].0 == Token::Word
            && &header[all[*i].1.clone()] == name
            && all.get(i + 1).is_some_and(|t| t.0 == Token::Punct(b'('))
    };
    (0..all.len())
        .filter(is_name)
        .find_map(|at| definition(header, &all, at))
}

/// `static inline type name(parameters) { body }` around the name at token `at`.
fn definition(header: &str, all: &[(Token, Range<usize>)], at: usize) -> Option<String> {
    let bytes = header.as_bytes();
    let end = lex::closing(bytes, all.get(at + 1)?.1.start)?;
    let open = bytes[end + 1..]
        .iter()
        .position(|b| !b.is_ascii_whitespace())?
        + end
        + 1;
    if bytes[open] != b'{' {
        return None;
    }
    let close = lex::closing(bytes, open)?;
    let line_start = |i: usize| {
        let before = &header[..all[i].1.start];
        before
            .rsplit('\n')
            .next()
            .is_some_and(|l| l.trim().is_empty())
    };
    let is_static = |i: &usize| &header[all[*i].1.clone()] == "static" && line_start(*i);
    // The words between `static` and the name: `inline`, attributes, the type.
    let first = (at.saturating_sub(12)..at).rev().find(is_static)?;
    let head = &header[all[first].1.start..all[at].1.start];
    let text = &header[all[first].1.start..=close];
    let plain = !head.contains([';', '{', '}', '#']) && !text.contains("\n#");
    (plain && lex::words(head).iter().any(|w| w.contains("inline"))).then(|| text.to_owned())
}

/// What a function does that only returns a constant, or nothing at all; `None` for one that does more.
#[must_use]
pub fn effect(function: &str) -> Option<String> {
    let open = function.find('{')?;
    let body: Vec<&str> = function[open..].split_whitespace().collect();
    let body = body.join(" ");
    let inner = body.strip_prefix('{')?.strip_suffix('}')?.trim();
    let constant = |v: &str| {
        let v = v.trim().trim_start_matches('-');
        v.chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            || v == "false"
            || v.starts_with("ERR_PTR(-") && v.ends_with(')')
    };
    let returned = inner
        .strip_prefix("return ")
        .and_then(|r| r.strip_suffix(';'));
    match returned {
        Some(value) if constant(value) => Some(format!("returns {}", value.trim())),
        _ if inner.is_empty() => Some("does nothing".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "\
#ifdef CONFIG_A
bool a_there(const guid_t *g);
int a_call(struct x *x,
	   int n);
#else
static inline bool a_there(const guid_t *g) { return false; }
static inline
int a_call(struct x *x, int n)
{
	return -EOPNOTSUPP;
}
#define a_macro(x) do { } while (0)
#endif
static inline int a_user(void) { return a_call(NULL, 1); }
int a_outer(void) { return a_late(1); }
";

    #[test]
    fn finds_the_inactive_definition() {
        assert_eq!(
            find(HEADER, "a_there").unwrap(),
            "static inline bool a_there(const guid_t *g) { return false; }"
        );
        let call = find(HEADER, "a_call").unwrap();
        assert!(call.starts_with("static inline\nint a_call("), "{call}");
        assert!(call.ends_with("-EOPNOTSUPP;\n}"), "{call}");
        for none in ["a_macro", "a_outer", "a_late", "NULL", "a_missing"] {
            assert_eq!(find(HEADER, none), None, "{none}");
        }
    }

    #[test]
    fn tells_what_a_stub_does() {
        for (text, told) in [
            (
                "static inline int f(void) { return -ENODEV; }",
                Some("returns -ENODEV"),
            ),
            ("static inline void f(void) { }", Some("does nothing")),
            ("static inline int f(void) { return g(); }", None),
        ] {
            assert_eq!(effect(text).as_deref(), told, "{text}");
        }
    }
}
