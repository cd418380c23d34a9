//! Pairs of files that were compared before, and whose stamps (inode, size, times) have not changed since: `status` does not read
//! them again. `verify` does.

use crate::disk;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

/// A file that changed as late as this before it was compared may change again without a new stamp.
const YOUNG: i64 = 2;

/// The pairs that are known to be the same: by their paths, their stamps.
#[derive(Debug, Default)]
pub struct Stamps {
    known: Mutex<BTreeMap<String, String>>,
    fresh: Mutex<BTreeMap<String, String>>,
}

impl Stamps {
    /// Reads what an earlier run knew; a file that says nothing is none.
    pub fn load(&self, path: &Path) {
        let known = std::fs::read(path)
            .ok()
            .and_then(|b| serde_json::from_slice(&b).ok());
        *lock(&self.known) = known.unwrap_or_default();
    }

    /// Writes what this run found out, if it found anything; who may not write does not.
    pub fn keep(&self, path: &Path) {
        let fresh = std::mem::take(&mut *lock(&self.fresh));
        if fresh.is_empty() {
            return;
        }
        let mut known = lock(&self.known);
        known.extend(fresh);
        known.retain(|pair, _| pair.split('\n').all(|p| Path::new(p).exists()));
        if let Ok(text) = serde_json::to_vec(&*known) {
            let _ = disk::write_quietly(path, &text);
        }
    }

    /// Are the contents of two files the same?
    pub fn same(&self, a: &Path, b: &Path) -> bool {
        let pair = format!("{}\n{}", a.display(), b.display());
        let stamp = stamp(a).zip(stamp(b));
        let text = stamp.as_ref().map(|((x, _), (y, _))| format!("{x} {y}"));
        if text.is_some() && lock(&self.known).get(&pair) == text.as_ref() {
            return true;
        }
        let same = disk::same(a, b);
        if let (true, Some(text), Some(((_, x), (_, y)))) = (same, text, stamp)
            && now() - x.max(y) > YOUNG
        {
            lock(&self.fresh).insert(pair, text);
        }
        same
    }
}

/// What changes when a file does, and when that was.
fn stamp(path: &Path) -> Option<(String, i64)> {
    let m = path.metadata().ok()?;
    let text = format!(
        "{}:{}:{}:{}.{}:{}.{}",
        m.dev(),
        m.ino(),
        m.size(),
        m.mtime(),
        m.mtime_nsec(),
        m.ctime(),
        m.ctime_nsec()
    );
    Some((text, m.mtime().max(m.ctime())))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changed_is_compared_again() {
        let dir = tempfile::tempdir().unwrap();
        let at = |n: &str| dir.path().join(n);
        std::fs::write(at("a"), "x").unwrap();
        std::fs::write(at("b"), "x").unwrap();
        let stamps = Stamps::default();
        assert!(stamps.same(&at("a"), &at("b")));
        // Both are too young to be remembered.
        assert!(lock(&stamps.fresh).is_empty());
        let pair = format!("{}\n{}", at("a").display(), at("b").display());
        let text = format!(
            "{} {}",
            stamp(&at("a")).unwrap().0,
            stamp(&at("b")).unwrap().0
        );
        lock(&stamps.known).insert(pair, text);
        assert!(stamps.same(&at("a"), &at("b")));
        std::fs::write(at("b"), "y").unwrap();
        assert!(!stamps.same(&at("a"), &at("b")));
    }
}
