//! Provider modules: a driver that takes symbols from another module of its home kernel, which the target has not, or has
//! in an older form, is ported together with that module.
//!
//! A provider stands under `providers/NAME/` of the port, in a Kbuild directory of its own, and is ported as the driver is.

use crate::driver::{Driver, Manifest, SourceTree};
use crate::gap::{Gap, Need, Remedy, RemedyKind, Risk};
use crate::view::View;
use crate::{Error, Result, store};
use kspan_kernel::Cache;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where providers lie in a port.
pub const DIR: &str = "providers";
/// A driver that needs more modules than this needs another subsystem.
const MOST: usize = 8;
/// More source files than this in one provider are a subsystem's core; to port that for one driver is not what is asked.
const MOST_SOURCES: usize = 40;
const FORMAT: &str = "set-1";

/// A module of the home kernel that comes along.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Provider {
    /// Directory and name in the home kernel's tree, as Module.symvers writes it: `drivers/iio/accel/adxl345_core`.
    pub path: String,
    /// The target has a module of this name.
    pub on_target: bool,
}

impl Provider {
    /// The module's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    fn dir(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(dir, _)| dir)
    }

    /// What a port says of it.
    #[must_use]
    pub fn remedy(&self, home: &View) -> Remedy {
        let (risk, meaning) = if self.on_target {
            let meaning = format!(
                "stands in for the target's own {}, which other modules of the target may use",
                self.name()
            );
            (Risk::Behaviour, meaning)
        } else {
            (
                Risk::Default,
                "the home kernel's module is built and delivered along".to_owned(),
            )
        };
        Remedy {
            kind: RemedyKind::Lift,
            subject: format!("module {}", self.name()),
            origin: format!("{} of {}", self.path, home.kernel.release),
            risk,
            meaning,
        }
    }
}

/// What the open gaps of a port ask for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Modules that may come along.
    pub providers: BTreeSet<Provider>,
    /// Symbols whose module may not, with the reason.
    pub refused: BTreeMap<String, String>,
}

/// The modules of the home kernel behind open gaps. One may come along when the target has no module of its name, or when
/// it stands in the directory of the driver or of a provider already taken: a module of the subsystem's core, which
/// others of the target depend on, may not.
#[must_use]
pub fn wanted(
    open: &[Gap],
    driver_dir: &str,
    taken: &BTreeSet<Provider>,
    kernels: (&View, &View),
) -> Wanted {
    let (home, target) = kernels;
    let on_target = target.facts.exporting_modules();
    let mut dirs: BTreeSet<&str> = taken.iter().map(Provider::dir).collect();
    dirs.insert(driver_dir);
    let mut out = Wanted::default();
    for symbol in open.iter().filter_map(|gap| symbol(&gap.need)) {
        let Some(export) = home.facts.export(symbol).filter(|e| e.module != "vmlinux") else {
            continue;
        };
        let name = export.module.rsplit('/').next().unwrap_or_default();
        let provider = Provider {
            on_target: on_target.contains(&plain(name)),
            path: export.module.clone(),
        };
        if taken.iter().any(|t| t.path == provider.path) {
            continue;
        }
        if !provider.on_target || dirs.contains(provider.dir()) {
            out.providers.insert(provider);
        } else {
            let why = format!(
                "{symbol} comes from the module {name}; the target's own {name} does not have it, and other modules depend on that"
            );
            out.refused.insert(symbol.to_owned(), why);
        }
    }
    if taken.len() + out.providers.len() > MOST {
        for provider in std::mem::take(&mut out.providers) {
            let why = format!(
                "with {} it would take more than {MOST} modules of the home kernel",
                provider.name()
            );
            out.refused.insert(provider.name().to_owned(), why);
        }
    }
    out
}

fn symbol(need: &Need) -> Option<&str> {
    match need {
        Need::Export { symbol } => Some(symbol),
        Need::Name { name, .. } | Need::Signature { name } => Some(name),
        _ => None,
    }
}

/// A module's name as the kernel compares it.
#[must_use]
pub fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// The directory of the home kernel's tree that an imported driver came from; empty for one that was never in a tree.
#[must_use]
pub fn driver_dir(driver: &Driver, tree: &Path) -> String {
    let Some(origin) = &driver.manifest.origin else {
        return String::new();
    };
    let path = origin.path.trim_end_matches('/');
    if tree.join(path).is_dir() {
        return path.to_owned();
    }
    path.rsplit_once('/')
        .map_or(String::new(), |(dir, _)| dir.to_owned())
}

/// The driver with its providers, as one driver; kept by the content of both.
///
/// # Errors
/// When a provider cannot be imported, or the cache cannot be written.
pub fn compose(
    cache: &Cache,
    driver: &Driver,
    home: &View,
    tree: &Path,
    providers: &BTreeSet<Provider>,
) -> Result<Driver> {
    let mut parts = vec![
        FORMAT.to_owned(),
        driver.digest()?,
        home.kernel.digest.clone(),
    ];
    parts.extend(providers.iter().map(|p| p.path.clone()));
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let base = cache.root().join("work").join("sets");
    let to = base.join(store::key(&parts));
    if let Ok(known) = Driver::load(&to) {
        return Ok(known);
    }
    std::fs::create_dir_all(&base).map_err(|e| Error::io(&base, e))?;
    let staged = tempfile::tempdir_in(&base).map_err(|e| Error::io(&base, e))?;
    let dir = staged.path().join("set");
    store::copy_tree(driver, &dir)?;
    let config = |symbol: &str| home.facts.config(symbol);
    let source = SourceTree::open(tree, &config, Some(&cache.root().join("index")))?;
    let mut manifest = driver.manifest.clone();
    for provider in providers {
        let below = dir.join(DIR).join(plain(provider.name()));
        let parent = dir.join(DIR);
        std::fs::create_dir_all(&parent).map_err(|e| Error::io(&parent, e))?;
        let imported = source
            .import(&provider.path, &below, &home.kernel.id)?
            .driver;
        let is_c = |file: &&PathBuf| file.extension().is_some_and(|e| e == "c");
        let count = imported.sources()?.iter().filter(is_c).count();
        if count > MOST_SOURCES {
            return Err(Error::Input(format!(
                "{} has {count} source files, more than the {MOST_SOURCES} that one driver may bring along",
                provider.name()
            )));
        }
        std::fs::remove_file(below.join(crate::driver::MANIFEST_FILE))
            .map_err(|e| Error::io(&below, e))?;
        take_in(&mut manifest, imported.manifest);
    }
    descend(&dir, providers)?;
    manifest.save(&dir)?;
    let _ = std::fs::remove_dir_all(&to);
    // Another process may have been quicker; its set is the same.
    if let Err(e) = std::fs::rename(&dir, &to)
        && !to.is_dir()
    {
        return Err(Error::io(&to, e));
    }
    Ok(Driver::load(&to)?)
}

fn take_in(manifest: &mut Manifest, provider: Manifest) {
    manifest.modules.extend(provider.modules);
    manifest.config.extend(provider.config);
    for header in provider.private_headers {
        if !manifest.private_headers.contains(&header) {
            manifest.private_headers.push(header);
        }
    }
}

/// Makes the driver's own Kbuild file descend into the providers.
fn descend(dir: &Path, providers: &BTreeSet<Provider>) -> Result<()> {
    let names = ["Kbuild", "Makefile"].map(|n| dir.join(n));
    let file: &PathBuf = names.iter().find(|f| f.is_file()).unwrap_or(&names[0]);
    let mut text = std::fs::read(file).map_err(|e| Error::io(file, e))?;
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend_from_slice(
        b"\n# Modules of the home kernel that the target lacks; added by kspan.\n",
    );
    for provider in providers {
        text.extend_from_slice(format!("obj-m += {DIR}/{}/\n", plain(provider.name())).as_bytes());
    }
    store::write_bytes(file, &text)
}

/// Says of open gaps why the module behind them may not come along.
pub fn explain(open: &mut [Gap], wanted: &Wanted) {
    for gap in open {
        if let Some(why) = symbol(&gap.need).and_then(|s| wanted.refused.get(s)) {
            gap.why.clone_from(why);
        }
    }
}

/// Says of open gaps that the modules behind them cannot be had.
pub fn unusable(open: &mut [Gap], taken: &BTreeSet<Provider>, why: &str) {
    let first = why.lines().next().unwrap_or_default();
    note(
        open,
        &format!("{} cannot come along: {first}", names(taken)),
    );
}

/// Says of open gaps what is left open when their modules come along.
pub fn unclosed(open: &mut [Gap], taken: &BTreeSet<Provider>, left: &[Gap]) {
    let first = left
        .first()
        .map_or("nothing that can be named", |g| g.why.as_str());
    note(
        open,
        &format!(
            "ported together with {}, {} gaps are left, the first: {first}",
            names(taken),
            left.len()
        ),
    );
}

fn names(providers: &BTreeSet<Provider>) -> String {
    let names: Vec<&str> = providers.iter().map(Provider::name).collect();
    names.join(", ")
}

/// Adds to the reason of the gaps that a provider would close; only the last attempt is told.
fn note(open: &mut [Gap], text: &str) {
    const SIGN: &str = " (";
    for gap in open
        .iter_mut()
        .filter(|g| matches!(g.need, Need::Export { .. }))
    {
        let plain = gap.why.split(SIGN).next().unwrap_or_default();
        gap.why = format!("{plain}{SIGN}{text})");
    }
}
