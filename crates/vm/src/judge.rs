//! From what was seen of a machine to a verdict for each driver in it.

use crate::boot::{End, Record};
use crate::console;
use crate::guest::Guest;
use crate::protocol::Line;
use kspan_port::driver::SmokeEnd;
use serde::Serialize;
use std::path::PathBuf;

/// Taint bits that every module of somebody else's sets: out-of-tree, unsigned.
const EXPECTED_TAINT: u64 = 1 << 12 | 1 << 13;

/// What became of a driver in a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It loads, reloads, leaves the log clean, and its smoke test passed.
    Works,
    /// The same, and it has no smoke test.
    Loads,
    /// A check failed.
    Fails,
    /// The guest fell silent.
    Hangs,
    /// The guest's kernel went down.
    Crashes,
    /// It could not be tried here, and why.
    Skipped,
    /// There is no port that builds.
    NoPort,
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Loads => "loads",
            Self::Fails => "fails",
            Self::Hangs => "hangs",
            Self::Crashes => "crashes",
            Self::Skipped => "skipped",
            Self::NoPort => "no port",
        }
    }
}

/// How one check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckResult {
    /// Well.
    Pass,
    /// Not well.
    Fail,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `needs` (modules of the kernel), `load`, `own` (it is the ported module that runs), `reload`, `smoke`, `unload`, `slab`
    /// (objects that its code allocated and left; where the kernel tells), `log`.
    pub name: String,
    /// How it went.
    pub result: CheckResult,
    /// Why not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What the smoke test says beside that it passed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// The record of one cell.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The driver.
    pub driver: String,
    /// The kernel's id.
    pub kernel: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Why, in a line, when it neither works nor loads.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// The checks, in order.
    pub checks: Vec<Check>,
    /// What the smoke test printed last, when it failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
    /// Wall seconds from this driver's first step to its last.
    pub seconds: f64,
    /// Wall seconds until the guest said its first word.
    pub boot_seconds: Option<f64>,
    /// `kvm` or `tcg`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<crate::Accelerator>,
    /// The console's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console: Option<PathBuf>,
}

impl Outcome {
    /// A cell that was never booted.
    pub(crate) fn untried(driver: &str, kernel: &str, verdict: Verdict, why: String) -> Self {
        Self {
            driver: driver.to_owned(),
            kernel: kernel.to_owned(),
            verdict,
            why,
            checks: Vec::new(),
            output: Vec::new(),
            seconds: 0.0,
            boot_seconds: None,
            accelerator: None,
            console: None,
        }
    }

    /// Nothing speaks against it.
    #[must_use]
    pub fn well(&self) -> bool {
        matches!(
            self.verdict,
            Verdict::Works | Verdict::Loads | Verdict::Skipped
        )
    }
}

/// What a machine tells of driver number `number`; `None` when it never came to it.
pub fn judge(record: &Record, number: usize, guest: &Guest, blank: &Outcome) -> Option<Outcome> {
    let seen = Seen::of(record, number)?;
    let mut outcome = Outcome {
        boot_seconds: record.boot_seconds(),
        seconds: seen.seconds,
        output: seen.output.clone(),
        checks: seen.checks.clone(),
        ..blank.clone()
    };
    let log = console::of_driver(&record.console, number);
    let wanted = guest.smoke.as_ref().map_or(SmokeEnd::Pass, |s| s.ends);
    let ended_as_wanted = seen.taint.is_none() && seen.step == "smoke" && fulfilled(wanted, record);
    if ended_as_wanted {
        outcome.checks.push(check("smoke", None));
    } else if seen.taint.is_none() {
        outcome.verdict = match record.end {
            End::Silent(_) => Verdict::Hangs,
            End::Done | End::Exited => Verdict::Crashes,
        };
        outcome
            .checks
            .push(check(&seen.step, Some(broken_off(record, &log))));
    } else if wanted != SmokeEnd::Pass {
        let why = format!("the machine was to end by {}, and went on", wanted.word());
        outcome.checks.retain(|c| c.name != "smoke");
        outcome.checks.push(check("smoke", Some(why)));
    }
    explain(&mut outcome.checks, &log);
    let judged = if ended_as_wanted {
        console::before_smoke(&log, number)
    } else {
        log
    };
    outcome
        .checks
        .push(check("log", untidy(&judged, seen.taint, record)));
    if record.lost > 0 {
        let why = format!("{} lines of the guest were lost", record.lost);
        outcome.checks.push(check("protocol", Some(why)));
    }
    conclude(&mut outcome, guest);
    Some(outcome)
}

fn check(name: &str, failure: Option<String>) -> Check {
    Check {
        name: name.to_owned(),
        result: if failure.is_some() {
            CheckResult::Fail
        } else {
            CheckResult::Pass
        },
        why: failure.unwrap_or_default(),
        note: String::new(),
    }
}

/// What the protocol says of one driver.
struct Seen {
    checks: Vec<Check>,
    output: Vec<String>,
    step: String,
    taint: Option<u64>,
    seconds: f64,
}

impl Seen {
    fn of(record: &Record, number: usize) -> Option<Self> {
        let begun = record
            .lines
            .iter()
            .find_map(|(at, l)| (*l == Line::Begin(number)).then_some(*at))?;
        let mut seen = Self {
            checks: Vec::new(),
            output: Vec::new(),
            step: "load".to_owned(),
            taint: None,
            seconds: record.seconds - begun,
        };
        for (at, line) in &record.lines {
            match line {
                Line::Step(n, name) if *n == number => {
                    seen.step = name.split("-").next().unwrap_or(name).to_owned();
                }
                Line::Result {
                    driver,
                    check: name,
                    pass,
                    why,
                } if *driver == number => {
                    let mut check = check(name, (!pass).then(|| why.clone()));
                    if check.result == CheckResult::Pass {
                        check.note.clone_from(why);
                    }
                    seen.checks.push(check);
                }
                Line::Out(n, text) if *n == number => seen.output.push(text.clone()),
                Line::End(n, taint) if *n == number => {
                    seen.taint = Some(*taint);
                    seen.seconds = at - begun;
                }
                _ => {}
            }
        }
        Some(seen)
    }
}

fn fulfilled(wanted: SmokeEnd, record: &Record) -> bool {
    let event = match wanted {
        SmokeEnd::Pass => return false,
        SmokeEnd::Watchdog => "WATCHDOG",
        SmokeEnd::Panic => "GUEST_PANICKED",
    };
    record.events.iter().any(|e| e == event)
}

/// How a driver's trial broke off.
fn broken_off(record: &Record, log: &[&str]) -> String {
    let alarm = console::alarms(log).into_iter().next();
    match (&record.end, alarm) {
        (End::Silent(_), Some(alarm)) => format!("the guest fell silent after: {alarm}"),
        (End::Silent(limit), None) => {
            format!("the guest said nothing more for {} s", limit.as_secs())
        }
        (_, Some(alarm)) => format!("the guest went down: {alarm}"),
        (_, None) => match record.complaints().next() {
            Some(words) => format!("QEMU ended: {words}"),
            None => format!("the machine ended ({})", record.events.join(", ")),
        },
    }
}

/// insmod says only that it failed; the kernel's log says why.
fn explain(checks: &mut [Check], log: &[&str]) {
    for check in checks {
        let of_insmod =
            matches!(check.name.as_str(), "load" | "needs") && check.why.starts_with("insmod");
        if of_insmod {
            check.why = format!("{} ({})", check.why, console::last_words(log, 2));
        }
    }
}

/// What is wrong with the kernel after this driver.
fn untidy(log: &[&str], taint: Option<u64>, record: &Record) -> Option<String> {
    let at_start = record.lines.iter().find_map(|(_, l)| match l {
        Line::Hello { taint, .. } => Some(*taint),
        _ => None,
    });
    let alarms = console::alarms(log);
    let new = taint.unwrap_or(0) & !at_start.unwrap_or(0) & !EXPECTED_TAINT;
    match (alarms.first(), new) {
        (Some(first), _) if alarms.len() > 1 => {
            Some(format!("{first} (and {} more)", alarms.len() - 1))
        }
        (Some(first), _) => Some(first.clone()),
        (None, 0) => None,
        (None, bits) => Some(format!(
            "the kernel is tainted: {bits:#x} beyond out-of-tree and unsigned"
        )),
    }
}

fn conclude(outcome: &mut Outcome, guest: &Guest) {
    // What a driver leaves behind is often explained by what the log says.
    let mut failures = outcome
        .checks
        .iter()
        .filter(|c| c.result == CheckResult::Fail);
    let failed = failures
        .clone()
        .find(|c| c.name != "slab")
        .or_else(|| failures.next());
    if let Some(failed) = failed {
        outcome.why = format!("{}: {}", failed.name, failed.why);
        if !matches!(outcome.verdict, Verdict::Hangs | Verdict::Crashes) {
            outcome.verdict = Verdict::Fails;
        }
        return;
    }
    let passed = |name: &str| outcome.checks.iter().any(|c| c.name == name);
    outcome.verdict = match (
        guest.smoke.is_some(),
        passed("smoke"),
        passed("load") && passed("own"),
    ) {
        (true, true, true) => Verdict::Works,
        (false, _, true) => Verdict::Loads,
        _ => Verdict::Fails,
    };
    if outcome.verdict == Verdict::Fails {
        outcome.why = "a check was never reported".to_owned();
    }
}
