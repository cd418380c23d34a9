//! Who includes which header and who mentions which `CONFIG_` symbol, over a whole kernel tree.
//!
//! That tells what belongs to one driver alone. The tree is read once (seconds) and the index kept, keyed by the names
//! and sizes of all its files; whoever edits a tree without changing any size keeps the old answer.

use super::includes::{Closure, is_kernel_header, kernel_header, parent, scan};
use super::kbuild::config_words;
use super::manifest::{OFF, write_whole};
use super::tree::SourceTree;
use kspan_kernel::{Error, Result};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

/// The directories whose sources count.
const SCANNED: &[&str] = &[
    "drivers", "sound", "net", "include", "fs", "lib", "kernel", "mm", "crypto", "arch/x86",
    "block", "security", "virt",
];

/// The index of one tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    files: Vec<String>,
    headers: HashMap<String, Vec<u32>>,
    symbols: HashMap<String, Vec<u32>>,
}

/// Indexes of this process, by key.
static KNOWN: OnceLock<Mutex<HashMap<String, Arc<Index>>>> = OnceLock::new();

impl Index {
    /// The index of a tree: known, else kept in `store`, else made.
    fn open(root: &Path, store: Option<&Path>) -> Result<Arc<Self>> {
        let files = list(root)?;
        let key = key_of(&files);
        let known = KNOWN.get_or_init(Mutex::default);
        let mut known = known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(index) = known.get(&key) {
            return Ok(Arc::clone(index));
        }
        let kept = store.map(|dir| dir.join(format!("includes-{key}")));
        let read = kept
            .as_ref()
            .and_then(|path| std::fs::read_to_string(path).ok())
            .and_then(|text| Self::parse(&text));
        let index = Arc::new(match read {
            Some(index) => index,
            None => Self::make(root, files, kept.as_deref())?,
        });
        known.insert(key, Arc::clone(&index));
        Ok(index)
    }

    /// Reads the whole tree.
    fn make(root: &Path, files: Vec<(String, u64)>, keep: Option<&Path>) -> Result<Self> {
        let words: Vec<(BTreeSet<String>, BTreeSet<String>)> = files
            .par_iter()
            .map(|(file, _)| {
                let bytes = std::fs::read(root.join(file)).unwrap_or_default();
                let headers = scan(&bytes)
                    .into_iter()
                    .map(|i| i.name)
                    .filter(|n| !n.contains(char::is_whitespace))
                    .collect();
                (headers, config_words(&bytes).into_keys().collect())
            })
            .collect();
        let mut index = Self {
            files: files.into_iter().map(|(f, _)| f).collect(),
            ..Self::default()
        };
        for (number, (headers, symbols)) in (0_u32..).zip(words) {
            headers
                .into_iter()
                .for_each(|h| index.headers.entry(h).or_default().push(number));
            symbols
                .into_iter()
                .for_each(|s| index.symbols.entry(s).or_default().push(number));
        }
        if let Some(path) = keep {
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir).map_err(|source| Error::Io {
                    path: dir.to_path_buf(),
                    source,
                })?;
            }
            write_whole(path, index.render().as_bytes())?;
        }
        Ok(index)
    }

    /// The kept form: one line for each file, header and symbol, and a last line that says it is whole.
    fn render(&self) -> String {
        let mut text = String::new();
        for file in &self.files {
            text.push_str(&format!("f {file}\n"));
        }
        for (kind, map) in [("h", &self.headers), ("c", &self.symbols)] {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            for (name, numbers) in sorted {
                let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
                text.push_str(&format!("{kind} {name} {}\n", numbers.join(" ")));
            }
        }
        text.push_str("end\n");
        text
    }

    /// Reads the kept form; `None` if it is not whole.
    fn parse(text: &str) -> Option<Self> {
        let mut index = Self::default();
        for line in text.lines() {
            if line == "end" {
                return Some(index);
            }
            let (kind, rest) = line.split_once(' ')?;
            if kind == "f" {
                index.files.push(rest.to_owned());
                continue;
            }
            let (name, numbers) = rest.split_once(' ')?;
            let numbers = numbers
                .split(' ')
                .map(|n| n.parse().ok())
                .collect::<Option<Vec<u32>>>()?;
            let map = if kind == "h" {
                &mut index.headers
            } else {
                &mut index.symbols
            };
            map.insert(name.to_owned(), numbers);
        }
        None
    }

    fn named<'s>(&'s self, numbers: Option<&'s Vec<u32>>) -> impl Iterator<Item = &'s String> {
        numbers
            .into_iter()
            .flatten()
            .filter_map(|n| self.files.get(usize::try_from(*n).ok()?))
    }

    /// Files that include a header, by any of the names that lead to the same file (`linux/x.h`, `uapi/linux/x.h`).
    fn includers(&self, root: &Path, header: &str) -> Vec<&String> {
        let other = header
            .strip_prefix("uapi/")
            .map_or_else(|| format!("uapi/{header}"), str::to_owned);
        let same = kernel_header(root, header)
            .is_some_and(|path| kernel_header(root, &other) == Some(path));
        let also = if same { self.headers.get(&other) } else { None };
        self.named(self.headers.get(header))
            .chain(self.named(also))
            .collect()
    }

    /// Files that mention a symbol (or its `_MODULE` form).
    fn mentions(&self, symbol: &str) -> Vec<&String> {
        let module = format!("{symbol}_MODULE");
        self.named(self.symbols.get(symbol))
            .chain(self.named(self.symbols.get(&module)))
            .collect()
    }
}

/// All C sources of the scanned directories with their sizes, sorted.
fn list(root: &Path) -> Result<Vec<(String, u64)>> {
    let parts: Vec<Result<Vec<(String, u64)>>> = SCANNED
        .par_iter()
        .map(|dir| list_below(root, &root.join(dir)))
        .collect();
    let mut all = Vec::new();
    for part in parts {
        all.extend(part?);
    }
    all.sort();
    Ok(all)
}

fn list_below(root: &Path, dir: &Path) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    if !dir.is_dir() {
        return Ok(found);
    }
    for entry in walkdir::WalkDir::new(dir) {
        let io = |e: walkdir::Error| Error::Io {
            path: e.path().unwrap_or(dir).to_path_buf(),
            source: e.into(),
        };
        let entry = entry.map_err(io)?;
        let path = entry.path();
        let source = path
            .extension()
            .is_some_and(|e| e == "c" || e == "h" || e == "S");
        if entry.file_type().is_file()
            && source
            && let Ok(below) = path.strip_prefix(root)
        {
            let size = entry.metadata().map_err(io)?.len();
            found.push((below.to_string_lossy().into_owned(), size));
        }
    }
    Ok(found)
}

fn key_of(files: &[(String, u64)]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"includes 1\n");
    for (name, size) in files {
        hasher.update(format!("{name} {size}\n").as_bytes());
    }
    hasher.finalize().to_hex().chars().take(32).collect()
}

/// `config X` and `menuconfig X` of a Kconfig file.
fn kconfig_symbols(bytes: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(bytes);
    let names = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let keyword = words.next()?;
        (keyword == "config" || keyword == "menuconfig")
            .then(|| words.next())
            .flatten()
    });
    names
        .filter(|n| n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .map(|n| format!("CONFIG_{n}"))
        .collect()
}

impl SourceTree<'_> {
    fn index(&self) -> Result<Arc<Index>> {
        if let Some(known) = self.index.get() {
            return Ok(Arc::clone(known));
        }
        let index = Index::open(&self.root, self.index_dir.as_deref())?;
        Ok(Arc::clone(self.index.get_or_init(|| index)))
    }

    /// Symbols that belong to a driver, with their values: defined in a Kconfig beside its files, mentioned in its files
    /// and in no other file of the tree; or in no file at all, where one decides on a part of the driver's modules (`parts`).
    ///
    /// A symbol that builds an object which is not the driver's (`foreign`) belongs to that object.
    pub(super) fn owned_config(
        &self,
        closure: &Closure,
        foreign: &BTreeSet<String>,
        parts: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, String>> {
        let dirs: BTreeSet<&str> = closure
            .files
            .iter()
            .filter(|f| !is_kernel_header(f))
            .map(|f| parent(f))
            .collect();
        let mut defined = BTreeSet::new();
        for dir in dirs {
            if let Ok(bytes) = std::fs::read(self.root.join(dir).join("Kconfig")) {
                defined.extend(kconfig_symbols(&bytes));
            }
        }
        let valued: BTreeMap<String, String> = defined
            .into_iter()
            .filter(|n| !foreign.contains(n))
            .map(|name| ((self.config)(&name).unwrap_or_else(|| OFF.to_owned()), name))
            .map(|(v, n)| (n, v))
            .collect();
        let asked = |name: &String| parts.contains(name) || self.mentioned(closure, name);
        if !valued.keys().any(asked) {
            return Ok(BTreeMap::new());
        }
        let index = self.index()?;
        let own = |name: &String| {
            let files = index.mentions(name);
            (!files.is_empty() || parts.contains(name))
                && files.iter().all(|f| closure.files.contains(*f))
        };
        Ok(valued.into_iter().filter(|(name, _)| own(name)).collect())
    }

    /// Is a symbol mentioned in the driver's files?
    pub(super) fn mentioned(&self, closure: &Closure, symbol: &str) -> bool {
        let finder = memchr::memmem::Finder::new(symbol);
        let ends = |at: Option<&u8>| !at.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        closure.files.iter().any(|f| {
            std::fs::read(self.root.join(f)).is_ok_and(|bytes| {
                finder.find_iter(&bytes).any(|at| {
                    let rest = &bytes[at + symbol.len()..];
                    let rest = rest.strip_prefix(b"_MODULE").unwrap_or(rest);
                    ends(rest.first())
                })
            })
        })
    }

    /// Kernel headers that only the driver's files include, directly or through each other; as written, sorted.
    pub(super) fn private_headers(&self, closure: &Closure) -> Result<Vec<String>> {
        let index = self.index()?;
        let mut candidates = BTreeMap::new();
        let mut todo: Vec<String> = closure.kernel.iter().cloned().collect();
        while let Some(name) = todo.pop() {
            let Some(path) = kernel_header(&self.root, &name) else {
                continue;
            };
            let foreign = |f: &String| !closure.files.contains(f) && !is_kernel_header(f);
            if candidates.contains_key(&name)
                || !path.contains("include/")
                || index.includers(&self.root, &name).into_iter().any(foreign)
            {
                continue;
            }
            let bytes = std::fs::read(self.root.join(&path)).unwrap_or_default();
            todo.extend(scan(&bytes).into_iter().map(|i| i.name));
            candidates.insert(name, path);
        }
        let private = shrink(&self.root, &index, closure, candidates);
        // A header that only wraps a shared one of user space is as shared as that.
        let wraps = |name: &String, path: &String| {
            let inner = format!("uapi/{name}");
            !path.contains("/uapi/")
                && !private.contains_key(&inner)
                && self.root.join("include").join(inner).is_file()
        };
        Ok(private
            .iter()
            .filter(|(name, path)| !wraps(name, path))
            .map(|(name, _)| name.clone())
            .collect())
    }
}

/// Drops headers that a header outside the set includes, until none is left to drop.
fn shrink(
    root: &Path,
    index: &Index,
    closure: &Closure,
    mut candidates: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    loop {
        let paths: BTreeSet<&String> = candidates.values().collect();
        let lost: Vec<String> = candidates
            .keys()
            .filter(|name| {
                index
                    .includers(root, name)
                    .into_iter()
                    .any(|f| !closure.files.contains(f) && !paths.contains(f))
            })
            .cloned()
            .collect();
        if lost.is_empty() {
            return candidates;
        }
        for name in lost {
            candidates.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            (
                "drivers/a/x.c",
                "#include <linux/own.h>\n#include <linux/shared.h>\n#ifdef CONFIG_OWN\n#endif\n#if CONFIG_COMMON\n#endif\n",
            ),
            (
                "drivers/a/Kconfig",
                "config OWN\n\tbool\nconfig COMMON\n\tint\nconfig OFF\nconfig PART\n\tbool\n",
            ),
            ("drivers/b/y.c", "#include <linux/shared.h>\n"),
            (
                "include/linux/own.h",
                "#include <linux/inner.h>\n#include <linux/shared.h>\n",
            ),
            ("include/linux/inner.h", ""),
            ("include/linux/shared.h", "#ifdef CONFIG_COMMON\n#endif\n"),
            ("scripts/x", ""),
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn what_belongs_to_one_driver() {
        let dir = tree();
        let config = |n: &str| (n != "CONFIG_OFF").then(|| "y".to_owned());
        let tree = SourceTree::open(dir.path(), &config, None).unwrap();
        let mut closure = Closure::default();
        closure.add(tree.root(), &["drivers/a/x.c".into()], &[]);
        assert_eq!(
            tree.private_headers(&closure).unwrap(),
            ["linux/inner.h", "linux/own.h"]
        );
        let owned = |parts: &[&str]| {
            let parts = parts.iter().map(|p| (*p).to_owned()).collect();
            let owned = tree.owned_config(&closure, &BTreeSet::new(), &parts);
            owned.unwrap().into_keys().collect::<Vec<_>>()
        };
        assert_eq!(owned(&[]), ["CONFIG_OWN"]);
        assert_eq!(owned(&["CONFIG_COMMON"]), ["CONFIG_OWN"]);
        assert_eq!(owned(&["CONFIG_PART"]), ["CONFIG_OWN", "CONFIG_PART"]);
    }

    #[test]
    fn the_index_is_kept_whole_or_not_used() {
        let dir = tree();
        let index = Index::make(dir.path(), list(dir.path()).unwrap(), None).unwrap();
        let text = index.render();
        assert_eq!(Index::parse(&text), Some(index));
        assert_eq!(Index::parse(text.strip_suffix("end\n").unwrap()), None);
        assert_eq!(Index::parse("garbage"), None);
    }
}
