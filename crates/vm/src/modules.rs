//! A kernel's own modules, what a module says it needs, and the order in which a set of modules loads.

use kspan_kernel::{Error, Result};
use object::{Object, ObjectSection};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

/// `lib/modules/RELEASE` of a kernel: its modules by name.
#[derive(Debug, Clone)]
pub struct ModuleTree {
    files: BTreeMap<String, PathBuf>,
    /// From `modules.builtin`; `None` where the directory has no such list.
    built_in: Option<BTreeSet<String>>,
}

/// What a module's file says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// Modules that it takes symbols from, and those that it wants loaded before it.
    pub depends: Vec<String>,
    /// The checksum of its sources, if it has one; the kernel shows it in `/sys/module/NAME/srcversion`.
    pub srcversion: Option<String>,
}

/// A module of the driver, built.
#[derive(Debug, Clone)]
pub struct Own {
    /// Its name, with underscores.
    pub name: String,
    /// The file.
    pub bytes: Vec<u8>,
    /// What it says of itself.
    pub info: Info,
}

/// Which modules to load for a driver, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// Modules of the kernel that stay loaded.
    pub before: Vec<String>,
    /// The driver's own and those of the kernel that stand upon them: loaded, unloaded and loaded again.
    pub cycled: Vec<String>,
}

/// A module's name as the kernel has it: `i2c-i801.ko.xz` is `i2c_i801`.
#[must_use]
pub fn module_name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split(".ko").next().unwrap_or(base).replace('-', "_")
}

impl ModuleTree {
    /// Reads which modules a directory holds.
    ///
    /// # Errors
    /// When it cannot be read or holds none.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for entry in walkdir::WalkDir::new(dir).into_iter().flatten() {
            let name = entry.file_name().to_string_lossy();
            let is_module = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"]
                .iter()
                .any(|e| name.ends_with(e));
            if is_module && entry.file_type().is_file() {
                files.insert(module_name(&name), entry.path().to_path_buf());
            }
        }
        let listed = std::fs::read_to_string(dir.join("modules.builtin")).ok();
        let built_in = listed.map(|text| text.lines().map(module_name).collect::<BTreeSet<_>>());
        if files.is_empty() && built_in.as_ref().is_none_or(BTreeSet::is_empty) {
            return Err(Error::Input(format!(
                "{}: holds no modules; name the lib/modules/RELEASE directory of the kernel",
                dir.display()
            )));
        }
        Ok(Self { files, built_in })
    }

    /// The kernel has this as a part of its image.
    #[must_use]
    pub fn is_built_in(&self, name: &str) -> bool {
        self.built_in.as_ref().is_some_and(|b| b.contains(name))
    }

    /// Whether there is a list of what the image has built in. Debian's packages from 7.x on have none.
    #[must_use]
    pub fn lists_built_in(&self) -> bool {
        self.built_in.is_some()
    }

    /// A module's bytes, decompressed; `None` when there is none of that name.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(path) = self.files.get(name) else {
            return Ok(None);
        };
        let file = std::fs::File::open(path).map_err(Error::io(path))?;
        let file_name = path.to_string_lossy();
        let mut bytes = Vec::new();
        if file_name.ends_with(".ko") {
            (&file).read_to_end(&mut bytes).map_err(Error::io(path))?;
        } else {
            let mut stream = kspan_kernel::deb::decompress(&file_name, file)
                .map_err(|why| Error::Input(format!("{}: {why}", path.display())))?;
            stream.read_to_end(&mut bytes).map_err(Error::io(path))?;
        }
        Ok(Some(bytes))
    }

    /// The order in which a driver's modules load, after `first` and all that either needs of the kernel.
    ///
    /// # Errors
    /// Names the module that is neither there nor built in. A cycle is cut where it closes.
    pub fn order(
        &self,
        own: &[Own],
        first: &[String],
    ) -> Result<std::result::Result<Order, String>> {
        let mut walk = Walk {
            tree: self,
            own,
            seen: BTreeSet::new(),
            list: Vec::new(),
        };
        let wanted = first
            .iter()
            .map(|n| module_name(n))
            .chain(own.iter().map(|o| o.name.clone()));
        for name in wanted.collect::<Vec<_>>() {
            match walk.visit(&name, true)? {
                Ok(_) => {}
                Err(why) => return Ok(Err(why)),
            }
        }
        let (cycled, before) = walk
            .list
            .into_iter()
            .partition::<Vec<_>, _>(|(_, upon)| *upon);
        let names = |list: Vec<(String, bool)>| list.into_iter().map(|(n, _)| n).collect();
        Ok(Ok(Order {
            before: names(before),
            cycled: names(cycled),
        }))
    }
}

struct Walk<'a> {
    tree: &'a ModuleTree,
    own: &'a [Own],
    seen: BTreeSet<String>,
    /// In order; whether it is the driver's own or stands upon such a one.
    list: Vec<(String, bool)>,
}

impl Walk<'_> {
    /// Puts a module behind what it needs; tells whether it stands upon the driver.
    fn visit(&mut self, name: &str, required: bool) -> Result<std::result::Result<bool, String>> {
        if !self.seen.insert(name.to_owned()) {
            return Ok(Ok(self.list.iter().any(|(n, upon)| n == name && *upon)));
        }
        let own = self.own.iter().find(|o| o.name == name);
        let info = match own {
            Some(own) => own.info.clone(),
            None => match self.tree.read(name)? {
                Some(bytes) => info(&bytes),
                None if self.tree.is_built_in(name) || !required => return Ok(Ok(false)),
                None => return Ok(Err(format!("this kernel has no module {name}"))),
            },
        };
        let mut upon = own.is_some();
        for needed in &info.depends {
            match self.visit(needed, true)? {
                Ok(stands) => upon |= stands,
                Err(why) => return Ok(Err(format!("{why}, which {name} needs"))),
            }
        }
        self.list.push((name.to_owned(), upon));
        Ok(Ok(upon))
    }
}

/// Reads a module's `.modinfo`; what cannot be read says nothing.
#[must_use]
pub fn info(bytes: &[u8]) -> Info {
    let section = object::File::parse(bytes)
        .ok()
        .and_then(|f| {
            f.section_by_name(".modinfo")?
                .data()
                .ok()
                .map(<[u8]>::to_vec)
        })
        .unwrap_or_default();
    let mut found = Info::default();
    for field in section.split(|b| *b == 0) {
        let text = String::from_utf8_lossy(field);
        let Some((key, value)) = text.split_once('=') else {
            continue;
        };
        match key {
            "depends" => {
                let names = value.split(',').filter(|n| !n.is_empty());
                found.depends.extend(names.map(module_name));
            }
            "srcversion" => found.srcversion = Some(value.to_owned()),
            _ => {}
        }
    }
    found
}

/// The modules of a port that was built, read from its directory.
///
/// # Errors
/// When one cannot be read.
pub fn own_modules(dir: &Path, modules: &[PathBuf]) -> Result<Vec<Own>> {
    let read = |file: &PathBuf| {
        let path = dir.join(file);
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        Ok(Own {
            name: module_name(&file.to_string_lossy()),
            info: info(&bytes),
            bytes,
        })
    };
    modules.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        assert_eq!(module_name("kernel/drivers/i2c/i2c-i801.ko.xz"), "i2c_i801");
        assert_eq!(module_name("8139too.ko"), "8139too");
    }

    #[test]
    fn a_module_that_is_missing_is_named_with_who_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("modules.builtin"), "kernel/lib/crc32.ko\n").unwrap();
        let tree = ModuleTree::open(dir.path()).unwrap();
        let own = |depends: &[&str]| Own {
            name: "x".into(),
            bytes: Vec::new(),
            info: Info {
                depends: depends.iter().map(|d| (*d).to_owned()).collect(),
                srcversion: None,
            },
        };
        let order = tree.order(&[own(&["crc32"])], &[]).unwrap().unwrap();
        assert_eq!((order.before, order.cycled), (vec![], vec!["x".to_owned()]));
        let why = tree.order(&[own(&["gone"])], &[]).unwrap().unwrap_err();
        assert!(why.contains("gone") && why.contains("x needs"), "{why}");
    }

    #[test]
    fn any_bytes_are_read() {
        assert_eq!(info(b"\x7fELF nonsense"), Info::default());
    }
}
