//! `kspan port`: the derived tree.

use super::drivers;
use crate::output;
use anyhow::Context;
use kspan_kernel::{Cache, KbuildOptions};
use kspan_port::{Engine, Port};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Derive the port of a driver for one kernel into a directory.
///
/// The directory builds with `make -C KDIR M=$PWD modules` on a machine that has never heard of kspan; its port.json names
/// every gap, its remedy and its risk. A port with gaps left is written too, and the exit code is 1.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The driver's directory (with a kspan.toml).
    driver: PathBuf,
    /// The kernel.
    #[arg(long, value_name = "KERNEL")]
    on: String,
    /// Where the port goes; must be new or empty.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Print what was changed in the driver's own files, and the overlay, as a diff.
    #[arg(long)]
    diff: bool,
}

/// Runs it.
///
/// # Errors
/// When the driver or kernel is not there, or the directory holds something.
pub fn run(args: &Args, cache: Cache, json: bool) -> anyhow::Result<ExitCode> {
    let driver = drivers::load(&args.driver)?;
    let engine = Engine::new(cache)?;
    let target = engine.view(&args.on)?;
    refuse_filled(&args.output)?;
    let port = engine.port(
        &driver,
        &target,
        &KbuildOptions {
            jobs: 2,
            ..KbuildOptions::default()
        },
    )?;
    write(&port, &args.output)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&port)?);
    } else {
        print!("{}", kspan_report::port_text(&port));
        if args.diff {
            print!("{}", kspan_report::port_diff(&driver, &port)?);
        }
        println!("The port is in {}.", args.output.display());
    }
    Ok(output::verdict(port.builds()))
}

fn refuse_filled(dir: &Path) -> anyhow::Result<()> {
    let filled = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    anyhow::ensure!(
        !filled,
        "{} is not empty; name a new directory with -o",
        dir.display()
    );
    Ok(())
}

/// Copies the port's files to a directory beside the wanted one and renames it: whole or not at all.
fn write(port: &Port, to: &Path) -> anyhow::Result<()> {
    let from = port.dir.as_deref().unwrap_or(Path::new("."));
    let parent = to
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    let staged = tempfile::tempdir_in(parent).with_context(|| parent.display().to_string())?;
    for file in &port.files {
        let target = staged.path().join(file);
        std::fs::create_dir_all(target.parent().unwrap_or(staged.path()))?;
        std::fs::copy(from.join(file), &target).with_context(|| target.display().to_string())?;
    }
    let record = port.repeatable();
    std::fs::write(
        staged.path().join("port.json"),
        serde_json::to_string_pretty(&record)? + "\n",
    )?;
    let _ = std::fs::remove_dir(to);
    let staged = staged.keep();
    set_mode(&staged)?;
    std::fs::rename(&staged, to).with_context(|| to.display().to_string())
}

/// A temporary directory is private; a port is not.
fn set_mode(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))
}
