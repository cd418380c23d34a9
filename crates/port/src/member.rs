//! A member that the target's structure lacks: renamed, expressed by what the target has, or left out.

use crate::absent;
use crate::edit::Edit;
use crate::embedded;
use crate::gap::{RemedyKind, Risk};
use crate::home::HomeTu;
use crate::layout::{self, Bytes};
use crate::lex::{self, Token};
use crate::nested;
use crate::plan::{Context, Plan, RemedyKey};
use crate::take_up::place;
use crate::view::View;
use kspan_evolve::{Evolution, Kind};
use kspan_facts::{Use, UseKind};
use std::ops::Range;
use std::path::PathBuf;

/// A member that the target's structure lacks: renamed, or an initialiser left out.
pub fn take_up(
    plan: &mut Plan,
    ctx: &Context<'_>,
    index: usize,
    record: &str,
    field: &str,
) -> Result<bool, String> {
    let tu = &ctx.built.tus[index];
    let is_it = |u: &&Use| {
        u.kind == UseKind::Field
            && u.name == field
            && u.record.as_deref() == Some(record)
            && u.via_macro.is_none()
    };
    let uses: Vec<&Use> = tu.tu.uses.iter().filter(is_it).collect();
    if uses.is_empty() {
        return Err(format!(
            "struct {record} has no member {field} on the target"
        ));
    }
    if let Some(there) = embedded::on_target(ctx.home, ctx.target, record, field) {
        return turn(plan, ctx, &uses, (record, field), there);
    }
    if let Some(evolution) = ctx.target.renamed_field(ctx.library, record, field)
        && let Kind::Field { target, .. } = &evolution.kind
    {
        let origin = format!("evolution {}", evolution.id);
        let (risk, meaning) = (evolution.risk.into(), evolution.meaning.clone());
        return rename_member(
            plan,
            ctx,
            &uses,
            (record, field, target),
            &origin,
            risk,
            &meaning,
        );
    }
    if let Some(changed) = flatten(plan, ctx, &uses, record, field) {
        return changed;
    }
    if let Some(alias) = alias(ctx.home, ctx.target, record, field) {
        let origin = format!(
            "same place in struct {record} of {}",
            ctx.home.kernel.release
        );
        return rename_member(
            plan,
            ctx,
            &uses,
            (record, field, &alias),
            &origin,
            Risk::None,
            "",
        );
    }
    let by_rule = ctx.library.accesses(record, field);
    let by_rule = by_rule.into_iter().any(|e| e.applies_to(ctx.target));
    if !by_rule && let Some(changed) = take_bytes(plan, ctx, &uses, record, field) {
        return changed;
    }
    let refusals = ctx.library.refusals(record, field);
    if let Some(refusal) = refusals.into_iter().find(|e| e.applies_to(ctx.target)) {
        return Err(format!(
            "struct {record} has no member {field} on the target: {}",
            refusal.meaning
        ));
    }
    let dropped = ctx.library.drops(record, field);
    let dropped = dropped.into_iter().any(|e| e.applies_to(ctx.target));
    let tried = plan.not_own.contains(record);
    if !(by_rule || dropped || tried) && layout::can_be_own(ctx.home, ctx.target, record) {
        return Ok(own_structure(plan, ctx, record));
    }
    replace_uses(plan, ctx, index, &uses, record, field)
}

/// The home kernel's structure under a name of its own, for each source file that reaches into it. True when one has it new.
fn own_structure(plan: &mut Plan, ctx: &Context<'_>, record: &str) -> bool {
    let reaches = |u: &Use| u.record.as_deref() == Some(record) || u.name == record;
    let tus = ctx.built.tus.iter().zip(&mut plan.tus);
    let mut changed = false;
    for (_, wants) in tus.filter(|(tu, _)| tu.tu.uses.iter().any(reaches)) {
        changed |= wants.overrides.insert(record.to_owned());
    }
    changed
}

/// Members of an inner structure that stand in the outer one on the target (`.reset.softreset` → `.softreset`), where
/// evolutions say so for each that the driver names.
fn flatten(
    plan: &mut Plan,
    ctx: &Context<'_>,
    uses: &[&Use],
    record: &str,
    field: &str,
) -> Option<Result<bool, String>> {
    let mut edits = Vec::new();
    for used in uses {
        let (file, start, bytes) = text_at(ctx, used)?;
        let rest = bytes.get(start..)?;
        let mut tokens = lex::tokens(rest).map(|(_, range)| range);
        let (first, dot, inner) = (tokens.next()?, tokens.next()?, tokens.next()?);
        if rest.get(first)? != field.as_bytes() || rest.get(dot)? != b"." {
            return None;
        }
        let path = format!(
            "{field}.{}",
            String::from_utf8_lossy(rest.get(inner.clone())?)
        );
        let evolution = ctx.target.renamed_field(ctx.library, record, &path)?;
        let Kind::Field { target, .. } = &evolution.kind else {
            return None;
        };
        edits.push((
            file,
            Edit {
                start,
                end: start + inner.end,
                text: target.clone(),
            },
            evolution,
        ));
    }
    let mut changed = false;
    for (file, edit, evolution) in edits {
        plan.remedies.insert(RemedyKey {
            kind: RemedyKind::Rewrite,
            subject: format!("struct {record}.{field}… → .{}", edit.text),
            origin: format!("evolution {}", evolution.id),
            risk: evolution.risk.into(),
            meaning: evolution.meaning.clone(),
        });
        match plan.edits.add(&file, edit) {
            Ok(new) => changed |= new,
            Err(conflict) => return Some(Err(conflict.to_string())),
        }
    }
    Some(Ok(changed))
}

/// A callback of the home kernel that shares its place (an anonymous union holds the old and the new name) and that the
/// target has.
#[must_use]
pub fn alias(home: &View, target: &View, record: &str, field: &str) -> Option<String> {
    let fields = home.record(record)?;
    let own = fields.iter().find(|f| f.name == field)?;
    own.offset_bits?;
    let there = target.record(record)?;
    let shares = |f: &&kspan_facts::Field| {
        f.name != field
            && f.callback.is_some()
            && f.offset_bits == own.offset_bits
            && f.ty.canonical == own.ty.canonical
            && there.iter().any(|t| t.name == f.name)
    };
    fields.iter().find(shares).map(|f| f.name.clone())
}

/// The driver's file that a use stands in, where in it, and its text.
fn text_at(ctx: &Context<'_>, used: &Use) -> Option<(PathBuf, usize, Vec<u8>)> {
    let (file, start) = place(ctx, &used.at).ok()?;
    let bytes = std::fs::read(ctx.driver.dir.join(&file)).ok()?;
    Some((file, start, bytes))
}

/// A structure in a member's place by its address, or a pointer's by what it points to.
fn turn(
    plan: &mut Plan,
    ctx: &Context<'_>,
    uses: &[&Use],
    (record, field): (&str, &str),
    there: embedded::There,
) -> Result<bool, String> {
    let mut changed = false;
    for used in uses {
        let (file, start, bytes) = text_at(ctx, used)
            .ok_or_else(|| format!("struct {record}.{field} is used in no file of the driver's"))?;
        let edits = embedded::edits(&bytes, start, field, there)
            .ok_or_else(|| embedded::no_form(record, field, there))?;
        for edit in edits {
            let added = plan.edits.nest(&file, edit, &bytes);
            changed |= added.map_err(|e| e.to_string())?;
        }
    }
    plan.remedies.insert(RemedyKey {
        kind: RemedyKind::Rewrite,
        subject: format!("struct {record}.{field} by what the target has there"),
        origin: "member types".to_owned(),
        risk: Risk::None,
        meaning: String::new(),
    });
    Ok(changed)
}

/// The bytes of a wire's format by the target's name for them, or by their place; `None` where it has no such bytes.
fn take_bytes(
    plan: &mut Plan,
    ctx: &Context<'_>,
    uses: &[&Use],
    record: &str,
    field: &str,
) -> Option<Result<bool, String>> {
    const MEANING: &str =
        "the target's structure has the same layout, and calls these bytes otherwise";
    let origin = format!("layout of struct {record}");
    let at = match layout::same_bytes(ctx.home, ctx.target, record, field)? {
        Bytes::Named(other) => {
            let names = (record, field, other.as_str());
            return Some(rename_member(
                plan,
                ctx,
                uses,
                names,
                &origin,
                Risk::Default,
                MEANING,
            ));
        }
        Bytes::At(at) => at,
    };
    let mut edits = Vec::new();
    for used in uses {
        let (file, start, bytes) = text_at(ctx, used)?;
        // An initialiser names a member; there is none.
        let (range, object) = expression(&bytes, start, field)?;
        let text = at.replace("{0}", &object);
        let edit = keeping_lines(&bytes, range, text);
        edits.push((file, edit, bytes));
    }
    let mut changed = false;
    for (file, edit, bytes) in edits {
        match plan.edits.nest(&file, edit, &bytes) {
            Ok(new) => changed |= new,
            Err(conflict) => return Some(Err(conflict.to_string())),
        }
    }
    plan.remedies.insert(RemedyKey {
        kind: RemedyKind::Rewrite,
        subject: format!("struct {record}.{field} by its place"),
        origin,
        risk: Risk::Default,
        meaning: MEANING.to_owned(),
    });
    Some(Ok(changed))
}

fn rename_member(
    plan: &mut Plan,
    ctx: &Context<'_>,
    uses: &[&Use],
    (record, field, target): (&str, &str, &str),
    origin: &str,
    risk: Risk,
    meaning: &str,
) -> Result<bool, String> {
    let mut changed = false;
    for used in uses {
        let (file, start) = place(ctx, &used.at)?;
        let mut edits = vec![Edit {
            start,
            end: start + field.len(),
            text: target.to_owned(),
        }];
        let bytes = std::fs::read(ctx.driver.dir.join(&file)).map_err(|e| e.to_string())?;
        if let Some((inner, _)) = target.split_once('.')
            && initialiser(&bytes, start, field).is_some()
        {
            edits.extend(nested::spread(&bytes, start, inner)?);
        }
        for edit in edits {
            let added = plan.edits.nest(&file, edit, &bytes);
            changed |= added.map_err(|e| e.to_string())?;
        }
    }
    plan.remedies.insert(RemedyKey {
        kind: RemedyKind::Rewrite,
        subject: format!("struct {record}.{field} → .{target}"),
        origin: origin.to_owned(),
        risk,
        meaning: meaning.to_owned(),
    });
    Ok(changed)
}

/// Each use by itself: an initialiser or an assignment of a member that the target does not have is left out, or becomes what
/// an evolution says; a value that is read needs an evolution.
fn replace_uses(
    plan: &mut Plan,
    ctx: &Context<'_>,
    index: usize,
    uses: &[&Use],
    record: &str,
    field: &str,
) -> Result<bool, String> {
    let access = ctx
        .library
        .accesses(record, field)
        .into_iter()
        .find(|e| e.applies_to(ctx.target));
    let is_false = access.is_none() && absent::is_false(ctx, record, field);
    let mut edits = Vec::new();
    for used in uses {
        let (file, start) = place(ctx, &used.at)?;
        let bytes = std::fs::read(ctx.driver.dir.join(&file)).map_err(|e| e.to_string())?;
        let kept = access.is_some_and(Evolution::is_of_present_member);
        if kept && only_stored(&bytes, start, field) {
            continue;
        }
        let made = match is_false {
            true => read_as_false(&bytes, start, field),
            false => replacement(&bytes, start, field, access),
        };
        let made =
            made.ok_or_else(|| format!("struct {record} has no member {field} on the target"))?;
        edits.push((file, made, bytes));
    }
    let mut changed = false;
    let (mut dropped, mut said) = (false, false);
    for (file, made, bytes) in edits {
        for edit in made.edits {
            let added = match made.whole {
                true => plan.edits.remove(&file, edit),
                false => plan.edits.nest(&file, edit, &bytes),
            };
            changed |= added.map_err(|e| e.to_string())?;
        }
        match made.dropped {
            None => said = true,
            Some(value) => {
                dropped = true;
                spare_from_unused_warning(plan, ctx, &ctx.built.tus[index], &value);
            }
        }
    }
    let dropping = ctx
        .library
        .drops(record, field)
        .into_iter()
        .find(|e| e.applies_to(ctx.target));
    if dropped {
        plan.remedies.insert(left_out(record, field, dropping));
    }
    if is_false {
        plan.remedies.insert(reads_as_false(record, field));
    }
    if let Some(evolution) = access.filter(|_| said) {
        let wants = &mut plan.tus[index];
        wants.names.extend(evolution.needs.iter().cloned());
        wants.includes.extend(evolution.includes.iter().cloned());
        plan.remedies.insert(RemedyKey {
            kind: RemedyKind::Rewrite,
            subject: format!("struct {record}.{field} by the target's API"),
            origin: format!("evolution {}", evolution.id),
            risk: evolution.risk.into(),
            meaning: evolution.meaning.clone(),
        });
    }
    Ok(changed)
}

fn reads_as_false(record: &str, field: &str) -> RemedyKey {
    RemedyKey {
        kind: RemedyKind::Rewrite,
        subject: format!("struct {record}.{field} reads as false"),
        origin: "generated".to_owned(),
        risk: Risk::Behaviour,
        meaning: format!("the target's core has no .{field} and never sets it"),
    }
}

/// No in place of `object->member`.
fn read_as_false(bytes: &[u8], start: usize, field: &str) -> Option<Replacement> {
    let (range, _) = expression(bytes, start, field)?;
    let text = format!("0 /* kspan: no .{field} on the target */");
    Some(Replacement::said(keeping_lines(bytes, range, text)))
}

fn left_out(record: &str, field: &str, evolution: Option<&Evolution>) -> RemedyKey {
    RemedyKey {
        kind: RemedyKind::Rewrite,
        subject: format!("struct {record}.{field} left out"),
        origin: evolution.map_or("generated".to_owned(), |e| format!("evolution {}", e.id)),
        risk: evolution.map_or(Risk::Behaviour, |e| e.risk.into()),
        meaning: match evolution {
            Some(e) => e.meaning.clone(),
            None => format!(
                "the target's core does not know .{field}; what the driver says there has no effect"
            ),
        },
    }
}

/// What stands in place of one use.
struct Replacement {
    edits: Vec<Edit>,
    /// Nothing of the old text is left.
    whole: bool,
    /// The value that went away with the member.
    dropped: Option<String>,
}

impl Replacement {
    /// The use, said in the target's words.
    fn said(edit: Edit) -> Self {
        Self {
            edits: vec![edit],
            whole: false,
            dropped: None,
        }
    }
}

fn replacement(
    bytes: &[u8],
    start: usize,
    field: &str,
    access: Option<&Evolution>,
) -> Option<Replacement> {
    if let Some(found) = initialiser(bytes, start, field) {
        if let Some(Kind::Access {
            init: Some(init), ..
        }) = access.map(|e| &e.kind)
            && found.plain
        {
            return Some(Replacement {
                edits: around_value(bytes, &found, init)?,
                whole: false,
                dropped: None,
            });
        }
        let (range, value) = (found.whole, text_of(bytes, &found.value));
        let text = format!("/* kspan: no .{field} on the target */");
        return Some(Replacement {
            edits: vec![keeping_lines(bytes, range, text)],
            whole: true,
            dropped: Some(value),
        });
    }
    let (read, write, place) = match access.map(|e| &e.kind) {
        Some(Kind::Access {
            read, write, place, ..
        }) => (read.as_deref(), write.as_deref(), place.as_deref()),
        _ => (None, None, None),
    };
    if let Some(place) = place {
        let (range, object) = expression(bytes, start, field)?;
        let text = format!("({})", place.replace("{0}", &object));
        return Some(Replacement::said(keeping_lines(bytes, range, text)));
    }
    let used = Used::at(bytes, start, field)?;
    match used.assigned {
        None => Some(Replacement::said(keeping_lines(
            bytes,
            used.range,
            format!("({})", read?.replace("{0}", &used.object)),
        ))),
        Some((_, value)) if write.is_none() && access.is_none() => Some(Replacement {
            edits: only_value(bytes, &used.range, used.value_at, field),
            whole: false,
            dropped: Some(value),
        }),
        Some((operator, value)) => {
            let value = match operator {
                None => value,
                Some(c) => format!("({}) {c} ({value})", read?.replace("{0}", &used.object)),
            };
            let text = write?
                .replace("{0}", &used.object)
                .replace("{1}", &format!("({value})"));
            Some(Replacement::said(keeping_lines(bytes, used.range, text)))
        }
    }
}

/// `object->member = value` becomes `(void)(value)`. The value's own text stays, so that it may be edited, too.
fn only_value(bytes: &[u8], whole: &Range<usize>, value_at: usize, field: &str) -> Vec<Edit> {
    let after = Edit {
        start: whole.end,
        end: whole.end,
        text: format!(") /* kspan: no .{field} on the target */"),
    };
    let before = keeping_lines(bytes, whole.start..value_at, "(void)(".to_owned());
    vec![before, after]
}

/// `.member = value` becomes what an evolution has for it, around the value's own text.
fn around_value(bytes: &[u8], found: &Initialiser, init: &str) -> Option<Vec<Edit>> {
    let (before, after) = init.split_once("{1}")?;
    let head = keeping_lines(
        bytes,
        found.whole.start..found.value.start,
        before.to_owned(),
    );
    let tail = Edit {
        start: found.value.end,
        end: found.value.end,
        text: after.to_owned(),
    };
    Some(vec![head, tail])
}

fn text_of(bytes: &[u8], range: &Range<usize>) -> String {
    String::from_utf8_lossy(&bytes[range.clone()]).into_owned()
}

/// An edit after which every other line keeps its number.
fn keeping_lines(bytes: &[u8], range: Range<usize>, text: String) -> Edit {
    let before = bytes[range.clone()].iter().filter(|b| **b == b'\n').count();
    let now = text.matches('\n').count();
    Edit {
        start: range.start,
        end: range.end,
        text: text + &"\n".repeat(before.saturating_sub(now)),
    }
}

/// `object->member`, or the statement `object->member = value`.
pub struct Used {
    /// What is replaced: the expression, or the statement without its semicolon.
    pub range: Range<usize>,
    /// A pointer to the structure.
    pub object: String,
    /// The operator before `=` (none for a plain assignment) and the value.
    pub assigned: Option<(Option<char>, String)>,
    /// Where the value begins, after the `=`; the end of the range where nothing is assigned.
    value_at: usize,
}

impl Used {
    fn read(range: Range<usize>, object: String) -> Self {
        Self {
            value_at: range.end,
            range,
            object,
            assigned: None,
        }
    }

    /// Reads the surroundings of a member's name; `None` for what is neither read nor assigned by a statement (its address
    /// is taken, it is counted up, it is assigned inside an expression).
    #[must_use]
    pub fn at(bytes: &[u8], start: usize, field: &str) -> Option<Self> {
        let all: Vec<(Token, Range<usize>)> = lex::tokens(bytes).collect();
        let at = all.binary_search_by_key(&start, |(_, r)| r.start).ok()?;
        let punct = |i: usize| punct_at(&all, i);
        let text = |r: Range<usize>| String::from_utf8_lossy(&bytes[r]).into_owned();
        let (whole, object) = expression(bytes, start, field)?;
        let first = all
            .binary_search_by_key(&whole.start, |(_, r)| r.start)
            .ok()?;
        let before = first.checked_sub(1);
        let (next, after) = (punct(at + 1), punct(at + 2));
        let operator = match (next, after) {
            (Some(b'='), Some(b'=')) => {
                return Some(Self::read(whole, object));
            }
            (Some(b'='), _) => Some(None),
            (Some(c @ (b'|' | b'&' | b'^' | b'+' | b'-' | b'*' | b'/')), Some(b'=')) => {
                Some(Some(char::from(c)))
            }
            (Some(b'+'), Some(b'+')) | (Some(b'-'), Some(b'-')) => return None,
            _ => None,
        };
        let Some(operator) = operator else {
            let addressed = before.and_then(punct) == Some(b'&')
                && !before?.checked_sub(1).is_some_and(|i| {
                    matches!(
                        all[i].0,
                        Token::Word | Token::Literal | Token::Punct(b')' | b']' | b'&')
                    )
                });
            return (!addressed).then(|| Self::read(whole, object));
        };
        // What stands before the statement, directives left aside.
        let cut = without_directives(bytes[..whole.start].trim_ascii_end()).len();
        let opener = all[..first].iter().rfind(|(_, r)| r.end <= cut);
        let opens = match opener {
            None => true,
            Some((Token::Punct(p), _)) => matches!(p, b';' | b'{' | b'}' | b')' | b':'),
            Some((Token::Word, r)) => matches!(&bytes[r.clone()], b"else" | b"do"),
            _ => false,
        };
        let value_at = all[at + if operator.is_some() { 2 } else { 1 }].1.end;
        let end = lex::expression_end(bytes, value_at).filter(|e| opens && bytes[*e] == b';')?;
        let value = text(value_at..end).trim().to_owned();
        (!value.contains('#')).then_some(Self {
            range: whole.start..end,
            object,
            assigned: Some((operator, value)),
            value_at,
        })
    }
}

fn punct_at(all: &[(Token, Range<usize>)], at: usize) -> Option<u8> {
    match all.get(at) {
        Some((Token::Punct(p), _)) => Some(*p),
        _ => None,
    }
}

/// The member is given a value there, in an initialiser or an assignment, and nothing else is done with it.
#[must_use]
pub fn only_stored(bytes: &[u8], start: usize, field: &str) -> bool {
    let assigned = || Used::at(bytes, start, field).is_some_and(|u| u.assigned.is_some());
    initialiser(bytes, start, field).is_some() || assigned()
}

/// The expression `object->member` around the member's name at `start`, and a pointer to the object.
#[must_use]
pub fn expression(bytes: &[u8], start: usize, field: &str) -> Option<(Range<usize>, String)> {
    let all: Vec<(Token, Range<usize>)> = lex::tokens(bytes).collect();
    let at = all.binary_search_by_key(&start, |(_, r)| r.start).ok()?;
    if bytes.get(start..start + field.len())? != field.as_bytes() {
        return None;
    }
    let arrow = punct_at(&all, at.checked_sub(1)?) == Some(b'>');
    let last = at.checked_sub(if arrow { 3 } else { 2 })?;
    if !arrow && punct_at(&all, at - 1) != Some(b'.')
        || arrow && punct_at(&all, at - 2) != Some(b'-')
    {
        return None;
    }
    let first = all[object_start(bytes, &all, last)?].1.start;
    let base = String::from_utf8_lossy(&bytes[first..all[last].1.end]);
    let object = if arrow {
        format!("({base})")
    } else {
        format!("(&({base}))")
    };
    Some((first..start + field.len(), object))
}

/// The first token of the postfix expression that ends with token `last`.
fn object_start(bytes: &[u8], all: &[(Token, Range<usize>)], last: usize) -> Option<usize> {
    const NO_CALLEE: [&[u8]; 8] = [
        b"return", b"if", b"while", b"for", b"switch", b"case", b"sizeof", b"else",
    ];
    let mut at = last;
    loop {
        match all.get(at)?.0 {
            Token::Word => {
                let before = at.checked_sub(1).map(|i| all[i].0);
                let further = at.checked_sub(2).map(|i| all[i].0);
                match (further, before) {
                    (_, Some(Token::Punct(b'.'))) => at = at.checked_sub(2)?,
                    (Some(Token::Punct(b'-')), Some(Token::Punct(b'>'))) => {
                        at = at.checked_sub(3)?
                    }
                    _ => return Some(at),
                }
            }
            Token::Punct(close @ (b')' | b']')) => {
                at = opening(all, at)?;
                let callee = at.checked_sub(1).and_then(|i| all.get(i));
                match callee {
                    Some((Token::Word, r)) if !NO_CALLEE.contains(&&bytes[r.clone()]) => at -= 1,
                    Some((Token::Punct(b')' | b']'), _)) if close == b']' => at -= 1,
                    _ => return Some(at),
                }
            }
            _ => return None,
        }
    }
}

/// The token that opens the bracket which token `close` closes.
fn opening(all: &[(Token, Range<usize>)], close: usize) -> Option<usize> {
    let mut depth = 0usize;
    for at in (0..=close).rev() {
        match all[at].0 {
            Token::Punct(b')' | b']' | b'}') => depth += 1,
            Token::Punct(b'(' | b'[' | b'{') => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// `.field = value,` or `.field.inner[2] = value,`.
pub struct Initialiser {
    /// From the dot to the comma, if there is one.
    pub whole: Range<usize>,
    /// From behind the `=` to where the value ends.
    pub value: Range<usize>,
    /// Nothing stands between the member and the `=`.
    pub plain: bool,
}

/// The initialiser around the member's name at `start`.
#[must_use]
pub fn initialiser(bytes: &[u8], start: usize, field: &str) -> Option<Initialiser> {
    if bytes.get(start..start + field.len())? != field.as_bytes() {
        return None;
    }
    let dot = bytes[..start]
        .iter()
        .rposition(|b| !b.is_ascii_whitespace())?;
    let before = without_directives(without_continuations(&bytes[..dot]));
    // What stands before the dot must be the start of an initialiser; after a comment it is taken on trust.
    let opens = matches!(before.last(), Some(b'{' | b',')) || before.ends_with(b"*/");
    if bytes[dot] != b'.' || !opens {
        return None;
    }
    let equals = designator_end(bytes, start + field.len())?;
    if bytes[equals] != b'=' || bytes.get(equals + 1) == Some(&b'=') {
        return None;
    }
    let end = lex::expression_end(bytes, equals + 1)?;
    if bytes[equals + 1..end].contains(&b'#') {
        return None;
    }
    let trimmed = without_continuations(&bytes[equals + 1..end]).len();
    // Without a comma, what follows the value belongs to the bracket: in a macro a backslash that joins its line.
    let ends = match bytes[end] {
        b',' => end + 1,
        _ => equals + 1 + trimmed,
    };
    Some(Initialiser {
        whole: dot..ends,
        value: equals + 1..equals + 1 + trimmed,
        plain: bytes[start + field.len()..equals].trim_ascii().is_empty(),
    })
}

/// A text without the blanks at its end, and without the backslashes that join a macro's lines there.
fn without_continuations(text: &[u8]) -> &[u8] {
    let mut text = text.trim_ascii_end();
    while let Some(line) = text.strip_suffix(b"\\") {
        text = line.trim_ascii_end();
    }
    text
}

/// A text without the directives that stand on lines of their own at its end, and the blanks before them.
fn without_directives(mut text: &[u8]) -> &[u8] {
    loop {
        let start = text.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        if !text[start..].trim_ascii_start().starts_with(b"#") {
            return text;
        }
        text = text[..start].trim_ascii_end();
    }
}

/// Past the inner members and indices of a designator: where `=` should stand.
fn designator_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += bytes
            .get(at..)?
            .iter()
            .position(|b| !b.is_ascii_whitespace())?;
        match bytes[at] {
            b'[' => at = lex::closing(bytes, at)? + 1,
            b'.' => {
                let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
                at += 1 + bytes[at + 1..].iter().position(|b| !word(b))?;
            }
            _ => return Some(at),
        }
    }
}

/// Functions of the driver that a left-out initialiser named may now be unused; that is meant.
fn spare_from_unused_warning(plan: &mut Plan, ctx: &Context<'_>, tu: &HomeTu, value: &str) {
    let words = lex::words(value);
    for function in tu
        .tu
        .functions
        .iter()
        .filter(|f| f.is_static && words.contains(&f.name))
    {
        if let Ok((file, start)) = place(ctx, &function.start) {
            let _ = plan.edits.add(
                &file,
                Edit {
                    start,
                    end: start,
                    text: "__maybe_unused ".to_owned(),
                },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_an_initialiser() {
        let text = b"x = {\n\t.a = 1,\n\t.ops = { .f = g, },\n};";
        let start = lex::find(text, 0, b"ops").unwrap();
        let found = initialiser(text, start, "ops").unwrap();
        let (range, value) = (found.whole, text_of(text, &found.value));
        assert!(found.plain);
        assert_eq!(&text[range], b".ops = { .f = g, },");
        assert_eq!(value.trim(), "{ .f = g, }");
        let inner = b"x = { .ops.a[1] = 2 };";
        let found = initialiser(inner, 7, "ops").unwrap();
        assert_eq!(&inner[found.whole], b".ops.a[1] = 2");
        assert!(!found.plain);
    }

    #[test]
    fn an_initialiser_stands_behind_a_directive() {
        let text = b"x = {\n\t.a = 1,\n#ifdef A\n\t.b = 2,\n#endif\n\t.ops = f,\n};";
        let start = lex::find(text, 0, b"ops").unwrap();
        let found = initialiser(text, start, "ops").unwrap();
        assert_eq!(&text[found.whole], b".ops = f,");
        let none = b"x = y;\n#endif\n\t.ops = f,";
        assert!(initialiser(none, lex::find(none, 0, b"ops").unwrap(), "ops").is_none());
    }

    #[test]
    fn an_initialiser_stands_in_a_macro_too() {
        let text = b"#define E(v, d) { \\\n\t.vendor = v, \\\n\t.data_ptr = d \\\n}\n";
        let start = memchr::memmem::find(text, b"data_ptr").unwrap();
        let found = initialiser(text, start, "data_ptr").unwrap();
        assert_eq!(text_of(text, &found.value), " d");
        assert_eq!(&text[found.whole.clone()], b".data_ptr = d");
        assert!(found.plain);
    }

    #[test]
    fn an_initialiser_is_said_in_the_targets_words() {
        let toml = "[[evolution]]\nid = 'a'\nkind = 'access'\nrecord = 'r'\nfield = 'ptr'\nread = '{0}->data'\ninit = '.data = (long)({1})'\n";
        let library =
            kspan_evolve::Library::from_texts([("a.toml".to_owned(), toml.to_owned())]).unwrap();
        let from = "{ .ptr =\n &spec, .x = 1 }";
        let made = replacement(from.as_bytes(), 3, "ptr", library.all().first()).unwrap();
        let mut out = from.to_owned();
        for edit in made.edits.iter().rev() {
            out.replace_range(edit.start..edit.end, &edit.text);
        }
        assert_eq!(out, "{ .data = (long)(\n &spec), .x = 1 }");
        assert!(!made.whole && made.dropped.is_none());
    }

    fn replaced(
        text: &str,
        member: &str,
        read: Option<&str>,
        write: Option<&str>,
    ) -> Option<String> {
        let evolution = (read.is_some() || write.is_some()).then(|| {
            let key =
                |k: &str, v: Option<&str>| v.map_or(String::new(), |v| format!("{k} = '{v}'\n"));
            let toml = format!(
                "[[evolution]]\nid = 'a'\nkind = 'access'\nrecord = 'r'\nfield = '{member}'\n{}{}",
                key("read", read),
                key("write", write)
            );
            kspan_evolve::Library::from_texts([("a.toml".to_owned(), toml)]).unwrap()
        });
        let start = lex::find(text.as_bytes(), 0, member.as_bytes()).unwrap();
        let access = evolution.as_ref().and_then(|l| l.all().first());
        let made = replacement(text.as_bytes(), start, member, access)?;
        let mut out = text.to_owned();
        for edit in made.edits.iter().rev() {
            out.replace_range(edit.start..edit.end, &edit.text);
        }
        Some(out)
    }

    #[test]
    fn an_assignment_is_left_out_and_its_lines_stay() {
        assert_eq!(
            replaced("if (x) f(a)->b[1].mem =\n\t3;", "mem", None, None).unwrap(),
            "if (x) (void)(\n\t3) /* kspan: no .mem on the target */;"
        );
        assert_eq!(
            replaced("f();\n#endif\n\n\ta.mem = 3;", "mem", None, None).unwrap(),
            "f();\n#endif\n\n\t(void)( 3) /* kspan: no .mem on the target */;"
        );
        for kept in [
            "y = a->mem;",
            "for (a->mem = 1;;)",
            "b = a->mem = 1;",
            "a->mem++;",
            "p = &a->mem;",
        ] {
            assert!(replaced(kept, "mem", None, None).is_none(), "{kept}");
        }
    }

    #[test]
    fn a_member_is_expressed_by_the_targets_api() {
        let (read, write) = (Some("!!({0}->flags & F)"), Some("set({0}, {1})"));
        let cases = [
            (
                "return (x)->mem == 1;",
                "return (!!(((x))->flags & F)) == 1;",
            ),
            ("a.b->c.mem = true;", "set((&(a.b->c)), (true));"),
            ("a->mem |= 2;", "set((a), ((!!((a)->flags & F)) | (2)));"),
        ];
        for (from, to) in cases {
            assert_eq!(replaced(from, "mem", read, write).unwrap(), to);
        }
    }

    #[test]
    fn a_place_stands_for_every_use() {
        let toml = "[[evolution]]\nid = 'a'\nkind = 'access'\nrecord = 'r'\nfield = 'mem'\nplace = '((u8 *){0})[1]'\n";
        let library =
            kspan_evolve::Library::from_texts([("a.toml".to_owned(), toml.to_owned())]).unwrap();
        for (from, to) in [
            ("p = &m->u.mem;", "p = &(((u8 *)(&(m->u)))[1]);"),
            ("m->mem++;", "(((u8 *)(m))[1])++;"),
        ] {
            let start = lex::find(from.as_bytes(), 0, b"mem").unwrap();
            let made = replacement(from.as_bytes(), start, "mem", library.all().first()).unwrap();
            let mut out = from.to_owned();
            for edit in made.edits.iter().rev() {
                out.replace_range(edit.start..edit.end, &edit.text);
            }
            assert_eq!(out, to);
        }
    }

    #[test]
    fn an_assignment_is_no_initialiser() {
        let text = b"x.ops = y;";
        assert!(initialiser(text, 2, "ops").is_none());
    }
}
