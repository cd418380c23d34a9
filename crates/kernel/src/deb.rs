//! The `ar` container of a `.deb` and the compression of its members. Never touches dpkg's state.

use std::io::{self, Read};

const MAGIC: &[u8; 8] = b"!<arch>\n";

/// One member's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, without the trailing `/` that some writers add.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// The tar stream of a package's `data.tar.*`.
///
/// # Errors
/// Says what is malformed.
pub fn data_member(mut file: impl Read + 'static) -> Result<Box<dyn Read>, String> {
    let mut magic = [0; 8];
    file.read_exact(&mut magic)
        .map_err(|_| "it is too short".to_owned())?;
    if &magic != MAGIC {
        return Err("it does not begin with !<arch>".to_owned());
    }
    loop {
        let member = next_member(&mut file)?.ok_or("it holds no data.tar")?;
        if member.name.starts_with("data.tar") {
            return decompress(&member.name, file.take(member.size));
        }
        skip(&mut file, member.size + member.size % 2)?;
    }
}

/// Reads the next 60-byte member header; `None` at the end.
pub fn next_member(file: &mut impl Read) -> Result<Option<Member>, String> {
    let mut header = Vec::with_capacity(60);
    file.by_ref()
        .take(60)
        .read_to_end(&mut header)
        .map_err(|e| e.to_string())?;
    if header.is_empty() {
        return Ok(None);
    }
    parse_header(&header).map(Some)
}

fn parse_header(header: &[u8]) -> Result<Member, String> {
    if header.get(58..60) != Some(b"`\n") {
        return Err("a member's header is damaged".to_owned());
    }
    let text = |range| {
        header
            .get(range)
            .map(|b| String::from_utf8_lossy(b).trim().to_owned())
            .unwrap_or_default()
    };
    let size = text(48..58)
        .parse()
        .map_err(|_| format!("member {} has no size", text(0..16)))?;
    Ok(Member {
        name: text(0..16).trim_end_matches('/').to_owned(),
        size,
    })
}

fn skip(file: &mut impl Read, bytes: u64) -> Result<(), String> {
    let skipped =
        io::copy(&mut file.by_ref().take(bytes), &mut io::sink()).map_err(|e| e.to_string())?;
    match skipped == bytes {
        true => Ok(()),
        false => Err("it is cut short".to_owned()),
    }
}

/// Undoes the compression that a file's name tells.
pub fn decompress(name: &str, stream: impl Read + 'static) -> Result<Box<dyn Read>, String> {
    match name.rsplit('.').next().unwrap_or_default() {
        "xz" => Ok(Box::new(liblzma::read::XzDecoder::new_multi_decoder(
            stream,
        ))),
        "gz" => Ok(Box::new(flate2::read::MultiGzDecoder::new(stream))),
        "zst" => match ruzstd::decoding::StreamingDecoder::new(stream) {
            Ok(decoder) => Ok(Box::new(decoder)),
            Err(e) => Err(format!("{name}: {e}")),
        },
        "tar" => Ok(Box::new(stream)),
        other => Err(format!(
            "{name}: compression `{other}` is not known (gz, xz, zst)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for (name, content) in members {
            out.extend(
                format!(
                    "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                    0,
                    0,
                    0,
                    100_644,
                    content.len()
                )
                .bytes(),
            );
            out.extend(*content);
            out.extend((content.len() % 2 == 1).then_some(b'\n'));
        }
        out
    }

    #[test]
    fn finds_the_data_member() {
        let file = ar(&[
            ("debian-binary", b"2.0\n"),
            ("control.tar", b"odd"),
            ("data.tar", b"hello"),
        ]);
        let mut text = String::new();
        data_member(io::Cursor::new(file))
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_data_member_may_be_packed_by_gzip() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, b"hello").unwrap();
        let file = ar(&[("data.tar.gz", &packed.finish().unwrap())]);
        let mut text = String::new();
        let read = data_member(io::Cursor::new(file))
            .unwrap()
            .read_to_string(&mut text);
        assert_eq!((read.unwrap(), text.as_str()), (5, "hello"));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let good = ar(&[("debian-binary", b"2.0\n"), ("data.tar.xz", b"not xz")]);
        for cut in 0..good.len() {
            if let Ok(mut stream) = data_member(io::Cursor::new(good[..cut].to_vec())) {
                let _ = io::copy(&mut stream, &mut io::sink());
            }
        }
        assert!(data_member(io::Cursor::new(ar(&[("data.tar.lz9", b"")]))).is_err());
    }
}
