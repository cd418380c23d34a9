//! `cargo xtask dkms-packages`: every `*-dkms` package of Debian on kernels old and new, without and with self-repair.
//!
//! The packages are fetched from the signed archive and unpacked into the cache; each is built by `kspan dkms build` in a tree of its
//! own. Nothing of them is installed or run outside of the sandbox that `kspan dkms` builds in.

use anyhow::{Context, bail};
use kspan_kernel::packages::Offered;
use kspan_kernel::{Cache, Kernel};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;

/// Build every `*-dkms` package of Debian 11, 12 and 13 (component main) on the fetched kernels, without and with self-repair.
///
/// Installs with apt-get what the packages build with, and needs root for it. What a cell came to is kept: the plain build under the package's and the kernel's hashes, the repair under kspan's own, too.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only so many packages, the smallest first.
    #[arg(long)]
    sample: Option<usize>,
    /// Only packages whose name (`v4l2loopback`) or name and version (`v4l2loopback 0.12.5`) begins so; may be repeated.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// The releases.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "bullseye,bookworm,trixie"
    )]
    releases: Vec<String>,
    /// The kernels.
    #[arg(long, value_delimiter = ',', default_value = "5.10,6.1,6.12,7.3")]
    on: Vec<String>,
    /// Plain builds only.
    #[arg(long)]
    plain: bool,
    /// How many packages at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Build again what was built before.
    #[arg(long)]
    fresh: bool,
    /// The kspan to use [default: the one beside this program].
    #[arg(long)]
    kspan: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// dkms' own helpers and test modules: they are no drivers.
const NOT_DRIVERS: [&str; 4] = [
    "dh-dkms",
    "dkms-test-dkms",
    "dkms-noautoinstall-test-dkms",
    "dkms-replace-test-dkms",
];

/// What the packages' Depends name beside dkms, a compiler and make, and that their own commands look for.
const NEEDED: [&str; 5] = [
    "gawk",
    "iptables",
    "libelf-dev",
    "libxtables-dev",
    "pkg-config",
];

/// Installs what the packages build with, as their installation would: on this machine, or in the root that holds a kernel's compiler.
fn install_needed(root: Option<&Path>) -> anyhow::Result<()> {
    let Some(root) = root else {
        return apt(&[], None);
    };
    if root.join("usr/bin/pkg-config").exists() && root.join("usr/sbin/iptables").exists() {
        return Ok(());
    }
    let root = fs::canonicalize(root)?;
    let mut config = tempfile::NamedTempFile::new()?;
    // The root has dpkg, but no apt of its own: apt.conf(5), Dir and DPkg::options.
    write!(
        config,
        "Dir \"{root}\";\nDir::Log \"{root}/var/log\";\nDPkg::Options {{ \"--root={root}\"; }};\n\
         Dir::Etc::TrustedParts \"/etc/apt/trusted.gpg.d\";\nDir::Etc::Trusted \"/etc/apt/trusted.gpg\";\n\
         Acquire::Check-Valid-Until \"false\";\n",
        root = root.display()
    )?;
    apt(&["update"], Some(config.path()))?;
    apt(&[], Some(config.path()))
}

/// apt-get with these words, or to install what is needed.
fn apt(words: &[&str], config: Option<&Path>) -> anyhow::Result<()> {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
    if let Some(config) = config {
        apt.env("APT_CONFIG", config);
    }
    match words.is_empty() {
        true => apt
            .args(["install", "-y", "--no-install-recommends"])
            .args(NEEDED),
        false => apt.args(words),
    };
    let output = apt.output().context("apt-get cannot be run")?;
    if !output.status.success() {
        bail!(
            "apt-get for {}: {}",
            NEEDED.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// What became of a package on a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    /// As it is.
    Builds,
    /// As a port that is used by itself.
    Repaired,
    /// As a port that may act otherwise: only by `--force`.
    Risky,
    /// Its dkms.conf says that it is not for this kernel.
    Excluded,
    /// Not at all.
    Fails,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Builds => "builds",
            Self::Repaired => "repaired",
            Self::Risky => "risky",
            Self::Excluded => "excluded",
            Self::Fails => "fails",
        }
    }
}

/// One package on one kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Cell {
    kernel: String,
    plain: Outcome,
    repaired: Outcome,
    /// The first word of why it does not build as it is, and of why no port came of it.
    why: String,
    why_not_repaired: String,
    seconds: f64,
}

/// One package.
#[derive(Debug, Serialize)]
struct Row {
    package: String,
    version: String,
    release: String,
    cells: Vec<Cell>,
}

/// Runs it.
///
/// # Errors
/// When the archive or a kernel cannot be had.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    install_needed(None)?;
    let cache = Cache::open()?;
    let kernels = args
        .on
        .iter()
        .map(|name| {
            let kernel = cache.resolve(name)?;
            // Asked now, so that each build finds the answer.
            install_needed(cache.toolchain(&kernel)?.root.as_deref())?;
            Ok(kernel)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let offers = offers(args, &cache)?;
    if offers.is_empty() {
        eprintln!("no package's name begins so: {}", args.only.join(", "));
        return Ok(ExitCode::from(2));
    }
    let trial = Trial::new(args, cache, kernels)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.jobs.max(1))
        .build()?;
    let said = Mutex::new(());
    let rows: Vec<Row> = pool.install(|| {
        // One after the other, not in halves: the smallest first.
        offers
            .par_iter()
            .with_max_len(1)
            .map(|(release, offer)| {
                let row = trial.row(release, offer)?;
                if !args.json
                    && let Ok(_one) = said.lock()
                {
                    line(&row);
                }
                Ok(row)
            })
            .collect::<anyhow::Result<_>>()
    })?;
    finish(args, &trial.kernels, &rows)
}

/// The packages: of each release the newest, one version once.
fn offers(args: &Args, cache: &Cache) -> anyhow::Result<Vec<(String, Offered)>> {
    let wanted = |name: &str| name.ends_with("-dkms") && !NOT_DRIVERS.contains(&name);
    let mut all: BTreeMap<String, (String, Offered)> = BTreeMap::new();
    for release in &args.releases {
        for offer in cache.archive_packages(release, &wanted, &|_| ())? {
            let package = &offer.package;
            let label = format!("{} {}", package.name, package.version);
            if args.only.is_empty() || args.only.iter().any(|o| label.starts_with(o.as_str())) {
                let hash = package.sha256.clone();
                all.entry(hash).or_insert((release.clone(), offer));
            }
        }
    }
    let mut all: Vec<(String, Offered)> = all.into_values().collect();
    all.sort_by(|a, b| {
        let key = |o: &Offered| (o.package.size, o.package.name.clone());
        key(&a.1).cmp(&key(&b.1))
    });
    all.truncate(args.sample.unwrap_or(usize::MAX));
    Ok(all)
}

/// What stays the same for all packages.
struct Trial<'a> {
    args: &'a Args,
    cache: Cache,
    kernels: Vec<Kernel>,
    kspan: PathBuf,
    /// Of kspan itself.
    hash: String,
    results: PathBuf,
}

/// How one run of `kspan dkms build` ended.
struct Run {
    code: i32,
    text: String,
}

impl<'a> Trial<'a> {
    fn new(args: &'a Args, cache: Cache, kernels: Vec<Kernel>) -> anyhow::Result<Self> {
        let beside = std::env::current_exe()?.with_file_name("kspan");
        let kspan = args.kspan.clone().unwrap_or(beside);
        let bytes = fs::read(&kspan).with_context(|| {
            format!(
                "{}: no kspan there; `cargo build -p kspan`",
                kspan.display()
            )
        })?;
        let results = cache.root().join("dkms-packages");
        fs::create_dir_all(&results)?;
        // A program that changes while it is measured would mix two versions.
        let hash = blake3::hash(&bytes).to_hex().to_string();
        let copy = results.join(format!("kspan-{}", &hash[..16]));
        if !copy.is_file() {
            let staged = tempfile::NamedTempFile::new_in(&results)?;
            fs::copy(&kspan, staged.path())?;
            staged.persist(&copy)?;
        }
        Ok(Self {
            args,
            cache,
            kernels,
            kspan: copy,
            hash,
            results,
        })
    }

    fn row(&self, release: &str, offer: &Offered) -> anyhow::Result<Row> {
        let cells = match self.cache.unpacked_package(offer, &|_| ()) {
            Ok(unpacked) => self.cells(offer, &sources(&unpacked))?,
            // Security updates leave the archive when newer ones come: one that is gone ends no measurement.
            Err(why) => {
                let gone = |k| none(k, &why.to_string());
                self.kernels.iter().map(gone).collect()
            }
        };
        Ok(Row {
            package: offer.package.name.clone(),
            version: offer.package.version.clone(),
            release: release.to_owned(),
            cells,
        })
    }

    fn cells(&self, offer: &Offered, sources: &[PathBuf]) -> anyhow::Result<Vec<Cell>> {
        self.kernels
            .iter()
            .map(|kernel| match sources.is_empty() {
                true => Ok(none(
                    kernel,
                    "the package brings no source with a dkms.conf",
                )),
                false => self.cell(offer, sources, kernel),
            })
            .collect()
    }

    /// A package may bring more than one source: it builds when all do.
    fn cell(&self, offer: &Offered, sources: &[PathBuf], kernel: &Kernel) -> anyhow::Result<Cell> {
        let sha = &offer.package.sha256;
        let plain_key = format!("plain-5 {sha} {}", kernel.digest);
        // Before formats 5 and 4, what a package builds with was not there (in a compiler's root); before format 3, a package that looks for the
        // kernel in /lib/modules did not find all of it.
        let older = || {
            let mut before = ["plain-4", "plain-3", "plain-2", "plain-1"].into_iter();
            before.find_map(|format| {
                self.known(&format!("{format} {sha} {}", kernel.digest))
                    .filter(|c| c.plain != Outcome::Fails)
            })
        };
        let mut cell = match self.known(&plain_key).or_else(older) {
            Some(known) => known,
            None => {
                let cell = self.plain(sources, kernel)?;
                self.keep(&plain_key, &cell)?;
                cell
            }
        };
        if cell.plain != Outcome::Fails || self.args.plain {
            return Ok(cell);
        }
        let key = format!("repaired-2 {sha} {} {}", kernel.digest, self.hash);
        if let Some(known) = self.known(&key) {
            return Ok(known);
        }
        self.repair(sources, kernel, &mut cell)?;
        self.keep(&key, &cell)?;
        Ok(cell)
    }

    fn place(&self, key: &str) -> PathBuf {
        let name = blake3::hash(key.as_bytes()).to_hex();
        self.results.join(format!("{name}.json"))
    }

    fn known(&self, key: &str) -> Option<Cell> {
        let text = fs::read(self.place(key))
            .ok()
            .filter(|_| !self.args.fresh)?;
        serde_json::from_slice(&text).ok()
    }

    fn keep(&self, key: &str, cell: &Cell) -> anyhow::Result<()> {
        let staged = tempfile::NamedTempFile::new_in(&self.results)?;
        fs::write(staged.path(), serde_json::to_vec(cell)?)?;
        staged.persist(self.place(key))?;
        Ok(())
    }

    fn plain(&self, sources: &[PathBuf], kernel: &Kernel) -> anyhow::Result<Cell> {
        let start = std::time::Instant::now();
        let mut cell = none(kernel, "");
        cell.plain = Outcome::Builds;
        for source in sources {
            let run = self.build(source, kernel, &["--no-repair"])?;
            cell.plain = match run.code {
                0 => continue,
                77 => Outcome::Excluded,
                _ => Outcome::Fails,
            };
            cell.why = first_reason(&run.text);
            break;
        }
        cell.repaired = cell.plain;
        cell.seconds = start.elapsed().as_secs_f64();
        Ok(cell)
    }

    fn repair(&self, sources: &[PathBuf], kernel: &Kernel, cell: &mut Cell) -> anyhow::Result<()> {
        let start = std::time::Instant::now();
        cell.repaired = Outcome::Repaired;
        for source in sources {
            let mut run = self.build(source, kernel, &[])?;
            if run.code != 0 && run.text.contains("The port is not used by itself") {
                run = self.build(source, kernel, &["--force"])?;
                if run.code == 0 {
                    cell.repaired = Outcome::Risky;
                }
            }
            if run.code != 0 {
                cell.repaired = Outcome::Fails;
                cell.why_not_repaired = why_not(&run.text);
                break;
            }
        }
        cell.seconds += start.elapsed().as_secs_f64();
        Ok(())
    }

    /// `kspan dkms build` in a tree of its own; its words and the end of its log.
    fn build(&self, source: &Path, kernel: &Kernel, more: &[&str]) -> anyhow::Result<Run> {
        let dir = tempfile::Builder::new()
            .prefix("work-")
            .tempdir_in(&self.results)?;
        for name in ["dkms", "src", "lib"] {
            fs::create_dir_all(dir.path().join(name))?;
        }
        let added = self.dkms(dir.path(), kernel, &["add", &source.display().to_string()])?;
        if added.code != 0 {
            return Ok(added);
        }
        let Some((name, version)) = package_in(&dir.path().join("dkms")) else {
            bail!("{}: nothing was added: {}", source.display(), added.text);
        };
        let words = ["build", "-m", &name, "-v", &version, "-j", "2"];
        let mut run = self.dkms(dir.path(), kernel, &[&words[..], more].concat())?;
        let log = dir.path().join("dkms").join(&name).join(&version);
        if let Ok(log) = fs::read(log.join("build/make.log")) {
            run.text.push_str(&String::from_utf8_lossy(&log));
        }
        Ok(run)
    }

    fn dkms(&self, dir: &Path, kernel: &Kernel, words: &[&str]) -> anyhow::Result<Run> {
        let at = |name: &str| dir.join(name).display().to_string();
        let mut command = Command::new(&self.kspan);
        command.arg("dkms").args(words).args([
            "--dkmstree",
            &at("dkms"),
            "--sourcetree",
            &at("src"),
            "--installtree",
            &at("lib"),
            "--kernelsourcedir",
            &kernel.build_dir.display().to_string(),
            "-k",
            &kernel.release,
            "-a",
            "x86_64",
        ]);
        command.env("try_sign_modules", "false");
        let output = command.output().context("kspan cannot be run")?;
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        Ok(Run {
            code: output.status.code().unwrap_or(128),
            text: format!("{}{}", text(&output.stdout), text(&output.stderr)),
        })
    }
}

fn none(kernel: &Kernel, why: &str) -> Cell {
    Cell {
        kernel: kernel.id.clone(),
        plain: Outcome::Fails,
        repaired: Outcome::Fails,
        why: why.to_owned(),
        why_not_repaired: String::new(),
        seconds: 0.0,
    }
}

/// The directories below `/usr/src` with a dkms.conf.
fn sources(unpacked: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(unpacked.join("usr/src"));
    let mut found: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.join("dkms.conf").is_file())
        .collect();
    found.sort();
    found
}

/// The only package in a tree.
fn package_in(tree: &Path) -> Option<(String, String)> {
    let inside = |dir: &Path| {
        let names = fs::read_dir(dir).ok()?.flatten();
        let mut names = names.map(|e| e.file_name().to_string_lossy().into_owned());
        names.find(|n| !n.starts_with('.'))
    };
    let name = inside(tree)?;
    let version = inside(&tree.join(&name))?;
    Some((name, version))
}

/// The first line that looks like the reason.
fn first_reason(text: &str) -> String {
    const SIGNS: [&str; 6] = [
        " error: ",
        "fatal error",
        "ERROR: ",
        "*** ",
        "Error! ",
        "BUILD_EXCLUSIVE",
    ];
    let found = SIGNS.iter().find_map(|s| {
        text.lines()
            .find(|l| l.contains(s) && !l.contains("[Makefile:") && !l.starts_with("make"))
    });
    let line = found
        .or_else(|| text.lines().find(|l| l.contains("*** ")))
        .or_else(|| text.lines().rfind(|l| !l.trim().is_empty()))
        .unwrap_or_default()
        .trim();
    let line = line.rsplit_once("/build/").map_or(line, |(_, rest)| rest);
    line.chars().take(140).collect()
}

/// What self-repair said of itself.
fn why_not(text: &str) -> String {
    const SIGNS: [&str; 4] = [
        "no port of it",
        "cannot be ported",
        "does not build for any other",
        "may act otherwise",
    ];
    let found = SIGNS
        .iter()
        .find_map(|s| text.lines().find(|l| l.contains(s)));
    let line = found.map_or_else(|| first_reason(text), |l| l.trim().to_owned());
    line.chars().take(240).collect()
}

fn line(row: &Row) {
    let words: String = row
        .cells
        .iter()
        .map(|c| match c.plain == c.repaired {
            true => format!(" {:20}", c.plain.word()),
            false => format!(
                " {:20}",
                format!("{} → {}", c.plain.word(), c.repaired.word())
            ),
        })
        .collect();
    println!("{:26} {:24}{words}", row.package, short(&row.version));
    for cell in row.cells.iter().filter(|c| c.repaired == Outcome::Fails) {
        println!("    {}: {}", cell.kernel, cell.why);
        if !cell.why_not_repaired.is_empty() {
            println!("        {}", cell.why_not_repaired);
        }
    }
}

fn short(version: &str) -> String {
    version.chars().take(24).collect()
}

/// How many packages build on some kernel, and on all.
fn rate(rows: &[Row], good: &dyn Fn(&Cell) -> bool) -> (usize, usize) {
    let some = rows.iter().filter(|r| r.cells.iter().any(good)).count();
    let all = rows.iter().filter(|r| r.cells.iter().all(good)).count();
    (some, all)
}

fn finish(args: &Args, kernels: &[Kernel], rows: &[Row]) -> anyhow::Result<ExitCode> {
    let itself = |o: Outcome| matches!(o, Outcome::Builds | Outcome::Repaired);
    let plain = rate(rows, &|c| c.plain == Outcome::Builds);
    let repaired = rate(rows, &|c| itself(c.repaired));
    let forced = rate(rows, &|c| {
        itself(c.repaired) || c.repaired == Outcome::Risky
    });
    let excluded = rows
        .iter()
        .flat_map(|r| &r.cells)
        .filter(|c| c.plain == Outcome::Excluded)
        .count();
    if args.json {
        let rate = |(some, all): (usize, usize)| json!({ "some": some, "all": all });
        let out = json!({ "kernels": kernels.iter().map(|k| &k.id).collect::<Vec<_>>(), "packages": rows, "n": rows.len(),
            "plain": rate(plain), "repaired": rate(repaired), "with_force": rate(forced), "excluded_cells": excluded });
        println!("{}", serde_json::to_string_pretty(&out)?);
        return Ok(ExitCode::SUCCESS);
    }
    let names: Vec<&str> = kernels.iter().map(|k| k.version.as_str()).collect();
    println!(
        "\n{} packages on {}; {excluded} cells are excluded by the packages themselves and count as not built.",
        rows.len(),
        names.join(", ")
    );
    for (words, (some, all)) in [
        ("as they are", plain),
        ("with self-repair", repaired),
        (
            "with self-repair and --force (ports that may act otherwise)",
            forced,
        ),
    ] {
        // Repair makes no package build somewhere that built nowhere: its source needs a home.
        let share = 100.0 * all as f64 / some.max(1) as f64;
        println!("{words}: of {some} that build on some kernel, {all} build on all ({share:.0} %)");
    }
    Ok(ExitCode::SUCCESS)
}
