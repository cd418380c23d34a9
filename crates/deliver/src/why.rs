//! `why`: why a package is, or is not, built and installed for a kernel.

use crate::conf::{Conf, Reading};
use crate::session::{Package, Session, Target};
use crate::{Result, Stop, disk, padded};
use std::path::PathBuf;

/// What is known of one package and one kernel.
struct Reason {
    package: Package,
    target: Target,
    words: String,
    well: bool,
}

impl Session<'_> {
    /// Tells it for the packages and kernels of the command line; by default for all that are on this machine.
    pub(crate) fn why(&mut self) -> Result<()> {
        let packages = self
            .tree
            .packages(&self.request.module, &self.request.version);
        let packages: Vec<Package> = packages
            .into_iter()
            .filter(|p| self.tree.is_added(p) || self.tree.is_broken(p))
            .collect();
        if packages.is_empty() {
            let asked = self.package();
            return Err(Stop::error(
                3,
                [format!(
                    "The module/version combo: {asked} is not located in the DKMS tree."
                )],
            ));
        }
        let mut reasons = Vec::new();
        for target in self.kernels_at_hand() {
            for package in &packages {
                let (words, well) = self.reason(package, &target);
                reasons.push(Reason {
                    package: package.clone(),
                    target: target.clone(),
                    words,
                    well,
                });
            }
        }
        if self.request.json {
            let rows: Vec<_> = reasons.iter().map(row).collect();
            let text = serde_json::to_string_pretty(&serde_json::json!({ "reasons": rows }));
            self.say(&text.map_err(|e| Stop::error(1, [e.to_string()]))?);
        } else {
            for r in &reasons {
                self.say(&format!(
                    "{}, {}, {}: {}",
                    r.package, r.target.kernel, r.target.arch, r.words
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn kernels_at_hand(&self) -> Vec<Target> {
        let arch = rustix::system::uname()
            .machine()
            .to_string_lossy()
            .into_owned();
        let named = self
            .targets
            .iter()
            .map(|t| t.kernel.clone())
            .collect::<Vec<_>>();
        let kernels = if named.is_empty() {
            disk::names(&self.install_tree)
        } else {
            named
        };
        kernels
            .into_iter()
            .map(|kernel| Target {
                kernel,
                arch: self.request.arches.first().unwrap_or(&arch).clone(),
            })
            .collect()
    }

    fn reason(&self, package: &Package, target: &Target) -> (String, bool) {
        if self.tree.is_broken(package) {
            return (
                "broken: its source directory, or the link to it, is missing".to_owned(),
                false,
            );
        }
        if self.tree.is_installed(package, target) {
            let notes = self.notes(package, target);
            let more = if notes.is_empty() {
                String::new()
            } else {
                format!(" ({})", notes.join(", "))
            };
            let ported = match self.ported_from(package, target) {
                Some(home) => format!(", ported from {home}"),
                None => String::new(),
            };
            let taken = match self.taken(package, target) {
                Some(taken) => format!(", {taken}"),
                None => String::new(),
            };
            let words = format!("installed{ported}{taken}{more}");
            return (words, notes.is_empty());
        }
        let built = self.tree.is_built(package, target);
        if let Ok(to) = std::fs::read_link(self.tree.active(&package.name, target)) {
            let version = to
                .iter()
                .next()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            return (format!("version {version} is installed instead"), true);
        }
        if built {
            return (
                "built, and never installed or taken out again: `dkms install` it".to_owned(),
                false,
            );
        }
        let file = self.tree.source_link(package).join("dkms.conf");
        match self.read_conf(package, target, &file, Reading::Lenient) {
            Ok(conf) => (self.not_built(package, target, &conf), false),
            Err(stop) => (
                format!("its dkms.conf cannot be read: {}", said(&stop)),
                false,
            ),
        }
    }

    /// The kernel that a build was ported from, if it was.
    fn ported_from(&self, package: &Package, target: &Target) -> Option<String> {
        let record = self.tree.base(package, target).join(crate::repair::RECORD);
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(record).ok()?).ok()?;
        value["home"].as_str().map(str::to_owned)
    }

    fn not_built(&self, package: &Package, target: &Target, conf: &Conf) -> String {
        if let Some(error) = conf.errors.first() {
            return format!("its dkms.conf is not valid: {error}");
        }
        if conf.excluded {
            return format!("not for this kernel: {}", excluding(conf, target));
        }
        if self.check_headers(&target.kernel).is_err() {
            return format!(
                "no headers: {} has no include directory",
                self.kernel_dir(&target.kernel).display()
            );
        }
        if let Ok(text) = std::fs::read_to_string(self.failure(package, target)) {
            return format!("its last build failed: {}", text.trim().replace('\n', " "));
        }
        let missing: Vec<&str> = conf
            .depends
            .iter()
            .map(String::as_str)
            .filter(|d| {
                !self
                    .tree
                    .packages(d, "")
                    .iter()
                    .any(|p| self.tree.is_installed(p, target))
            })
            .collect();
        if !missing.is_empty() {
            return format!("it needs {} first (BUILD_DEPENDS)", missing.join(", "));
        }
        if !conf.autoinstall {
            return "it does not ask for it (AUTOINSTALL is not \"yes\"): `dkms install` it"
                .to_owned();
        }
        "not tried yet: `dkms autoinstall` would build it".to_owned()
    }

    fn failure(&self, package: &Package, target: &Target) -> PathBuf {
        let file = format!(
            "{}-{}-{}-{}",
            package.name, package.version, target.kernel, target.arch
        );
        self.tree.own("failed").join(file)
    }

    /// Remembers how a build ended: why it failed, or that it no longer does.
    pub(crate) fn note_end(
        &self,
        package: &Package,
        target: &Target,
        result: &Result<()>,
    ) -> Result<()> {
        let path = self.failure(package, target);
        match result {
            Ok(()) => disk::remove_file(&path),
            Err(stop) => disk::write(&path, format!("{}\n", said(stop)).as_bytes()),
        }
    }
}

fn said(stop: &Stop) -> String {
    match stop {
        Stop::Error(code, lines) | Stop::Warning(code, lines) => {
            format!("{} (exit code {code})", lines.join(" "))
        }
        Stop::Exit(code) => format!("a script of the package ended with {code}"),
    }
}

/// The directive that keeps all of it from a kernel.
fn excluding(conf: &Conf, target: &Target) -> String {
    let v = &conf.values;
    let kernel = padded(&target.kernel);
    let limit = |name: &str| v.first(name).to_owned();
    let minimum = limit("BUILD_EXCLUSIVE_KERNEL_MIN");
    if !minimum.is_empty() && kernel < padded(&minimum) {
        return format!("BUILD_EXCLUSIVE_KERNEL_MIN={minimum}");
    }
    let maximum = limit("BUILD_EXCLUSIVE_KERNEL_MAX");
    if !maximum.is_empty() && kernel > padded(&maximum) {
        return format!("BUILD_EXCLUSIVE_KERNEL_MAX={maximum}");
    }
    for name in ["BUILD_EXCLUSIVE_KERNEL", "BUILD_EXCLUSIVE_ARCH"] {
        if !v.first(name).is_empty() && !v.matched(name, 0) {
            return format!("{name}={}", v.first(name));
        }
    }
    match limit("BUILD_EXCLUSIVE_CONFIG") {
        config if !config.is_empty() => format!("BUILD_EXCLUSIVE_CONFIG={config}"),
        _ => "BUILD_EXCLUSIVE directives of its modules".to_owned(),
    }
}

fn row(r: &Reason) -> serde_json::Value {
    serde_json::json!({
        "module": r.package.name,
        "version": r.package.version,
        "kernel": r.target.kernel,
        "arch": r.target.arch,
        "why": r.words,
        "well": r.well,
    })
}
