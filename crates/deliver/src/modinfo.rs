//! What a module says of itself: `version` and `srcversion` of its `.modinfo` section, packed or not.

use object::{Object, ObjectSection};
use std::cmp::Ordering;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The endings that a module's file can have.
pub const ENDINGS: [&str; 4] = [".ko", ".ko.gz", ".ko.xz", ".ko.zst"];

/// A module larger than this when unpacked is not read.
const LIMIT: u64 = 1 << 30;

/// A module's version and source version; empty where it has none, or is no module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// The first word of `version`.
    pub version: String,
    /// `srcversion`, or the second word of `version` as old modules had it.
    pub source: String,
}

/// The file of a module in a directory, whatever its packing.
pub fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    ENDINGS
        .iter()
        .map(|e| dir.join(format!("{name}{e}")))
        .find(|p| p.exists())
}

/// All that a module says of itself, in its order.
pub fn fields(bytes: &[u8]) -> Vec<(String, String)> {
    let section = object::File::parse(bytes)
        .ok()
        .and_then(|f| Some(f.section_by_name(".modinfo")?.data().ok()?.to_vec()));
    section
        .unwrap_or_default()
        .split(|b| *b == 0)
        .filter_map(|field| {
            let text = String::from_utf8_lossy(field).into_owned();
            let (key, value) = text.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The symbols that a module imports, with the CRCs that it was built against (`__versions`, of kernels with CONFIG_MODVERSIONS).
pub fn versions(bytes: &[u8]) -> Vec<(String, u32)> {
    // `struct modversion_info`: an unsigned long, and a name that fills up 64 bytes.
    const SIZE: usize = 64;
    let section = object::File::parse(bytes)
        .ok()
        .and_then(|f| Some(f.section_by_name("__versions")?.data().ok()?.to_vec()));
    section
        .unwrap_or_default()
        .chunks_exact(SIZE)
        .filter_map(|entry| {
            let (crc, name) = entry.split_first_chunk::<8>()?;
            let name = name.split(|b| *b == 0).next().unwrap_or_default();
            let crc = u32::try_from(u64::from_le_bytes(*crc)).ok()?;
            Some((String::from_utf8_lossy(name).into_owned(), crc))
        })
        .collect()
}

/// Every file of a module under a directory.
pub fn find_all(tree: &Path, name: &str) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(tree).into_iter().filter_entry(|e| {
        let name = e.file_name();
        e.depth() != 1 || (name != "build" && name != "source")
    });
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|e| e.file_type().is_file())
        .filter(|e| {
            let file = e.file_name().to_string_lossy();
            file.strip_prefix(name)
                .is_some_and(|rest| ENDINGS.contains(&rest))
        })
        .map(walkdir::DirEntry::into_path)
        .collect();
    found.sort();
    found
}

/// Reads a module.
pub fn read(path: &Path) -> Info {
    unpacked(path)
        .map(|bytes| parse(&bytes))
        .unwrap_or_default()
}

/// A module as it is loaded.
pub fn unpacked(path: &Path) -> std::io::Result<Vec<u8>> {
    unpacked_bytes(std::fs::read(path)?)
}

/// The same of a file's bytes.
pub fn unpacked_bytes(packed: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut read = |reader: &mut dyn Read| reader.take(LIMIT).read_to_end(&mut bytes);
    match packed.get(..4) {
        Some([0x1f, 0x8b, ..]) => read(&mut flate2::read::MultiGzDecoder::new(&packed[..]))?,
        Some([0xfd, b'7', b'z', b'X']) => read(&mut liblzma::read::XzDecoder::new_multi_decoder(
            &packed[..],
        ))?,
        Some([0x28, 0xb5, 0x2f, 0xfd]) => {
            let mut decoder = ruzstd::decoding::StreamingDecoder::new(&packed[..])
                .map_err(std::io::Error::other)?;
            read(&mut decoder)?
        }
        _ => return Ok(packed),
    };
    Ok(bytes)
}

/// Does a module end with a signature? Whose is not asked.
pub fn is_signed(path: &Path) -> bool {
    unpacked(path).is_ok_and(|bytes| bytes.ends_with(SIGNED))
}

/// How a signed module ends (`MODULE_SIG_STRING` of the kernel's `linux/module_signature.h`).
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// Reads a module's bytes; what is no ELF file says nothing.
pub fn parse(bytes: &[u8]) -> Info {
    let section = object::File::parse(bytes).ok().and_then(|f| {
        f.section_by_name(".modinfo")?
            .data()
            .ok()
            .map(<[u8]>::to_vec)
    });
    let mut info = Info::default();
    let mut checksum = String::new();
    for field in section.unwrap_or_default().split(|b| *b == 0) {
        let field = String::from_utf8_lossy(field);
        if let Some(version) = field.strip_prefix("version=") {
            let mut words = version.split_whitespace();
            info.version = words.next().unwrap_or_default().to_owned();
            checksum = words.next().unwrap_or_default().to_owned();
        } else if let Some(source) = field.strip_prefix("srcversion=") {
            info.source = source
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned();
        }
    }
    if info.source.is_empty() {
        info.source = checksum;
    }
    info
}

/// How two modules' versions stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// The same version of the same source.
    Same,
    /// The same version, another source.
    SameVersion,
    /// The first one is newer or older.
    Differ(Ordering),
}

/// Compares two modules.
pub fn compare(a: &Info, b: &Info) -> Versions {
    if a.version != b.version {
        return Versions::Differ(crate::padded(&a.version).cmp(&crate::padded(&b.version)));
    }
    if a.source == b.source {
        Versions::Same
    } else {
        Versions::SameVersion
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, source: &str) -> Info {
        Info {
            version: version.into(),
            source: source.into(),
        }
    }

    #[test]
    fn versions_are_compared_before_sources() {
        assert_eq!(compare(&info("1", "a"), &info("1", "a")), Versions::Same);
        assert_eq!(
            compare(&info("1", "a"), &info("1", "b")),
            Versions::SameVersion
        );
        assert_eq!(
            compare(&info("1.10", ""), &info("1.9", "")),
            Versions::Differ(Ordering::Greater)
        );
    }

    #[test]
    fn what_is_no_module_says_nothing() {
        for bytes in [
            &b""[..],
            b"\x7fELF",
            b"\x1f\x8b\x08",
            &[0xfd, b'7', b'z', b'X', b'Z', 0],
        ] {
            assert_eq!(parse(bytes), Info::default());
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            assert_eq!(read(file.path()), Info::default());
        }
    }
}
