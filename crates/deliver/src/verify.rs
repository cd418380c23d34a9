//! `verify`: is what lies in a kernel's module tree what was built, is it what modprobe finds, and can it be mended?

use crate::conf::{Conf, Module, Reading};
use crate::journal::{Change, Way};
use crate::session::{Package, Session, Target, root};
use crate::tree::State;
use crate::{Result, Stop, disk, modinfo};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The record that a build leaves beside its modules: file names and BLAKE3 of their content.
const RECORD: &str = ".kspan-built.json";

/// What is wrong, and whether copying the built module again mends it.
struct Finding {
    package: Package,
    target: Option<Target>,
    what: String,
    cure: Cure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cure {
    /// The built modules are whole: copy them again.
    Reinstall,
    /// depmod knows another file.
    Depmod,
    /// A marker that leads nowhere goes.
    DropMarker,
    /// Only a person can.
    Person,
}

/// Writes the record of a directory of modules.
pub fn record(dir: &Path) -> Result<()> {
    let hashes: BTreeMap<String, String> = hashes(&dir.join("module"));
    let text = serde_json::to_vec_pretty(&hashes).map_err(|e| Stop::error(1, [e.to_string()]))?;
    disk::write(&dir.join(RECORD), &text)
}

fn hashes(modules: &Path) -> BTreeMap<String, String> {
    disk::names(modules)
        .into_iter()
        .filter_map(|name| {
            let bytes = std::fs::read(modules.join(&name)).ok()?;
            Some((name, blake3::hash(&bytes).to_hex().to_string()))
        })
        .collect()
}

impl Session<'_> {
    /// Looks at everything that the command line means, all by default; with `--force` mends what can be mended.
    pub(crate) fn verify(&mut self) -> Result<()> {
        let findings = self.findings()?;
        if self.request.json {
            let rows: Vec<_> = findings.iter().map(row).collect();
            let text = serde_json::to_string_pretty(&serde_json::json!({ "findings": rows }));
            self.say(&text.map_err(|e| Stop::error(1, [e.to_string()]))?);
        } else {
            findings.iter().for_each(|f| self.say(&line(f)));
        }
        if findings.is_empty() {
            return Ok(());
        }
        if !self.force {
            self.talk
                .err("`verify --force` mends what can be mended.\n");
            return Err(Stop::Exit(1));
        }
        root()?;
        self.mend(&findings)
    }

    fn findings(&mut self) -> Result<Vec<Finding>> {
        let (name, version) = (self.request.module.clone(), self.request.version.clone());
        let kernels = self.request.kernels.clone();
        let mut findings = Vec::new();
        for entry in self.tree.entries(&name, &version, "", "") {
            match (&entry.target, entry.state) {
                (None, State::Broken) => findings.push(Finding {
                    package: entry.package,
                    target: None,
                    what: "its source, or the link to it, is missing".to_owned(),
                    cure: Cure::Person,
                }),
                (Some(target), state) if kernels.is_empty() || kernels.contains(&target.kernel) => {
                    self.look(&entry.package, target, state, &mut findings);
                }
                _ => {}
            }
        }
        self.dangling(&name, &mut findings);
        Ok(findings)
    }

    fn look(&self, package: &Package, target: &Target, state: State, findings: &mut Vec<Finding>) {
        let mut find = |what: String, cure| {
            findings.push(Finding {
                package: package.clone(),
                target: Some(target.clone()),
                what,
                cure,
            });
        };
        let base = self.tree.base(package, target);
        for name in damaged(&base) {
            find(
                format!("the built {name} is not what was built"),
                Cure::Person,
            );
        }
        let file = self.tree.source_link(package).join("dkms.conf");
        let conf = match self.read_conf(package, target, &file, Reading::Lenient) {
            Ok(conf) => conf,
            Err(_) => return find("its dkms.conf cannot be read".to_owned(), Cure::Person),
        };
        if state != State::Installed {
            return;
        }
        for module in conf.wanted() {
            if let Some((what, cure)) = self.look_at(package, target, module, &base) {
                find(what, cure);
            }
        }
    }

    fn look_at(
        &self,
        package: &Package,
        target: &Target,
        module: &Module,
        base: &Path,
    ) -> Option<(String, Cure)> {
        let name = &module.name;
        let Some(ours) = modinfo::find(&base.join("module"), name) else {
            return Some((format!("the built {name} is missing"), Cure::Person));
        };
        let lib = self.lib(&target.kernel);
        let place = [&module.location, &module.declared]
            .into_iter()
            .find_map(|l| modinfo::find(&lib.join(l.trim_start_matches('/')), name));
        let Some(place) = place else {
            return Some((
                format!("{name} is not in {}", lib.display()),
                Cure::Reinstall,
            ));
        };
        if !disk::same(&ours, &place) {
            if let Some(other) = self.owner(package, target, &place) {
                return Some((
                    format!("{} is another one's now: {other}", place.display()),
                    Cure::Person,
                ));
            }
            return Some((
                format!("{} is not what was built", place.display()),
                Cure::Reinstall,
            ));
        }
        let listed = std::fs::read_to_string(lib.join("modules.dep")).ok()?;
        let relative = place.strip_prefix(&lib).ok()?.display().to_string();
        let resolves = listed
            .lines()
            .any(|l| l.split_once(':').is_some_and(|(path, _)| path == relative));
        (!resolves).then(|| {
            (
                format!("modules.dep does not name {relative}"),
                Cure::Depmod,
            )
        })
    }

    /// The other package whose module a file is.
    fn owner(&self, package: &Package, target: &Target, place: &Path) -> Option<Package> {
        let name = place.file_name()?;
        self.tree
            .entries("", "", &target.kernel, &target.arch)
            .into_iter()
            .filter(|e| e.state == State::Installed && e.package != *package)
            .map(|e| e.package)
            .find(|p| disk::same(&self.tree.base(p, target).join("module").join(name), place))
    }

    /// Markers of versions that are not there.
    fn dangling(&self, name: &str, findings: &mut Vec<Finding>) {
        for module in disk::names(&self.tree.dkms)
            .into_iter()
            .filter(|m| name.is_empty() || m == name)
        {
            let dir = self.tree.dkms.join(&module);
            for marker in disk::names(&dir)
                .into_iter()
                .filter(|n| n.starts_with("kernel-"))
            {
                let path = dir.join(&marker);
                if path.is_symlink() && !path.exists() {
                    findings.push(Finding {
                        package: Package {
                            name: module.clone(),
                            version: marker,
                        },
                        target: None,
                        what: "the marker of an installed version leads nowhere".to_owned(),
                        cure: Cure::DropMarker,
                    });
                }
            }
        }
    }

    fn mend(&mut self, findings: &[Finding]) -> Result<()> {
        let mut left = 0;
        let mut stale: Vec<String> = Vec::new();
        for finding in findings {
            match (finding.cure, &finding.target) {
                (Cure::DropMarker, _) => {
                    disk::remove_file(
                        &self
                            .tree
                            .module(&finding.package.name)
                            .join(&finding.package.version),
                    )?;
                }
                (Cure::Reinstall, Some(target)) => {
                    self.reinstall(&finding.package, target)?;
                    stale.push(target.kernel.clone());
                }
                (Cure::Depmod, Some(target)) => stale.push(target.kernel.clone()),
                _ => {
                    left += 1;
                    continue;
                }
            }
            self.say(&format!("mended: {}", line(finding)));
        }
        stale.sort();
        stale.dedup();
        for kernel in stale {
            if !self.depmod(&kernel)? {
                left += 1;
            }
        }
        if left > 0 { Err(Stop::Exit(1)) } else { Ok(()) }
    }

    /// Copies the built modules of an installed package to their places again.
    fn reinstall(&mut self, package: &Package, target: &Target) -> Result<()> {
        let conf = self.conf(package, target, Reading::Lenient)?;
        let change = self.again(package, target, &conf)?;
        let journal = self.journal(&package.name, target);
        change.commit(&journal)?;
        change.apply()?;
        change.conclude(&journal)
    }

    /// The change that puts every module of an installed package where it belongs.
    pub(crate) fn again(&self, package: &Package, target: &Target, conf: &Conf) -> Result<Change> {
        let mut change = Change::new(self, Way::Install, package, target);
        let built = self.tree.base(package, target).join("module");
        for module in conf.wanted() {
            if let Some(from) = modinfo::find(&built, &module.name) {
                let dir = self
                    .lib(&target.kernel)
                    .join(module.location.trim_start_matches('/'));
                change.stage(
                    &from,
                    &dir.join(from.file_name().unwrap_or_default()),
                    false,
                )?;
            }
        }
        Ok(change)
    }
}

/// Files whose content is not the one that was recorded when they were built.
fn damaged(base: &Path) -> Vec<String> {
    let recorded: BTreeMap<String, String> = std::fs::read(base.join(RECORD))
        .ok()
        .and_then(|b| serde_json::from_slice(&b).ok())
        .unwrap_or_default();
    let now = hashes(&base.join("module"));
    recorded
        .into_iter()
        .filter(|(name, hash)| now.get(name) != Some(hash))
        .map(|(name, _)| name)
        .collect()
}

fn line(finding: &Finding) -> String {
    match &finding.target {
        Some(target) => format!(
            "{}, {}, {}: {}",
            finding.package, target.kernel, target.arch, finding.what
        ),
        None => format!("{}: {}", finding.package, finding.what),
    }
}

fn row(finding: &Finding) -> serde_json::Value {
    serde_json::json!({
        "module": finding.package.name,
        "version": finding.package.version,
        "kernel": finding.target.as_ref().map(|t| &t.kernel),
        "arch": finding.target.as_ref().map(|t| &t.arch),
        "what": finding.what,
        "mendable": finding.cure != Cure::Person,
    })
}

/// Where the versions that were installed for a kernel are remembered.
fn history(session: &Session<'_>, name: &str, target: &Target) -> PathBuf {
    let file = format!("{name}-{}-{}", target.kernel, target.arch);
    session.tree.own("history").join(file)
}

impl Session<'_> {
    /// Remembers that a version was installed, the last one last.
    pub(crate) fn remember(&self, package: &Package, target: &Target) -> Result<()> {
        let path = history(self, &package.name, target);
        let mut versions = self.versions(&package.name, target);
        versions.retain(|v| *v != package.version);
        versions.push(package.version.clone());
        disk::write(&path, format!("{}\n", versions.join("\n")).as_bytes())
    }

    fn versions(&self, name: &str, target: &Target) -> Vec<String> {
        let text = std::fs::read_to_string(history(self, name, target)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Installs the version that was installed before the present one.
    pub(crate) fn rollback(&mut self) -> Result<()> {
        root()?;
        let name = self.request.module.clone();
        let target = self.first_target();
        let of = |version: &str| Package {
            name: name.clone(),
            version: version.to_owned(),
        };
        let versions = self.versions(&name, &target);
        let before = versions
            .iter()
            .rev()
            .map(|v| of(v))
            .find(|p| !self.tree.is_installed(p, &target) && self.tree.is_added(p));
        let Some(package) = before.filter(|_| !name.is_empty()) else {
            return Err(Stop::error(
                3,
                [
                    format!("No earlier version of {name:?} is known for {target}."),
                    "Usage: rollback <module> [-k <kernel>]; it goes back to a version that was installed before and is still in the tree."
                        .to_owned(),
                ],
            ));
        };
        self.say(&format!(
            "Rolling back {name} to {} for {target}",
            package.version
        ));
        self.force_version = true;
        self.install_one(&package, &target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_module_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("module")).unwrap();
        let module = dir.path().join("module/a.ko");
        std::fs::write(&module, "whole").unwrap();
        record(dir.path()).unwrap();
        assert!(damaged(dir.path()).is_empty());
        std::fs::write(&module, "who").unwrap();
        assert_eq!(damaged(dir.path()), ["a.ko"]);
        std::fs::remove_file(&module).unwrap();
        assert_eq!(damaged(dir.path()), ["a.ko"]);
    }
}
