//! Forms that a source keeps for kernels other than its home: what the target's preprocessor leaves out asks nothing of the target.

use crate::home::Home;
use crate::view::View;
use crate::{Result, lex};
use kspan_facts::{Loc, Skipped, Tu};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;

/// Words by which a source asks which kernel it is compiled for.
const VERSION_WORDS: [&[u8]; 2] = [b"LINUX_VERSION_CODE", b"RHEL_RELEASE_CODE"];

/// The driver as the target's compiler sees it: without what stands between directives that leave it out there. A source that asks for
/// no version is left as it is.
///
/// # Errors
/// When libclang cannot be run.
pub fn without(mut built: Home, target: &View) -> Result<Home> {
    if !built.tus.iter().any(|t| asks_for_a_version(&t.tu)) {
        return Ok(built);
    }
    let dir = built.dir.clone();
    built.tus.par_iter_mut().try_for_each(|tu| {
        let args: Vec<String> = target.flags.args.iter().chain(&tu.extra).cloned().collect();
        let skipped = kspan_facts::skipped(&target.kernel, &dir.join(&tu.source), &args, &dir)?;
        leave_out(&mut tu.tu, &skipped);
        Result::Ok(())
    })?;
    Ok(built)
}

/// A file of the driver's own, which holds a use, has one of the words.
fn asks_for_a_version(tu: &Tu) -> bool {
    let mut files: Vec<&Path> = tu.uses.iter().map(|u| u.at.file.as_path()).collect();
    files.sort_unstable();
    files.dedup();
    files.into_iter().any(|file| {
        let text = std::fs::read(file).unwrap_or_default();
        let has = |word: &&[u8]| lex::find(&text, 0, word).is_some();
        VERSION_WORDS.iter().any(has)
    })
}

fn leave_out(tu: &mut Tu, skipped: &[Skipped]) {
    let seen = |at: &Loc| {
        !skipped
            .iter()
            .any(|s| s.file == at.file && s.between.0 < at.line && at.line < s.between.1)
    };
    tu.uses.retain(|u| seen(&u.at));
    // A function whose head stands there once for each kernel has another type on the target than at home.
    let other: BTreeSet<String> = tu
        .functions
        .iter()
        .filter(|f| !seen(&f.start))
        .map(|f| f.name.clone())
        .collect();
    tu.functions.retain(|f| seen(&f.start) || seen(&f.end));
    tu.bindings
        .retain(|b| seen(&b.at) && !other.contains(&b.function));
    tu.includes.retain(|(at, ..)| seen(at));
}
