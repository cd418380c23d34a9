//! Changes of several places that belong together, as an evolution's `upgrade` table says them: a member that became constant
//! and is written by calls now, a structure's part that drivers keep themselves and ask room for, a function that a macro calls.

use super::callback::{Known, Reshape};
use super::change::Reason;
use super::edit::{Edit, Piece};
use super::job::Job;
use super::member::{self, At};
use super::sites::sites;
use super::template::is_primary;
use kspan_evolve::{Evolution, InUpgrade, Sets};
use kspan_facts::{Param, Signature};
use kspan_port::lex;
use kspan_port::member as place_of;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;

/// A hole of a form.
enum Part {
    /// New text.
    Text(String),
    /// A range of the source.
    Kept(Range<usize>),
}

/// A form with its holes filled.
fn filled(form: &str, parts: &[Part]) -> Vec<Piece> {
    let mut out = Vec::new();
    let mut rest = form;
    // Braces of C around a hole hold no number.
    let hole = |text: &str| {
        text.match_indices('{').find_map(|(open, _)| {
            let number = text.get(open + 1..)?.split('}').next()?;
            Some((open, number.len() + 2, number.parse::<usize>().ok()?))
        })
    };
    while let Some((open, length, number)) = hole(rest) {
        out.push(Piece::Text(rest.get(..open).unwrap_or_default().to_owned()));
        match parts.get(number) {
            Some(Part::Text(t)) => out.push(Piece::Text(t.clone())),
            Some(Part::Kept(r)) => out.push(Piece::Kept(r.start, r.end)),
            None => {}
        }
        rest = rest.get(open + length..).unwrap_or_default();
    }
    out.push(Piece::Text(rest.to_owned()));
    out
}

/// Writes to members whose data is constant on the target become calls.
pub fn settle_constants(job: &mut Job<'_>) {
    let writes = |e: &&Evolution| e.upgrade.is_of_constant();
    let (library, target) = (job.library, job.target);
    for e in library.all().iter().filter(writes) {
        let kspan_evolve::Kind::Access { record, field, .. } = &e.kind else {
            continue;
        };
        if !e.applies_to(target) || !became_constant(job, record, field) {
            continue;
        }
        let mut edits = Vec::new();
        for (file, at) in member::uses(job, record, field) {
            if let Some(edit) = job
                .text(&file)
                .ok()
                .and_then(|text| written(text, at, field, &e.upgrade))
            {
                edits.push((file, edit));
            }
        }
        let files: BTreeSet<PathBuf> = edits.iter().map(|(f, _)| f.clone()).collect();
        let reason = member::of_evolution(
            e,
            format!("do not write to struct {record}.{field} directly"),
        );
        // What disagrees is left to the compiler, which then names the place.
        if job.changes.add(&reason, edits) == Ok(true) {
            let _ = job.include_all(&reason, &e.includes, files);
        }
    }
}

/// Structures that have another name, in all of the driver.
pub fn settle_tags(job: &mut Job<'_>) {
    let (library, home, target) = (job.library, job.home, job.target);
    let renames = |e: &&Evolution| !e.upgrade.renames.is_empty() && e.applies_to(target);
    for e in library.all().iter().filter(renames) {
        for (from, to) in &e.upgrade.renames {
            // A function may have the new tag's name at home (`drm_atomic_commit()`).
            let is_there = |view: &kspan_port::view::View, tag: &str| view.record(tag).is_some();
            if !is_there(home, from) || is_there(home, to) || !is_there(target, to) {
                continue;
            }
            let list = |(file, text): (&PathBuf, &String)| {
                let found = super::own::renamed(text, from, true, to).unwrap_or_default();
                found
                    .into_iter()
                    .map(|e| (file.clone(), e))
                    .collect::<Vec<_>>()
            };
            let edits: Vec<(PathBuf, Edit)> = job.sources().flat_map(list).collect();
            let reason =
                member::of_evolution(e, format!("use struct {to} instead of struct {from}"));
            if !edits.is_empty() && job.changes.add(&reason, edits).is_ok() {
                job.tags.insert(from.clone(), to.clone());
            }
        }
    }
}

/// Members whose structure the target keeps to itself, or that are of another kind there, by what evolutions have for them. What
/// cannot be said so is left to the compiler, which then names the place.
pub fn settle_hidden(job: &mut Job<'_>) {
    let fields: BTreeSet<(String, String)> = job
        .built
        .tus
        .iter()
        .flat_map(|t| &t.tu.uses)
        .filter(|u| u.kind == kspan_facts::UseKind::Field)
        .filter_map(|u| Some((u.record.clone()?, u.name.clone())))
        .collect();
    for (record, field) in fields {
        let known = job.library.accesses(&record, &field);
        let Some(e) = known.into_iter().find(|e| e.applies_to(job.target)) else {
            continue;
        };
        let hidden = job.target.record(&record).is_none() && job.home.record(&record).is_some();
        let other = e.upgrade.place.is_some() && of_another_kind(job, &record, &field);
        if hidden || other {
            let _ = member::take(job, &record, &field);
        }
    }
}

/// A structure at home where the target has a pointer.
fn of_another_kind(job: &Job<'_>, record: &str, field: &str) -> bool {
    let is_pointer = |view: &kspan_port::view::View| {
        let fields = view.record(record)?;
        let found = fields.into_iter().find(|f| f.name == field)?;
        Some(found.ty.canonical.ends_with('*'))
    };
    is_pointer(job.home) == Some(false) && is_pointer(job.target) == Some(true)
}

/// A pointer of the home kernel's structure whose data the target has as constant.
fn became_constant(job: &Job<'_>, record: &str, field: &str) -> bool {
    let ty = |view: &kspan_port::view::View| {
        let fields = view.record(record)?;
        let found = fields.into_iter().find(|f| f.name == field)?;
        Some(found.ty.canonical)
    };
    let is_constant = |t: &str| t.starts_with("const ");
    matches!((ty(job.home), ty(job.target)), (Some(a), Some(b)) if !is_constant(&a) && is_constant(&b))
}

/// The edit of one use of a member that is written to; `None` for one that is only read.
fn written(text: &str, at: usize, field: &str, forms: &InUpgrade) -> Option<Edit> {
    let (whole, object) = place_of::expression(text.as_bytes(), at, field)?;
    let object = member::bare_pointer(&object);
    match forms.element.as_deref() {
        Some(form) if follows(text, whole.end) == Some('[') => element(text, &whole, object, form),
        _ => {
            assigned(text, &whole, &object, forms).or_else(|| handed(text, &whole, &object, forms))
        }
    }
}

/// `object->member = value` as a statement, by the form for its operator.
fn assigned(text: &str, whole: &Range<usize>, object: &str, forms: &InUpgrade) -> Option<Edit> {
    let by = |operator: &str| {
        let mut at = whole.end;
        for word in operator.split(' ') {
            let rest = text.get(at..)?;
            at += rest.len() - rest.trim_start().len();
            at = text
                .get(at..)?
                .starts_with(word)
                .then_some(at + word.len())?;
        }
        (operator != "=" || !text.get(at..)?.starts_with('=')).then_some(at)
    };
    let mut forms = forms.assign.iter();
    let (operator, form, from) = forms.find_map(|(o, f)| Some((o, f, by(o)?)))?;
    let end = lex::expression_end(text.as_bytes(), from)?;
    let value = trimmed(text, from..end)?;
    // `~` is of what stands right behind it: `~A & ~B` is another value.
    if operator.ends_with('~') && !is_primary(text.get(value.clone())?) {
        return None;
    }
    let parts = [
        Part::Text(object.to_owned()),
        Part::Kept(unwrapped(text, value.clone())),
    ];
    (text.as_bytes().get(end) == Some(&b';') && opens_statement(text, whole.start)).then(|| Edit {
        start: whole.start,
        end: value.end,
        pieces: filled(form, &parts),
    })
}

/// An expression without the brackets that are all around it.
fn unwrapped(text: &str, range: Range<usize>) -> Range<usize> {
    let bytes = text.as_bytes();
    let all = bytes.get(range.start) == Some(&b'(')
        && lex::closing(bytes, range.start) == range.end.checked_sub(1);
    if all {
        range.start + 1..range.end - 1
    } else {
        range
    }
}

fn follows(text: &str, at: usize) -> Option<char> {
    text.get(at..)?.trim_start().chars().next()
}

/// `object->member[index] = value`.
fn element(text: &str, whole: &Range<usize>, object: String, form: &str) -> Option<Edit> {
    let bytes = text.as_bytes();
    let open = whole.end + text.get(whole.end..)?.find('[')?;
    let close = lex::closing(bytes, open)?;
    let equals = close + 1 + text.get(close + 1..)?.find(|c: char| !c.is_whitespace())?;
    let rest = text.get(equals..)?;
    if !rest.starts_with('=') || rest.starts_with("==") {
        return None;
    }
    let end = lex::expression_end(bytes, equals + 1)?;
    let value = trimmed(text, equals + 1..end)?;
    let parts = [
        Part::Text(object),
        Part::Kept(trimmed(text, open + 1..close)?),
        Part::Kept(value.clone()),
    ];
    (bytes.get(end) == Some(&b';') && opens_statement(text, whole.start)).then(|| Edit {
        start: whole.start,
        end: value.end,
        pieces: filled(form, &parts),
    })
}

fn trimmed(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let inner = text.get(range.clone())?;
    let start = range.start + (inner.len() - inner.trim_start().len());
    Some(start..start + inner.trim().len())
}

/// What stands there is the start of a statement, not a part of an expression.
fn opens_statement(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default().trim_end();
    before.ends_with([';', '{', '}', ')', ':'])
        || before.ends_with("else")
        || before.ends_with("do")
}

/// The member is the first argument of a call that fills it.
fn handed(text: &str, whole: &Range<usize>, object: &str, forms: &InUpgrade) -> Option<Edit> {
    for (name, form) in &forms.into {
        for site in sites(text, name, None) {
            let Some((call, given)) = &site.call else {
                continue;
            };
            if given.first().is_none_or(|a| a.range != *whole) {
                continue;
            }
            let mut parts = vec![Part::Text(object.to_owned())];
            parts.extend(given.iter().skip(1).map(|a| Part::Kept(a.range.clone())));
            return Some(Edit {
                start: call.start,
                end: call.end,
                pieces: filled(form, &parts),
            });
        }
    }
    None
}

/// A member that drivers keep themselves: each use by the evolution's place, its definitions, and the initialisers of tables.
///
/// # Errors
/// Says what in the driver does not fit.
pub fn moved(
    job: &mut Job<'_>,
    uses: &[At],
    (record, field): (&str, &str),
    e: &Evolution,
) -> Result<bool, String> {
    let own = job.own_name("");
    let place = e.upgrade.place.as_deref().unwrap_or_default();
    let mut edits = Vec::new();
    for (file, at) in uses {
        let edit = placed(job.text(file)?, *at, field, place)
            .ok_or_else(|| format!("struct {record}.{field} is used in an unusual way"))?;
        edits.push((file.clone(), member::with_own_names(edit, &own)));
    }
    let files: BTreeSet<PathBuf> = uses.iter().map(|(f, _)| f.clone()).collect();
    if let Some(text) = &e.upgrade.text {
        for file in &files {
            let edit = job.definition(file, &text.replace("kspan_", &own))?;
            edits.push((file.clone(), edit));
        }
    }
    let set = tables(job, &e.upgrade.sets)?;
    edits.extend(set.edits);
    let reason: Reason = member::of_evolution(e, format!("do without struct {record}.{field}"));
    let changed = job.changes.add(&reason, edits)?;
    job.include_all(&reason, &e.includes, files)?;
    job.include_each(&reason, set.headers)?;
    Ok(changed)
}

/// `*f(x)` as a place: `(*f(x)).a` is `f(x)->a`, and `&*f(x)` is `f(x)`.
fn placed(text: &str, at: usize, field: &str, form: &str) -> Option<Edit> {
    let (mut whole, object) = place_of::expression(text.as_bytes(), at, field)?;
    let words = form.replace("{0}", &member::bare_pointer(&object));
    let Some(pointer) = words.strip_prefix('*') else {
        return Some(Edit::replace(whole, words));
    };
    if follows(text, whole.end) == Some('.') {
        let dot = whole.end + text.get(whole.end..)?.find('.')?;
        return Some(Edit::replace(whole.start..dot + 1, format!("{pointer}->")));
    }
    let before = text.get(..whole.start)?;
    if before.ends_with('&') && !before.ends_with("&&") {
        whole.start -= 1;
        return Some(Edit::replace(whole, pointer));
    }
    Some(Edit::replace(whole, format!("(*{pointer})")))
}

/// What initialisers ask for: the edits, and the headers that files must include for them.
#[derive(Default)]
pub struct Tables {
    /// One edit for each table.
    pub edits: Vec<(PathBuf, Edit)>,
    /// By file.
    pub headers: Vec<(PathBuf, String)>,
}

/// The initialisers in each of the driver's tables that they are for.
///
/// # Errors
/// Says why one cannot be put there, or that no table wants any.
pub fn tables(job: &Job<'_>, sets: &[Sets]) -> Result<Tables, String> {
    let mut out = Tables::default();
    for set in sets {
        let edits = initialised(job, set)?;
        if edits.is_empty() && set.beside.is_none() {
            return Err(nowhere(set));
        }
        for (file, edit) in edits {
            out.headers
                .extend(set.header.clone().map(|h| (file.clone(), h)));
            out.edits.push((file, edit));
        }
    }
    match sets.first().filter(|_| out.edits.is_empty()) {
        Some(set) => Err(nowhere(set)),
        None => Ok(out),
    }
}

fn nowhere(set: &Sets) -> String {
    format!(
        "the driver writes out no struct {} where .{} can be set",
        set.record, set.field
    )
}

fn initialised(job: &Job<'_>, set: &Sets) -> Result<Vec<(PathBuf, Edit)>, String> {
    let mut out = Vec::new();
    let value = super::names::with_partners(job, &set.value)
        .ok_or_else(|| format!("what .{} must be is not known", set.field))?;
    for (file, text) in job.sources() {
        for (_, range) in super::tables::initialised(text, &set.record) {
            let inner = text.get(range.clone()).unwrap_or_default();
            let is_meant = |name: &String| lex::words(inner).contains(name);
            if !set.beside.as_ref().is_none_or(is_meant) {
                continue;
            }
            if lex::members(inner).contains(&set.field) {
                return Err(format!(
                    "a struct {} of the driver has its own .{} already",
                    set.record, set.field
                ));
            }
            let line = match set.whole {
                true => format!("\n\t{value},"),
                false => format!("\n\t.{} = {value},", set.field),
            };
            out.push((file.clone(), Edit::insert(range.start, line)));
        }
    }
    Ok(out)
}

/// The evolution of a macro of the kernel that calls this function of the driver, and the function's new form.
#[must_use]
pub fn made<'a>(job: &Job<'a>, function: &str) -> Option<(&'a Evolution, Result<Reshape, String>)> {
    let library = job.library;
    let calls = |e: &&Evolution| {
        let Some(made) = &e.upgrade.function else {
            return false;
        };
        let named = |argument: &str| made.name.replace("{0}", argument) == function;
        e.applies_to(job.target)
            && e.provides.iter().any(|maker| {
                job.sources().any(|(_, text)| {
                    sites(text, maker, None).iter().any(|s| {
                        let first = s.call.as_ref().and_then(|(_, a)| a.first());
                        first.is_some_and(|a| named(&a.text))
                    })
                })
            })
    };
    let e = library.all().iter().find(calls)?;
    let drops = &e.upgrade.function.as_ref()?.drops;
    let have = job.signature(function)?;
    let stays = |p: &&Param| !drops.contains_key(&p.ty.canonical);
    let want = Signature {
        params: have.params.iter().filter(stays).cloned().collect(),
        ..have.clone()
    };
    if want.params.len() == have.params.len() {
        return None;
    }
    let known = Known {
        params: drops.clone(),
        ret: None,
        forward: None,
    };
    let words = job.words_of(function);
    Some((e, Reshape::new(function, &have, &want, &known, &words)))
}

#[cfg(test)]
mod tests {
    use super::super::edit::apply;
    use super::*;

    #[test]
    fn an_assignment_to_a_constant_member_becomes_a_call() {
        let forms = InUpgrade {
            assign: [
                ("=".to_owned(), "reset({0}, {1})".to_owned()),
                ("|=".to_owned(), "set({0}, {1})".to_owned()),
                ("&= ~".to_owned(), "clear({0}, {1})".to_owned()),
            ]
            .into(),
            ..InUpgrade::default()
        };
        let made = |text: &str| {
            let at = text.find("flags").unwrap();
            let edit = written(text, at, "flags", &forms)?;
            Some(
                String::from_utf8(super::super::edit::apply(text.as_bytes(), &[edit]).text)
                    .unwrap(),
            )
        };
        for (from, to) in [
            ("{ v->flags |= A | B; }", "{ set(v, A | B); }"),
            ("{ v.flags &= ~(A | B); }", "{ clear(&v, A | B); }"),
            ("{ v->flags &= ~A; }", "{ clear(v, A); }"),
            ("{ v->flags = A; }", "{ reset(v, A); }"),
        ] {
            assert_eq!(made(from).as_deref(), Some(to));
        }
        for kept in [
            "{ x = v->flags; }",
            "{ if (v->flags == A) ; }",
            "{ v->flags &= A; }",
            "{ v->flags &= ~A & ~B; }",
            "{ v->flags &= ~(A) | B; }",
        ] {
            assert_eq!(made(kept), None, "{kept}");
        }
    }
    use std::collections::BTreeMap;

    fn constant() -> InUpgrade {
        InUpgrade {
            element: Some("mod({0}, {1}, &(u8){ {2} }, 1)".to_owned()),
            into: BTreeMap::from([("memcpy".to_owned(), "set({0}, {1}, {2})".to_owned())]),
            ..InUpgrade::default()
        }
    }

    fn rewritten(text: &str, edit: Option<Edit>) -> Option<String> {
        String::from_utf8(apply(text.as_bytes(), &[edit?]).text).ok()
    }

    #[test]
    fn writes_to_a_constant_member_become_calls() {
        let cases = [
            (
                "\tfor (;;)\n\t\tdev->addr[i] = f(i) & 1;\n",
                "\tfor (;;)\n\t\tmod(dev, i, &(u8){ f(i) & 1 }, 1);\n",
            ),
            (
                "{ a.dev.addr[0] = 1; }",
                "{ mod(&a.dev, 0, &(u8){ 1 }, 1); }",
            ),
            (
                "{ memcpy(dev->addr, p + 1, 6); }",
                "{ set(dev, p + 1, 6); }",
            ),
        ];
        for (from, to) in cases {
            let at = from.find("addr").unwrap();
            let done = rewritten(from, written(from, at, "addr", &constant()));
            assert_eq!(done.as_deref(), Some(to));
        }
        for read in [
            "x = dev->addr[0];",
            "{ memcpy(p, dev->addr, 6); }",
            "if (dev->addr[0] == 1)",
        ] {
            let at = read.find("addr").unwrap();
            assert!(written(read, at, "addr", &constant()).is_none(), "{read}");
        }
    }

    #[test]
    fn a_place_is_written_as_a_pointer_where_it_can_be() {
        for (from, to) in [
            ("c->part.x = 1;", "f(c)->x = 1;"),
            ("g(&c->part);", "g(f(c));"),
            ("sizeof(c->part)", "sizeof((*f(c)))"),
        ] {
            let at = from.find("part").unwrap();
            let done = rewritten(from, placed(from, at, "part", "*f({0})"));
            assert_eq!(done.as_deref(), Some(to));
        }
    }
}
