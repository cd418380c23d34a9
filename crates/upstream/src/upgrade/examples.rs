//! An evolution's own examples, run: what `kspan upgrade` writes for the text before must be the text after.
//!
//! Text alone decides, no kernel: an example shows what is written where the evolution applies, not where that is.

use super::edit::{self, Edit};
use super::sites::sites;
use super::template::{Definitions, Template};
use super::{headers, member};
use kspan_evolve::{Evolution, Example, Kind, LoadError, LoadErrors};
use kspan_port::{event, lex};

/// Runs the examples of all evolutions.
///
/// # Errors
/// Each that fails, with the evolution's file and line.
pub fn check(all: &[Evolution]) -> Result<(), LoadErrors> {
    let bad: Vec<LoadError> = all.iter().flat_map(failures).collect();
    match bad.is_empty() {
        true => Ok(()),
        false => Err(LoadErrors(bad)),
    }
}

/// The examples of one evolution that fail.
#[must_use]
pub fn failures(e: &Evolution) -> Vec<LoadError> {
    let failed = |x: &Example| {
        let why = run(e, x).err()?;
        Some(LoadError {
            file: e.file.clone(),
            line: e.line,
            message: format!("the example of evolution `{}` fails: {why}", e.id),
        })
    };
    e.examples.iter().filter_map(failed).collect()
}

fn run(e: &Evolution, example: &Example) -> Result<(), String> {
    let written = written(e, &example.before)?;
    if words(&written) == words(&example.after) {
        return Ok(());
    }
    Err(format!(
        "`{}` becomes `{}`, not `{}`; mend the evolution or its example",
        example.before.trim(),
        written.trim(),
        example.after.trim()
    ))
}

/// Tokens, since blanks and lines do not count.
fn words(text: &str) -> Vec<&str> {
    lex::tokens(text.as_bytes())
        .filter_map(|(_, range)| text.get(range))
        .collect()
}

/// What an evolution makes of a text.
///
/// # Errors
/// Says why it makes nothing of it.
pub fn written(e: &Evolution, before: &str) -> Result<String, String> {
    let edits = match &e.kind {
        Kind::Define { text } | Kind::Override { text, .. } => names(e, text, before)?,
        Kind::Field {
            record: _,
            home,
            target,
        } => members(before, home, |at| {
            Some(Edit::replace(at..at + home.len(), target.as_str()))
        })?,
        Kind::Access { field, .. } => members(before, field, |at| {
            member::expression(before, at, field, &e.kind)
        })?,
        Kind::DropField { field, .. } => members(before, field, |at| {
            member::omission(before, at, field).map(|(range, _)| Edit::delete(range))
        })?,
        Kind::Header { home, target } => {
            headers::replace(before, home, std::slice::from_ref(target))
        }
        Kind::Event { .. } => event::rewrites(before, e)
            .into_iter()
            .map(|(_, edit)| Edit::replace(edit.start..edit.end, edit.text))
            .collect(),
        Kind::Callback { .. } | Kind::Refuse { .. } => {
            return Err("its kind writes no text of its own; take the example out".to_owned());
        }
    };
    if edits.is_empty() {
        return Err(format!("nothing in `{}` is its own", before.trim()));
    }
    let text = edit::apply(before.as_bytes(), &edits).text;
    String::from_utf8(text).map_err(|_| "it does not give text".to_owned())
}

/// Uses of the names that it provides.
fn names(e: &Evolution, text: &str, before: &str) -> Result<Vec<Edit>, String> {
    let definitions = Definitions::read(text);
    let mut edits = Vec::new();
    for name in &e.provides {
        for site in sites(before, name, None) {
            let given = site.call.as_ref().map(|(_, list)| list.len());
            let template = template(e, &definitions, name, given)?;
            edits.push(site.replaced_by(before, &template)?);
        }
    }
    Ok(edits)
}

fn template(
    e: &Evolution,
    definitions: &Definitions,
    name: &str,
    given: Option<usize>,
) -> Result<Template, String> {
    match (e.rewrite.get(name), given) {
        (Some(rule), _)
            if rule.folds.is_some() || rule.to.contains('.') && rule.to.contains("{value}") =>
        {
            Err("it takes another statement along; an example cannot show that".to_owned())
        }
        (Some(rule), Some(arity)) => Ok(Template::of_rule(&rule.to, arity, rule.statement)),
        (Some(rule), None) => Ok(Template {
            statement: rule.statement,
            ..Template::name(&rule.to)
        }),
        (None, _) => definitions.template(name).ok_or_else(|| {
            format!("its text for {name} is more than an expression; give it a `rewrite`")
        }),
    }
}

/// Uses of a member, by its name behind `.` or `->`.
fn members(
    text: &str,
    field: &str,
    edit: impl Fn(usize) -> Option<Edit>,
) -> Result<Vec<Edit>, String> {
    let tokens: Vec<_> = lex::tokens(text.as_bytes()).collect();
    let word = |i: usize| lex::nth(text, &tokens, i);
    let first = field.split('.').next().unwrap_or(field);
    let is_use = |i: &usize| {
        let before = i.checked_sub(1).map_or("", word);
        let arrow = before == ">" && i.checked_sub(2).map_or("", word) == "-";
        word(*i) == first && (before == "." || arrow)
    };
    let at = |i: usize| tokens.get(i).map_or(0, |(_, r)| r.start);
    (0..tokens.len())
        .filter(is_use)
        .map(|i| edit(at(i)).ok_or_else(|| format!("it has no form for this use of .{field}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kspan_evolve::Library;

    fn told(evolution: &str) -> Vec<String> {
        let text = format!("[[evolution]]\nid = \"a\"\n{evolution}");
        let library = Library::from_texts([("t.toml".to_owned(), text)]).unwrap();
        let all = library.all().iter().flat_map(failures);
        all.map(|e| e.to_string()).collect()
    }

    fn example(before: &str, after: &str) -> String {
        format!("[[evolution.example]]\nbefore = {before:?}\nafter = {after:?}\n")
    }

    #[test]
    fn a_name_by_its_text_and_by_its_rewrite() {
        let macro_ =
            "kind = \"define\"\nprovides = [\"f\"]\ntext = \"#define f(x, y) g((y), (x))\"\n";
        let good = example("z = f(a, b + 1);", "z = g(b + 1, a);");
        assert_eq!(told(&format!("{macro_}{good}")), Vec::<String>::new());
        let bad = told(&format!(
            "{macro_}{}",
            example("z = f(a, b);", "z = g(a, b);")
        ));
        assert!(
            bad[0].starts_with("t.toml:1: ") && bad[0].contains("becomes"),
            "{bad:?}"
        );
        let rewrite = "[evolution.rewrite]\nf = { to = \"h({0})\" }\n";
        let good = example("z = f(a, b);", "z = h(a);");
        assert_eq!(
            told(&format!("{macro_}{rewrite}{good}")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn members_and_headers() {
        let field = "kind = \"field\"\nrecord = \"r\"\nhome = \"old\"\ntarget = \"a.new\"\n";
        let good = example("x->old = y.old + old;", "x->a.new = y.a.new + old;");
        assert_eq!(told(&format!("{field}{good}")), Vec::<String>::new());
        let access = "kind = \"access\"\nrecord = \"r\"\nfield = \"old\"\nread = \"get({0})\"\nwrite = \"set({0}, {1})\"\n";
        let good = example("x->old = 3;", "set(x, 3);") + &example("if (x->old)", "if (get(x))");
        assert_eq!(told(&format!("{access}{good}")), Vec::<String>::new());
        let header = "kind = \"header\"\nhome = \"linux/a.h\"\ntarget = \"linux/b.h\"\n";
        let good = example("#include <linux/a.h>\n", "#include <linux/b.h>\n");
        assert_eq!(told(&format!("{header}{good}")), Vec::<String>::new());
        let drop = "kind = \"drop-field\"\nrecord = \"r\"\nfield = \"old\"\n";
        let good = example("x = {\n\t.old = 1,\n\t.b = 2,\n};", "x = {\n\t.b = 2,\n};");
        assert_eq!(told(&format!("{drop}{good}")), Vec::<String>::new());
    }

    #[test]
    fn an_example_that_shows_nothing_fails() {
        let macro_ = "kind = \"define\"\nprovides = [\"f\"]\ntext = \"#define f(x) g(x)\"\n";
        let other = told(&format!("{macro_}{}", example("z = e(a);", "z = e(a);")));
        assert!(other[0].contains("nothing in"), "{other:?}");
        let long = "kind = \"define\"\nprovides = [\"f\"]\ntext = \"static inline int f(int x) { int y = x; if (y) y++; return y; }\"\n";
        let none = told(&format!("{long}{}", example("z = f(a);", "z = a;")));
        assert!(none[0].contains("more than an expression"), "{none:?}");
    }

    #[test]
    fn the_shipped_evolutions_keep_their_examples() {
        let library = Library::load(None).unwrap();
        let shown = library
            .all()
            .iter()
            .filter(|e| !e.examples.is_empty())
            .count();
        if let Err(bad) = check(library.all()) {
            panic!("{bad}");
        }
        assert!(shown > 100, "{shown} evolutions have an example");
    }
}
