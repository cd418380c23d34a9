//! All evolutions, indexed by what they serve.

use crate::conditions::KernelView;
use crate::model::{Evolution, Kind, Risk};
use crate::read::{LoadError, LoadErrors, read_file};
use crate::sanity;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// The evolutions of this build: (file, text).
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/evolutions.rs"));

/// All evolutions that are known.
#[derive(Debug, Clone, Default)]
pub struct Library {
    all: Vec<Evolution>,
    by_name: BTreeMap<String, Vec<usize>>,
    by_record: BTreeMap<String, Vec<usize>>,
    by_header: BTreeMap<String, Vec<usize>>,
}

/// The evolutions that together serve some names on one kernel.
#[derive(Debug, Clone, Default)]
pub struct Plan<'a> {
    /// In the order in which their texts must stand.
    pub evolutions: Vec<&'a Evolution>,
    /// Names needed by those that the target lacks and no evolution provides: carry them from the home kernel, before.
    pub carry: BTreeSet<String>,
    /// Of the names asked for, those that no applicable evolution provides.
    pub unserved: BTreeSet<String>,
}

impl Library {
    /// Reads the evolutions of a directory (`*.toml`), or those compiled in.
    ///
    /// # Errors
    /// Everything that is wrong in any file, with file and line.
    pub fn load(dir: Option<&Path>) -> Result<Self, LoadErrors> {
        match dir {
            // What is compiled in was tried by this room's tests; to try it at each start would cost more than to read it.
            None => Self::read(
                BUILT_IN
                    .iter()
                    .map(|(file, text)| ((*file).to_owned(), (*text).to_owned())),
                false,
            ),
            Some(dir) => Self::from_texts(read_dir(dir)?),
        }
    }

    /// Reads evolutions from texts, each with the name of its file.
    ///
    /// # Errors
    /// Everything that is wrong in any text, with file and line.
    pub fn from_texts(
        texts: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, LoadErrors> {
        Self::read(texts, true)
    }

    fn read(
        texts: impl IntoIterator<Item = (String, String)>,
        untried: bool,
    ) -> Result<Self, LoadErrors> {
        let mut library = Self::default();
        let mut errors = Vec::new();
        for (file, text) in texts {
            let (evolutions, bad) = read_file(&file, &text);
            errors.extend(bad);
            library.all.extend(evolutions);
        }
        errors.extend(doubles(&library.all));
        if untried {
            errors.extend(sanity::check(&library.all));
        }
        if !errors.is_empty() {
            return Err(LoadErrors(errors));
        }
        library.index();
        Ok(library)
    }

    fn index(&mut self) {
        for (i, evolution) in self.all.iter().enumerate() {
            for name in &evolution.provides {
                self.by_name.entry(name.clone()).or_default().push(i);
            }
            let (map, key) = match &evolution.kind {
                Kind::Field { record, .. }
                | Kind::Callback { record, .. }
                | Kind::Access { record, .. }
                | Kind::DropField { record, .. }
                | Kind::Refuse { record, .. } => (&mut self.by_record, record),
                Kind::Header { home, .. } => (&mut self.by_header, home),
                Kind::Define { .. } | Kind::Override { .. } | Kind::Event { .. } => continue,
            };
            map.entry(key.clone()).or_default().push(i);
        }
        for list in self.by_name.values_mut() {
            list.sort_by_key(|i| self.all.get(*i).map(|e| e.risk));
        }
    }

    fn pick<'a>(&'a self, list: Option<&'a Vec<usize>>) -> impl Iterator<Item = &'a Evolution> {
        list.into_iter().flatten().filter_map(|i| self.all.get(*i))
    }

    /// The library for a driver: those that anybody gets, and of the others those that its author has chosen, by id.
    ///
    /// # Errors
    /// An id that is none of a chosen one's; with all that there are.
    pub fn chosen(&self, ids: &[String]) -> Result<Self, String> {
        let offered: Vec<&str> = self
            .all
            .iter()
            .filter(|e| e.opt_in)
            .map(|e| e.id.as_str())
            .collect();
        if let Some(bad) = ids.iter().find(|id| !offered.contains(&id.as_str())) {
            return Err(format!(
                "opt_in: {bad:?} is no evolution that a driver chooses; these are: {}",
                offered.join(", ")
            ));
        }
        let taken = |e: &&Evolution| !e.opt_in || ids.contains(&e.id);
        let mut library = Self {
            all: self.all.iter().filter(taken).cloned().collect(),
            ..Self::default()
        };
        library.index();
        Ok(library)
    }

    /// The evolutions as a driver meets them, `uses` being the names that each of its source files uses or defines: without those whose
    /// [`Evolution::only_with`] it has nowhere, and without the risk of those whose
    /// [`Evolution::risk_with`] it does not use, or uses nowhere without their [`Evolution::risk_without`].
    #[must_use]
    pub fn met_by(&self, uses: &[HashSet<&str>]) -> Self {
        let any = |file: &HashSet<&str>, names: &[String]| {
            names.iter().any(|n| file.contains(n.as_str()))
        };
        let anywhere = |names: &[String]| uses.iter().any(|f| any(f, names));
        let meets = |e: &&Evolution| e.only_with.is_empty() || anywhere(&e.only_with);
        let mut all: Vec<Evolution> = self.all.iter().filter(meets).cloned().collect();
        for e in &mut all {
            let never = !e.risk_with.is_empty() && !anywhere(&e.risk_with);
            let mut users = uses.iter().filter(|f| any(f, &e.provides));
            let seen_to = !e.risk_without.is_empty() && users.all(|f| any(f, &e.risk_without));
            if never || seen_to {
                e.risk = Risk::None;
                e.meaning.clear();
            }
        }
        let mut library = Self {
            all,
            ..Self::default()
        };
        library.index();
        library
    }

    /// Every evolution, by file and line.
    #[must_use]
    pub fn all(&self) -> &[Evolution] {
        &self.all
    }

    /// The evolutions that provide a name, least risk first.
    #[must_use]
    pub fn for_name(&self, name: &str) -> Vec<&Evolution> {
        self.pick(self.by_name.get(name)).collect()
    }

    /// Do all conditions of an evolution hold on the target?
    #[must_use]
    pub fn applicable(&self, evolution: &Evolution, view: &dyn KernelView) -> bool {
        evolution.applies_to(view)
    }

    /// The applicable evolution of least risk that provides a name.
    #[must_use]
    pub fn best(&self, name: &str, view: &dyn KernelView) -> Option<&Evolution> {
        self.pick(self.by_name.get(name))
            .find(|e| e.applies_to(view))
    }

    /// Renamed or moved members of a structure.
    #[must_use]
    pub fn fields(&self, record: &str) -> Vec<&Evolution> {
        self.pick(self.by_record.get(record))
            .filter(|e| matches!(e.kind, Kind::Field { .. }))
            .collect()
    }

    /// Expressions for a member that a target lacks.
    #[must_use]
    pub fn accesses(&self, record: &str, member: &str) -> Vec<&Evolution> {
        self.pick(self.by_record.get(record))
            .filter(|e| matches!(&e.kind, Kind::Access { field, .. } if field == member))
            .collect()
    }

    /// Initialisers and assignments of a member that may be left out.
    #[must_use]
    pub fn drops(&self, record: &str, member: &str) -> Vec<&Evolution> {
        self.pick(self.by_record.get(record))
            .filter(|e| matches!(&e.kind, Kind::DropField { field, .. } if field == member))
            .collect()
    }

    /// Why a member must not be left out.
    #[must_use]
    pub fn refusals(&self, record: &str, member: &str) -> Vec<&Evolution> {
        self.pick(self.by_record.get(record))
            .filter(|e| matches!(&e.kind, Kind::Refuse { field, .. } if field == member))
            .collect()
    }

    /// Evolutions of the type of a callback.
    #[must_use]
    pub fn callbacks(&self, record: &str, member: &str) -> Vec<&Evolution> {
        self.pick(self.by_record.get(record))
            .filter(|e| matches!(&e.kind, Kind::Callback { field, .. } if field == member))
            .collect()
    }

    /// Those of macros within tracepoints.
    pub fn events(&self) -> impl Iterator<Item = &Evolution> {
        self.all
            .iter()
            .filter(|e| matches!(e.kind, Kind::Event { .. }))
    }

    /// Headers of the target that stand for one it lacks.
    #[must_use]
    pub fn headers(&self, header: &str) -> Vec<&Evolution> {
        self.pick(self.by_header.get(header)).collect()
    }

    /// Chooses evolutions for some names, and for all that those need in turn.
    #[must_use]
    pub fn plan<'a>(
        &'a self,
        names: impl IntoIterator<Item = &'a str>,
        view: &dyn KernelView,
    ) -> Plan<'a> {
        let mut plan = Plan::default();
        let mut done = BTreeSet::new();
        for name in names {
            match self.best(name, view) {
                Some(evolution) => self.add(evolution, view, &mut plan, &mut done),
                None => {
                    plan.unserved.insert(name.to_owned());
                }
            }
        }
        plan
    }

    fn add<'a>(
        &'a self,
        evolution: &'a Evolution,
        view: &dyn KernelView,
        plan: &mut Plan<'a>,
        done: &mut BTreeSet<&'a str>,
    ) {
        if !done.insert(&evolution.id) {
            return;
        }
        for name in &evolution.needs {
            match self.best(name, view) {
                Some(other) => self.add(other, view, plan, done),
                None if view.has(name) => {}
                None => {
                    plan.carry.insert(name.clone());
                }
            }
        }
        plan.evolutions.push(evolution);
    }
}

fn doubles(all: &[Evolution]) -> Vec<LoadError> {
    let mut seen = BTreeMap::new();
    let mut errors = Vec::new();
    for e in all {
        if let Some(first) = seen.insert(&e.id, e) {
            errors.push(LoadError {
                file: e.file.clone(),
                line: e.line,
                message: format!(
                    "the id `{}` is also used at {}:{}; choose another",
                    e.id, first.file, first.line
                ),
            });
        }
    }
    errors
}

fn whole_file(path: &Path, why: &std::io::Error) -> LoadErrors {
    LoadErrors(vec![LoadError {
        file: path.display().to_string(),
        line: 0,
        message: format!("cannot be read: {why}; check the path and its permissions"),
    }])
}

fn read_dir(dir: &Path) -> Result<Vec<(String, String)>, LoadErrors> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| whole_file(dir, &e))? {
        let path = entry.map_err(|e| whole_file(dir, &e))?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).map_err(|e| whole_file(path, &e))?;
            Ok((path.display().to_string(), text))
        })
        .collect()
}
