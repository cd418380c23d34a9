//! What a compiler's diagnostic says that the kernel lacks.

use crate::cfn::{self, FnType};
use crate::diag::Diagnostic;
use crate::entry;
use crate::gap::{NameKind, Need};
use crate::home::HomeTu;
use crate::lex;
use crate::view::View;
use kspan_facts::{Detail, Param, Signature, Ty, UseKind};

/// Where a diagnostic points, in the driver's own terms.
pub struct Spot<'a> {
    /// The source file's analysis.
    pub tu: &'a HomeTu,
    /// The marked line of the driver, as it stands in the port.
    pub line_text: &'a str,
    /// The line's number in the driver's file.
    pub line: u32,
    /// The identifier at the caret, if there is one.
    pub word: Option<&'a str>,
}

/// A macro of the kernel's at the start of a line outside of any function (`MODULE_ALIAS_GENL_FAMILY("x");`), which the compiler takes for
/// a declaration where its header is not included any more.
fn macro_not_read(spot: &Spot<'_>, home: &View, target: &View) -> Option<Need> {
    let name = crate::lex::words(spot.line_text).into_iter().next()?;
    let begins = spot.line_text.trim_start().strip_prefix(name.as_str())?;
    let is_macro = |view: &View| {
        let defs = view.facts.defs(&name);
        defs.iter()
            .any(|d| matches!(d.detail, Detail::Macro { .. }))
    };
    (begins.trim_start().starts_with('(') && is_macro(home) && is_macro(target))
        .then_some(Need::Moved { name })
}

/// The needs behind a diagnostic, most specific first; empty when it is not understood.
#[must_use]
pub fn needs(diag: &Diagnostic, spot: &Spot<'_>, home: &View, target: &View) -> Vec<Need> {
    let message = diag.message.as_str();
    let entries = entry::deprecated(message).into_iter();
    let entries: Vec<Need> = entries
        .map(|f| Need::Entry {
            function: f.to_owned(),
        })
        .collect();
    if !entries.is_empty() {
        return entries;
    }
    let quoted = diag.quoted();
    let first = quoted.first().copied().unwrap_or_default();
    if let Some(header) = message.strip_suffix(": No such file or directory") {
        return vec![Need::Header {
            header: header.trim().to_owned(),
        }];
    }
    if message.contains("has no member named") {
        // `'skb_frag_t' {aka 'struct skb_frag'} has no member named 'x'`: the member stands last, the structure before it.
        let field = quoted.last().copied().unwrap_or_default();
        let first = match quoted.as_slice() {
            [_, .., structure, _] => structure,
            _ => first,
        };
        // gcc has no name for an inner record; the driver's own use knows the record around it.
        if tag(first).starts_with('<') {
            return unknown_field(field, spot);
        }
        return member(first, field);
    }
    if message.starts_with("expected declaration specifiers or '...'")
        && let Some(need) = macro_not_read(spot, home, target)
    {
        return vec![need];
    }
    if message.starts_with("conflicting type") {
        return provided_header(first, spot, home, target);
    }
    if message.starts_with("unknown field") {
        return unknown_field(first, spot);
    }
    if message.contains("arguments to function") || message.starts_with("macro \"") {
        let name = message
            .strip_prefix("macro \"")
            .and_then(|m| m.split('"').next())
            .unwrap_or(first);
        return vec![Need::Signature {
            name: name.to_owned(),
        }];
    }
    if message.contains("incompatible pointer type")
        || message.contains("incompatible function pointer")
    {
        let lost = lost_tags(message, home, target);
        return match lost.is_empty() {
            true => incompatible(message, first, spot),
            false => lost,
        };
    }
    if message.starts_with("incompatible type for argument") {
        // "… argument 2 of 'vmf_insert_pfn'": a structure where a number is given, or the other way round.
        return vec![Need::Signature {
            name: first.to_owned(),
        }];
    }
    if let Some(name) = of_signs(message) {
        return vec![Need::Signature { name }];
    }
    if message.starts_with("void value not ignored")
        || message.starts_with("invalid use of void expression")
    {
        return returns_nothing(spot, target);
    }
    if let Some(name) = number_for_pointer(message, home, target) {
        return vec![Need::Signature { name }];
    }
    names(message, &quoted, spot, home, target)
}

/// The function whose value is used and that has none on the target. gcc may mark the assignment instead of the call.
fn returns_nothing(spot: &Spot<'_>, target: &View) -> Vec<Need> {
    let is_void = |name: &str| {
        let def = target.callable(name);
        matches!(def.map(|d| d.detail), Some(kspan_facts::Detail::Function { sig, .. }) if sig.ret.canonical == "void")
    };
    let called = lex::calls(spot.line_text).into_iter().find(|c| is_void(c));
    let named = called.or_else(|| spot.word.map(str::to_owned));
    named
        .map(|name| Need::Signature { name })
        .into_iter()
        .collect()
}

/// The function whose parameter is a pointer where it was a number, or the other way round.
fn number_for_pointer(message: &str, home: &View, target: &View) -> Option<String> {
    let rest = message.strip_prefix("passing argument ")?;
    if !rest.contains("makes pointer from integer") && !rest.contains("makes integer from pointer")
    {
        return None;
    }
    let at = rest
        .split(' ')
        .next()?
        .parse::<usize>()
        .ok()?
        .checked_sub(1)?;
    let name = rest.split('\'').nth(1)?;
    let is_pointer = |view: &View| Some(view.parameter(name, at)?.contains('*'));
    (is_pointer(home)? != is_pointer(target)?).then(|| name.to_owned())
}

/// The macro that compares two values, one of which is signed here and was not at home, or the other way round.
fn of_signs(message: &str) -> Option<String> {
    let (_, failed) = message.split_once("declared with attribute error: ")?;
    let name = failed.split_once('(')?.0;
    let compares = failed.ends_with("signedness error") && matches!(name, "min" | "max");
    compares.then(|| name.to_owned())
}

/// The header that declares what the driver itself defines: the driver's version of it is wanted.
fn provided_header(name: &str, spot: &Spot<'_>, home: &View, target: &View) -> Vec<Need> {
    let local = spot
        .tu
        .tu
        .functions
        .iter()
        .any(|f| f.name == name && f.is_static);
    let declared = home.facts.defs(name).into_iter().find(|d| {
        matches!(
            d.detail,
            kspan_facts::Detail::Function { body: false, .. }
                | kspan_facts::Detail::Variable { .. }
        )
    });
    match declared {
        Some(def)
            if !local
                && target.has(name)
                && crate::check::hands_over_nothing(&def.header, home, target) =>
        {
            vec![Need::Header { header: def.header }]
        }
        Some(_) if !local && target.has(name) => vec![Need::Signature {
            name: name.to_owned(),
        }],
        _ => Vec::new(),
    }
}

fn member(record: &str, field: &str) -> Vec<Need> {
    let record = tag(record);
    if record.is_empty() || field.is_empty() {
        Vec::new()
    } else {
        vec![Need::Field {
            record,
            field: field.to_owned(),
        }]
    }
}

/// `const struct foo` → `foo`.
fn tag(ty: &str) -> String {
    let words: Vec<&str> = ty
        .split_whitespace()
        .filter(|w| !matches!(*w, "const" | "volatile" | "struct" | "union"))
        .collect();
    words.first().map(|w| (*w).to_owned()).unwrap_or_default()
}

fn unknown_field(field: &str, spot: &Spot<'_>) -> Vec<Need> {
    let of_line = |u: &&kspan_facts::Use| u.kind == UseKind::Field && u.name == field;
    let mut uses: Vec<_> = spot.tu.tu.uses.iter().filter(of_line).collect();
    uses.sort_by_key(|u| u.at.line.abs_diff(spot.line));
    let record = uses.first().and_then(|u| u.record.clone());
    record
        .map(|record| Need::Field {
            record,
            field: field.to_owned(),
        })
        .into_iter()
        .collect()
}

/// The types that a diagnostic compares differ by nothing but `const`.
#[must_use]
pub fn only_const_differs(diag: &Diagnostic) -> bool {
    if diag.option.as_deref() == Some("-Wdiscarded-qualifiers") {
        return diag.message.contains("'const'");
    }
    let types: Vec<String> = compared(diag).into_iter().map(cfn::bare).collect();
    diag.message.contains("incompatible pointer type")
        && types.len() == 2
        && types[0] == types[1]
        && !types[0].contains('(')
}

/// What is wanted promises more `const` than what is given: C asks for a cast (`T **` for `const T *const *`), and none
/// could be safer.
#[must_use]
pub fn gains_const(diag: &Diagnostic) -> bool {
    let count = |t: &str| t.matches("const").count();
    match compared(diag).as_slice() {
        [wanted, given] => only_const_differs(diag) && count(wanted) > count(given),
        _ => false,
    }
}

/// The type that is wanted and the type that is given.
fn compared(diag: &Diagnostic) -> Vec<&str> {
    if !diag.message.contains("passing argument") {
        return diag.quoted();
    }
    let note = diag
        .notes
        .iter()
        .find(|n| n.message.starts_with("expected '"));
    note.map(Diagnostic::quoted).unwrap_or_default()
}

/// Tags in a message that are types of the home kernel and none of the target.
fn lost_tags(message: &str, home: &View, target: &View) -> Vec<Need> {
    let words: Vec<String> = message
        .split([' ', '\'', ',', ')', '(', '*'])
        .map(str::to_owned)
        .collect();
    let mut out = Vec::new();
    for pair in words.windows(2) {
        let [keyword, tag] = pair else { continue };
        let is_tag = matches!(keyword.as_str(), "struct" | "union") && !tag.is_empty();
        if is_tag && home.has(tag) && !crate::check::is_served(tag, true, home, target) {
            out.push(Need::Name {
                name: tag.clone(),
                kind: NameKind::Type,
            });
        }
    }
    out.dedup();
    out
}

/// A function of the driver where another type is wanted, or a changed parameter of a kernel function.
fn incompatible(message: &str, callee: &str, spot: &Spot<'_>) -> Vec<Need> {
    let binding = spot.tu.tu.bindings.iter().find(|b| {
        b.at.line == spot.line
            && spot
                .word
                .is_none_or(|w| w == b.function || !is_function(spot, w))
    });
    if let Some(b) = binding {
        return vec![Need::Callback {
            record: b.record.clone(),
            field: b.field.clone(),
            function: b.function.clone(),
        }];
    }
    let argument = message
        .strip_prefix("passing argument ")
        .and_then(|m| m.split(' ').next());
    match (spot.word, argument) {
        (Some(word), Some(n)) if is_function(spot, word) => {
            let index = n.parse::<usize>().unwrap_or(1) - 1;
            vec![Need::Callback {
                record: String::new(),
                field: format!("{callee}#{index}"),
                function: word.to_owned(),
            }]
        }
        (_, Some(_)) => vec![Need::Signature {
            name: callee.to_owned(),
        }],
        _ => Vec::new(),
    }
}

fn is_function(spot: &Spot<'_>, word: &str) -> bool {
    spot.tu.tu.functions.iter().any(|f| f.name == word)
}

/// Names in the message, or on the marked line, that only the home kernel has; names that the target has elsewhere.
fn names(message: &str, quoted: &[&str], spot: &Spot<'_>, home: &View, target: &View) -> Vec<Need> {
    const ABOUT_A_NAME: [&str; 9] = [
        "implicit declaration of function",
        "undeclared",
        "unknown type name",
        "incomplete type",
        "incomplete element type",
        "undefined type",
        "storage size of",
        "declared inside parameter list",
        "defaults to 'int'",
    ];
    let about_a_name = ABOUT_A_NAME.iter().any(|p| message.contains(p));
    let mut candidates: Vec<String> = quoted.iter().flat_map(|q| lex::words(q)).collect();
    if !about_a_name || message.contains("storage size") || message.contains("incomplete ") {
        candidates.extend(spot.word.map(str::to_owned));
        candidates.extend(lex::words(spot.line_text));
    }
    // Once a name that stands on the line itself is given, the compiler may be content with what it makes of the rest.
    let missing = |n: &String| home.has(n) && !target.has(n);
    if !about_a_name && !candidates.iter().any(missing) {
        candidates.extend(crate::paste::names(home, target, spot.line_text));
        // What a macro of the kernel made of this line at home.
        let made = spot
            .tu
            .tu
            .uses
            .iter()
            .filter(|u| u.via_macro.is_some() && u.at.line == spot.line);
        candidates.extend(made.map(|u| u.name.clone()));
    }
    // Options are given before the first line, or not at all (`plan::given_options`).
    let known = |name: &&String| home.has(name.as_str()) && !name.starts_with("CONFIG_");
    // "parameter 3 has incomplete type" leaves the tag to the line.
    let said = format!("{message}\n{}", spot.line_text);
    let mut out = Vec::new();
    for name in candidates.iter().filter(known) {
        let tagged = |tag: &str| message.contains(&format!("{tag} {name}'"));
        let as_type = ["struct", "union", "enum"].into_iter().any(tagged);
        let unserved = |as_type| !crate::check::is_served(name, as_type, home, target);
        let has_value = || {
            home.facts
                .defs(name)
                .iter()
                .any(|d| !crate::check::is_type(d))
        };
        if !target.has(name)
            || as_type && unserved(true)
            || !as_type && about_a_name && has_value() && unserved(false)
        {
            out.push(Need::Name {
                name: name.clone(),
                kind: NameKind::Unknown,
            });
        } else if about_a_name && !crate::check::is_other_word(name, &said, target) {
            out.push(Need::Moved { name: name.clone() });
        }
    }
    if out.is_empty() && !about_a_name {
        // The same macro with another body: the driver is written for the home kernel's.
        let body = |view: &View, name: &str| kspan_evolve::KernelView::macro_body(view, name);
        let differs = |n: &&String| {
            body(home, n).is_some() && body(target, n).is_some() && body(home, n) != body(target, n)
        };
        out.extend(
            candidates
                .iter()
                .filter(differs)
                .map(|n| Need::Signature { name: n.clone() }),
        );
    }
    out.dedup();
    out
}

/// A parsed function type as a signature whose spelling is its canonical form.
#[must_use]
pub fn signature(f: FnType) -> Option<Signature> {
    let ty = |text: String| Ty {
        spelling: text.clone(),
        canonical: text,
    };
    let variadic = f.params.last().is_some_and(|p| p == "...");
    let params = f
        .params
        .into_iter()
        .filter(|p| p != "...")
        .map(|p| Param {
            name: String::new(),
            ty: ty(p),
        })
        .collect();
    Some(Signature {
        ret: ty(f.ret),
        params,
        variadic,
    })
}
