//! Tracepoints: those that the kernel has, and the macros in which a driver writes its own (`__string`, `__assign_str`).
//!
//! A macro makes the functions of each (`trace_x()`, `trace_x_enabled()`); of these the names are known, not the parameters.
//! The macros stand in headers that no module includes by itself: `trace/define_trace.h` reads them between two readings of the
//! driver's own header, each time with other bodies. What a driver sees is their names and parameters, which are read as text.

use crate::extract::{File, Raw};
use crate::headers::Headers;
use crate::{Detail, Signature, Ty};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Where the bodies of one stage stand: `trace/trace_events.h` alone up to 5.17, files of their own beside it since.
fn is_stage(spelling: &str) -> bool {
    spelling == "trace/trace_events.h" || spelling.starts_with("trace/stages/")
}

/// The macros of tracepoints with parameters, and the functions of the kernel's own tracepoints, each where it first stands; of names
/// that other headers define (`known`) none.
pub fn read(
    headers: &Headers,
    all: &[(String, PathBuf)],
    known: impl Fn(&str) -> bool,
) -> Vec<(File, Vec<Raw>)> {
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for (spelling, path) in all {
        let definitions = match spelling.as_str() {
            s if is_stage(s) => macros,
            s if s.starts_with("trace/events/") => functions,
            _ => continue,
        };
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

/// `trace_x()` and `trace_x_enabled()` of each tracepoint.
fn functions(text: &[u8]) -> Vec<Raw> {
    let of = |(name, offset, line): (String, usize, u32)| {
        let made = |name| made(name, offset, line, text);
        [
            made(format!("trace_{name}")),
            made(format!("trace_{name}_enabled")),
        ]
    };
    events(text).into_iter().flat_map(of).collect()
}

/// A function that a macro makes at a place.
fn made(name: String, offset: usize, line: u32, text: &[u8]) -> Raw {
    let rest = text.get(offset..).unwrap_or_default();
    let length = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    let truth = name.ends_with("_enabled");
    let ret = if truth { "bool" } else { "void" };
    Raw {
        name,
        offset: u32::try_from(offset).unwrap_or(u32::MAX),
        forward: false,
        lines: (line, line),
        range: offset..offset + length,
        detail: Some(Detail::Function {
            sig: Signature {
                ret: Ty {
                    spelling: ret.to_owned(),
                    canonical: if truth { "_Bool" } else { "void" }.to_owned(),
                },
                params: Vec::new(),
                variadic: !truth,
            },
            body: false,
            is_static: true,
        }),
    }
}

/// The names of the tracepoints that a header defines, each with its place and line.
fn events(text: &[u8]) -> Vec<(String, usize, u32)> {
    let mut out = Vec::new();
    let mut offset = 0;
    for (number, line) in text.split_inclusive(|b| *b == b'\n').enumerate() {
        let start = offset;
        offset += line.len();
        // The name may stand on the line behind the macro's.
        let Some((word, rest)) = invoked(line) else {
            continue;
        };
        let name = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '(');
        let next = text.get(offset..).unwrap_or_default();
        let next = next.split(|b| *b == b'\n').next().unwrap_or_default();
        let arguments = format!("{name} {}", String::from_utf8_lossy(next));
        let which = usize::from(word.starts_with("DEFINE_EVENT"));
        let argument = arguments.split(',').nth(which).unwrap_or_default().trim();
        let name: String = argument
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        let line = u32::try_from(number + 1).unwrap_or(u32::MAX);
        if !name.is_empty() {
            out.push((name, start, line));
        }
    }
    out
}

/// A macro at the start of a line that defines a tracepoint, and what stands behind its name.
fn invoked(line: &[u8]) -> Option<(&str, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let (word, _) = line.split_once('(')?;
    let defines = ["TRACE_EVENT", "DEFINE_EVENT", "DECLARE_TRACE"];
    let plain = |c: char| c.is_ascii_uppercase() || c == '_';
    let is_it = defines.iter().any(|d| word.starts_with(d)) && word.chars().all(plain);
    is_it.then(|| (word, line.get(word.len()..).unwrap_or_default()))
}

/// `#define NAME(…)` with its continuations.
fn macros(text: &[u8]) -> Vec<Raw> {
    let mut out = Vec::new();
    let (mut offset, mut number) = (0, 0);
    let mut lines = text.split_inclusive(|b| *b == b'\n');
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
    fn tracepoints_by_name() {
        let text = b"DECLARE_EVENT_CLASS(c,\n\tTP_PROTO(int x));\n\nDEFINE_EVENT(c, one,\n\tTP_PROTO(int x));\nTRACE_EVENT(two,\n);\nTRACE_EVENT_CONDITION(\n\tthree,\n);\n#define TRACE_EVENT(name, ...)\nDEFINE_EVENT(c,\n\tfour, x);\nDEFINE_EVENT_PRINT(c, five, y);\n";
        let found = events(text);
        let names: Vec<(&str, u32)> = found
            .iter()
            .map(|(n, _, line)| (n.as_str(), *line))
            .collect();
        assert_eq!(
            names,
            [
                ("one", 4),
                ("two", 6),
                ("three", 8),
                ("four", 12),
                ("five", 14)
            ]
        );
    }

    #[test]
    fn macros_with_parameters_and_their_lines() {
        let text = b"#undef __a\n#define __a(x, y) \\\n\tdo { } \\\n\twhile (0)\n#define B 1\n#define __c(z)\\\n z\n#define D (1)";
        let found = macros(text);
        let names: Vec<(&str, (u32, u32))> =
            found.iter().map(|r| (r.name.as_str(), r.lines)).collect();
        assert_eq!(names, [("__a", (2, 4)), ("__c", (6, 7))]);
        let text_of = |i: usize| std::str::from_utf8(&text[found[i].range.clone()]).unwrap();
        assert!(text_of(0).ends_with("while (0)"), "{}", text_of(0));
        assert_eq!(text_of(1), "#define __c(z)\\\n z");
    }
}
