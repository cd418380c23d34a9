//! A form with holes: the target's words for one use, with the use's own arguments taken out.
//!
//! Forms are tokens joined by one blank each, so that comparing two of them is comparing text.

use super::units::Tok;

/// The words of a range, joined by blanks.
#[must_use]
pub fn join(tokens: &[Tok<'_>]) -> String {
    let words: Vec<&str> = tokens.iter().map(|t| t.text).collect();
    words.join(" ")
}

fn hole(number: usize) -> String {
    format!("{{{number}}}")
}

/// The number in `{3}`.
#[must_use]
pub fn number(word: &str) -> Option<usize> {
    word.strip_prefix('{')?.strip_suffix('}')?.parse().ok()
}

/// A constant that stands in too many places to tell which of them is meant.
fn is_plain(arg: &[Tok<'_>]) -> bool {
    match arg {
        [one] => !one.word || matches!(one.text, "NULL" | "true" | "false"),
        [] => true,
        _ => false,
    }
}

/// Takes the arguments out of a form: the longest first, constants only when they stand alone between commas or brackets.
#[must_use]
pub fn abstracted(form: &[Tok<'_>], args: &[Vec<Tok<'_>>]) -> String {
    let mut words: Vec<String> = form.iter().map(|t| t.text.to_owned()).collect();
    let mut order: Vec<usize> = (0..args.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(args.get(*i).map_or(0, Vec::len)));
    for number in order {
        let Some(arg) = args.get(number).filter(|a| !a.is_empty()) else {
            continue;
        };
        let arg: Vec<&str> = arg.iter().map(|t| t.text).collect();
        let plain = args.get(number).is_some_and(|a| is_plain(a));
        words = without(&words, &arg, number, plain);
        // `&x` as an argument is `x.` before a member.
        if let ["&", object @ ..] = arg.as_slice()
            && !object.is_empty()
        {
            words = without_object(&words, object, number);
        }
    }
    words.join(" ")
}

fn at(words: &[String], at: usize, part: &[&str]) -> bool {
    words
        .get(at..at + part.len())
        .is_some_and(|here| here.iter().zip(part).all(|(a, b)| a == b))
}

fn without(words: &[String], arg: &[&str], number: usize, plain: bool) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(words.len());
    let mut i = 0;
    while i < words.len() {
        let before = out.last().map_or("", String::as_str);
        let after = words.get(i + arg.len()).map_or("", String::as_str);
        let member = matches!(before, "." | "->");
        let alone = matches!(before, "(" | ",") && matches!(after, ")" | ",");
        let called = arg.len() == 1 && after == "(";
        if at(words, i, arg) && !member && !called && (!plain || alone) {
            out.push(hole(number));
            i += arg.len();
        } else {
            out.extend(words.get(i).cloned());
            i += 1;
        }
    }
    out
}

fn without_object(words: &[String], object: &[&str], number: usize) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(words.len());
    let mut i = 0;
    while i < words.len() {
        let before = out.last().map_or("", String::as_str);
        let after = words.get(i + object.len()).map_or("", String::as_str);
        if at(words, i, object) && after == "." && !matches!(before, "." | "->") {
            out.push(hole(number));
            out.push("->".to_owned());
            i += object.len() + 1;
        } else {
            out.extend(words.get(i).cloned());
            i += 1;
        }
    }
    out
}

/// Puts arguments back. `{0} ->` of an argument `&x` is `x .`, as a person writes it.
#[must_use]
pub fn filled(template: &str, args: &[String]) -> String {
    let words: Vec<&str> = template.split(' ').collect();
    let mut out: Vec<&str> = Vec::new();
    let mut i = 0;
    while let Some(word) = words.get(i) {
        let arg = number(word).and_then(|n| args.get(n));
        match arg {
            Some(arg) => match arg.strip_prefix("& ") {
                Some(object) if words.get(i + 1) == Some(&"->") => {
                    out.extend([object, "."]);
                    i += 1;
                }
                _ => out.push(arg),
            },
            None => out.push(word),
        }
        i += 1;
    }
    out.join(" ")
}

/// Which arguments a template uses, each with how often.
#[must_use]
pub fn uses(template: &str, arity: usize) -> Vec<usize> {
    let mut counts = vec![0; arity];
    for n in template.split(' ').filter_map(number) {
        if let Some(slot) = counts.get_mut(n) {
            *slot += 1;
        }
    }
    counts
}

/// C text of a template; `name` gives what stands for an argument. An argument is bracketed unless it stands alone
/// between commas or brackets.
#[must_use]
pub fn render(template: &str, name: impl Fn(usize) -> String) -> String {
    let words: Vec<&str> = template.split(' ').collect();
    let mut out = String::new();
    for (i, word) in words.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|b| words.get(b)).copied();
        let after = words.get(i + 1).copied();
        let text = match number(word) {
            Some(n) => {
                let alone = matches!(before, Some("(" | ",")) && matches!(after, Some(")" | ","));
                if alone {
                    name(n)
                } else {
                    format!("({})", name(n))
                }
            }
            None => (*word).to_owned(),
        };
        let further = i.checked_sub(2).and_then(|b| words.get(b)).copied();
        let binary = matches!(before, Some("&" | "*")) && further.is_some_and(is_operand);
        if !out.is_empty() && (binary || gap(before.unwrap_or(""), word)) {
            out.push(' ');
        }
        out.push_str(&text);
    }
    out
}

/// What an operator after it takes as its left side.
fn is_operand(word: &str) -> bool {
    let first = word.bytes().next().unwrap_or(b' ');
    first.is_ascii_alphanumeric() || matches!(first, b'_' | b')' | b']' | b'{')
}

/// A blank between two tokens, as the kernel's style has it.
fn gap(before: &str, after: &str) -> bool {
    const TIGHT_AFTER: [&str; 8] = ["(", "[", "->", ".", "&", "!", "~", "*"];
    const TIGHT_BEFORE: [&str; 7] = [")", "]", "->", ".", ",", ";", "["];
    if TIGHT_AFTER.contains(&before) || TIGHT_BEFORE.contains(&after) {
        return false;
    }
    let keyword = matches!(before, "return" | "if");
    !(after == "("
        && !keyword
        && before
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_'))
}

/// Brackets pair, and no statement ends inside.
#[must_use]
pub fn is_expression(form: &[Tok<'_>]) -> bool {
    balanced(form)
        && !form.is_empty()
        && !form
            .iter()
            .any(|t| matches!(t.text, ";" | "{" | "}" | "return" | "if" | "else" | "goto"))
}

/// Brackets pair.
#[must_use]
pub fn balanced(form: &[Tok<'_>]) -> bool {
    let mut depth = 0i32;
    for token in form {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return false;
        }
    }
    depth == 0
}

#[cfg(test)]
mod tests {
    use super::super::units::Source;
    use super::*;

    fn check(form: &str, args: &[&str], template: &str) {
        let source = Source::read(form);
        let read: Vec<Source<'_>> = args.iter().map(|a| Source::read(a)).collect();
        let args: Vec<Vec<Tok<'_>>> = read.iter().map(|s| s.tokens.clone()).collect();
        assert_eq!(abstracted(&source.tokens, &args), template);
        let words: Vec<String> = args.iter().map(|a| join(a)).collect();
        assert_eq!(filled(template, &words), join(&source.tokens));
    }

    #[test]
    fn arguments_are_taken_out_and_put_back() {
        check("g(a->b, 0)", &["a->b"], "g ( {0} , 0 )");
        check("x->f = fn", &["x", "fn"], "{0} -> f = {1}");
        check("p->t.f", &["&p->t"], "{0} -> f");
        check("g(0, sizeof(0))", &["0"], "g ( {0} , sizeof ( {0} ) )");
        check("x(y->x)", &["x"], "x ( y -> x )");
    }

    #[test]
    fn text_is_written_as_the_kernel_has_it() {
        let name = |n: usize| format!("a{n}");
        assert_eq!(render("g ( {0} , & {1} )", name), "g(a0, &(a1))");
        assert_eq!(render("{0} -> f = {1}", name), "(a0)->f = (a1)");
        assert_eq!(render("! g ( {0} )", name), "!g(a0)");
        assert_eq!(render("{0} -> f & F", name), "(a0)->f & F");
    }
}
