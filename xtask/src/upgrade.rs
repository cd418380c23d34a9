//! `cargo xtask corpus --upgrade`: in-tree drivers of an old kernel whose own source is moved to a new one's API.

use crate::corpus::Imported;
use kspan_kernel::KbuildOptions;
use kspan_port::Engine;
use kspan_port::Verdict;
use kspan_port::driver::Driver;
use kspan_port::view::View;
use kspan_upstream::upgrade::{Manner, Upgrade, series, upgrade};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

type Job = (String, Arc<Driver>);

/// Upgrades every driver and records what came of it: `native` where nothing had to change, `ported` where the upgraded source
/// builds; `clean` where moreover nothing was kept as a definition of the driver's own and no change of meaning is known.
pub fn record(
    (jobs, round_trip): (Option<usize>, bool),
    engine: &Engine,
    (home, target): (&View, &View),
    drivers: &Imported,
    failed: &[(String, String)],
) -> Value {
    let options = KbuildOptions {
        jobs: 1,
        ..KbuildOptions::default()
    };
    let one =
        |(path, driver): &Job| match upgrade(engine, driver, target, &options, Manner::default()) {
            Ok(done) => {
                let mut record = of_upgrade(path, &done);
                if round_trip && done.builds {
                    record["back"] = back(engine, &done, home, &options);
                }
                record
            }
            Err(why) => broken(path, &why.to_string()),
        };
    let mut all = in_threads(jobs, drivers, &one);
    all.extend(failed.iter().map(|(path, why)| broken(path, why)));
    let count = |key: &str, want: &[&str]| {
        all.iter()
            .filter(|d| d[key].as_str().is_some_and(|v| want.contains(&v)))
            .count()
    };
    let bad = count("verdict", &["broken"]);
    let with_family = |d: &&Value| d["family"].as_array().is_some_and(|f| !f.is_empty());
    json!({
        "home": home.kernel.id, "on": target.kernel.id, "upgrade": true,
        "back": round_trip.then(|| count("back", &["native", "ported"])),
        "with_family": all.iter().filter(with_family).count(),
        "n": all.len() - bad, "broken": bad, "native": count("verdict", &["native"]),
        "builds": count("verdict", &["native", "ported"]), "clean": count("grade", &["clean"]), "drivers": all,
    })
}

/// The upgraded source as a driver of the new kernel, ported back to the old one: the verdict there, or why it has none.
fn back(engine: &Engine, done: &Upgrade, old: &View, options: &KbuildOptions) -> Value {
    let ported = || -> anyhow::Result<Verdict> {
        let dir = tempfile::tempdir()?;
        series::write_source(done, dir.path())?;
        let driver = Driver::load(dir.path())?;
        Ok(engine.port(&driver, old, options)?.verdict)
    };
    ported().map_or_else(|why| json!(why.to_string()), |verdict| json!(verdict))
}

/// Threads of their own: a thread of rayon's that waits inside of one upgrade may take up another, and wait for itself.
pub(crate) fn in_threads<T: Send>(
    jobs: Option<usize>,
    drivers: &Imported,
    one: &(dyn Fn(&Job) -> T + Sync),
) -> Vec<T> {
    let count = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(driver) = drivers.get(index) else {
                        return;
                    };
                    let value = one(driver);
                    if let Ok(mut all) = done.lock() {
                        all.push((index, value));
                    }
                }
            });
        }
    });
    let mut all = done.into_inner().unwrap_or_default();
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, value)| value).collect()
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
        "open": done.open, "family": done.family, "changes": done.changes, "warnings": done.warnings,
    })
}
