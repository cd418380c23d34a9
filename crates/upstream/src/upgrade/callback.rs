//! A driver's own function in the type that the target wants of it: parameters dropped, added or retyped, another return
//! type, in its definition, its prototypes and the driver's own calls of it.
//!
//! A parameter that the target does not pass is kept as a variable where an evolution says how its value is found; where the
//! body needs it and nothing tells, the function stays as it is.

use super::edit::{Edit, Piece};
use super::forward::Source;
use super::sites::{Site, columns, whole_lines};
use super::template::{self, Argument, Template};
use kspan_facts::{Signature, Ty};
use kspan_port::cfn;
use kspan_port::lex::{self, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The line length that kernel code keeps to.
const WIDTH: usize = 80;

/// One parameter of the new form.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    /// The parameter of the old form that it is.
    from: Option<usize>,
    /// Its declaration, where it is new or of another type.
    text: Option<String>,
    /// What a call of the driver's own passes where the old form had nothing.
    filler: &'static str,
}

/// How a function changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reshape {
    name: String,
    slots: Vec<Slot>,
    /// Parameters that the target does not pass, with the expression that an evolution has for them.
    lost: Vec<(usize, Option<String>)>,
    /// Names of the old form's parameters.
    names: Vec<String>,
    /// The new return type, where it differs.
    ret: Option<String>,
    /// What a function that returned nothing returns.
    value: Option<String>,
    becomes_void: bool,
    /// What the function is handed of another type, in words.
    retyped: Vec<String>,
}

/// What an evolution knows of a callback.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// From the type of a lost parameter to an expression of the target's parameters `{0}`, `{1}`.
    pub params: BTreeMap<String, String>,
    /// What the callback returns where the driver's function returned nothing.
    pub ret: Option<String>,
    /// Where all parameters of the driver's function come from.
    pub forward: Option<Vec<Source>>,
}

impl Reshape {
    /// Compares two types of a function. `body` are the words of the function's text, which new names must not repeat.
    ///
    /// # Errors
    /// Says why no such function can be written.
    pub fn new(
        name: &str,
        have: &Signature,
        want: &Signature,
        known: &Known,
        body: &BTreeSet<String>,
    ) -> Result<Self, String> {
        if have.variadic || want.variadic {
            return Err(format!("{name}() takes a variable number of arguments"));
        }
        let (slots, lost, retyped) = match &known.forward {
            Some(from) => told_all(name, have, want, from)?,
            None => by_type(have, want, known),
        };
        let mut taken: BTreeSet<String> = body.clone();
        taken.extend(have.params.iter().map(|p| p.name.clone()));
        let mut texts = Vec::new();
        for (slot, param) in slots.iter().zip(&want.params) {
            texts.push(match slot.and_then(|i| have.params.get(i)) {
                Some(old) if same(&old.ty, &param.ty) => Slot {
                    from: *slot,
                    text: None,
                    filler: "",
                },
                Some(old) => Slot {
                    from: *slot,
                    text: Some(cfn::declare(&param.ty.spelling, &old.name)),
                    filler: "",
                },
                None => {
                    let new = fresh(&param.name, &param.ty, &taken);
                    taken.insert(new.clone());
                    Slot {
                        from: None,
                        text: Some(cfn::declare(&param.ty.spelling, &new)),
                        filler: if param.ty.canonical.contains('*') {
                            "NULL"
                        } else {
                            "0"
                        },
                    }
                }
            });
        }
        let names: Vec<String> = have.params.iter().map(|p| p.name.clone()).collect();
        let lost = lost
            .into_iter()
            .map(|(i, e)| (i, e.map(|e| with_names(&e, &texts, &names))))
            .collect();
        let (had, wants) = (&have.ret, &want.ret);
        let changed = !same(had, wants);
        let is_void = |t: &Ty| t.canonical == "void";
        if changed && !is_void(had) && !is_void(wants) && !convertible(had, wants) {
            return Err(format!(
                "{name}() returns {}, and the target wants {}",
                had.spelling, wants.spelling
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            slots: texts,
            lost,
            names,
            ret: changed.then(|| wants.spelling.clone()),
            value: (is_void(had) && changed)
                .then(|| known.ret.clone().unwrap_or_else(|| "0".to_owned())),
            becomes_void: changed && is_void(wants),
            retyped,
        })
    }

    /// In a few words, what changes.
    #[must_use]
    pub fn words(&self) -> String {
        let mut out = Vec::new();
        let name = |i: usize| self.names.get(i).cloned().unwrap_or_default();
        for (i, _) in &self.lost {
            out.push(format!("drop the parameter {}", name(*i)));
        }
        for slot in &self.slots {
            match (&slot.from, &slot.text) {
                (None, Some(text)) => out.push(format!("take {text}")),
                (Some(_), Some(text)) => out.push(format!("take {text}")),
                _ => {}
            }
        }
        if let Some(ret) = &self.ret {
            out.push(format!("return {ret}"));
        }
        out.join(", ")
    }

    /// The parameters stay as many, in their order.
    fn in_place(&self) -> bool {
        self.lost.is_empty()
            && self
                .slots
                .iter()
                .enumerate()
                .all(|(j, s)| s.from == Some(j))
    }

    /// The edits of the definition whose first token stands at `start`, and what its return loses. What stands in `gone` is deleted
    /// by other changes.
    ///
    /// # Errors
    /// Says what in the definition cannot be rewritten.
    pub fn definition(
        &self,
        text: &str,
        start: usize,
        gone: &[Range<usize>],
    ) -> Result<(Vec<Edit>, String), String> {
        let head = self.head(text, start)?;
        let mut edits = self.head_edits(text, &head)?;
        let bytes = text.as_bytes();
        let open = next_token(bytes, head.close + 1).filter(|r| text.get(r.clone()) == Some("{"));
        let open = open
            .ok_or_else(|| format!("the definition of {}() has an unusual head", self.name))?
            .start;
        let close = lex::closing(bytes, open).ok_or("unbalanced braces")?;
        let body = open + 1..close;
        edits.extend(self.lost_variables(text, &head, &body, gone)?);
        let (returns, mut meaning) = self.returns(text, &body)?;
        edits.extend(returns);
        if !self.retyped.is_empty() {
            let gap = if meaning.is_empty() { "" } else { "; " };
            meaning.push_str(&format!(
                "{gap}{}() is handed {}: the compiler knows all that it uses of that, the meaning was not compared",
                self.name,
                self.retyped.join(", ")
            ));
        }
        Ok((edits, meaning))
    }

    /// The edits of a prototype.
    ///
    /// # Errors
    /// Says what in it cannot be rewritten.
    pub fn prototype(&self, text: &str, site: &Site) -> Result<Vec<Edit>, String> {
        let start = declaration_start(text, site.word.start);
        let head = self.head(text, start)?;
        self.head_edits(text, &head)
    }

    /// The edit of a call of the driver's own.
    ///
    /// # Errors
    /// Where its value is used and there is none any more, or a lost parameter's argument does something.
    pub fn call(&self, text: &str, site: &Site) -> Result<Option<Edit>, String> {
        let Some((whole, given)) = &site.call else {
            return Ok(None);
        };
        if self.becomes_void && !site.is_statement(text) {
            return Err(format!("the driver uses what {}() returns", self.name));
        }
        if self.in_place() {
            return Ok(None);
        }
        if given.len() != self.names.len() {
            return Err(format!(
                "a call of {}() passes {} arguments",
                self.name,
                given.len()
            ));
        }
        for (i, _) in &self.lost {
            if given
                .get(*i)
                .is_some_and(|a: &Argument| template::has_side_effects(&a.text))
            {
                return Err(format!(
                    "a call of {}() computes an argument that nothing takes",
                    self.name
                ));
            }
        }
        let mut pieces = vec![Piece::Text(format!("{}(", self.name))];
        for (j, slot) in self.slots.iter().enumerate() {
            if j > 0 {
                pieces.push(Piece::Text(", ".to_owned()));
            }
            pieces.push(match slot.from.and_then(|i| given.get(i)) {
                Some(a) => Piece::Kept(a.range.start, a.range.end),
                None => Piece::Text(slot.filler.to_owned()),
            });
        }
        pieces.push(Piece::Text(")".to_owned()));
        Ok(Some(Edit {
            start: whole.start,
            end: whole.end,
            pieces,
        }))
    }

    fn head(&self, text: &str, start: usize) -> Result<Head, String> {
        let unusual = || format!("{}() is declared in an unusual way", self.name);
        let rest = text.get(start..).ok_or_else(unusual)?;
        let mut tokens = Vec::new();
        for (token, range) in lex::tokens(rest.as_bytes()) {
            let end = matches!(token, Token::Punct(b'{' | b';' | b'('));
            tokens.push((token, start + range.start..start + range.end));
            if end {
                break;
            }
        }
        let word = |i: usize| lex::nth(text, &tokens, i);
        let name = tokens.len().checked_sub(2).ok_or_else(unusual)?;
        if word(name) != self.name || word(name + 1) != "(" {
            return Err(unusual());
        }
        let first = (0..name)
            .find(|i| !is_specifier(word(*i)))
            .ok_or_else(unusual)?;
        let last = (first..name)
            .rev()
            .find(|i| !is_specifier(word(*i)))
            .ok_or_else(unusual)?;
        let at = |i: usize| tokens.get(i).map(|(_, r)| r.clone()).unwrap_or_default();
        let open = at(name + 1).start;
        let close = lex::closing(text.as_bytes(), open).ok_or_else(unusual)?;
        let inner = text.get(open + 1..close).unwrap_or_default();
        let params: Vec<Range<usize>> = match inner.trim() {
            "" | "void" => Vec::new(),
            _ => lex::split(inner)
                .into_iter()
                .map(|r| open + 1 + r.start..open + 1 + r.end)
                .collect(),
        };
        if params.len() != self.names.len() {
            return Err(unusual());
        }
        Ok(Head {
            ret: at(first).start..at(last).end,
            after_ret: at(last + 1).start,
            open,
            close,
            params,
        })
    }

    fn head_edits(&self, text: &str, head: &Head) -> Result<Vec<Edit>, String> {
        let mut edits = Vec::new();
        let mut shift = 0isize;
        if let Some(ret) = &self.ret {
            let gap = text.get(head.ret.end..head.after_ret).unwrap_or_default();
            let blank = if gap.is_empty() && !ret.ends_with('*') {
                " "
            } else {
                ""
            };
            let range = match ret.ends_with('*') && gap == " " {
                true => head.ret.start..head.after_ret,
                false => head.ret.clone(),
            };
            let new = format!("{ret}{blank}");
            if !gap.contains('\n') {
                shift = new.len().cast_signed() - range.len().cast_signed();
            }
            edits.push(Edit::replace(range, new));
        }
        let list = text.get(head.open..head.close).unwrap_or_default();
        if self.in_place() && (shift == 0 || !list.contains('\n')) {
            for (slot, range) in self.slots.iter().zip(&head.params) {
                edits.extend(
                    slot.text
                        .as_ref()
                        .map(|t| Edit::replace(range.clone(), retyped(text, range, t))),
                );
            }
            return Ok(edits);
        }
        edits.push(self.list(text, head, shift));
        Ok(edits)
    }

    /// The whole list of parameters anew, in lines of the usual length.
    fn list(&self, text: &str, head: &Head, shift: isize) -> Edit {
        let line = text
            .get(..head.open)
            .map_or(0, |t| t.rfind('\n').map_or(0, |n| n + 1));
        let before = text.get(line..=head.open).unwrap_or_default();
        let column = columns(before).saturating_add_signed(shift);
        let indent = format!("{}{}", "\t".repeat(column / 8), " ".repeat(column % 8));
        let mut pieces = Vec::new();
        let mut at = column;
        for (j, slot) in self.slots.iter().enumerate() {
            let range = slot.from.and_then(|i| head.params.get(i));
            let words = match (&slot.text, range) {
                (Some(t), Some(r)) => retyped(text, r, t),
                (Some(t), None) => t.clone(),
                (None, Some(r)) => text.get(r.clone()).unwrap_or_default().to_owned(),
                (None, None) => String::new(),
            };
            if j > 0 {
                let wraps = at + 2 + words.len() + 1 > WIDTH;
                pieces.push(Piece::Text(if wraps {
                    format!(",\n{indent}")
                } else {
                    ", ".to_owned()
                }));
                at = if wraps { column } else { at + 2 };
            }
            at += words.len();
            pieces.push(match (&slot.text, range) {
                (None, Some(r)) => Piece::Kept(r.start, r.end),
                _ => Piece::Text(words),
            });
        }
        if self.slots.is_empty() {
            pieces.push(Piece::Text("void".to_owned()));
        }
        Edit {
            start: head.open + 1,
            end: head.close,
            pieces,
        }
    }

    /// Variables in place of lost parameters that the body uses.
    fn lost_variables(
        &self,
        text: &str,
        head: &Head,
        body: &Range<usize>,
        gone: &[Range<usize>],
    ) -> Result<Vec<Edit>, String> {
        let inner = text.get(body.clone()).unwrap_or_default();
        let deletions: Vec<Edit> = gone
            .iter()
            .filter(|g| body.start <= g.start && g.end <= body.end)
            .map(|g| Edit::delete(g.start - body.start..g.end - body.start))
            .collect();
        let left = super::edit::apply(inner.as_bytes(), &deletions).text;
        let words = lex::words(&String::from_utf8_lossy(&left));
        let mut lines = String::new();
        for (i, expression) in &self.lost {
            let name = self.names.get(*i).map_or("", String::as_str);
            if !words.iter().any(|w| w == name) {
                continue;
            }
            let Some(expression) = expression else {
                return Err(format!(
                    "{}() uses its parameter {name}, which the target does not pass",
                    self.name
                ));
            };
            let declaration = head
                .params
                .get(*i)
                .and_then(|r| text.get(r.clone()))
                .unwrap_or_default();
            lines.push_str(&format!("\n\t{} = {expression};", variable(declaration)));
        }
        if lines.is_empty() {
            return Ok(Vec::new());
        }
        if !starts_with_declaration(inner) {
            lines.push('\n');
        }
        Ok(vec![Edit::insert(body.start, lines)])
    }

    /// The return statements of the new type.
    fn returns(&self, text: &str, body: &Range<usize>) -> Result<(Vec<Edit>, String), String> {
        if let Some(value) = &self.value {
            return Ok((gain_value(text, body, value), String::new()));
        }
        if !self.becomes_void {
            return Ok((Vec::new(), String::new()));
        }
        self.lose_value(text, body)
    }

    fn lose_value(&self, text: &str, body: &Range<usize>) -> Result<(Vec<Edit>, String), String> {
        let (mut edits, mut loses) = (Vec::new(), false);
        for found in return_statements(text, body) {
            let value = text.get(found.value.clone()).unwrap_or_default().trim();
            if value.is_empty() {
                continue;
            }
            loses |= !matches!(value, "0" | "(0)");
            let calls = template::has_side_effects(value);
            let last = next_token(text.as_bytes(), found.end).is_some_and(|r| r.start == body.end);
            let statement = found.start..found.end;
            let plain = |before: &str| before.trim_end().ends_with([';', '{', '}']);
            let own = plain(text.get(..found.start).unwrap_or_default());
            edits.push(match (calls, last && own) {
                (false, true) => Edit::delete(with_blank_line(
                    text,
                    whole_lines(text, statement),
                    body.start,
                )),
                (false, false) => Edit::replace(statement, "return;"),
                (true, true) => Edit {
                    start: found.start,
                    end: found.value.start,
                    pieces: Vec::new(),
                },
                (true, false) if own => {
                    let indent = indent_of(text, found.start);
                    Edit {
                        start: found.start,
                        end: found.end,
                        pieces: vec![
                            Piece::Kept(found.value.start, found.value.end),
                            Piece::Text(format!(";\n{indent}return;")),
                        ],
                    }
                }
                (true, false) => {
                    return Err(format!(
                        "{}() returns the value of a call in a branch without braces",
                        self.name
                    ));
                }
            });
        }
        let meaning = if loses {
            format!(
                "what {}() returns is lost: the target's kernel takes nothing back",
                self.name
            )
        } else {
            String::new()
        };
        Ok((edits, meaning))
    }
}

/// A parameter's declaration as that of a variable: `struct nlattr *tb[]` is a pointer there.
fn variable(declaration: &str) -> String {
    let flat: Vec<&str> = declaration.split_whitespace().collect();
    let flat = flat.join(" ");
    let array = flat.split_once('[').and_then(|(plain, rest)| {
        let name = lex::words(plain).pop()?;
        let ty = plain.strip_suffix(&name)?;
        (rest.matches('[').count() == 0).then(|| format!("{ty}*{name}"))
    });
    array.unwrap_or(flat)
}

/// The parts of a function's head.
struct Head {
    ret: Range<usize>,
    after_ret: usize,
    open: usize,
    close: usize,
    params: Vec<Range<usize>>,
}

struct Return {
    start: usize,
    value: Range<usize>,
    end: usize,
}

fn return_statements(text: &str, body: &Range<usize>) -> Vec<Return> {
    let inner = text.get(body.clone()).unwrap_or_default();
    let mut out = Vec::new();
    for (token, range) in lex::tokens(inner.as_bytes()) {
        if token != Token::Word || inner.get(range.clone()) != Some("return") {
            continue;
        }
        let Some(end) = lex::expression_end(inner.as_bytes(), range.end) else {
            continue;
        };
        let start = body.start + range.start;
        let from = next_token(text.as_bytes(), body.start + range.end)
            .map_or(body.start + range.end, |r| r.start);
        out.push(Return {
            start,
            value: from..body.start + end,
            end: body.start + end + 1,
        });
    }
    out
}

/// `return;` gets a value, and so does the end of the body.
fn gain_value(text: &str, body: &Range<usize>, value: &str) -> Vec<Edit> {
    let all = return_statements(text, body);
    let mut edits: Vec<Edit> = all
        .iter()
        .map(|r| Edit::replace(r.start..r.end, format!("return {value};")))
        .collect();
    let ends = all
        .iter()
        .any(|r| next_token(text.as_bytes(), r.end).is_some_and(|n| n.start == body.end));
    if !ends {
        let inner = text.get(body.clone()).unwrap_or_default();
        let blank = if inner.trim().is_empty() { "" } else { "\n" };
        let fresh = if inner.ends_with('\n') { "" } else { "\n" };
        edits.push(Edit::insert(
            body.end,
            format!("{fresh}{blank}\treturn {value};\n"),
        ));
    }
    edits
}

/// The lines, and the blank one before them where nothing follows.
fn with_blank_line(text: &str, range: Range<usize>, floor: usize) -> Range<usize> {
    let before = text.get(..range.start).unwrap_or_default();
    let start = if before.ends_with("\n\n") && range.start > floor + 1 {
        range.start - 1
    } else {
        range.start
    };
    start..range.end
}

fn indent_of(text: &str, at: usize) -> String {
    let line = text
        .get(..at)
        .map_or("", |t| t.rsplit('\n').next().unwrap_or_default());
    line.chars().take_while(|c| c.is_whitespace()).collect()
}

fn next_token(bytes: &[u8], from: usize) -> Option<Range<usize>> {
    let (_, range) = lex::tokens(bytes.get(from..)?).next()?;
    Some(from + range.start..from + range.end)
}

/// Where the declaration around a name starts: behind the last `;`, `}` or directive.
#[must_use]
pub fn declaration_start(text: &str, at: usize) -> usize {
    let mut start = 0;
    let mut line = 0;
    for part in text.get(..at).unwrap_or_default().split_inclusive('\n') {
        line += part.len();
        if part.trim_start().starts_with('#') && part.ends_with('\n') {
            start = line;
        }
    }
    for (token, range) in lex::tokens(text.get(..at).unwrap_or_default().as_bytes()) {
        if matches!(token, Token::Punct(b';' | b'}')) {
            start = start.max(range.end);
        }
    }
    next_token(text.as_bytes(), start).map_or(start, |r| r.start)
}

fn is_specifier(word: &str) -> bool {
    matches!(word, "static" | "inline" | "extern" | "noinline")
        || word.starts_with("__") && !is_type_word(word)
}

fn is_type_word(word: &str) -> bool {
    let int = |w: &str| {
        matches!(
            w,
            "u8" | "u16" | "u32" | "u64" | "s8" | "s16" | "s32" | "s64" | "poll_t"
        )
    };
    let plain = word.trim_start_matches('_');
    int(plain) || plain.starts_with("le") || plain.starts_with("be")
}

/// The declaration of a parameter with another type; one that had no name gets none.
fn retyped(text: &str, range: &Range<usize>, new: &str) -> String {
    let old = text.get(range.clone()).unwrap_or_default();
    let last = lex::words(new).last().cloned().unwrap_or_default();
    let named = lex::words(old).contains(&last);
    if named || last.is_empty() {
        return new.to_owned();
    }
    // A prototype may give it another name, or none.
    let old_name = lex::words(old).last().cloned().filter(|_| {
        let words = lex::words(old).len();
        words > 2
            || words == 2
                && !old.trim_start().starts_with("struct")
                && !old.trim_start().starts_with("const")
    });
    match old_name {
        Some(name) => lex::rename(new, &last, &name),
        None => new.strip_suffix(&last).unwrap_or(new).trim_end().to_owned(),
    }
}

/// The body's first statement is a declaration, as far as its words tell.
fn starts_with_declaration(body: &str) -> bool {
    let words: Vec<(Token, Range<usize>)> = lex::tokens(body.as_bytes()).take(3).collect();
    let word = |i: usize| lex::nth(body, &words, i);
    let is_word = |i: usize| matches!(words.get(i), Some((Token::Word, _)));
    let control = matches!(
        word(0),
        "return" | "if" | "for" | "while" | "switch" | "goto" | "do" | "else"
    );
    !control && is_word(0) && (is_word(1) || word(1) == "*" && is_word(2))
}

fn same(a: &Ty, b: &Ty) -> bool {
    let flat = |t: &str| {
        t.split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .replace(" *", "*")
    };
    let tidy = |t: &str| {
        let text = flat(t);
        match text.strip_suffix("const") {
            Some(rest) if rest.ends_with('*') => rest.to_owned(),
            _ => text,
        }
    };
    a.spelling == b.spelling || tidy(&a.canonical) == tidy(&b.canonical)
}

/// One can stand for the other with no more than `const`, or another kind of integer, changed.
fn convertible(a: &Ty, b: &Ty) -> bool {
    cfn::decayed(&a.canonical) == cfn::decayed(&b.canonical)
        || cfn::bare(&a.spelling) == cfn::bare(&b.spelling)
        || is_integer(&a.canonical) && is_integer(&b.canonical)
}

/// Which parameter of the old form each of the new form is; which are lost, with their values; what changed, in words.
type Matched = (
    Vec<Option<usize>>,
    Vec<(usize, Option<String>)>,
    Vec<String>,
);

/// Parameters by what an evolution says of all of them.
fn told_all(
    name: &str,
    have: &Signature,
    want: &Signature,
    from: &[Source],
) -> Result<Matched, String> {
    if from.len() != have.params.len() {
        return Err(format!(
            "{name}() takes {} parameters, and the evolution for it speaks of {}",
            have.params.len(),
            from.len()
        ));
    }
    let mut slots: Vec<Option<usize>> = vec![None; want.params.len()];
    let mut lost = Vec::new();
    for (index, (from, param)) in from.iter().zip(&have.params).enumerate() {
        match from {
            Source::Place(place) => {
                let there = want.params.get(*place);
                let fits =
                    there.is_some_and(|w| same(&param.ty, &w.ty) || convertible(&param.ty, &w.ty));
                match slots.get_mut(*place).filter(|_| fits) {
                    Some(slot) => *slot = Some(index),
                    None => {
                        return Err(format!(
                            "{name}() takes {} where the evolution for it means another type",
                            param.ty.spelling
                        ));
                    }
                }
            }
            Source::Expression(e) => lost.push((index, Some(e.clone()))),
        }
    }
    Ok((slots, lost, Vec::new()))
}

/// Parameters by their types, in order.
fn by_type(have: &Signature, want: &Signature, known: &Known) -> Matched {
    let mut slots: Vec<Option<usize>> = vec![None; want.params.len()];
    let mut lost = Vec::new();
    for (index, param) in have.params.iter().enumerate() {
        let free = |j: &usize| slots.get(*j) == Some(&None);
        let matching = |test: fn(&Ty, &Ty) -> bool| {
            (0..want.params.len())
                .filter(free)
                .find(|j| want.params.get(*j).is_some_and(|w| test(&param.ty, &w.ty)))
        };
        let rule = told(known, &param.ty);
        // A rule knows better than the first parameter that could hold the value; and where parameters were added or dropped, a
        // truth value is not the flags beside it.
        let kin = match have.params.len() == want.params.len() {
            true => convertible,
            false => of_one_kind,
        };
        let other = || matching(kin).filter(|_| rule.is_none());
        match matching(same).or_else(other) {
            Some(j) => {
                if let Some(slot) = slots.get_mut(j) {
                    *slot = Some(index);
                }
            }
            None => lost.push((index, rule)),
        }
    }
    let retyped = by_place(have, want, &mut slots, &mut lost);
    (slots, lost, retyped)
}

/// Convertible, and not a truth value on one side alone.
fn of_one_kind(a: &Ty, b: &Ty) -> bool {
    let truth = |t: &Ty| matches!(cfn::bare(&t.canonical).as_str(), "_Bool" | "bool");
    convertible(a, b) && truth(a) == truth(b)
}

/// Pointers to another structure at the same place of as many parameters: the structure has another name or shape, and the
/// compiler says whether it has what the function uses. In words, what changed.
fn by_place(
    have: &Signature,
    want: &Signature,
    slots: &mut [Option<usize>],
    lost: &mut Vec<(usize, Option<String>)>,
) -> Vec<String> {
    let is_structure = |t: &Ty| {
        let bare = cfn::bare(&t.canonical);
        bare.starts_with("struct ") && bare.matches('*').count() == 1 && bare.ends_with('*')
    };
    let mut words = Vec::new();
    if have.params.len() != want.params.len() {
        return words;
    }
    lost.retain(|(i, known)| {
        let (Some(old), Some(new), Some(slot)) =
            (have.params.get(*i), want.params.get(*i), slots.get_mut(*i))
        else {
            return true;
        };
        if known.is_some() || slot.is_some() || !is_structure(&old.ty) || !is_structure(&new.ty) {
            return true;
        }
        *slot = Some(*i);
        words.push(format!(
            "a {} in place of a {}",
            new.ty.spelling, old.ty.spelling
        ));
        false
    });
    words
}

fn is_integer(ty: &str) -> bool {
    let bare = cfn::bare(ty);
    let words = [
        "int", "long", "short", "char", "unsigned", "signed", "_Bool", "bool",
    ];
    bare.starts_with("enum ") && !bare.contains('*') || bare.split(' ').all(|w| words.contains(&w))
}

fn told(known: &Known, ty: &Ty) -> Option<String> {
    let wanted = [cfn::bare(&ty.spelling), cfn::bare(&ty.canonical)];
    let found = known
        .params
        .iter()
        .find(|(t, _)| wanted.contains(&cfn::bare(t)));
    let extack = cfn::bare(&ty.canonical) == "struct netlink_ext_ack *";
    found
        .map(|(_, e)| e.clone())
        .or_else(|| extack.then(|| "NULL".to_owned()))
}

/// An expression with the names of the new form's parameters in place of `{0}`, `{1}`.
fn with_names(expression: &str, slots: &[Slot], names: &[String]) -> String {
    let name = |slot: &Slot| match (slot.from.and_then(|i| names.get(i)), &slot.text) {
        (Some(name), _) => name.clone(),
        (None, Some(text)) => lex::words(text).last().cloned().unwrap_or_default(),
        (None, None) => String::new(),
    };
    let values: Vec<String> = slots.iter().map(name).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let rule = Template::of_rule(expression, values.len(), false);
    super::names::filled(&rule, &values).unwrap_or_else(|| expression.to_owned())
}

/// A name for a new parameter: the target's own, or one after its type.
fn fresh(name: &str, ty: &Ty, taken: &BTreeSet<String>) -> String {
    let from_type = || {
        const PLAIN: [&str; 14] = [
            "const", "volatile", "struct", "union", "enum", "unsigned", "signed", "char", "short",
            "int", "long", "bool", "_Bool", "void",
        ];
        let words = lex::words(&ty.spelling);
        let tag = words.iter().rev().find(|w| !PLAIN.contains(&w.as_str()));
        let plain = if words.iter().any(|w| w == "void") {
            "data"
        } else {
            "arg"
        };
        tag.cloned().unwrap_or_else(|| plain.to_owned())
    };
    let mut base = if name.is_empty() {
        from_type()
    } else {
        name.to_owned()
    };
    while taken.contains(&base) || base == ty.spelling {
        base.push('_');
    }
    base
}

#[cfg(test)]
mod tests {
    use super::super::edit::apply;
    use super::super::sites::sites;
    use super::*;
    use kspan_port::understand;

    fn signature(text: &str, names: &[&str]) -> Signature {
        let mut s = understand::signature(cfn::parse(text).unwrap()).unwrap();
        for (p, n) in s.params.iter_mut().zip(names) {
            p.name = (*n).to_owned();
        }
        s
    }

    fn reshape(have: (&str, &[&str]), want: (&str, &[&str]), known: &Known, text: &str) -> Reshape {
        let body = lex::words(text).into_iter().collect();
        Reshape::new(
            "f",
            &signature(have.0, have.1),
            &signature(want.0, want.1),
            known,
            &body,
        )
        .unwrap()
    }

    #[test]
    fn what_an_adapter_hands_on_becomes_variables() {
        let adapter = "static int {name}(struct d *dev, struct p *params)\n{\n\treturn {fn}(net_of(params), dev, params->tb);\n}\n";
        let known = Known {
            forward: super::super::forward::read(adapter).map(|f| f.from),
            ..Known::default()
        };
        let have = (
            "int (struct n *, struct d *, struct a **)",
            &["net", "dev", "tb"][..],
        );
        let want = ("int (struct d *, struct p *)", &["dev", "params"][..]);
        let text = "static int f(struct n *net, struct d *dev,\n\t     struct a *tb[])\n{\n\treturn tb[0] + dev->x;\n}\n";
        assert_eq!(
            defined(text, &reshape(have, want, &known, text)).unwrap(),
            "static int f(struct d *dev, struct p *params)\n{\n\tstruct a **tb = params->tb;\n\n\treturn tb[0] + dev->x;\n}\n"
        );
    }

    #[test]
    fn a_truth_value_is_not_the_flags_beside_it() {
        let have = ("int (*)(struct n *, bool, int *)", &["net", "ovr", "x"][..]);
        let want = (
            "int (*)(struct n *, u32, int *, long *)",
            &["net", "flags", "x", "more"][..],
        );
        let text = "int f(struct n *net, bool ovr, int *x)\n{\n\treturn ovr;\n}\n";
        let known = Known {
            params: [("bool".to_owned(), "{1} & REPLACE".to_owned())].into(),
            ..Known::default()
        };
        let reshaped = reshape(have, want, &known, text);
        let lost: Vec<usize> = reshaped.lost.iter().map(|(i, _)| *i).collect();
        assert_eq!(lost, [1]);
        let unknown = reshape(have, want, &Known::default(), text);
        assert_eq!(unknown.lost.len(), 1);
    }

    fn defined(text: &str, reshape: &Reshape) -> Result<String, String> {
        let (edits, _) = reshape.definition(text, 0, &[])?;
        Ok(String::from_utf8(apply(text.as_bytes(), &edits).text).unwrap())
    }

    #[test]
    fn remove_returns_nothing() {
        let text = "static int f(struct p *d)\n{\n\tif (!d)\n\t\treturn -EINVAL;\n\tg(d);\n\n\treturn 0;\n}\n";
        let r = reshape(
            ("int (struct p *)", &["d"]),
            ("void (struct p *)", &["d"]),
            &Known::default(),
            text,
        );
        assert_eq!(
            defined(text, &r).unwrap(),
            "static void f(struct p *d)\n{\n\tif (!d)\n\t\treturn;\n\tg(d);\n}\n"
        );
        let call = "static int f(struct p *d)\n{\n\treturn g(d);\n}\n";
        assert_eq!(
            defined(call, &r).unwrap(),
            "static void f(struct p *d)\n{\n\tg(d);\n}\n"
        );
        assert!(r.definition(text, 0, &[]).unwrap().1.contains("lost"));
        let proto = "static int f(struct p *);\n";
        let site = &sites(proto, "f", None)[0];
        let edits = r.prototype(proto, site).unwrap();
        assert_eq!(
            apply(proto.as_bytes(), &edits).text,
            b"static void f(struct p *);\n"
        );
        assert!(
            r.call("x = f(d);", &sites("x = f(d);", "f", None)[0])
                .is_err()
        );
        assert!(
            r.call("f(d);", &sites("f(d);", "f", None)[0])
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_lost_parameter_becomes_a_variable_where_it_is_used() {
        let known = Known {
            params: BTreeMap::from([("const struct id *".to_owned(), "get_id({0})".to_owned())]),
            ..Known::default()
        };
        let (have, want) = (
            ("int (struct c *, const struct id *)", &["c", "id"] as &[_]),
            ("int (struct c *)", &["client"] as &[_]),
        );
        let unused = "static int f(struct c *c,\n\t     const struct id *id)\n{\n\treturn 0;\n}\n";
        let r = reshape(have, want, &known, unused);
        assert_eq!(
            defined(unused, &r).unwrap(),
            "static int f(struct c *c)\n{\n\treturn 0;\n}\n"
        );
        let used =
            "static int f(struct c *c, const struct id *id)\n{\n\tint x;\n\n\treturn id->x;\n}\n";
        let done = defined(used, &reshape(have, want, &known, used)).unwrap();
        assert_eq!(
            done,
            "static int f(struct c *c)\n{\n\tconst struct id *id = get_id(c);\n\tint x;\n\n\treturn id->x;\n}\n"
        );
        assert!(
            defined(used, &reshape(have, want, &Known::default(), used))
                .unwrap_err()
                .contains("id")
        );
    }

    #[test]
    fn a_structure_of_another_name_is_taken_by_its_place() {
        let text = "static int f(struct n *n, struct old *o)\n{\n\treturn o->x;\n}\n";
        let r = reshape(
            ("int (struct n *, struct old *)", &["n", "o"]),
            ("int (struct n *, struct new *)", &["n", "info"]),
            &Known::default(),
            text,
        );
        assert_eq!(
            defined(text, &r).unwrap(),
            text.replace("struct old *o", "struct new *o")
        );
        let (_, meaning) = r.definition(text, 0, &[]).unwrap();
        assert!(meaning.contains("struct new"), "{meaning}");
    }

    #[test]
    fn what_others_delete_keeps_no_parameter_alive() {
        let text = "static int f(struct n *n, void *done)\n{\n\tn->done = done;\n\treturn 0;\n}\n";
        let r = reshape(
            ("int (struct n *, void *)", &["n", "done"]),
            ("int (struct n *)", &["n"]),
            &Known::default(),
            text,
        );
        assert!(r.definition(text, 0, &[]).is_err());
        let line = text.find("\tn->done").unwrap();
        let gone = line..line + "\tn->done = done;\n".len();
        assert!(r.definition(text, 0, &[gone]).is_ok());
    }

    #[test]
    fn new_parameters_get_names_of_their_own() {
        let text =
            "static int f(struct n *n, struct r *r)\n{\n\tint ack = 1;\n\n\treturn ack;\n}\n";
        let r = reshape(
            ("int (struct n *, struct r *)", &["n", "r"]),
            (
                "int (struct n *, const struct r *, struct e *, int, void *)",
                &["dev", "ring", "ack", "", ""],
            ),
            &Known::default(),
            text,
        );
        let done = defined(text, &r).unwrap();
        assert!(
            done.starts_with(
                "static int f(struct n *n, const struct r *r, struct e *ack_, int arg,\n\t     void *data)\n"
            ),
            "{done}"
        );
        let call = r
            .call("f(a, b(c));", &sites("f(a, b(c));", "f", None)[0])
            .unwrap()
            .unwrap();
        assert_eq!(
            apply(b"f(a, b(c));", &[call]).text,
            b"f(a, b(c), NULL, 0, NULL);"
        );
    }

    #[test]
    fn a_function_that_returned_nothing_returns_a_value() {
        let text = "static void f(struct p *d)\n{\n\tif (!d)\n\t\treturn;\n\tg(d);\n}\n";
        let r = reshape(
            ("void (struct p *)", &["d"]),
            ("int (struct p *)", &["d"]),
            &Known::default(),
            text,
        );
        let done = defined(text, &r).unwrap();
        assert_eq!(
            done,
            "static int f(struct p *d)\n{\n\tif (!d)\n\t\treturn 0;\n\tg(d);\n\n\treturn 0;\n}\n"
        );
    }
}
