//! Which evolutions apply: questions to the target's facts.

use crate::model::{Condition, Evolution, Kind};

/// What an evolution may ask of a target kernel.
pub trait KernelView {
    /// Any definition of a name: function, macro, variable, constant, typedef or tag.
    fn has(&self, name: &str) -> bool;
    /// A structure or union has a member.
    fn has_field(&self, record: &str, field: &str) -> bool;
    /// How many parameters a function or function-like macro takes, `...` not counted.
    fn arity(&self, name: &str) -> Option<usize>;
    /// The canonical type that a function returns.
    fn returns(&self, name: &str) -> Option<String>;
    /// The replacement text of a macro, one line, blanks folded.
    fn macro_body(&self, name: &str) -> Option<String>;
    /// A configuration symbol (`CONFIG_X`) is `y` or `m`.
    fn config(&self, symbol: &str) -> bool;
    /// A driver can include this header.
    fn header_exists(&self, header: &str) -> bool;
    /// The header to include for a name; `None` if there is none, or every module has it anyway.
    fn header_of(&self, name: &str) -> Option<String>;
}

impl Condition {
    /// Does it hold on the target?
    #[must_use]
    pub fn holds(&self, view: &dyn KernelView) -> bool {
        match self {
            Self::Name(name) => view.has(name),
            Self::Field(record, field) => view.has_field(record, first_step(field)),
            Self::Config(symbol) => view.config(symbol),
            Self::Header(header) => view.header_exists(header),
        }
    }
}

fn first_step(path: &str) -> &str {
    path.split('.').next().unwrap_or(path)
}

fn contains(view: &dyn KernelView, name: &str, part: &str) -> bool {
    view.macro_body(name)
        .is_some_and(|body| body.contains(part))
}

fn needs(evolution: &Evolution, name: &str) -> bool {
    evolution.needs.iter().any(|n| n == name)
}

fn kind_fits(evolution: &Evolution, view: &dyn KernelView) -> bool {
    match &evolution.kind {
        Kind::Define { .. } | Kind::Event { .. } => true,
        Kind::Override { .. } => evolution.provides.iter().all(|name| view.has(name)),
        Kind::Field {
            record,
            home,
            target,
        } => {
            // The same name twice: the structure that an override gives in the target's place has the member.
            let given = home == target && view.has(record);
            !view.has_field(record, first_step(home))
                && (given || view.has_field(record, first_step(target)))
        }
        // Without a structure it is a function's argument, `function#0`; a function that another evolution serves is named in `needs`.
        Kind::Callback { record, field, .. } if record.is_empty() => field
            .split_once('#')
            .is_some_and(|(function, _)| view.has(function) || needs(evolution, function)),
        Kind::Callback { record, field, .. } => view.has_field(record, first_step(field)),
        Kind::Access { record, field, .. } => {
            // A structure that the target keeps to itself is there without members; what serves one is named in `has`.
            let known = view.has(record) || !evolution.has.is_empty();
            let absent = !view.has_field(record, field);
            known
                && (absent || evolution.is_of_present_member() || evolution.upgrade.is_of_member())
        }
        Kind::DropField { record, field } | Kind::Refuse { record, field } => {
            view.has(record) && !view.has_field(record, field)
        }
        Kind::Header { home, target } => !view.header_exists(home) && view.header_exists(target),
    }
}

impl Evolution {
    /// It says how a member is used that the target has, too, with another type: it names the member in `has`.
    #[must_use]
    pub fn is_of_present_member(&self) -> bool {
        let Kind::Access { record, field, .. } = &self.kind else {
            return false;
        };
        let is_own =
            |c: &Condition| matches!(c, Condition::Field(r, f) if r == record && f == field);
        self.has.iter().any(is_own)
    }

    /// Do all its conditions hold on the target?
    #[must_use]
    pub fn applies_to(&self, view: &dyn KernelView) -> bool {
        kind_fits(self, view)
            && self.has.iter().all(|c| c.holds(view))
            && !self.lacks.iter().any(|c| c.holds(view))
            && self
                .arity
                .iter()
                .all(|(name, n)| view.arity(name) == Some(*n))
            && self
                .types
                .iter()
                .all(|(name, ty)| view.returns(name).as_ref() == Some(ty))
            && self
                .body
                .iter()
                .all(|(name, part)| contains(view, name, part))
            && !self
                .body_lacks
                .iter()
                .any(|(name, part)| contains(view, name, part))
            && self
                .includes
                .iter()
                .all(|header| view.header_exists(header))
    }
}
