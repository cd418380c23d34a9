//! Which commit changed a name: one pass over a repository's history of its headers.
//!
//! Never: writes to the repository, or runs its hooks. A name that stands in thousands of commits is told by the one that made the
//! difference: the last to take it away, the first to bring it, the last to change its line.

use crate::upgrade::series::SeriesError;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// What happened to a name between an older kernel and a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Change {
    /// The newer one has it, the older one has not.
    Added,
    /// The other way round.
    Removed,
    /// Both have it, in another shape.
    Reshaped,
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wanted {
    /// A function, macro, constant or type; or a member.
    pub word: String,
    /// The tag of the structure that has the member.
    pub record: Option<String>,
    /// What happened to it.
    pub change: Change,
}

/// The lines of one commit that hold a wanted name.
#[derive(Debug, Clone, Copy, Default)]
struct Lines {
    minus: usize,
    plus: usize,
}

impl Lines {
    fn is(self, change: Change) -> bool {
        match change {
            Change::Added => self.plus > 0 && self.minus == 0,
            Change::Removed => self.minus > 0 && self.plus == 0,
            Change::Reshaped => self.minus > 0 && self.plus > 0,
        }
    }
}

/// The commit of each name for which there is one, as `abbreviated-hash subject`.
///
/// `range` is what git's log takes (`v6.1..v6.12`); none means all that leads to HEAD.
///
/// # Errors
/// When git cannot be run or refuses.
pub fn commits(
    repo: &Path,
    range: Option<&str>,
    wanted: &[Wanted],
) -> Result<BTreeMap<Wanted, String>, SeriesError> {
    let failed = |words: String| SeriesError::Git {
        what: "log".to_owned(),
        dir: repo.to_path_buf(),
        words,
    };
    let mut child = log(repo, range)
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    let mut reading = Reading::new(wanted);
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).split(b'\n') {
            let line = line.map_err(|e| failed(e.to_string()))?;
            reading.line(&String::from_utf8_lossy(&line));
        }
    }
    reading.end_of_commit();
    let end = child
        .wait_with_output()
        .map_err(|e| failed(e.to_string()))?;
    if !end.status.success() {
        let words = String::from_utf8_lossy(&end.stderr).trim().to_owned();
        return Err(failed(words));
    }
    Ok(reading.found)
}

fn log(repo: &Path, range: Option<&str>) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(repo).args([
        "log",
        "--no-merges",
        "--no-color",
        "--no-ext-diff",
        "--no-textconv",
        "--no-renames",
        "--abbrev=12",
        "--format=%x01%h %s",
        "-p",
        "-U0",
        range.unwrap_or("HEAD"),
        "--",
        "*.h",
    ]);
    git.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    git
}

/// The tags of two releases as a range, where the repository has both: the history between them is enough.
#[must_use]
pub fn range(repo: &Path, old: &str, new: &str) -> Option<String> {
    let (old, new) = (tag(old)?, tag(new)?);
    let there = |tag: &str| {
        let name = format!("refs/tags/{tag}");
        let mut git = Command::new("git");
        git.arg("-C")
            .arg(repo)
            .args(["show-ref", "--verify", "--quiet", &name])
            .stderr(Stdio::null());
        git.status().is_ok_and(|s| s.success())
    };
    (there(&old) && there(&new)).then(|| format!("{old}..{new}"))
}

/// `6.1.192-3` → `v6.1`.
fn tag(release: &str) -> Option<String> {
    let mut parts = release.split(['.', '-', '+']);
    let (major, minor) = (parts.next()?, parts.next()?);
    let number = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    (number(major) && number(minor)).then(|| format!("v{major}.{minor}"))
}

/// The log as it is read, newest commit first.
struct Reading<'w> {
    by_word: BTreeMap<&'w str, Vec<usize>>,
    wanted: &'w [Wanted],
    commit: String,
    /// What git takes for the beginning of the structure or function around a hunk.
    around: String,
    /// By place in `wanted`.
    lines: BTreeMap<usize, Lines>,
    found: BTreeMap<Wanted, String>,
}

impl<'w> Reading<'w> {
    fn new(wanted: &'w [Wanted]) -> Self {
        let mut by_word: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (i, w) in wanted.iter().enumerate() {
            by_word.entry(&w.word).or_default().push(i);
        }
        Self {
            by_word,
            wanted,
            commit: String::new(),
            around: String::new(),
            lines: BTreeMap::new(),
            found: BTreeMap::new(),
        }
    }

    fn line(&mut self, line: &str) {
        if let Some(commit) = line.strip_prefix('\u{1}') {
            self.end_of_commit();
            self.commit = commit.to_owned();
        } else if let Some(rest) = line.strip_prefix("@@ ") {
            let around = rest.split_once("@@").map_or("", |(_, a)| a);
            self.around = around.trim().to_owned();
        } else if let Some(text) = line.strip_prefix('+').filter(|t| !t.starts_with("++ ")) {
            self.text(text, true);
        } else if let Some(text) = line.strip_prefix('-').filter(|t| !t.starts_with("-- ")) {
            self.text(text, false);
        }
    }

    fn text(&mut self, text: &str, added: bool) {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let mut seen: Vec<usize> = Vec::new();
        for word in words {
            let list = self.by_word.get(word).into_iter().flatten();
            seen.extend(list.filter(|i| self.is_inside(**i)));
        }
        seen.sort_unstable();
        seen.dedup();
        for i in seen {
            let lines = self.lines.entry(i).or_default();
            match added {
                true => lines.plus += 1,
                false => lines.minus += 1,
            }
        }
    }

    /// A member counts only inside of its structure.
    fn is_inside(&self, number: usize) -> bool {
        let record = self.wanted.get(number).and_then(|w| w.record.as_deref());
        record.is_none_or(|r| {
            let mut words = self.around.split([' ', '\t', '{', '*', '(']);
            words.any(|w| w == r)
        })
    }

    fn end_of_commit(&mut self) {
        for (number, lines) in std::mem::take(&mut self.lines) {
            let Some(wanted) = self.wanted.get(number).filter(|w| lines.is(w.change)) else {
                continue;
            };
            let first_seen = !self.found.contains_key(wanted);
            // The newest stands first in the log; who brought a name is the oldest.
            if first_seen || wanted.change == Change::Added {
                self.found.insert(wanted.clone(), self.commit.clone());
            }
        }
        self.around.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(dir: &Path, arguments: &[&str]) {
        let done = Command::new("git")
            .arg("-C")
            .arg(dir)
            .args(["-c", "user.name=a", "-c", "user.email=a@b"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    fn commit(dir: &Path, subject: &str, header: &str) {
        std::fs::write(dir.join("a.h"), header).unwrap();
        git(dir, &["add", "."]);
        git(dir, &["commit", "-q", "-m", subject]);
    }

    fn wanted(word: &str, record: Option<&str>, change: Change) -> Wanted {
        Wanted {
            word: word.to_owned(),
            record: record.map(str::to_owned),
            change,
        }
    }

    fn repository() -> tempfile::TempDir {
        let repo = tempfile::tempdir().unwrap();
        let dir = repo.path();
        git(dir, &["init", "-q"]);
        let head = "struct ops {\n\tint first;\n\tint (*probe)(int);\n};\n";
        commit(
            dir,
            "begin",
            &format!("{head}int old_call(int a);\nint kept(int a);\n"),
        );
        git(dir, &["tag", "v5.10"]);
        commit(
            dir,
            "mfd: introduce new_call()",
            &format!("{head}int old_call(int a);\nint new_call(int a);\nint kept(int a);\n"),
        );
        commit(
            dir,
            "mfd: kept() takes two",
            &format!("{head}int old_call(int a);\nint new_call(int a);\nint kept(int a, int b);\n"),
        );
        let head = head.replace("(*probe)(int)", "(*start)(int)");
        commit(
            dir,
            "mfd: remove old_call()",
            &format!("{head}int new_call(int a);\nint kept(int a, int b);\n/* new_call */\n"),
        );
        git(dir, &["tag", "v6.1"]);
        repo
    }

    #[test]
    fn each_change_by_the_commit_that_made_it() {
        let repo = repository();
        let all = [
            wanted("old_call", None, Change::Removed),
            wanted("new_call", None, Change::Added),
            wanted("kept", None, Change::Reshaped),
            wanted("probe", Some("ops"), Change::Removed),
            wanted("probe", Some("other"), Change::Removed),
            wanted("never", None, Change::Added),
        ];
        let range = range(repo.path(), "5.10.0-46-amd64", "6.1.192");
        assert_eq!(range.as_deref(), Some("v5.10..v6.1"));
        let found = commits(repo.path(), range.as_deref(), &all).unwrap();
        let subject = |w: &Wanted| found.get(w).and_then(|c| Some(c.split_once(' ')?.1));
        assert_eq!(subject(&all[0]), Some("mfd: remove old_call()"));
        assert_eq!(subject(&all[1]), Some("mfd: introduce new_call()"));
        assert_eq!(subject(&all[2]), Some("mfd: kept() takes two"));
        assert_eq!(subject(&all[3]), Some("mfd: remove old_call()"));
        assert_eq!(subject(&all[4]), None);
        assert_eq!(subject(&all[5]), None);
    }

    #[test]
    fn what_is_no_repository_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let why = commits(dir.path(), None, &[]).unwrap_err().to_string();
        assert!(why.contains("git log failed"), "{why}");
        assert_eq!(range(dir.path(), "5.10", "6.1"), None);
        assert_eq!(tag("next"), None);
    }
}
