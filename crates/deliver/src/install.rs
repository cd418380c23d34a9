//! `install`: built modules go into a kernel's module tree.

use crate::conf::{Conf, Module, Reading};
use crate::journal::{Change, Way};
use crate::modinfo::{self, Versions};
use crate::session::{Package, Session, Target};
use crate::{Result, Stop, kernels, padded};
use std::cmp::Ordering;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

impl Session<'_> {
    /// Installs the named package for every kernel of the command line.
    pub(crate) fn install(&mut self) -> Result<()> {
        let package = self.named_or_source()?;
        for target in self.targets.clone() {
            self.apart(|s| s.install_unless_installed(&package, &target))?;
        }
        Ok(())
    }

    /// Installs unless it is; by force, takes it out first.
    pub(crate) fn install_unless_installed(
        &mut self,
        package: &Package,
        target: &Target,
    ) -> Result<()> {
        if self.tree.is_installed(package, target) {
            if !self.force {
                self.say(&format!(
                    "Module {package} already installed on {target}, skip. You may override by specifying --force."
                ));
                return Ok(());
            }
            self.uninstall_one(package, target)?;
            self.say("");
        }
        self.install_one(package, target)
    }

    /// Installs one package for one kernel, building it first if need be.
    pub(crate) fn install_one(&mut self, package: &Package, target: &Target) -> Result<()> {
        if !self.tree.is_built(package, target) {
            self.build_one(package, target)?;
        }
        let (force, force_version) = (self.force, self.force_version);
        self.forced_by_the_system(package);
        let result = self.put(package, target);
        self.force = force;
        self.force_version = force_version;
        result?;
        self.changed = true;
        self.rebuild_dependents(target)
    }

    fn put(&mut self, package: &Package, target: &Target) -> Result<()> {
        let lib = self.lib(&target.kernel);
        if !lib.exists() {
            return Err(Stop::error(
                6,
                [
                    format!("The directory {} doesn't exist.", lib.display()),
                    "You cannot install a module onto a non-existent kernel.".to_owned(),
                ],
            ));
        }
        let conf = self.conf(package, target, Reading::Strict)?;
        let built = self.tree.base(package, target).join("module");
        self.complete(&conf, &built, 6, "Missing module", false)?;
        self.refuse_unsigned(package, target, &conf, &built)?;
        if self.request.rpm_safe_upgrade {
            self.force = true;
        }
        let ready = self.source_script(
            package,
            Some(target),
            "pre_install",
            conf.script("pre_install"),
        )?;
        if !ready && !self.force {
            return Err(Stop::error(
                101,
                [
                    "pre_install failed, aborting install.",
                    "You may override by specifying --force.",
                ],
            ));
        }
        let change = self.plan(package, target, &conf, &built)?;
        self.carry_out(&change, package, target, &conf)
    }

    /// Stages every module that may be installed, and a copy of every one that it replaces.
    fn plan(
        &self,
        package: &Package,
        target: &Target,
        conf: &Conf,
        built: &Path,
    ) -> Result<Change> {
        let mut change = Change::new(self, Way::Install, package, target);
        let staged = self.stage_all(&mut change, package, target, conf, built);
        match staged {
            Ok(0) if !conf.modules.is_empty() => {
                change.drop_staged();
                Err(Stop::error(6, ["Installation aborted."]))
            }
            Ok(_) => Ok(change),
            Err(stop) => {
                change.drop_staged();
                Err(stop)
            }
        }
    }

    fn stage_all(
        &self,
        change: &mut Change,
        package: &Package,
        target: &Target,
        conf: &Conf,
        built: &Path,
    ) -> Result<usize> {
        let mut count = 0;
        for module in conf.wanted() {
            let Some(from) = modinfo::find(built, &module.name) else {
                continue;
            };
            if !self.may_install(target, conf, module, &from) {
                continue;
            }
            let name = from.file_name().unwrap_or_default();
            let place = self
                .install_tree
                .join(&target.kernel)
                .join(module.location.trim_start_matches('/'))
                .join(name);
            self.archive(change, package, target, module, &place)?;
            self.say(&format!("Installing {}", self.shown(target, module, &from)));
            if self.request.symlink || !self.settings.first("symlink_modules").is_empty() {
                change.stage_symlink(&from, &place)?;
            } else {
                change.stage(&from, &place, false)?;
            }
            if change.before.is_some() {
                change.removals.extend(other_packings(&place));
            }
            count += 1;
        }
        Ok(count)
    }

    /// A module's place, as people are told it.
    fn shown(&self, target: &Target, module: &Module, file: &Path) -> String {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        format!(
            "{}/{}{}/{name}",
            self.install_tree.display(),
            target.kernel,
            module.location
        )
    }

    /// Stages a copy of the module that the kernel already has, once for each kernel.
    fn archive(
        &self,
        change: &mut Change,
        package: &Package,
        target: &Target,
        module: &Module,
        place: &Path,
    ) -> Result<()> {
        let backups = self.tree.originals(&package.name, target);
        if change.before.is_some() {
            if modinfo::find(&backups, &module.name).is_some() {
                self.say("An original module was already stored during a previous install");
            }
            return Ok(());
        }
        let Some(original) = self.original(target, module) else {
            return Ok(());
        };
        self.say(&format!(
            "Found pre-existing {}, archiving for uninstallation",
            original.display()
        ));
        let name = original
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        change.stage(&original, &backups.join(&name), true)?;
        change.stage_text(
            &format!("{}\n", original.display()),
            &backups.join(format!("{name}.origin")),
        )?;
        if original != place {
            change.removals.push(original);
        }
        Ok(())
    }

    /// The kernel's own module of that name: first where out-of-tree modules go, then anywhere.
    fn original(&self, target: &Target, module: &Module) -> Option<PathBuf> {
        let lib = self.lib(&target.kernel);
        let at = |dir: &str| modinfo::find(&lib.join(dir.trim_start_matches('/')), &module.name);
        at("extra")
            .or_else(|| at("updates"))
            .or_else(|| at(&module.location))
            .filter(|p| p.is_file())
            .or_else(|| modinfo::find_all(&lib, &module.name).into_iter().next())
    }

    /// Is the module newer than what the kernel has? If not, says so.
    fn may_install(&self, target: &Target, conf: &Conf, module: &Module, from: &Path) -> bool {
        if !self.force && obsolete(&target.kernel, &conf.obsolete_by) {
            let by = &conf.obsolete_by;
            self.talk.err(&format!(
                "\nModule has been obsoleted due to being included in kernel {by}.\n\
                 We will avoid installing for future kernels above {by}.\nYou may override by specifying --force.\n"
            ));
            return false;
        }
        let theirs = modinfo::find_all(&self.lib(&target.kernel), &module.name)
            .into_iter()
            .next();
        let Some(theirs) = theirs.filter(|_| !self.force_version && !self.force) else {
            return true;
        };
        let (their_info, our_info) = (modinfo::read(&theirs), modinfo::read(from));
        match modinfo::compare(&their_info, &our_info) {
            Versions::Differ(Ordering::Greater) => {
                self.tell(&Stop::error(
                    6,
                    [
                        format!(
                            "Module version {} for {}.ko{}",
                            our_info.version,
                            module.name,
                            kernels::suffix(&self.lib(&target.kernel))
                        ),
                        format!(
                            "is not newer than what is already found in kernel {} ({}).",
                            target.kernel, their_info.version
                        ),
                        "You may override by specifying --force.".to_owned(),
                    ],
                ));
                false
            }
            Versions::Same => {
                let unnamed = our_info == modinfo::Info::default();
                if unnamed && !crate::disk::same(&theirs, from) {
                    return true;
                }
                let version = match our_info.version.as_str() {
                    "" => "(unversioned module)".to_owned(),
                    v => format!("at version {v}"),
                };
                self.talk.err(&format!(
                    "Module {} already installed {version}, override by specifying --force\n",
                    theirs.display()
                ));
                false
            }
            _ => true,
        }
    }

    /// Switches, and makes it known; if depmod fails, all is put back.
    fn carry_out(
        &mut self,
        change: &Change,
        package: &Package,
        target: &Target,
        conf: &Conf,
    ) -> Result<()> {
        let journal = self.journal(&package.name, target);
        change.commit(&journal)?;
        change.apply()?;
        self.weak(conf, target, true);
        self.source_script(
            package,
            Some(target),
            "post_install",
            conf.script("post_install"),
        )?;
        if !self.depmod(&target.kernel)? {
            change.conclude(&journal)?;
            match self.uninstall_one(package, target) {
                // It fails there again, of course.
                Err(stop) if stop.code() != crate::uninstall::DEPMOD => return Err(stop),
                _ => self.put_back(change, target)?,
            }
            return Err(Stop::error(
                6,
                [
                    "Problems with depmod detected. Automatically uninstalling this module.",
                    "Install Failed (depmod problems). Module rolled back to built state.",
                ],
            ));
        }
        change.conclude(&journal)?;
        self.remember(package, target)?;
        if self.modprobe_wanted(target) {
            load_modules();
        }
        Ok(())
    }

    /// Puts the version back that was installed before an upgrade that failed.
    fn put_back(&mut self, change: &Change, target: &Target) -> Result<()> {
        let before = change
            .before
            .as_ref()
            .and_then(|b| b.iter().next()?.to_str());
        let Some(version) = before.filter(|v| *v != change.version) else {
            return Ok(());
        };
        let package = Package {
            name: change.name.clone(),
            version: version.to_owned(),
        };
        let file = self.tree.source_link(&package).join("dkms.conf");
        let conf = self.read_conf(&package, target, &file, Reading::Lenient)?;
        let back = self.again(&package, target, &conf)?;
        let journal = self.journal(&package.name, target);
        back.commit(&journal)?;
        back.apply()?;
        self.talk.err(&format!("{package} was put back.\n"));
        back.conclude(&journal)
    }

    /// Lists of modules in `/usr/share/dkms/modules_to_force_install` are installed whatever their version.
    fn forced_by_the_system(&mut self, package: &Package) {
        let dir = Path::new("/usr/share/dkms/modules_to_force_install");
        let words: Vec<String> = crate::disk::names(dir)
            .into_iter()
            .filter_map(|n| std::fs::read_to_string(dir.join(n)).ok())
            .flat_map(|t| t.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        if words.contains(&package.name) {
            self.force = true;
            self.say(&format!("Forcing installation of {}", package.name));
        } else if words.contains(&format!("{}_version-override", package.name)) {
            self.force_version = true;
            self.say(&format!("Forcing version override of {}", package.name));
        }
    }

    /// Tells weak-modules of the distributions that have it which modules came or go.
    pub(crate) fn weak(&self, conf: &Conf, target: &Target, add: bool) {
        let Some((adding, removing)) =
            crate::distro::weak_modules(&self.family).filter(|_| !conf.no_weak)
        else {
            return;
        };
        let command = if add { adding } else { removing };
        let mut words = command.split_whitespace();
        let Some(program) = words.next().and_then(crate::sign::on_path) else {
            return;
        };
        self.say(if add {
            "Adding linked weak modules..."
        } else {
            "Removing linked weak modules..."
        });
        let list: String = conf
            .wanted()
            .filter_map(|m| {
                modinfo::find(
                    &self
                        .lib(&target.kernel)
                        .join(m.location.trim_start_matches('/')),
                    &m.name,
                )
            })
            .map(|p| format!("{}\n", p.display()))
            .collect();
        let mut command = Command::new(program);
        command.args(words);
        if self.family.contains("suse") || self.family.starts_with("sles") {
            command.arg(&target.kernel);
        }
        self.talk.child(&mut command);
        command.stdin(Stdio::piped());
        let fed = command.spawn().and_then(|mut child| {
            if let Some(mut input) = child.stdin.take() {
                input.write_all(list.as_bytes())?;
            }
            child.wait()
        });
        if !fed.is_ok_and(|s| s.success()) {
            self.warn(&["weak-modules failed"]);
        }
    }

    fn modprobe_wanted(&self, target: &Target) -> bool {
        let wanted =
            self.request.modprobe || !self.settings.first("modprobe_on_install").is_empty();
        wanted && target.kernel == kernels::running()
    }
}

/// Files of the same module with another packing, which would stand beside the new one.
fn other_packings(place: &Path) -> Vec<PathBuf> {
    let Some(name) = place.file_name().and_then(|n| n.to_str()) else {
        return Vec::new();
    };
    let stem = name.split(".ko").next().unwrap_or(name);
    modinfo::ENDINGS
        .iter()
        .map(|e| place.with_file_name(format!("{stem}{e}")))
        .filter(|p| p != place && p.is_file())
        .collect()
}

/// Is the kernel at or after the one that a module became part of?
fn obsolete(kernel: &str, by: &str) -> bool {
    if by.is_empty() {
        return false;
    }
    let split = |v: &str| {
        let (version, abi) = v.split_once('-').unwrap_or((v, ""));
        (
            padded(version),
            padded(abi.split('-').next().unwrap_or_default()),
        )
    };
    let ((ours, our_abi), (theirs, their_abi)) = (split(kernel), split(by));
    match ours.cmp(&theirs) {
        Ordering::Greater => true,
        Ordering::Equal => their_abi.is_empty() || our_abi >= their_abi,
        Ordering::Less => false,
    }
}

/// Loads whatever the devices at hand ask for.
fn load_modules() {
    let aliases: std::collections::BTreeSet<String> = walkdir::WalkDir::new("/sys/devices")
        .into_iter()
        .flatten()
        .filter(|e| e.file_name() == "modalias")
        .filter_map(|e| std::fs::read_to_string(e.path()).ok())
        .map(|t| t.trim().to_owned())
        .filter(|t| !t.is_empty())
        .collect();
    // A module that does not load is no fault of its installation.
    let _ = Command::new("modprobe")
        .args(["-a", "-b", "-q"])
        .args(&aliases)
        .status();
    if Path::new("/lib/systemd/system/systemd-modules-load.service").is_file() {
        let _ = Command::new("systemctl")
            .args(["restart", "systemd-modules-load.service"])
            .status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obsolete_counts_the_version_then_the_abi() {
        assert!(obsolete("6.1.0-56-amd64", "5.4"));
        assert!(obsolete("5.4.0-3-amd64", "5.4.0-3"));
        assert!(!obsolete("5.4.0-2-amd64", "5.4.0-3"));
        assert!(!obsolete("6.1.0", "99.0") && !obsolete("6.1.0", ""));
    }
}
