//! Which compiler builds for a kernel: asked by building an empty module there, never guessed from a version.

use crate::{
    Cache, CompileFlags, Error, KbuildOptions, Kernel, Progress, Result, Toolchain, cmdfile, files,
    kbuild,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The compiler that a kernel was configured with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its command, `x86_64-linux-gnu-gcc-14`.
    pub command: String,
    /// `gcc` or `clang`.
    pub family: &'static str,
    /// Its major version, 0 if the kernel does not tell.
    pub major: u32,
}

/// What was found out about a kernel's toolchain, kept by content.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The toolchain that built the empty module.
    pub toolchain: Toolchain,
    /// The flags it was built with.
    pub flags: CompileFlags,
    /// Compilers that were asked and refused, with the end of their words.
    pub refused: BTreeMap<String, String>,
}

/// Reads `CONFIG_CC_VERSION_TEXT`.
pub fn wanted(config: &str) -> Wanted {
    let text = config
        .lines()
        .find_map(|l| l.strip_prefix("CONFIG_CC_VERSION_TEXT="))
        .unwrap_or_default()
        .trim_matches('"');
    let family = if text.contains("clang") {
        "clang"
    } else {
        "gcc"
    };
    let first = text.split_whitespace().next().unwrap_or(family);
    let is_command = !first.is_empty()
        && first
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c));
    let command = if is_command && first.contains(family) {
        first
    } else {
        family
    };
    let plain_version = |w: &str| {
        w.split('.')
            .next()
            .and_then(|n| n.parse::<u32>().ok())
            .filter(|_| w.contains('.'))
    };
    let major = text
        .split_whitespace()
        .filter_map(plain_version)
        .next_back();
    Wanted {
        command: command.to_owned(),
        family,
        major: major.unwrap_or(0),
    }
}

/// The host's compilers that may do, best guess first.
fn host_candidates(wanted: &Wanted) -> Vec<String> {
    let mut numbered = numbered_compilers(wanted.family);
    numbered.sort_by_key(|(major, _)| (major.abs_diff(wanted.major), *major));
    let exact = format!("{}-{}", wanted.family, wanted.major);
    let names = [wanted.command.clone(), exact]
        .into_iter()
        .chain(numbered.into_iter().map(|(_, n)| n))
        .chain([wanted.family.to_owned()]);
    let mut seen = Vec::new();
    let mut candidates = Vec::new();
    for name in names {
        let Some(real) = files::find_program(&name).and_then(|p| p.canonicalize().ok()) else {
            continue;
        };
        if !seen.contains(&real) {
            seen.push(real);
            candidates.push(name);
        }
    }
    candidates
}

/// `gcc-12` and the like in `/usr/bin`.
fn numbered_compilers(family: &str) -> Vec<(u32, String)> {
    let Ok(dir) = fs::read_dir("/usr/bin") else {
        return Vec::new();
    };
    let number = |name: &str| name.strip_prefix(family)?.strip_prefix('-')?.parse().ok();
    let names = dir
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok());
    names.filter_map(|n| Some((number(&n)?, n))).collect()
}

/// What the host and the cache's roots could build with, by content: part of every kernel's digest.
pub fn environment_digest(cache: &Cache, build_dir: &Path) -> blake3::Hash {
    let wanted = wanted(&files::read_text(&build_dir.join(".config")).unwrap_or_default());
    let mut hasher = blake3::Hasher::new();
    for name in host_candidates(&wanted) {
        hasher.update(name.as_bytes());
        if let Some(hash) = files::find_program(&name).and_then(|p| files::hash_file(&p).ok()) {
            hasher.update(hash.as_bytes());
        }
    }
    let status = cache
        .root_dir(suite_of(&wanted))
        .join("var/lib/dpkg/status");
    if let Ok(hash) = files::hash_file(&status) {
        hasher.update(hash.as_bytes());
    }
    hasher.finalize()
}

/// The toolchain of a kernel and its flags: as remembered, or found out now.
pub fn answer(cache: &Cache, kernel: &Kernel, progress: &dyn Fn(Progress)) -> Result<Answer> {
    if let Some(known) = remembered_for(cache, kernel) {
        return Ok(known);
    }
    let _one_asks = files::lock(&cache.root().join("locks/toolchain"))?;
    if let Some(known) = remembered_for(cache, kernel) {
        return Ok(known);
    }
    progress(Progress::Toolchain {
        kernel: kernel.id.clone(),
    });
    let found = find_out(cache, kernel, progress)?;
    let text = serde_json::to_string_pretty(&found)
        .map_err(|e| Error::Input(format!("toolchain record: {e}")))?;
    // A root made just now has changed the kernel's digest: the answer holds for who knows the old one and the new one.
    let renewed = cache.renewed(kernel)?;
    for kernel in [kernel, &renewed] {
        files::write_atomic(&place(cache, kernel), text.as_bytes())?;
    }
    Ok(found)
}

/// The answer for a kernel if it was found out before.
pub fn remembered_for(cache: &Cache, kernel: &Kernel) -> Option<Answer> {
    remembered(&place(cache, kernel))
}

/// An answer counts only while its root is still there.
fn remembered(place: &Path) -> Option<Answer> {
    let answer: Answer = serde_json::from_str(&files::read_text(place).ok()?).ok()?;
    let root_is_there = answer
        .toolchain
        .root
        .as_ref()
        .is_none_or(|r| r.join("usr/bin").is_dir());
    root_is_there.then_some(answer)
}

/// Keyed by the kernel, where it lies (flags hold its paths) and what there is to build with.
fn place(cache: &Cache, kernel: &Kernel) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    for part in [
        kernel.digest.as_bytes(),
        kernel.build_dir.as_os_str().as_encoded_bytes(),
    ] {
        hasher.update(part).update(b"\0");
    }
    hasher.update(environment_digest(cache, &kernel.build_dir).as_bytes());
    cache
        .root()
        .join("toolchains")
        .join(format!("{}.json", hasher.finalize().to_hex()))
}

fn find_out(cache: &Cache, kernel: &Kernel, progress: &dyn Fn(Progress)) -> Result<Answer> {
    let wanted = wanted(&files::read_text(&kernel.build_dir.join(".config"))?);
    let mut refused = BTreeMap::new();
    for cc in host_candidates(&wanted) {
        let toolchain = Toolchain {
            cc: cc.clone(),
            root: None,
        };
        match probe(cache, kernel, &toolchain)? {
            Ok(flags) => {
                return Ok(Answer {
                    toolchain,
                    flags,
                    refused,
                });
            }
            Err(log) => drop(refused.insert(cc, tail(&log, 15))),
        }
    }
    let root = ensure_root(cache, &wanted, progress)?;
    let toolchain = Toolchain {
        cc: compiler_in(&root, &wanted),
        root: Some(root),
    };
    match probe(cache, kernel, &toolchain)? {
        Ok(flags) => Ok(Answer {
            toolchain,
            flags,
            refused,
        }),
        Err(log) => Err(unusable(kernel, &toolchain, &log, &refused)),
    }
}

fn unusable(
    kernel: &Kernel,
    toolchain: &Toolchain,
    log: &str,
    refused: &BTreeMap<String, String>,
) -> Error {
    let others: Vec<&str> = refused.keys().map(String::as_str).collect();
    Error::Environment(format!(
        "{}: an empty module does not build with {} of {} (nor with the host's {}); the headers in {} or the toolchain are damaged. \
         Fetch the kernel again, or install the compiler it was built with. make's last words:\n{}",
        kernel.id,
        toolchain.cc,
        toolchain
            .root
            .as_deref()
            .unwrap_or(Path::new("/"))
            .display(),
        if others.is_empty() {
            "compilers".to_owned()
        } else {
            others.join(", ")
        },
        kernel.build_dir.display(),
        tail(log, 20)
    ))
}

/// The last lines of a log.
pub fn tail(log: &str, lines: usize) -> String {
    let all: Vec<&str> = log.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}

const PROBE: &str =
    "#include <linux/module.h>\nMODULE_LICENSE(\"GPL\");\nMODULE_DESCRIPTION(\"kspan probe\");\n";

/// Builds the empty module; the flags of its compilation, or make's words.
fn probe(
    cache: &Cache,
    kernel: &Kernel,
    toolchain: &Toolchain,
) -> Result<std::result::Result<CompileFlags, String>> {
    let work = cache.work_dir("probe")?;
    for (name, text) in [("probe.c", PROBE), ("Kbuild", "obj-m := probe.o\n")] {
        let path = work.path().join(name);
        fs::write(&path, text).map_err(Error::io(&path))?;
    }
    let build = kbuild::run(kernel, toolchain, work.path(), &KbuildOptions::default())?;
    let made = build.ok && work.path().join("probe.ko").is_file();
    let command = build
        .commands
        .into_iter()
        .find(|c| c.source == Path::new("probe.c"));
    Ok(match command {
        Some(command) if made => Ok(CompileFlags {
            cc: toolchain.cc.clone(),
            args: command
                .args
                .into_iter()
                .filter(|a| !cmdfile::is_file_define(a))
                .collect(),
        }),
        _ => Err(build.log),
    })
}

/// The Debian suite whose default compiler is this one: where a minimal root with it comes from.
fn suite_of(wanted: &Wanted) -> &'static str {
    match (wanted.family, wanted.major) {
        ("gcc", 1..=10) => "bullseye",
        ("gcc", 11 | 12) => "bookworm",
        ("gcc", 13 | 14) => "trixie",
        _ => "sid",
    }
}

fn compiler_in(root: &Path, wanted: &Wanted) -> String {
    let names = [
        wanted.command.clone(),
        format!("{}-{}", wanted.family, wanted.major),
        wanted.family.to_owned(),
    ];
    let found = names.iter().find(|n| root.join("usr/bin").join(n).exists());
    found.unwrap_or(&wanted.command).clone()
}

/// The minimal root for a compiler, made once.
fn ensure_root(cache: &Cache, wanted: &Wanted, progress: &dyn Fn(Progress)) -> Result<PathBuf> {
    let suite = suite_of(wanted);
    let place = cache.root_dir(suite);
    let usable = |p: &Path| p.join("usr/bin").join(compiler_in(p, wanted)).exists();
    if usable(&place) {
        return Ok(place);
    }
    let _lock = cache.install_lock()?;
    if usable(&place) {
        return Ok(place);
    }
    progress(Progress::Root {
        suite: suite.to_owned(),
        compiler: wanted.command.clone(),
    });
    make_root(suite, wanted, &place)?;
    Ok(place)
}

fn packages_of(suite: &str, wanted: &Wanted) -> String {
    let compiler = match (wanted.family, wanted.major) {
        (family, 0) => family.to_owned(),
        ("gcc", major) => match wanted.command.strip_suffix(&format!("-gcc-{major}")) {
            Some(triplet) => format!("gcc-{major},gcc-{major}-{}", triplet.replace('_', "-")),
            None => format!("gcc-{major}"),
        },
        (family, major) => format!("{family}-{major}"),
    };
    let libraries = match suite {
        "bullseye" => "libelf1,dwarves",
        "bookworm" => "libelf1,pahole",
        _ => "libelf1t64,pahole",
    };
    format!("{compiler},{libraries},make,kmod,binutils,libc6-dev,gawk")
}

fn make_root(suite: &str, wanted: &Wanted, place: &Path) -> Result<()> {
    let program = files::find_program("mmdebstrap").ok_or_else(|| {
        Error::Environment(format!(
            "no compiler here builds for this kernel, and mmdebstrap, which would make a root with {}, is missing: `apt-get install mmdebstrap`",
            wanted.command
        ))
    })?;
    let roots = place.parent().unwrap_or(place);
    files::make_dir(roots)?;
    let temp = tempfile::Builder::new()
        .prefix(".tmp-")
        .tempdir_in(roots)
        .map_err(Error::io(roots))?;
    let target = temp.path().join("root");
    let output = Command::new(program)
        .args([
            "--quiet",
            "--variant=essential",
            "--aptopt=APT::Install-Recommends \"false\"",
            // A mirror that lags is told about when a kernel is fetched (`Progress::Stale`).
            "--aptopt=Acquire::Check-Valid-Until \"false\"",
        ])
        .arg(format!("--include={}", packages_of(suite, wanted)))
        .arg(suite)
        .arg(&target)
        .arg(crate::mirror::Mirrors::of_this_machine().debian)
        .env("LC_ALL", "C")
        .output()
        .map_err(|e| Error::Environment(format!("mmdebstrap cannot be started: {e}")))?;
    if !output.status.success() || !target.join("usr/bin").is_dir() {
        return Err(no_root(
            suite,
            wanted,
            &String::from_utf8_lossy(&output.stderr),
        ));
    }
    files::replace_dir(&target, place)
}

fn no_root(suite: &str, wanted: &Wanted, words: &str) -> Error {
    let cure = match words.contains("chroot mode") {
        true => {
            "as a normal user it needs `apt-get install uidmap` and a line for you in /etc/subuid and /etc/subgid; \
             or fetch once as root with the same KSPAN_CACHE"
        }
        false => "is the mirror reachable and disk space left?",
    };
    Error::Environment(format!(
        "mmdebstrap could not make a {suite} root with {}: {cure} Its last words:\n{}",
        wanted.command,
        tail(words, 12)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_wanted_compiler() {
        let cases = [
            (
                "\"gcc-10 (Debian 10.2.1-6) 10.2.1 20210110\"",
                "gcc-10",
                "gcc",
                10,
            ),
            (
                "\"x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0\"",
                "x86_64-linux-gnu-gcc-14",
                "gcc",
                14,
            ),
            ("\"Debian clang version 17.0.6\"", "clang", "clang", 17),
            ("\"\"", "gcc", "gcc", 0),
        ];
        for (text, command, family, major) in cases {
            let config = format!("CONFIG_X86=y\nCONFIG_CC_VERSION_TEXT={text}\n");
            assert_eq!(
                wanted(&config),
                Wanted {
                    command: command.to_owned(),
                    family,
                    major
                },
                "{text}"
            );
        }
    }
}
