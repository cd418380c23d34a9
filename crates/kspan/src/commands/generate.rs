//! Completions and manual pages, from the one table that parses the command line.

use clap::CommandFactory;
use std::path::PathBuf;
use std::process::ExitCode;

/// Which shell.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// Where to.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// The directory; made if it is not there.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Prints a completion script.
///
/// # Errors
/// Never; the signature is that of all commands.
pub fn completions(args: &Completions) -> anyhow::Result<ExitCode> {
    clap_complete::generate(
        args.shell,
        &mut super::Cli::command(),
        "kspan",
        &mut std::io::stdout(),
    );
    Ok(ExitCode::SUCCESS)
}

/// Writes one page for kspan and one for each command.
///
/// # Errors
/// When the directory cannot be written.
pub fn man(args: &Man) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&args.dir)?;
    clap_mangen::generate_to(super::Cli::command(), &args.dir)?;
    Ok(ExitCode::SUCCESS)
}
