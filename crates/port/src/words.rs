//! Gaps in plain words: what the target lacks, with the home kernel's and the target's own forms side by side.

use crate::gap::Need;
use crate::view::View;
use kspan_facts::{Def, Detail, compare_signatures};

/// One sentence for a gap.
#[must_use]
pub fn why(need: &Need, home: &View, target: &View) -> String {
    let (h, t) = (&home.kernel.release, &target.kernel.release);
    match need {
        Need::Header { header } => format!("{t} has no <{header}>"),
        Need::Name { name, .. } => match first(home, name) {
            Some(def) => format!(
                "{t} has no {} {name} ({h} has it in <{}>)",
                kind(&def),
                def.header
            ),
            None => format!("{t} has no {name}"),
        },
        Need::Moved { name } => match target.header_of(name) {
            Some(header) => {
                format!("{t} declares {name} in <{header}>, which the driver does not include")
            }
            None => format!("{t} declares {name} elsewhere"),
        },
        Need::Signature { name } => {
            let form = |view: &View| first(view, name).map_or("?".to_owned(), |d| form(&d));
            format!("{name} is {} on {t}, {} on {h}", form(target), form(home))
        }
        Need::Field { record, field } => {
            match (
                target.member_type(record, field),
                home.member_type(record, field),
            ) {
                (Some(there), Some(here)) => {
                    format!("struct {record}.{field} is {there} on {t}, {here} on {h}")
                }
                _ => format!("struct {record} has no member {field} on {t}"),
            }
        }
        Need::Callback {
            record,
            field,
            function,
        } if record.is_empty() => {
            format!("{t} wants another function type than {function}() for {field}")
        }
        Need::Callback {
            record,
            field,
            function,
        } => {
            format!("struct {record}.{field} has another function type on {t} than {function}()")
        }
        Need::Qualifier { .. } => format!("{t} takes a pointer to data that is not const here"),
        Need::Entry { function } => {
            format!(
                "{t} does not take a function for the module's because of its name, {function}()"
            )
        }
        Need::Export { symbol } => match target.facts.export(symbol) {
            Some(e) if e.gpl_only => format!("{t} exports {symbol} to GPL modules only"),
            Some(e) => format!(
                "{t} exports {symbol} from namespace {}",
                e.namespace.unwrap_or_default()
            ),
            None => format!("{t} does not export {symbol} to modules"),
        },
        Need::Diagnostic { message } => message.clone(),
    }
}

/// Since when it differs: the oldest of some kernels that has what a gap is about as the home kernel has it.
#[must_use]
pub fn oldest_with<'v>(need: &Need, home: &View, kernels: &[&'v View]) -> Option<&'v View> {
    let has = |view: &&&View| match need {
        Need::Header { header } => view.facts.header_exists(header),
        Need::Name { name, .. } => view.facts.has(name),
        Need::Field { record, field } => {
            let own = view.member_type(record, field);
            own.is_some() && own == home.member_type(record, field)
        }
        Need::Signature { name } => same_form(home, view, name),
        Need::Export { symbol } => view.facts.export(symbol).is_some(),
        _ => false,
    };
    let age = |view: &&&View| numbers(&view.kernel.release);
    kernels.iter().filter(has).min_by_key(age).copied()
}

/// A function or macro is called in one way on both kernels.
fn same_form(a: &View, b: &View, name: &str) -> bool {
    let (Some(a), Some(b)) = (a.callable(name), b.callable(name)) else {
        return false;
    };
    match (&a.detail, &b.detail) {
        (Detail::Function { sig: a, .. }, Detail::Function { sig: b, .. }) => {
            compare_signatures(a, b).is_empty()
        }
        (Detail::Macro { params: a, .. }, Detail::Macro { params: b, .. }) => {
            a.as_ref().map(Vec::len) == b.as_ref().map(Vec::len)
        }
        _ => false,
    }
}

/// The numbers of a kernel's release, which order kernels by age.
fn numbers(release: &str) -> Vec<u64> {
    let parts = release.split(|c: char| !c.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

fn first(view: &View, name: &str) -> Option<Def> {
    view.callable(name)
        .or_else(|| view.facts.defs(name).into_iter().next())
}

fn kind(def: &Def) -> &'static str {
    match def.detail {
        Detail::Function { body: true, .. } => "inline function",
        Detail::Function { .. } => "function",
        Detail::Variable { .. } => "variable",
        Detail::Macro { .. } => "macro",
        Detail::Record { is_union: true, .. } => "union",
        Detail::Record { .. } => "struct",
        Detail::Enum { .. } => "enum",
        Detail::EnumConst { .. } => "constant",
        Detail::Typedef { .. } => "typedef",
    }
}

/// `int (struct device *, int)` or `macro(a, b)`.
fn form(def: &Def) -> String {
    match &def.detail {
        Detail::Function { sig, .. } => {
            let params: Vec<&str> = sig.params.iter().map(|p| p.ty.spelling.as_str()).collect();
            format!("{} ({})", sig.ret.spelling, params.join(", "))
        }
        Detail::Macro {
            params: Some(params),
            ..
        } => format!("a macro({})", params.join(", ")),
        _ => kind(def).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_ordered_by_their_numbers() {
        assert_eq!(numbers("6.12.118+deb13-amd64")[..3], [6, 12, 118]);
        assert!(numbers("6.1.0-57-amd64") < numbers("6.12.118+deb13-amd64"));
    }
}
