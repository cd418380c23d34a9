//! `kspan check`: gaps from facts alone.

use super::drivers::Selection;
use crate::output;
use kspan_kernel::{Cache, KbuildOptions};
use kspan_port::Engine;
use std::process::ExitCode;

/// Show the gaps of drivers on kernels, without compiling for them.
///
/// Each use of the driver is looked up in the kernel's facts. The driver itself is built once on its home kernel.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
}

/// Runs it.
///
/// # Errors
/// When a driver or kernel is not there.
pub fn run(args: &Args, cache: Cache, json: bool) -> anyhow::Result<ExitCode> {
    let engine = Engine::new(cache)?;
    let drivers = args.selection.drivers()?;
    let targets = args.selection.targets(&engine)?;
    let options = KbuildOptions {
        jobs: args.selection.jobs(),
        ..KbuildOptions::default()
    };
    let mut cells = Vec::new();
    for driver in &drivers {
        for target in &targets {
            let checked = engine.check(driver, target, &options)?;
            cells.push(kspan_report::CheckCell::new(
                driver, &checked, target, &targets,
            ));
        }
    }
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&serde_json::json!({ "cells": cells }))?
        );
    } else {
        print!("{}", kspan_report::check_text(&cells));
    }
    Ok(output::verdict(
        cells.iter().all(kspan_report::CheckCell::is_fine),
    ))
}
