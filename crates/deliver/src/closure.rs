//! What a source file means on a kernel: of its preprocessed text the declarations that it reaches, and nothing else.
//!
//! Two kernels for which this is the same text give the same object, whatever else changed in their headers. Where it cannot be told
//! what a declaration declares, it counts as reached: the error is a build too many, never one too few.

use std::collections::{BTreeSet, HashMap};

/// A declaration or definition at the top of the text.
struct Chunk<'t> {
    tokens: Vec<&'t str>,
    /// Some of it stands in the driver's own files.
    own: bool,
}

/// The text that a preprocessed source reaches, in a form that knows neither spaces nor places. `own` tells the driver's files by
/// their names in line markers.
pub fn reached(text: &str, own: &dyn Fn(&str) -> bool) -> Vec<String> {
    let chunks = chunks(text, own);
    let mut index: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut queue = Vec::new();
    for (i, chunk) in chunks.iter().enumerate() {
        let names = declared(&chunk.tokens);
        if chunk.own || names.is_empty() {
            queue.push(i);
        }
        for name in names {
            index.entry(name).or_default().push(i);
        }
    }
    let mut seen: BTreeSet<usize> = queue.iter().copied().collect();
    while let Some(i) = queue.pop() {
        let tokens = chunks.get(i).map(|c| c.tokens.as_slice());
        for token in tokens.unwrap_or_default() {
            for next in index.get(token).into_iter().flatten() {
                if seen.insert(*next) {
                    queue.push(*next);
                }
            }
        }
    }
    let mut lines: Vec<String> = seen
        .into_iter()
        .filter_map(|i| chunks.get(i))
        .map(|c| line(&c.tokens))
        .collect();
    // The order of declarations is the order of includes, which says nothing.
    lines.sort_unstable();
    lines.dedup();
    lines
}

fn line(tokens: &[&str]) -> String {
    let words: Vec<&str> = tokens.iter().map(|t| uncounted(t)).collect();
    words.join(" ")
}

/// Names that the kernel's macros make by counting (`__COUNTER__`): the count is that of all uses before, whoever's.
fn uncounted(token: &str) -> &str {
    const COUNTED: [&str; 2] = ["__UNIQUE_ID_", "__compiletime_assert_"];
    match COUNTED.iter().any(|c| token.starts_with(c)) {
        true => token.trim_end_matches(|c: char| c.is_ascii_digit()),
        false => token,
    }
}

fn chunks<'t>(text: &'t str, own: &dyn Fn(&str) -> bool) -> Vec<Chunk<'t>> {
    let mut all = Vec::new();
    let mut chunk = Chunk {
        tokens: Vec::new(),
        own: false,
    };
    let (mut depth, mut body, mut here) = (0_usize, false, false);
    for line in text.lines() {
        if let Some(marker) = line.strip_prefix("# ") {
            if let Some(file) = marker.split('"').nth(1) {
                here = own(file);
            }
            continue;
        }
        if line.starts_with("#pragma") {
            // It may mean whatever comes after.
            all.push(Chunk {
                tokens: vec![line],
                own: true,
            });
            continue;
        }
        for token in tokens(line) {
            match token {
                "(" | "[" | "{" => {
                    if token == "{" && depth == 0 {
                        body = is_function(&chunk.tokens);
                    }
                    depth += 1;
                }
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            chunk.tokens.push(token);
            chunk.own |= here;
            if depth == 0 && (token == ";" || token == "}" && body) {
                let next = Chunk {
                    tokens: Vec::new(),
                    own: false,
                };
                all.push(std::mem::replace(&mut chunk, next));
                body = false;
            }
        }
    }
    if !chunk.tokens.is_empty() {
        all.push(chunk);
    }
    all
}

/// Words, numbers, strings, and every other character by itself.
fn tokens(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let length = match first {
            '"' | '\'' => quoted(rest, first),
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return i + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

const GROUPS: [&str; 10] = [
    "__attribute__",
    "__attribute",
    "__asm__",
    "__asm",
    "asm",
    "__typeof__",
    "typeof",
    "__typeof",
    "_Alignas",
    "__declspec",
];

/// The tokens without attributes, and without what stands in braces.
fn skeleton<'t>(tokens: &[&'t str]) -> Vec<&'t str> {
    let mut out = Vec::new();
    let mut i = 0;
    while let Some(token) = tokens.get(i) {
        if GROUPS.contains(token) {
            i = past_group(tokens, i + 1);
        } else if *token == "{" {
            out.push("{}");
            i = past_group(tokens, i);
        } else {
            out.push(*token);
            i += 1;
        }
    }
    out
}

/// The place after the group that begins at `at`, or `at` if none does.
fn past_group(tokens: &[&str], at: usize) -> usize {
    let mut at = at;
    while tokens
        .get(at)
        .is_some_and(|t| ["volatile", "__volatile__", "goto", "inline"].contains(t))
    {
        at += 1;
    }
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        match *token {
            "(" | "{" | "[" => depth += 1,
            ")" | "}" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return if i == at { at } else { i + 1 };
        }
    }
    tokens.len()
}

/// Is the brace that comes next the body of a function?
fn is_function(before: &[&str]) -> bool {
    skeleton(before).last() == Some(&")")
}

const KEYWORDS: [&str; 30] = [
    "static",
    "extern",
    "inline",
    "__inline",
    "__inline__",
    "const",
    "volatile",
    "struct",
    "union",
    "enum",
    "void",
    "char",
    "short",
    "int",
    "long",
    "unsigned",
    "signed",
    "float",
    "double",
    "_Bool",
    "typedef",
    "register",
    "__extension__",
    "_Noreturn",
    "__int128",
    "__signed__",
    "_Thread_local",
    "__const",
    "__restrict",
    "__volatile__",
];

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_') && !KEYWORDS.contains(&token)
}

/// The names that a chunk gives a meaning; rather too many than too few, and none where that is not known.
fn declared<'t>(tokens: &[&'t str]) -> BTreeSet<&'t str> {
    let mut names = tags(tokens);
    let plain = skeleton(tokens);
    if plain.first() == Some(&"typedef") || plain.get(1) == Some(&"typedef") {
        names.extend(plain.iter().copied().filter(|t| is_name(t)));
        return names;
    }
    match plain.iter().position(|t| *t == "(") {
        Some(at) => {
            let before = at.checked_sub(1).and_then(|i| plain.get(i)).copied();
            match before.filter(|t| is_name(t)) {
                Some(name) => drop(names.insert(name)),
                None => {
                    let end = past_group(&plain, at);
                    let group = plain.get(at..end).unwrap_or_default();
                    names.extend(group.iter().copied().filter(|t| is_name(t)));
                }
            }
        }
        None => {
            let ends = [",", ";", "=", "[", ":"];
            for pair in plain.windows(2) {
                if let [name, end] = pair
                    && is_name(name)
                    && ends.contains(end)
                {
                    names.insert(name);
                }
            }
        }
    }
    names
}

/// Tags with a body at any depth, and the constants of enumerations.
fn tags<'t>(tokens: &[&'t str]) -> BTreeSet<&'t str> {
    let mut names = BTreeSet::new();
    for (i, token) in tokens.iter().enumerate() {
        if !["struct", "union", "enum"].contains(token) {
            continue;
        }
        let mut at = i + 1;
        while tokens.get(at).is_some_and(|t| GROUPS.contains(t)) {
            at = past_group(tokens, at + 1);
        }
        let tag = tokens.get(at).copied().filter(|t| is_name(t));
        let brace = at + usize::from(tag.is_some());
        if tokens.get(brace) != Some(&"{") {
            continue;
        }
        names.extend(tag);
        if *token == "enum" {
            let body = tokens
                .get(brace..past_group(tokens, brace))
                .unwrap_or_default();
            names.extend(constants(body));
        }
    }
    names
}

fn constants<'t>(body: &[&'t str]) -> Vec<&'t str> {
    let starts = body.windows(2).filter_map(|pair| match pair {
        ["{" | ",", name] if is_name(name) => Some(*name),
        _ => None,
    });
    starts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIVER: &str = "# 1 \"/src/a.c\"\nint own(struct used *u) { return u->a + twice(ONE) + sizeof(alias_t); }\n";

    fn of(header: &str) -> Vec<String> {
        let text = format!("# 1 \"/k/h.h\"\n{header}\n{DRIVER}");
        reached(&text, &|f| f.starts_with("/src/"))
    }

    const BASE: &str = "struct inner { int x; };\nstruct used { int a; struct inner i; };\n\
        static inline __attribute__((__gnu_inline__)) int twice(int n) { return 2 * n; }\n\
        enum { ZERO, ONE, };\ntypedef struct __attribute__((packed)) { char c; } alias_t;\n\
        struct other { int b; };\nint (*hook)(struct other *);\nextern void unrelated(int);\n\
        static inline int thrice(int n) { return 3 * n; }";

    #[test]
    fn only_what_is_reached_counts() {
        let base = of(BASE);
        for unreached in [
            ("int b;", "long b;"),
            ("3 * n", "4 * n"),
            ("unrelated(int)", "unrelated(long)"),
        ] {
            assert_eq!(
                base,
                of(&BASE.replace(unreached.0, unreached.1)),
                "{unreached:?}"
            );
        }
        for reached in [
            ("int a;", "long a;"),
            ("int x;", "long x;"),
            ("2 * n", "2 + n"),
            ("ZERO,", "ZERO, HALF,"),
            ("char c;", "short c;"),
        ] {
            assert_ne!(base, of(&BASE.replace(reached.0, reached.1)), "{reached:?}");
        }
    }

    #[test]
    fn spaces_places_and_counters_do_not_count() {
        let moved = BASE.replace("; ", ";\n# 77 \"/k/other.h\"\n  ");
        assert_eq!(of(BASE), of(&moved));
        let counted = |n: usize| {
            format!("{BASE}\nextern int __UNIQUE_ID_x{n};\nstruct used *p = &__UNIQUE_ID_x{n};")
        };
        assert_eq!(of(&counted(1)), of(&counted(22)));
    }

    #[test]
    fn what_declares_nothing_known_is_reached() {
        let base = of(&format!("{BASE}\nasm(\"nop\");"));
        assert_ne!(base, of(&format!("{BASE}\nasm(\"hlt\");")));
        let quoted = of("static const char *s = \"};{\\\"\"; struct other { int b; };");
        assert!(!quoted.iter().any(|l| l.contains("other")), "{quoted:?}");
    }
}
