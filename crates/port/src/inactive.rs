//! What a source keeps for other kernels or configurations: files that the target's Kbuild leaves out, and what the target's preprocessor leaves
//! out, ask nothing of the target.

use crate::driver::{Driver, evaluate, kbuild_file};
use crate::home::{Home, HomeTu};
use crate::plan::option_evolution;
use crate::view::View;
use crate::{Error, Result, lex};
use kspan_evolve::Library;
use kspan_facts::{Loc, Skipped, Tu};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Words by which a source asks which kernel it is compiled for.
const VERSION_WORDS: [&[u8]; 2] = [b"LINUX_VERSION_CODE", b"RHEL_RELEASE_CODE"];

/// What a file asks of the kernel that it is compiled for.
#[derive(Debug, Default)]
struct Asks {
    /// Which version it is.
    version: bool,
    /// For options that the two kernels answer in two ways.
    options: BTreeSet<String>,
}

/// The driver as the target's build sees it: without the files that are not built there, and without what stands between directives
/// that leave it out there. Of a source that asks for no version only what an option of the configuration leaves out is taken away: what
/// hangs on a macro that is to be carried must stay. An option that the port itself gives, the driver's own or by an evolution, is as at home.
///
/// # Errors
/// When make or libclang cannot be run.
pub fn without(
    mut built: Home,
    driver: &Driver,
    (home, target): (&View, &View),
    library: &Library,
) -> Result<Home> {
    if home.kernel.id == target.kernel.id {
        return Ok(built);
    }
    let given = |option: &str| {
        driver.manifest.config.contains_key(option)
            || option_evolution(option, home, target, library).is_some()
    };
    let differs =
        |option: &str| home.facts.config(option) != target.facts.config(option) && !given(option);
    let not_built = not_built(&built, (home, target), &differs)?;
    built.tus.retain(|tu| !not_built.contains(&tu.source));
    let asks = asked(&built.tus, &differs);
    left_out(built, &asks, target)
}

/// The same of what a source keeps for other versions alone: one that moves to the target moves with what other configurations compile.
///
/// # Errors
/// When libclang cannot be run.
pub fn without_versions(built: Home, target: &View) -> Result<Home> {
    let asks = asked(&built.tus, &|_| false);
    left_out(built, &asks, target)
}

fn left_out(mut built: Home, asks: &BTreeMap<PathBuf, Asks>, target: &View) -> Result<Home> {
    let version = asks.values().any(|a| a.version);
    let dir = built.dir.clone();
    built.tus.par_iter_mut().try_for_each(|tu| {
        if !version && !files_of(&tu.tu).iter().any(|f| asks.contains_key(*f)) {
            return Ok(());
        }
        let args: Vec<String> = target.flags.args.iter().chain(&tu.extra).cloned().collect();
        let mut skipped = kspan_facts::skipped(&target.kernel, &dir.join(&tu.source), &args, &dir)?;
        if !version {
            skipped.retain(|s| asks.get(&s.file).is_some_and(|a| by_option(s, a)));
        }
        leave_out(&mut tu.tu, &skipped);
        Result::Ok(())
    })?;
    Ok(built)
}

/// The source files that the driver's Kbuild names with the home kernel's configuration, and not with the target's.
fn not_built(
    built: &Home,
    (home, target): (&View, &View),
    differs: &dyn Fn(&str) -> bool,
) -> Result<BTreeSet<PathBuf>> {
    let parents = built
        .tus
        .iter()
        .flat_map(|tu| tu.source.ancestors().skip(1));
    let dirs: BTreeSet<&Path> = parents
        .filter(|dir| kbuild_file(&built.dir.join(dir)).is_some())
        .collect();
    let mut options = BTreeSet::new();
    for dir in &dirs {
        let file = kbuild_file(&built.dir.join(dir)).unwrap_or_default();
        let text = std::fs::read(&file).map_err(|e| Error::io(&file, e))?;
        options.extend(options_in(&String::from_utf8_lossy(&text)));
    }
    if !options.iter().any(|o| differs(o)) {
        return Ok(BTreeSet::new());
    }
    let dirs: Vec<String> = dirs.iter().map(|d| d.display().to_string()).collect();
    let named = |view: &View| -> Result<Option<BTreeSet<PathBuf>>> {
        let value = |o: &String| match differs(o) {
            true => view.facts.config(o),
            false => home.facts.config(o),
        };
        let set = |o: &String| Some((o.clone(), value(o)?));
        let config: BTreeMap<String, String> = options.iter().filter_map(set).collect();
        let all = evaluate(&built.dir, &config, &dirs)?;
        // A file that cannot be evaluated says nothing of what it leaves out.
        if all.iter().any(|d| d.error.is_some()) {
            return Ok(None);
        }
        let objects = all.iter().flat_map(|vars| {
            let parts = vars.parts.values().flatten();
            let objects = parts.chain(&vars.obj_m).chain(&vars.obj_y);
            objects.map(|o| Path::new(&vars.dir).join(o).with_extension("c"))
        });
        Ok(Some(objects.collect()))
    };
    let (Some(at_home), Some(there)) = (named(home)?, named(target)?) else {
        return Ok(BTreeSet::new());
    };
    Ok(at_home.difference(&there).cloned().collect())
}

/// The options that a text names: `CONFIG_X`, also as `IS_ENABLED()` sees a module's.
fn options_in(text: &str) -> BTreeSet<String> {
    let words = lex::words(text).into_iter();
    let options = words.filter(|w| w.starts_with("CONFIG_"));
    options
        .map(|w| w.strip_suffix("_MODULE").unwrap_or(&w).to_owned())
        .collect()
}

/// The driver's own files that hold a use.
fn files_of(tu: &Tu) -> BTreeSet<&Path> {
    tu.uses.iter().map(|u| u.at.file.as_path()).collect()
}

/// What the driver's files ask of the kernel, by file; those that ask nothing are left out.
fn asked(tus: &[HomeTu], differs: &dyn Fn(&str) -> bool) -> BTreeMap<PathBuf, Asks> {
    let files: BTreeSet<&Path> = tus.iter().flat_map(|tu| files_of(&tu.tu)).collect();
    let asks = files.into_iter().filter_map(|file| {
        let text = std::fs::read(file).unwrap_or_default();
        let has = |word: &&[u8]| lex::find(&text, 0, word).is_some();
        let mut options = options_in(&String::from_utf8_lossy(&text));
        options.retain(|o| differs(o));
        let version = VERSION_WORDS.iter().any(has);
        (version || !options.is_empty()).then(|| (file.to_owned(), Asks { version, options }))
    });
    asks.collect()
}

/// The directive that begins what is left out asks for an option which the kernels answer in two ways.
fn by_option(skipped: &Skipped, asks: &Asks) -> bool {
    let text = std::fs::read(&skipped.file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let at = skipped.between.0.saturating_sub(1) as usize;
    let words = text.lines().nth(at).map(options_in).unwrap_or_default();
    words.iter().any(|o| asks.options.contains(o))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_words_with_their_prefix() {
        let found = options_in(
            "#if IS_ENABLED(CONFIG_A) || defined(CONFIG_B_MODULE)\nx-$(CONFIG_C) += c.o\nMY_CONFIG_D",
        );
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, ["CONFIG_A", "CONFIG_B", "CONFIG_C"]);
    }

    #[test]
    fn only_the_directive_that_asks_for_the_option_leaves_out_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.c");
        std::fs::write(
            &file,
            "#ifdef CONFIG_A\nint a;\n#endif\n#ifdef NEWER\nint b;\n#endif\n",
        )
        .unwrap();
        let asks = Asks {
            version: false,
            options: BTreeSet::from(["CONFIG_A".to_owned()]),
        };
        let at = |between| Skipped {
            file: file.clone(),
            between,
        };
        assert!(by_option(&at((1, 3)), &asks));
        assert!(!by_option(&at((4, 6)), &asks));
    }
}
