//! The one place that talks to libclang: a small safe wrapper around its C interface.
//!
//! Every wrapper value borrows from the [`Unit`] it came from, so nothing outlives the translation unit. libclang's
//! functions are looked up at run time; [`Unit::parse`] makes sure that the calling thread has them.
#![allow(unsafe_code)]

use clang_sys::*;
use kspan_kernel::Error;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// The library, loaded once for the process; each thread is then told of it.
static LIBRARY: OnceLock<std::result::Result<Arc<SharedLibrary>, String>> = OnceLock::new();

/// Makes libclang's functions callable on this thread.
pub fn ensure_loaded() -> Result<(), Error> {
    if is_loaded() {
        return Ok(());
    }
    let library = LIBRARY.get_or_init(|| load_manually().map(Arc::new));
    match library {
        Ok(library) => {
            set_library(Some(Arc::clone(library)));
            Ok(())
        }
        Err(words) => Err(Error::Environment(format!(
            "libclang could not be loaded, and kernel headers cannot be read without it: {words}. Install it (Debian: libclang1-14 or newer) or name its directory in LIBCLANG_PATH"
        ))),
    }
}

/// Makes glibc return what libclang freed; else the syntax trees of all headers stay resident one beside the other. Once
/// a translation unit is enough.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only looks at free memory, under the allocator's own locks (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Takes ownership of a string that libclang made.
fn take(text: CXString) -> String {
    // SAFETY: `text` comes straight from libclang; its C string lives until it is disposed of below.
    unsafe {
        let pointer = clang_getCString(text);
        let owned = if pointer.is_null() {
            String::new()
        } else {
            CStr::from_ptr(pointer).to_string_lossy().into_owned()
        };
        clang_disposeString(text);
        owned
    }
}

/// A file of a translation unit; equal exactly when it is the same file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId(usize);

/// A position in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The file; `None` for what the compiler makes up.
    pub file: Option<FileId>,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// Byte offset.
    pub offset: u32,
}

impl std::fmt::Debug for FileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileId({:x})", self.0)
    }
}

/// A complaint of the parser.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// 3 is an error, 4 fatal.
    pub severity: i32,
    /// Its words.
    pub text: String,
    /// Where.
    pub at: Place,
}

/// A parsed translation unit.
pub struct Unit {
    index: CXIndex,
    unit: CXTranslationUnit,
}

impl Drop for Unit {
    fn drop(&mut self) {
        // SAFETY: both were made in `parse` and are disposed of exactly once.
        unsafe {
            clang_disposeTranslationUnit(self.unit);
            clang_disposeIndex(self.index);
        }
        give_memory_back();
    }
}

/// What libclang shall do while parsing.
#[derive(Debug, Clone, Copy, Default)]
pub struct ParseOptions {
    /// Do not look into function bodies.
    pub skip_bodies: bool,
}

fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

fn place(file: CXFile, line: c_uint, column: c_uint, offset: c_uint) -> Place {
    let file = if file.is_null() {
        None
    } else {
        Some(FileId(file as usize))
    };
    Place {
        file,
        line,
        column,
        offset,
    }
}

/// The place in a file behind a location: for what a macro's body made, the macro's name in the file; for what came
/// through a macro's argument, the argument in the file.
fn file_place(location: CXSourceLocation) -> Place {
    let mut file: CXFile = std::ptr::null_mut();
    let (mut line, mut column, mut offset) = (0, 0, 0);
    // SAFETY: out-pointers to locals of the right types.
    unsafe { clang_getFileLocation(location, &mut file, &mut line, &mut column, &mut offset) };
    place(file, line, column, offset)
}

/// Where the outermost macro that made a location stands in a file.
fn expansion_place(location: CXSourceLocation) -> Place {
    let mut file: CXFile = std::ptr::null_mut();
    let (mut line, mut column, mut offset) = (0, 0, 0);
    // SAFETY: out-pointers to locals of the right types.
    unsafe { clang_getExpansionLocation(location, &mut file, &mut line, &mut column, &mut offset) };
    place(file, line, column, offset)
}

/// The byte offset of [`file_place`].
fn file_offset(location: CXSourceLocation) -> usize {
    let mut offset = 0;
    let (file, null) = (std::ptr::null_mut(), std::ptr::null_mut);
    // SAFETY: null out-pointers are allowed by libclang; `offset` is a local of the right type.
    unsafe { clang_getFileLocation(location, file, null(), null(), &mut offset) };
    offset as usize
}

/// The byte offset of the outermost macro that made a location.
fn expansion_offset(location: CXSourceLocation) -> usize {
    let mut offset = 0;
    let (file, null) = (std::ptr::null_mut(), std::ptr::null_mut);
    // SAFETY: null out-pointers are allowed by libclang; `offset` is a local of the right type.
    unsafe { clang_getExpansionLocation(location, file, null(), null(), &mut offset) };
    offset as usize
}

/// Byte offsets of a declaration that a macro may have made, where the outermost macro stands.
#[derive(Debug, Clone, Copy)]
pub struct Expanded {
    /// First byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
    /// Where its name is.
    pub at: usize,
}

impl Unit {
    /// Parses a source file. Errors in the C text are no errors here: see [`Unit::diagnostics`].
    pub fn parse(
        source: &str,
        args: &[String],
        unsaved: &[(String, String)],
        options: ParseOptions,
    ) -> Result<Self, Error> {
        ensure_loaded()?;
        let source_c = c_string(source);
        let args_c: Vec<CString> = args.iter().map(|arg| c_string(arg)).collect();
        let args_p: Vec<*const c_char> = args_c.iter().map(|arg| arg.as_ptr()).collect();
        let texts: Vec<(CString, &String)> = unsaved
            .iter()
            .map(|(name, text)| (c_string(name), text))
            .collect();
        let mut files: Vec<CXUnsavedFile> = texts
            .iter()
            .map(|(name, text)| CXUnsavedFile {
                Filename: name.as_ptr(),
                Contents: text.as_ptr().cast(),
                Length: text.len() as _,
            })
            .collect();
        let mut flags = CXTranslationUnit_DetailedPreprocessingRecord | CXTranslationUnit_KeepGoing;
        if options.skip_bodies {
            flags |= CXTranslationUnit_SkipFunctionBodies;
        }
        let mut unit: CXTranslationUnit = std::ptr::null_mut();
        // SAFETY: all pointers stay valid for the duration of the call; counts match the vectors.
        let (index, code) = unsafe {
            let index = clang_createIndex(0, 0);
            let code = clang_parseTranslationUnit2(
                index,
                source_c.as_ptr(),
                args_p.as_ptr(),
                args_p.len() as c_int,
                files.as_mut_ptr(),
                files.len() as c_uint,
                flags,
                &mut unit,
            );
            (index, code)
        };
        if code != CXError_Success || unit.is_null() {
            // SAFETY: `index` was made above and is used nowhere else.
            unsafe { clang_disposeIndex(index) };
            return Err(Error::Input(format!(
                "{source}: libclang could not read this file at all (error {code}). See that it exists, is readable, and that the kernel's flags are complete"
            )));
        }
        Ok(Self { index, unit })
    }

    /// The whole unit.
    pub fn root(&self) -> Cursor<'_> {
        // SAFETY: the unit lives as long as the borrow.
        Cursor {
            raw: unsafe { clang_getTranslationUnitCursor(self.unit) },
            life: PhantomData,
        }
    }

    /// All complaints.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        // SAFETY: indices stay below the count; each diagnostic is disposed of after use.
        unsafe {
            (0..clang_getNumDiagnostics(self.unit))
                .map(|number| {
                    let raw = clang_getDiagnostic(self.unit, number);
                    let made = Diagnostic {
                        severity: clang_getDiagnosticSeverity(raw),
                        text: take(clang_getDiagnosticSpelling(raw)),
                        at: file_place(clang_getDiagnosticLocation(raw)),
                    };
                    clang_disposeDiagnostic(raw);
                    made
                })
                .collect()
        }
    }

    /// What the preprocessor left out: from the directive that begins it to the one that ends it.
    pub fn skipped(&self) -> Vec<(Place, Place)> {
        // SAFETY: the list is checked for null, read below its own count, and disposed of once.
        unsafe {
            let list = clang_getAllSkippedRanges(self.unit);
            if list.is_null() {
                return Vec::new();
            }
            let out = (0..(*list).count as usize)
                .map(|at| {
                    let range = *(*list).ranges.add(at);
                    let (start, end) = (clang_getRangeStart(range), clang_getRangeEnd(range));
                    (file_place(start), file_place(end))
                })
                .collect();
            clang_disposeSourceRangeList(list);
            out
        }
    }

    /// A file's name as it was given or found through the include path.
    pub fn file_name(&self, file: FileId) -> PathBuf {
        // SAFETY: a FileId is only made from a file pointer of a live unit.
        PathBuf::from(take(unsafe { clang_getFileName(file.0 as CXFile) }))
    }

    /// Every inclusion: the included file and the file that includes it (`None` for the main file and `-include`).
    pub fn inclusions(&self) -> Vec<(FileId, Option<FileId>, u32)> {
        extern "C" fn visit(
            file: CXFile,
            stack: *mut CXSourceLocation,
            depth: c_uint,
            data: CXClientData,
        ) {
            // SAFETY: `data` is the vector passed below; `stack` holds `depth` locations.
            unsafe {
                let out = &mut *data.cast::<Vec<(FileId, Option<FileId>, u32)>>();
                let place = if depth > 0 {
                    file_place(*stack)
                } else {
                    Place {
                        file: None,
                        line: 0,
                        column: 0,
                        offset: 0,
                    }
                };
                out.push((FileId(file as usize), place.file, place.offset));
            }
        }
        let mut out: Vec<(FileId, Option<FileId>, u32)> = Vec::new();
        // SAFETY: `out` outlives the call, and the visitor casts it back to its own type.
        unsafe { clang_getInclusions(self.unit, visit, (&raw mut out).cast::<c_void>()) };
        out
    }
}

/// What a visitor wants next.
pub type Children<'u> = Vec<Cursor<'u>>;

/// A node of the syntax tree or of the preprocessing record.
#[derive(Clone, Copy)]
pub struct Cursor<'u> {
    raw: CXCursor,
    life: PhantomData<&'u Unit>,
}

impl PartialEq for Cursor<'_> {
    fn eq(&self, other: &Self) -> bool {
        // SAFETY: plain comparison of two live cursors.
        unsafe { clang_equalCursors(self.raw, other.raw) != 0 }
    }
}

impl<'u> Cursor<'u> {
    fn wrap(raw: CXCursor) -> Option<Self> {
        // SAFETY: asks about the value only.
        if unsafe {
            clang_Cursor_isNull(raw) != 0 || clang_isInvalid(clang_getCursorKind(raw)) != 0
        } {
            None
        } else {
            Some(Self {
                raw,
                life: PhantomData,
            })
        }
    }
    /// `CXCursor_…`.
    pub fn kind(self) -> CXCursorKind {
        self.raw.kind
    }
    /// Its name.
    pub fn spelling(self) -> String {
        // SAFETY: the cursor's unit is alive (borrow).
        take(unsafe { clang_getCursorSpelling(self.raw) })
    }
    /// The file of its location only; cheaper than [`Cursor::at`].
    pub fn file(self) -> Option<FileId> {
        let mut file: CXFile = std::ptr::null_mut();
        let null = std::ptr::null_mut;
        // SAFETY: null out-pointers are allowed by libclang.
        unsafe {
            clang_getFileLocation(
                clang_getCursorLocation(self.raw),
                &mut file,
                null(),
                null(),
                null(),
            )
        };
        if file.is_null() {
            None
        } else {
            Some(FileId(file as usize))
        }
    }
    /// Its location (of its name).
    pub fn at(self) -> Place {
        // SAFETY: the cursor's unit is alive (borrow).
        file_place(unsafe { clang_getCursorLocation(self.raw) })
    }
    /// The outermost macro expansion at its location.
    pub fn expanded_at(self) -> Place {
        // SAFETY: the cursor's unit is alive (borrow).
        expansion_place(unsafe { clang_getCursorLocation(self.raw) })
    }
    /// First byte and the byte after the last, in file terms.
    pub fn extent(self) -> (Place, Place) {
        // SAFETY: the cursor's unit is alive (borrow).
        unsafe {
            let range = clang_getCursorExtent(self.raw);
            (
                file_place(clang_getRangeStart(range)),
                file_place(clang_getRangeEnd(range)),
            )
        }
    }
    /// The byte offset of [`Cursor::at`]; cheaper, for lines and columns are counted.
    pub fn offset(self) -> usize {
        // SAFETY: the cursor's unit is alive (borrow).
        file_offset(unsafe { clang_getCursorLocation(self.raw) })
    }
    /// The byte offsets of [`Cursor::extent`].
    pub fn range(self) -> std::ops::Range<usize> {
        // SAFETY: the cursor's unit is alive (borrow).
        unsafe {
            let range = clang_getCursorExtent(self.raw);
            file_offset(clang_getRangeStart(range))..file_offset(clang_getRangeEnd(range))
        }
    }
    /// Byte offsets of its extent and location, at the outermost expansions.
    pub fn expanded_range(self) -> Expanded {
        // SAFETY: the cursor's unit is alive (borrow).
        unsafe {
            let range = clang_getCursorExtent(self.raw);
            Expanded {
                start: expansion_offset(clang_getRangeStart(range)),
                end: expansion_offset(clang_getRangeEnd(range)),
                at: expansion_offset(clang_getCursorLocation(self.raw)),
            }
        }
    }
    /// Direct children that `keep` wants.
    pub fn children_where(self, keep: impl FnMut(Cursor<'u>) -> bool) -> Children<'u> {
        struct State<'u, F> {
            out: Vec<Cursor<'u>>,
            keep: F,
        }
        extern "C" fn visit<'u, F: FnMut(Cursor<'u>) -> bool>(
            raw: CXCursor,
            _: CXCursor,
            data: CXClientData,
        ) -> CXChildVisitResult {
            // SAFETY: `data` is the state passed below, of the same `F`.
            let state = unsafe { &mut *data.cast::<State<'u, F>>() };
            let cursor = Cursor {
                raw,
                life: PhantomData,
            };
            if (state.keep)(cursor) {
                state.out.push(cursor);
            }
            CXChildVisit_Continue
        }
        fn visitor<'u, F: FnMut(Cursor<'u>) -> bool>(_: &State<'u, F>) -> CXCursorVisitor {
            visit::<F>
        }
        let mut state = State {
            out: Vec::new(),
            keep,
        };
        let function = visitor(&state);
        // SAFETY: `state` outlives the call, and the visitor casts it back to its own type.
        unsafe { clang_visitChildren(self.raw, function, (&raw mut state).cast::<c_void>()) };
        state.out
    }
    /// Direct children.
    pub fn children(self) -> Children<'u> {
        self.children_where(|_| true)
    }
    /// What a reference refers to.
    pub fn referenced(self) -> Option<Self> {
        // SAFETY: the cursor's unit is alive (borrow).
        Self::wrap(unsafe { clang_getCursorReferenced(self.raw) })
    }
    /// The definition of what it declares or refers to.
    pub fn definition(self) -> Option<Self> {
        // SAFETY: the cursor's unit is alive (borrow).
        Self::wrap(unsafe { clang_getCursorDefinition(self.raw) })
    }
    /// Is itself a definition.
    pub fn is_definition(self) -> bool {
        // SAFETY: the cursor's unit is alive (borrow).
        unsafe { clang_isCursorDefinition(self.raw) != 0 }
    }
    /// What it is declared in.
    pub fn semantic_parent(self) -> Option<Self> {
        // SAFETY: the cursor's unit is alive (borrow).
        Self::wrap(unsafe { clang_getCursorSemanticParent(self.raw) })
    }
    /// Its type.
    pub fn ty(self) -> Type<'u> {
        // SAFETY: the cursor's unit is alive (borrow).
        Type {
            raw: unsafe { clang_getCursorType(self.raw) },
            life: PhantomData,
        }
    }
    /// What a typedef stands for.
    pub fn typedef_target(self) -> Type<'u> {
        // SAFETY: the cursor's unit is alive (borrow).
        Type {
            raw: unsafe { clang_getTypedefDeclUnderlyingType(self.raw) },
            life: PhantomData,
        }
    }
    /// Arguments of a call or parameters of a function; `None` when it is neither.
    pub fn arguments(self) -> Option<Children<'u>> {
        // SAFETY: indices stay below the count.
        unsafe {
            let count = clang_Cursor_getNumArguments(self.raw);
            let count = c_uint::try_from(count).ok()?;
            Some(
                (0..count)
                    .filter_map(|number| Self::wrap(clang_Cursor_getArgument(self.raw, number)))
                    .collect(),
            )
        }
    }
    /// A macro with parameters.
    pub fn is_function_like(self) -> bool {
        // SAFETY: the cursor's unit is alive (borrow).
        unsafe { clang_Cursor_isMacroFunctionLike(self.raw) != 0 }
    }
    /// The file an `#include` found.
    pub fn included_file(self) -> Option<FileId> {
        // SAFETY: the cursor's unit is alive (borrow).
        let file = unsafe { clang_getIncludedFile(self.raw) };
        if file.is_null() {
            None
        } else {
            Some(FileId(file as usize))
        }
    }
    /// `static`.
    pub fn is_static(self) -> bool {
        // SAFETY: the cursor's unit is alive (borrow).
        unsafe { clang_Cursor_getStorageClass(self.raw) == CX_SC_Static }
    }
    /// An enumeration constant's value; of an unsigned enumeration's as it is, not as the signed number of the same bits.
    pub fn enum_value(self) -> i64 {
        // SAFETY: the cursor's unit is alive (borrow); a null parent gives an invalid type.
        unsafe {
            let ty = clang_getEnumDeclIntegerType(clang_getCursorSemanticParent(self.raw));
            if clang_getCanonicalType(ty).kind == CXType_UInt {
                return i64::from(clang_getEnumConstantDeclUnsignedValue(self.raw) as u32);
            }
            clang_getEnumConstantDeclValue(self.raw)
        }
    }
    /// Offset of a field in its record, in bits.
    pub fn field_offset(self) -> Option<u64> {
        // SAFETY: the cursor's unit is alive (borrow).
        u64::try_from(unsafe { clang_Cursor_getOffsetOfField(self.raw) }).ok()
    }
    /// Width of a bit-field.
    pub fn bit_width(self) -> Option<u32> {
        // SAFETY: the cursor's unit is alive (borrow).
        u32::try_from(unsafe { clang_getFieldDeclBitWidth(self.raw) }).ok()
    }
}

/// A C type.
#[derive(Clone, Copy)]
pub struct Type<'u> {
    raw: CXType,
    life: PhantomData<&'u Unit>,
}

impl<'u> Type<'u> {
    fn from(raw: CXType) -> Self {
        Self {
            raw,
            life: PhantomData,
        }
    }
    /// `CXType_…`.
    pub fn kind(self) -> CXTypeKind {
        self.raw.kind
    }
    /// As written.
    pub fn spelling(self) -> String {
        // SAFETY: the type's unit is alive (borrow).
        take(unsafe { clang_getTypeSpelling(self.raw) })
    }
    /// With typedefs resolved.
    pub fn canonical(self) -> Self {
        // SAFETY: the type's unit is alive (borrow).
        Self::from(unsafe { clang_getCanonicalType(self.raw) })
    }
    /// What a pointer points to.
    pub fn pointee(self) -> Self {
        // SAFETY: the type's unit is alive (borrow).
        Self::from(unsafe { clang_getPointeeType(self.raw) })
    }
    /// What an array holds.
    pub fn element(self) -> Self {
        // SAFETY: the type's unit is alive (borrow).
        Self::from(unsafe { clang_getArrayElementType(self.raw) })
    }
    /// What a function returns.
    pub fn result(self) -> Self {
        // SAFETY: the type's unit is alive (borrow).
        Self::from(unsafe { clang_getResultType(self.raw) })
    }
    /// The parameter types of a function type.
    pub fn parameters(self) -> Vec<Self> {
        // SAFETY: indices stay below the count.
        unsafe {
            let count = c_uint::try_from(clang_getNumArgTypes(self.raw)).unwrap_or(0);
            (0..count)
                .map(|number| Self::from(clang_getArgType(self.raw, number)))
                .collect()
        }
    }
    /// Ends in `...`.
    pub fn is_variadic(self) -> bool {
        // SAFETY: the type's unit is alive (borrow).
        unsafe { clang_isFunctionTypeVariadic(self.raw) != 0 }
    }
    /// Where it is declared.
    pub fn declaration(self) -> Option<Cursor<'u>> {
        // SAFETY: the type's unit is alive (borrow).
        Cursor::wrap(unsafe { clang_getTypeDeclaration(self.raw) })
    }
    /// Size in bytes.
    pub fn size(self) -> Option<u64> {
        // SAFETY: the type's unit is alive (borrow).
        u64::try_from(unsafe { clang_Type_getSizeOf(self.raw) }).ok()
    }
    /// The fields of a record, anonymous ones too.
    pub fn fields(self) -> Children<'u> {
        extern "C" fn visit(raw: CXCursor, data: CXClientData) -> CXVisitorResult {
            // SAFETY: `data` is the vector passed below.
            unsafe { (*data.cast::<Vec<CXCursor>>()).push(raw) };
            CXVisit_Continue
        }
        let mut out: Vec<CXCursor> = Vec::new();
        // SAFETY: `out` outlives the call, and the visitor casts it back to its own type.
        unsafe { clang_Type_visitFields(self.raw, visit, (&raw mut out).cast::<c_void>()) };
        out.into_iter().filter_map(Cursor::wrap).collect()
    }
}
