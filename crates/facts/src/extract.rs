//! From one umbrella translation unit to definitions with their exact source text.
#![allow(non_upper_case_globals)] // libclang's names

use crate::analyse::LineIndex;
use crate::clang::{Cursor, FileId, ParseOptions, Type, Unit};
use crate::headers::{Headers, normalise};
use crate::lex::{self, Kind, Lexer};
use crate::{Detail, Field, Result, types};
use clang_sys::*;
use rustc_hash::FxHashMap;
use std::cell::OnceCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A definition before it is merged with those of other umbrellas; its file is known by where it is kept.
#[derive(Debug)]
pub struct Raw {
    /// Its name; a tag's name stands without `struct`.
    pub name: String,
    /// Where it is declared, in bytes of its file: the last of several counts.
    pub offset: u32,
    /// Only `struct x;`.
    pub forward: bool,
    /// First and last line, from 1.
    pub lines: (u32, u32),
    /// Its text, as a byte range of its file.
    pub range: Range<usize>,
    /// Kind and what belongs to it; `None` for a macro, whose parts are read from its text.
    pub detail: Option<Detail>,
}

/// A header that was read.
#[derive(Debug)]
pub struct File {
    /// Its absolute path.
    pub path: PathBuf,
    /// As a driver would include it.
    pub header: String,
    /// Its path in the kernel's source or build directory.
    pub relative: String,
    /// Its text.
    pub text: Vec<u8>,
}

impl File {
    /// A piece of its text; what is no UTF-8 is replaced.
    pub fn slice(&self, range: Range<usize>) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.text.get(range).unwrap_or(&[]))
    }
}

/// What a translation unit gave.
#[derive(Default)]
pub struct Found {
    /// Wanted files with their definitions.
    pub files: Vec<(File, Vec<Raw>)>,
    /// Include directives of wanted files, as spelled.
    pub includes: FxHashMap<PathBuf, Vec<String>>,
    /// Errors, by file.
    pub errors: Vec<(PathBuf, String)>,
}

/// A header being read.
struct Source {
    /// Its place in [`Reader::raw`].
    number: usize,
    file: File,
    lines: LineIndex,
    /// Where top-level declarations begin, as far as brackets and semicolons tell; many headers have macros only.
    bounds: OnceCell<Vec<usize>>,
    undefs: Vec<(String, u32)>,
}

struct Reader<'u> {
    unit: &'u Unit,
    headers: &'u Headers,
    wanted: &'u dyn Fn(&Path) -> bool,
    base: PathBuf,
    files: FxHashMap<FileId, Option<Rc<Source>>>,
    /// Definitions by the number of their source.
    raw: Vec<Vec<Raw>>,
    includes: FxHashMap<PathBuf, Vec<String>>,
}

/// Reads a text (given in memory under a name) and takes the definitions of those files that `wanted` names.
pub fn extract(
    headers: &Headers,
    name: &str,
    text: &str,
    args: &[String],
    wanted: &dyn Fn(&Path) -> bool,
) -> Result<Found> {
    let unsaved = [(name.to_owned(), text.to_owned())];
    let unit = Unit::parse(name, args, &unsaved, ParseOptions { skip_bodies: true })?;
    let base = Path::new(name)
        .parent()
        .unwrap_or(Path::new("/"))
        .to_path_buf();
    let mut reader = Reader {
        unit: &unit,
        headers,
        wanted,
        base,
        files: FxHashMap::default(),
        raw: Vec::new(),
        includes: FxHashMap::default(),
    };
    let list = unit.root().children_where(|cursor| reader.wants(cursor));
    for cursor in list {
        reader.take(cursor);
    }
    Ok(reader.finish())
}

/// Offsets after each `;` or `}` outside brackets and after each directive.
fn bounds(text: &[u8]) -> Vec<usize> {
    let mut out = vec![0];
    let mut depth = 0u32;
    let mut directive = false;
    for token in Lexer::new(text, 0) {
        match token.kind {
            Kind::Hash => directive = true,
            Kind::LineEnd => {
                directive = false;
                out.push(token.end);
            }
            _ if directive => {}
            Kind::Punct(b'{' | b'(' | b'[') => depth += 1,
            Kind::Punct(b'}' | b')' | b']') => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token.kind == Kind::Punct(b'}') {
                    out.push(token.end);
                }
            }
            Kind::Punct(b';') => out.push(token.end),
            _ => {}
        }
    }
    out
}

/// `#undef` directives with their offsets.
fn undefs(text: &[u8]) -> Vec<(String, u32)> {
    let mut out = Vec::new();
    if !text.windows(5).any(|word| word == b"undef") {
        return out;
    }
    let mut tokens = Lexer::new(text, 0);
    while let Some(token) = tokens.next() {
        if token.kind != Kind::Hash {
            continue;
        }
        if tokens
            .next()
            .is_some_and(|word| lex::slice(text, word) == "undef")
            && let Some(name) = tokens.next()
        {
            out.push((
                lex::slice(text, name).to_owned(),
                u32::try_from(name.start).unwrap_or(u32::MAX),
            ));
        }
    }
    out
}

/// The end of a bracketed list that follows a word at an offset, and of a `;` after it.
fn invocation_end(text: &[u8], start: usize) -> usize {
    let word_end = start + lex::word_at(text, start).len();
    let mut end = word_end;
    let mut depth = 0u32;
    for token in Lexer::inside(text, word_end) {
        match token.kind {
            Kind::Punct(b'(') => depth += 1,
            Kind::Punct(b')') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    end = token.end;
                }
            }
            Kind::Punct(b';') if depth == 0 => return token.end,
            _ if depth == 0 => return end,
            _ => {}
        }
    }
    end
}

/// The end of a function whose declarator ends at `from`: its body's `}` or its `;`.
fn function_end(text: &[u8], from: usize) -> usize {
    let mut depth = 0u32;
    for token in Lexer::inside(text, from) {
        match token.kind {
            Kind::Punct(b'(' | b'{' | b'[') => depth += 1,
            Kind::Punct(b')' | b'}' | b']') => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token.kind == Kind::Punct(b'}') {
                    return token.end;
                }
            }
            Kind::Punct(b';') if depth == 0 => return token.end,
            _ => {}
        }
    }
    from
}

/// After a macro's invocation: the end of the `{…}` that may follow it, and of its `;`.
fn body_end(text: &[u8], from: usize) -> usize {
    let mut depth = 0u32;
    for token in Lexer::inside(text, from) {
        match token.kind {
            Kind::Punct(b'{') => depth += 1,
            Kind::Punct(b'}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return semicolon_after(text, token.end);
                }
            }
            _ if depth == 0 => return from,
            _ => {}
        }
    }
    from
}

/// The end of the `;` that closes a declaration whose syntax ends at `from`.
fn semicolon_after(text: &[u8], from: usize) -> usize {
    let mut depth = 0u32;
    for token in Lexer::inside(text, from) {
        match token.kind {
            Kind::Punct(b'(' | b'{' | b'[') => depth += 1,
            Kind::Punct(b')' | b'}' | b']') if depth == 0 => return from,
            Kind::Punct(b')' | b'}' | b']') => depth -= 1,
            Kind::Punct(b';') if depth == 0 => return token.end,
            _ => {}
        }
    }
    from
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Blanks folded, comments and continuations gone.
fn fold(text: &[u8]) -> String {
    let mut out = String::new();
    let mut last_end = 0;
    for token in Lexer::inside(text, 0) {
        if !out.is_empty() && token.start > last_end {
            out.push(' ');
        }
        out.push_str(&String::from_utf8_lossy(
            text.get(token.start..token.end).unwrap_or(&[]),
        ));
        last_end = token.end;
    }
    out
}

impl Source {
    fn read(number: usize, path: PathBuf, headers: &Headers) -> Self {
        let text = std::fs::read(&path).unwrap_or_default();
        Self {
            number,
            lines: LineIndex::new(&text),
            bounds: OnceCell::new(),
            undefs: undefs(&text),
            file: File {
                header: headers.spelling(&path),
                relative: headers.relative(&path),
                text,
                path,
            },
        }
    }
    fn text(&self) -> &[u8] {
        &self.file.text
    }
    /// Moves a start back over attributes that libclang leaves out.
    fn start(&self, start: usize) -> usize {
        let bounds = self.bounds.get_or_init(|| bounds(self.text()));
        let number = bounds.partition_point(|bound| *bound <= start);
        let Some(bound) = number
            .checked_sub(1)
            .and_then(|number| bounds.get(number))
            .copied()
        else {
            return start;
        };
        let mut begin = None;
        let mut depth = 0u32;
        for token in Lexer::inside(self.text(), bound) {
            if token.start >= start {
                break;
            }
            match token.kind {
                Kind::Punct(b'(') => depth += 1,
                Kind::Punct(b')') => depth = depth.saturating_sub(1),
                Kind::Word if depth == 0 => {
                    let word = lex::slice(self.text(), token);
                    if word.bytes().any(|byte| byte.is_ascii_uppercase()) {
                        return start;
                    }
                    begin.get_or_insert(token.start);
                }
                _ if depth > 0 => {}
                _ => return start,
            }
        }
        begin.unwrap_or(start)
    }
    fn undefined_after(&self, name: &str, offset: u32) -> bool {
        self.undefs
            .iter()
            .any(|(one, at)| one == name && *at > offset)
    }
    fn raw(&self, name: String, range: Range<usize>, detail: Option<Detail>) -> Raw {
        let last = range.end.saturating_sub(1).max(range.start);
        Raw {
            name,
            offset: small(range.start),
            forward: false,
            lines: (self.lines.line(range.start), self.lines.line(last)),
            range,
            detail,
        }
    }
}

impl<'u> Reader<'u> {
    fn source(&mut self, id: FileId) -> Option<Rc<Source>> {
        if let Some(known) = self.files.get(&id) {
            return known.clone();
        }
        let path = normalise(&self.base, &self.unit.file_name(id));
        let made = (self.wanted)(&path).then(|| {
            self.raw.push(Vec::new());
            Rc::new(Source::read(self.raw.len() - 1, path, self.headers))
        });
        self.files.insert(id, made.clone());
        made
    }

    fn wants(&mut self, cursor: Cursor<'u>) -> bool {
        cursor.kind() != CXCursor_MacroExpansion
            && cursor
                .file()
                .is_some_and(|file| self.source(file).is_some())
    }

    fn take(&mut self, cursor: Cursor<'u>) {
        let Some(source) = cursor.file().and_then(|file| self.source(file)) else {
            return;
        };
        match cursor.kind() {
            CXCursor_MacroDefinition => self.take_macro(cursor, &source),
            CXCursor_InclusionDirective => {
                self.includes
                    .entry(source.file.path.clone())
                    .or_default()
                    .push(cursor.spelling());
            }
            CXCursor_FunctionDecl => self.take_function(cursor, &source),
            CXCursor_VarDecl => {
                let ty = types::ty(cursor.ty());
                self.push(cursor, &source, Detail::Variable { ty });
            }
            CXCursor_TypedefDecl => {
                let ty = types::ty(cursor.typedef_target());
                self.push(cursor, &source, Detail::Typedef { ty });
            }
            CXCursor_StructDecl | CXCursor_UnionDecl => self.take_record(cursor, &source, 0),
            CXCursor_EnumDecl => self.take_enum(cursor, &source),
            _ => {}
        }
    }

    /// The byte range of the text of a declaration of a name.
    fn range(&self, cursor: Cursor<'u>, name: &str, source: &Source) -> Range<usize> {
        let text = source.text();
        let expanded = cursor.expanded_range();
        let at = cursor.offset();
        let made_by_macro = !name.is_empty() && lex::word_at(text, at) != name
            || expanded.at == expanded.start && at != expanded.at;
        if made_by_macro
            && !lex::word_at(text, expanded.start).is_empty()
            && is_invocation(text, expanded.start)
        {
            let from = source.start(expanded.start);
            return from.min(expanded.start)..body_end(text, invocation_end(text, expanded.start));
        }
        let whole = text.get(expanded.end.wrapping_sub(1)) == Some(&b'}');
        let end = match cursor.kind() {
            CXCursor_FunctionDecl if whole => expanded.end,
            CXCursor_FunctionDecl => function_end(text, expanded.end),
            _ => semicolon_after(text, expanded.end),
        };
        source.start(expanded.start)..end
    }

    fn push(&mut self, cursor: Cursor<'u>, source: &Source, detail: Detail) {
        let name = cursor.spelling();
        let range = self.range(cursor, &name, source);
        self.note(source, source.raw(name, range, Some(detail)));
    }

    fn note(&mut self, source: &Source, raw: Raw) {
        if raw.name.is_empty() {
            return;
        }
        if let Some(list) = self.raw.get_mut(source.number) {
            list.push(raw);
        }
    }

    fn take_macro(&mut self, cursor: Cursor<'u>, source: &Source) {
        let range = cursor.range();
        let name = cursor.spelling();
        if name.starts_with("KBUILD_") || source.undefined_after(&name, small(range.start)) {
            return;
        }
        let line = source
            .text()
            .get(..range.start)
            .and_then(|before| before.iter().rposition(|byte| *byte == b'#'))
            .unwrap_or(range.start);
        let guard = || macro_detail(&source.file.slice(line..range.end)) == EMPTY_MACRO;
        if is_guard(&name) && guard() {
            return;
        }
        self.note(source, source.raw(name, line..range.end, None));
    }

    fn take_function(&mut self, cursor: Cursor<'u>, source: &Source) {
        let Some(sig) = types::signature_of(cursor) else {
            return;
        };
        let name = cursor.spelling();
        let range = self.range(cursor, &name, source);
        let text_end = source.text().get(range.end.wrapping_sub(1)).copied();
        let detail = Detail::Function {
            sig,
            body: cursor.is_definition() || text_end == Some(b'}'),
            is_static: cursor.is_static(),
        };
        self.note(source, source.raw(name, range, Some(detail)));
    }

    fn take_record(&mut self, cursor: Cursor<'u>, source: &Source, depth: u32) {
        let name = types::tag_name(cursor);
        if !cursor.is_definition() {
            self.take_forward(cursor, name, source);
            return;
        }
        if !name.is_empty() {
            let ty = cursor.ty();
            let mut fields = Vec::new();
            flatten(ty, Some(0), "", 0, &mut fields);
            let range = if depth > 0 {
                let expanded = cursor.expanded_range();
                expanded.start..expanded.end
            } else {
                self.range(cursor, &cursor.spelling(), source)
            };
            let detail = Detail::Record {
                is_union: cursor.kind() == CXCursor_UnionDecl,
                size: ty.size(),
                fields,
            };
            self.note(source, source.raw(name, range, Some(detail)));
        }
        if depth < 8 {
            self.take_nested(cursor, source, depth);
        }
    }

    /// `struct x;` and nothing else.
    fn take_forward(&mut self, cursor: Cursor<'u>, name: String, source: &Source) {
        let range = self.range(cursor, &cursor.spelling(), source);
        let text = source.file.slice(range.clone());
        if text.split_whitespace().count() != 2 {
            return;
        }
        let detail = Detail::Record {
            is_union: cursor.kind() == CXCursor_UnionDecl,
            size: None,
            fields: Vec::new(),
        };
        let mut raw = source.raw(name, range, Some(detail));
        raw.forward = true;
        self.note(source, raw);
    }

    /// Tags declared inside a record are visible outside of it.
    fn take_nested(&mut self, cursor: Cursor<'u>, source: &Source, depth: u32) {
        for child in cursor.children() {
            match child.kind() {
                CXCursor_StructDecl | CXCursor_UnionDecl if child.is_definition() => {
                    self.take_record(child, source, depth + 1)
                }
                CXCursor_EnumDecl => self.take_enum(child, source),
                _ => {}
            }
        }
    }

    fn take_enum(&mut self, cursor: Cursor<'u>, source: &Source) {
        if !cursor.is_definition() {
            return;
        }
        let name = types::tag_name(cursor);
        let range = self.range(cursor, &cursor.spelling(), source);
        let mut constants = Vec::new();
        for child in cursor.children() {
            if child.kind() != CXCursor_EnumConstantDecl {
                continue;
            }
            let (constant, value) = (child.spelling(), child.enum_value());
            constants.push((constant.clone(), value));
            let detail = Detail::EnumConst {
                value,
                parent: name.clone(),
            };
            // The list of constants may be a file of its own (`sched/sd_flags.h`): offsets there say nothing here.
            let raw = if child.file() == cursor.file() {
                let (at, range) = (child.offset(), child.range());
                let mut raw = source.raw(constant, range, Some(detail));
                raw.offset = small(at);
                raw.lines = (source.lines.line(at), source.lines.line(at));
                raw
            } else {
                source.raw(constant, range.clone(), Some(detail))
            };
            self.note(source, raw);
        }
        let detail = Detail::Enum { constants };
        self.note(source, source.raw(name, range, Some(detail)));
    }

    fn complaints(&self) -> Vec<(PathBuf, String)> {
        let of = |one: crate::clang::Diagnostic| {
            let path = normalise(&self.base, &self.unit.file_name(one.at.file?));
            Some((path, format!("line {}: {}", one.at.line, one.text)))
        };
        let errors = self.unit.diagnostics().into_iter();
        errors
            .filter(|one| one.severity >= CXDiagnostic_Error)
            .filter_map(of)
            .collect()
    }

    fn finish(self) -> Found {
        let errors = self.complaints();
        let mut raw = self.raw;
        let mut sources: Vec<Rc<Source>> = self.files.into_values().flatten().collect();
        sources.sort_unstable_by_key(|source| source.number);
        let with_raw = |source: Rc<Source>| {
            let source = Rc::into_inner(source)?;
            let list = std::mem::take(raw.get_mut(source.number)?);
            Some((source.file, list))
        };
        Found {
            files: sources.into_iter().filter_map(with_raw).collect(),
            includes: self.includes,
            errors,
        }
    }
}

/// `#define NAME` and nothing else.
const EMPTY_MACRO: Detail = Detail::Macro {
    params: None,
    body: String::new(),
};

fn is_invocation(text: &[u8], start: usize) -> bool {
    let after = start + lex::word_at(text, start).len();
    Lexer::inside(text, after)
        .next()
        .is_some_and(|token| token.kind == Kind::Punct(b'('))
}

/// A macro that only keeps a header from being read twice.
fn is_guard(name: &str) -> bool {
    name.contains("_H") && (name.ends_with("_H") || name.ends_with("_H_") || name.ends_with("_H__"))
        || name.starts_with("__HAVE_ARCH") && name.ends_with("_H")
}

/// A macro's parameters and body, from its text (`#define NAME…`).
pub fn macro_detail(text: &str) -> Detail {
    let bytes = text.as_bytes();
    let name = Lexer::new(bytes, 0)
        .filter(|token| token.kind == Kind::Word)
        .nth(1);
    let after = name.map_or(bytes.len(), |token| token.end);
    let (params, body_at) = if bytes.get(after) == Some(&b'(') {
        macro_params(bytes, after)
    } else {
        (None, after)
    };
    Detail::Macro {
        params,
        body: fold(bytes.get(body_at..).unwrap_or(&[])),
    }
}

/// Parameters of a function-like macro whose `(` stands at an offset, and where its body starts.
fn macro_params(text: &[u8], open: usize) -> (Option<Vec<String>>, usize) {
    let mut params: Vec<String> = Vec::new();
    let mut now = String::new();
    for token in Lexer::inside(text, open + 1) {
        match token.kind {
            Kind::Punct(b')') => {
                if !now.is_empty() {
                    params.push(now);
                }
                return (Some(params), token.end);
            }
            Kind::Punct(b',') => params.push(std::mem::take(&mut now)),
            Kind::Punct(b'.') => now.push('.'),
            _ => now.push_str(lex::slice(text, token)),
        }
    }
    (Some(params), text.len())
}

/// Lists a record's members; those of records without a name stand beside the others, those of an untagged record that
/// is itself a named member are listed as `member.inner`.
fn flatten(record: Type<'_>, base: Option<u64>, prefix: &str, depth: u32, out: &mut Vec<Field>) {
    for field in record.fields() {
        let name = field.spelling();
        let ty = field.ty();
        let offset = base
            .zip(field.field_offset())
            .map(|(base, offset)| base + offset);
        let inner = untagged(ty);
        if name.is_empty() || name.starts_with('(') {
            if let Some(inner) = inner.filter(|_| depth < 12) {
                flatten(inner, offset, prefix, depth + 1, out);
            }
            continue;
        }
        let full = format!("{prefix}{name}");
        let callback = types::is_callback(ty)
            .then(|| types::signature_of(field))
            .flatten();
        let nested = inner.filter(|_| depth < 12);
        out.push(Field {
            name: full.clone(),
            ty: types::ty(ty),
            offset_bits: offset,
            bit_width: field.bit_width(),
            callback,
        });
        if let Some(nested) = nested {
            flatten(nested, offset, &format!("{full}."), depth + 1, out);
        }
    }
}

/// The record behind a type, when it has neither tag nor typedef.
fn untagged(ty: Type<'_>) -> Option<Type<'_>> {
    let canonical = ty.canonical();
    if canonical.kind() != CXType_Record {
        return None;
    }
    let decl = canonical.declaration()?;
    types::tag_name(decl).is_empty().then_some(canonical)
}
