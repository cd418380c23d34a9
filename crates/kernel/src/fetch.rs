//! From `debian/SUITE` to a kernel in the cache; source trees and images on demand.

use crate::index::{self, Choice, Offer};
use crate::lock::Lock;
use crate::mirror::{self, Mirrors};
use crate::record::{Package, Record};
use crate::{Cache, Error, Kernel, Result, files, unpack};
use std::fs::File;
use std::path::{Path, PathBuf};

/// What the user wants fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchSpec {
    /// A suite, or one kernel by its version.
    pub target: Target,
    /// `amd64` (the default), `cloud-amd64`, `rt-amd64`.
    pub flavour: String,
}

/// A suite, or one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The newest kernel of a suite, its security and stable updates included; backports only if named.
    Suite(String),
    /// A package version (`6.1.192-2`) or a release (`6.1.0-56-amd64`).
    Exact(String),
}

/// What a fetch is doing now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Reads what a suite offers.
    Index {
        /// The suite.
        suite: String,
    },
    /// The mirror's index is older than Debian says it should be: there may be newer kernels.
    Stale {
        /// The suite.
        suite: String,
        /// Until when it was valid.
        until: String,
    },
    /// Downloads a package.
    Download {
        /// The package.
        package: String,
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Unpacks a kernel, its source tree or its image.
    Unpack {
        /// What.
        what: String,
    },
    /// Looks for a compiler that builds for the kernel.
    Toolchain {
        /// The kernel.
        kernel: String,
    },
    /// Makes a minimal root with a compiler that this machine lacks.
    Root {
        /// The suite it is made from.
        suite: String,
        /// The compiler.
        compiler: String,
    },
}

/// A kernel's image and modules, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The bootable image.
    pub vmlinuz: PathBuf,
    /// `lib/modules/RELEASE`.
    pub modules: PathBuf,
}

const SUITES: [&str; 6] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "sid",
    "experimental",
];

impl FetchSpec {
    /// Reads `debian/SUITE`, `debian/VERSION` or `debian/RELEASE`, each perhaps with `/FLAVOUR`.
    ///
    /// # Errors
    /// Says what forms there are.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::Input(format!(
                "`{text}` names no kernel to fetch. Forms: debian/SUITE (debian/bookworm, debian/trixie-backports, debian/sid), \
                 debian/VERSION (debian/6.1.192-2), debian/RELEASE (debian/6.1.0-56-amd64); add /cloud or /rt for another flavour"
            ))
        };
        let mut parts = text.split('/');
        let (distribution, name, flavour) =
            (parts.next(), parts.next().unwrap_or_default(), parts.next());
        let word = |w: &str| {
            w.starts_with(|c: char| c.is_ascii_alphanumeric())
                && w.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "+.~:-_".contains(c))
        };
        let well_formed = distribution == Some("debian")
            && word(name)
            && flavour.is_none_or(word)
            && parts.next().is_none();
        if !well_formed {
            return Err(bad());
        }
        let flavour = match flavour {
            None | Some("amd64") => "amd64".to_owned(),
            Some(f) if f.ends_with("-amd64") => f.to_owned(),
            Some(f) => format!("{f}-amd64"),
        };
        let target = match name.starts_with(|c: char| c.is_ascii_digit()) {
            true => Target::Exact(name.to_owned()),
            false => Target::Suite(name.to_owned()),
        };
        Ok(Self { target, flavour })
    }

    /// Groups of suites to look in, one after the other; the first that has the kernel ends the search.
    fn suites(&self) -> Vec<Vec<String>> {
        match &self.target {
            Target::Suite(s) => vec![suites_of(s)],
            Target::Exact(_) => {
                let small = SUITES
                    .iter()
                    .filter(|s| !rolls(s))
                    .map(|s| vec![format!("{s}-security"), format!("{s}-backports")]);
                small
                    .chain(SUITES.iter().rev().map(|s| vec![(*s).to_owned()]))
                    .collect()
            }
        }
    }
}

fn rolls(suite: &str) -> bool {
    matches!(suite, "sid" | "unstable" | "experimental" | "rc-buggy")
}

/// The suites that a release is made of.
pub(crate) fn suites_of(release: &str) -> Vec<String> {
    if release.contains('-') || rolls(release) {
        return vec![release.to_owned()];
    }
    ["", "-updates", "-security"]
        .map(|part| format!("{release}{part}"))
        .to_vec()
}

impl Cache {
    /// Fetches a kernel: verified indexes and packages, unpacked into the cache, with a toolchain found for it.
    /// A kernel that is here already in its newest form is only looked at.
    ///
    /// # Errors
    /// The archive has no such kernel, cannot be reached, or its signatures and hashes do not hold.
    pub fn fetch(&self, spec: &FetchSpec, progress: &dyn Fn(Progress)) -> Result<Kernel> {
        let mirrors = Mirrors::of_this_machine();
        let lock = self.install_lock()?;
        let choice = find(self, &mirrors, spec, progress)?;
        let wish = Record {
            id: format!("debian/{}", choice.release),
            version: String::new(),
            arch: String::new(),
            package_version: choice.headers.package.version.clone(),
            suite: choice.headers.suite.clone(),
            build_dir: PathBuf::new(),
            source_dir: PathBuf::new(),
            release: choice.release,
            flavour: choice.flavour,
            packages: choice.packages,
            source: choice.source,
            images: choice.images,
        };
        self.fetch_recorded(lock, &mirrors, &wish, progress)
    }

    /// Fetches exactly the packages that a lock names for a kernel.
    ///
    /// # Errors
    /// As [`Cache::fetch`]; a package that the archive no longer has is named, with the newest that it has instead.
    pub fn fetch_locked(&self, record: &Record, progress: &dyn Fn(Progress)) -> Result<Kernel> {
        self.fetch_recorded(
            self.install_lock()?,
            &Mirrors::of_this_machine(),
            record,
            progress,
        )
    }

    /// The lock of everything in the cache.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn lock(&self) -> Result<Lock> {
        let mut lock = Lock::default();
        self.records()?
            .into_iter()
            .for_each(|(_, record)| lock.put(record));
        Ok(lock)
    }

    /// The full source tree of a kernel, fetched and unpacked on first use; for a path kernel its own tree if complete.
    ///
    /// # Errors
    /// When there is none or the network is away.
    pub fn source_tree(&self, kernel: &Kernel) -> Result<PathBuf> {
        self.source_tree_with(kernel, &|_| ())
    }

    /// [`Cache::source_tree`] that tells what it is doing.
    ///
    /// # Errors
    /// As there.
    pub fn source_tree_with(
        &self,
        kernel: &Kernel,
        progress: &dyn Fn(Progress),
    ) -> Result<PathBuf> {
        if let Some(here) = self.source_tree_if_present(kernel) {
            return Ok(here);
        }
        let record = self.record(kernel)?.ok_or_else(|| {
            Error::Input(format!("{}: only headers are there, and kspan knows no source package for a kernel given by path", kernel.source_dir.display()))
        })?;
        let package = record.source.as_ref().ok_or_else(|| {
            Error::Input(format!(
                "{}: the archive offered no linux-source package of version {} when it was fetched",
                record.id, record.package_version
            ))
        })?;
        let _lock = self.install_lock()?;
        let place = self.source_dir(&record.package_version);
        if !crate::kernelpath::is_full_source(&place) {
            let deb = self.download(&Mirrors::of_this_machine(), &record, package, progress)?;
            progress(Progress::Unpack {
                what: package.name.clone(),
            });
            unpack::install_source(&deb, &place)?;
            files::remove_file(&deb)?;
        }
        Ok(place)
    }

    /// The bootable image and the modules of a fetched kernel, fetched and unpacked on first use.
    ///
    /// # Errors
    /// When there are none or the network is away.
    pub fn image(&self, kernel: &Kernel, progress: &dyn Fn(Progress)) -> Result<Image> {
        let record = self.record(kernel)?.filter(|r| !r.images.is_empty()).ok_or_else(|| {
            Error::Input(format!("{}: no image package is known for it; kspan boots kernels that it fetched from an archive that holds their image", kernel.id))
        })?;
        let place = self.image_dir(&record);
        let _lock = self.install_lock()?;
        if !place.is_dir() {
            let mirrors = Mirrors::of_this_machine();
            let debs = record
                .images
                .iter()
                .map(|p| self.download(&mirrors, &record, p, progress))
                .collect::<Result<Vec<_>>>()?;
            progress(Progress::Unpack {
                what: format!("image of {}", record.release),
            });
            unpack::install_image(&debs, &place)?;
            debs.iter().try_for_each(|d| files::remove_file(d))?;
        }
        image_in(&place, &record.release)
    }

    fn fetch_recorded(
        &self,
        lock: File,
        mirrors: &Mirrors,
        wish: &Record,
        progress: &dyn Fn(Progress),
    ) -> Result<Kernel> {
        let dir = self.kernel_dir(&wish.id);
        let here = Record::read(&dir).ok().filter(|r| {
            r.packages == wish.packages && r.source == wish.source && r.images == wish.images
        });
        let kernel = match here {
            Some(record) => self.kernel_of(&dir, &record),
            None => self.install(mirrors, wish, progress)?,
        };
        drop(lock);
        crate::toolchain::answer(self, &kernel, progress)?;
        self.resolve(&kernel.id)
    }

    fn install(
        &self,
        mirrors: &Mirrors,
        wish: &Record,
        progress: &dyn Fn(Progress),
    ) -> Result<Kernel> {
        let download = |p: &Package| self.download(mirrors, wish, p, progress);
        let debs = wish
            .packages
            .iter()
            .map(download)
            .collect::<Result<Vec<_>>>()?;
        progress(Progress::Unpack {
            what: wish.id.clone(),
        });
        let kernel = unpack::install(self, wish, &debs)?;
        debs.iter().try_for_each(|d| files::remove_file(d))?;
        Ok(kernel)
    }

    /// A verified package in `downloads/`; one that an interrupted run had finished is used again.
    fn download(
        &self,
        mirrors: &Mirrors,
        record: &Record,
        package: &Package,
        progress: &dyn Fn(Progress),
    ) -> Result<PathBuf> {
        self.download_from(mirrors, &record.suite, package, progress)?
            .ok_or_else(|| self.vanished(mirrors, record, package))
    }

    /// The same for any package; `None` when the mirror no longer has it.
    pub(crate) fn download_from(
        &self,
        mirrors: &Mirrors,
        suite: &str,
        package: &Package,
        progress: &dyn Fn(Progress),
    ) -> Result<Option<PathBuf>> {
        let place = self
            .root()
            .join("downloads")
            .join(format!("{}.deb", package.sha256));
        if place.is_file() {
            return Ok(Some(place));
        }
        let tell = |done| {
            progress(Progress::Download {
                package: package.name.clone(),
                done,
                total: package.size,
            })
        };
        tell(0);
        let url = format!("{}/{}", mirrors.base(suite), package.filename);
        let mut result = Ok(());
        for _attempt in 0..3 {
            let Some(remote) = mirror::open(&url)? else {
                return Ok(None);
            };
            result = index::save_verified(remote.body, package, &place, &tell);
            if !matches!(&result, Err(Error::Environment(why)) if why.contains("the connection broke"))
            {
                break;
            }
        }
        result.map(|()| Some(place))
    }

    /// Point releases replace each other: says so, and what there is now.
    fn vanished(&self, mirrors: &Mirrors, record: &Record, package: &Package) -> Error {
        let suite = record
            .suite
            .trim_end_matches("-security")
            .trim_end_matches("-updates")
            .to_owned();
        let spec = FetchSpec {
            target: Target::Suite(suite.clone()),
            flavour: record.flavour.clone(),
        };
        let newest = find(self, mirrors, &spec, &|_| ());
        let instead = match newest {
            Ok(c) => format!(
                "{suite} now has {} {}: `kspan kernel fetch debian/{suite}` (with --lock to renew the lock)",
                c.release, c.headers.package.version
            ),
            Err(_) => format!("fetch what {suite} has now: `kspan kernel fetch debian/{suite}`"),
        };
        Error::Input(format!(
            "{} {} is gone from the archive ({}), as point releases are once newer ones come; {instead}",
            package.name, package.version, package.filename
        ))
    }
}

/// Looks through the suites that a wish names.
fn find(
    cache: &Cache,
    mirrors: &Mirrors,
    spec: &FetchSpec,
    progress: &dyn Fn(Progress),
) -> Result<Choice> {
    let mut looked = Vec::new();
    for group in spec.suites() {
        let mut offers: Vec<Offer> = Vec::new();
        for suite in group {
            if let Some(found) = index::offers(cache, mirrors, &suite, progress)? {
                offers.extend(found);
                looked.push(suite);
            }
        }
        if let Some(choice) = index::choose(&offers, spec)? {
            return Ok(choice);
        }
    }
    Err(not_found(spec, &looked))
}

fn not_found(spec: &FetchSpec, looked: &[String]) -> Error {
    let (Target::Suite(name) | Target::Exact(name)) = &spec.target;
    let what = match looked.is_empty() {
        true => format!("the mirror has no suite `{name}`"),
        false => format!(
            "no `{}` kernel `{name}` in {}",
            spec.flavour,
            looked.join(", ")
        ),
    };
    Error::Input(format!(
        "{what}. Suites: {} (and SUITE-backports); flavours: amd64, cloud, rt. A version that newer ones replaced is gone from the archive",
        SUITES.join(", ")
    ))
}

fn image_in(place: &Path, release: &str) -> Result<Image> {
    let vmlinuz = place.join("boot").join(format!("vmlinuz-{release}"));
    let in_modules = |lib: &str| place.join(lib).join("modules").join(release);
    let modules = ["lib", "usr/lib"]
        .map(in_modules)
        .into_iter()
        .find(|p| p.is_dir());
    let beside = |name: &str| modules.as_ref().map(|m| m.join(name));
    let places = [Some(vmlinuz), beside("vmlinuz"), beside("vmlinuz.unsigned")];
    let vmlinuz = places.into_iter().flatten().find(|p| p.is_file());
    match (vmlinuz, modules) {
        (Some(vmlinuz), Some(modules)) => Ok(Image { vmlinuz, modules }),
        _ => Err(Error::Input(format!(
            "{}: holds no vmlinuz or no modules of {release}; remove it and try again",
            place.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_wishes() {
        let suite = |s: &str, f: &str| FetchSpec {
            target: Target::Suite(s.into()),
            flavour: f.into(),
        };
        assert_eq!(
            FetchSpec::parse("debian/trixie").unwrap(),
            suite("trixie", "amd64")
        );
        assert_eq!(
            FetchSpec::parse("debian/trixie/cloud").unwrap(),
            suite("trixie", "cloud-amd64")
        );
        assert_eq!(
            FetchSpec::parse("debian/6.1.192-2").unwrap().target,
            Target::Exact("6.1.192-2".into())
        );
        for bad in [
            "",
            "trixie",
            "debian/",
            "debian/../x",
            "debian/a/b/c",
            "ubuntu/noble",
            "debian/a b",
        ] {
            assert!(FetchSpec::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn security_belongs_to_the_suite_and_backports_do_not() {
        let groups = |s: &str| FetchSpec::parse(s).unwrap().suites();
        assert_eq!(
            groups("debian/trixie"),
            [["trixie", "trixie-updates", "trixie-security"]]
        );
        assert_eq!(groups("debian/trixie-backports"), [["trixie-backports"]]);
        assert_eq!(groups("debian/sid"), [["sid"]]);
    }
}
