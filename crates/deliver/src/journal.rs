//! Changes of a kernel's module tree that a kill cannot leave half done.
//!
//! Everything new is first written beside its place and flushed. Then the journal says what is to be done: from here on the
//! change happens, by renames and removals that can be repeated. While it happens no version counts as installed; a run that
//! finds a journal finishes it. A full disk is met before the journal is written, when nothing has changed yet.

use crate::conf::Reading;
use crate::session::{Package, Session, Target};
use crate::{Result, Stop, disk};
use std::path::{Path, PathBuf};

/// A file that waits beside its place.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Put {
    /// Where it waits.
    pub staged: PathBuf,
    /// Where it goes.
    pub place: PathBuf,
}

/// Which way modules go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Into the kernel's tree.
    Install,
    /// Out of it.
    Uninstall,
}

/// One change, as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Change {
    /// Which way.
    pub way: Way,
    /// `PACKAGE_NAME`.
    pub name: String,
    /// `PACKAGE_VERSION`.
    pub version: String,
    /// The kernel.
    pub kernel: String,
    /// Its architecture.
    pub arch: String,
    /// The marker of what is installed.
    pub marker: PathBuf,
    /// What the marker said before.
    pub before: Option<PathBuf>,
    /// Renames, in order.
    pub puts: Vec<Put>,
    /// Removals after them.
    pub removals: Vec<PathBuf>,
    /// Directories below the kernel's that go if they are empty.
    pub prune: Vec<PathBuf>,
    /// Removals at the very end: backups that were put back.
    pub leftovers: Vec<PathBuf>,
}

impl Change {
    /// An empty change.
    pub fn new(session: &Session<'_>, way: Way, package: &Package, target: &Target) -> Self {
        let marker = session.tree.active(&package.name, target);
        Self {
            way,
            name: package.name.clone(),
            version: package.version.clone(),
            kernel: target.kernel.clone(),
            arch: target.arch.clone(),
            before: std::fs::read_link(&marker).ok(),
            marker,
            puts: Vec::new(),
            removals: Vec::new(),
            prune: Vec::new(),
            leftovers: Vec::new(),
        }
    }

    /// Copies a file beside its place; a hard link where both lie on one file system, which needs no space.
    pub fn stage(&mut self, from: &Path, place: &Path, link: bool) -> Result<()> {
        if let Some(dir) = place.parent() {
            disk::make_dir(dir)?;
        }
        let staged = match link.then(|| disk::stage_link(from, place)).flatten() {
            Some(staged) => staged,
            None => disk::stage(from, place)?,
        };
        self.keep(staged, place);
        Ok(())
    }

    /// Writes a text beside its place.
    pub fn stage_text(&mut self, text: &str, place: &Path) -> Result<()> {
        let staged = disk::stage_text(text, place)?;
        self.keep(staged, place);
        Ok(())
    }

    /// Makes a symbolic link beside its place.
    pub fn stage_symlink(&mut self, to: &Path, place: &Path) -> Result<()> {
        let staged = disk::stage_symlink(to, place)?;
        self.keep(staged, place);
        Ok(())
    }

    fn keep(&mut self, staged: PathBuf, place: &Path) {
        self.puts.push(Put {
            staged,
            place: place.to_path_buf(),
        });
    }

    /// Forgets what was staged.
    pub fn drop_staged(&self) {
        for put in &self.puts {
            // Nothing reads it; the next change overwrites it.
            let _ = std::fs::remove_file(&put.staged);
        }
    }

    fn package(&self) -> Package {
        Package {
            name: self.name.clone(),
            version: self.version.clone(),
        }
    }

    fn target(&self) -> Target {
        Target {
            kernel: self.kernel.clone(),
            arch: self.arch.clone(),
        }
    }

    fn directories(&self) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = self
            .puts
            .iter()
            .map(|p| &p.place)
            .chain(&self.removals)
            .filter_map(|p| p.parent().map(Path::to_path_buf))
            .filter(|d| d.is_dir())
            .collect();
        dirs.sort();
        dirs.dedup();
        dirs
    }

    /// The point of no return: flushes what is staged, then writes the journal. If that fails, all is as it was.
    pub fn commit(&self, journal: &Path) -> Result<()> {
        let written = self.write(journal);
        if written.is_err() {
            // A journal that is there although it could not be flushed would be finished: then what it names must stay.
            disk::remove_file(journal)?;
            self.drop_staged();
        }
        written
    }

    fn write(&self, journal: &Path) -> Result<()> {
        self.directories()
            .iter()
            .try_for_each(|d| disk::sync_dir(d))?;
        let text = serde_json::to_vec_pretty(self).map_err(|e| Stop::error(1, [e.to_string()]))?;
        disk::write(journal, &text)
    }

    /// Does what the journal says, up to depmod. May be repeated.
    pub fn apply(&self) -> Result<()> {
        disk::remove_file(&self.marker)?;
        self.marker.parent().map_or(Ok(()), disk::sync_dir)?;
        for put in &self.puts {
            if put.staged.symlink_metadata().is_ok() {
                disk::rename(&put.staged, &put.place)?;
            }
        }
        let dirs = self.directories();
        dirs.iter().try_for_each(|d| disk::sync_dir(d))?;
        for path in &self.removals {
            disk::remove_file(path)?;
        }
        dirs.iter()
            .filter(|d| d.is_dir())
            .try_for_each(|d| disk::sync_dir(d))?;
        for dir in &self.prune {
            // One that is not empty stays.
            let _ = std::fs::remove_dir(dir);
        }
        Ok(())
    }

    /// The end: the marker is set, backups that were put back go, and the journal with them.
    pub fn conclude(&self, journal: &Path) -> Result<()> {
        if self.way == Way::Install {
            let to = Path::new(&self.version).join(&self.kernel).join(&self.arch);
            disk::link(&to, &self.marker)?;
        }
        for path in &self.leftovers {
            disk::remove_file(path)?;
        }
        disk::remove_file(journal)?;
        journal.parent().map_or(Ok(()), disk::sync_dir)
    }
}

impl Session<'_> {
    /// Where the journal of a package's change for a kernel lies.
    pub(crate) fn journal(&self, name: &str, target: &Target) -> PathBuf {
        let file = format!("{name}-{}-{}.json", target.kernel, target.arch);
        self.tree.own("journal").join(file)
    }
}

/// Finishes what a killed run began.
///
/// # Errors
/// When it cannot be finished; nothing else should be changed then.
pub fn recover(session: &mut Session<'_>) -> Result<()> {
    let dir = session.tree.own("journal");
    for name in disk::names(&dir) {
        let path = dir.join(&name);
        let text = std::fs::read(&path).map_err(Stop::io(&path))?;
        let Ok(change) = serde_json::from_slice::<Change>(&text) else {
            // Journals are written whole; this is something else.
            let aside = path.with_extension("unreadable");
            session.warn(&[&format!(
                "{} is no journal and was moved to {}",
                path.display(),
                aside.display()
            )]);
            disk::rename(&path, &aside)?;
            continue;
        };
        finish(session, &change, &path)?;
    }
    Ok(())
}

fn finish(session: &mut Session<'_>, change: &Change, path: &Path) -> Result<()> {
    let (package, target) = (change.package(), change.target());
    let what = match change.way {
        Way::Install => "installation",
        Way::Uninstall => "removal",
    };
    session.talk.err(&format!(
        "Finishing the interrupted {what} of {package} for {target}.\n"
    ));
    change.apply()?;
    let script = match change.way {
        Way::Install => "post_install",
        Way::Uninstall => "post_remove",
    };
    let file = session.tree.source_link(&package).join("dkms.conf");
    if let Ok(conf) = session.read_conf(&package, &target, &file, Reading::Lenient) {
        session.source_script(&package, Some(&target), script, conf.script(script))?;
    }
    if session.depmod_quietly(&target.kernel)? != 0 {
        // The files are in their places. What only depmod is missing for must not keep other packages from being worked on.
        session.warn(&[&format!(
            "depmod failed while finishing the {what} of {package}; the next run tries again."
        )]);
        return Ok(());
    }
    change.conclude(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(dir: &Path) -> Change {
        Change {
            way: Way::Install,
            name: "a".into(),
            version: "1".into(),
            kernel: "k".into(),
            arch: "x".into(),
            marker: dir.join("dkms/a/kernel-k-x"),
            before: None,
            puts: Vec::new(),
            removals: vec![dir.join("lib/kernel/a.ko")],
            prune: Vec::new(),
            leftovers: Vec::new(),
        }
    }

    /// Every step of a change may be the last one of a run: repeating all of them always ends well.
    #[test]
    fn a_change_can_be_repeated_from_anywhere() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        for d in [
            "lib/kernel",
            "lib/updates",
            "dkms/a",
            "dkms/.kspan/journal",
            "built",
        ] {
            std::fs::create_dir_all(at(d)).unwrap();
        }
        std::fs::write(at("lib/kernel/a.ko"), "original").unwrap();
        std::fs::write(at("built/a.ko"), "new").unwrap();
        let mut change = change(dir.path());
        change
            .stage(&at("lib/kernel/a.ko"), &at("dkms/a/original/a.ko"), true)
            .unwrap();
        change
            .stage(&at("built/a.ko"), &at("lib/updates/a.ko"), false)
            .unwrap();
        let journal = at("dkms/.kspan/journal/a.json");
        change.commit(&journal).unwrap();
        let read: Change = serde_json::from_slice(&std::fs::read(&journal).unwrap()).unwrap();
        assert_eq!(read, change);
        assert_eq!(
            std::fs::read_to_string(at("lib/kernel/a.ko")).unwrap(),
            "original"
        );
        for _ in 0..3 {
            read.apply().unwrap();
            assert_eq!(
                std::fs::read_to_string(at("lib/updates/a.ko")).unwrap(),
                "new"
            );
            assert_eq!(
                std::fs::read_to_string(at("dkms/a/original/a.ko")).unwrap(),
                "original"
            );
            assert!(!at("lib/kernel/a.ko").exists() && !change.marker.is_symlink());
        }
        read.conclude(&journal).unwrap();
        assert_eq!(
            std::fs::read_link(&change.marker).unwrap(),
            Path::new("1/k/x")
        );
        assert!(!journal.exists());
    }
}
