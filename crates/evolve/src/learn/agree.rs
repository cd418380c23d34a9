//! What somebody made of a file beside what its maintainers made of it: use by use, of the names that changed.
//!
//! Both new texts are read against the old one in the way that learning reads the maintainers' (`sites`), so that two edits of one
//! use are two outcomes of the same site, and comparing them is comparing words.

use super::anchors::Anchors;
use super::callbacks;
use super::sites::{Files, Found, Key, Outcome, Reader, Site};
use super::template::join;
use super::units::Source;
use kspan_facts::Facts;
use std::collections::{BTreeMap, BTreeSet};

/// How two edits of one use stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Accord {
    /// Word for word the maintainers'.
    Exact,
    /// The same but for brackets, names of parameters, or another spelling of nothing.
    Equivalent,
    /// Both changed it, each in a way of its own.
    Other,
    /// The maintainers changed it, and this text did not.
    Missed,
    /// This text changed it, and the maintainers left it as it was.
    False,
    /// This text changed it; what the maintainers did cannot be told from their text, since too much around it changed.
    Unjudged,
}

/// One use of something that changed, which at least one of the two texts says otherwise.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Use {
    /// What it is a use of: a name, `struct record.member`, a callback's head or parameter.
    pub of: String,
    /// Line of the old text.
    pub line: usize,
    /// The old words.
    pub before: String,
    /// The maintainers' words; empty where they left nothing, none where that cannot be told.
    pub theirs: Option<String>,
    /// The other text's words, likewise.
    pub ours: Option<String>,
    /// How the two stand.
    pub accord: Accord,
}

/// Compares edits of drivers that moved from one kernel to another.
pub struct Comparer<'a> {
    anchors: Anchors,
    target_has_header: &'a (dyn Fn(&str) -> bool + Sync),
}

impl<'a> Comparer<'a> {
    /// For drivers of `home` that moved to `target`.
    #[must_use]
    pub fn new(
        home: &Facts,
        target: &Facts,
        target_has_header: &'a (dyn Fn(&str) -> bool + Sync),
    ) -> Self {
        Self {
            anchors: Anchors::between(home, target),
            target_has_header,
        }
    }

    /// Every use that one of the two texts says in other words than the old one.
    ///
    /// Headers are left out: which of a file's new includes took the place of an old one is a guess.
    #[must_use]
    pub fn compare(&self, old: &str, theirs: &str, ours: &str) -> Vec<Use> {
        let (theirs, ours) = (self.sites(old, theirs), self.sites(old, ours));
        let empty = Vec::new();
        let keys: BTreeSet<&(Key, usize)> = theirs.keys().chain(ours.keys()).collect();
        let mut uses: Vec<Use> = keys
            .into_iter()
            .flat_map(|key| {
                let (t, o) = (
                    theirs.get(key).unwrap_or(&empty),
                    ours.get(key).unwrap_or(&empty),
                );
                (0..t.len().max(o.len())).filter_map(|n| judged(&key.0, t.get(n), o.get(n)))
            })
            .collect();
        uses.sort_by(|a, b| (a.line, &a.of).cmp(&(b.line, &b.of)));
        uses
    }

    /// Lines of the old text (numbers from 1) that `ours` changed or dropped and the maintainers kept as they were; includes left out.
    ///
    /// Names that changed are seldom kept by anybody: this asks of every edit, whatever it is about.
    #[must_use]
    pub fn needless(old: &str, theirs: &str, ours: &str) -> Vec<usize> {
        let kept = |new: &str| -> BTreeSet<usize> {
            let diff = similar::TextDiff::from_lines(old, new);
            let equal = |c: similar::Change<&str>| match c.tag() {
                similar::ChangeTag::Equal => c.old_index(),
                _ => None,
            };
            diff.iter_all_changes().filter_map(equal).collect()
        };
        let told = |at: &usize| {
            let line = old.lines().nth(*at).unwrap_or("").trim();
            !line.is_empty() && !line.starts_with("#include")
        };
        let (by_them, by_us) = (kept(theirs), kept(ours));
        let needless = by_them.difference(&by_us).copied().filter(told);
        needless.map(|at| at + 1).collect()
    }

    /// Sites by what they use and where; several of one kind on one line keep their order.
    fn sites(&self, old: &str, new: &str) -> BTreeMap<(Key, usize), Vec<Site>> {
        let reader = Reader {
            anchors: &self.anchors,
            target_has_header: self.target_has_header,
        };
        let mut found = reader.read(old, new);
        let (home, target) = (Source::read(old), Source::read(new));
        let files = Files {
            text: old,
            home: &home,
            target: &target,
        };
        found.extend(self.heads(&files));
        let mut out: BTreeMap<(Key, usize), Vec<Site>> = BTreeMap::new();
        for (key, site) in found {
            let key = match key {
                Key::Header(_) => continue,
                // Whether an assignment is told as a whole depends on what became of it: both are uses of the member.
                Key::Write(record, field) => Key::Field(record, field),
                key => key,
            };
            out.entry((key, site.line)).or_default().push(site);
        }
        out
    }

    /// Heads of functions in callbacks whose type changed: what they return, are named and take.
    fn heads(&self, files: &Files<'_, '_>) -> Found {
        let head = |source: &Source<'_>, range: std::ops::Range<usize>| -> String {
            join(source.tokens.get(range).unwrap_or(&[]))
        };
        callbacks::heads(&self.anchors, files)
            .into_iter()
            .map(|h| {
                let before = head(files.home, h.here.clone());
                let outcome = match h.there {
                    None => Outcome::Unresolved,
                    Some(there) => {
                        let after = head(files.target, there);
                        if after == before {
                            Outcome::Same
                        } else {
                            Outcome::Edit {
                                args: Vec::new(),
                                template: after.clone(),
                                after,
                                statement: false,
                            }
                        }
                    }
                };
                let key = Key::Parameter(h.record, h.field, usize::MAX);
                (key, files.site(h.here.start, before, outcome))
            })
            .collect()
    }
}

/// Words of an outcome: none where it cannot be told.
fn words(site: Option<&Site>) -> Option<String> {
    let site = site?;
    match &site.outcome {
        Outcome::Edit { after, .. } => Some(after.clone()),
        Outcome::Deleted => Some(String::new()),
        Outcome::Same => Some(site.before.clone()),
        Outcome::Unresolved => None,
    }
}

fn judged(key: &Key, theirs: Option<&Site>, ours: Option<&Site>) -> Option<Use> {
    let site = ours.or(theirs)?;
    let same = |s: Option<&Site>| s.is_none_or(|s| s.outcome == Outcome::Same);
    let (they, we) = (words(theirs), words(ours));
    let head = matches!(key, Key::Parameter(_, _, usize::MAX));
    let accord = match (&they, &we) {
        // What this text did not touch and the maintainers rewrote beyond recognition is no edit of a name.
        _ if same(ours) && (same(theirs) || they.is_none()) => return None,
        (Some(_), _) if same(ours) => Accord::Missed,
        (None, _) => Accord::Unjudged,
        (Some(_), Some(_)) if same(theirs) => Accord::False,
        (Some(t), Some(w)) if t == w => Accord::Exact,
        (Some(t), Some(w)) if plain(t, head) == plain(w, head) => Accord::Equivalent,
        // Changed, in a way that cannot be read as an edit of this use.
        (Some(_), None) if same(theirs) => Accord::Unjudged,
        (Some(_), _) => Accord::Other,
    };
    Some(Use {
        of: label(key),
        line: site.line,
        before: site.before.clone(),
        theirs: they,
        ours: we,
        accord,
    })
}

fn label(key: &Key) -> String {
    match key {
        Key::Name(name) | Key::Header(name) => name.clone(),
        Key::Field(record, field) => format!("struct {record}.{field}"),
        Key::Write(record, field) => format!("struct {record}.{field} ="),
        Key::Initialiser(record, field) => format!("struct {record}: .{field}"),
        Key::Parameter(record, field, usize::MAX) => format!("struct {record}.{field}: head"),
        Key::Parameter(record, field, n) => format!("struct {record}.{field}: parameter {n}"),
    }
}

/// Words without what does not change the meaning: brackets that only group a word or the whole, `(& a) -> b` for `a . b`, and, of a
/// function's head, the names of its parameters and its linkage.
fn plain(text: &str, head: bool) -> Vec<String> {
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    if head {
        return parameters_without_names(&words);
    }
    loop {
        let before = words.len();
        words = once(&words);
        if words.len() == before {
            return words;
        }
    }
}

/// One pass of [`plain`].
fn once(words: &[String]) -> Vec<String> {
    let text = |at: usize| words.get(at).map_or("", String::as_str);
    let mut out: Vec<String> = Vec::with_capacity(words.len());
    let mut at = 0;
    while at < words.len() {
        let called = out.last().is_some_and(|w| names_something(w));
        let close = close_of(words, at);
        let address =
            text(at) == "(" && text(at + 1) == "&" && close.is_some_and(|c| text(c + 1) == "->");
        if let Some(close) = close.filter(|c| address && *c > at + 2) {
            out.extend(words.get(at + 2..close).unwrap_or(&[]).iter().cloned());
            out.push(".".to_owned());
            at = close + 2;
            continue;
        }
        let groups = text(at) == "(" && !called;
        if groups
            && text(at + 2) == ")"
            && names_something(text(at + 1))
            && !names_something(text(at + 3))
        {
            out.push(text(at + 1).to_owned());
            at += 3;
        } else if groups && at == 0 && close == Some(words.len() - 1) {
            return words.get(1..words.len() - 1).unwrap_or(&[]).to_vec();
        } else {
            out.push(text(at).to_owned());
            at += 1;
        }
    }
    out
}

fn names_something(word: &str) -> bool {
    let first = word.bytes().next();
    first.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !matches!(word, "return" | "sizeof" | "case")
}

/// The bracket that closes the one at a place.
fn close_of(words: &[String], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, word) in words.iter().enumerate().skip(open) {
        match word.as_str() {
            "(" => depth += 1,
            ")" => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// `static int f ( struct a * x )` as `int f ( struct a * )`.
fn parameters_without_names(words: &[String]) -> Vec<String> {
    let ends = |at: usize| words.get(at).is_none_or(|w| w == "," || w == ")");
    let mut out = Vec::with_capacity(words.len());
    let mut inside = false;
    for (at, word) in words.iter().enumerate() {
        let typed = at
            .checked_sub(1)
            .and_then(|b| words.get(b))
            .is_some_and(|b| names_something(b) && b != "struct" || b == "*");
        let name = inside && names_something(word) && ends(at + 1) && typed;
        inside |= word == "(";
        let attribute = word.starts_with("__");
        if !name && !attribute && !matches!(word.as_str(), "static" | "inline") {
            out.push(word.clone());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::anchors::{Anchor, Callback, Shape};
    use kspan_facts::{Param, Signature, Ty};

    fn comparer() -> Comparer<'static> {
        let mut anchors = Anchors::default();
        let gone = Anchor {
            shape: Shape::Missing,
            signature: None,
            callable: true,
            variadic: false,
            tag: false,
        };
        anchors.names.insert("old_call".to_owned(), gone);
        Comparer {
            anchors,
            target_has_header: &|_| true,
        }
    }

    const OLD: &str = "int f(struct d *d)\n{\n\tint x;\n\n\tx = old_call(d->a);\n\treturn x;\n}\n";

    fn accord(theirs: &str, ours: &str) -> Vec<Accord> {
        let with = |by: &str| OLD.replace("old_call(d->a)", by);
        let uses = comparer().compare(OLD, &with(theirs), &with(ours));
        uses.iter().map(|u| u.accord).collect()
    }

    #[test]
    fn each_way_of_standing_to_each_other() {
        assert_eq!(accord("new_call(d->a)", "new_call(d->a)"), [Accord::Exact]);
        assert_eq!(
            accord("(new_call(d->a))", "new_call(d->a)"),
            [Accord::Equivalent]
        );
        assert_eq!(
            accord("new_call(d->a, 0)", "new_call(d->a)"),
            [Accord::Other]
        );
        assert_eq!(accord("new_call(d->a)", "old_call(d->a)"), [Accord::Missed]);
        assert_eq!(accord("old_call(d->a)", "new_call(d->a)"), [Accord::False]);
        assert_eq!(accord("old_call(d->a)", "old_call(d->a)"), []);
    }

    #[test]
    fn what_the_maintainers_rewrote_is_not_judged() {
        let ours = OLD.replace("old_call", "new_call");
        let theirs = "int f(struct d *d)\n{\n\tguard(x)(d);\n\tif (!d)\n\t\tgoto out;\nout:\n\treturn 1;\n}\n";
        let uses = comparer().compare(OLD, theirs, &ours);
        assert_eq!(
            uses.iter().map(|u| u.accord).collect::<Vec<_>>(),
            [Accord::Unjudged]
        );
    }

    #[test]
    fn a_line_that_only_one_changed_is_needless() {
        let old = "#include <a.h>\nint a;\nint b;\nint c;\n";
        let theirs = "#include <a.h>\nint a;\nlong b;\nint c;\n";
        let ours = "#include <b.h>\nint a;\nlong b;\nlong c;\n";
        assert_eq!(Comparer::needless(old, theirs, ours), [4]);
        assert!(Comparer::needless(old, theirs, theirs).is_empty());
    }

    #[test]
    fn a_head_but_for_the_names_of_its_parameters() {
        let words = |t: &str| plain(t, true);
        assert_eq!(
            words("static int f ( struct a * x , int y )"),
            words("int f ( struct a * one , int two )")
        );
        assert_ne!(
            words("int f ( struct a * x )"),
            words("void f ( struct a * x )")
        );
        assert_eq!(words("int f ( void )"), words("int f ( void )"));
        assert_ne!(words("int f ( struct a )"), words("int f ( struct b )"));
    }

    #[test]
    fn brackets_that_say_nothing() {
        assert_eq!(plain("g ( ( x ) )", false), plain("g ( x )", false));
        assert_eq!(
            plain("( & a -> b ) -> c", false),
            plain("a -> b . c", false)
        );
        assert_ne!(plain("g ( x ) ", false), plain("g x", false));
    }

    #[test]
    fn a_callback_that_lost_a_parameter() {
        let ty = |text: &str| Ty {
            spelling: text.to_owned(),
            canonical: text.to_owned(),
        };
        let param = |text: &&str| Param {
            name: String::new(),
            ty: ty(text),
        };
        let signature = |params: &[&str]| Signature {
            ret: ty("int"),
            params: params.iter().map(param).collect(),
            variadic: false,
        };
        let mut c = comparer();
        let member = ("ops".to_owned(), "probe".to_owned());
        let callback = Callback {
            home: signature(&["struct d *", "const struct id *"]),
            target: signature(&["struct d *"]),
        };
        c.anchors.reshaped.insert(member.clone());
        c.anchors.callbacks.insert(member, callback);
        let members = [("probe".to_owned(), None)].into_iter().collect();
        c.anchors.records.insert("ops".to_owned(), members);
        let table = "\nstatic struct ops o = {\n\t.probe = p,\n};\n";
        let old =
            format!("static int p(struct d *d, const struct id *id)\n{{\n\treturn 0;\n}}\n{table}");
        let new = format!("static int p(struct d *dev)\n{{\n\treturn 0;\n}}\n{table}");
        let ours = new.replace("dev", "d");
        let uses = c.compare(&old, &new, &ours);
        let heads: Vec<Accord> = uses
            .iter()
            .filter(|u| u.of.ends_with("head"))
            .map(|u| u.accord)
            .collect();
        assert_eq!(heads, [Accord::Equivalent], "{uses:?}");
    }
}
