//! `kspan upgrade`: a driver's own source in another kernel's API.

use super::drivers;
use crate::output;
use kspan_kernel::{Cache, Error, KbuildOptions};
use kspan_port::Engine;
use kspan_upstream::upgrade::{self, Upgrade, series};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Move a driver's own source to another kernel's API.
///
/// The code that a maintainer would write: no overlay, no adapter. In a git work tree each change becomes a commit; with --out
/// the upgraded source and a series of patches go to a new directory. What no evolution covers stays as it is, is listed, and the
/// exit code is 1.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The driver's directory (with a kspan.toml).
    driver: PathBuf,
    /// The kernel to move to.
    #[arg(long, value_name = "KERNEL")]
    to: String,
    /// The kernel that the driver is written for [default: its manifest's home].
    #[arg(long, value_name = "KERNEL")]
    from: Option<String>,
    /// Write the upgraded source and its patches here instead of committing; must be new or empty.
    #[arg(long, short, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Of `#if LINUX_VERSION_CODE` and its kin keep the branch that the target takes.
    #[arg(long)]
    drop_compat: bool,
    /// Change nothing: show the series.
    #[arg(long)]
    dry_run: bool,
}

/// Runs it.
///
/// # Errors
/// When the driver or a kernel is not there, or there is no place for the result.
pub fn run(args: &Args, cache: Cache, json: bool) -> anyhow::Result<ExitCode> {
    let mut driver = drivers::load(&args.driver)?;
    if let Some(from) = &args.from {
        driver.manifest.home.clone_from(from);
    }
    let place = place(args, &driver.dir)?;
    let engine = Engine::new(cache)?;
    let target = engine.view(&args.to)?;
    let options = KbuildOptions {
        jobs: 2,
        ..KbuildOptions::default()
    };
    let manner = upgrade::Manner {
        drop_compat: args.drop_compat,
        ordered: true,
    };
    let upgrade = upgrade::upgrade(&engine, &driver, &target, &options, manner)?;
    let written = if upgrade.broken.is_some() {
        Vec::new()
    } else {
        write(&upgrade, &place, &driver.dir)?
    };
    if json {
        let mut record = serde_json::to_value(&upgrade)?;
        record["written"] = json!(written);
        println!("{}", serde_json::to_string_pretty(&record)?);
    } else {
        print!("{}", text(&upgrade));
        if upgrade.broken.is_none() {
            print_place(&place, &upgrade, &written);
        }
    }
    Ok(output::verdict(upgrade.builds))
}

/// Where the result goes.
enum Destination {
    Nowhere,
    Directory(PathBuf),
    Commits,
}

fn place(args: &Args, dir: &Path) -> anyhow::Result<Destination> {
    if args.dry_run {
        return Ok(Destination::Nowhere);
    }
    if let Some(out) = &args.out {
        let filled = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
        anyhow::ensure!(
            !filled,
            "{} is not empty; name a new directory with --out",
            out.display()
        );
        return Ok(Destination::Directory(out.clone()));
    }
    if !series::is_in_git(dir) {
        let why = format!(
            "{} is in no git work tree; name a directory for the result with --out",
            dir.display()
        );
        return Err(Error::Input(why).into());
    }
    series::refuse_dirty(dir)?;
    anyhow::ensure!(
        series::signer(dir).is_some(),
        "git does not know who signs the commits; set user.name and user.email with git config"
    );
    Ok(Destination::Commits)
}

fn write(upgrade: &Upgrade, place: &Destination, dir: &Path) -> anyhow::Result<Vec<String>> {
    Ok(match place {
        Destination::Nowhere => Vec::new(),
        Destination::Directory(to) => series::write(upgrade, to)?,
        Destination::Commits => series::commit_all(upgrade, dir)?,
    })
}

fn text(upgrade: &Upgrade) -> String {
    let mut out = format!(
        "{}: {} → {}\n",
        upgrade.driver, upgrade.home, upgrade.target
    );
    if let Some(words) = &upgrade.broken {
        return format!("{out}The driver does not build on its own home kernel:\n{words}\n");
    }
    for change in &upgrade.changes {
        let r = &change.reason;
        out.push_str(&format!("  {}  [{}]\n", r.subject, r.id));
        if !r.meaning.is_empty() {
            out.push_str(&format!("      {}\n", r.meaning));
        }
    }
    for gap in &upgrade.open {
        let at = gap.places.first().map_or(String::new(), |p| {
            format!("{}:{}: ", p.file.display(), p.line)
        });
        out.push_str(&format!("  open: {at}{}\n", gap.why));
    }
    for w in &upgrade.guards {
        out.push_str(&format!(
            "  wrong guard: {}:{}: `{}` makes {} call {}, which it does not have\n",
            w.file.display(),
            w.line,
            w.condition,
            w.kernel,
            w.lacking.join(", ")
        ));
    }
    let verdict = if upgrade.builds {
        "builds there as it is"
    } else {
        "does not build there yet"
    };
    let (now, before) = upgrade.warnings;
    out.push_str(&format!(
        "{} changes, {} open; the upgraded source {verdict} ({now} warnings, {before} at home).\n",
        upgrade.changes.len(),
        upgrade.open.len()
    ));
    out
}

fn print_place(place: &Destination, upgrade: &Upgrade, written: &[String]) {
    match place {
        Destination::Nowhere => {
            let all = series::commits(upgrade);
            for (i, commit) in all.iter().enumerate() {
                print!("\n{}", series::patch(commit, (i + 1, all.len()), None));
            }
        }
        Destination::Directory(to) => {
            println!(
                "The source is in {}, {} patches in {}.",
                to.display(),
                written.len(),
                to.join("patches").display()
            );
        }
        Destination::Commits => println!("{} commits: {}", written.len(), written.join(" ")),
    }
}
