//! The facts of one kernel, opened from the store or read anew.

use crate::store::{self, Meta, Store};
use crate::{Def, Export, Result, index, symvers, words};
use kspan_kernel::{Cache, Error, Kernel};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// All facts of one kernel, opened from the store.
#[derive(Debug)]
pub struct Facts {
    store: Store,
    meta: OnceLock<Meta>,
    header_names: OnceLock<BTreeMap<String, Vec<u32>>>,
    exports: OnceLock<HashMap<String, Export>>,
    config: OnceLock<HashMap<String, String>>,
}

fn read(path: &Path) -> Result<String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(source) => Err(Error::Io {
            path: path.to_path_buf(),
            source,
        }),
    }
}

/// The configuration's text: `auto.conf`, else `.config`.
fn config_text(kernel: &Kernel) -> Result<String> {
    read(&kernel.build_dir.join("include/config/auto.conf"))
        .or_else(|_| read(&kernel.build_dir.join(".config")))
}

/// Reads `CONFIG_X=value` lines; quotes around text stay.
fn parse_config(text: &str) -> HashMap<String, String> {
    text.lines()
        .filter(|line| line.starts_with("CONFIG_"))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

impl Facts {
    /// Opens the facts of a kernel, reading the kernel first if the store lacks them (seconds).
    ///
    /// # Errors
    /// libclang is missing, headers are half-unpacked, or Module.symvers is garbage.
    pub fn open(cache: &Cache, kernel: &Kernel) -> Result<Self> {
        Self::open_with(&cache.root().join("facts"), kernel, || {
            Ok(cache.compile_flags(kernel)?.args)
        })
    }

    /// Like [`Facts::open`], with a directory for the store and a source of the compiler's arguments; they are only
    /// asked for when the store lacks this kernel.
    ///
    /// # Errors
    /// As [`Facts::open`].
    pub fn open_with(
        dir: &Path,
        kernel: &Kernel,
        args: impl FnOnce() -> Result<Vec<String>>,
    ) -> Result<Self> {
        let key = blake3::hash(
            format!(
                "{}\n{}\n{}\n{}",
                store::VERSION,
                kernel.digest,
                kernel.source_dir.display(),
                kernel.build_dir.display()
            )
            .as_bytes(),
        );
        let path = dir.join(format!("{}.facts", key.to_hex()));
        if let Some(store) = Store::open(&path) {
            return Ok(Self::new(store));
        }
        let exports_path = kernel.build_dir.join("Module.symvers");
        let exports = read(&exports_path)?;
        symvers::parse(&exports).map_err(|why| {
            Error::Input(format!(
                "{}: {why}: this is no list of exported symbols. Fetch or build the kernel again",
                exports_path.display()
            ))
        })?;
        let index = index::build(kernel, &args()?)?;
        let bytes = store::encode(index, exports, config_text(kernel)?)?;
        store::write(&path, &bytes)?;
        Store::decode(bytes).map(Self::new).ok_or_else(|| {
            Error::Environment(
                "the facts just read do not decode. This is a defect of kspan; please report it"
                    .into(),
            )
        })
    }

    fn new(store: Store) -> Self {
        Self {
            store,
            meta: OnceLock::new(),
            header_names: OnceLock::new(),
            exports: OnceLock::new(),
            config: OnceLock::new(),
        }
    }

    fn meta(&self) -> &Meta {
        self.meta.get_or_init(|| self.store.meta())
    }

    /// Every definition of a name: ordinary identifiers, macros and tags alike; the one to prefer first.
    #[must_use]
    pub fn defs(&self, name: &str) -> Vec<Def> {
        self.store
            .find(name)
            .map(|at| self.store.defs(at))
            .unwrap_or_default()
    }
    /// Cheap test for [`Facts::defs`] being non-empty.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.store.find(name).is_some()
    }
    /// All names, sorted.
    pub fn all_names(&self) -> impl Iterator<Item = &str> {
        (0..self.store.len()).filter_map(|at| self.store.name(at))
    }
    /// The headers that define a name, as a driver would include them.
    #[must_use]
    pub fn headers_of(&self, name: &str) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for def in self.defs(name) {
            if !out.contains(&def.header) {
                out.push(def.header);
            }
        }
        out
    }
    /// Names that a definition's text uses and that this kernel defines, in order.
    #[must_use]
    pub fn deps(&self, def: &Def) -> Vec<String> {
        words::needed(def)
            .into_iter()
            .filter(|word| self.has(word))
            .collect()
    }
    /// Can a driver write `#include <header>`?
    #[must_use]
    pub fn header_exists(&self, header: &str) -> bool {
        self.meta().headers.contains_key(header)
    }
    /// The file behind `#include <header>`.
    #[must_use]
    pub fn header_path(&self, header: &str) -> Option<PathBuf> {
        self.meta().headers.get(header).cloned()
    }
    /// Every header a driver can include, sorted.
    pub fn header_list(&self) -> impl Iterator<Item = &str> {
        self.meta().headers.keys().map(String::as_str)
    }
    /// What a header includes itself, as spelled there, under this kernel's configuration.
    #[must_use]
    pub fn includes_of(&self, header: &str) -> Vec<String> {
        self.meta()
            .includes
            .get(header)
            .cloned()
            .unwrap_or_default()
    }
    /// Names defined by a header itself (not by what it includes).
    #[must_use]
    pub fn names_in_header(&self, header: &str) -> Vec<String> {
        let all = self.header_names.get_or_init(|| self.store.header_names());
        let numbers = all.get(header).map(Vec::as_slice).unwrap_or_default();
        numbers
            .iter()
            .filter_map(|number| self.store.name(*number as usize))
            .map(str::to_owned)
            .collect()
    }
    /// The export of a symbol.
    #[must_use]
    pub fn export(&self, symbol: &str) -> Option<Export> {
        self.exports
            .get_or_init(|| symvers::parse(self.store.symvers()).unwrap_or_default())
            .get(symbol)
            .cloned()
    }
    /// Names of all modules that export something, dashes as underscores, without their directories.
    #[must_use]
    pub fn exporting_modules(&self) -> HashSet<String> {
        let exports = self
            .exports
            .get_or_init(|| symvers::parse(self.store.symvers()).unwrap_or_default());
        let name = |e: &Export| {
            let module = e.module.rsplit('/').next().unwrap_or_default();
            module.replace('-', "_")
        };
        exports.values().map(name).collect()
    }
    /// The symbols that a module exports, sorted; the module by its name alone, dashes as underscores.
    #[must_use]
    pub fn exports_of(&self, module: &str) -> Vec<String> {
        let exports = self
            .exports
            .get_or_init(|| symvers::parse(self.store.symvers()).unwrap_or_default());
        let own = |e: &Export| {
            let name = e.module.rsplit('/').next().unwrap_or_default();
            name.replace('-', "_") == module
        };
        let mut names: Vec<String> = exports
            .iter()
            .filter(|(_, e)| own(e))
            .map(|(name, _)| name.clone())
            .collect();
        names.sort();
        names
    }
    /// The value of a configuration symbol (`CONFIG_X` → `y`, `m`, `"text"`, `0x10`); `None` when off.
    #[must_use]
    pub fn config(&self, symbol: &str) -> Option<String> {
        self.config
            .get_or_init(|| parse_config(self.store.config()))
            .get(symbol)
            .cloned()
    }
    /// Headers and functions that could not be analysed, each with the reason.
    #[must_use]
    pub fn unanalysed(&self) -> Vec<String> {
        self.meta().unanalysed.clone()
    }
}
