//! What became of drivers in emulated machines.

use crate::matrix::{columns, counted, grid, short};
use kspan_vm::{CheckResult, Outcome, Verdict};
use serde_json::json;
use std::fmt::Write;

/// The cells: `{"cells": [...]}`.
///
/// # Errors
/// When a record cannot be written as JSON.
pub fn trial_json(outcomes: &[Outcome]) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&json!({ "cells": outcomes }))
}

/// The table, a tally, then every cell that does not work or load, with why and where its console lies.
#[must_use]
pub fn trial_table(outcomes: &[Outcome]) -> String {
    let words = outcomes
        .iter()
        .map(|c| (c.driver.as_str(), c.kernel.as_str(), cell_word(c)));
    let table = grid(words);
    let mut out = columns(&table);
    out.push_str(&tally(outcomes));
    outcomes.iter().for_each(|cell| details(&mut out, cell));
    out
}

/// The verdict, with what the smoke test says beside it: `works (peer)`.
fn cell_word(cell: &Outcome) -> String {
    let note = cell
        .checks
        .iter()
        .find(|c| c.name == "smoke" && !c.note.is_empty());
    match note {
        Some(check) => format!("{} ({})", cell.verdict.word(), check.note),
        None => cell.verdict.word().to_owned(),
    }
}

fn tally(outcomes: &[Outcome]) -> String {
    let count = |v: Verdict| outcomes.iter().filter(|o| o.verdict == v).count();
    let failed = outcomes
        .iter()
        .filter(|o| !o.well() && o.verdict != Verdict::NoPort)
        .count();
    format!(
        "\n{}: {} work, {} load (no smoke test), {failed} fail, {} skipped, {} without a port.\n",
        counted(outcomes.len(), "cell"),
        count(Verdict::Works),
        count(Verdict::Loads),
        count(Verdict::Skipped),
        count(Verdict::NoPort),
    )
}

fn details(out: &mut String, cell: &Outcome) {
    if cell.why.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n{} on {}: {}: {}",
        cell.driver,
        short(&cell.kernel),
        cell.verdict.word(),
        cell.why
    );
    let others = cell
        .checks
        .iter()
        .filter(|c| c.result == CheckResult::Fail)
        .skip(1);
    for check in others {
        let _ = writeln!(out, "  {}: {}", check.name, check.why);
    }
    for line in &cell.output {
        let _ = writeln!(out, "  | {line}");
    }
    if let Some(console) = &cell.console {
        let _ = writeln!(out, "  console: {}", console.display());
    }
}
