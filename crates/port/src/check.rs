//! Gaps from facts alone: each use of the driver looked up on the target. Compiles nothing.

use crate::gap::{NameKind, Need, Place};
use crate::home::{Home, HomeTu};
use crate::view::View;
use crate::{cfn, embedded, event, lex, member, understand};
use kspan_evolve::{Evolution, Kind, Library};
use kspan_facts::{Binding, Def, Detail, Loc, Signature, Use, UseKind};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

/// A need of one source file with the places where it arises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Index of the source file in [`Home::tus`].
    pub tu: usize,
    /// The need.
    pub need: Need,
    /// Where.
    pub places: Vec<Place>,
    /// Surely an error when compiled unchanged. Others are only taken up when the compiler complains.
    pub hard: bool,
}

/// Looks up every use of the driver on the target.
#[must_use]
pub fn gaps(driver: &Home, home: &View, target: &View, library: &Library) -> Vec<Found> {
    driver
        .tus
        .iter()
        .enumerate()
        .flat_map(|(index, tu)| of_tu(driver, index, tu, home, target, library))
        .collect()
}

fn of_tu(
    driver: &Home,
    index: usize,
    tu: &HomeTu,
    home: &View,
    target: &View,
    library: &Library,
) -> Vec<Found> {
    let mut found: BTreeMap<Need, (Vec<Place>, bool)> = BTreeMap::new();
    let mut note = |need: Need, at: &kspan_facts::Loc, hard: bool| {
        let Some(file) = driver.relative(&at.file) else {
            return;
        };
        let entry = found.entry(need).or_insert((Vec::new(), hard));
        if entry.0.len() < 5 {
            entry.0.push(Place {
                file: file.to_path_buf(),
                line: at.line,
            });
        }
    };
    let reached = reached(tu, target);
    let mut texts = Texts::default();
    // What the driver's own kernel headers define comes with them.
    let own = |u: &&Use| u.kind != UseKind::Header && driver.owns_header(&u.header);
    for used in tu
        .tu
        .uses
        .iter()
        .filter(|u| u.via_macro.is_none() && !own(u) && !u.name.starts_with("CONFIG_"))
    {
        if used.kind == UseKind::Field && !texts.says(used) {
            continue;
        }
        // What has another meaning there may stand in another header, too: the header alone would hide that.
        let meant = reshaped(used, home, target, library)
            .or_else(|| retyped(used, &mut texts, home, target, library))
            .map(|need| (need, true));
        let found = || of_use(used, driver, home, target, &reached);
        if let Some((need, hard)) = meant.or_else(found) {
            note(need, &used.at, hard);
        }
    }
    for (header, at) in own_headers(driver, tu, home, target) {
        note(Need::Header { header }, &at, true);
    }
    for function in tu.tu.functions.iter().filter(|f| !f.is_static) {
        if const_of_parameters(&function.name, &function.sig, target).is_some() {
            let name = function.name.clone();
            note(Need::Signature { name }, &function.start, true);
        }
    }
    for (name, at) in event::gaps(driver, tu, home, target, library) {
        note(Need::Signature { name }, &at, true);
    }
    for binding in &tu.tu.bindings {
        if let Some(need) = of_binding(binding, target, library) {
            note(need, &binding.at, true);
        }
    }
    found
        .into_iter()
        .map(|(need, (places, hard))| Found {
            tu: index,
            need,
            places,
            hard,
        })
        .collect()
}

/// Files of the driver, as far as they were asked for.
#[derive(Default)]
struct Texts(HashMap<PathBuf, Vec<u8>>);

impl Texts {
    /// The name stands where it is used: a macro of the kernel by another name may have made the use (`d_iname`), and the target
    /// may have that.
    fn says(&mut self, used: &Use) -> bool {
        let there = self.of(used).get(used.at.offset as usize..);
        let there = there.unwrap_or_default();
        there.is_empty() || there.starts_with(used.name.as_bytes())
    }

    /// The use is of an object's member, and no value is given to it.
    fn reach(&mut self, used: &Use) -> bool {
        let start = used.at.offset as usize;
        let text = self.of(used);
        text.len() > start && !member::only_stored(text, start, &used.name)
    }

    fn of(&mut self, used: &Use) -> &[u8] {
        let read = || std::fs::read(&used.at.file).unwrap_or_default();
        self.0.entry(used.at.file.clone()).or_insert_with(read)
    }
}

/// All headers that the file's own includes bring in on the target.
fn reached(tu: &HomeTu, target: &View) -> BTreeSet<String> {
    tu.tu
        .includes
        .iter()
        .flat_map(|(_, header, _)| target.reach(header))
        .collect()
}

/// The target has the name, and an evolution knows that it means something else there than at home.
fn reshaped(used: &Use, home: &View, target: &View, library: &Library) -> Option<Need> {
    let differs = |e: &&Evolution| {
        matches!(e.kind, Kind::Override { .. }) && e.applies_to(target) && !e.applies_to(home)
    };
    let known = library
        .for_name(&used.name)
        .into_iter()
        .any(|e| differs(&e));
    known.then(|| Need::Signature {
        name: used.name.clone(),
    })
}

/// The target has the member, and an evolution knows that a driver which does more than initialise it must say so otherwise.
fn retyped(
    used: &Use,
    texts: &mut Texts,
    home: &View,
    target: &View,
    library: &Library,
) -> Option<Need> {
    let record = used.record.as_deref()?;
    let differs =
        |e: &&Evolution| e.is_of_present_member() && e.applies_to(target) && !e.applies_to(home);
    let known = library.accesses(record, &used.name).into_iter();
    let reaches = used.kind == UseKind::Field && known.into_iter().any(|e| differs(&e));
    (reaches && texts.reach(used)).then(|| Need::Field {
        record: record.to_owned(),
        field: used.name.clone(),
    })
}

fn of_use(
    used: &Use,
    driver: &Home,
    home: &View,
    target: &View,
    reached: &BTreeSet<String>,
) -> Option<(Need, bool)> {
    let name = used.name.clone();
    match used.kind {
        UseKind::Header => {
            let gone = home.header_path(&name).is_some()
                && (target.header_path(&name).is_none()
                    || driver.private_headers.contains(&name) && !same_header(&name, home, target));
            gone.then_some((Need::Header { header: name }, true))
        }
        UseKind::Field => {
            let record = used.record.clone().filter(|r| !r.starts_with('<'))?;
            let there = target.record(&record)?;
            let at_home = home
                .record(&record)
                .is_some_and(|f| f.iter().any(|f| f.name == name));
            let gone = at_home && !there.iter().any(|f| f.name == name);
            let turned = || embedded::on_target(home, target, &record, &name).is_some();
            (gone || turned()).then_some((
                Need::Field {
                    record,
                    field: name,
                },
                true,
            ))
        }
        UseKind::Config => None,
        _ => of_name(used, home, target, reached),
    }
}

/// Kernel headers that belong to the driver since it defines most of the functions that they declare, where the target's
/// version differs; and any header that declares one of the driver's functions in a way that conflicts.
fn own_headers(driver: &Home, tu: &HomeTu, home: &View, target: &View) -> Vec<(String, Loc)> {
    let all: BTreeSet<&str> = driver
        .tus
        .iter()
        .flat_map(|t| &t.tu.functions)
        .filter(|f| !f.is_static)
        .map(|f| f.name.as_str())
        .collect();
    let mut out: Vec<(String, Loc)> = Vec::new();
    for function in tu.tu.functions.iter().filter(|f| !f.is_static) {
        let Some((header, _)) = prototype(home, &function.name) else {
            continue;
        };
        if !target.facts.header_exists(&header) || same_header(&header, home, target) {
            continue;
        }
        let there = prototype(target, &function.name);
        let conflicts = || there.is_some_and(|(_, sig)| !same_callback(&function.sig, &sig));
        if is_provider(&header, &all, home)
            || conflicts() && hands_over_nothing(&header, home, target)
        {
            out.push((header, function.start.clone()));
        }
    }
    out
}

fn prototype(view: &View, name: &str) -> Option<(String, Signature)> {
    view.facts
        .defs(name)
        .into_iter()
        .find_map(|d| match d.detail {
            Detail::Function {
                sig, body: false, ..
            } => Some((d.header, sig)),
            _ => None,
        })
}

/// Where the target declares a function of the driver's with other promises not to write: by parameter, whether it is `const`
/// there. Nothing else may differ.
#[must_use]
pub fn const_of_parameters(
    name: &str,
    have: &Signature,
    target: &View,
) -> Option<BTreeMap<usize, bool>> {
    let (_, want) = prototype(target, name)?;
    let alike = |a: &str, b: &str| cfn::bare(a) == cfn::bare(b);
    let fits = have.params.len() == want.params.len()
        && have.variadic == want.variadic
        && tidy(&have.ret.canonical) == tidy(&want.ret.canonical);
    let pairs = || have.params.iter().zip(&want.params);
    if !fits || !pairs().all(|(a, b)| alike(&a.ty.canonical, &b.ty.canonical)) {
        return None;
    }
    let is_const = |ty: &str| tidy(ty).starts_with("const ");
    let differing = pairs().enumerate().filter_map(|(i, (a, b))| {
        let (here, there) = (is_const(&a.ty.canonical), is_const(&b.ty.canonical));
        (here != there).then_some((i, there))
    });
    let out: BTreeMap<usize, bool> = differing.collect();
    (!out.is_empty()).then_some(out)
}

/// No structure of the header is laid out otherwise on the target: the driver's version of it changes nothing that others have.
#[must_use]
pub fn hands_over_nothing(header: &str, home: &View, target: &View) -> bool {
    let layout = |view: &View, name: &str| {
        let defs = view.facts.defs(name).into_iter();
        let mut own = defs.filter(|d| d.header == header);
        own.find_map(|d| match d.detail {
            Detail::Record { fields, .. } if !fields.is_empty() => Some(
                fields
                    .iter()
                    .map(|f| (f.name.clone(), f.offset_bits))
                    .collect::<Vec<_>>(),
            ),
            _ => None,
        })
    };
    let names = home.facts.names_in_header(header);
    names
        .iter()
        .all(|name| match (layout(home, name), layout(target, name)) {
            (Some(here), Some(there)) => here == there,
            _ => true,
        })
}

/// The driver defines at least half of the functions that a header declares.
fn is_provider(header: &str, defined: &BTreeSet<&str>, home: &View) -> bool {
    let names = home.facts.names_in_header(header);
    let declared: Vec<&String> = names
        .iter()
        .filter(|n| prototype(home, n).is_some_and(|(h, _)| h == header))
        .collect();
    let own = declared
        .iter()
        .filter(|n| defined.contains(n.as_str()))
        .count();
    own * 2 >= declared.len() && own > 0
}

/// Both kernels have the header with the same bytes.
fn same_header(name: &str, home: &View, target: &View) -> bool {
    let read = |view: &View| std::fs::read(view.header_path(name)?).ok();
    read(home) == read(target)
}

fn of_name(
    used: &Use,
    home: &View,
    target: &View,
    reached: &BTreeSet<String>,
) -> Option<(Need, bool)> {
    let name = used.name.clone();
    if !home.has(&name) {
        return None;
    }
    let there = target.facts.defs(&name);
    let kind = name_kind(used.kind);
    if !is_served(&name, used.kind == UseKind::Type, home, target) {
        return Some((Need::Name { name, kind }, true));
    }
    if used.args.is_some() && !same_shape(&name, used.args, home, target) {
        return Some((Need::Signature { name }, true));
    }
    let far = there.iter().all(|d| !reached.contains(&d.header))
        && there.iter().all(|d| d.header != used.header);
    far.then_some((Need::Moved { name }, false))
}

/// The target has something of the name that can stand for what the home kernel has: for its type, where a type is meant,
/// else for its function, macro or variable. A name may be both, and the target may have one of them (`req_op`).
#[must_use]
pub fn is_served(name: &str, as_type: bool, home: &View, target: &View) -> bool {
    let mut at_home = home.facts.defs(name);
    at_home.retain(|d| is_type(d) == as_type);
    let there = target.facts.defs(name);
    there.iter().any(|d| at_home.iter().any(|h| serves(d, h)))
}

/// A definition of the target that can stand for one of the home kernel: functions, variables and macros stand for each
/// other, a tag for no function.
#[must_use]
pub fn serves(there: &Def, at_home: &Def) -> bool {
    let is_macro = |d: &Def| matches!(d.detail, Detail::Macro { .. });
    is_macro(there) || is_macro(at_home) || is_type(there) == is_type(at_home)
}

/// The kernel knows the word as a structure's or enumeration's tag alone (`enum state`), and the text does not name that: it is
/// a variable or a member of the same name.
#[must_use]
pub fn is_other_word(word: &str, text: &str, view: &View) -> bool {
    let is_tag = |d: &Def| matches!(d.detail, Detail::Record { .. } | Detail::Enum { .. });
    let defs = view.facts.defs(word);
    let tagged = |keyword: &str| text.contains(&format!("{keyword} {word}"));
    !defs.is_empty()
        && defs.iter().all(is_tag)
        && !["struct", "union", "enum"].into_iter().any(tagged)
}

/// A tag or typedef, as against what an expression can name.
#[must_use]
pub fn is_type(def: &Def) -> bool {
    matches!(
        def.detail,
        Detail::Record { .. } | Detail::Enum { .. } | Detail::Typedef { .. }
    )
}

fn name_kind(kind: UseKind) -> NameKind {
    match kind {
        UseKind::Function => NameKind::Function,
        UseKind::Variable => NameKind::Variable,
        UseKind::Macro => NameKind::Macro,
        UseKind::Type => NameKind::Type,
        UseKind::EnumConst => NameKind::Constant,
        _ => NameKind::Unknown,
    }
}

/// A call of `args` arguments that fits the home kernel fits the target too.
fn same_shape(name: &str, args: Option<u32>, home: &View, target: &View) -> bool {
    if home.callable(name).is_none() || target.callable(name).is_none() {
        return true;
    }
    let takes = |def: &Def| match &def.detail {
        Detail::Function { sig, .. } => (sig.params.len(), sig.variadic),
        Detail::Macro {
            params: Some(params),
            ..
        } => {
            let variadic = params.last().is_some_and(|p| p.ends_with("..."));
            (params.len() - usize::from(variadic), variadic)
        }
        _ => (0, true),
    };
    let fits =
        |(count, variadic): (usize, bool), n: usize| n == count || variadic && n + 1 >= count;
    let n = args.map_or(0, |a| a as usize);
    // A macro that hides the function decides what a call may pass.
    let any = |view: &View, n| view.facts.defs(name).iter().any(|d| fits(takes(d), n));
    !any(home, n) || any(target, n)
}

/// The callback that a binding wants is of another type on the target.
#[must_use]
pub fn of_binding(binding: &Binding, target: &View, library: &Library) -> Option<Need> {
    let wanted = callback_type(binding, target, library)?;
    let differs = !same_callback(&in_terms_of(&binding.sig, target, library), &wanted);
    differs.then(|| Need::Callback {
        record: binding.record.clone(),
        field: binding.field.clone(),
        function: binding.function.clone(),
    })
}

/// A function type with the tags that evolutions give other names on the target (`#define new_tag old_tag`).
fn in_terms_of(sig: &Signature, target: &View, library: &Library) -> Signature {
    let tag = |word: &str| {
        let known = library
            .for_name(word)
            .into_iter()
            .find(|e| matches!(e.kind, Kind::Define { .. }) && e.applies_to(target))?;
        let lead = format!("#define {word} ");
        let to = known.text()?.lines().find_map(|l| l.strip_prefix(&lead))?;
        let plain = to.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        plain.then(|| to.to_owned())
    };
    let renamed = |text: &str| {
        let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        for i in 1..words.len() {
            if matches!(words[i - 1].as_str(), "struct" | "union" | "enum")
                && let Some(to) = tag(&words[i])
            {
                words[i] = to;
            }
        }
        words.join(" ")
    };
    let mut sig = sig.clone();
    for ty in sig
        .params
        .iter_mut()
        .map(|p| &mut p.ty)
        .chain([&mut sig.ret])
    {
        ty.spelling = renamed(&ty.spelling);
        ty.canonical = renamed(&ty.canonical);
    }
    sig
}

/// The function type that the target wants where the driver stores one of its functions.
#[must_use]
pub fn callback_type(binding: &Binding, target: &View, library: &Library) -> Option<Signature> {
    if binding.record.is_empty() {
        return argument_type(&binding.field, target, library);
    }
    let fields = target.record(&binding.record)?;
    let by_name = |name: &str| fields.iter().find(|f| f.name == name).cloned();
    let field = by_name(&binding.field).or_else(|| {
        let evolution = target.renamed_field(library, &binding.record, &binding.field)?;
        match &evolution.kind {
            Kind::Field { target: path, .. } => {
                by_name(path).or_else(|| inner(target, &fields, path))
            }
            _ => None,
        }
    })?;
    field.callback
}

/// The member that a dotted path leads to, through members that are structures with a tag of their own.
fn inner(target: &View, fields: &[kspan_facts::Field], path: &str) -> Option<kspan_facts::Field> {
    let (first, rest) = path.split_once('.')?;
    let outer = fields.iter().find(|f| f.name == first)?;
    let fields = target.record(outer.ty.canonical.trim_start_matches("struct ").trim())?;
    let by_name = fields.iter().find(|f| f.name == rest).cloned();
    by_name.or_else(|| inner(target, &fields, rest))
}

/// The function type of `callee#argument`, or of a typedef, on the target.
fn argument_type(place: &str, target: &View, library: &Library) -> Option<Signature> {
    let Some((callee, index)) = place.split_once('#') else {
        return target
            .facts
            .defs(place)
            .iter()
            .find_map(|d| match &d.detail {
                Detail::Typedef { ty } => understand::signature(cfn::parse(&ty.canonical)?),
                _ => None,
            });
    };
    let index = index.parse::<usize>().ok()?;
    let served = || served_by(library.best(callee, target)?, callee, index);
    let (callee, index) = match target.callable(callee) {
        Some(_) => (callee.to_owned(), index),
        None => served()?,
    };
    let Detail::Function { sig, .. } = target.callable(&callee)?.detail else {
        return None;
    };
    let param = sig.params.get(index)?;
    understand::signature(cfn::parse(&param.ty.canonical)?)
}

/// Where an evolution serves a function by a macro that calls another with its arguments: that one, and the place there of an argument.
fn served_by(evolution: &Evolution, callee: &str, index: usize) -> Option<(String, usize)> {
    let lead = format!("#define {callee}(");
    let text = evolution.text()?;
    let line = text.lines().find_map(|l| l.strip_prefix(&lead))?;
    let (params, body) = line.split_once(')')?;
    let (other, list) = body.trim().strip_suffix(')')?.split_once('(')?;
    let plain = other
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let param = params.split(',').nth(index)?.trim();
    let given = format!("({param})");
    let passed = lex::arguments(list);
    let at = passed
        .iter()
        .position(|a| a.trim() == param || a.trim() == given)?;
    plain.then(|| (other.to_owned(), at))
}

/// Types by which one function can stand in a pointer to the other without a diagnostic.
fn same_callback(have: &Signature, want: &Signature) -> bool {
    let same = |a: &kspan_facts::Ty, b: &kspan_facts::Ty| {
        a.spelling == b.spelling || tidy(&a.canonical) == tidy(&b.canonical)
    };
    same(&have.ret, &want.ret)
        && have.params.len() == want.params.len()
        && have
            .params
            .iter()
            .zip(&want.params)
            .all(|(a, b)| same(&a.ty, &b.ty))
}

/// A parameter type without what does not count: blanks, and `const` of the parameter itself.
fn tidy(ty: &str) -> String {
    let text = ty
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace(" *", "*");
    match text.strip_suffix("const") {
        Some(rest) if rest.ends_with('*') => rest.to_owned(),
        _ => text,
    }
}
