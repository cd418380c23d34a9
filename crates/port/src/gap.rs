//! Gaps: the uses of a driver that a kernel does not meet.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What kind of name is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameKind {
    /// A function.
    Function,
    /// A variable.
    Variable,
    /// A macro.
    Macro,
    /// A structure, union, enumeration or typedef.
    Type,
    /// An enumeration constant.
    Constant,
    /// Only the compiler saw it, and did not say.
    Unknown,
}

/// What the driver needs and the kernel does not meet; the identity of a gap.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "gap", rename_all = "kebab-case")]
pub enum Need {
    /// A header to include.
    Header {
        /// As in `#include <header>`.
        header: String,
    },
    /// A name that the kernel's headers do not define.
    Name {
        /// The name.
        name: String,
        /// What it is on the home kernel.
        kind: NameKind,
    },
    /// A name that the kernel has, in a header that the driver's includes do not reach.
    Moved {
        /// The name.
        name: String,
    },
    /// A function or macro that takes other parameters, or returns something else.
    Signature {
        /// Its name.
        name: String,
    },
    /// A member that the kernel's structure does not have.
    Field {
        /// Tag of the structure.
        record: String,
        /// The member.
        field: String,
    },
    /// A callback of another type.
    Callback {
        /// Tag of the structure; empty for an argument of a function.
        record: String,
        /// The member, or `function#argument`.
        field: String,
        /// The driver's function.
        function: String,
    },
    /// A pointer to constant data where the kernel's API is not yet const.
    Qualifier {
        /// The file, relative to the driver.
        file: PathBuf,
        /// Byte offset of the expression.
        offset: usize,
        /// Byte offset of its end.
        end: usize,
    },
    /// The module's first or last function, which the kernel's tools want to hear of by `module_init()` or `module_exit()`.
    Entry {
        /// `init_module` or `cleanup_module`.
        function: String,
    },
    /// A symbol that the kernel does not export to this module.
    Export {
        /// The symbol.
        symbol: String,
    },
    /// A diagnostic of the compiler that kspan does not understand.
    Diagnostic {
        /// The compiler's words.
        message: String,
    },
}

/// A place in the driver.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Relative to the driver.
    pub file: PathBuf,
    /// From 1.
    pub line: u32,
}

/// A gap with the places where the driver meets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// What is needed.
    #[serde(flatten)]
    pub need: Need,
    /// Where; at most the first few.
    pub places: Vec<Place>,
    /// In plain words: what the kernel lacks.
    pub why: String,
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header { header } => write!(f, "<{header}>"),
            Self::Name { name, .. } | Self::Moved { name } | Self::Signature { name } => {
                f.write_str(name)
            }
            Self::Field { record, field } => write!(f, "struct {record}.{field}"),
            Self::Callback {
                record,
                field,
                function,
            } if record.is_empty() => write!(f, "{function} as {field}"),
            Self::Callback {
                record,
                field,
                function,
            } => write!(f, "{function} as struct {record}.{field}"),
            Self::Qualifier { file, offset, .. } => {
                write!(f, "const at {}+{offset}", file.display())
            }
            Self::Entry { function } => write!(f, "{function}()"),
            Self::Export { symbol } => write!(f, "{symbol} (export)"),
            Self::Diagnostic { message } => f.write_str(message),
        }
    }
}

impl Need {
    /// The kind in one word, as tables show it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Header { .. } => "header",
            Self::Name { .. } => "missing",
            Self::Moved { .. } => "moved",
            Self::Signature { .. } => "signature",
            Self::Field { .. } => "field",
            Self::Callback { .. } => "callback",
            Self::Qualifier { .. } => "const",
            Self::Entry { .. } => "entry",
            Self::Export { .. } => "export",
            Self::Diagnostic { .. } => "diagnostic",
        }
    }
}

/// How far a remedy may change what the driver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// A rename, a move, a pure macro.
    None,
    /// An argument or result was supplied.
    Default,
    /// Compiles, may act otherwise.
    Behaviour,
    /// Nobody looked.
    Unknown,
}

impl From<kspan_evolve::Risk> for Risk {
    fn from(risk: kspan_evolve::Risk) -> Self {
        match risk {
            kspan_evolve::Risk::None => Self::None,
            kspan_evolve::Risk::Default => Self::Default,
            kspan_evolve::Risk::Behaviour => Self::Behaviour,
            kspan_evolve::Risk::Unknown => Self::Unknown,
        }
    }
}

/// What kind of remedy closed a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemedyKind {
    /// Another header is included.
    Include,
    /// A definition sliced from the home kernel's headers, or a header carried whole.
    Carry,
    /// A macro or small inline in terms of the target's own API.
    Alias,
    /// A generated function of the target's callback type.
    Adapter,
    /// The source text was edited.
    Rewrite,
    /// An implementation carried from the home kernel's source.
    Lift,
    /// The Kbuild file asks for the home kernel's C.
    Dialect,
    /// A symbol of the driver's own has another name, for the target's is taken.
    Rename,
    /// An option of the driver's own that the target has on is off, as at home.
    Option,
}

impl RemedyKind {
    /// The word for it in tables and in `port.json`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Include => "include",
            Self::Carry => "carry",
            Self::Alias => "alias",
            Self::Adapter => "adapter",
            Self::Rewrite => "rewrite",
            Self::Lift => "lift",
            Self::Dialect => "dialect",
            Self::Rename => "rename",
            Self::Option => "option",
        }
    }
}

/// One remedy of a port, with the gap that it closes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remedy {
    /// The kind.
    pub kind: RemedyKind,
    /// What it is for: a name, `struct x.y`, a header.
    pub subject: String,
    /// Where it came from: the home kernel's header and line, or an evolution.
    pub origin: String,
    /// How far it may change what the driver does.
    pub risk: Risk,
    /// In plain words what may differ; empty when nothing does.
    pub meaning: String,
}
