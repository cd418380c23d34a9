//! The loop of an upgrade: facts propose changes, the target's compiler disposes, and its errors come back as needs.

use super::callback::{Known, Reshape};
use super::change::{Changes, Reason};
use super::edit::{self, Edit, Rendered};
use super::guards::{self, Guards, Versions};
use super::sites::{self, sites};
use super::{becomes, forward, headers, member, names, own, tables, together};
use kspan_evolve::{Evolution, Kind, Library};
use kspan_facts::{Binding, Detail, LocalFunction};
use kspan_kernel::{Cache, KbuildOptions};
use kspan_port::diag::{self, Diagnostic, Severity};
use kspan_port::driver::{Driver, MANIFEST_FILE, Manifest};
use kspan_port::gap::{Gap, Need, Place, Risk};
use kspan_port::home::{self, Home, HomeTu};
use kspan_port::view::View;
use kspan_port::{Error, Result, cfn, check, entry, event, lex, link, site, store, understand};
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// More rounds than this never helped.
const MOST_ROUNDS: usize = 12;
/// More errors than this in one file are echoes.
const MOST_ERRORS: usize = 40;

/// The state of an upgrade.
pub struct Job<'a> {
    /// The cache.
    pub cache: &'a Cache,
    /// The driver.
    pub driver: &'a Driver,
    /// The driver on its home kernel.
    pub built: &'a Home,
    /// The home kernel.
    pub home: &'a View,
    /// The target kernel.
    pub target: &'a View,
    /// The evolutions.
    pub library: &'a Library,
    /// What was changed so far.
    pub changes: Changes,
    /// Definitions that the driver took along: file and name.
    pub kept: BTreeSet<(PathBuf, String)>,
    /// Needs that nothing meets.
    pub open: BTreeMap<Need, Gap>,
    /// Structures that have another name now, by the old tag.
    pub tags: BTreeMap<String, String>,
    /// Where the driver is compiled.
    dir: &'a Path,
    texts: BTreeMap<PathBuf, String>,
    others: BTreeMap<PathBuf, Vec<u8>>,
    rendered: BTreeMap<PathBuf, Rendered>,
    included: BTreeSet<(PathBuf, String)>,
    /// Compiler runs before the final build.
    pub compiles: usize,
}

/// What the final build came to.
pub struct Built {
    /// It built and linked.
    pub ok: bool,
    /// Warnings.
    pub warnings: usize,
    /// Functions and variables of the driver that nothing uses any more.
    unused: Vec<String>,
}

impl<'a> Job<'a> {
    /// Reads the driver's files.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn new(
        cache: &'a Cache,
        driver: &'a Driver,
        built: &'a Home,
        (home, target): (&'a View, &'a View),
        library: &'a Library,
        dir: &'a Path,
    ) -> Result<Self> {
        let (mut texts, mut others) = (BTreeMap::new(), BTreeMap::new());
        for file in driver.sources()? {
            let path = driver.dir.join(&file);
            let bytes = std::fs::read(&path).map_err(|source| Error::Io { path, source })?;
            match String::from_utf8(bytes) {
                Ok(text) => drop(texts.insert(file, text)),
                Err(e) => drop(others.insert(file, e.into_bytes())),
            }
        }
        Ok(Self {
            cache,
            driver,
            built,
            home,
            target,
            library,
            changes: Changes::default(),
            kept: BTreeSet::new(),
            open: BTreeMap::new(),
            tags: BTreeMap::new(),
            dir,
            texts,
            others,
            rendered: BTreeMap::new(),
            included: BTreeSet::new(),
            compiles: 0,
        })
    }

    /// A file of the driver as it was.
    ///
    /// # Errors
    /// It is no file of the driver, or no UTF-8.
    pub fn text(&self, file: &Path) -> std::result::Result<&str, String> {
        self.texts.get(file).map(String::as_str).ok_or_else(|| {
            let why = if self.others.contains_key(file) {
                "is not UTF-8"
            } else {
                "is no file of the driver"
            };
            format!("{} {why}", file.display())
        })
    }

    /// A file of the driver as the target's compiler sees it, where its guards ask for a version.
    fn seen(&self, file: &Path) -> std::result::Result<Cow<'_, str>, String> {
        let text = self.text(file)?;
        Ok(match self.changes.spared(file) {
            [] => Cow::Borrowed(text),
            inactive => Cow::Owned(guards::seen(text, inactive)),
        })
    }

    /// A name of the driver's own: after the driver, as the kernel's habit is.
    #[must_use]
    pub fn own_name(&self, name: &str) -> String {
        let safe = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        };
        let own: String = self.driver.manifest.name.chars().map(safe).collect();
        format!("{own}_{name}")
    }

    /// A definition behind the includes of a file.
    ///
    /// # Errors
    /// As [`Job::text`].
    pub fn definition(&self, file: &Path, text: &str) -> std::result::Result<Edit, String> {
        let bytes = self.text(file)?.as_bytes();
        let place = match file.extension().is_some_and(|e| e == "h") {
            true => site::in_header(bytes),
            false => site::after_includes(bytes, &BTreeSet::new()),
        };
        Ok(Edit::insert(
            place.offset,
            format!("\n{}\n", text.trim_end()),
        ))
    }

    /// Includes headers in files that do not reach them yet.
    ///
    /// # Errors
    /// As [`Job::text`].
    pub fn include_all(
        &mut self,
        reason: &Reason,
        wanted: &[String],
        files: BTreeSet<PathBuf>,
    ) -> std::result::Result<(), String> {
        for file in files {
            for header in wanted {
                if !self.reaches(&file, header) {
                    self.include(reason, &file, header)?;
                }
            }
        }
        Ok(())
    }

    /// Includes in each file its header, unless it reaches it.
    ///
    /// # Errors
    /// As [`Job::text`].
    pub fn include_each(
        &mut self,
        reason: &Reason,
        wanted: Vec<(PathBuf, String)>,
    ) -> std::result::Result<(), String> {
        wanted.into_iter().try_for_each(|(file, header)| {
            self.include_all(reason, &[header], BTreeSet::from([file]))
        })
    }

    fn include(
        &mut self,
        reason: &Reason,
        file: &Path,
        header: &str,
    ) -> std::result::Result<bool, String> {
        if !self
            .included
            .insert((file.to_path_buf(), header.to_owned()))
        {
            return Ok(false);
        }
        match headers::add(self.text(file)?, header) {
            Some(edit) => self.changes.add(reason, vec![(file.to_path_buf(), edit)]),
            None => Ok(false),
        }
    }

    /// What a file includes brings a header in on the target.
    fn reaches(&self, file: &Path, header: &str) -> bool {
        let tus = self.built.tus.iter().filter(|t| t.source == file);
        let own = self.built.dir.join(file);
        let of_file = |t: &HomeTu| {
            let lines =
                t.tu.includes
                    .iter()
                    .filter(|(at, ..)| at.file == own || t.source == file);
            lines.map(|(_, h, _)| h.clone()).collect::<Vec<_>>()
        };
        let all: BTreeSet<String> = tus.flat_map(of_file).collect();
        all.iter()
            .any(|h| h == header || self.target.reach(h).contains(header))
    }

    /// Rounds until the compiler and the linker are content, or nothing more can be done.
    ///
    /// # Errors
    /// When the compiler or make cannot be run, or the disk refuses.
    pub fn run(&mut self, drop_compat: bool) -> Result<Built> {
        self.settle_guards(drop_compat);
        together::settle_tags(self);
        together::settle_constants(self);
        together::settle_hidden(self);
        let found = check::gaps(self.built, self.home, self.target, self.library);
        for f in found.iter().filter(|f| f.hard) {
            self.take(f.tu, &f.need, &f.places);
        }
        let mut dirty: BTreeSet<usize> = (0..self.built.tus.len()).collect();
        for _ in 0..MOST_ROUNDS {
            dirty.extend(self.write()?);
            let errors = self.compile(&dirty)?;
            dirty = errors.iter().map(|(tu, _)| *tu).collect();
            if errors.is_empty() {
                let (built, errors) = self.make()?;
                let clean = built.ok && !self.remove_unused(&built.unused);
                if clean || !built.ok && !self.learn(&errors) {
                    return Ok(built);
                }
                dirty = errors.iter().map(|(tu, _)| *tu).collect();
            } else if !self.learn(&errors) {
                break;
            }
        }
        self.write()?;
        Ok(Built {
            ok: false,
            warnings: 0,
            unused: Vec::new(),
        })
    }

    /// Guards of versions leave the branch that the target takes, or keep the others from being changed.
    fn settle_guards(&mut self, drop_compat: bool) {
        let target = Asked(self.target);
        let guards = Guards::new(&target, self.texts.values().map(String::as_str));
        let mut edits = Vec::new();
        let mut inactive = Vec::new();
        for (file, text) in self.texts.iter().filter(|(f, _)| is_c(f)) {
            if drop_compat {
                edits.extend(guards.collapse(text).into_iter().map(|e| (file.clone(), e)));
            } else {
                inactive.push((file.clone(), guards.inactive(text)));
            }
        }
        for (file, ranges) in inactive {
            self.changes.spare(&file, ranges);
        }
        if edits.is_empty() {
            return;
        }
        let why = format!(
            "The source serves {} alone; what it takes on other kernels is derived from it.",
            self.target.kernel.release
        );
        let reason = generated("compat", "drop support for other kernels".to_owned(), why);
        // They come first and are made by one hand, so that they agree with each other.
        let _ = self.changes.add(&reason, edits);
    }

    /// Guards by which a kernel takes a branch that it cannot compile.
    #[must_use]
    pub fn wrong_guards(&self, kernels: &[std::sync::Arc<View>]) -> Vec<guards::Wrong> {
        let own: BTreeSet<&str> = self
            .built
            .tus
            .iter()
            .flat_map(|t| &t.tu.functions)
            .map(|f| f.name.as_str())
            .collect();
        let known =
            |n: &str| !own.contains(n) && (self.home.has(n) || kernels.iter().any(|k| k.has(n)));
        let mut out = Vec::new();
        for kernel in kernels {
            let asked = Asked(kernel);
            let all = Guards::new(&asked, self.texts.values().map(String::as_str));
            for (file, text) in self.texts.iter().filter(|(f, _)| is_c(f)) {
                for (line, condition, lacking) in guards::wrong(&all, text, &known) {
                    let kernel = kernel.kernel.id.clone();
                    out.push(guards::Wrong {
                        file: file.clone(),
                        line,
                        condition,
                        kernel,
                        lacking,
                    });
                }
            }
        }
        out
    }

    /// The driver has guards of versions at all.
    #[must_use]
    pub fn has_guards(&self) -> bool {
        let target = Asked(self.target);
        let all = Guards::new(&target, self.texts.values().map(String::as_str));
        let versioned = |text: &String| {
            guards::groups(text)
                .iter()
                .any(|g| g.branches.iter().any(|b| all.is_versioned(b)))
        };
        self.texts.iter().any(|(f, t)| is_c(f) && versioned(t))
    }

    /// Writes the driver with the changes so far; source files whose compilation may come out otherwise.
    fn write(&mut self) -> Result<Vec<usize>> {
        let mut changed = BTreeSet::new();
        for (file, text) in &self.texts {
            let edits = self.changes.edits(file, usize::MAX);
            let now = edit::apply(text.as_bytes(), &edits);
            if self
                .rendered
                .get(file)
                .is_none_or(|before| before.text != now.text)
            {
                put(self.dir, file, &now.text)?;
                changed.insert(file.clone());
                self.rendered.insert(file.clone(), now);
            }
        }
        for (file, bytes) in &self.others {
            if !self.dir.join(file).exists() {
                put(self.dir, file, bytes)?;
            }
        }
        let header = changed
            .iter()
            .any(|f| f.extension().is_some_and(|e| e == "h"));
        let tus = self.built.tus.iter().enumerate();
        Ok(tus
            .filter(|(_, t)| header || changed.contains(&t.source))
            .map(|(i, _)| i)
            .collect())
    }

    /// Every file as the first `count` changes leave it.
    #[must_use]
    pub fn files(&self, count: usize) -> BTreeMap<PathBuf, Vec<u8>> {
        let text = |(file, text): (&PathBuf, &String)| {
            (
                file.clone(),
                edit::apply(text.as_bytes(), &self.changes.edits(file, count)).text,
            )
        };
        let others = self.others.iter().map(|(f, b)| (f.clone(), b.clone()));
        self.texts.iter().map(text).chain(others).collect()
    }

    fn compile(&mut self, dirty: &BTreeSet<usize>) -> Result<Vec<(usize, Diagnostic)>> {
        self.compiles += dirty.len();
        let one = |i: &usize| -> Result<Vec<(usize, Diagnostic)>> {
            let Some(tu) = self.built.tus.get(*i) else {
                return Ok(Vec::new());
            };
            let errors = self
                .syntax(self.target, tu)?
                .into_iter()
                .filter(|d| d.severity == Severity::Error);
            Ok(errors.take(MOST_ERRORS).map(|d| (*i, d)).collect())
        };
        let results: Vec<_> = dirty.par_iter().map(one).collect::<Result<_>>()?;
        Ok(results.into_iter().flatten().collect())
    }

    /// Puts those changes first that the driver's home kernel has the API for, too: each is tried by that kernel's compiler on top of
    /// those before it. The number of them.
    ///
    /// # Errors
    /// When the compiler cannot be run or the disk refuses.
    pub fn order(&mut self) -> Result<usize> {
        let mut early: Vec<usize> = Vec::new();
        for i in 0..self.changes.all().len() {
            if !self.is_known_at_home(i) {
                continue;
            }
            early.push(i);
            if !self.compiles_at_home(&early)? {
                early.pop();
            }
        }
        self.changes.put_first(&early);
        self.rendered.clear();
        self.write()?;
        Ok(early.len())
    }

    /// Nothing that a change writes is a name of the target alone.
    fn is_known_at_home(&self, change: usize) -> bool {
        let Some(change) = self.changes.all().get(change) else {
            return false;
        };
        let added = |e: &Edit| {
            let text = |p: &edit::Piece| match p {
                edit::Piece::Text(t) => t.clone(),
                edit::Piece::Kept(..) => " ".to_owned(),
            };
            e.pieces.iter().map(text).collect::<String>()
        };
        let new: String = change.edits.values().flatten().map(added).collect();
        let words = lex::words(&new);
        words
            .iter()
            .all(|w| self.home.has(w) || !self.target.has(w))
    }

    /// The home kernel's compiler takes the driver with these changes.
    fn compiles_at_home(&mut self, chosen: &[usize]) -> Result<bool> {
        for (file, text) in &self.texts {
            let edits = self.changes.edits_of(file, chosen);
            put(self.dir, file, &edit::apply(text.as_bytes(), &edits).text)?;
        }
        let (view, built) = (self.home, self.built);
        self.compiles += built.tus.len();
        let one = |tu: &HomeTu| -> Result<bool> {
            let said = self.syntax(view, tu)?;
            Ok(!said.iter().any(|d| d.severity == Severity::Error))
        };
        let fine: Vec<bool> = built.tus.par_iter().map(one).collect::<Result<_>>()?;
        Ok(fine.iter().all(|f| *f))
    }

    /// A kernel's compiler on one source file, with kbuild's flags, without making an object.
    fn syntax(&self, view: &View, tu: &HomeTu) -> Result<Vec<Diagnostic>> {
        let (home, here) = (self.built.dir.to_string_lossy(), self.dir.to_string_lossy());
        let flags = &view.flags;
        let mut command = self
            .cache
            .sandboxed(&view.kernel, &flags.cc, self.dir, &[self.dir])?;
        command
            .args(&flags.args)
            .args(tu.extra.iter().map(|a| a.replace(&*home, &here)));
        command.args([
            "-fsyntax-only",
            "-fdiagnostics-format=json",
            "-Werror=incompatible-pointer-types",
        ]);
        command.args([
            "-Werror=implicit-function-declaration",
            "-Werror=int-conversion",
        ]);
        let path = self.dir.join(&tu.source);
        let output = command
            .arg(&path)
            .output()
            .map_err(|source| Error::Io { path, source })?;
        Ok(diag::of_compiler(&output))
    }

    /// The real build with modpost, in a fresh copy.
    fn make(&mut self) -> Result<(Built, Vec<(usize, Diagnostic)>)> {
        let options = KbuildOptions {
            json_diagnostics: true,
            keep_going: true,
            jobs: 1,
            ..KbuildOptions::default()
        };
        let build = self.cache.kbuild(&self.target.kernel, self.dir, &options)?;
        let diagnostics = diag::parse(&build.log);
        let mut errors: Vec<(usize, Diagnostic)> = Vec::new();
        for d in diagnostics.iter().filter(|d| d.severity == Severity::Error) {
            errors.push((self.tu_of(d), d.clone()));
        }
        for need in link::modpost(&build.log) {
            if let Need::Export { symbol } = &need {
                let uses = |t: &HomeTu| t.tu.uses.iter().any(|u| u.name == *symbol);
                let tu = self.built.tus.iter().position(uses).unwrap_or(0);
                errors.push((tu, Diagnostic::unexported(symbol)));
            }
        }
        if !build.ok && errors.is_empty() {
            errors.push((
                0,
                Diagnostic::plain(&home::failure(&build.log, &diagnostics)),
            ));
        }
        let unused = diagnostics
            .iter()
            .filter(|d| d.option.as_deref() == Some("-Wunused-function"));
        let built = Built {
            ok: build.ok,
            warnings: home::warnings(&diagnostics),
            unused: unused
                .filter_map(|d| d.quoted().first().map(|q| (*q).to_owned()))
                .collect(),
        };
        if built.ok {
            self.open.clear();
        }
        Ok((built, errors))
    }

    fn tu_of(&self, d: &Diagnostic) -> usize {
        let file = d.at.as_ref().map(|at| self.dir.join(&at.file));
        let is_it = |t: &HomeTu| file.as_ref().is_some_and(|f| f.ends_with(&t.source));
        self.built.tus.iter().position(is_it).unwrap_or(0)
    }

    /// Turns errors into changes; what cannot be turned is open. True when something changed.
    fn learn(&mut self, errors: &[(usize, Diagnostic)]) -> bool {
        self.open.clear();
        let mut changed = false;
        for (tu, diagnostic) in errors {
            if self.make_const(diagnostic)
                || self.rename_own(diagnostic)
                || self.redeclare(diagnostic)
            {
                changed = true;
                continue;
            }
            let (needs, place) = self.needs_of(*tu, diagnostic);
            let places: Vec<Place> = place.into_iter().collect();
            for need in &needs {
                changed |= self.take(*tu, need, &places);
            }
            if needs.is_empty() {
                let message = diagnostic.message.clone();
                let why = format!(
                    "{message} (the compiler's words; no evolution says what to write there)"
                );
                self.note_open(Need::Diagnostic { message }, &places, why);
            }
        }
        changed
    }

    /// The driver's declarations of a function that a macro of the kernel defines, where the macro gives it another type now.
    fn redeclare(&mut self, diagnostic: &Diagnostic) -> bool {
        let Some((name, reshape)) = self.redeclared(diagnostic) else {
            return false;
        };
        let mut edits = Vec::new();
        for (file, text) in self.sources() {
            for found in sites(text, &name, None) {
                if found.call.is_some()
                    && !self.is_inside(file, found.word.start)
                    && let Ok(list) = reshape.prototype(text, &found)
                {
                    edits.extend(list.into_iter().map(|e| (file.clone(), e)));
                }
            }
        }
        let why = format!(
            "The macro that defines {name}() gives it this type on {}.",
            self.target.kernel.release
        );
        let reason = generated(
            &format!("type of {name}"),
            format!("{name}(): {}", reshape.words()),
            why,
        );
        self.changes.add(&reason, edits).unwrap_or(false)
    }

    fn redeclared(&self, diagnostic: &Diagnostic) -> Option<(String, Reshape)> {
        let rest = diagnostic.message.strip_prefix("conflicting types for '")?;
        let (name, rest) = rest.split_once('\'')?;
        let (_, rest) = rest.split_once("have '")?;
        let want = understand::signature(cfn::parse(rest.split('\'').next()?)?)?;
        let have = self.signature(name)?;
        let words = BTreeSet::new();
        let reshape = Reshape::new(name, &have, &want, &Known::default(), &words).ok()?;
        let written_out = |f: &LocalFunction| {
            let file = self.built.relative(&f.start.file)?;
            let text = self.text(file).ok()?;
            reshape.definition(text, f.start.offset as usize, &[]).ok()
        };
        let by_macro = self.functions(name).all(|f| written_out(f).is_none());
        by_macro.then(|| (name.to_owned(), reshape))
    }

    /// A table of pointers of the driver's own, where the target wants one of pointers to constant data.
    fn make_const(&mut self, diagnostic: &Diagnostic) -> bool {
        let Some((line, column, Some(place))) = self.marked(diagnostic) else {
            return false;
        };
        let word = lex::tokens(line.as_bytes())
            .find(|(t, r)| *t == lex::Token::Word && r.end > column)
            .and_then(|(_, r)| line.get(r));
        let quoted = diagnostic.quoted();
        let (Some(name), [wanted, given, ..]) = (word, quoted.as_slice()) else {
            return false;
        };
        if !understand::gains_const(diagnostic)
            || !wanted.contains('*')
            || given.matches('*').count() != 2
        {
            return false;
        }
        let Some(edits) = self
            .text(&place.file)
            .ok()
            .and_then(|t| tables::constant(t, name))
        else {
            return false;
        };
        let why = format!(
            "{} takes a table of pointers to constant data here.",
            self.target.kernel.release
        );
        let reason = generated(&format!("const {name}"), format!("make {name} const"), why);
        let edits = edits.into_iter().map(|e| (place.file.clone(), e)).collect();
        self.changes.add(&reason, edits).unwrap_or(false)
    }

    /// A name of the driver's own that the target's headers have as well.
    fn rename_own(&mut self, diagnostic: &Diagnostic) -> bool {
        let clash = own::clash(diagnostic).or_else(|| self.hidden_by_macro(diagnostic));
        let Some((name, tag)) = clash else {
            return false;
        };
        if self.home.has(&name) || !self.target.has(&name) {
            return false;
        }
        let to = self.own_name(&name);
        let mut edits = Vec::new();
        for (file, text) in self.texts.iter().filter(|(f, _)| is_c(f)) {
            let Some(list) = own::renamed(text, &name, tag, &to) else {
                return false;
            };
            edits.extend(list.into_iter().map(|e| (file.clone(), e)));
        }
        let why = format!(
            "The headers of {} have taken some of the driver's own names.",
            self.target.kernel.release
        );
        let subject = "keep the driver's own names apart from the kernel's";
        let reason = generated("own names", subject.to_owned(), why);
        self.changes.add(&reason, edits).unwrap_or(false)
    }

    /// A name that the driver declares on the marked line and that a macro of the target's takes from it.
    fn hidden_by_macro(&self, diagnostic: &Diagnostic) -> Option<(String, bool)> {
        if !diagnostic.message.starts_with("expected identifier before") {
            return None;
        }
        let (line, ..) = std::iter::once(diagnostic)
            .chain(&diagnostic.notes)
            .find_map(|d| self.marked(d))?;
        let is_macro = |name: &String| {
            let defs = self.target.facts.defs(name);
            defs.iter()
                .any(|d| matches!(d.detail, Detail::Macro { .. }))
                && !self.home.has(name)
        };
        let name = lex::words(&line).into_iter().find(is_macro)?;
        Some((name, false))
    }

    /// What an error asks for, with the place in the driver as it was.
    fn needs_of(&self, tu: usize, diagnostic: &Diagnostic) -> (Vec<Need>, Option<Place>) {
        if let Some(symbol) = diagnostic.unexported_symbol() {
            return (
                vec![Need::Export {
                    symbol: symbol.to_owned(),
                }],
                None,
            );
        }
        let Some(home_tu) = self.built.tus.get(tu) else {
            return (Vec::new(), None);
        };
        let marked = std::iter::once(diagnostic)
            .chain(&diagnostic.notes)
            .find_map(|d| self.marked(d));
        let (line_text, column, place) = marked.unwrap_or_default();
        let word = lex::tokens(line_text.as_bytes())
            .find(|(t, r)| *t == lex::Token::Word && r.contains(&column))
            .and_then(|(_, r)| line_text.get(r));
        let spot = understand::Spot {
            tu: home_tu,
            line: place.as_ref().map_or(0, |p| p.line),
            word,
            line_text: &line_text,
        };
        (
            understand::needs(diagnostic, &spot, self.home, self.target),
            place,
        )
    }

    /// The line that a diagnostic marks, the column in it from 0, and the place in the driver as it was.
    fn marked(&self, d: &Diagnostic) -> Option<(String, usize, Option<Place>)> {
        let at = d.at.as_ref()?;
        let path = self.dir.join(&at.file);
        let file = path.strip_prefix(self.dir).ok()?;
        let rendered = self.rendered.get(file)?;
        let text = std::str::from_utf8(&rendered.text).ok()?;
        let number = at.line.checked_sub(1)? as usize;
        let start: usize = text.split_inclusive('\n').take(number).map(str::len).sum();
        let line = text.get(start..)?.lines().next()?.to_owned();
        let column = (at.column as usize).saturating_sub(1);
        let original = rendered.original(start + column.min(line.len()));
        let before = self.texts.get(file)?.as_bytes().get(..original)?;
        let lines = before.iter().filter(|b| **b == b'\n').count() + 1;
        let place = Place {
            file: file.to_path_buf(),
            line: u32::try_from(lines).unwrap_or(u32::MAX),
        };
        Some((line, column, Some(place)))
    }

    fn take(&mut self, tu: usize, need: &Need, places: &[Place]) -> bool {
        let taken = match need {
            Need::Header { header } => self.take_header(tu, header),
            Need::Signature { name } if self.signature(name).is_some() => self.take_made(name),
            Need::Name { name, .. } | Need::Signature { name } => {
                match event::evolution(name, self.home, self.target, self.library) {
                    Some(e) => self.take_event(e),
                    None => becomes::of_name(self, tu, name),
                }
            }
            Need::Moved { name } => self.take_moved(tu, name),
            Need::Field { record, field } => member::take(self, record, field),
            Need::Callback {
                record,
                field,
                function,
            } => self.take_callback(record, field, function),
            Need::Entry { function } => self.take_entry(function),
            Need::Export { symbol } => self.take_export(tu, symbol),
            Need::Qualifier { .. } => {
                Err("the target takes a pointer to data that is not const".to_owned())
            }
            Need::Diagnostic { message } => Err(message.clone()),
        };
        let why = match taken {
            Ok(true) => return true,
            Ok(false) => kspan_port::words::why(need, self.home, self.target),
            Err(why) => why,
        };
        self.note_open(need.clone(), places, why);
        false
    }

    fn note_open(&mut self, need: Need, places: &[Place], why: String) {
        self.open.entry(need.clone()).or_insert(Gap {
            need,
            places: places.to_vec(),
            why,
        });
    }

    /// A header that is gone: what stands for it, or those that have the names which the driver uses of it.
    fn take_header(&mut self, tu: usize, header: &str) -> std::result::Result<bool, String> {
        let known = self
            .library
            .headers(header)
            .into_iter()
            .find(|e| e.applies_to(self.target));
        let by: Vec<String> = match known.map(|e| &e.kind) {
            Some(Kind::Header { target, .. }) => vec![target.clone()],
            _ if self.home.header_path(header).is_none()
                || self.target.facts.header_exists(header) =>
            {
                return Err(format!(
                    "<{header}> is another one on the target, and the driver shares it"
                ));
            }
            _ => self.homes_of_names(header),
        };
        let subject = match by.as_slice() {
            [] => format!("do not include <{header}>"),
            [one] => format!("include <{one}> instead of <{header}>"),
            _ => format!("do without <{header}>"),
        };
        let reason = match known {
            Some(e) => member::of_evolution(e, subject),
            None => generated(
                &format!("<{header}>"),
                subject,
                format!("{} has no <{header}>.", self.target.kernel.release),
            ),
        };
        let mut edits = Vec::new();
        for (file, text) in &self.texts {
            edits.extend(
                headers::replace(text, header, &by)
                    .into_iter()
                    .map(|e| (file.clone(), e)),
            );
        }
        if edits.is_empty() {
            let source = self
                .built
                .tus
                .get(tu)
                .map(|t| t.source.display().to_string())
                .unwrap_or_default();
            return Err(format!(
                "<{header}> is gone, and {source} gets it by a header that is not the driver's"
            ));
        }
        self.changes.add(&reason, edits)
    }

    /// The target's headers that have the names which the driver uses of a header.
    fn homes_of_names(&self, header: &str) -> Vec<String> {
        let plain = header.strip_prefix("uapi/").unwrap_or(header);
        let used = self
            .built
            .tus
            .iter()
            .flat_map(|t| &t.tu.uses)
            .filter(|u| u.header == header || u.header == plain);
        let homes: BTreeSet<String> = used
            .filter_map(|u| self.target.header_of(&u.name))
            .collect();
        homes
            .into_iter()
            .filter(|h| self.target.can_include(h))
            .collect()
    }

    fn take_moved(&mut self, tu: usize, name: &str) -> std::result::Result<bool, String> {
        let header = self
            .target
            .header_of(name)
            .ok_or_else(|| format!("{name} is in no header that can be included"))?;
        let file = self
            .built
            .tus
            .get(tu)
            .map(|t| t.source.clone())
            .ok_or("no such source file")?;
        let why = format!(
            "{} declares {name} there, and no other header of the driver brings it in.",
            self.target.kernel.release
        );
        let reason = generated(
            &format!("include <{header}>"),
            format!("include <{header}>"),
            why,
        );
        match self.include(&reason, &file, &header)? {
            true => Ok(true),
            false => Err(format!(
                "{name} is not declared, though <{header}> is included"
            )),
        }
    }

    /// A symbol of a namespace is imported from it, where the licence is named.
    fn take_export(&mut self, tu: usize, symbol: &str) -> std::result::Result<bool, String> {
        let export = self.target.facts.export(symbol);
        let Some(namespace) = export.and_then(|e| e.namespace).filter(|n| !n.is_empty()) else {
            return names::take(self, tu, symbol);
        };
        let body = kspan_evolve::KernelView::macro_body(self.target, "MODULE_IMPORT_NS")
            .unwrap_or_default();
        let quote = if body.contains("stringify") || body.contains('#') {
            ""
        } else {
            "\""
        };
        let line = format!("MODULE_IMPORT_NS({quote}{namespace}{quote});\n");
        let mut edits = Vec::new();
        for (file, text) in &self.texts {
            for found in sites(text, "MODULE_LICENSE", None) {
                let end = sites::whole_lines(text, found.whole()).end;
                let end = text
                    .get(end..)
                    .and_then(|t| t.find('\n'))
                    .filter(|_| !text.get(..end).is_some_and(|t| t.ends_with('\n')))
                    .map_or(end, |n| end + n + 1);
                edits.push((file.clone(), Edit::insert(end, line.clone())));
            }
        }
        let why = format!(
            "{} exports {symbol} from the namespace {namespace}.",
            self.target.kernel.release
        );
        let reason = generated(
            &format!("namespace {namespace}"),
            format!("import the namespace {namespace}"),
            why,
        );
        self.changes.add(&reason, edits)
    }

    /// Macros within the driver's tracepoints.
    /// The module's first or last function, named by the kernel's macro.
    fn take_entry(&mut self, function: &str) -> std::result::Result<bool, String> {
        let found = self.functions(function).next();
        let found = found.ok_or_else(|| format!("the driver does not write out {function}()"))?;
        let head = (!found.is_static).then_some(found.start.offset as usize);
        let file = self.built.relative(&found.start.file);
        let file = file
            .ok_or("it is defined outside of the driver")?
            .to_path_buf();
        let mut name = self.own_name(function.trim_end_matches("_module"));
        while self.texts.values().any(|t| t.contains(&name)) {
            name.push('_');
        }
        let edits = entry::renamed(self.text(&file)?, head, function, &name);
        let edits = edits
            .into_iter()
            .map(|(range, text)| (file.clone(), Edit::replace(range, text)));
        let why = format!(
            "{} wants the module's functions named by macros.",
            self.target.kernel.release
        );
        let subject = format!("name {function}() by the kernel's macro");
        self.changes
            .add(&generated(function, subject, why), edits.collect())
    }

    fn take_event(&mut self, evolution: &Evolution) -> std::result::Result<bool, String> {
        let in_texts = self.texts.iter().flat_map(|(file, text)| {
            let all = event::rewrites(text, evolution).into_iter();
            all.map(|(_, e)| (file.clone(), Edit::replace(e.start..e.end, e.text)))
        });
        let edits: Vec<(PathBuf, Edit)> = in_texts.collect();
        let subject = format!("{}() of tracepoints", evolution.provides.join("() and "));
        self.changes
            .add(&member::of_evolution(evolution, subject), edits)
    }

    /// A function of the driver that a macro of the kernel calls.
    fn take_made(&mut self, function: &str) -> std::result::Result<bool, String> {
        let (evolution, reshape) = together::made(self, function).ok_or_else(|| {
            format!(
                "{function}() is called in another way on the target, and no evolution says how"
            )
        })?;
        let reshape = reshape?;
        let (edits, _) = self.reshaped(function, &reshape)?;
        let subject = format!("{function}(): {}", reshape.words());
        self.changes
            .add(&member::of_evolution(evolution, subject), edits)
    }

    /// The driver's C files.
    pub fn sources(&self) -> impl Iterator<Item = (&PathBuf, &String)> {
        self.texts.iter().filter(|(file, _)| is_c(file))
    }

    /// The type of one of the driver's functions.
    #[must_use]
    pub fn signature(&self, function: &str) -> Option<kspan_facts::Signature> {
        self.functions(function).next().map(|f| f.sig.clone())
    }

    /// A callback in the target's type.
    fn take_callback(
        &mut self,
        record: &str,
        field: &str,
        function: &str,
    ) -> std::result::Result<bool, String> {
        let mut rewritten = false;
        if let Some((callee, _)) = field.split_once('#').filter(|_| record.is_empty())
            && let Some(hands_on) = self.hands_on(callee)
        {
            rewritten = names::take(self, 0, callee)?;
            if !hands_on {
                return Ok(rewritten);
            }
        }
        if let Some((e, adapter)) = self.around(record, field, function) {
            return self.put_around(e, adapter, (record, field, function));
        }
        let (reshape, evolution) = self.reshape(record, field, function)?;
        let (edits, meaning) = self.reshaped(function, &reshape)?;
        let place = if record.is_empty() {
            field.to_owned()
        } else {
            format!("struct {record}.{field}")
        };
        let subject = format!(
            "{}: {}",
            place.trim_start_matches("struct "),
            reshape.words()
        );
        let reason = match evolution {
            Some(e) => member::of_evolution(e, subject),
            None => {
                let risk = if meaning.is_empty() {
                    Risk::None
                } else {
                    Risk::Default
                };
                let why = format!(
                    "{} is of another type on {} than on {}.",
                    place, self.target.kernel.release, self.home.kernel.release
                );
                Reason {
                    risk,
                    meaning,
                    ..generated(&place, subject, why)
                }
            }
        };
        let changed = self.changes.add(&reason, edits)? || rewritten;
        if let Some(e) = evolution {
            let files = self
                .texts
                .keys()
                .filter(|f| self.built.tus.iter().any(|t| t.source == **f))
                .cloned()
                .collect();
            self.include_all(&reason, &e.includes, files)?;
        }
        Ok(changed)
    }

    /// Whether the call of a function that an evolution writes otherwise is still given the driver's own function: a helper takes that
    /// as it is, a call that is only written otherwise does not. `None` without such an evolution.
    fn hands_on(&self, callee: &str) -> Option<bool> {
        let all = self.library.for_name(callee);
        let e = all
            .into_iter()
            .find(|e| matches!(e.kind, Kind::Override { .. }) && e.applies_to(self.target))?;
        let rewrite = e.rewrite.get(callee);
        Some(rewrite.is_some_and(|r| !r.to.contains("kspan_")))
    }

    /// An evolution that does more than to hand on what it is given, where a function of the driver's own can do that.
    fn around(
        &self,
        record: &str,
        field: &str,
        function: &str,
    ) -> Option<(&'a Evolution, &'a str)> {
        let mut bindings = self.bindings_of(record, field, function).peekable();
        let first = bindings.peek()?;
        let want = check::callback_type(first, self.target, self.library)?;
        let evolution = self.callback_evolution(record, field, (&first.sig, &want))?;
        let Kind::Callback {
            adapter: Some(adapter),
            ..
        } = &evolution.kind
        else {
            return None;
        };
        let by_itself = evolution.needs.is_empty() && !adapter.contains("kspan_");
        let in_reach = bindings.all(|b| b.via_macro.is_none());
        (by_itself && in_reach && forward::read(adapter).is_none()).then_some((evolution, adapter))
    }

    fn bindings_of<'b>(
        &'b self,
        record: &'b str,
        field: &'b str,
        function: &'b str,
    ) -> impl Iterator<Item = &'b Binding> {
        let all = self.built.tus.iter().flat_map(|t| &t.tu.bindings);
        all.filter(move |b| b.function == function && b.record == record && b.field == field)
    }

    /// A new function around the driver's own, before each table that held that one.
    fn put_around(
        &mut self,
        evolution: &'a Evolution,
        adapter: &str,
        (record, field, function): (&str, &str, &str),
    ) -> std::result::Result<bool, String> {
        let mut name = format!("{function}_{field}");
        while self.texts.values().any(|t| t.contains(&name)) {
            name.push('_');
        }
        let text = adapter.replace("{name}", &name).replace("{fn}", function);
        let mut edits: BTreeSet<(PathBuf, usize, usize, String)> = BTreeSet::new();
        let mut given: BTreeSet<PathBuf> = BTreeSet::new();
        for binding in self.bindings_of(record, field, function) {
            let file = self.built.relative(&binding.at.file);
            let file = file.ok_or("it is stored outside of the driver")?;
            let at = binding.at.offset as usize;
            let end = at + function.len();
            if self.text(file)?.get(at..end) != Some(function) {
                return Err(format!("{function}() is stored by a macro"));
            }
            edits.insert((file.to_path_buf(), at, end, name.clone()));
            if given.insert(file.to_path_buf()) {
                let before = binding.decl_start.offset as usize;
                let text = format!("{}\n\n", text.trim());
                edits.insert((file.to_path_buf(), before, before, text));
            }
        }
        let edits = edits.into_iter().map(|(file, start, end, text)| {
            let edit = match start == end {
                true => Edit::insert(start, text),
                false => Edit::replace(start..end, text),
            };
            (file, edit)
        });
        let subject = format!("{record}.{field}: put a function around {function}()");
        let reason = Reason {
            keeps: true,
            ..member::of_evolution(evolution, subject)
        };
        let changed = self.changes.add(&reason, edits.collect())?;
        self.include_all(&reason, &evolution.includes, given.into_iter().collect())?;
        Ok(changed)
    }

    /// The new form of a function, the same for all tables that hold it.
    fn reshape(
        &self,
        record: &str,
        field: &str,
        function: &str,
    ) -> std::result::Result<(Reshape, Option<&'a Evolution>), String> {
        let bindings: Vec<&Binding> = self
            .built
            .tus
            .iter()
            .flat_map(|t| &t.tu.bindings)
            .filter(|b| b.function == function)
            .collect();
        let is_it = |b: &&&Binding| b.record == record && b.field == field;
        let first = bindings
            .iter()
            .find(is_it)
            .ok_or_else(|| format!("{function}() is stored where the target wants another type"))?;
        let want = check::callback_type(first, self.target, self.library)
            .ok_or_else(|| format!("the target has no callback {field} in struct {record}"))?;
        for other in &bindings {
            let there = check::callback_type(other, self.target, self.library);
            let types = |s: &kspan_facts::Signature| {
                s.params
                    .iter()
                    .map(|p| p.ty.canonical.clone())
                    .chain([s.ret.canonical.clone()])
                    .collect::<Vec<_>>()
            };
            if there.as_ref().is_some_and(|t| types(t) != types(&want)) {
                return Err(format!(
                    "{function}() also serves {}.{}, whose type on the target is another one",
                    other.record, other.field
                ));
            }
        }
        let evolution = self.callback_evolution(record, field, (&first.sig, &want));
        let mut known = Known::default();
        if let Some(Kind::Callback {
            params,
            ret,
            adapter,
            ..
        }) = evolution.map(|e| &e.kind)
        {
            (known.params, known.ret) = (params.clone(), ret.clone());
            if let Some(adapter) = adapter {
                let read = forward::read(adapter).ok_or_else(|| {
                    format!(
                        "{function}() for {record}.{field} must be rewritten by hand: what it is handed has another meaning"
                    )
                })?;
                (known.forward, known.ret) = (Some(read.from), read.ret);
            }
        }
        let words = self.words_of(function);
        Ok((
            Reshape::new(function, &self.with_tags(&first.sig), &want, &known, &words)?,
            evolution,
        ))
    }

    /// A type of the driver's with the names that its structures have now.
    fn with_tags(&self, sig: &kspan_facts::Signature) -> kspan_facts::Signature {
        let mut out = sig.clone();
        let types = out.params.iter_mut().map(|p| &mut p.ty);
        for ty in types.chain([&mut out.ret]) {
            for (from, to) in &self.tags {
                for text in [&mut ty.spelling, &mut ty.canonical] {
                    *text = text.replace(&format!("struct {from} "), &format!("struct {to} "));
                }
            }
        }
        out
    }

    /// What an evolution says of a callback in the type that the target wants of it: an adapter of other parameters is for the way
    /// back.
    fn callback_evolution(
        &self,
        record: &str,
        field: &str,
        (have, want): (&kspan_facts::Signature, &kspan_facts::Signature),
    ) -> Option<&'a Evolution> {
        let renamed = self
            .target
            .renamed_field(self.library, record, field)
            .and_then(|e| match &e.kind {
                Kind::Field { target, .. } => Some(target.as_str()),
                _ => None,
            });
        let library = self.library;
        let counts = (have.params.len(), want.params.len());
        let is_meant = |e: &&Evolution| match &e.kind {
            Kind::Callback {
                adapter: Some(a), ..
            } => kspan_port::adapter::is_between(a, counts),
            _ => true,
        };
        let known: Vec<&Evolution> = std::iter::once(field)
            .chain(renamed)
            .flat_map(|f| library.callbacks(record, f))
            .filter(|e| e.applies_to(self.target) && is_meant(e))
            .collect();
        // What is written out for just these parameters says more than what is known of their types.
        let is_whole = |e: &&&Evolution| {
            matches!(
                &e.kind,
                Kind::Callback {
                    adapter: Some(_),
                    ..
                }
            )
        };
        known.iter().find(is_whole).or(known.first()).copied()
    }

    fn functions(&self, name: &str) -> impl Iterator<Item = &LocalFunction> {
        self.built
            .tus
            .iter()
            .flat_map(|t| &t.tu.functions)
            .filter(move |f| f.name == name)
    }

    /// The words of a function's text.
    #[must_use]
    pub fn words_of(&self, function: &str) -> BTreeSet<String> {
        let text = |f: &LocalFunction| {
            let file = self.built.relative(&f.start.file)?;
            self.texts
                .get(file)?
                .get(f.start.offset as usize..f.end.offset as usize)
        };
        self.functions(function)
            .filter_map(text)
            .flat_map(lex::words)
            .collect()
    }

    /// The edits of a function's definition, prototypes and calls.
    fn reshaped(
        &self,
        function: &str,
        reshape: &Reshape,
    ) -> std::result::Result<(Vec<(PathBuf, Edit)>, String), String> {
        let mut edits = Vec::new();
        let mut meaning = String::new();
        let mut heads: BTreeMap<PathBuf, BTreeSet<usize>> = BTreeMap::new();
        for f in self.functions(function) {
            let file = self
                .built
                .relative(&f.start.file)
                .ok_or("it is defined outside of the driver")?
                .to_path_buf();
            if heads
                .entry(file.clone())
                .or_default()
                .insert(f.start.offset as usize)
            {
                let gone = self.changes.deleted(&file);
                let text = self.seen(&file)?;
                let (list, loses) = reshape.definition(&text, f.start.offset as usize, &gone)?;
                edits.extend(list.into_iter().map(|e| (file.clone(), e)));
                meaning = loses;
            }
        }
        if heads.is_empty() {
            return Err(match self.functions(function).next() {
                Some(_) => {
                    format!("{function}() is not written out by the driver: a macro makes it")
                }
                None => format!("{function}() is another module's"),
            });
        }
        for file in self.texts.keys().filter(|f| is_c(f)) {
            let own = heads.get(file);
            let text = &*self.seen(file)?;
            for found in sites(text, function, None) {
                if own.is_some_and(|o| o.iter().any(|at| self.is_head(text, *at, &found)))
                    || found.call.is_none()
                {
                    continue;
                }
                if self.is_inside(file, found.word.start) {
                    edits.extend(reshape.call(text, &found)?.map(|e| (file.clone(), e)));
                } else {
                    edits.extend(
                        reshape
                            .prototype(text, &found)?
                            .into_iter()
                            .map(|e| (file.clone(), e)),
                    );
                }
            }
        }
        Ok((edits, meaning))
    }

    /// The site is the name in the head of the definition that starts there.
    fn is_head(&self, text: &str, start: usize, found: &sites::Site) -> bool {
        let between = text.get(start..found.word.start);
        found.word.start >= start && between.is_some_and(|t| !t.contains(['{', ';', '(']))
    }

    /// The callbacks that the function around a place serves, as `record.member`.
    #[must_use]
    pub fn callbacks_at(&self, file: &Path, at: usize) -> Vec<String> {
        let path = self.built.dir.join(file);
        let holds = |f: &&LocalFunction| {
            f.start.file == path && (f.start.offset as usize) < at && at < f.end.offset as usize
        };
        let tus = || self.built.tus.iter().map(|t| &t.tu);
        let Some(around) = tus().flat_map(|t| &t.functions).find(holds) else {
            return Vec::new();
        };
        let all = tus().flat_map(|t| &t.bindings);
        all.filter(|b| b.function == around.name)
            .map(|b| format!("{}.{}", b.record, b.field))
            .collect()
    }

    /// The place is inside of a function's body, or of a macro.
    fn is_inside(&self, file: &Path, at: usize) -> bool {
        let path = self.built.dir.join(file);
        let holds = |f: &LocalFunction| {
            f.start.file == path && (f.start.offset as usize) < at && at < f.end.offset as usize
        };
        self.built
            .tus
            .iter()
            .flat_map(|t| &t.tu.functions)
            .any(holds)
    }

    /// Functions that nothing uses since the changes go.
    fn remove_unused(&mut self, unused: &[String]) -> bool {
        let mut changed = false;
        for name in unused {
            let mut edits = Vec::new();
            for f in self.functions(name).filter(|f| f.is_static) {
                let Some(file) = self.built.relative(&f.start.file).map(Path::to_path_buf) else {
                    continue;
                };
                let Ok(text) = self.text(&file) else { continue };
                let start = f.start.offset as usize;
                let Some(end) = body_end(text, start) else {
                    continue;
                };
                let range = with_comment(text, sites::whole_lines(text, start..end));
                edits.push((file, Edit::delete(range)));
            }
            let why = format!("Nothing uses {name}() any more.");
            let reason = generated(&format!("unused {name}"), format!("remove {name}()"), why);
            changed |= !edits.is_empty() && self.changes.add(&reason, edits).unwrap_or(false);
        }
        changed
    }

    /// The manifest with the target as the driver's home; all else in it stays as it is written.
    ///
    /// # Errors
    /// When it cannot be written as TOML.
    pub fn manifest(&self) -> Result<String> {
        let id = &self.target.kernel.id;
        let text = self
            .texts
            .get(Path::new(MANIFEST_FILE))
            .map_or("", String::as_str);
        let renamed =
            with_home(text, id).filter(|t| Manifest::parse(t).is_ok_and(|m| m.home == *id));
        match renamed {
            Some(text) => Ok(text),
            None => Ok(Manifest {
                home: id.clone(),
                ..self.driver.manifest.clone()
            }
            .render()?),
        }
    }
}

/// Behind the bracket that closes the body of the function that starts here.
fn body_end(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let (_, open) =
        lex::tokens(bytes.get(start..)?).find(|(token, _)| *token == lex::Token::Punct(b'{'))?;
    Some(lex::closing(bytes, start + open.start)? + 1)
}

/// A manifest's text with another value of `home`.
fn with_home(text: &str, id: &str) -> Option<String> {
    let is_home = |l: &&str| {
        l.trim_start()
            .strip_prefix("home")
            .is_some_and(|r| r.trim_start().starts_with('='))
    };
    let line = text.lines().find(is_home)?;
    let value = line.split_once('=')?.1;
    Some(text.replacen(line, &line.replacen(value, &format!(" \"{id}\""), 1), 1))
}

/// A kernel as guards ask it.
struct Asked<'a>(&'a View);

impl Versions for Asked<'_> {
    fn number(&self, name: &str) -> Option<i64> {
        let body = kspan_evolve::KernelView::macro_body(self.0, name)?;
        body.trim().parse().ok()
    }
    fn has(&self, name: &str) -> bool {
        self.0.has(name)
    }
}

fn is_c(file: &Path) -> bool {
    file.extension().is_some_and(|e| e == "c" || e == "h")
}

/// A reason without an evolution.
fn generated(id: &str, subject: String, why: String) -> Reason {
    Reason {
        id: format!("generated: {id}"),
        subject,
        why,
        commit: String::new(),
        risk: Risk::None,
        meaning: String::new(),
        keeps: false,
    }
}

/// A definition with the comment right above it, and the blank line below.
fn with_comment(text: &str, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let before = text.get(..range.start).unwrap_or_default();
    let mut start = range.start;
    if before.ends_with("*/\n")
        && let Some(at) = before.rfind("/*")
        && before
            .get(..at)
            .is_some_and(|t| t.is_empty() || t.ends_with('\n'))
    {
        start = at;
    }
    let blank = text.get(range.end..).is_some_and(|t| t.starts_with('\n'));
    start..range.end + usize::from(blank)
}

fn put(dir: &Path, file: &Path, bytes: &[u8]) -> Result<()> {
    let path = dir.join(file);
    store::write_bytes(&path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_ends_where_its_own_body_does() {
        let text = "static int a(int x)\n{\n\tif (x) {\n\t\treturn 1; /* } */\n\t}\n\treturn 0;\n}\n\nint b(void)\n{\n}\n";
        let end = body_end(text, 0).unwrap();
        assert!(text[..end].ends_with("return 0;\n}"), "{}", &text[..end]);
        assert_eq!(body_end("int a(void);", 0), None);
    }
}
