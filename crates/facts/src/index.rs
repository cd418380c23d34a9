//! Reads all headers of one kernel into definitions.
//!
//! Headers are read in a few umbrella translation units; each header belongs to exactly one of them. A header that
//! does not go together with the others is read again in smaller company; what still fails is named.

use crate::extract::{self, File, Raw};
use crate::headers::Headers;
use crate::{Detail, Result, events, flags, tags};
use kspan_kernel::Kernel;
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How many headers an umbrella holds at most. Every umbrella reads what all headers need once more: the fewer, the faster.
const BATCH: usize = 5000;

/// How many headers are read again together: in the company of their like each would fail again.
const RETRY: usize = 120;

/// All that reading a kernel's headers yields.
#[derive(Debug, Default)]
pub struct Index {
    /// Definitions with the number of their file, sorted by name; the one to prefer first.
    pub defs: Vec<(usize, Raw)>,
    /// The files that define something.
    pub files: Vec<File>,
    /// Each header's spelling and file.
    pub headers: Vec<(String, PathBuf)>,
    /// Direct includes of each header, by spelling.
    pub includes: BTreeMap<String, Vec<String>>,
    /// What could not be analysed, with the reason.
    pub unanalysed: Vec<String>,
}

/// A header by its spelling and its file.
type Header = (String, PathBuf);

/// Files that stand for another compiler or the build itself, and those that turn event macros into code (they read
/// other headers again with other macros): a module never includes them by itself.
fn never_included(spelling: &str) -> bool {
    const NAMES: [&str; 6] = [
        "linux/compiler-clang.h",
        "linux/compiler-intel.h",
        "linux/compiler-gcc.h",
        "linux/compiler-version.h",
        "acpi/platform/acmsvcex.h",
        "linux/hidden.h",
    ];
    NAMES.contains(&spelling)
        || [
            "acpi/platform/",
            "asm-generic/",
            "generated/rust",
            "config/",
            "linux/unaligned/",
            "asm/syscalls_",
            "trace/",
            "math-emu/",
        ]
        .iter()
        .any(|start| spelling.starts_with(start))
}

/// All headers a module can include, sorted.
fn list(headers: &Headers) -> Vec<Header> {
    let mut out: Vec<Header> = headers.all().into_iter().collect();
    out.sort();
    out
}

/// Which company a header keeps: those that only define constants have umbrellas of their own.
fn company(spelling: &str) -> &'static str {
    let starts = |names: &[&str]| names.iter().any(|name| spelling.starts_with(name));
    if starts(&["uapi/", "mtd/", "rdma/", "dt-bindings/"]) {
        "constants"
    } else if starts(&["linux/", "asm/", "generated/", "vdso/"]) {
        "linux"
    } else {
        "others"
    }
}

fn batches(headers: &[Header]) -> Vec<Vec<Header>> {
    let mut groups: BTreeMap<&str, Vec<Header>> = BTreeMap::new();
    for header in headers
        .iter()
        .filter(|(spelling, _)| !never_included(spelling))
    {
        groups
            .entry(company(&header.0))
            .or_default()
            .push(header.clone());
    }
    let mut out = Vec::new();
    for mut group in groups.into_values() {
        // Their macros have the names of other headers' constants: they come last.
        group.sort_by_key(|(spelling, _)| spelling.starts_with("dt-bindings/"));
        let parts = group.len().div_ceil(BATCH).max(1);
        out.extend(
            group
                .chunks(group.len().div_ceil(parts))
                .map(<[Header]>::to_vec),
        );
    }
    out
}

/// Reads a kernel's headers.
///
/// # Errors
/// libclang cannot be loaded, or there are no headers.
pub fn build(kernel: &Kernel, args: &[String]) -> Result<Index> {
    crate::clang::ensure_loaded()?;
    let headers = Headers::new(kernel);
    let all = list(&headers);
    if !all.iter().any(|(spelling, _)| spelling == "linux/module.h") {
        return Err(kspan_kernel::Error::Input(format!(
            "{}: no include/linux/module.h here or in {}: the header package is missing or half-unpacked. Fetch the kernel again",
            kernel.source_dir.display(),
            kernel.build_dir.display()
        )));
    }
    let clang_args = flags::for_clang(kernel, args, &kernel.build_dir);
    let owned: FxHashSet<PathBuf> = all
        .iter()
        .filter(|(spelling, _)| !never_included(spelling))
        .map(|(_, path)| path.clone())
        .collect();
    let files: Vec<&Path> = owned.iter().map(PathBuf::as_path).collect();
    let reader = Reader {
        headers: &headers,
        args: &clang_args,
        build_dir: &kernel.build_dir,
        owned: &owned,
        declared: tags::declarations(files),
    };
    let first: Vec<Batch> = batches(&all)
        .par_iter()
        .map(|batch| reader.read(batch))
        .collect::<Result<_>>()?;
    let again = in_other_company(&first);
    let second: Vec<Batch> = again
        .par_iter()
        .map(|part| reader.read(part))
        .collect::<Result<_>>()?;
    let again = again.into_iter().flatten().collect();
    Ok(merge(&headers, all, first, (&again, second)))
}

/// The headers to read again, neighbours apart: those of one directory stand in each other's way most. What is missing is
/// missing in any company.
fn in_other_company(first: &[Batch]) -> Vec<Vec<Header>> {
    let again: BTreeSet<&Header> = first
        .iter()
        .flat_map(|batch| &batch.failed)
        .filter(|(_, words)| !words.ends_with("file not found"))
        .map(|(header, _)| header)
        .collect();
    let mut parts = vec![Vec::new(); again.len().div_ceil(RETRY)];
    let count = parts.len();
    for (number, header) in again.into_iter().enumerate() {
        if let Some(part) = parts.get_mut(number % count) {
            part.push(header.clone());
        }
    }
    parts
}

struct Reader<'a> {
    headers: &'a Headers,
    args: &'a [String],
    build_dir: &'a Path,
    /// Files that belong to some umbrella as headers of their own.
    owned: &'a FxHashSet<PathBuf>,
    /// Declarations of all structures, which stand before everything.
    declared: String,
}

/// What one umbrella gave.
struct Batch {
    files: Vec<(File, Vec<Raw>)>,
    includes: FxHashMap<PathBuf, Vec<String>>,
    /// Headers with errors of their own, with the first words.
    failed: BTreeMap<Header, String>,
}

impl Reader<'_> {
    fn read(&self, batch: &[Header]) -> Result<Batch> {
        let name = self
            .build_dir
            .join("kspan-umbrella.c")
            .to_string_lossy()
            .into_owned();
        let mut text = format!("{}#include <linux/module.h>\n", self.declared);
        for (spelling, _) in batch {
            // The semicolon ends what a header leaves open, or the next one's first declaration would be lost.
            text.push_str(&format!("#include <{spelling}>\n;\n"));
        }
        let mine: FxHashSet<&Path> = batch.iter().map(|(_, path)| path.as_path()).collect();
        let wanted = |path: &Path| {
            mine.contains(path) || (!self.owned.contains(path) && self.headers.is_kernel(path))
        };
        let found = extract::extract(self.headers, &name, &text, self.args, &wanted)?;
        let mut failed = BTreeMap::new();
        for (path, words) in found.errors {
            if let Some(header) = batch.iter().find(|(_, own)| *own == path) {
                failed.entry(header.clone()).or_insert(words);
            }
        }
        Ok(Batch {
            files: found.files,
            includes: found.includes,
            failed,
        })
    }
}

/// Puts umbrellas together: a file's definitions come from the retry if that went better, else from the first.
fn merge(
    headers: &Headers,
    all: Vec<Header>,
    first: Vec<Batch>,
    (again, second): (&BTreeSet<Header>, Vec<Batch>),
) -> Index {
    let mut still: BTreeMap<&Header, &String> =
        first.iter().flat_map(|batch| &batch.failed).collect();
    still.retain(|header, _| !again.contains(*header));
    still.extend(second.iter().flat_map(|batch| &batch.failed));
    let better: FxHashSet<PathBuf> = again
        .iter()
        .filter(|header| !still.contains_key(header))
        .map(|(_, path)| path.clone())
        .collect();
    let mut unanalysed: Vec<String> = vec!["trace/: of headers of trace events only names are read: those of macros, and of the functions that each tracepoint has".to_owned()];
    unanalysed.extend(
        still
            .iter()
            .map(|(header, words)| format!("{}: {words}", header.0)),
    );
    let mut known: FxHashSet<PathBuf> = FxHashSet::default();
    let (mut files, mut raws) = (Vec::new(), Vec::new());
    let mut includes: FxHashMap<PathBuf, Vec<String>> = FxHashMap::default();
    for (batch, retry) in second
        .into_iter()
        .map(|batch| (batch, true))
        .chain(first.into_iter().map(|batch| (batch, false)))
    {
        for (file, list) in batch.files {
            if list.is_empty() || retry && !better.contains(&file.path) {
                continue;
            }
            if known.insert(file.path.clone()) {
                raws.extend(list.into_iter().map(|raw| (files.len(), raw)));
                files.push(file);
            }
        }
        for (path, list) in batch.includes {
            includes.entry(path).or_insert(list);
        }
    }
    let of_events = {
        let names: FxHashSet<&str> = raws.iter().map(|(_, raw)| raw.name.as_str()).collect();
        events::read(headers, &all, |name| names.contains(name))
    };
    for (file, list) in of_events {
        raws.extend(list.into_iter().map(|raw| (files.len(), raw)));
        files.push(file);
    }
    let spelled: FxHashMap<&Path, &str> = all
        .iter()
        .map(|(spelling, path)| (path.as_path(), spelling.as_str()))
        .collect();
    let includes = includes
        .into_iter()
        .filter_map(|(path, list)| Some(((*spelled.get(path.as_path())?).to_owned(), list)))
        .collect();
    Index {
        defs: tidy(&files, raws),
        files,
        headers: all,
        includes,
        unanalysed,
    }
}

fn kind_rank(detail: Option<&Detail>) -> u8 {
    match detail {
        Some(Detail::Function { body: true, .. }) => 0,
        Some(Detail::Function { .. }) => 1,
        Some(Detail::Record { .. }) => 2,
        Some(Detail::Enum { .. }) => 3,
        Some(Detail::Typedef { .. }) => 4,
        Some(Detail::Variable { .. }) => 5,
        Some(Detail::EnumConst { .. }) => 6,
        Some(Detail::Macro { .. }) | None => 7,
    }
}

/// One definition for each name, file and kind; functions with a body are preferred, of macros the last one counts.
/// Forward declarations stay only for tags that are defined nowhere.
fn tidy(files: &[File], raws: Vec<(usize, Raw)>) -> Vec<(usize, Raw)> {
    let is_tag = |raw: &Raw| {
        matches!(
            raw.detail,
            Some(Detail::Record { .. } | Detail::Enum { .. })
        )
    };
    let tags: FxHashSet<&str> = raws
        .iter()
        .filter(|(_, raw)| !raw.forward && is_tag(raw))
        .map(|(_, raw)| raw.name.as_str())
        .collect();
    let mut order: Vec<Order<'_>> = raws
        .iter()
        .enumerate()
        .filter(|(_, (_, raw))| !raw.forward || !tags.contains(raw.name.as_str()))
        .filter_map(|(number, (file, raw))| Some(Order::of(number, files.get(*file)?, raw)))
        .collect();
    order.sort_unstable();
    let mut numbers = Vec::with_capacity(order.len());
    for same_name in order.chunk_by(|a, b| a.name == b.name) {
        let mut seen: Vec<(&str, u8)> = Vec::new();
        let mut opaque = false;
        for one in same_name {
            let forward = raws.get(one.number).is_some_and(|(_, raw)| raw.forward);
            // Functions with and without a body are one kind.
            let kind = (one.path, one.rank.max(1));
            if seen.contains(&kind) {
                continue;
            }
            seen.push(kind);
            if !(forward && opaque) {
                opaque |= forward;
                numbers.push(one.number);
            }
        }
    }
    let mut slots: Vec<Option<(usize, Raw)>> = raws.into_iter().map(Some).collect();
    let taken = numbers
        .into_iter()
        .filter_map(|at| slots.get_mut(at)?.take());
    taken.collect()
}

/// What a definition is sorted by: its name; then which to prefer.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Order<'a> {
    /// The name's first bytes: most comparisons end here, and look at nothing else in memory.
    start: u128,
    name: &'a str,
    rank: u8,
    uapi: bool,
    path: &'a str,
    offset: std::cmp::Reverse<u32>,
    number: usize,
}

impl<'a> Order<'a> {
    fn of(number: usize, file: &'a File, raw: &'a Raw) -> Self {
        let mut start = [0; 16];
        for (place, byte) in start.iter_mut().zip(raw.name.bytes()) {
            *place = byte;
        }
        Self {
            start: u128::from_be_bytes(start),
            name: &raw.name,
            rank: kind_rank(raw.detail.as_ref()),
            uapi: file.relative.starts_with("include/uapi"),
            path: &file.relative,
            offset: std::cmp::Reverse(raw.offset),
            number,
        }
    }
}
