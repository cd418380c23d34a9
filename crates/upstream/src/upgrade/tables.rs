//! The driver's own tables: those that the target wants const, and those whose members moved into another one.

use super::callback::declaration_start;
use super::change::Reason;
use super::edit::Edit;
use super::job::Job;
use super::member;
use super::sites::whole_lines;
use kspan_evolve::{Evolution, Kind, Moves};
use kspan_port::lex::{self, Token};
use kspan_port::member as place_of;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

/// The tables `struct RECORD name = { … }` of a text: the name and the insides of the braces.
#[must_use]
pub fn initialised<'a>(text: &'a str, record: &str) -> Vec<(&'a str, Range<usize>)> {
    let tokens: Vec<(Token, Range<usize>)> = lex::tokens(text.as_bytes()).collect();
    let word = |i: usize| lex::nth(text, &tokens, i);
    let opens = |i: &usize| {
        word(*i) == "struct" && word(i + 1) == record && word(i + 3) == "=" && word(i + 4) == "{"
    };
    let inside = |i: usize| {
        let open = tokens.get(i + 4)?.1.start;
        Some((word(i + 2), open + 1..lex::closing(text.as_bytes(), open)?))
    };
    (0..tokens.len()).filter(opens).filter_map(inside).collect()
}

/// One initialiser that goes to another table.
struct Moving {
    field: String,
    whole: Range<usize>,
    value: String,
}

/// By file and the place behind the opening brace: what moves out of these braces.
type Groups = BTreeMap<(PathBuf, usize), Vec<Moving>>;

/// Members of a structure that stand in a table which it points to, on the target: all that evolutions know to have gone there.
///
/// # Errors
/// Says what in the driver does not fit.
pub fn moved(
    job: &mut Job<'_>,
    record: &str,
    moves: &Moves,
    e: &Evolution,
) -> Result<bool, String> {
    let groups = groups(job, record, moves)?;
    let mut edits = Vec::new();
    let mut linked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut users: BTreeMap<String, usize> = BTreeMap::new();
    for ((file, open), list) in &groups {
        let text = job.text(file)?;
        let close = lex::closing(text.as_bytes(), open - 1).ok_or("unbalanced braces")?;
        match link(text, *open..close, &moves.link) {
            Some(name) => {
                let lines = list
                    .iter()
                    .map(|m| format!("\n\t.{} = {},", m.field, m.value));
                linked
                    .entry(name.clone())
                    .or_default()
                    .insert(lines.collect());
                *users.entry(name).or_default() += 1;
                let gone = |m: &Moving| {
                    (
                        file.clone(),
                        Edit::delete(whole_lines(text, m.whole.clone())),
                    )
                };
                edits.extend(list.iter().map(gone));
            }
            None => edits.extend(
                fresh(text, *open, list, moves)?
                    .into_iter()
                    .map(|e| (file.clone(), e)),
            ),
        }
    }
    for (name, lines) in &linked {
        edits.push(into_table(
            job,
            moves,
            name,
            lines,
            users.get(name).copied().unwrap_or(0),
        )?);
    }
    let subject = format!(
        "struct {record}: operations stand in struct {} now",
        moves.record
    );
    let reason = Reason {
        // What it says is what would be lost without the move.
        meaning: String::new(),
        ..member::of_evolution(e, subject)
    };
    job.changes.add(&reason, edits)
}

fn groups(job: &Job<'_>, record: &str, moves: &Moves) -> Result<Groups, String> {
    let mut out = Groups::new();
    let goes = |e: &&Evolution| e.upgrade.moves.as_ref() == Some(moves) && e.applies_to(job.target);
    for e in job.library.all().iter().filter(goes) {
        let Kind::Refuse { record: of, field } = &e.kind else {
            continue;
        };
        if of != record {
            continue;
        }
        for (file, at) in member::uses(job, record, field) {
            let text = job.text(&file)?;
            let unusual = || format!("struct {record}.{field} is not set by a plain initialiser");
            let found = place_of::initialiser(text.as_bytes(), at, field).ok_or_else(unusual)?;
            let value = text.get(found.value).unwrap_or_default().trim().to_owned();
            let open = opening(text, at).ok_or_else(unusual)?;
            out.entry((file, open)).or_default().push(Moving {
                field: field.clone(),
                whole: found.whole,
                value,
            });
        }
    }
    Ok(out)
}

/// Behind the brace that opens the initialiser list around a place.
fn opening(text: &str, at: usize) -> Option<usize> {
    let mut open = Vec::new();
    for (token, range) in lex::tokens(text.get(..at)?.as_bytes()) {
        match token {
            Token::Punct(b'{') => open.push(range.end),
            Token::Punct(b'}') => drop(open.pop()),
            _ => {}
        }
    }
    open.pop()
}

/// `name` of `.LINK = &name` within braces.
fn link(text: &str, inside: Range<usize>, member: &str) -> Option<String> {
    let inner = text.get(inside)?;
    let tokens: Vec<&str> = lex::tokens(inner.as_bytes())
        .filter_map(|(_, r)| inner.get(r))
        .collect();
    tokens.windows(5).find_map(|w| match w {
        [".", m, "=", "&", name] if *m == member => Some((*name).to_owned()),
        _ => None,
    })
}

/// The table that the structure points to gets the initialisers.
fn into_table(
    job: &Job<'_>,
    moves: &Moves,
    name: &str,
    lines: &BTreeSet<String>,
    users: usize,
) -> Result<(PathBuf, Edit), String> {
    let shared = || format!("{name} serves several structures that differ in what moves into it");
    let mut lines = lines.iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err(shared());
    };
    let pointers: usize = job
        .sources()
        .map(|(_, text)| text.matches(&format!("&{name}")).count())
        .sum();
    if pointers > users {
        return Err(shared());
    }
    for (file, text) in job.sources() {
        for (own, inside) in initialised(text, &moves.record) {
            if own == name {
                return Ok((file.clone(), Edit::insert(inside.start, line.clone())));
            }
        }
    }
    Err(format!("the driver does not write out {name}"))
}

/// A table of its own before the structure that had none.
fn fresh(text: &str, open: usize, list: &[Moving], moves: &Moves) -> Result<Vec<Edit>, String> {
    let first = list.first().ok_or("nothing moves")?;
    let name = format!("{}_ops", first.value);
    if !first
        .value
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '_')
        || text.contains(&name)
    {
        return Err(format!("no table can be named after {}", first.value));
    }
    let lines: String = list
        .iter()
        .map(|m| format!("\t.{} = {},\n", m.field, m.value))
        .collect();
    let table = format!(
        "static const struct {} {name} = {{\n{lines}}};\n\n",
        moves.record
    );
    let mut edits = vec![Edit::insert(
        declaration_start(text, top(text, open)),
        table,
    )];
    edits.push(Edit::replace(
        first.whole.clone(),
        format!(".{} = &{name},", moves.link),
    ));
    let rest = list.iter().skip(1);
    edits.extend(rest.map(|m| Edit::delete(whole_lines(text, m.whole.clone()))));
    Ok(edits)
}

/// The outermost brace around a place.
fn top(text: &str, at: usize) -> usize {
    let (mut depth, mut outer) = (0usize, at);
    for (token, range) in lex::tokens(text.get(..at).unwrap_or_default().as_bytes()) {
        match token {
            Token::Punct(b'{') => {
                if depth == 0 {
                    outer = range.start;
                }
                depth += 1;
            }
            Token::Punct(b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    outer
}

/// `struct x *name[]` → `const struct x *const name[]`; `None` where the driver declares no such table.
#[must_use]
pub fn constant(text: &str, name: &str) -> Option<Vec<Edit>> {
    let tokens: Vec<(Token, Range<usize>)> = lex::tokens(text.as_bytes()).collect();
    let word = |i: usize| lex::nth(text, &tokens, i);
    let at = |i: usize| tokens.get(i).map(|(_, r)| r.clone());
    let declares = |i: &usize| {
        word(*i) == "struct" && word(i + 2) == "*" && word(i + 4) == "[" && word(i + 3) == name
    };
    let start = (0..tokens.len()).find(declares)?;
    let is_const = start.checked_sub(1).is_some_and(|i| word(i) == "const");
    let mut edits = vec![Edit::insert(at(start + 3)?.start, "const ")];
    if !is_const {
        edits.push(Edit::insert(at(start)?.start, "const "));
    }
    Some(edits)
}

#[cfg(test)]
mod tests {
    use super::super::edit::apply;
    use super::*;

    #[test]
    fn a_table_of_pointers_becomes_constant() {
        let text = "static struct a *t[] = {\n\t&x,\n};\nstruct a *u;\n";
        let done = apply(text.as_bytes(), &constant(text, "t").unwrap()).text;
        assert_eq!(
            String::from_utf8(done).unwrap(),
            text.replace("struct a *t", "const struct a *const t")
        );
        assert!(constant(text, "u").is_none());
    }

    #[test]
    fn tables_are_found_by_their_type_and_braces() {
        let text =
            "static struct t a = {\n\t.x = 1,\n\t.in = { .ops = &o, .p = f },\n};\nstruct t *b;\n";
        let found = initialised(text, "t");
        assert_eq!(found.len(), 1);
        assert!(found[0].0 == "a" && text[found[0].1.clone()].contains(".x = 1"));
        let at = text.find(".p").unwrap();
        let open = opening(text, at).unwrap();
        assert!(text[open..].starts_with(" .ops"));
        assert_eq!(link(text, open..at, "ops").as_deref(), Some("o"));
        assert_eq!(top(text, at), text.find('{').unwrap());
    }

    #[test]
    fn a_table_of_its_own_takes_what_moves() {
        let text = "int f(void);\nstatic struct d x = {\n\t.probe = f,\n\t.n = 1,\n};\n";
        let at = text.find("probe").unwrap();
        let found = place_of::initialiser(text.as_bytes(), at, "probe").unwrap();
        let list = [Moving {
            field: "probe".to_owned(),
            whole: found.whole,
            value: "f".to_owned(),
        }];
        let moves = Moves {
            link: "ops".to_owned(),
            record: "o".to_owned(),
        };
        let edits = fresh(text, opening(text, at).unwrap(), &list, &moves).unwrap();
        assert_eq!(
            String::from_utf8(apply(text.as_bytes(), &edits).text).unwrap(),
            "int f(void);\nstatic const struct o f_ops = {\n\t.probe = f,\n};\n\nstatic struct d x = {\n\t.ops = &f_ops,\n\t.n = 1,\n};\n"
        );
    }
}
