//! Functions lifted from the home kernel's C files, where the target has neither the function nor an equivalent.
//!
//! What a function needs of its file comes along: helpers, constants, types, macros. A function that needs the file's own
//! variables is refused: a second copy of a kernel's state is worse than none.

use crate::carry::Sources;
use crate::cfile::{self, CFile, Item};
use crate::{Result, lex, store};
use kspan_facts::Detail;
use kspan_kernel::{Cache, Kernel};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// More text than that is no small function any more: bytes, helpers included.
const MOST_TEXT: usize = 12_000;
/// Helpers, constants, types and macros of the same file that may come along.
const MOST_ITEMS: usize = 24;
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
    /// What it needs of its file, and the function, `static`.
    pub text: String,
    /// `lib/x.c:12 of KERNEL`.
    pub origin: String,
}

/// What a lifted text may lean on.
trait Ground {
    /// Some header of the home kernel or of the target has the name.
    fn knows(&self, name: &str) -> bool;
    /// The target has it as a function that modules cannot call.
    fn unreachable(&self, name: &str) -> bool;
}

impl Ground for Sources<'_> {
    fn knows(&self, name: &str) -> bool {
        self.home.has(name) || self.target.has(name)
    }
    fn unreachable(&self, name: &str) -> bool {
        let facts = &self.target.facts;
        let defs = facts.defs(name);
        !defs.is_empty()
            && defs.iter().all(|d| {
                matches!(
                    d.detail,
                    Detail::Function {
                        body: false,
                        is_static: false,
                        ..
                    }
                )
            })
            && facts.export(name).is_none()
    }
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

    /// The function of a name, ready to stand in front of a driver's own text.
    ///
    /// # Errors
    /// What keeps it in its file, in words that end a sentence; nothing where no file at hand exports it.
    pub fn function(
        &self,
        name: &str,
        sources: &Sources<'_>,
    ) -> std::result::Result<Lifted, Option<String>> {
        let file = self.files.get(name).ok_or(None)?;
        let bytes = std::fs::read(self.root.join(file)).map_err(|_| None)?;
        let text = String::from_utf8_lossy(&bytes);
        let source = CFile::new(&text);
        let mut lift = Lift {
            source: &source,
            ground: sources,
            seen: Vec::new(),
            parts: Vec::new(),
        };
        lift.whole(name)
            .map_err(|why| Some(format!("{} {why}", file.display())))?;
        let line = source.line_of(name).unwrap_or(1);
        let origin = format!(
            "{}:{line} of {}",
            file.display(),
            sources.home.kernel.release
        );
        Ok(Lifted {
            text: lift.parts.join("\n"),
            origin,
        })
    }
}

/// A function on its way out of its file.
struct Lift<'a> {
    source: &'a CFile<'a>,
    ground: &'a dyn Ground,
    seen: Vec<String>,
    /// What is needed first stands first.
    parts: Vec<String>,
}

impl Lift<'_> {
    fn whole(&mut self, name: &str) -> std::result::Result<(), String> {
        self.take(name)?;
        let foreign = self.seen.iter().find(|name| {
            matches!(self.source.item(name), Some(Item::Type(text)) if is_record(text))
                && !self.parts.iter().any(|part| makes_one(part, name))
        });
        // The target's own file may lay out such an object in another way.
        foreign.map_or(Ok(()), |tag| {
            Err(format!("works on objects of its own struct {tag}"))
        })
    }

    fn take(&mut self, name: &str) -> std::result::Result<(), String> {
        self.seen.push(name.to_owned());
        let text = match self.source.item(name) {
            Some(Item::Function(text)) => made_static(text),
            Some(Item::Constant(text) | Item::Type(text) | Item::Macro(text)) => text.to_owned(),
            Some(Item::Variable) => return Err(format!("keeps state in {name}")),
            None => return Err(format!("has no {name} that can be read by itself")),
        };
        self.needs(&text)?;
        self.parts.push(text);
        let size: usize = self.parts.iter().map(String::len).sum();
        if size > MOST_TEXT || self.seen.len() > MOST_ITEMS {
            return Err("has more behind it than a small function".to_owned());
        }
        Ok(())
    }

    fn needs(&mut self, text: &str) -> std::result::Result<(), String> {
        let calls = lex::calls(text);
        for word in lex::words(text) {
            if self.seen.contains(&word) {
                continue;
            }
            // A file's own names come before those of headers: it may have its own of a common name.
            if self.source.item(&word).is_some() && !self.ground.knows(&word) {
                self.take(&word)?;
                continue;
            }
            if !calls.contains(&word) {
                continue;
            }
            if self.ground.unreachable(&word) {
                return Err(format!("calls {word}(), which modules cannot call there"));
            }
            if !self.ground.knows(&word) && !lex::is_keyword(&word) && !is_local(text, &word) {
                return Err(format!("calls {word}(), which no header has"));
            }
        }
        Ok(())
    }
}

fn is_record(text: &str) -> bool {
    text.starts_with("struct ") || text.starts_with("union ")
}

/// A text has a variable of a record's type, not only pointers to one.
fn makes_one(text: &str, tag: &str) -> bool {
    let mut words = lex::tokens(text.as_bytes()).filter_map(|(_, range)| text.get(range));
    while words.by_ref().any(|w| w == tag) {
        if words.next().is_some_and(cfile::is_word) {
            return true;
        }
    }
    false
}

/// A name that stands in a text without a call, too: a parameter or a variable that holds a function.
fn is_local(text: &str, name: &str) -> bool {
    let bytes = text.as_bytes();
    let mut ranges = lex::tokens(bytes).peekable();
    while let Some((token, range)) = ranges.next() {
        let called = ranges
            .peek()
            .is_some_and(|(next, _)| *next == lex::Token::Punct(b'('));
        if token == lex::Token::Word && !called && text.get(range) == Some(name) {
            return true;
        }
    }
    false
}

fn made_static(text: &str) -> String {
    let text = text.trim();
    let text = text.strip_prefix("static ").unwrap_or(text);
    let text = text.strip_prefix("inline ").unwrap_or(text);
    format!("static __maybe_unused {text}")
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

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "#include <linux/x.h>\n#define LIMIT 4\nstruct pair {\n\tint a;\n};\nstatic const int table[] = { 1, 2 };\nstatic int count;\n\
static int help(struct pair *p)\n{\n\treturn table[p->a] + LIMIT;\n}\n\n/* c */\nint leaf(int a)\n{\n\tstruct pair p = { a };\n\n\treturn help(&p);\n}\n\
EXPORT_SYMBOL_GPL(leaf);\n\nint counted(void)\n{\n\treturn count++;\n}\nint reach(void *p)\n{\n\tstruct pair *own = p;\n\n\treturn own->a;\n}\nint inner(void)\n{\n\treturn hidden();\n}\nint outer(int (*run)(void))\n{\n\treturn run() + secret();\n}\n";

    struct Headers;
    impl Ground for Headers {
        fn knows(&self, _: &str) -> bool {
            false
        }
        fn unreachable(&self, name: &str) -> bool {
            name == "secret"
        }
    }

    fn lifted(name: &str) -> std::result::Result<String, String> {
        let source = CFile::new(FILE);
        let mut lift = Lift {
            source: &source,
            ground: &Headers,
            seen: Vec::new(),
            parts: Vec::new(),
        };
        lift.whole(name).map(|()| lift.parts.join("\n"))
    }

    #[test]
    fn an_object_that_the_core_made_may_look_otherwise_there() {
        assert!(lifted("reach").unwrap_err().contains("its own struct pair"));
    }

    #[test]
    fn what_a_function_needs_of_its_file_comes_along() {
        let text = lifted("leaf").unwrap();
        let at = |part: &str| {
            text.find(part)
                .unwrap_or_else(|| panic!("no {part} in {text}"))
        };
        assert!(at("struct pair {") < at("static __maybe_unused int help("));
        assert!(at("#define LIMIT 4") < at("int help("));
        assert!(at("static const int table[] = { 1, 2 };") < at("int help("));
        assert!(at("int help(") < at("static __maybe_unused int leaf("));
        assert!(!text.contains("count"));
    }

    #[test]
    fn state_and_what_modules_cannot_call_stay() {
        assert_eq!(lifted("counted").unwrap_err(), "keeps state in count");
        assert!(
            lifted("inner")
                .unwrap_err()
                .contains("hidden(), which no header has")
        );
        assert!(
            lifted("outer")
                .unwrap_err()
                .contains("secret(), which modules cannot call")
        );
    }

    #[test]
    fn reads_exports() {
        assert_eq!(exports(FILE), ["leaf"]);
    }
}
