//! The emulated suite: drivers of the newest kernel's own tree and how each is tried on QEMU's devices, as data.

use kspan_kernel::{Error, Result};
use kspan_port::driver::Smoke;
use serde::Deserialize;
use std::path::Path;

/// The suite of this build: (file, text).
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/emulated.rs"));

/// One driver of the suite.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name; the file's.
    #[serde(skip)]
    pub name: String,
    /// Where it stands in the newest kernel's tree: a `.c` file, a directory, or a module's name in one.
    pub path: String,
    /// How it is tried.
    pub smoke: Smoke,
}

/// The drivers of a suite.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suite {
    /// By name.
    pub entries: Vec<Entry>,
}

impl Suite {
    /// The suite that was compiled in, or the `*.toml` files of a directory.
    ///
    /// # Errors
    /// A malformed entry, with its file.
    pub fn load(dir: Option<&Path>) -> Result<Self> {
        let Some(dir) = dir else {
            return Self::from_texts(
                BUILT_IN
                    .iter()
                    .map(|(f, t)| ((*f).to_owned(), (*t).to_owned())),
            );
        };
        let mut texts = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(Error::io(dir))? {
            let path = entry.map_err(Error::io(dir))?.path();
            if path.extension().is_some_and(|e| e == "toml") {
                let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
                texts.push((path.to_string_lossy().into_owned(), text));
            }
        }
        texts.sort();
        Self::from_texts(texts)
    }

    fn from_texts(texts: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let read = |(file, text): (String, String)| {
            let bad = |why: String| Error::Input(format!("{file}: {why}"));
            let mut entry: Entry = toml::from_str(&text).map_err(|e| bad(e.to_string()))?;
            entry.smoke.check().map_err(bad)?;
            let base = file.rsplit('/').next().unwrap_or(&file);
            entry.name = base.trim_end_matches(".toml").to_owned();
            Ok(entry)
        };
        let entries = texts.into_iter().map(read).collect::<Result<Vec<_>>>()?;
        Ok(Self { entries })
    }

    /// Only the named ones.
    ///
    /// # Errors
    /// A name that the suite does not have.
    pub fn only(mut self, names: &[String]) -> Result<Self> {
        if names.is_empty() {
            return Ok(self);
        }
        if let Some(bad) = names
            .iter()
            .find(|n| !self.entries.iter().any(|e| e.name == **n))
        {
            let all: Vec<&str> = self.entries.iter().map(|e| e.name.as_str()).collect();
            return Err(Error::Input(format!(
                "the suite has no driver {bad}; it has {}",
                all.join(", ")
            )));
        }
        self.entries.retain(|e| names.contains(&e.name));
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_that_is_compiled_in_is_well_formed() {
        let suite = Suite::load(None).unwrap();
        assert!(suite.entries.iter().any(|e| e.name == "e1000e"));
        assert!(
            suite
                .clone()
                .only(&["horse".into()])
                .unwrap_err()
                .to_string()
                .contains("e1000e")
        );
        assert_eq!(suite.only(&["e1000e".into()]).unwrap().entries.len(), 1);
    }
}
