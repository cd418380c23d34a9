//! Modules whose first and last functions are found by their names, `init_module` and `cleanup_module`: newer kernels' tools want them
//! named by `module_init()` and `module_exit()` (objtool refuses the names since it reads whole modules for indirect branches).
//! Never: touches a function that such a macro names already.

use crate::lex::{self, Token};
use std::ops::Range;

/// The functions that are meant by their names, each with the macro that names them instead.
const ENTRIES: [(&str, &str); 2] = [
    ("init_module", "module_init"),
    ("cleanup_module", "module_exit"),
];

/// The functions that objtool complains of in a build's words.
#[must_use]
pub fn deprecated(message: &str) -> Vec<&'static str> {
    let is_told = |f: &&str| message.contains(&format!("{f}(): Magic "));
    ENTRIES.iter().map(|(f, _)| *f).filter(is_told).collect()
}

/// What stands in place of ranges of a file so that `function` is called `name`, is `static` where its definition at `head` was not,
/// and is named by the kernel's macro behind all else.
#[must_use]
pub fn renamed(
    text: &str,
    head: Option<usize>,
    function: &str,
    name: &str,
) -> Vec<(Range<usize>, String)> {
    let Some((_, by)) = ENTRIES.iter().find(|(f, _)| *f == function) else {
        return Vec::new();
    };
    let is_it = |(token, range): &(Token, Range<usize>)| {
        *token == Token::Word && text.get(range.clone()) == Some(function)
    };
    let words = lex::tokens(text.as_bytes()).filter(is_it);
    let mut out: Vec<(Range<usize>, String)> =
        words.map(|(_, range)| (range, name.to_owned())).collect();
    out.extend(head.map(|at| (at..at, "static ".to_owned())));
    let end = text.len();
    let line = if text.ends_with('\n') { "" } else { "\n" };
    out.push((end..end, format!("{line}{by}({name});\n")));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builds_words_name_the_functions() {
        let said = "x.o: error: objtool: init_module(): Magic init_module() function name is deprecated, use module_init(fn) instead";
        assert_eq!(deprecated(said), ["init_module"]);
        // The words behind are the same for both.
        assert_eq!(
            deprecated(&said.replacen("init", "cleanup", 1)),
            ["cleanup_module"]
        );
        assert!(deprecated("x.c: init_module() is fine").is_empty());
    }

    #[test]
    fn a_function_gets_a_name_and_the_macro() {
        let text = "int init_module(void)\n{\n\treturn 0; /* init_module */\n}\n";
        let mut done = text.to_owned();
        let mut edits = renamed(text, Some(0), "init_module", "own_init");
        edits.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
        for (range, text) in edits {
            done.replace_range(range, &text);
        }
        assert_eq!(
            done,
            "static int own_init(void)\n{\n\treturn 0; /* init_module */\n}\nmodule_init(own_init);\n"
        );
        assert!(renamed(text, None, "probe", "own").is_empty());
    }
}
