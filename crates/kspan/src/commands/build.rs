//! `kspan build`: the matrix.

use super::drivers::Selection;
use crate::output;
use crate::progress::Steps;
use kspan_kernel::Cache;
use kspan_matrix::{Cell, Done, Step};
use kspan_port::Engine;
use kspan_port::driver::Driver;
use std::process::ExitCode;
use std::sync::Arc;

/// Port and build drivers on kernels: the matrix.
///
/// Each cell is `native` (builds as it is), `ported`, `open` (gaps are left, named below the table) or `broken` (the
/// driver fails on its own home kernel). `clean` marks cells without a known change of meaning.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
}

/// Runs it.
///
/// # Errors
/// When a driver or kernel is not there, or the machine lacks something.
pub fn run(args: &Args, cache: Cache, json: bool) -> anyhow::Result<ExitCode> {
    let engine = Engine::new(cache)?;
    let drivers = args.selection.drivers()?;
    let targets = args.selection.targets(&engine)?;
    let row = |d: &Arc<Driver>| -> Vec<Cell> {
        targets
            .iter()
            .map(|t| Cell {
                driver: d.clone(),
                target: t.clone(),
            })
            .collect()
    };
    let cells: Vec<Cell> = drivers.iter().flat_map(row).collect();
    let steps = Steps::new(cells.len() + drivers.len());
    let done = kspan_matrix::run(&engine, &cells, args.selection.jobs(), &|step| {
        steps.done(match step {
            Step::Home(name) => format!("{name} at home"),
            Step::Cell(done) => format!("{} on {}", done.driver, done.kernel),
        });
    })?;
    steps.finish();
    if json {
        println!("{}", kspan_report::matrix_json(&done)?);
    } else {
        print!("{}", kspan_report::matrix_table(&done));
    }
    Ok(output::verdict(done.iter().all(succeeded)))
}

fn succeeded(done: &Done) -> bool {
    done.port.as_ref().is_ok_and(kspan_port::Port::builds)
}
