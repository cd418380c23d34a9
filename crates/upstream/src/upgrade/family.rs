//! A driver and the modules of its family: what it takes from another module of its home kernel, which the target's own module
//! of that name no longer has, is brought along and moved with it.

use super::{Reason, Upgrade};
use kspan_port::driver::Driver;
use kspan_port::gap::Risk;
use kspan_port::provider::{self, Place, Provider};
use kspan_port::view::View;
use kspan_port::{Engine, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The driver with its family, where that builds; else what became of it alone.
///
/// # Errors
/// As [`super::upgrade`].
pub fn with(
    engine: &Engine,
    driver: &Driver,
    target: &View,
    mut narrow: Upgrade,
    one: &dyn Fn(&Driver) -> Result<Upgrade>,
) -> Result<Upgrade> {
    let home = engine.view(&driver.manifest.home)?;
    let Some(tree) = engine.cache.source_tree_if_present(&home.kernel) else {
        return Ok(narrow);
    };
    let place = Place::of(&engine.cache, driver, (&home, &tree), target)?;
    let mut open = narrow.open.clone();
    let mut taken = BTreeSet::new();
    loop {
        let wanted = provider::wanted(&open, &taken, &place);
        provider::explain(&mut narrow.open, &wanted);
        if wanted.providers.is_empty() || provider::stays(&open, &home) {
            return Ok(narrow);
        }
        taken.extend(wanted.providers);
        let set = match provider::compose(&engine.cache, driver, &home, &tree, &taken) {
            Ok(set) => set,
            Err(why) => {
                narrow.open = provider::told(&narrow.open, &taken, &home, &why.to_string());
                return Ok(narrow);
            }
        };
        let wide = one(&set)?;
        if wide.builds {
            return Ok(joined(narrow.before, wide, &taken, &home));
        }
        let words = format!("{} more stay open", wide.open.len());
        narrow.open = provider::told(&narrow.open, &taken, &home, &words);
        open = wide.open;
    }
}

/// The series of a set: first the family's modules as they are.
fn joined(
    before: BTreeMap<PathBuf, Vec<u8>>,
    wide: Upgrade,
    taken: &BTreeSet<Provider>,
    home: &View,
) -> Upgrade {
    let names: Vec<String> = taken.iter().map(|p| p.name().to_owned()).collect();
    let remedies: Vec<_> = taken.iter().map(|p| p.remedy(home)).collect();
    let risk = remedies.iter().map(|r| r.risk).max().unwrap_or(Risk::None);
    let meaning: BTreeSet<&str> = remedies.iter().map(|r| r.meaning.as_str()).collect();
    let reason = Reason {
        id: format!("generated: family {}", names.join(" ")),
        subject: format!("bring {} along", names.join(", ")),
        why: format!(
            "The newer kernel's own {} lack what the driver takes from them. Their sources are those of {}.",
            names.join(", "),
            home.kernel.release
        ),
        commit: String::new(),
        risk,
        meaning: meaning.into_iter().collect::<Vec<_>>().join("; "),
        keeps: false,
    };
    Upgrade {
        family: names,
        ..wide.led_by(before, reason)
    }
}
