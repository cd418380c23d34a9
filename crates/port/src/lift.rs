//! Small functions lifted from the home kernel's C files, where the target has neither the function nor an equivalent.
//!
//! Only leaves: whatever needs a file's own variables or types is refused.

use crate::carry::Sources;
use crate::{Result, lex, store};
use kspan_kernel::{Cache, Kernel};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longer functions are no leaves.
const MOST_LINES: usize = 60;
/// Static helpers of the same file that may come along.
const MOST_HELPERS: usize = 4;
const FORMAT: &str = "lift-1";
const ROOTS: [&str; 12] = [
    "lib", "kernel", "mm", "fs", "net", "sound", "block", "crypto", "drivers", "security",
    "arch/x86", "io_uring",
];

/// Which C file exports a symbol, for one kernel's source tree.
pub struct Index {
    root: PathBuf,
    files: BTreeMap<String, PathBuf>,
}

/// A function lifted from a C file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifted {
    /// The function and its helpers, `static`.
    pub text: String,
    /// Headers of the target that its file includes and that exist there.
    pub includes: Vec<String>,
    /// `lib/x.c:12 of KERNEL`.
    pub origin: String,
}

impl Index {
    /// Opens the index of a source tree, making it first if the cache lacks it.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn open(cache: &Cache, kernel: &Kernel, root: &Path) -> Result<Self> {
        let key = store::key(&[FORMAT, &kernel.digest]);
        let path = cache
            .root()
            .join("facts")
            .join(format!("{key}.exports.json"));
        if let Some(files) = store::read(&path) {
            return Ok(Self {
                root: root.to_path_buf(),
                files,
            });
        }
        let files = scan(root);
        store::write(&path, &files)?;
        Ok(Self {
            root: root.to_path_buf(),
            files,
        })
    }

    /// The function of a name, ready to stand in front of a driver's own text; `None` when it is no leaf.
    #[must_use]
    pub fn function(&self, name: &str, sources: &Sources<'_>) -> Option<Lifted> {
        let file = self.files.get(name)?;
        let bytes = std::fs::read(self.root.join(file)).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let source = CFile::new(&text);
        let mut helpers: Vec<String> = Vec::new();
        let mut parts = Vec::new();
        let line = collect(&source, name, sources, &mut helpers, &mut parts)?;
        let includes = includes(&text)
            .filter(|h| sources.target.can_include(h))
            .map(str::to_owned)
            .collect();
        let origin = format!(
            "{}:{line} of {}",
            file.display(),
            sources.home.kernel.release
        );
        Some(Lifted {
            text: parts.join("\n"),
            includes,
            origin,
        })
    }
}

/// Adds a function and the helpers it needs, helpers first; the line where it stands.
fn collect(
    source: &CFile<'_>,
    name: &str,
    sources: &Sources<'_>,
    seen: &mut Vec<String>,
    parts: &mut Vec<String>,
) -> Option<usize> {
    if seen.len() > MOST_HELPERS {
        return None;
    }
    seen.push(name.to_owned());
    let function = source.function(name)?;
    if function.text.lines().count() > MOST_LINES {
        return None;
    }
    for word in lex::words(function.text) {
        if seen.contains(&word) || sources.home.has(&word) || sources.target.has(&word) {
            continue;
        }
        if source.functions.contains_key(word.as_str()) {
            collect(source, &word, sources, seen, parts)?;
        } else if source.globals.contains(word.as_str()) {
            return None;
        }
    }
    let text = function.text.trim();
    let text = text.strip_prefix("static ").unwrap_or(text);
    let text = text.strip_prefix("inline ").unwrap_or(text);
    parts.push(format!("static __maybe_unused {text}"));
    Some(function.line)
}

/// The C files of a kernel tree in the directories whose code ends up in a kernel or its modules.
#[must_use]
pub fn c_files(root: &Path) -> Vec<PathBuf> {
    ROOTS
        .iter()
        .flat_map(|dir| {
            walkdir::WalkDir::new(root.join(dir))
                .into_iter()
                .filter_map(std::result::Result::ok)
        })
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "c"))
        .map(walkdir::DirEntry::into_path)
        .collect()
}

fn scan(root: &Path) -> BTreeMap<String, PathBuf> {
    c_files(root)
        .par_iter()
        .flat_map_iter(|path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            let relative = path.strip_prefix(root).unwrap_or(path).to_path_buf();
            exports(&String::from_utf8_lossy(&bytes))
                .into_iter()
                .map(move |name| (name, relative.clone()))
        })
        .collect()
}

/// Symbols named by `EXPORT_SYMBOL…(name…)` lines.
fn exports(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for line in text.lines().filter(|l| l.starts_with("EXPORT_SYMBOL")) {
        let Some((_, rest)) = line.split_once('(') else {
            continue;
        };
        let name = rest.split([',', ')']).next().unwrap_or_default().trim();
        if !name.is_empty() {
            out.push(name.to_owned());
        }
    }
    out
}

fn includes(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|l| l.strip_prefix("#include <")?.split('>').next())
}

struct Function<'a> {
    text: &'a str,
    line: usize,
}

/// A C file cut into its top-level functions, and the other words that stand at its top level.
struct CFile<'a> {
    text: &'a str,
    functions: BTreeMap<&'a str, (usize, usize)>,
    globals: BTreeSet<&'a str>,
}

impl<'a> CFile<'a> {
    fn new(text: &'a str) -> Self {
        let blanked = blank_directives(text);
        let mut file = Self {
            text,
            functions: BTreeMap::new(),
            globals: BTreeSet::new(),
        };
        let (mut depth, mut start, mut candidate) = (0usize, None, None);
        let mut before: &str = "";
        let mut closed_params = false;
        for (token, range) in lex::tokens(blanked.as_bytes()) {
            let word = &text[range.clone()];
            match token {
                lex::Token::Punct(b'{') if depth == 0 && closed_params => {
                    let end =
                        lex::closing(blanked.as_bytes(), range.start).unwrap_or(text.len() - 1);
                    if let (Some(begin), Some(name)) = (start, candidate) {
                        file.functions.insert(name, (begin, end + 1));
                    }
                    depth += 1;
                }
                lex::Token::Punct(b'(' | b'[' | b'{') => {
                    if depth == 0 && word == "(" && candidate.is_none() {
                        candidate = Some(before);
                    }
                    depth += 1;
                }
                lex::Token::Punct(b')' | b']' | b'}') => {
                    depth = depth.saturating_sub(1);
                    closed_params = depth == 0 && word == ")";
                    if depth == 0 && word == "}" {
                        (start, candidate) = (None, None);
                    }
                }
                lex::Token::Punct(b';') if depth == 0 => (start, candidate) = (None, None),
                lex::Token::Word if depth == 0 => {
                    start = start.or(Some(range.start));
                    file.globals.insert(word);
                }
                _ => {}
            }
            if token != lex::Token::Punct(b')') {
                closed_params = false;
            }
            before = word;
        }
        file
    }

    fn function(&self, name: &str) -> Option<Function<'a>> {
        let &(start, end) = self.functions.get(name)?;
        let line = self.text[..start].matches('\n').count() + 1;
        Some(Function {
            text: self.text.get(start..end)?,
            line,
        })
    }
}

/// The text with preprocessor lines (and their continuations) turned to blanks of the same length.
#[must_use]
pub fn blank_directives(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        if inside || line.trim_start().starts_with('#') {
            inside = line.trim_end().ends_with('\\');
            out.extend(line.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(line);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "#include <linux/x.h>\n#define F(x) { x\nstatic int count;\nstatic int help(int a)\n{\n\treturn a;\n}\n\n/* c */\nint leaf(int a)\n{\n\treturn help(a);\n}\nEXPORT_SYMBOL_GPL(leaf);\n";

    #[test]
    fn cuts_functions_out() {
        let file = CFile::new(FILE);
        let leaf = file.function("leaf").unwrap();
        assert_eq!(leaf.text, "int leaf(int a)\n{\n\treturn help(a);\n}");
        assert_eq!(leaf.line, 10);
        assert!(file.functions.contains_key("help"));
        assert!(file.globals.contains("count"));
    }

    #[test]
    fn reads_exports_and_includes() {
        assert_eq!(exports(FILE), ["leaf"]);
        assert_eq!(includes(FILE).collect::<Vec<_>>(), ["linux/x.h"]);
    }
}
