//! One build for several kernels: where all that a module uses agrees, the build for one kernel is the build for the other.
//!
//! Agreeing means: the same sources; the same words of `make -n`, so the same objects, compiler, flags and objtool; the same CRC of
//! every symbol that the module imports; and for every source the same text, as far as it is reached from the driver's own files
//! ([`crate::closure`]), after the preprocessor of either kernel. Anything that cannot be known (a header that the build made itself, a
//! script before it) means a build.

use crate::conf::Conf;
use crate::scripts::Workshop;
use crate::session::{Package, Session, Target};
use crate::{Result, Stop, closure, disk, modinfo};
use kspan_kernel::{Cache, Kernel};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What a build leaves beside its modules for later ones.
const USED: &str = ".kspan-used.json";

/// What a build that was taken over leaves.
pub const TAKEN: &str = ".kspan-taken.json";

/// How a build came about.
#[derive(Debug, Serialize, Deserialize)]
struct Used {
    /// BLAKE3 of the package's source.
    source: String,
    /// The kernel's build directory.
    kernel_dir: PathBuf,
    /// The compiler.
    cc: String,
    /// Each source, and the flags it was compiled with.
    units: Vec<Unit>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Unit {
    source: PathBuf,
    args: Vec<String>,
}

/// A build that was taken over from another kernel, and what was compared.
#[derive(Debug, Serialize, Deserialize)]
pub struct Taken {
    /// The kernel it was made for.
    pub from: String,
    /// How many imported symbols have the same CRC.
    pub symbols: usize,
    /// How many sources mean the same.
    pub sources: usize,
    /// BLAKE3 of the text that the sources reach.
    pub fingerprint: String,
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the build for {}: {} symbols and {} sources agree",
            self.from, self.symbols, self.sources
        )
    }
}

/// Configuration that is in every module (its vermagic), whatever the sources ask for.
const ALWAYS: [&str; 8] = [
    "CC_VERSION_TEXT",
    "SMP",
    "PREEMPT",
    "PREEMPT_RT",
    "PREEMPT_BUILD",
    "MODULE_UNLOAD",
    "MODVERSIONS",
    "RANDSTRUCT",
];

impl Session<'_> {
    /// Leaves a note of how a build came about. A build without one is not taken over; that is all that can go wrong.
    pub(crate) fn note_uses(
        &self,
        package: &Package,
        target: &Target,
        conf: &Conf,
        shop: &Workshop,
        staged: &Path,
    ) -> Result<()> {
        let dir = self.kernel_dir(&target.kernel);
        let kernel = Cache::open().and_then(|c| Ok((c.resolve(&dir.display().to_string())?, c)));
        let (true, Ok((kernel, cache))) = (plain(conf), kernel) else {
            return Ok(());
        };
        let used = Used {
            source: fingerprint_of(&self.tree.source_link(package)),
            kernel_dir: dir,
            cc: compiler(shop),
            units: cache
                .compilations(&kernel, &shop.real, &shop.shown)
                .into_iter()
                .map(|c| Unit {
                    source: c.source,
                    args: c.args,
                })
                .collect(),
        };
        let text = serde_json::to_vec(&used).map_err(|e| Stop::error(1, [e.to_string()]))?;
        disk::write(&staged.join(USED), &text)
    }

    /// Takes over the build for another kernel, if there is one with which everything agrees; true if so.
    pub(crate) fn take_over(
        &self,
        package: &Package,
        target: &Target,
        conf: &Conf,
    ) -> Result<bool> {
        if self.force || !plain(conf) {
            return Ok(false);
        }
        for entry in self.tree.built(package, "", &target.arch) {
            let Some(other) = entry.target.filter(|t| t.kernel != target.kernel) else {
                continue;
            };
            let base = self.tree.base(package, &other);
            let packing = |t: &Target| crate::kernels::suffix(&self.lib(&t.kernel));
            if packing(&other) != packing(target) {
                continue;
            }
            // What was taken over itself is found at its origin.
            let Some(used) = read_used(&base) else {
                continue;
            };
            if let Some(mut taken) = self.agrees(package, target, conf, &base, &other, &used)? {
                taken.from = other.kernel;
                self.adopt(package, target, &base, &taken)?;
                self.say(&format!("Module {package} for {target}: {taken}."));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Compares a build with what one for the target would be; cheap questions first.
    fn agrees(
        &self,
        package: &Package,
        target: &Target,
        conf: &Conf,
        base: &Path,
        other: &Target,
        used: &Used,
    ) -> Result<Option<Taken>> {
        let unchanged = used.source == fingerprint_of(&self.tree.source_link(package));
        let (true, Ok(cache)) = (unchanged && !used.units.is_empty(), Cache::open()) else {
            return Ok(None);
        };
        let dir = self.kernel_dir(&target.kernel);
        let kernel = |dir: &Path| cache.resolve(&dir.display().to_string()).ok();
        let (Some(theirs), Some(ours)) = (kernel(&used.kernel_dir), kernel(&dir)) else {
            return Ok(None);
        };
        // The headers of the other kernel may have been replaced since.
        if theirs.release != other.kernel || !same_frame(&theirs, &ours) {
            return Ok(None);
        }
        let Some(symbols) = same_symbols(conf, &base.join("module"), &ours) else {
            return Ok(None);
        };
        let mut shop = self.workshop(package, target, &self.tree.source_link(package))?;
        for kernel in [&theirs, &ours] {
            shop.readable.extend(cache.build_dirs(kernel));
        }
        let same = match self.same_plan(&shop, conf, &theirs, &ours)? {
            true => self.same_text(&shop, used, &theirs, &ours)?,
            false => None,
        };
        disk::remove_tree(&shop.real)?;
        disk::remove_tree(&shop.shown)?;
        Ok(same.map(|fingerprint| Taken {
            from: String::new(),
            symbols,
            sources: used.units.len(),
            fingerprint,
        }))
    }

    /// Would make do the same for both kernels? It says so itself, and does nothing.
    fn same_plan(
        &self,
        shop: &Workshop,
        conf: &Conf,
        theirs: &Kernel,
        ours: &Kernel,
    ) -> Result<bool> {
        let command = neutral(&conf.make, ours);
        let plan = |kernel: &Kernel| -> Result<String> {
            let command = command
                .replace(KDIR, &kernel.build_dir.display().to_string())
                .replace(RELEASE, &kernel.release);
            let said = self.dry_run(shop, &command)?;
            Ok(neutral(&String::from_utf8_lossy(&said), kernel))
        };
        let (a, b) = (plan(theirs)?, plan(ours)?);
        Ok(a == b && a.contains(" -c -o "))
    }

    /// Preprocesses each source for both kernels; BLAKE3 of all that they reach, if it is the same.
    fn same_text(
        &self,
        shop: &Workshop,
        used: &Used,
        theirs: &Kernel,
        ours: &Kernel,
    ) -> Result<Option<String>> {
        let mut hasher = blake3::Hasher::new();
        let mut same = compiler(shop) == used.cc;
        for unit in &used.units {
            if !same {
                break;
            }
            let text = |kernel: &Kernel| self.text_of(shop, used, unit, theirs, kernel);
            let (a, b) = (text(theirs)?, text(ours)?);
            same = a.is_some() && a == b;
            for line in a.into_iter().flatten() {
                hasher.update(line.as_bytes());
                hasher.update(b"\n");
            }
        }
        Ok(same.then(|| hasher.finalize().to_hex().to_string()))
    }

    /// What a source reaches on a kernel; none if it cannot be preprocessed.
    fn text_of(
        &self,
        shop: &Workshop,
        used: &Used,
        unit: &Unit,
        from: &Kernel,
        to: &Kernel,
    ) -> Result<Option<Vec<String>>> {
        let source = shop.shown.join(&unit.source);
        let args = unit.args.iter().map(|a| moved(a, from, to));
        let words: Vec<OsString> = std::iter::once(used.cc.clone())
            .chain(args)
            .chain(["-E".to_owned(), source.display().to_string()])
            .map(OsString::from)
            .collect();
        let Some(bytes) = self.output_of(shop, words)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let own = shop.shown.display().to_string();
        // The kernel's own directories are the one thing that must differ.
        let text = neutral(&text, to);
        Ok(Some(closure::reached(&text, &|file| {
            file.starts_with(&own)
        })))
    }

    fn adopt(&self, package: &Package, target: &Target, from: &Path, taken: &Taken) -> Result<()> {
        let base = self.tree.base(package, target);
        let kernel_dir = self.tree.package(package).join(&target.kernel);
        disk::make_dir(&kernel_dir)?;
        let staged = tempfile::Builder::new()
            .prefix(&format!(".tmp_{}_", target.arch))
            .tempdir_in(&kernel_dir)
            .map_err(Stop::io(&kernel_dir))?;
        for name in ["module", "log"] {
            disk::copy_tree(&from.join(name), &staged.path().join(name))?;
        }
        let text = serde_json::to_vec_pretty(taken).map_err(|e| Stop::error(1, [e.to_string()]))?;
        disk::write(&staged.path().join(TAKEN), &text)?;
        crate::verify::record(staged.path())?;
        crate::build::place(staged, &base)
    }

    /// The build that was taken over for a kernel, if one was.
    pub(crate) fn taken(&self, package: &Package, target: &Target) -> Option<Taken> {
        let file = self.tree.base(package, target).join(TAKEN);
        serde_json::from_slice(&std::fs::read(file).ok()?).ok()
    }
}

/// Reads both kinds of notes and forgets them.
pub fn read_notes(bytes: &[u8]) {
    let _ = (
        serde_json::from_slice::<Used>(bytes).is_ok(),
        serde_json::from_slice::<Taken>(bytes)
            .map(|t| t.to_string())
            .is_ok(),
    );
}

fn read_used(base: &Path) -> Option<Used> {
    serde_json::from_slice(&std::fs::read(base.join(USED)).ok()?).ok()
}

/// Nothing but make decides what is built: no patches, no scripts, no other package.
fn plain(conf: &Conf) -> bool {
    let scripts = ["pre_build", "post_build"];
    conf.patches.is_empty()
        && conf.depends.is_empty()
        && scripts.iter().all(|s| conf.script(s).is_empty())
        && conf.wanted().count() == conf.modules.len()
}

/// What stands for a kernel's directories and release in a text that is compared.
const KDIR: &str = "$kernel_source_dir";
const SOURCE: &str = "$kernel_common_dir";
const RELEASE: &str = "$kernelver";

/// A text without the names of its kernel.
fn neutral(text: &str, kernel: &Kernel) -> String {
    let path = |p: &Path| p.display().to_string();
    let mut text = text.to_owned();
    for (dir, name) in [(&kernel.build_dir, KDIR), (&kernel.source_dir, SOURCE)] {
        text = text.replace(&path(dir), name);
        if let Ok(real) = dir.canonicalize() {
            text = text.replace(&path(&real), name);
        }
    }
    text.replace(&kernel.release, RELEASE)
}

fn compiler(shop: &Workshop) -> String {
    let named = shop.environment.iter().find(|(n, _)| n == "CC");
    named.map_or("gcc".to_owned(), |(_, v)| v.to_string_lossy().into_owned())
}

/// BLAKE3 of a directory: names and contents. Empty, and so equal to none, if a part cannot be read.
fn fingerprint_of(dir: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    let real = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    for entry in walkdir::WalkDir::new(&real).sort_by_file_name() {
        let Ok(entry) = entry else {
            return String::new();
        };
        let name = entry.path().strip_prefix(&real).unwrap_or(entry.path());
        hasher.update(name.as_os_str().as_encoded_bytes());
        hasher.update(b"\0");
        if entry.file_type().is_file() {
            let Ok(bytes) = std::fs::read(entry.path()) else {
                return String::new();
            };
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(&bytes);
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// A path of one kernel as the other one has it.
fn moved(word: &str, from: &Kernel, to: &Kernel) -> String {
    let path = |p: &Path| p.display().to_string();
    let mut pairs = [
        (path(&from.build_dir), path(&to.build_dir)),
        (path(&from.source_dir), path(&to.source_dir)),
    ];
    // One may lie in the other.
    pairs.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
    pairs
        .iter()
        .fold(word.to_owned(), |word, (from, to)| word.replace(from, to))
}

/// Is what `make -n` does not come to the same: the linking, objtool itself, and what every module says of its kernel (vermagic)?
fn same_frame(a: &Kernel, b: &Kernel) -> bool {
    let file = |k: &Kernel, name: &str| {
        let read = |dir: &Path| std::fs::read(dir.join(name)).ok();
        read(&k.build_dir).or_else(|| read(&k.source_dir))
    };
    let files = [
        "tools/objtool/objtool",
        "scripts/module.lds",
        "scripts/Makefile.modpost",
        "scripts/Makefile.modfinal",
    ];
    let config = |k: &Kernel| {
        let text = file(k, "include/config/auto.conf").unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        ALWAYS.map(|name| crate::kernels::config_value(&text, &format!("CONFIG_{name}")))
    };
    let (ours, theirs) = (config(a), config(b));
    // Without CRCs nothing says that a kernel's symbols are what they were.
    let has_crcs = ALWAYS
        .iter()
        .zip(&ours)
        .any(|(n, v)| *n == "MODVERSIONS" && v.is_some());
    has_crcs && ours == theirs && files.iter().all(|f| file(a, f) == file(b, f))
}

/// How many imported symbols were compared, if the kernel exports each with the CRC that the modules were built against.
fn same_symbols(conf: &Conf, modules: &Path, kernel: &Kernel) -> Option<usize> {
    let text = std::fs::read_to_string(kernel.build_dir.join("Module.symvers")).ok()?;
    let exported: BTreeMap<&str, u32> = text
        .lines()
        .filter_map(|l| {
            let mut words = l.split('\t');
            let crc = words.next()?.trim_start_matches("0x");
            Some((words.next()?, u32::from_str_radix(crc, 16).ok()?))
        })
        .collect();
    let mut count = 0;
    for module in conf.wanted() {
        let bytes = modinfo::unpacked(&modinfo::find(modules, &module.name)?).ok()?;
        let wanted = modinfo::versions(&bytes);
        // Every module imports its own layout.
        if wanted.is_empty()
            || wanted
                .iter()
                .any(|(n, crc)| exported.get(n.as_str()) != Some(crc))
        {
            return None;
        }
        count += wanted.len();
    }
    (count > 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_the_same_for_every_kernel() {
        let of = |release: &str| {
            let kernel = Kernel {
                id: String::new(),
                release: release.to_owned(),
                version: String::new(),
                arch: "x86".to_owned(),
                build_dir: format!("/usr/src/linux-headers-{release}").into(),
                source_dir: format!("/usr/src/linux-headers-{}-common", &release[..5]).into(),
                digest: String::new(),
            };
            let text = format!(
                "make -C {} I={}/include V={release}",
                kernel.build_dir.display(),
                kernel.source_dir.display()
            );
            neutral(&text, &kernel)
        };
        assert_eq!(of("6.1-1-amd64"), of("6.1-2-amd64"));
        assert!(of("6.1-1-amd64").contains("I=$kernel_common_dir/include V=$kernelver"));
    }
}
