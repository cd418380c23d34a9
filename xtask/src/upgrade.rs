//! `cargo xtask corpus --upgrade`: in-tree drivers of an old kernel whose own source is moved to a new one's API.

use crate::corpus::Imported;
use kspan_kernel::KbuildOptions;
use kspan_port::Engine;
use kspan_port::driver::Driver;
use kspan_port::view::View;
use kspan_upstream::upgrade::{Upgrade, upgrade};
use rayon::prelude::*;
use serde_json::{Value, json};

/// Upgrades every driver and records what came of it: `native` where nothing had to change, `ported` where the upgraded source
/// builds; `clean` where moreover nothing was kept as a definition of the driver's own and no change of meaning is known.
///
/// # Errors
/// When no threads can be made.
pub fn record(
    jobs: Option<usize>,
    engine: &Engine,
    (home, target): (&View, &View),
    drivers: &Imported,
    failed: &[(String, String)],
) -> anyhow::Result<Value> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs.unwrap_or(0))
        .build()?;
    let options = KbuildOptions {
        jobs: 1,
        ..KbuildOptions::default()
    };
    let one = |(path, driver): &(String, std::sync::Arc<Driver>)| match upgrade(
        engine, driver, target, &options,
    ) {
        Ok(done) => of_upgrade(path, &done),
        Err(why) => broken(path, &why.to_string()),
    };
    let mut all: Vec<Value> = pool.install(|| drivers.par_iter().map(one).collect());
    all.extend(failed.iter().map(|(path, why)| broken(path, why)));
    let count = |key: &str, want: &[&str]| {
        all.iter()
            .filter(|d| d[key].as_str().is_some_and(|v| want.contains(&v)))
            .count()
    };
    let bad = count("verdict", &["broken"]);
    Ok(json!({
        "home": home.kernel.id, "on": target.kernel.id, "upgrade": true,
        "n": all.len() - bad, "broken": bad, "native": count("verdict", &["native"]),
        "builds": count("verdict", &["native", "ported"]), "clean": count("grade", &["clean"]), "drivers": all,
    }))
}

fn broken(path: &str, why: &str) -> Value {
    json!({"path": path, "verdict": "broken", "grade": null, "seconds": 0.0, "error": why, "open": [], "changes": []})
}

fn of_upgrade(path: &str, done: &Upgrade) -> Value {
    if let Some(why) = &done.broken {
        return broken(path, why);
    }
    let verdict = match (done.builds, done.changes.is_empty()) {
        (true, true) => "native",
        (true, false) => "ported",
        (false, _) => "open",
    };
    let grade = match done.builds {
        false => Value::Null,
        true if done.is_clean() => json!("clean"),
        true => json!("builds"),
    };
    json!({
        "path": path, "verdict": verdict, "grade": grade, "seconds": done.seconds, "compiles": done.compiles,
        "open": done.open, "changes": done.changes, "warnings": done.warnings,
    })
}
