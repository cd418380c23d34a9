//! Names that macros paste together: `__free(x)` needs `__free_x`, `guard(x)` needs `class_x_t`.

use crate::lex::{self, Token};
use crate::view::View;
use kspan_facts::Detail;

/// Macros within macros are followed this far.
const DEPTH: usize = 5;

/// The names that the macro invocations in a text make by pasting and that the kernel defines.
#[must_use]
pub fn names(home: &View, target: &View, text: &str) -> Vec<String> {
    let mut out = Vec::new();
    expand((home, target), text, DEPTH, &mut out);
    out.retain(|n| home.has(n));
    out
}

fn expand(views: (&View, &View), text: &str, depth: usize, out: &mut Vec<String>) {
    if depth == 0 {
        return;
    }
    let bytes = text.as_bytes();
    let tokens: Vec<(Token, std::ops::Range<usize>)> = lex::tokens(bytes).collect();
    for pair in tokens.windows(2) {
        let [(Token::Word, word), (Token::Punct(b'('), open)] = pair else {
            continue;
        };
        let Some((params, body)) = pasting_macro(views, &text[word.clone()]) else {
            continue;
        };
        let Some(close) = lex::closing(bytes, open.start) else {
            continue;
        };
        let arguments = lex::arguments(&text[open.end..close]);
        let replaced = substitute(&body, &params, &arguments, out);
        expand(views, &replaced, depth - 1, out);
    }
}

/// A function-like macro that pastes, or that leads to one that may: the target's own, where it has one, since that is what the text
/// will meet.
fn pasting_macro((home, target): (&View, &View), name: &str) -> Option<(Vec<String>, String)> {
    const LEADS_ON: [&str; 5] = ["##", "CLASS", "guard", "__free", "class_"];
    let view = if target.has(name) { target } else { home };
    view.facts
        .defs(name)
        .into_iter()
        .find_map(|d| match d.detail {
            Detail::Macro {
                params: Some(params),
                body,
            } if LEADS_ON.iter().any(|l| body.contains(l)) => Some((params, body)),
            _ => None,
        })
}

/// The body with parameters replaced and `##` carried out; the pasted words go to `out`.
fn substitute(
    body: &str,
    params: &[String],
    arguments: &[String],
    out: &mut Vec<String>,
) -> String {
    let bytes = body.as_bytes();
    let mut text = String::new();
    let mut pasted = false;
    let tokens: Vec<(Token, std::ops::Range<usize>)> = lex::tokens(bytes).collect();
    let mut at = 0;
    while let Some((token, range)) = tokens.get(at) {
        let hash = |i: usize| matches!(tokens.get(i), Some((Token::Punct(b'#'), _)));
        if hash(at) && hash(at + 1) {
            text.truncate(text.trim_end().len());
            pasted = true;
            at += 2;
            continue;
        }
        let word = &body[range.clone()];
        let index = params
            .iter()
            .position(|p| *token == Token::Word && p == word);
        let value = index
            .and_then(|i| arguments.get(i))
            .map_or(word, String::as_str);
        text.push_str(value);
        if pasted && !(hash(at + 1) && hash(at + 2)) {
            let last = text
                .rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
                .unwrap_or_default();
            out.push(last.to_owned());
            pasted = false;
        }
        text.push(' ');
        at += 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pastes() {
        let mut out = Vec::new();
        let params = ["_name".to_owned()];
        let text = substitute(
            "class_##_name##_t var = f(_name)",
            &params,
            &["mutex".to_owned()],
            &mut out,
        );
        assert_eq!(out, ["class_mutex_t"]);
        assert!(text.starts_with("class_mutex_t var"));
        assert_eq!(lex::arguments("a, f(b, c)"), ["a", "f(b, c)"]);
    }
}
