//! `mktarball` and `ldtarball`: a package with its built modules in one file.

use crate::conf::Reading;
use crate::session::{Package, Session};
use crate::{Result, Stop, disk};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

impl Session<'_> {
    /// Packs the named package.
    pub(crate) fn make_tarball(&mut self) -> Result<()> {
        let package = self.package();
        self.conf(&package, &self.first_target(), Reading::Lenient)?;
        let dir = temporary(&self.tmp)?;
        let list = if self.request.source_only {
            "source-only".to_owned()
        } else {
            self.pack_modules(&package, dir.path())?
        };
        self.pack_source(&package, dir.path())?;
        let list = if list.len() >= 200 {
            "manykernels".to_owned()
        } else {
            list
        };
        let (place, name) = self.tarball_place(&package, &list);
        self.say(&format!("\nTarball location: {}/{name}", place.display()));
        let denied = || {
            Stop::error(
                9,
                [format!(
                    "Missing write permissions for {}.",
                    place.display()
                )],
            )
        };
        std::fs::create_dir_all(&place).map_err(|_| denied())?;
        if rustix::fs::access(&place, rustix::fs::Access::WRITE_OK).is_err() {
            return Err(denied());
        }
        pack(dir.path(), &place, &name)
    }

    fn pack_modules(&self, package: &Package, dir: &Path) -> Result<String> {
        let mut list = Vec::new();
        for target in &self.targets {
            let base = self.tree.base(package, target);
            if !base.is_dir() {
                return Err(Stop::error(
                    6,
                    [
                        format!("No modules built for {} ({}).", target.kernel, target.arch),
                        "Modules must already be in the built state before using mktarball."
                            .to_owned(),
                    ],
                ));
            }
            self.say(&format!(
                "Marking modules for {} ({}) for archiving...",
                target.kernel, target.arch
            ));
            let place = dir
                .join("dkms_main_tree")
                .join(&target.kernel)
                .join(&target.arch);
            disk::copy_tree(&base, &place)?;
            list.push(format!("kernel{}-{}", target.kernel, target.arch));
        }
        Ok(list.join("-"))
    }

    fn pack_source(&self, package: &Package, dir: &Path) -> Result<()> {
        disk::make_dir(&dir.join("dkms_main_tree"))?;
        let source = self.tree.source_link(package);
        self.say("");
        if !self.request.binaries_only {
            self.say(&format!("Marking {} for archiving...", source.display()));
            return disk::copy_tree(&source, &dir.join("dkms_source_tree"));
        }
        self.say("Creating tarball structure to specifically accommodate binaries.");
        let only = dir.join("dkms_binaries_only");
        disk::make_dir(&only)?;
        let put = |name: &str, text: &str| {
            let path = only.join(name);
            std::fs::write(&path, format!("{text}\n")).map_err(Stop::io(&path))
        };
        put("PACKAGE_NAME", &package.name)?;
        put("PACKAGE_VERSION", &package.version)?;
        disk::copy(&self.conf_file(package), &only.join("dkms.conf"))
    }

    fn tarball_place(&self, package: &Package, list: &str) -> (PathBuf, String) {
        let usual = self.tree.package(package).join("tarball");
        match &self.request.archive {
            None => (
                usual,
                format!("{}-{}-{list}.dkms.tar.gz", package.name, package.version),
            ),
            Some(path) => {
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
                (parent.map_or(usual, Path::to_path_buf), name)
            }
        }
    }

    /// Unpacks a tarball; true if its source is there to be registered.
    pub(crate) fn load_tarball(&mut self) -> Result<bool> {
        let archive = self.request.archive.clone().unwrap_or_default();
        if !archive.exists() {
            return Err(Stop::error(
                2,
                [format!("{} does not exist.", archive.display())],
            ));
        }
        if archive.extension().is_some_and(|e| e == "rpm") {
            return self.load_rpm(&archive);
        }
        let dir = temporary(&self.tmp)?;
        unpack(&archive, dir.path())?;
        if !dir.path().join("dkms_main_tree").is_dir() {
            return self.load_source(dir.path()).map(|()| true);
        }
        let (package, binaries) = self.archived(&archive, dir.path())?;
        self.request.module = package.name.clone();
        self.request.version = package.version.clone();
        self.say(&format!("\nLoading tarball for {package}"));
        if binaries {
            self.load_stub(&package, dir.path())?;
        } else {
            self.add_source(&dir.path().join("dkms_source_tree").display().to_string())?;
        }
        self.load_modules(&package, dir.path())?;
        Ok(!binaries || self.tree.source_of(&package).is_dir())
    }

    fn load_rpm(&mut self, archive: &Path) -> Result<bool> {
        let mut command = Command::new("rpm");
        command.arg("-Uvh").arg(archive);
        self.talk.child(&mut command);
        if !command.status().is_ok_and(|s| s.success()) {
            return Err(Stop::error(
                9,
                [
                    format!("Unable to install {} using rpm.", archive.display()),
                    "Check to ensure that your system can install .rpm files.".to_owned(),
                ],
            ));
        }
        self.autoinstall()?;
        Err(Stop::Exit(0))
    }

    /// A plain source tarball.
    fn load_source(&mut self, dir: &Path) -> Result<()> {
        let conf = walkdir::WalkDir::new(dir)
            .sort_by_file_name()
            .into_iter()
            .flatten()
            .find(|e| e.file_type().is_file() && e.file_name() == "dkms.conf");
        let parent = conf.and_then(|e| e.path().parent().map(Path::to_path_buf));
        let Some(parent) = parent else {
            return Err(Stop::error(
                3,
                [
                    "Tarball does not appear to be a correctly formed DKMS archive. No dkms.conf found within it.",
                ],
            ));
        };
        self.add_source(&parent.display().to_string())
    }

    /// The package in an archive that mktarball made, and whether it holds no source.
    fn archived(&mut self, archive: &Path, dir: &Path) -> Result<(Package, bool)> {
        for (name, binaries) in [("dkms_source_tree", false), ("dkms_binaries_only", true)] {
            let conf = dir.join(name).join("dkms.conf");
            if !conf.is_file() {
                continue;
            }
            let Some(package) = self.package_of(&conf)? else {
                self.talk.err("\nMalformed dkms.conf, refusing to load.\n");
                continue;
            };
            if self.tree.is_added(&package) && !self.force {
                return Err(Stop::error(
                    8,
                    [
                        format!("{package} is already added!"),
                        "Aborting.".to_owned(),
                    ],
                ));
            }
            return Ok((package, binaries));
        }
        Err(Stop::error(
            7,
            [
                "No valid dkms.conf in dkms_source_tree or dkms_binaries_only.".to_owned(),
                format!("{} is not a valid DKMS tarball.", archive.display()),
            ],
        ))
    }

    /// The place of a package without source: its configuration alone.
    fn load_stub(&self, package: &Package, dir: &Path) -> Result<()> {
        if self.tree.source_of(package).is_dir() {
            return Ok(());
        }
        let source = self.tree.source_link(package);
        self.say(&format!("Creating {}", source.display()));
        disk::make_dir(&source)?;
        self.say(&format!("Copying dkms.conf to {} ...", source.display()));
        disk::copy(
            &dir.join("dkms_binaries_only/dkms.conf"),
            &source.join("dkms.conf"),
        )
    }

    fn load_modules(&self, package: &Package, dir: &Path) -> Result<()> {
        let main = dir.join("dkms_main_tree");
        for kernel in disk::names(&main) {
            for arch in disk::names(&main.join(&kernel)) {
                let from = main.join(&kernel).join(&arch);
                let place = self.tree.package(package).join(&kernel).join(&arch);
                if !from.is_dir() {
                    continue;
                }
                if place.is_dir() && !self.force {
                    self.warn(&[&format!("{} already exists. Skipping...", place.display())]);
                    continue;
                }
                self.say(&format!("Loading {}...", place.display()));
                let staged = place.with_file_name(format!(".tmp_{arch}_load"));
                disk::remove_tree(&staged)?;
                disk::copy_tree(&from, &staged)?;
                disk::sync_tree(&staged)?;
                disk::remove_tree(&place)?;
                disk::rename(&staged, &place)?;
            }
        }
        Ok(())
    }
}

fn temporary(tmp: &Path) -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("dkms.")
        .tempdir_in(tmp)
        .map_err(|_| Stop::error(1, ["Unable to make temporary directory."]))
}

/// tar writes beside the place, then it is renamed.
fn pack(dir: &Path, place: &Path, name: &str) -> Result<()> {
    let failed = || Stop::error(6, ["Failed to make tarball."]);
    let staged = place.join(format!("{}{name}", disk::PENDING));
    let status = Command::new("tar")
        .arg("-C")
        .arg(dir)
        .args(["--owner=0", "--group=0", "--sort=name", "-caf"])
        .arg(&staged)
        .arg(".")
        .stderr(Stdio::null())
        .status();
    if !status.is_ok_and(|s| s.success()) {
        let _ = std::fs::remove_file(&staged);
        return Err(failed());
    }
    disk::sync_dir(&staged)?;
    disk::rename(&staged, &place.join(name))
}

/// tar itself refuses names that lead out of the directory.
fn unpack(archive: &Path, dir: &Path) -> Result<()> {
    let output = Command::new("tar")
        .args(["--no-same-owner", "-xaf"])
        .arg(archive)
        .arg("-C")
        .arg(dir)
        .output()
        .map_err(Stop::io(Path::new("tar")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Stop::error(
        3,
        [
            format!(
                "{} cannot be unpacked; nothing was loaded.",
                archive.display()
            ),
            said.lines().next().unwrap_or_default().to_owned(),
        ],
    ))
}
