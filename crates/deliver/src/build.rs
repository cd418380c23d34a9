//! `build`: from source to modules in the tree, apart from what was built before until it is whole.

use crate::conf::{Conf, Module, Reading};
use crate::evaluate::quoted;
use crate::modinfo;
use crate::scripts::{Workshop, open_log};
use crate::session::{Package, Session, Target};
use crate::sign::on_path;
use crate::{Result, Stop, VERSION, disk, kernels, version};
use kspan_kernel::shell::Mount;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;

/// Exit codes of a source that does not build: make failed, or made something else.
const NOT_BUILT: [u8; 2] = [10, 7];

impl Session<'_> {
    /// Builds the named package for every kernel of the command line.
    pub(crate) fn build(&mut self) -> Result<()> {
        let package = self.named_or_source()?;
        for target in self.targets.clone() {
            self.apart(|s| s.build_unless_built(&package, &target))?;
        }
        Ok(())
    }

    /// The package that is named, or whose source is.
    pub(crate) fn named_or_source(&mut self) -> Result<Package> {
        if self.request.module.is_empty()
            && self.request.version.is_empty()
            && self.request.archive.is_some()
        {
            self.load_tarball()?;
        } else if self.request.module.is_empty()
            && let Some(source) = self.request.source.clone()
        {
            self.add_source(&source)?;
        }
        self.named(crate::Action::Add)?;
        Ok(self.package())
    }

    fn build_unless_built(&mut self, package: &Package, target: &Target) -> Result<()> {
        if self.tree.is_built(package, target) && !self.force {
            self.say(&format!(
                "Module {package} already built for {target}, skip. You may override by specifying --force."
            ));
            return Ok(());
        }
        self.build_one(package, target)
    }

    /// Builds one package for one kernel, registering it first if need be.
    pub(crate) fn build_one(&mut self, package: &Package, target: &Target) -> Result<()> {
        if !self.tree.is_added(package) {
            self.register(package, target)?;
            self.say("");
        }
        let conf = self.conf(package, target, Reading::Strict)?;
        self.may_build(package, target, &conf)?;
        self.prepare(target)?;
        self.depends(package, target, &conf)?;
        if self.take_over(package, target, &conf)? {
            return self.note_end(package, target, &Ok(()));
        }
        let source = self.tree.source_link(package);
        let result = self.attempt(package, target, &conf, &source);
        let result = match result {
            Err(stop) if NOT_BUILT.contains(&stop.code()) && !self.request.no_repair => {
                self.repaired(package, target, &conf, stop)
            }
            result => result,
        };
        self.note_end(package, target, &result)?;
        result
    }

    /// One build of a source, as it is or ported.
    fn attempt(
        &mut self,
        package: &Package,
        target: &Target,
        conf: &Conf,
        source: &Path,
    ) -> Result<()> {
        let shop = self.workshop(package, target, source)?;
        let result = self.make(package, target, conf, &shop);
        self.clear_up(package, &shop, result.is_ok())?;
        result
    }

    /// After a build that failed: the build of a port, if there is one; else what the failure said.
    fn repaired(
        &mut self,
        package: &Package,
        target: &Target,
        conf: &Conf,
        failure: Stop,
    ) -> Result<()> {
        let Some(ported) = self.port_of(package, target)? else {
            return Err(failure);
        };
        // A port is a plain Kbuild directory, whatever the package does to its own source: that has been done.
        let place = |module: &Module| Module {
            directory: ported.directory_of(&module.built),
            ..module.clone()
        };
        let conf = Conf {
            make: format!(
                "make -C {} M={}{} modules",
                self.kernel_dir(&target.kernel).display(),
                self.tree.build(package).display(),
                ported
                    .compiler
                    .as_ref()
                    .map_or(String::new(), |cc| format!(" CC={cc}"))
            ),
            modules: conf.modules.iter().map(place).collect(),
            patches: Vec::new(),
            scripts: conf
                .scripts
                .iter()
                .filter(|(step, _)| *step != "pre_build")
                .cloned()
                .collect(),
            ..conf.clone()
        };
        self.say("");
        self.attempt(package, target, &conf, &ported.source())
    }

    fn may_build(&self, package: &Package, target: &Target, conf: &Conf) -> Result<()> {
        if conf.excluded {
            return Err(Stop::warning(
                77,
                [
                    format!(
                        "The {}/dkms.conf",
                        self.tree.base(package, target).display()
                    ),
                    format!("for module {package} includes BUILD_EXCLUSIVE directives"),
                    "which do not match this kernel/arch/config for any modules.".to_owned(),
                    "This indicates that it should not be built.".to_owned(),
                ],
            ));
        }
        let source = self.tree.source_link(package);
        if disk::names(&source).len() < 2 {
            return Err(Stop::error(
                8,
                [
                    format!(
                        "The directory {} does not appear to have module source located within it.",
                        source.display()
                    ),
                    "Build halted.".to_owned(),
                ],
            ));
        }
        Ok(())
    }

    fn depends(&self, package: &Package, target: &Target, conf: &Conf) -> Result<()> {
        let missing: String = conf
            .depends
            .iter()
            .filter(|d| !self.has(d, target))
            .map(|d| format!(" {d}"))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if self.force {
            self.warn(&[&format!(
                "Trying to build module {package} for {target} despite of missing BUILD_DEPENDS:{missing}."
            )]);
            return Ok(());
        }
        Err(Stop::error(
            13,
            [
                format!(
                    "Aborting build of module {package} for {target} due to missing BUILD_DEPENDS:{missing}."
                ),
                "You may override by specifying --force.".to_owned(),
            ],
        ))
    }

    /// Is any version of a package installed for this kernel?
    fn has(&self, name: &str, target: &Target) -> bool {
        self.tree
            .packages(name, "")
            .iter()
            .any(|p| self.tree.is_added(p) && self.tree.is_installed(p, target))
    }

    /// A fresh copy of the source, with a log begun.
    pub(crate) fn workshop(
        &self,
        package: &Package,
        target: &Target,
        source: &Path,
    ) -> Result<Workshop> {
        let named = self.tree.build(package);
        // Seen under one name by every build, but each kernel has its own. Without a sandbox there is only one place.
        let shown = self.build_seen(package);
        let real = match self.warned_of_no_sandbox.load(Ordering::Relaxed) {
            true => named.clone(),
            false => self
                .tree
                .package(package)
                .join(format!(".kspan-build-{}-{}", target.kernel, target.arch)),
        };
        disk::remove_tree(&real)?;
        disk::copy_tree(source, &real)?;
        disk::make_dir(&named)?;
        let mut also = Vec::new();
        if shown != named {
            disk::make_dir(&shown)?;
            // Its commands may say where dkms builds it.
            also.push(Mount {
                real: real.clone(),
                shown: named.clone(),
            });
        }
        let patches = Path::new("/etc/dkms").join(&package.name).join("patches");
        if patches.is_dir() {
            disk::copy_tree(&patches, &real.join("patches"))?;
        }
        let log_name = named.join("make.log");
        let mut log = open_log(&real.join("make.log"))?;
        writeln!(
            log,
            "DKMS ({VERSION}) make.log for {package} for {target}\n{}",
            now()
        )
        .map_err(Stop::io(&log_name))?;
        let cached = self.cached_kernel(&target.kernel);
        let mut readable = vec![
            self.kernel_dir(&target.kernel),
            self.tree.source_link(package),
        ];
        readable.extend(cached.iter().flat_map(|c| c.dirs.clone()));
        Ok(Workshop {
            log,
            log_name,
            prelude: self.prelude(package, target),
            environment: self.compilers(target, cached.as_ref())?,
            also,
            readable,
            root: cached
                .as_ref()
                .map(|c| c.toolchain.root.clone().unwrap_or_else(|| "/".into())),
            placed: cached.map(|c| c.placed).unwrap_or_default(),
            jobserver: self
                .jobserver
                .clone()
                .map(|client| (client, format!("make -j{} ", self.jobs()))),
            shown,
            real,
        })
    }

    /// The directory that the package's commands see as theirs.
    pub(crate) fn build_seen(&self, package: &Package) -> PathBuf {
        match self.warned_of_no_sandbox.load(Ordering::Relaxed) {
            true => self.tree.build(package),
            false => self.tree.shown(package),
        }
    }

    /// The variables that a build command may name, and the administrator's build environment.
    fn prelude(&self, package: &Package, target: &Target) -> String {
        let path = |p: &Path| p.display().to_string();
        let variables = [
            ("kernelver", target.kernel.clone()),
            ("arch", target.arch.clone()),
            ("module", package.name.clone()),
            ("module_version", package.version.clone()),
            ("PACKAGE_NAME", package.name.clone()),
            ("PACKAGE_VERSION", package.version.clone()),
            ("dkms_tree", path(&self.tree.dkms)),
            ("source_tree", path(&self.tree.source)),
            ("install_tree", path(&self.install_tree)),
            ("kernel_source_dir", path(&self.kernel_dir(&target.kernel))),
            ("parallel_jobs", self.jobs()),
        ];
        let mut text: String = variables
            .iter()
            .map(|(n, v)| format!("{n}={}\n", quoted(v)))
            .collect();
        let environment = self.settings.first("build_environment");
        if !environment.is_empty() && Path::new(environment).is_file() {
            text.push_str(&format!(". {} >/dev/null 2>&1\n", quoted(environment)));
        }
        text
    }

    fn make(
        &mut self,
        package: &Package,
        target: &Target,
        conf: &Conf,
        shop: &Workshop,
    ) -> Result<()> {
        self.patch(conf, shop, package, target)?;
        self.build_script(shop, package, "pre_build", conf.script("pre_build"))?;
        let command = self.make_command(conf, target);
        if self.work(shop, &command, "Building module(s)")? != 0 {
            return Err(self.problem(
                package,
                target,
                10,
                vec![
                    format!("Bad return status for module build on {target}")
                        .replace("on kernel ", "on kernel: "),
                    consult(shop),
                ],
            ));
        }
        self.all_built(conf, shop, package, target)?;
        let staged = self.collect(package, target, conf, shop)?;
        self.note_dependencies(conf, target, staged.path())?;
        self.finish(package, target, conf, shop, staged)
    }

    /// The build command, as dkms completes it.
    pub(crate) fn make_command(&self, conf: &Conf, target: &Target) -> String {
        match conf.make.strip_prefix("make") {
            Some(rest) => format!(
                "make -j{} KERNELRELEASE={}{rest}",
                self.jobs(),
                target.kernel
            ),
            None => conf.make.clone(),
        }
    }

    fn patch(
        &self,
        conf: &Conf,
        shop: &Workshop,
        package: &Package,
        target: &Target,
    ) -> Result<()> {
        for patch in &conf.patches {
            if format!("patches/{patch}").contains("/../") {
                let line = format!(
                    "Patch {patch} as specified in dkms.conf contains '..' path component."
                );
                return Err(self.problem(package, target, 5, vec![line]));
            }
            if !shop.real.join("patches").join(patch).exists() {
                let lines = vec![
                    format!("Patch {patch} as specified in dkms.conf cannot be"),
                    format!("found in {}/patches/.", shop.shown.display()),
                ];
                return Err(self.problem(package, target, 5, lines));
            }
            let command = format!("patch -p1 < ./patches/{patch}");
            if self.work(shop, &command, &format!("Applying patch {patch}"))? != 0 {
                let line = format!("Application of patch {patch} failed.");
                return Err(self.problem(package, target, 6, vec![line, consult(shop)]));
            }
        }
        Ok(())
    }

    fn all_built(
        &self,
        conf: &Conf,
        shop: &Workshop,
        package: &Package,
        target: &Target,
    ) -> Result<()> {
        for module in conf.wanted() {
            let name = format!("{}{}.ko", module.directory, module.built);
            if !shop.real.join(&name).exists() {
                let lines = vec![
                    format!(
                        "Build of {name} failed for: {} ({})",
                        target.kernel, target.arch
                    ),
                    "Make sure the name and location of the generated module are correct,"
                        .to_owned(),
                    format!(
                        "or consult {} for more information.",
                        shop.log_name.display()
                    ),
                ];
                return Err(self.problem(package, target, 7, lines));
            }
        }
        Ok(())
    }

    /// Strips, signs, packs and gathers the modules, in this order.
    fn collect(
        &self,
        package: &Package,
        target: &Target,
        conf: &Conf,
        shop: &Workshop,
    ) -> Result<tempfile::TempDir> {
        let kernel_dir = self.tree.package(package).join(&target.kernel);
        disk::make_dir(&kernel_dir)?;
        let staged = tempfile::Builder::new()
            .prefix(&format!(".tmp_{}_", target.arch))
            .tempdir_in(&kernel_dir)
            .map_err(Stop::io(&kernel_dir))?;
        let modules = staged.path().join("module");
        disk::make_dir(&modules)?;
        disk::make_dir(&staged.path().join("log"))?;
        let symvers = shop.real.join("Module.symvers");
        if symvers.is_file() {
            disk::copy(&symvers, &modules.join("Module.symvers"))?;
        }
        let suffix = kernels::suffix(&self.lib(&target.kernel));
        let clang = shop
            .environment
            .iter()
            .any(|(n, v)| n == "CC" && v == "clang");
        for module in conf.wanted() {
            let built = shop
                .real
                .join(format!("{}{}.ko", module.directory, module.built));
            let shown = shop
                .shown
                .join(format!("{}{}.ko", module.directory, module.built));
            self.dress(&built, &shown, module, clang);
            let packed = self.pack(&built, suffix);
            let ending = packed.as_ref().map_or("", |_| suffix);
            let name = format!("{}.ko{ending}", module.name);
            disk::copy(packed.as_ref().unwrap_or(&built), &modules.join(name))?;
        }
        self.complete(conf, &modules, 7, "Missing module", true)?;
        Ok(staged)
    }

    fn dress(&self, built: &Path, shown: &Path, module: &Module, clang: bool) {
        if module.strip {
            let strip = if clang { "llvm-strip" } else { "strip" };
            // A module with its debug information works as well; a machine without strip still gets it.
            let mut command = Command::new(strip);
            command.arg("-g").arg(built);
            self.talk.child(&mut command);
            let _ = command.status();
        }
        self.sign(built, shown);
    }

    /// Packs a module as the kernel's own are; none if that does not work.
    fn pack(&self, built: &Path, suffix: &str) -> Option<PathBuf> {
        let (program, options, default) = match suffix {
            ".gz" => ("gzip", "compress_gzip_opts", ""),
            ".xz" => ("xz", "compress_xz_opts", "--check=crc32 --lzma2=dict=1MiB"),
            ".zst" => ("zstd", "compress_zstd_opts", "-q --rm -T0"),
            _ => return None,
        };
        let options = self
            .settings
            .arrays
            .get(options)
            .and_then(|a| a.get(&0))
            .map_or(default, String::as_str);
        let mut command = Command::new(program);
        command
            .args(options.split_whitespace())
            .arg("-f")
            .arg(built);
        self.talk.child(&mut command);
        let packed = built.with_extension(format!("ko{suffix}"));
        (command.status().is_ok_and(|s| s.success()) && packed.is_file()).then_some(packed)
    }

    /// Every wanted module lies in a directory.
    pub(crate) fn complete(
        &self,
        conf: &Conf,
        dir: &Path,
        code: u8,
        words: &str,
        quote: bool,
    ) -> Result<()> {
        let q = if quote { "'" } else { "" };
        match conf
            .wanted()
            .find(|m| !modinfo::find(dir, &m.name).is_some_and(|f| f.is_file()))
        {
            Some(m) => Err(Stop::error(
                code,
                [format!("{words} {q}{}{q} in {}", m.name, dir.display())],
            )),
            None => Ok(()),
        }
    }

    /// Which version of each dependency it was built against.
    fn note_dependencies(&self, conf: &Conf, target: &Target, staged: &Path) -> Result<()> {
        if !conf.depends_rebuild || self.force {
            return Ok(());
        }
        for name in &conf.depends {
            if let Some(version) = self.latest(name, target) {
                disk::write(
                    &staged.join(format!(".dep_{name}")),
                    format!("{version}\n").as_bytes(),
                )?;
            }
        }
        Ok(())
    }

    /// The newest version of a package that is there for a kernel, or at all.
    pub(crate) fn latest(&self, name: &str, target: &Target) -> Option<String> {
        if name.is_empty() {
            return None;
        }
        self.tree
            .entries(name, "", &target.kernel, &target.arch)
            .into_iter()
            .filter(|e| e.state != crate::tree::State::Broken)
            .map(|e| e.package.version)
            .max_by(|a, b| version::natural(a, b))
    }

    /// Puts what was built in its place, in one step; runs `post_build` before, where it can see it there.
    fn finish(
        &self,
        package: &Package,
        target: &Target,
        conf: &Conf,
        shop: &Workshop,
        staged: tempfile::TempDir,
    ) -> Result<()> {
        let base = self.tree.base(package, target);
        let script = conf.script("post_build");
        if !script.is_empty() {
            disk::make_dir(&base)?;
            let shop = Workshop {
                also: std::iter::once(Mount {
                    real: staged.path().to_path_buf(),
                    shown: base.clone(),
                })
                .chain(shop.also.iter().cloned())
                .collect(),
                log: shop.log.try_clone().map_err(Stop::io(&shop.log_name))?,
                log_name: shop.log_name.clone(),
                real: shop.real.clone(),
                shown: shop.shown.clone(),
                prelude: shop.prelude.clone(),
                environment: shop.environment.clone(),
                readable: shop.readable.clone(),
                root: shop.root.clone(),
                placed: shop.placed.clone(),
                jobserver: shop.jobserver.clone(),
            };
            let unprotected = self.warned_of_no_sandbox.load(Ordering::Relaxed);
            if unprotected {
                // It must find the modules in their place.
                disk::remove_tree(&base)?;
                disk::copy_tree(staged.path(), &base)?;
            }
            if let Err(stop) = self.build_script(&shop, package, "post_build", script) {
                if unprotected || !base.join("module").is_dir() {
                    disk::remove_tree(&base)?;
                }
                return Err(stop);
            }
            if unprotected {
                disk::remove_tree(staged.path())?;
                disk::copy_tree(&base, staged.path())?;
            }
        }
        disk::copy(
            &shop.real.join("make.log"),
            &staged.path().join("log/make.log"),
        )?;
        let port = shop.real.join(crate::repair::RECORD);
        if port.is_file() {
            disk::copy(&port, &staged.path().join(crate::repair::RECORD))?;
        }
        self.note_uses(package, target, conf, shop, staged.path())?;
        crate::verify::record(staged.path())?;
        place(staged, &base)
    }

    /// After a build: nothing stays but, of one that failed, the directory with the log that the user is told of.
    fn clear_up(&self, package: &Package, shop: &Workshop, well: bool) -> Result<()> {
        let named = self.tree.build(package);
        if shop.shown != named {
            disk::remove_tree(&shop.shown)?;
        }
        if well {
            disk::remove_tree(&shop.real)?;
            return disk::remove_tree(&named);
        }
        if shop.real != named {
            disk::remove_tree(&named)?;
            disk::rename(&shop.real, &named)?;
        }
        Ok(())
    }

    /// A build problem, also told to Ubuntu's crash reporter where there is one.
    fn problem(&self, package: &Package, target: &Target, code: u8, lines: Vec<String>) -> Stop {
        if on_path("/usr/share/apport/apport").is_some() && on_path("python3").is_some() {
            let mut command = Command::new("python3");
            command
                .arg("/usr/share/apport/package-hooks/dkms_packages.py")
                .args([
                    "-m",
                    &package.name,
                    "-v",
                    &package.version,
                    "-k",
                    &target.kernel,
                ]);
            self.talk.child(&mut command);
            // The report is a courtesy.
            let _ = command.status();
        }
        Stop::Error(code, lines)
    }
}

fn consult(shop: &Workshop) -> String {
    format!("Consult {} for more information.", shop.log_name.display())
}

/// Exchanges a finished directory with what was in its place, flushed before.
pub fn place(staged: tempfile::TempDir, base: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let from = staged.path();
    std::fs::set_permissions(from, std::fs::Permissions::from_mode(0o755))
        .map_err(Stop::io(from))?;
    disk::sync_tree(from)?;
    if base.symlink_metadata().is_ok() && std::fs::remove_dir(base).is_err() {
        let here = rustix::fs::CWD;
        let swapped =
            rustix::fs::renameat_with(here, from, here, base, rustix::fs::RenameFlags::EXCHANGE);
        // What was there is now in the temporary directory, and goes with it.
        swapped.map_err(|e| Stop::io(base)(e.into()))?;
    } else {
        disk::rename(from, base)?;
    }
    base.parent().map_or(Ok(()), disk::sync_dir)
}

/// The time, as `date` prints it.
fn now() -> String {
    let said = Command::new("date").output();
    said.map(|o| String::from_utf8_lossy(&o.stdout).trim_end().to_owned())
        .unwrap_or_default()
}
