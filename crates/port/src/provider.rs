//! Provider modules: a driver that takes symbols from another module of its home kernel, which the target has not, or has
//! in an older form, is ported together with that module.
//!
//! A provider stands under `providers/NAME/` of the port, in a Kbuild directory of its own, and is ported as the driver is.

use crate::driver::{Driver, Manifest, SourceTree};
use crate::gap::{Gap, Need, Remedy, RemedyKind, Risk};
use crate::view::View;
use crate::{Error, Result, family, store, stub};
use kspan_facts::{Detail, compare_signatures};
use kspan_kernel::Cache;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where providers lie in a port.
pub const DIR: &str = "providers";
/// A driver that needs more modules than this needs another subsystem.
const MOST: usize = 8;
/// More source files than this in one provider are a subsystem's core; to port that for one driver is not what is asked.
const MOST_SOURCES: usize = 60;
/// A module of which other families use more exports than this is a subsystem's core, whatever their types.
const MOST_KEPT: usize = 24;
const FORMAT: &str = "set-1";

/// A module of the home kernel that comes along.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Provider {
    /// Directory and name in the home kernel's tree, as Module.symvers writes it: `drivers/iio/accel/adxl345_core`.
    pub path: String,
    /// The target has a module of this name.
    pub on_target: bool,
    /// What modules of other families take from the target's: each must keep its version (the CRC of its type), so that the module
    /// loader lets them use this one.
    pub kept: BTreeSet<String>,
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
        Remedy {
            kind: RemedyKind::Lift,
            subject: format!("module {}", self.name()),
            origin: format!("{} of {}", self.path, home.kernel.release),
            risk: match self.on_target {
                true => Risk::Behaviour,
                false => Risk::Default,
            },
            meaning: self.meaning(),
        }
    }

    fn meaning(&self) -> String {
        if !self.on_target {
            return "the home kernel's module is built and delivered along".to_owned();
        }
        let name = self.name();
        let mut meaning = format!(
            "stands in for the target's own {name}, which other modules of the target may use"
        );
        if !self.kept.is_empty() {
            let kept: Vec<&str> = self.kept.iter().map(String::as_str).collect();
            meaning += &format!(" ({}: of the same type in both)", kept.join(", "));
        }
        meaning
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

/// Where providers are looked for.
pub struct Place<'a> {
    /// The directory of the home kernel's tree that the driver came from.
    driver_dir: String,
    /// The home kernel.
    home: &'a View,
    /// Its source tree.
    home_tree: &'a Path,
    /// The target.
    target: &'a View,
    /// The target's source tree, where it is in the cache.
    target_tree: Option<PathBuf>,
    /// The cache.
    cache: &'a Cache,
    /// The names of the driver's own source files.
    own_files: BTreeSet<OsString>,
    /// The names of the driver's own modules.
    own_modules: BTreeSet<String>,
}

impl<'a> Place<'a> {
    /// For a driver of the home kernel, whose source tree is at hand.
    ///
    /// # Errors
    /// When the driver's files cannot be listed.
    pub fn of(
        cache: &'a Cache,
        driver: &Driver,
        (home, home_tree): (&'a View, &'a Path),
        target: &'a View,
    ) -> Result<Self> {
        let sources = driver.sources()?;
        let names = sources.iter().filter_map(|file| file.file_name());
        Ok(Self {
            driver_dir: driver_dir(driver, home_tree),
            home,
            home_tree,
            target,
            target_tree: cache.source_tree_if_present(&target.kernel),
            cache,
            own_files: names.map(OsString::from).collect(),
            own_modules: driver.manifest.modules.iter().map(|m| plain(m)).collect(),
        })
    }

    /// Whether a module that the target has in an older form may be replaced: it stands in the directory of the driver or of a
    /// provider already taken, or only modules of its own directory and of theirs use it, or of the family that lies around both.
    /// Others may use a few exports, which are returned: their types must be the same. A module that others of the target depend on
    /// for more is a subsystem's core. A driver that was never in the tree is of no family: it takes no module's place.
    ///
    /// # Errors
    /// Says why not.
    fn replaceable(
        &self,
        provider: &Provider,
        dirs: &BTreeSet<&str>,
    ) -> std::result::Result<BTreeSet<String>, String> {
        if dirs.contains(provider.dir()) {
            return Ok(BTreeSet::new());
        }
        if self.driver_dir.is_empty() {
            return Err(
                "a driver from outside of the kernel takes no kernel module's place".to_owned(),
            );
        }
        let Some(tree) = &self.target_tree else {
            return Err("other modules depend on that".to_owned());
        };
        let mut roots: Vec<PathBuf> = dirs
            .iter()
            .filter(|dir| !dir.is_empty())
            .filter_map(|dir| family::root(provider.dir(), dir))
            .collect();
        let own = [provider.dir()].into_iter().chain(dirs.iter().copied());
        roots.extend(own.filter(|d| !d.is_empty()).map(PathBuf::from));
        let exports = self.target.facts.exports_of(&plain(provider.name()));
        roots.extend(self.place_on_target(&exports));
        let users = family::users(self.cache, &self.target.kernel, tree, &exports)
            .map_err(|why| format!("who uses it could not be asked: {why}"))?;
        // The driver itself, in an older form, where it stood before it moved.
        let moved = |user: &Path| {
            let name = user.file_name();
            name.is_some_and(|name| self.own_files.contains(name))
                && !self.home_tree.join(user).exists()
        };
        let inside = |user: &Path| roots.iter().any(|root| user.starts_with(root)) || moved(user);
        let mut kept = BTreeSet::new();
        for user in users.iter().filter(|user| !inside(&user.file)) {
            kept.extend(user.exports.iter().cloned());
            let same = |symbol: &String| self.keeps(&provider.path, symbol);
            if kept.len() > MOST_KEPT || !user.exports.iter().all(same) {
                return Err(format!("{} uses that, too", user.file.display()));
            }
        }
        Ok(kept)
    }

    /// The directory that the target's own module stands in: what lies beside it there is its family, wherever that is at home.
    fn place_on_target(&self, exports: &[String]) -> Option<PathBuf> {
        let export = self.target.facts.export(exports.first()?)?;
        let (dir, _) = export.module.rsplit_once('/')?;
        Some(PathBuf::from(dir))
    }

    /// The home kernel's module exports the symbol, too, and no header says that its type is another.
    fn keeps(&self, module: &str, symbol: &str) -> bool {
        let sig = |view: &View| match view.callable(symbol)?.detail {
            Detail::Function { sig, .. } => Some(sig),
            _ => None,
        };
        let agrees = match (sig(self.home), sig(self.target)) {
            (Some(here), Some(there)) => compare_signatures(&there, &here).is_empty(),
            (here, there) => here.is_none() && there.is_none(),
        };
        let export = self.home.facts.export(symbol);
        agrees && export.is_some_and(|e| e.module == module)
    }
}

/// The modules of the home kernel behind open gaps. One may come along when the target has no module of its name, or when
/// [`Place`] does not refuse to replace the target's.
#[must_use]
pub fn wanted(open: &[Gap], taken: &BTreeSet<Provider>, place: &Place<'_>) -> Wanted {
    let home = place.home;
    let on_target = place.target.facts.exporting_modules();
    let mut dirs: BTreeSet<&str> = taken.iter().map(Provider::dir).collect();
    dirs.insert(&place.driver_dir);
    let mut out = Wanted::default();
    let mut asked: Vec<&str> = Vec::new();
    for symbol in open.iter().filter_map(|gap| symbol(&gap.need)) {
        let Some(export) = home.facts.export(symbol).filter(|e| e.module != "vmlinux") else {
            continue;
        };
        let name = export.module.rsplit('/').next().unwrap_or_default();
        let mut provider = Provider {
            on_target: on_target.contains(&plain(name)),
            path: export.module.clone(),
            kept: BTreeSet::new(),
        };
        let is_own = place.own_modules.contains(&plain(name));
        if is_own || taken.iter().any(|t| t.path == provider.path) {
            continue;
        }
        if provider.on_target {
            match place.replaceable(&provider, &dirs) {
                Ok(kept) => provider.kept = kept,
                Err(refusal) => {
                    let why = format!(
                        "{symbol} comes from the module {name}; the target's own {name} does not have it, and {refusal}"
                    );
                    out.refused.insert(symbol.to_owned(), why);
                    continue;
                }
            }
        }
        asked.push(symbol);
        out.providers.insert(provider);
    }
    if taken.len() + out.providers.len() > MOST {
        out.providers.clear();
        for symbol in asked {
            let why =
                format!("{symbol} would bring along more than {MOST} modules of the home kernel");
            out.refused.insert(symbol.to_owned(), why);
        }
    }
    out
}

fn symbol(need: &Need) -> Option<&str> {
    match need {
        Need::Export { symbol } => Some(symbol),
        Need::Name { name, .. } | Need::Signature { name } => Some(name),
        // A function of another module that stands in a table of the driver's.
        Need::Callback { function, .. } => Some(function),
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

/// What no provider closes: gaps other than a symbol of some module, and the compiler's words, which may follow from one.
#[must_use]
pub fn stays(open: &[Gap], home: &View) -> bool {
    let of_module = |symbol: &str| {
        let export = home.facts.export(symbol);
        export.is_some_and(|e| e.module != "vmlinux")
    };
    open.iter().any(|gap| match &gap.need {
        Need::Diagnostic { .. } | Need::Header { .. } => false,
        need => !symbol(need).is_some_and(of_module),
    })
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

/// Symbols whose module may not come along and that the home kernel's header has a stub for.
#[must_use]
pub fn stubbed(wanted: &Wanted, home: &View) -> BTreeSet<String> {
    let has_stub = |symbol: &&String| {
        let header = home.facts.defs(symbol).into_iter().next();
        let text = header.and_then(|d| std::fs::read(home.header_path(&d.header)?).ok());
        text.is_some_and(|t| stub::find(&String::from_utf8_lossy(&t), symbol).is_some())
    };
    wanted.refused.keys().filter(has_stub).cloned().collect()
}

/// Says of open gaps why the module behind them may not come along.
pub fn explain(open: &mut [Gap], wanted: &Wanted) {
    for gap in open {
        if let Some(why) = symbol(&gap.need).and_then(|s| wanted.refused.get(s)) {
            gap.why.clone_from(why);
        }
    }
}

/// The gaps of a port, those that providers would close with a word on what came of the attempt.
#[must_use]
pub fn told(open: &[Gap], taken: &BTreeSet<Provider>, home: &View, outcome: &str) -> Vec<Gap> {
    let names: Vec<&str> = taken.iter().map(Provider::name).collect();
    let names = names.join(", ");
    let behind = |gap: &Gap| {
        let export = symbol(&gap.need).and_then(|s| home.facts.export(s));
        export.is_some_and(|e| taken.iter().any(|p| p.path == e.module))
    };
    let tell = |gap: &Gap| match behind(gap) {
        true => Gap {
            why: format!("{}; with {names}: {outcome}", gap.why),
            ..gap.clone()
        },
        false => gap.clone(),
    };
    open.iter().map(tell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(path: &str) -> Provider {
        Provider {
            path: path.to_owned(),
            on_target: false,
            kept: BTreeSet::new(),
        }
    }

    #[test]
    fn a_provider_names_what_others_take_from_it() {
        let mut on_target = provider("sound/a/a-core");
        on_target.on_target = true;
        assert!(!on_target.meaning().contains("same type"));
        on_target.kept = BTreeSet::from(["a_open".to_owned(), "a_close".to_owned()]);
        assert!(
            on_target
                .meaning()
                .ends_with("(a_close, a_open: of the same type in both)")
        );
    }

    #[test]
    fn the_kbuild_file_descends_into_the_providers() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Makefile"), "obj-m := a.o").unwrap();
        descend(dir.path(), &BTreeSet::from([provider("drivers/x/a-core")])).unwrap();
        let text = std::fs::read_to_string(dir.path().join("Makefile")).unwrap();
        assert!(text.starts_with("obj-m := a.o\n"), "{text}");
        assert!(text.ends_with("obj-m += providers/a_core/\n"), "{text}");
    }

    #[test]
    fn a_drivers_directory_is_that_of_its_file_or_itself() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tree.path().join("drivers/x/y")).unwrap();
        std::fs::write(
            tree.path().join("kspan.toml"),
            "name = \"a\"\nhome = \"7.3\"\nmodules = [\"a\"]\n",
        )
        .unwrap();
        let mut driver = Driver::load(tree.path()).unwrap();
        assert_eq!(driver_dir(&driver, tree.path()), "");
        for (path, dir) in [
            ("drivers/x/y", "drivers/x/y"),
            ("drivers/x/y/m", "drivers/x/y"),
            ("drivers/x/a.c", "drivers/x"),
        ] {
            driver.manifest.origin = Some(crate::driver::Origin {
                kernel: "7.3".to_owned(),
                path: path.to_owned(),
            });
            assert_eq!(driver_dir(&driver, tree.path()), dir);
        }
    }
}
