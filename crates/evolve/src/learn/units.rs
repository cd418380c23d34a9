//! One C file as tokens, cut into its functions and initialised tables.
//!
//! Never fails: what it cannot cut is left out. A closing bracket in the first column ends a unit, as the kernel's style has it,
//! so that one odd macro does not hide the rest of a file.

use kspan_facts::lex::{self, Kind, Lexer};
use std::ops::Range;

/// One token; an arrow or another operator of two characters is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tok<'t> {
    /// Its text.
    pub text: &'t str,
    /// It is an identifier or keyword.
    pub word: bool,
}

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitKind {
    /// A function with its body.
    Function,
    /// A variable with an initialiser in braces.
    Table,
}

/// A function or a table, as ranges of tokens.
#[derive(Debug, Clone)]
pub struct Unit<'t> {
    /// What it is.
    pub kind: UnitKind,
    /// Its name.
    pub name: &'t str,
    /// From its first token to the one after its closing bracket.
    pub tokens: Range<usize>,
    /// The token that opens its body.
    pub body: usize,
    /// The brackets around a function's parameters.
    pub params: Range<usize>,
}

/// A file, taken apart.
#[derive(Debug, Default)]
pub struct Source<'t> {
    /// Tokens of the code; directives are left out.
    pub tokens: Vec<Tok<'t>>,
    /// Where each token starts, in bytes.
    pub starts: Vec<usize>,
    /// Functions and tables in order.
    pub units: Vec<Unit<'t>>,
    /// `#include <…>` as spelled.
    pub includes: Vec<&'t str>,
    /// Names that the file `#define`s.
    pub defines: Vec<&'t str>,
}

/// Operators of two characters that are one token.
const PAIRS: [&str; 17] = [
    "->", "==", "!=", "<=", ">=", "&&", "||", "|=", "&=", "+=", "-=", "*=", "/=", "<<", ">>", "++",
    "--",
];

impl<'t> Source<'t> {
    /// Reads a file.
    #[must_use]
    pub fn read(text: &'t str) -> Self {
        let mut source = Self::default();
        let bytes = text.as_bytes();
        let mut tokens = Lexer::new(bytes, 0);
        let mut column_zero = Vec::new();
        while let Some(token) = tokens.next() {
            match token.kind {
                Kind::Hash => source.directive(text, &mut tokens),
                Kind::LineEnd => {}
                kind => {
                    let whole = lex::slice(bytes, token);
                    if source.joins(text, token.start, whole) {
                        continue;
                    }
                    let first = token.start == 0 || bytes.get(token.start - 1) == Some(&b'\n');
                    column_zero.push(first);
                    source.tokens.push(Tok {
                        text: whole,
                        word: kind == Kind::Word,
                    });
                    source.starts.push(token.start);
                }
            }
        }
        source.cut(&column_zero);
        source
    }

    /// Makes one operator of the last token and this one.
    fn joins(&mut self, text: &'t str, start: usize, last: &str) -> bool {
        if last.len() != 1 {
            return false;
        }
        let (Some(token), Some(&before)) = (self.tokens.last_mut(), self.starts.last()) else {
            return false;
        };
        if token.text.len() != 1 || before + 1 != start {
            return false;
        }
        match text.get(before..=start).filter(|p| PAIRS.contains(p)) {
            Some(pair) => {
                token.text = pair;
                true
            }
            None => false,
        }
    }

    fn directive(&mut self, text: &'t str, tokens: &mut Lexer<'t>) {
        let (mut name, mut start) = ("", 0);
        let mut end = 0;
        for (number, token) in tokens.by_ref().enumerate() {
            if token.kind == Kind::LineEnd {
                end = token.start;
                break;
            }
            let word = lex::slice(text.as_bytes(), token);
            match number {
                0 => (name, start) = (word, token.end),
                1 if name == "define" => self.defines.push(word),
                _ => {}
            }
            end = token.end;
        }
        if name == "include" {
            let rest = text.get(start..end).unwrap_or("").trim();
            let header = rest.strip_prefix('<').and_then(|r| r.split_once('>'));
            self.includes.extend(header.map(|(h, _)| h));
        }
    }

    fn text(&self, at: usize) -> &'t str {
        self.tokens.get(at).map_or("", |t| t.text)
    }

    /// Finds functions and tables at the outermost level.
    fn cut(&mut self, column_zero: &[bool]) {
        let (mut at, mut start) = (0, 0);
        while at < self.tokens.len() {
            match self.text(at) {
                ";" => start = at + 1,
                "{" => {
                    let end = self.block_end(at, column_zero);
                    if let Some(unit) = self.unit(start, at, end) {
                        self.units.push(unit);
                    }
                    at = end;
                    // A table ends with its semicolon, a function with its bracket.
                    if self.text(end) != ";" {
                        start = end;
                        continue;
                    }
                    start = end + 1;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// The token after the bracket that closes the one at `open`.
    fn block_end(&self, open: usize, column_zero: &[bool]) -> usize {
        let mut depth = 0usize;
        for at in open..self.tokens.len() {
            match self.text(at) {
                "{" => depth += 1,
                "}" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 || column_zero.get(at) == Some(&true) {
                        return at + 1;
                    }
                }
                _ => {}
            }
        }
        self.tokens.len()
    }

    fn unit(&self, start: usize, open: usize, end: usize) -> Option<Unit<'t>> {
        let before = open.checked_sub(1).filter(|b| *b >= start)?;
        if self.text(before) == "=" {
            let name = self.declared(start, before)?;
            return Some(Unit {
                kind: UnitKind::Table,
                name,
                tokens: start..end,
                body: open,
                params: before..before,
            });
        }
        let mut close = before;
        loop {
            if self.text(close) != ")" {
                return None;
            }
            let first = opening(&self.tokens, close)?;
            let at = first.checked_sub(1).filter(|n| *n >= start)?;
            let name = self.tokens.get(at).filter(|t| t.word)?.text;
            // What stands behind the parameters: `__acquires(lock)`.
            if name.starts_with("__") && at > start && self.text(at - 1) == ")" {
                close = at - 1;
                continue;
            }
            return Some(Unit {
                kind: UnitKind::Function,
                name,
                tokens: start..end,
                body: open,
                params: first..close + 1,
            });
        }
    }

    /// The variable's name before `=`, past `[…]` and attributes.
    fn declared(&self, start: usize, equals: usize) -> Option<&'t str> {
        let mut at = equals.checked_sub(1)?;
        while at > start {
            let token = self.tokens.get(at)?;
            match token.text {
                "]" | ")" => at = opening(&self.tokens, at)?.checked_sub(1)?,
                name if name.starts_with("__") => at -= 1,
                name if token.word => return Some(name),
                _ => return None,
            }
        }
        None
    }
}

/// The token that opens what token `close` closes.
#[must_use]
pub fn opening(tokens: &[Tok<'_>], close: usize) -> Option<usize> {
    let mut depth = 0usize;
    for at in (0..=close).rev() {
        match tokens.get(at)?.text {
            ")" | "]" | "}" => depth += 1,
            "(" | "[" | "{" => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// The token that closes what token `open` opens.
#[must_use]
pub fn closing(tokens: &[Tok<'_>], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// What stands between brackets, split at the commas of its own level; empty brackets hold nothing.
#[must_use]
pub fn split(tokens: &[Tok<'_>], open: usize, close: usize) -> Vec<Range<usize>> {
    let (mut depth, mut start, mut out) = (0usize, open + 1, Vec::new());
    for at in open + 1..close {
        match tokens.get(at).map_or("", |t| t.text) {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            "," if depth == 0 => {
                out.push(start..at);
                start = at + 1;
            }
            _ => {}
        }
    }
    if start < close || !out.is_empty() {
        out.push(start..close);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#include <linux/a.h>\n#define X(a) \\\n  { a }\nstatic const struct ops o[] = {\n\t{ .f = g, },\n};\nint f(int a)\n\t__must_hold(b)\n{\n\tif (a->b) {\n\t\treturn 1;\n\t}\n}\nMACRO(x)\nvoid h(void)\n{\n#if 1\n\tg({);\n#endif\n}\nint last(void) { return 0; }\n";

    #[test]
    fn a_file_is_cut_into_functions_and_tables() {
        let source = Source::read(TEXT);
        let units: Vec<(&str, UnitKind)> = source.units.iter().map(|u| (u.name, u.kind)).collect();
        assert_eq!(
            units,
            [
                ("o", UnitKind::Table),
                ("f", UnitKind::Function),
                ("h", UnitKind::Function),
                ("last", UnitKind::Function)
            ]
        );
        assert_eq!(source.includes, ["linux/a.h"]);
        assert_eq!(source.defines, ["X"]);
        assert!(source.tokens.iter().any(|t| t.text == "->"));
    }

    #[test]
    fn brackets_without_a_partner_are_no_panic() {
        for text in [
            "{",
            "}",
            ")",
            "= {",
            "x = {",
            "f) {",
            "#include",
            "a ( b , {",
        ] {
            let source = Source::read(text);
            assert!(source.units.len() <= 1, "{text}");
        }
    }
}
