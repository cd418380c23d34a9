//! A kernel given by path: installed headers, a prepared source tree, or an `O=` build directory.

use crate::{Error, Kernel, Result, cmdfile, files};
use std::path::{Path, PathBuf};

/// What a directory says of the kernel it was made for; the base of [`Kernel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// `uname -r`.
    pub release: String,
    /// The upstream version from the top Makefile.
    pub version: String,
    /// The kernel's name for the architecture.
    pub arch: String,
    /// KDIR.
    pub build_dir: PathBuf,
    /// Where the headers' sources lie.
    pub source_dir: PathBuf,
}

/// Describes the kernel in a directory; `/lib/modules/X` stands for its `build`.
pub fn describe(path: &Path) -> Result<Tree> {
    let given = path.canonicalize().map_err(|e| {
        Error::Input(format!(
            "{}: no kernel can be read there: {e}",
            path.display()
        ))
    })?;
    let build_dir = match given.join("build").canonicalize() {
        Ok(build) if !given.join("Makefile").exists() => build,
        _ => given,
    };
    let source_dir = source_dir(&build_dir)?;
    complain_of_missing(&build_dir, &source_dir)?;
    Ok(Tree {
        release: release(&build_dir)?,
        version: version(&source_dir)?,
        arch: arch(&build_dir)?,
        build_dir,
        source_dir,
    })
}

/// A kernel by path, with a digest of everything that a build reads from it.
pub fn kernel(path: &Path) -> Result<(Kernel, blake3::Hash)> {
    let tree = describe(path)?;
    let base = digest(&tree)?;
    let kernel = Kernel {
        id: format!("path/{}", tree.release),
        release: tree.release,
        version: tree.version,
        arch: tree.arch,
        build_dir: tree.build_dir,
        source_dir: tree.source_dir,
        digest: String::new(),
    };
    Ok((kernel, base))
}

/// The top Makefile of a build directory includes the one of the sources by its absolute path.
fn source_dir(build_dir: &Path) -> Result<PathBuf> {
    if build_dir.join("include/linux/module.h").exists() {
        return Ok(build_dir.to_path_buf());
    }
    let makefile = build_dir.join("Makefile");
    let text = files::read_text(&makefile).unwrap_or_default();
    let included = text
        .lines()
        .filter_map(|l| l.strip_prefix("include "))
        .map(|l| expand_own_directory(l.trim(), build_dir))
        .filter_map(|l| {
            Path::new(&l)
                .parent()
                .map(|d| cmdfile::normal(&build_dir.join(d)))
        })
        .chain([build_dir.join("source")])
        .find(|d| d.join("include/linux/module.h").exists());
    included.and_then(|d| d.canonicalize().ok()).ok_or_else(|| {
        Error::Input(format!(
            "{}: not a kernel to build for: neither include/linux/module.h nor a Makefile or `source` link that leads to it is there. \
             Give the directory that make's -C takes (installed headers, a source tree after `make modules_prepare`, or an O= directory); \
             for headers from packages, install the matching -common package too",
            build_dir.display()
        ))
    })
}

/// Our own unpacked trees name the common headers relative to their Makefile; see `unpack`.
fn expand_own_directory(line: &str, build_dir: &Path) -> String {
    match line.strip_prefix(crate::archive::OWN_DIRECTORY) {
        Some(rest) => format!("{}{}", build_dir.display(), rest.replacen(')', "", 1)),
        None => line.to_owned(),
    }
}

/// What a build needs, and what makes it.
const NEEDED: [(&str, &str); 5] = [
    (".config", "make olddefconfig"),
    ("include/generated/autoconf.h", "make modules_prepare"),
    ("include/generated/utsrelease.h", "make modules_prepare"),
    ("scripts/mod/modpost", "make modules_prepare"),
    (
        "Module.symvers",
        "a full make, or copy it from the kernel's build",
    ),
];

fn complain_of_missing(build_dir: &Path, source_dir: &Path) -> Result<()> {
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(file, _)| !build_dir.join(file).exists())
        .map(|(file, cure)| format!("{file} ({cure})"))
        .chain(
            (!source_dir.join("Makefile").exists())
                .then(|| format!("{}/Makefile", source_dir.display())),
        )
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Input(format!(
        "{}: the kernel is not ready to build modules for; missing: {}. For packaged headers reinstall linux-headers and linux-kbuild of this kernel",
        build_dir.display(),
        missing.join(", ")
    )))
}

fn release(build_dir: &Path) -> Result<String> {
    let path = build_dir.join("include/generated/utsrelease.h");
    let text = files::read_text(&path)?;
    let release = text
        .lines()
        .find_map(|l| l.strip_prefix("#define UTS_RELEASE "))
        .map(|l| l.trim().trim_matches('"'));
    release
        .filter(|r| !r.is_empty() && !r.contains('/'))
        .map(str::to_owned)
        .ok_or_else(|| {
            Error::Input(format!(
                "{}: names no release; run `make modules_prepare` there again",
                path.display()
            ))
        })
}

fn version(source_dir: &Path) -> Result<String> {
    let path = source_dir.join("Makefile");
    let text = files::read_text(&path)?;
    let value = |key: &str| {
        let line = text
            .lines()
            .take(20)
            .find_map(|l| l.strip_prefix(key)?.trim_start().strip_prefix('='));
        line.map(|v| v.trim().to_owned()).unwrap_or_default()
    };
    let version = format!(
        "{}.{}.{}",
        value("VERSION"),
        value("PATCHLEVEL"),
        value("SUBLEVEL")
    );
    match version.starts_with('.') {
        true => Err(Error::Input(format!(
            "{}: not a kernel's Makefile (no VERSION)",
            path.display()
        ))),
        false => Ok(version),
    }
}

/// Configuration symbols that tell the architecture's directory.
const ARCHES: [(&str, &str); 8] = [
    ("CONFIG_X86=y", "x86"),
    ("CONFIG_ARM64=y", "arm64"),
    ("CONFIG_ARM=y", "arm"),
    ("CONFIG_RISCV=y", "riscv"),
    ("CONFIG_PPC=y", "powerpc"),
    ("CONFIG_S390=y", "s390"),
    ("CONFIG_MIPS=y", "mips"),
    ("CONFIG_LOONGARCH=y", "loongarch"),
];

fn arch(build_dir: &Path) -> Result<String> {
    let path = build_dir.join(".config");
    let config = files::read_text(&path)?;
    let found = config.lines().find_map(|l| {
        ARCHES
            .iter()
            .find(|(symbol, _)| *symbol == l)
            .map(|(_, arch)| *arch)
    });
    found.map(str::to_owned).ok_or_else(|| {
        Error::Input(format!(
            "{}: names no architecture that kspan knows",
            path.display()
        ))
    })
}

/// Everything a module's build reads: configuration, exports, headers, the build's own scripts.
fn digest(tree: &Tree) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for file in [".config", "Module.symvers"] {
        hasher.update(files::hash_file(&tree.build_dir.join(file))?.as_bytes());
    }
    let arch_include = Path::new("arch").join(&tree.arch).join("include");
    for dir in [&tree.build_dir, &tree.source_dir] {
        for part in [Path::new("include"), &arch_include] {
            let part = dir.join(part);
            if part.is_dir() {
                files::hash_tree(&part, &mut hasher)?;
            }
        }
        for tool in [
            "Makefile",
            "scripts/Makefile.build",
            "scripts/Makefile.modpost",
            "scripts/mod/modpost",
            "tools/objtool/objtool",
        ] {
            let tool = dir.join(tool);
            if tool.is_file() {
                hasher.update(files::hash_file(&tool)?.as_bytes());
            }
        }
    }
    Ok(hasher.finalize())
}

/// Is this a full kernel source tree (not only headers)?
pub fn is_full_source(dir: &Path) -> bool {
    ["kernel/fork.c", "drivers/base/core.c", "MAINTAINERS"]
        .iter()
        .all(|f| dir.join(f).is_file())
}
