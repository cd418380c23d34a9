//! Edits by byte range in original text: formatting and comments around them stay as they were.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One replacement in one file. An empty range is an insertion.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edit {
    /// First byte replaced.
    pub start: usize,
    /// One past the last byte replaced.
    pub end: usize,
    /// What stands there instead.
    pub text: String,
}

/// Two edits that want the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: two edits overlap at bytes {range:?}; the second one is left out")]
pub struct Conflict {
    /// The file, relative to the driver.
    pub file: PathBuf,
    /// The bytes both want.
    pub range: Range<usize>,
}

/// All edits of a driver, by file; a second edit of the same bytes is refused, the same edit twice is one.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    files: BTreeMap<PathBuf, Vec<Edit>>,
    /// Text that goes altogether: what was to be changed inside needs no change.
    removed: BTreeMap<PathBuf, Vec<Range<usize>>>,
    /// Edits that became part of others, and those others as they were before.
    joined: BTreeMap<PathBuf, Vec<Edit>>,
}

impl Edits {
    /// Adds an edit; `Ok(false)` when it is there already.
    ///
    /// # Errors
    /// When it overlaps an edit that says something else.
    pub fn add(&mut self, file: &Path, edit: Edit) -> Result<bool, Conflict> {
        let edits = self.files.entry(file.to_path_buf()).or_default();
        let gone = self.removed.get(file).is_some_and(|ranges| {
            ranges
                .iter()
                .any(|r| r.start <= edit.start && edit.end <= r.end)
        });
        if gone || edits.contains(&edit) {
            return Ok(false);
        }
        let overlaps = |other: &Edit| edit.start < other.end && other.start < edit.end;
        if let Some(other) = edits.iter().find(|other| overlaps(other)) {
            return Err(Conflict {
                file: file.to_path_buf(),
                range: other.start..other.end,
            });
        }
        edits.push(edit);
        Ok(true)
    }

    /// Takes an edit back.
    pub fn withdraw(&mut self, file: &Path, edit: &Edit) {
        if let Some(edits) = self.files.get_mut(file) {
            edits.retain(|e| e != edit);
        }
    }

    /// Adds an edit that may stand inside of another, or around others, whose texts say again what stood there
    /// (`container_of(a->b, …)` for `a->b->c`): they become one.
    ///
    /// # Errors
    /// When it overlaps an edit that says something else.
    pub fn nest(&mut self, file: &Path, edit: Edit, original: &[u8]) -> Result<bool, Conflict> {
        if self.joined.get(file).is_some_and(|all| all.contains(&edit)) {
            return Ok(false);
        }
        let conflict = match self.add(file, edit.clone()) {
            Ok(new) => return Ok(new),
            Err(conflict) => conflict,
        };
        let edits = self.files.entry(file.to_path_buf()).or_default();
        let overlaps = |other: &Edit| edit.start < other.end && other.start < edit.end;
        let others: Vec<Edit> = edits.iter().filter(|e| overlaps(e)).cloned().collect();
        let inside =
            |inner: &Edit, outer: &Edit| outer.start <= inner.start && inner.end <= outer.end;
        let whole = match others.as_slice() {
            [outer] if inside(&edit, outer) => said_again(outer, &edit, original),
            all if all.iter().all(|inner| inside(inner, &edit)) => {
                all.iter().try_fold(edit.clone(), |outer, inner| {
                    said_again(&outer, inner, original)
                })
            }
            _ => None,
        };
        let whole = whole.ok_or(conflict)?;
        edits.retain(|e| !others.contains(e));
        edits.push(whole);
        let joined = self.joined.entry(file.to_path_buf()).or_default();
        joined.extend(others);
        joined.push(edit);
        Ok(true)
    }

    /// Adds an edit whose text keeps nothing of what stood there; edits inside it are given up.
    ///
    /// # Errors
    /// When it overlaps an edit that reaches beyond it.
    pub fn remove(&mut self, file: &Path, edit: Edit) -> Result<bool, Conflict> {
        let range = edit.start..edit.end;
        if let Some(edits) = self.files.get_mut(file) {
            let inside = |e: &Edit| range.start <= e.start && e.end <= range.end && *e != edit;
            edits.retain(|e| !inside(e));
        }
        let new = self.add(file, edit)?;
        let removed = self.removed.entry(file.to_path_buf()).or_default();
        if !removed.contains(&range) {
            removed.push(range);
        }
        Ok(new)
    }

    /// Files with at least one edit.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// The edits of one file, in no particular order.
    #[must_use]
    pub fn of(&self, file: &Path) -> &[Edit] {
        self.files.get(file).map_or(&[], Vec::as_slice)
    }

    /// The text of a file with its edits applied. Edits past the end or inside a character are left out.
    #[must_use]
    pub fn apply(&self, file: &Path, original: &[u8]) -> Vec<u8> {
        let mut edits = self.of(file).to_vec();
        // Insertions at the same place keep the order of their text, so the result does not depend on discovery order.
        edits.sort();
        let mut out = Vec::with_capacity(original.len() + 256);
        let mut at = 0;
        for edit in edits
            .iter()
            .filter(|e| e.end <= original.len() && e.start <= e.end)
        {
            if edit.start < at {
                continue;
            }
            out.extend_from_slice(&original[at..edit.start]);
            out.extend_from_slice(edit.text.as_bytes());
            at = edit.end;
        }
        out.extend_from_slice(&original[at..]);
        out
    }
}

/// The outer edit with the inner one carried out in its text; `None` where its text does not say what stood there, or where a
/// single word could mean another.
fn said_again(outer: &Edit, inner: &Edit, original: &[u8]) -> Option<Edit> {
    let old = std::str::from_utf8(original.get(inner.start..inner.end)?).ok()?;
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut text = String::new();
    let (mut rest, mut count) = (outer.text.as_str(), 0);
    while let Some(at) = rest.find(old).filter(|_| !old.is_empty()) {
        let (before, behind) = (&rest[..at], &rest[at + old.len()..]);
        let apart = !before.ends_with(word) && !behind.starts_with(word);
        text.push_str(before);
        text.push_str(if apart { &inner.text } else { old });
        count += usize::from(apart);
        rest = behind;
    }
    text.push_str(rest);
    let sure = if old.chars().all(word) {
        count == 1
    } else {
        count > 0
    };
    sure.then(|| Edit {
        text,
        ..outer.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_edits_become_one_in_any_order() {
        let original = b"x = a->vif->cfg;";
        let file = Path::new("f");
        let outer = edit(4, 15, "none(a->vif)");
        let inner = edit(4, 10, "of(a)");
        for pair in [[&outer, &inner], [&inner, &outer]] {
            let mut edits = Edits::default();
            for e in pair {
                assert!(edits.nest(file, e.clone(), original).unwrap());
            }
            assert_eq!(edits.apply(file, original), b"x = none(of(a));");
            for e in pair {
                assert!(!edits.nest(file, e.clone(), original).unwrap());
            }
        }
        let mut edits = Edits::default();
        edits
            .nest(file, edit(4, 15, "none(a->other)"), original)
            .unwrap();
        assert!(edits.nest(file, inner, original).is_err());
    }

    fn edit(start: usize, end: usize, text: &str) -> Edit {
        Edit {
            start,
            end,
            text: text.into(),
        }
    }

    #[test]
    fn applies_in_order_of_place() {
        let file = Path::new("a.c");
        let mut edits = Edits::default();
        assert!(edits.add(file, edit(4, 7, "BAR")).unwrap());
        assert!(edits.add(file, edit(0, 0, "/**/")).unwrap());
        assert!(!edits.add(file, edit(4, 7, "BAR")).unwrap());
        assert_eq!(edits.apply(file, b"foo bar"), b"/**/foo BAR");
    }

    #[test]
    fn refuses_an_overlap() {
        let file = Path::new("a.c");
        let mut edits = Edits::default();
        edits.add(file, edit(0, 3, "x")).unwrap();
        assert!(edits.add(file, edit(2, 4, "y")).is_err());
        assert_eq!(edits.apply(file, b"foo bar"), b"x bar");
    }

    #[test]
    fn removed_text_needs_no_other_edit() {
        let file = Path::new("a.c");
        let mut edits = Edits::default();
        edits.add(file, edit(4, 6, "x")).unwrap();
        edits.remove(file, edit(2, 8, "/**/")).unwrap();
        assert!(!edits.add(file, edit(5, 7, "y")).unwrap());
        assert!(!edits.remove(file, edit(2, 8, "/**/")).unwrap());
        assert!(edits.add(file, edit(7, 9, "z")).is_err());
        assert_eq!(edits.apply(file, b"0123456789"), b"01/**/89");
    }

    #[test]
    fn keeps_bytes_that_are_not_utf8() {
        let file = Path::new("a.c");
        let mut edits = Edits::default();
        edits.add(file, edit(1, 1, "!")).unwrap();
        assert_eq!(edits.apply(file, b"\xff\xfe\r\n"), b"\xff!\xfe\r\n");
    }
}
