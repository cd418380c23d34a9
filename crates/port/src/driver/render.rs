//! The Kbuild of an imported driver: modules, parts, and the flags of the tree's Makefiles in the new layout.

use super::import::TraceHeader;
use super::includes::parent;
use super::kbuild::Kbuild;
use super::makefile::DirVars;
use super::manifest::{Manifest, OFF};
use super::tree::{TreeModule, join, texts};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// How one module is built in the tree.
#[derive(Debug, Clone, Default)]
pub(super) struct Unit {
    /// The module's name.
    pub name: String,
    /// Objects relative to the tree, in link order, each with the symbol that gates it.
    parts: Vec<(String, Option<String>)>,
    /// Flags for all its C files.
    ccflags: String,
    /// Flags taken away from all its C files.
    remove: String,
    /// Flags for its assembly.
    asflags: String,
    /// `CFLAGS_`, `CFLAGS_REMOVE_`, `AFLAGS_` of single objects: (prefix, object relative to the tree, flags).
    each: Vec<(String, String, String)>,
}

/// Variables of flags for one object.
const PER_OBJECT: &[&str] = &["CFLAGS_REMOVE_", "CFLAGS_", "AFLAGS_"];

impl Unit {
    /// The symbols that decide on parts of it.
    pub fn symbols(&self) -> impl Iterator<Item = &String> {
        self.parts.iter().filter_map(|(_, symbol)| symbol.as_ref())
    }

    /// Reads off a directory's variables (and those above it) how a module is built.
    pub fn new(
        root: &Path,
        module: &TreeModule,
        vars: &DirVars,
        all: &BTreeMap<String, DirVars>,
    ) -> Self {
        let text = texts(root, vars);
        let single = [format!("{}.o", module.name)];
        let words = vars
            .parts
            .get(&module.name)
            .map_or(single.as_slice(), Vec::as_slice);
        let mut seen = BTreeSet::new();
        let parts = words
            .iter()
            .filter(|w| seen.insert(*w))
            .filter_map(|w| part(vars, &text, &module.name, w))
            .collect();
        let flag = |name: &str| vars.flags.get(name).cloned().unwrap_or_default();
        let handed = |name: &str| handed_down(&vars.dir, all, name);
        let ccflags = [
            handed("subdir-ccflags-y"),
            flag("KBUILD_CPPFLAGS"),
            flag("KBUILD_CFLAGS"),
            flag("ccflags-y"),
            flag("EXTRA_CFLAGS"),
        ];
        Self {
            name: module.name.clone(),
            parts,
            ccflags: ccflags.join(" "),
            remove: flag("ccflags-remove-y"),
            asflags: [handed("subdir-asflags-y"), flag("asflags-y")].join(" "),
            each: vars
                .flags
                .iter()
                .filter_map(|(name, value)| per_object(&vars.dir, name, value))
                .collect(),
        }
    }

    /// Directories of the tree that `-I` names, the kernel's own left out.
    pub fn include_dirs(&self, root: &Path) -> Vec<String> {
        let all = std::iter::once(&self.ccflags)
            .chain(std::iter::once(&self.asflags))
            .chain(self.each.iter().map(|e| &e.2));
        let mut found = Vec::new();
        for flags in all {
            for flag in flags_of(flags) {
                if let Flag::Path(_, path) = flag
                    && let Some(dir) = in_tree(root, &path)
                    && !kernel_dir(&dir)
                    && !found.contains(&dir)
                {
                    found.push(dir);
                }
            }
        }
        found
    }
}

/// A part with its gate.
fn part(
    vars: &DirVars,
    text: &Kbuild,
    module: &str,
    word: &str,
) -> Option<(String, Option<String>)> {
    Some((
        join(&vars.dir, word)?,
        text.part_symbol(module, word).map(str::to_owned),
    ))
}

/// `subdir-…` flags of a directory and of all above it, outermost first.
fn handed_down(dir: &str, all: &BTreeMap<String, DirVars>, name: &str) -> String {
    let mut found = Vec::new();
    let mut at = dir;
    while !at.is_empty() {
        found.extend(all.get(at).and_then(|d| d.flags.get(name)).cloned());
        at = parent(at);
    }
    found.reverse();
    found.join(" ")
}

/// `CFLAGS_x.o` → its parts.
fn per_object(dir: &str, name: &str, value: &str) -> Option<(String, String, String)> {
    let prefix = PER_OBJECT.iter().find(|p| name.starts_with(**p))?;
    let object = name.strip_prefix(prefix).filter(|o| o.ends_with(".o"))?;
    Some(((*prefix).to_owned(), join(dir, object)?, value.to_owned()))
}

/// One compiler flag.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Flag {
    /// `-I`, `-iquote` or `-include` with its path.
    Path(String, String),
    /// Anything else.
    Plain(String),
}

/// Splits flags at blanks outside quotes and parentheses.
fn split(flags: &str) -> Vec<String> {
    let (mut words, mut word, mut depth, mut quote) = (Vec::new(), String::new(), 0_u32, None);
    for c in flags.chars() {
        match (c, quote) {
            ('\'' | '"', None) if !word.ends_with('\\') => quote = Some(c),
            (_, Some(q)) if c == q => quote = None,
            ('(', None) => depth += 1,
            (')', None) => depth = depth.saturating_sub(1),
            _ => {}
        }
        if c.is_whitespace() && depth == 0 && quote.is_none() {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
        } else {
            word.push(c);
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// Flags with their kinds.
fn flags_of(flags: &str) -> Vec<Flag> {
    let mut found = Vec::new();
    let mut words = split(flags).into_iter();
    while let Some(word) = words.next() {
        let option = ["-include", "-iquote", "-isystem", "-I"]
            .into_iter()
            .find(|o| word.starts_with(o));
        match option {
            Some(option) => {
                let glued = word.strip_prefix(option).unwrap_or_default().to_owned();
                let path = if glued.is_empty() {
                    words.next().unwrap_or_default()
                } else {
                    glued
                };
                found.push(Flag::Path(option.to_owned(), path));
            }
            None => found.push(Flag::Plain(word)),
        }
    }
    found
}

/// A path of a flag, relative to the tree.
fn in_tree(root: &Path, path: &str) -> Option<String> {
    let prefix = format!("{}/", root.display());
    let path = path.trim_matches(['"', '\'']);
    let path = path.strip_prefix(&prefix).unwrap_or(path);
    let path = path.strip_prefix(&prefix).unwrap_or(path);
    if path.starts_with('/') || path.contains('$') {
        None
    } else {
        join("", path)
    }
}

/// A directory of the kernel's own headers.
fn kernel_dir(dir: &str) -> bool {
    dir == "include" || dir.starts_with("include/") || dir.starts_with("arch/")
}

/// What the new layout is.
struct Layout<'a> {
    tree: &'a Path,
    root: &'a str,
    files: &'a BTreeSet<String>,
}

impl Layout<'_> {
    /// A path of the tree below the driver's root.
    fn below<'p>(&self, path: &'p str) -> Option<&'p str> {
        if self.root.is_empty() {
            return Some(path);
        }
        let rest = path.strip_prefix(self.root)?;
        if rest.is_empty() {
            Some("")
        } else {
            rest.strip_prefix('/')
        }
    }

    /// Flags in the new layout; `-I` of a directory from which nothing was taken is dropped.
    fn flags(&self, flags: &str) -> String {
        let words = flags_of(flags).into_iter().filter_map(|flag| match flag {
            Flag::Path(option, path) => self.path_flag(&option, &path),
            Flag::Plain(word) => Some(self.plain(&word)),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    fn path_flag(&self, option: &str, path: &str) -> Option<String> {
        let space = if option == "-I" { "" } else { " " };
        let Some(dir) = in_tree(self.tree, path) else {
            return path.contains('$').then(|| format!("{option}{space}{path}"));
        };
        if kernel_dir(&dir) {
            return Some(format!("{option}{space}$(srctree)/{dir}"));
        }
        let below = self.below(&dir)?;
        let holds =
            |f: &String| *f == dir || f.strip_prefix(&dir).is_some_and(|r| r.starts_with('/'));
        if !self.files.iter().any(holds) {
            return None;
        }
        let slash = if below.is_empty() { "" } else { "/" };
        Some(format!("{option}{space}$(src){slash}{below}"))
    }

    fn plain(&self, word: &str) -> String {
        let tree = self.tree.display().to_string();
        let word = word
            .replace(&format!("{tree}/{}", self.root), "$(src)")
            .replace(&tree, "$(srctree)");
        word.replace('#', "\\#")
    }

    /// An object's path in the new layout.
    fn object(&self, path: &str) -> String {
        self.below(path).unwrap_or(path).to_owned()
    }
}

/// The text of the Kbuild.
pub(super) fn kbuild(
    units: &[Unit],
    files: &BTreeSet<String>,
    root: &str,
    tree: &Path,
    manifest: &Manifest,
    traces: &[TraceHeader],
) -> String {
    let layout = Layout { tree, root, files };
    let mut text = String::from("# SPDX-License-Identifier: GPL-2.0\n");
    if let Some(origin) = &manifest.origin {
        let _ = writeln!(text, "# {} of {}", origin.path, origin.kernel);
    }
    for unit in units {
        module(&mut text, &layout, unit, &manifest.config);
    }
    text.push_str(&dir_flags(&layout, units));
    text.push_str(&object_flags(&layout, units));
    let dirs: BTreeSet<String> = traces.iter().map(TraceHeader::search_dir).collect();
    for dir in dirs {
        let _ = writeln!(text, "ccflags-y += -I$(src)/{dir}");
    }
    for (name, value) in manifest.config.iter().filter(|(_, value)| *value != OFF) {
        text.push_str(&config_flag(name, value));
    }
    text.push_str(&shipped(&layout));
    text
}

/// One module's lines.
fn module(text: &mut String, layout: &Layout<'_>, unit: &Unit, own: &BTreeMap<String, String>) {
    let _ = writeln!(text, "obj-m += {}.o", unit.name);
    let objects: Vec<(String, &Option<String>)> = unit
        .parts
        .iter()
        .map(|(p, s)| (layout.object(p), s))
        .collect();
    if let [(only, _)] = objects.as_slice()
        && *only == format!("{}.o", unit.name)
    {
        return;
    }
    for (object, symbol) in objects {
        match symbol.as_ref().filter(|s| !own.contains_key(*s)) {
            Some(symbol) => {
                let _ = writeln!(text, "{}-$({symbol}) += {object}", unit.name);
            }
            None => {
                let _ = writeln!(text, "{}-y += {object}", unit.name);
            }
        }
    }
}

/// Picks one kind of flags of a module.
type FlagsOf = fn(&Unit) -> &String;

/// `ccflags-y` where all modules agree, else the flags of each object.
fn dir_flags(layout: &Layout<'_>, units: &[Unit]) -> String {
    let mut text = String::new();
    let kinds: [(&str, &str, FlagsOf); 3] = [
        ("ccflags-y", "CFLAGS_", |u| &u.ccflags),
        ("ccflags-remove-y", "CFLAGS_REMOVE_", |u| &u.remove),
        ("asflags-y", "AFLAGS_", |u| &u.asflags),
    ];
    for (all, each, of) in kinds {
        let values: BTreeSet<String> = units.iter().map(|u| layout.flags(of(u))).collect();
        match values.first() {
            Some(only) if values.len() == 1 => {
                if !only.is_empty() {
                    let _ = writeln!(text, "{all} += {only}");
                }
            }
            _ => text.push_str(&spread(layout, units, each, of)),
        }
    }
    text
}

/// Directory flags written out for every object.
fn spread(layout: &Layout<'_>, units: &[Unit], prefix: &str, of: FlagsOf) -> String {
    let mut lines = BTreeSet::new();
    for unit in units {
        let flags = layout.flags(of(unit));
        for (part, _) in unit.parts.iter().filter(|_| !flags.is_empty()) {
            lines.insert(format!("{prefix}{} += {flags}\n", layout.object(part)));
        }
    }
    lines.into_iter().collect()
}

/// Flags of single objects.
fn object_flags(layout: &Layout<'_>, units: &[Unit]) -> String {
    let mut lines = BTreeSet::new();
    for unit in units {
        let parts: BTreeSet<&String> = unit.parts.iter().map(|(p, _)| p).collect();
        for (prefix, object, flags) in unit
            .each
            .iter()
            .filter(|(_, object, _)| parts.contains(object))
        {
            let flags = layout.flags(flags);
            if !flags.is_empty() {
                lines.insert(format!("{prefix}{} += {flags}\n", layout.object(object)));
            }
        }
    }
    lines.into_iter().collect()
}

/// The macro that a symbol of the configuration is to C: its name and its value.
#[must_use]
pub fn config_macro(name: &str, value: &str) -> String {
    match value {
        "m" => format!("{name}_MODULE=1"),
        "y" => format!("{name}=1"),
        other => format!("{name}={other}"),
    }
}

/// A symbol of the driver's own, defined where the kernel does not know it.
fn config_flag(name: &str, value: &str) -> String {
    let define = match value.starts_with('"') {
        true => format!("-D{name}='{}'", value.replace('\'', "")),
        false => format!("-D{}", config_macro(name, value)),
    };
    format!("ifndef {name}\nccflags-y += {define}\nendif\n")
}

/// Files that are shipped ready-made must stand under their own name before anything is compiled.
fn shipped(layout: &Layout<'_>) -> String {
    let mut text = String::new();
    let headers: Vec<String> = layout
        .files
        .iter()
        .filter_map(|f| f.strip_suffix("_shipped"))
        .map(|f| layout.object(f))
        .collect();
    if headers.is_empty() {
        return text;
    }
    for file in layout.files.iter().filter(|f| f.ends_with(".c")) {
        let object = layout.object(file);
        let stem = object.strip_suffix(".c").unwrap_or(&object);
        let all: Vec<String> = headers.iter().map(|h| format!("$(obj)/{h}")).collect();
        let _ = writeln!(text, "$(obj)/{stem}.o: {}", all.join(" "));
    }
    text
}
