//! Tables of the driver that the target wants const.

use super::edit::Edit;
use kspan_port::lex::{self, Token};
use std::ops::Range;

/// `struct x *name[]` → `const struct x *const name[]`; `None` where the driver declares no such table.
#[must_use]
pub fn constant(text: &str, name: &str) -> Option<Vec<Edit>> {
    let tokens: Vec<(Token, Range<usize>)> = lex::tokens(text.as_bytes()).collect();
    let word = |i: usize| {
        tokens
            .get(i)
            .and_then(|(_, r)| text.get(r.clone()))
            .unwrap_or_default()
    };
    let at = |i: usize| tokens.get(i).map(|(_, r)| r.clone());
    let declares = |i: &usize| {
        word(*i) == "struct" && word(i + 2) == "*" && word(i + 4) == "[" && word(i + 3) == name
    };
    let start = (0..tokens.len()).find(declares)?;
    let is_const = start.checked_sub(1).is_some_and(|i| word(i) == "const");
    let mut edits = vec![Edit::insert(at(start + 3)?.start, "const ")];
    if !is_const {
        edits.push(Edit::insert(at(start)?.start, "const "));
    }
    Some(edits)
}

#[cfg(test)]
mod tests {
    use super::super::edit::apply;
    use super::*;

    #[test]
    fn a_table_of_pointers_becomes_constant() {
        let text = "static struct a *t[] = {\n\t&x,\n};\nstruct a *u;\n";
        let done = apply(text.as_bytes(), &constant(text, "t").unwrap()).text;
        assert_eq!(
            String::from_utf8(done).unwrap(),
            text.replace("struct a *t", "const struct a *const t")
        );
        assert!(constant(text, "u").is_none());
    }
}
