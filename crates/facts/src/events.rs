//! The macros in which a driver writes its tracepoints (`__string`, `__assign_str`).
//!
//! They stand in headers that no module includes by itself: `trace/define_trace.h` reads them between two readings of the
//! driver's own header, each time with other bodies. What a driver sees is their names and parameters, which are read as text.

use crate::extract::{File, Raw};
use crate::headers::Headers;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Where the bodies of one stage stand: `trace/trace_events.h` alone up to 5.17, files of their own beside it since.
fn is_stage(spelling: &str) -> bool {
    spelling == "trace/trace_events.h" || spelling.starts_with("trace/stages/")
}

/// The macros with parameters, each where it first stands; of names that other headers define (`known`) none.
pub fn macros(
    headers: &Headers,
    all: &[(String, PathBuf)],
    known: impl Fn(&str) -> bool,
) -> Vec<(File, Vec<Raw>)> {
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for (spelling, path) in all.iter().filter(|(spelling, _)| is_stage(spelling)) {
        let text = std::fs::read(path).unwrap_or_default();
        let mut own = definitions(&text);
        own.retain(|raw| !known(&raw.name) && seen.insert(raw.name.clone()));
        let file = File {
            path: path.clone(),
            header: spelling.clone(),
            relative: headers.relative(path),
            text,
        };
        out.push((file, own));
    }
    out
}

/// `#define NAME(…)` with its continuations.
fn definitions(text: &[u8]) -> Vec<Raw> {
    let mut out = Vec::new();
    let (mut offset, mut number) = (0, 0);
    let mut lines = text.split_inclusive(|b| *b == b'\n').peekable();
    while let Some(line) = lines.next() {
        let (start, first) = (offset, number + 1);
        (offset, number) = (offset + line.len(), number + 1);
        let mut last = line;
        while last.trim_ascii_end().ends_with(b"\\")
            && let Some(next) = lines.next()
        {
            (offset, number) = (offset + next.len(), number + 1);
            last = next;
        }
        let Some(name) = function_like(line) else {
            continue;
        };
        let end = start
            + text
                .get(start..offset)
                .unwrap_or(line)
                .trim_ascii_end()
                .len();
        out.push(Raw {
            name: name.to_owned(),
            offset: u32::try_from(start).unwrap_or(u32::MAX),
            forward: false,
            lines: (first, number),
            range: start..end,
            detail: None,
        });
    }
    out
}

/// The name of a macro with parameters that a line begins to define.
fn function_like(line: &[u8]) -> Option<&str> {
    let rest = std::str::from_utf8(line).ok()?.strip_prefix("#define")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let name = rest.split('(').next().filter(|n| n.len() < rest.len())?;
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (!name.is_empty() && name.chars().all(word)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macros_with_parameters_and_their_lines() {
        let text = b"#undef __a\n#define __a(x, y) \\\n\tdo { } \\\n\twhile (0)\n#define B 1\n#define __c(z)\\\n z\n#define D (1)";
        let found = definitions(text);
        let names: Vec<(&str, (u32, u32))> =
            found.iter().map(|r| (r.name.as_str(), r.lines)).collect();
        assert_eq!(names, [("__a", (2, 4)), ("__c", (6, 7))]);
        let text_of = |i: usize| std::str::from_utf8(&text[found[i].range.clone()]).unwrap();
        assert!(text_of(0).ends_with("while (0)"), "{}", text_of(0));
        assert_eq!(text_of(1), "#define __c(z)\\\n z");
    }
}
