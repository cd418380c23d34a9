//! What the headers of two kernels say has changed: only an edit that touches one of these can be a change of the API.

use kspan_facts::{Detail, Facts, Field, Param, Signature, align};
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};

/// How a name of the home kernel stands on the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// No header of the target defines it.
    Missing,
    /// The target takes another number of arguments.
    Arity {
        /// Of the home kernel.
        home: usize,
        /// Of the target.
        target: usize,
        /// On the target it is a macro.
        target_macro: bool,
    },
}

/// A name of the home kernel that code for it cannot use on the target as it is.
#[derive(Debug, Clone)]
pub struct Anchor {
    /// What became of it.
    pub shape: Shape,
    /// Its type, where the home kernel has it as a function.
    pub signature: Option<Signature>,
    /// Something that can be called: a function or a macro with parameters.
    pub callable: bool,
    /// It takes more arguments than it names.
    pub variadic: bool,
    /// A structure, union or enumeration.
    pub tag: bool,
}

/// A member that holds a callback whose type differs.
#[derive(Debug, Clone)]
pub struct Callback {
    /// The home kernel's type.
    pub home: Signature,
    /// The target's type.
    pub target: Signature,
}

/// A record of the home kernel, as far as walking an expression needs it.
pub type Members = FxHashMap<String, Option<String>>;

/// All that changed.
#[derive(Debug, Default)]
pub struct Anchors {
    /// Names.
    pub names: FxHashMap<String, Anchor>,
    /// For each record of the home kernel its members, each with the record that it is or points to.
    pub records: FxHashMap<String, Members>,
    /// Members that only the home kernel's record has.
    pub gone: FxHashMap<String, FxHashSet<String>>,
    /// Callbacks that lost parameters, by record and member.
    pub callbacks: FxHashMap<(String, String), Callback>,
    /// Callbacks whose type differs in any way, by record and member.
    pub reshaped: FxHashSet<(String, String)>,
}

/// What one name adds.
enum Found {
    Name(Anchor),
    Record {
        members: Members,
        gone: FxHashSet<String>,
        callbacks: Vec<(String, Callback)>,
        reshaped: Vec<String>,
    },
}

impl Anchors {
    /// Compares the headers of two kernels.
    #[must_use]
    pub fn between(home: &Facts, target: &Facts) -> Self {
        let names: Vec<&str> = home.all_names().collect();
        let found: Vec<(&str, Vec<Found>)> = names
            .par_iter()
            .map(|name| (*name, look(home, target, name)))
            .filter(|(_, found)| !found.is_empty())
            .collect();
        let mut anchors = Self::default();
        for (name, list) in found {
            for one in list {
                anchors.add(name, one);
            }
        }
        anchors
    }

    fn add(&mut self, name: &str, found: Found) {
        match found {
            Found::Name(anchor) => {
                self.names.insert(name.to_owned(), anchor);
            }
            Found::Record {
                members,
                gone,
                callbacks,
                reshaped,
            } => {
                let member = |field| (name.to_owned(), field);
                self.reshaped.extend(reshaped.into_iter().map(member));
                self.records.insert(name.to_owned(), members);
                if !gone.is_empty() {
                    self.gone.insert(name.to_owned(), gone);
                }
                for (field, callback) in callbacks {
                    self.callbacks.insert((name.to_owned(), field), callback);
                }
            }
        }
    }

    /// How many there are: names, members, callbacks.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let gone = self.gone.values().map(FxHashSet::len).sum();
        (self.names.len(), gone, self.callbacks.len())
    }
}

fn look(home: &Facts, target: &Facts, name: &str) -> Vec<Found> {
    let here = home.defs(name);
    let there = target.defs(name);
    let mut out = Vec::new();
    if let Some(shape) = shape(&here, &there) {
        out.push(Found::Name(Anchor {
            shape,
            signature: here.iter().find_map(signature_of).cloned(),
            callable: here.iter().any(|d| arity_of(d).is_some()),
            variadic: here.iter().filter_map(arity_of).any(|(_, more)| more),
            tag: here
                .iter()
                .all(|d| matches!(d.detail, Detail::Record { .. } | Detail::Enum { .. })),
        }));
    }
    let fields = here.iter().find_map(fields_of);
    if let Some(fields) = fields {
        out.push(record(fields, there.iter().find_map(fields_of)));
    }
    out
}

fn shape(here: &[kspan_facts::Def], there: &[kspan_facts::Def]) -> Option<Shape> {
    if there.is_empty() {
        return Some(Shape::Missing);
    }
    let home = here.iter().find_map(arity_of)?;
    let arity = there.iter().find_map(arity_of)?;
    let any = |a: &(usize, bool)| a.1;
    (home.0 != arity.0 && !any(&home) && !any(&arity)).then(|| Shape::Arity {
        home: home.0,
        target: arity.0,
        target_macro: !there.iter().any(|d| signature_of(d).is_some()),
    })
}

fn signature_of(def: &kspan_facts::Def) -> Option<&Signature> {
    match &def.detail {
        Detail::Function { sig, .. } => Some(sig),
        _ => None,
    }
}

/// How many arguments it takes, and whether more may follow.
pub fn arity_of(def: &kspan_facts::Def) -> Option<(usize, bool)> {
    match &def.detail {
        Detail::Function { sig, .. } => Some((sig.params.len(), sig.variadic)),
        Detail::Macro {
            params: Some(params),
            ..
        } => {
            let fixed = params.iter().filter(|p| !p.ends_with("...")).count();
            Some((fixed, fixed != params.len()))
        }
        _ => None,
    }
}

fn fields_of(def: &kspan_facts::Def) -> Option<&Vec<Field>> {
    match &def.detail {
        Detail::Record { fields, .. } if !fields.is_empty() => Some(fields),
        _ => None,
    }
}

/// The tag in `struct x *`, `const struct x [3]`, `struct x`.
#[must_use]
pub fn tag_of(canonical: &str) -> Option<&str> {
    let (_, rest) = canonical
        .split_once("struct ")
        .or_else(|| canonical.split_once("union "))?;
    if canonical.contains('(') {
        return None;
    }
    rest.split([' ', '*', '[']).next().filter(|t| !t.is_empty())
}

fn record(fields: &[Field], target: Option<&Vec<Field>>) -> Found {
    let members = fields
        .iter()
        .map(|f| (f.name.clone(), tag_of(&f.ty.canonical).map(str::to_owned)))
        .collect();
    let (mut gone, mut callbacks, mut reshaped) = (FxHashSet::default(), Vec::new(), Vec::new());
    for field in fields {
        let Some(target) = target else { break };
        match target.iter().find(|f| f.name == field.name) {
            None => {
                gone.insert(field.name.clone());
            }
            Some(other) => {
                let (Some(home), Some(target)) = (&field.callback, &other.callback) else {
                    continue;
                };
                if !same_type(home, target) {
                    reshaped.push(field.name.clone());
                }
                if !lost(home, target).is_empty() {
                    let callback = Callback {
                        home: home.clone(),
                        target: target.clone(),
                    };
                    callbacks.push((field.name.clone(), callback));
                }
            }
        }
    }
    Found::Record {
        members,
        gone,
        callbacks,
        reshaped,
    }
}

/// Both return and take the same.
fn same_type(home: &Signature, target: &Signature) -> bool {
    let same = |a: &str, b: &str| bare(a) == bare(b);
    same(&home.ret.canonical, &target.ret.canonical)
        && home.params.len() == target.params.len()
        && home
            .params
            .iter()
            .zip(&target.params)
            .all(|(a, b)| same(&a.ty.canonical, &b.ty.canonical))
}

/// A type without `const` and without differences of blanks.
#[must_use]
pub fn bare(ty: &str) -> String {
    let spaced = ty.replace('*', " * ");
    let words: Vec<&str> = spaced
        .split_whitespace()
        .filter(|w| !matches!(*w, "const" | "volatile" | "restrict"))
        .collect();
    words.join(" ")
}

/// Parameters of the home kernel's callback that the target's does not pass, with their place.
#[must_use]
pub fn lost(home: &Signature, target: &Signature) -> Vec<(usize, Param)> {
    align(&home.params, &target.params)
        .into_iter()
        .filter_map(|(i, j)| {
            let param = home.params.get(i?)?;
            let stays = j.and_then(|j| target.params.get(j)).is_some_and(|p| {
                bare(&p.ty.canonical) == bare(&param.ty.canonical)
                    || !p.ty.canonical.contains('*') && !param.ty.canonical.contains('*')
            });
            (!stays).then(|| (i.unwrap_or(0), param.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_of_a_type() {
        assert_eq!(tag_of("const struct spi_device *"), Some("spi_device"));
        assert_eq!(tag_of("struct a[3]"), Some("a"));
        assert_eq!(tag_of("int (*)(struct a *)"), None);
        assert_eq!(tag_of("int"), None);
    }
}
