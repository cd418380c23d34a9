//! A tolerant lexer for C text: just enough to find identifiers, strings, comments and brackets by byte offset.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An identifier or keyword.
    Word,
    /// A number.
    Number,
    /// A string or character literal.
    Text,
    /// One byte of punctuation.
    Punct(u8),
    /// The `#` that opens a directive.
    Hash,
    /// The end of a directive's (logical) line.
    LineEnd,
}

/// A token with its byte range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// First byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

/// Walks over the tokens of a text; comments and blanks are left out. Never fails: an unclosed comment or string ends
/// at the end of the text or line.
pub struct Lexer<'t> {
    text: &'t [u8],
    at: usize,
    line_start: bool,
    directive: bool,
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte == b'$' || byte >= 0x80
}

fn is_word(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit()
}

impl<'t> Lexer<'t> {
    /// Starts at a byte offset of a text.
    #[must_use]
    pub fn new(text: &'t [u8], at: usize) -> Self {
        Self {
            text,
            at,
            line_start: true,
            directive: false,
        }
    }
    /// Starts in the middle of a line, where a `#` is no directive.
    #[must_use]
    pub fn inside(text: &'t [u8], at: usize) -> Self {
        Self {
            line_start: false,
            ..Self::new(text, at)
        }
    }
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }
    fn continuation(&self) -> Option<usize> {
        match (
            self.byte(self.at),
            self.byte(self.at + 1),
            self.byte(self.at + 2),
        ) {
            (b'\\', b'\n', _) => Some(2),
            (b'\\', b'\r', b'\n') => Some(3),
            _ => None,
        }
    }
    /// Skips blanks and comments; returns true when a directive's line ended.
    fn skip(&mut self) -> bool {
        while self.at < self.text.len() {
            if let Some(length) = self.continuation() {
                self.at += length;
                continue;
            }
            match (self.byte(self.at), self.byte(self.at + 1)) {
                (b'\n', _) => {
                    if self.directive {
                        return true;
                    }
                    self.line_start = true;
                    self.at += 1;
                }
                (b' ' | b'\t' | b'\r' | 0x0b | 0x0c, _) => self.at += 1,
                (b'/', b'*') => self.skip_block(),
                (b'/', b'/') => self.skip_line(),
                _ => return false,
            }
        }
        self.directive
    }
    fn skip_block(&mut self) {
        self.at += 2;
        while self.at < self.text.len() {
            if self.byte(self.at) == b'*' && self.byte(self.at + 1) == b'/' {
                self.at += 2;
                return;
            }
            self.at += 1;
        }
    }
    fn skip_line(&mut self) {
        while self.at < self.text.len() && self.byte(self.at) != b'\n' {
            self.at += self.continuation().unwrap_or(1);
        }
    }
    fn quoted(&mut self, quote: u8) {
        self.at += 1;
        while self.at < self.text.len() {
            match self.byte(self.at) {
                b'\\' => self.at += 2,
                b'\n' => return,
                byte => {
                    self.at += 1;
                    if byte == quote {
                        return;
                    }
                }
            }
        }
        self.at = self.text.len();
    }
    fn run(&mut self, keep: impl Fn(u8) -> bool) {
        while self.at < self.text.len() && keep(self.byte(self.at)) {
            self.at += 1;
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;
    fn next(&mut self) -> Option<Token> {
        if self.skip() {
            self.directive = false;
            self.line_start = true;
            let at = self.at;
            self.at = (at + 1).min(self.text.len());
            return Some(Token {
                kind: Kind::LineEnd,
                start: at,
                end: self.at,
            });
        }
        if self.at >= self.text.len() {
            return None;
        }
        let start = self.at;
        let first = self.byte(start);
        let kind = if is_word_start(first) {
            self.run(is_word);
            Kind::Word
        } else if first.is_ascii_digit() {
            self.run(|byte| is_word(byte) || byte == b'.');
            Kind::Number
        } else if first == b'"' || first == b'\'' {
            self.quoted(first);
            Kind::Text
        } else if first == b'#' && self.line_start {
            self.at += 1;
            self.directive = true;
            Kind::Hash
        } else {
            self.at += 1;
            Kind::Punct(first)
        };
        self.line_start = false;
        Some(Token {
            kind,
            start,
            end: self.at.min(self.text.len()),
        })
    }
}

/// The text of a token.
#[must_use]
pub fn slice(text: &[u8], token: Token) -> &str {
    text.get(token.start..token.end)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .unwrap_or("")
}

/// The identifier that starts exactly at an offset.
#[must_use]
pub fn word_at(text: &[u8], offset: usize) -> &str {
    let rest = text.get(offset..).unwrap_or(&[]);
    if !rest.first().copied().is_some_and(is_word_start) {
        return "";
    }
    let length = rest.iter().take_while(|byte| is_word(**byte)).count();
    rest.get(..length)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .unwrap_or("")
}

/// Whether a header's first directive keeps it from being read twice: `#ifndef X`, `#if !defined(X)…` or `#pragma once`.
#[must_use]
pub fn is_guarded(text: &[u8]) -> bool {
    let mut tokens = Lexer::new(text, 0);
    if tokens.next().is_none_or(|first| first.kind != Kind::Hash) {
        return false;
    }
    let mut next = || tokens.next().map_or("", |token| slice(text, token));
    match next() {
        "ifndef" => true,
        "if" => next() == "!" && next() == "defined",
        "pragma" => next() == "once",
        _ => false,
    }
}

/// How many arguments a bracketed list after an offset holds: `None` if no `(` follows the word there.
#[must_use]
pub fn count_arguments(text: &[u8], offset: usize) -> Option<u32> {
    let skip = word_at(text, offset).len();
    let mut tokens = Lexer::new(text, offset + skip);
    tokens.line_start = false;
    if tokens.next()?.kind != Kind::Punct(b'(') {
        return None;
    }
    let (mut depth, mut commas, mut empty) = (1u32, 0u32, true);
    for token in tokens {
        match token.kind {
            Kind::Punct(b'(') => depth += 1,
            Kind::Punct(b')') => {
                depth -= 1;
                if depth == 0 {
                    return Some(if empty { 0 } else { commas + 1 });
                }
            }
            // Only round brackets protect a comma from the preprocessor.
            Kind::Punct(b',') if depth == 1 => commas += 1,
            _ => {}
        }
        empty = false;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_not_guarded() {
        for guarded in [
            "/* x */\n#ifndef A\n#define A\n#endif",
            "#if !defined(A) || B\n",
            "#pragma once\n",
        ] {
            assert!(is_guarded(guarded.as_bytes()), "{guarded}");
        }
        for bare in [
            "",
            "int x;\n#ifndef A\n",
            "#if IS_ENABLED(A)\nSUBSYS(a)\n#endif",
            "#include <a.h>",
        ] {
            assert!(!is_guarded(bare.as_bytes()), "{bare}");
        }
    }
}
