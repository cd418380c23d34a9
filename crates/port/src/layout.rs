//! Members of what crosses a wire, a register file or the system call boundary: a structure with one layout on both kernels,
//! where the home kernel names bytes that the target calls reserved, or by another name.
//!
//! Where the layouts differ, the driver gets the home kernel's structure under a name of its own: what user space or a device
//! reads is the driver's to say. Functions of the target that take the structure keep their own, and the compiler tells.
//!
//! Never: structures that only kernel code reads. There the same place may hold another thing.

use crate::view::View;
use kspan_facts::{Def, Detail, Field};

/// How the target can say a member whose bytes it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bytes {
    /// It has a member of the same type at that place.
    Named(String),
    /// An expression that can be read and assigned; `{0}` is a pointer to the structure.
    At(String),
}

/// The same bytes on the target; `None` where the layouts differ, or no wire's format fixes them.
#[must_use]
pub fn same_bytes(home: &View, target: &View, record: &str, field: &str) -> Option<Bytes> {
    let (here, there) = (whole(home, record)?, whole(target, record)?);
    let has_type = |tag: &str| target.has(tag);
    find(&here, &there, field, &has_type)
}

/// The home kernel's form of a structure can stand beside the target's: a wire fixes it, and what it holds by value has one size
/// on both kernels.
#[must_use]
pub fn can_be_own(home: &View, target: &View, record: &str) -> bool {
    let (Some(here), Some(_)) = (whole(home, record), whole(target, record)) else {
        return false;
    };
    let Some((fields, _)) = parts(&here) else {
        return false;
    };
    let size = |view: &View, tag: &str| whole(view, tag).and_then(|d| Some(parts(&d)?.1));
    let agrees = |f: &Field| match held(&f.ty.canonical) {
        Some(tag) => whole(target, tag).is_none() || size(home, tag) == size(target, tag),
        None => true,
    };
    is_wire(&here, fields) && fields.iter().all(agrees)
}

/// The tag of a structure that a member holds by value.
fn held(canonical: &str) -> Option<&str> {
    let rest = ["struct ", "union "]
        .iter()
        .find_map(|kind| canonical.strip_prefix(kind))?;
    let tag = rest.split([' ', '[']).next()?;
    (!rest.contains('*')).then_some(tag)
}

/// A structure's definition.
fn whole(view: &View, record: &str) -> Option<Def> {
    let is_whole =
        |d: &Def| matches!(&d.detail, Detail::Record { fields, .. } if !fields.is_empty());
    view.facts.defs(record).into_iter().find(is_whole)
}

fn find(home: &Def, target: &Def, field: &str, has_type: &dyn Fn(&str) -> bool) -> Option<Bytes> {
    let (here, size) = parts(home)?;
    let (there, other_size) = parts(target)?;
    let own = here.iter().find(|f| f.name == field)?;
    let place = own.offset_bits.filter(|bits| bits % 8 == 0)?;
    let agrees = size == other_size && same_places(here, there) && is_wire(home, here);
    if !agrees || own.bit_width.is_some() || own.callback.is_some() {
        return None;
    }
    let is_it = |t: &&Field| {
        t.offset_bits == Some(place)
            && t.bit_width.is_none()
            && t.ty.canonical == own.ty.canonical
            && here.iter().all(|h| h.name != t.name)
            && !t.name.contains('.')
    };
    if let Some(other) = there.iter().find(is_it) {
        return Some(Bytes::Named(other.name.clone()));
    }
    let pointer = pointer_to(&own.ty.canonical, has_type)?;
    let bytes = place / 8;
    Some(Bytes::At(format!(
        "(*({pointer})((unsigned char *){{0}} + {bytes}))"
    )))
}

fn parts(def: &Def) -> Option<(&[Field], u64)> {
    match &def.detail {
        Detail::Record { fields, size, .. } => Some((fields, (*size)?)),
        _ => None,
    }
}

/// What names of members say that only fill a gap; they move when something is put into it.
const FILLERS: [&str; 7] = ["rsvd", "rsv", "reserved", "resv", "pad", "unused", "spare"];

/// Members of one name stand at one place, and most names are common: it is the same structure.
fn same_places(here: &[Field], there: &[Field]) -> bool {
    let is_filler = |f: &&Field| {
        let name = f.name.trim_start_matches('_').to_ascii_lowercase();
        FILLERS.iter().any(|filler| name.starts_with(filler))
    };
    let mut common = 0;
    for own in here.iter().filter(|f| !is_filler(f)) {
        let Some(other) = there.iter().find(|t| t.name == own.name) else {
            continue;
        };
        if other.offset_bits != own.offset_bits || other.bit_width != own.bit_width {
            return false;
        }
        common += 1;
    }
    2 * common >= here.len().min(there.len())
}

/// User space or a device reads it: it stands in a header for user space, or has members of a fixed byte order.
fn is_wire(def: &Def, fields: &[Field]) -> bool {
    let ordered =
        |f: &Field| f.ty.spelling.starts_with("__le") || f.ty.spelling.starts_with("__be");
    def.path.contains("/uapi/") || fields.iter().any(ordered)
}

/// The type of a pointer to a member's type; `None` where the target does not know it.
fn pointer_to(canonical: &str, has_type: &dyn Fn(&str) -> bool) -> Option<String> {
    let (element, dimensions) = match canonical.find('[') {
        Some(at) => (canonical[..at].trim_end(), &canonical[at..]),
        None => (canonical, ""),
    };
    let known = element.split(' ').collect::<Vec<_>>();
    let known = match known.as_slice() {
        ["struct" | "union" | "enum", tag, ..] => has_type(tag),
        _ => true,
    };
    let plain = !element.contains(['(', '*']) && !dimensions.starts_with("[]");
    (known && plain).then(|| match dimensions {
        "" => format!("{element} *"),
        _ => format!("{element} (*){dimensions}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kspan_facts::Ty;

    fn field(name: &str, spelling: &str, canonical: &str, byte: u64) -> Field {
        Field {
            name: name.to_owned(),
            ty: Ty {
                spelling: spelling.to_owned(),
                canonical: canonical.to_owned(),
            },
            offset_bits: Some(byte * 8),
            bit_width: None,
            callback: None,
        }
    }

    fn record(path: &str, size: u64, fields: Vec<Field>) -> Def {
        Def {
            name: "r".to_owned(),
            header: "linux/r.h".to_owned(),
            path: path.to_owned(),
            lines: (1, 9),
            text: String::new(),
            detail: Detail::Record {
                is_union: false,
                size: Some(size),
                fields,
            },
        }
    }

    fn wire(fields: Vec<Field>) -> Def {
        record("include/linux/r.h", 8, fields)
    }

    fn length() -> Field {
        field("length", "__le32", "unsigned int", 0)
    }

    #[test]
    fn bytes_of_a_wires_format_are_found_by_their_place() {
        let find = |home: &Def, target: &Def| find(home, target, "id", &|_| false);
        let home = wire(vec![length(), field("id", "__le16", "unsigned short", 4)]);
        let reserved = wire(vec![
            length(),
            field("rsvd", "u8[4]", "unsigned char[4]", 4),
        ]);
        assert_eq!(
            find(&home, &reserved),
            Some(Bytes::At(
                "(*(unsigned short *)((unsigned char *){0} + 4))".to_owned()
            ))
        );
        let renamed = wire(vec![length(), field("tag", "__le16", "unsigned short", 4)]);
        assert_eq!(find(&home, &renamed), Some(Bytes::Named("tag".to_owned())));
        let filled = wire(vec![
            length(),
            field("id", "__le16", "unsigned short", 4),
            field("rsvd", "u8[2]", "unsigned char[2]", 6),
        ]);
        assert_eq!(find(&filled, &reserved), find(&home, &reserved));
        let longer = record("include/linux/r.h", 12, vec![length()]);
        assert_eq!(find(&home, &longer), None);
        let moved = wire(vec![field("length", "__le32", "unsigned int", 4)]);
        assert_eq!(find(&home, &moved), None);
    }

    #[test]
    fn what_only_kernel_code_reads_has_no_fixed_bytes() {
        let plain = |name: &str, byte| field(name, "u32", "unsigned int", byte);
        let home = vec![plain("a", 0), plain("id", 4)];
        let target = vec![plain("a", 0), plain("old", 4)];
        let of = |path: &str| {
            let (home, target) = (home.clone(), target.clone());
            find(
                &record(path, 8, home),
                &record(path, 8, target),
                "id",
                &|_| true,
            )
        };
        assert_eq!(of("include/linux/r.h"), None);
        assert_eq!(
            of("include/uapi/linux/r.h"),
            Some(Bytes::Named("old".to_owned()))
        );
    }

    #[test]
    fn what_is_held_by_value_has_a_tag() {
        assert_eq!(held("struct a"), Some("a"));
        assert_eq!(held("union a[2]"), Some("a"));
        assert_eq!(held("struct a *"), None);
        assert_eq!(held("unsigned int"), None);
    }

    #[test]
    fn types_are_pointed_to() {
        let known = |tag: &str| tag == "there";
        let pointer = |t: &str| pointer_to(t, &known);
        assert_eq!(
            pointer("unsigned char[4][2]").as_deref(),
            Some("unsigned char (*)[4][2]")
        );
        assert_eq!(pointer("struct there").as_deref(), Some("struct there *"));
        assert_eq!(pointer("struct gone"), None);
        assert_eq!(pointer("unsigned char[]"), None);
        assert_eq!(pointer("void *"), None);
    }
}
