//! Kbuild files as text: a parser that never fails, and the manifest of a directory that has one already.
//!
//! What kbuild would do is asked of make ([`super::evaluate`]); the text tells what evaluation loses: which
//! `CONFIG_` symbol stands behind a line.

use super::manifest::{FILE, Manifest};
use super::{makefile, tree};
use kspan_kernel::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One assignment of a Kbuild file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The first line, from 1.
    pub line: usize,
    /// The variable without its condition: `obj`, `foo`, `ccflags`.
    pub variable: String,
    /// What stands after its last dash: `y`, `m`, `objs`, or `CONFIG_X` for `-$(CONFIG_X)`; empty if none.
    pub suffix: String,
    /// The words on the right, unexpanded.
    pub words: Vec<String>,
}

/// A Kbuild file's assignments; all that is no assignment is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kbuild {
    /// In the order of the file.
    pub statements: Vec<Statement>,
}

impl Kbuild {
    /// Reads a Kbuild file of any bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut statements = Vec::new();
        for (line, logical) in logical_lines(&text) {
            statements.extend(statement(line, &logical));
        }
        Self { statements }
    }

    /// The symbol that decides whether an object is built: `X` of `obj-$(CONFIG_X) += object`.
    #[must_use]
    pub fn symbol_of(&self, object: &str) -> Option<&str> {
        self.listed("obj", object)
            .find_map(|s| s.suffix.strip_prefix("CONFIG_").map(|_| s.suffix.as_str()))
    }

    /// The symbol behind a part of a composite module, if every line that lists it has one and the same.
    #[must_use]
    pub fn part_symbol(&self, module: &str, object: &str) -> Option<&str> {
        let mut found = None;
        for s in self.listed(module, object) {
            if !s.suffix.starts_with("CONFIG_") || found.is_some_and(|f| f != s.suffix) {
                return None;
            }
            found = Some(s.suffix.as_str());
        }
        found
    }

    /// Names of modules that `obj-m` and `obj-$(CONFIG_…)` lines list, as far as they are written out.
    #[must_use]
    pub fn modules(&self) -> BTreeSet<String> {
        let objects = self
            .statements
            .iter()
            .filter(|s| s.variable == "obj" && s.suffix != "y");
        let words = objects.flat_map(|s| &s.words);
        words
            .filter_map(|w| w.strip_suffix(".o"))
            .filter(|w| !w.contains(['$', '/']))
            .map(str::to_owned)
            .collect()
    }

    fn listed<'s, 'w>(
        &'s self,
        variable: &'w str,
        object: &'w str,
    ) -> impl Iterator<Item = &'s Statement> + use<'s, 'w> {
        self.statements
            .iter()
            .filter(move |s| s.variable == variable && s.words.iter().any(|w| w == object))
    }
}

/// Lines with their continuations joined and comments cut, each with its first line's number.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut pending: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        let (start, mut joined) = pending.take().unwrap_or((number + 1, String::new()));
        if let Some(head) = line.strip_suffix('\\') {
            joined.push_str(head);
            joined.push(' ');
            pending = Some((start, joined));
            continue;
        }
        joined.push_str(line);
        found.push((start, cut_comment(&joined).to_owned()));
    }
    found.extend(pending);
    found
}

/// The line up to a `#` that is not escaped.
fn cut_comment(line: &str) -> &str {
    let escaped = |at: usize| line.get(..at).is_some_and(|head| head.ends_with('\\'));
    let cut = line
        .match_indices('#')
        .map(|(at, _)| at)
        .find(|&at| !escaped(at));
    cut.and_then(|at| line.get(..at)).unwrap_or(line)
}

/// An assignment, or nothing.
fn statement(line: usize, text: &str) -> Option<Statement> {
    if text.starts_with('\t') {
        return None;
    }
    let (left, right) = text.split_once('=')?;
    let left = left.trim_end_matches([':', '+', '?', '!']).trim();
    let left = ["override ", "export "]
        .iter()
        .fold(left, |l, word| l.strip_prefix(word).unwrap_or(l))
        .trim();
    if left.is_empty()
        || left
            .split('(')
            .next()
            .is_some_and(|head| head.contains(char::is_whitespace))
        || left.contains(':')
    {
        return None;
    }
    let (variable, suffix) = split_condition(left);
    let words = right.split_whitespace().map(str::to_owned).collect();
    Some(Statement {
        line,
        variable,
        suffix,
        words,
    })
}

/// `foo-$(CONFIG_X)` → `foo`, `CONFIG_X`; `$(subst m,y,$(CONFIG_X))` counts as the symbol too.
fn split_condition(left: &str) -> (String, String) {
    if let Some((variable, condition)) = left.split_once("-$(") {
        let symbol = condition
            .find("CONFIG_")
            .and_then(|at| condition.get(at..))
            .unwrap_or_default();
        let end = symbol
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(symbol.len());
        return (
            variable.to_owned(),
            symbol.get(..end).unwrap_or_default().to_owned(),
        );
    }
    match left.rsplit_once('-') {
        Some((variable, suffix)) => (variable.to_owned(), suffix.to_owned()),
        None => (left.to_owned(), String::new()),
    }
}

/// Writes `kspan.toml` for a directory that has a Kbuild or Makefile already; `home` is the kernel it is written for.
///
/// # Errors
/// No Kbuild file, one that names no module, or a `kspan.toml` that is there already.
pub fn init_out_of_tree(dir: &Path, home: &str) -> Result<Manifest> {
    let dir = dir.canonicalize().map_err(|source| Error::Io {
        path: dir.to_path_buf(),
        source,
    })?;
    if dir.join(FILE).exists() {
        return Err(Error::Input(format!(
            "{} exists already; edit it, or remove it first",
            dir.join(FILE).display()
        )));
    }
    let modules = modules_of(&dir)?;
    let manifest = Manifest {
        name: name_of(&dir, &modules),
        home: home.to_owned(),
        version: module_version(&dir),
        modules: modules.into_iter().collect(),
        ..Manifest::default()
    };
    manifest.save(&dir)?;
    Ok(manifest)
}

/// The modules that a directory's Kbuild builds: what make says, else what the text says.
fn modules_of(dir: &Path) -> Result<BTreeSet<String>> {
    let Some(file) = makefile::kbuild_file(dir) else {
        return Err(Error::Input(format!(
            "{} has neither a Kbuild nor a Makefile; kspan needs a directory that `make -C KDIR M={}` can build",
            dir.display(),
            dir.display()
        )));
    };
    let bytes = std::fs::read(&file).map_err(|source| Error::Io {
        path: file.clone(),
        source,
    })?;
    let mut found = tree::modules_below(dir)?;
    if found.is_empty() {
        found = Kbuild::parse(&bytes).modules();
    }
    if found.is_empty() {
        return Err(Error::Input(format!(
            "{} names no module: looked for `obj-m += NAME.o` and `obj-$(CONFIG_X) += NAME.o`",
            file.display()
        )));
    }
    Ok(found)
}

/// The only module's name, else the directory's.
fn name_of(dir: &Path, modules: &BTreeSet<String>) -> String {
    let directory = dir.file_name().map(|n| n.to_string_lossy().into_owned());
    match (modules.len(), modules.first(), directory) {
        (1, Some(only), _) => only.clone(),
        (_, _, Some(name)) => name,
        (_, first, None) => first.cloned().unwrap_or_default(),
    }
}

/// `PACKAGE_VERSION` of a dkms.conf, if there is one.
fn module_version(dir: &Path) -> Option<String> {
    let text = String::from_utf8_lossy(&std::fs::read(dir.join("dkms.conf")).ok()?).into_owned();
    let line = text
        .lines()
        .find_map(|l| l.trim().strip_prefix("PACKAGE_VERSION="))?;
    let value = line.trim().trim_matches(['"', '\'']);
    (!value.is_empty() && !value.contains(['$', '#', '@'])).then(|| value.to_owned())
}

/// The `CONFIG_X` words in a text.
pub(super) fn config_words(bytes: &[u8]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for at in memchr::memmem::find_iter(bytes, b"CONFIG_") {
        let before = at.checked_sub(1).and_then(|i| bytes.get(i));
        if before.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
            continue;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        let end = rest
            .iter()
            .position(|b| !b.is_ascii_alphanumeric() && *b != b'_')
            .unwrap_or(rest.len());
        let word = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
        if word.len() > "CONFIG_".len() {
            *found.entry(word).or_insert(0) += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_behind_lines() {
        let k = Kbuild::parse(
            b"# c\nobj-$(CONFIG_FOO) += foo.o \\\n\tbar.o # x\nfoo-y := a.o\nfoo-$(CONFIG_DEBUG_FS) += d.o\n\
              foo-$(subst m,y,$(CONFIG_NET)) += n.o\n\techo a=b\nobj-m := baz.o\nall: x=1\n\xff\xfe=\n",
        );
        assert_eq!(k.symbol_of("bar.o"), Some("CONFIG_FOO"));
        assert_eq!(k.symbol_of("baz.o"), None);
        assert_eq!(k.part_symbol("foo", "d.o"), Some("CONFIG_DEBUG_FS"));
        assert_eq!(k.part_symbol("foo", "n.o"), Some("CONFIG_NET"));
        assert_eq!(k.part_symbol("foo", "a.o"), None);
        assert_eq!(k.modules(), ["bar", "baz", "foo"].map(str::to_owned).into());
    }

    #[test]
    fn init_reads_the_modules_from_make() {
        let dir = tempfile::tempdir().unwrap();
        let text = "ifneq ($(KERNELRELEASE),)\nNAMES := one two\nobj-m := $(addsuffix .o,$(NAMES))\nelse\nall:\n\tmake\nendif\n";
        std::fs::write(dir.path().join("Makefile"), text).unwrap();
        let m = init_out_of_tree(dir.path(), "7.3").unwrap();
        assert_eq!(m.modules, ["one", "two"]);
        assert_eq!(Manifest::load(dir.path()).unwrap(), m);
        assert!(
            init_out_of_tree(dir.path(), "7.3")
                .unwrap_err()
                .to_string()
                .contains("exists already")
        );
    }

    #[test]
    fn init_says_what_it_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            init_out_of_tree(dir.path(), "7.3")
                .unwrap_err()
                .to_string()
                .contains("neither a Kbuild nor a Makefile")
        );
        std::fs::write(dir.path().join("Makefile"), "all:\n\ttrue\n").unwrap();
        assert!(
            init_out_of_tree(dir.path(), "7.3")
                .unwrap_err()
                .to_string()
                .contains("names no module")
        );
    }

    #[test]
    fn config_words_are_whole_words() {
        let words =
            config_words(b"#if IS_ENABLED(CONFIG_A) && defined(CONFIG_B_MODULE) || XCONFIG_C\n");
        assert_eq!(
            words.keys().collect::<Vec<_>>(),
            ["CONFIG_A", "CONFIG_B_MODULE"]
        );
    }
}
