//! `kspan init`: make a directory a driver, or import one from a kernel tree.

use kspan_kernel::{Cache, Error, Kernel};
use kspan_port::driver::{Manifest, SourceTree, init_out_of_tree, read_config};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Make a directory a driver (write its kspan.toml), or import a driver from a kernel tree.
///
/// Without --from-tree, PATH is a directory with a Kbuild or Makefile (default: here). With it, PATH is a .c file, a
/// directory or a module's name in the tree; the driver is copied to the directory of -o with a Kbuild of its own.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A driver's directory; with --from-tree a .c file, a directory or a module's name in the tree.
    path: Option<String>,
    /// A kernel source directory, or a fetched kernel's name.
    #[arg(long, value_name = "TREE", requires_all = ["path", "out"])]
    from_tree: Option<String>,
    /// Where the imported driver goes; must not exist or be empty.
    #[arg(short, long, value_name = "DIR", requires = "from_tree")]
    out: Option<PathBuf>,
    /// The kernel that the sources are written for [default: the tree's own, else the newest fetched].
    #[arg(long, value_name = "KERNEL")]
    home: Option<String>,
}

/// Runs it.
///
/// # Errors
/// When there is no driver where one is named, or no kernel to be its home.
pub fn run(args: &Args, cache: &Cache, json: bool) -> anyhow::Result<ExitCode> {
    let (manifest, dir, notes) = match (&args.from_tree, &args.path, &args.out) {
        (Some(tree), Some(path), Some(out)) => import(args, cache, tree, path, out)?,
        _ => {
            let dir = PathBuf::from(args.path.as_deref().unwrap_or("."));
            let home = newest_or_named(cache, args.home.as_deref())?;
            (init_out_of_tree(&dir, &home.id)?, dir, Vec::new())
        }
    };
    tell(&manifest, &dir, &notes, json)?;
    Ok(ExitCode::SUCCESS)
}

/// Imports from a source directory or a fetched kernel.
fn import(
    args: &Args,
    cache: &Cache,
    tree: &str,
    path: &str,
    out: &Path,
) -> anyhow::Result<(Manifest, PathBuf, Vec<String>)> {
    let (source, home) = if Path::new(tree).join("Makefile").is_file() {
        (
            PathBuf::from(tree),
            home_of_tree(cache, Path::new(tree), args.home.as_deref())?,
        )
    } else {
        let kernel = cache.resolve(tree)?;
        let source = cache.source_tree(&kernel)?;
        let home = args
            .home
            .as_deref()
            .map_or(Ok(kernel), |name| cache.resolve(name))?;
        (source, home)
    };
    let config = read_config(&home)?;
    let value = |name: &str| config.get(name).cloned();
    let index = cache.root().join("index");
    let done = SourceTree::open(&source, &value, Some(&index))?.import(path, out, &home.id)?;
    Ok((done.driver.manifest, done.driver.dir, done.notes))
}

/// The kernel that a source directory's drivers are at home on: as named, else the fetched one of the tree's series.
fn home_of_tree(cache: &Cache, tree: &Path, named: Option<&str>) -> anyhow::Result<Kernel> {
    if let Some(name) = named {
        return Ok(cache.resolve(name)?);
    }
    let text = String::from_utf8_lossy(&std::fs::read(tree.join("Makefile")).unwrap_or_default())
        .into_owned();
    let field = |key: &str| {
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(key)?.trim_start().strip_prefix('='))?;
        Some(line.trim().to_owned())
    };
    let missing = || {
        Error::Input(format!(
            "{} does not say which kernel it is; name one with --home KERNEL",
            tree.display()
        ))
    };
    let series = field("VERSION")
        .zip(field("PATCHLEVEL"))
        .map(|(v, p)| format!("{v}.{p}"))
        .ok_or_else(missing)?;
    Ok(cache.resolve(&series)?)
}

/// A kernel by name, else the newest fetched one.
fn newest_or_named(cache: &Cache, named: Option<&str>) -> anyhow::Result<Kernel> {
    if let Some(name) = named {
        return Ok(cache.resolve(name)?);
    }
    let none = || {
        Error::Input(
            "no kernel is fetched yet to be the driver's home; see `kspan kernel fetch`".to_owned(),
        )
    };
    Ok(cache.kernels()?.pop().ok_or_else(none)?)
}

fn tell(manifest: &Manifest, dir: &Path, notes: &[String], json: bool) -> anyhow::Result<()> {
    if json {
        let value = serde_json::json!({ "dir": dir, "manifest": manifest, "notes": notes });
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    println!(
        "{}: driver {}, home {}",
        dir.display(),
        manifest.name,
        manifest.home
    );
    println!("  modules: {}", manifest.modules.join(", "));
    for (what, list) in [
        ("note", notes),
        ("private header", manifest.private_headers.as_slice()),
    ] {
        for item in list {
            println!("  {what}: {item}");
        }
    }
    for (name, value) in &manifest.config {
        println!("  own option: {name}={value}");
    }
    Ok(())
}
