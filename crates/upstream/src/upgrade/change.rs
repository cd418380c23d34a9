//! One change of a driver's source: what will be one commit.

use super::edit::Edit;
use kspan_port::gap::Risk;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What makes a change, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Unique among the changes: an evolution's id, or `generated: …`.
    pub id: String,
    /// What the commit's subject says after the driver's name.
    pub subject: String,
    /// Why, in a sentence or two.
    pub why: String,
    /// The upstream commit, where the evolution names one.
    pub commit: String,
    /// How far it may change what the driver does.
    pub risk: Risk,
    /// What may differ.
    pub meaning: String,
    /// A definition of the home kernel, or a helper, was written into the driver since the target's API says it in no shorter
    /// way.
    pub keeps: bool,
}

/// A change with its edits, all against the driver's text as it was at first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What makes it.
    #[serde(flatten)]
    pub reason: Reason,
    /// By file, relative to the driver.
    #[serde(skip)]
    pub edits: BTreeMap<PathBuf, Vec<Edit>>,
    /// When it was found: what goes to one place stands in this order.
    #[serde(skip)]
    pub rank: usize,
}

/// All changes, in the order in which they were found.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    all: Vec<Change>,
    /// Text that the target does not compile: what is there is for other kernels, and stays.
    inactive: BTreeMap<PathBuf, Vec<Range<usize>>>,
}

impl Changes {
    /// The changes.
    #[must_use]
    pub fn all(&self) -> &[Change] {
        &self.all
    }

    /// Keeps edits out of ranges of a file.
    pub fn spare(&mut self, file: &Path, ranges: Vec<Range<usize>>) {
        self.inactive.insert(file.to_path_buf(), ranges);
    }

    /// What of a file is kept as it is.
    #[must_use]
    pub fn spared(&self, file: &Path) -> &[Range<usize>] {
        self.inactive.get(file).map_or(&[], Vec::as_slice)
    }

    /// A place that is kept as it is.
    #[must_use]
    pub fn spares(&self, file: &Path, at: usize) -> bool {
        self.inactive
            .get(file)
            .is_some_and(|l| l.iter().any(|r| r.contains(&at)))
    }

    fn is_spared(&self, file: &Path, edit: &Edit) -> bool {
        let inside =
            |r: &Range<usize>| r.start <= edit.start && edit.end <= r.end && edit.start < r.end;
        self.inactive
            .get(file)
            .is_some_and(|l| l.iter().any(inside))
    }

    /// The edits of one file by the first `count` changes.
    #[must_use]
    pub fn edits(&self, file: &Path, count: usize) -> Vec<Edit> {
        let mut taken: Vec<&Change> = self.all.iter().take(count).collect();
        taken.sort_by_key(|c| c.rank);
        let of_file = |c: &Change| c.edits.get(file).cloned().unwrap_or_default();
        taken.into_iter().flat_map(of_file).collect()
    }

    /// Puts these changes first, by their present places, in this order.
    pub fn put_first(&mut self, first: &[usize]) {
        let place = |i: usize| first.iter().position(|f| *f == i).unwrap_or(usize::MAX);
        let mut numbered: Vec<(usize, Change)> = self.all.drain(..).enumerate().collect();
        numbered.sort_by_key(|(i, _)| place(*i));
        self.all = numbered.into_iter().map(|(_, c)| c).collect();
    }

    /// The edits of one file by these changes alone.
    #[must_use]
    pub fn edits_of(&self, file: &Path, chosen: &[usize]) -> Vec<Edit> {
        let mut taken: Vec<&Change> = chosen.iter().filter_map(|i| self.all.get(*i)).collect();
        taken.sort_by_key(|c| c.rank);
        let of_file = |c: &Change| c.edits.get(file).cloned().unwrap_or_default();
        taken.into_iter().flat_map(of_file).collect()
    }

    /// The ranges of a file that changes delete.
    #[must_use]
    pub fn deleted(&self, file: &Path) -> Vec<Range<usize>> {
        let edits = self.edits(file, usize::MAX).into_iter();
        edits
            .filter(|e| e.pieces.is_empty())
            .map(|e| e.start..e.end)
            .collect()
    }

    /// Adds edits under a reason; all of them or, when one disagrees with what is there, none. `Ok(false)` when they are
    /// there already.
    ///
    /// # Errors
    /// Names the file and the change that wants the same bytes.
    pub fn add(&mut self, reason: &Reason, edits: Vec<(PathBuf, Edit)>) -> Result<bool, String> {
        let mut fresh: Vec<(PathBuf, Edit)> = Vec::new();
        for (file, edit) in edits {
            let there = |c: &Change| c.edits.get(&file).is_some_and(|l| l.contains(&edit));
            if self.is_spared(&file, &edit)
                || self.all.iter().any(there)
                || fresh.contains(&(file.clone(), edit.clone()))
            {
                continue;
            }
            let others = self.all.iter().flat_map(|c| {
                let list = c.edits.get(&file).map(Vec::as_slice).unwrap_or_default();
                list.iter().map(move |e| (c.reason.id.as_str(), e))
            });
            let own = fresh
                .iter()
                .filter(|(f, _)| *f == file)
                .map(|(_, e)| (reason.id.as_str(), e));
            if let Some((id, _)) = others.chain(own).find(|(_, e)| !e.agrees_with(&edit)) {
                return Err(format!(
                    "{}: bytes {}..{} are changed by `{id}` already; one of the two must be done by hand",
                    file.display(),
                    edit.start,
                    edit.end
                ));
            }
            fresh.push((file, edit));
        }
        if fresh.is_empty() {
            return Ok(false);
        }
        let at = self.all.iter().position(|c| c.reason.id == reason.id);
        let at = at.unwrap_or_else(|| {
            self.all.push(Change {
                reason: reason.clone(),
                edits: BTreeMap::new(),
                rank: self.all.len(),
            });
            self.all.len() - 1
        });
        if let Some(change) = self.all.get_mut(at) {
            change.reason.risk = change.reason.risk.max(reason.risk);
            if change.reason.meaning.is_empty() {
                change.reason.meaning.clone_from(&reason.meaning);
            }
            for (file, edit) in fresh {
                change.edits.entry(file).or_default().push(edit);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(id: &str) -> Reason {
        Reason {
            id: id.to_owned(),
            subject: String::new(),
            why: String::new(),
            commit: String::new(),
            risk: Risk::None,
            meaning: String::new(),
            keeps: false,
        }
    }

    #[test]
    fn a_conflict_is_told_and_leaves_nothing_behind() {
        let file = PathBuf::from("a.c");
        let mut changes = Changes::default();
        let edit = |r: std::ops::Range<usize>| (file.clone(), Edit::replace(r, "x"));
        assert_eq!(changes.add(&reason("a"), vec![edit(4..8)]), Ok(true));
        assert_eq!(changes.add(&reason("a"), vec![edit(4..8)]), Ok(false));
        let words = changes
            .add(&reason("b"), vec![edit(0..2), edit(6..9)])
            .unwrap_err();
        assert!(words.contains("`a`") && words.contains("6..9"), "{words}");
        assert_eq!(changes.edits(&file, 9).len(), 1);
    }
}
