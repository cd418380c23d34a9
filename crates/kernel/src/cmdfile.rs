//! kbuild's `.cmd` files: the command that made an object, its source and all it read. Pure functions.

use std::path::{Component, Path, PathBuf};

/// What a `.cmd` file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CmdFile {
    /// The object as written after `cmd_` or `savedcmd_`.
    pub target: String,
    /// The words of the first shell command.
    pub words: Vec<String>,
    /// The source file, where the object was compiled from one.
    pub source: Option<String>,
    /// The files it depends on, configuration markers left out.
    pub deps: Vec<String>,
}

/// Reads a `.cmd` file; lines that mean nothing here are skipped, so any text gives an answer.
#[must_use]
pub fn parse(text: &str) -> CmdFile {
    let mut file = CmdFile::default();
    let mut in_deps = false;
    for line in text.lines() {
        if in_deps {
            in_deps = dependency(line, &mut file.deps);
        } else if let Some((key, value)) = line.split_once(" := ") {
            in_deps = assignment(key, value, &mut file);
        }
    }
    file
}

/// Takes one `key := value` line; true if dependency lines follow.
fn assignment(key: &str, value: &str, file: &mut CmdFile) -> bool {
    if let Some(target) = key
        .strip_prefix("savedcmd_")
        .or_else(|| key.strip_prefix("cmd_"))
    {
        file.target = target.to_owned();
        file.words = first_command(&unescape(value));
    } else if key.starts_with("source_") {
        file.source = Some(value.trim().to_owned());
    } else if key.starts_with("deps_") {
        return value.trim_end().ends_with('\\');
    }
    false
}

/// Takes one dependency line; true if more follow.
fn dependency(line: &str, deps: &mut Vec<String>) -> bool {
    let (body, more) = match line.trim().strip_suffix('\\') {
        Some(body) => (body.trim(), true),
        None => (line.trim(), false),
    };
    if !body.is_empty() && !body.starts_with("$(wildcard ") {
        deps.push(body.to_owned());
    }
    more
}

/// Undoes what kbuild did to keep make from reading the command.
fn unescape(value: &str) -> String {
    value.replace("$(pound)", "#").replace("$$", "$")
}

/// The words up to the first `;`, with the shell's quoting undone.
fn first_command(line: &str) -> Vec<String> {
    let words =
        shlex::split(line).unwrap_or_else(|| line.split_whitespace().map(str::to_owned).collect());
    let mut command = Vec::new();
    for word in words {
        if word == ";" || word == "&&" || word == "||" {
            break;
        }
        match word.strip_suffix(';') {
            Some(last) => {
                command.push(last.to_owned());
                break;
            }
            None => command.push(word),
        }
    }
    command
}

/// Options whose argument is a path, joined (`-Ix`) or as the next word (`-include x`).
const PATH_OPTIONS: [&str; 7] = [
    "-include",
    "-imacros",
    "-isystem",
    "-iquote",
    "-idirafter",
    "-iprefix",
    "-I",
];

/// A compiler's arguments made independent of the directory and of the file: paths absolute, no output, no source.
///
/// `words` starts with the compiler; `base` is the directory it ran in.
#[must_use]
pub fn compile_args(words: &[String], base: &Path, source: Option<&str>) -> Vec<String> {
    let mut args = Vec::new();
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-c" | "-S" | "-E" => {}
            "-o" | "-MF" | "-MT" | "-MQ" => drop(words.next()),
            w if names_one_file(w) || Some(w) == source => {}
            w if PATH_OPTIONS.contains(&w) => {
                args.push(word.clone());
                args.extend(words.next().map(|path| absolute(base, path)));
            }
            w => args.push(with_absolute_path(w, base)),
        }
    }
    args
}

fn names_one_file(word: &str) -> bool {
    word.starts_with("-Wp,-MMD,") || word.starts_with("-Wp,-MD,") || word == "-MD" || word == "-MMD"
}

/// `-I./include` → `-I/base/include`; other words as they are.
fn with_absolute_path(word: &str, base: &Path) -> String {
    for option in PATH_OPTIONS {
        if let Some(path) = word
            .strip_prefix(option)
            .filter(|p| !p.is_empty() && !p.starts_with('='))
        {
            return format!("{option}{}", absolute(base, path));
        }
    }
    word.to_owned()
}

fn absolute(base: &Path, path: &str) -> String {
    normal(&base.join(path)).to_string_lossy().into_owned()
}

/// Removes `.` and resolves `..` by text.
#[must_use]
pub fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if out.file_name().is_some() => drop(out.pop()),
            other => out.push(other),
        }
    }
    out
}

/// Defines that kbuild makes for one file: no part of what every module is told.
#[must_use]
pub fn is_file_define(arg: &str) -> bool {
    arg.starts_with("-DKBUILD_") || arg.starts_with("-D__KBUILD_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "cmd_/w/a.o := gcc-12 -Wp,-MMD,/w/.a.o.d -nostdinc -I/k/include -I./include -include ./g/c.h -DX='\"q s\"' \
         -DKBUILD_MODNAME='\"a\"' -c -o /w/a.o /w/a.c ; ./tools/objtool/objtool /w/a.o\n\n\
         source_/w/a.o := /w/a.c\n\ndeps_/w/a.o := \\\n    $(wildcard include/config/X) \\\n  /k/include/linux/x.h \\\n  include/g.h \\\n\n\
         /w/a.o: $(deps_/w/a.o)\n";

    #[test]
    fn reads_command_source_and_deps() {
        let file = parse(OLD);
        assert_eq!(file.target, "/w/a.o");
        assert_eq!(file.source.as_deref(), Some("/w/a.c"));
        assert_eq!(file.deps, ["/k/include/linux/x.h", "include/g.h"]);
        let args = compile_args(&file.words, Path::new("/kdir"), file.source.as_deref());
        assert_eq!(
            args,
            [
                "-nostdinc",
                "-I/k/include",
                "-I/kdir/include",
                "-include",
                "/kdir/g/c.h",
                "-DX=\"q s\"",
                "-DKBUILD_MODNAME=\"a\""
            ]
        );
    }

    #[test]
    fn reads_the_newer_spelling() {
        let file = parse("savedcmd_a.o :=  gcc -DP='$(pound)$$' -c -o a.o a.c; true\n");
        assert_eq!(file.target, "a.o");
        assert_eq!(file.words, ["gcc", "-DP=#$", "-c", "-o", "a.o", "a.c"]);
    }

    #[test]
    fn garbage_gives_an_empty_answer() {
        for text in ["", ":=", "cmd_ := '", "deps_x := \\", "\0\u{fffd}\n := \n"] {
            let _ = compile_args(&parse(text).words, Path::new("/"), None);
        }
    }

    #[test]
    fn paths_become_normal() {
        assert_eq!(normal(Path::new("/a/./b/../c")), Path::new("/a/c"));
        assert_eq!(normal(Path::new("../x")), Path::new("../x"));
    }
}
