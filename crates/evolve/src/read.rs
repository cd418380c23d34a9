//! From TOML to evolutions, with file and line in every complaint.

use crate::model::{Condition, Evidence, Evolution, Example, InUpgrade, Kind, Rewrite, Risk};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use toml::Spanned;

/// One thing wrong in a file of evolutions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct LoadError {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 where it concerns the file as a whole.
    pub line: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

/// All that is wrong with the evolutions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadErrors(pub Vec<LoadError>);

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadErrors {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    evolution: Vec<Spanned<Raw>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    id: String,
    kind: String,
    #[serde(default)]
    provides: Vec<String>,
    lacks: Option<Vec<String>>,
    #[serde(default)]
    has: Vec<String>,
    #[serde(default)]
    lacks_field: Vec<String>,
    #[serde(default)]
    arity: BTreeMap<String, usize>,
    #[serde(default)]
    home_arity: BTreeMap<String, usize>,
    #[serde(default)]
    types: BTreeMap<String, String>,
    #[serde(default)]
    body: BTreeMap<String, String>,
    #[serde(default)]
    body_lacks: BTreeMap<String, String>,
    #[serde(default)]
    includes: Vec<String>,
    #[serde(default)]
    needs: Vec<String>,
    #[serde(default)]
    rewrite: BTreeMap<String, Rewrite>,
    #[serde(default)]
    upgrade: InUpgrade,
    #[serde(default)]
    risk: Risk,
    #[serde(default)]
    meaning: String,
    #[serde(default)]
    commit: String,
    #[serde(default)]
    why: String,
    text: Option<String>,
    record: Option<String>,
    field: Option<String>,
    home: Option<String>,
    target: Option<String>,
    #[serde(default)]
    params: BTreeMap<String, String>,
    #[serde(default)]
    writes: BTreeMap<String, String>,
    ret: Option<String>,
    adapter: Option<String>,
    read: Option<String>,
    write: Option<String>,
    place: Option<String>,
    init: Option<String>,
    #[serde(default)]
    opt_in: bool,
    #[serde(default)]
    only_with: Vec<String>,
    #[serde(default)]
    risk_with: Vec<String>,
    #[serde(default)]
    risk_without: Vec<String>,
    evidence: Option<Evidence>,
    #[serde(default)]
    example: Vec<Example>,
}

/// Line of a byte offset, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

/// Reads one file: what was understood, and what was not.
pub(crate) fn read_file(file: &str, text: &str) -> (Vec<Evolution>, Vec<LoadError>) {
    let error = |line, message| LoadError {
        file: file.to_owned(),
        line,
        message,
    };
    let raw: RawFile = match toml::from_str(text) {
        Ok(raw) => raw,
        Err(e) => {
            let line = e.span().map_or(0, |s| line_of(text, s.start));
            return (Vec::new(), vec![error(line, e.message().trim().to_owned())]);
        }
    };
    let mut evolutions = Vec::new();
    let mut errors = Vec::new();
    for entry in raw.evolution {
        let line = line_of(text, entry.span().start);
        match build(file, line, entry.into_inner()) {
            Ok(evolution) => evolutions.push(evolution),
            Err(message) => errors.push(error(line, message)),
        }
    }
    (evolutions, errors)
}

fn need<T>(id: &str, key: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| {
        format!("evolution `{id}` lacks the key `{key}`, which its kind needs; add it")
    })
}

fn kind_of(raw: &mut Raw) -> Result<Kind, String> {
    let id = raw.id.clone();
    let id = id.as_str();
    Ok(match raw.kind.as_str() {
        "define" => Kind::Define {
            text: need(id, "text", raw.text.take())?,
        },
        "override" => Kind::Override {
            text: need(id, "text", raw.text.take())?,
            home_arity: std::mem::take(&mut raw.home_arity),
        },
        "field" => Kind::Field {
            record: need(id, "record", raw.record.take())?,
            home: need(id, "home", raw.home.take())?,
            target: need(id, "target", raw.target.take())?,
        },
        "callback" => Kind::Callback {
            record: need(id, "record", raw.record.take())?,
            field: need(id, "field", raw.field.take())?,
            params: std::mem::take(&mut raw.params),
            ret: raw.ret.take(),
            adapter: raw.adapter.take(),
        },
        "drop-field" => Kind::DropField {
            record: need(id, "record", raw.record.take())?,
            field: need(id, "field", raw.field.take())?,
        },
        "refuse" => Kind::Refuse {
            record: need(id, "record", raw.record.take())?,
            field: need(id, "field", raw.field.take())?,
        },
        "access" => Kind::Access {
            record: need(id, "record", raw.record.take())?,
            field: need(id, "field", raw.field.take())?,
            read: raw.read.take(),
            write: raw.write.take(),
            place: raw.place.take(),
            init: raw.init.take(),
        },
        "event" => Kind::Event {
            home_arity: std::mem::take(&mut raw.home_arity),
            writes: std::mem::take(&mut raw.writes),
        },
        "header" => Kind::Header {
            home: need(id, "home", raw.home.take())?,
            target: need(id, "target", raw.target.take())?,
        },
        other => {
            return Err(format!(
                "evolution `{id}` has the unknown kind `{other}`; use define, override, field, access, callback, drop-field, refuse, event or header"
            ));
        }
    })
}

/// Keys that are left over belong to another kind.
fn leftovers(raw: &Raw) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let options = [
        ("text", raw.text.is_some()),
        ("record", raw.record.is_some()),
        ("field", raw.field.is_some()),
        ("home", raw.home.is_some()),
        ("target", raw.target.is_some()),
        ("params", !raw.params.is_empty()),
        ("ret", raw.ret.is_some()),
        ("adapter", raw.adapter.is_some()),
        ("read", raw.read.is_some()),
        ("write", raw.write.is_some()),
        ("place", raw.place.is_some()),
        ("init", raw.init.is_some()),
        ("home_arity", !raw.home_arity.is_empty()),
        ("writes", !raw.writes.is_empty()),
    ];
    keys.extend(
        options
            .iter()
            .filter(|(_, there)| *there)
            .map(|(key, _)| *key),
    );
    keys
}

fn check(evolution: &Evolution) -> Result<(), String> {
    let id = &evolution.id;
    if evolution.text().is_some() && evolution.provides.is_empty() {
        return Err(format!(
            "evolution `{id}` provides nothing; list in `provides` the names that its text defines"
        ));
    }
    if let Some(name) = evolution
        .rewrite
        .keys()
        .find(|n| !evolution.provides.contains(n) && evolution.upgrade.becomes.is_none())
    {
        return Err(format!(
            "evolution `{id}` rewrites `{name}`, which it does not provide; add it to `provides`"
        ));
    }
    if evolution.risk > Risk::None && evolution.meaning.trim().is_empty() {
        return Err(format!(
            "evolution `{id}` has a risk but no `meaning`; say what differs"
        ));
    }
    if let Kind::Access {
        read,
        write,
        place,
        init,
        ..
    } = &evolution.kind
    {
        if (read.is_some() || write.is_some()) == place.is_some() {
            return Err(format!(
                "evolution `{id}` must say how to `read` or `write` the member, or else its `place`"
            ));
        }
        if init.as_ref().is_some_and(|i| i.matches("{1}").count() != 1) {
            return Err(format!(
                "evolution `{id}`: `init` must name the value, {{1}}, once"
            ));
        }
    }
    if evolution.opt_in && evolution.meaning.trim().is_empty() {
        return Err(format!(
            "evolution `{id}` is chosen by a driver's author (`opt_in`) and has no `meaning`; say what that author answers for"
        ));
    }
    let bounded = !evolution.risk_with.is_empty() || !evolution.risk_without.is_empty();
    if bounded && evolution.risk <= Risk::Default {
        return Err(format!(
            "evolution `{id}` says when its risk is met (`risk_with`, `risk_without`), and has none above `default`"
        ));
    }
    let upgrade = &evolution.upgrade;
    if upgrade.is_of_member() && !matches!(evolution.kind, Kind::Access { .. }) {
        return Err(format!(
            "evolution `{id}`: `upgrade.element`, `.into`, `.assign` and `.place` are for a member; give it the kind `access`"
        ));
    }
    if let Some(made) = &upgrade.function
        && (!made.name.contains("{0}") || evolution.provides.is_empty())
    {
        return Err(format!(
            "evolution `{id}`: `upgrade.function.name` must hold {{0}}, the macro's first argument, and the macro stand in `provides`"
        ));
    }
    if let Kind::Event { writes, .. } = &evolution.kind
        && (writes.is_empty() || evolution.provides.is_empty())
    {
        return Err(format!(
            "evolution `{id}` needs `provides`, the macros of tracepoints that it is about, and `writes`, what stands for them"
        ));
    }
    if matches!(evolution.kind, Kind::Refuse { .. }) && evolution.meaning.trim().is_empty() {
        return Err(format!(
            "evolution `{id}` refuses without a `meaning`; say what would be lost"
        ));
    }
    if let Some(text) = evolution.text() {
        let missing = evolution
            .provides
            .iter()
            .find(|name| !text.contains(name.as_str()));
        if let Some(name) = missing {
            return Err(format!(
                "evolution `{id}` provides `{name}`, but its text does not name it"
            ));
        }
    }
    Ok(())
}

fn build(file: &str, line: usize, mut raw: Raw) -> Result<Evolution, String> {
    let kind = kind_of(&mut raw)?;
    if let Some(key) = leftovers(&raw).first() {
        return Err(format!(
            "evolution `{}` of kind `{}` has the key `{key}`, which that kind does not use",
            raw.id, raw.kind
        ));
    }
    let lacks = match (&kind, raw.lacks) {
        (_, Some(lacks)) => lacks,
        (Kind::Define { .. }, None) => raw.provides.clone(),
        (_, None) => Vec::new(),
    };
    let evolution = Evolution {
        id: raw.id,
        kind,
        has: raw.has.iter().map(|c| Condition::parse(c)).collect(),
        lacks: lacks
            .iter()
            .chain(&raw.lacks_field)
            .map(|c| Condition::parse(c))
            .collect(),
        provides: raw.provides,
        arity: raw.arity,
        types: raw.types,
        body: raw.body,
        body_lacks: raw.body_lacks,
        includes: raw.includes,
        needs: raw.needs,
        rewrite: raw.rewrite,
        upgrade: raw.upgrade,
        risk: raw.risk,
        meaning: raw.meaning,
        commit: raw.commit,
        why: raw.why,
        opt_in: raw.opt_in,
        only_with: raw.only_with,
        risk_with: raw.risk_with,
        risk_without: raw.risk_without,
        evidence: raw.evidence,
        examples: raw.example,
        file: file.to_owned(),
        line,
    };
    check(&evolution)?;
    Ok(evolution)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_line() {
        let text = "\n[[evolution]]\nid = \"a\"\nkind = \"define\"\nprovides = [\"a\"]\n";
        let (good, bad) = read_file("x.toml", text);
        assert!(good.is_empty());
        assert_eq!(bad.len(), 1);
        assert_eq!(bad[0].line, 2);
        assert!(bad[0].message.contains("`text`"), "{}", bad[0]);
    }

    #[test]
    fn garbage_is_an_error_not_a_panic() {
        for text in [
            "[[evolution",
            "evolution = 3",
            "[[evolution]]\nid = 3",
            "\u{0}\u{1}",
        ] {
            let (_, bad) = read_file("x.toml", text);
            assert_eq!(bad.len(), 1, "{text:?}");
        }
    }

    #[test]
    fn a_risk_must_be_explained() {
        let text = "[[evolution]]\nid=\"a\"\nkind=\"define\"\nprovides=[\"a\"]\nrisk=\"behaviour\"\ntext=\"#define a b\"\n";
        let (_, bad) = read_file("x.toml", text);
        assert!(bad[0].message.contains("meaning"));
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let text = "[[evolution]]\nid=\"a\"\nkind=\"field\"\nrecord=\"r\"\nhome=\"h\"\ntarget=\"t\"\nret=\"0\"\n";
        let (_, bad) = read_file("x.toml", text);
        assert!(bad[0].message.contains("`ret`"));
    }
}
