//! Self-repair: a package whose source does not build for a kernel is ported to it, from the newest kernel that it builds for.

use crate::conf::{Conf, Reading};
use crate::scripts::Workshop;
use crate::session::{Package, Session, Target};
use crate::{Result, Stop, disk, upgraded};
use kspan_kernel::hash_tree;
use kspan_kernel::{Cache, KbuildOptions, Kernel};
use kspan_port::driver::{Built, Driver, capture, freeze_version, version_code};
use kspan_port::{Engine, Port};
use std::path::{Path, PathBuf};

/// So many kernels are tried as the one that the source was written for.
const HOMES: usize = 3;

/// The form in which captured sources are kept.
const CAPTURED: &str = "captured-1";

/// The record that a ported build leaves beside its modules.
pub const RECORD: &str = ".kspan-port.json";

/// A source that was ported.
pub struct Ported {
    /// It, in a temporary directory.
    dir: tempfile::TempDir,
    /// The compiler of this machine that it was tried with; the kernel may name one that is not here.
    pub compiler: Option<String>,
    /// The modules that it makes.
    modules: Vec<PathBuf>,
}

/// A kernel that the source may be written for.
pub struct Candidate {
    /// Its name in kspan's cache, or its build directory.
    name: String,
    target: Target,
    dir: PathBuf,
}

/// How the source asks for the kernel's version in a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Versions {
    /// As it is: the source's own form for the target counts.
    AsWritten,
    /// Decided as at home: the source takes the form that it has for its home kernel.
    AsAtHome,
}

impl Session<'_> {
    /// After a build that failed: a port of the source, if one can be had that may be used. What is done is told on stderr; where
    /// there is no other kernel to port from, nothing is said.
    pub(crate) fn port_of(&mut self, package: &Package, target: &Target) -> Result<Option<Ported>> {
        let Some((engine, homes)) = self.engine(target) else {
            return Ok(None);
        };
        let dir = self.tree.own("repair");
        disk::make_dir(&dir)?;
        let work = tempfile::tempdir_in(&dir).map_err(Stop::io(&dir))?;
        let found = self.best_port(&engine, &homes, work.path(), package, target);
        self.at_home = None;
        match found? {
            Some(port) if self.may_use(&port, package, target) => {
                let compiler = compiler(&engine, &self.kernel_dir(&target.kernel));
                take(&port, work, compiler).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The ports of the newest home of which one builds: the first without a known risk, else the first. Where the target is newer than a
    /// home, what no overlay closes is tried as an upgrade of the source.
    pub(crate) fn best_port(
        &mut self,
        engine: &Engine,
        homes: &[Candidate],
        work: &Path,
        package: &Package,
        target: &Target,
    ) -> Result<Option<Port>> {
        let kernel_dir = self.kernel_dir(&target.kernel);
        let (mut risky, mut why, mut tried) = (None, None, Vec::new());
        for home in homes {
            let source = work.join(&home.target.kernel);
            if let Err(words) = self.captured(engine, home, &source, package)? {
                tried.push(format!("{}: {words}", home.target.kernel));
                continue;
            }
            for versions in [Versions::AsWritten, Versions::AsAtHome] {
                for made in derive(engine, &source, &kernel_dir, versions) {
                    match made {
                        Ok(port) if port.risks().is_empty() => return Ok(Some(port)),
                        Ok(port) => drop(risky.get_or_insert(port)),
                        Err(words) => drop(why.get_or_insert(words)),
                    }
                }
            }
            // From an older home there is only more to change.
            if risky.is_some() {
                break;
            }
        }
        match (&risky, why) {
            (None, Some(why)) => self.talk.err(&format!("{package}: no port of it to {target} is complete: {why}\n")),
            (None, None) => self.talk.err(&format!(
                "{package} cannot be ported to {target}: it does not build for any other kernel at hand ({})\n",
                tried.join("; ")
            )),
            _ => {}
        }
        Ok(risky)
    }

    /// The engine, and the kernels that the source may be written for, the newest first.
    pub(crate) fn engine(&self, target: &Target) -> Option<(Engine, Vec<Candidate>)> {
        let cache = Cache::open().ok()?;
        let candidate = |name: String, kernel: String, dir: PathBuf| Candidate {
            name,
            dir,
            target: Target {
                kernel,
                arch: target.arch.clone(),
            },
        };
        let mut homes: Vec<Candidate> = cache
            .kernels()
            .ok()?
            .into_iter()
            .rev()
            .filter(|k| k.release != target.kernel)
            .map(|k| candidate(k.id, k.release, k.build_dir))
            .collect();
        let installed = disk::names(&self.install_tree)
            .into_iter()
            .rev()
            .filter(|k| *k != target.kernel && homes.iter().all(|h| h.target.kernel != *k))
            .map(|k| (self.install_tree.join(&k).join("build"), k))
            .filter(|(d, _)| d.join("include").exists())
            .map(|(d, k)| candidate(d.display().to_string(), k, d))
            .collect::<Vec<_>>();
        homes.extend(installed);
        homes.truncate(HOMES);
        (!homes.is_empty()).then_some(())?;
        Some((Engine::new(cache).ok()?, homes))
    }

    /// Builds the package for a home kernel by its own commands, and makes what that left a driver in `source`. The inner error
    /// says why that kernel is not its home.
    fn captured(
        &mut self,
        engine: &Engine,
        home: &Candidate,
        source: &Path,
        package: &Package,
    ) -> Result<std::result::Result<(), String>> {
        self.at_home = Some((home.target.kernel.clone(), home.dir.clone()));
        let Ok(view) = engine.view(&home.name) else {
            return Ok(Err("its facts cannot be read".to_owned()));
        };
        let file = self.conf_file(package);
        let conf = self.read_conf(package, &home.target, &file, Reading::Strict)?;
        if !conf.errors.is_empty() || conf.excluded {
            return Ok(Err("dkms.conf excludes it".to_owned()));
        }
        let shop = self.workshop(package, &home.target, &self.tree.source_link(package))?;
        let kept = self.place_of_captured(engine, &view.kernel, &shop, &conf, home)?;
        let built = match kept.is_dir() {
            true => Ok(()),
            false => self.build_and_capture(engine, &view.kernel, &shop, &conf, home, package)?,
        };
        if built.is_ok() {
            keep_whole(&shop.real, &kept)?;
            disk::copy_tree(&kept, source)?;
        }
        disk::remove_tree(&shop.real)?;
        Ok(built)
    }

    /// Where kspan's cache keeps what the package's commands make of its source for a home kernel: by the content of all that decides it.
    fn place_of_captured(
        &self,
        engine: &Engine,
        kernel: &Kernel,
        shop: &Workshop,
        conf: &Conf,
        home: &Candidate,
    ) -> Result<PathBuf> {
        let failed = |e: kspan_kernel::Error| Stop::error(3, [e.to_string()]);
        let mut hasher = blake3::Hasher::new();
        hash_tree(&shop.real, &mut hasher).map_err(failed)?;
        let shown = shop.shown.display().to_string();
        let commands = self.build_commands(shop, conf, &home.target);
        let texts = commands.iter().map(|c| c.replace(&shown, "."));
        for text in [CAPTURED.to_owned(), kernel.digest.clone()]
            .into_iter()
            .chain(texts)
        {
            hasher.update(text.as_bytes()).update(&[0]);
        }
        let name = hasher.finalize().to_hex();
        Ok(engine.cache.root().join("captured").join(name.as_str()))
    }

    /// Builds the package where the workshop is, and makes that a driver. The inner error says why it is none.
    fn build_and_capture(
        &self,
        engine: &Engine,
        kernel: &Kernel,
        shop: &Workshop,
        conf: &Conf,
        home: &Candidate,
        package: &Package,
    ) -> Result<std::result::Result<(), String>> {
        if !self.built_quietly(shop, conf, &home.target)? {
            return Ok(Err("does not build".to_owned()));
        }
        let flags = engine
            .cache
            .compile_flags(kernel)
            .map_err(|e| Stop::error(3, [e.to_string()]))?;
        let commands = engine.cache.compilations(kernel, &shop.real, &shop.shown);
        let built = Built {
            kernel,
            dir: &shop.real,
            shown: &shop.shown,
            commands: &commands,
            template: &flags.args,
        };
        Ok(capture(&built, &package.name, &package.version)
            .map(|_| ())
            .map_err(|e| e.to_string()))
    }

    /// What the package does to build, in its order.
    fn build_commands(&self, shop: &Workshop, conf: &Conf, home: &Target) -> Vec<String> {
        let patches = conf
            .patches
            .iter()
            .filter(|p| !p.split('/').any(|part| part == ".."))
            .map(|p| format!("patch -p1 < ./patches/{p}"));
        let script = Some(conf.script("pre_build"))
            .filter(|s| !s.is_empty())
            .map(|s| format!("cd {0}/ && {0}/{s}", shop.shown.display()));
        let make = self.make_command(conf, home);
        patches.chain(script).chain([make]).collect()
    }

    /// Runs what the package does to build, and says nothing of it: true if its modules are there.
    pub(crate) fn built_quietly(
        &self,
        shop: &Workshop,
        conf: &Conf,
        home: &Target,
    ) -> Result<bool> {
        for command in self.build_commands(shop, conf, home) {
            if self.quietly(shop, &command)? != 0 {
                return Ok(false);
            }
        }
        let there = |m: &crate::conf::Module| {
            shop.real
                .join(format!("{}{}.ko", m.directory, m.built))
                .is_file()
        };
        Ok(conf.wanted().all(there))
    }

    /// Tells what a port does; one with risks is used only by force.
    fn may_use(&self, port: &Port, package: &Package, target: &Target) -> bool {
        self.talk.err(&format!(
            "{package} does not build for {target} as it is; it was ported from {}: {} remedies.\n",
            port.home,
            port.remedies.len()
        ));
        let risks = port.risks();
        for risk in &risks {
            self.talk.err(&format!("  may act otherwise: {risk}\n"));
        }
        let allowed = risks.is_empty() || self.force;
        if !allowed {
            self.talk.err("The port is not used by itself, since it may act otherwise: `build --force` uses it.\n");
        }
        allowed
    }
}

/// Keeps a captured source, unless it is kept: whole or not at all, and with no link that leads out of it.
fn keep_whole(from: &Path, place: &Path) -> Result<()> {
    let Some(dir) = place.parent().filter(|_| !place.is_dir()) else {
        return Ok(());
    };
    disk::make_dir(dir)?;
    let staged = tempfile::tempdir_in(dir).map_err(Stop::io(dir))?;
    let copy = staged.path().join("source");
    disk::copy_tree(from, &copy)?;
    disk::drop_links_out(&copy)?;
    // Where another was faster, what it kept is the same.
    if std::fs::rename(&copy, place).is_err() && !place.is_dir() {
        return Err(Stop::error(
            3,
            [format!("{} cannot be written.", place.display())],
        ));
    }
    Ok(())
}

fn what_is_left(port: &Port) -> String {
    let first = port
        .open
        .first()
        .map_or(port.broken.lines().next().unwrap_or_default(), |g| {
            g.why.as_str()
        });
    format!(
        "from {}, {} gaps are left, the first: {first}",
        port.home,
        port.open.len()
    )
}

/// What comes of a captured source: its port; where that has gaps or risks and the target is newer, the upgraded source, too. For each the
/// reason if it does not build. Nothing, when deciding the versions changes nothing.
fn derive(
    engine: &Engine,
    source: &Path,
    kernel_dir: &Path,
    versions: Versions,
) -> Vec<std::result::Result<Port, String>> {
    match derived(engine, source, kernel_dir, versions) {
        Ok(made) => made,
        Err(why) => vec![Err(why.to_string())],
    }
}

fn derived(
    engine: &Engine,
    source: &Path,
    kernel_dir: &Path,
    versions: Versions,
) -> kspan_port::Result<Vec<std::result::Result<Port, String>>> {
    let mut driver = Driver::load(source)?;
    let home = engine.view(&driver.manifest.home)?;
    if versions == Versions::AsAtHome {
        let code = version_code(&home.kernel).unwrap_or_default();
        if code == 0 || freeze_version(source, code)? == 0 {
            return Ok(Vec::new());
        }
        driver = Driver::load(source)?;
    }
    let target = engine.view(&kernel_dir.display().to_string())?;
    let options = KbuildOptions {
        jobs: 2,
        ..KbuildOptions::default()
    };
    let port = engine.port(&driver, &target, &options)?;
    let good = port.builds() && port.risks().is_empty();
    let findings = port.findings.clone();
    let mut made = vec![match port.builds() {
        true => Ok(port),
        false => Err(what_is_left(&port)),
    }];
    if !good && upgraded::leads_to(&home, &target) {
        let name = format!("{}-moved-up-{versions:?}", home.kernel.release);
        let to = source.with_file_name(name);
        let moved = upgraded::port(engine, &driver, &target, &options, &findings, &to);
        // A port that is there already is not lost with it.
        made.push(moved.unwrap_or_else(|why| Err(why.to_string())));
    }
    Ok(made)
}

/// The compiler that was found to build for a kernel, if it is this machine's own.
fn compiler(engine: &Engine, kernel_dir: &Path) -> Option<String> {
    let view = engine.view(&kernel_dir.display().to_string()).ok()?;
    let toolchain = engine.cache.toolchain(&view.kernel).ok()?;
    toolchain.root.is_none().then_some(toolchain.cc)
}

/// Copies a port's files out of the engine's cache.
fn take(port: &Port, work: tempfile::TempDir, compiler: Option<String>) -> Result<Ported> {
    let from: PathBuf = port.dir.clone().unwrap_or_default();
    let to = work.path().join("port");
    for file in &port.files {
        let place = to.join(file);
        if let Some(dir) = place.parent() {
            disk::make_dir(dir)?;
        }
        std::fs::copy(from.join(file), &place).map_err(Stop::io(&place))?;
    }
    let text = serde_json::to_vec_pretty(port).map_err(|e| Stop::error(1, [e.to_string()]))?;
    disk::write(&to.join(RECORD), &text)?;
    Ok(Ported {
        dir: work,
        compiler,
        modules: port.modules.clone(),
    })
}

impl Ported {
    /// The directory, with a slash at its end unless empty, in which the port makes a module.
    pub fn directory_of(&self, module: &str) -> String {
        let made = self
            .modules
            .iter()
            .find(|m| m.file_stem().is_some_and(|s| s == module));
        let dir = made.and_then(|m| m.parent()).unwrap_or(Path::new(""));
        match dir.as_os_str().is_empty() {
            true => String::new(),
            false => format!("{}/", dir.display()),
        }
    }

    /// Its source.
    pub fn source(&self) -> PathBuf {
        self.dir.path().join("port")
    }
}
