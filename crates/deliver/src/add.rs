//! `add`: a source becomes known.

use crate::conf::Reading;
use crate::session::{Package, Session, Target, root};
use crate::{Result, Stop, disk};
use std::path::{Path, PathBuf};

impl Session<'_> {
    /// Registers the package that the command line names, or that lies where it points.
    pub(crate) fn add(&mut self) -> Result<()> {
        let unnamed = self.request.module.is_empty() && self.request.version.is_empty();
        if unnamed && self.request.archive.is_some() {
            self.load_tarball()?;
        } else if unnamed && let Some(source) = self.request.source.clone() {
            self.add_source(&source)?;
        }
        self.named(crate::Action::Add)?;
        let package = self.package();
        self.rpm_lock(&package)?;
        let target = self.first_target();
        self.register(&package, &target)
    }

    /// The kernel that a configuration is read for when any will do.
    pub(crate) fn first_target(&self) -> Target {
        self.targets.first().cloned().unwrap_or(Target {
            kernel: crate::kernels::running(),
            arch: String::new(),
        })
    }

    /// Makes the package's place in the tree.
    pub(crate) fn register(&mut self, package: &Package, target: &Target) -> Result<()> {
        if self.tree.is_added(package) {
            return Err(Stop::error(
                3,
                [
                    format!("DKMS tree already contains: {package}"),
                    "You cannot add the same module/version combo more than once.".to_owned(),
                ],
            ));
        }
        let source = self.tree.source_of(package);
        if !source.is_dir() {
            return Err(Stop::error(
                2,
                [
                    "Could not find module source directory.".to_owned(),
                    format!("Directory: {} does not exist.", source.display()),
                ],
            ));
        }
        let file = self
            .request
            .conf
            .clone()
            .unwrap_or_else(|| source.join("dkms.conf"));
        let conf = self.conf_at(package, target, &file, Reading::Strict)?;
        let link = self.tree.source_link(package);
        self.say(&format!(
            "Creating symlink {} -> {}",
            link.display(),
            source.display()
        ));
        disk::make_dir(&self.tree.build(package))?;
        disk::link(&source, &link)?;
        self.source_script(package, None, "post_add", conf.script("post_add"))?;
        Ok(())
    }

    /// Copies a source directory to where sources lie, and takes its name and version from it.
    pub(crate) fn add_source(&mut self, source: &str) -> Result<()> {
        let from = Path::new(source).canonicalize().ok();
        let Some(from) = from.filter(|f| f.join("dkms.conf").is_file()) else {
            return Err(Stop::error(
                9,
                [format!("{source} must contain a dkms.conf file!")],
            ));
        };
        root()?;
        let package = self.package_of(&from.join("dkms.conf"))?;
        let Some(package) = package else {
            return Err(Stop::error(
                10,
                ["Malformed dkms.conf file. Cannot load source tree."],
            ));
        };
        self.request.module = package.name.clone();
        self.request.version = package.version.clone();
        let place = self.tree.source_of(&package);
        let known = [
            place.clone(),
            self.tree.source_link(&package),
            self.tree.build(&package),
        ];
        if known.contains(&from) {
            return Ok(());
        }
        if self.force && place.is_dir() {
            self.talk.err(&format!("\nForcing install of {package}\n"));
        }
        put_source(&from, &place, self.force)
    }

    /// The package that a dkms.conf describes.
    pub(crate) fn package_of(&mut self, conf: &Path) -> Result<Option<Package>> {
        let package = self.package();
        let target = self.first_target();
        Ok(self
            .conf_at(&package, &target, conf, Reading::Lenient)?
            .package)
    }

    /// `--rpm_safe_upgrade`: a note for the removal that rpm runs after the installation of the same upgrade.
    fn rpm_lock(&self, package: &Package) -> Result<()> {
        if !self.request.rpm_safe_upgrade {
            return Ok(());
        }
        let Some((parent, started)) = grandparent() else {
            return Ok(());
        };
        let file = tempfile::Builder::new()
            .prefix(&format!("dkms_rpm_safe_upgrade_lock.{parent}."))
            .tempfile_in(&self.tmp)
            .map_err(Stop::io(&self.tmp))?;
        let (_, path) = file.keep().map_err(|e| Stop::io(&self.tmp)(e.error))?;
        let text = format!("{}-{}\n{started}\n", package.name, package.version);
        std::fs::write(&path, text).map_err(Stop::io(&path))
    }

    /// True, once, if this removal belongs to an upgrade that was just installed.
    pub(crate) fn rpm_upgrade(&self, package: &Package) -> bool {
        let Some((parent, started)) = grandparent().filter(|_| self.request.rpm_safe_upgrade)
        else {
            return false;
        };
        let prefix = format!("dkms_rpm_safe_upgrade_lock.{parent}.");
        let wanted = format!("{}-{}\n{started}\n", package.name, package.version);
        crate::disk::names(&self.tmp)
            .into_iter()
            .filter(|n| n.starts_with(&prefix))
            .map(|n| self.tmp.join(n))
            .any(|p| {
                std::fs::read_to_string(&p).is_ok_and(|t| t == wanted)
                    && std::fs::remove_file(&p).is_ok()
            })
    }
}

/// The process that started our parent, and when it began: its number alone may be used again.
fn grandparent() -> Option<(String, String)> {
    let field = |pid: &str, n: usize| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field, a name in parentheses, may hold anything.
        let (_, rest) = text.rsplit_once(") ")?;
        rest.split_whitespace().nth(n).map(str::to_owned)
    };
    let parent = field("self", 1)?;
    let grand = field(&parent, 1)?;
    let started = field(&grand, 19)?;
    Some((grand, started))
}

/// Copies a source beside its place and puts it there; files that were there and are not in the new source stay, unless forced.
fn put_source(from: &Path, place: &Path, force: bool) -> Result<()> {
    let dir = place.parent().map(PathBuf::from).unwrap_or_default();
    disk::make_dir(&dir)?;
    let staged = tempfile::Builder::new()
        .prefix(disk::PENDING)
        .tempdir_in(&dir)
        .map_err(Stop::io(&dir))?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(staged.path(), std::fs::Permissions::from_mode(0o755))
        .map_err(Stop::io(&dir))?;
    let new = staged.path().join("source");
    if !force && place.is_dir() {
        disk::copy_tree(place, &new)?;
    }
    disk::copy_tree(from, &new)?;
    if place.symlink_metadata().is_ok() {
        disk::rename(place, &staged.path().join("old"))?;
    }
    disk::rename(&new, place)?;
    disk::sync_dir(&dir)
}
