//! A driver and those headers of its home kernel's `include/` that no other driver includes: where the target's version is another one
//! (the driver that stands there changed with it) or none, the driver's own is part of its source.

use super::edit::{Edit, apply};
use super::{Reason, Upgrade, headers};
use kspan_port::driver::Driver;
use kspan_port::gap::{Need, Risk};
use kspan_port::view::View;
use kspan_port::{Engine, Error, Result, store};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const FORMAT: &str = "own-headers-1";

/// Where they lie in the upgraded source.
const DIR: &str = "include";

/// The driver with its headers, where that builds; else what became of it without.
///
/// # Errors
/// As [`super::upgrade`].
pub fn with(
    engine: &Engine,
    driver: &Driver,
    target: &View,
    narrow: Upgrade,
    one: &dyn Fn(&Driver) -> Result<Upgrade>,
) -> Result<Upgrade> {
    let home = engine.view(&driver.manifest.home)?;
    let text = |view: &View, header: &str| std::fs::read(view.header_path(header)?).ok();
    let differs = |h: &&String| text(&home, h).is_some_and(|own| text(target, h) != Some(own));
    // Those that only the driver includes, and those that declare what it exports, in the form that it has there.
    let asked = narrow.open.iter().filter_map(|gap| match &gap.need {
        Need::Header { header } => Some(header),
        _ => None,
    });
    let own = driver.manifest.private_headers.iter();
    let brought: BTreeSet<&String> = own.chain(asked).filter(differs).collect();
    if brought.is_empty() {
        return Ok(narrow);
    }
    let set = compose(engine, driver, &home, &brought)?;
    let wide = one(&set)?;
    match wide.builds {
        true => Ok(joined(narrow.before.clone(), wide, &brought)),
        false => Ok(narrow),
    }
}

/// The driver with the headers below `include/`, kept by the content of both.
fn compose(
    engine: &Engine,
    driver: &Driver,
    home: &View,
    brought: &BTreeSet<&String>,
) -> Result<Driver> {
    let digest = driver.digest()?;
    let mut parts = vec![FORMAT, &digest, &home.kernel.digest];
    parts.extend(brought.iter().map(|h| h.as_str()));
    let base = engine.cache.root().join("work").join("sets");
    let to = base.join(store::key(&parts));
    if let Ok(known) = Driver::load(&to) {
        return Ok(known);
    }
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::Io { path, source }
    };
    std::fs::create_dir_all(&base).map_err(io(&base))?;
    let staged = tempfile::tempdir_in(&base).map_err(io(&base))?;
    let dir = staged.path().join("set");
    store::copy_tree(driver, &dir)?;
    for header in brought {
        let from = home.header_path(header).unwrap_or_default();
        let place = dir.join(own_place(header));
        let parent = place.parent().unwrap_or(&dir);
        std::fs::create_dir_all(parent).map_err(io(parent))?;
        std::fs::copy(&from, &place).map_err(io(&from))?;
    }
    let mut manifest = driver.manifest.clone();
    manifest.private_headers.retain(|h| !brought.contains(&h));
    manifest.save(&dir)?;
    for file in Driver::load(&dir)?.sources()? {
        include_own(&dir, &file, brought).map_err(io(&dir.join(&file)))?;
    }
    // Another process may have been quicker; its set is the same.
    if let Err(source) = std::fs::rename(&dir, &to)
        && !to.is_dir()
    {
        return Err(Error::Io { path: to, source });
    }
    Ok(Driver::load(&to)?)
}

/// Where a header lies in the driver: `include/linux/x.h`.
fn own_place(header: &str) -> PathBuf {
    Path::new(DIR).join(header.strip_prefix("uapi/").unwrap_or(header))
}

/// A file's includes of these headers name the driver's own.
fn include_own(dir: &Path, file: &Path, brought: &BTreeSet<&String>) -> std::io::Result<()> {
    if !file.extension().is_some_and(|e| e == "c" || e == "h") {
        return Ok(());
    }
    let bytes = std::fs::read(dir.join(file))?;
    // A text that is no UTF-8 has no such includes of its own accord: it is left as it is.
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Ok(());
    };
    let up = "../".repeat(file.components().count().saturating_sub(1));
    let mut edits = Vec::new();
    for include in headers::includes(text) {
        let name = text.get(include.name.clone()).unwrap_or_default();
        let is_it = |h: &&&String| h.as_str() == name || h.strip_prefix("uapi/") == Some(name);
        if let Some(header) = brought.iter().find(is_it) {
            // The name with its brackets or quotes.
            let range = include.name.start - 1..include.name.end + 1;
            let own = format!("\"{up}{}\"", own_place(header).display());
            edits.push(Edit::replace(range, own));
        }
    }
    match edits.is_empty() {
        true => Ok(()),
        false => std::fs::write(dir.join(file), apply(&bytes, &edits).text),
    }
}

/// The series of the driver with its headers: first these, as they are.
fn joined(
    before: BTreeMap<PathBuf, Vec<u8>>,
    wide: Upgrade,
    brought: &BTreeSet<&String>,
) -> Upgrade {
    let names: Vec<String> = brought.iter().map(|h| format!("<{h}>")).collect();
    let names = names.join(", ");
    let reason = Reason {
        id: format!("generated: own {names}"),
        subject: format!("keep {names} with the driver"),
        why: format!(
            "{names} of {} belong to the driver; the newer kernel's own are for the driver as it stands there.",
            wide.home
        ),
        commit: String::new(),
        risk: Risk::Default,
        meaning: String::new(),
        keeps: false,
    };
    wide.led_by(before, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_includes_the_drivers_own() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let file = Path::new("sub/a.c");
        let text = "#include <linux/io.h>\n#include <linux/a/x.h>\n# include <b.h> // b\n";
        std::fs::write(dir.path().join(file), text).unwrap();
        let brought = ["linux/a/x.h".to_owned(), "uapi/b.h".to_owned()];
        let brought: BTreeSet<&String> = brought.iter().collect();
        include_own(dir.path(), file, &brought).unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join(file)).unwrap(),
            "#include <linux/io.h>\n#include \"../include/linux/a/x.h\"\n# include \"../include/b.h\" // b\n"
        );
    }
}
