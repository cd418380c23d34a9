//! The derivation of a port: facts propose, the target's compiler disposes, and its diagnostics come back as gaps.

use crate::carry::Unit;
use crate::diag::{self, Diagnostic, Severity};
use crate::driver::{OFF, config_macro};
use crate::gap::{Gap, Need, Place, Remedy, RemedyKind};
use crate::home::{self, HomeTu};
use crate::plan::{Context, Plan, Rendered};
use crate::take_up::take_up;
use crate::{Error, Result, check, lex, link, understand};
use kspan_kernel::{Cache, KbuildOptions};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// More rounds than this never helped.
const MOST_ROUNDS: usize = 14;
/// A gap that is open in so many rounds on end stays open, whatever else is closed around it.
const STUCK_ROUNDS: usize = 3;
/// A header may hide what follows it; more errors than this in one file are echoes.
const MOST_ERRORS: usize = 40;

/// What became of a derivation.
#[derive(Debug, Clone, Default)]
pub struct Derived {
    /// It builds and links.
    pub ok: bool,
    /// No remedy was needed: the sources are the driver's, byte for byte.
    pub native: bool,
    /// Remedies in use.
    pub remedies: Vec<Remedy>,
    /// Gaps found, closed or not.
    pub gaps: Vec<Gap>,
    /// Gaps left.
    pub open: Vec<Gap>,
    /// Warnings of the final build.
    pub warnings: usize,
    /// Modules made, relative to the port.
    pub modules: Vec<PathBuf>,
    /// Compiler runs before the final build.
    pub compiles: usize,
    /// Seconds of the final build alone.
    pub make_seconds: f64,
}

/// The loop's state.
struct Loop<'a> {
    cache: &'a Cache,
    ctx: Context<'a>,
    dir: &'a Path,
    options: &'a KbuildOptions,
    plan: Plan,
    rendered: Rendered,
    found: BTreeMap<Need, Gap>,
    open: BTreeMap<Need, Gap>,
    /// Rounds on end in which a gap was open.
    stuck: BTreeMap<Need, usize>,
    compiles: usize,
}

/// Derives and builds the port of a driver in an empty directory.
///
/// # Errors
/// When the compiler or make cannot be run, or the disk refuses. Gaps that stay open are no error.
pub fn derive(
    cache: &Cache,
    ctx: Context<'_>,
    dir: &Path,
    options: &KbuildOptions,
) -> Result<Derived> {
    let found = check::gaps(ctx.built, ctx.home, ctx.target, ctx.library);
    let mut job = Loop::new(cache, ctx, dir, options);
    let given = crate::plan::given_options(&ctx);
    job.plan.remedies.extend(given.iter().cloned());
    let derived = job.run(&found)?;
    if derived.ok {
        return Ok(derived);
    }
    // Facts may be wrong where the compiler is right: a driver that builds unchanged is never made worse.
    if !job.plan_is_empty()
        && let Some(unchanged) = instead(dir, &mut |beside| {
            let mut job = Loop::new(cache, ctx, beside, options);
            job.plan.remedies.extend(given.iter().cloned());
            job.run(&[])
        })?
    {
        return Ok(unchanged);
    }
    let off = crate::plan::option_remedies(&ctx);
    if off.is_empty() {
        return Ok(derived);
    }
    let with_options_off = instead(dir, &mut |beside| {
        let mut job = Loop::new(cache, ctx, beside, options);
        job.plan.remedies.extend(given.iter().chain(&off).cloned());
        job.run(&found)
    })?;
    Ok(with_options_off.unwrap_or(derived))
}

/// Another derivation, in a directory of its own; where it succeeds, it takes the first one's place.
fn instead(
    dir: &Path,
    derivation: &mut dyn FnMut(&Path) -> Result<Derived>,
) -> Result<Option<Derived>> {
    let beside =
        tempfile::tempdir_in(dir.parent().unwrap_or(dir)).map_err(|e| Error::io(dir, e))?;
    let derived = derivation(beside.path())?;
    if !derived.ok {
        return Ok(None);
    }
    std::fs::remove_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    std::fs::rename(beside.keep(), dir).map_err(|e| Error::io(dir, e))?;
    Ok(Some(derived))
}

impl<'a> Loop<'a> {
    fn new(cache: &'a Cache, ctx: Context<'a>, dir: &'a Path, options: &'a KbuildOptions) -> Self {
        Self {
            cache,
            ctx,
            dir,
            options,
            plan: Plan::of(&ctx),
            rendered: Rendered::default(),
            found: BTreeMap::new(),
            open: BTreeMap::new(),
            stuck: BTreeMap::new(),
            compiles: 0,
        }
    }

    fn plan_is_empty(&self) -> bool {
        self.rendered.remedies.is_empty()
    }

    /// Rounds until the target's compiler and linker are content, or nothing more can be done.
    fn run(&mut self, found: &[check::Found]) -> Result<Derived> {
        for f in found.iter().filter(|f| f.hard) {
            self.take(f.tu, &f.need, &f.places);
        }
        let mut dirty: BTreeSet<usize> = (0..self.ctx.built.tus.len()).collect();
        for _ in 0..MOST_ROUNDS {
            let changed_files = self.render()?;
            dirty.extend(self.touched_by(&changed_files));
            let errors = if self.plan_is_empty() && found.is_empty() {
                Vec::new()
            } else {
                self.compile(&dirty)?
            };
            dirty = errors.iter().map(|(tu, _)| *tu).collect();
            if errors.iter().all(|(_, d)| d.severity < Severity::Error) && !self.learn(&errors) {
                let (derived, errors) = self.make()?;
                if derived.ok || !(self.ask_for_dialect() || self.learn(&errors)) {
                    return Ok(derived);
                }
                dirty = errors.iter().map(|(tu, _)| *tu).collect();
            } else if errors.iter().any(|(_, d)| d.severity == Severity::Error)
                && (!self.learn(&errors) || self.is_stuck())
            {
                break;
            }
        }
        Ok(self.result(false))
    }

    /// The home kernel's C, which a port without an overlay has not asked for yet. True when it does now.
    fn ask_for_dialect(&mut self) -> bool {
        let overlaid = |file: &PathBuf| file.starts_with(crate::plan::OVERLAY);
        if self.rendered.files.keys().any(overlaid) {
            return false;
        }
        let remedy = crate::plan::dialect_remedy(&self.ctx);
        remedy.is_some_and(|remedy| self.plan.remedies.insert(remedy))
    }

    /// Counts a round for the gaps that are open; true when one of them has been open for too long.
    fn is_stuck(&mut self) -> bool {
        let before = std::mem::take(&mut self.stuck);
        for need in self.open.keys() {
            let rounds = before.get(need).copied().unwrap_or(0) + 1;
            self.stuck.insert(need.clone(), rounds);
        }
        self.stuck.values().any(|rounds| *rounds >= STUCK_ROUNDS)
    }

    /// Writes the port; the files that are new or differ from the last round.
    fn render(&mut self) -> Result<BTreeSet<PathBuf>> {
        let rendered = self.plan.render(&self.ctx)?;
        let mut changed = BTreeSet::new();
        for (file, bytes) in &rendered.files {
            if self.rendered.files.get(file) != Some(bytes) {
                let path = self.dir.join(file);
                let parent = path.parent().unwrap_or(self.dir);
                std::fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
                std::fs::write(&path, bytes).map_err(|e| Error::io(&path, e))?;
                changed.insert(file.clone());
            }
        }
        for file in self
            .rendered
            .files
            .keys()
            .filter(|f| !rendered.files.contains_key(*f))
        {
            let _ = std::fs::remove_file(self.dir.join(file));
            changed.insert(file.clone());
        }
        self.rendered = rendered;
        Ok(changed)
    }

    /// Source files whose next compilation may come out otherwise.
    fn touched_by(&self, changed: &BTreeSet<PathBuf>) -> Vec<usize> {
        let block = |tu: &HomeTu| crate::plan::block_file(&tu.source);
        let shared = |f: &PathBuf| {
            f.extension().is_some_and(|e| e == "h") && !f.starts_with("overlay/kspan")
        };
        let any_header = changed.iter().any(shared);
        let tus = self.ctx.built.tus.iter().enumerate();
        tus.filter(|(_, tu)| {
            any_header || changed.contains(&tu.source) || changed.contains(&block(tu))
        })
        .map(|(i, _)| i)
        .collect()
    }

    /// Compiles some source files for their diagnostics alone; the errors, by source file.
    fn compile(&mut self, dirty: &BTreeSet<usize>) -> Result<Vec<(usize, Diagnostic)>> {
        self.compiles += dirty.len();
        let results: Vec<Vec<(usize, Diagnostic)>> = dirty
            .par_iter()
            .map(|&i| Ok(errors_of(i, self.syntax(&self.ctx.built.tus[i])?)))
            .collect::<Result<_>>()?;
        Ok(results.into_iter().flatten().collect())
    }

    /// What the driver's Kbuild file defines on a target that does not know its options; at home it did not.
    fn own_options(&self) -> Vec<String> {
        let manifest = &self.ctx.driver.manifest;
        let on = manifest.config.iter().filter(|(_, value)| *value != OFF);
        on.filter(|(name, _)| self.ctx.target.facts.config(name).is_none())
            .map(|(name, value)| format!("-D{}", config_macro(name, value)))
            .collect()
    }

    /// The target's compiler on one source file, with kbuild's flags, without making an object.
    fn syntax(&self, tu: &HomeTu) -> Result<Vec<Diagnostic>> {
        let target = self.ctx.target;
        let home = self.ctx.built.dir.to_string_lossy().into_owned();
        let here = self.dir.to_string_lossy();
        let mut command =
            self.cache
                .sandboxed(&target.kernel, &target.flags.cc, self.dir, &[self.dir])?;
        command
            .arg(format!("-I{here}/overlay"))
            .arg(format!("-I{here}/overlay/include"));
        command
            .args(&target.flags.args)
            .args(tu.extra.iter().map(|a| a.replace(&home, &here)));
        for file in crate::plan::read_first() {
            let file = self.dir.join(file);
            if file.is_file() {
                command.arg("-include").arg(file);
            }
        }
        command.args(crate::plan::language_flags(&self.ctx));
        command.args(self.own_options());
        command.args([
            "-fsyntax-only",
            "-fdiagnostics-format=json",
            "-Werror=incompatible-pointer-types",
        ]);
        command.args([
            "-Werror=implicit-function-declaration",
            "-Werror=int-conversion",
        ]);
        let output = command
            .arg(self.dir.join(&tu.source))
            .output()
            .map_err(|e| Error::io(self.dir, e))?;
        Ok(diag::of_compiler(&output))
    }

    /// The real build with modpost; what it says when it fails.
    fn make(&mut self) -> Result<(Derived, Vec<(usize, Diagnostic)>)> {
        let options = KbuildOptions {
            json_diagnostics: true,
            keep_going: true,
            ..self.options.clone()
        };
        let build = self
            .cache
            .kbuild(&self.ctx.target.kernel, self.dir, &options)?;
        let diagnostics = diag::parse(&build.log);
        let mut errors: Vec<(usize, Diagnostic)> = Vec::new();
        for d in diagnostics.iter().filter(|d| d.severity == Severity::Error) {
            errors.push((self.tu_of(d), d.clone()));
        }
        for need in link::modpost(&build.log) {
            let Need::Export { symbol } = &need else {
                continue;
            };
            let using = self.tus_using(symbol).into_iter();
            errors.extend(using.map(|tu| (tu, Diagnostic::unexported(symbol))));
        }
        if !build.ok && errors.is_empty() {
            errors.push((
                0,
                Diagnostic::plain(&home::failure(&build.log, &diagnostics)),
            ));
        }
        let mut derived = self.result(build.ok);
        derived.warnings = home::warnings(&diagnostics);
        derived.modules = build.modules;
        derived.make_seconds = build.seconds;
        if !build.ok {
            self.learn_open(&errors);
            derived.open = self.open.values().cloned().collect();
        }
        let target = &self.ctx.target.facts;
        for symbol in link::changed_versions(self.dir, self.ctx.kept, target) {
            derived.ok = false;
            let why = format!(
                "modules of the target that use {symbol} would not load: its type is another here"
            );
            let need = Need::Export { symbol };
            self.note_open(need, &[], why);
            derived.open = self.open.values().cloned().collect();
        }
        Ok((derived, errors))
    }

    fn tu_of(&self, d: &Diagnostic) -> usize {
        let file = d.at.as_ref().map(|at| self.dir.join(&at.file));
        let is_it = |tu: &HomeTu| {
            let block = crate::plan::block_file(&tu.source);
            file.as_ref()
                .is_some_and(|f| f.ends_with(&tu.source) || f.ends_with(block))
        };
        self.ctx.built.tus.iter().position(is_it).unwrap_or(0)
    }

    /// The source files that a symbol stands in; the uses of what the driver's own headers declare are not noted, so the text
    /// is asked. Where it is in none (a kernel macro calls it), the first.
    fn tus_using(&self, symbol: &str) -> Vec<usize> {
        let uses = |tu: &HomeTu| tu.tu.uses.iter().any(|u| u.name == symbol);
        let says = |tu: &HomeTu| {
            let text = std::fs::read(self.ctx.driver.dir.join(&tu.source)).unwrap_or_default();
            lex::tokens(&text).any(|(token, range)| {
                token == lex::Token::Word && text.get(range) == Some(symbol.as_bytes())
            })
        };
        let tus = || self.ctx.built.tus.iter().enumerate();
        let mut found: Vec<usize> = tus().filter(|(_, t)| uses(t)).map(|(i, _)| i).collect();
        if found.is_empty() {
            found = tus().filter(|(_, t)| says(t)).map(|(i, _)| i).collect();
        }
        if found.is_empty() {
            found.push(0);
        }
        found
    }

    /// Turns errors into changes of the plan; what cannot be turned is open. True when the plan changed.
    fn learn(&mut self, errors: &[(usize, Diagnostic)]) -> bool {
        self.open.clear();
        let mut changed = false;
        for (tu, diagnostic) in errors {
            if self.withdraw_structure(diagnostic) {
                changed = true;
                continue;
            }
            changed |= self.withdraw(*tu, diagnostic);
            let places: Vec<Place> = self.place_of(diagnostic).into_iter().collect();
            let needs = self.needs_of(*tu, diagnostic);
            let mut any = false;
            for need in &needs {
                any |= self.take(*tu, need, &places);
            }
            changed |= any;
            // A warning that nothing can be done about leaves the port with a warning.
            if needs.is_empty() && diagnostic.severity == Severity::Error {
                let need = Need::Diagnostic {
                    message: diagnostic.message.clone(),
                };
                self.note_open(
                    need,
                    &places,
                    "the compiler's words; kspan has no remedy for it".to_owned(),
                );
            }
        }
        if !changed {
            // Only where nothing else helps: what a definition lacks may be on its way already.
            for (tu, diagnostic) in errors {
                changed |= self.bar_failing(*tu, diagnostic);
            }
        }
        changed
    }

    fn learn_open(&mut self, errors: &[(usize, Diagnostic)]) {
        let plan = self.plan.clone();
        self.learn(errors);
        self.plan = plan;
    }

    /// A definition of the home kernel that does not compile here is taken back; it may be for text that the target's configuration
    /// leaves out, and where it is not, the compiler misses it by name.
    fn bar_failing(&mut self, tu: usize, diagnostic: &Diagnostic) -> bool {
        let Some(name) = self.unit_at(tu, diagnostic) else {
            return false;
        };
        let wants = &mut self.plan.tus[tu];
        wants.names.remove(&name);
        wants.overrides.remove(&name);
        wants.barred.insert(name)
    }

    /// The carried or lifted definition in a source file's block that a diagnostic points into.
    fn unit_at(&self, tu: usize, diagnostic: &Diagnostic) -> Option<String> {
        let at = diagnostic.at.as_ref()?;
        let block = crate::plan::block_file(&self.ctx.built.tus[tu].source);
        if !at.file.ends_with(&block) {
            return None;
        }
        let text = String::from_utf8_lossy(self.rendered.files.get(&block)?);
        let above: Vec<&str> = text.lines().take(at.line as usize).collect();
        let is_guard = |line: &&&str| line.starts_with("#define KSPAN_HAS_");
        let guard = above
            .iter()
            .rev()
            .find(is_guard)?
            .trim_start_matches("#define ");
        let units = &self.rendered.closures.get(tu)?.units;
        let home_s = |u: &&Unit| matches!(u.kind, RemedyKind::Carry | RemedyKind::Lift);
        let found = units.iter().filter(home_s);
        let mut found = found.filter(|u| crate::plan::guard(&u.name) == guard);
        Some(found.next()?.name.clone())
    }

    /// A structure of the driver's own that meets the target's code after all is taken back.
    fn withdraw_structure(&mut self, diagnostic: &Diagnostic) -> bool {
        let words = lex::words(&diagnostic.message);
        let mut tags = words.iter().filter_map(|w| w.strip_prefix("kspan_"));
        let is_record = |tag: &&str| self.ctx.home.record(tag).is_some();
        let Some(tag) = tags.find(is_record).map(str::to_owned) else {
            return false;
        };
        for wants in &mut self.plan.tus {
            wants.overrides.remove(&tag);
        }
        self.plan.not_own.insert(tag)
    }

    /// A carried definition that conflicts with the target's own is taken back; a name of the driver's own that the
    /// target's headers use too is set apart.
    fn withdraw(&mut self, tu: usize, diagnostic: &Diagnostic) -> bool {
        const CONFLICTS: [&str; 5] = [
            "redefinition of",
            "conflicting types for",
            "static declaration of",
            "redeclared as",
            "redeclaration of",
        ];
        if !CONFLICTS.iter().any(|c| diagnostic.message.contains(c)) {
            return false;
        }
        let named: Vec<String> = diagnostic
            .quoted()
            .iter()
            .flat_map(|q| lex::words(q))
            .collect();
        let closure = &self.rendered.closures[tu];
        let ours = closure
            .units
            .iter()
            .find(|u| named.contains(&u.name) && u.kind != crate::gap::RemedyKind::Alias);
        let Some(name) = ours.map(|u| u.name.clone()) else {
            let functions = &self.ctx.built.tus[tu].tu.functions;
            // A variable of the file's own is known by the compiler's words alone.
            let is_static = diagnostic
                .message
                .contains("follows non-static declaration");
            let local = |n: &&String| {
                let own = functions.iter().any(|f| &f.name == *n && f.is_static);
                (own || is_static) && self.ctx.target.has(n)
            };
            let Some(name) = named.iter().find(local).cloned() else {
                return false;
            };
            return self.plan.tus[tu].own.insert(name);
        };
        self.plan.tus[tu].names.remove(&name);
        self.plan.tus[tu].barred.insert(name)
    }

    fn needs_of(&self, tu: usize, diagnostic: &Diagnostic) -> Vec<Need> {
        if let Some(symbol) = diagnostic.unexported_symbol() {
            return vec![Need::Export {
                symbol: symbol.to_owned(),
            }];
        }
        if let Some(need) = self.qualifier(diagnostic) {
            return vec![need];
        }
        let (line_text, column) = self.marked_line(diagnostic);
        let spot = understand::Spot {
            tu: &self.ctx.built.tus[tu],
            line: diagnostic.at.as_ref().map_or(0, |at| at.line),
            word: word_at(&line_text, column),
            line_text: &line_text,
        };
        understand::needs(diagnostic, &spot, self.ctx.home, self.ctx.target)
    }

    /// The expression whose `const` the target's API does not have yet, as bytes of the driver's own file.
    fn qualifier(&self, diagnostic: &Diagnostic) -> Option<Need> {
        if !understand::only_const_differs(diagnostic) {
            return None;
        }
        let (start, finish) = (diagnostic.start.as_ref()?, diagnostic.finish.as_ref()?);
        let file = self
            .dir
            .join(&start.file)
            .strip_prefix(self.dir)
            .ok()?
            .to_path_buf();
        let original = std::fs::read_to_string(self.ctx.driver.dir.join(&file)).ok()?;
        let line_start: usize = original
            .split_inclusive('\n')
            .take(start.line.checked_sub(1)? as usize)
            .map(str::len)
            .sum();
        let line = original[line_start..].lines().next()?;
        let (now, _) = self.marked_line(diagnostic);
        // Columns are the port's; only a line without edits can be trusted.
        if now != line || finish.line != start.line {
            return None;
        }
        let offset = line_start + start.column as usize - 1;
        let end = line_start + finish.column as usize;
        let word = |at: usize| {
            original
                .as_bytes()
                .get(at)
                .is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
        };
        let cut =
            word(offset.wrapping_sub(1)) && word(offset) || word(end.wrapping_sub(1)) && word(end);
        // gcc may mark an operator alone: the one that takes an address, or that of the assignment.
        let (offset, end) = match original.get(offset..end)?.trim() {
            "&" => (offset, lex::expression_end(original.as_bytes(), offset)?),
            "=" => {
                let blanks = original[end..].len() - original[end..].trim_start().len();
                let value = end + blanks;
                (value, lex::expression_end(original.as_bytes(), value)?)
            }
            _ => (offset, end),
        };
        let whole = !cut && lex::is_expression(original.get(offset..end)?);
        (whole && (understand::gains_const(diagnostic) || self.api_was_not_const(diagnostic)))
            .then_some(Need::Qualifier { file, offset, end })
    }

    /// The home kernel's parameter or member is const where the target's is not. Data that the target's kernel made const
    /// is another matter: to cast that away would be wrong.
    fn api_was_not_const(&self, diagnostic: &Diagnostic) -> bool {
        self.argument_was_not_const(diagnostic)
            .unwrap_or_else(|| self.member_was_not_const(diagnostic))
    }

    /// For an argument; `None` for anything else.
    fn argument_was_not_const(&self, diagnostic: &Diagnostic) -> Option<bool> {
        let (home, target) = (self.ctx.home, self.ctx.target);
        let rest = diagnostic.message.strip_prefix("passing argument ")?;
        let index: usize = rest.split(' ').next()?.parse().ok()?;
        let inner = diagnostic.quoted().into_iter().next()?;
        // A macro of the target may call another function than the one that the driver names.
        let (line, _) = self.marked_line(diagnostic);
        let mut named = std::iter::once(inner.to_owned()).chain(lex::calls(&line));
        let callee = named.find(|n| home.callable(n).is_some())?;
        let at = index.checked_sub(1)?;
        Some(loses_const(
            home.parameter(&callee, at),
            target.parameter(inner, at),
        ))
    }

    /// For a member that is initialised or assigned.
    fn member_was_not_const(&self, diagnostic: &Diagnostic) -> bool {
        let (home, target) = (self.ctx.home, self.ctx.target);
        let line = diagnostic.at.as_ref().map_or(0, |at| at.line);
        let uses = self
            .ctx
            .built
            .tus
            .iter()
            .flat_map(|t| &t.tu.uses)
            .filter(|u| u.at.line == line);
        let fields = uses.filter_map(|u| Some((u.record.as_deref()?, u.name.as_str())));
        fields.into_iter().any(|(record, name)| {
            let ty = |view: &crate::view::View| {
                Some(
                    view.record(record)?
                        .into_iter()
                        .find(|f| f.name == name)?
                        .ty
                        .canonical,
                )
            };
            loses_const(ty(home), ty(target))
        })
    }

    /// The text of the line that a diagnostic marks, as it stands in the port, and the column in it.
    fn marked_line(&self, diagnostic: &Diagnostic) -> (String, usize) {
        let Some(at) = &diagnostic.at else {
            return (String::new(), 0);
        };
        let bytes = std::fs::read(self.dir.join(&at.file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        (logical_line(&text, at.line).to_owned(), at.column as usize)
    }

    /// The place in the driver that a diagnostic, or one of its notes, points at.
    fn place_of(&self, diagnostic: &Diagnostic) -> Option<Place> {
        let own = |d: &Diagnostic| {
            let at = d.at.as_ref()?;
            let file = self.dir.join(&at.file);
            let file = file.strip_prefix(self.dir).ok()?.to_path_buf();
            (!file.starts_with(crate::plan::OVERLAY)).then_some(Place {
                file,
                line: at.line,
            })
        };
        own(diagnostic).or_else(|| diagnostic.notes.iter().find_map(own))
    }

    fn take(&mut self, tu: usize, need: &Need, places: &[Place]) -> bool {
        let gap = Gap {
            need: need.clone(),
            places: places.to_vec(),
            why: self.why(need),
        };
        self.found.entry(need.clone()).or_insert(gap);
        match take_up(&mut self.plan, &self.ctx, tu, need) {
            Ok(true) => true,
            Ok(false) => {
                let reason = self.refusal(tu, need).unwrap_or_else(|| self.why(need));
                self.note_open(need.clone(), places, reason);
                false
            }
            Err(reason) => {
                self.note_open(need.clone(), places, reason);
                false
            }
        }
    }

    /// Why the last rendering could not provide what a need asks for.
    fn refusal(&self, tu: usize, need: &Need) -> Option<String> {
        let name = match need {
            Need::Name { name, .. } | Need::Signature { name } | Need::Export { symbol: name } => {
                name
            }
            _ => return None,
        };
        self.rendered.closures.get(tu)?.refused.get(name).cloned()
    }

    fn why(&self, need: &Need) -> String {
        crate::words::why(need, self.ctx.home, self.ctx.target)
    }

    fn note_open(&mut self, need: Need, places: &[Place], why: String) {
        self.open.entry(need.clone()).or_insert(Gap {
            need,
            places: places.to_vec(),
            why,
        });
    }

    fn result(&self, ok: bool) -> Derived {
        Derived {
            ok,
            native: ok && self.plan_is_empty(),
            remedies: self.rendered.remedies.clone(),
            gaps: self.found.values().cloned().collect(),
            open: if ok {
                Vec::new()
            } else {
                self.open.values().cloned().collect()
            },
            compiles: self.compiles,
            ..Derived::default()
        }
    }
}

/// The type at home is that of the target with more `const`.
fn loses_const(home: Option<String>, target: Option<String>) -> bool {
    let (Some(home), Some(target)) = (home, target) else {
        return false;
    };
    let count = |t: &str| t.matches("const").count();
    crate::cfn::bare(&home) == crate::cfn::bare(&target) && count(&home) > count(&target)
}

fn errors_of(tu: usize, diagnostics: Vec<Diagnostic>) -> Vec<(usize, Diagnostic)> {
    let matters =
        |d: &Diagnostic| d.severity == Severity::Error || understand::only_const_differs(d);
    let errors = diagnostics.into_iter().filter(matters);
    errors.take(MOST_ERRORS).map(|d| (tu, d)).collect()
}

/// The line of a text that `#line` directives give a number; the last one, since what kspan inserts comes first.
fn logical_line(text: &str, wanted: u32) -> &str {
    let mut number = 0;
    let mut found = "";
    for line in text.lines() {
        number += 1;
        if let Some(n) = line
            .strip_prefix("#line ")
            .and_then(|r| r.split_whitespace().next()?.parse::<u32>().ok())
        {
            number = n.saturating_sub(1);
        } else if number == wanted {
            found = line;
        }
    }
    found
}

/// The identifier that covers a byte column (from 1).
fn word_at(line: &str, column: usize) -> Option<&str> {
    let at = column.checked_sub(1)?;
    lex::tokens(line.as_bytes())
        .find(|(token, range)| *token == lex::Token::Word && range.contains(&at))
        .and_then(|(_, range)| line.get(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_as_the_compiler_counts() {
        let text = "a\n#include \"k.h\"\n#line 2\nb\nadapter\n#line 3\nc\n";
        assert_eq!(logical_line(text, 2), "b");
        assert_eq!(logical_line(text, 3), "c");
    }

    #[test]
    fn finds_the_word_at_a_column() {
        assert_eq!(word_at("x = foo(1);", 6), Some("foo"));
        assert_eq!(word_at("x = foo(1);", 3), None);
    }
}
