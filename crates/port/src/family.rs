//! Who else uses a module of the target: whether it serves one family of drivers that lie together, or a whole subsystem.
//!
//! Asked of the target's source tree, as text: which C files name what the module exports.

use crate::{Result, lift, store};
use aho_corasick::AhoCorasick;
use kspan_kernel::{Cache, Kernel};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const FORMAT: &str = "users-5";
/// A family's directory has at least so many components (`drivers/net/wireless`, `drivers/nvme` with a directory below
/// it); what lies together below less is a subsystem.
const LEAST_DEPTH: usize = 2;

/// A file that names exports of a module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct User {
    /// The file, relative to the tree.
    pub file: PathBuf,
    /// What it names, sorted.
    pub exports: Vec<String>,
}

/// The directory that two directories of a kernel tree have in common, where it is narrow enough to be a family's.
#[must_use]
pub fn root(provider: &str, driver: &str) -> Option<PathBuf> {
    let common: PathBuf = Path::new(provider)
        .components()
        .zip(Path::new(driver).components())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a)
        .collect();
    (common.components().count() >= LEAST_DEPTH).then_some(common)
}

/// The C files of a tree that name an export of a module, relative to the tree and sorted; kept by the kernel and the names.
///
/// # Errors
/// When the cache cannot be written.
pub fn users(cache: &Cache, kernel: &Kernel, tree: &Path, exports: &[String]) -> Result<Vec<User>> {
    let mut parts = vec![FORMAT, kernel.digest.as_str()];
    parts.extend(exports.iter().map(String::as_str));
    let name = format!("{}.users.json", store::key(&parts));
    let kept = cache.root().join("facts").join(name);
    if let Some(known) = store::read(&kept) {
        return Ok(known);
    }
    let found = scan(tree, exports);
    store::write(&kept, &found)?;
    Ok(found)
}

fn scan(tree: &Path, exports: &[String]) -> Vec<User> {
    let Ok(names) = AhoCorasick::new(exports) else {
        return Vec::new();
    };
    let user = |file: PathBuf| {
        let text = std::fs::read(&file).ok()?;
        let mut named: Vec<String> = mentions(&names, &text)
            .into_iter()
            .filter_map(|found| exports.get(found).cloned())
            .collect();
        named.sort();
        let file = file.strip_prefix(tree).ok()?.to_path_buf();
        (!named.is_empty()).then_some(User {
            file,
            exports: named,
        })
    };
    let mut found: Vec<User> = lift::c_files(tree)
        .into_par_iter()
        .filter_map(user)
        .collect();
    found.sort();
    found
}

/// Which of the names stand in a text as words of their own; a member of that name, or a function that the file has for itself, is
/// another thing.
fn mentions(names: &AhoCorasick, text: &[u8]) -> Vec<usize> {
    let word = |at: Option<&u8>| at.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let (mut named, mut own) = (BTreeSet::new(), BTreeSet::new());
    for found in names.find_overlapping_iter(text) {
        let before = text.get(..found.start()).unwrap_or_default();
        let member = before.ends_with(b".") || before.ends_with(b"->");
        if member || word(before.last()) || word(text.get(found.end())) {
            continue;
        }
        named.insert(found.pattern());
        if is_own(before) {
            own.insert(found.pattern());
        }
    }
    named
        .difference(&own)
        .map(|found| found.as_usize())
        .collect()
}

/// What stands before a name makes it the file's own: `static` and a type alone, on its line, or on the one before where its own
/// begins with the name.
fn is_own(before: &[u8]) -> bool {
    let mut lines = before.rsplit(|b| *b == b'\n');
    let line = lines.next().unwrap_or_default();
    let line = if line.trim_ascii().is_empty() {
        lines.next().unwrap_or_default()
    } else {
        line
    };
    let part_of_type = |b: &u8| b.is_ascii_alphanumeric() || b" \t_*".contains(b);
    line.starts_with(b"static ") && line.iter().all(part_of_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_lies_below_one_narrow_directory() {
        let wireless = "drivers/net/wireless/mediatek/mt76";
        assert_eq!(
            root(wireless, &format!("{wireless}/mt7996")),
            Some(PathBuf::from(wireless))
        );
        assert_eq!(root("drivers/thunderbolt", "drivers/usb/typec/ucsi"), None);
        assert_eq!(root("crypto", "drivers/crypto/ccp"), None);
    }

    #[test]
    fn users_name_an_export_as_a_word() {
        let tree = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = tree.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        file("drivers/x/core/core.c", "EXPORT_SYMBOL(x_open);");
        file("drivers/x/chip/chip.c", "int e = x_open();");
        file("drivers/y/y.c", "int max_open(void); int x_opened;");
        file(
            "drivers/y/ops.c",
            "struct o o = { .x_open = y }; int e = o.x_open(p->x_open);",
        );
        file(
            "drivers/y/own.c",
            "static int x_open(void)\n{\n}\nint e = x_open();",
        );
        file(
            "drivers/y/own2.c",
            "static struct a *\nx_open(void)\n{\n}\nint e = x_open();",
        );
        file(
            "drivers/y/uses.c",
            "static struct a b = { x_open };\nstatic int c(void) { return x_open(); }",
        );
        file("drivers/z/z.h", "x_open();");
        let exports = ["x_open".to_owned(), "x_op".to_owned()];
        let user = |file: &str| User {
            file: PathBuf::from(file),
            exports: vec!["x_open".to_owned()],
        };
        assert_eq!(
            scan(tree.path(), &exports),
            [
                "drivers/x/chip/chip.c",
                "drivers/x/core/core.c",
                "drivers/y/uses.c"
            ]
            .map(user)
        );
    }
}
