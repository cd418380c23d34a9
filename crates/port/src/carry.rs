//! What a translation unit must be given before its own text: definitions carried from the home kernel's headers,
//! evolutions in terms of the target's API, and the includes that both need.
//!
//! The set is computed anew from what is wanted each time, by reachability, so nothing stale stays.

use crate::gap::{RemedyKind, Risk};
use crate::view::View;
use crate::{check, lex, lift, stub};
use kspan_evolve::{Evolution, KernelView, Kind, Library};
use kspan_facts::{Def, Detail, Facts};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// More definitions than this for one place are no longer a port but another subsystem.
const MOST_UNITS: usize = 160;

/// Constants of one enumeration stand no farther apart than a comment is long.
const MOST_LINES_BETWEEN: u32 = 12;

/// What a place wants; the input of [`Closure::compute`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// Names that the target lacks.
    pub names: BTreeSet<String>,
    /// Names that the target has in another shape: the home kernel's shape is wanted.
    pub overrides: BTreeSet<String>,
    /// Headers of the target to include.
    pub includes: BTreeSet<String>,
    /// Headers that must stand before the file's first own one, which needs them on the target and not at home.
    pub top: BTreeSet<String>,
    /// Functions whose result is wanted though the target's return nothing.
    pub results: BTreeSet<String>,
    /// Names that the driver defines itself and that the target's headers have for something else.
    pub own: BTreeSet<String>,
    /// Names that must not be provided, since that was tried and conflicts with the target.
    pub barred: BTreeSet<String>,
}

/// One definition that is provided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The name that it is for.
    pub name: String,
    /// C text.
    pub text: String,
    /// How it came to be.
    pub kind: RemedyKind,
    /// `include/linux/x.h:12 of KERNEL`, or `evolution ID`.
    pub origin: String,
    /// How far it may change what the driver does.
    pub risk: Risk,
    /// What may differ.
    pub meaning: String,
    /// It replaces a name of the target, so all headers must have been read before it.
    pub replaces: bool,
}

/// All that a place is given.
#[derive(Debug, Clone, Default)]
pub struct Closure {
    /// Headers that the compiler missed: they stand before the others, some of which need them and do not say so.
    pub first: BTreeSet<String>,
    /// Headers of the target, included first.
    pub includes: BTreeSet<String>,
    /// Definitions in an order in which each stands after what it needs.
    pub units: Vec<Unit>,
    /// Wanted names that could not be provided, with the reason.
    pub refused: BTreeMap<String, String>,
}

/// Where definitions come from and what they are for.
pub struct Sources<'a> {
    /// The home kernel.
    pub home: &'a View,
    /// The target kernel.
    pub target: &'a View,
    /// The evolutions.
    pub library: &'a Library,
    /// The home kernel's C files, where they are at hand.
    pub lift: Option<&'a lift::Index>,
    /// Symbols that the driver's own modules export: a declaration is enough.
    pub exports: &'a [String],
    /// Headers that the overlay gives whole: what they define needs no carrying.
    pub whole: &'a BTreeSet<String>,
    /// Functions of modules for which the home header's stub may stand.
    pub stubs: &'a BTreeSet<String>,
}

impl Closure {
    /// Everything that `wants` needs, dependencies included.
    #[must_use]
    pub fn compute(sources: &Sources<'_>, wants: &Wants) -> Self {
        let mut builder = Builder {
            sources,
            wants,
            closure: Self::default(),
            done: HashSet::new(),
            open: Vec::new(),
            texts: Vec::new(),
        };
        builder.closure.first.clone_from(&wants.includes);
        builder
            .closure
            .includes
            .extend(wants.includes.iter().cloned());
        for name in &wants.names {
            if let Err(why) = builder.provide(name) {
                builder.closure.refused.insert(name.clone(), why);
            }
        }
        for name in wants.overrides.iter() {
            if let Err(why) = builder.replace(name) {
                builder.closure.refused.insert(name.clone(), why);
            }
        }
        for name in &wants.results {
            builder.give_result(name);
        }
        for name in &wants.own {
            builder.set_apart(name);
        }
        builder.closure
    }
}

struct Builder<'a> {
    sources: &'a Sources<'a>,
    wants: &'a Wants,
    closure: Closure,
    done: HashSet<String>,
    open: Vec<String>,
    /// Texts whose dependencies are being provided.
    texts: Vec<String>,
}

impl Builder<'_> {
    /// Makes a name of the home kernel available, or says why not.
    fn provide(&mut self, name: &str) -> Result<(), String> {
        if self.done.contains(name) || self.open.iter().any(|o| o == name) {
            return Ok(());
        }
        if self.wants.barred.contains(name) {
            return Err(does_not_compile(name));
        }
        if self.closure.units.len() > MOST_UNITS {
            return Err(format!(
                "needs more than {MOST_UNITS} definitions of the home kernel"
            ));
        }
        self.open.push(name.to_owned());
        let mark = self.closure.units.len();
        let result = self.provide_new(name);
        self.open.pop();
        match &result {
            Ok(()) => drop(self.done.insert(name.to_owned())),
            Err(_) => self.roll_back(mark),
        }
        result
    }

    /// What was carried only for a name that failed in the end is not carried.
    fn roll_back(&mut self, mark: usize) {
        for unit in self.closure.units.drain(mark..) {
            self.done.remove(&unit.name);
        }
    }

    fn provide_new(&mut self, name: &str) -> Result<(), String> {
        let mut defs = self.sources.home.facts.defs(name);
        // Of a name that is a tag and a function, the target may have one: the other is wanted.
        let there = self.sources.target.facts.defs(name);
        let unserved = |d: &Def| there.iter().all(|t| !check::serves(t, d));
        if defs.iter().any(unserved) {
            defs.retain(unserved);
        }
        let in_overlay = defs.iter().find(|d| self.sources.whole.contains(&d.header));
        // A header of the target that stands for one of home may lack some of its names.
        let standing = in_overlay.and_then(|d| self.standing_header(&d.header));
        let lacks_it = standing.as_ref().is_some_and(|h| !self.mentions(h, name));
        let stands = standing.is_some();
        let by_rule = || self.evolution(name).is_some();
        // What a whole header only declares, and nobody exports on the target, must come from elsewhere.
        let declared = in_overlay.is_some_and(|d| self.is_only_declared(d));
        let serves = |_: &&Def| !lacks_it && (!(stands || declared) || !by_rule());
        if let Some(def) = in_overlay.filter(serves) {
            self.closure.includes.insert(def.header.clone());
            return Ok(());
        }
        if let Some(evolution) = self.evolution(name) {
            return self.take_evolution(name, &evolution.clone());
        }
        let Some(def) = best(&defs) else {
            return Err(format!("{name} is in no header of the home kernel"));
        };
        if let Some(header) = self.standing_header(&def.header) {
            let speaks_of_it = self.mentions(&header, name);
            self.closure.includes.insert(header);
            if speaks_of_it {
                return Ok(());
            }
        }
        if self.take_tracepoint(def).is_some() {
            return Ok(());
        }
        match &def.detail {
            Detail::Function { body: false, .. } | Detail::Variable { .. }
                if !is_made_here(def) && !self.sources.exports.iter().any(|e| e == name) =>
            {
                let mark = self.closure.units.len();
                self.take_lift(def, None).or_else(|why| {
                    self.roll_back(mark);
                    self.take_stub(def, None).map_err(|_| why)
                })
            }
            Detail::EnumConst { value, parent } => self.take_constant(def, *value, parent),
            _ => self.take_def(def, None),
        }
    }

    /// A function without a body that neither the driver nor the target exports.
    fn is_only_declared(&self, def: &Def) -> bool {
        matches!(def.detail, Detail::Function { body: false, .. })
            && !self.sources.exports.contains(&def.name)
            && self.sources.target.facts.export(&def.name).is_none()
    }

    /// The applicable evolution of least risk; an override only where the driver wants the home form that it gives.
    fn evolution(&self, name: &str) -> Option<&Evolution> {
        let home = self.sources.home;
        let fits = |e: &&Evolution| match &e.kind {
            Kind::Override { home_arity, .. } => home_arity
                .iter()
                .all(|(n, count)| home.arity(n) == Some(*count)),
            _ => true,
        };
        let library = self.sources.library;
        library
            .for_name(name)
            .into_iter()
            .filter(fits)
            .find(|e| library.applicable(e, self.sources.target))
    }

    /// The header of the target that an evolution says to stand for one that the target lacks.
    fn standing_header(&self, header: &str) -> Option<String> {
        let evolution = self
            .sources
            .library
            .headers(header)
            .into_iter()
            .find(|e| e.applies_to(self.sources.target))?;
        match &evolution.kind {
            Kind::Header { target, .. } => Some(target.clone()),
            _ => None,
        }
    }

    /// The target has the name, or its header has the word, if only where its configuration leaves it out.
    fn mentions(&self, header: &str, name: &str) -> bool {
        let target = self.sources.target;
        let text = || std::fs::read_to_string(target.header_path(header)?).ok();
        target.has(name) || text().is_some_and(|t| lex::words(&t).iter().any(|w| w == name))
    }

    fn take_evolution(&mut self, name: &str, evolution: &Evolution) -> Result<(), String> {
        let text = evolution.text().unwrap_or_default();
        self.closure
            .includes
            .extend(evolution.includes.iter().cloned());
        for provided in &evolution.provides {
            self.done.insert(provided.clone());
        }
        let needs = evolution.needs.iter();
        for needed in needs.filter(|n| !self.sources.target.has(n)) {
            if let Err(why) = self.provide(needed) {
                evolution.provides.iter().for_each(|p| {
                    self.done.remove(p);
                });
                return Err(why);
            }
        }
        self.push(Unit {
            name: name.to_owned(),
            text: text.trim_end().to_owned(),
            kind: RemedyKind::Alias,
            origin: format!("evolution {}", evolution.id),
            risk: evolution.risk.into(),
            meaning: evolution.meaning.clone(),
            replaces: matches!(evolution.kind, Kind::Override { .. }),
        });
        Ok(())
    }

    fn take_lift(&mut self, def: &Def, renamed: Option<&str>) -> Result<(), String> {
        let name = &def.name;
        let lacking =
            || format!("{name} is a function of the home kernel that the target does not have");
        let index = self.sources.lift.ok_or_else(lacking)?;
        let found = index
            .function(name, self.sources)
            .map_err(|why| match why {
                Some(why) => format!("{}, and it cannot be taken along: {why}", lacking()),
                None => lacking(),
            })?;
        self.records_of(&found.text);
        self.dependencies(&found.text, name, &def.header)?;
        self.include_origin(&def.header);
        // What every C file of the kernel has before its own text.
        self.closure.includes.insert("linux/module.h".to_owned());
        let (risk, meaning) = touched(self.sources, &found.text, &found.text);
        self.push(Unit {
            name: name.to_owned(),
            text: renamed.map_or(found.text.clone(), |new| {
                renamed_text(&found.text, name, new)
            }),
            kind: RemedyKind::Lift,
            origin: found.origin,
            risk: risk.max(Risk::Default),
            meaning: if meaning.is_empty() {
                "the home kernel's code runs on the target".to_owned()
            } else {
                meaning
            },
            replaces: renamed.is_some(),
        });
        Ok(())
    }

    /// A function reaches into what a prototype only points at: the whole of each structure that the target lacks, where
    /// it can be had.
    fn records_of(&mut self, text: &str) {
        for word in lex::words(text) {
            let defs = self.sources.home.facts.defs(&word);
            let whole =
                |d: &Def| matches!(&d.detail, Detail::Record { fields, .. } if !fields.is_empty());
            if !self.sources.target.has(&word) && defs.first().is_some_and(whole) {
                // Where it cannot, the compiler says whether it is needed.
                let _ = self.provide(&word);
            }
        }
    }

    /// A tracepoint of the home kernel's that the target has not: nobody can ask for it.
    fn take_tracepoint(&mut self, def: &Def) -> Option<()> {
        let Detail::Function { sig, .. } = &def.detail else {
            return None;
        };
        if !def.header.starts_with("trace/events/") {
            return None;
        }
        let name = &def.name;
        let text = match sig.ret.canonical.as_str() {
            "void" => format!("#define {name}(...) do {{ }} while (0)"),
            _ => format!("#define {name}() false"),
        };
        self.push(Unit {
            name: name.clone(),
            text,
            kind: RemedyKind::Carry,
            origin: self.origin(def),
            risk: Risk::Default,
            meaning: format!("the target has no tracepoint for {name}()"),
            replaces: false,
        });
        Some(())
    }

    /// What the home kernel's header has for kernels without the feature. A function of a module comes with that module instead.
    fn take_stub(&mut self, def: &Def, renamed: Option<&str>) -> Result<(), String> {
        let home = self.sources.home;
        let export = home.facts.export(&def.name);
        let found = export
            .filter(|e| e.module == "vmlinux" || self.sources.stubs.contains(&def.name))
            .and_then(|_| std::fs::read(home.header_path(&def.header)?).ok())
            .and_then(|text| stub::find(&String::from_utf8_lossy(&text), &def.name));
        let text = found.ok_or_else(|| format!("{} has no stub", def.name))?;
        self.dependencies(&text, &def.name, &def.header)?;
        self.include_origin(&def.header);
        let effect = stub::effect(&text).unwrap_or_else(|| "does little".to_owned());
        let text = match renamed {
            None => text,
            Some(new) => renamed_text(&text, &def.name, new),
        };
        self.push(Unit {
            name: def.name.clone(),
            text,
            kind: RemedyKind::Carry,
            origin: format!("stub in {} of {}", def.path, home.kernel.release),
            risk: Risk::Behaviour,
            meaning: format!(
                "the target lacks the feature; {}() {effect}, as at home where it is configured out",
                def.name
            ),
            replaces: renamed.is_some(),
        });
        Ok(())
    }

    /// One constant: its whole enumeration when the target has nothing of it, else the value alone.
    fn take_constant(&mut self, def: &Def, value: i64, parent: &str) -> Result<(), String> {
        let target = &self.sources.target.facts;
        let siblings = self.enumeration(def, parent);
        let known = siblings.iter().any(|s| target.has(s));
        if !known && !parent.is_empty() && !target.has(parent) {
            self.provide(parent)?;
            self.done.insert(def.name.clone());
            return Ok(());
        }
        let mut risk = Risk::None;
        let mut meaning = String::new();
        if known {
            risk = Risk::Behaviour;
            meaning = format!("the target's code does not know the value {}", def.name);
            match self.constant_with_value(&siblings, value) {
                Some(other) if is_count(&other) && self.ends_enumeration(&other) => {
                    self.count_on(def, &other)?;
                }
                Some(other) => {
                    return Err(format!(
                        "{} has the value that {other} has on the target",
                        def.name
                    ));
                }
                None => {}
            }
            if let Some(other) = self.taken_value(&siblings, value) {
                return Err(format!(
                    "{} has the value that {other} has on the target",
                    def.name
                ));
            }
        }
        self.include_origin(&def.header);
        self.push(Unit {
            name: def.name.clone(),
            text: format!("#define {} ({value})", def.name),
            kind: RemedyKind::Carry,
            origin: self.origin(def),
            risk,
            meaning,
            replaces: false,
        });
        Ok(())
    }

    /// A constant that only the target's form of an enumeration has, with a value that another one has at home: the target's code
    /// would take the one for the other.
    fn taken_value(&self, siblings: &[String], value: i64) -> Option<String> {
        let (home, target) = (&self.sources.home.facts, &self.sources.target.facts);
        let constant = |d: &Def| match &d.detail {
            Detail::EnumConst { value, parent } => Some((*value, parent.clone())),
            _ => None,
        };
        let known = siblings.iter().flat_map(|s| target.defs(s));
        let (def, parent) = known
            .filter_map(|d| constant(&d).map(|(_, parent)| (d, parent)))
            .next()?;
        let has = |facts: &Facts, name: &String| {
            let defs = facts.defs(name);
            defs.iter()
                .any(|d| constant(d).is_some_and(|(v, _)| v == value))
        };
        let other = |name: &String| !is_count(name) && has(target, name) && !has(home, name);
        enumeration_in(target, &def, &parent)
            .into_iter()
            .find(other)
    }

    /// No constant of the target's enumeration is greater.
    fn ends_enumeration(&self, name: &str) -> bool {
        let target = &self.sources.target.facts;
        let of = |d: Def| match d.detail {
            Detail::EnumConst { value, ref parent } => Some((value, parent.clone(), d)),
            _ => None,
        };
        let Some((value, parent, def)) = target.defs(name).into_iter().find_map(of) else {
            return false;
        };
        let constant = |d: &Def| match d.detail {
            Detail::EnumConst { value, .. } => Some(value),
            _ => None,
        };
        let all = enumeration_in(target, &def, &parent);
        let mut values = all.iter().flat_map(|n| target.defs(n));
        values.all(|d| constant(&d).is_none_or(|v| v <= value))
    }

    /// A constant that only ends an enumeration gets the home kernel's value: the driver's tables are as long as at home.
    fn count_on(&mut self, def: &Def, count: &str) -> Result<(), String> {
        if self.done.contains(count) {
            return Ok(());
        }
        let defs = self.sources.home.facts.defs(count);
        let value = defs.iter().find_map(|d| match d.detail {
            Detail::EnumConst { value, .. } => Some(value),
            _ => None,
        });
        let value = value.ok_or_else(|| {
            format!(
                "{count} ends the target's enumeration where {} stands",
                def.name
            )
        })?;
        self.include_origin(&def.header);
        self.push(Unit {
            name: count.to_owned(),
            text: format!("#define {count} ({value})"),
            kind: RemedyKind::Carry,
            origin: self.origin(def),
            risk: Risk::Behaviour,
            meaning: format!("{count} is greater here than in the target's own code"),
            replaces: true,
        });
        Ok(())
    }

    /// All constants of the enumeration that `def` belongs to.
    fn enumeration(&self, def: &Def, parent: &str) -> Vec<String> {
        enumeration_in(&self.sources.home.facts, def, parent)
    }

    fn constant_with_value(&self, siblings: &[String], value: i64) -> Option<String> {
        let target = &self.sources.target.facts;
        let same = |d: &Def| matches!(d.detail, Detail::EnumConst { value: v, .. } if v == value);
        siblings
            .iter()
            .find(|s| target.defs(s).iter().any(same))
            .cloned()
    }

    /// A definition of the home kernel's headers, as it stands there, or under another name.
    fn take_def(&mut self, def: &Def, renamed: Option<&str>) -> Result<(), String> {
        if let Detail::Enum { constants } = &def.detail
            && constants
                .iter()
                .any(|(name, _)| self.sources.target.has(name))
        {
            return self.take_partial_enum(def, constants);
        }
        if matches!(def.detail, Detail::Function { .. })
            && let Some(why) = lacking_member(self.sources, &def.text, &signature_text(def))
        {
            return Err(format!("{}() of the home kernel {why}", def.name));
        }
        let same_text = |u: &Unit| {
            renamed.is_none() && u.text.trim_end_matches(';') == def.text.trim_end_matches(';')
        };
        if self.closure.units.iter().any(same_text) {
            // One invocation of a macro made several names.
            self.done.insert(def.name.clone());
            return Ok(());
        }
        if renamed.is_none() && self.texts.contains(&def.text) {
            // … and is being taken up for another of them.
            return Ok(());
        }
        if renamed.is_none()
            && let Some(outer) = enclosing(self.sources.home, def)
            && !self.sources.target.has(&outer)
        {
            // Declared inside of another structure, it comes with that one alone.
            self.provide(&outer)?;
            self.done.insert(def.name.clone());
            return Ok(());
        }
        self.include_origin(&def.header);
        self.texts.push(def.text.clone());
        let needed = self.dependencies(&def.text, &def.name, &def.header);
        self.texts.pop();
        needed?;
        let taken = match &def.detail {
            Detail::Macro { params: None, body } => self.value_taken(def, body),
            _ => None,
        };
        let (risk, meaning) = match (&def.detail, taken) {
            (_, Some(other)) => {
                let meaning = format!("{} has the value that {other} has on the target", def.name);
                (Risk::Behaviour, meaning)
            }
            (Detail::Function { .. } | Detail::Macro { .. }, None) => {
                touched(self.sources, &def.text, &signature_text(def))
            }
            (Detail::Record { .. }, None) if renamed.is_some() => {
                let meaning = format!(
                    "the driver has the home kernel's form of struct {}, the target's own code another",
                    def.name
                );
                (Risk::Default, meaning)
            }
            _ => (Risk::None, String::new()),
        };
        let text = terminated(def, renamed);
        self.push(Unit {
            name: def.name.clone(),
            text,
            kind: RemedyKind::Carry,
            origin: self.origin(def),
            risk,
            meaning,
            replaces: renamed.is_some(),
        });
        Ok(())
    }

    /// A macro of the same family that has this value on the target, and another at home: the bit was given away.
    fn value_taken(&self, def: &Def, body: &str) -> Option<String> {
        let family = |name: &str| {
            name.splitn(3, '_')
                .take(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let mine = family(&def.name);
        if mine.len() < 2 || body.is_empty() {
            return None;
        }
        let body_of = |view: &View, name: &str| KernelView::macro_body(view, name);
        let (home, target) = (self.sources.home, self.sources.target);
        target.names_in(&def.header).into_iter().find(|name| {
            family(name) == mine
                && body_of(target, name).as_deref() == Some(body)
                && body_of(home, name).is_some_and(|b| b != body)
        })
    }

    /// An enumeration of which the target has some constants already, under another tag or as macros: the others.
    fn take_partial_enum(&mut self, def: &Def, constants: &[(String, i64)]) -> Result<(), String> {
        let target = &self.sources.target.facts;
        let other_value = |(name, value): &&(String, i64)| {
            let differs =
                |d: &Def| matches!(d.detail, Detail::EnumConst { value: v, .. } if v != *value);
            target.defs(name).iter().any(differs)
        };
        if let Some((name, _)) = constants.iter().find(other_value) {
            return Err(format!(
                "enum {} differs: {name} has another value on the target",
                def.name
            ));
        }
        let missing: Vec<String> = constants
            .iter()
            .filter(|(n, _)| !target.has(n))
            .map(|(n, v)| format!("\t{n} = {v},\n"))
            .collect();
        let body = if missing.is_empty() {
            format!("\tkspan_{}_none,\n", def.name)
        } else {
            missing.concat()
        };
        self.include_origin(&def.header);
        for (name, _) in constants {
            match target.has(name) {
                true => self.include_for(name),
                false => drop(self.done.insert(name.clone())),
            }
        }
        self.push(Unit {
            name: def.name.clone(),
            text: format!("enum {} {{\n{body}}};", def.name),
            kind: RemedyKind::Carry,
            origin: self.origin(def),
            risk: Risk::None,
            meaning: String::new(),
            replaces: false,
        });
        Ok(())
    }

    /// Provides what a carried text needs.
    fn dependencies(&mut self, text: &str, own: &str, header: &str) -> Result<(), String> {
        let mut words = lex::words(text);
        words.extend(crate::paste::names(
            self.sources.home,
            self.sources.target,
            text,
        ));
        for word in words {
            let home = self.sources.home;
            if word == own
                || word.starts_with("CONFIG_")
                || lex::is_keyword(&word)
                || !home.has(&word)
                || home.is_stranger(&word, header)
            {
                continue;
            }
            if self.wants.overrides.contains(&word) && !self.open.contains(&word) {
                // The home kernel's text calls the home kernel's form, which must stand before it.
                self.open.push(word.clone());
                let _ = self.replace(&word);
                self.open.pop();
                continue;
            }
            let (home, target) = (self.sources.home, self.sources.target);
            let called = || {
                lex::calls(text).contains(&word)
                    && home.facts.defs(&word).iter().any(|d| !check::is_type(d))
                    && !check::is_served(&word, false, home, target)
            };
            if target.has(&word) && !called() {
                if !check::is_other_word(&word, text, target) {
                    self.include_for(&word);
                }
                continue;
            }
            if only_pointed_at(text, &word) && self.evolution(&word).is_none() {
                self.forward(&word);
                continue;
            }
            if let Err(why) = self.provide(&word)
                && is_needed(text, &word)
            {
                return Err(why);
            }
        }
        Ok(())
    }

    /// `struct x;` for a structure that the text only points at.
    fn forward(&mut self, name: &str) {
        let key = format!("struct {name}");
        if self.done.insert(key.clone()) {
            self.closure.units.push(Unit {
                name: key.clone(),
                text: format!("{key};"),
                kind: RemedyKind::Carry,
                origin: "forward declaration".to_owned(),
                risk: Risk::None,
                meaning: String::new(),
                replaces: false,
            });
        }
    }

    /// The target's header that has a name, unless every module gets it anyway.
    fn include_for(&mut self, name: &str) {
        if let Some(header) = self.sources.target.header_of(name) {
            self.closure.includes.insert(header);
        }
    }

    /// The target's version of the header that a carried definition comes from.
    fn include_origin(&mut self, header: &str) {
        let target = self.sources.target;
        if self.sources.whole.contains(header) {
            self.closure.includes.insert(header.to_owned());
        } else if target.can_include(header) {
            self.closure.includes.insert(target.public_header(header));
        }
    }

    /// The home kernel's shape of a name that the target has in another shape.
    fn replace(&mut self, name: &str) -> Result<(), String> {
        if self.done.contains(name) {
            return Ok(());
        }
        if self.wants.barred.contains(name) {
            return Err(does_not_compile(name));
        }
        if let Some(evolution) = self.evolution(name) {
            return self.take_evolution(name, &evolution.clone());
        }
        let defs = self.sources.home.facts.defs(name);
        let header_only = |d: &&Def| match &d.detail {
            Detail::Macro { .. } | Detail::Function { body: true, .. } => true,
            // Where all of the name's definitions are that one; a macro of it would reach the others, too.
            Detail::Record { fields, .. } => !fields.is_empty() && defs.len() == 1,
            _ => false,
        };
        let Some(def) = defs.iter().find(header_only) else {
            let there = self.sources.target.callable(name).is_some();
            let exported = self.sources.target.facts.export(name).is_some();
            let new = format!("kspan_{name}");
            let mark = self.closure.units.len();
            if !exported && let Some(def) = best(&defs) {
                if self.take_lift(def, Some(&new)).is_ok() {
                    return Ok(());
                }
                self.roll_back(mark);
                if self.take_stub(def, Some(&new)).is_ok() {
                    return Ok(());
                }
                self.roll_back(mark);
            }
            return Err(match there && exported {
                true => format!(
                    "{name} takes other parameters on the target, and no evolution says how to call it"
                ),
                false => format!("{name} is not exported to modules on the target"),
            });
        };
        if lex::words(&def.text).iter().filter(|w| *w == name).count() > 0
            && matches!(def.detail, Detail::Macro { .. })
            && calls_itself(def)
        {
            return Err(format!(
                "{name} is a macro around a function of the same name, whose shape differs"
            ));
        }
        self.take_def(def, Some(&format!("kspan_{name}")))
    }

    /// `name(...)` as an expression of value 0, where the target's function returns nothing.
    fn give_result(&mut self, name: &str) {
        self.include_for(name);
        self.push(Unit {
            name: name.to_owned(),
            text: format!("#define {name}(...) ({{ {name}(__VA_ARGS__); 0; }})"),
            kind: RemedyKind::Alias,
            origin: "generated".to_owned(),
            risk: Risk::Default,
            meaning: format!("the target's {name}() returns nothing; the driver sees success"),
            replaces: true,
        });
    }

    /// Another name for what the driver defines under a name that the target's headers have taken.
    fn set_apart(&mut self, name: &str) {
        self.include_for(name);
        self.push(Unit {
            name: name.to_owned(),
            text: format!("#define {name} kspan_own_{name}"),
            kind: RemedyKind::Alias,
            origin: "generated".to_owned(),
            risk: Risk::None,
            meaning: String::new(),
            replaces: true,
        });
    }

    fn push(&mut self, unit: Unit) {
        self.done.insert(unit.name.clone());
        self.closure.units.push(unit);
    }

    fn origin(&self, def: &Def) -> String {
        format!(
            "{}:{} of {}",
            def.path, def.lines.0, self.sources.home.kernel.release
        )
    }
}

/// Why a name that was tried is not provided again.
fn does_not_compile(name: &str) -> String {
    format!("{name} of the home kernel does not compile beside the target's declarations")
}

/// The structure inside of whose braces a structure or an enumeration is declared.
fn enclosing(home: &View, def: &Def) -> Option<String> {
    if !matches!(def.detail, Detail::Record { .. } | Detail::Enum { .. }) {
        return None;
    }
    let inner = def.text.trim_end_matches(';');
    let around = |d: &Def| {
        matches!(d.detail, Detail::Record { .. })
            && d.name != def.name
            && d.path == def.path
            && d.lines.0 <= def.lines.0
            && d.lines.1 >= def.lines.1
            && d.text.len() > inner.len()
            && d.text.contains(inner)
    };
    let holds = |name: &String| home.facts.defs(name).iter().any(around);
    home.names_in(&def.header).into_iter().find(holds)
}

/// The definition to carry when a name has several: a body before a macro before a type before a mere prototype.
fn best(defs: &[Def]) -> Option<&Def> {
    let rank = |d: &&Def| match d.detail {
        Detail::Function { body: true, .. } => 0,
        Detail::Macro { .. } => 1,
        Detail::Record { .. }
        | Detail::Enum { .. }
        | Detail::Typedef { .. }
        | Detail::EnumConst { .. } => 2,
        Detail::Function { .. } | Detail::Variable { .. } => 3,
    };
    defs.iter().min_by_key(rank)
}

/// A static variable with its value, or something that a macro's invocation makes: its text is all of it.
fn is_made_here(def: &Def) -> bool {
    let by_macro = !lex::words(&def.text).contains(&def.name);
    by_macro
        || matches!(def.detail, Detail::Variable { .. })
            && def.text.starts_with("static")
            && def.text.contains('=')
}

fn calls_itself(def: &Def) -> bool {
    matches!(&def.detail, Detail::Macro { body, .. } if lex::words(body).contains(&def.name))
}

/// The text, made a complete declaration, under its own name or another (with a macro that leads to it).
fn terminated(def: &Def, renamed: Option<&str>) -> String {
    let mut text = def.text.trim_end().to_owned();
    let is_macro = text.starts_with('#');
    let is_body = matches!(def.detail, Detail::Function { body: true, .. });
    if !is_macro && !is_body && !text.ends_with(';') {
        text.push(';');
    }
    let Some(new) = renamed else { return text };
    let name = &def.name;
    if is_macro {
        return format!("#undef {name}\n{text}");
    }
    renamed_text(&text, name, new)
}

/// A definition under another name, and a macro that leads to it.
fn renamed_text(text: &str, name: &str, new: &str) -> String {
    format!(
        "{}\n#undef {name}\n#define {name} {new}",
        lex::rename(text, name, new)
    )
}

fn signature_text(def: &Def) -> String {
    match &def.detail {
        Detail::Function { sig, .. } => sig
            .params
            .iter()
            .map(|p| p.ty.spelling.clone())
            .collect::<Vec<_>>()
            .join(" "),
        _ => String::new(),
    }
}

/// The risk of carried code that works on structures which differ between the two kernels.
fn touched(sources: &Sources<'_>, text: &str, types: &str) -> (Risk, String) {
    let members = lex::members(text);
    let mut worst = (Risk::None, String::new());
    for tag in lex::words(types) {
        let (Some(home), Some(target)) = (
            record(&sources.home.facts, &tag),
            record(&sources.target.facts, &tag),
        ) else {
            continue;
        };
        let field = |fields: &[kspan_facts::Field], m: &str| {
            fields
                .iter()
                .find(|f| f.name == m)
                .map(|f| f.ty.canonical.clone())
        };
        for member in &members {
            let Some(at_home) = field(&home, member) else {
                continue;
            };
            match field(&target, member) {
                Some(there) if there == at_home => {}
                Some(there) => {
                    let meaning = format!(
                        "uses struct {tag}.{member}, {there} on the target and {at_home} at home"
                    );
                    worst = worst.max((Risk::Behaviour, meaning));
                }
                None => {
                    worst = worst.max((
                        Risk::Behaviour,
                        format!("uses struct {tag}.{member}, which the target lacks"),
                    ))
                }
            }
        }
    }
    worst
}

/// A member that a carried function uses of a structure of its signature and that the target's structure lacks, when no
/// other structure of the signature has it.
fn lacking_member(sources: &Sources<'_>, text: &str, types: &str) -> Option<String> {
    let pairs: Vec<(String, Vec<kspan_facts::Field>, Vec<kspan_facts::Field>)> = lex::words(types)
        .into_iter()
        .filter_map(|tag| {
            Some((
                tag.clone(),
                record(&sources.home.facts, &tag)?,
                record(&sources.target.facts, &tag)?,
            ))
        })
        .collect();
    let in_any = |m: &str, home: bool| {
        pairs
            .iter()
            .any(|(_, h, t)| if home { h } else { t }.iter().any(|f| f.name == m))
    };
    let member = lex::members(text)
        .into_iter()
        .find(|m| in_any(m, true) && !in_any(m, false))?;
    let (tag, ..) = pairs
        .iter()
        .find(|(_, h, _)| h.iter().any(|f| f.name == member))?;
    Some(format!(
        "uses struct {tag}.{member}, which the target lacks"
    ))
}

fn record(facts: &Facts, tag: &str) -> Option<Vec<kspan_facts::Field>> {
    facts.defs(tag).into_iter().find_map(|d| match d.detail {
        Detail::Record { fields, .. } if !fields.is_empty() => Some(fields),
        _ => None,
    })
}

/// All constants of the enumeration that `def` belongs to.
fn enumeration_in(facts: &kspan_facts::Facts, def: &Def, parent: &str) -> Vec<String> {
    let tagged = (!parent.is_empty()).then(|| facts.defs(parent));
    for found in tagged.into_iter().flatten() {
        if let Detail::Enum { constants } = found.detail {
            return constants.into_iter().map(|(name, _)| name).collect();
        }
    }
    run_of_constants(facts, def)
}

/// The constants around one of an enumeration without a tag: neighbours in the header whose values rise with their lines.
fn run_of_constants(facts: &kspan_facts::Facts, def: &Def) -> Vec<String> {
    let names = facts.names_in_header(&def.header);
    let place = |d: Def| match d.detail {
        Detail::EnumConst { value, ref parent } if parent.is_empty() && d.path == def.path => {
            Some((d.lines.0, value, d.name))
        }
        _ => None,
    };
    let mut all: Vec<(u32, i64, String)> = names
        .iter()
        .flat_map(|n| facts.defs(n))
        .filter_map(place)
        .collect();
    all.sort();
    all.dedup();
    let runs = all.chunk_by(|a, b| a.1 < b.1 && b.0 - a.0 <= MOST_LINES_BETWEEN);
    let mine = |run: &&[(u32, i64, String)]| run.iter().any(|(_, _, n)| *n == def.name);
    let mut found: Vec<String> = runs
        .into_iter()
        .find(mine)
        .map(|run| run.iter().map(|(_, _, n)| n.clone()).collect())
        .unwrap_or_default();
    if found.is_empty() {
        found.push(def.name.clone());
    }
    found
}

/// By the kernel's habit, the name of a constant that counts an enumeration's others, or stands behind the last of them.
fn is_count(name: &str) -> bool {
    const WORDS: [&str; 9] = [
        "MAX", "NUM", "LAST", "CNT", "COUNT", "END", "NR", "SIZE", "TOTAL",
    ];
    name.split('_').any(|part| WORDS.contains(&part))
}

/// Every use of the tag is `struct name *`: no complete type is needed.
fn only_pointed_at(text: &str, name: &str) -> bool {
    let bytes = text.as_bytes();
    let mut before = "";
    let mut pending = false;
    let mut seen = false;
    for (token, range) in lex::tokens(bytes) {
        let word = &text[range.clone()];
        if pending && word != "*" {
            return false;
        }
        pending = false;
        if token == lex::Token::Word && word == name {
            if before != "struct" {
                return false;
            }
            (pending, seen) = (true, true);
        }
        before = &text[range];
    }
    seen && !pending
}

/// A name whose absence surely breaks the text: called, or named as a type. Others may be locals of the same name.
fn is_needed(text: &str, name: &str) -> bool {
    let mut before = "";
    let mut after_name = false;
    for (_, range) in lex::tokens(text.as_bytes()) {
        let word = &text[range];
        if after_name && word == "(" {
            return true;
        }
        if word == name && matches!(before, "struct" | "union" | "enum") {
            return true;
        }
        after_name = word == name;
        before = word;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_need_no_complete_type() {
        assert!(only_pointed_at("int f(struct a *x, struct a **y);", "a"));
        assert!(!only_pointed_at("int f(struct a x);", "a"));
        assert!(!only_pointed_at("a *x;", "a"));
    }

    #[test]
    fn counts_are_told_by_their_words() {
        assert!(
            is_count("__NFC_ATTR_AFTER_LAST") && is_count("LIGHTBAR_NUM_CMDS") && is_count("X_MAX")
        );
        assert!(!is_count("POWER_SUPPLY_PROP_HEALTH") && !is_count("ATTR_ENDPOINT"));
    }

    #[test]
    fn calls_and_tags_are_needed_and_plain_words_are_not() {
        assert!(is_needed("return g(x);", "g"));
        assert!(is_needed("struct g x;", "g"));
        assert!(!is_needed("int g = 1;", "g"));
    }
}
