//! `kspan kernel`: fetch, list, show and remove kernels.

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use kspan_kernel::{Cache, FetchSpec, Kernel, KernelInfo, Lock, Progress};
use std::cell::RefCell;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Fetch, list, show and remove kernels.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

/// What to do with kernels.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Fetch kernels from Debian's archive into the cache.
    ///
    /// Indexes are checked against Debian's signatures and packages against the indexes; dpkg's state is not touched.
    /// A suite means its newest kernel, security and stable updates included; backports only if named.
    Fetch(Fetch),
    /// List the kernels in the cache, oldest version first.
    List,
    /// Show all that is known of a kernel.
    Show {
        /// An id, a release, an alias such as 6.1, or a path.
        kernel: String,
    },
    /// Remove kernels from the cache, with their source trees and images.
    Rm {
        /// Ids, releases or aliases.
        #[arg(required = true)]
        kernels: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Fetch {
    /// debian/SUITE, debian/VERSION (6.1.192-2) or debian/RELEASE (6.1.0-56-amd64); add /cloud or /rt for a flavour.
    #[arg(required_unless_present = "lock")]
    kernels: Vec<String>,
    /// Fetch and unpack the full source tree too (1.5 GB each).
    #[arg(long)]
    source: bool,
    /// Fetch and unpack the bootable image and its modules too.
    #[arg(long)]
    image: bool,
    /// Record what was fetched in FILE, with hashes; without kernels: fetch exactly what FILE names.
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// When a kernel is not there or cannot be had.
pub fn run(args: &Args, cache: Cache, json: bool) -> anyhow::Result<ExitCode> {
    match &args.action {
        Action::Fetch(fetch) => fetch_all(&cache, fetch, json)?,
        Action::List => list(&cache, json)?,
        Action::Show { kernel } => show(&cache, kernel, json)?,
        Action::Rm { kernels } => remove(&cache, kernels, json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn fetch_all(cache: &Cache, args: &Fetch, json: bool) -> anyhow::Result<()> {
    let teller = Teller::new();
    let tell = |p: Progress| teller.tell(&p);
    let kernels = fetch_headers(cache, args, &tell)?;
    for kernel in &kernels {
        if args.source {
            cache.source_tree_with(kernel, &tell)?;
        }
        if args.image {
            cache.image(kernel, &tell)?;
        }
    }
    teller.bar.finish_and_clear();
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&serde_json::json!({ "kernels": kernels }))?
        );
    } else {
        kernels
            .iter()
            .for_each(|k| println!("{} ({})", k.id, k.version));
    }
    Ok(())
}

fn fetch_headers(
    cache: &Cache,
    args: &Fetch,
    tell: &dyn Fn(Progress),
) -> anyhow::Result<Vec<Kernel>> {
    let specs = args
        .kernels
        .iter()
        .map(|k| FetchSpec::parse(k))
        .collect::<Result<Vec<_>, _>>()?;
    let mut lock = args
        .lock
        .as_deref()
        .map(Lock::read)
        .transpose()?
        .unwrap_or_default();
    if specs.is_empty() {
        let named = args.lock.as_deref().unwrap_or(Path::new("the lock"));
        if lock.kernels.is_empty() {
            let why = format!(
                "{}: no such lock file, or it names no kernels; make one with `kspan kernel fetch debian/SUITE --lock FILE`",
                named.display()
            );
            anyhow::bail!(kspan_kernel::Error::Input(why));
        }
        return Ok(lock
            .kernels
            .iter()
            .map(|r| cache.fetch_locked(r, tell))
            .collect::<Result<_, _>>()?);
    }
    let mut kernels = Vec::new();
    for spec in &specs {
        let kernel = cache.fetch(spec, tell)?;
        cache
            .record(&kernel)?
            .into_iter()
            .for_each(|record| lock.put(record));
        kernels.push(kernel);
    }
    if let Some(file) = &args.lock {
        lock.write(file)?;
    }
    Ok(kernels)
}

fn list(cache: &Cache, json: bool) -> anyhow::Result<()> {
    let infos = cache
        .kernels()?
        .iter()
        .map(|k| cache.info(k))
        .collect::<Result<Vec<_>, _>>()?;
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&serde_json::json!({ "kernels": infos }))?
        );
        return Ok(());
    }
    if infos.is_empty() {
        println!("No kernels yet: `kspan kernel fetch debian/bookworm`.");
        return Ok(());
    }
    let rows: Vec<[String; 6]> = infos.iter().map(row).collect();
    print!(
        "{}",
        table(
            &["KERNEL", "VERSION", "FROM", "COMPILER", "HEADERS", "SOURCE"],
            &rows
        )
    );
    Ok(())
}

fn row(info: &KernelInfo) -> [String; 6] {
    let size = |bytes: u64| {
        if bytes == 0 {
            "-".to_owned()
        } else {
            HumanBytes(bytes).to_string()
        }
    };
    [
        info.kernel.id.clone(),
        info.kernel.version.clone(),
        info.record
            .as_ref()
            .map_or_else(|| "path".to_owned(), |r| r.suite.clone()),
        info.toolchain
            .as_ref()
            .map_or_else(|| "not asked yet".to_owned(), |t| t.cc.clone()),
        size(info.header_bytes),
        size(info.source_bytes),
    ]
}

/// Columns padded to their widest cell.
fn table<const N: usize>(head: &[&str; N], rows: &[[String; N]]) -> String {
    let head = head.map(str::to_owned);
    let lines: Vec<&[String; N]> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|l| l.get(column))
            .map(String::len)
            .max()
            .unwrap_or(0)
    };
    let line = |l: &[String; N]| {
        let cells: Vec<String> = l
            .iter()
            .enumerate()
            .map(|(i, c)| format!("{c:<w$}", w = width(i)))
            .collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(|l| line(l)).collect()
}

fn show(cache: &Cache, name: &str, json: bool) -> anyhow::Result<()> {
    let info = cache.info(&cache.resolve(name)?)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&info)?);
        return Ok(());
    }
    let kernel = &info.kernel;
    let compiler = info.toolchain.as_ref().map_or_else(
        || "not asked yet".to_owned(),
        |t| match &t.root {
            Some(root) => format!("{} in {}", t.cc, root.display()),
            None => format!("{} of this machine", t.cc),
        },
    );
    let source = info.source_tree.as_ref().map_or_else(
        || "not unpacked (fetched on demand)".to_owned(),
        |dir| format!("{} ({})", dir.display(), HumanBytes(info.source_bytes)),
    );
    println!(
        "kernel    {}\nrelease   {}\nversion   {}\narch      {}",
        kernel.id, kernel.release, kernel.version, kernel.arch
    );
    println!(
        "build     {}\nheaders   {} ({})",
        kernel.build_dir.display(),
        kernel.source_dir.display(),
        HumanBytes(info.header_bytes)
    );
    println!(
        "source    {source}\ncompiler  {compiler}\ndigest    {}",
        kernel.digest
    );
    if let Some(record) = &info.record {
        println!(
            "from      {} {}, flavour {}",
            record.suite, record.package_version, record.flavour
        );
        record.packages.iter().for_each(|p| {
            println!(
                "package   {} {} {} sha256 {}",
                p.name,
                p.version,
                HumanBytes(p.size),
                p.sha256
            )
        });
    }
    Ok(())
}

fn remove(cache: &Cache, names: &[String], json: bool) -> anyhow::Result<()> {
    let kernels = names
        .iter()
        .map(|n| cache.resolve(n))
        .collect::<Result<Vec<_>, _>>()?;
    let mut removed = Vec::new();
    for kernel in &kernels {
        removed.push(serde_json::json!({ "id": kernel.id, "bytes": cache.remove(kernel)? }));
    }
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&serde_json::json!({ "removed": removed }))?
        );
    } else {
        kernels.iter().for_each(|k| println!("removed {}", k.id));
    }
    Ok(())
}

/// Tells what a fetch is doing: a bar on a terminal, else one line for each step; always on stderr.
pub(super) struct Teller {
    bar: ProgressBar,
    plain: bool,
    last: RefCell<String>,
}

impl Teller {
    pub(super) fn new() -> Self {
        let plain = !std::io::stderr().is_terminal();
        let bar = if plain {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(0)
        };
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {msg} {bytes}/{total_bytes} {elapsed}")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        Self {
            bar,
            plain,
            last: RefCell::default(),
        }
    }

    pub(super) fn tell(&self, progress: &Progress) {
        let text = step(progress);
        if let Progress::Download { done, total, .. } = progress {
            self.bar.set_length(*total);
            self.bar.set_position(*done);
        }
        if self.last.replace(text.clone()) != text {
            if matches!(progress, Progress::Stale { .. }) {
                self.bar.suspend(|| eprintln!("{text}"));
            } else if self.plain {
                eprintln!("{text}");
            }
            self.bar.set_message(text);
        }
    }
}

fn step(progress: &Progress) -> String {
    match progress {
        Progress::Stale { suite, until } => format!(
            "warning: the mirror's {suite} was valid until {until} only; there may be newer kernels"
        ),
        Progress::Index { suite } => format!("reading what {suite} offers"),
        Progress::Download { package, total, .. } => {
            format!("downloading {package} ({})", HumanBytes(*total))
        }
        Progress::Unpack { what } => format!("unpacking {what}"),
        Progress::Toolchain { kernel } => format!("looking for a compiler for {kernel}"),
        Progress::Root { suite, compiler } => format!("making a minimal {suite} with {compiler}"),
    }
}
