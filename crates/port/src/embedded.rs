//! A member that is a structure in one kernel and a pointer to one in the other (`snd_pcm_str.dev`, `pwm_chip.dev`): the same object,
//! reached otherwise, as its layouts tell.
//!
//! Never: where the driver says which object it is, in an initialiser or an assignment of the pointer, or finds the outer structure
//! from the inner one (`container_of`): the target makes the object itself, or keeps it elsewhere.

use crate::edit::Edit;
use crate::lex::{self, Token};
use crate::member::expression;
use crate::view::View;
use std::ops::Range;

/// What the target has in the member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    /// A pointer, where the home kernel has the structure itself.
    Pointer,
    /// The structure itself, where the home kernel has a pointer.
    Structure,
}

/// What the target has, where the two kernels differ in nothing else.
#[must_use]
pub fn on_target(home: &View, target: &View, record: &str, field: &str) -> Option<There> {
    let kind = |view: &View| {
        let ty = view.member_type(record, field)?;
        let (structure, pointer) = match ty.strip_suffix('*') {
            Some(inner) => (inner.trim_end(), true),
            None => (ty.as_str(), false),
        };
        let is_one = structure.starts_with("struct ") && !structure.contains(['*', '[']);
        is_one.then(|| (structure.to_owned(), pointer))
    };
    match (kind(home)?, kind(target)?) {
        ((here, false), (there, true)) if here == there => Some(There::Pointer),
        ((here, true), (there, false)) if here == there => Some(There::Structure),
        _ => None,
    }
}

/// Why a use stays as it is, for whom [`edits`] knows none.
#[must_use]
pub fn no_form(record: &str, field: &str, there: There) -> String {
    let (is, was) = match there {
        There::Pointer => ("a pointer", "a structure"),
        There::Structure => ("a structure", "a pointer"),
    };
    format!(
        "struct {record}.{field} is {is} on the target, and {was} at home; what the driver does with it has no such form"
    )
}

/// The use of the member at `start` as the target wants it; `None` where that cannot be said.
#[must_use]
pub fn edits(bytes: &[u8], start: usize, field: &str, there: There) -> Option<Vec<Edit>> {
    let (whole, _) = expression(bytes, start, field)?;
    let after = following(bytes, whole.end);
    let replace = |range: Range<usize>, text: &str| Edit {
        start: range.start,
        end: range.end,
        text: text.to_owned(),
    };
    if after.assigned {
        return None;
    }
    let address = address_of(bytes, whole.start);
    Some(match (there, after.access, address) {
        (There::Structure, Access::Arrow(at), _) => vec![replace(at, ".")],
        (There::Structure, _, Some(_)) => return None,
        (There::Structure, ..) => vec![replace(whole.start..whole.start, "&")],
        (There::Pointer, Access::Dot(at), _) => vec![replace(at, "->")],
        (There::Pointer, _, Some(at)) => vec![replace(at, "")],
        (There::Pointer, ..) => vec![
            replace(whole.start..whole.start, "(*"),
            replace(whole.end..whole.end, ")"),
        ],
    })
}

/// How an expression goes on.
enum Access {
    /// By `.`, which stands there.
    Dot(Range<usize>),
    /// By `->`, which stands there.
    Arrow(Range<usize>),
    /// Not into the structure.
    None,
}

struct Following {
    access: Access,
    /// The member itself is assigned.
    assigned: bool,
}

fn following(bytes: &[u8], end: usize) -> Following {
    let mut next = lex::tokens(&bytes[end..]).map(|(t, r)| (t, r.start + end..r.end + end));
    let (first, second) = (next.next(), next.next());
    let access = match (&first, &second) {
        (Some((Token::Punct(b'.'), at)), _) => Access::Dot(at.clone()),
        (Some((Token::Punct(b'-'), a)), Some((Token::Punct(b'>'), b))) if a.end == b.start => {
            Access::Arrow(a.start..b.end)
        }
        _ => Access::None,
    };
    let is = |token: &Option<(Token, Range<usize>)>, byte| matches!(token, Some((Token::Punct(b), _)) if *b == byte);
    let assigned = is(&first, b'=') && !is(&second, b'=');
    Following { access, assigned }
}

/// The operator that takes the address of the expression at `start`, where one does.
fn address_of(bytes: &[u8], start: usize) -> Option<Range<usize>> {
    let before: Vec<_> = lex::tokens(&bytes[..start]).collect();
    let mut back = before.iter().rev();
    let (Token::Punct(b'&'), at) = back.next()? else {
        return None;
    };
    // A value before it makes the operator one of two operands.
    let of_two = match back.next() {
        Some((Token::Word, word)) => &bytes[word.clone()] != b"return",
        Some((Token::Literal, _)) => true,
        Some((Token::Punct(p), _)) => matches!(p, b')' | b']' | b'&'),
        None => false,
    };
    (!of_two).then(|| at.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(text: &str, there: There) -> Option<String> {
        let start = text.find("dev").expect("a use");
        let mut made = edits(text.as_bytes(), start, "dev", there)?;
        made.sort_by_key(|e| std::cmp::Reverse(e.start));
        let mut out = text.to_owned();
        for edit in made {
            out.replace_range(edit.start..edit.end, &edit.text);
        }
        Some(out)
    }

    #[test]
    fn a_structure_that_the_home_kernel_points_to() {
        let to = |text| turned(text, There::Structure);
        assert_eq!(
            to("x = pcm->streams[n].dev;").as_deref(),
            Some("x = &pcm->streams[n].dev;")
        );
        assert_eq!(
            to("f(p->dev->devt, 1);").as_deref(),
            Some("f(p->dev.devt, 1);")
        );
        assert_eq!(
            to("put(a & b, p->dev);").as_deref(),
            Some("put(a & b, &p->dev);")
        );
        assert_eq!(to("p->dev = other;"), None);
        assert_eq!(to("f(&p->dev);"), None);
        assert_eq!(to("struct s s = { .dev = d };"), None);
    }

    #[test]
    fn a_pointer_where_the_home_kernel_has_the_structure() {
        let to = |text| turned(text, There::Pointer);
        assert_eq!(to("f(&p->dev);").as_deref(), Some("f(p->dev);"));
        assert_eq!(to("return &p->dev;").as_deref(), Some("return p->dev;"));
        assert_eq!(
            to("f(p->dev.of_node);").as_deref(),
            Some("f(p->dev->of_node);")
        );
        assert_eq!(to("f(&p->dev.kobj);").as_deref(), Some("f(&p->dev->kobj);"));
        assert_eq!(
            to("n = sizeof(p->dev);").as_deref(),
            Some("n = sizeof((*p->dev));")
        );
        assert_eq!(
            to("if (p->dev == q) g();").as_deref(),
            Some("if ((*p->dev) == q) g();")
        );
        assert_eq!(to("o = container_of(d, struct s, dev);"), None);
    }
}
