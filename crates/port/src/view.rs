//! A kernel as the engine sees it: its facts, flags, and which header gives a name.

use crate::Result;
use kspan_evolve::{Evolution, KernelView, Kind, Library};
use kspan_facts::{Def, Detail, Facts};
use kspan_kernel::{Cache, CompileFlags, Kernel};
use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

/// A kernel, opened.
pub struct View {
    /// The kernel.
    pub kernel: Kernel,
    /// Its facts.
    pub facts: Facts,
    /// The flags of an empty module.
    pub flags: CompileFlags,
    reach: Mutex<HashMap<String, BTreeSet<String>>>,
}

impl View {
    /// Opens a kernel's facts and asks for its flags.
    ///
    /// # Errors
    /// When the kernel or its toolchain is unusable.
    pub fn open(cache: &Cache, kernel: Kernel) -> Result<Self> {
        // Facts first: they name a damaged Module.symvers, on which an empty module only fails.
        let facts = Facts::open(cache, &kernel)?;
        let flags = cache.compile_flags(&kernel)?;
        Ok(Self {
            kernel,
            facts,
            flags,
            reach: Mutex::default(),
        })
    }

    /// The kernel has the name in some form.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.facts.has(name)
    }

    /// The file behind `#include <header>`; `uapi/…` names are found beside the others.
    #[must_use]
    pub fn header_path(&self, header: &str) -> Option<std::path::PathBuf> {
        self.facts.header_path(header).or_else(|| {
            let path = self.kernel.source_dir.join("include").join(header);
            path.is_file().then_some(path)
        })
    }

    /// The names that a header defines itself.
    #[must_use]
    pub fn names_in(&self, header: &str) -> Vec<String> {
        let names = self.facts.names_in_header(header);
        match header.strip_prefix("uapi/") {
            Some(plain) if names.is_empty() => self.facts.names_in_header(plain),
            _ => names,
        }
    }

    /// A driver can include the header by itself: it is there, and is not one that refuses to be included directly.
    #[must_use]
    pub fn can_include(&self, header: &str) -> bool {
        let inner = [
            "linux/compiler-",
            "linux/compiler_types.h",
            "linux/compiler_attributes.h",
            "linux/kconfig.h",
        ];
        (self.facts.header_exists(header)
            || header.starts_with("uapi/") && self.header_path(header).is_some())
            && !inner.iter().any(|i| header.starts_with(i))
    }

    /// This kernel as learning wants it, with its source tree.
    #[must_use]
    pub fn side<'a>(&'a self, tree: &'a std::path::Path) -> kspan_evolve::learn::Side<'a> {
        kspan_evolve::learn::Side {
            release: self.kernel.release.clone(),
            facts: &self.facts,
            view: self,
            tree,
        }
    }

    /// The header to include for a name, in the form drivers use; `None` if there is none, or every module has it anyway.
    #[must_use]
    pub fn header_of(&self, name: &str) -> Option<String> {
        let mut headers: Vec<String> = self
            .facts
            .defs(name)
            .into_iter()
            .map(|d| d.header)
            .collect();
        headers.sort_by_key(|h| {
            (
                self.is_another_machines(h),
                !h.starts_with("linux/"),
                h.starts_with("asm-generic/"),
                h.len(),
            )
        });
        let header = headers.into_iter().next()?;
        if header.starts_with("generated/")
            || header.starts_with("linux/compiler")
            || header == "linux/kconfig.h"
        {
            return None;
        }
        let public = match header.strip_prefix("asm-generic/") {
            Some(rest) if self.facts.header_exists(&format!("asm/{rest}")) => format!("asm/{rest}"),
            _ => header,
        };
        Some(self.public_header(&public))
    }

    /// For the half of an architecture's header that is for machines of 32 or of 64 bits (`asm/string_64.h`), the header that reads it.
    fn whole_of(&self, header: &str) -> Option<String> {
        let half = ["_32.h", "_64.h"];
        let stem = half.iter().find_map(|end| header.strip_suffix(end))?;
        let whole = format!("{stem}.h");
        self.facts.header_exists(&whole).then_some(whole)
    }

    /// The half that this kernel's machine does not read.
    fn is_another_machines(&self, header: &str) -> bool {
        let whole = self.whole_of(header);
        whole.is_some_and(|whole| !self.includes(&whole, header))
    }

    fn includes(&self, outer: &str, header: &str) -> bool {
        self.facts.includes_of(outer).iter().any(|i| i == header)
    }

    /// `<linux/x.h>`, where that reads the architecture's `<asm/x.h>`.
    fn around(&self, header: &str) -> Option<String> {
        let outer = format!("linux/{}", header.strip_prefix("asm/")?);
        self.includes(&outer, header).then_some(outer)
    }

    /// For a header that only another one may include, or that another one is there for, that other one.
    #[must_use]
    pub fn public_header(&self, header: &str) -> String {
        let header = &self.whole_of(header).unwrap_or_else(|| header.to_owned());
        let outer = [
            ("linux/spinlock_", "linux/spinlock.h"),
            ("linux/rwlock_", "linux/spinlock.h"),
            ("linux/rwlock.h", "linux/spinlock.h"),
            ("asm/spinlock", "linux/spinlock.h"),
            ("linux/swait", "linux/swait.h"),
            ("asm/uaccess", "linux/uaccess.h"),
            ("asm/pgtable", "linux/pgtable.h"),
            ("asm/int-ll64.h", "linux/types.h"),
            ("asm/posix_types", "linux/types.h"),
            ("asm/atomic", "linux/atomic.h"),
            ("linux/atomic/", "linux/atomic.h"),
            ("asm/percpu", "linux/percpu.h"),
            ("linux/byteorder/", "asm/byteorder.h"),
            ("uapi/linux/byteorder/", "asm/byteorder.h"),
            ("linux/fortify-string.h", "linux/string.h"),
            ("vdso/", "linux/time.h"),
            ("acpi/ac", "linux/acpi.h"),
            ("acpi/platform/", "linux/acpi.h"),
        ];
        match outer.iter().find(|(prefix, _)| header.starts_with(prefix)) {
            Some((_, public)) if self.facts.header_exists(public) => (*public).to_owned(),
            _ => self
                .around(header)
                .or_else(|| self.includer_of_a_list(header))
                .unwrap_or_else(|| header.clone()),
        }
    }

    /// A header without an include guard, which says another thing each time that it is read.
    #[must_use]
    pub fn is_list(&self, header: &str) -> bool {
        let text = self.header_path(header).and_then(|p| std::fs::read(p).ok());
        text.is_some_and(|t| !kspan_facts::lex::is_guarded(&t))
    }

    /// For a header without an include guard, as the lists are that another header reads with a macro of its own
    /// (`linux/cgroup_subsys.h`), the shortest name of those that include it.
    fn includer_of_a_list(&self, header: &str) -> Option<String> {
        if !self.is_list(header) {
            return None;
        }
        let includes = |h: &&str| self.facts.includes_of(h).iter().any(|i| i == header);
        let outer = self.facts.header_list().filter(includes);
        outer
            .min_by_key(|h| (!h.starts_with("linux/"), h.len()))
            .map(str::to_owned)
    }

    /// All headers that including `header` brings in, itself included.
    #[must_use]
    pub fn reach(&self, header: &str) -> BTreeSet<String> {
        if let Some(known) = self.reach.lock().ok().and_then(|m| m.get(header).cloned()) {
            return known;
        }
        let mut seen = BTreeSet::new();
        let mut todo = vec![header.to_owned()];
        while let Some(next) = todo.pop() {
            if seen.insert(next.clone()) {
                todo.extend(self.facts.includes_of(&next));
            }
        }
        if let Ok(mut map) = self.reach.lock() {
            map.insert(header.to_owned(), seen.clone());
        }
        seen
    }

    /// A plain word of a header (a member, a parameter) that is by chance also a macro of a header which that one does not
    /// include.
    #[must_use]
    pub fn is_stranger(&self, word: &str, header: &str) -> bool {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if word.starts_with('_') || !word.chars().all(plain) {
            return false;
        }
        let defs = self.facts.defs(word);
        let object = |d: &Def| matches!(d.detail, Detail::Macro { params: None, .. });
        defs.iter().all(object) && {
            let reach = self.reach(header);
            !defs.iter().any(|d| reach.contains(&d.header))
        }
    }

    /// The definition of a record.
    #[must_use]
    pub fn record(&self, tag: &str) -> Option<Vec<kspan_facts::Field>> {
        self.facts
            .defs(tag)
            .into_iter()
            .find_map(|d| match d.detail {
                Detail::Record { fields, .. } if !fields.is_empty() => Some(fields),
                _ => None,
            })
    }

    /// The type of a structure's member, with all typedefs spelled out.
    #[must_use]
    pub fn member_type(&self, record: &str, field: &str) -> Option<String> {
        let fields = self.record(record)?;
        let own = fields.into_iter().find(|f| f.name == field)?;
        Some(own.ty.canonical)
    }

    /// The member of the target that stands for one of the home kernel's, by an evolution.
    #[must_use]
    pub fn renamed_field<'a>(
        &self,
        library: &'a Library,
        record: &str,
        field: &str,
    ) -> Option<&'a Evolution> {
        let is_it = |e: &&Evolution| matches!(&e.kind, Kind::Field { home, .. } if home == field);
        library
            .fields(record)
            .into_iter()
            .filter(is_it)
            .find(|e| e.applies_to(self))
    }

    /// The canonical type of a function's parameter, counted from 0.
    #[must_use]
    pub fn parameter(&self, function: &str, index: usize) -> Option<String> {
        match self.callable(function)?.detail {
            Detail::Function { sig, .. } => sig.params.get(index).map(|p| p.ty.canonical.clone()),
            _ => None,
        }
    }

    /// The function or function-like macro of a name, functions first.
    #[must_use]
    pub fn callable(&self, name: &str) -> Option<Def> {
        let defs = self.facts.defs(name);
        let is_function = |d: &&Def| matches!(d.detail, Detail::Function { .. });
        let is_macro = |d: &&Def| {
            matches!(
                d.detail,
                Detail::Macro {
                    params: Some(_),
                    ..
                }
            )
        };
        defs.iter()
            .find(is_function)
            .or_else(|| defs.iter().find(is_macro))
            .cloned()
    }
}

impl KernelView for View {
    fn header_of(&self, name: &str) -> Option<String> {
        Self::header_of(self, name)
    }
    fn has(&self, name: &str) -> bool {
        self.facts.has(name)
    }
    fn has_field(&self, record: &str, field: &str) -> bool {
        self.record(record)
            .is_some_and(|fields| fields.iter().any(|f| f.name == field))
    }
    fn arity(&self, name: &str) -> Option<usize> {
        match self.callable(name)?.detail {
            Detail::Function { sig, .. } => Some(sig.params.len()),
            Detail::Macro { params, .. } => {
                params.map(|p| p.iter().filter(|n| !n.ends_with("...")).count())
            }
            _ => None,
        }
    }
    fn returns(&self, name: &str) -> Option<String> {
        match self.callable(name)?.detail {
            Detail::Function { sig, .. } => Some(sig.ret.canonical),
            _ => None,
        }
    }
    fn macro_body(&self, name: &str) -> Option<String> {
        self.facts
            .defs(name)
            .into_iter()
            .find_map(|d| match d.detail {
                Detail::Macro { body, .. } => Some(body),
                _ => None,
            })
    }
    fn config(&self, symbol: &str) -> bool {
        self.facts.config(symbol).is_some()
    }
    fn header_exists(&self, header: &str) -> bool {
        // The compiler's own headers are there for kernels that still put its directory on the include path.
        let of_compiler = header == "stdarg.h" && self.flags.args.iter().any(|a| a == "-isystem");
        of_compiler || self.facts.header_exists(header)
    }
}
