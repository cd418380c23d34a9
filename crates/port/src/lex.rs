//! Just enough of C's tokens to find the end of an initialiser, the body of a function, or the names in a text.
//! Comments, strings and character constants never count as code.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// An identifier or keyword.
    Word,
    /// A number, string or character constant.
    Literal,
    /// One byte of punctuation.
    Punct(u8),
}

/// The tokens of a text with their byte ranges; an unterminated comment or string ends at the end of the text.
pub fn tokens(text: &[u8]) -> impl Iterator<Item = (Token, Range<usize>)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        at = skip_blank(text, at);
        let first = *text.get(at)?;
        let start = at;
        let token = if first >= 0x80 {
            // Whole characters, so that ranges can slice text.
            at = run(text, at, |b| b >= 0x80);
            Token::Literal
        } else if first.is_ascii_alphabetic() || first == b'_' {
            at = run(text, at, |b| b.is_ascii_alphanumeric() || b == b'_');
            Token::Word
        } else if first.is_ascii_digit() {
            at = run(text, at, |b| {
                b.is_ascii_alphanumeric() || b == b'_' || b == b'.'
            });
            Token::Literal
        } else if first == b'"' || first == b'\'' {
            at = quoted_end(text, at);
            Token::Literal
        } else {
            at += 1;
            Token::Punct(first)
        };
        Some((token, start..at))
    })
}

/// The text of a token by its number; nothing beyond the last.
#[must_use]
pub fn nth<'t>(text: &'t str, tokens: &[(Token, Range<usize>)], number: usize) -> &'t str {
    let token = tokens.get(number);
    token
        .and_then(|(_, range)| text.get(range.clone()))
        .unwrap_or_default()
}

fn run(text: &[u8], mut at: usize, keep: impl Fn(u8) -> bool) -> usize {
    while text.get(at).is_some_and(|&b| keep(b)) {
        at += 1;
    }
    at
}

fn quoted_end(text: &[u8], start: usize) -> usize {
    let quote = text[start];
    let mut at = start + 1;
    while let Some(&b) = text.get(at) {
        match b {
            b'\\' => at += 2,
            b'\n' => return at,
            _ if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// Past white space, line continuations and comments.
fn skip_blank(text: &[u8], mut at: usize) -> usize {
    loop {
        match (text.get(at), text.get(at + 1)) {
            (Some(b), _) if b.is_ascii_whitespace() => at += 1,
            (Some(b'\\'), Some(b'\n' | b'\r')) => at += 2,
            (Some(b'/'), Some(b'/')) => at = run(text, at, |b| b != b'\n'),
            (Some(b'/'), Some(b'*')) => {
                at = find(text, at + 2, b"*/").map_or(text.len(), |p| p + 2)
            }
            _ => return at,
        }
    }
}

/// The first place of `needle` in `text` from `from` on.
#[must_use]
pub fn find(text: &[u8], from: usize, needle: &[u8]) -> Option<usize> {
    text.get(from..)?
        .windows(needle.len())
        .position(|w| w == needle)
        .map(|p| p + from)
}

/// The identifiers of a text, each once, in order; not those after `.` or `->` (members).
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let mut out: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut previous: (u8, u8) = (0, 0);
    for (token, range) in tokens(bytes) {
        match token {
            Token::Word => {
                let member = previous.1 == b'.' && previous.0 != b'.' || previous == (b'-', b'>');
                if !member && seen.insert(&text[range.clone()]) {
                    out.push(text[range].to_owned());
                }
                previous = (0, 0);
            }
            Token::Literal => previous = (0, 0),
            Token::Punct(p) => previous = (previous.1, p),
        }
    }
    out
}

/// The tags of a text (`struct TAG`), each once, in order.
#[must_use]
pub fn tags(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut opens = false;
    for (token, range) in tokens(text.as_bytes()) {
        let word = (token == Token::Word).then(|| &text[range]);
        if let Some(tag) = word.filter(|w| opens && !out.contains(w)) {
            out.push(tag);
        }
        opens = word.is_some_and(|w| ["struct", "union", "enum"].contains(&w));
    }
    out
}

/// A word of the language, not a name.
#[must_use]
pub fn is_keyword(word: &str) -> bool {
    const KEYWORDS: [&str; 36] = [
        "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else",
        "enum", "extern", "float", "for", "goto", "if", "inline", "int", "long", "register",
        "return", "short", "signed", "sizeof", "static", "struct", "switch", "typedef", "union",
        "unsigned", "void", "volatile", "while", "define", "defined", "typeof",
    ];
    KEYWORDS.contains(&word)
}

/// Ranges between commas outside of brackets; blanks around each are left out.
#[must_use]
pub fn split(text: &str) -> Vec<Range<usize>> {
    let (mut depth, mut start, mut out) = (0usize, 0, Vec::new());
    for (token, range) in tokens(text.as_bytes()) {
        match token {
            Token::Punct(b'(' | b'[' | b'{') => depth += 1,
            Token::Punct(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            Token::Punct(b',') if depth == 0 => {
                out.push(trimmed(text, start..range.start));
                start = range.end;
            }
            _ => {}
        }
    }
    out.push(trimmed(text, start..text.len()));
    out
}

fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let lead = part.len() - part.trim_start().len();
    let trail = part.len() - part.trim_end().len();
    let start = range.start + lead;
    start..(range.end - trail).max(start)
}

/// Arguments at their own commas, without blanks around them.
#[must_use]
pub fn arguments(text: &str) -> Vec<String> {
    let parts = split(text).into_iter();
    parts.map(|range| text[range].to_owned()).collect()
}

/// Words followed by `(` in a text, each once, less the keywords that look like calls.
#[must_use]
pub fn calls(text: &str) -> Vec<String> {
    let all: Vec<(Token, Range<usize>)> = tokens(text.as_bytes()).collect();
    let mut out: Vec<String> = Vec::new();
    for pair in all.windows(2) {
        if let [(Token::Word, word), (Token::Punct(b'('), _)] = pair {
            let word = &text[word.clone()];
            let keyword = matches!(
                word,
                "if" | "for" | "while" | "switch" | "return" | "sizeof" | "typeof" | "__typeof__"
            );
            if !keyword && !out.iter().any(|o| o == word) {
                out.push(word.to_owned());
            }
        }
    }
    out
}

/// Members read or written through `.` or `->` in a text.
#[must_use]
pub fn members(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut previous: (u8, u8) = (0, 0);
    for (token, range) in tokens(text.as_bytes()) {
        match token {
            Token::Word => {
                if previous.1 == b'.' && previous.0 != b'.' || previous == (b'-', b'>') {
                    out.push(text[range].to_owned());
                }
                previous = (0, 0);
            }
            Token::Literal => previous = (0, 0),
            Token::Punct(p) => previous = (previous.1, p),
        }
    }
    out.sort();
    out.dedup();
    out
}

/// Where the expression that starts at `start` ends: before the `,`, `;` or closing bracket that belongs to what
/// surrounds it. `None` when the text ends first.
#[must_use]
pub fn expression_end(text: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (token, range) in tokens(text.get(start..)?) {
        let at = start + range.start;
        match token {
            Token::Punct(b'(' | b'[' | b'{') => depth += 1,
            Token::Punct(b')' | b']' | b'}') if depth == 0 => return Some(at),
            Token::Punct(b')' | b']' | b'}') => depth -= 1,
            Token::Punct(b',' | b';') if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// The bracket that closes the one at `open`.
#[must_use]
pub fn closing(text: &[u8], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (token, range) in tokens(text.get(open..)?) {
        match token {
            Token::Punct(b'(' | b'[' | b'{') => depth += 1,
            Token::Punct(b')' | b']' | b'}') => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(open + range.start);
                }
            }
            _ => {}
        }
    }
    None
}

/// A text that is one expression by its brackets: balanced, no separator or assignment at its own level.
#[must_use]
pub fn is_expression(text: &str) -> bool {
    let (mut depth, mut any) = (0i32, false);
    for (token, _) in tokens(text.as_bytes()) {
        match token {
            Token::Punct(b'(' | b'[' | b'{') => depth += 1,
            Token::Punct(b')' | b']' | b'}') => depth -= 1,
            Token::Punct(b',' | b';' | b'=') if depth == 0 => return false,
            _ => any = true,
        }
        if depth < 0 {
            return false;
        }
    }
    let first = text.bytes().next().unwrap_or(b' ');
    any && depth == 0
        && (first.is_ascii_alphanumeric() || matches!(first, b'_' | b'&' | b'(' | b'*'))
}

/// Replaces every use of an identifier as a word of its own (never a member, never in a comment or string).
/// A tag (`struct name`) keeps its name: tags live in a name space of their own.
#[must_use]
pub fn rename(text: &str, from: &str, to: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut copied = 0;
    let mut previous = b' ';
    let mut after_tag_keyword = false;
    for (token, range) in tokens(text.as_bytes()) {
        let word = &text[range.clone()];
        if token == Token::Word
            && word == from
            && previous != b'.'
            && previous != b'>'
            && !after_tag_keyword
        {
            out.push_str(&text[copied..range.start]);
            out.push_str(to);
            copied = range.end;
        }
        after_tag_keyword = token == Token::Word && matches!(word, "struct" | "union" | "enum");
        previous = match token {
            Token::Punct(p) => p,
            _ => b'w',
        };
    }
    out.push_str(&text[copied..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_leave_out_members_comments_and_strings() {
        let text = "a->b = c.d(\"e\") /* f */ + g; // h\n x = '\\'' + i ... j";
        assert_eq!(words(text), ["a", "c", "g", "x", "i", "j"]);
        assert_eq!(members(text), ["b", "d"]);
    }

    #[test]
    fn expression_ends_at_its_own_comma() {
        let text = b".a = f(1, 2), .b = { 3, },";
        assert_eq!(expression_end(text, 5), Some(12));
        assert_eq!(expression_end(text, 19), Some(25));
        assert_eq!(expression_end(b"f(1", 0), None);
    }

    #[test]
    fn finds_the_closing_bracket() {
        assert_eq!(closing(b"{ '}' \"}\" /* } */ { } }", 0), Some(22));
        assert_eq!(closing(b"{ {", 0), None);
    }

    #[test]
    fn renames_only_the_plain_identifier() {
        let text = "struct foo foo(struct foo *x) { return x->foo + foo; }";
        assert_eq!(
            rename(text, "foo", "bar"),
            "struct foo bar(struct foo *x) { return x->foo + bar; }"
        );
        assert_eq!(rename("é foo 漢字", "foo", "bar"), "é bar 漢字");
    }
}
