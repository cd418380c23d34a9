//! Does an evolution's text compile on a kernel? The compiler of that kernel says.

use crate::conditions::KernelView;
use crate::library::Library;
use crate::model::{Condition, Evolution, Kind};
use kspan_kernel::{Cache, CompileFlags, Error, Kernel, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// A kernel to compile for.
pub struct Bench<'a> {
    /// Where the toolchain is found.
    pub cache: &'a Cache,
    /// The kernel.
    pub kernel: &'a Kernel,
    /// The flags of an empty module.
    pub flags: &'a CompileFlags,
    /// Its facts.
    pub view: &'a (dyn KernelView + Sync),
    /// A directory for the files to compile.
    pub work: &'a Path,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It compiles.
    Good,
    /// It needs definitions that a port carries; nothing to compile here.
    NeedsCarry(BTreeSet<String>),
    /// It does not, with the compiler's first words.
    Bad(String),
}

/// Compiles the text of an evolution with everything that it needs.
///
/// # Errors
/// When the sandbox or the compiler cannot be started.
pub fn judge(bench: &Bench<'_>, library: &Library, evolution: &Evolution) -> Result<Outcome> {
    // A structure's other form is told by the member that it lacks.
    let lacks_member =
        |c: &Condition| matches!(c, Condition::Field(tag, _) if evolution.provides.contains(tag));
    if let Kind::Override { home_arity, .. } = &evolution.kind
        && home_arity.is_empty()
        && evolution.body.is_empty()
        && evolution.body_lacks.is_empty()
        && !evolution.lacks.iter().any(lacks_member)
    {
        return Ok(Outcome::Bad(
            "an override must say which form it serves: home_arity, body, body_lacks, or a member that the structure lacks".to_owned(),
        ));
    }
    let text = match source(library, evolution, bench.view) {
        Ok(text) => text,
        Err(missing) => return Ok(Outcome::NeedsCarry(missing)),
    };
    Ok(match compile(bench, &evolution.id, &text)? {
        None => Outcome::Good,
        Some(words) => Outcome::Bad(words.lines().take(5).collect::<Vec<_>>().join("\n")),
    })
}

/// Compiles one file for its diagnostics; the errors, a line each, if there are any.
///
/// # Errors
/// When the sandbox or the compiler cannot be started, or the file cannot be written.
pub fn compile(bench: &Bench<'_>, name: &str, text: &str) -> Result<Option<String>> {
    let name = format!("{name}-{}.c", bench.kernel.digest.get(..8).unwrap_or("k"));
    let path = bench.work.join(&name);
    std::fs::write(&path, text).map_err(|source| Error::Io {
        path: path.clone(),
        source,
    })?;
    let output = bench
        .cache
        .sandboxed(bench.kernel, &bench.flags.cc, bench.work, &[])?
        .args(&bench.flags.args)
        .args([
            "-DKBUILD_MODNAME=\"kspan\"",
            "-DKBUILD_BASENAME=\"kspan\"",
            "-D__KBUILD_MODNAME=kmod_kspan",
        ])
        .args(["-std=gnu11", "-fsyntax-only", "-Werror", &name])
        .output()
        .map_err(|source| Error::Io {
            path: path.clone(),
            source,
        })?;
    if output.status.success() {
        return Ok(None);
    }
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<&str> = words.lines().filter(|l| l.contains("error")).collect();
    Ok(Some(if errors.is_empty() {
        words
    } else {
        errors.join("\n")
    }))
}

/// The includes that every text gets, and those given, as C. Those of `linux/` come first: other headers, and those of an
/// architecture most, lean on them without saying so.
#[must_use]
pub fn includes<'a>(headers: impl IntoIterator<Item = &'a str>) -> String {
    let place = |h: &&str| match h.split('/').next() {
        Some("linux") => 0,
        Some("asm") => 2,
        _ => 1,
    };
    let mut all: Vec<&str> = vec!["linux/kernel.h", "linux/slab.h"];
    all.extend(headers);
    all.sort_unstable_by_key(|h| (place(h), *h));
    all.dedup();
    let lines: String = all.iter().map(|h| format!("#include <{h}>\n")).collect();
    format!("#include <linux/module.h>\n{lines}")
}

/// The text with everything it needs, as one source file.
fn source(
    library: &Library,
    evolution: &Evolution,
    view: &dyn KernelView,
) -> std::result::Result<String, BTreeSet<String>> {
    let plan = library.plan(evolution.needs.iter().map(String::as_str), view);
    let missing: BTreeSet<String> = plan
        .carry
        .iter()
        .chain(&plan.unserved)
        .filter(|n| !view.has(n))
        .cloned()
        .collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let all: Vec<&Evolution> = plan.evolutions.into_iter().chain([evolution]).collect();
    let headers = all.iter().flat_map(|e| e.includes.iter());
    let mut text = includes(headers.map(String::as_str));
    for e in all {
        text.push_str(&format!(
            "#line 1 \"{}\"\n{}\n",
            e.id,
            e.text().unwrap_or_default()
        ));
    }
    text.push_str(&uses(evolution));
    Ok(text)
}

/// Takes the address of every function that the text defines, so that none goes unread.
fn uses(evolution: &Evolution) -> String {
    if let Kind::Access {
        record,
        read,
        write,
        place,
        ..
    } = &evolution.kind
    {
        let read = read.as_deref().or(place.as_deref());
        return use_member(record, read, write.as_deref());
    }
    let text = evolution.text().unwrap_or_default();
    let functions = evolution
        .provides
        .iter()
        .filter(|name| text.lines().any(|line| defines(line, name)));
    functions
        .map(|n| {
            format!(
                "void *kspan_use_{n}(void);\nvoid *kspan_use_{n}(void) {{ return (void *){n}; }}\n"
            )
        })
        .collect()
}

/// A function that reads and writes a member by the evolution's expressions.
#[must_use]
pub fn use_member(record: &str, read: Option<&str>, write: Option<&str>) -> String {
    let fill = |e: &str| e.replace("{0}", "(p)").replace("{1}", "(0)");
    let statement =
        |e: Option<&str>| e.map_or(String::new(), |e| format!("\t(void)({});\n", fill(e)));
    format!(
        "void kspan_use_{record}(struct {record} *p);\nvoid kspan_use_{record}(struct {record} *p)\n{{\n{}{}}}\n",
        statement(read),
        write.map_or(String::new(), |e| format!("\t{};\n", fill(e))),
    )
}

/// The line starts the definition of the function: `static inline int name(`, not `static int kspan_name(`.
fn defines(line: &str, name: &str) -> bool {
    let before = line
        .strip_prefix("static ")
        .and_then(|rest| rest.split_once(&format!("{name}(")))
        .map(|(b, _)| b);
    before.is_some_and(|b| b.ends_with([' ', '*']))
}
