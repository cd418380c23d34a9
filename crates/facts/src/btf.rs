//! BTF, the kernel's own description of its types: the second witness beside the headers.
//!
//! Reads the raw format; never trusts an offset, a count or a type number.

use std::collections::HashMap;
use std::path::Path;

/// A member of a structure or union.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, empty for an anonymous record.
    pub name: String,
    /// Number of its type.
    pub ty: u32,
    /// Offset in bits.
    pub offset_bits: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Void,
    /// An integer, float or forward declaration: only its name matters.
    Named(&'static str),
    Pointer(u32),
    Array(u32, u32),
    Record {
        union: bool,
        size: u32,
        members: Vec<Member>,
    },
    Enum(Vec<(String, i64)>),
    Typedef(u32),
    Qualified(&'static str, u32),
    Transparent(u32),
    Function(u32),
    Prototype(u32, Vec<(String, u32)>),
    Other,
}

#[derive(Debug, Clone)]
struct Type {
    name: String,
    kind: Kind,
}

/// All types of one kernel.
#[derive(Debug, Default)]
pub struct Btf {
    types: Vec<Type>,
    functions: HashMap<String, u32>,
    records: HashMap<String, u32>,
    constants: HashMap<String, i64>,
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    big: bool,
}

impl Reader<'_> {
    fn u32(&mut self) -> Option<u32> {
        let four: [u8; 4] = self
            .bytes
            .get(self.at..self.at.checked_add(4)?)?
            .try_into()
            .ok()?;
        self.at += 4;
        Some(if self.big {
            u32::from_be_bytes(four)
        } else {
            u32::from_le_bytes(four)
        })
    }
}

/// Reads the raw section.
///
/// # Errors
/// What is wrong, and at which byte.
pub fn parse(bytes: &[u8]) -> Result<Btf, String> {
    let big = match bytes.get(..2) {
        Some([0x9f, 0xeb]) => false,
        Some([0xeb, 0x9f]) => true,
        _ => return Err("does not begin with BTF's magic number 0xeb9f".into()),
    };
    let mut head = Reader { bytes, at: 4, big };
    let mut next = || {
        head.u32()
            .map(|value| value as usize)
            .ok_or("the header is cut off")
    };
    let (header, type_at, type_len, text_at, text_len) =
        (next()?, next()?, next()?, next()?, next()?);
    let section = |at: usize, len: usize| {
        let start = header.checked_add(at)?;
        bytes.get(start..start.checked_add(len)?)
    };
    let types = section(type_at, type_len).ok_or("the types lie beyond the end")?;
    let texts = section(text_at, text_len).ok_or("the names lie beyond the end")?;
    let mut out = Btf {
        types: vec![Type {
            name: "void".into(),
            kind: Kind::Void,
        }],
        ..Btf::default()
    };
    let mut reader = Reader {
        bytes: types,
        at: 0,
        big,
    };
    while reader.at < types.len() {
        let at = reader.at;
        let one = read_type(&mut reader, texts)
            .ok_or_else(|| format!("the type at byte {at} is cut off or of an unknown kind"))?;
        out.note(one);
    }
    Ok(out)
}

fn text(texts: &[u8], at: u32) -> String {
    let rest = texts.get(at as usize..).unwrap_or(&[]);
    let end = rest
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(rest.len());
    String::from_utf8_lossy(rest.get(..end).unwrap_or(&[])).into_owned()
}

fn read_type(reader: &mut Reader<'_>, texts: &[u8]) -> Option<Type> {
    let name = text(texts, reader.u32()?);
    let info = reader.u32()?;
    let third = reader.u32()?;
    let (count, code, flag) = (info & 0xffff, info >> 24 & 0x1f, info >> 31 == 1);
    let kind = match code {
        1 => {
            reader.u32()?;
            Kind::Named("")
        }
        2 => Kind::Pointer(third),
        3 => {
            let element = reader.u32()?;
            reader.u32()?;
            Kind::Array(element, reader.u32()?)
        }
        4 | 5 => Kind::Record {
            union: code == 5,
            size: third,
            members: members(reader, texts, count, flag)?,
        },
        6 => Kind::Enum(constants(reader, texts, count, false, flag)?),
        7 => Kind::Named(if flag { "union " } else { "struct " }),
        8 => Kind::Typedef(third),
        9 => Kind::Qualified("volatile", third),
        10 => Kind::Qualified("const", third),
        11 | 18 => Kind::Transparent(third),
        12 => Kind::Function(third),
        13 => {
            let mut params = Vec::new();
            for _ in 0..count {
                let name = text(texts, reader.u32()?);
                params.push((name, reader.u32()?));
            }
            Kind::Prototype(third, params)
        }
        14 | 17 => {
            reader.u32()?;
            Kind::Other
        }
        15 => {
            for _ in 0..count * 3 {
                reader.u32()?;
            }
            Kind::Other
        }
        16 => Kind::Named(""),
        19 => Kind::Enum(constants(reader, texts, count, true, flag)?),
        _ => return None,
    };
    Some(Type { name, kind })
}

fn members(
    reader: &mut Reader<'_>,
    texts: &[u8],
    count: u32,
    bit_fields: bool,
) -> Option<Vec<Member>> {
    let mut out = Vec::new();
    for _ in 0..count {
        let name = text(texts, reader.u32()?);
        let ty = reader.u32()?;
        let offset = reader.u32()?;
        let offset = if bit_fields {
            offset & 0x00ff_ffff
        } else {
            offset
        };
        out.push(Member {
            name,
            ty,
            offset_bits: u64::from(offset),
        });
    }
    Some(out)
}

fn constants(
    reader: &mut Reader<'_>,
    texts: &[u8],
    count: u32,
    wide: bool,
    signed: bool,
) -> Option<Vec<(String, i64)>> {
    let mut out = Vec::new();
    for _ in 0..count {
        let name = text(texts, reader.u32()?);
        let low = reader.u32()?;
        let value = if wide {
            (u64::from(reader.u32()?) << 32 | u64::from(low)).cast_signed()
        } else if signed {
            i64::from(low.cast_signed())
        } else {
            i64::from(low)
        };
        out.push((name, value));
    }
    Some(out)
}

/// The words of an integer's name in the compiler's usual order (`long unsigned int` → `unsigned long`).
fn integer(name: &str) -> String {
    let mut words: Vec<&str> = name.split(' ').collect();
    if words.len() > 1 {
        words.retain(|word| *word != "int" || name == "unsigned int");
        words.sort_by_key(|word| !matches!(*word, "unsigned" | "signed"));
    }
    words.join(" ")
}

impl Btf {
    fn note(&mut self, one: Type) {
        let number = u32::try_from(self.types.len()).unwrap_or(u32::MAX);
        match &one.kind {
            Kind::Function(_) => {
                self.functions.entry(one.name.clone()).or_insert(number);
            }
            Kind::Record { .. } if !one.name.is_empty() => {
                self.records.entry(one.name.clone()).or_insert(number);
            }
            Kind::Enum(list) => self.constants.extend(list.iter().cloned()),
            _ => {}
        }
        self.types.push(one);
    }

    /// Reads the BTF of a kernel's `vmlinux` (an ELF file with a `.BTF` section, or the raw section).
    ///
    /// # Errors
    /// The file cannot be read, or holds no readable BTF.
    pub fn open(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let named = |why: String| format!("{}: {why}", path.display());
        if !bytes.starts_with(b"\x7fELF") {
            return parse(&bytes).map_err(named);
        }
        use object::{Object, ObjectSection};
        let file =
            object::File::parse(bytes.as_slice()).map_err(|error| named(error.to_string()))?;
        let section = file
            .section_by_name(".BTF")
            .ok_or_else(|| named("has no .BTF section".into()))?;
        let data = section.data().map_err(|error| named(error.to_string()))?;
        parse(data).map_err(named)
    }

    /// Types known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// Knows nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.types.len() <= 1
    }

    fn get(&self, number: u32) -> Option<&Type> {
        self.types.get(number as usize)
    }

    /// The value of an enumeration constant.
    #[must_use]
    pub fn constant(&self, name: &str) -> Option<i64> {
        self.constants.get(name).copied()
    }

    /// Size in bytes of a structure or union.
    #[must_use]
    pub fn record_size(&self, tag: &str) -> Option<u32> {
        match &self.get(*self.records.get(tag)?)?.kind {
            Kind::Record { size, .. } => Some(*size),
            _ => None,
        }
    }

    /// Names and bit offsets of a record's members, those of anonymous records among them.
    #[must_use]
    pub fn members(&self, tag: &str) -> Option<Vec<(String, u64)>> {
        let mut out = Vec::new();
        self.flatten(*self.records.get(tag)?, 0, 0, &mut out);
        Some(out)
    }

    fn flatten(&self, number: u32, base: u64, depth: u32, out: &mut Vec<(String, u64)>) {
        let Some(Type {
            kind: Kind::Record { members, .. },
            ..
        }) = self.get(number)
        else {
            return;
        };
        for member in members {
            let offset = base + member.offset_bits;
            if member.name.is_empty() {
                if depth < 16 {
                    self.flatten(self.peel(member.ty), offset, depth + 1, out);
                }
            } else {
                out.push((member.name.clone(), offset));
            }
        }
    }

    fn peel(&self, number: u32) -> u32 {
        let mut now = number;
        for _ in 0..16 {
            match self.get(now).map(|one| &one.kind) {
                Some(Kind::Qualified(_, inner) | Kind::Transparent(inner)) => now = *inner,
                _ => break,
            }
        }
        now
    }

    /// What a function returns and takes, with typedefs resolved, as the compiler spells canonical types.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<(String, Vec<String>)> {
        let Kind::Function(prototype) = self.get(*self.functions.get(name)?)?.kind else {
            return None;
        };
        let Kind::Prototype(ret, params) = &self.get(prototype)?.kind else {
            return None;
        };
        let params = params
            .iter()
            .map(|(_, ty)| {
                if *ty == 0 {
                    "...".to_owned()
                } else {
                    self.spell(*ty, "", 0)
                }
            })
            .collect();
        Some((self.spell(*ret, "", 0), params))
    }

    /// Writes a type around a declarator, as C does.
    fn spell(&self, number: u32, around: &str, depth: u32) -> String {
        let join = |base: &str| {
            if around.is_empty() {
                base.to_owned()
            } else {
                format!("{base} {around}")
            }
        };
        if depth > 32 {
            return join("…");
        }
        let Some(one) = self.get(number) else {
            return join("?");
        };
        match &one.kind {
            Kind::Void => join("void"),
            Kind::Named(prefix) => join(&format!("{prefix}{}", integer(&one.name))),
            Kind::Record { union, .. } => join(&format!(
                "{} {}",
                if *union { "union" } else { "struct" },
                one.name
            )),
            Kind::Enum(_) => join(&format!("enum {}", one.name)),
            Kind::Typedef(inner) => {
                let peeled = self.peel_all(*inner);
                match self.get(peeled) {
                    // A record without a tag goes by its typedef's name.
                    Some(Type {
                        name,
                        kind: Kind::Record { .. } | Kind::Enum(_),
                    }) if name.is_empty() => join(&one.name),
                    _ => self.spell(*inner, around, depth + 1),
                }
            }
            Kind::Transparent(inner) => self.spell(*inner, around, depth + 1),
            Kind::Qualified(word, inner) => self.spell_qualified(word, *inner, around, depth),
            Kind::Pointer(inner) => self.spell(*inner, &format!("*{around}"), depth + 1),
            Kind::Array(inner, count) => {
                let declarator = if around.starts_with('*') {
                    format!("({around})")
                } else {
                    around.to_owned()
                };
                self.spell(*inner, &format!("{declarator}[{count}]"), depth + 1)
            }
            Kind::Prototype(ret, params) => {
                let list: Vec<String> = params
                    .iter()
                    .map(|(_, ty)| {
                        if *ty == 0 {
                            "...".into()
                        } else {
                            self.spell(*ty, "", depth + 1)
                        }
                    })
                    .collect();
                let list = if list.is_empty() {
                    "void".to_owned()
                } else {
                    list.join(", ")
                };
                self.spell(*ret, &format!("({around})({list})"), depth + 1)
            }
            Kind::Function(_) | Kind::Other => join("?"),
        }
    }

    fn spell_qualified(&self, word: &str, inner: u32, around: &str, depth: u32) -> String {
        let target = self.through_typedefs(inner);
        if matches!(
            self.get(target).map(|one| &one.kind),
            Some(Kind::Pointer(_))
        ) {
            return self.spell(
                target,
                &format!("{word}{}{around}", if around.is_empty() { "" } else { " " }),
                depth + 1,
            );
        }
        format!("{word} {}", self.spell(inner, around, depth + 1))
    }

    fn through_typedefs(&self, number: u32) -> u32 {
        let mut now = number;
        for _ in 0..16 {
            match self.get(now).map(|one| &one.kind) {
                Some(Kind::Typedef(inner) | Kind::Transparent(inner)) => now = *inner,
                _ => break,
            }
        }
        now
    }

    fn peel_all(&self, number: u32) -> u32 {
        self.peel(self.through_typedefs(number))
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    /// int; struct s { int x; int y at 32 }; `int *f(const struct s *)`.
    fn sample() -> Vec<u8> {
        let names = b"\0int\0s\0x\0y\0f\0";
        let words: Vec<u32> = vec![
            1,
            1 << 24,
            4,
            32, // 1: int
            5,
            4 << 24 | 2,
            8,
            7,
            1,
            0,
            9,
            1,
            32, // 2: struct s
            0,
            10 << 24,
            2, // 3: const struct s
            0,
            2 << 24,
            3, // 4: pointer to it
            0,
            2 << 24,
            1, // 5: int *
            0,
            13 << 24 | 1,
            5,
            0,
            4, // 6: int *(const struct s *)
            11,
            12 << 24,
            6, // 7: f
        ];
        let types: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut out = vec![0x9f, 0xeb, 1, 0];
        let lengths = [24, 0, types.len(), types.len(), names.len()];
        out.extend(
            lengths
                .iter()
                .flat_map(|value| u32::try_from(*value).unwrap_or(0).to_le_bytes()),
        );
        out.extend(types);
        out.extend(names);
        out
    }

    #[test]
    fn a_small_kernel() {
        let btf = parse(&sample()).unwrap_or_default();
        assert_eq!(
            btf.function("f"),
            Some(("int *".into(), vec!["const struct s *".into()]))
        );
        assert_eq!(
            btf.members("s"),
            Some(vec![("x".into(), 0), ("y".into(), 32)])
        );
        assert_eq!(btf.record_size("s"), Some(8));
    }

    #[test]
    fn damage_is_an_error_not_a_panic() {
        let good = sample();
        for length in 0..good.len() {
            let _ = parse(good.get(..length).unwrap_or(&[]));
        }
        for at in 0..good.len() {
            for value in [0u8, 0x7f, 0xff] {
                let mut bad = good.clone();
                if let Some(byte) = bad.get_mut(at) {
                    *byte = value;
                }
                if let Ok(btf) = parse(&bad) {
                    let _ = (
                        btf.function("f"),
                        btf.members("s"),
                        btf.record_size("s"),
                        btf.constant("s"),
                    );
                }
            }
        }
    }
}
