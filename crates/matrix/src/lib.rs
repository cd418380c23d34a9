//! The matrix: many drivers × kernels, in parallel, each cell judged alone.
//!
//! Never: prints, or lets one cell's failure stop another.
//! Its main function is [`run`].

use kspan_kernel::KbuildOptions;
use kspan_port::driver::Driver;
use kspan_port::view::View;
use kspan_port::{Engine, Port};
use rayon::prelude::*;
use std::sync::Arc;

/// One cell to be done.
#[derive(Clone)]
pub struct Cell {
    /// The driver.
    pub driver: Arc<Driver>,
    /// The target.
    pub target: Arc<View>,
}

/// What became of a cell: its record, or why it could not even be tried.
pub struct Done {
    /// The driver's name.
    pub driver: String,
    /// The target's id.
    pub kernel: String,
    /// The record.
    pub port: std::result::Result<Port, String>,
}

/// A step that progress is shown for.
pub enum Step<'a> {
    /// A driver was built on its home kernel.
    Home(&'a str),
    /// A cell is done.
    Cell(&'a Done),
}

/// Does all cells with `jobs` workers and one jobserver; the results in the order of the cells.
///
/// Each driver is built on its home kernel first, so that no two cells do it at once.
///
/// # Errors
/// When the workers cannot be made.
pub fn run(
    engine: &Engine,
    cells: &[Cell],
    jobs: usize,
    step: &(dyn Fn(Step<'_>) + Sync),
) -> std::io::Result<Vec<Done>> {
    let jobs = jobs.max(1);
    let client = jobserver::Client::new(jobs)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .build()
        .map_err(std::io::Error::other)?;
    let options = KbuildOptions {
        jobs,
        jobserver: Some(client),
        ..KbuildOptions::default()
    };
    let mut drivers: Vec<Arc<Driver>> = cells.iter().map(|c| c.driver.clone()).collect();
    drivers.sort_by(|a, b| a.dir.cmp(&b.dir));
    drivers.dedup_by(|a, b| a.dir == b.dir);
    pool.install(|| {
        drivers.par_iter().with_max_len(1).for_each(|driver| {
            // A failure comes again, with its reason, in the driver's cells.
            let _ = engine.home(driver, &options);
            step(Step::Home(&driver.manifest.name));
        });
    });
    Ok(pool.install(|| {
        cells
            .par_iter()
            .with_max_len(1)
            .map(|cell| one(engine, cell, &options, step))
            .collect()
    }))
}

fn one(
    engine: &Engine,
    cell: &Cell,
    options: &KbuildOptions,
    step: &(dyn Fn(Step<'_>) + Sync),
) -> Done {
    let done = Done {
        driver: cell.driver.manifest.name.clone(),
        kernel: cell.target.kernel.id.clone(),
        port: engine
            .port(&cell.driver, &cell.target, options)
            .map_err(|e| e.to_string()),
    };
    step(Step::Cell(&done));
    done
}
