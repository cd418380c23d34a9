//! An evolution's adapter that only hands on what it is given, read as what a function's own parameters become.
//!
//! `static int {name}(struct net_device *dev, struct rtnl_newlink_params *params) { return {fn}(params->net, dev); }`
//! says that the driver's first parameter is `params->net` in the new form and its second one the new first one.

use kspan_port::lex::{self, Token};

/// What an adapter says of the driver's function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// By parameter of the driver's function, where its value comes from.
    pub from: Vec<Source>,
    /// What is returned where the driver's function returned nothing.
    pub ret: Option<String>,
}

/// Where a parameter of the old form comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// It is this parameter of the new form.
    Place(usize),
    /// This expression, with `{0}`, `{1}` for the new form's parameters.
    Expression(String),
}

/// Reads an adapter; `None` where it does more than to call the driver's function with what can be said in expressions.
#[must_use]
pub fn read(adapter: &str) -> Option<Forward> {
    let head = adapter.find("{name}")? + "{name}".len();
    let (params, after) = brackets(adapter, head)?;
    let open = after + adapter.get(after..)?.find('{')?;
    if !adapter.get(after..open)?.trim().is_empty() {
        return None;
    }
    let close = lex::closing(adapter.as_bytes(), open)?;
    let body = adapter.get(open + 1..close)?.trim();
    let returns = body.strip_prefix("return ");
    let call = returns.unwrap_or(body).strip_prefix("{fn}")?;
    let (given, end) = brackets(call, 0)?;
    let rest = call.get(end..)?.trim_start().strip_prefix(';')?.trim();
    let ret = match (returns, rest.strip_prefix("return ")) {
        (_, None) if rest.is_empty() => None,
        (None, Some(value)) => Some(value.strip_suffix(';')?.trim().to_owned()),
        _ => return None,
    };
    let names: Vec<String> = params.iter().map(|p| declared(p)).collect::<Option<_>>()?;
    let mut free = vec![true; names.len()];
    let mut from: Vec<Option<Source>> = given
        .iter()
        .map(|argument| {
            let place = names.iter().position(|n| n == argument)?;
            std::mem::take(free.get_mut(place)?).then_some(Source::Place(place))
        })
        .collect();
    for (slot, argument) in from.iter_mut().zip(&given) {
        slot.get_or_insert_with(|| Source::Expression(holes(argument, &names)));
    }
    Some(Forward {
        from: from.into_iter().flatten().collect(),
        ret,
    })
}

/// What stands between the bracket at or behind `at` and its partner, split at commas, and the place behind it.
fn brackets(text: &str, at: usize) -> Option<(Vec<String>, usize)> {
    let open = at + text.get(at..)?.find('(')?;
    if !text.get(at..open)?.trim().is_empty() {
        return None;
    }
    let close = lex::closing(text.as_bytes(), open)?;
    let inner = text.get(open + 1..close)?;
    let parts = lex::split(inner);
    let parts = parts.into_iter().filter_map(|r| inner.get(r));
    let words = |p: &str| p.split_whitespace().collect::<Vec<_>>().join(" ");
    let list = parts.filter(|p| !p.is_empty() && *p != "void").map(words);
    Some((list.collect(), close + 1))
}

/// The name that a parameter's declaration declares: of a function pointer not told.
fn declared(declaration: &str) -> Option<String> {
    let plain = declaration.split('[').next()?;
    (!plain.contains('(')).then(|| lex::words(plain).last().cloned())?
}

/// An argument with holes in place of the parameters' names.
fn holes(argument: &str, names: &[String]) -> String {
    let mut out = String::new();
    let (mut end, mut before) = (0, "");
    for (token, range) in lex::tokens(argument.as_bytes()) {
        let word = &argument[range.clone()];
        out.push_str(&argument[end..range.start]);
        end = range.end;
        let member = before == "." || out.ends_with("->");
        match names.iter().position(|n| n == word) {
            Some(place) if token == Token::Word && !member => out.push_str(&format!("{{{place}}}")),
            _ => out.push_str(word),
        }
        before = word;
    }
    out.push_str(&argument[end..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_handed_on() {
        let text = "
static int {name}(struct net_device *dev, struct p *params, struct nlattr *tb[], u32 flags)
{
	return {fn}(net_of(params), dev, params->tb, tb, flags & MASK, flags);
}
";
        let read = read(text).unwrap();
        assert_eq!(read.ret, None);
        let expression = |e: &str| Source::Expression(e.to_owned());
        assert_eq!(
            read.from,
            [
                expression("net_of({1})"),
                Source::Place(0),
                expression("{1}->tb"),
                Source::Place(2),
                expression("{3} & MASK"),
                Source::Place(3),
            ]
        );
    }

    #[test]
    fn a_return_is_gained() {
        let text = "static int {name}(struct x *x)\n{\n\t{fn}(x);\n\treturn 0;\n}\n";
        let read = read(text).unwrap();
        assert_eq!(read.ret.as_deref(), Some("0"));
        assert_eq!(read.from, [Source::Place(0)]);
    }

    #[test]
    fn more_than_a_call_is_not_read() {
        for body in [
            "int err = {fn}(x);\n\n\treturn err;",
            "if ({fn}(x))\n\t\tf(x);",
            "f(x);\n\treturn {fn}(x);",
            "return g({fn}(x));",
            "return {fn}(x) ? 1 : 2;",
        ] {
            let text = format!("static int {{name}}(struct x *x)\n{{\n\t{body}\n}}\n");
            assert_eq!(read(&text), None, "{body}");
        }
    }
}
