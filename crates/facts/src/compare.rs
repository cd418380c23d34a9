//! What differs between two definitions of one name.

use crate::{Def, Detail, Field, Param, Signature, Ty};
use std::fmt;

/// One difference, read from the first definition to the second.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Change {
    /// It became another kind of thing (function, macro, …).
    Kind {
        /// What it was.
        from: String,
        /// What it is.
        to: String,
    },
    /// Another type is returned.
    Return {
        /// What it was.
        from: Ty,
        /// What it is.
        to: Ty,
    },
    /// A parameter that only the second has; the index counts in the second.
    ParamAdded {
        /// Its place.
        index: usize,
        /// It.
        param: Param,
    },
    /// A parameter that only the first has; the index counts in the first.
    ParamRemoved {
        /// Its place.
        index: usize,
        /// It.
        param: Param,
    },
    /// A parameter of another type.
    ParamType {
        /// Its place in the first.
        index: usize,
        /// What it was.
        from: Param,
        /// What it is.
        to: Param,
    },
    /// `...` came or went.
    Variadic {
        /// The second has it.
        now: bool,
    },
    /// A member that only the first has.
    FieldRemoved {
        /// It.
        field: Field,
    },
    /// A member that only the second has.
    FieldAdded {
        /// It.
        field: Field,
    },
    /// A member of another type.
    FieldType {
        /// Its name.
        name: String,
        /// What it was.
        from: Ty,
        /// What it is.
        to: Ty,
        /// For a pointer to a function: what changed in its signature.
        callback: Vec<Change>,
    },
    /// A macro takes another number of arguments (`None`: it is not function-like).
    MacroArity {
        /// What it was.
        from: Option<usize>,
        /// What it is.
        to: Option<usize>,
    },
    /// A macro stands for other text.
    MacroBody {
        /// What it was.
        from: String,
        /// What it is.
        to: String,
    },
    /// A constant has another value.
    ConstValue {
        /// Its name.
        name: String,
        /// What it was.
        from: i64,
        /// What it is.
        to: i64,
    },
    /// An enumeration lost a constant.
    ConstRemoved {
        /// Its name.
        name: String,
    },
    /// An enumeration gained a constant.
    ConstAdded {
        /// Its name.
        name: String,
    },
    /// A variable or typedef is of another type.
    Type {
        /// What it was.
        from: Ty,
        /// What it is.
        to: Ty,
    },
    /// Another header provides it.
    Header {
        /// Which did.
        from: String,
        /// Which does.
        to: String,
    },
}

impl Change {
    /// Can code written for the first fail on the second for it? A move, a new member or constant cannot break by itself.
    #[must_use]
    pub fn breaks(&self) -> bool {
        !matches!(
            self,
            Self::Header { .. }
                | Self::FieldAdded { .. }
                | Self::ConstAdded { .. }
                | Self::MacroBody { .. }
        )
    }
}

fn arity(count: Option<usize>) -> String {
    match count {
        None => "takes no arguments".into(),
        Some(1) => "takes 1 argument".into(),
        Some(count) => format!("takes {count} arguments"),
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind { from, to } => write!(f, "was a {from}, is a {to}"),
            Self::Return { from, to } => {
                write!(f, "returned `{}`, returns `{}`", from.spelling, to.spelling)
            }
            Self::ParamAdded { index, param } => write!(
                f,
                "takes a new parameter {}: `{} {}`",
                index + 1,
                param.ty.spelling,
                param.name
            ),
            Self::ParamRemoved { index, param } => write!(
                f,
                "no longer takes parameter {}: `{} {}`",
                index + 1,
                param.ty.spelling,
                param.name
            ),
            Self::ParamType { index, from, to } => write!(
                f,
                "parameter {} ({}) was `{}`, is `{}`",
                index + 1,
                to.name,
                from.ty.spelling,
                to.ty.spelling
            ),
            Self::Variadic { now: true } => write!(f, "takes more arguments (`...`)"),
            Self::Variadic { now: false } => write!(f, "no longer takes `...`"),
            Self::FieldRemoved { field } => write!(
                f,
                "no longer has the member `{}` (`{}`)",
                field.name, field.ty.spelling
            ),
            Self::FieldAdded { field } => write!(
                f,
                "has a new member `{}` (`{}`)",
                field.name, field.ty.spelling
            ),
            Self::FieldType { name, from, to, .. } => write!(
                f,
                "member `{name}` was `{}`, is `{}`",
                from.spelling, to.spelling
            ),
            Self::MacroArity { from, to } => write!(
                f,
                "the macro {} where it {} before",
                arity(*to),
                arity(*from).replace("takes", "took")
            ),
            Self::MacroBody { from, to } => {
                write!(f, "the macro stood for `{from}`, stands for `{to}`")
            }
            Self::ConstValue { name, from, to } => write!(f, "`{name}` was {from}, is {to}"),
            Self::ConstRemoved { name } => write!(f, "no longer has the constant `{name}`"),
            Self::ConstAdded { name } => write!(f, "has a new constant `{name}`"),
            Self::Type { from, to } => {
                write!(f, "was of type `{}`, is `{}`", from.spelling, to.spelling)
            }
            Self::Header { from, to } => write!(f, "moved from <{from}> to <{to}>"),
        }
    }
}

/// The kind of a definition in a word.
#[must_use]
pub fn kind(detail: &Detail) -> &'static str {
    match detail {
        Detail::Function { .. } => "function",
        Detail::Variable { .. } => "variable",
        Detail::Macro { .. } => "macro",
        Detail::Record { is_union: true, .. } => "union",
        Detail::Record { .. } => "structure",
        Detail::Enum { .. } => "enumeration",
        Detail::EnumConst { .. } => "constant",
        Detail::Typedef { .. } => "typedef",
    }
}

/// What changed from the first definition to the second.
#[must_use]
pub fn compare(a: &Def, b: &Def) -> Vec<Change> {
    let mut out = compare_detail(&a.detail, &b.detail);
    if a.header != b.header {
        out.push(Change::Header {
            from: a.header.clone(),
            to: b.header.clone(),
        });
    }
    out
}

fn compare_detail(a: &Detail, b: &Detail) -> Vec<Change> {
    match (a, b) {
        (Detail::Function { sig: a, .. }, Detail::Function { sig: b, .. }) => {
            compare_signatures(a, b)
        }
        (
            Detail::Record {
                fields: a,
                is_union: one,
                ..
            },
            Detail::Record {
                fields: b,
                is_union: other,
                ..
            },
        ) if one == other => compare_fields(a, b),
        (Detail::Macro { params: p, body: x }, Detail::Macro { params: q, body: y }) => {
            let (from, to) = (p.as_ref().map(Vec::len), q.as_ref().map(Vec::len));
            if from != to {
                vec![Change::MacroArity { from, to }]
            } else if x != y {
                vec![Change::MacroBody {
                    from: x.clone(),
                    to: y.clone(),
                }]
            } else {
                Vec::new()
            }
        }
        (Detail::Enum { constants: a }, Detail::Enum { constants: b }) => compare_constants(a, b),
        (Detail::EnumConst { value: from, .. }, Detail::EnumConst { value: to, .. })
            if from == to =>
        {
            Vec::new()
        }
        (Detail::EnumConst { value: from, .. }, Detail::EnumConst { value: to, .. }) => {
            vec![Change::ConstValue {
                name: String::new(),
                from: *from,
                to: *to,
            }]
        }
        (Detail::Variable { ty: a }, Detail::Variable { ty: b })
        | (Detail::Typedef { ty: a }, Detail::Typedef { ty: b }) => {
            if a.canonical == b.canonical {
                Vec::new()
            } else {
                vec![Change::Type {
                    from: a.clone(),
                    to: b.clone(),
                }]
            }
        }
        _ => vec![Change::Kind {
            from: kind(a).into(),
            to: kind(b).into(),
        }],
    }
}

/// What changed from one function type to another.
#[must_use]
pub fn compare_signatures(a: &Signature, b: &Signature) -> Vec<Change> {
    let mut out = Vec::new();
    if a.ret.canonical != b.ret.canonical {
        out.push(Change::Return {
            from: a.ret.clone(),
            to: b.ret.clone(),
        });
    }
    for (left, right) in align(&a.params, &b.params) {
        match (left, right) {
            (Some(i), Some(j)) => {
                let (Some(from), Some(to)) = (a.params.get(i), b.params.get(j)) else {
                    continue;
                };
                if from.ty.canonical != to.ty.canonical {
                    out.push(Change::ParamType {
                        index: i,
                        from: from.clone(),
                        to: to.clone(),
                    });
                }
            }
            (Some(index), None) => {
                out.extend(a.params.get(index).map(|param| Change::ParamRemoved {
                    index,
                    param: param.clone(),
                }))
            }
            (None, Some(index)) => {
                out.extend(b.params.get(index).map(|param| Change::ParamAdded {
                    index,
                    param: param.clone(),
                }))
            }
            (None, None) => {}
        }
    }
    if a.variadic != b.variadic {
        out.push(Change::Variadic { now: b.variadic });
    }
    out
}

/// How well two parameters match: by type, then by name.
fn likeness(a: &Param, b: &Param) -> u32 {
    let same_name = !a.name.is_empty() && a.name == b.name;
    match (a.ty.canonical == b.ty.canonical, same_name) {
        (true, true) => 5,
        (true, false) => 4,
        (false, true) => 2,
        (false, false) => 0,
    }
}

/// Pairs the parameters of two functions in order; lists of equal length without a better pairing go one by one.
#[must_use]
pub fn align(a: &[Param], b: &[Param]) -> Vec<(Option<usize>, Option<usize>)> {
    let width = b.len() + 1;
    let mut best = vec![0u32; (a.len() + 1) * width];
    let cell = |best: &[u32], i: usize, j: usize| best.get(i * width + j).copied().unwrap_or(0);
    for (i, left) in a.iter().enumerate().rev() {
        for (j, right) in b.iter().enumerate().rev() {
            let paired = match likeness(left, right) {
                0 => 0,
                points => points + cell(&best, i + 1, j + 1),
            };
            let value = paired.max(cell(&best, i + 1, j)).max(cell(&best, i, j + 1));
            if let Some(slot) = best.get_mut(i * width + j) {
                *slot = value;
            }
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while let (Some(left), Some(right)) = (a.get(i), b.get(j)) {
        let points = likeness(left, right);
        let matched = points > 0 && cell(&best, i, j) == points + cell(&best, i + 1, j + 1);
        let as_good = cell(&best, i + 1, j) == cell(&best, i, j + 1) && a.len() - i == b.len() - j;
        if matched || as_good {
            out.push((Some(i), Some(j)));
            (i, j) = (i + 1, j + 1);
        } else if cell(&best, i + 1, j) >= cell(&best, i, j + 1) {
            out.push((Some(i), None));
            i += 1;
        } else {
            out.push((None, Some(j)));
            j += 1;
        }
    }
    out.extend((i..a.len()).map(|i| (Some(i), None)));
    out.extend((j..b.len()).map(|j| (None, Some(j))));
    out
}

fn compare_fields(a: &[Field], b: &[Field]) -> Vec<Change> {
    let mut out = Vec::new();
    for field in a {
        match b.iter().find(|other| other.name == field.name) {
            None => out.push(Change::FieldRemoved {
                field: field.clone(),
            }),
            Some(other) if other.ty.canonical != field.ty.canonical => {
                out.push(Change::FieldType {
                    name: field.name.clone(),
                    from: field.ty.clone(),
                    to: other.ty.clone(),
                    callback: match (&field.callback, &other.callback) {
                        (Some(one), Some(two)) => compare_signatures(one, two),
                        _ => Vec::new(),
                    },
                })
            }
            Some(_) => {}
        }
    }
    let new = b
        .iter()
        .filter(|field| !a.iter().any(|other| other.name == field.name));
    out.extend(new.map(|field| Change::FieldAdded {
        field: field.clone(),
    }));
    out
}

fn compare_constants(a: &[(String, i64)], b: &[(String, i64)]) -> Vec<Change> {
    let mut out = Vec::new();
    for (name, from) in a {
        match b.iter().find(|(other, _)| other == name) {
            None => out.push(Change::ConstRemoved { name: name.clone() }),
            Some((_, to)) if to != from => out.push(Change::ConstValue {
                name: name.clone(),
                from: *from,
                to: *to,
            }),
            Some(_) => {}
        }
    }
    let new = b
        .iter()
        .filter(|(name, _)| !a.iter().any(|(other, _)| other == name));
    out.extend(new.map(|(name, _)| Change::ConstAdded { name: name.clone() }));
    out
}
