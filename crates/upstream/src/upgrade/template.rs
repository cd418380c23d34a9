//! What stands in place of a use of a name: the body of a macro or of a small function, with the use's own arguments.
//!
//! Only what is one expression, or nothing, is written out at its uses; larger bodies are left to the caller. An argument
//! with side effects is never doubled and never lost.

use super::edit::Piece;
use kspan_port::lex::{self, Token};
use std::collections::BTreeMap;
use std::ops::Range;

/// The replacement of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Parameter names; `None` for a name that takes no arguments. A variadic macro's last one is `__VA_ARGS__`.
    pub params: Option<Vec<String>>,
    /// The expression, on one line; empty where nothing stands for the name.
    pub body: String,
    /// Its value does not stand for that of the home form: only a statement of its own may be replaced.
    pub statement: bool,
}

/// An argument at a use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Where it stands.
    pub range: Range<usize>,
    /// Its text.
    pub text: String,
}

/// What a text defines by one name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Macro {
        params: Option<Vec<String>>,
        body: String,
    },
    Function {
        params: Vec<String>,
        body: String,
        text: String,
    },
}

/// The definitions of a C text, by name.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    items: BTreeMap<String, Item>,
}

impl Definitions {
    /// Reads `#define` lines and function definitions; everything else is passed over.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut items = BTreeMap::new();
        let mut rest = String::new();
        let joined = text.replace("\\\r\n", "\\\n");
        let mut lines = joined.lines();
        while let Some(line) = lines.next() {
            let Some(directive) = line.trim_start().strip_prefix('#') else {
                rest.push_str(line);
                rest.push('\n');
                continue;
            };
            let mut whole = directive.to_owned();
            while whole.ends_with('\\') {
                whole.pop();
                whole.push(' ');
                whole.push_str(lines.next().unwrap_or_default());
            }
            if let Some((name, item)) = macro_of(&whole) {
                items.insert(name, item);
            }
        }
        functions(&rest, &mut items);
        Self { items }
    }

    /// What stands for a name, as far as it is one expression; inner helpers of the text are written out too.
    #[must_use]
    pub fn template(&self, name: &str) -> Option<Template> {
        self.template_within(name, 4)
    }

    fn template_within(&self, name: &str, depth: usize) -> Option<Template> {
        let (params, body) = match self.items.get(name)? {
            Item::Macro { params, body } => (params.clone(), body.clone()),
            Item::Function { params, body, .. } => {
                (Some(params.clone()), expression_of(body)?.to_owned())
            }
        };
        let body = if matches!(body.trim(), "do { } while (0)" | "do {} while (0)") {
            String::new()
        } else {
            self.written_out(&body, name, depth)?
        };
        let plain = !body.contains(['{', ';', '#']);
        plain.then_some(Template {
            params,
            body,
            statement: false,
        })
    }

    /// A body with the text's own helpers in it replaced by what they do.
    fn written_out(&self, body: &str, own: &str, depth: usize) -> Option<String> {
        let mut text = body.to_owned();
        for _ in 0..depth {
            let call = lex::calls(&text)
                .into_iter()
                .find(|c| c != own && self.items.contains_key(c));
            let Some(helper) = call else {
                return Some(text);
            };
            let inner = self.template_within(&helper, depth.checked_sub(1)?)?;
            text = inner.expand_in_text(&text, &helper)?;
        }
        Some(text)
    }

    /// The function that a name leads to, where its body is more than an expression: the function's own name, its text, and
    /// the call that stands for a use.
    #[must_use]
    pub fn helper(&self, name: &str) -> Option<(String, String, Template)> {
        match self.items.get(name)? {
            Item::Function { params, text, .. } => {
                let call = format!("{name}({})", params.join(", "));
                let template = Template {
                    params: Some(params.clone()),
                    body: call,
                    statement: false,
                };
                Some((name.to_owned(), text.clone(), template))
            }
            Item::Macro { params, body } => {
                let inner = lex::calls(body).into_iter().next()?;
                let Item::Function { text, .. } = self.items.get(&inner)? else {
                    return None;
                };
                let plain = !body.contains(['{', ';', '#']);
                let template = Template {
                    params: params.clone(),
                    body: body.clone(),
                    statement: false,
                };
                plain.then(|| (inner, text.clone(), template))
            }
        }
    }

    /// The name is a macro of the text.
    #[must_use]
    pub fn is_macro(&self, name: &str) -> bool {
        matches!(self.items.get(name), Some(Item::Macro { .. }))
    }

    /// All names that are defined.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.items.keys().map(String::as_str)
    }
}

/// `define name(a, b) body`.
fn macro_of(directive: &str) -> Option<(String, Item)> {
    let text = directive.trim_start().strip_prefix("define")?.trim_start();
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let (params, body) = match rest.strip_prefix('(') {
        Some(inner) => {
            let (list, body) = inner.split_once(')')?;
            let word = |p: &str| match p.trim() {
                "..." => "__VA_ARGS__".to_owned(),
                p => p.to_owned(),
            };
            let list: Vec<String> = list
                .split(',')
                .map(word)
                .filter(|p| !p.is_empty())
                .collect();
            (Some(list), body)
        }
        None => (None, rest),
    };
    // An empty list takes the comma before it along in either form.
    let body = one_line(body)
        .replace("## __VA_ARGS__", "__VA_ARGS__")
        .replace("##__VA_ARGS__", "__VA_ARGS__");
    (!name.is_empty()).then(|| (name.to_owned(), Item::Macro { params, body }))
}

/// A text without comments and with single blanks.
fn one_line(text: &str) -> String {
    let mut out = String::new();
    let mut last = 0;
    for (_, range) in lex::tokens(text.as_bytes()) {
        let gap = text.get(last..range.start).unwrap_or_default();
        if !out.is_empty() && !gap.is_empty() {
            out.push(' ');
        }
        out.push_str(text.get(range.clone()).unwrap_or_default());
        last = range.end;
    }
    out
}

/// Function definitions: a head that ends in `name(params)`, then a body in braces.
fn functions(text: &str, items: &mut BTreeMap<String, Item>) {
    let bytes = text.as_bytes();
    let mut start = 0;
    while let Some(open) = body_start(bytes, start) {
        let Some(close) = lex::closing(bytes, open) else {
            return;
        };
        let from = start + leading_blank(bytes.get(start..open).unwrap_or_default());
        let head = text.get(from..open).unwrap_or_default();
        if let Some((name, params)) = head_of(head) {
            let body = text.get(open + 1..close).unwrap_or_default().to_owned();
            let whole = text.get(from..=close).unwrap_or_default().to_owned();
            items.insert(
                name,
                Item::Function {
                    params,
                    body,
                    text: whole,
                },
            );
        }
        start = close + 1;
        if bytes.get(start) == Some(&b';') {
            start += 1;
        }
    }
}

fn leading_blank(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_whitespace()).count()
}

/// The next `{` outside of brackets.
fn body_start(bytes: &[u8], from: usize) -> Option<usize> {
    lex::tokens(bytes.get(from..)?)
        .find(|(token, _)| *token == Token::Punct(b'{'))
        .map(|(_, range)| from + range.start)
}

/// Name and parameter names of `static inline int name(struct a *x, int y)`.
fn head_of(head: &str) -> Option<(String, Vec<String>)> {
    let bytes = head.as_bytes();
    let tokens: Vec<(Token, Range<usize>)> = lex::tokens(bytes).collect();
    let at = tokens.windows(2).position(|w| {
        matches!(w, [(Token::Word, r), (Token::Punct(b'('), _)] if !head[r.clone()].starts_with("__"))
    })?;
    let (_, name) = tokens.get(at)?;
    let (_, open) = tokens.get(at + 1)?;
    let close = lex::closing(bytes, open.start)?;
    let list = head.get(open.end..close)?;
    let params = match list.trim() {
        "" | "void" => Vec::new(),
        _ => lex::split(list)
            .iter()
            .map(|r| parameter_name(&list[r.clone()]))
            .collect::<Option<_>>()?,
    };
    Some((head.get(name.clone())?.to_owned(), params))
}

/// The last identifier of `const struct a *x`, or that of `void (*f)(int)`.
fn parameter_name(text: &str) -> Option<String> {
    let inner = match text.find("(*") {
        Some(at) => text.get(at..)?.split(')').next()?,
        None => text.split('[').next()?,
    };
    let words = lex::words(inner);
    words.last().cloned()
}

/// The expression of a body that is one: `return e;`, `e;`, or nothing.
fn expression_of(body: &str) -> Option<&str> {
    let text = body.trim();
    if text.is_empty() {
        return Some("");
    }
    let text = text.strip_suffix(';')?.trim();
    let keyword = |k: &str| {
        text.strip_prefix(k)
            .is_some_and(|r| !r.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
    };
    let inner = match keyword("return") {
        true => text.strip_prefix("return")?.trim(),
        false => text,
    };
    let controls = ["if", "for", "while", "do", "switch", "goto", "else"]
        .iter()
        .any(|k| keyword(k));
    // Two words side by side that are no call declare something.
    let declares = declares(inner);
    (!controls && !declares && !inner.contains([';', '{'])).then_some(inner)
}

fn declares(text: &str) -> bool {
    let mut words = lex::tokens(text.as_bytes()).take(2);
    let both = (words.next(), words.next());
    let is_sizeof = text.starts_with("sizeof");
    matches!(both, (Some((Token::Word, _)), Some((Token::Word, _)))) && !is_sizeof
}

impl Template {
    /// A name in place of a name.
    #[must_use]
    pub fn name(to: &str) -> Self {
        Self {
            params: None,
            body: to.to_owned(),
            statement: false,
        }
    }

    /// A template as rules write it: `{0}`, `{1}` are the arguments.
    #[must_use]
    pub fn of_rule(text: &str, arity: usize, statement: bool) -> Self {
        let name = |i: usize| format!("kspan_arg_{i}");
        let mut body = text.to_owned();
        for i in 0..arity {
            body = body.replace(&format!("{{{i}}}"), &name(i));
        }
        Self {
            params: Some((0..arity).map(name).collect()),
            body,
            statement,
        }
    }

    /// One call, name or member chain: it binds tighter than any operator around it.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        is_primary(&self.body)
    }

    /// The pieces that stand for a use with these arguments.
    ///
    /// # Errors
    /// Says why this use cannot be written out.
    pub fn expand(&self, arguments: &[Argument]) -> Result<Vec<Piece>, String> {
        let params = self.params.as_deref().unwrap_or_default();
        let variadic = params.last().is_some_and(|p| p == "__VA_ARGS__");
        let fixed = params.len() - usize::from(variadic);
        let fits = if variadic {
            arguments.len() >= fixed
        } else {
            arguments.len() == fixed
        };
        if !fits {
            return Err(format!(
                "it is used with {} arguments, where {fixed} are known",
                arguments.len()
            ));
        }
        let mut out = Vec::new();
        let mut used = vec![0usize; arguments.len()];
        for fragment in fragments(&self.body, params) {
            match fragment {
                Fragment::Text(text) => push_text(&mut out, &text),
                Fragment::Param(i, place) if params.get(i).is_some_and(|p| p == "__VA_ARGS__") => {
                    let rest = arguments.get(fixed..).unwrap_or_default();
                    drop_comma(&mut out, rest.is_empty() && place != Place::Operand);
                    if let (Some(first), Some(last)) = (rest.first(), rest.last()) {
                        out.push(Piece::Kept(first.range.start, last.range.end));
                    }
                    used.iter_mut().skip(fixed).for_each(|n| *n += 1);
                }
                Fragment::Param(i, place) => {
                    let Some(argument) = arguments.get(i) else {
                        continue;
                    };
                    if let Some(n) = used.get_mut(i) {
                        *n += 1;
                    }
                    push_argument(&mut out, argument, place);
                }
            }
        }
        for (argument, n) in arguments.iter().zip(used) {
            if n != 1 && has_side_effects(&argument.text) {
                let what = if n == 0 {
                    "would be lost"
                } else {
                    "would be evaluated twice"
                };
                return Err(format!("its argument `{}` {what}", argument.text));
            }
        }
        Ok(out)
    }

    /// A call of `name` in a text, replaced.
    fn expand_in_text(&self, text: &str, name: &str) -> Option<String> {
        let bytes = text.as_bytes();
        let tokens: Vec<(Token, Range<usize>)> = lex::tokens(bytes).collect();
        let at = tokens.windows(2).position(|w| {
            matches!(w, [(Token::Word, r), (Token::Punct(b'('), _)] if &text[r.clone()] == name)
        })?;
        let (_, word) = tokens.get(at)?;
        let (_, open) = tokens.get(at + 1)?;
        let close = lex::closing(bytes, open.start)?;
        let arguments = arguments(text, open.end..close);
        let pieces = self.expand(&arguments).ok()?;
        let mut inner = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(t) => inner.push_str(&t),
                Piece::Kept(s, e) => inner.push_str(text.get(s..e)?),
            }
        }
        let whole = word.start == 0 && close + 1 == text.len();
        if !whole && !is_primary(&inner) {
            inner = format!("({inner})");
        }
        Some(format!(
            "{}{inner}{}",
            text.get(..word.start)?,
            text.get(close + 1..)?
        ))
    }
}

/// The arguments in a bracketed list of a text.
#[must_use]
pub fn arguments(text: &str, list: Range<usize>) -> Vec<Argument> {
    let inner = text.get(list.clone()).unwrap_or_default();
    if inner.trim().is_empty() {
        return Vec::new();
    }
    let absolute = |r: Range<usize>| Argument {
        text: inner.get(r.clone()).unwrap_or_default().to_owned(),
        range: list.start + r.start..list.start + r.end,
    };
    lex::split(inner).into_iter().map(absolute).collect()
}

/// How a parameter stands in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between brackets or commas of its own: any expression can stand there.
    Alone,
    /// Before `->`.
    Pointer,
    /// Beside an operator.
    Operand,
    /// Beside `##` or after `#`, or as a word that no expression may replace.
    Pasted,
}

enum Fragment {
    Text(String),
    Param(usize, Place),
}

/// A body as text and parameters; brackets around a parameter alone are left out, since the argument gets its own where it
/// needs them.
fn fragments(body: &str, params: &[String]) -> Vec<Fragment> {
    let tokens: Vec<(Token, Range<usize>)> = lex::tokens(body.as_bytes()).collect();
    let word = |i: usize| lex::nth(body, &tokens, i);
    let (mut out, mut at, mut i) = (Vec::new(), 0, 0);
    let param = |i: usize| params.iter().position(|p| p == word(i));
    let member = |i: usize| {
        i.checked_sub(1)
            .is_some_and(|b| word(b) == "." || word(b) == ">" && b > 0 && word(b - 1) == "-")
    };
    while let Some((token, range)) = tokens.get(i) {
        if let Some((index, inner)) = within(word(i), params) {
            let inner = range.start + inner.start..range.start + inner.end;
            out.push(Fragment::Text(
                body.get(at..inner.start).unwrap_or_default().to_owned(),
            ));
            out.push(Fragment::Param(index, Place::Pasted));
            at = inner.end;
            i += 1;
            continue;
        }
        let bracketed = *token == Token::Punct(b'(')
            && word(i + 2) == ")"
            && param(i + 1).is_some()
            && !i.checked_sub(1).is_some_and(|b| {
                matches!(tokens[b].0, Token::Word) && word(b) != "return" || matches!(word(b), ")" | "]")
            })
            // `(a)(b)` and `(t)x` are a call or a cast.
            && !matches!(tokens.get(i + 3).map(|t| t.0), Some(Token::Word | Token::Literal | Token::Punct(b'(')));
        let (index, last) = match bracketed {
            true => (param(i + 1), i + 2),
            false => (param(i).filter(|_| *token == Token::Word && !member(i)), i),
        };
        if let Some(index) = index {
            let end = tokens.get(last).map_or(range.end, |(_, r)| r.end);
            out.push(Fragment::Text(
                body.get(at..range.start).unwrap_or_default().to_owned(),
            ));
            let before = i.checked_sub(1).map_or("", word);
            let place = place(before, word(last + 1), word(last + 2));
            out.push(Fragment::Param(index, place));
            at = end;
            i = last + 1;
        } else {
            i += 1;
        }
    }
    out.push(Fragment::Text(
        body.get(at..).unwrap_or_default().to_owned(),
    ));
    out
}

/// A rule's `"{0}"` or `PREFIX_{0}`: the argument's words as a string, or behind others. In C a parameter in a word is a part of that word.
fn within(word: &str, params: &[String]) -> Option<(usize, Range<usize>)> {
    let start = word.find("kspan_arg_").filter(|at| *at > 0)?;
    let end = word.trim_end_matches('"').len();
    let name = word.get(start..end)?;
    let index = params.iter().position(|p| p == name)?;
    Some((index, start..end))
}

fn place(before: &str, after: &str, further: &str) -> Place {
    if before == "#" || after == "#" {
        return Place::Pasted;
    }
    if after == "-" && further == ">" {
        return Place::Pointer;
    }
    let opens = matches!(before, "" | "(" | "," | "[" | "{" | "=" | "return");
    let closes = matches!(after, "" | ")" | "," | "]" | "}" | ";");
    if opens && closes {
        Place::Alone
    } else {
        Place::Operand
    }
}

fn push_text(out: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        out.push(Piece::Text(text.to_owned()));
    }
}

/// The comma before an empty list of further arguments.
fn drop_comma(out: &mut [Piece], empty: bool) {
    if let (true, Some(Piece::Text(text))) = (empty, out.last_mut()) {
        let kept = text
            .trim_end()
            .trim_end_matches('#')
            .trim_end()
            .trim_end_matches(',')
            .len();
        text.truncate(kept);
    }
}

fn push_argument(out: &mut Vec<Piece>, argument: &Argument, place: Place) {
    let (start, end) = (argument.range.start, argument.range.end);
    let text = argument.text.as_str();
    let plain = place == Place::Alone || place == Place::Pasted || is_primary(text);
    if plain {
        out.push(Piece::Kept(start, end));
    } else {
        push_text(out, "(");
        out.push(Piece::Kept(start, end));
        push_text(out, ")");
    }
}

/// A name, constant, call, index or member chain, or something in brackets: it needs none around it.
#[must_use]
pub fn is_primary(text: &str) -> bool {
    let bytes = text.trim().as_bytes();
    let tokens: Vec<(Token, Range<usize>)> = lex::tokens(bytes).collect();
    let mut i = match tokens.first() {
        Some((Token::Word | Token::Literal, _)) => 1,
        Some((Token::Punct(b'('), r)) => match closing_token(bytes, &tokens, r.start) {
            Some(close) => close + 1,
            None => return false,
        },
        _ => return false,
    };
    let punct = |i: usize| match tokens.get(i) {
        Some((Token::Punct(p), _)) => Some(*p),
        _ => None,
    };
    let starts_with_bracket = punct(0) == Some(b'(');
    while i < tokens.len() {
        i = match (punct(i), punct(i + 1)) {
            (Some(b'('), _) if starts_with_bracket && i > 0 && tokens.len() > i => return false,
            (Some(b'(' | b'['), _) => {
                let open = tokens.get(i).map_or(0, |(_, r)| r.start);
                match closing_token(bytes, &tokens, open) {
                    Some(close) => close + 1,
                    None => return false,
                }
            }
            (Some(b'.'), _) if matches!(tokens.get(i + 1), Some((Token::Word, _))) => i + 2,
            (Some(b'-'), Some(b'>')) if matches!(tokens.get(i + 2), Some((Token::Word, _))) => {
                i + 3
            }
            _ => return false,
        };
    }
    true
}

fn closing_token(bytes: &[u8], tokens: &[(Token, Range<usize>)], open: usize) -> Option<usize> {
    let close = lex::closing(bytes, open)?;
    tokens.iter().position(|(_, r)| r.start == close)
}

/// An expression whose value may change, or change something, when it is evaluated once more.
#[must_use]
pub fn has_side_effects(text: &str) -> bool {
    let tokens: Vec<(Token, Range<usize>)> = lex::tokens(text.as_bytes()).collect();
    let word = |i: usize| lex::nth(text, &tokens, i);
    const HARMLESS: [&str; 8] = [
        "sizeof",
        "ARRAY_SIZE",
        "offsetof",
        "BIT",
        "GENMASK",
        "container_of",
        "min",
        "max",
    ];
    (0..tokens.len()).any(|i| {
        let pair = (word(i), word(i + 1));
        let call = tokens[i].0 == Token::Word && pair.1 == "(" && !HARMLESS.contains(&pair.0);
        let before = i.checked_sub(1).map_or("", word);
        let assigns = pair.0 == "=" && pair.1 != "=" && !matches!(before, "=" | "!" | "<" | ">");
        call || assigns || pair == ("+", "+") || pair == ("-", "-")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that stands for the call `use_`, by the definitions of `text`.
    fn written(text: &str, use_: &str) -> Result<String, String> {
        let name = lex::words(use_).first().cloned().unwrap();
        let template = Definitions::read(text)
            .template(&name)
            .ok_or("no template")?;
        let list = use_
            .find('(')
            .map(|at| at + 1..lex::closing(use_.as_bytes(), at).unwrap());
        let arguments = list.map_or(Vec::new(), |l| arguments(use_, l));
        let pieces = template.expand(&arguments)?;
        let kept = |p: &Piece| match p {
            Piece::Text(t) => t.clone(),
            Piece::Kept(s, e) => use_[*s..*e].to_owned(),
        };
        Ok(pieces.iter().map(kept).collect())
    }

    #[test]
    fn functions_and_macros_are_written_out() {
        let function = "static inline int pci_set_dma_mask(struct pci_dev *dev, u64 mask)\n{\n\treturn dma_set_mask(&dev->dev, mask);\n}\n";
        assert_eq!(
            written(function, "pci_set_dma_mask(pdev, DMA_BIT_MASK(32))").unwrap(),
            "dma_set_mask(&pdev->dev, DMA_BIT_MASK(32))"
        );
        let nested = "static inline int kspan_f(int a, int b)\n{\n\treturn g(b, a + 1);\n}\n#undef f\n#define f(x, y) kspan_f((x), (y))\n";
        assert_eq!(written(nested, "f(1, q->z)").unwrap(), "g(q->z, 1 + 1)");
        assert_eq!(
            written("#define no_llseek NULL\n", "no_llseek").unwrap(),
            "NULL"
        );
        assert_eq!(
            written("#define p(fmt, ...) q(X, fmt, ##__VA_ARGS__)", "p(\"a\")").unwrap(),
            "q(X, \"a\")"
        );
        assert_eq!(
            written(
                "#define p(fmt, ...) q(X, fmt, ##__VA_ARGS__)",
                "p(\"a\", 1, 2)"
            )
            .unwrap(),
            "q(X, \"a\", 1, 2)"
        );
    }

    #[test]
    fn arguments_get_brackets_where_they_need_them() {
        let text = "#define f(a, b) ((a)->x + (b))";
        assert_eq!(written(text, "f(p, 1 + 2)").unwrap(), "(p->x + (1 + 2))");
        assert_eq!(written(text, "f(&s, c())").unwrap(), "((&s)->x + c())");
        assert_eq!(
            written("#define f(v) container_of(v, typeof(*v), m)", "f(x)").unwrap(),
            "container_of(x, typeof(*x), m)"
        );
    }

    #[test]
    fn side_effects_are_neither_doubled_nor_lost() {
        assert!(
            written("#define f(a) g(a, a)", "f(next())")
                .unwrap_err()
                .contains("twice")
        );
        assert!(
            written("#define f(a, b) g(a)", "f(x, i++)")
                .unwrap_err()
                .contains("lost")
        );
        assert!(written("#define f(a, b) g(a)", "f(x, y == 1)").is_ok());
    }

    #[test]
    fn larger_bodies_are_no_template() {
        let text = "static inline int f(int a)\n{\n\tint b = a;\n\n\treturn g(b);\n}\n#define h(a) f((a))\n";
        let all = Definitions::read(text);
        assert!(all.template("f").is_none() && all.template("h").is_none());
        let (name, body, call) = all.helper("h").unwrap();
        assert_eq!((name.as_str(), call.body.as_str()), ("f", "f((a))"));
        assert!(body.starts_with("static inline int f"));
    }

    #[test]
    fn what_is_primary_needs_no_brackets() {
        for text in ["a", "a->b.c[1]", "f(x)->y", "(a + b)", "\"s\"", "12"] {
            assert!(is_primary(text), "{text}");
        }
        for text in ["a + b", "&a", "*p", "(int)x", "a ? b : c", "!x", "(f)(x)"] {
            assert!(!is_primary(text), "{text}");
        }
    }
}
