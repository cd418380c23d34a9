//! Learned rules as a file of evolutions.

use crate::model::{Condition, Evidence, Evolution, Kind, Risk};
use std::collections::BTreeMap;
use std::fmt::Write;

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list(values: impl IntoIterator<Item = String>) -> String {
    let all: Vec<String> = values.into_iter().map(|v| quoted(&v)).collect();
    format!("[{}]", all.join(", "))
}

fn condition(condition: &Condition) -> String {
    match condition {
        Condition::Name(name) | Condition::Config(name) => name.clone(),
        Condition::Field(record, field) => format!("struct {record}.{field}"),
        Condition::Header(header) => format!("<{header}>"),
    }
}

fn numbers(map: &BTreeMap<String, usize>) -> String {
    let all: Vec<String> = map.iter().map(|(k, v)| format!("{k} = {v}")).collect();
    format!("{{ {} }}", all.join(", "))
}

/// The evolutions as TOML, with a first line that says where they come from.
#[must_use]
pub fn file(head: &str, evolutions: &[&Evolution]) -> String {
    let mut out = format!("# {head}\n");
    for e in evolutions {
        one(&mut out, e);
    }
    out
}

fn one(out: &mut String, e: &Evolution) {
    let _ = writeln!(out, "\n[[evolution]]\nid = {}", quoted(&e.id));
    let mut line = |key: &str, value: String| {
        let _ = writeln!(out, "{key} = {value}");
    };
    let mut texts: Vec<(&str, &str)> = Vec::new();
    match &e.kind {
        Kind::Define { text } => {
            line("kind", quoted("define"));
            texts.push(("text", text));
        }
        Kind::Override { text, home_arity } => {
            line("kind", quoted("override"));
            line("home_arity", numbers(home_arity));
            texts.push(("text", text));
        }
        Kind::Field {
            record,
            home,
            target,
        } => {
            line("kind", quoted("field"));
            line("record", quoted(record));
            line("home", quoted(home));
            line("target", quoted(target));
        }
        Kind::Callback {
            record, field, ret, ..
        } => {
            line("kind", quoted("callback"));
            line("record", quoted(record));
            line("field", quoted(field));
            if let Some(ret) = ret {
                line("ret", quoted(ret));
            }
        }
        Kind::Access {
            record,
            field,
            read,
            write,
            place,
            init,
        } => {
            line("kind", quoted("access"));
            line("record", quoted(record));
            line("field", quoted(field));
            if let Some(read) = read {
                line("read", quoted(read));
            }
            if let Some(write) = write {
                line("write", quoted(write));
            }
            if let Some(place) = place {
                line("place", quoted(place));
            }
            if let Some(init) = init {
                line("init", quoted(init));
            }
        }
        Kind::DropField { record, field } => {
            line("kind", quoted("drop-field"));
            line("record", quoted(record));
            line("field", quoted(field));
        }
        Kind::Refuse { record, field } => {
            line("kind", quoted("refuse"));
            line("record", quoted(record));
            line("field", quoted(field));
        }
        Kind::Event { home_arity, writes } => {
            line("kind", quoted("event"));
            line("home_arity", numbers(home_arity));
            let pairs = writes.iter().map(|(k, v)| format!("{k} = {}", quoted(v)));
            line(
                "writes",
                format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", ")),
            );
        }
        Kind::Header { home, target } => {
            line("kind", quoted("header"));
            line("home", quoted(home));
            line("target", quoted(target));
        }
    }
    if !e.provides.is_empty() {
        line("provides", list(e.provides.clone()));
    }
    if !e.has.is_empty() {
        line("has", list(e.has.iter().map(condition)));
    }
    if !e.lacks.is_empty() {
        line("lacks", list(e.lacks.iter().map(condition)));
    }
    if !e.arity.is_empty() {
        line("arity", numbers(&e.arity));
    }
    if !e.includes.is_empty() {
        line("includes", list(e.includes.clone()));
    }
    if e.risk > Risk::None {
        let risk = match e.risk {
            Risk::None => "none",
            Risk::Default => "default",
            Risk::Behaviour => "behaviour",
            Risk::Unknown => "unknown",
        };
        line("risk", quoted(risk));
        line("meaning", quoted(&e.meaning));
    }
    line("why", quoted(&e.why));
    for (key, text) in texts {
        let _ = writeln!(out, "{key} = '''\n{text}'''");
    }
    if let Kind::Callback { params, .. } = &e.kind {
        let _ = writeln!(out, "\n[evolution.params]");
        for (ty, value) in params {
            let _ = writeln!(out, "{} = {}", quoted(ty), quoted(value));
        }
    }
    if let Some(evidence) = &e.evidence {
        proof(out, evidence);
    }
}

fn proof(out: &mut String, evidence: &Evidence) {
    let _ = writeln!(
        out,
        "\n[evolution.evidence]\ntier = {}\nfiles = {}\nsites = {}\nagainst = {}\nunresolved = {}\nexamples = {}\nbefore = {}\nafter = {}",
        quoted(evidence.tier.word()),
        evidence.files,
        evidence.sites,
        evidence.against,
        evidence.unresolved,
        list(evidence.examples.clone()),
        quoted(&evidence.before),
        quoted(&evidence.after)
    );
}
