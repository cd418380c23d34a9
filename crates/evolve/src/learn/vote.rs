//! From many sites to one form: each site votes for every form that, filled with its own arguments, gives its own words.

use super::sites::{Outcome, Site};
use super::template::{filled, number};
use rustc_hash::{FxHashMap, FxHashSet};

/// How many forms of one anchor are put to the vote.
const CANDIDATES: usize = 24;

/// A site with the file that it stands in.
#[derive(Debug, Clone)]
pub struct Vote {
    /// Number of the file.
    pub file: u32,
    /// What happened there.
    pub site: Site,
}

/// A form and how many stand behind it.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// The form with holes; `@name` where a name took the place of a name and the arguments stayed.
    pub template: String,
    /// Whole statements.
    pub statement: bool,
    /// How many arguments the uses have that it fits.
    pub arity: usize,
    /// The uses are calls.
    pub called: bool,
    /// Files that agree.
    pub files: usize,
    /// Sites that agree.
    pub sites: usize,
    /// Sites that were changed in another way.
    pub against: usize,
    /// Sites where nothing stands in its place.
    pub deleted: usize,
    /// Sites left as they were.
    pub same: usize,
    /// Sites that nobody understood.
    pub unresolved: usize,
    /// Files where nothing stands in its place.
    pub deleted_files: usize,
    /// The first sites that agree, as (file, line).
    pub examples: Vec<(u32, usize)>,
    /// The first of them before and after.
    pub example: (String, String),
    /// For each argument the one word that at least nine sites of ten have there.
    pub constants: Vec<Option<String>>,
}

impl Tally {
    /// Share of the understood sites that agree.
    #[must_use]
    pub fn share(&self) -> f64 {
        let all = self.sites + self.against + self.deleted;
        ratio(self.sites, all)
    }
    /// Share of all sites that agree, those left as they were among them.
    #[must_use]
    pub fn share_of_all(&self) -> f64 {
        ratio(
            self.sites,
            self.sites + self.against + self.deleted + self.same,
        )
    }
    /// Share of the understood sites where nothing stands in its place.
    #[must_use]
    pub fn share_deleted(&self) -> f64 {
        ratio(self.deleted, self.sites + self.against + self.deleted)
    }
}

fn ratio(part: usize, all: usize) -> f64 {
    if all == 0 {
        return 0.0;
    }
    #[allow(clippy::cast_precision_loss)]
    let share = part as f64 / all as f64;
    share
}

/// A plain change of name: `g ( {0} , {1} )` or `g`.
fn alias(template: &str, arity: usize, called: bool) -> Option<String> {
    let mut words = template.split(' ');
    let name = words.next()?;
    let first = name.bytes().next()?;
    if !(first.is_ascii_alphabetic() || first == b'_') {
        return None;
    }
    let list: Vec<String> = (0..arity).map(|n| format!("{{{n}}}")).collect();
    let expected = if !called {
        name.to_owned()
    } else if arity == 0 {
        format!("{name} ( )")
    } else {
        format!("{name} ( {} )", list.join(" , "))
    };
    (template == expected).then(|| format!("@{name}"))
}

fn is_call(site: &Site) -> bool {
    site.before.ends_with(" )")
}

/// Fills a candidate with a site's arguments.
#[must_use]
pub fn replay(template: &str, args: &[String], called: bool) -> String {
    match template.strip_prefix('@') {
        Some(name) if called && args.is_empty() => format!("{name} ( )"),
        Some(name) if called => format!("{name} ( {} )", args.join(" , ")),
        Some(name) => name.to_owned(),
        None => filled(template, args),
    }
}

/// The form that most files agree on, of those that `good` lets pass.
#[must_use]
pub fn count(votes: &[Vote], good: &dyn Fn(&str, bool) -> bool) -> Tally {
    let mut tally = Tally::default();
    let mut forms: FxHashMap<(String, bool), usize> = FxHashMap::default();
    let mut deleted_in = FxHashSet::default();
    for vote in votes {
        match &vote.site.outcome {
            Outcome::Edit {
                template,
                statement,
                args,
                ..
            } => {
                let called = is_call(&vote.site);
                let form = if *statement {
                    template.clone()
                } else {
                    alias(template, args.len(), called).unwrap_or_else(|| template.clone())
                };
                *forms.entry((form, *statement)).or_default() += 1;
            }
            Outcome::Deleted => {
                tally.deleted += 1;
                deleted_in.insert(vote.file);
            }
            Outcome::Same => tally.same += 1,
            Outcome::Unresolved => tally.unresolved += 1,
        }
    }
    tally.deleted_files = deleted_in.len();
    let edits: usize = forms.values().sum();
    let mut candidates: Vec<((String, bool), usize)> = forms
        .into_iter()
        .filter(|((form, statement), _)| good(form, *statement))
        .collect();
    candidates.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    candidates.truncate(CANDIDATES);
    let mut best = None;
    for ((form, statement), _) in candidates {
        let backed = backed(votes, &form, statement);
        if best.as_ref().is_none_or(|b: &Backed| backed.beats(b)) {
            best = Some(backed);
        }
    }
    tally.against = edits;
    if let Some(best) = best {
        tally.against = edits.saturating_sub(best.sites);
        best.into_tally(&mut tally);
    }
    tally
}

/// A candidate with those who voted for it.
struct Backed {
    template: String,
    statement: bool,
    arity: usize,
    called: bool,
    files: FxHashSet<u32>,
    sites: usize,
    examples: Vec<(u32, usize)>,
    example: (String, String),
    constants: Vec<FxHashMap<String, usize>>,
}

impl Backed {
    fn beats(&self, other: &Self) -> bool {
        (self.files.len(), self.sites, other.template.len())
            > (other.files.len(), other.sites, self.template.len())
    }
    fn into_tally(self, tally: &mut Tally) {
        let sites = self.sites;
        tally.template = self.template;
        tally.statement = self.statement;
        tally.arity = self.arity;
        tally.called = self.called;
        tally.files = self.files.len();
        tally.sites = sites;
        tally.examples = self.examples;
        tally.example = self.example;
        tally.constants = self
            .constants
            .into_iter()
            .map(|words| {
                words
                    .into_iter()
                    .find(|(_, n)| n * 10 >= sites * 9)
                    .map(|(w, _)| w)
            })
            .collect();
    }
}

fn backed(votes: &[Vote], template: &str, statement: bool) -> Backed {
    let holes = template
        .split(' ')
        .filter_map(number)
        .max()
        .map_or(0, |n| n + 1);
    let mut out = Backed {
        template: template.to_owned(),
        statement,
        arity: 0,
        called: false,
        files: FxHashSet::default(),
        sites: 0,
        examples: Vec::new(),
        example: Default::default(),
        constants: Vec::new(),
    };
    for vote in votes {
        let Outcome::Edit {
            args,
            after,
            statement: s,
            ..
        } = &vote.site.outcome
        else {
            continue;
        };
        let called = is_call(&vote.site);
        if *s != statement || args.len() < holes || replay(template, args, called) != *after {
            continue;
        }
        if out.sites == 0 {
            out.arity = args.len();
            out.called = called;
            out.example = (vote.site.before.clone(), after.clone());
            out.constants = vec![FxHashMap::default(); args.len()];
        }
        // A form with holes stands for calls of one arity; a change of name for all.
        if !template.starts_with('@') && args.len() != out.arity {
            continue;
        }
        out.sites += 1;
        if out.files.insert(vote.file) && out.examples.len() < 5 {
            out.examples.push((vote.file, vote.site.line));
        }
        for (seen, arg) in out.constants.iter_mut().zip(args) {
            if !arg.contains(' ') && seen.len() < 64 {
                *seen.entry(arg.clone()).or_default() += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(file: u32, before: &str, args: &[&str], after: &str, template: &str) -> Vote {
        let outcome = Outcome::Edit {
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            after: after.to_owned(),
            template: template.to_owned(),
            statement: false,
        };
        let before = before.to_owned();
        Vote {
            file,
            site: Site {
                line: 1,
                before,
                outcome,
            },
        }
    }

    #[test]
    fn a_site_votes_for_every_form_that_gives_its_words() {
        let votes = [
            vote(1, "f ( x )", &["x"], "g ( x , 0 )", "g ( {0} , 0 )"),
            vote(2, "f ( y )", &["y"], "g ( y , 0 )", "g ( {0} , 0 )"),
            vote(3, "f ( 0 )", &["0"], "g ( 0 , 0 )", "g ( {0} , {0} )"),
            vote(4, "f ( z )", &["z"], "h ( )", "h ( )"),
        ];
        let tally = count(&votes, &|_, _| true);
        assert_eq!(tally.template, "g ( {0} , 0 )");
        assert_eq!((tally.files, tally.sites, tally.against), (3, 3, 1));
    }

    #[test]
    fn a_change_of_name_counts_for_every_arity() {
        let votes = [
            vote(1, "f ( x )", &["x"], "g ( x )", "g ( {0} )"),
            vote(
                2,
                "f ( x , y )",
                &["x", "y"],
                "g ( x , y )",
                "g ( {0} , {1} )",
            ),
        ];
        let tally = count(&votes, &|_, _| true);
        assert_eq!((tally.template.as_str(), tally.files), ("@g", 2));
    }
}
