//! A series: commits in a git work tree, or patch files of the form that `git format-patch` writes.

use super::{Upgrade, words};
use similar::TextDiff;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum SeriesError {
    /// The work tree holds changes that are not committed.
    #[error(
        "{dir} has changes that are not committed ({first}); commit or stash them, or write a series elsewhere with --out"
    )]
    Dirty {
        /// The driver's directory.
        dir: PathBuf,
        /// The first of them.
        first: String,
    },
    /// git failed.
    #[error("git {what} failed in {dir}: {words}")]
    Git {
        /// The git command.
        what: String,
        /// Where.
        dir: PathBuf,
        /// Its words.
        words: String,
    },
    /// A file could not be written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
}

/// One commit of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The first line.
    pub subject: String,
    /// What follows it, less the sign-off.
    pub body: String,
    /// Files that differ, as they were and as they are.
    pub files: BTreeMap<PathBuf, (Vec<u8>, Vec<u8>)>,
}

/// The commits of an upgrade: one for each change that the old home kernel's compiler takes, then one for all that only the new
/// one does, and for the driver's new home.
#[must_use]
pub fn commits(upgrade: &Upgrade) -> Vec<Commit> {
    let mut out = Vec::new();
    let mut before = &upgrade.before;
    for (i, after) in upgrade.steps.iter().enumerate() {
        let (subject, body) = match upgrade.changes.get(i).filter(|_| i < upgrade.early) {
            Some(change) => (change.reason.subject.clone(), words::body(&change.reason)),
            None => switch(upgrade),
        };
        let files = difference(before, after);
        if !files.is_empty() {
            out.push(Commit {
                subject: format!("{}: {subject}", upgrade.driver),
                body,
                files,
            });
        }
        before = after;
    }
    out
}

/// What the last commit says: the changes that need each other, and what became of the whole.
fn switch(upgrade: &Upgrade) -> (String, String) {
    let late = upgrade.changes.get(upgrade.early..).unwrap_or_default();
    let builds = if upgrade.builds {
        "The source builds there as it is."
    } else {
        "Something is left to be done by hand: the source does not build there yet."
    };
    let subject = match late {
        [] => format!("the home kernel is {} now", upgrade.target),
        [one] => one.reason.subject.clone(),
        _ => format!("switch to the API of {}", upgrade.target),
    };
    if let [one] = late {
        let gap = format!("The home kernel is {} now. {builds}", upgrade.target);
        return (
            subject,
            format!("{}\n{}", words::wrapped(&gap), words::body(&one.reason)),
        );
    }
    let mut body = words::wrapped(builds);
    if !late.is_empty() {
        let gap = "Neither kernel builds the driver with only a part of these:";
        body.push_str(&format!("\n{}", words::wrapped(gap)));
    }
    for change in late {
        body.push_str(&format!(
            "\n{}:\n{}",
            change.reason.subject,
            words::body(&change.reason)
        ));
    }
    (subject, body)
}

fn difference(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    after: &BTreeMap<PathBuf, Vec<u8>>,
) -> BTreeMap<PathBuf, (Vec<u8>, Vec<u8>)> {
    let names: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    let pair = |name: &PathBuf| {
        let of = |all: &BTreeMap<PathBuf, Vec<u8>>| all.get(name).cloned().unwrap_or_default();
        (name.clone(), (of(before), of(after)))
    };
    names
        .into_iter()
        .map(pair)
        .filter(|(_, (a, b))| a != b)
        .collect()
}

/// Who signs: `Name <address>`.
#[must_use]
pub fn signer(dir: &Path) -> Option<String> {
    let ask = |key: &str| {
        let said = Command::new("git")
            .arg("-C")
            .arg(dir)
            .args(["config", "--get", key])
            .output()
            .ok()?;
        let text = String::from_utf8(said.stdout).ok()?.trim().to_owned();
        (said.status.success() && !text.is_empty()).then_some(text)
    };
    Some(format!("{} <{}>", ask("user.name")?, ask("user.email")?))
}

/// The patch of one commit; a series of them applies with `git am` and with `patch -p1`.
#[must_use]
pub fn patch(commit: &Commit, (number, count): (usize, usize), signer: Option<&str>) -> String {
    let from = signer.unwrap_or("kspan <kspan@localhost>");
    let mut out = format!(
        "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\nFrom: {from}\nDate: Thu, 1 Jan 1970 00:00:00 +0000\nSubject: [PATCH {number}/{count}] {}\n\n{}",
        commit.subject, commit.body
    );
    out.push_str(&signed_off(&commit.body, signer));
    out.push_str("---\n");
    for (file, (before, after)) in &commit.files {
        out.push_str(&file_diff(file, before, after));
    }
    out.push_str("-- \nkspan\n");
    out
}

fn signed_off(body: &str, signer: Option<&str>) -> String {
    let Some(signer) = signer else {
        return String::new();
    };
    let trailer = |l: &str| l.split_once(": ").is_some_and(|(k, _)| !k.contains(' '));
    let gap = if body.is_empty() || body.lines().last().is_some_and(trailer) {
        ""
    } else {
        "\n"
    };
    format!("{gap}Signed-off-by: {signer}\n")
}

fn file_diff(file: &Path, before: &[u8], after: &[u8]) -> String {
    let (old, new) = (
        String::from_utf8_lossy(before),
        String::from_utf8_lossy(after),
    );
    let name = file.display();
    let diff = TextDiff::from_lines(old.as_ref(), new.as_ref());
    let text = diff
        .unified_diff()
        .context_radius(3)
        .header(&format!("a/{name}"), &format!("b/{name}"))
        .to_string();
    format!("diff --git a/{name} b/{name}\n{text}")
}

/// Writes the upgraded source and its series into a new directory: whole or not at all.
///
/// # Errors
/// When the disk refuses.
pub fn write(upgrade: &Upgrade, to: &Path) -> Result<Vec<String>, SeriesError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| SeriesError::Io { path, source }
    };
    let parent = to
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(io(parent))?;
    let staged = tempfile::tempdir_in(parent).map_err(io(parent))?;
    write_source(upgrade, staged.path())?;
    let all = commits(upgrade);
    let signer = signer(parent);
    let mut names = Vec::new();
    for (i, commit) in all.iter().enumerate() {
        let name = format!("{:04}-{}.patch", i + 1, slug(&commit.subject));
        put(
            &staged.path().join("patches").join(&name),
            patch(commit, (i + 1, all.len()), signer.as_deref()).as_bytes(),
        )?;
        names.push(name);
    }
    let _ = std::fs::remove_dir(to);
    let staged = staged.keep();
    open_to_all(&staged).map_err(io(&staged))?;
    std::fs::rename(&staged, to).map_err(io(to))?;
    Ok(names)
}

/// Writes the upgraded source into a directory.
///
/// # Errors
/// When the disk refuses.
pub fn write_source(upgrade: &Upgrade, dir: &Path) -> Result<(), SeriesError> {
    let last = upgrade.steps.last().unwrap_or(&upgrade.before);
    for (file, bytes) in last {
        put(&dir.join(file), bytes)?;
    }
    Ok(())
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), SeriesError> {
    let io = |source| SeriesError::Io {
        path: path.to_path_buf(),
        source,
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io)?;
    }
    std::fs::write(path, bytes).map_err(io)
}

/// A temporary directory is private; a driver is not.
fn open_to_all(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))
}

/// A subject as a file's name, as git makes it.
fn slug(subject: &str) -> String {
    const LONGEST: usize = 52;
    let mut out = String::new();
    for c in subject.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') => out.push(c),
            _ if !out.ends_with('-') && !out.is_empty() => out.push('-'),
            _ => {}
        }
    }
    out.truncate(LONGEST);
    out.trim_end_matches(['-', '.']).to_owned()
}

/// The driver's directory lies in a git work tree.
#[must_use]
pub fn is_in_git(dir: &Path) -> bool {
    let said = git(dir, &["rev-parse", "--is-inside-work-tree"]);
    // A directory that its repository ignores is not under its care.
    said.is_ok_and(|s| s.trim() == "true") && git(dir, &["check-ignore", "-q", "."]).is_err()
}

/// Refuses a driver with changes that are not committed.
///
/// # Errors
/// Names the first of them.
pub fn refuse_dirty(dir: &Path) -> Result<(), SeriesError> {
    let said = git(
        dir,
        &["status", "--porcelain", "--untracked-files=no", "--", "."],
    )?;
    // Files of the driver that git does not know would be left out of the commits.
    let unknown = git(
        dir,
        &["ls-files", "--others", "--exclude-standard", "--", "."],
    )?;
    match said.lines().chain(unknown.lines()).next() {
        None => Ok(()),
        Some(first) => Err(SeriesError::Dirty {
            dir: dir.to_path_buf(),
            first: first.trim().to_owned(),
        }),
    }
}

/// Makes the commits in the driver's own work tree; their abbreviated hashes. All commits are made beside the work tree, which then
/// moves to the last one in one step of git's: who interrupts before that finds the source as it was.
///
/// # Errors
/// When git refuses or the disk does.
pub fn commit_all(upgrade: &Upgrade, dir: &Path) -> Result<Vec<String>, SeriesError> {
    let said = |args: &[&str]| git(dir, args).map(|s| s.trim().to_owned());
    let prefix = said(&["rev-parse", "--show-prefix"])?;
    let mut parent = said(&["rev-parse", "HEAD"])?;
    let index = tempfile::tempdir().map_err(|source| SeriesError::Io {
        path: std::env::temp_dir(),
        source,
    })?;
    let beside = Beside {
        dir,
        index: index.path().join("index"),
    };
    beside.run(&["read-tree", "HEAD"], b"")?;
    let signer = signer(dir);
    let mut hashes = Vec::new();
    for commit in commits(upgrade) {
        for (file, (_, after)) in &commit.files {
            beside.put(&prefix, file, after)?;
        }
        let tree = beside.run(&["write-tree"], b"")?;
        let message = format!(
            "{}\n\n{}{}",
            commit.subject,
            commit.body,
            signed_off(&commit.body, signer.as_deref())
        );
        let made = beside.run(&["commit-tree", &tree, "-p", &parent], message.as_bytes())?;
        hashes.push(said(&["rev-parse", "--short", &made])?);
        parent = made;
    }
    git(dir, &["merge", "--quiet", "--ff-only", &parent])?;
    Ok(hashes)
}

/// Git with an index of its own.
struct Beside<'a> {
    dir: &'a Path,
    index: PathBuf,
}

impl Beside<'_> {
    fn run(&self, args: &[&str], input: &[u8]) -> Result<String, SeriesError> {
        let mut command = Command::new("git");
        command.env("GIT_INDEX_FILE", &self.index);
        said_by(command, self.dir, args, input).map(|s| s.trim().to_owned())
    }

    /// A file of the driver as it shall be committed.
    fn put(&self, prefix: &str, file: &Path, bytes: &[u8]) -> Result<(), SeriesError> {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(self.dir.join(file)).map_or(0o644, |m| m.permissions().mode());
        let mode = if mode & 0o111 == 0 {
            "100644"
        } else {
            "100755"
        };
        let hash = self.run(&["hash-object", "-w", "--stdin"], bytes)?;
        let entry = format!("{mode},{hash},{prefix}{}", file.display());
        self.run(&["update-index", "--add", "--cacheinfo", &entry], b"")?;
        Ok(())
    }
}

fn git(dir: &Path, args: &[&str]) -> Result<String, SeriesError> {
    said_by(Command::new("git"), dir, args, b"")
}

/// What a git command prints, given `input`.
fn said_by(
    mut command: Command,
    dir: &Path,
    args: &[&str],
    input: &[u8],
) -> Result<String, SeriesError> {
    let what = args.first().copied().unwrap_or_default().to_owned();
    let failed = |words: String| SeriesError::Git {
        what: what.clone(),
        dir: dir.to_path_buf(),
        words,
    };
    let stdin = tempfile_with(input).map_err(|e| failed(e.to_string()))?;
    let said = command
        .arg("-C")
        .arg(dir)
        .args(args)
        .stdin(stdin)
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if !said.status.success() {
        let words = String::from_utf8_lossy(&said.stderr);
        return Err(failed(words.trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// A nameless file with this content, at its start.
fn tempfile_with(bytes: &[u8]) -> std::io::Result<std::fs::File> {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::{Change, Reason};
    use kspan_port::gap::Risk;

    fn step(text: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        BTreeMap::from([(PathBuf::from("a.c"), text.as_bytes().to_vec())])
    }

    fn upgrade() -> Upgrade {
        let reason = Reason {
            id: "x-old".to_owned(),
            subject: "use y() instead of x".to_owned(),
            why: "x is gone.".to_owned(),
            commit: "0123456789ab subject".to_owned(),
            risk: Risk::None,
            meaning: String::new(),
            keeps: false,
        };
        Upgrade {
            driver: "drv".to_owned(),
            home: "old".to_owned(),
            target: "new".to_owned(),
            broken: None,
            builds: true,
            family: Vec::new(),
            early: 1,
            changes: vec![Change {
                reason,
                edits: BTreeMap::new(),
                rank: 0,
            }],
            open: Vec::new(),
            guards: Vec::new(),
            warnings: (0, 0),
            compiles: 0,
            seconds: 0.0,
            steps: vec![step("int a;\ny();\n"), {
                let mut last = step("int a;\ny();\n");
                last.insert(PathBuf::from("kspan.toml"), b"home = \"new\"\n".to_vec());
                last
            }],
            before: {
                let mut first = step("int a;\nx();\n");
                first.insert(PathBuf::from("kspan.toml"), b"home = \"old\"\n".to_vec());
                first
            },
        }
    }

    fn repository(dir: &Path) {
        for args in [
            vec!["init", "-q"],
            vec!["config", "user.name", "A Person"],
            vec!["config", "user.email", "a@example.org"],
            vec!["add", "."],
            vec!["commit", "-qm", "first"],
        ] {
            git(dir, &args).unwrap();
        }
    }

    fn fill(dir: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
        for (file, bytes) in files {
            std::fs::write(dir.join(file), bytes).unwrap();
        }
    }

    #[test]
    fn a_series_has_one_commit_for_each_change() {
        let dir = tempfile::tempdir().unwrap();
        let mut upgrade = upgrade();
        // The manifest stays the same until the last step.
        let manifest = upgrade.before[Path::new("kspan.toml")].clone();
        upgrade.steps[0].insert(PathBuf::from("kspan.toml"), manifest);
        fill(dir.path(), &upgrade.before);
        repository(dir.path());
        assert!(is_in_git(dir.path()));
        refuse_dirty(dir.path()).unwrap();
        assert_eq!(commit_all(&upgrade, dir.path()).unwrap().len(), 2);
        let log = git(dir.path(), &["log", "--reverse", "--format=%s|%b"]).unwrap();
        assert!(
            log.contains("drv: use y() instead of x|x is gone."),
            "{log}"
        );
        assert!(
            log.contains("Evolution: x-old")
                && log.contains("Signed-off-by: A Person <a@example.org>"),
            "{log}"
        );
        assert_eq!(
            std::fs::read(dir.path().join("a.c")).unwrap(),
            b"int a;\ny();\n"
        );
        std::fs::write(dir.path().join("a.c"), "int b;\n").unwrap();
        assert!(matches!(
            refuse_dirty(dir.path()),
            Err(SeriesError::Dirty { .. })
        ));
    }

    #[test]
    fn patches_apply_with_git() {
        let dir = tempfile::tempdir().unwrap();
        let mut upgrade = upgrade();
        let manifest = upgrade.before[Path::new("kspan.toml")].clone();
        upgrade.steps[0].insert(PathBuf::from("kspan.toml"), manifest);
        let out = dir.path().join("out");
        let names = write(&upgrade, &out).unwrap();
        assert_eq!(names[0], "0001-drv-use-y-instead-of-x.patch");
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        fill(&tree, &upgrade.before);
        repository(&tree);
        for name in &names {
            let patch = out.join("patches").join(name);
            git(&tree, &["am", "-q", &patch.display().to_string()]).unwrap();
        }
        assert_eq!(
            std::fs::read(tree.join("a.c")).unwrap(),
            std::fs::read(out.join("a.c")).unwrap()
        );
        assert_eq!(
            std::fs::read(tree.join("kspan.toml")).unwrap(),
            b"home = \"new\"\n"
        );
    }
}
