//! `#include` lines: one more in its place among its like, another name, or none.

use super::edit::Edit;
use kspan_port::site;
use std::ops::Range;

/// One `#include` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Include {
    /// The whole line, with its end.
    pub line: Range<usize>,
    /// The header's name alone.
    pub name: Range<usize>,
    /// `<…>`, not `"…"`.
    pub angled: bool,
    /// It stands in no `#if`.
    pub plain: bool,
}

/// The `#include` lines of a text.
#[must_use]
pub fn includes(text: &str) -> Vec<Include> {
    let (mut out, mut at, mut depth, mut comment) = (Vec::new(), 0, 0i32, false);
    for line in text.split_inclusive('\n') {
        let directive = (!comment)
            .then(|| line.trim_start().strip_prefix('#'))
            .flatten()
            .map(str::trim_start);
        match directive {
            Some(d) if d.starts_with("if") => depth += 1,
            Some(d) if d.starts_with("endif") => depth -= 1,
            Some(d) if d.starts_with("include") => out.extend(include(line, at, depth)),
            _ => {}
        }
        comment = site::comment_open(line.as_bytes(), comment);
        at += line.len();
    }
    out
}

fn include(line: &str, at: usize, depth: i32) -> Option<Include> {
    let open = line.find(['<', '"'])?;
    let angled = line.as_bytes().get(open) == Some(&b'<');
    let rest = line.get(open + 1..)?;
    let length = rest.find(if angled { '>' } else { '"' })?;
    Some(Include {
        line: at..at + line.len(),
        name: at + open + 1..at + open + 1 + length,
        angled,
        plain: depth == 0,
    })
}

/// The edit that includes a header; `None` where it is included already.
#[must_use]
pub fn add(text: &str, header: &str) -> Option<Edit> {
    let all = includes(text);
    let name = |i: &Include| text.get(i.name.clone()).unwrap_or_default().to_owned();
    if all.iter().any(|i| i.plain && name(i) == header) {
        return None;
    }
    let group = |h: &str| h.split('/').next().unwrap_or_default().to_owned();
    let angled: Vec<&Include> = all.iter().filter(|i| i.angled && i.plain).collect();
    let like: Vec<&&Include> = angled
        .iter()
        .filter(|i| group(&name(i)) == group(header))
        .collect();
    let sorted = like.windows(2).all(|w| name(w[0]) <= name(w[1]));
    let behind = like
        .iter()
        .find(|i| sorted && name(i).as_str() > header)
        .map(|i| i.line.start);
    let last = like
        .last()
        .map(|i| i.line.end)
        .or(angled.last().map(|i| i.line.end));
    let place = behind
        .or(last)
        .or_else(|| all.first().map(|i| i.line.start))
        .unwrap_or(0);
    Some(Edit::insert(place, format!("#include <{header}>\n")))
}

/// The edits by which other headers stand for one; the line goes where none does, or all are included already.
#[must_use]
pub fn replace(text: &str, header: &str, by: &[String]) -> Vec<Edit> {
    let all = includes(text);
    let name = |i: &Include| text.get(i.name.clone()).unwrap_or_default().to_owned();
    let have: Vec<String> = all.iter().filter(|i| i.plain).map(name).collect();
    let missing: Vec<&String> = by.iter().filter(|h| !have.contains(h)).collect();
    let mut out = Vec::new();
    for line in all.iter().filter(|i| name(i) == header) {
        match missing.as_slice() {
            [only] if same_group(only, header) => {
                out.push(Edit::replace(line.name.clone(), only.as_str()))
            }
            _ => out.push(Edit::delete(line.line.clone())),
        }
    }
    let renamed = matches!(missing.as_slice(), [only] if same_group(only, header));
    if !renamed && !out.is_empty() {
        out.extend(missing.iter().filter_map(|h| add(text, h)));
    }
    out
}

/// Both stand among the same includes, and a rename keeps the order as likely as not.
fn same_group(a: &str, b: &str) -> bool {
    a.split('/').next() == b.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::super::edit::apply;
    use super::*;

    fn with(text: &str, edits: &[Edit]) -> String {
        String::from_utf8(apply(text.as_bytes(), edits).text).unwrap()
    }

    #[test]
    fn a_header_goes_in_its_place() {
        let text = "/*\n#include <linux/a.h>\n*/\n#include <linux/b.h>\n#include <linux/d.h>\n#include <asm/io.h>\n#include \"x.h\"\n";
        let done = with(text, &[add(text, "linux/c.h").unwrap()]);
        assert!(
            done.contains("b.h>\n#include <linux/c.h>\n#include <linux/d.h>"),
            "{done}"
        );
        assert!(
            with(text, &[add(text, "linux/z.h").unwrap()])
                .contains("d.h>\n#include <linux/z.h>\n#include <asm")
        );
        assert!(
            with(text, &[add(text, "net/x.h").unwrap()])
                .contains("io.h>\n#include <net/x.h>\n#include \"x")
        );
        assert!(add(text, "linux/b.h").is_none());
    }

    #[test]
    fn a_header_that_moved_is_renamed_or_moved() {
        let text = "#include <linux/a.h>\n#include <asm/unaligned.h>\nint x;\n";
        let done = with(
            text,
            &replace(text, "asm/unaligned.h", &["linux/unaligned.h".to_owned()]),
        );
        assert_eq!(
            done,
            "#include <linux/a.h>\n#include <linux/unaligned.h>\nint x;\n"
        );
        let done = with(text, &replace(text, "linux/a.h", &["linux/b.h".to_owned()]));
        assert_eq!(
            done,
            "#include <linux/b.h>\n#include <asm/unaligned.h>\nint x;\n"
        );
        assert_eq!(
            with(text, &replace(text, "linux/a.h", &[])),
            "#include <asm/unaligned.h>\nint x;\n"
        );
    }
}
