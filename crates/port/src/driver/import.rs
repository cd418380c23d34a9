//! Import: from a driver in a kernel tree to a plain Kbuild directory of its own.
//!
//! The layout below the common ancestor of all the driver's files is kept, so `#include "../x.h"` stays true, and
//! bytes are copied as they are. One Kbuild at the top lists all modules, with the flags that the tree gave them.

use super::includes::{
    Closure, common_ancestor, defines, is_kernel_header, kernel_header, parent, scan,
};
use super::kbuild::Kbuild;
use super::makefile::{self, DirVars};
use super::manifest::{Manifest, Origin, write_whole};
use super::render::{self, Unit};
use super::tree::{self, SourceTree, TreeModule, join};
use super::{Driver, check_inside};
use kspan_kernel::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A driver that was imported, and what could not be taken along.
#[derive(Debug, Clone)]
pub struct Import {
    /// The driver.
    pub driver: Driver,
    /// What was left out or not found, in words.
    pub notes: Vec<String>,
}

/// Imports a driver from a kernel tree; see [`SourceTree::import`].
///
/// # Errors
/// As [`SourceTree::import`].
pub fn import(
    kernel_source: &Path,
    home_config: &dyn Fn(&str) -> Option<String>,
    path: &str,
    out: &Path,
    home_id: &str,
) -> Result<Driver> {
    Ok(SourceTree::open(kernel_source, home_config, None)?
        .import(path, out, home_id)?
        .driver)
}

/// The modules to import and the directories that say how they are built.
struct Selection {
    /// The driver's name.
    name: String,
    /// The path that was asked for, relative to the tree.
    path: String,
    /// The modules.
    modules: Vec<TreeModule>,
    /// Evaluated directories: those of the modules and all above them.
    dirs: BTreeMap<String, DirVars>,
    /// Symbols that were turned on because the home kernel has them off or built in.
    forced: BTreeMap<String, String>,
    /// What was left out.
    notes: Vec<String>,
}

/// `dir/module` taken apart, the module's name with underscores.
fn wanted_in<'a>(path: &'a str, plain: &'a str) -> Option<(&'a str, &'a str)> {
    let (dir, _) = path.rsplit_once('/')?;
    Some((dir, plain.rsplit_once('/')?.1))
}

impl SourceTree<'_> {
    /// Imports a driver: `path` is a `.c` file, a directory, or a module's name (dashes and underscores are one). A
    /// module that the configuration has off or built in is imported as a module all the same.
    ///
    /// # Errors
    /// Nothing of that name builds a module, a file is a link out of the tree, or `out` exists and is not empty.
    pub fn import(&self, path: &str, out: &Path, home_id: &str) -> Result<Import> {
        refuse_full(out)?;
        let chosen = self.select(path)?;
        let mut units = Vec::new();
        let mut closure = Closure::default();
        let mut notes = chosen.notes.clone();
        for module in &chosen.modules {
            match self.unit(module, &chosen, &mut closure) {
                Ok(unit) => units.push(unit),
                Err(why) => notes.push(why),
            }
        }
        if units.is_empty() {
            return Err(Error::Input(format!(
                "nothing of {path} can be imported: {}",
                notes.join("; ")
            )));
        }
        let root = common_ancestor(closure.files.iter());
        notes.extend(
            closure
                .missing
                .iter()
                .filter(|(name, _)| !made_by_build(name))
                .map(|(name, by)| format!("{by} includes {name}, which the tree does not have")),
        );
        let parts = units.iter().flat_map(Unit::symbols).cloned().collect();
        let foreign = self.foreign_symbols(&chosen, &closure);
        let mut config = self.owned_config(&closure, &foreign, &parts)?;
        config.extend(
            chosen
                .forced
                .clone()
                .into_iter()
                .filter(|(name, _)| self.mentioned(&closure, name)),
        );
        // What turns the driver on, where its own code asks: a target without the option must not answer no.
        let own = chosen.modules.iter().filter_map(|m| m.symbol.as_ref());
        config.extend(
            own.filter(|name| self.mentioned(&closure, name))
                .filter_map(|name| Some((name.clone(), (self.config)(name)?))),
        );
        let manifest = Manifest {
            name: chosen.name.clone(),
            home: home_id.to_owned(),
            version: None,
            opt_in: Vec::new(),
            modules: units.iter().map(|u| u.name.clone()).collect(),
            private_headers: self.private_headers(&closure)?,
            origin: Some(Origin {
                kernel: home_id.to_owned(),
                path: chosen.path.clone(),
            }),
            config,
            smoke: None,
        };
        let traces = self.trace_headers(&closure, &root);
        let kbuild = render::kbuild(
            &units,
            &closure.files,
            &root,
            &self.root,
            &manifest,
            &traces,
        );
        let staged = self.stage(out, &closure.files, &root)?;
        for header in &traces {
            header.write(staged.path())?;
        }
        write_whole(&staged.path().join("Kbuild"), kbuild.as_bytes())?;
        manifest.save(staged.path())?;
        publish(staged, out)?;
        Ok(Import {
            driver: Driver::load(out)?,
            notes,
        })
    }

    /// The symbols that turn on the modules of a driver, `path` as for [`SourceTree::import`]: module's name → `CONFIG_X`, of
    /// those whose Makefile says it in one line.
    ///
    /// # Errors
    /// As [`SourceTree::import`].
    pub fn symbols(&self, path: &str) -> Result<BTreeMap<String, String>> {
        let chosen = self.select(path)?;
        let symbol = |m: TreeModule| Some((m.name, m.symbol?));
        Ok(chosen.modules.into_iter().filter_map(symbol).collect())
    }

    /// How one module is built, its files added to the closure.
    fn unit(
        &self,
        module: &TreeModule,
        chosen: &Selection,
        closure: &mut Closure,
    ) -> std::result::Result<Unit, String> {
        let dir = module.dir.to_string_lossy().into_owned();
        let vars = chosen
            .dirs
            .get(&dir)
            .ok_or_else(|| format!("{dir}: its Makefile was not read"))?;
        let mut sources: Vec<String> = module
            .objects
            .iter()
            .map(|p| p.to_string_lossy().into_owned())
            .collect();
        for other in &module.others {
            let object = other.to_string_lossy();
            let stem = object.strip_suffix(".o").unwrap_or(&object);
            let known = [".S", ".c_shipped", ".S_shipped", ".o_shipped"]
                .iter()
                .map(|s| format!("{stem}{s}"));
            match known.into_iter().find(|f| self.root.join(f).is_file()) {
                Some(file) => sources.push(file),
                None => {
                    return Err(format!(
                        "module {} is left out: its object {object} has no C source in the tree",
                        module.name
                    ));
                }
            }
        }
        let unit = Unit::new(&self.root, module, vars, &chosen.dirs);
        let dirs = unit.include_dirs(&self.root);
        closure.add(&self.root, &sources, &dirs);
        let outward: Vec<String> = self
            .outward(closure)
            .into_iter()
            .map(|(_, target)| target)
            .collect();
        closure.add(&self.root, &outward, &dirs);
        Ok(unit)
    }

    /// Kernel headers that include a driver's file by a path out of `include/` (`"../../../sound/x.h"`): depth and file.
    fn outward(&self, closure: &Closure) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for header in closure
            .kernel
            .iter()
            .filter_map(|name| kernel_header(&self.root, name))
        {
            let bytes = std::fs::read(self.root.join(&header)).unwrap_or_default();
            for include in scan(&bytes)
                .into_iter()
                .filter(|i| i.quoted && i.name.starts_with("../"))
            {
                let depth = include.name.split('/').take_while(|p| *p == "..").count();
                let target = join(parent(&header), &include.name).unwrap_or_default();
                if self.root.join(&target).is_file() && !is_kernel_header(&target) {
                    found.push((depth, target));
                }
            }
        }
        found
    }

    /// From what was asked for to modules.
    fn select(&self, path: &str) -> Result<Selection> {
        let asked = path
            .strip_prefix(&format!("{}/", self.root.display()))
            .unwrap_or(path);
        let asked = join("", asked).unwrap_or_default();
        let full = self.root.join(&asked);
        if !asked.is_empty() && full.is_dir() {
            return self.select_directory(&asked);
        }
        if full.is_file() {
            return self.select_file(&asked);
        }
        self.select_module(path)
    }

    /// All modules of a directory and of those below it.
    fn select_directory(&self, dir: &str) -> Result<Selection> {
        let mut chosen = self.read_dirs(dir, dir, &BTreeMap::new())?;
        if chosen.modules.is_empty() {
            let forced = self.forced(&chosen, |_| true);
            chosen = self.read_dirs(dir, dir, &forced)?;
        }
        if chosen.modules.is_empty() {
            return Err(self.no_module(dir, &chosen));
        }
        Ok(chosen)
    }

    /// The modules that one source file belongs to.
    fn select_file(&self, file: &str) -> Result<Selection> {
        if !file.ends_with(".c") {
            return Err(Error::Input(format!(
                "{file} is no .c file; name a .c file, a directory or a module"
            )));
        }
        let mut forced = BTreeMap::new();
        for round in 0..2 {
            let mut dir = parent(file);
            while !dir.is_empty() {
                let mut chosen = self.read_dirs(dir, dir, &forced)?;
                if round == 0 && forced.is_empty() {
                    forced = self.forced(&chosen, |s| {
                        s.words.iter().any(|w| {
                            self.root.join(dir).join(w).with_extension("c") == self.root.join(file)
                        })
                    });
                }
                chosen
                    .modules
                    .retain(|m| m.objects.iter().any(|o| o == Path::new(file)));
                if let Some(first) = chosen.modules.first() {
                    chosen.name.clone_from(&first.name);
                    chosen.path = file.to_owned();
                    return Ok(chosen);
                }
                dir = parent(dir);
                if dir.matches('/').count() == 0 {
                    break;
                }
            }
        }
        let chosen = self.read_dirs(parent(file), parent(file), &forced)?;
        Err(self.no_module(file, &chosen))
    }

    /// A module by its name, in the directory that stands before it or anywhere in the tree.
    fn select_module(&self, name: &str) -> Result<Selection> {
        let plain = |s: &str| s.replace('-', "_");
        let wanted = plain(name.strip_suffix(".ko").unwrap_or(name));
        if let Some((dir, wanted)) =
            wanted_in(name, &wanted).filter(|(d, _)| self.root.join(d).is_dir())
        {
            let mut chosen = self.read_dirs(dir, dir, &BTreeMap::new())?;
            chosen.modules.retain(|m| plain(&m.name) == wanted);
            if let Some(module) = chosen.modules.first() {
                chosen.name.clone_from(&module.name);
                chosen.path = module.path().to_string_lossy().into_owned();
                return Ok(chosen);
            }
        }
        let all = self.modules()?;
        let Some(module) = all.iter().find(|m| plain(&m.name) == wanted) else {
            return Err(Error::Input(format!(
                "{} has nothing called {name}: no such .c file, no such directory, and none of the {} modules that the \
                 configuration builds below drivers, sound and net has this name",
                self.root.display(),
                all.len()
            )));
        };
        let dir = module.dir.to_string_lossy().into_owned();
        let mut chosen = self.read_dirs(&dir, &dir, &BTreeMap::new())?;
        chosen.modules.retain(|m| m.name == module.name);
        chosen.name.clone_from(&module.name);
        chosen.path = module.path().to_string_lossy().into_owned();
        Ok(chosen)
    }

    /// Evaluates a directory with those below it, and those above it for the flags that they hand down.
    fn read_dirs(
        &self,
        dir: &str,
        path: &str,
        forced: &BTreeMap<String, String>,
    ) -> Result<Selection> {
        let mut above = Vec::new();
        let mut up = parent(dir);
        while !up.is_empty() {
            above.push(up.to_owned());
            up = parent(up);
        }
        let mut config = self.config_of(&[dir.to_owned()])?;
        config.extend(forced.clone());
        let below = self.walk_all(dir, &mut config)?;
        let above = makefile::evaluate(&self.root, &config, &above)?;
        let mut modules: Vec<TreeModule> = below
            .iter()
            .flat_map(|d| tree::modules_of(&self.root, d))
            .collect();
        let mut names = BTreeSet::new();
        modules.retain(|m| names.insert(m.name.clone()));
        let broken = below.iter().filter_map(|d| {
            Some(format!(
                "{}: make cannot read its Makefile: {}",
                d.dir,
                d.error.as_ref()?
            ))
        });
        let notes = broken.collect();
        let dirs = below
            .into_iter()
            .chain(above)
            .map(|d| (d.dir.clone(), d))
            .collect();
        let name = dir.rsplit('/').next().unwrap_or(dir).to_owned();
        Ok(Selection {
            name,
            path: path.to_owned(),
            modules,
            dirs,
            forced: forced.clone(),
            notes,
        })
    }

    /// Evaluates a directory and those below it; Makefiles included from elsewhere name symbols too, so it is done again
    /// until no new one turns up.
    fn walk_all(&self, dir: &str, config: &mut BTreeMap<String, String>) -> Result<Vec<DirVars>> {
        loop {
            let below = tree::walk(&self.root, config, vec![dir.to_owned()])?;
            let read: Vec<PathBuf> = below
                .iter()
                .flat_map(|d| &d.makefiles)
                .map(|m| self.root.join(m))
                .collect();
            let known = config.len();
            for (name, value) in self.values_in(&read) {
                config.entry(name).or_insert(value);
            }
            if config.len() == known {
                return Ok(below);
            }
        }
    }

    /// Symbols that stand before a directory's objects, all set to `m`.
    fn forced(
        &self,
        chosen: &Selection,
        fits: impl Fn(&super::Statement) -> bool,
    ) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for vars in chosen
            .dirs
            .values()
            .filter(|d| d.dir.starts_with(&chosen.path))
        {
            let text = tree::texts(&self.root, vars);
            let lines = text
                .statements
                .iter()
                .filter(|s| s.variable == "obj" && s.suffix.starts_with("CONFIG_") && fits(s));
            found.extend(lines.map(|s| (s.suffix.clone(), "m".to_owned())));
        }
        found
    }

    /// Symbols that build objects of which the driver has no source, by the Makefiles beside all its files.
    fn foreign_symbols(&self, chosen: &Selection, closure: &Closure) -> BTreeSet<String> {
        let dirs: BTreeSet<&str> = closure.files.iter().map(|f| parent(f)).collect();
        let beside = dirs.into_iter().filter_map(|dir| {
            let file = makefile::kbuild_file(&self.root.join(dir))?;
            Some((dir, Kbuild::parse(&std::fs::read(file).ok()?)))
        });
        let read = chosen
            .dirs
            .values()
            .map(|vars| (vars.dir.as_str(), tree::texts(&self.root, vars)));
        let mut found = BTreeSet::new();
        for (dir, text) in read.chain(beside) {
            let own = |word: &&str| {
                let source = join(dir, &format!("{word}.c")).unwrap_or_default();
                closure.files.contains(&source) || chosen.modules.iter().any(|m| m.name == *word)
            };
            for s in text
                .statements
                .iter()
                .filter(|s| s.suffix.starts_with("CONFIG_"))
            {
                let objects: Vec<&str> = s
                    .words
                    .iter()
                    .filter_map(|w| w.strip_suffix(".o"))
                    .collect();
                let part_of_own = chosen.modules.iter().any(|m| m.name == s.variable);
                if !part_of_own && !objects.is_empty() && !objects.iter().any(own) {
                    found.insert(s.suffix.clone());
                }
            }
        }
        found
    }

    /// Why there is no module, with what was looked for.
    fn no_module(&self, path: &str, chosen: &Selection) -> Error {
        let makefiles: BTreeSet<String> = chosen
            .dirs
            .values()
            .flat_map(|d| &d.makefiles)
            .map(|m| m.display().to_string())
            .collect();
        let notes = if chosen.notes.is_empty() {
            String::new()
        } else {
            format!("; {}", chosen.notes.join("; "))
        };
        Error::Input(format!(
            "{path} is no driver that can be a module: no `obj-m`, nor an `obj-$(CONFIG_X)` that can be one, leads to it in {}{notes}",
            makefiles.into_iter().collect::<Vec<_>>().join(", ")
        ))
    }

    /// Trace headers that are found through `include/trace/` and so need a way from anywhere.
    fn trace_headers(&self, closure: &Closure, root: &str) -> Vec<TraceHeader> {
        let below = |file: &str| {
            file.strip_prefix(root)
                .unwrap_or(file)
                .trim_start_matches('/')
                .to_owned()
        };
        let forward = |depth: usize, file: &str| TraceHeader {
            depth,
            dir: parent(file).to_owned(),
            name: file.rsplit('/').next().unwrap_or(file).to_owned(),
            target: below(file),
        };
        let mut found: Vec<TraceHeader> = self
            .outward(closure)
            .iter()
            .map(|(depth, file)| forward(*depth, file))
            .collect();
        for file in closure.files.iter().filter(|f| f.ends_with(".h")) {
            let Ok(bytes) = std::fs::read(self.root.join(file)) else {
                continue;
            };
            for path in defines(&bytes, "TRACE_INCLUDE_PATH") {
                let depth = path.split('/').take_while(|p| *p == "..").count();
                let rest = path.split('/').skip(depth).collect::<Vec<_>>().join("/");
                if depth > 0 && parent(file) == rest {
                    found.push(forward(depth, file));
                }
            }
        }
        found
    }

    /// Copies files into a directory beside `out`.
    fn stage(&self, out: &Path, files: &BTreeSet<String>, root: &str) -> Result<tempfile::TempDir> {
        let above = out
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        std::fs::create_dir_all(above).map_err(|source| Error::Io {
            path: above.to_path_buf(),
            source,
        })?;
        let staged = tempfile::Builder::new()
            .prefix(".kspan-import-")
            .tempdir_in(above)
            .map_err(|source| Error::Io {
                path: above.to_path_buf(),
                source,
            })?;
        for file in files {
            let from = check_inside(&self.root, &self.root.join(file))?;
            let below = file
                .strip_prefix(root)
                .unwrap_or(file)
                .trim_start_matches('/');
            let to = staged.path().join(below);
            if let Some(dir) = to.parent() {
                std::fs::create_dir_all(dir).map_err(|source| Error::Io {
                    path: dir.to_path_buf(),
                    source,
                })?;
            }
            let bytes = std::fs::read(&from).map_err(|source| Error::Io { path: from, source })?;
            std::fs::write(&to, bytes).map_err(|source| Error::Io { path: to, source })?;
        }
        Ok(staged)
    }
}

/// A header named through `TRACE_INCLUDE_PATH ../../drivers/x` or by a kernel header's `"../../../sound/x.h"`: the way
/// from `include/` leads nowhere outside the kernel's tree, so a forwarding header is put where the path leads from `trace-include/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TraceHeader {
    depth: usize,
    dir: String,
    name: String,
    target: String,
}

impl TraceHeader {
    /// The directory for `-I`, relative to the driver.
    pub fn search_dir(&self) -> String {
        format!("trace-include{}", "/up".repeat(self.depth))
    }

    fn write(&self, driver: &Path) -> Result<()> {
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::Io { path, source }
        };
        let up = driver.join(self.search_dir());
        std::fs::create_dir_all(&up).map_err(io(&up))?;
        write_whole(
            &up.join("README"),
            b"define_trace.h starts here for TRACE_INCLUDE_PATH; this directory must exist.\n",
        )?;
        let dir = driver.join("trace-include").join(&self.dir);
        std::fs::create_dir_all(&dir).map_err(io(&dir))?;
        let back = "../".repeat(self.dir.split('/').count() + 1);
        write_whole(
            &dir.join(&self.name),
            format!("#include \"{back}{}\"\n", self.target).as_bytes(),
        )
    }
}

/// A header that every kernel's build makes, or another architecture's.
fn made_by_build(name: &str) -> bool {
    ["asm/", "generated/", "mach/"]
        .iter()
        .any(|p| name.starts_with(p))
        || name == "linux/version.h"
}

/// Refuses an output directory that holds something.
fn refuse_full(out: &Path) -> Result<()> {
    let full = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if full || out.is_file() {
        return Err(Error::Input(format!(
            "{} exists and is not empty; name a new directory",
            out.display()
        )));
    }
    Ok(())
}

/// Moves the finished directory to its place.
fn publish(staged: tempfile::TempDir, out: &Path) -> Result<()> {
    let io = |source| Error::Io {
        path: out.to_path_buf(),
        source,
    };
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(staged.path(), open).map_err(io)?;
    // rename replaces an empty directory and nothing else.
    let path: PathBuf = staged.keep();
    std::fs::rename(&path, out).map_err(|source| {
        let _ = std::fs::remove_dir_all(&path);
        io(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let base: &[(&str, &[u8])] = &[("scripts/x", b""), ("include/linux/module.h", b"")];
        for (name, text) in base.iter().chain(files) {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn take(dir: &Path, path: &str) -> (Result<Import>, PathBuf) {
        let config = |name: &str| match name {
            "CONFIG_A" | "CONFIG_B" => Some("m".to_owned()),
            "CONFIG_A_LEDS" | "CONFIG_DEBUG_FS" => Some("y".to_owned()),
            _ => None,
        };
        let out = dir.join("out");
        (
            SourceTree::open(dir, &config, None)
                .unwrap()
                .import(path, &out, "home"),
            out,
        )
    }

    #[test]
    fn one_file_keeps_its_bytes() {
        let text: &[u8] = b"#include <linux/module.h>\r\n#include \"a.h\"\r\n/* \xff */\r\n";
        let dir = tree(&[
            (
                "drivers/h/Makefile",
                b"obj-$(CONFIG_A) += a.o\nobj-$(CONFIG_Z) += z.o\n",
            ),
            ("drivers/h/a.c", text),
            ("drivers/h/a.h", b""),
            ("drivers/h/z.c", b""),
        ]);
        let (done, out) = take(dir.path(), "drivers/h/a.c");
        assert_eq!(done.unwrap().driver.manifest.modules, ["a"]);
        assert_eq!(std::fs::read(out.join("a.c")).unwrap(), text);
        assert!(out.join("a.h").is_file() && !out.join("z.c").exists());
        assert!(
            std::fs::read_to_string(out.join("Kbuild"))
                .unwrap()
                .ends_with("obj-m += a.o\n")
        );
    }

    #[test]
    fn the_option_of_a_driver_comes_along_when_its_code_asks_for_it() {
        let dir = tree(&[
            ("drivers/h/Makefile", b"obj-$(CONFIG_A) += a.o\n"),
            ("drivers/h/a.c", b"#include \"a.h\"\n"),
            ("drivers/h/a.h", b"#if IS_ENABLED(CONFIG_A)\n#endif\n"),
            ("drivers/z.c", b"int z = IS_ENABLED(CONFIG_A);\n"),
        ]);
        let (done, out) = take(dir.path(), "drivers/h/a.c");
        let config = done.unwrap().driver.manifest.config;
        assert_eq!(config.keys().collect::<Vec<_>>(), ["CONFIG_A"]);
        let kbuild = std::fs::read_to_string(out.join("Kbuild")).unwrap();
        assert!(kbuild.contains("-DCONFIG_A"), "{kbuild}");
    }

    #[test]
    fn parts_flags_and_own_options_come_along() {
        let dir = tree(&[
            ("drivers/Makefile", b"subdir-ccflags-y += -DTOP\n"),
            (
                "drivers/h/a/Makefile",
                b"obj-$(CONFIG_A) += mod.o\ninclude $(src)/sub/Makefile\nmod-y := one.o $(SUB)\n\
                  mod-$(CONFIG_DEBUG_FS) += dbg.o\nmod-$(CONFIG_A_LEDS) += leds.o\nmod-$(CONFIG_OFF) += off.o\n\
                  ccflags-y += -I$(srctree)/drivers/h/shared -I$(srctree)/drivers/none $(call cc-option,-Wx)\nCFLAGS_one.o := -I$(src)\n",
            ),
            ("drivers/h/a/sub/Makefile", b"SUB := $(addprefix sub/,two.o)\n"),
            ("drivers/h/a/Kconfig", b"config A_LEDS\n\tbool\nconfig A_TRACE\n\tbool\n"),
            ("drivers/h/a/one.c", b"#include <s.h>\n#ifdef CONFIG_A_LEDS\n#endif\n#ifdef CONFIG_A_TRACE\n#endif\n"),
            ("drivers/h/a/sub/two.c", b"#include \"../own.h\"\n"),
            ("drivers/h/a/own.h", b"#undef TRACE_INCLUDE_PATH\n#define TRACE_INCLUDE_PATH ../../drivers/h/a\n"),
            ("drivers/h/a/dbg.c", b""),
            ("drivers/h/a/leds.c", b""),
            ("drivers/h/shared/s.h", b""),
        ]);
        let (done, out) = take(dir.path(), "drivers/h/a");
        let manifest = done.unwrap().driver.manifest;
        assert_eq!(
            manifest.config,
            BTreeMap::from([
                ("CONFIG_A_LEDS".to_owned(), "y".to_owned()),
                ("CONFIG_A_TRACE".to_owned(), "n".to_owned()),
            ])
        );
        let kbuild = std::fs::read_to_string(out.join("Kbuild")).unwrap();
        for line in [
            "mod-y += a/one.o",
            "mod-y += a/sub/two.o",
            "mod-$(CONFIG_DEBUG_FS) += a/dbg.o",
            "mod-y += a/leds.o",
            "ccflags-y += -DTOP -I$(src)/shared $(call cc-option,-Wx)",
            "CFLAGS_a/one.o += -I$(src)/a",
            "ccflags-y += -I$(src)/trace-include/up/up",
            "ifndef CONFIG_A_LEDS\nccflags-y += -DCONFIG_A_LEDS=1\nendif",
        ] {
            assert!(
                kbuild.contains(&format!("{line}\n")),
                "{line} is not in\n{kbuild}"
            );
        }
        assert!(
            out.join("trace-include/up/up/../../drivers/h/a/own.h")
                .is_file()
        );
    }

    #[test]
    fn what_is_off_at_home_can_be_had() {
        let dir = tree(&[
            ("drivers/h/Makefile", b"obj-$(CONFIG_Z) += z.o\n"),
            ("drivers/h/z.c", b""),
        ]);
        assert_eq!(
            take(dir.path(), "drivers/h/z.c")
                .0
                .unwrap()
                .driver
                .manifest
                .modules,
            ["z"]
        );
    }

    #[test]
    fn what_is_no_driver_says_what_was_looked_for() {
        let dir = tree(&[
            ("drivers/h/Makefile", b"obj-y += z.o\n"),
            ("drivers/h/z.c", b""),
            ("drivers/h/n.c", b""),
        ]);
        for (path, word) in [
            ("drivers/h/n.c", "drivers/h/Makefile"),
            ("drivers/h", "no driver"),
            ("horse", "nothing called horse"),
            ("drivers/h/Makefile", "no .c file"),
        ] {
            let why = take(dir.path(), path).0.unwrap_err().to_string();
            assert!(why.contains(word), "{path}: {why}");
        }
    }

    #[test]
    fn links_out_of_the_tree_and_full_directories_are_refused() {
        let dir = tree(&[
            ("drivers/h/Makefile", b"obj-$(CONFIG_A) += a.o\n"),
            ("drivers/h/a.c", b"#include \"e.h\"\n"),
        ]);
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("drivers/h/e.h")).unwrap();
        let (done, out) = take(dir.path(), "drivers/h/a.c");
        assert!(done.unwrap_err().to_string().contains("symbolic link"));
        assert!(!out.exists());
        std::fs::create_dir_all(out.join("x")).unwrap();
        assert!(
            take(dir.path(), "drivers/h/a.c")
                .0
                .unwrap_err()
                .to_string()
                .contains("not empty")
        );
    }
}
