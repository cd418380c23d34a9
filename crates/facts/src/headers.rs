//! Which file stands behind `#include <…>`, and how a driver would write the include of a file.

use kspan_kernel::Kernel;
use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

/// The include path of one kernel for modules.
#[derive(Debug)]
pub struct Headers {
    dirs: Vec<PathBuf>,
    roots: Vec<PathBuf>,
    known: Mutex<FxHashMap<PathBuf, String>>,
}

/// Makes a path absolute against a base and resolves `.` and `..` by text alone.
#[must_use]
pub fn normalise(base: &Path, path: &Path) -> PathBuf {
    let joined = if path.is_absolute() {
        path.to_path_buf()
    } else {
        base.join(path)
    };
    let mut out = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// The files of a directory that end in `.h`.
fn headers_below(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = walkdir::WalkDir::new(dir).follow_links(true).into_iter();
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .filter(|path| path.extension().is_some_and(|end| end == "h"))
}

impl Headers {
    /// The standard include path of a kernel, in kbuild's order.
    #[must_use]
    pub fn new(kernel: &Kernel) -> Self {
        let (source, build) = (&kernel.source_dir, &kernel.build_dir);
        let arch = format!("arch/{}/include", kernel.arch);
        let mut dirs = Vec::new();
        for dir in [
            source.join(&arch),
            build.join(format!("{arch}/generated")),
            source.join("include"),
            build.join("include"),
            source.join(format!("{arch}/uapi")),
            build.join(format!("{arch}/generated/uapi")),
            source.join("include/uapi"),
            build.join("include/generated/uapi"),
        ] {
            if !dirs.contains(&dir) && dir.is_dir() {
                dirs.push(dir);
            }
        }
        let mut roots = vec![source.clone()];
        if build != source {
            roots.push(build.clone());
        }
        Self {
            dirs,
            roots,
            known: Mutex::new(FxHashMap::default()),
        }
    }
    /// The directories searched, in order.
    #[must_use]
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }
    /// The file that `#include <header>` reads.
    #[must_use]
    pub fn find(&self, header: &str) -> Option<PathBuf> {
        if header.is_empty() || header.starts_with('/') {
            return None;
        }
        self.dirs
            .iter()
            .map(|dir| dir.join(header))
            .find(|path| path.is_file())
    }
    /// Every header that can be included, by its shortest spelling. One walk answers what [`Headers::spelling`] would ask
    /// of the file system for each.
    #[must_use]
    pub fn all(&self) -> FxHashMap<String, PathBuf> {
        let mut found: FxHashMap<String, PathBuf> = FxHashMap::default();
        for dir in &self.dirs {
            for path in headers_below(dir) {
                let Ok(rest) = path.strip_prefix(dir) else {
                    continue;
                };
                // The first directory of the include path that has it.
                if let Entry::Vacant(free) = found.entry(rest.to_string_lossy().into_owned()) {
                    free.insert(path);
                }
            }
        }
        let mut known: FxHashMap<PathBuf, String> = FxHashMap::default();
        for (spelling, path) in found {
            let best = known.entry(path).or_insert_with(|| spelling.clone());
            if spelling.len() < best.len() {
                *best = spelling;
            }
        }
        let all = known
            .iter()
            .map(|(path, spelling)| (spelling.clone(), path.clone()));
        let all = all.collect();
        self.lock().extend(known);
        all
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, FxHashMap<PathBuf, String>> {
        self.known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
    /// A path relative to the kernel's source or build directory.
    #[must_use]
    pub fn relative(&self, path: &Path) -> String {
        let mut best: &Path = path;
        for root in &self.roots {
            if let Ok(rest) = path.strip_prefix(root)
                && (best == path || rest.as_os_str().len() < best.as_os_str().len())
            {
                best = rest;
            }
        }
        best.to_string_lossy().into_owned()
    }
    /// Does a file belong to the kernel?
    #[must_use]
    pub fn is_kernel(&self, path: &Path) -> bool {
        self.roots.iter().any(|root| path.starts_with(root))
            && path.extension().is_some_and(|end| end != "c")
    }
    /// How a driver includes a file: the shortest spelling that finds it and nothing else.
    #[must_use]
    pub fn spelling(&self, path: &Path) -> String {
        let mut known = self.lock();
        if let Some(done) = known.get(path) {
            return done.clone();
        }
        let found = self
            .dirs
            .iter()
            .filter_map(|dir| path.strip_prefix(dir).ok())
            .map(|rest| rest.to_string_lossy().into_owned())
            .filter(|rest| self.find(rest).as_deref() == Some(path))
            .min_by_key(String::len)
            .unwrap_or_else(|| self.relative(path));
        known.insert(path.to_path_buf(), found.clone());
        found
    }
}
