//! One file that holds an index: quick to open, decoded name by name.
//!
//! Layout: magic, version, checksum of all that follows, lengths of the sections, the sections. Names are sorted; a
//! name's definitions follow one another. Texts are pooled, since the constants of one enumeration share theirs.

use crate::extract::{File, Raw};
use crate::index::Index;
use crate::{Def, Detail, extract};
use kspan_kernel::Error;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"KSPANFCT";
/// Raise it whenever what is stored, or how it is read from headers, changes.
pub const VERSION: u32 = 11;
const SECTIONS: usize = 10;
const HEAD: usize = 8 + 4 + 32 + SECTIONS * 8;

/// What is decoded when first asked for: all but definitions.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Meta {
    /// Each header's spelling and file.
    pub headers: BTreeMap<String, PathBuf>,
    /// Direct includes.
    pub includes: BTreeMap<String, Vec<String>>,
    /// Places that could not be analysed.
    pub unanalysed: Vec<String>,
}

/// A definition as stored: its text is a range of the pool, its file a number; a macro's parts are read from its text.
#[derive(serde::Serialize, serde::Deserialize)]
struct Entry {
    lines: (u32, u32),
    text: (u32, u32),
    file: u32,
    /// `None` for a macro.
    detail: Option<Detail>,
}

/// An [`Entry`] as it is written.
#[derive(serde::Serialize)]
struct Written<'i> {
    lines: (u32, u32),
    text: (u32, u32),
    file: u32,
    detail: Option<&'i Detail>,
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    bytes: Vec<u8>,
    /// Start of each section, and the end of the last.
    sections: [usize; SECTIONS + 1],
    /// Spelling and relative path of the files that define something.
    files: Vec<(String, String)>,
}

/// Section numbers.
const NAMES: usize = 0;
const NAME_AT: usize = 1;
const DEF_AT: usize = 2;
const DEFS: usize = 3;
const TEXTS: usize = 4;
const META: usize = 5;
const FILES: usize = 6;
const SYMVERS: usize = 7;
const CONFIG: usize = 8;
const HEADER_NAMES: usize = 9;

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(four)).ok()
}

fn push(out: &mut Vec<u8>, value: usize) {
    out.extend(u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
}

/// Makes the bytes of a store.
///
/// # Errors
/// Something cannot be encoded, or is larger than the format allows.
pub fn encode(index: Index, symvers: String, config: String) -> Result<Vec<u8>, Error> {
    let broken = |what: &dyn std::fmt::Display| {
        Error::Environment(format!(
            "the facts could not be encoded: {what}. This is a defect of kspan; please report it"
        ))
    };
    let mut writer = Writer::default();
    for (number, raw) in &index.defs {
        if let Some(file) = index.files.get(*number) {
            let file = (*number, file);
            writer.add(file, raw).map_err(|error| broken(&error))?;
        }
    }
    let meta = Meta {
        headers: index.headers.into_iter().collect(),
        includes: index.includes,
        unanalysed: index.unanalysed,
    };
    let mut sections = writer.finish().map_err(|error| broken(&error))?;
    sections[META] = postcard::to_stdvec(&meta).map_err(|error| broken(&error))?;
    sections[SYMVERS] = symvers.into_bytes();
    sections[CONFIG] = config.into_bytes();
    if sections
        .iter()
        .any(|section| u32::try_from(section.len()).is_err())
    {
        return Err(broken(&"a section exceeds 4 GB"));
    }
    Ok(seal(&sections))
}

/// Fills the sections.
#[derive(Default)]
struct Writer<'i> {
    sections: [Vec<u8>; SECTIONS],
    pool: FxHashMap<&'i [u8], (u32, u32)>,
    files: Vec<(&'i str, &'i str)>,
    /// Of the index' files: the number that each has here, and the names that it defines.
    file_numbers: FxHashMap<usize, (u32, Vec<u32>)>,
    last: Option<&'i str>,
    count: u32,
}

impl<'i> Writer<'i> {
    fn add(&mut self, file: (usize, &'i File), raw: &'i Raw) -> Result<(), postcard::Error> {
        if self.last != Some(raw.name.as_str()) {
            let (start, first) = (self.sections[NAMES].len(), self.sections[DEF_AT].len() / 4);
            push(&mut self.sections[NAME_AT], start);
            push(&mut self.sections[NAME_AT], first);
            self.sections[NAMES].extend(raw.name.as_bytes());
            self.last = Some(&raw.name);
            self.count += 1;
        }
        let number = self.file(file);
        let text = self.text(file.1, raw);
        let at = self.sections[DEFS].len();
        push(&mut self.sections[DEF_AT], at);
        let entry = Written {
            lines: raw.lines,
            text,
            file: number,
            detail: raw.detail.as_ref(),
        };
        let defs = std::mem::take(&mut self.sections[DEFS]);
        self.sections[DEFS] = postcard::to_extend(&entry, defs)?;
        Ok(())
    }

    /// Where a definition's text stands in the pool.
    fn text(&mut self, file: &'i File, raw: &Raw) -> (u32, u32) {
        let bytes = file.text.get(raw.range.clone()).unwrap_or(&[]);
        let texts = &mut self.sections[TEXTS];
        *self.pool.entry(bytes).or_insert_with(|| {
            let start = texts.len();
            texts.extend(String::from_utf8_lossy(bytes).as_bytes());
            (small(start), small(texts.len() - start))
        })
    }

    fn file(&mut self, (number, file): (usize, &'i File)) -> u32 {
        let files = &mut self.files;
        let (here, names) = self.file_numbers.entry(number).or_insert_with(|| {
            files.push((&file.header, &file.relative));
            (small(files.len() - 1), Vec::new())
        });
        let name = self.count.saturating_sub(1);
        if names.last() != Some(&name) {
            names.push(name);
        }
        *here
    }

    /// The names that each header defines; one header may be several files.
    fn header_names(&mut self) -> BTreeMap<&'i str, Vec<u32>> {
        let mut all: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (here, names) in std::mem::take(&mut self.file_numbers).into_values() {
            if let Some((header, _)) = self.files.get(here as usize) {
                all.entry(header).or_default().extend(names);
            }
        }
        for names in all.values_mut() {
            names.sort_unstable();
            names.dedup();
        }
        all
    }

    fn finish(mut self) -> Result<[Vec<u8>; SECTIONS], postcard::Error> {
        let (names_end, defs_end) = (self.sections[NAMES].len(), self.sections[DEFS].len());
        let def_count = self.sections[DEF_AT].len() / 4;
        push(&mut self.sections[NAME_AT], names_end);
        push(&mut self.sections[NAME_AT], def_count);
        push(&mut self.sections[DEF_AT], defs_end);
        self.sections[FILES] = postcard::to_stdvec(&self.files)?;
        self.sections[HEADER_NAMES] = postcard::to_stdvec(&self.header_names())?;
        Ok(self.sections)
    }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn seal(sections: &[Vec<u8>; SECTIONS]) -> Vec<u8> {
    let length: usize = sections.iter().map(Vec::len).sum();
    let mut out = Vec::with_capacity(HEAD + length);
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    let digest = out.len();
    out.extend([0; 32]);
    let body = out.len();
    for section in sections {
        out.extend((section.len() as u64).to_le_bytes());
    }
    for section in sections {
        out.extend(section);
    }
    let hash = blake3::hash(out.get(body..).unwrap_or_default());
    if let Some(place) = out.get_mut(digest..body) {
        place.copy_from_slice(hash.as_bytes());
    }
    out
}

/// Writes a file whole or not at all.
///
/// # Errors
/// The directory or file cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let failed = |source: std::io::Error| Error::Io {
        path: path.to_path_buf(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

impl Store {
    /// Opens a store; `None` if it is not there, is damaged or of another version.
    #[must_use]
    pub fn open(path: &Path) -> Option<Self> {
        Self::decode(std::fs::read(path).ok()?)
    }

    /// Checks the bytes of a store.
    #[must_use]
    pub fn decode(bytes: Vec<u8>) -> Option<Self> {
        if bytes.get(..8)? != MAGIC || number(&bytes, 8)? != VERSION as usize {
            return None;
        }
        if blake3::hash(bytes.get(44..)?).as_bytes() != bytes.get(12..44)? {
            return None;
        }
        let mut sections = [HEAD; SECTIONS + 1];
        let mut at = HEAD;
        for (section, end) in sections.iter_mut().skip(1).enumerate() {
            let place = 44 + section * 8;
            let eight: [u8; 8] = bytes.get(place..place + 8)?.try_into().ok()?;
            at = at.checked_add(usize::try_from(u64::from_le_bytes(eight)).ok()?)?;
            *end = at;
        }
        let mut store = (at == bytes.len()).then_some(Self {
            bytes,
            sections,
            files: Vec::new(),
        })?;
        store.files = postcard::from_bytes(store.section(FILES)).ok()?;
        Some(store)
    }

    fn section(&self, number: usize) -> &[u8] {
        let start = self.sections.get(number).copied().unwrap_or(0);
        let end = self.sections.get(number + 1).copied().unwrap_or(0);
        self.bytes.get(start..end).unwrap_or(&[])
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        (self.section(NAME_AT).len() / 8).saturating_sub(1)
    }

    /// A name by its number.
    #[must_use]
    pub fn name(&self, at: usize) -> Option<&str> {
        let table = self.section(NAME_AT);
        let range = number(table, at * 8)?..number(table, at * 8 + 8)?;
        std::str::from_utf8(self.section(NAMES).get(range)?).ok()
    }

    /// The number of a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.name(middle)?.cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    /// The definitions of a name by its number.
    #[must_use]
    pub fn defs(&self, at: usize) -> Vec<Def> {
        let table = self.section(NAME_AT);
        let (Some(first), Some(end)) = (number(table, at * 8 + 4), number(table, at * 8 + 12))
        else {
            return Vec::new();
        };
        (first..end).filter_map(|one| self.def(at, one)).collect()
    }

    fn def(&self, name: usize, at: usize) -> Option<Def> {
        let table = self.section(DEF_AT);
        let range = number(table, at * 4)?..number(table, at * 4 + 4)?;
        let entry: Entry = postcard::from_bytes(self.section(DEFS).get(range)?).ok()?;
        let (start, length) = (entry.text.0 as usize, entry.text.1 as usize);
        let text = self.section(TEXTS).get(start..start.checked_add(length)?)?;
        let text = String::from_utf8_lossy(text).into_owned();
        let (header, path) = self.files.get(entry.file as usize)?.clone();
        let detail = entry.detail.unwrap_or_else(|| extract::macro_detail(&text));
        Some(Def {
            name: self.name(name)?.to_owned(),
            header,
            path,
            lines: entry.lines,
            text,
            detail,
        })
    }

    /// The text of Module.symvers.
    #[must_use]
    pub fn symvers(&self) -> &str {
        std::str::from_utf8(self.section(SYMVERS)).unwrap_or_default()
    }

    /// The text of the configuration.
    #[must_use]
    pub fn config(&self) -> &str {
        std::str::from_utf8(self.section(CONFIG)).unwrap_or_default()
    }

    /// Numbers of the names that each header defines.
    #[must_use]
    pub fn header_names(&self) -> BTreeMap<String, Vec<u32>> {
        postcard::from_bytes(self.section(HEADER_NAMES)).unwrap_or_default()
    }

    /// Headers and what is known of them.
    #[must_use]
    pub fn meta(&self) -> Meta {
        postcard::from_bytes(self.section(META)).unwrap_or_default()
    }
}
