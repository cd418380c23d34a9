//! From gcc's arguments to libclang's.

use kspan_kernel::Kernel;
use std::path::{Path, PathBuf};

/// Options that take their value in the next argument and that libclang understands.
const PAIRS: [&str; 8] = [
    "-I",
    "-isystem",
    "-iquote",
    "-idirafter",
    "-include",
    "-imacros",
    "-D",
    "-U",
];
/// Options that libclang understands as they stand.
const KEPT: [&str; 14] = [
    "-nostdinc",
    "-fshort-wchar",
    "-funsigned-char",
    "-fms-extensions",
    "-fno-common",
    "-m64",
    "-m32",
    "-mno-sse",
    "-mno-sse2",
    "-mno-mmx",
    "-mno-avx",
    "-mno-80387",
    "-mcmodel=kernel",
    "-fno-strict-aliasing",
];

/// An option and its value in one argument.
fn glued(arg: &str) -> Option<(&'static str, &str)> {
    ["-I", "-D", "-U", "-isystem", "-iquote", "-idirafter"]
        .into_iter()
        .find_map(|flag| Some((flag, arg.strip_prefix(flag).filter(|v| !v.is_empty())?)))
}

/// An option's value with a path that does not depend on where the process stands. (libclang's own `-working-directory` would move
/// the whole process there, and the user's relative paths with it.)
fn anchored(flag: &str, value: &str, working_dir: &Path) -> String {
    let path = working_dir.join(value);
    let is_path = match flag {
        "-D" | "-U" => false,
        // What is not there is looked for as `#include "…"` is.
        "-include" | "-imacros" => path.exists(),
        _ => true,
    };
    match is_path {
        true => path.to_string_lossy().into_owned(),
        false => value.to_owned(),
    }
}

/// The version of gcc that the kernel was configured for, as clang wants it (`14.2.0`).
fn gcc_version(kernel: &Kernel) -> String {
    let config = std::fs::read_to_string(kernel.build_dir.join("include/config/auto.conf"))
        .unwrap_or_default();
    let number = config
        .lines()
        .find_map(|line| line.strip_prefix("CONFIG_GCC_VERSION="))
        .and_then(|text| text.trim().parse::<u32>().ok());
    let number = number.filter(|number| *number >= 40_000).unwrap_or(120_200);
    format!(
        "{}.{}.{}",
        number / 10_000,
        number / 100 % 100,
        number % 100
    )
}

/// Turns gcc's arguments for one kernel, given in `working_dir`, into libclang's: makes paths absolute, drops what it does not know and makes it pose as gcc, so that
/// headers take the same branches as in the real build.
#[must_use]
pub fn for_clang(kernel: &Kernel, args: &[String], working_dir: &Path) -> Vec<String> {
    let mut out: Vec<String> = vec![
        "-x".into(),
        "c".into(),
        "-target".into(),
        "x86_64-linux-gnu".into(),
        "-w".into(),
        "-ferror-limit=0".into(),
        // Guesses at misspelt names cost seconds in a large unit.
        "-fno-spell-checking".into(),
        "-fno-builtin".into(),
    ];
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if PAIRS.contains(&word.as_str()) {
            if let Some(value) = words.next() {
                out.extend([word.clone(), anchored(word, value, working_dir)]);
            }
        } else if let Some((flag, value)) = glued(word) {
            out.push(format!("{flag}{}", anchored(flag, value, working_dir)));
        } else if KEPT.contains(&word.as_str()) || word.starts_with("-std=") {
            out.push(word.clone());
        } else if matches!(
            word.as_str(),
            "-o" | "-x" | "-MF" | "-MT" | "-MQ" | "--param"
        ) {
            words.next();
        }
    }
    out.extend(pose_as_gcc(kernel));
    out.extend(module_names(&out, args));
    out
}

fn pose_as_gcc(kernel: &Kernel) -> Vec<String> {
    let mut out = vec![format!("-fgnuc-version={}", gcc_version(kernel))];
    for name in [
        "__clang__",
        "__clang_major__",
        "__clang_minor__",
        "__clang_version__",
    ] {
        out.push(format!("-U{name}"));
    }
    // Words of gcc that libclang lacks, and near enough for declarations.
    for define in [
        "__seg_gs=",
        "__seg_fs=",
        "typeof_unqual=__typeof__",
        "__typeof_unqual__=__typeof__",
        "__builtin_counted_by_ref(x)=((void*)0)",
    ] {
        out.push(format!("-D{define}"));
    }
    out
}

/// What every module is compiled with, where the caller did not say.
fn module_names(have: &[String], args: &[String]) -> Vec<String> {
    let given = |name: &str| {
        have.iter()
            .chain(args)
            .any(|arg| arg.trim_start_matches("-D").starts_with(name))
    };
    let mut out = Vec::new();
    for (name, text) in [
        ("MODULE", "-DMODULE"),
        ("KBUILD_MODNAME=", "-DKBUILD_MODNAME=\"x\""),
        ("KBUILD_BASENAME=", "-DKBUILD_BASENAME=\"x\""),
    ] {
        if !given(name) {
            out.push(text.to_owned());
        }
    }
    out
}

/// The directories that `#include <…>` searches, in order.
#[must_use]
pub fn include_dirs(args: &[String]) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word == "-I" || word == "-isystem" {
            out.extend(words.next().map(PathBuf::from));
        } else if let Some(rest) = word.strip_prefix("-I") {
            out.push(PathBuf::from(rest));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_do_not_depend_on_where_the_process_stands() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.h"), "").unwrap();
        let at = |flag: &str, value: &str| anchored(flag, value, dir.path());
        let below = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        assert_eq!(at("-I", "include"), below("include"));
        assert_eq!(at("-isystem", "/usr/include"), "/usr/include");
        assert_eq!(at("-include", "config.h"), below("config.h"));
        assert_eq!(at("-include", "linux/kconfig.h"), "linux/kconfig.h");
        assert_eq!(at("-D", "A=1"), "A=1");
        assert_eq!(glued("-I../inc"), Some(("-I", "../inc")));
        assert_eq!(glued("-I"), None);
    }
}
