//! Edits at single places: what the target's version of a file has where the home kernel's uses something that changed.

use super::anchors::{Anchors, Shape};
use super::pair::{Pair, by_name};
use super::template::{abstracted, balanced, is_expression, join};
use super::types::Types;
use super::units::{Source, Tok, Unit, UnitKind, closing, split};
use super::{callbacks, tables};
use rustc_hash::FxHashSet;
use std::ops::Range;

/// What an edit is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A function, macro, constant or type.
    Name(String),
    /// A member that is read or renamed.
    Field(String, String),
    /// A member that is assigned.
    Write(String, String),
    /// A member that is initialised.
    Initialiser(String, String),
    /// A parameter of a callback, by its place.
    Parameter(String, String, usize),
    /// A header.
    Header(String),
}

/// What became of one use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was said in another way.
    Edit {
        /// The arguments of the use.
        args: Vec<String>,
        /// The target's words.
        after: String,
        /// The same with arguments taken out.
        template: String,
        /// Whole statements took the place of a statement.
        statement: bool,
    },
    /// Nothing stands in its place.
    Deleted,
    /// It stands there unchanged.
    Same,
    /// Too much changed around it.
    Unresolved,
}

/// One use of something that changed.
#[derive(Debug, Clone)]
pub struct Site {
    /// Line of the home kernel's file.
    pub line: usize,
    /// The words that use it.
    pub before: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What one pair of files says.
pub type Found = Vec<(Key, Site)>;

/// Everything that a file's two versions say.
pub struct Reader<'a> {
    /// What changed.
    pub anchors: &'a Anchors,
    /// The target has this header.
    pub target_has_header: &'a (dyn Fn(&str) -> bool + Sync),
}

/// A file in both kernels.
pub struct Files<'s, 't> {
    /// The home kernel's text.
    pub text: &'t str,
    /// The home kernel's.
    pub home: &'s Source<'t>,
    /// The target's.
    pub target: &'s Source<'t>,
}

impl Files<'_, '_> {
    fn line(&self, token: usize) -> usize {
        let offset = self.home.starts.get(token).copied().unwrap_or(0);
        let before = self.text.as_bytes().get(..offset).unwrap_or(&[]);
        before.iter().filter(|b| **b == b'\n').count() + 1
    }
    /// A site at a token of the home file.
    pub fn site(&self, token: usize, before: String, outcome: Outcome) -> Site {
        Site {
            line: self.line(token),
            before,
            outcome,
        }
    }
}

impl Reader<'_> {
    /// Reads one file of both kernels.
    #[must_use]
    pub fn read(&self, home_text: &str, target_text: &str) -> Found {
        let home = Source::read(home_text);
        let target = Source::read(target_text);
        let files = Files {
            text: home_text,
            home: &home,
            target: &target,
        };
        let mut found = self.headers(&files);
        let own = own_names(&home);
        let others = by_name(&target);
        for unit in &home.units {
            let key = (unit.kind == UnitKind::Function, unit.name);
            let Some(other) = others.get(&key) else {
                continue;
            };
            match unit.kind {
                UnitKind::Function => self.function(&files, unit, other, &own, &mut found),
                UnitKind::Table => {
                    tables::read(self.anchors, &files, unit, other, &mut found);
                    self.names_of(&files, unit, other, &own, &mut found);
                }
            }
        }
        callbacks::read(self.anchors, &files, &mut found);
        found
    }

    fn headers(&self, files: &Files<'_, '_>) -> Found {
        let new: Vec<&str> = files
            .target
            .includes
            .iter()
            .filter(|h| !files.home.includes.contains(h))
            .copied()
            .collect();
        let gone = files.home.includes.iter().filter(|h| {
            !files.target.includes.contains(h) && !(self.target_has_header)(h) && !new.is_empty()
        });
        gone.flat_map(|h| {
            new.iter().map(move |n| {
                let outcome = Outcome::Edit {
                    args: Vec::new(),
                    after: (*n).to_owned(),
                    template: (*n).to_owned(),
                    statement: false,
                };
                let site = Site {
                    line: 0,
                    before: (*h).to_owned(),
                    outcome,
                };
                (Key::Header((*h).to_owned()), site)
            })
        })
        .collect()
    }

    fn function(
        &self,
        files: &Files<'_, '_>,
        unit: &Unit<'_>,
        other: &Unit<'_>,
        own: &FxHashSet<&str>,
        found: &mut Found,
    ) {
        let names = self.name_uses(files.home, unit, own);
        let types = Types::of(self.anchors, files.home, unit);
        let members = types.gone(files.home, unit);
        if names.is_empty() && members.is_empty() {
            return;
        }
        let Some(pair) = Pair::new(files.home, unit, files.target, other) else {
            return;
        };
        for at in names {
            found.extend(self.name_site(files, &pair, at));
        }
        for member in members {
            found.extend(member_site(files, &pair, &member));
        }
    }

    /// Names used in a table.
    fn names_of(
        &self,
        files: &Files<'_, '_>,
        unit: &Unit<'_>,
        other: &Unit<'_>,
        own: &FxHashSet<&str>,
        found: &mut Found,
    ) {
        let names = self.name_uses(files.home, unit, own);
        if names.is_empty() {
            return;
        }
        if let Some(pair) = Pair::new(files.home, unit, files.target, other) {
            let sites = names
                .into_iter()
                .filter_map(|at| self.name_site(files, &pair, at));
            found.extend(sites);
        }
    }

    /// Tokens of a unit that use a name that changed.
    fn name_uses(&self, source: &Source<'_>, unit: &Unit<'_>, own: &FxHashSet<&str>) -> Vec<usize> {
        let declared = declared(source, unit);
        let text = |at: usize| source.tokens.get(at).map_or("", |t| t.text);
        unit.tokens
            .clone()
            .filter(|&at| {
                let Some(token) = source.tokens.get(at).filter(|t| t.word) else {
                    return false;
                };
                let Some(anchor) = self.anchors.names.get(token.text) else {
                    return false;
                };
                let before = at.checked_sub(1).map_or("", text);
                let called = text(at + 1) == "(";
                let tag = matches!(before, "struct" | "union" | "enum");
                !matches!(before, "." | "->" | "goto")
                    && tag == anchor.tag
                    && !own.contains(token.text)
                    && !declared.contains(token.text)
                    && (called || !matches!(anchor.shape, Shape::Arity { .. }))
                    && (called || token.text.len() > 3)
            })
            .collect()
    }

    fn name_site(
        &self,
        files: &Files<'_, '_>,
        pair: &Pair<'_, '_>,
        at: usize,
    ) -> Option<(Key, Site)> {
        let name = files.home.tokens.get(at)?.text;
        let anchor = self.anchors.names.get(name)?;
        let called = anchor.callable && files.home.tokens.get(at + 1)?.text == "(";
        let (range, args) = if called {
            let close = closing(&files.home.tokens, at + 1)?;
            let args = split(&files.home.tokens, at + 1, close);
            if let Shape::Arity { home, .. } = anchor.shape
                && home != args.len()
            {
                return None;
            }
            (at..close + 1, args)
        } else {
            (at..at + 1, Vec::new())
        };
        let args: Vec<Vec<Tok<'_>>> = args.into_iter().map(|a| pair.here(a).to_vec()).collect();
        let before = join(pair.here(range.clone()));
        let outcome = outcome(pair, range, &args);
        Some((Key::Name(name.to_owned()), files.site(at, before, outcome)))
    }
}

/// What stands for a range: an expression, else, where the range is a whole statement, statements.
fn outcome(pair: &Pair<'_, '_>, range: Range<usize>, args: &[Vec<Tok<'_>>]) -> Outcome {
    let here = pair.here(range.clone());
    if let Some(there) = pair.mapped(range.clone()) {
        let form = pair.there(there);
        if form == here {
            return Outcome::Same;
        }
        if is_expression(form) && !form.iter().any(|t| t.text == "=") {
            return edit(form, args, false);
        }
        if form.is_empty() && flag(pair, range.clone()) {
            return Outcome::Deleted;
        }
    }
    let text = |at: usize| pair.here(at..at + 1).first().map_or("", |t| t.text);
    let opens = range
        .start
        .checked_sub(1)
        .is_some_and(|b| matches!(text(b), ";" | "{" | "}"));
    if !opens || text(range.end) != ";" {
        return flag_deleted(pair, range).unwrap_or(Outcome::Unresolved);
    }
    match pair.mapped(range.start..range.end + 1) {
        Some(there) if there.is_empty() => Outcome::Deleted,
        Some(there) => {
            let form = pair.there(there);
            let last = form.last().is_some_and(|t| t.text == ";");
            let ends = form.iter().filter(|t| t.text == ";").count();
            let plain = !form
                .iter()
                .any(|t| matches!(t.text, "{" | "}" | "return" | "goto" | "if" | "for"));
            if last && ends <= 3 && plain && balanced(form) {
                edit(form, args, true)
            } else {
                Outcome::Unresolved
            }
        }
        None => Outcome::Unresolved,
    }
}

fn edit(form: &[Tok<'_>], args: &[Vec<Tok<'_>>], statement: bool) -> Outcome {
    Outcome::Edit {
        args: args.iter().map(|a| join(a)).collect(),
        after: join(form),
        template: abstracted(form, args),
        statement,
    }
}

/// The range stands beside a `|`.
fn flag(pair: &Pair<'_, '_>, range: Range<usize>) -> bool {
    let text = |at: usize| pair.here(at..at + 1).first().map_or("", |t| t.text);
    text(range.end) == "|" || range.start.checked_sub(1).map_or("", text) == "|"
}

/// `| NAME` that is gone with its operator.
fn flag_deleted(pair: &Pair<'_, '_>, range: Range<usize>) -> Option<Outcome> {
    let text = |at: usize| pair.here(at..at + 1).first().map_or("", |t| t.text);
    let before = range.start.checked_sub(1)?;
    let wider = if text(before) == "|" {
        before..range.end
    } else if text(range.end) == "|" {
        range.start..range.end + 1
    } else {
        return None;
    };
    let there = pair.mapped(wider)?;
    there.is_empty().then_some(Outcome::Deleted)
}

/// A use of a member that the target's record lacks.
pub struct Member {
    /// The record.
    pub record: String,
    /// Token of the member's name.
    pub at: usize,
    /// First token of the object.
    pub root: usize,
}

fn member_site(files: &Files<'_, '_>, pair: &Pair<'_, '_>, member: &Member) -> Option<(Key, Site)> {
    let tokens = &files.home.tokens;
    let field = tokens.get(member.at)?.text.to_owned();
    let operator = member.at.checked_sub(1)?;
    let mut object = pair.here(member.root..operator).to_vec();
    if tokens.get(operator)?.text == "." {
        let address = Tok {
            text: "&",
            word: false,
        };
        object.insert(0, address);
    }
    let expression = member.root..member.at + 1;
    let before = join(pair.here(expression.clone()));
    let read = outcome(pair, expression.clone(), std::slice::from_ref(&object));
    let text = |at: usize| tokens.get(at).map_or("", |t| t.text);
    let opens = member
        .root
        .checked_sub(1)
        .is_some_and(|b| matches!(text(b), ";" | "{" | "}"));
    let assigned = text(member.at + 1) == "=";
    if !(opens && assigned)
        || matches!(
            read,
            Outcome::Edit {
                statement: false,
                ..
            }
        )
    {
        let key = Key::Field(member.record.clone(), field);
        return Some((key, files.site(member.at, before, read)));
    }
    let end = (member.at + 1..pair.unit.tokens.end).find(|at| text(*at) == ";")?;
    let value = pair.here(member.at + 2..end).to_vec();
    let statement = member.root..end;
    let before = join(pair.here(statement.clone()));
    let write = outcome(pair, statement, &[object, value]);
    let key = Key::Write(member.record.clone(), field);
    Some((key, files.site(member.at, before, write)))
}

/// Functions, tables and macros of the file itself: a name of the API that it has made its own is no use of the API.
fn own_names<'t>(source: &Source<'t>) -> FxHashSet<&'t str> {
    let units = source.units.iter().map(|u| u.name);
    units.chain(source.defines.iter().copied()).collect()
}

/// Parameters and variables that a unit declares: a word after a type, or after the star of a pointer to one.
fn declared<'t>(source: &Source<'t>, unit: &Unit<'t>) -> FxHashSet<&'t str> {
    const NO_TYPES: [&str; 9] = [
        "return", "else", "goto", "case", "sizeof", "do", "struct", "union", "enum",
    ];
    let token = |at: usize| source.tokens.get(at).copied();
    let ends =
        |at: usize| token(at).is_some_and(|t| matches!(t.text, "=" | ";" | "," | ")" | "[" | ":"));
    let is_type = |at: Option<usize>| {
        at.and_then(token)
            .is_some_and(|t| t.word && !NO_TYPES.contains(&t.text))
    };
    let mut out = FxHashSet::default();
    for at in unit.tokens.clone() {
        let Some(word) = token(at).filter(|t| t.word) else {
            continue;
        };
        if !ends(at + 1) {
            continue;
        }
        let before = at.checked_sub(1);
        let star = before.and_then(token).is_some_and(|t| t.text == "*");
        let pointer = star
            && is_type(at.checked_sub(2))
            && at
                .checked_sub(3)
                .and_then(token)
                .is_some_and(|t| matches!(t.text, "struct" | "{" | ";" | "(" | "," | "const"));
        if is_type(before) || pointer {
            out.insert(word.text);
        }
    }
    out
}
