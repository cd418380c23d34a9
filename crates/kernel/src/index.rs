//! What a suite of the archive offers: its signed `InRelease`, its `Packages`, and the kernel to take from there.

use crate::control::{self, Dependency, Stanza};
use crate::fetch::{FetchSpec, Progress, Target};
use crate::mirror::{self, Mirrors};
use crate::record::Package;
use crate::{Cache, Error, Result, debversion, files, signature};
use sha2::{Digest, Sha256};
use std::cmp::Ordering;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// One package that a suite offers.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its paragraph.
    pub stanza: Stanza,
    /// Its file.
    pub package: Package,
    /// The suite.
    pub suite: String,
}

/// Reads the kernel packages that a suite offers; `None` if the mirror has no such suite.
pub fn offers(
    cache: &Cache,
    mirrors: &Mirrors,
    suite: &str,
    progress: &dyn Fn(Progress),
) -> Result<Option<Vec<Offer>>> {
    let kernels = |line: &str| line.starts_with("Package: linux-");
    offers_of(cache, mirrors, suite, &kernels, progress)
}

/// Reads the packages whose first line (`Package: NAME`) is wanted; `None` if the mirror has no such suite.
pub fn offers_of(
    cache: &Cache,
    mirrors: &Mirrors,
    suite: &str,
    wanted: &dyn Fn(&str) -> bool,
    progress: &dyn Fn(Progress),
) -> Result<Option<Vec<Offer>>> {
    let base = mirrors.base(suite);
    let Some(release) = release(cache, base, suite)? else {
        return Ok(None);
    };
    progress(Progress::Index {
        suite: suite.to_owned(),
    });
    tell_if_stale(suite, &release, progress);
    let packages = packages_file(cache, base, suite, &release)?;
    let file = File::open(&packages).map_err(Error::io(&packages))?;
    let stream = crate::deb::decompress("Packages.xz", file).map_err(Error::Input)?;
    let stanzas = control::stanzas(BufReader::new(stream), wanted).map_err(Error::io(&packages))?;
    let offer = |stanza: Stanza| {
        Some(Offer {
            package: stanza.package()?,
            stanza,
            suite: suite.to_owned(),
        })
    };
    Ok(Some(stanzas.into_iter().filter_map(offer).collect()))
}

/// The verified `InRelease` of a suite, and that it is this suite's.
fn release(cache: &Cache, base: &str, suite: &str) -> Result<Option<Stanza>> {
    let url = format!("{base}/dists/{suite}/InRelease");
    let Some(remote) = mirror::open(&url)? else {
        return Ok(None);
    };
    let work = cache.work_dir("release")?;
    let path = work.path().join("InRelease");
    save(remote.body, &path, 16 << 20)?;
    let text = signature::signed_text(&path, &url)?;
    let stanza = control::stanzas(text.as_bytes(), |_| true)
        .map_err(Error::io(&path))?
        .into_iter()
        .next()
        .unwrap_or_default();
    let names = [stanza.get("codename"), stanza.get("suite")];
    if !names.contains(&suite) {
        return Err(Error::Environment(format!(
            "{url}: is signed, but for {} and not for {suite}: the mirror serves the wrong suite",
            names.join(" or ")
        )));
    }
    Ok(Some(stanza))
}

/// Debian signs until when an index holds. A kernel from an older one still builds what it should, so this is said and
/// not refused; that a newer one exists is what the user must know.
fn tell_if_stale(suite: &str, release: &Stanza, progress: &dyn Fn(Progress)) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let until = release.get("valid-until");
    if control::date(until).is_some_and(|end| end < now) {
        progress(Progress::Stale {
            suite: suite.to_owned(),
            until: until.to_owned(),
        });
    }
}

fn save(body: impl Read, path: &Path, limit: u64) -> Result<()> {
    let mut file = File::create(path).map_err(Error::io(path))?;
    std::io::copy(&mut body.take(limit), &mut file)
        .map(drop)
        .map_err(Error::io(path))
}

/// The suite's `Packages.xz`, kept by its hash.
fn packages_file(cache: &Cache, base: &str, suite: &str, release: &Stanza) -> Result<PathBuf> {
    const NAME: &str = "main/binary-amd64/Packages.xz";
    let listed = control::listed(release, NAME).ok_or_else(|| {
        Error::Environment(format!(
            "{base}/dists/{suite}: its Release vouches for no {NAME}"
        ))
    })?;
    let dir = cache.root().join("indexes");
    let place = dir.join(format!("{suite}-{}.xz", listed.sha256));
    if place.is_file() {
        return Ok(place);
    }
    let by_hash = format!("main/binary-amd64/by-hash/SHA256/{}", listed.sha256);
    let file = if release.get("acquire-by-hash") == "yes" {
        &by_hash
    } else {
        NAME
    };
    let url = format!("{base}/dists/{suite}/{file}");
    let remote = mirror::open(&url)?.ok_or_else(|| Error::Environment(format!("{url}: not there though the Release lists it; the mirror is being updated, try again in a while")))?;
    let want = Package {
        name: format!("{suite} {NAME}"),
        version: String::new(),
        architecture: String::new(),
        filename: file.to_owned(),
        size: listed.size,
        sha256: listed.sha256,
    };
    remove_older(&dir, suite);
    save_verified(remote.body, &want, &place, &|_| ())?;
    Ok(place)
}

/// Of each suite the newest index is kept.
fn remove_older(dir: &Path, suite: &str) {
    let of_suite = |name: &str| {
        let hash = name
            .strip_prefix(suite)
            .and_then(|n| n.strip_prefix('-')?.strip_suffix(".xz"));
        hash.is_some_and(control::is_sha256)
    };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_name().to_str().is_some_and(of_suite)) {
        let _ = files::remove_file(&entry.path());
    }
}

/// Saves a stream whose size and SHA-256 are known; nothing else ever stands at `place`.
pub fn save_verified(
    mut body: impl Read,
    want: &Package,
    place: &Path,
    done: &dyn Fn(u64),
) -> Result<()> {
    let dir = place.parent().unwrap_or(Path::new("."));
    files::make_dir(dir)?;
    let mut temp = tempfile::Builder::new()
        .prefix(".tmp-")
        .tempfile_in(dir)
        .map_err(Error::io(dir))?;
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0u64, vec![0; 1 << 18]);
    while size <= want.size {
        let n = body
            .read(&mut buffer)
            .map_err(|e| broken_off(want, size, &e))?;
        let Some(chunk) = buffer.get(..n).filter(|c| !c.is_empty()) else {
            break;
        };
        hasher.update(chunk);
        temp.write_all(chunk).map_err(Error::io(place))?;
        size += n as u64;
        done(size);
    }
    let hash: String = hasher
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    if size != want.size || hash != want.sha256 {
        return Err(Error::Environment(format!(
            "{}: what the mirror sent is not what Debian signed ({size} of {} bytes, SHA-256 {hash} instead of {}); try again or another mirror (KSPAN_MIRROR)",
            want.filename, want.size, want.sha256
        )));
    }
    temp.as_file().sync_all().map_err(Error::io(place))?;
    temp.persist(place)
        .map(drop)
        .map_err(|e| Error::io(place)(e.error))
}

fn broken_off(want: &Package, size: u64, error: &std::io::Error) -> Error {
    Error::Environment(format!(
        "{}: the connection broke after {size} of {} bytes ({error}); run again",
        want.filename, want.size
    ))
}

/// What a kernel is made of, chosen from the offers.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The package `linux-headers-RELEASE`.
    pub headers: Offer,
    /// `uname -r`.
    pub release: String,
    /// `amd64`, `cloud-amd64`, …
    pub flavour: String,
    /// Headers, common headers and kbuild, in this order.
    pub packages: Vec<Package>,
    /// The package of the full source tree.
    pub source: Option<Package>,
    /// Image and modules.
    pub images: Vec<Package>,
}

/// The newest kernel among the offers that the user's wish fits; `Ok(None)` if there is none.
pub fn choose(offers: &[Offer], spec: &FetchSpec) -> Result<Option<Choice>> {
    let candidates = offers
        .iter()
        .filter_map(|o| headers_of(o).map(|(release, flavour)| (o, release, flavour)));
    let fits = |(offer, release, flavour): &(&Offer, String, String)| match &spec.target {
        Target::Suite(_) => *flavour == spec.flavour && offer.stanza.source() == "linux",
        Target::Exact(name) if release == name => true,
        Target::Exact(name) => *flavour == spec.flavour && offer.package.version == *name,
    };
    let newest = candidates
        .filter(fits)
        .max_by(|a, b| by_version(&a.0.package, &b.0.package));
    newest
        .map(|(headers, release, flavour)| complete(offers, headers, release, flavour))
        .transpose()
}

fn by_version(a: &Package, b: &Package) -> Ordering {
    debversion::compare(&a.version, &b.version).then_with(|| debversion::compare(&a.name, &b.name))
}

/// Release and flavour, if this is the header package of one kernel: it depends on common headers, and its own name
/// is theirs with the flavour in the place of `common`.
fn headers_of(offer: &Offer) -> Option<(String, String)> {
    let release = offer.package.name.strip_prefix("linux-headers-")?;
    let dependencies = control::depends(offer.stanza.get("depends"));
    let abi = dependencies.iter().find_map(|d| common_abi(&d.name))?;
    let flavour = release.strip_prefix(abi)?.strip_prefix('-')?;
    (!release.contains('/')).then(|| (release.to_owned(), flavour.to_owned()))
}

/// `linux-headers-6.1.0-56-common` (or `-common-rt`) → `6.1.0-56`.
fn common_abi(name: &str) -> Option<&str> {
    let (abi, rest) = name
        .strip_prefix("linux-headers-")?
        .rsplit_once("-common")?;
    (rest.is_empty() || rest.starts_with('-')).then_some(abi)
}

fn complete(offers: &[Offer], headers: &Offer, release: String, flavour: String) -> Result<Choice> {
    let mut packages = vec![headers.package.clone()];
    for dependency in control::depends(headers.stanza.get("depends")) {
        if common_abi(&dependency.name).is_some() || dependency.name.starts_with("linux-kbuild-") {
            packages.push(satisfy(offers, headers, &dependency)?);
        }
    }
    let same = |o: &&Offer| o.package.version == headers.package.version;
    let source = offers
        .iter()
        .filter(same)
        .find(|o| o.package.name.starts_with("linux-source-"));
    let image_names = [
        vec![format!("linux-image-{release}-unsigned")],
        vec![
            format!("linux-binary-unsigned-{release}"),
            format!("linux-modules-{release}"),
        ],
    ];
    let named = |name: &String| {
        offers
            .iter()
            .filter(same)
            .find(|o| o.package.name == *name)
            .map(|o| o.package.clone())
    };
    let images = image_names
        .iter()
        .filter_map(|names| names.iter().map(named).collect::<Option<Vec<_>>>())
        .next();
    Ok(Choice {
        source: source.map(|o| o.package.clone()),
        images: images.unwrap_or_default(),
        headers: headers.clone(),
        release,
        flavour,
        packages,
    })
}

/// The package that a dependency names: of the same version as the headers if there is one, else the newest that fits.
fn satisfy(offers: &[Offer], headers: &Offer, dependency: &Dependency) -> Result<Package> {
    let fits = |p: &&Package| match &dependency.version {
        Some((op, version)) if op == "=" => p.version == *version,
        Some((op, version)) if op == ">=" => debversion::compare(&p.version, version).is_ge(),
        _ => true,
    };
    let same = |p: &Package| p.version == headers.package.version;
    let packages = offers
        .iter()
        .map(|o| &o.package)
        .filter(|p| p.name == dependency.name)
        .filter(fits);
    let best = packages.max_by(|a, b| same(a).cmp(&same(b)).then_with(|| by_version(a, b)));
    best.cloned().ok_or_else(|| {
        Error::Environment(format!(
            "{} {} depends on {}, which the archive does not offer: the mirror is incomplete or being updated; try again or another (KSPAN_MIRROR)",
            headers.package.name, headers.package.version, dependency.name
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(name: &str, version: &str, depends: &str, source: &str) -> Offer {
        let hash = "0".repeat(64);
        let text = format!(
            "Package: {name}\nVersion: {version}\nSource: {source}\nArchitecture: amd64\nDepends: {depends}\nFilename: pool/{name}.deb\nSize: 1\nSHA256: {hash}\n"
        );
        let stanza = control::stanzas(text.as_bytes(), |_| true)
            .unwrap()
            .remove(0);
        Offer {
            package: stanza.package().unwrap(),
            stanza,
            suite: "s".into(),
        }
    }

    fn kernel(abi: &str, flavour: &str, version: &str, source: &str) -> Vec<Offer> {
        let common = if flavour == "rt-amd64" {
            "common-rt"
        } else {
            "common"
        };
        let depends = format!(
            "linux-headers-{abi}-{common} (= {version}), linux-kbuild-6 (>= {version}), gcc-12"
        );
        vec![
            offer(
                &format!("linux-headers-{abi}-{flavour}"),
                version,
                &depends,
                source,
            ),
            offer(
                &format!("linux-headers-{abi}-{common}"),
                version,
                "",
                source,
            ),
            offer("linux-kbuild-6", version, "", source),
            offer("linux-source-6", version, "", source),
        ]
    }

    fn chosen(offers: &[Offer], spec: &str) -> Option<(String, Vec<String>)> {
        let choice = choose(offers, &FetchSpec::parse(spec).unwrap()).unwrap()?;
        Some((
            choice.release,
            choice
                .packages
                .into_iter()
                .map(|p| format!("{}={}", p.name, p.version))
                .collect(),
        ))
    }

    #[test]
    fn takes_the_newest_of_the_flavour_and_what_it_depends_on() {
        let mut offers = kernel("6.1.0-9", "amd64", "6.1.9-1", "linux");
        offers.extend(kernel("6.1.0-10", "amd64", "6.1.10-1", "linux"));
        offers.extend(kernel("6.1.0-11", "rt-amd64", "6.1.11-1", "linux"));
        offers.extend(kernel("6.9-0.deb12", "amd64", "6.9.1-1", "linux-6.9"));
        let (release, packages) = chosen(&offers, "debian/bookworm").unwrap();
        assert_eq!(release, "6.1.0-10-amd64");
        assert_eq!(
            packages,
            [
                "linux-headers-6.1.0-10-amd64=6.1.10-1",
                "linux-headers-6.1.0-10-common=6.1.10-1",
                "linux-kbuild-6=6.1.10-1"
            ]
        );
        assert_eq!(
            chosen(&offers, "debian/bookworm/rt").unwrap().0,
            "6.1.0-11-rt-amd64"
        );
        assert_eq!(
            chosen(&offers, "debian/6.1.9-1").unwrap().0,
            "6.1.0-9-amd64"
        );
        assert_eq!(
            chosen(&offers, "debian/6.9-0.deb12-amd64").unwrap().0,
            "6.9-0.deb12-amd64"
        );
        assert_eq!(chosen(&offers, "debian/bookworm/cloud"), None);
    }

    #[test]
    fn a_missing_part_is_named() {
        let mut offers = kernel("6.1.0-9", "amd64", "6.1.9-1", "linux");
        offers.retain(|o| o.package.name != "linux-kbuild-6");
        let error = choose(&offers, &FetchSpec::parse("debian/bookworm").unwrap()).unwrap_err();
        assert!(error.to_string().contains("linux-kbuild-6"), "{error}");
    }

    #[test]
    fn a_stream_that_is_not_what_was_signed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("p");
        let mut want = offer("p", "1", "", "p").package;
        want.size = 3;
        assert!(save_verified(&b"abc"[..], &want, &place, &|_| ()).is_err());
        want.sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into();
        assert!(save_verified(&b"abcd"[..], &want, &place, &|_| ()).is_err());
        assert!(save_verified(&b"ab"[..], &want, &place, &|_| ()).is_err());
        assert!(!place.exists());
        assert!(save_verified(&b"abc"[..], &want, &place, &|_| ()).is_ok());
    }
}
