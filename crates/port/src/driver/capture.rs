//! From a build to a driver: what a source's own commands compiled, with which flags, into which modules, as a plain Kbuild
//! directory.
//!
//! Packages build by any road (a Makefile that calls kbuild for subdirectories, a configure script, patches). What they did is read
//! from what kbuild left behind, so nothing of the road has to be understood. Decisions that the road took from the home kernel
//! (which files, which `-D`) are kept: they belong to the home form.

use super::manifest::{FILE, Manifest, write_whole};
use kspan_kernel::{Error, Kernel, Result, TuCommand, cmdfile};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where a build happened.
#[derive(Debug, Clone, Copy)]
pub struct Built<'a> {
    /// The kernel it was for.
    pub kernel: &'a Kernel,
    /// The directory, with all that the build left.
    pub dir: &'a Path,
    /// The place at which the build saw it.
    pub shown: &'a Path,
    /// How its files were compiled.
    pub commands: &'a [TuCommand],
    /// The flags that any module of the kernel gets.
    pub template: &'a [String],
}

/// One module: its name and its objects, relative to the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Module {
    name: String,
    objects: Vec<PathBuf>,
}

/// Makes a directory in which a build has ended a driver for that kernel: a `Kbuild` at its top that makes the same modules, and a
/// `kspan.toml`. The modules' names.
///
/// # Errors
/// When the build left no module, or one of something other than C and assembler sources of this directory.
pub fn capture(built: &Built<'_>, name: &str, version: &str) -> Result<Vec<String>> {
    let modules = modules(built)?;
    let text = kbuild(built, &modules)?;
    for known in [FILE, "Kbuild"] {
        // One of an earlier time, or the package's own, whose work is in the new one.
        let _ = std::fs::remove_file(built.dir.join(known));
    }
    write_whole(&built.dir.join("Kbuild"), text.as_bytes())?;
    let names: Vec<String> = modules.iter().map(|m| m.name.clone()).collect();
    let manifest = Manifest {
        name: name.to_owned(),
        home: built.kernel.id.clone(),
        version: Some(version.to_owned()).filter(|v| !v.is_empty()),
        modules: names.clone(),
        ..Manifest::default()
    };
    manifest.save(built.dir)?;
    Ok(names)
}

/// The modules that the build made, by the lists that kbuild keeps of them. A package may have moved the modules themselves elsewhere.
fn modules(built: &Built<'_>) -> Result<Vec<Module>> {
    let below = || walkdir::WalkDir::new(built.dir).sort_by_file_name();
    let of_kind = |kind: &'static str| {
        let files = below().into_iter().flatten().map(|e| e.into_path());
        files.filter(move |p| p.extension().is_some_and(|e| e == kind))
    };
    let made: BTreeSet<String> = of_kind("ko").map(|p| stem(&p)).collect();
    let mut found: BTreeMap<String, Module> = BTreeMap::new();
    for list in of_kind("mod") {
        let name = stem(&list);
        if !made.contains(&name) {
            continue;
        }
        let text = std::fs::read_to_string(&list).map_err(Error::io(&list))?;
        let module = Module {
            objects: objects(built, &list, &text)?,
            name: name.clone(),
        };
        if found.insert(name.clone(), module).is_some() {
            return Err(Error::Input(format!(
                "the build made two modules named {name}"
            )));
        }
    }
    match found.is_empty() {
        true => Err(Error::Input("the build left no module".to_owned())),
        false => Ok(found.into_values().collect()),
    }
}

fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

/// The objects in a `.mod` file: absolute, or relative to the directory that make was started for.
fn objects(built: &Built<'_>, list: &Path, text: &str) -> Result<Vec<PathBuf>> {
    let words = text.split_whitespace().filter(|w| w.ends_with(".o"));
    let mut seen = BTreeSet::new();
    let mut objects = Vec::new();
    for word in words {
        let object = match Path::new(word).strip_prefix(built.shown) {
            // A makefile may name a directory beside its own: `../staging/echo.o`.
            Ok(inside) => Some(cmdfile::normal(inside)).filter(|p| !p.starts_with("..")),
            Err(_) => found_from(built.dir, list, word),
        };
        let object = object.ok_or_else(|| {
            Error::Input(format!("{word}, a part of {}, is not here", list.display()))
        })?;
        if seen.insert(object.clone()) {
            objects.push(object);
        }
    }
    Ok(objects)
}

/// The directory on the way up from which a name leads to an object.
fn found_from(top: &Path, list: &Path, word: &str) -> Option<PathBuf> {
    let ups = list
        .parent()?
        .ancestors()
        .take_while(|d| d.starts_with(top));
    let mut places = ups.map(|d| cmdfile::normal(&d.join(word)));
    let place = places.find(|p| p.is_file())?;
    place.strip_prefix(top).ok().map(Path::to_path_buf)
}

fn kbuild(built: &Built<'_>, modules: &[Module]) -> Result<String> {
    let mut text = format!(
        "# Written by kspan: what this source's own commands made for {}.\n",
        built.kernel.release
    );
    let mut flags: BTreeMap<String, String> = BTreeMap::new();
    for module in modules {
        text.push_str(&module_lines(module));
        for object in &module.objects {
            let (stem, words) = own_flags(built, object)?;
            flags.insert(stem, words);
        }
    }
    let all: BTreeSet<&String> = flags.values().collect();
    match (all.len(), all.first()) {
        (1, Some(one)) if !one.is_empty() => {
            text.push_str(&format!("ccflags-y += {one}\nasflags-y += {one}\n"));
        }
        (1, _) => {}
        _ => {
            for (stem, words) in flags.iter().filter(|(_, w)| !w.is_empty()) {
                text.push_str(&format!(
                    "CFLAGS_{stem}.o += {words}\nAFLAGS_{stem}.o += {words}\n"
                ));
            }
        }
    }
    Ok(text)
}

fn module_lines(module: &Module) -> String {
    let Module { name, objects } = module;
    let written: Vec<String> = objects.iter().map(|o| o.display().to_string()).collect();
    match objects.as_slice() {
        [only] if only.file_stem().is_some_and(|s| s == name.as_str()) => {
            format!("obj-m += {}\n", only.display())
        }
        _ => format!("obj-m += {name}.o\n{name}-y := {}\n", written.join(" ")),
    }
}

/// The stem of an object, and the flags that are its own, as a makefile writes them.
fn own_flags(built: &Built<'_>, object: &Path) -> Result<(String, String)> {
    let made = |c: &&TuCommand| cmdfile::normal(&c.object) == object;
    let command = built.commands.iter().find(made);
    let command = command.filter(|c| c.source.extension().is_some_and(|e| e == "c" || e == "S"));
    let Some(command) = command else {
        return Err(Error::Input(format!(
            "{} is not made from a C or assembler source in this directory",
            object.display()
        )));
    };
    let own = crate::home::extra_flags(built.template, &command.args);
    // A port is held to its warnings by kspan, not by the compiler.
    let kept =
        |w: &&String| !cmdfile::is_file_define(w) && !w.starts_with("-Werror") && *w != "-DMODULE";
    let words: Vec<String> = own.iter().filter(kept).map(|w| written(built, w)).collect();
    let stem = object.with_extension("").display().to_string();
    Ok((stem, words.join(" ")))
}

/// A flag in a makefile: paths by make's own names for the directories, the rest as the shell must see it.
fn written(built: &Built<'_>, word: &str) -> String {
    let shell = shlex::try_quote(word).map_or_else(|_| word.to_owned(), |w| w.into_owned());
    let mut text = shell.replace('$', "$$").replace('#', "\\#");
    let kernel = built.kernel;
    for (dir, name) in [
        (built.shown, "$(src)"),
        (&kernel.source_dir, "$(srctree)"),
        (&kernel.build_dir, "$(objtree)"),
    ] {
        text = text.replace(&dir.display().to_string(), name);
    }
    text
}

/// The version of a kernel as its `LINUX_VERSION_CODE` says it.
#[must_use]
pub fn version_code(kernel: &Kernel) -> Option<u32> {
    let path = kernel
        .build_dir
        .join("include/generated/uapi/linux/version.h");
    let text = std::fs::read_to_string(path).ok()?;
    let line = text
        .lines()
        .find_map(|l| l.trim().strip_prefix("#define LINUX_VERSION_CODE"))?;
    line.trim().parse().ok()
}

/// Decides, in every source below a directory, what it asks of the kernel's version as on its home kernel: `LINUX_VERSION_CODE`
/// becomes the home kernel's number. How many places there were.
///
/// A source that has forms of its own for other kernels takes the home kernel's then, and nothing but kspan's remedies stands
/// between that form and the target.
///
/// # Errors
/// When a file cannot be read or written.
pub fn freeze_version(dir: &Path, code: u32) -> Result<usize> {
    let mut places = 0;
    for entry in walkdir::WalkDir::new(dir).sort_by_file_name() {
        let Ok(entry) = entry else { continue };
        let path = entry.path();
        let source = path
            .extension()
            .is_some_and(|e| ["c", "h", "S", "inc"].iter().any(|s| e == *s));
        if !entry.file_type().is_file() || !source {
            continue;
        }
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let (frozen, n) = frozen(&bytes, code);
        if n > 0 {
            write_whole(path, &frozen)?;
            places += n;
        }
    }
    Ok(places)
}

/// A text with each `LINUX_VERSION_CODE` replaced, where it is a word of its own and not defined there.
fn frozen(bytes: &[u8], code: u32) -> (Vec<u8>, usize) {
    const WORD: &[u8] = b"LINUX_VERSION_CODE";
    let part = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let (mut out, mut from, mut n) = (Vec::with_capacity(bytes.len()), 0, 0);
    for at in memchr::memmem::find_iter(bytes, WORD) {
        let end = at + WORD.len();
        let before = bytes.get(..at).unwrap_or_default();
        if part(before.last()) || part(bytes.get(end)) || is_asked_whether_defined(before) {
            continue;
        }
        out.extend_from_slice(bytes.get(from..at).unwrap_or_default());
        out.extend_from_slice(code.to_string().as_bytes());
        from = end;
        n += 1;
    }
    out.extend_from_slice(bytes.get(from..).unwrap_or_default());
    (out, n)
}

/// `#ifdef X`, `#define X`, `defined(X)`: a number there would not be C.
fn is_asked_whether_defined(before: &[u8]) -> bool {
    let line = before.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let last = line
        .trim_end_matches([' ', '\t', '('])
        .rsplit([' ', '\t', '#', '(', '!', '&', '|'])
        .next()
        .unwrap_or_default();
    matches!(last, "ifdef" | "ifndef" | "define" | "undef" | "defined")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_decided_where_it_is_asked_and_nowhere_else() {
        let text = "#ifdef LINUX_VERSION_CODE\n#if LINUX_VERSION_CODE >= X && !defined(LINUX_VERSION_CODE)\nMY_LINUX_VERSION_CODE\n";
        let (out, n) = frozen(text.as_bytes(), 7);
        assert_eq!(n, 1);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            text.replacen("#if LINUX_VERSION_CODE", "#if 7", 1)
        );
    }

    fn kernel(dir: &Path) -> Kernel {
        Kernel {
            id: "path/1".into(),
            release: "1".into(),
            version: "1".into(),
            arch: "x86".into(),
            build_dir: dir.join("kdir"),
            source_dir: dir.join("ksrc"),
            digest: String::new(),
        }
    }

    fn command(object: &str, source: &str, args: &[&str]) -> TuCommand {
        TuCommand {
            source: source.into(),
            object: object.into(),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            headers: Vec::new(),
        }
    }

    #[test]
    fn modules_of_any_depth_become_one_kbuild() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = kernel(dir.path());
        let tree = dir.path().join("tree");
        for (name, text) in [
            ("sub/one.ko", ""),
            ("sub/one.mod", "/shown/sub/one.o\n\n"),
            ("two.ko", ""),
            ("two.mod", "a.o /shown/sub/../lib/b.o\n"),
            ("a.o", ""),
            ("lib/b.o", ""),
        ] {
            let path = tree.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let commands = [
            command("sub/one.o", "sub/one.c", &["-O2", "-I/shown/inc"]),
            command("a.o", "a.c", &["-O2", "-DX=\"a b\"", "-Werror"]),
            command("sub/../lib/b.o", "lib/b.S", &["-O2"]),
        ];
        let template = ["-O2".to_owned()];
        let built = Built {
            kernel: &kernel,
            dir: &tree,
            shown: Path::new("/shown"),
            commands: &commands,
            template: &template,
        };
        assert_eq!(capture(&built, "p", "1").unwrap(), ["one", "two"]);
        let text = std::fs::read_to_string(tree.join("Kbuild")).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "obj-m += sub/one.o",
                "obj-m += two.o",
                "two-y := a.o lib/b.o",
                "CFLAGS_a.o += '-DX=\"a b\"'",
                "AFLAGS_a.o += '-DX=\"a b\"'",
                "CFLAGS_sub/one.o += -I$(src)/inc",
                "AFLAGS_sub/one.o += -I$(src)/inc",
            ]
        );
    }

    #[test]
    fn a_part_without_a_source_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = kernel(dir.path());
        std::fs::write(dir.path().join("x.ko"), "").unwrap();
        std::fs::write(dir.path().join("x.mod"), "blob.o").unwrap();
        std::fs::write(dir.path().join("blob.o"), "").unwrap();
        let built = Built {
            kernel: &kernel,
            dir: dir.path(),
            shown: dir.path(),
            commands: &[],
            template: &[],
        };
        let why = capture(&built, "x", "").unwrap_err().to_string();
        assert!(why.contains("blob.o"), "{why}");
    }
}
