//! Where in a source file what kspan adds can stand.

use std::collections::BTreeSet;

/// A place at the start of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// Byte offset.
    pub offset: usize,
    /// Number of the line that follows, from 1.
    pub line: u32,
}

/// The place for an overlay block: after the last kernel header that is included outside any `#if`, but before the
/// driver's own headers, which may need what the block gives. `private` holds the lines that include those.
#[must_use]
pub fn after_includes(text: &[u8], private: &BTreeSet<u32>) -> Site {
    let mut last_kernel = None;
    let mut offset = 0;
    let (mut depth, mut in_comment, mut continued) = (0i32, false, false);
    for (index, line) in text.split_inclusive(|&b| b == b'\n').enumerate() {
        let number = u32::try_from(index).unwrap_or(u32::MAX - 1) + 1;
        let directive = if in_comment || continued {
            None
        } else {
            directive(line)
        };
        continued = line.trim_ascii_end().ends_with(b"\\");
        match directive {
            Some(word) if word.starts_with("if") => depth += 1,
            Some("endif") => depth -= 1,
            Some("include") if private.contains(&number) => {
                return last_kernel.unwrap_or(Site {
                    offset,
                    line: number,
                });
            }
            Some("include") if depth == 0 => {
                last_kernel = Some(Site {
                    offset: offset + line.len(),
                    line: number + 1,
                });
            }
            _ => {}
        }
        in_comment = comment_open(line, in_comment);
        offset += line.len();
    }
    last_kernel.unwrap_or(Site { offset: 0, line: 1 })
}

/// The place for a definition in a header: after the last `#include` that stands in nothing but the header's guard, else below the guard.
#[must_use]
pub fn in_header(text: &[u8]) -> Site {
    let base = i32::from(
        kspan_facts::lex::is_guarded(text) && !text.windows(12).any(|w| w == b"#pragma once"),
    );
    let mut place = Site { offset: 0, line: 1 };
    let mut offset = 0;
    let (mut depth, mut guards, mut in_comment, mut continued) = (0i32, true, false, false);
    for (index, line) in text.split_inclusive(|&b| b == b'\n').enumerate() {
        let below = Site {
            offset: offset + line.len(),
            line: u32::try_from(index).unwrap_or(u32::MAX - 2) + 2,
        };
        let word = (!in_comment && !continued)
            .then(|| directive(line))
            .flatten();
        continued = line.trim_ascii_end().ends_with(b"\\");
        match word {
            Some(word) if word.starts_with("if") => depth += 1,
            Some("endif") => depth -= 1,
            Some("include") if depth == base => place = below,
            Some("define" | "pragma") if guards && depth == base => place = below,
            _ => {}
        }
        // Only the macro directly below the guard's line is its own.
        guards &= word.is_none_or(|w| w.starts_with("if"));
        in_comment = comment_open(line, in_comment);
        offset += line.len();
    }
    place
}

/// The line of the first `#include`; the file's start when it has none.
#[must_use]
pub fn first_include(text: &[u8]) -> Site {
    let mut offset = 0;
    let (mut in_comment, mut continued) = (false, false);
    for (index, line) in text.split_inclusive(|&b| b == b'\n').enumerate() {
        if !in_comment && !continued && directive(line) == Some("include") {
            let line = u32::try_from(index).unwrap_or(u32::MAX - 1) + 1;
            return Site { offset, line };
        }
        continued = line.trim_ascii_end().ends_with(b"\\");
        in_comment = comment_open(line, in_comment);
        offset += line.len();
    }
    Site { offset: 0, line: 1 }
}

/// The word after `#`.
fn directive(line: &[u8]) -> Option<&str> {
    let rest = line
        .trim_ascii_start()
        .strip_prefix(b"#")?
        .trim_ascii_start();
    let end = rest
        .iter()
        .position(|b| !b.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    std::str::from_utf8(&rest[..end]).ok()
}

/// Does a block comment reach past the end of this line? `open`: one reached into it.
#[must_use]
pub fn comment_open(line: &[u8], mut open: bool) -> bool {
    let mut at = 0;
    while at < line.len() {
        let pair = line.get(at..at + 2).unwrap_or_default();
        match (open, pair) {
            (true, b"*/") => (open, at) = (false, at + 2),
            (false, b"/*") => (open, at) = (true, at + 2),
            (false, b"//") => return false,
            _ => at += 1,
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_stands_inside_of_a_headers_guard() {
        let line = |text: &str| in_header(text.as_bytes()).line;
        assert_eq!(
            line("/* x */\n#ifndef A\n#define A\n#define B 1\n#endif\n"),
            4
        );
        assert_eq!(
            line(
                "#ifndef A\n#define A\n#include <a.h>\n#ifdef C\n#include <c.h>\n#endif\nint x;\n#endif\n"
            ),
            4
        );
        assert_eq!(line("#pragma once\n#include <a.h>\nint x;\n"), 3);
        assert_eq!(line("#pragma once\nint x;\n"), 2);
        assert_eq!(line("int x;\n"), 1);
    }

    #[test]
    fn the_first_include_is_no_comment() {
        let text = b"/* a\n#include <no.h>\n*/\n#define A\n# include <a.h>\n#include <b.h>\n";
        let site = first_include(text);
        assert_eq!(site.line, 5);
        assert!(text[site.offset..].starts_with(b"# include <a.h>"));
        assert_eq!(first_include(b"int a;\n"), Site { offset: 0, line: 1 });
    }

    #[test]
    fn after_the_last_plain_include() {
        let text = b"#include <a.h>\n#ifdef X\n#include <b.h>\n#endif\nint x;\n";
        assert_eq!(
            after_includes(text, &BTreeSet::new()),
            Site {
                offset: 15,
                line: 2
            }
        );
    }

    #[test]
    fn before_the_drivers_own_headers() {
        let text = b"/* #include <x.h>\n*/\n#include <a.h>\n#define CREATE\n#include \"own.h\"\n#include <c.h>\n";
        assert_eq!(after_includes(text, &BTreeSet::from([5])).line, 4);
        assert_eq!(
            after_includes(b"#include \"own.h\"\n", &BTreeSet::from([1])).line,
            1
        );
    }
}
