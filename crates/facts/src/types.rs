//! From libclang's types to ours.
#![allow(non_upper_case_globals)] // libclang's names

use crate::clang::{Cursor, Type};
use crate::{Param, Signature, Ty};
use clang_sys::*;

/// Takes paths out of the names of unnamed types, so that two kernels can be compared.
fn tidy(text: String) -> String {
    if !text.contains(" at ") {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find(" at /") {
        let (before, after) = rest.split_at(start);
        out.push_str(before);
        rest = after
            .find(')')
            .and_then(|end| after.get(end..))
            .unwrap_or("");
    }
    out.push_str(rest);
    out
}

/// Both spellings of a type.
pub fn ty(of: Type<'_>) -> Ty {
    Ty {
        spelling: tidy(of.spelling()),
        canonical: tidy(of.canonical().spelling()),
    }
}

/// A parameter's type: an array is a pointer to its first element.
fn decayed(of: Type<'_>) -> Ty {
    let mut made = ty(of);
    let canonical = of.canonical();
    if matches!(
        canonical.kind(),
        CXType_ConstantArray | CXType_IncompleteArray | CXType_VariableArray
    ) {
        let element = tidy(canonical.element().canonical().spelling());
        if !element.contains(['[', '(']) {
            let gap = if element.ends_with('*') { "" } else { " " };
            made.canonical = format!("{element}{gap}*");
        }
    }
    made
}

/// Peels pointers, arrays and sugar down to a function type, or to the first thing that is none.
fn function_type(of: Type<'_>) -> Option<Type<'_>> {
    let mut canonical = of.canonical();
    for _ in 0..8 {
        match canonical.kind() {
            CXType_FunctionProto | CXType_FunctionNoProto => return Some(canonical),
            CXType_Pointer => canonical = canonical.pointee(),
            CXType_ConstantArray | CXType_IncompleteArray => canonical = canonical.element(),
            _ => return None,
        }
    }
    None
}

/// The function type with its sugar kept, for spelling.
fn sugared_function(of: Type<'_>) -> Option<Type<'_>> {
    let mut now = of;
    for _ in 0..16 {
        match now.kind() {
            CXType_FunctionProto | CXType_FunctionNoProto => return Some(now),
            CXType_Pointer => now = now.pointee(),
            CXType_ConstantArray | CXType_IncompleteArray => now = now.element(),
            CXType_Typedef => now = now.declaration()?.typedef_target(),
            CXType_Elaborated | CXType_Unexposed | CXType_Attributed => {
                let declared = now
                    .declaration()
                    .filter(|decl| decl.kind() == CXCursor_TypedefDecl);
                match declared {
                    Some(decl) => now = decl.typedef_target(),
                    None if now.result().kind() != CXType_Invalid => return Some(now),
                    None => now = now.canonical(),
                }
            }
            _ => return None,
        }
    }
    None
}

/// The signature behind a function, a pointer to one, or a typedef of either; names come from `names`.
pub fn signature(of: Type<'_>, names: &[String]) -> Option<Signature> {
    function_type(of)?;
    let function = sugared_function(of).or_else(|| function_type(of))?;
    let params = function
        .parameters()
        .into_iter()
        .enumerate()
        .map(|(number, one)| Param {
            name: names.get(number).cloned().unwrap_or_default(),
            ty: decayed(one),
        })
        .collect();
    Some(Signature {
        ret: ty(function.result()),
        params,
        variadic: function.is_variadic(),
    })
}

/// Is it a pointer to a function (or an array of them)?
pub fn is_callback(of: Type<'_>) -> bool {
    let canonical = of.canonical();
    matches!(
        canonical.kind(),
        CXType_Pointer | CXType_ConstantArray | CXType_IncompleteArray
    ) && function_type(canonical).is_some()
}

/// Names of the parameters written at a declaration (of a function, or of a pointer to one).
pub fn parameter_names(decl: Cursor<'_>) -> Vec<String> {
    let mut now = decl;
    for _ in 0..8 {
        if let Some(arguments) = now.arguments() {
            return arguments.into_iter().map(Cursor::spelling).collect();
        }
        let here = now.children_where(|child| child.kind() == CXCursor_ParmDecl);
        if !here.is_empty() {
            return here.into_iter().map(Cursor::spelling).collect();
        }
        let written = if now.kind() == CXCursor_TypedefDecl {
            now.typedef_target()
        } else {
            now.ty()
        };
        match typedef_of(written) {
            Some(inner) => now = inner,
            None => break,
        }
    }
    Vec::new()
}

/// The typedef that a type, or what it points to, is written with.
fn typedef_of(of: Type<'_>) -> Option<Cursor<'_>> {
    let mut now = of;
    for _ in 0..4 {
        match now.kind() {
            CXType_Typedef => return now.declaration(),
            CXType_Pointer => now = now.pointee(),
            CXType_Elaborated => {
                return now
                    .declaration()
                    .filter(|decl| decl.kind() == CXCursor_TypedefDecl);
            }
            _ => return None,
        }
    }
    None
}

/// Signature of a function, or of a field, variable or parameter that points to one.
pub fn signature_of(decl: Cursor<'_>) -> Option<Signature> {
    function_type(decl.ty())?;
    signature(decl.ty(), &parameter_names(decl))
}

/// The tag (or typedef name) of a record declaration, climbing out of records without one.
pub fn record_name(decl: Cursor<'_>) -> String {
    let mut now = Some(decl);
    for _ in 0..16 {
        let Some(cursor) = now else { break };
        if !matches!(
            cursor.kind(),
            CXCursor_StructDecl | CXCursor_UnionDecl | CXCursor_EnumDecl
        ) {
            break;
        }
        let name = tag_name(cursor);
        if !name.is_empty() {
            return name;
        }
        now = cursor.semantic_parent();
    }
    String::new()
}

/// The tag of a record or enumeration, or the typedef that names it; empty when it has neither.
pub fn tag_name(decl: Cursor<'_>) -> String {
    let spelled = decl.ty().canonical().spelling();
    if spelled.contains('(') {
        return String::new();
    }
    spelled.rsplit(' ').next().unwrap_or("").to_owned()
}
