//! The driver on its own home kernel: does it build there, with which flags, and what does it take from that kernel?

use crate::{Result, diag, driver::Driver, store};
use kspan_facts::Tu;
use kspan_kernel::{Cache, KbuildOptions, Kernel};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Changes whenever what is kept of a home build changes shape or meaning.
const FORMAT: &str = "home-5";

/// One source file of the driver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HomeTu {
    /// Relative to the driver.
    pub source: PathBuf,
    /// The flags that are this file's own: what kbuild adds to those of an empty module.
    pub extra: Vec<String>,
    /// What it takes from the kernel.
    pub tu: Tu,
}

/// A driver built on its home kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Home {
    /// It built and linked.
    pub ok: bool,
    /// make's words when it did not.
    pub log: String,
    /// The copy of the driver that was built; analysed places are under it.
    pub dir: PathBuf,
    /// Its source files; empty when it is broken.
    pub tus: Vec<HomeTu>,
    /// Warnings at home, the most a port may have.
    pub warnings: usize,
    /// The modules made.
    pub modules: Vec<PathBuf>,
    /// Symbols that the modules import.
    pub imports: Vec<String>,
    /// Symbols that the modules export.
    pub exports: Vec<String>,
    /// Kernel headers that belong to the driver, from its manifest.
    pub private_headers: Vec<String>,
}

impl Home {
    /// A kernel header that belongs to the driver, with or without `uapi/` before its name.
    #[must_use]
    pub fn owns_header(&self, header: &str) -> bool {
        self.private_headers
            .iter()
            .any(|h| h == header || h.strip_prefix("uapi/") == Some(header))
    }

    /// A place of the analysis, relative to the driver; `None` when it lies outside.
    #[must_use]
    pub fn relative<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        path.strip_prefix(&self.dir).ok()
    }
}

/// Builds a driver on its home kernel and reads what it uses; kept by the content of both.
///
/// # Errors
/// When make or libclang cannot be run, or the cache cannot be written. A driver that does not build is no error.
pub fn build(
    cache: &Cache,
    driver: &Driver,
    kernel: &Kernel,
    options: &KbuildOptions,
) -> Result<Home> {
    let key = store::key(&[FORMAT, &driver.digest()?, &kernel.digest]);
    let base = cache.root().join("work").join("home").join(&key);
    let record = base.join("home.json");
    if let Some(home) = store::read::<Home>(&record) {
        return Ok(home);
    }
    let _one_builds = cache.exclusive("home", &key)?;
    if let Some(home) = store::read::<Home>(&record) {
        return Ok(home);
    }
    let dir = base.join("src");
    store::copy_tree(driver, &dir)?;
    let options = KbuildOptions {
        json_diagnostics: true,
        keep_going: true,
        ..options.clone()
    };
    let build = cache.kbuild(kernel, &dir, &options)?;
    let diagnostics = diag::parse(&build.log);
    let mut home = Home {
        ok: build.ok,
        log: if build.ok {
            String::new()
        } else {
            failure(&build.log, &diagnostics)
        },
        tus: Vec::new(),
        warnings: warnings(&diagnostics),
        modules: build.modules.clone(),
        imports: Vec::new(),
        exports: Vec::new(),
        private_headers: driver.manifest.private_headers.clone(),
        dir,
    };
    if build.ok {
        let symbols = crate::link::symbols(&home.dir, &build.modules)?;
        (home.imports, home.exports) = (symbols.imports, symbols.exports);
        home.tus = analyse(cache, kernel, &home.dir, &build.commands)?;
    }
    store::write(&record, &home)?;
    Ok(home)
}

/// How many warnings there are; notes do not count.
#[must_use]
pub fn warnings(diagnostics: &[diag::Diagnostic]) -> usize {
    diagnostics
        .iter()
        .filter(|d| d.severity == diag::Severity::Warning)
        .count()
}

/// The first errors of a failed build, as the compiler or modpost said them.
#[must_use]
pub fn failure(log: &str, diagnostics: &[diag::Diagnostic]) -> String {
    let mut lines: Vec<String> = diagnostics
        .iter()
        .filter(|d| d.severity == diag::Severity::Error)
        .map(|d| match &d.at {
            Some(at) => format!("{}:{}: {}", at.file.display(), at.line, d.message),
            None => d.message.clone(),
        })
        .collect();
    let said = |l: &&str| {
        l.starts_with("ERROR") || l.contains("error:") || l.starts_with("make") && l.contains("***")
    };
    lines.extend(log.lines().filter(said).map(str::to_owned));
    if lines.is_empty() {
        lines.extend(log.lines().rev().take(5).map(str::to_owned));
        lines.reverse();
    }
    lines.truncate(12);
    lines.join("\n")
}

fn analyse(
    cache: &Cache,
    kernel: &Kernel,
    dir: &Path,
    commands: &[kspan_kernel::TuCommand],
) -> Result<Vec<HomeTu>> {
    let flags = cache.compile_flags(kernel)?;
    let own = |c: &&kspan_kernel::TuCommand| {
        c.source.extension().is_some_and(|e| e == "c")
            && !c.source.to_string_lossy().ends_with(".mod.c")
    };
    let sources: Vec<_> = commands.iter().filter(own).collect();
    let mut tus = sources
        .par_iter()
        .map(|command| {
            let tu = kspan_facts::analyse(kernel, &dir.join(&command.source), &command.args, dir)?;
            Ok(HomeTu {
                source: command.source.clone(),
                extra: extra_flags(&flags.args, &command.args),
                tu,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    tus.sort_by(|a, b| a.source.cmp(&b.source));
    tus.dedup_by(|a, b| a.source == b.source);
    Ok(tus)
}

/// The flags in `args` that the empty module of the kernel does not get, in order.
pub(crate) fn extra_flags(template: &[String], args: &[String]) -> Vec<String> {
    let mut known = pair(template);
    let mut extra = Vec::new();
    for group in pair(args) {
        match known.iter().position(|k| *k == group) {
            Some(at) => drop(known.remove(at)),
            None => extra.extend(group),
        }
    }
    extra
}

/// Arguments grouped with the value that follows them (`-include FILE`).
fn pair(args: &[String]) -> Vec<Vec<String>> {
    const TAKES_VALUE: [&str; 9] = [
        "-include",
        "-isystem",
        "-I",
        "-D",
        "-U",
        "-idirafter",
        "-iquote",
        "-imacros",
        "--param",
    ];
    let mut out = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut group = vec![arg.clone()];
        if TAKES_VALUE.contains(&arg.as_str()) {
            group.extend(rest.next().cloned());
        }
        out.push(group);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn keeps_only_the_files_own_flags() {
        let template = words("-Wall -include a.h -O2");
        let args = words("-Wall -include a.h -O2 -include b.h -DX=1");
        assert_eq!(extra_flags(&template, &args), words("-include b.h -DX=1"));
    }
}
