//! Learning: from two kernel trees to evolutions, without their history.
//!
//! Headers say what changed (`anchors`); files that both trees have say what the maintainers wrote instead (`sites`,
//! `tables`, `callbacks`); the sites vote (`vote`); what wins becomes an evolution (`emit`), which the target's compiler tries
//! (`trial`). One direction at a time: evolutions lead from the `home` kernel's form to the `target`'s, and what leads back is
//! learned with the two swapped.
//!
//! It lives here, and not in the room that ports drivers, because all that it needs is facts, text and this room's own
//! format; what it learns is this room's data.
//!
//! Never: looks at version numbers, edits a tree, names a driver other than as evidence.

pub mod agree;
mod anchors;
mod callbacks;
#[cfg(test)]
mod edit_tests;
mod emit;
mod pair;
mod sites;
mod tables;
mod template;
mod toml;
mod trial;
mod types;
mod units;
mod versus;
mod vote;

pub use emit::Rule;
pub use sites::{Key, Outcome, Site};
pub use versus::{Stance, stance};

use crate::conditions::KernelView;
use crate::library::Library;
use crate::model::{Evolution, Tier};
use anchors::Anchors;
use kspan_facts::{Detail, Facts, Field};
use kspan_kernel::{Error, Result};
use rayon::prelude::*;
use sites::Reader;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vote::{Tally, Vote};

/// Directories whose files are read; others say nothing of the API that modules see.
const PLACES: [&str; 14] = [
    "drivers", "sound", "net", "fs", "block", "crypto", "lib", "kernel", "mm", "security", "virt",
    "arch/x86", "samples", "init",
];

/// A file larger than this is generated.
const LARGEST: u64 = 1 << 20;

/// One of the two kernels.
pub struct Side<'a> {
    /// Its release, for people.
    pub release: String,
    /// What its headers say.
    pub facts: &'a Facts,
    /// The same, for conditions.
    pub view: &'a (dyn KernelView + Sync),
    /// Its source tree.
    pub tree: &'a Path,
}

impl Side<'_> {
    fn member(&self, record: &str, field: &str) -> Option<Field> {
        self.facts
            .defs(record)
            .into_iter()
            .find_map(|d| match d.detail {
                Detail::Record { fields, .. } => fields.into_iter().find(|f| f.name == field),
                _ => None,
            })
    }
}

/// What is learned.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Only files whose path falls into the first so many hundredths are learned from; the rest measure.
    pub train_percent: u8,
}

/// What a run did, in numbers.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Counts {
    /// Files that both trees have.
    pub files: usize,
    /// Of these, files that differ.
    pub differing: usize,
    /// Names that changed.
    pub names: usize,
    /// Members that are gone.
    pub members: usize,
    /// Callbacks that lost parameters.
    pub callbacks: usize,
    /// Uses of what changed.
    pub sites: usize,
    /// Things that changed and are used.
    pub used: usize,
    /// Seconds for headers, files, votes and trials.
    pub seconds: [f64; 4],
    /// Rules that the target's compiler refused.
    pub refused: usize,
    /// The first of those, with the compiler's words.
    pub refusals: Vec<String>,
    /// On files that were not learned from.
    pub unseen: Unseen,
}

/// How the rules do on files that they were not learned from.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Unseen {
    /// Uses that the maintainers said otherwise.
    pub edits: usize,
    /// Of these, uses that a rule serves.
    pub served: usize,
    /// Of these, uses where it gives the maintainers' own words.
    pub exact: usize,
}

/// What was learned in one direction.
#[derive(Debug, Clone, Default)]
pub struct Learned {
    /// The rules, by what they are about.
    pub rules: Vec<Rule>,
    /// Numbers.
    pub counts: Counts,
    /// Paths that were not learned from.
    pub unseen: Vec<String>,
}

/// A path's place among a hundred, the same on every machine.
#[must_use]
pub fn hundredth(path: &str) -> u8 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in path.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    u8::try_from((hash >> 24) % 100).unwrap_or(0)
}

/// Learns how what `home` has is said on `target`.
///
/// `judge` compiles a text for the target and returns the compiler's words if it refuses. `tell` hears what is being done.
///
/// # Errors
/// A tree cannot be read, or the compiler cannot be started.
pub fn learn(
    home: &Side<'_>,
    target: &Side<'_>,
    options: Options,
    judge: &(dyn Fn(&str, &str) -> Result<Option<String>> + Sync),
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Learned> {
    let mut learned = Learned::default();
    let start = Instant::now();
    tell("comparing headers");
    let anchors = Anchors::between(home.facts, target.facts);
    let counts = &mut learned.counts;
    (counts.names, counts.members, counts.callbacks) = anchors.counts();
    counts.seconds[0] = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let paths = common(home.tree, target.tree)?;
    tell(&format!("comparing {} files", paths.len()));
    let (votes, differing) = read_all(&anchors, home, target, &paths);
    counts.files = paths.len();
    counts.differing = differing;
    counts.used = votes.len();
    counts.sites = votes.iter().map(|(_, v)| v.len()).sum();
    counts.seconds[1] = start.elapsed().as_secs_f64();

    let start = Instant::now();
    tell(&format!("counting {} uses", counts.sites));
    let seen: Vec<bool> = paths
        .iter()
        .map(|p| hundredth(p) < options.train_percent)
        .collect();
    let maker = emit::Maker {
        home,
        target,
        anchors: &anchors,
        files: &paths,
    };
    let mut rules = elect(&maker, &votes, &seen);
    counts.seconds[2] = start.elapsed().as_secs_f64();

    let start = Instant::now();
    tell(&format!("compiling {} rules", rules.len()));
    counts.refusals = trial::sift(&mut rules, judge)?;
    counts.refused = counts.refusals.len();
    counts.seconds[3] = start.elapsed().as_secs_f64();

    counts.unseen = measure(&votes, &seen, &rules);
    learned.unseen = paths
        .iter()
        .zip(&seen)
        .filter(|(_, s)| !**s)
        .map(|(p, _)| p.clone())
        .collect();
    learned.rules = rules;
    Ok(learned)
}

/// Uses of one thing that changed, each with the path of its file.
pub type Uses = (Key, Vec<(String, Site)>);

/// Every use of what changed between two kernels, with the file of the home kernel's tree in which it stands.
///
/// # Errors
/// A tree cannot be read.
pub fn uses(home: &Side<'_>, target: &Side<'_>) -> Result<Vec<Uses>> {
    let anchors = Anchors::between(home.facts, target.facts);
    let paths = common(home.tree, target.tree)?;
    let (votes, _) = read_all(&anchors, home, target, &paths);
    let place = |vote: Vote| {
        let path = paths.get(vote.file as usize).cloned().unwrap_or_default();
        (path, vote.site)
    };
    Ok(votes
        .into_iter()
        .map(|(key, votes)| (key, votes.into_iter().map(place).collect()))
        .collect())
}

/// Paths of C files that both trees have, sorted.
fn common(home: &Path, target: &Path) -> Result<Vec<String>> {
    let places: Vec<PathBuf> = PLACES.iter().map(|p| home.join(p)).collect();
    let mut out = Vec::new();
    for place in places.iter().filter(|p| p.is_dir()) {
        for entry in walkdir::WalkDir::new(place) {
            let entry = entry.map_err(|e| Error::Io {
                path: place.clone(),
                source: e.into(),
            })?;
            let path = entry.path();
            let right = entry.file_type().is_file() && path.extension().is_some_and(|e| e == "c");
            let Ok(relative) = path.strip_prefix(home) else {
                continue;
            };
            if right && target.join(relative).is_file() {
                out.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    out.sort();
    Ok(out)
}

fn text_of(path: &Path) -> Option<String> {
    let small = std::fs::metadata(path).is_ok_and(|m| m.len() <= LARGEST);
    let bytes = small.then(|| std::fs::read(path).ok()).flatten()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

type Votes = Vec<(Key, Vec<Vote>)>;

/// Every use of what changed in every file; and how many files differ.
fn read_all(
    anchors: &Anchors,
    home: &Side<'_>,
    target: &Side<'_>,
    paths: &[String],
) -> (Votes, usize) {
    let has_header = |h: &str| target.view.header_exists(h);
    let reader = Reader {
        anchors,
        target_has_header: &has_header,
    };
    let found: Vec<(u32, sites::Found)> = paths
        .par_iter()
        .enumerate()
        .filter_map(|(number, path)| {
            let here = text_of(&home.tree.join(path))?;
            let there = text_of(&target.tree.join(path))?;
            let number = u32::try_from(number).ok()?;
            (here != there).then(|| (number, reader.read(&here, &there)))
        })
        .collect();
    let differing = found.len();
    let mut map: BTreeMap<Key, Vec<Vote>> = BTreeMap::new();
    for (file, list) in found {
        for (key, site) in list {
            map.entry(key).or_default().push(Vote { file, site });
        }
    }
    (map.into_iter().collect(), differing)
}

/// One rule for each thing that changed, where the votes carry one.
fn elect(maker: &emit::Maker<'_>, votes: &Votes, seen: &[bool]) -> Vec<Rule> {
    let is_seen = |v: &&Vote| seen.get(v.file as usize).copied().unwrap_or(false);
    let mut rules: Vec<Rule> = votes
        .par_iter()
        .filter_map(|(key, votes)| {
            let votes: Vec<Vote> = votes.iter().filter(is_seen).cloned().collect();
            let tally = tally(maker, key, &votes);
            maker.rule(key, &tally)
        })
        .collect();
    one_for_each(&mut rules);
    name_apart(rules.iter_mut().map(|r| &mut r.evolution.id));
    rules
}

/// Two things may spell alike (`struct a.b_c` and `struct a_b.c`): the later rules of one id get a number.
fn name_apart<'r>(ids: impl Iterator<Item = &'r mut String>) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for id in ids {
        let count = seen.entry(id.clone()).or_default();
        *count += 1;
        if *count > 1 {
            *id = format!("{id}-{count}");
        }
    }
}

fn tally(maker: &emit::Maker<'_>, key: &Key, votes: &[Vote]) -> Tally {
    let anchor = match key {
        Key::Name(name) => maker.anchors.names.get(name),
        _ => None,
    };
    let words = !matches!(key, Key::Header(_) | Key::Initialiser(..));
    vote::count(votes, &|template, _| {
        !words || emit::fits(maker.target, anchor, template)
    })
}

/// A member has one rule: a new name before an expression; parameters of one callback go together.
fn one_for_each(rules: &mut Vec<Rule>) {
    use crate::model::Kind;
    let renamed: Vec<(String, String)> = rules
        .iter()
        .filter_map(|r| match &r.evolution.kind {
            Kind::Field { record, home, .. } => Some((record.clone(), home.clone())),
            _ => None,
        })
        .collect();
    let mut done: Vec<(String, String)> = Vec::new();
    rules.retain(|r| match &r.evolution.kind {
        Kind::Field { record, home, .. } => {
            let member = (record.clone(), home.clone());
            let first = !done.contains(&member);
            done.push(member);
            first
        }
        Kind::Access { record, field, .. } | Kind::DropField { record, field } => {
            !renamed.contains(&(record.clone(), field.clone()))
        }
        _ => true,
    });
    join_parts(rules);
}

/// Reading and writing one member, and the parameters of one callback, are one rule each.
fn join_parts(rules: &mut Vec<Rule>) {
    use crate::model::Kind;
    let mut out: Vec<Rule> = Vec::new();
    for rule in rules.drain(..) {
        let same = out
            .iter_mut()
            .find(|o| match (&o.evolution.kind, &rule.evolution.kind) {
                (
                    Kind::Access {
                        record: r,
                        field: f,
                        ..
                    },
                    Kind::Access { record, field, .. },
                )
                | (
                    Kind::Callback {
                        record: r,
                        field: f,
                        ..
                    },
                    Kind::Callback { record, field, .. },
                ) => r == record && f == field,
                _ => false,
            });
        match same {
            None => out.push(rule),
            Some(one) => absorb(one, rule),
        }
    }
    *rules = out;
}

fn absorb(one: &mut Rule, other: Rule) {
    use crate::model::Kind;
    match (&mut one.evolution.kind, other.evolution.kind) {
        (
            Kind::Access { read, write, .. },
            Kind::Access {
                read: r, write: w, ..
            },
        ) => {
            *read = read.take().or(r);
            *write = write.take().or(w);
        }
        (Kind::Callback { params, .. }, Kind::Callback { params: more, .. }) => params.extend(more),
        _ => return,
    }
    let e = &mut one.evolution;
    if other.evolution.risk > e.risk {
        e.risk = other.evolution.risk;
        e.meaning = other.evolution.meaning;
    }
    e.has.extend(other.evolution.has);
    e.includes.extend(other.evolution.includes);
    e.includes.sort();
    e.includes.dedup();
    one.trial_includes.extend(other.trial_includes);
    one.trial
        .push_str(&other.trial.replace("kspan_use_", "kspan_use_too_"));
    if let (Some(a), Some(b)) = (&mut e.evidence, other.evolution.evidence) {
        a.tier = a.tier.max(b.tier);
    }
}

/// How the rules do on uses in files that they were not learned from.
fn measure(votes: &Votes, seen: &[bool], rules: &[Rule]) -> Unseen {
    let by_key: BTreeMap<&Key, &Rule> = rules
        .iter()
        .filter(|r| {
            r.evolution
                .evidence
                .as_ref()
                .is_none_or(|e| e.tier < Tier::Review)
        })
        .map(|r| (&r.key, r))
        .collect();
    let mut out = Unseen::default();
    for (key, votes) in votes {
        if matches!(key, Key::Header(_)) {
            continue;
        }
        for vote in votes {
            if seen.get(vote.file as usize).copied().unwrap_or(true) {
                continue;
            }
            let Outcome::Edit { args, after, .. } = &vote.site.outcome else {
                continue;
            };
            out.edits += 1;
            let Some(rule) = by_key.get(key) else {
                continue;
            };
            out.served += 1;
            let called = vote.site.before.ends_with(" )");
            if vote::replay(&rule.template, args, called) == *after {
                out.exact += 1;
            }
        }
    }
    out
}

/// Rules of one tier as a file of evolutions.
#[must_use]
pub fn to_toml(head: &str, rules: &[&Rule]) -> String {
    let all: Vec<&Evolution> = rules.iter().map(|r| &r.evolution).collect();
    toml::file(head, &all)
}

/// How many rules agree with a library, differ from it and extend it; with the ids of those that differ.
#[must_use]
pub fn beside(
    rules: &[Rule],
    library: &Library,
    target: &Side<'_>,
) -> Vec<(Stance, Option<String>)> {
    rules
        .iter()
        .map(|rule| {
            let (stance, id) = stance(rule, library, target);
            (stance, id.map(str::to_owned))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rules_have_one_id() {
        let mut ids = ["a", "b", "a", "a"].map(str::to_owned);
        name_apart(ids.iter_mut());
        assert_eq!(ids, ["a", "b", "a-2", "a-3"]);
    }

    #[test]
    fn a_path_keeps_its_place() {
        assert_eq!(hundredth("drivers/net/a.c"), hundredth("drivers/net/a.c"));
        let all: Vec<u8> = (0..2000)
            .map(|n| hundredth(&format!("drivers/{n}.c")))
            .collect();
        let train = all.iter().filter(|h| **h < 80).count();
        assert!((1500..1700).contains(&train), "{train}");
    }
}
