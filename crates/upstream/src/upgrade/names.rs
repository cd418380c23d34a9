//! Functions, macros, types and constants that the target lacks, or has in another shape: written in the target's own API at
//! each use; where that takes more than an expression, a definition of the driver's own.

use super::change::Reason;
use super::edit::{Edit, Piece};
use super::job::Job;
use super::sites::{Site, sites};
use super::template::{Argument, Definitions, Template};
use kspan_evolve::{Evolution, Kind};
use kspan_facts::{Def, Detail, UseKind};
use kspan_port::carry::{Closure, Sources, Unit, Wants};
use kspan_port::gap::{RemedyKind, Risk};
use kspan_port::home::HomeTu;
use kspan_port::lex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Expressions within expressions are followed this far.
const DEPTH: usize = 4;
/// More definitions than these for one name are a subsystem, not a driver's own business.
const MOST_KEPT: usize = 8;

/// What stands for a name.
struct Answer {
    template: Template,
    reason: Reason,
    /// Headers that the new text needs.
    includes: Vec<String>,
    /// A function that the driver gets, where an expression alone does not do.
    helper: Option<String>,
    /// A member whose assignment goes into the call as the template's last argument.
    folds: Option<String>,
    /// What arguments must be, by number.
    when: BTreeMap<String, Vec<String>>,
    /// The callback in whose functions it holds.
    inside: Option<String>,
    /// Initialisers that the driver's tables get along with it.
    sets: Vec<kspan_evolve::Sets>,
}

/// Takes up a name in the whole driver.
///
/// # Errors
/// Says why nothing stands for it.
pub fn take(job: &mut Job<'_>, tu: usize, name: &str) -> Result<bool, String> {
    let places = places(job, tu, name)?;
    let spared = |(file, list): (&PathBuf, &Vec<Site>)| {
        list.iter().all(|s| job.changes.spares(file, s.word.start))
    };
    if places.values().any(|l| !l.is_empty()) && places.iter().all(spared) {
        return Ok(false);
    }
    let refusal = match written(job, &places, &answers(job, name)) {
        Ok(changed) => return Ok(changed),
        Err(why) => why,
    };
    if job.home.has(name) && !job.target.has(name) {
        return kept(job, tu, name).map_err(|why| if refusal.is_empty() { why } else { refusal });
    }
    Err(match refusal.is_empty() {
        true => format!(
            "{name} has another shape on the target, and no evolution says how to write it there"
        ),
        false => format!("{name}: {refusal}"),
    })
}

/// Where the name is used, by file.
type Places = BTreeMap<PathBuf, Vec<Site>>;

fn places(job: &Job<'_>, tu: usize, name: &str) -> Result<Places, String> {
    let mut at: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
    for used in job.built.tus.iter().flat_map(|t| &t.tu.uses) {
        let named = !matches!(
            used.kind,
            UseKind::Field | UseKind::Header | UseKind::Config
        );
        if named
            && used.name == name
            && used.via_macro.is_none()
            && let Some(file) = job.built.relative(&used.at.file)
        {
            at.entry(file.to_path_buf())
                .or_default()
                .push(used.at.offset as usize);
        }
    }
    let mut out = Places::new();
    for (file, offsets) in &at {
        out.insert(file.clone(), sites(job.text(file)?, name, Some(offsets)));
    }
    if out.values().all(Vec::is_empty)
        && let Some(own) = job.built.tus.get(tu)
    {
        // Text that the home kernel's configuration leaves out is known by its words alone.
        let file = own.source.clone();
        let found = sites(job.text(&file)?, name, None);
        out.insert(file, found);
    }
    Ok(out)
}

/// What may stand for a name, the best first.
fn answers(job: &Job<'_>, name: &str) -> Vec<Answer> {
    let mut out = Vec::new();
    if let Some(e) = evolution(job, name) {
        let plain = |to: &Template| match called(to) {
            same if same == format!("{name}()") => format!("call {same} in its new form"),
            other => format!("use {other} instead of {name}"),
        };
        if let Some(rule) = e.rewrite.get(name) {
            let arity = kspan_evolve::KernelView::arity(job.home, name)
                .unwrap_or(0)
                .max(holes(&rule.to));
            let template = if holes(&rule.to) == 0
                && kspan_evolve::KernelView::arity(job.home, name).is_none()
            {
                Template {
                    statement: rule.statement,
                    ..Template::name(&rule.to)
                }
            } else {
                let folded = with_partners(job, &rule.to).unwrap_or_default();
                let folded = folded.replace("{value}", &format!("{{{arity}}}"));
                let arity = arity + usize::from(rule.folds.is_some());
                Template::of_rule(&folded, arity, rule.statement)
            };
            let known = with_partners(job, &rule.to).is_some();
            let made = answer(job, template, e, plain).filter(|_| known);
            out.extend(made.map(|a| Answer {
                folds: rule.folds.clone(),
                when: rule.when.clone(),
                inside: rule.inside.clone(),
                sets: e.upgrade.sets.clone(),
                ..a
            }));
        }
        let texts = Definitions::read(e.text().unwrap_or_default());
        // A text that also changes what another name means is no matter of this name's uses alone.
        if texts
            .names()
            .any(|n| texts.is_macro(n) && !e.provides.iter().any(|p| p == n))
        {
            return out;
        }
        if let Some(template) = texts.template(name).and_then(|t| resolved(job, t, DEPTH)) {
            out.extend(answer(job, template, e, plain));
        }
        out.extend(helper(job, name, e, &texts));
        return out;
    }
    out.extend(from_home(job, name));
    out
}

fn answer(
    job: &Job<'_>,
    template: Template,
    e: &Evolution,
    subject: impl Fn(&Template) -> String,
) -> Option<Answer> {
    // What the driver writes must be the target's own API.
    let known = lex::calls(&template.body)
        .iter()
        .all(|c| job.target.has(c) || c.starts_with("__builtin") || is_plain(c));
    let own = !template.body.contains("kspan_") || template.body.contains("kspan_arg_");
    let subject = match template.body.is_empty() {
        true => format!("drop {}", e.provides.join(", ")),
        false => subject(&template),
    };
    (known && own).then(|| Answer {
        reason: super::member::of_evolution(e, subject),
        includes: e.includes.clone(),
        helper: None,
        folds: None,
        when: BTreeMap::new(),
        inside: None,
        sets: Vec::new(),
        template,
    })
}

fn is_plain(word: &str) -> bool {
    matches!(
        word,
        "typeof" | "sizeof" | "__typeof__" | "container_of" | "kspan_arg_0" | "kspan_arg_1"
    )
}

/// A rule in which `{name.1}` is the text of that argument of the driver's only call of `name`; `None` where it has none, or several.
#[must_use]
pub fn with_partners(job: &Job<'_>, rule: &str) -> Option<String> {
    let mut out = rule.to_owned();
    while let Some((open, name, number)) = partner(&out) {
        let mut calls = job.sources().flat_map(|(_, text)| {
            let list = sites(text, &name, None).into_iter();
            list.filter_map(|s| s.call.map(|(_, given)| given))
        });
        let (Some(given), None) = (calls.next(), calls.next()) else {
            return None;
        };
        let value = given.get(number)?.text.clone();
        let close = open + out.get(open..)?.find('}')?;
        out.replace_range(open..=close, &value);
    }
    Some(out)
}

/// The first `{name.1}` of a rule: where it starts, the name and the number.
fn partner(rule: &str) -> Option<(usize, String, usize)> {
    let holes = rule.match_indices('{');
    holes
        .filter_map(|(open, _)| {
            let inner = rule.get(open + 1..)?.split('}').next()?;
            let (name, number) = inner.split_once('.')?;
            Some((open, name.to_owned(), number.parse().ok()?))
        })
        .next()
}

/// How many holes a rule has.
fn holes(rule: &str) -> usize {
    (0..10)
        .rev()
        .find(|i| rule.contains(&format!("{{{i}}}")))
        .map_or(0, |i| i + 1)
}

/// The name that the replacement leads with, for a subject.
fn called(template: &Template) -> String {
    let calls = lex::calls(&template.body);
    match calls.first() {
        Some(name) => format!("{name}()"),
        None => template
            .body
            .replace("kspan_arg_0->", "->")
            .replace("kspan_arg_0", "the object"),
    }
}

/// The evolution that gives a name; an override only in the form that the home kernel has.
fn evolution<'a>(job: &Job<'a>, name: &str) -> Option<&'a Evolution> {
    let home = job.home;
    let fits = |e: &&Evolution| match &e.kind {
        Kind::Override { home_arity, .. } => home_arity
            .iter()
            .all(|(n, count)| kspan_evolve::KernelView::arity(home, n) == Some(*count)),
        _ => true,
    };
    // A text that gives other names of the target another meaning is for an overlay alone, unless the rule says what to write.
    let of_an_overlay = |e: &&Evolution| {
        let texts = Definitions::read(e.text().unwrap_or_default());
        let other =
            |n: &str| texts.is_macro(n) && job.target.has(n) && !e.provides.iter().any(|p| p == n);
        texts.names().any(other)
    };
    job.library
        .for_name(name)
        .into_iter()
        .filter(fits)
        .filter(|e| e.rewrite.contains_key(name) || !of_an_overlay(e))
        .find(|e| e.applies_to(job.target))
}

/// A template in which every name of the home kernel alone is written out in turn; `None` where one cannot be.
fn resolved(job: &Job<'_>, template: Template, depth: usize) -> Option<Template> {
    let params = template.params.clone().unwrap_or_default();
    let lacking = |w: &String| !params.contains(w) && !job.target.has(w) && job.home.has(w);
    let Some(word) = lex::words(&template.body).into_iter().find(|w| lacking(w)) else {
        return Some(template);
    };
    let depth = depth.checked_sub(1)?;
    let inner = match evolution(job, &word) {
        Some(e) => Definitions::read(e.text().unwrap_or_default()).template(&word)?,
        None => definition_at_home(job, &word)?,
    };
    let inner = resolved(job, inner, depth)?;
    let body = template.body.clone();
    let found = sites(&body, &word, None);
    let edits: Vec<Edit> = found
        .iter()
        .map(|s| s.replaced_by(&body, &inner))
        .collect::<Result<_, _>>()
        .ok()?;
    let body = String::from_utf8(super::edit::apply(body.as_bytes(), &edits).text).ok()?;
    resolved(job, Template { body, ..template }, depth)
}

/// The home kernel's own small definition of a name.
fn definition_at_home(job: &Job<'_>, name: &str) -> Option<Template> {
    let defs = job.home.facts.defs(name);
    let small = |d: &Def| match &d.detail {
        Detail::Macro { .. } | Detail::Function { body: true, .. } => {
            Definitions::read(&d.text).template(name)
        }
        _ => None,
    };
    defs.iter().find_map(small)
}

/// The home kernel's definition, where it leads to the target's API and is no mere number.
fn from_home(job: &Job<'_>, name: &str) -> Option<Answer> {
    let template = resolved(job, definition_at_home(job, name)?, DEPTH)?;
    let params = template.params.clone().unwrap_or_default();
    let words: Vec<String> = lex::words(&template.body)
        .into_iter()
        .filter(|w| !params.contains(w))
        .collect();
    let leads_on = template.body.is_empty() || words.iter().any(|w| job.target.has(w) && w != name);
    let constant = template.params.is_none()
        && !words
            .iter()
            .all(|w| job.target.has(w) && template.body == *w);
    let same_name = words.iter().any(|w| w == name);
    if !leads_on || constant && !template.body.is_empty() || same_name || template.body.len() > 60 {
        return None;
    }
    let at_home = &job.home.kernel.release;
    let subject = match template.body.is_empty() {
        true => format!("drop {name}"),
        false => format!("use {} instead of {name}", called(&template)),
    };
    let stands = if template.body.is_empty() {
        "nothing".to_owned()
    } else {
        format!("`{}`", spoken(&template))
    };
    Some(Answer {
        reason: Reason {
            id: format!("generated: {name}"),
            subject,
            why: format!("{name} is gone from the kernel; on {at_home} it stood for {stands}."),
            commit: String::new(),
            risk: Risk::None,
            meaning: String::new(),
            keeps: false,
        },
        includes: words
            .iter()
            .filter(|w| job.target.has(w))
            .filter_map(|w| job.target.header_of(w))
            .collect(),
        helper: None,
        folds: None,
        when: BTreeMap::new(),
        inside: None,
        sets: Vec::new(),
        template,
    })
}

fn spoken(template: &Template) -> &str {
    &template.body
}

/// A function of the evolution's text as the driver's own, and calls of it.
fn helper(job: &Job<'_>, name: &str, e: &Evolution, texts: &Definitions) -> Option<Answer> {
    let (function, _, template) = texts.helper(name)?;
    let lacking = e.needs.iter().any(|n| !job.target.has(n));
    if lacking || e.risk > kspan_evolve::Risk::Default {
        return None;
    }
    // Everything of the text but macros that lead to it; one name may need several functions.
    let mut whole = functions_of(e.text().unwrap_or_default());
    let mut body = template.body.clone();
    let plain = function.trim_start_matches("kspan_").to_owned();
    for own in texts.names() {
        let to = if own == function {
            job.own_name(&plain)
        } else {
            job.own_name(own.trim_start_matches("kspan_"))
        };
        if !texts.is_macro(own) {
            whole = lex::rename(&whole, own, &to);
            body = lex::rename(&body, own, &to);
        }
    }
    let mut reason = super::member::of_evolution(e, format!("add a helper of its own for {name}"));
    reason.keeps = true;
    reason.id = format!("{} ({name})", e.id);
    Some(Answer {
        reason,
        includes: e.includes.clone(),
        helper: Some(whole),
        folds: None,
        when: BTreeMap::new(),
        inside: None,
        sets: Vec::new(),
        template: Template { body, ..template },
    })
}

/// A text without its directives.
fn functions_of(text: &str) -> String {
    let mut out = String::new();
    let mut continued = false;
    for line in text.lines() {
        let directive = continued || line.trim_start().starts_with('#');
        continued = directive && line.ends_with('\\');
        if !directive {
            out.push_str(line);
            out.push('\n');
        }
    }
    out.trim().to_owned() + "\n"
}

/// Every use by the first answer that suits it; all uses or none.
fn written(job: &mut Job<'_>, places: &Places, answers: &[Answer]) -> Result<bool, String> {
    let mut by_answer: BTreeMap<usize, Vec<(PathBuf, Edit)>> = BTreeMap::new();
    for (file, list) in places {
        let text = job.text(file)?;
        for site in list
            .iter()
            .filter(|s| !job.changes.spares(file, s.word.start))
        {
            let callbacks = job.callbacks_at(file, site.word.start);
            let (index, edits) = suited(text, site, answers, &callbacks)?;
            let all = by_answer.entry(index).or_default();
            all.extend(edits.into_iter().map(|e| (file.clone(), e)));
        }
    }
    if by_answer.is_empty() {
        // A type has no uses of this kind, and no answer: a definition may do.
        let made = "a macro of the kernel makes it, the driver does not write it";
        return Err(if answers.is_empty() { "" } else { made }.to_owned());
    }
    let mut changed = false;
    for (index, mut edits) in by_answer {
        let Some(answer) = answers.get(index) else {
            continue;
        };
        let files: BTreeSet<PathBuf> = edits.iter().map(|(f, _)| f.clone()).collect();
        for file in files.iter().filter(|_| answer.helper.is_some()) {
            let helper = answer.helper.as_deref().unwrap_or_default();
            edits.push((file.clone(), job.definition(file, helper)?));
        }
        let set = super::together::tables(job, &answer.sets)?;
        edits.extend(set.edits);
        changed |= job.changes.add(&answer.reason, edits)?;
        job.include_all(&answer.reason, &answer.includes, files)?;
        job.include_each(&answer.reason, set.headers)?;
    }
    Ok(changed)
}

/// The first answer that suits a use, and its edits; else why the first of them does not.
fn suited(
    text: &str,
    site: &Site,
    answers: &[Answer],
    callbacks: &[String],
) -> Result<(usize, Vec<Edit>), String> {
    let mut refusal = String::new();
    for (index, answer) in answers.iter().enumerate() {
        if answer
            .inside
            .as_ref()
            .is_some_and(|i| !callbacks.contains(i))
        {
            continue;
        }
        match edits_of(text, site, answer) {
            Ok(edits) => return Ok((index, edits)),
            Err(why) if refusal.is_empty() => refusal = why,
            Err(_) => {}
        }
    }
    Err(refusal)
}

fn edits_of(text: &str, site: &Site, answer: &Answer) -> Result<Vec<Edit>, String> {
    let given = site
        .call
        .as_ref()
        .map(|(_, a)| a.as_slice())
        .unwrap_or_default();
    let is_one_of = |(number, texts): (&String, &Vec<String>)| {
        let argument = number.parse::<usize>().ok().and_then(|n| given.get(n));
        argument.is_some_and(|a| texts.contains(&a.text))
    };
    if !answer.when.iter().all(is_one_of) {
        return Err("its arguments are others than the evolution speaks of".to_owned());
    }
    let Some(member) = &answer.folds else {
        return Ok(vec![site.replaced_by(text, &answer.template)?]);
    };
    let (call, gone) = folded(text, site, &answer.template, member)
        .ok_or_else(|| format!("no statement below the call sets .{member}"))?;
    Ok(vec![call, gone])
}

/// A call and the statement below it that sets a member of its object, as one call.
fn folded(text: &str, site: &Site, template: &Template, member: &str) -> Option<(Edit, Edit)> {
    let (whole, given) = site.call.as_ref()?;
    let object = given.first()?.text.as_str();
    let place = match object.strip_prefix('&') {
        Some(inner) => format!("{inner}.{member}"),
        None => format!("{object}->{member}"),
    };
    let end = block_end(text, whole.end)?;
    let at = whole.end + text.get(whole.end..end)?.find(&place)?;
    let before = text.get(..at)?.trim_end();
    let equals = at + place.len() + text.get(at + place.len()..)?.find('=')?;
    let plain = text.get(at + place.len()..equals)?.trim().is_empty()
        && text.as_bytes().get(equals + 1) != Some(&b'=');
    let stop = lex::expression_end(text.as_bytes(), equals + 1)?;
    let value = text.get(equals + 1..stop)?.trim();
    if !plain || !before.ends_with([';', '}']) || super::template::has_side_effects(value) {
        return None;
    }
    let start = equals + 1 + text.get(equals + 1..stop)?.find(value)?;
    let mut arguments = given.clone();
    arguments.push(Argument {
        range: start..start + value.len(),
        text: value.to_owned(),
    });
    let pieces = super::sites::in_lines(text, whole.start, template.expand(&arguments).ok()?);
    let call = Edit {
        start: whole.start,
        end: whole.end,
        pieces,
    };
    Some((
        call,
        Edit::delete(super::sites::whole_lines(text, at..stop + 1)),
    ))
}

/// Where the block that holds a place ends, or the next block in it begins.
fn block_end(text: &str, from: usize) -> Option<usize> {
    let rest = text.get(from..)?;
    let brace = |(token, _): &(lex::Token, std::ops::Range<usize>)| {
        matches!(token, lex::Token::Punct(b'{' | b'}'))
    };
    lex::tokens(rest.as_bytes())
        .find(brace)
        .map(|(_, r)| from + r.start)
}

/// The home kernel's definition as one of the driver's own: in the first of its headers that the source file reads the name in, else in
/// the source file.
fn kept(job: &mut Job<'_>, tu: usize, name: &str) -> Result<bool, String> {
    let Some(tu) = job.built.tus.get(tu) else {
        return Err("no such source file".to_owned());
    };
    let uses = tu.tu.uses.iter().filter(|u| u.name == name);
    let readers: BTreeSet<&Path> = uses.map(|u| u.at.file.as_path()).collect();
    let own = |f: &Path| job.built.relative(f).map(Path::to_path_buf);
    let headers = read_in_order(tu, &job.built.dir.join(&tu.source));
    let file = headers
        .into_iter()
        .find(|f| readers.contains(f))
        .and_then(own)
        .filter(|f| job.text(f).is_ok())
        .unwrap_or_else(|| tu.source.clone());
    keep(job, &file, name)
}

/// What a file includes, each before what includes it.
fn read_in_order<'t>(tu: &'t HomeTu, file: &Path) -> Vec<&'t Path> {
    fn walk<'t>(
        tu: &'t HomeTu,
        file: &Path,
        seen: &mut BTreeSet<&'t Path>,
        out: &mut Vec<&'t Path>,
    ) {
        let mut inner: Vec<_> = tu
            .tu
            .includes
            .iter()
            .filter(|(at, ..)| at.file == file)
            .collect();
        inner.sort_by_key(|(at, ..)| at.line);
        for path in inner.into_iter().filter_map(|(.., path)| path.as_deref()) {
            if seen.insert(path) {
                walk(tu, path, seen, out);
                out.push(path);
            }
        }
    }
    let (mut seen, mut out) = (BTreeSet::new(), Vec::new());
    walk(tu, file, &mut seen, &mut out);
    out
}

/// A definition, with what it needs, as one of a file's own.
///
/// # Errors
/// Says why there is none, or why it is more than a driver should carry.
pub fn keep(job: &mut Job<'_>, file: &Path, name: &str) -> Result<bool, String> {
    let wants = Wants {
        names: BTreeSet::from([name.to_owned()]),
        ..Wants::default()
    };
    let none = BTreeSet::new();
    let sources = Sources {
        stubs: &none,
        home: job.home,
        target: job.target,
        library: job.library,
        lift: None,
        exports: &job.built.exports,
        whole: &none,
    };
    let closure = Closure::compute(&sources, &wants);
    if let Some(why) = closure.refused.get(name) {
        return Err(why.clone());
    }
    if let Some(why) = too_much(job, name, &closure.units) {
        return Err(why);
    }
    let mut changed = false;
    for unit in &closure.units {
        changed |= keep_one(job, file, unit)?;
    }
    let reason = reason_of_kept(job, name, closure.units.last());
    job.include_all(
        &reason,
        &closure.includes.iter().cloned().collect::<Vec<_>>(),
        BTreeSet::from([file.to_path_buf()]),
    )?;
    Ok(changed)
}

/// Why definitions that belong together are more than a driver should carry in its own source.
fn too_much(job: &Job<'_>, name: &str, units: &[Unit]) -> Option<String> {
    // A text that gives a name of the target another meaning is an overlay, wherever it stands.
    let redefines = |u: &Unit| {
        let texts = Definitions::read(&u.text);
        texts
            .names()
            .any(|n| texts.is_macro(n) && job.target.has(n))
    };
    let stands_in = |u: &&Unit| {
        u.kind == RemedyKind::Alias && u.risk > Risk::Default
            || u.kind == RemedyKind::Lift
            || u.replaces
            || redefines(u)
    };
    if let Some(unit) = units.iter().find(stands_in) {
        return Some(format!(
            "{name} has nothing in its place on the target: a port stands in for {}, a driver of its own must be rewritten",
            unit.name
        ));
    }
    (units.len() > MOST_KEPT).then(|| {
        format!(
            "{name} and what it needs are {} definitions that the target's kernel no longer has",
            units.len()
        )
    })
}

fn reason_of_kept(job: &Job<'_>, name: &str, unit: Option<&Unit>) -> Reason {
    let origin = unit.map_or("", |u| u.origin.as_str());
    Reason {
        id: format!("generated: keep {name}"),
        subject: format!(
            "define {} locally",
            name.replace("kspan_", &job.own_name(""))
        ),
        why: format!(
            "{name} is gone from the kernel's headers, and {} has nothing in its place. The driver takes its definition along ({origin}).",
            job.target.kernel.release
        ),
        commit: String::new(),
        risk: unit.map_or(Risk::None, |u| u.risk),
        meaning: unit.map_or(String::new(), |u| u.meaning.clone()),
        keeps: true,
    }
}

fn keep_one(job: &mut Job<'_>, file: &Path, unit: &Unit) -> Result<bool, String> {
    if !job.kept.insert((file.to_path_buf(), unit.name.clone())) {
        return Ok(false);
    }
    let own = job.own_name("");
    let text = unit.text.replace("kspan_", &own);
    let edit = job.definition(file, &text)?;
    let reason = reason_of_kept(job, &unit.name, Some(unit));
    job.changes.add(&reason, vec![(file.to_path_buf(), edit)])
}

/// Pieces as text, against a source.
#[must_use]
pub fn text_of(pieces: &[Piece], source: &str) -> String {
    let one = |p: &Piece| match p {
        Piece::Text(t) => t.clone(),
        Piece::Kept(s, e) => source.get(*s..*e).unwrap_or_default().to_owned(),
    };
    pieces.iter().map(one).collect()
}

/// A template's text for arguments given as text.
#[must_use]
pub fn filled(template: &Template, values: &[&str]) -> Option<String> {
    let mut scratch = String::new();
    let mut arguments = Vec::new();
    for value in values {
        let start = scratch.len();
        scratch.push_str(value);
        arguments.push(Argument {
            range: start..scratch.len(),
            text: (*value).to_owned(),
        });
        scratch.push('\n');
    }
    Some(text_of(&template.expand(&arguments).ok()?, &scratch))
}

#[cfg(test)]
mod tests {
    use super::super::edit::apply;
    use super::*;

    #[test]
    fn a_partner_is_named_with_its_argument() {
        assert_eq!(
            partner("f({0}, {reg_it.1})"),
            Some((7, "reg_it".to_owned(), 1))
        );
        assert_eq!(partner("f({0}, {1})"), None);
    }

    #[test]
    fn what_is_set_below_a_call_goes_into_it() {
        let text = "{\n\tinit(&p->t, A);\n\tp->x = 1;\n\tp->t.function = tick;\n\treturn;\n}\n";
        let template = Template::of_rule("setup({0}, {2}, {1})", 3, false);
        let site = &sites(text, "init", None)[0];
        let (call, gone) = folded(text, site, &template, "function").unwrap();
        let done = String::from_utf8(apply(text.as_bytes(), &[call, gone]).text).unwrap();
        assert_eq!(
            done,
            "{\n\tsetup(&p->t, tick, A);\n\tp->x = 1;\n\treturn;\n}\n"
        );
        for other in [
            "init(&p->t, A); q->t.function = f; }",
            "init(&p->t, A); if (a) { p->t.function = f; } }",
            "init(&p->t, A); a = p->t.function == f; }",
        ] {
            assert!(
                folded(other, &sites(other, "init", None)[0], &template, "function").is_none(),
                "{other}"
            );
        }
    }
}
