//! What modules import and export, and what modpost says of a link.

use crate::gap::Need;
use crate::{Error, Result};
use kspan_facts::{Facts, symvers};
use object::{Object, ObjectSymbol};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The symbols of a set of modules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Undefined symbols, sorted, without those that a sibling module defines.
    pub imports: Vec<String>,
    /// Symbols exported to other modules, sorted.
    pub exports: Vec<String>,
}

/// Reads the symbol tables of built modules.
///
/// # Errors
/// When a module cannot be read.
pub fn symbols(dir: &Path, modules: &[PathBuf]) -> Result<Symbols> {
    let (mut imports, mut exports) = (BTreeSet::new(), BTreeSet::new());
    for module in modules {
        let path = dir.join(module);
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let file = object::File::parse(&*bytes)
            .map_err(|e| Error::Internal(format!("{}: not a module: {e}", path.display())))?;
        for symbol in file.symbols() {
            let Ok(name) = symbol.name() else { continue };
            if let Some(exported) = name.strip_prefix("__ksymtab_") {
                exports.insert(exported.to_owned());
            } else if symbol.is_undefined() && !name.is_empty() {
                imports.insert(name.to_owned());
            }
        }
    }
    let imports = imports.difference(&exports).cloned().collect();
    Ok(Symbols {
        imports,
        exports: exports.into_iter().collect(),
    })
}

/// Which of some exports have another version (the CRC of their type) in a build's Module.symvers than on the target; those, too, that
/// the build does not export. Where the target keeps no versions, none.
#[must_use]
pub fn changed_versions(dir: &Path, kept: &BTreeSet<String>, target: &Facts) -> Vec<String> {
    if kept.is_empty() {
        return Vec::new();
    }
    let text = std::fs::read_to_string(dir.join("Module.symvers")).unwrap_or_default();
    let built = symvers::parse(&text).unwrap_or_default();
    let version = |symbol: &String| target.export(symbol).map(|e| e.crc);
    kept.iter()
        .filter(|symbol| built.get(*symbol).map(|e| e.crc) != version(symbol))
        .cloned()
        .collect()
}

/// The needs that modpost names: undefined symbols, GPL-only ones, namespaces not imported.
#[must_use]
pub fn modpost(log: &str) -> Vec<Need> {
    let mut out = BTreeSet::new();
    for line in log
        .lines()
        .filter(|l| l.contains("modpost:") || l.starts_with("ERROR"))
    {
        let Some(symbol) = quoted_symbol(line) else {
            continue;
        };
        if line.contains("undefined!")
            || line.contains("GPL-only symbol")
            || line.contains("namespace")
        {
            out.insert(Need::Export {
                symbol: symbol.to_owned(),
            });
        }
    }
    out.into_iter().collect()
}

/// `"sym" [x.ko] undefined!`, `uses GPL-only symbol 'sym'`, `uses symbol sym from namespace NS`.
fn quoted_symbol(line: &str) -> Option<&str> {
    if let Some((_, rest)) = line.split_once("uses symbol ") {
        return rest
            .split_whitespace()
            .next()
            .map(|s| s.trim_matches(['"', '\'']));
    }
    let quote = line.find(['"', '\''])?;
    let end = line[quote + 1..].find(['"', '\''])? + quote + 1;
    line.get(quote + 1..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_modposts_complaints() {
        let log = "ERROR: modpost: \"foo\" [/x/a.ko] undefined!\nERROR: modpost: module a uses symbol bar from namespace NS, but does not import it.\nERROR: modpost: GPL-incompatible module a.ko uses GPL-only symbol 'baz'\nWARNING: modpost: missing MODULE_LICENSE()\n";
        let found: Vec<String> = modpost(log).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["bar (export)", "baz (export)", "foo (export)"]);
    }
}
