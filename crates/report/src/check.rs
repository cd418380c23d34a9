//! The gaps that facts alone show.

use kspan_port::driver::Driver;
use kspan_port::engine::Checked;
use kspan_port::gap::{Gap, Need};
use kspan_port::gates::Finding;
use kspan_port::view::View;
use kspan_port::words;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// A driver on a kernel, checked.
#[derive(Debug, Serialize)]
pub struct CheckCell {
    /// The driver's name.
    pub driver: String,
    /// The target's id.
    pub kernel: String,
    /// Gaps, each with places and words.
    pub gaps: Vec<Gap>,
    /// Possible changes of meaning.
    pub findings: Vec<Finding>,
    /// Places that libclang could not analyse: nothing is known of them.
    pub unanalysed: Vec<String>,
    /// Why the driver fails on its home kernel; empty when it does not.
    pub broken: String,
}

impl CheckCell {
    /// Puts what a check found into words; `known` are the kernels that are open, by which a gap says since when it is one.
    #[must_use]
    pub fn new(driver: &Driver, checked: &Checked, target: &View, known: &[Arc<View>]) -> Self {
        let mut kernels: Vec<&View> = known.iter().map(Arc::as_ref).collect();
        kernels.push(&checked.home);
        let why = |need: &Need| {
            let words = words::why(need, &checked.home, target);
            match words::oldest_with(need, &checked.home, &kernels) {
                Some(oldest) => format!(
                    "{words}; since {} of the kernels here",
                    oldest.kernel.release
                ),
                None => words,
            }
        };
        let mut gaps: BTreeMap<_, Gap> = BTreeMap::new();
        for found in checked.found.iter().filter(|f| f.hard) {
            let new = || Gap {
                need: found.need.clone(),
                places: Vec::new(),
                why: why(&found.need),
            };
            let gap = gaps.entry(found.need.clone()).or_insert_with(new);
            gap.places.extend(
                found
                    .places
                    .iter()
                    .filter(|p| !gap.places.contains(p))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
        }
        Self {
            driver: driver.manifest.name.clone(),
            kernel: target.kernel.id.clone(),
            gaps: gaps.into_values().collect(),
            findings: checked.findings.clone(),
            unanalysed: checked
                .built
                .tus
                .iter()
                .flat_map(|t| t.tu.unanalysed.clone())
                .collect(),
            broken: checked.built.log.clone(),
        }
    }

    /// Nothing stands in the way.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.gaps.is_empty() && self.broken.is_empty()
    }
}

/// All cells in words.
#[must_use]
pub fn check_text(cells: &[CheckCell]) -> String {
    let mut out = String::new();
    for cell in cells {
        let _ = writeln!(
            out,
            "{} on {}: {}",
            cell.driver,
            cell.kernel,
            crate::matrix::counted(cell.gaps.len(), "gap")
        );
        if !cell.broken.is_empty() {
            let _ = writeln!(
                out,
                "  broken on its home kernel:\n  {}",
                cell.broken.replace('\n', "\n  ")
            );
        }
        for gap in &cell.gaps {
            let place = gap
                .places
                .first()
                .map(|p| format!("{}:{}: ", p.file.display(), p.line))
                .unwrap_or_default();
            let more = if gap.places.len() > 1 {
                format!(" (and {} more places)", gap.places.len() - 1)
            } else {
                String::new()
            };
            let _ = writeln!(out, "  {place}[{}] {}{more}", gap.need.kind(), gap.why);
        }
        for finding in &cell.findings {
            let place = finding
                .places
                .first()
                .map(|p| format!("{p}: "))
                .unwrap_or_default();
            let _ = writeln!(out, "  {place}[meaning] {}", finding.meaning);
        }
        for place in &cell.unanalysed {
            let _ = writeln!(out, "  not analysed: {place}");
        }
    }
    out
}
