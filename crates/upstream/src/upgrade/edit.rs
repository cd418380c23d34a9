//! Edits that nest: what stands in place of a range may keep parts of it, in which other edits go on.
//!
//! `old(f(a), b)` → `new(b, f(a))` is one edit that keeps both arguments, so an edit of `f` is carried out wherever its text
//! comes to stand. Never: guesses; two edits that want the same bytes are a conflict.

use std::ops::Range;

/// A part of what stands in place of a range.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Piece {
    /// New text.
    Text(String),
    /// A part of the original, with the edits inside it: first byte, and one past the last.
    Kept(usize, usize),
}

/// One edit of a file, by byte range of the original.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edit {
    /// First byte replaced.
    pub start: usize,
    /// One past the last byte replaced.
    pub end: usize,
    /// What stands there instead.
    pub pieces: Vec<Piece>,
}

impl Edit {
    /// Plain text in place of a range.
    #[must_use]
    pub fn replace(range: Range<usize>, text: impl Into<String>) -> Self {
        Self {
            start: range.start,
            end: range.end,
            pieces: vec![Piece::Text(text.into())],
        }
    }

    /// Text before a byte.
    #[must_use]
    pub fn insert(at: usize, text: impl Into<String>) -> Self {
        Self::replace(at..at, text)
    }

    /// Nothing in place of a range.
    #[must_use]
    pub fn delete(range: Range<usize>) -> Self {
        Self {
            start: range.start,
            end: range.end,
            pieces: Vec::new(),
        }
    }

    fn is_insertion(&self) -> bool {
        self.start == self.end
    }

    /// Includes stand before what else goes to the same place.
    fn is_include(&self) -> bool {
        matches!(self.pieces.first(), Some(Piece::Text(t)) if t.starts_with("#include"))
    }

    fn is_deletion(&self) -> bool {
        !self.pieces.iter().any(|p| matches!(p, Piece::Text(_)))
    }

    fn keeps(&self, other: &Self) -> bool {
        let inside =
            |p: &Piece| matches!(p, Piece::Kept(s, e) if *s <= other.start && other.end <= *e);
        self.pieces.iter().any(inside)
    }

    /// Both can be carried out: they are apart, or one goes on in a part that the other keeps, or one deletes the other's
    /// place altogether.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        if self == other || self.end <= other.start || other.end <= self.start {
            return true;
        }
        let (outer, inner) = match (self.covers(other), other.covers(self)) {
            (true, true) | (false, false) => return false,
            (true, false) => (self, other),
            (false, true) => (other, self),
        };
        outer.keeps(inner) || outer.is_deletion() && outer.drops(inner)
    }

    fn covers(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// No kept part touches the other's range.
    fn drops(&self, other: &Self) -> bool {
        let apart = |p: &Piece| match p {
            Piece::Kept(s, e) => *e <= other.start || other.end <= *s,
            Piece::Text(_) => true,
        };
        self.pieces.iter().all(apart)
    }
}

/// A text with edits carried out, and where each part of it came from.
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    /// The bytes.
    pub text: Vec<u8>,
    /// Start in `text`, start in the original, and whether the bytes are the original's.
    parts: Vec<(usize, usize, bool)>,
}

impl Rendered {
    /// The byte of the original that a byte of the text came from, or for which it stands.
    #[must_use]
    pub fn original(&self, at: usize) -> usize {
        let index = self.parts.partition_point(|(start, ..)| *start <= at);
        match index.checked_sub(1).and_then(|i| self.parts.get(i)) {
            Some((start, from, true)) => from + (at - start),
            Some((_, from, false)) => *from,
            None => at,
        }
    }
}

/// Carries out edits. They must agree with each other; one that does not is left out.
#[must_use]
pub fn apply(original: &[u8], edits: &[Edit]) -> Rendered {
    let mut sorted: Vec<&Edit> = edits
        .iter()
        .filter(|e| e.start <= e.end && e.end <= original.len())
        .collect();
    sorted.sort_by_key(|e| {
        (
            e.start,
            !e.is_insertion(),
            !e.is_include(),
            std::cmp::Reverse(e.end),
        )
    });
    sorted.dedup();
    let mut out = Rendered::default();
    part(original, &sorted, 0..original.len(), None, &mut out);
    out
}

fn part(
    original: &[u8],
    edits: &[&Edit],
    range: Range<usize>,
    outer: Option<&Edit>,
    out: &mut Rendered,
) {
    let mut at = range.start;
    for edit in edits {
        let within = range.start <= edit.start && edit.end <= range.end && edit.start >= at;
        // What is inserted at the very edge of an outer edit stands outside of it.
        let edge = |o: &Edit| edit.is_insertion() && (edit.start == o.start || edit.start == o.end);
        if !within || outer.is_some_and(|o| std::ptr::eq(o, *edit) || edge(o)) {
            continue;
        }
        if outer.is_some_and(|o| o.start == edit.start && o.end == edit.end) {
            continue;
        }
        verbatim(original, at..edit.start, out);
        for piece in &edit.pieces {
            match piece {
                Piece::Text(text) => {
                    out.parts.push((out.text.len(), edit.start, false));
                    out.text.extend_from_slice(text.as_bytes());
                }
                Piece::Kept(start, end) => part(original, edits, *start..*end, Some(edit), out),
            }
        }
        at = edit.end;
    }
    verbatim(original, at..range.end, out);
}

fn verbatim(original: &[u8], range: Range<usize>, out: &mut Rendered) {
    out.parts.push((out.text.len(), range.start, true));
    out.text
        .extend_from_slice(original.get(range).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(original: &str, edits: &[Edit]) -> String {
        String::from_utf8(apply(original.as_bytes(), edits).text).unwrap()
    }

    fn kept(start: usize, end: usize) -> Piece {
        Piece::Kept(start, end)
    }

    #[test]
    fn edits_go_on_inside_what_is_kept() {
        let original = "old(f(a), b);";
        let swap = Edit {
            start: 0,
            end: 12,
            pieces: vec![
                Piece::Text("new(".into()),
                kept(10, 11),
                Piece::Text(", ".into()),
                kept(4, 8),
                Piece::Text(")".into()),
            ],
        };
        let inner = Edit::replace(4..5, "g");
        assert!(swap.agrees_with(&inner) && inner.agrees_with(&swap));
        assert_eq!(text(original, &[inner, swap]), "new(b, g(a));");
    }

    #[test]
    fn two_wishes_for_the_same_bytes_conflict() {
        let a = Edit::replace(0..5, "x");
        assert!(!a.agrees_with(&Edit::replace(3..8, "y")));
        assert!(!a.agrees_with(&Edit::replace(0..5, "y")));
        assert!(!a.agrees_with(&Edit::replace(1..2, "y")));
        assert!(a.agrees_with(&Edit::replace(5..8, "y")));
        assert!(Edit::delete(0..5).agrees_with(&Edit::replace(1..2, "y")));
    }

    #[test]
    fn places_lead_back_to_the_original() {
        let rendered = apply(b"ab cd", &[Edit::replace(0..2, "longer")]);
        assert_eq!(rendered.text, b"longer cd");
        assert_eq!(rendered.original(2), 0);
        assert_eq!(rendered.original(7), 3);
    }

    #[test]
    fn insertions_stand_before_what_is_replaced() {
        let edits = [Edit::replace(2..4, "X"), Edit::insert(2, "+")];
        assert_eq!(text("abcd", &edits), "ab+X");
        let whole = Edit {
            start: 0,
            end: 4,
            pieces: vec![Piece::Text("(".into()), kept(0, 4), Piece::Text(")".into())],
        };
        assert_eq!(text("abcd", &[whole, Edit::replace(2..4, "X")]), "(abX)");
    }
}
