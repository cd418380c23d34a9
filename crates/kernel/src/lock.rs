//! The lock file: which packages, by hash, each kernel was made of. Text in, text out.

use crate::record::Record;
use crate::{Error, Result, control, files};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The lock's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The format's number, 1.
    pub format: u32,
    /// The kernels, by id.
    #[serde(default, rename = "kernel")]
    pub kernels: Vec<Record>,
}

impl Default for Lock {
    fn default() -> Self {
        Self {
            format: 1,
            kernels: Vec::new(),
        }
    }
}

impl Lock {
    /// Reads a lock's text; refuses hashes and paths that cannot be ones.
    ///
    /// # Errors
    /// Says which line or entry is malformed.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let lock: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        if lock.format != 1 {
            return Err(format!(
                "format {} is not known here (1 is); use a newer kspan",
                lock.format
            ));
        }
        for record in &lock.kernels {
            check(record)?;
        }
        Ok(lock)
    }

    /// The lock as text, kernels in order, ready to be kept in a repository.
    ///
    /// # Errors
    /// Never for a lock that was parsed or recorded.
    pub fn render(&self) -> Result<String> {
        let body = toml::to_string(self).map_err(|e| Error::Input(format!("lock: {e}")))?;
        Ok(format!(
            "# Written by `kspan kernel fetch --lock`: the packages each kernel is made of.\n{body}"
        ))
    }

    /// Reads a lock file; one that is not there is empty.
    ///
    /// # Errors
    /// When it cannot be read or is malformed.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = files::read_text(path)?;
        Self::parse(&text).map_err(|why| Error::Input(format!("{}: {why}", path.display())))
    }

    /// Writes the lock file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write_atomic(path, self.render()?.as_bytes())
    }

    /// Puts a kernel in, in the place of an older entry of the same id.
    pub fn put(&mut self, record: Record) {
        self.kernels.retain(|r| r.id != record.id);
        self.kernels.push(record);
        self.kernels.sort_by(|a, b| a.id.cmp(&b.id));
    }
}

fn check(record: &Record) -> std::result::Result<(), String> {
    if record.packages.is_empty() {
        return Err(format!("{}: names no packages", record.id));
    }
    let plain = |text: &str| {
        !text.is_empty()
            && !text.starts_with('.')
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+.~:-_".contains(c))
    };
    if record.id != format!("debian/{}", record.release)
        || !plain(&record.release)
        || !plain(&record.package_version)
    {
        return Err(format!(
            "{}: its id, release or version is malformed",
            record.id
        ));
    }
    for package in record.all_packages() {
        if !control::is_sha256(&package.sha256) || !control::is_pool_path(&package.filename) {
            return Err(format!(
                "{}: package {} has a malformed hash or file name",
                record.id, package.name
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Package;

    fn record() -> Record {
        let package = Package {
            name: "linux-headers-1-amd64".into(),
            version: "1-1".into(),
            architecture: "amd64".into(),
            filename: "pool/main/l/x.deb".into(),
            size: 1,
            sha256: "a".repeat(64),
        };
        Record {
            id: "debian/1-amd64".into(),
            release: "1-amd64".into(),
            version: "1.0.0".into(),
            arch: "x86".into(),
            package_version: "1-1".into(),
            suite: "sid".into(),
            flavour: "amd64".into(),
            build_dir: "usr/src/a".into(),
            source_dir: "usr/src/b".into(),
            packages: vec![package.clone()],
            source: Some(package),
            images: Vec::new(),
        }
    }

    #[test]
    fn round_trip() {
        let mut lock = Lock::default();
        lock.put(record());
        lock.put(record());
        let text = lock.render().unwrap();
        assert_eq!(Lock::parse(&text).unwrap(), lock);
        assert_eq!(lock.kernels.len(), 1);
    }

    #[test]
    fn malformed_locks_are_refused() {
        let mut lock = Lock::default();
        lock.put(Record {
            release: "../x".into(),
            id: "debian/../x".into(),
            ..record()
        });
        assert!(Lock::parse(&lock.render().unwrap()).is_err());
        for text in [
            "format = 2",
            "kernel = 1",
            "\0",
            "format = 1\n[[kernel]]\nid = 3",
        ] {
            assert!(Lock::parse(text).is_err(), "{text}");
        }
    }
}
