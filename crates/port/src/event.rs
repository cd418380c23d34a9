//! Macros within the definition of a tracepoint (`__assign_str(item)`), whose arguments the kernel has changed.
//!
//! They are given to the driver's text by headers that are read anew for each stage, so that nothing which stands before the
//! driver can give them another form: the driver's own header is edited.

use crate::edit::Edit;
use crate::home::{Home, HomeTu};
use crate::lex::{self, Token};
use crate::view::View;
use kspan_evolve::{Evolution, KernelView, Kind, Library};
use kspan_facts::Loc;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The evolution of such a macro, where the driver is written for another form than the target's.
#[must_use]
pub fn evolution<'l>(
    name: &str,
    home: &View,
    target: &View,
    library: &'l Library,
) -> Option<&'l Evolution> {
    let applies = |e: &&Evolution| match &e.kind {
        Kind::Event { home_arity, .. } => {
            let as_written = |(n, count): (&String, &usize)| home.arity(n) == Some(*count);
            home_arity.iter().all(as_written) && e.applies_to(target)
        }
        _ => false,
    };
    library.for_name(name).into_iter().find(applies)
}

/// The driver's own headers of a source file, and those of the kernel that belong to it: the file, and what includes it.
fn headers<'t>(driver: &'t Home, tu: &'t HomeTu) -> impl Iterator<Item = (&'t PathBuf, &'t Loc)> {
    let own = |path: &Path, name: &str| driver.relative(path).is_some() || driver.owns_header(name);
    let all = tu.tu.includes.iter();
    all.filter_map(move |(at, name, path)| Some((path.as_ref().filter(|p| own(p, name))?, at)))
}

/// The uses in the tracepoints of a source file that the target wants otherwise.
#[must_use]
pub fn gaps(
    driver: &Home,
    tu: &HomeTu,
    home: &View,
    target: &View,
    library: &Library,
) -> Vec<(String, Loc)> {
    let names = library.events().flat_map(|e| &e.provides);
    let wanted: Vec<&Evolution> = names
        .filter_map(|name| evolution(name, home, target, library))
        .collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut out = Vec::new();
    for (path, included) in headers(driver, tu) {
        let Ok(text) = std::fs::read_to_string(path) else {
            continue;
        };
        for (name, edit) in wanted.iter().flat_map(|e| rewrites(&text, e)) {
            let before = text.get(..edit.start).unwrap_or_default();
            let line = u32::try_from(before.matches('\n').count() + 1).unwrap_or(u32::MAX);
            // A header of the kernel's is none of the driver's places.
            let at = match driver.relative(path) {
                Some(_) => Loc {
                    file: path.clone(),
                    line,
                    column: 1,
                    offset: u32::try_from(edit.start).unwrap_or(u32::MAX),
                },
                None => included.clone(),
            };
            out.push((name, at));
        }
    }
    out
}

/// A call in a text.
struct Call {
    name: String,
    range: Range<usize>,
    arguments: Vec<String>,
    /// Where the outermost bracket around it opens; its own, if there is none.
    group: usize,
}

/// The edits that an evolution asks for in a text, each with the macro that it is about.
#[must_use]
pub fn rewrites(text: &str, evolution: &Evolution) -> Vec<(String, Edit)> {
    let Kind::Event { home_arity, writes } = &evolution.kind else {
        return Vec::new();
    };
    let wanted = |name: &str| evolution.provides.iter().any(|p| p == name);
    if !evolution.provides.iter().any(|name| text.contains(name)) {
        return Vec::new();
    }
    let calls = calls(text, |name| wanted(name) || writes.contains_key(name));
    let as_written = |call: &&Call| {
        let count = home_arity.get(&call.name);
        wanted(&call.name) && count.is_none_or(|n| *n == call.arguments.len())
    };
    let edit = |call: &Call| {
        let declared = declaration(&calls, call, |name| writes.contains_key(name))?;
        let new = filled(writes.get(&declared.name)?, &declared.arguments);
        (text.get(call.range.clone()) != Some(new.as_str())).then_some(Edit {
            start: call.range.start,
            end: call.range.end,
            text: new,
        })
    };
    let own = calls.iter().filter(as_written);
    own.filter_map(|call| Some((call.name.clone(), edit(call)?)))
        .collect()
}

/// What declares the item that a use is about: in the same tracepoint, else the only one of the text (in a macro that several
/// tracepoints share).
fn declaration<'c>(
    calls: &'c [Call],
    of: &Call,
    declares: impl Fn(&str) -> bool,
) -> Option<&'c Call> {
    let item = of.arguments.first()?;
    let same = |c: &&Call| declares(&c.name) && c.arguments.first() == Some(item);
    let near = calls.iter().find(|c| same(c) && c.group == of.group);
    near.or_else(|| {
        let mut all = calls.iter().filter(same);
        let first = all.next()?;
        all.all(|c| c.name == first.name && c.arguments == first.arguments)
            .then_some(first)
    })
}

/// The calls of some names in a text, in order.
fn calls(text: &str, wanted: impl Fn(&str) -> bool) -> Vec<Call> {
    let tokens: Vec<(Token, Range<usize>)> = lex::tokens(text.as_bytes()).collect();
    let mut out = Vec::new();
    let (mut depth, mut outer) = (0usize, 0);
    for (i, (token, range)) in tokens.iter().enumerate() {
        match token {
            Token::Punct(b'(') => {
                if depth == 0 {
                    outer = range.start;
                }
                depth += 1;
            }
            Token::Punct(b')') => depth = depth.saturating_sub(1),
            Token::Word => {
                let word = &text[range.clone()];
                let open = tokens.get(i + 1).filter(|(t, _)| *t == Token::Punct(b'('));
                if let Some((_, open)) = open.filter(|_| wanted(word))
                    && let Some(close) = lex::closing(text.as_bytes(), open.start)
                {
                    out.push(Call {
                        name: word.to_owned(),
                        range: range.start..close + 1,
                        arguments: lex::arguments(
                            text.get(open.start + 1..close).unwrap_or_default(),
                        ),
                        group: if depth == 0 { open.start } else { outer },
                    });
                }
            }
            _ => {}
        }
    }
    out
}

fn filled(form: &str, arguments: &[String]) -> String {
    let mut out = form.to_owned();
    for (i, argument) in arguments.iter().enumerate() {
        out = out.replace(&format!("{{{i}}}"), argument);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evolution(text: &str) -> Evolution {
        let library =
            Library::from_texts([("x.toml".to_owned(), text.to_owned())]).expect("a good rule");
        library.all()[0].clone()
    }

    fn written(text: &str, e: &Evolution) -> String {
        let mut edits = crate::edit::Edits::default();
        for (_, edit) in rewrites(text, e) {
            edits.add(Path::new("a"), edit).unwrap();
        }
        String::from_utf8(edits.apply(Path::new("a"), text.as_bytes())).unwrap()
    }

    const GAIN: &str = r#"
[[evolution]]
id = "gain"
kind = "event"
provides = ["assign"]
arity = { assign = 2 }
home_arity = { assign = 1 }
writes = { string = "assign({0}, {1})", string_len = "assign_len({0}, {1}, {2})" }
"#;

    #[test]
    fn an_argument_comes_from_the_items_declaration_in_the_same_event() {
        let text = "EVENT(a, ENTRY(string(name, f(x, y)) string_len(m, p, n)), ASSIGN(assign(name); assign(m);))\n\
                    EVENT(b, ENTRY(string(name, z)), ASSIGN(assign(name); assign(none);))\n";
        let after = "EVENT(a, ENTRY(string(name, f(x, y)) string_len(m, p, n)), ASSIGN(assign(name, f(x, y)); assign_len(m, p, n);))\n\
                     EVENT(b, ENTRY(string(name, z)), ASSIGN(assign(name, z); assign(none);))\n";
        assert_eq!(written(text, &evolution(GAIN)), after);
    }

    #[test]
    fn macros_that_events_share_take_the_only_declaration() {
        let text = "#define ENTRY string(dev, name(dev))\n#define ASSIGN assign(dev)\n";
        let after = "#define ENTRY string(dev, name(dev))\n#define ASSIGN assign(dev, name(dev))\n";
        assert_eq!(written(text, &evolution(GAIN)), after);
        let two = "#define A string(dev, a)\n#define B string(dev, b)\n#define C assign(dev)\n";
        assert_eq!(written(two, &evolution(GAIN)), two);
    }

    #[test]
    fn what_is_in_the_new_form_already_stays() {
        let text = "EVENT(string(name, z), assign(name, z))\n";
        assert_eq!(written(text, &evolution(GAIN)), text);
    }
}
