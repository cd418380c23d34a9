//! Uses of a name in a source text, and what a use becomes.

use super::edit::{Edit, Piece};
use super::template::{Argument, Template, arguments, has_side_effects, is_primary};
use kspan_port::lex::{self, Token};
use std::ops::Range;

/// One use of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The name itself.
    pub word: Range<usize>,
    /// Of a call: everything up to the closing bracket, and the arguments.
    pub call: Option<(Range<usize>, Vec<Argument>)>,
    /// The token before it, and the one after.
    before: Option<(Token, Range<usize>)>,
    after: Option<(Token, Range<usize>)>,
}

/// The uses of a name in a text: not as a member, a tag, or in a directive that tests or removes it. `at` holds the places
/// that are known, where any are.
#[must_use]
pub fn sites(text: &str, name: &str, at: Option<&[usize]>) -> Vec<Site> {
    let tokens: Vec<(Token, Range<usize>)> = lex::tokens(text.as_bytes()).collect();
    let word = |i: usize| lex::nth(text, &tokens, i);
    let mut out = Vec::new();
    for (i, (token, range)) in tokens.iter().enumerate() {
        if *token != Token::Word || word(i) != name {
            continue;
        }
        let (b1, b2) = (
            i.checked_sub(1).map_or("", word),
            i.checked_sub(2).map_or("", word),
        );
        let member = b1 == "." && b2 != "." || b2 == "-" && b1 == ">";
        let tag = matches!(b1, "struct" | "union" | "enum");
        let directive = b2 == "#" && matches!(b1, "define" | "undef" | "ifdef" | "ifndef");
        let known = at.is_none_or(|at| at.contains(&range.start));
        if member || tag || directive || !known {
            continue;
        }
        out.push(site(text, &tokens, i, range.clone()));
    }
    out
}

fn site(text: &str, tokens: &[(Token, Range<usize>)], i: usize, word: Range<usize>) -> Site {
    let open = tokens.get(i + 1).filter(|(t, _)| *t == Token::Punct(b'('));
    let close = open.and_then(|(_, r)| lex::closing(text.as_bytes(), r.start));
    let call = match (open, close) {
        (Some((_, r)), Some(close)) => Some((word.start..close + 1, arguments(text, r.end..close))),
        _ => None,
    };
    let end = call.as_ref().map_or(word.end, |(whole, _)| whole.end);
    let next = tokens.partition_point(|(_, r)| r.start < end);
    Site {
        before: i.checked_sub(1).and_then(|b| tokens.get(b)).cloned(),
        after: tokens.get(next).cloned(),
        word,
        call,
    }
}

impl Site {
    /// Everything that stands for the use.
    #[must_use]
    pub fn whole(&self) -> Range<usize> {
        self.call
            .as_ref()
            .map_or(self.word.clone(), |(whole, _)| whole.clone())
    }

    fn follows(&self) -> Option<u8> {
        match self.after {
            Some((Token::Punct(p), _)) => Some(p),
            _ => None,
        }
    }

    fn precedes(&self) -> Option<u8> {
        match self.before {
            Some((Token::Punct(p), _)) => Some(p),
            _ => None,
        }
    }

    /// It is a statement: its value is not used.
    #[must_use]
    pub fn is_statement(&self, text: &str) -> bool {
        let opens = match &self.before {
            None => true,
            Some((Token::Punct(b';' | b'{' | b'}' | b':'), _)) => true,
            // After `if (…)` or `for (…)`, not after a cast: that has no blank line or new line before what it casts.
            Some((Token::Punct(b')'), r)) => text
                .get(r.end..self.word.start)
                .is_some_and(|g| g.contains('\n')),
            Some((Token::Word, r)) => matches!(text.get(r.clone()), Some("else" | "do")),
            _ => false,
        };
        opens && self.follows() == Some(b';')
    }

    /// An expression of any kind can stand here without brackets.
    fn is_delimited(&self, text: &str) -> bool {
        let opens = match &self.before {
            None => true,
            Some((Token::Punct(p), _)) => matches!(p, b';' | b'{' | b'}' | b'(' | b',' | b'='),
            Some((Token::Word, r)) => text.get(r.clone()) == Some("return"),
            _ => false,
        };
        let closes = matches!(self.follows(), Some(b';' | b')' | b',' | b'}') | None);
        opens && closes || self.is_statement(text)
    }

    /// `.member = HERE,`: the range from the dot to behind the comma.
    fn initialiser(&self, text: &str) -> Option<Range<usize>> {
        if self.precedes() != Some(b'=') {
            return None;
        }
        let equals = self.before.as_ref()?.1.start;
        let left = text.get(..equals)?.trim_end();
        let name = left.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let dot = name.strip_suffix('.')?.len();
        let opens = text.get(..dot)?.trim_end().ends_with(['{', ',', '/']);
        let end = match (self.follows(), &self.after) {
            (Some(b','), Some((_, r))) => r.end,
            (Some(b'}'), Some((_, r))) => r.start,
            _ => return None,
        };
        opens.then_some(dot..end)
    }

    /// The edit that puts a template in place of the use.
    ///
    /// # Errors
    /// Says why this use cannot be written out.
    pub fn replaced_by(&self, text: &str, template: &Template) -> Result<Edit, String> {
        if template.statement && !self.is_statement(text) {
            return Err("its value is used, and the target's form gives another".to_owned());
        }
        let Some((whole, given)) = self.call.as_ref().filter(|_| template.params.is_some()) else {
            return self.name_replaced(text, template);
        };
        if template.body.is_empty() {
            return self.removed(text, given);
        }
        let mut pieces = template.expand(given)?;
        if !template.is_primary() && !self.is_delimited(text) {
            pieces.insert(0, Piece::Text("(".to_owned()));
            pieces.push(Piece::Text(")".to_owned()));
        }
        Ok(Edit {
            start: whole.start,
            end: whole.end,
            pieces: in_lines(text, whole.start, pieces),
        })
    }

    /// A name without arguments, or one that is used as a pointer.
    fn name_replaced(&self, text: &str, template: &Template) -> Result<Edit, String> {
        let body = match &template.params {
            None => template.body.as_str(),
            Some(params) => passed_on(&template.body, params)
                .ok_or("its address is taken, and no single function stands for it")?,
        };
        if body.is_empty() {
            let whole = self.word.clone();
            return match self.call.is_none() && self.follows() == Some(b';') {
                true => self.removed(text, &[]),
                false => Ok(Edit::delete(
                    whole.start..whole.end + blank_after(text, whole.end),
                )),
            };
        }
        if let Some(range) = self.initialiser(text).filter(|_| body == "NULL") {
            return Ok(Edit::delete(whole_lines(text, range)));
        }
        let bracket = !is_primary(body) && !self.is_delimited(text);
        let words = if bracket {
            format!("({body})")
        } else {
            body.to_owned()
        };
        Ok(Edit::replace(self.word.clone(), words))
    }

    /// The statement goes, with its line.
    fn removed(&self, text: &str, given: &[Argument]) -> Result<Edit, String> {
        if let Some(argument) = given.iter().find(|a| has_side_effects(&a.text)) {
            return Err(format!("its argument `{}` would be lost", argument.text));
        }
        let alone = matches!(self.precedes(), Some(b';' | b'{' | b'}') | None)
            && self.follows() == Some(b';');
        // At the top level the macro before may have no semicolon of its own.
        let own_line = text
            .get(..self.word.start)
            .is_some_and(|t| t.is_empty() || t.ends_with('\n'));
        let end = match &self.after {
            Some((_, r)) if (alone || own_line) && self.follows() == Some(b';') => r.end,
            _ if own_line => self.whole().end,
            _ => return Err("nothing stands for it, and it is no statement of its own".to_owned()),
        };
        Ok(Edit::delete(whole_lines(text, self.word.start..end)))
    }
}

/// A call that is too long for its line goes on below its bracket, as kernel code does.
#[must_use]
pub fn in_lines(text: &str, start: usize, mut pieces: Vec<Piece>) -> Vec<Piece> {
    const WIDTH: usize = 80;
    let lead = match pieces.first() {
        Some(Piece::Text(t)) if t.ends_with('(') && t.matches('(').count() == 1 => columns(t),
        _ => return pieces,
    };
    let line = text
        .get(..start)
        .map_or("", |t| t.rsplit('\n').next().unwrap_or_default());
    let whole = super::names::text_of(&pieces, text);
    let first = columns(line);
    if whole.contains('\n') || first + columns(&whole) < WIDTH {
        return pieces;
    }
    let indent = first + lead;
    let gap = format!(",\n{}{}", "\t".repeat(indent / 8), " ".repeat(indent % 8));
    let lengths: Vec<usize> = pieces
        .iter()
        .map(|p| columns(&super::names::text_of(std::slice::from_ref(p), text)))
        .collect();
    let mut at = indent;
    for i in 1..pieces.len() {
        let next = lengths.get(i + 1).copied().unwrap_or(0);
        let breaks = matches!(pieces.get(i), Some(Piece::Text(t)) if t.starts_with(", "));
        let long = at + lengths.get(i).copied().unwrap_or(0) + next + 1 >= WIDTH;
        match pieces.get_mut(i) {
            Some(Piece::Text(t)) if breaks && long => {
                *t = format!("{gap}{}", t.trim_start_matches(", "));
                at = indent + columns(t.trim_start_matches(&gap));
            }
            _ => at += lengths.get(i).copied().unwrap_or(0),
        }
    }
    pieces
}

/// The width of a text, tabs to every eighth column.
#[must_use]
pub fn columns(text: &str) -> usize {
    let next = |at: usize, c: char| if c == '\t' { (at / 8 + 1) * 8 } else { at + 1 };
    text.chars().fold(0, next)
}

/// `g` of `g(a, b)` whose parameters are `a` and `b`.
fn passed_on<'a>(body: &'a str, params: &[String]) -> Option<&'a str> {
    let (name, rest) = body.split_once('(')?;
    let list = rest.strip_suffix(')')?;
    let given: Vec<&str> = list.split(',').map(str::trim).collect();
    let same = given.len() == params.len() && given.iter().zip(params).all(|(a, p)| a == p);
    (same && is_primary(name)).then_some(name)
}

fn blank_after(text: &str, at: usize) -> usize {
    usize::from(text.get(at..).is_some_and(|t| t.starts_with(' ')))
}

/// A range, with the whole line where nothing else stands on it.
#[must_use]
pub fn whole_lines(text: &str, range: Range<usize>) -> Range<usize> {
    let start = text
        .get(..range.start)
        .map_or(0, |t| t.rfind('\n').map_or(0, |n| n + 1));
    let end = text
        .get(range.end..)
        .and_then(|t| t.find('\n'))
        .map_or(text.len(), |n| range.end + n + 1);
    let blank = |r: Range<usize>| text.get(r).is_some_and(|t| t.trim().is_empty());
    if blank(start..range.start) && blank(range.end..end) {
        start..end
    } else {
        range
    }
}

#[cfg(test)]
mod tests {
    use super::super::edit::apply;
    use super::super::template::Definitions;
    use super::*;

    fn rewritten(text: &str, name: &str, definition: &str) -> Result<String, String> {
        let template = Definitions::read(definition)
            .template(name)
            .ok_or("no template")?;
        let edits: Vec<Edit> = sites(text, name, None)
            .iter()
            .map(|s| s.replaced_by(text, &template))
            .collect::<Result<_, _>>()?;
        Ok(String::from_utf8(apply(text.as_bytes(), &edits).text).unwrap())
    }

    #[test]
    fn only_uses_of_the_name_itself_count() {
        let text = "struct del x; a->del = del(b); /* del */ c.del; #define del\n";
        assert_eq!(sites(text, "del", None).len(), 1);
        assert_eq!(
            rewritten(text, "del", "#define del(x) timer(x)").unwrap(),
            text.replace("del(b)", "timer(b)")
        );
    }

    #[test]
    fn nested_uses_are_both_rewritten() {
        let done = rewritten(
            "x = f(f(a), b->c);",
            "f",
            "#define f(p, ...) g(p, ##__VA_ARGS__)",
        )
        .unwrap();
        assert_eq!(done, "x = g(g(a), b->c);");
    }

    #[test]
    fn a_null_initialiser_goes_with_its_line() {
        let text = "x = {\n\t.open = o,\n\t.llseek = no_llseek,\n};";
        assert_eq!(
            rewritten(text, "no_llseek", "#define no_llseek NULL").unwrap(),
            "x = {\n\t.open = o,\n};"
        );
        assert_eq!(
            rewritten("return no_llseek;", "no_llseek", "#define no_llseek NULL").unwrap(),
            "return NULL;"
        );
    }

    #[test]
    fn what_nothing_stands_for_goes() {
        let empty = "#define MODULE_SUPPORTED_DEVICE(name)\n";
        let text = "MODULE_LICENSE(\"GPL\");\nMODULE_SUPPORTED_DEVICE(\"x\");\nint a;\n";
        let done = rewritten(text, "MODULE_SUPPORTED_DEVICE", empty).unwrap();
        assert_eq!(done, "MODULE_LICENSE(\"GPL\");\nint a;\n");
        assert!(rewritten("if (a)\n\tf(x);\n", "f", "#define f(x)").is_err());
    }

    #[test]
    fn an_address_is_taken_of_one_function_only() {
        let text = "a(d, f, x);";
        assert_eq!(
            rewritten(text, "f", "#define f(p, q) g(p, q)").unwrap(),
            "a(d, g, x);"
        );
        assert!(rewritten(text, "f", "#define f(p, q) g(q, p)").is_err());
    }

    #[test]
    fn a_long_call_goes_on_in_the_next_line() {
        let text = "\t\tret = old_name(first_argument, second_argument, third);\n";
        let definition = "#define old_name(a, b, c) a_longer_name_for_it(a, b, NULL, c)";
        assert_eq!(
            rewritten(text, "old_name", definition).unwrap(),
            "\t\tret = a_longer_name_for_it(first_argument, second_argument,\n\t\t\t\t\t   NULL, third);\n"
        );
    }

    #[test]
    fn brackets_only_beside_operators() {
        let definition = "#define f(a) a->x == 1";
        assert_eq!(
            rewritten("y = !f(p);", "f", definition).unwrap(),
            "y = !(p->x == 1);"
        );
        assert_eq!(
            rewritten("if (f(p))\n\tz();", "f", definition).unwrap(),
            "if (p->x == 1)\n\tz();"
        );
    }
}
