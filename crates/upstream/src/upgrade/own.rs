//! Names of the driver's own that the target's headers have taken: the driver's get another name.

use super::edit::Edit;
use kspan_port::diag::Diagnostic;
use kspan_port::lex::{self, Token};
use std::ops::Range;

/// A name that is defined twice, and whether it is a tag (`struct name`).
#[must_use]
pub fn clash(diagnostic: &Diagnostic) -> Option<(String, bool)> {
    const SAID: [&str; 5] = [
        "redefinition of",
        "redeclaration of",
        "conflicting types for",
        "static declaration of",
        "nested redefinition of",
    ];
    let message = diagnostic.message.as_str();
    let known = SAID.iter().any(|s| message.starts_with(s))
        || message.contains("redeclared as different kind of symbol");
    let quoted = *diagnostic.quoted().first().filter(|_| known)?;
    let words: Vec<&str> = quoted.split_whitespace().collect();
    match words.as_slice() {
        ["struct" | "union" | "enum", tag] => Some(((*tag).to_owned(), true)),
        [name] => Some(((*name).to_owned(), false)),
        _ => None,
    }
}

/// Every use of the name in a text under another one; `None` where the name is also a member's, which a text alone cannot tell
/// apart.
#[must_use]
pub fn renamed(text: &str, name: &str, tag: bool, to: &str) -> Option<Vec<Edit>> {
    let tokens: Vec<(Token, Range<usize>)> = lex::tokens(text.as_bytes()).collect();
    let word = |i: usize| lex::nth(text, &tokens, i);
    let mut edits = Vec::new();
    for (i, (token, range)) in tokens.iter().enumerate() {
        if *token != Token::Word || word(i) != name {
            continue;
        }
        let before = |n: usize| i.checked_sub(n).map_or("", word);
        let is_tag = matches!(before(1), "struct" | "union" | "enum");
        let is_member =
            before(1) == "." && before(2) != "." || before(1) == ">" && before(2) == "-";
        if is_member && !tag {
            return None;
        }
        if is_tag == tag && !is_member {
            edits.push(Edit::replace(range.clone(), to));
        }
    }
    Some(edits)
}

#[cfg(test)]
mod tests {
    use super::super::edit::apply;
    use super::*;

    #[test]
    fn a_tag_and_a_name_are_told_apart() {
        let text = "struct cap { int a; };\nstruct cap *cap(struct cap *c);\n";
        let done = |tag: bool| {
            let edits = renamed(text, "cap", tag, "my_cap").unwrap();
            String::from_utf8(apply(text.as_bytes(), &edits).text).unwrap()
        };
        assert_eq!(
            done(true),
            "struct my_cap { int a; };\nstruct my_cap *cap(struct my_cap *c);\n"
        );
        assert!(done(false).contains("struct cap *my_cap(struct cap *c)"));
        assert!(renamed("int cap; x->cap = 1;", "cap", false, "y").is_none());
    }

    #[test]
    fn the_compilers_words_name_the_clash() {
        let said = |m: &str| clash(&Diagnostic::plain(m));
        assert_eq!(
            said("redefinition of 'struct a'"),
            Some(("a".to_owned(), true))
        );
        assert_eq!(
            said("redeclaration of enumerator 'B'"),
            Some(("B".to_owned(), false))
        );
        assert_eq!(said("'c' undeclared (first use in this function)"), None);
    }
}
