//! A table in which one member of an inner structure is set by itself, and the inner structure by braces: `.driver.probe = f`
//! and `.driver = { … }`. In C the later one counts alone, so the braces are spread into members of their own.

use crate::edit::Edit;
use crate::lex::{self, Token};
use std::ops::Range;

/// Edits that spread `.inner = { .a = 1 }` into `.inner.a = 1` in the table around the member at `start`; none where there is no
/// such initialiser behind it.
///
/// # Errors
/// When the inner structure is set behind the member in another way.
pub fn spread(bytes: &[u8], start: usize, inner: &str) -> Result<Vec<Edit>, String> {
    let all: Vec<(Token, Range<usize>)> = lex::tokens(bytes).collect();
    let table = Table {
        bytes,
        all: &all,
        inner,
    };
    let Ok(at) = all.binary_search_by_key(&start, |(_, r)| r.start) else {
        return Ok(Vec::new());
    };
    match table.behind(at) {
        None => Ok(Vec::new()),
        Some(dot) => table.spread(dot).ok_or_else(|| {
            format!("the table sets .{inner} as a whole behind the member, and would take it back")
        }),
    }
}

/// The tokens of a file, and the name of the inner structure's member.
struct Table<'a> {
    bytes: &'a [u8],
    all: &'a [(Token, Range<usize>)],
    inner: &'a str,
}

impl Table<'_> {
    fn punct(&self, at: usize) -> Option<u8> {
        match self.all.get(at) {
            Some((Token::Punct(p), _)) => Some(*p),
            _ => None,
        }
    }

    fn start(&self, at: usize) -> usize {
        self.all[at].1.start
    }

    /// The dot of the first `.inner =` behind a token, in the same braces.
    fn behind(&self, from: usize) -> Option<usize> {
        let mut depth = 0usize;
        for at in from..self.all.len() {
            match self.punct(at) {
                Some(b'(' | b'[' | b'{') => depth += 1,
                Some(b')' | b']' | b'}') => depth = depth.checked_sub(1)?,
                Some(b'.') if depth == 0 && self.is_inner(at + 1) => return Some(at),
                _ => {}
            }
        }
        None
    }

    fn is_inner(&self, at: usize) -> bool {
        let named = self
            .all
            .get(at)
            .and_then(|(_, r)| self.bytes.get(r.clone()));
        named == Some(self.inner.as_bytes()) && self.punct(at + 1) == Some(b'=')
    }

    /// `.inner = { .a = 1, .b = 2 }` from its dot on.
    fn spread(&self, dot: usize) -> Option<Vec<Edit>> {
        let open = dot + 3;
        if self.punct(open) != Some(b'{') {
            return None;
        }
        let mut edits = vec![self.without(self.start(dot)..self.start(open) + 1)];
        let (mut depth, mut close) = (1usize, open);
        let mut begins = true;
        while depth > 0 {
            close += 1;
            let token = self.punct(close);
            if begins && depth == 1 && token != Some(b'}') {
                if token != Some(b'.') {
                    return None;
                }
                let place = self.start(close);
                edits.push(Edit {
                    start: place,
                    end: place,
                    text: format!(".{}", self.inner),
                });
            }
            begins = depth == 1 && token == Some(b',');
            match token {
                Some(b'(' | b'[' | b'{') => depth += 1,
                Some(b')' | b']' | b'}') => depth -= 1,
                Some(b'#') => return None,
                None if close >= self.all.len() => return None,
                _ => {}
            }
        }
        if edits.len() == 1 {
            return None;
        }
        let last = close - usize::from(self.punct(close - 1) == Some(b','));
        edits.push(self.without(self.start(last)..self.start(close) + 1));
        Some(edits)
    }

    /// Nothing in place of a range but its lines.
    fn without(&self, range: Range<usize>) -> Edit {
        let lines = self.bytes[range.clone()].iter().filter(|b| **b == b'\n');
        Edit {
            text: "\n".repeat(lines.count()),
            start: range.start,
            end: range.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread_out(text: &str) -> Result<String, String> {
        let start = text.find("probe").unwrap();
        let mut edits = spread(text.as_bytes(), start, "driver")?;
        edits.sort();
        let mut out = text.to_owned();
        for edit in edits.iter().rev() {
            out.replace_range(edit.start..edit.end, &edit.text);
        }
        Ok(out)
    }

    #[test]
    fn braces_behind_the_member_are_spread() {
        assert_eq!(
            spread_out("struct d d = {\n\t.probe = f,\n\t.driver = {\n\t\t.name = N(1, 2),\n\t\t.pm = &p,\n\t},\n\t.id = 1,\n};"),
            Ok("struct d d = {\n\t.probe = f,\n\t\n\t\t.driver.name = N(1, 2),\n\t\t.driver.pm = &p\n,\n\t.id = 1,\n};".to_owned())
        );
        assert_eq!(
            spread_out("d = { .probe = f, .driver = { .g = { 1, 2 } } };"),
            Ok("d = { .probe = f,  .driver.g = { 1, 2 }  };".to_owned())
        );
    }

    #[test]
    fn braces_before_the_member_and_of_other_tables_stay() {
        for text in [
            "d = { .driver = { .name = n }, .probe = f };",
            "d = { .probe = f }, e = { .driver = { .name = n } };",
            "d = { .probe = f, .a = { .driver = { .name = n } } };",
        ] {
            assert_eq!(spread_out(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_set_in_another_way_is_refused() {
        for text in [
            "d = { .probe = f, .driver = INIT(n) };",
            "d = { .probe = f, .driver = { n, o } };",
            "d = { .probe = f, .driver = {} };",
            "d = { .probe = f, .driver = {\n#ifdef A\n.name = n,\n#endif\n} };",
        ] {
            assert!(spread_out(text).is_err(), "{text}");
        }
    }
}
