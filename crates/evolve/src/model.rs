//! The shape of an evolution.

use std::collections::BTreeMap;

/// What a remedy may do to meaning; ordered from harmless to unknown.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// A rename, a move, or the same steps written out.
    #[default]
    None,
    /// An argument or a value was supplied that the driver did not write.
    Default,
    /// It compiles and may act otherwise.
    Behaviour,
    /// Nobody has looked.
    Unknown,
}

/// One condition on the target, as written in `has` and `lacks`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum Condition {
    /// `name`: a function, macro, variable, constant, typedef or tag.
    Name(String),
    /// `struct record.field`.
    Field(String, String),
    /// `CONFIG_X`.
    Config(String),
    /// `<linux/x.h>`.
    Header(String),
}

impl Condition {
    /// Reads one condition.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if let Some(header) = text.strip_prefix('<').and_then(|t| t.strip_suffix('>')) {
            return Self::Header(header.to_owned());
        }
        let tag = text
            .strip_prefix("struct ")
            .or_else(|| text.strip_prefix("union "));
        if let Some(tag) = tag {
            return match tag.split_once('.') {
                Some((record, field)) => Self::Field(record.to_owned(), field.to_owned()),
                None => Self::Name(tag.to_owned()),
            };
        }
        if text.starts_with("CONFIG_") {
            return Self::Config(text.to_owned());
        }
        Self::Name(text.to_owned())
    }
}

/// What an evolution does.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Kind {
    /// Provides names that the target lacks.
    Define {
        /// C text, complete definitions of all names in [`Evolution::provides`].
        text: String,
    },
    /// Gives a name that the target has with another shape the shape that the driver wants.
    Override {
        /// C text: `kspan_X` in terms of the target's X, then `#undef X` and `#define X(...) kspan_X(...)`.
        text: String,
        /// How many parameters each name takes in the form that the driver is written for.
        home_arity: BTreeMap<String, usize>,
    },
    /// A member has another name or place on the target.
    Field {
        /// Tag of the structure.
        record: String,
        /// The member as the driver writes it.
        home: String,
        /// The member of the target; a path with dots where it moved into an inner structure.
        target: String,
    },
    /// How an adapter between two types of one callback finds what the driver's function wants.
    Callback {
        /// Tag of the structure.
        record: String,
        /// The member that holds the callback.
        field: String,
        /// From the type of a parameter that the target does not pass to an expression; `{0}`, `{1}` are the parameters it
        /// does pass.
        params: BTreeMap<String, String>,
        /// What the adapter returns where the driver's function returns nothing.
        ret: Option<String>,
        /// The whole adapter where parameters alone are not enough: `{name}` is its name, `{fn}` the driver's function.
        adapter: Option<String>,
    },
    /// A member that the target lacks, as an expression of the target's API; or one that it has with another type, where `has` names
    /// the member itself: then where a driver initialises it stays as it is.
    Access {
        /// Tag of the structure.
        record: String,
        /// The member.
        field: String,
        /// An expression for its value; `{0}` is a pointer to the structure.
        read: Option<String>,
        /// An expression (a call, as a rule) that stands for an assignment; `{1}` is the value.
        write: Option<String>,
        /// An expression that can be read, assigned and pointed to; it stands for every use instead of the two above.
        place: Option<String>,
        /// What stands for an initialiser `.member = value`; `{1}` is the value.
        init: Option<String>,
    },
    /// An initialiser or assignment that may be left out where the target lacks the member.
    DropField {
        /// Tag of the structure.
        record: String,
        /// The member.
        field: String,
    },
    /// A member that nothing on the target stands for and that must not be left out: the gap stays open, and `meaning` says
    /// why.
    Refuse {
        /// Tag of the structure.
        record: String,
        /// The member.
        field: String,
    },
    /// A macro within the definition of a tracepoint takes other arguments on the target.
    Event {
        /// How many arguments each name takes in the form that the driver is written for.
        home_arity: BTreeMap<String, usize>,
        /// By the macro that declares the item which the use is about (`__string(item, …)`): what stands for the use; `{0}`,
        /// `{1}` are the arguments of that declaration.
        writes: BTreeMap<String, String>,
    },
    /// A header has another name on the target.
    Header {
        /// As the driver includes it.
        home: String,
        /// The header of the target that stands for it.
        target: String,
    },
}

/// How far a learned evolution can be trusted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Many files agree, nothing was supplied or lost, and it compiled with the home kernel's own types.
    Proven,
    /// Enough files agree and its text compiled.
    Likely,
    /// It loses something, or nothing could test it: read it before it is used.
    Review,
}

impl Tier {
    /// The word that files and tables use.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Likely => "likely",
            Self::Review => "review",
        }
    }
}

/// What a learned evolution was learned from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// How far it can be trusted.
    pub tier: Tier,
    /// Files whose maintainers made this edit.
    pub files: usize,
    /// Places where they made it.
    pub sites: usize,
    /// Places that were changed in another way.
    #[serde(default)]
    pub against: usize,
    /// Places that the learner could not make sense of.
    #[serde(default)]
    pub unresolved: usize,
    /// Some of the places, `path:line` in the home kernel's tree.
    #[serde(default)]
    pub examples: Vec<String>,
    /// The first place as the home kernel has it.
    #[serde(default)]
    pub before: String,
    /// The same place as the target has it.
    #[serde(default)]
    pub after: String,
}

/// A use and what the evolution makes of it, as `kspan upgrade` writes it; run as a test.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// C text in the home kernel's form.
    pub before: String,
    /// The same in the target's; blanks do not count.
    pub after: String,
}

/// What a maintainer writes in place of a use.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// The expression; `{0}`, `{1}` are the arguments, and `{name.1}` is argument 1 of the driver's only call of `name`.
    pub to: String,
    /// Its value is another than the home form's: only a use as a statement is rewritten.
    #[serde(default)]
    pub statement: bool,
    /// By an argument's number, counted from 0: the texts that it may have; another use is written by the evolution's text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub when: BTreeMap<String, Vec<String>>,
    /// A member of the object that the first argument points to: the statement that sets it, below the call in the same block,
    /// goes into the call as `{value}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folds: Option<String>,
    /// Only in a function that serves this callback (`record.member`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<String>,
}

/// An initialiser that tables of the driver get.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sets {
    /// Tag of the tables' structure.
    pub record: String,
    /// The member.
    pub field: String,
    /// Its value; a macro that stands for the whole initialiser where `whole` says so.
    pub value: String,
    /// `value` is a macro of the kernel's that stands for the initialiser, with its dot and its member.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
    /// Only in tables that name this, such as a macro with operations that go with the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
    /// What the file of the table must include for the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

/// A function of the driver that a macro calls by a name which it puts together.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The function's name; `{0}` is the macro's first argument.
    pub name: String,
    /// Parameters that the macro no longer passes, by type, with the expression that has their value.
    pub drops: BTreeMap<String, String>,
}

/// Where members went: into a table that the structure points to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moves {
    /// The member that points to the table.
    pub link: String,
    /// Tag of the table's structure.
    pub record: String,
}

/// Tables of one structure that become something else.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Becomes {
    /// Tag of the tables' structure.
    pub record: String,
    /// What stands for the declaration of a table: `{table}` is its name, `{ops.add}` the value of a member. A line that begins with
    /// `?member ` stands only where the member is set, one with `!member ` where it is not.
    pub text: String,
    /// Members that may be set without a place in the text.
    #[serde(default)]
    pub drops: Vec<String>,
}

/// What `kspan upgrade` does beyond an evolution's own form: changes of several places that belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InUpgrade {
    /// What stands for an assignment to one element of a member that became constant: `{0}` is a pointer to the structure,
    /// `{1}` the index, `{2}` the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub element: Option<String>,
    /// By function that is handed the member to write to it: what stands for the call; `{0}` is a pointer to the structure,
    /// `{1}`, `{2}` are the call's further arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub into: BTreeMap<String, String>,
    /// What stands for an assignment to a member that became constant, by operator (`=`, `|=`, `&= ~`); `{0}` is a pointer to the
    /// structure, `{1}` the value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub assign: BTreeMap<String, String>,
    /// An expression that stands for every use of a member; `{0}` is a pointer to the structure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Definitions that the driver gets, under names that begin with `kspan_`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Initialisers that the driver's tables get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<Sets>,
    /// Where the member's initialiser goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<Moves>,
    /// Structures of the driver's own functions that have another name, by the old tag; only where the home kernel lacks the new one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub renames: BTreeMap<String, String>,
    /// What the driver's tables of a structure become.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub becomes: Option<Becomes>,
    /// Of a macro: the driver's function that it calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Made>,
}

impl InUpgrade {
    /// It speaks of writes to a member that the target has as constant.
    #[must_use]
    pub fn is_of_constant(&self) -> bool {
        self.element.is_some() || !self.into.is_empty() || !self.assign.is_empty()
    }

    /// It speaks of a member that the target may well have, of another kind.
    #[must_use]
    pub fn is_of_member(&self) -> bool {
        self.is_of_constant() || self.place.is_some()
    }
}

/// One change of the kernel's API and how a target without it is served.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Evolution {
    /// Unique among all evolutions.
    pub id: String,
    /// What it does.
    #[serde(flatten)]
    pub kind: Kind,
    /// The names that it gives the driver.
    pub provides: Vec<String>,
    /// The target must have all of these.
    pub has: Vec<Condition>,
    /// The target must have none of these.
    pub lacks: Vec<Condition>,
    /// Functions or function-like macros of the target that must take so many parameters.
    pub arity: BTreeMap<String, usize>,
    /// Functions of the target that must return this (canonical) type.
    pub types: BTreeMap<String, String>,
    /// Macros of the target whose replacement text must contain this (one line, blanks folded).
    pub body: BTreeMap<String, String>,
    /// Macros of the target whose replacement text must not contain this.
    pub body_lacks: BTreeMap<String, String>,
    /// Headers of the target that the text needs.
    pub includes: Vec<String>,
    /// Names that the text uses and the target may lack as well: another evolution or a carried definition must provide them
    /// before this one's text.
    pub needs: Vec<String>,
    /// For `kspan upgrade`, where the text is not what a maintainer would write at a use: by provided name, the expression in the
    /// target's own API; `{0}` is the first argument.
    pub rewrite: BTreeMap<String, Rewrite>,
    /// For `kspan upgrade`: places that change together.
    pub upgrade: InUpgrade,
    /// What it may do to meaning.
    pub risk: Risk,
    /// What differs, where `risk` is above none.
    pub meaning: String,
    /// The upstream commit or its subject, where known.
    pub commit: String,
    /// Why the change exists.
    pub why: String,
    /// Only for drivers whose manifest names it: what it does is not the driver's meaning on every machine, and the driver's author
    /// has to stand for it.
    pub opt_in: bool,
    /// Names (of the kernel, or macros that drivers define for its headers, as `DEFAULT_SYMBOL_NAMESPACE`) of which a driver uses or defines one;
    /// any other never meets the evolution. Empty where every driver may.
    pub only_with: Vec<String>,
    /// Names of the kernel (a function, a structure's tag) without which the risk is none: a driver that uses none of them never meets it. Empty
    /// where every driver may.
    pub risk_with: Vec<String>,
    /// Names of the kernel beside which the risk is none: a source file that uses what the evolution provides uses one of them, too, and the
    /// evolution's text sees to the rest there.
    pub risk_without: Vec<String>,
    /// What it was learned from; none for one that a person wrote.
    pub evidence: Option<Evidence>,
    /// Uses before and after.
    pub examples: Vec<Example>,
    /// The file that holds it.
    pub file: String,
    /// The line at which it starts.
    pub line: usize,
}

impl Evolution {
    /// The C text that stands in the overlay, if this kind has one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Define { text } | Kind::Override { text, .. } => Some(text),
            _ => None,
        }
    }
}
