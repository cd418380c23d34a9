//! A new evolution's skeleton from an old and a new form: what a person then completes. Never: a guess at conditions or risk.

use std::fmt::Write;

/// What a form is.
enum Form<'a> {
    /// `<linux/x.h>`
    Header(&'a str),
    /// `struct record.member`
    Member(&'a str, &'a str),
    /// `name({0}, {1})`: the name, and how many arguments.
    Call(&'a str, usize),
    /// `NAME`
    Name(&'a str),
    /// Anything else.
    Expression,
}

fn form(text: &str) -> Form<'_> {
    let is_name = |t: &str| {
        !t.is_empty()
            && !t.starts_with(|c: char| c.is_ascii_digit())
            && t.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if let Some(header) = text.strip_prefix('<').and_then(|t| t.strip_suffix('>')) {
        return Form::Header(header);
    }
    let member = text.strip_prefix("struct ").and_then(|t| t.split_once('.'));
    if let Some((record, member)) = member {
        return Form::Member(record.trim(), member.trim());
    }
    let call = text
        .split_once('(')
        .and_then(|(n, rest)| Some((n, rest.strip_suffix(')')?)));
    if let Some((name, list)) = call.filter(|(n, _)| is_name(n)) {
        let count = if list.trim().is_empty() {
            0
        } else {
            list.split(',').count()
        };
        return Form::Call(name, count);
    }
    if is_name(text) {
        Form::Name(text)
    } else {
        Form::Expression
    }
}

/// The skeleton of the evolution from `old` to `new`, as TOML. A form is a header (`<linux/a.h>`), a member (`struct a.b`), a call
/// (`f({0}, {1})`), a name, or, for the new one, any expression of `{0}`, `{1}`.
///
/// # Errors
/// When no kind of evolution leads from the one to the other.
pub fn skeleton(id: Option<&str>, old: &str, new: &str) -> Result<String, String> {
    let (old, new) = (old.trim(), new.trim());
    let mut out = String::new();
    let mut put = |key: &str, value: &str| {
        let _ = writeln!(out, "{key} = {}", toml::Value::String(value.to_owned()));
    };
    match (form(old), form(new)) {
        (Form::Header(a), Form::Header(b)) => {
            put("kind", "header");
            put("home", a);
            put("target", b);
        }
        (Form::Member(record, a), Form::Member(other, b)) if record == other => {
            put("kind", "field");
            put("record", record);
            put("home", a);
            put("target", b);
        }
        (Form::Member(record, a), Form::Call(..) | Form::Expression) if new.contains("{0}") => {
            put("kind", "access");
            put("record", record);
            put("field", a);
            put("read", new);
            let _ = writeln!(out, "lacks = [\"struct {record}.{a}\"]");
        }
        (Form::Call(name, count), Form::Call(..) | Form::Name(_) | Form::Expression) => {
            return Ok(defined(id, name, Some(count), new));
        }
        (Form::Name(name), Form::Name(_) | Form::Call(..) | Form::Expression) => {
            return Ok(defined(id, name, None, new));
        }
        _ => {
            return Err(format!(
                "no kind of evolution leads from `{old}` to `{new}`; write a header as <linux/a.h>, a member as `struct a.b` and its new form with {{0}} for the structure's pointer, a call as f({{0}}, {{1}})"
            ));
        }
    }
    Ok(whole(id, old, &out))
}

/// A definition of the old name by the new form.
fn defined(id: Option<&str>, name: &str, count: Option<usize>, new: &str) -> String {
    const LETTERS: &str = "abcdefghij";
    let letter = |i: usize| LETTERS.get(i..=i).unwrap_or("z").to_owned();
    let letters: Vec<String> = (0..count.unwrap_or(0)).map(letter).collect();
    let mut text = new.to_owned();
    for (i, letter) in letters.iter().enumerate() {
        text = text.replace(&format!("{{{i}}}"), &format!("({letter})"));
    }
    let list = count.map_or(String::new(), |_| format!("({})", letters.join(", ")));
    // The same name in another shape is no definition of a name that is missing.
    let again = matches!(form(new), Form::Call(n, _) | Form::Name(n) if n == name);
    let mut out = format!(
        "kind = \"{}\"\nprovides = [\"{name}\"]\n",
        if again { "override" } else { "define" }
    );
    match form(new) {
        Form::Call(n, now) if again => {
            let _ = writeln!(
                out,
                "arity = {{ {n} = {now} }}\nhome_arity = {{ {name} = {} }}",
                letters.len()
            );
        }
        Form::Call(n, _) | Form::Name(n) => {
            let _ = writeln!(out, "has = [\"{n}\"]");
        }
        _ => {}
    }
    let undef = if again {
        format!("#undef {name}\n")
    } else {
        String::new()
    };
    let _ = writeln!(out, "text = '''\n{undef}#define {name}{list} {text}\n'''");
    whole(id, name, &out)
}

fn whole(id: Option<&str>, old: &str, keys: &str) -> String {
    let made: String = old
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let made = made
        .trim_start_matches("struct")
        .trim_matches('-')
        .replace("--", "-");
    let id = id.map_or(format!("{made}-old"), str::to_owned);
    let (first, text) = match keys.split_once("text = ") {
        Some((first, text)) => (first, format!("text = {text}")),
        None => (keys, String::new()),
    };
    format!(
        "[[evolution]]\nid = \"{id}\"\n{first}# The headers that the new form needs, the release and the reason; a commit only where you have read it.\nincludes = []\nwhy = \"\"\n# none: a rename, or the same steps; default: a value was supplied; behaviour: it may act otherwise (then say how in `meaning`).\nrisk = \"none\"\n{text}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Library;

    #[test]
    fn every_skeleton_is_an_evolution() {
        for (old, new, says) in [
            (
                "<asm/unaligned.h>",
                "<linux/unaligned.h>",
                "kind = \"header\"",
            ),
            ("struct a.b", "struct a.c", "target = \"c\""),
            ("struct a.b", "get_b({0})", "read = \"get_b({0})\""),
            ("f({0}, {1})", "g({1}, {0})", "#define f(a, b) g((b), (a))"),
            ("f({0}, {1})", "f({0})", "home_arity = { f = 2 }"),
            ("OLD", "NEW", "#define OLD NEW"),
        ] {
            let text = skeleton(None, old, new).unwrap();
            assert!(text.contains(says), "{text}");
            let library = Library::from_texts([("a.toml".to_owned(), text.clone())]);
            assert_eq!(
                library.map(|l| l.all().len()).map_err(|e| e.to_string()),
                Ok(1),
                "{text}"
            );
        }
        assert!(skeleton(None, "<a.h>", "f({0})").is_err());
        assert!(
            skeleton(Some("x"), "A", "B")
                .unwrap()
                .contains("id = \"x\"")
        );
    }
}
