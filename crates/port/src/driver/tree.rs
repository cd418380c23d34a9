//! A kernel source tree: which modules it builds with a configuration, by walking its Makefiles as kbuild would.

use super::kbuild::{Kbuild, config_words};
use super::makefile::{self, DirVars};
use kspan_kernel::{Error, Result};
use rayon::prelude::*;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where drivers stand in a kernel tree.
pub(super) const ROOTS: &[&str] = &["drivers", "sound", "net"];

/// One module of a kernel tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TreeModule {
    /// Its name as the Makefile writes it (`snd-hda-intel`).
    pub name: String,
    /// The directory of the Makefile that builds it, relative to the tree.
    pub dir: PathBuf,
    /// Its `.c` files, relative to the tree, in link order.
    pub objects: Vec<PathBuf>,
    /// Objects that have no `.c` file: assembly, generated or shipped sources, Rust. Relative to the tree.
    pub others: Vec<PathBuf>,
    /// The symbol that turns it on (`CONFIG_X`), where the Makefile says it in one line.
    pub symbol: Option<String>,
}

impl TreeModule {
    /// The path that names the module in a sample: its only `.c` file, else directory and name.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match (self.objects.as_slice(), self.others.is_empty()) {
            ([only], true) => only.clone(),
            _ => self.dir.join(&self.name),
        }
    }
}

/// A kernel source tree with the configuration of a kernel; what was read of it once is kept.
pub struct SourceTree<'a> {
    pub(super) root: PathBuf,
    pub(super) config: &'a dyn Fn(&str) -> Option<String>,
    pub(super) index_dir: Option<PathBuf>,
    modules: OnceCell<Vec<TreeModule>>,
    pub(super) index: OnceCell<std::sync::Arc<super::index::Index>>,
}

impl<'a> SourceTree<'a> {
    /// A tree and the configuration to read it with; `index_dir` is where its include index may be kept.
    ///
    /// # Errors
    /// The directory is no kernel source tree.
    pub fn open(
        root: &Path,
        config: &'a dyn Fn(&str) -> Option<String>,
        index_dir: Option<&Path>,
    ) -> Result<Self> {
        let real = root.canonicalize().map_err(|source| Error::Io {
            path: root.to_path_buf(),
            source,
        })?;
        if let Some(missing) = ["drivers", "include", "scripts"]
            .iter()
            .find(|d| !real.join(d).is_dir())
        {
            return Err(Error::Input(format!(
                "{} is no kernel source tree: it has no {missing}/ directory; name the top of an unpacked linux-source",
                root.display()
            )));
        }
        Ok(Self {
            root: real,
            config,
            index_dir: index_dir.map(Path::to_path_buf),
            modules: OnceCell::new(),
            index: OnceCell::new(),
        })
    }

    /// The top directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every module that the configuration builds as a module, below drivers, sound and net; sorted by directory and name.
    ///
    /// # Errors
    /// When make cannot be run.
    pub fn modules(&self) -> Result<&[TreeModule]> {
        if let Some(known) = self.modules.get() {
            return Ok(known);
        }
        let roots: Vec<String> = ROOTS
            .iter()
            .map(|r| (*r).to_owned())
            .filter(|r| self.root.join(r).is_dir())
            .collect();
        let config = self.config_of(&roots)?;
        let dirs = walk(&self.root, &config, roots)?;
        let mut found: Vec<TreeModule> = dirs
            .iter()
            .flat_map(|d| modules_of(&self.root, d))
            .collect();
        found.sort_by(|a, b| (&a.dir, &a.name).cmp(&(&b.dir, &b.name)));
        found.dedup();
        Ok(self.modules.get_or_init(|| found))
    }

    /// The values of all symbols that the Makefiles below some directories name.
    pub(super) fn config_of(&self, dirs: &[String]) -> Result<BTreeMap<String, String>> {
        let mut files = Vec::new();
        for dir in dirs {
            makefiles_below(&self.root.join(dir), &mut files)?;
        }
        Ok(self.values_in(&files))
    }

    /// The values of all symbols that some files name.
    pub(super) fn values_in(&self, files: &[PathBuf]) -> BTreeMap<String, String> {
        let names: BTreeSet<String> = files
            .par_iter()
            .filter_map(|f| std::fs::read(f).ok())
            .flat_map_iter(|bytes| config_words(&bytes).into_keys())
            .collect();
        names
            .into_iter()
            .filter_map(|n| Some(((self.config)(&n)?, n)))
            .map(|(v, n)| (n, v))
            .collect()
    }
}

/// Makefiles, Kbuilds and what they may include.
fn makefiles_below(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in walkdir::WalkDir::new(dir).sort_by_file_name() {
        let entry = entry.map_err(|e| Error::Io {
            path: e.path().unwrap_or(dir).to_path_buf(),
            source: e.into(),
        })?;
        let name = entry.file_name().to_string_lossy();
        let made = name.starts_with("Makefile")
            || name.starts_with("Kbuild")
            || name.ends_with(".mk")
            || name.ends_with(".make");
        if made && entry.file_type().is_file() {
            files.push(entry.into_path());
        }
    }
    Ok(())
}

/// Reads directories and those that they descend into, level by level.
pub(super) fn walk(
    root: &Path,
    config: &BTreeMap<String, String>,
    start: Vec<String>,
) -> Result<Vec<DirVars>> {
    let mut seen: BTreeSet<String> = start.iter().cloned().collect();
    let mut level = start;
    let mut all = Vec::new();
    while !level.is_empty() {
        let chunk = level.len().div_ceil(rayon::current_num_threads()).max(1);
        let parts: Vec<_> = level
            .par_chunks(chunk)
            .map(|dirs| makefile::evaluate(root, config, dirs))
            .collect();
        let mut next = Vec::new();
        for part in parts {
            for vars in part? {
                next.extend(
                    children(&vars)
                        .into_iter()
                        .filter(|d| seen.insert(d.clone())),
                );
                all.push(vars);
            }
        }
        level = next;
    }
    Ok(all)
}

/// Directories that a Kbuild file descends into.
pub(super) fn children(vars: &DirVars) -> Vec<String> {
    let listed = vars
        .obj_y
        .iter()
        .chain(&vars.obj_m)
        .filter_map(|w| w.strip_suffix('/'));
    let all = listed.chain(vars.subdirs.iter().map(|w| w.trim_end_matches('/')));
    all.filter(|w| !w.is_empty() && !w.starts_with('/'))
        .filter_map(|w| join(&vars.dir, w))
        .collect()
}

/// A path below the tree's root with `.` and `..` resolved; `None` when it leaves the tree.
pub(super) fn join(dir: &str, word: &str) -> Option<String> {
    let mut parts: Vec<&str> = dir
        .split('/')
        .filter(|p| !p.is_empty() && *p != ".")
        .collect();
    for part in word.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

/// The modules that one directory's Kbuild file builds.
pub(super) fn modules_of(root: &Path, vars: &DirVars) -> Vec<TreeModule> {
    let text = texts(root, vars);
    let objects = vars.obj_m.iter().filter(|w| w.ends_with(".o"));
    objects
        .filter_map(|object| module_of(root, vars, &text, object))
        .collect()
}

/// All Makefiles that make read for a directory, parsed as one text.
pub(super) fn texts(root: &Path, vars: &DirVars) -> Kbuild {
    let mut all = Vec::new();
    for file in &vars.makefiles {
        all.extend(std::fs::read(root.join(file)).unwrap_or_default());
        all.push(b'\n');
    }
    Kbuild::parse(&all)
}

/// One module of a directory; `None` when none of its objects has a source.
fn module_of(root: &Path, vars: &DirVars, text: &Kbuild, object: &str) -> Option<TreeModule> {
    let name = object.strip_suffix(".o")?;
    let mut module = TreeModule {
        name: name.rsplit('/').next().unwrap_or(name).to_owned(),
        dir: PathBuf::from(&vars.dir),
        symbol: text.symbol_of(object).map(str::to_owned),
        ..TreeModule::default()
    };
    let single = [object.to_owned()];
    let parts = vars
        .parts
        .get(name)
        .map_or(single.as_slice(), Vec::as_slice);
    let mut seen = BTreeSet::new();
    for part in parts.iter().filter(|p| seen.insert(*p)) {
        let path = join(&vars.dir, part)?;
        let stem = path.strip_suffix(".o").unwrap_or(&path);
        let source = PathBuf::from(format!("{stem}.c"));
        if root.join(&source).is_file() {
            module.objects.push(source);
        } else {
            module.others.push(PathBuf::from(path));
        }
    }
    (!module.objects.is_empty()).then_some(module)
}

/// The names of all modules that a Kbuild directory builds with no configuration but its own.
pub(super) fn modules_below(dir: &Path) -> Result<BTreeSet<String>> {
    let all = walk(dir, &BTreeMap::new(), vec![".".to_owned()])?;
    let objects = all
        .iter()
        .flat_map(|d| &d.obj_m)
        .filter_map(|w| w.strip_suffix(".o"));
    Ok(objects
        .map(|w| w.rsplit('/').next().unwrap_or(w).to_owned())
        .collect())
}

/// A kernel's whole configuration, `CONFIG_X` → value, from its `auto.conf`.
///
/// # Errors
/// The file is not there: the headers are half-unpacked.
pub fn read_config(kernel: &kspan_kernel::Kernel) -> Result<BTreeMap<String, String>> {
    let path = kernel.build_dir.join("include/config/auto.conf");
    let bytes = std::fs::read(&path).map_err(|source| Error::Io { path, source })?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text
        .lines()
        .filter(|l| l.starts_with("CONFIG_"))
        .filter_map(|l| l.split_once('='));
    Ok(lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// Every module of a kernel tree that a configuration builds as a module, below drivers, sound and net.
///
/// # Errors
/// No kernel source tree, or make cannot be run.
pub fn modules_in_tree(
    kernel_source: &Path,
    config: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<TreeModule>> {
    Ok(SourceTree::open(kernel_source, config, None)?
        .modules()?
        .to_vec())
}

/// A repeatable random sample: modules of one `.c` file (or with `multi`, of two or more) in the order of
/// blake3(seed, path), the first `n`.
#[must_use]
pub fn sample(modules: &[TreeModule], n: usize, seed: u64, multi: bool) -> Vec<TreeModule> {
    let fits = |m: &&TreeModule| {
        m.others.is_empty() && (m.objects.len() > 1) == multi && !m.objects.is_empty()
    };
    let mut all: Vec<(String, TreeModule)> = modules
        .iter()
        .filter(fits)
        .map(|m| (order(seed, m), m.clone()))
        .collect();
    all.sort_by(|a, b| (&a.0, &a.1.name).cmp(&(&b.0, &b.1.name)));
    all.dedup_by(|a, b| a.0 == b.0);
    all.into_iter().take(n).map(|(_, m)| m).collect()
}

/// Where a module stands in the order of a seed.
fn order(seed: u64, module: &TreeModule) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(seed.to_string().as_bytes());
    hasher.update(b"\n");
    hasher.update(module.path().as_os_str().as_encoded_bytes());
    hasher.finalize().to_hex().to_string()
}
