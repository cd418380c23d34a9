//! One small file for each command.

pub mod build;
pub mod check;
pub mod dkms;
pub mod drivers;
pub mod evolution;
pub mod facts;
pub mod generate;
pub mod init;
pub mod kernel;
pub mod learn;
pub mod package;
pub mod port;
pub mod test;
pub mod upgrade;
pub mod why;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// One driver source, spanning every kernel.
///
/// The driver is written once, against the newest kernel. kspan derives the rest: what each kernel lacks (check), a port
/// for each (port), built modules (build), and the proof in an emulated machine (test).
///
/// Exit codes: 0 all well; 1 the answer is no (gaps, failed cells); 2 usage; 3 environment.
#[derive(Debug, Parser)]
#[command(name = "kspan", version, propagate_version = true)]
pub struct Cli {
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
    /// Where fetched kernels and results are kept [default: $KSPAN_CACHE, else ~/.cache/kspan].
    #[arg(long, global = true, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fetch, list, show and remove kernels.
    Kernel(kernel::Args),
    /// Show what a kernel says of a name, and what changed to another.
    Facts(facts::Args),
    /// Make a directory a driver, or import a driver from a kernel tree.
    Init(init::Args),
    /// Show the gaps of drivers on kernels, without compiling for them.
    Check(check::Args),
    /// Derive the port of a driver for one kernel into a directory.
    Port(port::Args),
    /// Port and build drivers on kernels: the matrix.
    Build(build::Args),
    /// Move a driver's own source to another kernel's API.
    Upgrade(upgrade::Args),
    /// Learn evolutions from two kernel trees.
    Learn(learn::Args),
    /// Tell the life of an API across kernels, and the evolutions that cover it.
    Why(why::Args),
    /// List, show, test and begin evolutions.
    Evolution(evolution::Args),
    /// Manage modules as packages: a drop-in for dkms.
    Dkms(dkms::Args),
    /// Boot kernels in QEMU and try the ported modules there.
    Test(test::Args),
    /// Make packages of a driver: dkms source, built modules.
    Package(package::Args),
    /// Print a shell's completion script.
    Completions(generate::Completions),
    /// Write the manual pages into a directory.
    Man(generate::Man),
}

/// Opens the cache that the command line names.
///
/// # Errors
/// When it cannot be made.
pub fn cache(cli: &Cli) -> kspan_kernel::Result<kspan_kernel::Cache> {
    match &cli.cache {
        Some(dir) => kspan_kernel::Cache::at(dir),
        None => kspan_kernel::Cache::open(),
    }
}

/// Runs the command.
///
/// # Errors
/// Whatever keeps it from giving an answer.
pub fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    if let Some(dir) = std::env::var_os("KSPAN_EVOLUTIONS") {
        // Those compiled in were tried when kspan was tested.
        evolution::checked(Some(&PathBuf::from(dir)))?;
    }
    match &cli.command {
        Command::Kernel(args) => kernel::run(args, cache(cli)?, cli.json),
        Command::Facts(args) => facts::run(args, &cache(cli)?, cli.json),
        Command::Init(args) => init::run(args, &cache(cli)?, cli.json),
        Command::Check(args) => check::run(args, cache(cli)?, cli.json),
        Command::Port(args) => port::run(args, cache(cli)?, cli.json),
        Command::Build(args) => build::run(args, cache(cli)?, cli.json),
        Command::Upgrade(args) => upgrade::run(args, cache(cli)?, cli.json),
        Command::Learn(args) => learn::run(args, cache(cli)?, cli.json),
        Command::Why(args) => why::run(args, cache(cli)?, cli.json),
        Command::Evolution(args) => evolution::run(args, || cache(cli), cli.json),
        Command::Dkms(args) => Ok(dkms::run(args)),
        Command::Test(args) => test::run(args, cache(cli)?, cli.json),
        Command::Package(args) => package::run(args, cache(cli)?, cli.json),
        Command::Completions(args) => generate::completions(args),
        Command::Man(args) => generate::man(args),
    }
}
