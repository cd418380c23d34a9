//! Which names a definition's text needs, by its tokens alone.

use crate::lex::{Kind, Lexer, slice};
use crate::{Def, Detail};
use std::collections::HashSet;

/// Words of the language, some of which kernels define again as macros.
const KEYWORDS: [&str; 44] = [
    "auto",
    "break",
    "case",
    "char",
    "const",
    "continue",
    "default",
    "do",
    "double",
    "else",
    "enum",
    "extern",
    "float",
    "for",
    "goto",
    "if",
    "inline",
    "__inline",
    "__inline__",
    "int",
    "long",
    "register",
    "return",
    "short",
    "signed",
    "sizeof",
    "static",
    "struct",
    "switch",
    "typedef",
    "union",
    "unsigned",
    "void",
    "volatile",
    "while",
    "asm",
    "__asm__",
    "typeof",
    "__typeof__",
    "define",
    "__attribute__",
    "__extension__",
    "_Static_assert",
    "__VA_ARGS__",
];

/// Identifiers of a definition's text that are neither its own name, nor its parameters, nor members; in order, each
/// once. The caller keeps those that it knows.
#[must_use]
pub fn needed(def: &Def) -> Vec<String> {
    let text = def.text.as_bytes();
    let mut own: HashSet<&str> = HashSet::from([def.name.as_str()]);
    match &def.detail {
        Detail::Function { sig, .. } => {
            own.extend(sig.params.iter().map(|param| param.name.as_str()))
        }
        Detail::Macro {
            params: Some(params),
            ..
        } => own.extend(params.iter().map(|param| param.trim_end_matches('.'))),
        Detail::Record { fields, .. } => {
            own.extend(
                fields
                    .iter()
                    .filter_map(|field| field.name.rsplit('.').next()),
            );
            let params = fields
                .iter()
                .filter_map(|field| field.callback.as_ref())
                .flat_map(|sig| &sig.params);
            own.extend(params.map(|param| param.name.as_str()));
        }
        Detail::Enum { constants } => own.extend(constants.iter().map(|(name, _)| name.as_str())),
        _ => {}
    }
    let is_macro = matches!(def.detail, Detail::Macro { .. });
    let mut out: Vec<String> = Vec::new();
    let mut seen: HashSet<&str> = HashSet::new();
    let mut before: [Option<Kind>; 2] = [None, None];
    let mut directive = false;
    for token in Lexer::new(text, 0) {
        let word = slice(text, token);
        match token.kind {
            Kind::Hash => directive = true,
            Kind::LineEnd => directive = false,
            Kind::Word => {
                let member = before[1] == Some(Kind::Punct(b'.'))
                    && before[0] != Some(Kind::Punct(b'.'))
                    || before == [Some(Kind::Punct(b'-')), Some(Kind::Punct(b'>'))];
                let keyword = directive
                    && matches!(
                        word,
                        "define"
                            | "if"
                            | "ifdef"
                            | "ifndef"
                            | "elif"
                            | "else"
                            | "endif"
                            | "defined"
                    );
                if !member
                    && !keyword
                    && (is_macro || !directive || !word.starts_with("CONFIG_"))
                    && !own.contains(word)
                    && !KEYWORDS.contains(&word)
                    && seen.insert(word)
                {
                    out.push(word.to_owned());
                }
            }
            _ => {}
        }
        before = [before[1], Some(token.kind)];
    }
    out
}
