//! `kspan learn`: evolutions from two kernel trees.

use crate::output;
use anyhow::Context;
use kspan_evolve::judge::{self, Bench};
use kspan_evolve::learn::{self, Key, Learned, Options, Rule, Stance};
use kspan_evolve::{Kind, Library, Tier};
use kspan_kernel::Cache;
use kspan_port::Engine;
use kspan_port::view::View;
use kspan_upstream::history::{self, Change, Wanted};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Learn evolutions from two kernel trees.
///
/// Headers say what changed; files that both trees have say what the maintainers wrote instead. What most of them agree on
/// becomes an evolution, with its evidence, and the target's compiler tries it. No history is needed. `down` leads drivers for
/// the new kernel to the old one (`kspan port`), `up` the other way.
///
/// Rules of the tiers proven and likely are written to DIR, as KSPAN_EVOLUTIONS takes it; those that someone must read first
/// to DIR/review.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The older kernel.
    #[arg(long, value_name = "K")]
    old: String,
    /// The newer kernel.
    #[arg(long, value_name = "K")]
    new: String,
    /// Where to write the rules; made if it is not there.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Which way to learn.
    #[arg(long, value_enum, default_value_t = Direction::Both)]
    direction: Direction,
    /// Learn from so many hundredths of the files, chosen by their paths; the rest measure.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
    train_percent: u8,
    /// A git repository of the kernel, whose history names the commit behind each rule. Where it has tags of both releases
    /// (`v6.1`), the history between them is read.
    #[arg(long, value_name = "REPO")]
    history: Option<PathBuf>,
    /// Leave out what the evolutions in use already serve.
    #[arg(long)]
    new_only: bool,
}

/// Which way rules lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Direction {
    /// From the new kernel to the old one.
    Down,
    /// From the old kernel to the new one.
    Up,
    /// Both.
    Both,
}

/// Runs it.
///
/// # Errors
/// A kernel or its source tree is not there, or the rules cannot be written.
pub fn run(args: &Args, cache: Cache, json: bool) -> anyhow::Result<ExitCode> {
    let engine = Engine::new(cache)?;
    let (old, new) = (engine.view(&args.old)?, engine.view(&args.new)?);
    if old.kernel.id == new.kernel.id {
        return Err(kspan_kernel::Error::Input(format!(
            "--old and --new both name {}; name two kernels",
            old.kernel.id
        ))
        .into());
    }
    let ways: &[(&str, &View, &View)] = match args.direction {
        Direction::Down => &[("down", &new, &old)],
        Direction::Up => &[("up", &old, &new)],
        Direction::Both => &[("down", &new, &old), ("up", &old, &new)],
    };
    let mut records = Vec::new();
    for (word, home, target) in ways {
        let trees = (
            engine.cache.source_tree(&home.kernel)?,
            engine.cache.source_tree(&target.kernel)?,
        );
        let way = Way {
            word,
            home,
            target,
            trees: (&trees.0, &trees.1),
        };
        let mut learned = way.learn(&engine, args)?;
        let stances = way.beside(&engine.library, &learned);
        let record = way.record(&learned, &stances);
        if args.new_only {
            let mut stance = stances.iter();
            learned
                .rules
                .retain(|_| stance.next().is_some_and(|(s, _)| *s == Stance::Extends));
        }
        if let Some(repo) = &args.history {
            let releases = (&*old.kernel.release, &*new.kernel.release);
            let found = way.commits(repo, releases, &mut learned.rules)?;
            eprintln!(
                "{word}: the commit is known of {found} of {} rules",
                learned.rules.len()
            );
        }
        way.write(&args.output, &learned.rules)?;
        if args.train_percent < 100 {
            let list = learned.unseen.join("\n") + "\n";
            write_whole(&args.output, &format!("unseen-{word}.txt"), &list)?;
        }
        if !json {
            print_text(&record);
        }
        records.push(record);
    }
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({ "directions": records }))?
        );
    } else {
        println!("written to {}", args.output.display());
    }
    Ok(output::verdict(true))
}

/// One direction.
struct Way<'a> {
    word: &'a str,
    home: &'a View,
    target: &'a View,
    trees: (&'a Path, &'a Path),
}

type Stances = Vec<(Stance, Option<String>)>;

impl Way<'_> {
    fn learn(&self, engine: &Engine, args: &Args) -> anyhow::Result<Learned> {
        let work = engine.cache.work_dir("learn")?;
        let bench = Bench {
            cache: &engine.cache,
            kernel: &self.target.kernel,
            flags: &self.target.flags,
            view: self.target,
            work: work.path(),
        };
        let options = Options {
            train_percent: args.train_percent,
        };
        let tell = |what: &str| eprintln!("{}: {what}", self.word);
        let compile = |name: &str, text: &str| judge::compile(&bench, name, text);
        Ok(learn::learn(
            &self.home.side(self.trees.0),
            &self.target.side(self.trees.1),
            options,
            &compile,
            &tell,
        )?)
    }

    fn beside(&self, library: &Library, learned: &Learned) -> Stances {
        learn::beside(&learned.rules, library, &self.target.side(self.trees.1))
    }

    /// Gives each rule its commit, where the repository's history has one; how many have.
    fn commits(
        &self,
        repo: &Path,
        (old, new): (&str, &str),
        rules: &mut [Rule],
    ) -> anyhow::Result<usize> {
        let all: Vec<Option<Wanted>> = rules.iter().map(|r| self.wanted(&r.key)).collect();
        let list: Vec<Wanted> = all.iter().flatten().cloned().collect();
        let range = history::range(repo, old, new);
        let found = history::commits(repo, range.as_deref(), &list)?;
        let mut count = 0;
        for (rule, wanted) in rules.iter_mut().zip(&all) {
            if let Some(commit) = wanted.as_ref().and_then(|w| found.get(w)) {
                rule.evolution.commit.clone_from(commit);
                count += 1;
            }
        }
        Ok(count)
    }

    /// What happened to what a rule is about, from the older kernel to the newer.
    fn wanted(&self, key: &Key) -> Option<Wanted> {
        let gone = match self.word {
            "down" => Change::Added,
            _ => Change::Removed,
        };
        let (word, record, change) = match key {
            Key::Name(name) if self.target.has(name) => (name, None, Change::Reshaped),
            Key::Name(name) => (name, None, gone),
            Key::Field(record, field)
            | Key::Write(record, field)
            | Key::Initialiser(record, field) => (field, Some(record.clone()), gone),
            Key::Parameter(record, field, _) => (field, Some(record.clone()), Change::Reshaped),
            Key::Header(_) => return None,
        };
        let word = word.clone();
        Some(Wanted {
            word,
            record,
            change,
        })
    }

    fn write(&self, dir: &Path, rules: &[Rule]) -> anyhow::Result<()> {
        let head = |tier: Tier| {
            format!(
                "Learned by `kspan learn`: {} on {}, tier {}.",
                self.home.kernel.release,
                self.target.kernel.release,
                tier.word()
            )
        };
        for tier in [Tier::Proven, Tier::Likely, Tier::Review] {
            let some: Vec<&Rule> = rules.iter().filter(|r| tier_of(r) == tier).collect();
            let text = learn::to_toml(&head(tier), &some);
            let (dir, name) = match tier {
                Tier::Review => (dir.join("review"), format!("{}.toml", self.word)),
                _ => (
                    dir.to_path_buf(),
                    format!("{}-{}.toml", self.word, tier.word()),
                ),
            };
            write_whole(&dir, &name, &text)?;
        }
        Ok(())
    }

    fn record(&self, learned: &Learned, stances: &Stances) -> serde_json::Value {
        let mut table: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for rule in &learned.rules {
            let row = table.entry(kind_word(&rule.evolution.kind)).or_default();
            *row.entry(tier_of(rule).word()).or_default() += 1;
        }
        let of = |stance: Stance| stances.iter().filter(|(s, _)| *s == stance).count();
        let differs: Vec<serde_json::Value> = learned
            .rules
            .iter()
            .zip(stances)
            .filter(|(_, (s, _))| *s == Stance::Differs)
            .map(|(r, (_, id))| json!({ "learned": r.evolution.id, "shipped": id, "tier": tier_of(r).word() }))
            .collect();
        json!({
            "direction": self.word, "home": self.home.kernel.id, "target": self.target.kernel.id,
            "rules": learned.rules.len(), "by_kind": table, "counts": learned.counts,
            "agree": of(Stance::Agrees), "differ": of(Stance::Differs), "extend": of(Stance::Extends),
            "differing": differs,
        })
    }
}

fn tier_of(rule: &Rule) -> Tier {
    rule.evolution
        .evidence
        .as_ref()
        .map_or(Tier::Review, |e| e.tier)
}

/// The word that the format has for a kind.
pub fn kind_word(kind: &Kind) -> &'static str {
    match kind {
        Kind::Define { .. } => "define",
        Kind::Override { .. } => "override",
        Kind::Field { .. } => "field",
        Kind::Callback { .. } => "callback",
        Kind::Access { .. } => "access",
        Kind::DropField { .. } => "drop-field",
        Kind::Refuse { .. } => "refuse",
        Kind::Event { .. } => "event",
        Kind::Header { .. } => "header",
    }
}

/// Writes a file whole or not at all.
fn write_whole(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let place = dir.join(name);
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&place).map_err(|e| e.error)?;
        Ok(())
    };
    write().with_context(|| format!("{}: cannot be written", place.display()))
}

fn print_text(record: &serde_json::Value) {
    let number = |v: &serde_json::Value| v.as_u64().unwrap_or(0);
    let counts = &record["counts"];
    println!(
        "{}: drivers for {} on {}",
        record["direction"].as_str().unwrap_or(""),
        record["home"].as_str().unwrap_or(""),
        record["target"].as_str().unwrap_or("")
    );
    println!(
        "  {} files in both trees, {} differ; {} uses of {} things that changed",
        number(&counts["files"]),
        number(&counts["differing"]),
        number(&counts["sites"]),
        number(&counts["used"])
    );
    println!(
        "  {:12} {:>7} {:>7} {:>7}",
        "rules", "proven", "likely", "review"
    );
    for (kind, row) in record["by_kind"].as_object().into_iter().flatten() {
        println!(
            "  {kind:12} {:>7} {:>7} {:>7}",
            number(&row["proven"]),
            number(&row["likely"]),
            number(&row["review"])
        );
    }
    println!(
        "  {} rules; {} refused by the compiler; beside the evolutions in use {} agree, {} differ, {} are new",
        number(&record["rules"]),
        number(&counts["refused"]),
        number(&record["agree"]),
        number(&record["differ"]),
        number(&record["extend"])
    );
    let unseen = &counts["unseen"];
    if number(&unseen["edits"]) > 0 {
        println!(
            "  on files not learned from: {} edits by maintainers, a rule for {}, {} word for word",
            number(&unseen["edits"]),
            number(&unseen["served"]),
            number(&unseen["exact"])
        );
    }
    let seconds: f64 = counts["seconds"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(serde_json::Value::as_f64)
        .sum();
    println!("  {seconds:.0} s");
}
