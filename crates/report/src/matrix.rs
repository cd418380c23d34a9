//! The matrix of drivers and kernels.

use kspan_matrix::Done;
use kspan_port::gap::{Gap, Risk};
use kspan_port::{Grade, Port, Verdict};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Open gaps shown for one cell; the JSON has all.
const MOST_OPEN: usize = 6;

/// The word for a verdict.
fn verdict(port: &Port) -> &'static str {
    match port.verdict {
        Verdict::Native => "native",
        Verdict::Ported => "ported",
        Verdict::Open => "open",
        Verdict::Broken => "broken",
    }
}

/// The cells as the command contract has them: `{"cells": [...]}`.
///
/// # Errors
/// When a record cannot be written as JSON.
pub fn matrix_json(done: &[Done]) -> serde_json::Result<String> {
    let cells: Vec<Value> = done
        .iter()
        .map(cell_json)
        .collect::<serde_json::Result<_>>()?;
    serde_json::to_string_pretty(&json!({ "cells": cells }))
}

/// One cell as JSON.
///
/// # Errors
/// When the record cannot be written as JSON.
fn cell_json(done: &Done) -> serde_json::Result<Value> {
    let port = match &done.port {
        Ok(port) => port,
        Err(why) => {
            return Ok(
                json!({"driver": done.driver, "kernel": done.kernel, "verdict": "open", "grade": null,
                "remedies": [], "risks": [], "open": [{"gap": "error", "message": why}], "seconds": 0.0, "error": why}),
            );
        }
    };
    let mut value = serde_json::to_value(port)?;
    value["risks"] = json!(port.risks());
    value["grade"] = match port.grade {
        Grade::None => Value::Null,
        grade => serde_json::to_value(grade)?,
    };
    Ok(value)
}

/// Drivers by kernels, head first, from (driver, kernel, word) in the order of the drivers.
pub(crate) fn grid<'a>(
    cells: impl Iterator<Item = (&'a str, &'a str, String)>,
) -> Vec<Vec<String>> {
    let mut kernels: Vec<&str> = Vec::new();
    let mut rows: Vec<(&str, BTreeMap<&str, String>)> = Vec::new();
    for (driver, kernel, word) in cells {
        if !kernels.contains(&kernel) {
            kernels.push(kernel);
        }
        if rows.last().is_none_or(|(name, _)| *name != driver) {
            rows.push((driver, BTreeMap::new()));
        }
        if let Some((_, row)) = rows.last_mut() {
            row.insert(kernel, word);
        }
    }
    let head = std::iter::once("driver").chain(kernels.iter().map(|k| short(k)));
    let mut table: Vec<Vec<String>> = vec![head.map(str::to_owned).collect()];
    for (name, row) in &rows {
        let words = kernels
            .iter()
            .map(|k| row.get(k).cloned().unwrap_or_default());
        table.push(std::iter::once((*name).to_owned()).chain(words).collect());
    }
    table
}

/// The table, then what is open and what may differ in meaning, cell by cell.
#[must_use]
pub fn matrix_table(done: &[Done]) -> String {
    let words = done
        .iter()
        .map(|c| (c.driver.as_str(), c.kernel.as_str(), cell_word(c)));
    let table = grid(words);
    let mut out = columns(&table);
    out.push_str(&tally(done));
    for cell in done {
        details(&mut out, cell);
    }
    out
}

pub(crate) fn short(kernel: &str) -> &str {
    kernel.strip_prefix("debian/").unwrap_or(kernel)
}

/// `ported 12, clean`, `open 3`.
fn cell_word(done: &Done) -> String {
    let Ok(port) = &done.port else {
        return "error".to_owned();
    };
    let grade = if port.grade == Grade::Clean {
        ", clean"
    } else {
        ""
    };
    match port.verdict {
        Verdict::Ported => format!("ported {}{grade}", port.remedies.len()),
        Verdict::Open => format!("open {}", port.open.len()),
        _ => format!("{}{grade}", verdict(port)),
    }
}

/// Rows with columns padded to their widest cell.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| {
        rows.iter()
            .filter_map(|r| r.get(i))
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(c, w)| format!("{c:<w$}"))
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

fn tally(done: &[Done]) -> String {
    let ports = || done.iter().filter_map(|d| d.port.as_ref().ok());
    let builds = ports().filter(|p| p.builds()).count();
    let clean = ports().filter(|p| p.grade == Grade::Clean).count();
    format!(
        "\n{}: {builds} build, {clean} of them with no known change of meaning (clean), {} do not.\n",
        counted(done.len(), "cell"),
        done.len() - builds
    )
}

/// `1 cell`, `2 cells`.
pub(crate) fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn details(out: &mut String, done: &Done) {
    let head = format!("\n{} on {}", done.driver, short(&done.kernel));
    match &done.port {
        Err(why) => {
            let _ = writeln!(out, "{head}: {why}");
        }
        Ok(port) if port.verdict == Verdict::Broken => {
            let _ = writeln!(
                out,
                "{head}: fails on its home kernel {}:\n{}",
                short(&port.home),
                indent(&port.broken)
            );
        }
        Ok(port) if !port.open.is_empty() => {
            let _ = writeln!(out, "{head}: {}", counted(port.open.len(), "open gap"));
            open_gaps(out, &port.open);
        }
        Ok(port) => risks(out, &head, port),
    }
}

fn open_gaps(out: &mut String, open: &[Gap]) {
    for gap in open.iter().take(MOST_OPEN) {
        let place = gap
            .places
            .first()
            .map(|p| format!("{}:{}: ", p.file.display(), p.line))
            .unwrap_or_default();
        let _ = writeln!(out, "  {place}{}: {}", gap.need, gap.why);
    }
    if open.len() > MOST_OPEN {
        let _ = writeln!(
            out,
            "  and {} more (--json has all)",
            open.len() - MOST_OPEN
        );
    }
}

fn risks(out: &mut String, head: &str, port: &Port) {
    let risks = port.risks();
    if risks.is_empty() {
        return;
    }
    let _ = writeln!(out, "{head}: may act otherwise");
    for risk in risks {
        let _ = writeln!(out, "  {risk}");
    }
}

fn indent(text: &str) -> String {
    text.lines()
        .map(|l| format!("  {l}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// One port in words: verdict, remedies, risks, what is open.
#[must_use]
pub fn port_text(port: &Port) -> String {
    let mut out = format!(
        "{} on {}: {}\n",
        port.driver,
        short(&port.kernel),
        verdict(port)
    );
    let mut table = Vec::new();
    for remedy in &port.remedies {
        let risk = match remedy.risk {
            Risk::None => "none",
            Risk::Default => "default",
            Risk::Behaviour => "behaviour",
            Risk::Unknown => "unknown",
        };
        let row = [remedy.kind.word(), &remedy.subject, risk, &remedy.origin];
        table.push(row.iter().map(|s| format!(" {s}")).collect::<Vec<_>>());
    }
    out.push_str(&columns(&table));
    open_gaps(&mut out, &port.open);
    risks(&mut out, "risks", port);
    for place in &port.unanalysed {
        let _ = writeln!(out, "not analysed: {place}");
    }
    if port.verdict == Verdict::Broken {
        let _ = writeln!(out, "{}", indent(&port.broken));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_a_row_and_a_kernel_a_column() {
        let cells = [
            ("a", "debian/6.1", "x"),
            ("a", "debian/7.3", "y"),
            ("b", "debian/7.3", "z"),
        ];
        let table = grid(cells.into_iter().map(|(d, k, w)| (d, k, w.to_owned())));
        assert_eq!(table[0], ["driver", "6.1", "7.3"]);
        assert_eq!(table[1], ["a", "x", "y"]);
        assert_eq!(table[2], ["b", "", "z"]);
    }
}
