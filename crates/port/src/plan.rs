//! A port as it stands: what each source file wants, which headers the overlay gives, which bytes are edited.
//! [`Plan::render`] turns it into files; nothing else writes a port.

use crate::carry::{Closure, Sources, Unit, Wants};
use crate::driver::{Driver, OFF};
use crate::edit::{Edit, Edits};
use crate::gap::{Remedy, RemedyKind, Risk};
use crate::home::{Home, HomeTu};
use crate::view::View;
use crate::{Error, Result, event, lift, site};
use kspan_evolve::{Evolution, Kind, Library};
use kspan_facts::lex::is_guarded;
use kspan_facts::{Def, Detail, UseKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where the overlay lies in a port.
pub const OVERLAY: &str = "overlay";

/// How the overlay gives a header that the target lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderPlan {
    /// The home kernel's header, whole, after what it needs.
    Whole(Wants),
    /// The target's headers that have its names; what they lack is carried where it is used.
    Redirect(Vec<String>),
    /// The target's header that an evolution says to stand for it, with all of its names.
    Stand(String),
}

/// What a derivation works with.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The driver.
    pub driver: &'a Driver,
    /// The driver on its home kernel.
    pub built: &'a Home,
    /// The home kernel.
    pub home: &'a View,
    /// The target kernel.
    pub target: &'a View,
    /// The evolutions.
    pub library: &'a Library,
    /// The home kernel's C files, where they are at hand.
    pub lift: Option<&'a lift::Index>,
    /// What the gates found to act otherwise, for the module's own information.
    pub notes: &'a [String],
    /// Symbols of other modules that no module brings along: the home header's stub may stand for them.
    pub stubs: &'a BTreeSet<String>,
    /// Exports that modules of the target take from those that this port stands in for: their versions may not change.
    pub kept: &'a BTreeSet<String>,
    /// Headers of the driver's directory in whose place the target's own version stands, with its text.
    pub theirs: &'a BTreeMap<PathBuf, String>,
}

impl Context<'_> {
    /// The edits and remedies that put the target's own headers in the place of the driver's.
    fn headers_of_target(&self) -> (Edits, BTreeSet<RemedyKey>) {
        let mut edits = Edits::default();
        let mut remedies = BTreeSet::new();
        for (file, text) in self.theirs {
            let length = std::fs::metadata(self.driver.dir.join(file)).map_or(0, |m| m.len());
            let whole = crate::edit::Edit {
                start: 0,
                end: usize::try_from(length).unwrap_or(usize::MAX),
                text: text.clone(),
            };
            // The first edit of a file meets no other.
            if edits.remove(file, whole).is_ok() {
                remedies.insert(RemedyKey {
                    kind: RemedyKind::Include,
                    subject: file.display().to_string(),
                    origin: format!("as {} has it", self.target.kernel.release),
                    risk: Risk::None,
                    meaning: String::new(),
                });
            }
        }
        (edits, remedies)
    }
}

/// The state of a port.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// By index in [`Home::tus`].
    pub tus: Vec<Wants>,
    /// Overlay headers.
    pub headers: BTreeMap<String, HeaderPlan>,
    /// Edits of the driver's text.
    pub edits: Edits,
    /// Edits that give the driver's functions the `const` of the target's declarations, by function.
    pub as_there: BTreeMap<String, Vec<(PathBuf, crate::edit::Edit)>>,
    /// Macros within tracepoints that the target wants otherwise.
    pub events: BTreeSet<String>,
    /// Structures of which the driver cannot have a form of its own: that was tried, and the target's code wants its own.
    pub not_own: BTreeSet<String>,
    /// Namespaces of symbols to import.
    pub namespaces: BTreeSet<String>,
    /// Remedies that are edits, adapters or whole headers; carried ones follow from the wants.
    pub remedies: BTreeSet<RemedyKey>,
}

/// A remedy in an order that does not depend on discovery.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemedyKey {
    /// The kind.
    pub kind: RemedyKind,
    /// What it is for.
    pub subject: String,
    /// Where it came from.
    pub origin: String,
    /// How far it may change what the driver does.
    pub risk: Risk,
    /// What may differ.
    pub meaning: String,
}

/// A rendered port.
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    /// Every file of the port by its path in it.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// What was carried for each source file, in the order of [`Home::tus`].
    pub closures: Vec<Closure>,
    /// All remedies.
    pub remedies: Vec<Remedy>,
}

impl From<RemedyKey> for Remedy {
    fn from(k: RemedyKey) -> Self {
        Self {
            kind: k.kind,
            subject: k.subject,
            origin: k.origin,
            risk: k.risk,
            meaning: k.meaning,
        }
    }
}

impl Plan {
    /// The plan to begin with: the driver as it is, but for headers that the target's own stand for.
    #[must_use]
    pub fn of(ctx: &Context<'_>) -> Self {
        let (edits, remedies) = ctx.headers_of_target();
        Self {
            tus: vec![Wants::default(); ctx.built.tus.len()],
            edits,
            remedies,
            ..Self::default()
        }
    }

    /// Overlay headers that give all of their names.
    fn whole(&self) -> BTreeSet<String> {
        let is_whole = |(_, plan): &(&String, &HeaderPlan)| {
            matches!(plan, HeaderPlan::Whole(_) | HeaderPlan::Stand(_))
        };
        let whole = self
            .headers
            .iter()
            .filter(is_whole)
            .map(|(h, _)| h.as_str());
        whole
            .flat_map(|h| std::iter::once(h).chain(h.strip_prefix("uapi/")))
            .map(str::to_owned)
            .collect()
    }

    fn evolutions_of_events<'c>(&self, ctx: &Context<'c>) -> Vec<(&String, &'c Evolution)> {
        let of = |name: &String| event::evolution(name, ctx.home, ctx.target, ctx.library);
        let all = self.events.iter();
        all.filter_map(|name| Some((name, of(name)?))).collect()
    }

    /// The files of the port.
    ///
    /// # Errors
    /// When a file of the driver or a header of the home kernel cannot be read.
    pub fn render(&self, ctx: &Context<'_>) -> Result<Rendered> {
        let whole = self.whole();
        let sources = Sources {
            home: ctx.home,
            target: ctx.target,
            library: ctx.library,
            lift: ctx.lift,
            exports: &ctx.built.exports,
            whole: &whole,
            stubs: ctx.stubs,
        };
        let mut out = Rendered::default();
        let mut edits = self.edits.clone();
        let mut remedies: BTreeSet<RemedyKey> = self.remedies.clone();
        for wants in &self.tus {
            let closure = Closure::compute(&sources, wants);
            remedies.extend(remedies_of(&closure, wants));
            out.closures.push(closure);
        }
        let events = self.evolutions_of_events(ctx);
        remedies.extend(events.iter().map(|(name, e)| RemedyKey {
            kind: RemedyKind::Rewrite,
            subject: (*name).clone(),
            origin: format!("evolution {}", e.id),
            risk: e.risk.into(),
            meaning: e.meaning.clone(),
        }));
        for (header, plan) in &self.headers {
            let text = overlay_header(ctx, &sources, header, plan, &mut remedies)?;
            let text = match events.is_empty() {
                true => text,
                false => with_events(Path::new(header), text, &events),
            };
            let path = Path::new(OVERLAY).join("include").join(header);
            out.files.insert(path, text);
        }
        let note = information(ctx, &remedies, &self.namespaces);
        for (tu, wants) in ctx.built.tus.iter().zip(&self.tus) {
            place_top(ctx, tu, &wants.top, &mut edits)?;
        }
        for (tu, closure) in ctx.built.tus.iter().zip(&out.closures) {
            let note = note.as_deref().filter(|_| names_licence(tu));
            if !closure.is_empty() || note.is_some() {
                place_block(ctx, tu, closure, note, &mut edits, &mut out.files)?;
            }
        }
        let taken = taken_names(ctx);
        if !taken.is_empty() {
            out.files.insert(renames_file(), renames(&taken).into());
            remedies.extend(taken.iter().map(|name| renamed(ctx, name)));
        }
        if let Some(text) = options_text(ctx, &remedies) {
            out.files.insert(options_file(), text.into());
        }
        let dialect = remedies.iter().any(|r| r.kind == RemedyKind::Dialect);
        let overlaid = !out.files.is_empty() || dialect;
        for file in ctx.driver.sources()? {
            let path = ctx.driver.dir.join(&file);
            let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
            for (_, edit) in events_of(&bytes, &events) {
                // Another edit of the same bytes knew more.
                let _ = edits.add(&file, edit);
            }
            out.files.insert(file.clone(), edits.apply(&file, &bytes));
        }
        if overlaid {
            add_include_paths(ctx, &mut out.files);
        }
        set_options(ctx, &remedies, &mut out.files);
        out.remedies = remedies.into_iter().map(Remedy::from).collect();
        Ok(out)
    }
}

impl Closure {
    /// Nothing needs to be given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.includes.is_empty()
    }
}

/// The edits of a file's tracepoints.
fn events_of(text: &[u8], events: &[(&String, &Evolution)]) -> Vec<(String, Edit)> {
    let Ok(text) = std::str::from_utf8(text) else {
        return Vec::new();
    };
    let all = events.iter().flat_map(|(name, e)| {
        let own = event::rewrites(text, e).into_iter();
        own.filter(move |(n, _)| n == *name)
    });
    all.collect()
}

/// A header of the overlay with its tracepoints in the target's form.
fn with_events(path: &Path, text: Vec<u8>, events: &[(&String, &Evolution)]) -> Vec<u8> {
    let mut edits = Edits::default();
    for (_, edit) in events_of(&text, events) {
        let _ = edits.add(path, edit);
    }
    edits.apply(path, &text)
}

fn remedies_of(closure: &Closure, wants: &Wants) -> Vec<RemedyKey> {
    let of_unit = |unit: &Unit| RemedyKey {
        kind: unit.kind,
        subject: unit.name.clone(),
        origin: unit.origin.clone(),
        risk: unit.risk,
        meaning: unit.meaning.clone(),
    };
    let of_include = |header: &String| RemedyKey {
        kind: RemedyKind::Include,
        subject: header.clone(),
        origin: "the target's headers".to_owned(),
        risk: Risk::None,
        meaning: String::new(),
    };
    closure
        .units
        .iter()
        .map(of_unit)
        .chain(wants.includes.iter().map(of_include))
        .collect()
}

/// Writes what a source file is given into a header of the overlay and includes that at the right place.
fn place_block(
    ctx: &Context<'_>,
    tu: &HomeTu,
    closure: &Closure,
    note: Option<&str>,
    edits: &mut Edits,
    files: &mut BTreeMap<PathBuf, Vec<u8>>,
) -> Result<()> {
    let path = ctx.driver.dir.join(&tu.source);
    let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
    let file = block_file(&tu.source);
    let name = file
        .strip_prefix(OVERLAY)
        .unwrap_or(&file)
        .to_string_lossy()
        .into_owned();
    let private: BTreeSet<u32> = private_includes(ctx.built, tu);
    let place = site::after_includes(&bytes, &private);
    let text = format!("#include \"{name}\"\n#line {}\n", place.line);
    // A site is found anew for each rendering, so it cannot overlap what is there.
    let _ = edits.add(
        &tu.source,
        Edit {
            start: place.offset,
            end: place.offset,
            text,
        },
    );
    let mut headers: Vec<String> = closure.first.iter().cloned().collect();
    if closure.units.iter().any(|u| u.replaces) {
        headers.extend(kernel_includes(ctx, tu));
    }
    headers.extend(closure.includes.difference(&closure.first).cloned());
    headers.retain(|h| !read_already(ctx, tu, h, place.line));
    let mut text = block(ctx, &headers, &closure.units);
    if let Some(note) = note {
        text.push_str(&format!("\n#include <linux/module.h>\n{note}"));
    }
    files.insert(file, text.into_bytes());
    Ok(())
}

/// Includes headers before the first include of a source file.
fn place_top(
    ctx: &Context<'_>,
    tu: &HomeTu,
    headers: &BTreeSet<String>,
    edits: &mut Edits,
) -> Result<()> {
    if headers.is_empty() {
        return Ok(());
    }
    let path = ctx.driver.dir.join(&tu.source);
    let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
    let place = site::first_include(&bytes);
    let includes: String = headers
        .iter()
        .map(|h| format!("#include <{h}>\n"))
        .collect();
    // As for the block: nothing else is ever edited there.
    let _ = edits.add(
        &tu.source,
        Edit {
            start: place.offset,
            end: place.offset,
            text: format!("{includes}#line {}\n", place.line),
        },
    );
    Ok(())
}

/// The source file includes a header above a line, and the header has no guard: it cannot be read twice.
fn read_already(ctx: &Context<'_>, tu: &HomeTu, header: &str, line: u32) -> bool {
    let own = ctx.built.dir.join(&tu.source);
    let above = |(at, name, _): &(kspan_facts::Loc, String, Option<PathBuf>)| {
        at.file == own && at.line < line && name == header
    };
    let guarded = |path: PathBuf| std::fs::read(path).is_ok_and(|text| is_guarded(&text));
    tu.tu.includes.iter().any(above) && !ctx.target.header_path(header).is_some_and(guarded)
}

/// Lines of the file's own includes that lead to files of the driver.
fn private_includes(built: &Home, tu: &HomeTu) -> BTreeSet<u32> {
    let own = built.dir.join(&tu.source);
    let leads_home = |(at, _, to): &&(kspan_facts::Loc, String, Option<PathBuf>)| {
        at.file == own && to.as_ref().is_some_and(|p| built.relative(p).is_some())
    };
    tu.tu
        .includes
        .iter()
        .filter(leads_home)
        .map(|(at, _, _)| at.line)
        .collect()
}

/// The kernel's headers that the driver's files include, as far as the target or the overlay has them.
fn kernel_includes(ctx: &Context<'_>, tu: &HomeTu) -> Vec<String> {
    let of_kernel = |(_, header, to): &&(kspan_facts::Loc, String, Option<PathBuf>)| {
        to.as_ref().is_some_and(|p| ctx.built.relative(p).is_none())
            && ctx.target.can_include(header)
            && !header.starts_with("trace/")
            && !ctx.target.is_list(header)
    };
    let mut seen = BTreeSet::new();
    let new = |(_, header, _): &(kspan_facts::Loc, String, Option<PathBuf>)| {
        seen.insert(header.clone()).then(|| header.clone())
    };
    tu.tu
        .includes
        .iter()
        .filter(of_kernel)
        .filter_map(new)
        .collect()
}

/// The file of the overlay that holds what a source file is given.
#[must_use]
pub fn block_file(source: &Path) -> PathBuf {
    let flat = source
        .with_extension("")
        .to_string_lossy()
        .replace(['/', '.'], "_");
    Path::new(OVERLAY).join("kspan").join(format!("{flat}.h"))
}

/// The file that names the module's licence, of which a module has one.
fn names_licence(tu: &HomeTu) -> bool {
    tu.tu.uses.iter().any(|u| u.name == "MODULE_LICENSE")
}

/// What a ported module says of itself (`modinfo -F kspan`) when it may act otherwise than at home. A driver that needs no
/// remedy keeps its bytes, and says nothing.
fn modinfo(ctx: &Context<'_>, remedies: &BTreeSet<RemedyKey>) -> Option<String> {
    const MOST: usize = 400;
    let risky = remedies
        .iter()
        .filter(|r| r.risk > Risk::Default)
        .map(|r| r.subject.as_str());
    let subjects: Vec<&str> = risky.chain(ctx.notes.iter().map(String::as_str)).collect();
    if remedies.is_empty() || subjects.is_empty() {
        return None;
    }
    let text = format!(
        "ported from {}; may act otherwise: {}",
        ctx.home.kernel.release,
        subjects.join(", ")
    );
    let plain = |c: &char| c.is_ascii() && !c.is_ascii_control() && !matches!(c, '"' | '\\' | '%');
    Some(text.chars().filter(plain).take(MOST).collect())
}

/// What a module's own information says besides the driver's lines: that it may act otherwise, and namespaces.
fn information(
    ctx: &Context<'_>,
    remedies: &BTreeSet<RemedyKey>,
    namespaces: &BTreeSet<String>,
) -> Option<String> {
    let body = kspan_evolve::KernelView::macro_body(ctx.target, "MODULE_IMPORT_NS");
    let as_words = body.is_some_and(|b| b.contains("stringify") || b.contains('#'));
    let quote = if as_words { "" } else { "\"" };
    let imports = namespaces
        .iter()
        .map(|n| format!("MODULE_IMPORT_NS({quote}{n}{quote});\n"));
    let note = modinfo(ctx, remedies).map(|note| format!("MODULE_INFO(kspan, \"{note}\");\n"));
    let text: String = note.into_iter().chain(imports).collect();
    (!text.is_empty()).then_some(text)
}

/// The text of an overlay block: includes, then each definition under a guard of its own.
fn block(ctx: &Context<'_>, headers: &[String], units: &[Unit]) -> String {
    let mut out = format!(
        "/* SPDX-License-Identifier: GPL-2.0 */\n/* Made by kspan: what {} has and {} lacks. */\n",
        ctx.home.kernel.release, ctx.target.kernel.release
    );
    for header in headers {
        out.push_str(&format!("#include <{header}>\n"));
    }
    for unit in units {
        out.push_str(&format!("\n/* {}: {} */\n", unit.name, unit.origin));
        let guard = guard(&unit.name);
        out.push_str(&format!(
            "#ifndef {guard}\n#define {guard}\n{}\n#endif\n",
            unit.text
        ));
    }
    out
}

/// The macro that says that a definition stands already.
pub(crate) fn guard(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    format!("KSPAN_HAS_{safe}")
}

fn overlay_header(
    ctx: &Context<'_>,
    sources: &Sources<'_>,
    header: &str,
    plan: &HeaderPlan,
    remedies: &mut BTreeSet<RemedyKey>,
) -> Result<Vec<u8>> {
    match plan {
        HeaderPlan::Stand(to) => Ok(redirect(header, std::slice::from_ref(to)).into_bytes()),
        HeaderPlan::Redirect(to) => Ok(redirect(header, to).into_bytes()),
        HeaderPlan::Whole(wants) => {
            let Some(path) = ctx.home.header_path(header) else {
                return Err(Error::Internal(format!(
                    "{header} is not a header of {}",
                    ctx.home.kernel.id
                )));
            };
            let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
            let closure = Closure::compute(sources, wants);
            remedies.extend(remedies_of(&closure, wants));
            let bytes = match defines_types(ctx.home, header) {
                true => read_once(header, bytes),
                false => bytes,
            };
            if closure.is_empty() {
                return Ok(bytes);
            }
            // Of the other headers that the overlay gives, it includes itself what it needs, as at home.
            let headers: Vec<String> = closure
                .includes
                .iter()
                .filter(|h| *h != header && !sources.whole.contains(*h))
                .cloned()
                .collect();
            // The header's own guard stands below what is put before it, and headers may include each other.
            let guard = guard(&format!("before_{header}"));
            let before = block(ctx, &headers, &closure.units);
            let mut text =
                format!("#ifndef {guard}\n#define {guard}\n{before}#endif\n").into_bytes();
            text.extend_from_slice(b"#line 1\n");
            text.extend_from_slice(&bytes);
            Ok(text)
        }
    }
}

/// The header has types of its own, and is not made to be read several times (as those of tracepoints and lists of macros).
fn defines_types(home: &View, header: &str) -> bool {
    let is_type = |d: &Def| {
        matches!(&d.detail, Detail::Record { fields, .. } if !fields.is_empty())
            || matches!(d.detail, Detail::Enum { .. } | Detail::Typedef { .. })
    };
    let own = |name: &String| {
        let defs = home.facts.defs(name);
        defs.iter().any(|d| d.header == header && is_type(d))
    };
    !header.contains("trace/") && home.names_in(header).iter().any(own)
}

/// A header that may be read twice: what the overlay adds includes it beside the driver.
fn read_once(header: &str, bytes: Vec<u8>) -> Vec<u8> {
    if is_guarded(&bytes) {
        return bytes;
    }
    let guard = guard(&format!("once_{header}"));
    let mut text = format!("#ifndef {guard}\n#define {guard}\n#line 1\n").into_bytes();
    text.extend_from_slice(&bytes);
    text.extend_from_slice(b"\n#endif\n");
    text
}

fn redirect(header: &str, to: &[String]) -> String {
    let guard = guard(&format!("header_{header}"));
    let mut out = format!(
        "/* Made by kspan: the target has this header's names elsewhere. */\n#ifndef {guard}\n#define {guard}\n"
    );
    for other in to {
        out.push_str(&format!("#include <{other}>\n"));
    }
    out.push_str("#endif\n");
    out
}

/// The place of a dialect of C among those that kernels were written in; the target's headers need their own or a newer.
fn dialect(flag: Option<&str>) -> Option<usize> {
    const OLDEST_FIRST: [&str; 5] = [
        "-std=gnu89",
        "-std=gnu99",
        "-std=gnu11",
        "-std=gnu17",
        "-std=gnu23",
    ];
    OLDEST_FIRST.iter().position(|d| Some(*d) == flag)
}

/// The home kernel's dialect of C, where the target's is older: the driver and what is carried are written in it.
#[must_use]
pub fn language_flags(ctx: &Context<'_>) -> Vec<String> {
    let flag = |view: &View, prefix: &str| {
        view.flags
            .args
            .iter()
            .find(|a| a.starts_with(prefix))
            .cloned()
    };
    let mut out = Vec::new();
    let (home, target) = (flag(ctx.home, "-std="), flag(ctx.target, "-std="));
    if dialect(home.as_deref()) > dialect(target.as_deref()) {
        out.extend(home);
    }
    // Anonymous members of a named structure (since 6.19 the kernel's own headers have them).
    const ANONYMOUS: &str = "-fms-extensions";
    if flag(ctx.home, ANONYMOUS).is_some() && flag(ctx.target, ANONYMOUS).is_none() {
        out.push(ANONYMOUS.to_owned());
    }
    const MIXED: &str = "-Wdeclaration-after-statement";
    if flag(ctx.target, MIXED).is_some() && flag(ctx.home, MIXED).is_none() {
        out.push("-Wno-declaration-after-statement".to_owned());
    }
    out
}

/// What a port that needs nothing else takes when the target's C is too old for it; none where it is not.
#[must_use]
pub fn dialect_remedy(ctx: &Context<'_>) -> Option<RemedyKey> {
    let flags = language_flags(ctx);
    (!flags.is_empty()).then(|| RemedyKey {
        kind: RemedyKind::Dialect,
        subject: flags.join(" "),
        origin: "how the home kernel compiles modules".to_owned(),
        risk: Risk::None,
        meaning: String::new(),
    })
}

/// What the driver exports and the target's own kernel does, too: modpost and the module loader refuse a second one.
fn taken_names<'c>(ctx: &Context<'c>) -> Vec<&'c str> {
    let built_in = |name: &&String| {
        let export = ctx.target.facts.export(name);
        export.is_some_and(|e| e.module == "vmlinux")
    };
    let exports = ctx.built.exports.iter().filter(built_in);
    exports.map(String::as_str).collect()
}

/// What turns off the driver's own options that the target has on and the home kernel has off: the files that they ask for are
/// not among the driver's.
#[must_use]
pub fn option_remedies(ctx: &Context<'_>) -> Vec<RemedyKey> {
    let on = |name: &&str| ctx.target.facts.config(name).is_some();
    let remedy = |name: &str| RemedyKey {
        kind: RemedyKind::Option,
        subject: name.to_owned(),
        origin: "off in the home kernel's configuration".to_owned(),
        risk: Risk::Default,
        meaning: format!(
            "the target's configuration has {name} on, and its own version of the driver may do what this one leaves out"
        ),
    };
    ctx.driver.manifest.off().filter(on).map(remedy).collect()
}

/// The evolution by which a configuration symbol that the target does not know is on there, since it is on at home.
#[must_use]
pub fn option_evolution<'l>(
    name: &str,
    home: &View,
    target: &View,
    library: &'l Library,
) -> Option<&'l Evolution> {
    let on = |view: &View| view.facts.config(name).is_some_and(|v| v != OFF);
    let define = |e: &&Evolution| matches!(e.kind, Kind::Define { .. });
    let wanted = on(home) && target.facts.config(name).is_none();
    library.best(name, target).filter(|e| wanted && define(e))
}

/// What the driver asks of the configuration, and the target says under another name, or had before there was an option for it.
#[must_use]
pub fn given_options(ctx: &Context<'_>) -> BTreeSet<RemedyKey> {
    let uses = ctx.built.tus.iter().flat_map(|t| &t.tu.uses);
    let asked = uses.filter(|u| u.kind == UseKind::Config);
    asked
        .filter_map(|u| {
            let e = option_evolution(&u.name, ctx.home, ctx.target, ctx.library)?;
            Some(RemedyKey {
                kind: RemedyKind::Option,
                subject: u.name.clone(),
                origin: format!("evolution {}", e.id),
                risk: e.risk.into(),
                meaning: e.meaning.clone(),
            })
        })
        .collect()
}

/// The header that is read right after the kernel's configuration; none where nothing of it changes.
fn options_text(ctx: &Context<'_>, remedies: &BTreeSet<RemedyKey>) -> Option<String> {
    let all = remedies.iter().filter(|r| r.kind == RemedyKind::Option);
    let names: Vec<&str> = all.map(|r| r.subject.as_str()).collect();
    let given = |name: &str| {
        let e = option_evolution(name, ctx.home, ctx.target, ctx.library)?;
        e.text().map(str::to_owned)
    };
    (!names.is_empty()).then(|| options(&names, given))
}

/// Where options are turned off, in a port.
fn options_file() -> PathBuf {
    Path::new(OVERLAY).join("kspan").join("own-options.h")
}

/// The header that is read right after the kernel's configuration: what stands for an option, or that it is off.
fn options(names: &[&str], given: impl Fn(&str) -> Option<String>) -> String {
    let off = |name: &str| format!("#undef {name}\n#undef {name}_MODULE\n");
    header_for_each("as in the home kernel's configuration", names, |name| {
        given(name).unwrap_or_else(|| off(name))
    })
}

/// A header of directives, some for each name.
fn header_for_each(why: &str, names: &[&str], directives: impl Fn(&str) -> String) -> String {
    let head = format!("/* SPDX-License-Identifier: GPL-2.0 */\n/* Made by kspan: {why}. */\n");
    let lines = names.iter().map(|name| directives(name));
    std::iter::once(head).chain(lines).collect()
}

/// The headers of a port that the compiler reads before the driver's first line.
#[must_use]
pub fn read_first() -> [PathBuf; 2] {
    [options_file(), renames_file()]
}

/// Where the new names stand, in a port.
fn renames_file() -> PathBuf {
    Path::new(OVERLAY).join("kspan").join("own-exports.h")
}

/// The header that is read before all others: declarations, definitions, exports and calls get the new name alike.
fn renames(names: &[&str]) -> String {
    header_for_each("the target's kernel exports these itself", names, |name| {
        format!("#define {name} kspan_{name}\n")
    })
}

fn renamed(ctx: &Context<'_>, name: &str) -> RemedyKey {
    RemedyKey {
        kind: RemedyKind::Rename,
        subject: name.to_owned(),
        origin: format!("kspan_{name}"),
        risk: Risk::Behaviour,
        meaning: format!(
            "{name}() is built into {}: modules that are ported together with this one use its own, all others the kernel's",
            ctx.target.kernel.release
        ),
    }
}

/// Options that the target has under another name are on for make, too: which objects belong to a module may hang on them.
fn set_options(
    ctx: &Context<'_>,
    remedies: &BTreeSet<RemedyKey>,
    files: &mut BTreeMap<PathBuf, Vec<u8>>,
) {
    let options = remedies.iter().filter(|r| r.kind == RemedyKind::Option);
    let given = |name: &&str| option_evolution(name, ctx.home, ctx.target, ctx.library).is_some();
    let names: Vec<&str> = options.map(|r| r.subject.as_str()).filter(given).collect();
    let is_kbuild = |path: &Path| path.ends_with("Kbuild") || path.ends_with("Makefile");
    for (_, text) in files.iter_mut().filter(|(path, _)| is_kbuild(path)) {
        let asked = |name: &&&str| {
            let variable = format!("$({name})");
            memchr::memmem::find(text, variable.as_bytes()).is_some()
        };
        let lines: String = names
            .iter()
            .filter(asked)
            .map(|n| format!("{n} := y\n"))
            .collect();
        if !lines.is_empty() {
            let head = format!(
                "# Added by kspan for {}.\n{lines}",
                ctx.target.kernel.release
            );
            text.splice(0..0, head.into_bytes());
        }
    }
}

/// Puts the overlay on the include path, in the driver's own Kbuild file (or Makefile).
fn add_include_paths(ctx: &Context<'_>, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let name = if files.contains_key(Path::new("Kbuild")) {
        "Kbuild"
    } else {
        "Makefile"
    };
    let mut first = read_first().to_vec();
    first.retain(|file| files.contains_key(file));
    let text = files.entry(PathBuf::from(name)).or_default();
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    // Before the kernel's own headers, so that one which belongs to the driver wins over the target's version of it.
    let mut lines = format!(
        "\n# Added by kspan for {}.\nLINUXINCLUDE := -I$(src)/{OVERLAY} -I$(src)/{OVERLAY}/include $(LINUXINCLUDE)\n",
        ctx.target.kernel.release
    );
    for file in first {
        lines.push_str(&format!(
            "LINUXINCLUDE += -include $(src)/{}\n",
            file.display()
        ));
    }
    let language = language_flags(ctx);
    if !language.is_empty() {
        lines.push_str(&format!("subdir-ccflags-y += {}\n", language.join(" ")));
    }
    text.extend_from_slice(lines.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_are_read_first_have_directives_alone() {
        let head = "/* SPDX-License-Identifier: GPL-2.0 */\n/* Made by kspan: ";
        assert_eq!(
            options(&["CONFIG_A", "CONFIG_B"], |n| (n == "CONFIG_B")
                .then(|| "#define CONFIG_B 1\n".to_owned())),
            format!(
                "{head}as in the home kernel's configuration. */\n#undef CONFIG_A\n#undef CONFIG_A_MODULE\n#define CONFIG_B 1\n"
            )
        );
        assert_eq!(
            renames(&["a", "b"]),
            format!(
                "{head}the target's kernel exports these itself. */\n#define a kspan_a\n#define b kspan_b\n"
            )
        );
    }

    #[test]
    fn a_header_without_a_guard_is_read_once() {
        let text = String::from_utf8(read_once("a/b.h", b"struct a { int b; };\n".to_vec()));
        let text = text.unwrap();
        assert!(
            text.starts_with("#ifndef KSPAN_HAS_once_a_b_h\n#define"),
            "{text}"
        );
        assert!(text.ends_with("struct a { int b; };\n\n#endif\n"), "{text}");
        for guarded in [
            "#ifndef A_H\n#define A_H\n#endif\n",
            "#pragma once\n",
            "#if !defined(_TRACE_A_H) || defined(TRACE_HEADER_MULTI_READ)\n#endif\n",
        ] {
            let bytes = guarded.as_bytes().to_vec();
            assert_eq!(read_once("a/b.h", bytes.clone()), bytes);
        }
    }
}
