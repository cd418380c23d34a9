//! The modules in an initramfs: archives one after the other (cpio `newc`), the last one packed as a whole.

use crate::modinfo::ENDINGS;
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// An archive larger than this when unpacked is not read.
const LIMIT: u64 = 2 << 30;

/// The modules in an image: their names, and their content as it is loaded.
///
/// # Errors
/// When the file cannot be read, or is packed in a way that is not known here (lz4, bzip2, lzo).
pub fn modules(image: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    read_all(&std::fs::read(image)?, &mut found)?;
    Ok(found)
}

/// Every archive of an image; early ones with microcode come unpacked before the one that matters.
pub fn read_all(bytes: &[u8], found: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let mut rest = bytes;
    loop {
        let padding = rest.iter().take_while(|b| **b == 0).count();
        rest = rest.get(padding..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        if !rest.starts_with(b"0707") {
            let inner = unpack(rest)?;
            if !inner.starts_with(b"0707") {
                return Err(strange("no archive is in it"));
            }
            return read_all(&inner, found);
        }
        let length = read_archive(rest, found)?;
        rest = rest.get(length..).unwrap_or_default();
    }
}

fn strange(words: &str) -> Error {
    Error::new(ErrorKind::InvalidData, words)
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut read = |reader: &mut dyn Read| reader.take(LIMIT).read_to_end(&mut out);
    match bytes.get(..4) {
        Some([0x1f, 0x8b, ..]) => read(&mut flate2::read::GzDecoder::new(bytes))?,
        Some([0xfd, b'7', b'z', b'X']) => read(&mut liblzma::read::XzDecoder::new(bytes))?,
        Some([0x28, 0xb5, 0x2f, 0xfd]) => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(bytes);
            read(&mut decoder.map_err(Error::other)?)?
        }
        _ => return Err(strange("it is packed in a way that kspan does not know")),
    };
    Ok(out)
}

/// One archive; its length.
fn read_archive(bytes: &[u8], found: &mut BTreeMap<String, Vec<u8>>) -> Result<usize> {
    let mut at = 0;
    loop {
        let entry = entry(bytes, at).ok_or_else(|| strange("an archive in it is cut off"))?;
        if entry.name == b"TRAILER!!!" {
            return Ok(entry.end);
        }
        let name = String::from_utf8_lossy(entry.name).into_owned();
        let file = name.rsplit('/').next().unwrap_or_default();
        let ending = ENDINGS.iter().find(|e| file.ends_with(**e));
        if let Some(stem) = ending.and_then(|e| file.strip_suffix(e)) {
            let content = crate::modinfo::unpacked_bytes(entry.content.to_vec());
            found.insert(stem.replace('-', "_"), content?);
        }
        at = entry.end;
    }
}

/// One member of an archive.
struct Entry<'a> {
    name: &'a [u8],
    content: &'a [u8],
    /// Where the next one begins.
    end: usize,
}

/// `newc`: a magic number and thirteen fields of eight hexadecimal digits, then the name and the content, each padded to four bytes.
fn entry(bytes: &[u8], at: usize) -> Option<Entry<'_>> {
    const HEADER: usize = 110;
    let header = bytes.get(at..at.checked_add(HEADER)?)?;
    if !header.starts_with(b"070701") && !header.starts_with(b"070702") {
        return None;
    }
    let field = |i: usize| {
        let digits = header.get(6 + 8 * i..14 + 8 * i)?;
        usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (size, name_size) = (field(6)?, field(11)?);
    let name_end = at.checked_add(HEADER)?.checked_add(name_size)?;
    let name = bytes.get(at + HEADER..name_end)?;
    let from = name_end.checked_next_multiple_of(4)?;
    let to = from.checked_add(size)?;
    Some(Entry {
        name: name.strip_suffix(b"\0").unwrap_or(name),
        content: bytes.get(from.min(bytes.len())..to)?,
        end: to.checked_next_multiple_of(4)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn member(name: &str, content: &[u8]) -> Vec<u8> {
        let zero = "00000000";
        let mut out = format!(
            "070701{}{:08x}{}{:08x}{zero}",
            zero.repeat(6),
            content.len(),
            zero.repeat(4),
            name.len() + 1
        )
        .into_bytes();
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    #[test]
    fn modules_are_found_behind_microcode_and_packing() {
        let early = [
            member("kernel/x86/microcode/a.bin", b"x"),
            member("TRAILER!!!", b""),
        ]
        .concat();
        let main = [
            member("usr/lib/modules/1/updates/my-mod.ko", b"hello"),
            member("init", b"#!/bin/sh\n"),
            member("TRAILER!!!", b""),
        ]
        .concat();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&main).unwrap();
        let mut image = early;
        image.resize(image.len() + 512, 0);
        image.extend(packed.finish().unwrap());
        let mut found = BTreeMap::new();
        read_all(&image, &mut found).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found.get("my_mod").unwrap(), b"hello");
    }

    #[test]
    fn what_is_cut_off_or_strange_is_an_error() {
        let whole = member("a.ko", b"hello");
        for length in 1..whole.len() {
            let cut = whole.get(..length).unwrap();
            assert!(read_all(cut, &mut BTreeMap::new()).is_err(), "{length}");
        }
        assert!(read_all(b"\x02\x21\x4c\x18lz4", &mut BTreeMap::new()).is_err());
        assert!(read_all(b"", &mut BTreeMap::new()).is_ok());
    }
}
