//! `kspan upgrade`: a driver's own source in the API of another kernel: the code that a maintainer would write.
//!
//! Its main function is [`upgrade`].

mod becomes;
pub mod callback;
pub mod change;
pub mod edit;
pub mod examples;
mod family;
mod forward;
pub mod guards;
pub mod headers;
mod job;
mod member;
mod names;
mod own;
mod own_headers;
pub mod series;
pub mod sites;
mod tables;
pub mod template;
mod together;
pub mod words;

pub use change::{Change, Reason};

use job::Job;
use kspan_kernel::KbuildOptions;
use kspan_port::driver::{Driver, MANIFEST_FILE};
use kspan_port::gap::{Gap, Risk};
use kspan_port::view::View;
use kspan_port::{Engine, Error, Result, inactive};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What became of an upgrade.
#[derive(Debug, Clone, Serialize)]
pub struct Upgrade {
    /// The driver's name.
    pub driver: String,
    /// The kernel it was written for.
    pub home: String,
    /// The kernel it is written for now.
    pub target: String,
    /// The driver builds on its own home kernel.
    pub broken: Option<String>,
    /// The upgraded source builds and links on the target, as it is.
    pub builds: bool,
    /// Modules of the home kernel that came along, since the target's own lack what the driver takes from them.
    pub family: Vec<String>,
    /// How many of the changes stand first, each of which the old home kernel's compiler takes.
    pub early: usize,
    /// The changes, in the order of the series.
    pub changes: Vec<Change>,
    /// What stays to be done by hand.
    pub open: Vec<Gap>,
    /// Guards of the old source by which a kernel of the cache takes a branch that it cannot compile.
    pub guards: Vec<guards::Wrong>,
    /// Warnings of the upgraded source on the target, and of the old one at home.
    pub warnings: (usize, usize),
    /// Compiler runs before the final build.
    pub compiles: usize,
    /// Wall seconds.
    pub seconds: f64,
    /// Every file after each step of the series; the last one is the upgraded driver.
    #[serde(skip)]
    pub steps: Vec<BTreeMap<PathBuf, Vec<u8>>>,
    /// Every file as it was.
    #[serde(skip)]
    pub before: BTreeMap<PathBuf, Vec<u8>>,
}

impl Upgrade {
    /// It builds in the target's own API: no definition was taken along, no change of meaning is known, and there are no more
    /// warnings than at home.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let harmless = |c: &Change| !c.reason.keeps && c.reason.risk <= Risk::Default;
        self.builds && self.changes.iter().all(harmless) && self.warnings.0 <= self.warnings.1
    }
}

impl Upgrade {
    /// With a first change that brought files along as they are: the source was `before`, and this is the upgrade of it with those files.
    fn led_by(self, before: BTreeMap<PathBuf, Vec<u8>>, reason: Reason) -> Self {
        let mut changes = vec![Change {
            reason,
            edits: BTreeMap::new(),
            rank: 0,
        }];
        changes.extend(self.changes);
        let mut steps = vec![self.before];
        steps.extend(self.steps);
        Self {
            before,
            changes,
            steps,
            early: self.early + 1,
            ..self
        }
    }
}

/// How an upgrade is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// Guards of kernel versions leave the branch that the target takes.
    pub drop_compat: bool,
    /// The changes are put in an order in which each step builds on one of the two kernels; this asks the old one's compiler.
    pub ordered: bool,
}

/// Moves a driver's source to a kernel's API; nothing is written but in the cache. Where its own headers are in the way,
/// or all that stays open are symbols of modules of the driver's own family, these come along, and are moved with it.
///
/// # Errors
/// When a kernel cannot be used or the disk refuses. What stays open is no error.
pub fn upgrade(
    engine: &Engine,
    driver: &Driver,
    target: &View,
    options: &KbuildOptions,
    manner: Manner,
) -> Result<Upgrade> {
    let start = std::time::Instant::now();
    let mut out = alone(engine, driver, target, options, manner)?;
    if out.broken.is_none() && !out.builds {
        out = own_headers::with(engine, driver, target, out, &|set| {
            alone(engine, set, target, options, manner)
        })?;
    }
    if out.broken.is_none() && !out.builds {
        out = family::with(engine, driver, target, out, &|set| {
            alone(engine, set, target, options, manner)
        })?;
    }
    out.seconds = start.elapsed().as_secs_f64();
    Ok(out)
}

/// One driver by itself.
fn alone(
    engine: &Engine,
    driver: &Driver,
    target: &View,
    options: &KbuildOptions,
    manner: Manner,
) -> Result<Upgrade> {
    let (home, built) = engine.home(driver, options)?;
    let built = inactive::without_versions(built, target)?;
    let base = engine.cache.root().join("work").join("upgrade");
    std::fs::create_dir_all(&base).map_err(|source| Error::Io {
        path: base.clone(),
        source,
    })?;
    let work = tempfile::tempdir_in(&base).map_err(|source| Error::Io { path: base, source })?;
    let library = engine.library_for(driver, &built)?;
    let mut job = Job::new(
        &engine.cache,
        driver,
        &built,
        (&home, target),
        &library,
        work.path(),
    )?;
    let mut out = Upgrade {
        driver: driver.manifest.name.clone(),
        home: home.kernel.id.clone(),
        target: target.kernel.id.clone(),
        broken: (!built.ok).then(|| built.log.clone()),
        builds: false,
        family: Vec::new(),
        early: 0,
        changes: Vec::new(),
        open: Vec::new(),
        guards: Vec::new(),
        warnings: (0, built.warnings),
        compiles: 0,
        seconds: 0.0,
        steps: Vec::new(),
        before: job.files(0),
    };
    if built.ok {
        if job.has_guards() {
            out.guards = job.wrong_guards(&kernels(engine)?);
        }
        let made = job.run(manner.drop_compat)?;
        if manner.ordered {
            out.early = job.order()?;
        }
        out.builds = made.ok;
        out.warnings.0 = made.warnings;
        out.changes = job.changes.all().to_vec();
        out.open = if made.ok {
            Vec::new()
        } else {
            job.open.values().cloned().collect()
        };
        out.compiles = job.compiles;
        out.steps = steps(&job, out.early)?;
    }
    Ok(out)
}

/// The kernels of the cache that can be opened.
fn kernels(engine: &Engine) -> Result<Vec<std::sync::Arc<View>>> {
    let all = engine.cache.kernels()?;
    Ok(all.iter().filter_map(|k| engine.view(&k.id).ok()).collect())
}

/// The driver after each of the first changes; the last step has all of them and names the new home.
fn steps(job: &Job<'_>, early: usize) -> Result<Vec<BTreeMap<PathBuf, Vec<u8>>>> {
    let mut all: Vec<_> = (1..=early).map(|n| job.files(n)).collect();
    let mut last = job.files(usize::MAX);
    last.insert(PathBuf::from(MANIFEST_FILE), job.manifest()?.into_bytes());
    all.push(last);
    Ok(all)
}
