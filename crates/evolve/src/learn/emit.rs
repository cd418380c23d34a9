//! From a tally to an evolution: which kind it is, its C text, what it may do to meaning, and how far to trust it.

use super::anchors::{Anchor, Anchors, Shape, bare};
use super::template::{number, render, uses};
use super::vote::Tally;
use super::{Side, sites::Key};
use crate::model::{Condition, Evidence, Evolution, Kind, Risk, Tier};
use kspan_facts::{Detail, Signature};
use std::collections::{BTreeMap, BTreeSet};

/// An evolution that was learned, with what its test needs.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The evolution.
    pub evolution: Evolution,
    /// C text that uses it with the home kernel's own types; empty where these are not known.
    pub trial: String,
    /// Headers that only its trial needs.
    pub trial_includes: Vec<String>,
    /// The form that it was made from.
    pub template: String,
    /// What it is about.
    pub key: Key,
}

/// Words of C that are no names.
const KEYWORDS: [&str; 24] = [
    "sizeof",
    "struct",
    "union",
    "enum",
    "const",
    "volatile",
    "void",
    "char",
    "short",
    "int",
    "long",
    "unsigned",
    "signed",
    "float",
    "double",
    "static",
    "inline",
    "typeof",
    "NULL",
    "true",
    "false",
    "_Bool",
    "__typeof__",
    "register",
];

/// Names in a form: not holes, members, keywords nor constants.
#[must_use]
pub fn names(template: &str) -> Vec<&str> {
    let words: Vec<&str> = template.trim_start_matches('@').split(' ').collect();
    let name = |w: &str| {
        w.bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
    };
    let mut out = Vec::new();
    for (i, word) in words.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|b| words.get(b)).copied();
        if name(word) && !matches!(before, Some("." | "->")) && !KEYWORDS.contains(word) {
            out.push(*word);
        }
    }
    out
}

/// Does the form consist of the target's names and of its holes alone, and could its own types be right?
#[must_use]
pub fn fits(target: &Side<'_>, anchor: Option<&Anchor>, template: &str) -> bool {
    let words: Vec<&str> = template.trim_start_matches('@').split(' ').collect();
    let known = names(template)
        .iter()
        .all(|name| is_targets(target, &words, name));
    let returned = anchor.and_then(|a| a.signature.as_ref());
    known
        && match (returned, principal(template)) {
            (Some(sig), Some(callee)) => same_return(sig, target, callee),
            _ => true,
        }
}

/// A name of a form is one of the target's API, and not by chance a variable's: what is called can be called, what stands
/// alone is a value.
fn is_targets(target: &Side<'_>, words: &[&str], name: &str) -> bool {
    let defs = target.facts.defs(name);
    let at = words.iter().position(|w| *w == name).unwrap_or(0);
    let called = words.get(at + 1) == Some(&"(");
    let before = at.checked_sub(1).and_then(|b| words.get(b));
    let tagged = matches!(before, Some(&"struct" | &"union" | &"enum"));
    let value = defs.iter().any(|d| {
        matches!(
            d.detail,
            Detail::Variable { .. }
                | Detail::EnumConst { .. }
                | Detail::Typedef { .. }
                | Detail::Macro { params: None, .. }
        )
    });
    let function = defs.iter().any(|d| super::anchors::arity_of(d).is_some());
    let alone = words.len() == 1;
    match (defs.is_empty(), alone, called) {
        (true, ..) => false,
        (_, true, _) => true,
        (_, _, true) => function || value,
        _ => tagged || value && name.len() >= 4,
    }
}

/// The function that the whole form is a call of, or the name that takes its place.
fn principal(template: &str) -> Option<&str> {
    if let Some(name) = template.strip_prefix('@') {
        return Some(name);
    }
    let words: Vec<&str> = template.split(' ').collect();
    let first = words.first()?;
    (words.get(1) == Some(&"(") && words.last() == Some(&")")).then_some(*first)
}

/// A truth value where a number was hides a turned convention; another pointer is another thing.
fn same_return(home: &Signature, side: &Side<'_>, callee: &str) -> bool {
    let Some(target) = side
        .facts
        .defs(callee)
        .into_iter()
        .find_map(|d| match d.detail {
            Detail::Function { sig, .. } => Some(sig),
            _ => None,
        })
    else {
        return true;
    };
    let (a, b) = (bare(&home.ret.canonical), bare(&target.ret.canonical));
    if a == b || a == "void" {
        return true;
    }
    let truth = |t: &str| t == "_Bool" || t == "bool";
    b != "void" && truth(&a) == truth(&b) && !a.contains('*') && !b.contains('*')
}

/// Constants that the form supplies and the use did not say.
fn supplied(template: &str) -> Vec<String> {
    let words: Vec<&str> = template.split(' ').collect();
    let mut out: Vec<String> = Vec::new();
    for (i, word) in words.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|b| words.get(b)).copied();
        let called = words.get(i + 1) == Some(&"(");
        if is_constant(word) && !called && !matches!(before, Some("." | "->")) {
            out.push((*word).to_owned());
        }
    }
    out.dedup();
    out
}

/// A number, a text, or a name in capitals.
fn is_constant(word: &str) -> bool {
    let first = word.bytes().next().unwrap_or(b' ');
    let capitals = first.is_ascii_uppercase() && !word.bytes().any(|b| b.is_ascii_lowercase());
    first.is_ascii_digit() || first == b'"' || capitals || matches!(word, "true" | "false")
}

/// A managed resource (`devm_`, `drmm_`, `pcim_`) whose form is managed by nobody: the release stands elsewhere in the target's
/// drivers, where one use cannot see it.
fn loses_its_release(name: &str, template: &str) -> bool {
    let managed = |n: &str| {
        ["devm_", "drmm_", "pcim_"]
            .iter()
            .any(|p| n.trim_start_matches('_').starts_with(p))
    };
    managed(name) && !names(template).into_iter().any(managed)
}

/// What a form may do to meaning.
fn judged(tally: &Tally, deleted: bool) -> (Risk, String) {
    if deleted {
        return (
            Risk::Behaviour,
            "the target's own drivers have nothing in its place".to_owned(),
        );
    }
    let template = tally.template.as_str();
    if template.starts_with('@') {
        return (Risk::None, String::new());
    }
    if number(template).is_some() {
        let meaning = "only its argument stands in its place".to_owned();
        return (Risk::Behaviour, meaning);
    }
    if template.bytes().next().is_some_and(|b| b.is_ascii_digit()) && !template.contains(' ') {
        // A member of another type beside it, as a rule: the number is that member's.
        let meaning = format!("the bare number {template} stands in its place");
        return (Risk::Behaviour, meaning);
    }
    let supplied = supplied(template);
    let counts = uses(template, tally.arity);
    let mut meaning = Vec::new();
    let mut risk = Risk::None;
    for (at, n) in counts.iter().enumerate() {
        if *n > 0 {
            continue;
        }
        match tally.constants.get(at).and_then(Option::as_ref) {
            Some(word) => {
                // A constant that went while another came: what came may depend on what went.
                let bound = is_constant(word) && !supplied.is_empty();
                risk = risk.max(if bound {
                    Risk::Behaviour
                } else {
                    Risk::Default
                });
                meaning.push(format!(
                    "argument {} (as a rule {word}) is not passed on",
                    at + 1
                ));
            }
            None => {
                risk = Risk::Behaviour;
                meaning.push(format!("argument {} is not passed on", at + 1));
            }
        }
    }
    if !supplied.is_empty() {
        risk = risk.max(Risk::Default);
        meaning.push(format!("supplied: {}", supplied.join(", ")));
    }
    (risk, meaning.join("; "))
}

/// Everything that making a rule asks.
pub struct Maker<'a> {
    /// The kernel that drivers are written for.
    pub home: &'a Side<'a>,
    /// The kernel that lacks what they use.
    pub target: &'a Side<'a>,
    /// What changed.
    pub anchors: &'a Anchors,
    /// Paths of the files, by number.
    pub files: &'a [String],
}

impl Maker<'_> {
    /// Makes the rule of a tally, if its votes carry one.
    #[must_use]
    pub fn rule(&self, key: &Key, tally: &Tally) -> Option<Rule> {
        match key {
            Key::Name(name) => self.name(key, name, tally),
            Key::Field(record, field) | Key::Initialiser(record, field) => {
                self.member(key, record, field, tally)
            }
            Key::Write(record, field) => self.write(key, record, field, tally),
            Key::Header(header) => self.header(key, header, tally),
            Key::Parameter(record, field, index) => {
                self.parameter(key, record, field, *index, tally)
            }
        }
    }

    fn evidence(&self, tally: &Tally, tier: Tier) -> Evidence {
        Evidence {
            tier,
            files: tally.files,
            sites: tally.sites,
            against: tally.against + tally.deleted,
            unresolved: tally.unresolved,
            examples: tally
                .examples
                .iter()
                .filter_map(|(file, line)| {
                    Some(format!("{}:{line}", self.files.get(*file as usize)?))
                })
                .collect(),
            before: tally.example.0.clone(),
            after: tally.example.1.clone(),
        }
    }

    fn evolution(
        &self,
        what: &str,
        kind: Kind,
        tally: &Tally,
        judged: (Risk, String),
    ) -> Evolution {
        let tier = if judged.0 >= Risk::Behaviour {
            Tier::Review
        } else if judged.0 == Risk::None && tally.files >= 3 && tally.share() >= 0.8 {
            Tier::Proven
        } else {
            Tier::Likely
        };
        let word = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        };
        let slug: String = what.chars().map(word).collect();
        let place: String = self
            .target
            .release
            .chars()
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        Evolution {
            id: format!("learned-{}-for-{place}", slug.trim_matches('-')),
            kind,
            provides: Vec::new(),
            has: Vec::new(),
            lacks: Vec::new(),
            arity: BTreeMap::new(),
            types: BTreeMap::new(),
            body: BTreeMap::new(),
            body_lacks: BTreeMap::new(),
            includes: Vec::new(),
            needs: Vec::new(),
            rewrite: BTreeMap::new(),
            upgrade: crate::model::InUpgrade::default(),
            risk: judged.0,
            meaning: judged.1,
            commit: String::new(),
            why: format!(
                "learned from {} files that {} and {} both have",
                tally.files, self.home.release, self.target.release
            ),
            opt_in: false,
            only_with: Vec::new(),
            risk_with: Vec::new(),
            risk_without: Vec::new(),
            evidence: Some(self.evidence(tally, tier)),
            examples: Vec::new(),
            file: String::new(),
            line: 0,
        }
    }

    fn includes<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Vec<String> {
        let headers: BTreeSet<String> = names
            .into_iter()
            .filter_map(|n| self.target.view.header_of(n))
            .filter(|h| self.target.view.header_exists(h))
            .collect();
        headers.into_iter().take(8).collect()
    }

    fn name(&self, key: &Key, name: &str, tally: &Tally) -> Option<Rule> {
        let anchor = self.anchors.names.get(name)?;
        let missing = anchor.shape == Shape::Missing;
        let share = if missing {
            tally.share()
        } else {
            tally.share_of_all()
        };
        let deleted = tally.deleted_files >= 3 && tally.share_deleted() >= 0.7;
        if anchor.tag && !self.alike(name, tally.template.trim_start_matches('@')) {
            return None;
        }
        if !deleted && (tally.files < 2 || share < 0.5) || deleted && !missing {
            return None;
        }
        let mut tally = tally.clone();
        if deleted {
            tally.files = tally.deleted_files;
            std::mem::swap(&mut tally.sites, &mut tally.deleted);
        }
        let written = self.text(name, anchor, &tally, deleted)?;
        let mut judged = judged(&tally, deleted);
        if judged.0 == Risk::None && !deleted && self.both_stay(name, &tally) {
            judged = (
                Risk::Behaviour,
                format!(
                    "{} has both names: they need not mean the same",
                    self.home.release
                ),
            );
        }
        if anchor.variadic && !tally.template.starts_with('@') {
            judged = (
                Risk::Behaviour,
                format!("only calls with {} arguments are served", tally.arity),
            );
        }
        if loses_its_release(name, &tally.template) {
            judged = (
                Risk::Behaviour,
                "nothing releases it when the device goes".to_owned(),
            );
        }
        if let Some(words) = written.twice {
            judged.0 = judged.0.max(Risk::Default);
            judged.1 = [judged.1, words]
                .iter()
                .filter(|w| !w.is_empty())
                .cloned()
                .collect::<Vec<_>>()
                .join("; ");
        }
        let kind = match anchor.shape {
            Shape::Missing => Kind::Define { text: written.text },
            Shape::Arity { home, .. } => Kind::Override {
                text: written.text,
                home_arity: [(name.to_owned(), home)].into(),
            },
        };
        let mut e = self.evolution(name, kind, &tally, judged);
        let used: Vec<&str> = if deleted {
            Vec::new()
        } else {
            names(&tally.template)
        };
        e.provides = vec![name.to_owned()];
        if let Shape::Arity { target, .. } = anchor.shape {
            e.arity = [(name.to_owned(), target)].into();
        } else {
            e.lacks = vec![Condition::Name(name.to_owned())];
        }
        let mut conditions: Vec<&str> = used.iter().copied().filter(|n| *n != name).collect();
        conditions.extend(written.types.iter().map(String::as_str));
        conditions.sort_unstable();
        conditions.dedup();
        e.has = conditions
            .into_iter()
            .take(8)
            .map(|n| Condition::Name(n.to_owned()))
            .collect();
        if let (Some(sig), false) = (&anchor.signature, deleted) {
            e.has.extend(read_members(&tally.template, sig));
        }
        e.includes = self.includes(
            used.iter()
                .copied()
                .chain(written.types.iter().map(String::as_str)),
        );
        if deleted {
            e.includes.extend(self.home_header(name));
        }
        let trial = match &anchor.signature {
            Some(sig) => self.trial(name, sig),
            None => None,
        };
        if trial.is_none()
            && !tally.template.starts_with('@')
            && let Some(evidence) = &mut e.evidence
        {
            // Nothing tests a macro's text before it is used.
            evidence.tier = evidence.tier.max(Tier::Likely);
        }
        Some(Rule {
            evolution: e,
            trial_includes: self.type_headers(anchor.signature.as_ref()),
            trial: trial.unwrap_or_default(),
            template: if deleted {
                String::new()
            } else {
                tally.template
            },
            key: key.clone(),
        })
    }

    /// Half of a record's members are the other's too: a new name, and not another record.
    fn alike(&self, name: &str, other: &str) -> bool {
        let fields = |side: &Side<'_>, name: &str| {
            side.facts
                .defs(name)
                .into_iter()
                .find_map(|d| match d.detail {
                    Detail::Record { fields, .. } => Some(fields),
                    _ => None,
                })
        };
        let Some(here) = fields(self.home, name) else {
            // An enumeration.
            return fields(self.target, other).is_none();
        };
        let there = fields(self.target, other).unwrap_or_default();
        let both = here
            .iter()
            .filter(|f| there.iter().any(|o| o.name == f.name))
            .count();
        both * 2 >= here.len()
    }

    fn home_header(&self, name: &str) -> Option<String> {
        let header = self.home.view.header_of(name)?;
        self.target.view.header_exists(&header).then_some(header)
    }

    /// The home kernel has the form's own name unchanged: its authors chose between the two.
    fn both_stay(&self, name: &str, tally: &Tally) -> bool {
        let passed = uses(&tally.template, tally.arity).iter().all(|n| *n == 1)
            || tally.template.starts_with('@');
        let Some(callee) = principal(&tally.template).filter(|_| passed) else {
            return false;
        };
        // A macro or inline function of the home kernel that says so itself is no second meaning.
        let says = self.home.facts.defs(name).iter().any(|d| {
            let call = matches!(
                d.detail,
                Detail::Macro { .. } | Detail::Function { body: true, .. }
            );
            call && d
                .text
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .any(|w| w == callee)
                && d.text.len() < 160
        });
        callee != name && self.home.facts.has(callee) && !says
    }

    /// All words of a type are the target's, as what the type says they are.
    fn knows_type(&self, spelling: &str) -> bool {
        let mut before = "";
        words(spelling).all(|w| {
            let tagged = matches!(before, "struct" | "union" | "enum");
            before = w;
            if KEYWORDS.contains(&w) || w == "bool" {
                return true;
            }
            self.target
                .facts
                .defs(w)
                .iter()
                .any(|d| tagged == matches!(d.detail, Detail::Record { .. } | Detail::Enum { .. }))
        })
    }

    /// The headers that define the types of a signature.
    fn type_headers(&self, sig: Option<&Signature>) -> Vec<String> {
        let types = sig.into_iter().flat_map(|s| {
            s.params
                .iter()
                .map(|p| p.ty.spelling.as_str())
                .chain([s.ret.spelling.as_str()])
        });
        let all: Vec<&str> = types
            .flat_map(words)
            .filter(|w| !KEYWORDS.contains(w))
            .collect();
        self.includes(all)
    }

    fn knows(&self, sig: &Signature) -> bool {
        !sig.variadic
            && self.knows_type(&sig.ret.spelling)
            && sig.params.iter().all(|p| self.knows_type(&p.ty.spelling))
    }

    fn trial(&self, name: &str, sig: &Signature) -> Option<String> {
        if !self.knows(sig) {
            return None;
        }
        let list: Vec<String> = (0..sig.params.len()).map(|n| format!("a{n}")).collect();
        let back = if sig.ret.canonical == "void" {
            ""
        } else {
            "return "
        };
        Some(format!(
            "{};\n{}\n{{\n\t{back}{name}({});\n}}\n",
            head(sig, &format!("kspan_try_{name}"), ""),
            head(sig, &format!("kspan_try_{name}"), ""),
            list.join(", ")
        ))
    }

    /// The C text that gives the name.
    fn text(&self, name: &str, anchor: &Anchor, tally: &Tally, deleted: bool) -> Option<Text> {
        let sig = anchor.signature.as_ref().filter(|s| self.knows(s));
        if deleted {
            return deletion(name, anchor);
        }
        if let Some(other) = tally.template.strip_prefix('@') {
            return (anchor.shape == Shape::Missing)
                .then(|| Text::plain(format!("#define {name} {other}\n")));
        }
        let counts = uses(&tally.template, tally.arity);
        let often = counts.iter().any(|n| *n > 1);
        let sig = sig.filter(|s| s.params.len() == tally.arity);
        let through_macro = matches!(
            anchor.shape,
            Shape::Arity {
                target_macro: true,
                ..
            }
        );
        if !tally.called {
            return (!tally.statement && anchor.shape == Shape::Missing)
                .then(|| Text::plain(format!("#define {name} {}\n", wrapped(&tally.template))));
        }
        if let Some(sig) = sig.filter(|_| often || tally.statement || through_macro) {
            return Some(inline(name, anchor, sig, tally));
        }
        if through_macro {
            return None;
        }
        Some(as_macro(name, anchor, tally, often))
    }

    fn rename(&self, record: &str, target: &str) -> Option<()> {
        let first = target.split('.').next()?;
        self.target.view.has_field(record, first).then_some(())
    }

    fn member(&self, key: &Key, record: &str, field: &str, tally: &Tally) -> Option<Rule> {
        if let Key::Initialiser(..) = key {
            if tally.files >= 2 && tally.share() >= 0.5 {
                return self.renamed(key, record, field, &tally.template.clone(), tally);
            }
            let dropped = tally.deleted_files >= 3 && tally.share_deleted() >= 0.7;
            return dropped.then(|| self.dropped(key, record, field, tally));
        }
        if tally.files < 2 || tally.share() < 0.5 || tally.statement {
            return None;
        }
        if let Some(target) = path(&tally.template) {
            return self.renamed(key, record, field, &target, tally);
        }
        self.access(key, record, field, tally, false)
    }

    fn renamed(
        &self,
        key: &Key,
        record: &str,
        field: &str,
        target: &str,
        tally: &Tally,
    ) -> Option<Rule> {
        self.rename(record, target)?;
        let types = |side: &Side<'_>, name: &str| side.member(record, name);
        let (a, b) = (types(self.home, field)?, types(self.target, target));
        let mut judged = (Risk::None, String::new());
        if let Some(b) = b
            && a.callback.is_none()
            && bare(&a.ty.canonical) != bare(&b.ty.canonical)
        {
            if a.ty.canonical.contains('*') || b.ty.canonical.contains('*') {
                return None;
            }
            judged = (
                Risk::Behaviour,
                format!("its type was `{}`, is `{}`", b.ty.spelling, a.ty.spelling),
            );
        }
        // Both members at once: another thing.
        if self.home.member(record, target).is_some() {
            judged = (
                Risk::Behaviour,
                format!("{} has both members", self.home.release),
            );
        }
        let kind = Kind::Field {
            record: record.to_owned(),
            home: field.to_owned(),
            target: target.to_owned(),
        };
        Some(Rule {
            evolution: self.evolution(&format!("{record}-{field}"), kind, tally, judged),
            trial: String::new(),
            trial_includes: Vec::new(),
            template: target.to_owned(),
            key: key.clone(),
        })
    }

    fn dropped(&self, key: &Key, record: &str, field: &str, tally: &Tally) -> Rule {
        let mut tally = tally.clone();
        tally.files = tally.deleted_files;
        std::mem::swap(&mut tally.sites, &mut tally.deleted);
        let kind = Kind::DropField {
            record: record.to_owned(),
            field: field.to_owned(),
        };
        Rule {
            evolution: self.evolution(
                &format!("{record}-{field}-dropped"),
                kind,
                &tally,
                judged(&tally, true),
            ),
            trial: String::new(),
            trial_includes: Vec::new(),
            template: String::new(),
            key: key.clone(),
        }
    }

    fn access(
        &self,
        key: &Key,
        record: &str,
        field: &str,
        tally: &Tally,
        write: bool,
    ) -> Option<Rule> {
        let template = tally.template.trim_end_matches(" ;");
        if !template.contains("{0}") || write && !template.contains("{1}") || template.contains(';')
        {
            return None;
        }
        let text = render(template, |n| format!("{{{n}}}"));
        let kind = Kind::Access {
            record: record.to_owned(),
            field: field.to_owned(),
            read: (!write).then(|| text.clone()),
            write: write.then(|| text.clone()),
            place: None,
            init: None,
        };
        let side = if write { "written" } else { "read" };
        let mut e = self.evolution(
            &format!("{record}-{field}-{side}"),
            kind,
            tally,
            judged(tally, false),
        );
        e.has = names(template)
            .into_iter()
            .take(6)
            .map(|n| Condition::Name(n.to_owned()))
            .collect();
        e.includes = self.includes(names(template).into_iter().chain([record]));
        let (read, written) = if write {
            (None, Some(text.as_str()))
        } else {
            (Some(text.as_str()), None)
        };
        Some(Rule {
            evolution: e,
            trial: crate::judge::use_member(record, read, written),
            trial_includes: Vec::new(),
            template: template.to_owned(),
            key: key.clone(),
        })
    }

    fn write(&self, key: &Key, record: &str, field: &str, tally: &Tally) -> Option<Rule> {
        let enough = tally.files >= 2 && tally.share() >= 0.5;
        if !enough {
            return None;
        }
        self.access(key, record, field, tally, true)
    }

    fn header(&self, key: &Key, header: &str, tally: &Tally) -> Option<Rule> {
        let other = tally.template.trim_start_matches('@');
        let enough = tally.files >= 3 && self.target.view.header_exists(other);
        if !enough || !self.stands_for(header, other) {
            return None;
        }
        let kind = Kind::Header {
            home: header.to_owned(),
            target: other.to_owned(),
        };
        Some(Rule {
            evolution: self.evolution(header, kind, tally, (Risk::None, String::new())),
            trial: String::new(),
            trial_includes: Vec::new(),
            template: other.to_owned(),
            key: key.clone(),
        })
    }

    /// A function of the target's type that finds the value as the adapter will.
    fn parameter_trial(
        &self,
        record: &str,
        field: &str,
        index: usize,
        expression: &str,
    ) -> Option<String> {
        let member = (record.to_owned(), field.to_owned());
        let callback = self.anchors.callbacks.get(&member)?;
        let wanted = &callback.home.params.get(index)?.ty.spelling;
        if !self.knows(&callback.target) || !self.knows_type(wanted) {
            return None;
        }
        let mut value = expression.to_owned();
        for n in 0..callback.target.params.len() {
            value = value.replace(&format!("{{{n}}}"), &format!("a{n}"));
        }
        let head = |ret: &str| {
            let name = format!("kspan_try_{record}_{}_{index}", field.replace('.', "_"));
            head_with(ret, &callback.target, &name, "")
        };
        let ret = if wanted.contains('*') {
            "const void *"
        } else {
            "long"
        };
        let variable = declare(wanted, "value");
        let cast = if wanted.contains('*') { "" } else { "(long)" };
        Some(format!(
            "{};\n{}\n{{\n\t{variable} = {value};\n\treturn {cast}value;\n}}\n",
            head(ret),
            head(ret)
        ))
    }

    /// A third of what the home kernel's header gives is given by the target's.
    fn stands_for(&self, header: &str, other: &str) -> bool {
        let wanted = self.home.facts.names_in_header(header);
        let given = self.target.facts.names_in_header(other);
        let both = wanted.iter().filter(|n| given.contains(n)).count();
        both > 0 && both * 3 >= wanted.len()
    }

    fn parameter(
        &self,
        key: &Key,
        record: &str,
        field: &str,
        index: usize,
        tally: &Tally,
    ) -> Option<Rule> {
        let callback = self
            .anchors
            .callbacks
            .get(&(record.to_owned(), field.to_owned()))?;
        let param = callback.home.params.get(index)?;
        let mut tally = tally.clone();
        let used = tally.sites + tally.against;
        let (expression, judged) = if used == 0 && tally.unresolved == 0 && tally.deleted_files >= 3
        {
            tally.files = tally.deleted_files;
            std::mem::swap(&mut tally.sites, &mut tally.deleted);
            let none = if param.ty.canonical.contains('*') {
                "NULL"
            } else {
                "0"
            };
            let meaning = format!(
                "the driver's function gets {none} for `{}`, which no function of {} files reads",
                param.ty.spelling, tally.files
            );
            (none.to_owned(), (Risk::Default, meaning))
        } else {
            tally.deleted = 0;
            if tally.files < 2 || tally.share() < 0.5 {
                return None;
            }
            let template = tally.template.trim_start_matches('@').to_owned();
            // A parameter of another type is another value.
            if !template.contains('{') || number(&template).is_some() {
                return None;
            }
            let text = render(&template, |n| format!("{{{n}}}"));
            (text, (Risk::None, String::new()))
        };
        let trial = self.parameter_trial(record, field, index, &expression);
        let kind = Kind::Callback {
            record: record.to_owned(),
            field: field.to_owned(),
            params: [(param.ty.spelling.clone(), expression)].into(),
            ret: None,
            adapter: None,
        };
        let mut e = self.evolution(&format!("{record}-{field}-{index}"), kind, &tally, judged);
        e.includes = self.includes(names(&tally.template).into_iter().chain([record]));
        e.has = names(&tally.template)
            .into_iter()
            .take(4)
            .map(|n| Condition::Name(n.to_owned()))
            .collect();
        Some(Rule {
            evolution: e,
            trial_includes: self.type_headers(Some(&callback.target)),
            trial: trial?,
            template: tally.template,
            key: key.clone(),
        })
    }
}

/// Members of the arguments that a form reads, as conditions; a macro's text is not compiled before it is used.
fn read_members(template: &str, sig: &Signature) -> Vec<Condition> {
    let words: Vec<&str> = template.split(' ').collect();
    let member = |three: &[&str]| {
        let [arg, "->", member] = three else {
            return None;
        };
        let ty = &sig.params.get(number(arg)?)?.ty.canonical;
        let tag = super::anchors::tag_of(ty)?;
        Some(Condition::Field(tag.to_owned(), (*member).to_owned()))
    };
    let mut all: Vec<Condition> = Vec::new();
    for found in words.windows(3).filter_map(member) {
        if !all.contains(&found) {
            all.push(found);
        }
    }
    all
}

/// `{0} -> a . b` as `a.b`.
fn path(template: &str) -> Option<String> {
    let rest = template.strip_prefix("{0} -> ")?;
    let words: Vec<&str> = rest.split(' ').collect();
    let right = words.iter().enumerate().all(|(i, w)| {
        if i % 2 == 1 {
            *w == "."
        } else {
            w.bytes()
                .next()
                .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        }
    });
    (right && words.len() % 2 == 1).then(|| words.concat())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|w| {
            w.bytes()
                .next()
                .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        })
}

/// C text with what it needs.
struct Text {
    text: String,
    types: Vec<String>,
    /// What is evaluated more than once.
    twice: Option<String>,
}

impl Text {
    fn plain(text: String) -> Self {
        Self {
            text,
            types: Vec::new(),
            twice: None,
        }
    }
}

fn deletion(name: &str, anchor: &Anchor) -> Option<Text> {
    let text = match &anchor.signature {
        Some(sig) if sig.ret.canonical == "void" && !sig.params.is_empty() => {
            let list: Vec<String> = (0..sig.params.len()).map(|n| format!("a{n}")).collect();
            let used: String = list.iter().map(|a| format!("(void)({a}); ")).collect();
            format!(
                "#define {name}({}) do {{ {used}}} while (0)\n",
                list.join(", ")
            )
        }
        None if !anchor.callable
            && !anchor.tag
            && name.bytes().all(|b| !b.is_ascii_lowercase()) =>
        {
            format!("#define {name} 0\n")
        }
        _ => return None,
    };
    Some(Text::plain(text))
}

/// An expression that stays whole wherever it is put.
fn wrapped(template: &str) -> String {
    let text = render(template, |n| format!("a{n}"));
    let words: Vec<&str> = template.split(' ').collect();
    let is_type = words.iter().all(|w| KEYWORDS.contains(w) || *w == "*");
    let single = words.len() == 1 || principal(template).is_some() || is_type;
    if single { text } else { format!("({text})") }
}

fn as_macro(name: &str, anchor: &Anchor, tally: &Tally, often: bool) -> Text {
    let list: Vec<String> = (0..tally.arity).map(|n| format!("a{n}")).collect();
    let body = if tally.statement {
        let text = render(&tally.template, |n| format!("a{n}"));
        format!("do {{ {text} }} while (0)")
    } else {
        wrapped(&tally.template)
    };
    let undef = if anchor.shape == Shape::Missing {
        String::new()
    } else {
        format!("#undef {name}\n")
    };
    Text {
        text: format!("{undef}#define {name}({}) {body}\n", list.join(", ")),
        types: Vec::new(),
        twice: often.then(|| "an argument is evaluated more than once".to_owned()),
    }
}

fn inline(name: &str, anchor: &Anchor, sig: &Signature, tally: &Tally) -> Text {
    let text = render(&tally.template, |n| format!("a{n}"));
    let body = if tally.statement || sig.ret.canonical == "void" {
        let end = if text.ends_with(';') { "" } else { ";" };
        format!("\t{text}{end}\n")
    } else {
        format!("\treturn {text};\n")
    };
    let (own, tail) = if anchor.shape == Shape::Missing {
        (name.to_owned(), String::new())
    } else {
        let own = format!("kspan_{name}");
        let tail = format!("#undef {name}\n#define {name} {own}\n");
        (own, tail)
    };
    let spelled = sig
        .params
        .iter()
        .map(|p| p.ty.spelling.as_str())
        .chain([sig.ret.spelling.as_str()]);
    let types = spelled
        .flat_map(|s| words(s).map(str::to_owned).collect::<Vec<_>>())
        .filter(|w| !KEYWORDS.contains(&w.as_str()))
        .collect();
    Text {
        text: format!(
            "{}\n{{\n{body}}}\n{tail}",
            head(sig, &own, "static inline ")
        ),
        types,
        twice: None,
    }
}

/// `static inline int name(struct a *a0, int a1)`.
fn head(sig: &Signature, name: &str, before: &str) -> String {
    head_with(&sig.ret.spelling, sig, name, before)
}

fn head_with(ret: &str, sig: &Signature, name: &str, before: &str) -> String {
    let params: Vec<String> = sig
        .params
        .iter()
        .enumerate()
        .map(|(n, p)| declare(&p.ty.spelling, &format!("a{n}")))
        .collect();
    let list = if params.is_empty() {
        "void".to_owned()
    } else {
        params.join(", ")
    };
    format!("{before}{}", declare(ret, &format!("{name}({list})")))
}

/// A declaration of `name` with a type; pointers to functions put the name inside.
fn declare(ty: &str, name: &str) -> String {
    if let Some(at) = ty.find("(*") {
        let (head, tail) = ty.split_at(at + 2);
        return format!("{head}{name}{tail}");
    }
    let (head, tail) = ty.split_at(ty.find('[').unwrap_or(ty.len()));
    let gap = if head.ends_with('*') { "" } else { " " };
    format!("{}{gap}{name}{tail}", head.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_leave_out_members_holes_and_keywords() {
        assert_eq!(
            names("g ( {0} -> a , sizeof ( struct b ) , C )"),
            ["g", "b", "C"]
        );
        assert_eq!(names("@other"), ["other"]);
    }

    #[test]
    fn what_is_supplied_is_told() {
        assert_eq!(supplied("g ( {0} , GFP_KERNEL , 0 )"), ["GFP_KERNEL", "0"]);
        assert!(supplied("g ( {0} -> a )").is_empty());
    }

    #[test]
    fn members_that_a_form_reads_are_conditions() {
        let ty = kspan_facts::Ty {
            spelling: "struct dev *".to_owned(),
            canonical: "struct dev *".to_owned(),
        };
        let param = kspan_facts::Param {
            name: String::new(),
            ty: ty.clone(),
        };
        let sig = Signature {
            ret: ty,
            params: vec![param],
            variadic: false,
        };
        assert_eq!(
            read_members("g ( {0} -> state , {0} -> state , {1} -> x )", &sig),
            [Condition::parse("struct dev.state")]
        );
    }

    #[test]
    fn a_managed_resource_stays_managed() {
        assert!(loses_its_release("devm_a", "a ( {0} , true )"));
        assert!(!loses_its_release("devm_a", "devm_b ( {0} )"));
        assert!(!loses_its_release("a", "b ( {0} )"));
    }

    #[test]
    fn a_path_of_members() {
        assert_eq!(path("{0} -> a . b").as_deref(), Some("a.b"));
        assert_eq!(path("f ( {0} )"), None);
    }
}
