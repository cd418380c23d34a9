//! Corpus measurements, benches and checks of kspan: `cargo xtask --help`.

mod agreement;
mod bench;
mod bench_dkms;
mod census;
mod corpus;
mod dkms_faults;
mod dkms_packages;
mod dkms_suite;
mod evolve_check;
mod examples;
mod facts_check;
mod fuzz;
mod package_check;
mod upgrade;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Measurements of kspan on real kernels and drivers.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare upgrades with what the kernel's maintainers made of the same files.
    Agreement(agreement::Args),
    /// Measure speed and memory.
    Bench(bench::Args),
    /// Time `kspan dkms` beside the real dkms and bare make.
    BenchDkms(bench_dkms::Args),
    /// List what modules use and a kernel lacks, and no rule answers.
    Census(census::Args),
    /// Port and build random in-tree drivers, exactly as `kspan build` does.
    Corpus(corpus::Args),
    /// Kill `kspan dkms` at every system call that changes the disk.
    DkmsFaults(dkms_faults::Args),
    /// Build Debian's `*-dkms` packages on kernels old and new, without and with self-repair.
    DkmsPackages(dkms_packages::Args),
    /// Run dkms' own test suite with kspan as `dkms`.
    DkmsSuite(dkms_suite::Args),
    /// Compile every evolution on every kernel where it applies.
    EvolveCheck(evolve_check::Args),
    /// Find evolutions' examples and evidence in two kernel trees.
    Examples(examples::Args),
    /// Compare random facts with what the kernel's own compiler and BTF say.
    FactsCheck(facts_check::Args),
    /// Install, use, upgrade and remove a package of kspan's with the real dkms.
    PackageCheck(package_check::Args),
    /// Feed mutated inputs to every parser.
    Fuzz(fuzz::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Agreement(args) => agreement::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::BenchDkms(args) => bench_dkms::run(&args),
        Command::Census(args) => census::run(&args),
        Command::Corpus(args) => corpus::run(&args),
        Command::DkmsFaults(args) => dkms_faults::run(&args),
        Command::DkmsPackages(args) => dkms_packages::run(&args),
        Command::DkmsSuite(args) => dkms_suite::run(&args),
        Command::EvolveCheck(args) => evolve_check::run(&args),
        Command::Examples(args) => examples::run(&args),
        Command::FactsCheck(args) => facts_check::run(&args),
        Command::PackageCheck(args) => package_check::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::from(code(&error))
    })
}

/// As kspan's own: 2 for what the user named and is not there, else 3.
fn code(error: &anyhow::Error) -> u8 {
    let usage = |cause: &(dyn std::error::Error + 'static)| {
        let kernel = cause.downcast_ref::<kspan_kernel::Error>();
        let port = cause.downcast_ref::<kspan_port::Error>();
        matches!(kernel, Some(kspan_kernel::Error::Input(_)))
            || matches!(
                port,
                Some(
                    kspan_port::Error::Input(_)
                        | kspan_port::Error::Kernel(kspan_kernel::Error::Input(_))
                )
            )
    };
    if error.chain().any(usage) { 2 } else { 3 }
}
