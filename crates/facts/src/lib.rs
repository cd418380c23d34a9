//! Facts: all that a kernel offers a module, read from the kernel itself; and what one source file takes from it.
//!
//! Never: compares versions, edits text, prints. Only this room knows libclang.
//! Its main functions are [`Facts::open`] and [`analyse`].

use kspan_kernel::Kernel;
use std::path::{Path, PathBuf};

mod analyse;
pub mod btf;
mod clang;
mod compare;
mod events;
mod extract;
pub mod flags;
mod headers;
pub mod index;
pub mod lex;
mod open;
mod store;
pub mod symvers;
mod tags;
mod types;
mod words;

pub use compare::{Change, align, compare, compare_signatures, kind};
pub use headers::Headers;
pub use open::Facts;

/// The result type of this room.
pub type Result<T> = std::result::Result<T, kspan_kernel::Error>;

/// A C type in two spellings.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Ty {
    /// As written (`u32`, `netdev_tx_t`).
    pub spelling: String,
    /// With all typedefs resolved (`unsigned int`); what two kernels are compared by.
    pub canonical: String,
}

/// A parameter of a function or of a function pointer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Param {
    /// Its name, empty if none is written.
    pub name: String,
    /// Its type.
    pub ty: Ty,
}

/// A function type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Signature {
    /// What it returns.
    pub ret: Ty,
    /// Its parameters in order.
    pub params: Vec<Param>,
    /// Ends in `...`.
    pub variadic: bool,
}

/// A member of a structure or union; members of anonymous inner records are listed too, flattened.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Field {
    /// Its name; a member of an untagged record that is itself a named member is `outer.inner`.
    pub name: String,
    /// Its type.
    pub ty: Ty,
    /// Offset from the start of the outermost named record, in bits, where the layout is known.
    pub offset_bits: Option<u64>,
    /// Width of a bit-field.
    pub bit_width: Option<u32>,
    /// The function type, when this is a pointer to a function.
    pub callback: Option<Signature>,
}

/// What kind of thing a definition is, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Detail {
    /// A function: prototype or inline.
    Function {
        /// Its type.
        sig: Signature,
        /// Has a body in the header.
        body: bool,
        /// `static`.
        is_static: bool,
    },
    /// A variable declaration.
    Variable {
        /// Its type.
        ty: Ty,
    },
    /// A macro; the last active definition of its header.
    Macro {
        /// Parameters, `None` for an object-like macro; a variadic one ends in `...` (or `name...`).
        params: Option<Vec<String>>,
        /// The replacement text, one line, blanks folded.
        body: String,
    },
    /// A structure or union definition.
    Record {
        /// It is a union.
        is_union: bool,
        /// Size in bytes where known.
        size: Option<u64>,
        /// Members.
        fields: Vec<Field>,
    },
    /// An enumeration.
    Enum {
        /// Constants with their values.
        constants: Vec<(String, i64)>,
    },
    /// One constant of an enumeration.
    EnumConst {
        /// Its value.
        value: i64,
        /// The enumeration's tag; empty if anonymous.
        parent: String,
    },
    /// A typedef.
    Typedef {
        /// What it stands for.
        ty: Ty,
    },
}

/// One definition (or prototype) in a kernel's headers, as its configuration makes it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Def {
    /// Its name; a tag's name stands without `struct`.
    pub name: String,
    /// The header as a driver would include it: `linux/timer.h`, `uapi/linux/x.h` is `linux/x.h` only where no
    /// kernel header of that name shadows it (`#include_next` order decides), `asm/io.h`.
    pub header: String,
    /// The header's path, relative to the kernel's source or build directory: `include/linux/timer.h`.
    pub path: String,
    /// First and last line, from 1.
    pub lines: (u32, u32),
    /// The text from the declaration's first token to its `;` or `}` (for a macro from `#define`, continuations
    /// included). For something made by a macro (`DEFINE_GUARD(...)`) the whole invocation; for a constant the whole
    /// enumeration.
    pub text: String,
    /// Kind and what belongs to it.
    pub detail: Detail,
}

/// One line of Module.symvers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Export {
    /// CRC, 0 where the kernel has no MODVERSIONS.
    pub crc: u32,
    /// `EXPORT_SYMBOL_GPL` family.
    pub gpl_only: bool,
    /// Namespace, if any.
    pub namespace: Option<String>,
    /// `vmlinux` or the module's path.
    pub module: String,
}

/// A place in a file of the driver.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Loc {
    /// Absolute path, as the file was named to the compiler.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: u32,
    /// Column in bytes, from 1.
    pub column: u32,
    /// Byte offset, from 0.
    pub offset: u32,
}

/// What kind of use it is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum UseKind {
    /// `#include <name>`.
    Header,
    /// A function called (or its address taken).
    Function,
    /// A variable of the kernel.
    Variable,
    /// A macro expanded or tested.
    Macro,
    /// A structure, union, enumeration or typedef named.
    Type,
    /// A member accessed or initialised; `record` names its structure.
    Field,
    /// An enumeration constant.
    EnumConst,
    /// `CONFIG_X` in `#if` or `IS_ENABLED()`.
    Config,
}

/// One thing a driver takes from the kernel.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Use {
    /// What is used.
    pub kind: UseKind,
    /// Its name.
    pub name: String,
    /// For a field: the tag of the record that holds it (`platform_driver`).
    pub record: Option<String>,
    /// For a call (of a function or of a function-like macro): how many arguments are passed.
    pub args: Option<u32>,
    /// The header that the home kernel defines it in, as [`Def::header`].
    pub header: String,
    /// Where in the driver.
    pub at: Loc,
    /// It stands inside a kernel macro's expansion, not in the driver's own text.
    pub via_macro: Option<String>,
}

/// A function of the driver stored in a callback member of one of the kernel's records.
///
/// Where a function is handed to a kernel function that takes a callback (`request_irq(…, handler, …)`), `record` is
/// empty and `field` is `callee#index`, counted from 0; to a function or member of the driver's own whose type is a kernel typedef
/// (`io_notify_fn`), `field` is the typedef.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Binding {
    /// Tag of the record (`platform_driver`).
    pub record: String,
    /// Member (`remove`).
    pub field: String,
    /// The driver's function.
    pub function: String,
    /// The function's type as the driver defines it.
    pub sig: Signature,
    /// Where the function's name stands in the initialiser or assignment (spelling location, also inside macro arguments).
    pub at: Loc,
    /// Where the member's name stands (`.remove`), if written.
    pub field_at: Option<Loc>,
    /// Start of the enclosing top-level declaration or function, where an adapter can be put before.
    pub decl_start: Loc,
    /// The kernel macro in whose expansion the binding arises (`SET_RUNTIME_PM_OPS`, `timer_setup`).
    pub via_macro: Option<String>,
    /// The header that declares the member (or the function called, where `record` is empty).
    pub header: String,
    /// The type that the kernel expects there.
    pub expects: Option<Signature>,
}

/// A function that the driver defines.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LocalFunction {
    /// Its name.
    pub name: String,
    /// Its type.
    pub sig: Signature,
    /// `static`.
    pub is_static: bool,
    /// First token.
    pub start: Loc,
    /// Last token.
    pub end: Loc,
}

/// All that one source file takes from its home kernel.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Tu {
    /// Uses in the file and in the driver's own headers.
    pub uses: Vec<Use>,
    /// Callbacks stored into kernel records.
    pub bindings: Vec<Binding>,
    /// Functions defined in the driver's files.
    pub functions: Vec<LocalFunction>,
    /// Top-level `#include` directives in the driver's files, in order, with the resolved file.
    pub includes: Vec<(Loc, String, Option<PathBuf>)>,
    /// Functions or places that libclang could not make sense of, with its words.
    pub unanalysed: Vec<String>,
}

/// Reads one source file of a driver with its home kernel's flags.
///
/// `args` are gcc's, as [`kspan_kernel::TuCommand::args`]; what clang does not know is dropped. Files under
/// `driver_root` count as the driver's, all others as the kernel's.
///
/// # Errors
/// Only when libclang cannot be loaded or the file cannot be read; errors in the C text go to [`Tu::unanalysed`].
pub fn analyse(kernel: &Kernel, source: &Path, args: &[String], driver_root: &Path) -> Result<Tu> {
    analyse::analyse(kernel, source, args, driver_root)
}

/// Lines of a driver's file that a kernel's compiler does not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Absolute path, as the file was named to the compiler.
    pub file: PathBuf,
    /// The directive before them and the one behind, from 1.
    pub between: (u32, u32),
}

/// What of a driver's files the conditional directives leave out of one translation unit, with the flags of any kernel; arguments as
/// for [`analyse`].
///
/// # Errors
/// Only when libclang cannot be loaded or the file cannot be read.
pub fn skipped(
    kernel: &Kernel,
    source: &Path,
    args: &[String],
    driver_root: &Path,
) -> Result<Vec<Skipped>> {
    analyse::skipped(kernel, source, args, driver_root)
}
