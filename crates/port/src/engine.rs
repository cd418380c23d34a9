//! The engine: opened kernels, the evolutions, and one cell of the matrix at a time.

use crate::check::{self, Found};
use crate::derive::{self, Derived};
use crate::driver::{Driver, MANIFEST_FILE};
use crate::gap::{Gap, Need, Remedy, Risk};
use crate::gates::{self, Finding};
use crate::home::{self, Home, HomeTu};
use crate::plan::Context;
use crate::provider::Provider;
use crate::view::View;
use crate::{Error, Result, cfile, inactive, lift, private_abi, provider, store};
use kspan_evolve::Library;
use kspan_kernel::{Cache, KbuildOptions, Kernel};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What became of a driver on a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Builds as it is.
    Native,
    /// Builds with remedies.
    Ported,
    /// Gaps are left.
    Open,
    /// Fails on its own home kernel.
    Broken,
}

/// How much is known of a cell that builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// It does not build.
    None,
    /// It builds and links.
    Builds,
    /// It builds, and no change of meaning is known.
    Clean,
}

/// The record of one cell; also what `port.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Port {
    /// The driver's name.
    pub driver: String,
    /// The target's id.
    pub kernel: String,
    /// The home kernel's id.
    pub home: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The grade.
    pub grade: Grade,
    /// Remedies in use.
    pub remedies: Vec<Remedy>,
    /// Possible changes of meaning, beside those of the remedies.
    pub findings: Vec<Finding>,
    /// Gaps that were met.
    pub gaps: Vec<Gap>,
    /// Gaps that are left.
    pub open: Vec<Gap>,
    /// Places that libclang could not analyse.
    pub unanalysed: Vec<String>,
    /// Warnings of the build on the target.
    pub warnings: usize,
    /// Warnings of the build at home.
    pub home_warnings: usize,
    /// Why the driver is broken, in make's words.
    pub broken: String,
    /// Modules made, relative to `dir`.
    pub modules: Vec<PathBuf>,
    /// Where the port lies.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dir: Option<PathBuf>,
    /// Files of the port, relative; what a build leaves is not among them.
    pub files: Vec<PathBuf>,
    /// Compiler runs before the final build.
    pub compiles: usize,
    /// Wall seconds of derivation and build.
    pub seconds: f64,
    /// Wall seconds of the final build alone.
    pub make_seconds: f64,
    /// The result came from the cache.
    #[serde(default)]
    pub cached: bool,
}

impl Port {
    /// The record without what differs from run to run: where it lay, how long it took.
    #[must_use]
    pub fn repeatable(&self) -> Self {
        Self {
            dir: None,
            seconds: 0.0,
            make_seconds: 0.0,
            cached: false,
            ..self.clone()
        }
    }

    /// It builds and links on the target.
    #[must_use]
    pub fn builds(&self) -> bool {
        matches!(self.verdict, Verdict::Native | Verdict::Ported)
    }

    /// Why it does not build, in a line.
    fn outcome(&self) -> String {
        match (self.broken.lines().next(), self.open.first()) {
            (Some(line), _) => format!("that does not build at home: {line}"),
            (None, Some(gap)) => {
                format!("{} gaps are left, the first: {}", self.open.len(), gap.why)
            }
            (None, None) => "that does not build, and nothing says why".to_owned(),
        }
    }

    /// What the home build says that a reader of the port should know.
    fn notes_of(&mut self, built: &Home) {
        self.home_warnings = built.warnings;
        self.unanalysed = built
            .tus
            .iter()
            .flat_map(|t| t.tu.unanalysed.clone())
            .collect();
    }

    /// The grade that its verdict, risks and warnings give it.
    #[must_use]
    pub fn deserved(&self) -> Grade {
        let risky = !self.risks().is_empty() || self.warnings > self.home_warnings;
        match (self.builds(), risky) {
            (false, _) => Grade::None,
            (true, true) => Grade::Builds,
            (true, false) => Grade::Clean,
        }
    }

    /// Remedies and findings with a risk above `default`, as `subject: meaning`.
    #[must_use]
    pub fn risks(&self) -> Vec<String> {
        let of_remedies = self.remedies.iter().filter(|r| r.risk > Risk::Default);
        let of_findings = self.findings.iter().filter(|f| f.risk > Risk::Default);
        of_remedies
            .map(|r| format!("{}: {}", r.subject, r.meaning))
            .chain(of_findings.map(|f| format!("{}: {}", f.subject, f.meaning)))
            .collect()
    }
}

/// Everything that stays the same from cell to cell.
pub struct Engine {
    /// The cache.
    pub cache: Cache,
    /// The evolutions that any driver gets.
    pub library: Library,
    /// With those that a driver has to choose.
    every: Library,
    /// Changes with the program and the evolutions.
    digest: String,
    views: Mutex<HashMap<String, Arc<View>>>,
    lifts: Mutex<HashMap<String, Option<Arc<lift::Index>>>>,
}

impl Engine {
    /// Loads the evolutions (those compiled in, or the directory that `KSPAN_EVOLUTIONS` names) and makes an engine over a
    /// cache.
    ///
    /// # Errors
    /// When an evolution is malformed.
    pub fn new(cache: Cache) -> Result<Self> {
        let dir = std::env::var_os("KSPAN_EVOLUTIONS").map(PathBuf::from);
        let every = Library::load(dir.as_deref()).map_err(|e| Error::Input(e.to_string()))?;
        let library = every.chosen(&[]).map_err(Error::Input)?;
        let program = std::env::current_exe()
            .and_then(std::fs::read)
            .unwrap_or_default();
        let program = blake3::hash(&program).to_hex();
        let digest = store::key(&[program.as_str(), &format!("{:?}", every.all())]);
        Ok(Self {
            cache,
            library,
            every,
            digest,
            views: Mutex::default(),
            lifts: Mutex::default(),
        })
    }

    /// The evolutions for a driver: with those that its manifest chooses, and with the risks that what it uses brings.
    ///
    /// # Errors
    /// When the manifest chooses what is not there to be chosen.
    pub fn library_for(&self, driver: &Driver, built: &Home) -> Result<Library> {
        let ids = &driver.manifest.opt_in;
        let defined: Vec<HashSet<String>> =
            built.tus.iter().map(|t| defined_in(built, t)).collect();
        let both = built.tus.iter().zip(&defined);
        let uses: Vec<HashSet<&str>> = both
            .map(|(tu, own)| {
                names_in(tu)
                    .into_iter()
                    .chain(own.iter().map(String::as_str))
                    .collect()
            })
            .collect();
        if ids.is_empty() {
            return Ok(self.library.met_by(&uses));
        }
        let wrong = |why| {
            Error::Input(format!(
                "{MANIFEST_FILE} of {}: {why}",
                driver.manifest.name
            ))
        };
        let chosen = self.every.chosen(ids).map_err(wrong)?;
        Ok(chosen.met_by(&uses))
    }

    /// A kernel, opened once.
    ///
    /// # Errors
    /// When the name means no kernel, or the kernel is unusable.
    pub fn view(&self, name: &str) -> Result<Arc<View>> {
        let kernel = self.cache.resolve(name)?;
        if let Some(view) = lock(&self.views).get(&kernel.id) {
            return Ok(view.clone());
        }
        let view = Arc::new(View::open(&self.cache, kernel)?);
        Ok(lock(&self.views)
            .entry(view.kernel.id.clone())
            .or_insert(view)
            .clone())
    }

    /// The C files of a kernel, where its source package is in the cache.
    fn lift(&self, kernel: &Kernel) -> Option<Arc<lift::Index>> {
        if let Some(known) = lock(&self.lifts).get(&kernel.id) {
            return known.clone();
        }
        let tree = self.cache.source_tree_if_present(kernel);
        let index = tree
            .and_then(|t| lift::Index::open(&self.cache, kernel, &t).ok())
            .map(Arc::new);
        lock(&self.lifts).insert(kernel.id.clone(), index.clone());
        index
    }

    /// The driver on its home kernel.
    ///
    /// # Errors
    /// When the home kernel is not there or cannot be used.
    pub fn home(&self, driver: &Driver, options: &KbuildOptions) -> Result<(Arc<View>, Home)> {
        let view = self.view(&driver.manifest.home)?;
        let built = home::build(&self.cache, driver, &view.kernel, options)?;
        Ok((view, built))
    }

    /// The gaps of a driver on a kernel from facts alone, and the possible changes of meaning.
    ///
    /// # Errors
    /// When a kernel cannot be used.
    pub fn check(
        &self,
        driver: &Driver,
        target: &View,
        options: &KbuildOptions,
    ) -> Result<Checked> {
        let (home, built) = self.home(driver, options)?;
        let built = inactive::without(built, driver, (&home, target), &self.library)?;
        let library = self.library_for(driver, &built)?;
        let found = check::gaps(&built, &home, target, &library);
        let findings = self.findings(driver, &built, (&home, target), &library);
        Ok(Checked {
            home,
            built,
            found,
            findings,
        })
    }

    fn findings(
        &self,
        driver: &Driver,
        built: &Home,
        (home, target): (&View, &View),
        library: &Library,
    ) -> Vec<Finding> {
        if home.kernel.id == target.kernel.id {
            return Vec::new();
        }
        let own = driver.manifest.origin.as_ref().and_then(|origin| {
            let path = self
                .cache
                .source_tree_if_present(&target.kernel)?
                .join(&origin.path);
            path.is_file().then_some(path)
        });
        let mut found = gates::findings(
            built,
            home,
            target,
            own.as_deref(),
            &driver.manifest.config,
            library,
        );
        found.extend(private_abi::undeclared(built, home, target));
        if let Some((at_home, there)) = self.both_trees(home, target) {
            let trees = private_abi::Trees {
                home: &at_home,
                target: &there,
            };
            found.extend(private_abi::findings(driver, built, (home, target), &trees));
        }
        found
    }

    /// Derives, builds and judges one cell; kept by the content of driver, kernels and program.
    ///
    /// # Errors
    /// When a kernel cannot be used or the disk refuses.
    pub fn port(&self, driver: &Driver, target: &View, options: &KbuildOptions) -> Result<Port> {
        let home = self.view(&driver.manifest.home)?;
        let key = store::key(&[
            &self.digest,
            &driver.digest()?,
            &home.kernel.digest,
            &target.kernel.digest,
            // Lifts, providers and some gates read source trees where they are at hand.
            self.sources_at_hand(&home, target),
        ]);
        let base = self.cache.root().join("ports").join(&key);
        let record = base.join("port.json");
        let kept = || {
            let port = store::read::<Port>(&record)?;
            Some(Port {
                dir: Some(base.join("tree")),
                cached: true,
                ..port
            })
        };
        if let Some(port) = kept() {
            return Ok(port);
        }
        let _one_ports = self.cache.exclusive("port", &key)?;
        if let Some(port) = kept() {
            return Ok(port);
        }
        let start = std::time::Instant::now();
        let (home, built) = self.home(driver, options)?;
        let built = inactive::without(built, driver, (&home, target), &self.library)?;
        let mut port = self.blank(driver, &home, target);
        port.notes_of(&built);
        if built.ok {
            let start = std::time::Instant::now();
            let kernels = (&*home, target);
            let wants = (&Given::default(), &mut port);
            self.derive(driver, &built, kernels, options, &base, wants)?;
            let mut along = BTreeSet::new();
            if port.verdict == Verdict::Open {
                let stubs =
                    self.with_providers(driver, kernels, options, &base, &mut port, &mut along)?;
                if port.verdict == Verdict::Open && !stubs.is_empty() {
                    let mut again = self.blank(driver, &home, target);
                    again.notes_of(&built);
                    let given = Given {
                        stubs,
                        ..Given::default()
                    };
                    let wants = (&given, &mut again);
                    self.derive(driver, &built, kernels, options, &base, wants)?;
                    port = again;
                }
            }
            if port.builds() && home.kernel.id != target.kernel.id {
                self.with_those_apart(driver, &built, kernels, options, &base, (&mut port, along))?;
            }
            if port.verdict == Verdict::Open && home.kernel.id != target.kernel.id {
                self.with_headers_of_target(driver, &built, kernels, options, &base, &mut port)?;
            }
            port.seconds = start.elapsed().as_secs_f64();
        } else {
            port.verdict = Verdict::Broken;
            port.broken = built.log;
            port.seconds = start.elapsed().as_secs_f64();
        }
        store::write(&record, &port)?;
        Ok(Port {
            dir: Some(base.join("tree")),
            ..port
        })
    }

    /// The source trees of both kernels, where both are at hand.
    fn both_trees(&self, home: &View, target: &View) -> Option<(PathBuf, PathBuf)> {
        let tree = |view: &View| self.cache.source_tree_if_present(&view.kernel);
        Some((tree(home)?, tree(target)?))
    }

    fn sources_at_hand(&self, home: &View, target: &View) -> &'static str {
        let has = |view: &View| self.cache.source_tree_if_present(&view.kernel).is_some();
        match (has(home), has(target)) {
            (true, true) => "both",
            (true, false) => "home",
            (false, true) => "target",
            (false, false) => "none",
        }
    }

    fn blank(&self, driver: &Driver, home: &View, target: &View) -> Port {
        Port {
            driver: driver.manifest.name.clone(),
            kernel: target.kernel.id.clone(),
            home: home.kernel.id.clone(),
            verdict: Verdict::Open,
            grade: Grade::None,
            remedies: Vec::new(),
            findings: Vec::new(),
            gaps: Vec::new(),
            open: Vec::new(),
            unanalysed: Vec::new(),
            warnings: 0,
            home_warnings: 0,
            broken: String::new(),
            modules: Vec::new(),
            dir: None,
            files: Vec::new(),
            compiles: 0,
            seconds: 0.0,
            make_seconds: 0.0,
            cached: false,
        }
    }

    /// A port that stays open since modules of the home kernel are missing is tried again together with them, and with those that are
    /// `along` already. What comes back are symbols of modules that may not come along, for which there is a stub.
    fn with_providers(
        &self,
        driver: &Driver,
        (home, target): (&View, &View),
        options: &KbuildOptions,
        base: &Path,
        port: &mut Port,
        along: &mut BTreeSet<Provider>,
    ) -> Result<BTreeSet<String>> {
        let Some(tree) = self.cache.source_tree_if_present(&home.kernel) else {
            return Ok(BTreeSet::new());
        };
        let place = provider::Place::of(&self.cache, driver, (home, &tree), target)?;
        let mut narrow = port.open.clone();
        let mut open = narrow.clone();
        let mut taken = along.clone();
        let mut stubs = BTreeSet::new();
        loop {
            let wanted = provider::wanted(&open, &taken, &place);
            let is_first = taken.len() == along.len();
            if is_first {
                stubs = provider::stubbed(&wanted, home);
            }
            provider::explain(&mut narrow, &wanted);
            if wanted.providers.is_empty() || provider::stays(&open, home) {
                if is_first {
                    port.open = narrow;
                }
                return Ok(stubs);
            }
            taken.extend(wanted.providers);
            let set = provider::compose(&self.cache, driver, home, &tree, &taken);
            let (left, words) = match set {
                Err(why) => (Vec::new(), why.to_string()),
                Ok(set) => {
                    let wide = self.port_set(&set, &taken, (home, target), options, base)?;
                    if wide.builds() {
                        *port = wide;
                        *along = taken;
                        return Ok(BTreeSet::new());
                    }
                    let words = wide.outcome();
                    (wide.open, words)
                }
            };
            port.open = provider::told(&narrow, &taken, home, &words);
            open = left;
        }
    }

    /// A port that links with a module of the target which was built with another version of the driver's own header is tried
    /// again together with the home kernel's module. Where that does not build, the port stays as it is, and says so; unless a
    /// structure of that header is laid out otherwise: then it stays open.
    fn with_those_apart(
        &self,
        driver: &Driver,
        built: &Home,
        (home, target): (&View, &View),
        options: &KbuildOptions,
        base: &Path,
        (port, mut along): (&mut Port, BTreeSet<Provider>),
    ) -> Result<()> {
        let Some((at_home, there)) = self.both_trees(home, target) else {
            return Ok(());
        };
        let trees = private_abi::Trees {
            home: &at_home,
            target: &there,
        };
        let mut apart = private_abi::apart(driver, built, (home, target), &trees);
        // What comes along is the home kernel's own.
        let comes = |symbol: &String| {
            let export = home.facts.export(symbol);
            export.is_some_and(|e| along.iter().any(|p| p.path == e.module))
        };
        apart.symbols.retain(|s| !comes(s));
        if apart.symbols.is_empty() {
            return Ok(());
        }
        let gap = |symbol: String| Gap {
            why: format!(
                "the target's {symbol} was built with another version of the driver's header"
            ),
            places: Vec::new(),
            need: Need::Export { symbol },
        };
        let mut wide = Port {
            verdict: Verdict::Open,
            open: apart.symbols.into_iter().map(gap).collect(),
            ..port.clone()
        };
        self.with_providers(driver, (home, target), options, base, &mut wide, &mut along)?;
        if wide.builds() {
            *port = wide;
            return Ok(());
        }
        // What the two hand each other is laid out in two ways: such a port builds, and breaks the machine.
        let hands_over = |gap: &Gap| matches!(&gap.need, Need::Export { symbol } if apart.structures.contains(symbol));
        wide.open.retain(hands_over);
        if !wide.open.is_empty() {
            port.verdict = Verdict::Open;
            port.grade = Grade::None;
            port.open = wide.open;
        }
        Ok(())
    }

    /// A port that stays open for nothing but symbols of the target's modules is tried again with the target's own version of the
    /// headers that the driver takes them by: that is what those modules were built with. Where that does not build, the port stays.
    fn with_headers_of_target(
        &self,
        driver: &Driver,
        built: &Home,
        (home, target): (&View, &View),
        options: &KbuildOptions,
        base: &Path,
        port: &mut Port,
    ) -> Result<()> {
        let is_symbol = |gap: &Gap| matches!(gap.need, Need::Export { .. });
        let trees = self.both_trees(home, target);
        let Some((at_home, there)) = trees.filter(|_| port.open.iter().all(is_symbol)) else {
            return Ok(());
        };
        let trees = private_abi::Trees {
            home: &at_home,
            target: &there,
        };
        let given = Given {
            theirs: private_abi::theirs(driver, built, home, &trees),
            ..Given::default()
        };
        if given.theirs.is_empty() {
            return Ok(());
        }
        let mut other = self.blank(driver, home, target);
        other.notes_of(built);
        let beside = tempfile::tempdir_in(base).map_err(|e| Error::io(base, e))?;
        let place = beside.path();
        let wants = (&given, &mut other);
        self.derive(driver, built, (home, target), options, place, wants)?;
        if other.builds() {
            store::replace_dir(&place.join("tree"), &base.join("tree"))?;
            *port = other;
        }
        Ok(())
    }

    /// One cell of a driver with its providers; only a set that builds takes the port's place.
    fn port_set(
        &self,
        set: &Driver,
        taken: &BTreeSet<Provider>,
        (home, target): (&View, &View),
        options: &KbuildOptions,
        base: &Path,
    ) -> Result<Port> {
        let built = home::build(&self.cache, set, &home.kernel, options)?;
        let mut wide = self.blank(set, home, target);
        wide.notes_of(&built);
        if !built.ok {
            wide.broken = built.log;
            return Ok(wide);
        }
        let built = inactive::without(built, set, (home, target), &self.library)?;
        let beside = tempfile::tempdir_in(base).map_err(|e| Error::io(base, e))?;
        let place = beside.path();
        wide.remedies = taken.iter().map(|p| p.remedy(home)).collect();
        let given = Given {
            kept: taken.iter().flat_map(|p| p.kept.iter().cloned()).collect(),
            ..Given::default()
        };
        let wants = (&given, &mut wide);
        self.derive(set, &built, (home, target), options, place, wants)?;
        if wide.builds() {
            store::replace_dir(&place.join("tree"), &base.join("tree"))?;
        }
        Ok(wide)
    }

    fn derive(
        &self,
        driver: &Driver,
        built: &Home,
        (home, target): (&View, &View),
        options: &KbuildOptions,
        base: &Path,
        (given, port): (&Given, &mut Port),
    ) -> Result<()> {
        let lift = self.lift(&home.kernel);
        let library = self.library_for(driver, built)?;
        port.findings = self.findings(driver, built, (home, target), &library);
        // What the target's own header says cannot differ from it.
        let settled = |f: &Finding| given.theirs.contains_key(Path::new(&f.subject));
        port.findings
            .retain(|f| f.gate != "private-header" || !settled(f));
        let risky = port.findings.iter().filter(|f| f.risk > Risk::Default);
        let remedies = port.remedies.iter().filter(|r| r.risk > Risk::Default);
        let notes: Vec<String> = risky
            .map(|f| f.subject.clone())
            .chain(remedies.map(|r| r.subject.clone()))
            .collect();
        let ctx = Context {
            driver,
            built,
            home,
            target,
            library: &library,
            lift: lift.as_deref(),
            notes: &notes,
            stubs: &given.stubs,
            kept: &given.kept,
            theirs: &given.theirs,
        };
        std::fs::create_dir_all(base).map_err(|e| Error::io(base, e))?;
        let work = tempfile::tempdir_in(base).map_err(|e| Error::io(base, e))?;
        let tree = work.path().join("tree");
        std::fs::create_dir_all(&tree).map_err(|e| Error::io(&tree, e))?;
        let derived = derive::derive(&self.cache, ctx, &tree, options)?;
        judge(port, derived);
        port.files = tidy(&tree)?;
        store::replace_dir(&tree, &base.join("tree"))
    }
}

/// What a derivation is given beside the driver and the kernels.
#[derive(Debug, Default)]
struct Given {
    /// As [`Context::stubs`].
    stubs: BTreeSet<String>,
    /// As [`Context::kept`].
    kept: BTreeSet<String>,
    /// As [`Context::theirs`].
    theirs: BTreeMap<PathBuf, String>,
}

/// The kernel's names that a source file uses, and the structures whose members it sets.
fn names_in(tu: &HomeTu) -> HashSet<&str> {
    let uses = tu.tu.uses.iter();
    let used = uses.flat_map(|u| [Some(u.name.as_str()), u.record.as_deref()]);
    let records = tu.tu.bindings.iter().map(|b| b.record.as_str());
    used.flatten().chain(records).collect()
}

/// The macros that a source file defines itself, or that its flags define for it: the kernel's headers may ask for them.
fn defined_in(built: &Home, tu: &HomeTu) -> HashSet<String> {
    let text = std::fs::read(built.dir.join(&tu.source)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let flags = tu.extra.iter().filter_map(|f| f.strip_prefix("-D"));
    let given = flags.filter_map(|f| f.split(['=', '(']).next());
    text.lines()
        .filter_map(cfile::defined)
        .chain(given)
        .map(str::to_owned)
        .collect()
}

/// What a check found, with what it was found from.
pub struct Checked {
    /// The home kernel.
    pub home: Arc<View>,
    /// The driver there.
    pub built: Home,
    /// Gaps.
    pub found: Vec<Found>,
    /// Possible changes of meaning.
    pub findings: Vec<Finding>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn judge(port: &mut Port, derived: Derived) {
    port.verdict = match (derived.ok, derived.native) {
        (true, true) => Verdict::Native,
        (true, false) => Verdict::Ported,
        _ => Verdict::Open,
    };
    port.remedies.extend(derived.remedies);
    port.gaps = derived.gaps;
    port.open = derived.open;
    port.warnings = derived.warnings;
    port.modules = derived.modules;
    port.compiles = derived.compiles;
    port.make_seconds = derived.make_seconds;
    port.grade = port.deserved();
}

/// Removes what a build leaves but the modules; the files that make up the port.
fn tidy(tree: &Path) -> Result<Vec<PathBuf>> {
    const LEFT: [&str; 7] = ["o", "cmd", "mod", "order", "symvers", "d", "a"];
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(tree).sort_by_file_name() {
        let entry = entry.map_err(|e| Error::Internal(e.to_string()))?;
        let path = entry.path();
        if !entry.file_type().is_file() {
            continue;
        }
        let name = entry.file_name().to_string_lossy();
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        if name.ends_with(".mod.c") || LEFT.contains(&extension) || name == "Module.symvers" {
            std::fs::remove_file(path).map_err(|e| Error::io(path, e))?;
        } else if extension != "ko" {
            files.push(path.strip_prefix(tree).unwrap_or(path).to_path_buf());
        }
    }
    Ok(files)
}
