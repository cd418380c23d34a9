//! The kspan command: parse, call one library function, render.

mod commands;
mod output;
mod progress;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    output::end_with_the_reader();
    if let Some(code) = commands::dkms::called_as() {
        return code;
    }
    let cli = commands::Cli::parse();
    match commands::run(&cli) {
        Ok(code) => code,
        Err(error) => output::failure(&error),
    }
}
