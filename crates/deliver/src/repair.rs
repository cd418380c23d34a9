//! Self-repair: a package whose source does not build for a kernel is ported to it, from the newest kernel that it builds for.

use crate::conf::Conf;
use crate::session::{Package, Session, Target};
use crate::{Result, Stop, disk};
use kspan_kernel::{Cache, KbuildOptions};
use kspan_port::driver::{Driver, MANIFEST_FILE, init_out_of_tree};
use kspan_port::{Engine, Port, Verdict};
use std::path::{Path, PathBuf};

/// So many kernels are tried as the one that the source was written for.
const HOMES: usize = 3;

/// The record that a ported build leaves beside its modules.
pub const RECORD: &str = ".kspan-port.json";

/// A source that was ported.
pub struct Ported {
    /// It, in a temporary directory.
    dir: tempfile::TempDir,
    /// The compiler of this machine that it was tried with; the kernel may name one that is not here.
    pub compiler: Option<String>,
}

impl Session<'_> {
    /// After a build that failed: a port of the source, if one can be had that may be used. What is done is told on stderr; where
    /// there is no other kernel to port from, nothing is said.
    pub(crate) fn port_of(
        &self,
        package: &Package,
        target: &Target,
        conf: &Conf,
    ) -> Result<Option<Ported>> {
        // Patches and scripts change the source as it is built: what they would do to a port is not known.
        let plain = conf.patches.is_empty() && conf.script("pre_build").is_empty();
        let Some((engine, homes)) = self.engine(target).filter(|_| plain) else {
            return Ok(None);
        };
        let dir = self.tree.own("repair");
        disk::make_dir(&dir)?;
        let work = tempfile::tempdir_in(&dir).map_err(Stop::io(&dir))?;
        let source = work.path().join("source");
        disk::copy_tree(&self.tree.source_link(package), &source)?;
        let kernel_dir = self.kernel_dir(&target.kernel);
        let port = homes
            .iter()
            .find_map(|home| self.port_from(&engine, home, &source, &kernel_dir, package, target));
        match port {
            Some(port) if self.may_use(&port, package, target) => {
                let compiler = compiler(&engine, &kernel_dir);
                take(&port, work, compiler).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The engine, and the kernels that the source may be written for, the newest first.
    fn engine(&self, target: &Target) -> Option<(Engine, Vec<String>)> {
        let cache = Cache::open().ok()?;
        let mut homes: Vec<String> = cache
            .kernels()
            .ok()?
            .into_iter()
            .filter(|k| k.release != target.kernel)
            .map(|k| k.id)
            .collect();
        homes.reverse();
        let installed = disk::names(&self.install_tree)
            .into_iter()
            .rev()
            .filter(|k| *k != target.kernel)
            .map(|k| self.install_tree.join(k).join("build"))
            .filter(|d| d.join("include").exists());
        homes.extend(installed.map(|d| d.display().to_string()));
        homes.truncate(HOMES);
        (!homes.is_empty()).then_some(())?;
        Some((Engine::new(cache).ok()?, homes))
    }

    fn port_from(
        &self,
        engine: &Engine,
        home: &str,
        source: &Path,
        kernel_dir: &Path,
        package: &Package,
        target: &Target,
    ) -> Option<Port> {
        let port = derive(engine, home, source, kernel_dir).ok()?;
        match port.verdict {
            Verdict::Native | Verdict::Ported => Some(port),
            // It does not build there either: not its home.
            Verdict::Broken => None,
            Verdict::Open => {
                let first = port.open.first().map_or("", |g| g.why.as_str());
                self.talk.err(&format!(
                    "{package} builds for {home}, and no port of it to {target} is complete: {} gaps are left, the first: {first}\n",
                    port.open.len()
                ));
                None
            }
        }
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

fn derive(
    engine: &Engine,
    home: &str,
    source: &Path,
    kernel_dir: &Path,
) -> kspan_port::Result<Port> {
    let manifest = source.join(MANIFEST_FILE);
    // One of an earlier home.
    let _ = std::fs::remove_file(&manifest);
    init_out_of_tree(source, home)?;
    let driver = Driver::load(source)?;
    let target = engine.view(&kernel_dir.display().to_string())?;
    let options = KbuildOptions {
        jobs: 2,
        ..KbuildOptions::default()
    };
    engine.port(&driver, &target, &options)
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
    })
}

impl Ported {
    /// Its source.
    pub fn source(&self) -> PathBuf {
        self.dir.path().join("port")
    }
}
