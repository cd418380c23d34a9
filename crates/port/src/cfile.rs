//! A C file cut into what stands at its top level.

use crate::lex::{self, Token};
use std::collections::BTreeMap;
use std::ops::Range;

/// What a name stands for at the top level of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// A function with its body.
    Function(&'a str),
    /// An initialised object that nobody writes to.
    Constant(&'a str),
    /// A structure, union, enumeration (by its tag or by one of its constants) or typedef.
    Type(&'a str),
    /// A `#define` with its continuations.
    Macro(&'a str),
    /// Anything that can change, or that cannot be told from it.
    Variable,
}

/// A C file and its items by name.
#[derive(Debug)]
pub struct CFile<'a> {
    text: &'a str,
    items: BTreeMap<&'a str, (Range<usize>, Item<'a>)>,
}

/// A declaration or definition between two others.
struct Part {
    tokens: Vec<(Token, Range<usize>, usize)>,
}

impl<'a> CFile<'a> {
    /// Cuts a file. Both branches of an `#if` count; of two items with one name the first stays.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        let mut file = Self {
            text,
            items: BTreeMap::new(),
        };
        file.take_macros();
        let blanked = blank_directives(text);
        let mut part = Part { tokens: Vec::new() };
        let mut depth = 0usize;
        for (token, range) in lex::tokens(blanked.as_bytes()) {
            if matches!(token, Token::Punct(b')' | b']' | b'}')) {
                depth = depth.saturating_sub(1);
            }
            let ends_body = token == Token::Punct(b'}') && depth == 0 && part.is_function(text);
            part.tokens.push((token, range, depth));
            if matches!(token, Token::Punct(b'(' | b'[' | b'{')) {
                depth += 1;
            }
            if ends_body || token == Token::Punct(b';') && depth == 0 {
                file.take(&part);
                part.tokens.clear();
            }
        }
        file
    }

    /// What a name stands for.
    #[must_use]
    pub fn item(&self, name: &str) -> Option<Item<'a>> {
        self.items.get(name).map(|(_, item)| *item)
    }

    /// The line where a name's item begins, from 1.
    #[must_use]
    pub fn line_of(&self, name: &str) -> Option<usize> {
        let (range, _) = self.items.get(name)?;
        Some(self.text.get(..range.start)?.matches('\n').count() + 1)
    }

    fn take_macros(&mut self) {
        let mut at = 0;
        let mut start = None;
        for line in self.text.split_inclusive('\n') {
            let begins = line.trim_start().starts_with('#');
            let from = *start.get_or_insert(at);
            at += line.len();
            if (begins || from < at - line.len()) && line.trim_end().ends_with('\\') {
                continue;
            }
            start = None;
            let Some(text) = self.text.get(from..at) else {
                continue;
            };
            if let Some(name) = defined(text) {
                let item = Item::Macro(text.trim_end());
                self.items.entry(name).or_insert((from..at, item));
            }
        }
    }

    fn take(&mut self, part: &Part) {
        let (Some((_, first, _)), Some((_, last, _))) = (part.tokens.first(), part.tokens.last())
        else {
            return;
        };
        let range = first.start..last.end;
        let Some(text) = self.text.get(range.clone()) else {
            return;
        };
        for (name, item) in part.items(self.text, text) {
            self.items.entry(name).or_insert((range.clone(), item));
        }
    }
}

/// The name that a `#define` defines.
pub(crate) fn defined(directive: &str) -> Option<&str> {
    let rest = directive.trim_start().strip_prefix('#')?.trim_start();
    let rest = rest.strip_prefix("define")?.trim_start();
    let end = rest
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(rest.len());
    rest.get(..end).filter(|name| !name.is_empty())
}

impl Part {
    fn words<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let at_top = self.tokens.iter().filter(|(.., depth)| *depth == 0);
        at_top
            .filter_map(|(_, range, _)| text.get(range.clone()))
            .collect()
    }

    /// The tokens so far, outside of brackets, end in a parameter list and the `{` after it, attributes between them.
    fn is_function(&self, text: &str) -> bool {
        let words = self.words(text);
        let body = words.iter().position(|w| *w == "{");
        let before = body.and_then(|at| words.get(..at)).unwrap_or_default();
        before.contains(&")") && !before.contains(&"=") && before.first() != Some(&"typedef")
    }

    /// The names that it defines. Prototypes define none.
    fn items<'a>(&self, file: &'a str, text: &'a str) -> Vec<(&'a str, Item<'a>)> {
        let words = self.words(file);
        if self.is_function(file) {
            let name = function_name(&words);
            return name
                .map(|n| (n, Item::Function(text)))
                .into_iter()
                .collect();
        }
        match words.first() {
            Some(&"typedef") => typedef_name(&words, text)
                .map(|n| (n, Item::Type(text)))
                .into_iter()
                .collect(),
            Some(&("struct" | "union" | "enum")) if words.ends_with(&["}", ";"]) => {
                self.tagged(file, &words, text)
            }
            _ => variables(&words, text),
        }
    }

    /// The tag, and the constants of an enumeration.
    fn tagged<'a>(
        &self,
        file: &'a str,
        words: &[&'a str],
        text: &'a str,
    ) -> Vec<(&'a str, Item<'a>)> {
        let mut names: Vec<&str> = words
            .get(1)
            .copied()
            .filter(|w| *w != "{")
            .into_iter()
            .collect();
        if words.first() == Some(&"enum") {
            let mut fresh = true;
            for (token, range, depth) in &self.tokens {
                let word = file.get(range.clone()).unwrap_or_default();
                if *token == Token::Word && *depth == 1 && fresh {
                    names.push(word);
                }
                fresh = matches!(word, "{" | ",");
            }
        }
        names.into_iter().map(|n| (n, Item::Type(text))).collect()
    }
}

/// The word before the parameter list; attributes in front (`__printf(1, 2)`) are none.
fn function_name<'a>(words: &[&'a str]) -> Option<&'a str> {
    let lists = words.windows(2).filter(|pair| pair[1] == "(");
    let names: Vec<&str> = lists.map(|pair| pair[0]).filter(|w| *w != ")").collect();
    let plain = names.iter().find(|n| !n.starts_with("__"));
    plain.or(names.first()).copied()
}

fn typedef_name<'a>(words: &[&'a str], text: &'a str) -> Option<&'a str> {
    let last = words.iter().rev().nth(1).copied()?;
    if last != ")" {
        return Some(last).filter(|w| is_word(w));
    }
    // `typedef int (*name)(…);`
    let (_, rest) = text.split_once("(*")?;
    let name = rest.split(')').next()?.trim();
    is_word(name).then_some(name)
}

/// Objects: constants are initialised, `const` and no bare pointers.
fn variables<'a>(words: &[&'a str], text: &'a str) -> Vec<(&'a str, Item<'a>)> {
    let end = words.iter().position(|w| matches!(*w, "=" | "[" | ";"));
    let before = end.and_then(|at| words.get(..at)).unwrap_or_default();
    if before.contains(&")") {
        return made_by_macro(words, text);
    }
    let Some(name) = before.iter().rev().find(|w| is_word(w)).copied() else {
        return Vec::new();
    };
    let pointer = before.iter().rposition(|w| *w == "*");
    let fixed = before.iter().rposition(|w| *w == "const");
    let constant = match (fixed, pointer) {
        (Some(fixed), Some(pointer)) => fixed > pointer || words.contains(&"["),
        (fixed, None) => fixed.is_some(),
        (None, Some(_)) => false,
    };
    let item = match constant && words.contains(&"=") {
        true => Item::Constant(text),
        false => Item::Variable,
    };
    vec![(name, item)]
}

/// `static DEFINE_MUTEX(lock);`: what stands in the brackets may be a variable's name. A prototype has a type in front.
fn made_by_macro<'a>(words: &[&'a str], text: &'a str) -> Vec<(&'a str, Item<'a>)> {
    let plain = words.iter().filter(|w| **w != "static").count() == 4;
    let inner = text.split_once('(').map_or("", |(_, rest)| rest);
    let arguments = inner.rsplit_once(')').map_or("", |(list, _)| list);
    let names = arguments.split(',').map(str::trim);
    // A type that the macro is given (`module_param(debug, int, 0644)`) is no name of the file's.
    names
        .filter(|n| is_word(n) && !lex::is_keyword(n))
        .filter(|_| plain && !text.starts_with("EXPORT_SYMBOL"))
        .map(|n| (n, Item::Variable))
        .collect()
}

/// An identifier or keyword, and nothing else.
#[must_use]
pub fn is_word(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

/// The text with preprocessor lines (and their continuations) turned to blanks of the same length.
#[must_use]
pub fn blank_directives(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        if inside || line.trim_start().starts_with('#') {
            inside = line.trim_end().ends_with('\\');
            out.extend(line.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(line);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
#define TWO(x) \\
	((x) * 2)
static DEFINE_MUTEX(lock);
static DEFINE_PER_CPU(struct box, boxes);
static int count = 3, more;
static const char *name = \"a\";
static const char * const names[] = { \"a\", \"b\" };
static const struct ops table = {
	.run = run,
};
enum state {
	IDLE,
	BUSY = TWO(1),
};
struct box { int a; };
typedef int (*handler)(int);
typedef struct box box_t;
int proto(int a);
__printf(1, 2)
int say(const char *fmt, ...) __must_hold(x)
{
	return 0;
}
struct box *open_box(void) { return 0; }
EXPORT_SYMBOL_GPL(open_box);
module_param(depth, int, 0644);
";

    #[test]
    fn items_by_name() {
        let file = CFile::new(FILE);
        let is = |name: &str| file.item(name);
        assert_eq!(
            is("TWO"),
            Some(Item::Macro("#define TWO(x) \\\n\t((x) * 2)"))
        );
        for variable in ["lock", "boxes", "name"] {
            assert_eq!(is(variable), Some(Item::Variable), "{variable}");
        }
        assert_eq!(is("int"), None);
        for constant in ["names", "table"] {
            assert!(
                matches!(is(constant), Some(Item::Constant(_))),
                "{constant}"
            );
        }
        for ty in ["state", "IDLE", "BUSY", "box", "handler", "box_t"] {
            assert!(matches!(is(ty), Some(Item::Type(_))), "{ty}");
        }
        for function in ["say", "open_box"] {
            assert!(
                matches!(is(function), Some(Item::Function(_))),
                "{function}"
            );
        }
        for none in ["proto", "int", "static", "a", "__printf"] {
            assert_eq!(is(none), None, "{none}");
        }
        assert_eq!(file.line_of("open_box"), Some(24));
    }
}
