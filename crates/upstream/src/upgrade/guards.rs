//! `#if LINUX_VERSION_CODE …` and its kin: which branch a kernel takes, by the kernel's own headers; branches that a kernel
//! takes and cannot compile.
//!
//! Only guards that ask for a version, or for a macro that the driver itself defines under such a guard, are decided. What a
//! configuration decides stays as it is.

use super::edit::{Edit, Piece};
use kspan_port::lex::{self, Token};
use kspan_port::site;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

/// What a guard may ask of a kernel.
pub trait Versions {
    /// The number behind a macro of the kernel (`LINUX_VERSION_CODE`); `None` where the kernel has no such macro.
    fn number(&self, name: &str) -> Option<i64>;
    /// The kernel has a definition of the name.
    fn has(&self, name: &str) -> bool;
}

/// One branch of a conditional group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// The directive's word: `if`, `ifdef`, `ifndef`, `elif` or `else`.
    word: String,
    /// The condition's text, continuations joined.
    pub condition: String,
    /// The directive with its line's end.
    line: Range<usize>,
    /// What it guards.
    pub body: Range<usize>,
}

/// `#if … #elif … #else … #endif`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The branches in order.
    pub branches: Vec<Branch>,
    /// From the first directive to behind the last.
    pub whole: Range<usize>,
}

/// The conditional groups of a text, inner ones too; groups that are not closed are left out.
#[must_use]
pub fn groups(text: &str) -> Vec<Group> {
    let (mut open, mut out): (Vec<Group>, Vec<Group>) = (Vec::new(), Vec::new());
    for (range, word, rest) in directives(text) {
        let branch = |condition: String| Branch {
            word: word.clone(),
            condition,
            line: range.clone(),
            body: range.end..range.end,
        };
        match word.as_str() {
            "if" | "ifdef" | "ifndef" => open.push(Group {
                branches: vec![branch(rest)],
                whole: range.clone(),
            }),
            "elif" | "else" => {
                if let Some(group) = open.last_mut() {
                    end_branch(group, range.start);
                    group.branches.push(branch(rest));
                }
            }
            "endif" => {
                if let Some(mut group) = open.pop() {
                    end_branch(&mut group, range.start);
                    group.whole.end = range.end;
                    out.push(group);
                }
            }
            _ => {}
        }
    }
    out.sort_by_key(|g| (g.whole.start, std::cmp::Reverse(g.whole.end)));
    out
}

fn end_branch(group: &mut Group, at: usize) {
    if let Some(last) = group.branches.last_mut() {
        last.body.end = at;
    }
}

/// Directive lines outside of comments: range with continuations and the line's end, the word, and what follows it.
fn directives(text: &str) -> Vec<(Range<usize>, String, String)> {
    let mut out: Vec<(Range<usize>, String, String)> = Vec::new();
    let (mut at, mut comment, mut continued) = (0, false, false);
    for line in text.split_inclusive('\n') {
        let range = at..at + line.len();
        at = range.end;
        let start = line
            .trim_start()
            .strip_prefix('#')
            .filter(|_| !comment && !continued);
        if continued && let Some(last) = out.last_mut().filter(|l| l.0.end == range.start) {
            last.0.end = range.end;
            last.2.push(' ');
            last.2
                .push_str(line.trim_end().trim_end_matches('\\').trim());
        } else if let Some(rest) = start {
            let rest = rest.trim_start();
            let end = rest
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(rest.len());
            let (word, condition) = rest.split_at(end);
            let condition = condition
                .trim_end()
                .trim_end_matches('\\')
                .trim()
                .to_owned();
            out.push((range.clone(), word.to_owned(), condition));
        }
        continued = line.trim_end().ends_with('\\');
        comment = site::comment_open(line.as_bytes(), comment);
    }
    out
}

/// The text as the compiler sees it, byte for byte in its place: blanks for directives and for what is left out.
#[must_use]
pub fn seen(text: &str, inactive: &[Range<usize>]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let lines = directives(text).into_iter().map(|(range, ..)| range);
    for range in lines.chain(inactive.iter().cloned()) {
        let bytes = bytes.get_mut(range).into_iter().flatten();
        bytes.filter(|b| **b != b'\n').for_each(|b| *b = b' ');
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The driver's guards, for one kernel.
pub struct Guards<'a> {
    kernel: &'a dyn Versions,
    /// Macros that the driver defines under guards of versions alone: defined here or not.
    probes: BTreeMap<String, bool>,
    /// Probes that nothing asks for once the guards are gone.
    idle: BTreeSet<String>,
}

const VERSION_WORDS: [&str; 5] = [
    "LINUX_VERSION_CODE",
    "KERNEL_VERSION",
    "RHEL_RELEASE_CODE",
    "RHEL_RELEASE_VERSION",
    "RHEL_MAJOR",
];

impl<'a> Guards<'a> {
    /// Reads which macros of the driver's own stand for a version of the kernel.
    #[must_use]
    pub fn new<'t>(kernel: &'a dyn Versions, texts: impl Iterator<Item = &'t str> + Clone) -> Self {
        let mut guards = Self {
            kernel,
            probes: BTreeMap::new(),
            idle: BTreeSet::new(),
        };
        // A probe may be defined under another one.
        for _ in 0..3 {
            let mut found: BTreeMap<String, Option<bool>> = BTreeMap::new();
            for text in texts.clone() {
                guards.probes_of(text, &mut found);
            }
            guards.probes = found
                .into_iter()
                .filter_map(|(n, d)| Some((n, d?)))
                .collect();
        }
        let idle = |name: &&String| texts.clone().all(|t| guards.only_decides(t, name));
        guards.idle = guards.probes.keys().filter(idle).cloned().collect();
        guards
    }

    /// In this text a probe is asked for by guards alone, all of which are decided.
    fn only_decides(&self, text: &str, name: &str) -> bool {
        let code: String = text
            .lines()
            .filter(|l| !l.trim_start().starts_with('#'))
            .collect::<Vec<_>>()
            .join("\n");
        let asks = |g: &Group| {
            g.branches
                .iter()
                .any(|b| lex::words(&b.condition).iter().any(|w| w == name))
        };
        let open = groups(text)
            .iter()
            .any(|g| asks(g) && self.taken(g).is_none());
        !open && !lex::words(&code).iter().any(|w| w == name)
    }

    fn probes_of(&self, text: &str, found: &mut BTreeMap<String, Option<bool>>) {
        let all = groups(text);
        for (range, word, rest) in directives(text) {
            if word != "define" && word != "undef" {
                continue;
            }
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let name = rest.get(..end).unwrap_or_default().to_owned();
            let around: Vec<&Group> = all
                .iter()
                .filter(|g| g.whole.start <= range.start && range.end <= g.whole.end)
                .collect();
            let versioned = around
                .iter()
                .any(|g| g.branches.iter().any(|b| self.is_versioned(b)));
            let active = around
                .iter()
                .map(|g| self.is_taken(g, range.start))
                .try_fold(true, |a, t| t.map(|t| a && t));
            // What is defined for other reasons, or undefined again, is no probe.
            let value = if versioned && word == "define" {
                active
            } else {
                None
            };
            found
                .entry(name)
                .and_modify(|known| {
                    *known = match (*known, value) {
                        (Some(a), Some(b)) => Some(a || b),
                        _ => None,
                    }
                })
                .or_insert(value);
        }
    }

    /// The branch that holds a place is the one that the kernel takes.
    fn is_taken(&self, group: &Group, at: usize) -> Option<bool> {
        let index = group.branches.iter().position(|b| b.body.contains(&at))?;
        self.taken(group).map(|taken| taken == Some(index))
    }

    /// Which branch the kernel takes: `Some(None)` for none of them, `None` where that is not known.
    #[must_use]
    pub fn taken(&self, group: &Group) -> Option<Option<usize>> {
        for (i, branch) in group.branches.iter().enumerate() {
            match self.value(branch) {
                Some(true) => return Some(Some(i)),
                Some(false) => {}
                None => return None,
            }
        }
        Some(None)
    }

    /// The condition asks for a version, or for a probe.
    #[must_use]
    pub fn is_versioned(&self, branch: &Branch) -> bool {
        let words = lex::words(&branch.condition);
        words
            .iter()
            .any(|w| VERSION_WORDS.contains(&w.as_str()) || self.probes.contains_key(w))
    }

    fn value(&self, branch: &Branch) -> Option<bool> {
        let condition = branch.condition.as_str();
        match branch.word.as_str() {
            "else" => Some(true),
            "ifdef" => self.defined(condition.split_whitespace().next()?),
            "ifndef" => self
                .defined(condition.split_whitespace().next()?)
                .map(|d| !d),
            _ => self.expression(condition).map(|n| n != 0),
        }
    }

    fn defined(&self, name: &str) -> Option<bool> {
        match self.probes.get(name) {
            Some(known) => Some(*known),
            None if VERSION_WORDS.contains(&name) => {
                Some(self.number(name).is_some() || name == "KERNEL_VERSION")
            }
            None => None,
        }
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.kernel.number(name)
    }

    /// The value of a condition; `None` where it hangs on what is not known.
    #[must_use]
    pub fn expression(&self, text: &str) -> Option<i64> {
        let tokens: Vec<&str> = lex::tokens(text.as_bytes())
            .map(|(_, r)| text.get(r).unwrap_or_default())
            .collect();
        let mut parser = Parser {
            guards: self,
            tokens: joined(&tokens),
            at: 0,
        };
        let value = parser.binary(0)?;
        (parser.at == parser.tokens.len())
            .then_some(value)
            .flatten()
    }

    /// Edits that leave of each guard of versions the branch that the kernel takes.
    #[must_use]
    pub fn collapse(&self, text: &str) -> Vec<Edit> {
        let mut out: Vec<Edit> = directives(text)
            .into_iter()
            .filter(|(_, word, rest)| {
                word == "define"
                    && self
                        .idle
                        .contains(rest.split_whitespace().next().unwrap_or_default())
            })
            .map(|(range, ..)| Edit::delete(range))
            .collect();
        for group in groups(text) {
            let versioned = group.branches.iter().any(|b| self.is_versioned(b));
            // Inner groups of a kept branch are collapsed too; those of a branch that goes go with it.
            let Some(taken) = self.taken(&group).filter(|_| versioned) else {
                continue;
            };
            let pieces = taken
                .and_then(|i| group.branches.get(i))
                .map(|b| Piece::Kept(b.body.start, b.body.end));
            out.push(Edit {
                start: group.whole.start,
                end: group.whole.end,
                pieces: pieces.into_iter().collect(),
            });
        }
        out
    }

    /// Text that the kernel does not compile.
    #[must_use]
    pub fn inactive(&self, text: &str) -> Vec<Range<usize>> {
        let mut out = Vec::new();
        for group in groups(text) {
            if !group.branches.iter().any(|b| self.is_versioned(b)) {
                continue;
            }
            let Some(taken) = self.taken(&group) else {
                continue;
            };
            let other = |(i, b): (usize, &Branch)| (Some(i) != taken).then(|| b.body.clone());
            out.extend(group.branches.iter().enumerate().filter_map(other));
        }
        out
    }
}

/// Operators of two bytes as one token.
fn joined(tokens: &[&str]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for token in tokens {
        let pair = matches!(
            (out.last().map(String::as_str), *token),
            (Some("&"), "&")
                | (Some("|"), "|")
                | (Some("<"), "<" | "=")
                | (Some(">"), ">" | "=")
                | (Some("=" | "!"), "=")
        );
        match out.last_mut().filter(|_| pair) {
            Some(last) => last.push_str(token),
            None => out.push((*token).to_owned()),
        }
    }
    out
}

struct Parser<'g, 'a> {
    guards: &'g Guards<'a>,
    tokens: Vec<String>,
    at: usize,
}

/// A value that may not be known; the outer `Option` of the parser's functions is a text that does not parse.
type Value = Option<i64>;

impl Parser<'_, '_> {
    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn take(&mut self, token: &str) -> bool {
        let is = self.peek() == token;
        self.at += usize::from(is);
        is
    }

    fn binary(&mut self, level: usize) -> Option<Value> {
        const LEVELS: [&[&str]; 6] = [
            &["||"],
            &["&&"],
            &["==", "!="],
            &["<", "<=", ">", ">="],
            &["<<", ">>"],
            &["+", "-"],
        ];
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = operators.iter().find(|o| self.peek() == **o) {
            self.at += 1;
            let right = self.binary(level + 1)?;
            left = apply(operator, left, right);
        }
        Some(left)
    }

    fn unary(&mut self) -> Option<Value> {
        if self.take("!") {
            return Some(self.unary()?.map(|n| i64::from(n == 0)));
        }
        if self.take("(") {
            let value = self.binary(0)?;
            return self.take(")").then_some(value);
        }
        if self.take("defined") {
            let bracket = self.take("(");
            let name = self.peek().to_owned();
            self.at += 1;
            let closed = !bracket || self.take(")");
            return closed.then(|| self.guards.defined(&name).map(i64::from));
        }
        let token = self.peek().to_owned();
        self.at += 1;
        if token.starts_with(|c: char| c.is_ascii_digit()) {
            return Some(number(&token));
        }
        if !token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return None;
        }
        match self.peek() == "(" {
            true => self.call(&token),
            // An identifier that the kernel does not define is 0 to the preprocessor; only of these words that is sure.
            false if VERSION_WORDS.contains(&token.as_str()) => {
                Some(Some(self.guards.number(&token).unwrap_or(0)))
            }
            false => Some(None),
        }
    }

    fn call(&mut self, name: &str) -> Option<Value> {
        self.take("(");
        let mut arguments = Vec::new();
        while !self.take(")") {
            arguments.push(self.binary(0)?);
            if !self.take(",") && self.peek() != ")" {
                return None;
            }
        }
        let known: Option<Vec<i64>> = arguments.into_iter().collect();
        Some(match (name, known.as_deref()) {
            ("KERNEL_VERSION", Some([a, b, c])) => Some((a << 16) + (b << 8) + (*c).min(255)),
            ("RHEL_RELEASE_VERSION", Some([a, b])) => Some((a << 8) + b),
            _ => None,
        })
    }
}

fn number(token: &str) -> Value {
    let digits = token.trim_end_matches(['u', 'U', 'l', 'L']);
    match digits.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    }
}

fn apply(operator: &str, left: Value, right: Value) -> Value {
    match (operator, left, right) {
        ("||", Some(n), _) | ("||", _, Some(n)) if n != 0 => Some(1),
        ("&&", Some(0), _) | ("&&", _, Some(0)) => Some(0),
        (_, Some(a), Some(b)) => match operator {
            "||" => Some(0),
            "&&" => Some(1),
            "==" => Some(i64::from(a == b)),
            "!=" => Some(i64::from(a != b)),
            "<" => Some(i64::from(a < b)),
            "<=" => Some(i64::from(a <= b)),
            ">" => Some(i64::from(a > b)),
            ">=" => Some(i64::from(a >= b)),
            "<<" => u32::try_from(b).ok().and_then(|b| a.checked_shl(b)),
            ">>" => u32::try_from(b).ok().and_then(|b| a.checked_shr(b)),
            "+" => a.checked_add(b),
            "-" => a.checked_sub(b),
            _ => None,
        },
        _ => None,
    }
}

/// A guard by which a real kernel takes a branch that it cannot compile.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Wrong {
    /// The file, relative to the driver.
    pub file: PathBuf,
    /// The line of the group's first directive.
    pub line: u32,
    /// Its condition.
    pub condition: String,
    /// The kernel.
    pub kernel: String,
    /// What the branch calls and that kernel lacks.
    pub lacking: Vec<String>,
}

/// Guards of a text that are wrong for a kernel: the branch that it takes calls what it lacks, while it has all that another
/// branch calls. `known` tells a name of some kernel from one of the driver's own.
#[must_use]
pub fn wrong(
    guards: &Guards<'_>,
    text: &str,
    known: &dyn Fn(&str) -> bool,
) -> Vec<(u32, String, Vec<String>)> {
    let mut out = Vec::new();
    for group in groups(text) {
        if !group.branches.iter().any(|b| guards.is_versioned(b)) || group.branches.len() < 2 {
            continue;
        }
        let Some(Some(taken)) = guards.taken(&group) else {
            continue;
        };
        let calls = |b: &Branch| -> BTreeSet<String> {
            let body = text.get(b.body.clone()).unwrap_or_default();
            calls(body).into_iter().filter(|c| known(c)).collect()
        };
        let lacking = |b: &Branch| -> Vec<String> {
            calls(b)
                .into_iter()
                .filter(|c| !guards.kernel.has(c))
                .collect()
        };
        let missing = group.branches.get(taken).map(lacking).unwrap_or_default();
        let other = group
            .branches
            .iter()
            .enumerate()
            .any(|(i, b)| i != taken && !calls(b).is_empty() && lacking(b).is_empty());
        if !missing.is_empty() && other {
            let before = text.get(..group.whole.start).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let condition = group
                .branches
                .first()
                .map(|b| format!("#{} {}", b.word, b.condition))
                .unwrap_or_default();
            out.push((u32::try_from(line).unwrap_or(u32::MAX), condition, missing));
        }
    }
    out
}

/// Calls in a text, less those in its directives.
fn calls(text: &str) -> Vec<String> {
    let plain: String = text
        .lines()
        .filter(|l| !l.trim_start().starts_with('#'))
        .map(|l| format!("{l}\n"))
        .collect();
    let tokens: Vec<(Token, Range<usize>)> = lex::tokens(plain.as_bytes()).collect();
    let word = |i: usize| lex::nth(&plain, &tokens, i);
    let is_call = |i: &usize| {
        let member = i
            .checked_sub(1)
            .is_some_and(|b| matches!(word(b), "." | ">"));
        tokens.get(*i).is_some_and(|(t, _)| *t == Token::Word) && word(i + 1) == "(" && !member
    };
    (0..tokens.len())
        .filter(is_call)
        .map(|i| word(i).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::edit::apply as edited;
    use super::*;

    struct Kernel(i64, &'static [&'static str]);

    impl Versions for Kernel {
        fn number(&self, name: &str) -> Option<i64> {
            (name == "LINUX_VERSION_CODE").then_some(self.0)
        }
        fn has(&self, name: &str) -> bool {
            self.1.contains(&name)
        }
    }

    const fn version(a: i64, b: i64) -> i64 {
        (a << 16) + (b << 8)
    }

    fn collapsed(text: &str, kernel: &Kernel) -> String {
        let guards = Guards::new(kernel, std::iter::once(text));
        String::from_utf8(edited(text.as_bytes(), &guards.collapse(text)).text).unwrap()
    }

    #[test]
    fn conditions_are_evaluated_as_the_preprocessor_does() {
        let kernel = Kernel(version(6, 1), &[]);
        let guards = Guards::new(&kernel, std::iter::empty());
        for (text, value) in [
            ("LINUX_VERSION_CODE >= KERNEL_VERSION(5, 10, 0)", Some(1)),
            ("LINUX_VERSION_CODE < KERNEL_VERSION(6,1,0) || 0", Some(0)),
            (
                "!(LINUX_VERSION_CODE > KERNEL_VERSION(6,2,300)) && defined(CONFIG_PM)",
                None,
            ),
            (
                "defined(CONFIG_PM) && LINUX_VERSION_CODE < 0x10000",
                Some(0),
            ),
            (
                "defined RHEL_RELEASE_CODE && RHEL_RELEASE_CODE >= RHEL_RELEASE_VERSION(8, 1)",
                Some(0),
            ),
            ("SOMETHING == 1", None),
            ("LINUX_VERSION_CODE >=", None),
        ] {
            assert_eq!(guards.expression(text), value, "{text}");
        }
    }

    #[test]
    fn the_branch_that_the_kernel_takes_stays() {
        let text = "a\n#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)\nnew\n#elif defined(CONFIG_X)\nmiddle\n#else\nold\n#endif\nb\n";
        assert_eq!(collapsed(text, &Kernel(version(7, 3), &[])), "a\nnew\nb\n");
        // On an older kernel the configuration decides: nothing is taken away.
        assert_eq!(collapsed(text, &Kernel(version(6, 1), &[])), text);
    }

    #[test]
    fn what_is_seen_keeps_its_place() {
        let text = "#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)\nint new(int é)\n#else\nint old(void)\n#endif\n{ }\n";
        let kernel = Kernel(version(6, 1), &[]);
        let guards = Guards::new(&kernel, std::iter::once(text));
        let seen = seen(text, &guards.inactive(text));
        assert_eq!(seen.len(), text.len());
        assert_eq!(seen.lines().count(), text.lines().count());
        assert_eq!(seen.find("int old(void)"), text.find("int old(void)"));
        assert_eq!(
            seen.split_whitespace().collect::<Vec<_>>().join(" "),
            "int old(void) { }"
        );
    }

    #[test]
    fn probes_are_followed_and_configurations_are_not() {
        let text = "#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 0, 0)\n#define OLD_API\n#endif\n#define OTHER\n#ifdef OLD_API\nold\n#else\nnew\n#ifdef CONFIG_PM\npm\n#endif\n#endif\n#ifdef OTHER\no\n#endif\n";
        let done = collapsed(text, &Kernel(version(7, 3), &[]));
        assert_eq!(
            done,
            "#define OTHER\nnew\n#ifdef CONFIG_PM\npm\n#endif\n#ifdef OTHER\no\n#endif\n"
        );
    }

    #[test]
    fn nested_guards_collapse_inside_out() {
        let text = "#if LINUX_VERSION_CODE > 1\n#if LINUX_VERSION_CODE > 2\nx\n#else\ny\n#endif\n#else\n#if LINUX_VERSION_CODE > 2\nz\n#endif\n#endif\n";
        assert_eq!(collapsed(text, &Kernel(version(7, 3), &[])), "x\n");
    }

    #[test]
    fn a_guard_that_a_stable_kernel_proves_wrong_is_told() {
        let text = "#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)\n\tnew_name(x);\n#else\n\told_name(x);\n#endif\n";
        let known = |n: &str| n == "new_name" || n == "old_name";
        let kernel = Kernel(version(6, 1), &["new_name"]);
        let guards = Guards::new(&kernel, std::iter::once(text));
        let found = wrong(&guards, text, &known);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].0, found[0].2.as_slice()),
            (1, ["old_name".to_owned()].as_slice())
        );
        let right = Kernel(version(6, 2), &["new_name"]);
        assert!(wrong(&Guards::new(&right, std::iter::once(text)), text, &known).is_empty());
    }
}
