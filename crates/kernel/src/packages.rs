//! Any package of Debian's archive, by its name in a suite's signed index: listed, fetched, unpacked. Never touches dpkg's state.

use crate::fetch::Progress;
use crate::mirror::Mirrors;
use crate::record::Package;
use crate::{Cache, Error, Result, archive, debversion, fetch, files, index};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A package, and the suite that offers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Its file.
    pub package: Package,
    /// The suite, `bookworm` or `bookworm-security`.
    pub suite: String,
}

impl Cache {
    /// The packages of a release (with its updates and security updates; component main, amd64 and all) whose name is wanted:
    /// of each the newest, by name.
    ///
    /// # Errors
    /// When an index cannot be had or is not signed by Debian, or the mirror has no such release.
    pub fn archive_packages(
        &self,
        release: &str,
        wanted: &dyn Fn(&str) -> bool,
        progress: &dyn Fn(Progress),
    ) -> Result<Vec<Offered>> {
        let mirrors = Mirrors::of_this_machine();
        let mut newest: BTreeMap<String, Offered> = BTreeMap::new();
        let mut found = false;
        for suite in fetch::suites_of(release) {
            let named = |line: &str| line.strip_prefix("Package: ").is_some_and(wanted);
            let Some(offers) = index::offers_of(self, &mirrors, &suite, &named, progress)? else {
                continue;
            };
            found = true;
            for offer in offers {
                let package = offer.package;
                let older = newest.get(&package.name).is_some_and(|known| {
                    debversion::compare(&known.package.version, &package.version).is_ge()
                });
                if !older {
                    let suite = suite.clone();
                    newest.insert(package.name.clone(), Offered { package, suite });
                }
            }
        }
        match found {
            true => Ok(newest.into_values().collect()),
            false => Err(Error::Input(format!(
                "the mirror has no release `{release}`"
            ))),
        }
    }

    /// A package's contents below `packages/` in the cache, fetched and verified on first use.
    ///
    /// # Errors
    /// When the mirror does not have it, or what it sends is not what Debian signed.
    pub fn unpacked_package(
        &self,
        offered: &Offered,
        progress: &dyn Fn(Progress),
    ) -> Result<PathBuf> {
        let package = &offered.package;
        let short = package.sha256.get(..16).unwrap_or_default();
        let place = self
            .root()
            .join("packages")
            .join(format!("{}-{short}", package.name));
        if place.is_dir() {
            return Ok(place);
        }
        let mirrors = Mirrors::of_this_machine();
        let deb = self.download_from(&mirrors, &offered.suite, package, progress)?;
        let deb = deb.ok_or_else(|| {
            Error::Input(format!(
                "{} {} is gone from the archive ({}); list the packages again",
                package.name, package.version, package.filename
            ))
        })?;
        unpack_to(&deb, &place)?;
        files::remove_file(&deb)?;
        Ok(place)
    }
}

fn unpack_to(deb: &Path, place: &Path) -> Result<()> {
    let parent = place.parent().unwrap_or(place);
    files::make_dir(parent)?;
    let temp = tempfile::Builder::new()
        .prefix(".tmp-")
        .tempdir_in(parent)
        .map_err(Error::io(parent))?;
    let dir = temp.path().join("package");
    archive::unpack_deb(deb, &dir)?;
    files::replace_dir(&dir, place)
}
