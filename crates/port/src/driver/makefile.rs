//! What a kernel directory's Makefile says, by asking make itself.
//!
//! Kbuild files are programs (`include`, `ifdef`, `$(addprefix …)`), so they are not parsed but evaluated: one make
//! process reads many directories in turn and prints the variables that kbuild would act on. It runs in a sandbox
//! with nothing writable, no network and no shell; `$(call cc-option,…)` and the like stay as they are written.

use kspan_kernel::Result;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What one directory's Kbuild or Makefile asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirVars {
    /// The directory, relative to the source tree.
    pub dir: String,
    /// `obj-y`, words.
    pub obj_y: Vec<String>,
    /// `obj-m` less what is also in `obj-y`, words.
    pub obj_m: Vec<String>,
    /// `subdir-y` and `subdir-m`.
    pub subdirs: Vec<String>,
    /// Objects of composite modules, by module name; absent for single-file modules.
    pub parts: BTreeMap<String, Vec<String>>,
    /// Variables of flags by name: `ccflags-y`, `asflags-y`, `subdir-ccflags-y`, `KBUILD_CFLAGS`, `CFLAGS_x.o`, …
    pub flags: BTreeMap<String, String>,
    /// The Makefiles that were read, relative to the source tree where inside it.
    pub makefiles: Vec<PathBuf>,
    /// Why the directory could not be evaluated.
    pub error: Option<String>,
}

/// Functions of kbuild that must survive into the driver's own Kbuild instead of being evaluated here.
const KEPT_FUNCTIONS: &[&str] = &[
    "cc-option",
    "cc-option-yn",
    "cc-disable-warning",
    "cc-ifversion",
    "as-instr",
    "as-option",
    "ld-option",
];

/// Variables of the kernel's top Makefile that drivers add to their flags.
const KEPT_VARIABLES: &[&str] = &[
    "CC_FLAGS_FPU",
    "CC_FLAGS_NO_FPU",
    "CC_FLAGS_FTRACE",
    "RETPOLINE_CFLAGS",
    "DISABLE_KSTACK_ERASE",
    "DISABLE_STACKLEAK_PLUGIN",
    "DISABLE_LTO",
    "CC_FLAGS_LTO",
    "CC_FLAGS_CFI",
    "CC_FLAGS_SCS",
    "NOSTDINC_FLAGS",
    "LINUXINCLUDE",
];

const PRELUDE: &str = "\
MAKEFLAGS += -rR
override SHELL := /bin/false
.PHONY: kspan
kspan: ;
objtree := .
ARCH := x86
SRCARCH := x86
KERNELRELEASE := kspan
BITS := 64
empty :=
space := $(empty) $(empty)
comma := ,
squote := '
pound := \\#
";

const MACROS: &str = "\
define kspan_clear
$(foreach v,$(filter-out $(kspan_keep),$(.VARIABLES)),$(eval override undefine $v))
endef
define kspan_dump
$(info @@obj-y $(obj-y))
$(info @@obj-m $(filter-out $(obj-y),$(obj-m)))
$(info @@subdirs $(subdir-y) $(subdir-m))
$(info @@makefiles $(MAKEFILE_LIST))
$(foreach v,ccflags-y ccflags-remove-y asflags-y cppflags-y subdir-ccflags-y subdir-asflags-y EXTRA_CFLAGS \
 KBUILD_CFLAGS KBUILD_CPPFLAGS $(sort $(filter CFLAGS_% AFLAGS_% CPPFLAGS_%,\
 $(filter-out $(kspan_keep),$(.VARIABLES)))),$(if $(strip $($v)),$(info @@flag $v $($v))))
$(foreach m,$(patsubst %.o,%,$(filter %.o,$(obj-m))),$(if $(strip $($m-objs) $($m-y) $($m-m)),\
$(info @@part $m $($m-objs) $($m-y) $($m-m))))
endef
kspan_keep := $(.VARIABLES) kspan_keep MAKEFILE_LIST .DEFAULT_GOAL
";

const INIT: &[&str] = &[
    "obj-y",
    "obj-m",
    "lib-y",
    "lib-m",
    "always-y",
    "always-m",
    "targets",
    "subdir-y",
    "subdir-m",
    "asflags-y",
    "ccflags-y",
    "cppflags-y",
    "ldflags-y",
    "subdir-asflags-y",
    "subdir-ccflags-y",
];

/// The Kbuild file of a directory, as kbuild chooses it.
#[must_use]
pub fn kbuild_file(dir: &Path) -> Option<PathBuf> {
    ["Kbuild", "Makefile"]
        .iter()
        .map(|n| dir.join(n))
        .find(|p| p.is_file())
}

/// Evaluates the Kbuild files of directories (relative to `tree`) with a configuration (`CONFIG_X` → value).
///
/// A directory whose file cannot be evaluated comes back with [`DirVars::error`]; the others are not disturbed.
///
/// # Errors
/// When make or bubblewrap cannot be run at all.
pub fn evaluate(
    tree: &Path,
    config: &BTreeMap<String, String>,
    dirs: &[String],
) -> Result<Vec<DirVars>> {
    let mut found = Vec::with_capacity(dirs.len());
    let mut rest = dirs;
    while !rest.is_empty() {
        let run = kspan_kernel::make::evaluate(tree, &script(tree, config, rest))?;
        let (mut batch, cut) = parse_dump(tree, &run.stdout);
        let done = batch.len();
        match (cut, rest.get(done)) {
            (true, _) => {
                if let Some(last) = batch.last_mut() {
                    last.error = Some(run.words());
                }
            }
            (false, Some(dir)) => batch.push(DirVars {
                dir: dir.clone(),
                error: Some(run.words()),
                ..DirVars::default()
            }),
            (false, None) => {}
        }
        rest = rest.get(batch.len()..).unwrap_or_default();
        found.append(&mut batch);
    }
    Ok(found)
}

/// The makefile that visits all the directories.
fn script(tree: &Path, config: &BTreeMap<String, String>, dirs: &[String]) -> String {
    let mut text = String::from(PRELUDE);
    let root = tree.display();
    let _ = writeln!(
        text,
        "srctree := {root}\nabs_srctree := {root}\nsrcroot := {root}"
    );
    for name in KEPT_FUNCTIONS {
        let _ = writeln!(text, "{name} = $$(call {name},$(1)$(if $(2),$(comma)$(2)))");
    }
    for name in KEPT_VARIABLES {
        let _ = writeln!(text, "{name} := $$({name})");
    }
    for (name, value) in config {
        let value = value
            .replace('$', "$$")
            .replace('#', "\\#")
            .replace(['\n', '\r'], " ");
        let _ = writeln!(text, "{name} := {value}");
    }
    for name in INIT {
        let _ = writeln!(text, "{name} :=");
    }
    text.push_str("obj :=\nsrc :=\n");
    text.push_str(MACROS);
    for dir in dirs {
        visit(&mut text, tree, dir);
    }
    text
}

/// The lines that read one directory.
fn visit(text: &mut String, tree: &Path, dir: &str) {
    let Some(file) = kbuild_file(&tree.join(dir)) else {
        let _ = writeln!(text, "$(info @@dir {dir})\n$(info @@end)");
        return;
    };
    let file = file
        .strip_prefix(tree)
        .map_or_else(|_| file.clone(), Path::to_path_buf);
    let _ = writeln!(text, "$(info @@dir {dir})");
    for name in INIT {
        let _ = writeln!(text, "{name} :=");
    }
    let _ = writeln!(text, "obj := {dir}\nsrc := {dir}\nMAKEFILE_LIST :=");
    let _ = writeln!(
        text,
        "include {}\n$(kspan_dump)$(info @@end)\n$(kspan_clear)",
        file.display()
    );
}

/// Reads the dump; the flag says that the last directory was cut off in the middle.
fn parse_dump(tree: &Path, out: &[u8]) -> (Vec<DirVars>, bool) {
    let text = String::from_utf8_lossy(out);
    let mut found: Vec<DirVars> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("@@") else {
            continue;
        };
        let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
        if key == "dir" {
            found.push(DirVars {
                dir: value.to_owned(),
                ..DirVars::default()
            });
            open = true;
        } else if key == "end" {
            open = false;
        } else if let Some(vars) = found.last_mut() {
            take_line(tree, vars, key, value);
        }
    }
    (found, open)
}

/// One line of the dump.
fn take_line(tree: &Path, vars: &mut DirVars, key: &str, value: &str) {
    let words = || {
        value
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    match key {
        "obj-y" => vars.obj_y = words(),
        "obj-m" => vars.obj_m = words(),
        "subdirs" => vars.subdirs = words(),
        "makefiles" => {
            vars.makefiles = value
                .split_whitespace()
                .map(|w| {
                    Path::new(w)
                        .strip_prefix(tree)
                        .unwrap_or(Path::new(w))
                        .to_path_buf()
                })
                .filter(|p| p.as_os_str() != "-")
                .collect();
        }
        "flag" | "part" => {
            let (name, value) = value.split_once(' ').unwrap_or((value, ""));
            if key == "flag" {
                vars.flags.insert(name.to_owned(), value.trim().to_owned());
            } else {
                vars.parts.insert(
                    name.to_owned(),
                    value.split_whitespace().map(str::to_owned).collect(),
                );
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn variables_do_not_leak_between_directories() {
        let dir = tree(&[
            (
                "a/Makefile",
                "obj-m += core.o\ncore-y := x.o\ncore-$(CONFIG_D) += d.o\nccflags-y += -I$(src)/inc\n",
            ),
            (
                "b/Makefile",
                "obj-$(CONFIG_B) += core.o other.o\nCFLAGS_other.o := -DX='\"y\"' $(call cc-option,-Wz)\n",
            ),
            (
                "c/Makefile",
                "include $(src)/sub/Makefile\nobj-m += c.o\nc-y := $(FILES)\n",
            ),
            ("c/sub/Makefile", "FILES := $(addprefix sub/,p.o q.o)\n"),
        ]);
        let config = BTreeMap::from([
            ("CONFIG_D".to_owned(), "y".to_owned()),
            ("CONFIG_B".to_owned(), "m".to_owned()),
        ]);
        let all = evaluate(dir.path(), &config, &["a".into(), "b".into(), "c".into()]).unwrap();
        assert_eq!(all[0].parts["core"], ["x.o", "d.o"]);
        assert_eq!(all[0].flags["ccflags-y"], "-Ia/inc");
        assert_eq!(all[1].obj_m, ["core.o", "other.o"]);
        assert!(all[1].parts.is_empty());
        assert_eq!(
            all[1].flags["CFLAGS_other.o"],
            "-DX='\"y\"' $(call cc-option,-Wz)"
        );
        assert!(!all[1].flags.contains_key("ccflags-y"));
        assert_eq!(all[2].parts["c"], ["sub/p.o", "sub/q.o"]);
        assert_eq!(
            all[2].makefiles,
            [PathBuf::from("c/Makefile"), PathBuf::from("c/sub/Makefile")]
        );
    }

    #[test]
    fn a_broken_makefile_spoils_only_itself_and_runs_no_shell() {
        let dir = tree(&[
            ("a/Makefile", "obj-m += a$(shell echo b).o\n"),
            ("b/Makefile", "obj-m += b.o\n$(error no)\n"),
            (
                "c/Makefile",
                "SHELL := /bin/sh\nobj-m += c.o\nx := $(shell touch $(src)/touched)\n",
            ),
        ]);
        let all = evaluate(
            dir.path(),
            &BTreeMap::new(),
            &["a".into(), "b".into(), "c".into()],
        )
        .unwrap();
        assert_eq!(all[0].obj_m, ["a.o"]);
        assert!(all[1].error.as_deref().unwrap().contains("no"));
        assert_eq!(all[2].obj_m, ["c.o"]);
        assert!(!dir.path().join("c/touched").exists());
    }
}
