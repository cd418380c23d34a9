//! Whatever the bytes, the parsers answer: no panic, no endless loop. A short seeded run; `KSPAN_FUZZ_ROUNDS` makes it longer.

use kspan_kernel::{Lock, cmdfile, control, deb, debversion};
use std::io::Read;
use std::path::Path;

const CONTROL: &[u8] = b"Package: linux-headers-6.1.0-9-amd64\nSource: linux (6.1.9-1)\nVersion: 6.1.9-1~bpo1+1\nArchitecture: amd64\n\
    Depends: a-common (= 6.1), b (>= 2~) | c, d:any\nFilename: pool/l/x.deb\nSize: 12\nValid-Until: Sat, 28 Nov 2026 14:05:09 UTC\n\
    SHA256:\n 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef 77 main/binary-amd64/Packages.xz\n\nPackage: z\n";
const CMD: &[u8] = b"savedcmd_/w/a.o := gcc -Wp,-MMD,/w/.a.o.d -I./include -include ./g/c.h -DX='\"q\"' -c -o /w/a.o /w/a.c ; true\n\
    source_/w/a.o := /w/a.c\n\ndeps_/w/a.o := \\\n $(wildcard include/config/X) \\\n  /k/x.h \\\n\n";
const LOCK: &[u8] = b"format = 1\n[[kernel]]\nid = \"debian/1\"\nrelease = \"1\"\nversion = \"1\"\narch = \"x86\"\npackage_version = \"1-1\"\n\
    suite = \"sid\"\nflavour = \"amd64\"\nbuild_dir = \"a\"\nsource_dir = \"b\"\npackages = []\n";
const DEB: &[u8] = b"!<arch>\ndebian-binary   0           0     0     100644  4         `\n2.0\n\
    data.tar.xz     0           0     0     100644  8         `\n\xfd7zXZ\0\0\x04";

/// A small generator (xorshift), so that a run is the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    fn damaged(&mut self, sample: &[u8]) -> Vec<u8> {
        let mut bytes = sample.to_vec();
        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.below(256) as u8),
                2 if !bytes.is_empty() => drop(bytes.remove(at)),
                3 => bytes.extend_from_slice(&sample[self.below(sample.len())..]),
                _ => bytes
                    .iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|b| *b = self.0 as u8),
            }
        }
        bytes
    }
}

fn read_everything(bytes: &[u8]) {
    for stanza in control::stanzas(bytes, |_| true).unwrap() {
        let _ = (
            stanza.package(),
            stanza.source().len(),
            control::depends(stanza.get("depends")),
        );
        let _ = (
            control::listed(&stanza, "main/binary-amd64/Packages.xz"),
            control::date(stanza.get("valid-until")),
        );
        let _ = debversion::compare(stanza.get("version"), "6.1.9-1");
    }
    let text = String::from_utf8_lossy(bytes);
    let file = cmdfile::parse(&text);
    let _ = cmdfile::compile_args(&file.words, Path::new("/k"), file.source.as_deref());
    let _ = Lock::parse(&text);
    if let Ok(data) = deb::data_member(std::io::Cursor::new(bytes.to_vec())) {
        let _ = data.take(1 << 20).read_to_end(&mut Vec::new());
    }
}

#[test]
fn damaged_input_never_panics() {
    let rounds = std::env::var("KSPAN_FUZZ_ROUNDS")
        .ok()
        .and_then(|r| r.parse().ok())
        .unwrap_or(4000);
    let mut random = Random(0x6b73_7061_6e21);
    for round in 0..rounds {
        let sample = [CONTROL, CMD, LOCK, DEB][round % 4];
        read_everything(&random.damaged(sample));
    }
}
