//! Members that the target's structures lack: renamed, expressed by the target's API, or left out, in place.

use super::change::Reason;
use super::edit::{Edit, Piece};
use super::job::Job;
use super::sites::whole_lines;
use super::template::{Template, has_side_effects};
use kspan_evolve::{Evolution, Kind};
use kspan_facts::{Use, UseKind};
use kspan_port::gap::Risk;
use kspan_port::{embedded, lex, member};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A member's use: the file and where its name stands.
pub type At = (PathBuf, usize);

/// Takes up the loss of a member in the whole driver.
///
/// # Errors
/// Says why the member cannot be done without.
pub fn take(job: &mut Job<'_>, record: &str, field: &str) -> Result<bool, String> {
    let uses = uses(job, record, field);
    let lacking = format!("struct {record} has no member {field} on the target");
    if uses.is_empty() {
        return Err(lacking);
    }
    let (library, target) = (job.library, job.target);
    if let Some(there) = embedded::on_target(job.home, target, record, field) {
        return turned(job, &uses, (record, field), there);
    }
    if let Some(e) = target.renamed_field(library, record, field)
        && let Kind::Field { target: to, .. } = &e.kind
    {
        let subject = format!("use struct {record}.{to} instead of .{field}");
        let reason = of_evolution(e, subject);
        return job.changes.add(&reason, renamed(&uses, field, to));
    }
    if let Some(to) = member::alias(job.home, target, record, field) {
        let reason = Reason {
            id: format!("generated: struct {record}.{field}"),
            subject: format!("use struct {record}.{to} instead of .{field}"),
            why: format!(
                "Both names stood for one member of struct {record} on {}; {} has .{to} alone.",
                job.home.kernel.release, target.kernel.release
            ),
            commit: String::new(),
            risk: Risk::None,
            meaning: String::new(),
            keeps: false,
        };
        return job.changes.add(&reason, renamed(&uses, field, &to));
    }
    let refusal = library
        .refusals(record, field)
        .into_iter()
        .find(|e| e.applies_to(target));
    if let Some(refusal) = refusal {
        if let Some(moves) = &refusal.upgrade.moves {
            return super::tables::moved(job, record, moves, refusal);
        }
        return Err(format!("{lacking}: {}", refusal.meaning));
    }
    let access = library
        .accesses(record, field)
        .into_iter()
        .find(|e| e.applies_to(target));
    match access {
        Some(e) if e.upgrade.place.is_some() => {
            super::together::moved(job, &uses, (record, field), e)
        }
        Some(e) if e.is_of_present_member() => {
            let mut reaching = uses;
            let stored = |(file, at): &At| {
                let text = job.text(file)?.as_bytes();
                Ok::<_, String>(member::only_stored(text, *at, field))
            };
            reaching.retain(|at| stored(at) != Ok(true));
            expressed(job, &reaching, (record, field), e)
        }
        Some(e) => expressed(job, &uses, (record, field), e),
        None => left_out(job, &uses, (record, field)),
    }
}

/// The driver's uses of a member.
pub fn uses(job: &Job<'_>, record: &str, field: &str) -> Vec<At> {
    let is_it = |u: &&Use| {
        u.kind == UseKind::Field
            && u.name == field
            && u.record.as_deref() == Some(record)
            && u.via_macro.is_none()
    };
    let mut out: Vec<At> = job
        .built
        .tus
        .iter()
        .flat_map(|t| t.tu.uses.iter().filter(is_it))
        .filter_map(|u| {
            Some((
                job.built.relative(&u.at.file)?.to_path_buf(),
                u.at.offset as usize,
            ))
        })
        .collect();
    out.sort();
    out.dedup();
    out
}

fn renamed(uses: &[At], field: &str, to: &str) -> Vec<(PathBuf, Edit)> {
    let edit = |(file, at): &At| (file.clone(), Edit::replace(*at..at + field.len(), to));
    uses.iter().map(edit).collect()
}

/// A structure by its address, or a pointer by what it points to, as the target has it.
fn turned(
    job: &mut Job<'_>,
    uses: &[At],
    (record, field): (&str, &str),
    there: embedded::There,
) -> Result<bool, String> {
    let mut edits = Vec::new();
    for (file, at) in uses {
        let made = embedded::edits(job.text(file)?.as_bytes(), *at, field, there)
            .ok_or_else(|| embedded::no_form(record, field, there))?;
        let made = made
            .into_iter()
            .map(|e| Edit::replace(e.start..e.end, &e.text));
        edits.extend(made.map(|e| (file.clone(), e)));
    }
    let what = match there {
        embedded::There::Pointer => "a pointer",
        embedded::There::Structure => "a structure of its own",
    };
    let reason = Reason {
        id: format!("generated: struct {record}.{field}"),
        subject: format!("struct {record}.{field} is {what}"),
        why: format!("{} has {what} in .{field}.", job.target.kernel.release),
        commit: String::new(),
        risk: Risk::None,
        meaning: String::new(),
        keeps: false,
    };
    job.changes.add(&reason, edits)
}

/// The reason of a change that an evolution makes.
#[must_use]
pub fn of_evolution(e: &Evolution, subject: String) -> Reason {
    Reason {
        id: e.id.clone(),
        subject,
        why: super::words::why(e),
        commit: e.commit.clone(),
        risk: e.risk.into(),
        meaning: e.meaning.clone(),
        keeps: false,
    }
}

/// Each use by the evolution's expression.
fn expressed(
    job: &mut Job<'_>,
    uses: &[At],
    (record, field): (&str, &str),
    e: &Evolution,
) -> Result<bool, String> {
    let own = job.own_name("");
    let mut edits = Vec::new();
    for (file, at) in uses {
        let text = job.text(file)?;
        let edit = expression(text, *at, field, &e.kind).ok_or_else(|| {
            format!(
                "struct {record}.{field} is used in a way that `{}` has no form for",
                e.id
            )
        })?;
        edits.push((file.clone(), with_own_names(edit, &own)));
    }
    let files: BTreeSet<&PathBuf> = uses.iter().map(|(f, _)| f).collect();
    for needed in e.needs.iter().filter(|n| !job.target.has(n)) {
        for file in &files {
            super::names::keep(job, file, needed)?;
        }
    }
    let reason = of_evolution(e, format!("do without struct {record}.{field}"));
    let changed = job.changes.add(&reason, edits)?;
    job.include_all(
        &reason,
        &e.includes,
        uses.iter().map(|(f, _)| f.clone()).collect(),
    )?;
    Ok(changed)
}

/// Helpers of an evolution under the driver's own names.
#[must_use]
pub fn with_own_names(edit: Edit, own: &str) -> Edit {
    let one = |p: Piece| match p {
        Piece::Text(t) => Piece::Text(t.replace("kspan_", own)),
        kept @ Piece::Kept(..) => kept,
    };
    Edit {
        pieces: edit.pieces.into_iter().map(one).collect(),
        ..edit
    }
}

/// A use of a member by an evolution's expression.
#[must_use]
pub fn expression(text: &str, at: usize, field: &str, kind: &Kind) -> Option<Edit> {
    let Kind::Access {
        read,
        write,
        place,
        init,
        ..
    } = kind
    else {
        return None;
    };
    let bytes = text.as_bytes();
    if let (Some(init), Some(found)) = (init, member::initialiser(bytes, at, field)) {
        let value = text.get(found.value.clone())?.trim();
        let words = filled(init, &["", value]).filter(|_| found.plain)?;
        return Some(Edit::replace(found.whole.start..found.value.end, words));
    }
    if let Some(place) = place {
        let (range, object) = member::expression(bytes, at, field)?;
        return Some(Edit::replace(range, filled(place, &[&object])?));
    }
    let used = member::Used::at(bytes, at, field)?;
    let object = bare_pointer(&used.object);
    let words = match &used.assigned {
        None => filled(read.as_deref()?, &[&object])?,
        Some((None, value))
            if write.as_deref() == Some("(void)({1})") && !has_side_effects(value) =>
        {
            let (range, _) = omission(text, at, field)?;
            return Some(Edit::delete(range));
        }
        Some((None, value)) => filled(write.as_deref()?, &[&object, value])?,
        Some((Some(c), value)) => {
            let now = filled(read.as_deref()?, &[&object])?;
            filled(
                write.as_deref()?,
                &[&object, &format!("{now} {c} ({value})")],
            )?
        }
    };
    let bracket = used.assigned.is_none() && !super::template::is_primary(&words);
    let words = if bracket { format!("({words})") } else { words };
    Some(Edit::replace(used.range, words))
}

/// `(x)` → `x`, `(&(a.b))` → `&a.b`.
#[must_use]
pub fn bare_pointer(object: &str) -> String {
    let inner = object
        .strip_prefix('(')
        .and_then(|o| o.strip_suffix(')'))
        .unwrap_or(object);
    match inner.strip_prefix("&(").and_then(|o| o.strip_suffix(')')) {
        Some(place) => format!("&{place}"),
        None => inner.to_owned(),
    }
}

/// A rule's expression with arguments, each in brackets only where it needs them.
#[must_use]
pub fn filled(rule: &str, values: &[&str]) -> Option<String> {
    super::names::filled(&Template::of_rule(rule, values.len(), false), values)
}

/// Initialisers and assignments of a member that the target does not know go.
fn left_out(job: &mut Job<'_>, uses: &[At], (record, field): (&str, &str)) -> Result<bool, String> {
    let lacking =
        || format!("struct {record} has no member {field} on the target, and the driver reads it");
    let drop = job
        .library
        .drops(record, field)
        .into_iter()
        .find(|e| e.applies_to(job.target));
    let fields = job.home.record(record).unwrap_or_default();
    let is_callback = fields
        .iter()
        .any(|f| f.name == field && f.callback.is_some());
    let mut edits = Vec::new();
    for (file, at) in uses {
        let text = job.text(file)?;
        let assigned = member::initialiser(text.as_bytes(), *at, field).is_none();
        if is_callback && assigned && drop.is_none() {
            return Err(format!(
                "struct {record} has no callback {field} on the target, and no evolution says what takes its place"
            ));
        }
        let (range, _) = omission(text, *at, field).ok_or_else(lacking)?;
        edits.push((file.clone(), Edit::delete(range)));
    }
    let subject = format!("do not set struct {record}.{field}");
    let reason = match drop {
        Some(e) => of_evolution(e, subject),
        None => Reason {
            id: format!("generated: struct {record}.{field}"),
            subject,
            why: format!(
                "struct {record} of {} has no member {field}.",
                job.target.kernel.release
            ),
            commit: String::new(),
            risk: Risk::Behaviour,
            meaning: format!(
                "the kernel's core does not know .{field}; what the driver said there has no effect"
            ),
            keeps: false,
        },
    };
    job.changes.add(&reason, edits)
}

/// The range of an initialiser or assignment of a member that goes, and the value that goes with it.
#[must_use]
pub fn omission(text: &str, at: usize, field: &str) -> Option<(std::ops::Range<usize>, String)> {
    let bytes = text.as_bytes();
    if let Some(found) = member::initialiser(bytes, at, field) {
        let value = text.get(found.value)?.to_owned();
        return Some((whole_lines(text, found.whole), value));
    }
    let used = member::Used::at(bytes, at, field)?;
    let (_, value) = used.assigned?;
    let end = lex::expression_end(bytes, used.range.start)? + 1;
    let before = lex::tokens(text.get(..used.range.start)?.as_bytes()).last();
    let own = matches!(before, Some((lex::Token::Punct(b';' | b'{' | b'}'), _)));
    (own && !has_side_effects(&value)).then(|| (whole_lines(text, used.range.start..end), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_filled_with_as_few_brackets_as_it_needs() {
        assert_eq!(
            filled("!!({0}->flags & F)", &["x"]).unwrap(),
            "!!(x->flags & F)"
        );
        assert_eq!(
            filled("set({0}, {1})", &["&a.b", "c + 1"]).unwrap(),
            "set(&a.b, c + 1)"
        );
        assert_eq!(filled("({0})->n", &["&a.b"]).unwrap(), "(&a.b)->n");
    }

    #[test]
    fn an_initialiser_and_an_assignment_go_with_their_lines() {
        let text = "x = {\n\t.a = 1,\n\t.b = 2,\n};\n";
        let at = text.find(".b").unwrap() + 1;
        assert_eq!(&text[omission(text, at, "b").unwrap().0], "\t.b = 2,\n");
        let text = "{\n\tg();\n\tx->b =\n\t\t3;\n}";
        let at = text.find("b =").unwrap();
        assert_eq!(
            &text[omission(text, at, "b").unwrap().0],
            "\tx->b =\n\t\t3;\n"
        );
        let text = "{\n\tg();\n\t/* so */\n\tx->b = 3;\n}";
        let at = text.find("b =").unwrap();
        assert_eq!(&text[omission(text, at, "b").unwrap().0], "\tx->b = 3;\n");
        let text = "\tif (y)\n\t\tx->b = 3;\n";
        assert!(omission(text, text.find("b =").unwrap(), "b").is_none());
    }
}
