//! `uninstall`, `unbuild`, `remove`: the way back.

use crate::conf::{Conf, Module, Reading};
use crate::journal::{Change, Way};
use crate::modinfo::{self, Versions};
use crate::session::{Package, Session, Target};
use crate::{Result, Stop, disk, kernels};
use std::path::{Path, PathBuf};

/// The restored path of an original, and its backup with the note beside it.
struct Original {
    place: PathBuf,
    backup: PathBuf,
    note: Option<PathBuf>,
}

/// The exit code when depmod fails.
pub const DEPMOD: u8 = 6;

impl Session<'_> {
    /// Takes the named package out of every kernel of the command line.
    pub(crate) fn uninstall(&mut self) -> Result<()> {
        let package = self.package();
        for (i, target) in self.targets.clone().iter().enumerate() {
            if i > 0 {
                self.say("");
            }
            self.uninstall_if_installed(&package, target)?;
        }
        Ok(())
    }

    /// The same, and deletes what was built.
    pub(crate) fn unbuild(&mut self) -> Result<()> {
        let package = self.package();
        for (i, target) in self.targets.clone().iter().enumerate() {
            if i > 0 {
                self.say("");
            }
            self.unbuild_for(&package, target)?;
        }
        Ok(())
    }

    /// Takes one package out of one kernel, built modules and all.
    pub(crate) fn unbuild_for(&mut self, package: &Package, target: &Target) -> Result<()> {
        self.uninstall_if_installed(package, target)?;
        if !self.tree.is_built(package, target) {
            self.say(&format!(
                "Module {package} is not built for {target}. Skipping..."
            ));
            return Ok(());
        }
        self.delete_built(package, target)
    }

    /// The same, and forgets the package when nothing of it is left.
    pub(crate) fn remove(&mut self) -> Result<()> {
        let package = self.package();
        self.sweep(&package)?;
        if self.rpm_upgrade(&package) {
            return Err(Stop::warning(
                0,
                ["Remove cancelled because --rpm_safe_upgrade scenario detected."],
            ));
        }
        for target in self.targets.clone() {
            self.unbuild_for(&package, &target)?;
            self.say("");
        }
        let dir = self.tree.package(&package);
        const OWN: [&str; 6] = ["build", "tarball", "driver_disk", "rpm", "deb", "source"];
        let others = disk::names(&dir)
            .into_iter()
            .any(|n| !OWN.iter().any(|o| n.ends_with(o)) && is_real_dir(&dir.join(&n)));
        if !others {
            self.say(&format!(
                "Deleting module {package} completely from the DKMS tree."
            ));
            forget(&dir)?;
        }
        let module = self.tree.module(&package.name);
        if disk::names(&module)
            .iter()
            .all(|n| !module.join(n).is_dir())
        {
            disk::remove_tree(&module)?;
        }
        Ok(())
    }

    /// What killed builds left.
    fn sweep(&self, package: &Package) -> Result<()> {
        let dir = self.tree.package(package);
        for entry in walkdir::WalkDir::new(&dir)
            .min_depth(1)
            .max_depth(2)
            .into_iter()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy();
            if name.starts_with(".tmp_") || name.starts_with(".kspan-build-") {
                disk::remove_tree(entry.path())?;
            }
        }
        for name in disk::names(&dir) {
            if is_real_dir(&dir.join(&name)) {
                // Only one that is empty goes.
                let _ = std::fs::remove_dir(dir.join(&name));
            }
        }
        Ok(())
    }

    fn uninstall_if_installed(&mut self, package: &Package, target: &Target) -> Result<()> {
        if self.tree.is_installed(package, target) {
            return self.uninstall_one(package, target);
        }
        let file = self.tree.source_link(package).join("dkms.conf");
        let exclusive = self
            .read_conf(package, target, &file, Reading::Lenient)
            .is_ok_and(|c| c.exclusive);
        // A package whose modules are for some kernels only is not expected on this one.
        if !exclusive {
            self.say(&format!(
                "Module {package} is not installed for {target}. Skipping..."
            ));
        }
        Ok(())
    }

    /// Takes one package out of one kernel and puts back what it had replaced.
    pub(crate) fn uninstall_one(&mut self, package: &Package, target: &Target) -> Result<()> {
        self.say(&format!("Module {package} for {target}:"));
        let conf = self.conf(package, target, Reading::Lenient)?;
        let active = self.tree.is_active(package, target);
        let mut change = Change::new(self, Way::Uninstall, package, target);
        if active {
            self.say("Before uninstall, this module version was ACTIVE on this kernel.");
            self.weak(&conf, target, false);
            if let Err(stop) = self.plan_removal(&mut change, package, target, &conf) {
                change.drop_staged();
                return Err(stop);
            }
        } else {
            self.say("This module version was INACTIVE for this kernel.");
        }
        self.take_out(&change, package, target, &conf, active)
    }

    fn take_out(
        &mut self,
        change: &Change,
        package: &Package,
        target: &Target,
        conf: &Conf,
        active: bool,
    ) -> Result<()> {
        let journal = self.journal(&package.name, target);
        if active {
            change.commit(&journal)?;
            change.apply()?;
        }
        self.source_script(
            package,
            Some(target),
            "post_remove",
            conf.script("post_remove"),
        )?;
        let well = match &mut self.delayed_depmod {
            Some(due) => {
                *due = true;
                true
            }
            None => self.depmod(&target.kernel)?,
        };
        if !well {
            // The journal stays: the next run tries again.
            return Err(Stop::error(
                DEPMOD,
                [
                    format!("depmod failed for kernel {}.", target.kernel),
                    "The module is out of the kernel's tree; run the same command again when the cause is mended.".to_owned(),
                ],
            ));
        }
        if active {
            change.conclude(&journal)?;
            self.drop_backups(package, target)?;
        }
        Ok(())
    }

    /// Deletions and restorations, module by module.
    fn plan_removal(
        &self,
        change: &mut Change,
        package: &Package,
        target: &Target,
        conf: &Conf,
    ) -> Result<()> {
        let suffix = kernels::suffix(&self.lib(&target.kernel));
        for module in &conf.modules {
            let originals = self.originals(package, target, module);
            match self.installed_at(package, target, module) {
                Some(location) => {
                    self.say(&format!(
                        "Deleting {}/{}{location}/{}.ko{suffix}",
                        self.install_tree.display(),
                        target.kernel,
                        module.name
                    ));
                    self.plan_deletion(change, target, module, &location, &originals);
                }
                None if !module.excluded => self.say(&format!(
                    "Module {}.ko{suffix} was not found within {}/{}/",
                    module.name,
                    self.install_tree.display(),
                    target.kernel
                )),
                None => {}
            }
            for original in originals {
                self.say(&format!(
                    "Restoring archived original module {}",
                    original.place.display()
                ));
                change.stage(&original.backup, &original.place, true)?;
                change.leftovers.push(original.backup);
                change.leftovers.extend(original.note);
            }
        }
        Ok(())
    }

    fn plan_deletion(
        &self,
        change: &mut Change,
        target: &Target,
        module: &Module,
        location: &str,
        originals: &[Original],
    ) {
        let lib = self.lib(&target.kernel);
        let location = Path::new(location.trim_start_matches('/'));
        let dir = lib.join(location);
        let restored = |p: &PathBuf| originals.iter().any(|o| o.place == *p);
        let files = modinfo::ENDINGS
            .iter()
            .map(|e| dir.join(format!("{}{e}", module.name)));
        change
            .removals
            .extend(files.filter(|p| p.symlink_metadata().is_ok() && !restored(p)));
        change.prune.extend(
            location
                .ancestors()
                .filter(|a| !a.as_os_str().is_empty())
                .map(|a| lib.join(a)),
        );
    }

    /// Where the module that this package installed lies: the one place or the other, and the same version.
    fn installed_at(&self, package: &Package, target: &Target, module: &Module) -> Option<String> {
        let built = self.tree.base(package, target).join("module");
        let ours = modinfo::find(&built, &module.name);
        let info = ours.as_deref().map(modinfo::read).unwrap_or_default();
        [&module.location, &module.declared]
            .into_iter()
            .find(|location| {
                let dir = self
                    .lib(&target.kernel)
                    .join(location.trim_start_matches('/'));
                modinfo::find(&dir, &module.name).is_some_and(|there| {
                    let same = ours.as_deref().is_some_and(|o| disk::same(o, &there));
                    same || !matches!(
                        modinfo::compare(&info, &modinfo::read(&there)),
                        Versions::Differ(_)
                    )
                })
            })
            .cloned()
    }

    /// The originals that were archived for a module, whole ones only.
    fn originals(&self, package: &Package, target: &Target, module: &Module) -> Vec<Original> {
        let backups = self.tree.originals(&package.name, target);
        let lib = self.lib(&target.kernel);
        let mut found = Vec::new();
        for backup in modinfo::find_all(&backups, &module.name) {
            let note = PathBuf::from(format!("{}.origin", backup.display()));
            let said = std::fs::read_to_string(&note).ok();
            let place = match said.as_deref().and_then(|t| t.lines().next()) {
                Some(line) if Path::new(line).starts_with(&lib) && !line.contains("/../") => {
                    PathBuf::from(line)
                }
                Some(line) => {
                    self.warn(&[&format!(
                        "Bad original location '{line}' in {}",
                        note.display()
                    )]);
                    continue;
                }
                // Versions of dkms of long ago wrote no note.
                None => lib
                    .join(module.declared.trim_start_matches('/'))
                    .join(backup.file_name().unwrap_or_default()),
            };
            found.push(Original {
                place,
                note: note.is_file().then_some(note),
                backup,
            });
        }
        found
    }

    /// Deletes empty backup directories, and tells of backups that nothing will put back any more.
    fn drop_backups(&self, package: &Package, target: &Target) -> Result<()> {
        let dir = self.tree.originals(&package.name, target);
        remove_empty_dirs(&dir);
        if dir.is_dir() {
            self.say(&format!(
                "Removing original module(s) from DKMS tree for {target}"
            ));
            disk::remove_tree(&dir)?;
        }
        for up in dir.ancestors().skip(1).take(2) {
            // Only one that is empty goes.
            let _ = std::fs::remove_dir(up);
        }
        Ok(())
    }

    /// Deletes the modules that were built for a kernel.
    pub(crate) fn delete_built(&self, package: &Package, target: &Target) -> Result<()> {
        let base = self.tree.base(package, target);
        forget(&base)?;
        if let Some(kernel) = base
            .parent()
            .filter(|k| disk::names(k).iter().all(|n| !k.join(n).is_dir()))
        {
            disk::remove_tree(kernel)?;
        }
        Ok(())
    }
}

/// Deletes a directory so that a kill leaves all of it or nothing that counts: it gets a hidden name first.
fn forget(dir: &Path) -> Result<()> {
    let name = dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let aside = dir.with_file_name(format!(".tmp_gone_{name}"));
    disk::remove_tree(&aside)?;
    match std::fs::rename(dir, &aside) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Stop::io(dir)(e)),
        Ok(()) => {}
    }
    dir.parent().map_or(Ok(()), disk::sync_dir)?;
    disk::remove_tree(&aside)
}

fn is_real_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| m.is_dir())
}

fn remove_empty_dirs(dir: &Path) {
    for entry in walkdir::WalkDir::new(dir)
        .contents_first(true)
        .into_iter()
        .flatten()
    {
        if entry.file_type().is_dir() {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}
