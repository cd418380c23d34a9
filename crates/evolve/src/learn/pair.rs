//! One file as two kernels have it: functions and tables of the same name, and which words of one stand for which of the other.

use super::units::{Source, Tok, Unit, UnitKind};
use rustc_hash::FxHashMap;
use similar::{Algorithm, DiffOp, capture_diff_slices_deadline};
use std::ops::Range;
use std::time::{Duration, Instant};

/// A diff that takes longer is given up: the unit was rewritten, and says nothing of single edits.
const PATIENCE: Duration = Duration::from_millis(400);

/// The longest range of the target that can be one edit, in tokens.
const LONGEST: usize = 60;

/// A unit in both files.
pub struct Pair<'s, 't> {
    /// The home kernel's file.
    pub home: &'s Source<'t>,
    /// Its unit.
    pub unit: &'s Unit<'t>,
    /// The target's file.
    pub target: &'s Source<'t>,
    /// Its unit.
    pub other: &'s Unit<'t>,
    /// For each token of the home unit the equal one of the target's, both counted in their file.
    map: Vec<Option<usize>>,
}

/// Units of the target's file by kind and name.
pub type ByName<'s, 't> = FxHashMap<(bool, &'t str), &'s Unit<'t>>;

/// The units of a file by kind and name.
#[must_use]
pub fn by_name<'s, 't>(source: &'s Source<'t>) -> ByName<'s, 't> {
    let key = |u: &Unit<'t>| (u.kind == UnitKind::Function, u.name);
    source.units.iter().map(|u| (key(u), u)).collect()
}

impl<'s, 't> Pair<'s, 't> {
    /// Compares two units.
    #[must_use]
    pub fn new(
        home: &'s Source<'t>,
        unit: &'s Unit<'t>,
        target: &'s Source<'t>,
        other: &'s Unit<'t>,
    ) -> Option<Self> {
        let a = home.tokens.get(unit.tokens.clone())?;
        let b = target.tokens.get(other.tokens.clone())?;
        let mut map = vec![None; a.len()];
        let deadline = Instant::now() + PATIENCE;
        for op in capture_diff_slices_deadline(Algorithm::Myers, a, b, Some(deadline)) {
            if let DiffOp::Equal {
                old_index,
                new_index,
                len,
            } = op
            {
                for step in 0..len {
                    if let Some(slot) = map.get_mut(old_index + step) {
                        *slot = Some(other.tokens.start + new_index + step);
                    }
                }
            }
        }
        Some(Self {
            home,
            unit,
            target,
            other,
            map,
        })
    }

    /// The target's token that equals one of the home unit.
    fn equal(&self, at: usize) -> Option<usize> {
        let at = at.checked_sub(self.unit.tokens.start)?;
        self.map.get(at).copied().flatten()
    }

    /// What stands in the target between the neighbours of a range.
    #[must_use]
    pub fn mapped(&self, range: Range<usize>) -> Option<Range<usize>> {
        let before = self.equal(range.start.checked_sub(1)?)?;
        let after = self.equal(range.end)?;
        let found = before + 1..after;
        (after > before && found.len() <= LONGEST).then_some(found)
    }

    /// The home tokens of a range.
    #[must_use]
    pub fn here(&self, range: Range<usize>) -> &'s [Tok<'t>] {
        self.home.tokens.get(range).unwrap_or(&[])
    }

    /// The target's tokens of a range.
    #[must_use]
    pub fn there(&self, range: Range<usize>) -> &'s [Tok<'t>] {
        self.target.tokens.get(range).unwrap_or(&[])
    }
}
