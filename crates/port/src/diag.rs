//! gcc's diagnostics, from `-fdiagnostics-format=json` (gcc 9 to 14).
//!
//! gcc 12 prints one array on one line for each translation unit, gcc 14 spreads it over lines, and make mixes its own
//! lines in between; so the arrays are looked for in the whole text.

use serde::Deserialize;
use std::path::PathBuf;

/// A point in a source file, as gcc counts: lines and byte columns from 1.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Point {
    /// The file's name as the compiler was told.
    #[serde(default)]
    pub file: PathBuf,
    /// The line after `#line` directives: the driver's own.
    #[serde(default, deserialize_with = "not_negative")]
    pub line: u32,
    /// Byte column.
    #[serde(default, rename = "byte-column", deserialize_with = "not_negative")]
    pub column: u32,
}

/// gcc says -1 where it knows no column.
fn not_negative<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let value = i64::deserialize(from)?;
    Ok(u32::try_from(value).unwrap_or(0))
}

#[derive(Debug, Clone, Deserialize)]
struct RawLocation {
    caret: Point,
    start: Option<Point>,
    finish: Option<Point>,
}

#[derive(Debug, Clone, Deserialize)]
struct Raw {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    option: Option<String>,
    #[serde(default)]
    locations: Vec<RawLocation>,
    #[serde(default)]
    children: Vec<Raw>,
}

/// How bad a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A note or anything below a warning.
    Note,
    /// A warning.
    Warning,
    /// An error or fatal error.
    Error,
}

/// One diagnostic with its notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error, warning or note.
    pub severity: Severity,
    /// The message with plain quotes, “did you mean” left out.
    pub message: String,
    /// The option that governs it (`-Wunused-function`).
    pub option: Option<String>,
    /// Where, if anywhere.
    pub at: Option<Point>,
    /// Where the marked text starts; the caret's place when gcc marks no range.
    pub start: Option<Point>,
    /// Where the marked text ends.
    pub finish: Option<Point>,
    /// Notes below it.
    pub notes: Vec<Diagnostic>,
}

/// Reads every diagnostic in a compiler's or make's output. Text that is no JSON array is passed over.
#[must_use]
pub fn parse(output: &str) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut rest = output;
    while let Some(start) = array_start(rest) {
        let tail = &rest[start..];
        let mut stream = serde_json::Deserializer::from_str(tail).into_iter::<Vec<Raw>>();
        match stream.next() {
            Some(Ok(raws)) => {
                let used = stream.byte_offset().max(1);
                found.extend(raws.into_iter().map(Diagnostic::from));
                rest = &tail[used..];
            }
            _ => rest = &tail[1..],
        }
    }
    found
}

/// What a finished compiler said; a failure without an error of its own is one by its first line.
#[must_use]
pub fn of_compiler(output: &std::process::Output) -> Vec<Diagnostic> {
    let text = String::from_utf8_lossy(&output.stderr);
    let mut found = parse(&text);
    if !output.status.success() && !found.iter().any(|d| d.severity == Severity::Error) {
        let first = text
            .lines()
            .find(|l| l.contains("error"))
            .or(text.lines().next());
        found.push(Diagnostic::plain(
            first.unwrap_or("the compiler failed without a word"),
        ));
    }
    found
}

/// The next `[` that starts a line and is followed by `{` or `]`, as gcc prints it; make's own lines start otherwise.
fn array_start(text: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find('[')?;
        let next = text[at + 1..].trim_start().chars().next();
        let at_line_start =
            at == 0 || text.as_bytes()[at - 1] == b'\n' || text.as_bytes()[at - 1] == b']';
        if at_line_start && matches!(next, Some('{' | ']')) {
            return Some(at);
        }
        from = at + 1;
    }
}

impl From<Raw> for Diagnostic {
    fn from(raw: Raw) -> Self {
        let location = raw.locations.into_iter().next();
        Self {
            severity: match raw.kind.as_str() {
                "error" | "fatal error" => Severity::Error,
                "warning" => Severity::Warning,
                _ => Severity::Note,
            },
            message: plain(&raw.message),
            option: raw.option,
            at: location.as_ref().map(|l| l.caret.clone()),
            start: location
                .as_ref()
                .map(|l| l.start.clone().unwrap_or_else(|| l.caret.clone())),
            finish: location.map(|l| l.finish.unwrap_or(l.caret)),
            notes: raw.children.into_iter().map(Self::from).collect(),
        }
    }
}

/// Plain quotes, and no “did you mean ‘X’?”, whose X would be taken for a name of the driver.
fn plain(message: &str) -> String {
    let text = message.replace(['‘', '’'], "'");
    match text.find("; did you mean") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// How [`Diagnostic::unexported`] says it.
const UNEXPORTED: &str = "not exported to this module: ";

impl Diagnostic {
    /// An error of a tool that prints no JSON.
    #[must_use]
    pub fn plain(message: &str) -> Self {
        Self {
            severity: Severity::Error,
            message: message.to_owned(),
            option: None,
            at: None,
            start: None,
            finish: None,
            notes: Vec::new(),
        }
    }

    /// modpost's complaint of a symbol.
    #[must_use]
    pub fn unexported(symbol: &str) -> Self {
        Self::plain(&format!("{UNEXPORTED}{symbol}"))
    }

    /// The symbol of [`Diagnostic::unexported`].
    #[must_use]
    pub fn unexported_symbol(&self) -> Option<&str> {
        self.message.strip_prefix(UNEXPORTED)
    }

    /// The texts between quotes in the message, in order.
    #[must_use]
    pub fn quoted(&self) -> Vec<&str> {
        self.message.split('\'').skip(1).step_by(2).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GCC12: &str = r#"make[1]: Entering directory '/x'
[{"kind": "error", "message": "implicit declaration of function ‘foo’; did you mean ‘for’?", "option": "-Werror=implicit-function-declaration", "children": [{"kind":"note","message":"here","locations":[]}], "column-origin": 1, "locations": [{"caret": {"file": "/x/a.c", "line": 7, "display-column": 9, "byte-column": 9, "column": 9}, "finish": {"file": "/x/a.c", "line": 7, "byte-column": 11, "column": 11}}], "escape-source": false}]
make: *** [Makefile:1: a.o] Error 1
[]
"#;

    #[test]
    fn finds_arrays_between_makes_lines() {
        let found = parse(GCC12);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].message, "implicit declaration of function 'foo'");
        assert_eq!(found[0].quoted(), ["foo"]);
        assert_eq!(
            found[0].at.as_ref().map(|p| (p.line, p.column)),
            Some((7, 9))
        );
        assert_eq!(found[0].notes.len(), 1);
    }

    #[test]
    fn reads_arrays_spread_over_lines() {
        let text = "[\n{\"kind\": \"warning\",\n \"message\": \"m\",\n \"locations\": []}\n]\n";
        assert_eq!(parse(text)[0].severity, Severity::Warning);
    }

    #[test]
    fn takes_unknown_columns() {
        let text = r#"[{"kind":"error","message":"m","locations":[{"caret":{"file":"a.h","line":3,"byte-column":-1}}]}]"#;
        assert_eq!(
            parse(text)[0].at.as_ref().map(|p| (p.line, p.column)),
            Some((3, 0))
        );
    }

    #[test]
    fn passes_over_garbage() {
        assert!(parse("[{\"kind\": ").is_empty());
        assert!(parse("[ 12%] not json\n[{]").is_empty());
    }
}
