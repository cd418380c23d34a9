//! `#include` directives read from the text, and which files of a kernel tree a driver needs beside its own.
//!
//! Both sides of every `#if` count: the other side may be the one that another kernel takes.

use super::tree::join;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One `#include` directive or one definition that names an included file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Include {
    /// `"…"` and not `<…>`.
    pub quoted: bool,
    /// What stands between.
    pub name: String,
}

/// The directives of a file, of any bytes.
pub(super) fn scan(bytes: &[u8]) -> Vec<Include> {
    let mut found = Vec::new();
    for at in memchr::memmem::find_iter(bytes, b"include") {
        if is_directive(bytes, at) {
            found.extend(operand(
                bytes.get(at + "include".len()..).unwrap_or_default(),
            ));
        }
    }
    found
}

/// Is this word the first of its line after `#`?
fn is_directive(bytes: &[u8], at: usize) -> bool {
    let blank = |b: &&u8| matches!(b, b' ' | b'\t');
    let mut before = bytes
        .get(..at)
        .unwrap_or_default()
        .iter()
        .rev()
        .skip_while(blank);
    if before.next() != Some(&b'#') {
        return false;
    }
    matches!(before.find(|b| !blank(b)), None | Some(b'\n'))
}

/// `"x.h"` or `<x.h>` after blanks.
fn operand(rest: &[u8]) -> Option<Include> {
    let start = rest.iter().position(|b| !matches!(b, b' ' | b'\t'))?;
    let (quoted, close) = match rest.get(start)? {
        b'"' => (true, b'"'),
        b'<' => (false, b'>'),
        _ => return None,
    };
    let body = rest.get(start + 1..)?;
    let end = body
        .iter()
        .take(4096)
        .position(|b| *b == close || *b == b'\n')?;
    if body.get(end) != Some(&close) {
        return None;
    }
    let name = std::str::from_utf8(body.get(..end)?).ok()?.trim();
    (!name.is_empty()).then(|| Include {
        quoted,
        name: name.to_owned(),
    })
}

/// `#define NAME VALUE` lines of a file whose name is given: the values, trimmed.
pub(super) fn defines(bytes: &[u8], name: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let values = text.lines().filter_map(|line| {
        let rest = line
            .trim_start()
            .strip_prefix('#')?
            .trim_start()
            .strip_prefix("define")?;
        let value = rest.trim_start().strip_prefix(name)?;
        value
            .starts_with(char::is_whitespace)
            .then(|| value.trim().to_owned())
    });
    values.filter(|v| !v.is_empty()).collect()
}

/// Where a kernel's own headers stand, in the order of kbuild.
const KERNEL_INCLUDE: &[&str] = &[
    "arch/x86/include",
    "arch/x86/include/generated",
    "include",
    "arch/x86/include/uapi",
    "include/uapi",
    "include/generated/uapi",
];

/// Does a path of the tree belong to the kernel's headers and not to a driver?
pub(super) fn is_kernel_header(path: &str) -> bool {
    path.starts_with("include/") || (path.starts_with("arch/") && path.contains("/include/"))
}

/// The tree's file behind `#include <name>`, if it is one of the kernel's own headers.
pub(super) fn kernel_header(root: &Path, name: &str) -> Option<String> {
    let mut all = KERNEL_INCLUDE.iter().filter_map(|dir| join(dir, name));
    all.find(|path| root.join(path).is_file())
}

/// What a set of sources needs.
#[derive(Debug, Clone, Default)]
pub(super) struct Closure {
    /// Every file, relative to the tree, the sources among them.
    pub files: BTreeSet<String>,
    /// Kernel headers named directly, as written.
    pub kernel: BTreeSet<String>,
    /// Names that nothing in the tree satisfies, with the file that includes them.
    pub missing: BTreeMap<String, String>,
}

impl Closure {
    /// Adds sources and all that they include, searching `dirs` (relative to the tree) as `-I` does.
    pub fn add(&mut self, root: &Path, sources: &[String], dirs: &[String]) {
        let mut todo = sources.to_vec();
        while let Some(file) = todo.pop() {
            if !self.files.insert(file.clone()) || is_kernel_header(&file) {
                continue;
            }
            let bytes = std::fs::read(root.join(&file)).unwrap_or_default();
            let mut includes = scan(&bytes);
            includes.extend(computed(&bytes));
            for include in includes {
                self.follow(root, &file, &include, dirs, &mut todo);
            }
        }
    }

    fn follow(
        &mut self,
        root: &Path,
        file: &str,
        include: &Include,
        dirs: &[String],
        todo: &mut Vec<String>,
    ) {
        let is_file = |path: &String| root.join(path).is_file();
        let own = parent(file);
        if include.quoted
            && let Some(found) = join(own, &include.name).filter(is_file)
        {
            todo.push(found);
        } else if kernel_header(root, &include.name).is_some() {
            self.kernel.insert(include.name.clone());
        } else if let Some(found) = dirs
            .iter()
            .filter_map(|d| join(d, &include.name))
            .find(is_file)
        {
            todo.push(found);
        } else if let Some(found) = join(own, &format!("{}_shipped", include.name)).filter(is_file)
        {
            todo.push(found);
        } else {
            self.missing
                .entry(include.name.clone())
                .or_insert_with(|| file.to_owned());
        }
    }
}

/// Files that an `#include MACRO` may mean: every `#define X "y.h"` beside it.
fn computed(bytes: &[u8]) -> Vec<Include> {
    let text = String::from_utf8_lossy(bytes);
    let named = text.lines().filter_map(|line| {
        let rest = line
            .trim_start()
            .strip_prefix('#')?
            .trim_start()
            .strip_prefix("define")?;
        let (_, value) = rest.trim_start().split_once(char::is_whitespace)?;
        operand(format!("{}\n", value.trim()).as_bytes())
    });
    named.filter(|i| i.name.ends_with(".h")).collect()
}

/// The directory of a path, empty for the top.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// The deepest directory that holds all the paths.
pub(super) fn common_ancestor<'a>(paths: impl Iterator<Item = &'a String>) -> String {
    let mut common: Option<Vec<&str>> = None;
    for path in paths {
        let dir: Vec<&str> = parent(path).split('/').filter(|p| !p.is_empty()).collect();
        common = Some(match common {
            None => dir,
            Some(known) => known
                .iter()
                .zip(&dir)
                .take_while(|(a, b)| a == b)
                .map(|(a, _)| *a)
                .collect(),
        });
    }
    common.unwrap_or_default().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_of_every_shape() {
        let found = scan(
            b"#include <linux/a.h>\r\n# include\t\"b.h\"\n  #include \"../c/d.h\" /* x */\nint include; \"#include <no.h>\"\n#include X\n#include \"open\n\xff#include <e.h>\n",
        );
        let names: Vec<_> = found.iter().map(|i| (i.quoted, i.name.as_str())).collect();
        assert_eq!(
            names,
            [(false, "linux/a.h"), (true, "b.h"), (true, "../c/d.h")]
        );
    }

    #[test]
    fn closure_keeps_to_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put(
            "drivers/a/x.c",
            "#include <linux/k.h>\n#include \"x.h\"\n#include \"../b/y.h\"\n#include <z.h>\n#include \"gone.h\"\n",
        );
        put(
            "drivers/a/x.h",
            "#include \"x.h\"\n#include \"../../../../../etc/passwd\"\n",
        );
        put("drivers/b/y.h", "");
        put("drivers/c/z.h", "");
        put("include/linux/k.h", "#include <linux/never.h>\n");
        let mut closure = Closure::default();
        closure.add(dir.path(), &["drivers/a/x.c".into()], &["drivers/c".into()]);
        let files: Vec<_> = closure.files.iter().map(String::as_str).collect();
        assert_eq!(
            files,
            [
                "drivers/a/x.c",
                "drivers/a/x.h",
                "drivers/b/y.h",
                "drivers/c/z.h"
            ]
        );
        assert_eq!(
            closure.kernel.into_iter().collect::<Vec<_>>(),
            ["linux/k.h"]
        );
        assert!(closure.missing.contains_key("gone.h"));
        assert_eq!(common_ancestor(closure.files.iter()), "drivers");
    }
}
