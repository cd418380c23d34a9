//! The tags that headers speak of, read without a compiler.

use rayon::prelude::*;
use regex::bytes::Regex;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

#[expect(clippy::unwrap_used, reason = "a constant pattern")]
static TAG: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?-u)\b(struct|union|enum)\s+([A-Za-z_]\w*)").unwrap());

/// Tags of the files' structures, and of what else carries a tag.
#[derive(Default)]
struct Tags {
    structures: BTreeSet<Vec<u8>>,
    others: BTreeSet<Vec<u8>>,
}

impl Tags {
    fn of(path: &Path) -> Self {
        let mut tags = Self::default();
        let text = std::fs::read(path).unwrap_or_default();
        for (_, [kind, tag]) in TAG.captures_iter(&text).map(|found| found.extract()) {
            let set = if kind == b"struct" {
                &mut tags.structures
            } else {
                &mut tags.others
            };
            if !set.contains(tag) {
                set.insert(tag.to_vec());
            }
        }
        tags
    }

    fn with(mut self, other: Self) -> Self {
        self.structures.extend(other.structures);
        self.others.extend(other.others);
        self
    }
}

/// Declares every structure that the files name, in C.
///
/// A structure that a prototype is the first to name has that prototype's scope (C11 6.2.1): it is another type than the
/// one defined later, and clang looks through all declarations so far to forget it again. Words of comments among them
/// do no harm: nothing refers to them.
#[must_use]
pub fn declarations<'a>(files: impl IntoParallelIterator<Item = &'a Path>) -> String {
    let tags = files
        .into_par_iter()
        .map(Tags::of)
        .reduce(Tags::default, Tags::with);
    tags.structures
        .difference(&tags.others)
        .map(|tag| format!("struct {};\n", String::from_utf8_lossy(tag)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_declared_once_and_what_is_something_else_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one.h"), dir.path().join("two.h"));
        std::fs::write(&one, "struct a *f(struct  b *, union c *, constructs d);\n").unwrap();
        std::fs::write(&two, "struct a; struct\tc; enum e { E };").unwrap();
        let files = [one.as_path(), two.as_path(), Path::new("/missing.h")];
        assert_eq!(declarations(files), "struct a;\nstruct b;\n");
    }
}
