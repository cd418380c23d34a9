//! What one source file of a driver takes from its kernel.
#![allow(non_upper_case_globals)] // libclang's names

use crate::clang::{Cursor, FileId, ParseOptions, Place, Type, Unit};
use crate::headers::{Headers, normalise};
use crate::{Binding, Loc, LocalFunction, Result, Skipped, Tu, Use, UseKind, flags, lex, types};
use clang_sys::*;
use kspan_kernel::{Error, Kernel};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// A file of the translation unit.
struct FileInfo {
    path: PathBuf,
    /// Its text, for files of the driver only.
    text: Option<Vec<u8>>,
    header: String,
}

/// What makes two uses the same.
type Key = (
    UseKind,
    String,
    Option<String>,
    Option<String>,
    PathBuf,
    u32,
);

/// The state of one run.
struct Run<'u> {
    unit: &'u Unit,
    headers: Headers,
    root: PathBuf,
    real_root: Option<PathBuf>,
    files: HashMap<FileId, FileInfo>,
    tested: HashSet<String>,
    tested_defs: HashMap<String, (String, bool)>,
    /// The driver's own macros: file and the byte range of the body.
    own_macros: HashMap<String, (PathBuf, usize, usize)>,
    tu: Tu,
    seen: HashSet<Key>,
    decl_start: Option<Loc>,
    /// Depth of the walk, to refuse absurd nesting.
    depth: usize,
}

/// A source file of a driver, parsed, with the driver's directory by its whole name.
fn parse(
    kernel: &Kernel,
    source: &Path,
    args: &[String],
    driver_root: &Path,
    options: ParseOptions,
) -> Result<(Unit, PathBuf)> {
    let cwd = std::env::current_dir().unwrap_or_default();
    let root = normalise(&cwd, driver_root);
    let source = normalise(&root, source);
    if let Err(error) = std::fs::File::open(&source) {
        return Err(Error::Io {
            path: source,
            source: error,
        });
    }
    let args = flags::for_clang(kernel, args, &root);
    let unit = Unit::parse(&source.to_string_lossy(), &args, &[], options)?;
    Ok((unit, root))
}

/// See [`crate::skipped`].
pub fn skipped(
    kernel: &Kernel,
    source: &Path,
    args: &[String],
    driver_root: &Path,
) -> Result<Vec<Skipped>> {
    let options = ParseOptions { skip_bodies: true };
    let (unit, root) = parse(kernel, source, args, driver_root, options)?;
    let found = unit.skipped().into_iter().filter_map(|(start, end)| {
        let file = normalise(&root, &unit.file_name(start.file?));
        let between = (start.line, end.line);
        file.starts_with(&root).then_some(Skipped { file, between })
    });
    Ok(found.collect())
}

/// See [`crate::analyse`].
pub fn analyse(kernel: &Kernel, source: &Path, args: &[String], driver_root: &Path) -> Result<Tu> {
    let (unit, root) = parse(kernel, source, args, driver_root, ParseOptions::default())?;
    let mut run = Run {
        unit: &unit,
        headers: Headers::new(kernel),
        real_root: root.canonicalize().ok(),
        root,
        files: HashMap::new(),
        tested: HashSet::new(),
        tested_defs: HashMap::new(),
        own_macros: HashMap::new(),
        tu: Tu::default(),
        seen: HashSet::new(),
        decl_start: None,
        depth: 0,
    };
    run.learn_files();
    run.lexical();
    run.walk_unit();
    run.tested_uses();
    run.complaints();
    run.tu
        .uses
        .sort_by(|a, b| (&a.at, a.kind, &a.name).cmp(&(&b.at, b.kind, &b.name)));
    Ok(run.tu)
}

impl<'u> Run<'u> {
    fn learn_files(&mut self) {
        let mut ids: Vec<FileId> = self
            .unit
            .inclusions()
            .into_iter()
            .map(|(file, ..)| file)
            .collect();
        ids.dedup();
        for id in ids {
            self.learn(id);
        }
    }

    fn learn(&mut self, id: FileId) {
        if self.files.contains_key(&id) {
            return;
        }
        let path = normalise(&self.root, &self.unit.file_name(id));
        let own = path.starts_with(&self.root)
            || self
                .real_root
                .as_ref()
                .is_some_and(|root| path.canonicalize().is_ok_and(|real| real.starts_with(root)));
        let text = if own { std::fs::read(&path).ok() } else { None };
        self.files.insert(
            id,
            FileInfo {
                path,
                text,
                header: String::new(),
            },
        );
    }

    fn is_own(&self, file: Option<FileId>) -> bool {
        file.and_then(|file| self.files.get(&file))
            .is_some_and(|info| info.text.is_some())
    }

    fn header(&mut self, file: Option<FileId>) -> String {
        let Some(info) = file.and_then(|file| self.files.get_mut(&file)) else {
            return String::new();
        };
        if info.header.is_empty() {
            info.header = self.headers.spelling(&info.path);
        }
        info.header.clone()
    }

    fn loc(&self, place: Place) -> Option<Loc> {
        let info = self.files.get(&place.file?)?;
        info.text.as_ref()?;
        Some(Loc {
            file: info.path.clone(),
            line: place.line,
            column: place.column,
            offset: place.offset,
        })
    }

    fn text(&self, file: Option<FileId>) -> &[u8] {
        file.and_then(|file| self.files.get(&file))
            .and_then(|info| info.text.as_deref())
            .unwrap_or(&[])
    }

    fn word_at(&self, place: Place) -> &str {
        lex::word_at(self.text(place.file), place.offset as usize)
    }

    /// The kernel macro that made a node: the word in the driver's text, where it is not the node's own name.
    fn maker(&self, place: Place, name: &str) -> Option<String> {
        let word = self.word_at(place);
        if word == name {
            None
        } else {
            Some(word.to_owned())
        }
    }

    fn push(&mut self, one: Use) {
        let key = (
            one.kind,
            one.name.clone(),
            one.record.clone(),
            one.via_macro.clone(),
            one.at.file.clone(),
            one.at.offset,
        );
        if self.seen.insert(key) {
            self.tu.uses.push(one);
        }
    }

    /// What the tokens alone say: `CONFIG_X`, the words that `#if` lines test, and the bodies of the driver's macros.
    fn lexical(&mut self) {
        let mut found = Vec::new();
        for info in self.files.values() {
            let Some(text) = &info.text else { continue };
            let lines = LineIndex::new(text);
            for (word, token, place) in directive_words(text) {
                match place {
                    Directive::Test | Directive::Body => {
                        self.tested.insert(word.to_owned());
                    }
                    Directive::Define(end) => {
                        self.own_macros
                            .insert(word.to_owned(), (info.path.clone(), token.end, end));
                    }
                    Directive::None => {}
                }
                if word.starts_with("CONFIG_") && word.len() > 7 {
                    found.push((word.to_owned(), lines.loc(&info.path, token.start)));
                }
            }
        }
        for (name, at) in found {
            self.push(Use {
                kind: UseKind::Config,
                name,
                record: None,
                args: None,
                header: String::new(),
                at,
                via_macro: None,
            });
        }
    }

    fn text_of(&self, path: &Path) -> &[u8] {
        let info = self.files.values().find(|info| info.path == path);
        info.and_then(|info| info.text.as_deref()).unwrap_or(&[])
    }

    /// Where a name stands in the body of one of the driver's own macros, or of those that it uses.
    fn in_own_macro(&self, name: &str, within: &str, depth: u32) -> Option<Loc> {
        let (path, start, end) = self.own_macros.get(within)?;
        let text = self.text_of(path);
        let words = || {
            lex::Lexer::inside(text, *start)
                .take_while(|token| token.start < *end)
                .filter(|token| token.kind == lex::Kind::Word)
        };
        if let Some(token) = words().find(|token| lex::slice(text, *token) == name) {
            return Some(LineIndex::new(text).loc(path, token.start));
        }
        if depth > 8 {
            return None;
        }
        words().find_map(|token| self.in_own_macro(name, lex::slice(text, token), depth + 1))
    }

    /// The kernel macros in the body of one of the driver's own.
    fn kernel_macros_in(&self, within: &str) -> HashSet<String> {
        let Some((path, start, end)) = self.own_macros.get(within) else {
            return HashSet::new();
        };
        let text = self.text_of(path);
        lex::Lexer::inside(text, *start)
            .take_while(|token| token.start < *end)
            .map(|token| lex::slice(text, token).to_owned())
            .filter(|word| self.tested_defs.contains_key(word))
            .collect()
    }

    /// The place of a use and the kernel macro that made it. What one of the driver's own macros made stands in that
    /// macro's body.
    fn origin(&self, place: Place, name: &str) -> Option<(Loc, Option<String>)> {
        let at = self.loc(place)?;
        let Some(maker) = self.maker(place, name) else {
            return Some((at, None));
        };
        if !self.own_macros.contains_key(&maker) {
            return Some((at, Some(maker)));
        }
        if let Some(at) = self.in_own_macro(name, &maker, 0) {
            return Some((at, None));
        }
        let inner = self.kernel_macros_in(&maker);
        let only = if inner.len() == 1 {
            inner.into_iter().next()
        } else {
            None
        };
        Some((at, Some(only.unwrap_or(maker))))
    }

    fn walk_unit(&mut self) {
        let mut top = Vec::new();
        let mut wanted = Vec::new();
        self.unit.root().children_where(|cursor| {
            if self.is_own(cursor.file()) {
                top.push(cursor);
            } else if cursor.kind() == CXCursor_MacroDefinition && !self.tested.is_empty() {
                let name = cursor.spelling();
                if self.tested.contains(&name) {
                    wanted.push((name, cursor));
                }
            }
            false
        });
        for (name, cursor) in wanted {
            let header = self.header(cursor.file());
            self.tested_defs
                .insert(name, (header, cursor.is_function_like()));
        }
        for cursor in top {
            self.top_level(cursor);
        }
    }

    fn top_level(&mut self, cursor: Cursor<'u>) {
        match cursor.kind() {
            CXCursor_MacroExpansion => self.macro_use(cursor),
            CXCursor_InclusionDirective => self.include(cursor),
            CXCursor_MacroDefinition => {}
            _ => {
                self.decl_start = self.loc(cursor.extent().0);
                if cursor.kind() == CXCursor_FunctionDecl && cursor.is_definition() {
                    self.local_function(cursor);
                }
                self.walk(cursor);
            }
        }
    }

    fn macro_use(&mut self, cursor: Cursor<'u>) {
        let place = cursor.at();
        let name = cursor.spelling();
        let Some(definition) = cursor.referenced() else {
            return;
        };
        let file = definition.file();
        if self.is_own(file) || file.is_none() {
            return;
        }
        let Some(at) = self.loc(place) else { return };
        let args = if definition.is_function_like() {
            lex::count_arguments(self.text(place.file), place.offset as usize)
        } else {
            None
        };
        let header = self.header(file);
        self.push(Use {
            kind: UseKind::Macro,
            name,
            record: None,
            args,
            header,
            at,
            via_macro: None,
        });
    }

    fn include(&mut self, cursor: Cursor<'u>) {
        let Some(at) = self.loc(cursor.at()) else {
            return;
        };
        let name = cursor.spelling();
        let file = cursor.included_file();
        if let Some(file) = file {
            self.learn(file);
        }
        let resolved = file
            .and_then(|file| self.files.get(&file))
            .map(|info| info.path.clone());
        if !self.is_own(file) {
            let header = if file.is_some() {
                self.header(file)
            } else {
                name.clone()
            };
            self.push(Use {
                kind: UseKind::Header,
                name: name.clone(),
                record: None,
                args: None,
                header,
                at: at.clone(),
                via_macro: None,
            });
        }
        self.tu.includes.push((at, name, resolved));
    }

    fn local_function(&mut self, cursor: Cursor<'u>) {
        let (start, end) = cursor.extent();
        let (Some(start), Some(end), Some(sig)) =
            (self.loc(start), self.loc(end), types::signature_of(cursor))
        else {
            return;
        };
        self.tu.functions.push(LocalFunction {
            name: cursor.spelling(),
            sig,
            is_static: cursor.is_static(),
            start,
            end,
        });
    }

    /// Walks below a cursor.
    fn walk(&mut self, cursor: Cursor<'u>) {
        if self.depth > 400 {
            return;
        }
        self.depth += 1;
        let children = cursor.children();
        match cursor.kind() {
            CXCursor_DeclRefExpr => self.reference(cursor, None),
            CXCursor_TypeRef => self.type_use(cursor),
            CXCursor_MemberRefExpr | CXCursor_MemberRef => self.field_use(cursor),
            CXCursor_CallExpr => self.call(cursor),
            CXCursor_VarDecl | CXCursor_CompoundLiteralExpr => {
                if let Some(list) = children
                    .iter()
                    .find(|child| child.kind() == CXCursor_InitListExpr)
                {
                    self.init_list(*list, cursor.ty());
                }
            }
            CXCursor_BinaryOperator => self.assignment(&children),
            _ => {}
        }
        for child in children {
            self.walk(child);
        }
        self.depth -= 1;
    }

    fn reference(&mut self, cursor: Cursor<'u>, args: Option<u32>) {
        let Some(target) = cursor.referenced() else {
            return;
        };
        let kind = match target.kind() {
            CXCursor_FunctionDecl => UseKind::Function,
            CXCursor_VarDecl => UseKind::Variable,
            CXCursor_EnumConstantDecl => UseKind::EnumConst,
            _ => return,
        };
        let target = target
            .definition()
            .filter(|_| kind == UseKind::Function)
            .unwrap_or(target);
        self.named_use(cursor, kind, target, None, args);
    }

    /// Notes a use of something that the kernel declares.
    fn named_use(
        &mut self,
        cursor: Cursor<'u>,
        kind: UseKind,
        target: Cursor<'u>,
        record: Option<String>,
        args: Option<u32>,
    ) {
        let file = target.file();
        if file.is_none() || self.is_own(file) {
            return;
        }
        let name = target.spelling();
        if name.is_empty() || name.starts_with("__builtin_") {
            return;
        }
        let Some((at, via_macro)) = self.origin(cursor.at(), &name) else {
            return;
        };
        // A local of a macro's or inline's body is no offer of the kernel.
        if kind == UseKind::Variable
            && target
                .semantic_parent()
                .is_some_and(|parent| parent.kind() != CXCursor_TranslationUnit)
        {
            return;
        }
        let header = self.header(file);
        self.push(Use {
            kind,
            name,
            record,
            args,
            header,
            at,
            via_macro,
        });
    }

    fn type_use(&mut self, cursor: Cursor<'u>) {
        let Some(target) = cursor.referenced() else {
            return;
        };
        let target = target.definition().unwrap_or(target);
        self.named_use(cursor, UseKind::Type, target, None, None);
    }

    fn field_use(&mut self, cursor: Cursor<'u>) {
        let Some(target) = cursor
            .referenced()
            .filter(|target| target.kind() == CXCursor_FieldDecl)
        else {
            return;
        };
        let record = target.semantic_parent().map(types::record_name);
        self.named_use(cursor, UseKind::Field, target, record, None);
    }

    fn call(&mut self, cursor: Cursor<'u>) {
        let Some(arguments) = cursor.arguments() else {
            return;
        };
        let Some(callee) = cursor.referenced() else {
            return;
        };
        if callee.kind() != CXCursor_FunctionDecl {
            return;
        }
        let count = u32::try_from(arguments.len()).ok();
        if let Some(name) = cursor
            .children()
            .first()
            .and_then(|first| find_reference(*first, 0))
        {
            self.reference(name, count);
        }
        let file = callee.definition().unwrap_or(callee).file();
        let parameters = callee.ty().parameters();
        if file.is_none() || self.is_own(file) {
            for (argument, parameter) in arguments.iter().zip(parameters) {
                if let Some(slot) = self.named_type(parameter) {
                    self.bind(*argument, &slot);
                }
            }
            return;
        }
        for (number, (argument, parameter)) in arguments.iter().zip(parameters).enumerate() {
            if types::is_callback(parameter) {
                let slot = Slot {
                    record: String::new(),
                    field: format!("{}#{number}", callee.spelling()),
                    field_at: None,
                    header: self.header(file),
                    expects: callee
                        .arguments()
                        .and_then(|list| list.get(number).copied())
                        .and_then(types::signature_of)
                        .or_else(|| types::signature(parameter, &[])),
                };
                self.bind(*argument, &slot);
            }
        }
    }

    /// `x->field = function`.
    fn assignment(&mut self, children: &[Cursor<'u>]) {
        let [left, right] = children else { return };
        if left.kind() != CXCursor_MemberRefExpr || !types::is_callback(left.ty()) {
            return;
        }
        let Some(field) = left
            .referenced()
            .filter(|field| field.kind() == CXCursor_FieldDecl)
        else {
            return;
        };
        let end = left.extent().1;
        let mut tokens = lex::Lexer::new(self.text(end.file), end.offset as usize);
        let first = tokens.next().map(|token| token.kind);
        let second = tokens.next().map(|token| token.kind);
        if first != Some(lex::Kind::Punct(b'=')) || second == Some(lex::Kind::Punct(b'=')) {
            return;
        }
        if let Some(slot) = self.slot(field, Some(left.at())) {
            self.bind(*right, &slot);
        }
    }

    /// What the driver's own parameter or member expects that has a function type which the kernel names; `None` for any other type.
    fn named_type(&mut self, of: Type<'u>) -> Option<Slot> {
        if of.kind() != CXType_Typedef || !types::is_callback(of) {
            return None;
        }
        let named = of.declaration()?;
        let file = named.file();
        if file.is_none() || self.is_own(file) {
            return None;
        }
        Some(Slot {
            record: String::new(),
            field: named.spelling(),
            field_at: None,
            header: self.header(file),
            expects: types::signature_of(named).or_else(|| types::signature(of, &[])),
        })
    }

    /// What a field of a kernel record expects; for the driver's own records, only where the kernel names its type.
    fn slot(&mut self, field: Cursor<'u>, written: Option<Place>) -> Option<Slot> {
        let file = field.file();
        if file.is_none() || self.is_own(file) {
            return self.named_type(field.ty());
        }
        if !types::is_callback(field.ty()) {
            return None;
        }
        let name = field.spelling();
        let field_at = written
            .filter(|place| self.word_at(*place) == name)
            .and_then(|place| self.loc(place));
        Some(Slot {
            record: field
                .semantic_parent()
                .map(types::record_name)
                .unwrap_or_default(),
            field_at,
            header: self.header(file),
            expects: types::signature_of(field),
            field: name,
        })
    }

    fn bind(&mut self, value: Cursor<'u>, slot: &Slot) {
        let mut found = Vec::new();
        functions_in(value, 0, &mut found);
        for reference in found {
            let Some(function) = reference.referenced() else {
                continue;
            };
            let own = function.definition().unwrap_or(function);
            if !self.is_own(own.file()) && !self.is_own(function.file()) {
                continue;
            }
            let place = reference.at();
            let (Some(at), Some(decl_start), Some(sig)) = (
                self.loc(place),
                self.decl_start.clone(),
                types::signature_of(own),
            ) else {
                continue;
            };
            let name = function.spelling();
            let expanded = reference.expanded_at();
            let in_macro = expanded.offset != place.offset || self.word_at(place) != name;
            // Inside a macro only if the member, too, comes from it.
            let via_macro = (in_macro && slot.field_at.is_none())
                .then(|| self.word_at(expanded).to_owned())
                .filter(|word| !word.is_empty());
            self.tu.bindings.push(Binding {
                record: slot.record.clone(),
                field: slot.field.clone(),
                function: name,
                sig,
                at,
                field_at: slot.field_at.clone(),
                decl_start,
                via_macro,
                header: slot.header.clone(),
                expects: slot.expects.clone(),
            });
        }
    }

    /// Walks an initialiser with the type that it fills.
    fn init_list(&mut self, list: Cursor<'u>, of: Type<'u>) {
        let canonical = of.canonical();
        match canonical.kind() {
            CXType_Record => self.init_record(list, canonical),
            CXType_ConstantArray | CXType_IncompleteArray | CXType_VariableArray => {
                for element in list.children() {
                    if let Some(inner) = inner_list(element) {
                        self.init_list(inner, canonical.element());
                    }
                }
            }
            _ => {}
        }
    }

    fn init_record(&mut self, list: Cursor<'u>, record: Type<'u>) {
        let fields = record.fields();
        let mut next = 0;
        for element in list.children() {
            let parts = element.children();
            let mut designators: Vec<Cursor<'u>> = parts
                .iter()
                .copied()
                .filter(|part| part.kind() == CXCursor_MemberRef)
                .collect();
            // libclang lists them from the last to the first; order them as written.
            designators.sort_by_key(|part| part.at().offset);
            let written = element.kind() == CXCursor_UnexposedExpr && !designators.is_empty();
            let (field, at, value) = if written {
                let Some(last) = designators.last() else {
                    continue;
                };
                let Some(field) = last.referenced() else {
                    continue;
                };
                let first = designators.first().and_then(|first| first.referenced());
                next = fields
                    .iter()
                    .position(|one| Some(*one) == first)
                    .map_or(next, |at| at + 1);
                let value = parts
                    .iter()
                    .copied()
                    .find(|part| part.kind() != CXCursor_MemberRef);
                (field, Some(last.at()), value)
            } else {
                let Some(field) = fields.get(next).copied() else {
                    continue;
                };
                next += 1;
                (field, None, Some(element))
            };
            let Some(value) = value else { continue };
            if let Some(inner) = inner_list(value) {
                self.init_list(inner, field.ty());
                if !types::is_callback(field.ty()) {
                    continue;
                }
            }
            if let Some(slot) = self.slot(field, at) {
                self.bind(value, &slot);
            }
        }
    }

    /// Kernel macros that `#if` lines test or that the driver's own macros expand.
    fn tested_uses(&mut self) {
        let mut found = Vec::new();
        for info in self.files.values() {
            let Some(text) = &info.text else { continue };
            let lines = LineIndex::new(text);
            for (word, token, place) in directive_words(text) {
                let Some((header, function_like)) = self.tested_defs.get(word) else {
                    continue;
                };
                if !matches!(place, Directive::Test | Directive::Body)
                    || word.starts_with("CONFIG_")
                    || header.is_empty()
                {
                    continue;
                }
                let args = if *function_like {
                    lex::count_arguments(text, token.start)
                } else {
                    None
                };
                found.push((
                    word.to_owned(),
                    args,
                    header.clone(),
                    lines.loc(&info.path, token.start),
                ));
            }
        }
        for (name, args, header, at) in found {
            self.push(Use {
                kind: UseKind::Macro,
                name,
                record: None,
                args,
                header,
                at,
                via_macro: None,
            });
        }
    }

    fn complaints(&mut self) {
        for one in self.unit.diagnostics() {
            if one.severity < CXDiagnostic_Error {
                continue;
            }
            if let Some(file) = one.at.file {
                self.learn(file);
            }
            let path = one
                .at
                .file
                .and_then(|file| self.files.get(&file))
                .map(|info| info.path.clone())
                .unwrap_or_default();
            let inside = self.tu.functions.iter().find(|function| {
                function.start.file == path
                    && function.start.offset <= one.at.offset
                    && one.at.offset <= function.end.offset
            });
            let place = inside.map_or(String::new(), |function| {
                format!(" (in {}())", function.name)
            });
            self.tu.unanalysed.push(format!(
                "{}:{}:{}{place}: {}",
                path.display(),
                one.at.line,
                one.at.column,
                one.text
            ));
        }
    }
}

/// What a word is to the directive that it stands in.
enum Directive {
    /// Stands in ordinary text, or names the directive.
    None,
    /// Tested by `#if` and its relatives.
    Test,
    /// The name that `#define` defines, with the end of its body.
    Define(usize),
    /// In the parameters or the body of a `#define`.
    Body,
}

/// Every word of a text with its part in directives.
fn directive_words(text: &[u8]) -> Vec<(&str, lex::Token, Directive)> {
    #[derive(PartialEq)]
    enum State {
        Text,
        Opened,
        Test,
        Define,
        Body,
        Other,
    }
    let mut state = State::Text;
    let mut out: Vec<(&str, lex::Token, Directive)> = Vec::new();
    let mut define = None;
    for token in lex::Lexer::new(text, 0) {
        match token.kind {
            lex::Kind::Hash => state = State::Opened,
            lex::Kind::LineEnd => {
                if let Some(slot) = define.take().and_then(|at: usize| out.get_mut(at)) {
                    slot.2 = Directive::Define(token.start);
                }
                state = State::Text;
            }
            lex::Kind::Word => {
                let word = lex::slice(text, token);
                let part = match state {
                    State::Text | State::Other => Directive::None,
                    State::Test => Directive::Test,
                    State::Body => Directive::Body,
                    State::Define => {
                        define = Some(out.len());
                        state = State::Body;
                        Directive::Define(token.end)
                    }
                    State::Opened => {
                        state = match word {
                            "if" | "ifdef" | "ifndef" | "elif" | "elifdef" | "elifndef" => {
                                State::Test
                            }
                            "define" => State::Define,
                            _ => State::Other,
                        };
                        Directive::None
                    }
                };
                out.push((word, token, part));
            }
            _ => {}
        }
    }
    out
}

/// A place that expects a function.
struct Slot {
    record: String,
    field: String,
    field_at: Option<Loc>,
    header: String,
    expects: Option<crate::Signature>,
}

/// The initialiser list inside an element (`[0] = {…}`, `.x = {…}`, `{…}`).
fn inner_list(element: Cursor<'_>) -> Option<Cursor<'_>> {
    if element.kind() == CXCursor_InitListExpr {
        return Some(element);
    }
    if element.kind() != CXCursor_UnexposedExpr {
        return None;
    }
    element
        .children()
        .into_iter()
        .find(|child| child.kind() == CXCursor_InitListExpr)
}

/// The name at the bottom of a callee expression.
fn find_reference(cursor: Cursor<'_>, depth: u32) -> Option<Cursor<'_>> {
    match cursor.kind() {
        CXCursor_DeclRefExpr => Some(cursor),
        CXCursor_UnexposedExpr | CXCursor_ParenExpr if depth < 8 => cursor
            .children()
            .into_iter()
            .find_map(|child| find_reference(child, depth + 1)),
        _ => None,
    }
}

fn is_function(reference: Cursor<'_>) -> bool {
    reference
        .referenced()
        .is_some_and(|target| target.kind() == CXCursor_FunctionDecl)
}

/// Functions whose address an expression may yield.
fn functions_in<'u>(cursor: Cursor<'u>, depth: u32, out: &mut Vec<Cursor<'u>>) {
    match cursor.kind() {
        CXCursor_DeclRefExpr if is_function(cursor) => out.push(cursor),
        CXCursor_UnexposedExpr
        | CXCursor_ParenExpr
        | CXCursor_CStyleCastExpr
        | CXCursor_UnaryOperator
        | CXCursor_ConditionalOperator
        | CXCursor_GenericSelectionExpr
        | CXCursor_StmtExpr
        | CXCursor_CompoundStmt
            if depth < 24 =>
        {
            for child in cursor.children() {
                functions_in(child, depth + 1, out);
            }
        }
        _ => {}
    }
}

/// Line starts of a text.
pub struct LineIndex {
    starts: Vec<usize>,
}

impl LineIndex {
    /// Reads a text once.
    pub fn new(text: &[u8]) -> Self {
        let mut starts = vec![0];
        starts.extend(
            text.iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b'\n')
                .map(|(at, _)| at + 1),
        );
        Self { starts }
    }
    /// The line of an offset, from 1.
    pub fn line(&self, offset: usize) -> u32 {
        let line = self.starts.partition_point(|start| *start <= offset);
        u32::try_from(line.max(1)).unwrap_or(u32::MAX)
    }
    /// The place of an offset.
    pub fn loc(&self, file: &Path, offset: usize) -> Loc {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Loc {
            file: file.to_path_buf(),
            line: small(line),
            column: small(offset - start + 1),
            offset: small(offset),
        }
    }
}
