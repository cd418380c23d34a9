//! The cache's directories, and from a typed name to a kernel.

use crate::record::{self, Record};
use crate::{
    Build, Cache, CompileFlags, Error, KbuildOptions, Kernel, Result, Toolchain, TuCommand,
    debversion, files, kbuild, kernelpath, sandbox, toolchain,
};
use serde::Serialize;
use std::cmp::Ordering;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// All that is known of a kernel, for `show` and `list`.
#[derive(Debug, Clone, Serialize)]
pub struct KernelInfo {
    /// The kernel.
    pub kernel: Kernel,
    /// What it was fetched as; `None` for a kernel by path.
    pub record: Option<Record>,
    /// The compiler for it, where that has been asked already.
    pub toolchain: Option<Toolchain>,
    /// Its full source tree, where unpacked.
    pub source_tree: Option<PathBuf>,
    /// Bytes of the header trees.
    pub header_bytes: u64,
    /// Bytes of the source tree.
    pub source_bytes: u64,
}

/// Oldest version first; the same version by release.
#[must_use]
pub fn kernel_order(a: &Kernel, b: &Kernel) -> Ordering {
    debversion::compare(&a.version, &b.version)
        .then_with(|| debversion::compare(&a.release, &b.release))
}

impl Cache {
    /// Opens (and makes) the cache at its standard place.
    ///
    /// # Errors
    /// When no home directory is known or the directory cannot be made.
    pub fn open() -> Result<Self> {
        let set = |name: &str| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let root = set("KSPAN_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|d| d.join("kspan")))
            .or_else(|| std::env::home_dir().map(|d| d.join(".cache/kspan")));
        match root {
            Some(root) => Self::at(&root),
            None => Err(Error::Environment(
                "no place for the cache: set KSPAN_CACHE (or HOME)".to_owned(),
            )),
        }
    }

    /// Opens (and makes) a cache at a given place.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn at(root: &Path) -> Result<Self> {
        files::make_dir(root)?;
        let root = root.canonicalize().map_err(Error::io(root))?;
        Ok(Self { root })
    }

    /// The directory of the cache.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every kernel in the cache, oldest version first.
    ///
    /// # Errors
    /// When the cache cannot be read; a half-unpacked kernel is skipped, never listed.
    pub fn kernels(&self) -> Result<Vec<Kernel>> {
        let mut kernels: Vec<Kernel> = self
            .records()?
            .into_iter()
            .map(|(dir, record)| self.kernel_of(&dir, &record))
            .collect();
        kernels.sort_by(kernel_order);
        Ok(kernels)
    }

    /// From a typed name to a kernel: an exact id, a release, an alias (`6.1`: the newest fetched 6.1; `6.1/cloud`: of
    /// that flavour; `bookworm`: the newest fetched from that suite), or a path to installed headers, a prepared
    /// source tree or a build directory.
    ///
    /// # Errors
    /// Names nothing that is here; says what is and how to fetch.
    pub fn resolve(&self, name: &str) -> Result<Kernel> {
        let looks_like_path =
            name.starts_with(['/', '.', '~']) || Path::new(name).join("Makefile").is_file();
        let records = self.records()?;
        if looks_like_path {
            return match self.recorded_at(&records, Path::new(name)) {
                Some(kernel) => Ok(kernel),
                None => self.path_kernel(Path::new(name)),
            };
        }
        let plain = name.strip_prefix("debian/").unwrap_or(name);
        let exact = |r: &&(PathBuf, Record)| r.1.id == name || r.1.release == plain;
        let found = records
            .iter()
            .find(exact)
            .or_else(|| newest_of(&records, plain));
        match found {
            Some((dir, record)) => Ok(self.kernel_of(dir, record)),
            None if Path::new(name).is_dir() => self.path_kernel(Path::new(name)),
            None => Err(self.unknown(name, &records)),
        }
    }

    /// The fetched kernel whose build directory a path leads to: it has a name, and facts under that name.
    fn recorded_at(&self, records: &[(PathBuf, Record)], path: &Path) -> Option<Kernel> {
        let real = path.canonicalize().ok()?;
        let here = |(dir, record): &&(PathBuf, Record)| dir.join(&record.build_dir) == real;
        let (dir, record) = records.iter().find(here)?;
        Some(self.kernel_of(dir, record))
    }

    /// The toolchain that was found to build for a kernel, if that was asked before; nothing is tried.
    #[must_use]
    pub fn known_toolchain(&self, kernel: &Kernel) -> Option<Toolchain> {
        toolchain::remembered_for(self, kernel).map(|a| a.toolchain)
    }

    /// How each source file of a module directory was compiled by a build that has ended, and that saw the directory as `shown`.
    #[must_use]
    pub fn compilations(&self, kernel: &Kernel, dir: &Path, shown: &Path) -> Vec<TuCommand> {
        kbuild::commands_seen(kernel, dir, shown)
    }

    /// The directories that a build on a kernel reads.
    #[must_use]
    pub fn build_dirs(&self, kernel: &Kernel) -> Vec<PathBuf> {
        sandbox::kernel_dirs(kernel)
    }

    /// All that is known of a kernel.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn info(&self, kernel: &Kernel) -> Result<KernelInfo> {
        let record = self.record(kernel)?;
        let source_tree = self.source_tree_if_present(kernel);
        Ok(KernelInfo {
            toolchain: toolchain::remembered_for(self, kernel).map(|a| a.toolchain),
            header_bytes: match &record {
                Some(_) => files::tree_size(&self.kernel_dir(&kernel.id)),
                None => files::tree_size(&kernel.build_dir.join("include")),
            },
            source_bytes: source_tree.as_deref().map_or(0, files::tree_size),
            kernel: kernel.clone(),
            record,
            source_tree,
        })
    }

    /// What a kernel was fetched as; `None` for a kernel by path.
    ///
    /// # Errors
    /// When the record is there and cannot be read.
    pub fn record(&self, kernel: &Kernel) -> Result<Option<Record>> {
        let dir = self.kernel_dir(&kernel.id);
        let ours = kernel.build_dir.starts_with(&dir) && dir.join(record::FILE).exists();
        ours.then(|| Record::read(&dir)).transpose()
    }

    /// Removes a fetched kernel, with its source tree if no other kernel has the same. Returns the bytes freed.
    ///
    /// # Errors
    /// For a kernel by path, and when files cannot be removed.
    pub fn remove(&self, kernel: &Kernel) -> Result<u64> {
        let _lock = self.install_lock()?;
        let Some(record) = self.record(kernel)? else {
            return Err(Error::Input(format!(
                "{}: not fetched by kspan, so not kspan's to remove",
                kernel.build_dir.display()
            )));
        };
        let dir = self.kernel_dir(&kernel.id);
        let mut freed = files::tree_size(&dir);
        let marker = dir.join(record::FILE);
        fs::remove_file(&marker).map_err(Error::io(&marker))?;
        files::remove_tree(&dir)?;
        let image = self.image_dir(&record);
        freed += files::tree_size(&image);
        files::remove_tree(&image)?;
        let shared = self
            .records()?
            .iter()
            .any(|(_, r)| r.package_version == record.package_version);
        if !shared {
            let source = self.source_dir(&record.package_version);
            freed += files::tree_size(&source);
            files::remove_tree(&source)?;
        }
        Ok(freed)
    }

    /// Like [`Cache::source_tree`], but never goes to the network.
    #[must_use]
    pub fn source_tree_if_present(&self, kernel: &Kernel) -> Option<PathBuf> {
        if kernelpath::is_full_source(&kernel.source_dir) {
            return Some(kernel.source_dir.clone());
        }
        let record = self.record(kernel).ok()??;
        Some(self.source_dir(&record.package_version)).filter(|d| kernelpath::is_full_source(d))
    }

    /// The toolchain that can build for a kernel: the host's compiler when it can, else a minimal root made once.
    ///
    /// # Errors
    /// When neither can be had.
    pub fn toolchain(&self, kernel: &Kernel) -> Result<Toolchain> {
        toolchain::answer(self, kernel, &|_| ()).map(|a| a.toolchain)
    }

    /// A command inside the sandbox of a kernel's toolchain: no network, everything read-only but `dir` and
    /// `writable`, cwd `dir`. The caller adds the program's arguments.
    ///
    /// # Errors
    /// When bubblewrap or the toolchain is missing.
    pub fn sandboxed(
        &self,
        kernel: &Kernel,
        program: &str,
        dir: &Path,
        writable: &[&Path],
    ) -> Result<Command> {
        let toolchain = self.toolchain(kernel)?;
        let dir = dir.canonicalize().map_err(Error::io(dir))?;
        sandbox::command(&sandbox::view(kernel, &toolchain, &dir, writable), program)
    }

    /// The flags kbuild gives any module of this kernel; asked once with an empty module, then kept by content.
    ///
    /// # Errors
    /// When the empty module does not build: the kernel or its toolchain is unusable, with make's words.
    pub fn compile_flags(&self, kernel: &Kernel) -> Result<CompileFlags> {
        toolchain::answer(self, kernel, &|_| ()).map(|a| a.flags)
    }

    /// `make -C KDIR M=dir modules` in the sandbox; a failed build is `Ok` with `ok: false`.
    ///
    /// # Errors
    /// Only when make could not be run at all.
    pub fn kbuild(&self, kernel: &Kernel, dir: &Path, options: &KbuildOptions) -> Result<Build> {
        kbuild::run(kernel, &self.toolchain(kernel)?, dir, options)
    }

    /// A fresh directory for temporary work, removed when dropped.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn work_dir(&self, what: &str) -> Result<tempfile::TempDir> {
        let work = self.root.join("work");
        files::make_dir(&work)?;
        let prefix = format!("run-{what}-{}-", std::process::id());
        tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&work)
            .map_err(Error::io(&work))
    }

    pub(crate) fn root_dir(&self, suite: &str) -> PathBuf {
        self.root.join("roots").join(suite)
    }

    pub(crate) fn kernel_dir(&self, id: &str) -> PathBuf {
        self.root.join("kernels").join(id)
    }

    pub(crate) fn source_dir(&self, package_version: &str) -> PathBuf {
        self.root
            .join("sources")
            .join(format!("linux_{package_version}"))
    }

    pub(crate) fn image_dir(&self, record: &Record) -> PathBuf {
        self.root
            .join("images")
            .join(format!("{}_{}", record.release, record.package_version))
    }

    /// Taken by whoever installs into the cache; removes what a killed run left behind.
    /// Keeps other processes (and threads) out of one piece of work, named by a content key, until the returned file is
    /// dropped; waits for whoever holds it. Keys share a lock by their first four characters.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn exclusive(&self, what: &str, key: &str) -> Result<File> {
        let short: String = key.chars().take(4).collect();
        files::lock(&self.root.join("locks").join(format!("{what}-{short}")))
    }

    pub(crate) fn install_lock(&self) -> Result<File> {
        let lock = files::lock(&self.root.join("locks/install"))?;
        for dir in [
            "kernels/debian",
            "sources",
            "roots",
            "images",
            "downloads",
            "indexes",
        ] {
            remove_leftovers(&self.root.join(dir));
        }
        remove_dead_work(&self.root.join("work"));
        Ok(lock)
    }

    /// The same kernel with the digest that it has now.
    pub(crate) fn renewed(&self, kernel: &Kernel) -> Result<Kernel> {
        match self.record(kernel)? {
            Some(record) => Ok(self.kernel_of(&self.kernel_dir(&record.id), &record)),
            None => self.path_kernel(&kernel.build_dir),
        }
    }

    fn path_kernel(&self, path: &Path) -> Result<Kernel> {
        let (mut kernel, base) = kernelpath::kernel(path)?;
        kernel.digest = self.full_digest(base.as_bytes(), &kernel.build_dir);
        Ok(kernel)
    }

    fn full_digest(&self, base: &[u8], build_dir: &Path) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(base)
            .update(toolchain::environment_digest(self, build_dir).as_bytes());
        hasher.finalize().to_hex().to_string()
    }

    /// Directories with a record, in no order; one that is unreadable is as good as absent.
    pub(crate) fn records(&self) -> Result<Vec<(PathBuf, Record)>> {
        let dir = self.root.join("kernels/debian");
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io(&dir)(e)),
        };
        let dirs = entries
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.join(record::FILE).is_file());
        Ok(dirs
            .filter_map(|d| Record::read(&d).ok().map(|r| (d, r)))
            .collect())
    }

    pub(crate) fn kernel_of(&self, dir: &Path, record: &Record) -> Kernel {
        let build_dir = dir.join(&record.build_dir);
        let packages: Vec<&str> = record.packages.iter().map(|p| p.sha256.as_str()).collect();
        Kernel {
            id: record.id.clone(),
            release: record.release.clone(),
            version: record.version.clone(),
            arch: record.arch.clone(),
            digest: self.full_digest(packages.join("\n").as_bytes(), &build_dir),
            source_dir: dir.join(&record.source_dir),
            build_dir,
        }
    }

    fn unknown(&self, name: &str, records: &[(PathBuf, Record)]) -> Error {
        let mut here: Vec<&str> = records.iter().map(|(_, r)| r.id.as_str()).collect();
        here.sort_by(|a, b| debversion::compare(a, b));
        let here = if here.is_empty() {
            "none yet".to_owned()
        } else {
            here.join(", ")
        };
        Error::Input(format!(
            "no kernel `{name}` in {}; fetched: {here}. Fetch one with `kspan kernel fetch debian/SUITE` (bullseye, bookworm, trixie, \
             trixie-backports, sid), or give a path to kernel headers",
            self.root.display()
        ))
    }
}

/// The newest kernel that an alias stands for; the plain flavour before others.
fn newest_of<'a>(records: &'a [(PathBuf, Record)], alias: &str) -> Option<&'a (PathBuf, Record)> {
    let alias = Alias::new(alias);
    let fitting = records.iter().filter(|(_, r)| alias.fits(r));
    fitting.max_by(|(_, a), (_, b)| alias.order(a, b))
}

/// A version's beginning (`6.1`, `6.1.0-56`, `6.1.192-2`) or a suite, perhaps with a flavour.
struct Alias<'a> {
    name: &'a str,
    flavour: Option<&'a str>,
}

impl<'a> Alias<'a> {
    fn new(text: &'a str) -> Self {
        let (name, flavour) = text
            .split_once('/')
            .map_or((text, None), |(n, f)| (n, Some(f)));
        Self { name, flavour }
    }

    fn fits(&self, record: &Record) -> bool {
        let ends = |rest: &str, marks: &[char]| rest.is_empty() || rest.starts_with(marks);
        let begins = |text: &str, marks: &[char]| {
            text.strip_prefix(self.name)
                .is_some_and(|rest| ends(rest, marks))
        };
        let of_suite = record
            .suite
            .strip_prefix(self.name)
            .is_some_and(|r| ["", "-security", "-updates"].contains(&r));
        let of_flavour = self.flavour.is_none_or(|f| {
            record.flavour == f || record.flavour.strip_suffix("-amd64") == Some(f)
        });
        let named = begins(&record.version, &['.'])
            || begins(&record.release, &['.', '-', '+'])
            || record.package_version == self.name;
        of_flavour && (named || of_suite)
    }

    fn order(&self, a: &Record, b: &Record) -> Ordering {
        let is_default = |r: &Record| self.flavour.is_some() || !r.flavour.contains('-');
        let newer = debversion::compare(&a.package_version, &b.package_version);
        is_default(a)
            .cmp(&is_default(b))
            .then(newer)
            .then_with(|| debversion::compare(&a.release, &b.release))
    }
}

/// What a killed run left half-done; what cannot be removed (another user's) does no harm.
fn remove_leftovers(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b".tmp-") {
            let _ = match entry.file_type().is_ok_and(|t| t.is_dir()) {
                true => files::remove_tree(&entry.path()),
                false => files::remove_file(&entry.path()),
            };
        }
    }
}

/// Removes working directories (`run-what-PID-random`) of processes that are gone.
fn remove_dead_work(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let own = name.starts_with("run-").then_some(&name);
        let pid = own.and_then(|n| n.rsplit('-').nth(1)?.parse::<u32>().ok());
        if pid.is_some_and(|p| !Path::new("/proc").join(p.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cached(
        release: &str,
        package_version: &str,
        suite: &str,
        flavour: &str,
    ) -> (PathBuf, Record) {
        let record = Record {
            id: format!("debian/{release}"),
            release: release.into(),
            version: package_version.split('-').next().unwrap_or_default().into(),
            arch: "x86".into(),
            package_version: package_version.into(),
            suite: suite.into(),
            flavour: flavour.into(),
            build_dir: PathBuf::new(),
            source_dir: PathBuf::new(),
            packages: Vec::new(),
            source: None,
            images: Vec::new(),
        };
        (PathBuf::new(), record)
    }

    #[test]
    fn an_alias_means_the_newest_that_it_fits() {
        let records = [
            cached("6.1.0-9-amd64", "6.1.99-1", "bookworm", "amd64"),
            cached("6.1.0-56-amd64", "6.1.192-2", "bookworm-security", "amd64"),
            cached(
                "6.1.0-56-rt-amd64",
                "6.1.192-2",
                "bookworm-security",
                "rt-amd64",
            ),
            cached(
                "6.12.117+deb13-amd64",
                "6.12.117-1",
                "trixie-security",
                "amd64",
            ),
            cached("7.3-amd64", "7.3-1", "experimental", "amd64"),
            cached(
                "7.3.4+deb13-amd64",
                "7.3.4-1~bpo13+1",
                "trixie-backports",
                "amd64",
            ),
        ];
        let cases = [
            ("6.1", Some("6.1.0-56-amd64")),
            ("6.1/rt", Some("6.1.0-56-rt-amd64")),
            ("6.1.0-9", Some("6.1.0-9-amd64")),
            ("6.1.192-2", Some("6.1.0-56-amd64")),
            ("6.12", Some("6.12.117+deb13-amd64")),
            ("7.3", Some("7.3.4+deb13-amd64")),
            ("bookworm", Some("6.1.0-56-amd64")),
            ("trixie", Some("6.12.117+deb13-amd64")),
            ("trixie-backports", Some("7.3.4+deb13-amd64")),
            ("6.1/cloud", None),
            ("6", Some("6.12.117+deb13-amd64")),
            ("5.10", None),
        ];
        for (alias, release) in cases {
            assert_eq!(
                newest_of(&records, alias).map(|(_, r)| r.release.as_str()),
                release,
                "{alias}"
            );
        }
    }

    #[test]
    fn a_half_unpacked_kernel_is_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        std::fs::create_dir_all(dir.path().join("kernels/debian/.tmp-x/kernel/usr")).unwrap();
        std::fs::create_dir_all(dir.path().join("kernels/debian/6.1.0-1-amd64/usr")).unwrap();
        assert!(cache.kernels().unwrap().is_empty());
        assert!(
            cache
                .resolve("6.1")
                .unwrap_err()
                .to_string()
                .contains("kspan kernel fetch")
        );
        drop(cache.install_lock().unwrap());
        assert!(!dir.path().join("kernels/debian/.tmp-x").exists());
    }
}
