//! What is asked of a kernel before a form of the driver is chosen for it: the declarations of all that the driver calls and of all
//! that its ports are about, which headers there are, what is exported, and the configuration that it reads.

use super::Order;
use kspan_facts::UseKind;
use kspan_port::gap::Need;
use std::collections::{BTreeMap, BTreeSet};

/// The questions; files of the same names in the package.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Words to look for, by header.
    pub words: BTreeMap<String, BTreeSet<String>>,
    /// Symbols of Module.symvers.
    pub exports: BTreeSet<String>,
    /// `CONFIG_X`.
    pub config: BTreeSet<String>,
    /// Headers that are there, or not.
    pub headers: BTreeSet<String>,
}

impl Probes {
    /// The questions for a driver.
    pub fn of(order: &Order<'_>) -> Self {
        let mut probes = Self::default();
        for tu in &order.built.tus {
            for used in tu.tu.uses.iter().filter(|u| u.via_macro.is_none()) {
                match used.kind {
                    UseKind::Function | UseKind::Field => probes.word(&used.header, &used.name),
                    UseKind::Header => drop(probes.headers.insert(used.name.clone())),
                    UseKind::Config => drop(probes.config.insert(used.name.clone())),
                    _ => {}
                }
            }
        }
        probes.exports.extend(named_imports(order));
        for (_, port) in &order.ports {
            for gap in &port.gaps {
                probes.need(order, &gap.need);
            }
            let about = port.findings.iter().map(|f| &f.subject);
            let config = about.filter(|s| s.starts_with("CONFIG_") && !s.contains(' '));
            probes.config.extend(config.cloned());
        }
        probes
    }

    fn word(&mut self, header: &str, word: &str) {
        let plain = |s: &str| !s.is_empty() && !s.contains(char::is_whitespace);
        if plain(header) && plain(word) && !header.starts_with('/') {
            self.words
                .entry(header.to_owned())
                .or_default()
                .insert(word.to_owned());
        }
    }

    fn need(&mut self, order: &Order<'_>, need: &Need) {
        match need {
            Need::Name { name, .. } | Need::Moved { name } | Need::Signature { name } => {
                self.wherever(order, name, name);
            }
            Need::Field { record, field } => self.wherever(order, record, field),
            Need::Callback { record, field, .. } if record.is_empty() => {
                let function = field.split('#').next().unwrap_or_default();
                self.wherever(order, function, function);
            }
            Need::Callback { record, field, .. } => self.wherever(order, record, field),
            Need::Header { header } => drop(self.headers.insert(header.clone())),
            Need::Export { symbol } => drop(self.exports.insert(symbol.clone())),
            // No name stands for them; the declarations around them are asked anyway.
            Need::Qualifier { .. } | Need::Entry { .. } | Need::Diagnostic { .. } => {}
        }
    }

    /// A word in the headers that define `name` on any of the kernels.
    fn wherever(&mut self, order: &Order<'_>, name: &str, word: &str) {
        let views = order.ports.iter().map(|(view, _)| view);
        for view in views.chain([&order.home]) {
            for header in view.facts.headers_of(name) {
                self.word(&header, word);
            }
        }
    }

    /// The files below `probes/`.
    pub fn files(&self) -> [(&'static str, String); 4] {
        let lines = |set: &BTreeSet<String>| set.iter().map(|s| format!("{s}\n")).collect();
        let words = self
            .words
            .iter()
            .map(|(h, w)| {
                let words: Vec<&str> = w.iter().map(String::as_str).collect();
                format!("{h} {}\n", words.join(" "))
            })
            .collect();
        [
            ("words", words),
            ("exports", lines(&self.exports)),
            ("config", lines(&self.config)),
            ("headers", lines(&self.headers)),
        ]
    }
}

/// What the modules import and the source names; the rest is the compiler's own, and another compiler's differ.
fn named_imports(order: &Order<'_>) -> BTreeSet<String> {
    let uses = order.built.tus.iter().flat_map(|t| &t.tu.uses);
    let named: BTreeSet<&str> = uses.map(|u| u.name.as_str()).collect();
    let imports = order.built.imports.iter();
    imports
        .filter(|i| named.contains(i.as_str()))
        .cloned()
        .collect()
}
