//! Gaps in plain words: what the target lacks, with the home kernel's and the target's own forms side by side.

use crate::gap::Need;
use crate::view::View;
use kspan_facts::{Def, Detail};

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
        Need::Field { record, field } => format!("struct {record} has no member {field} on {t}"),
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
