//! Debian's control format (deb822): `Release` and `Packages`. Pure functions; any text gives an answer.

use crate::record::Package;
use std::collections::HashMap;
use std::io::{self, BufRead};

/// One paragraph: field names in lower case, continuation lines joined with `\n`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stanza {
    fields: HashMap<String, String>,
}

impl Stanza {
    /// A field's value, empty if absent.
    #[must_use]
    pub fn get(&self, field: &str) -> &str {
        self.fields.get(field).map_or("", String::as_str)
    }

    /// The paragraph as a package, if it has what a package needs.
    #[must_use]
    pub fn package(&self) -> Option<Package> {
        let field = |name| Some(self.get(name).to_owned()).filter(|v| !v.is_empty());
        Some(Package {
            name: field("package")?,
            version: field("version")?,
            architecture: field("architecture")?,
            filename: field("filename").filter(|f| is_pool_path(f))?,
            size: field("size")?.parse().ok()?,
            sha256: field("sha256").filter(|h| is_sha256(h))?,
        })
    }

    /// The source package's name (a version in parentheses is dropped).
    #[must_use]
    pub fn source(&self) -> &str {
        let source = self
            .get("source")
            .split_whitespace()
            .next()
            .unwrap_or_default();
        if source.is_empty() {
            self.get("package")
        } else {
            source
        }
    }

    fn add(&mut self, line: &str, last: &mut String) {
        if line.starts_with([' ', '\t']) {
            if let Some(value) = self.fields.get_mut(last) {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            *last = name.to_ascii_lowercase();
            self.fields.insert(last.clone(), value.trim().to_owned());
        }
    }
}

/// A path below a mirror's base that stays there.
#[must_use]
pub fn is_pool_path(path: &str) -> bool {
    !path.starts_with('/')
        && !path
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
}

/// 64 hexadecimal digits.
#[must_use]
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Reads the paragraphs whose first line satisfies `wanted`; the others cost no memory.
///
/// # Errors
/// Only those of reading.
pub fn stanzas(mut reader: impl BufRead, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<Stanza>> {
    let mut all = Vec::new();
    let mut current: Option<(Stanza, String)> = None;
    let mut skipping = false;
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end();
        if line.is_empty() {
            all.extend(current.take().map(|(stanza, _)| stanza));
            skipping = false;
        } else if let Some((stanza, last)) = &mut current {
            stanza.add(line, last);
        } else if !skipping && wanted(line) {
            let (mut stanza, mut last) = (Stanza::default(), String::new());
            stanza.add(line, &mut last);
            current = Some((stanza, last));
        } else {
            skipping = true;
        }
        bytes.clear();
    }
    all.extend(current.map(|(stanza, _)| stanza));
    Ok(all)
}

/// One file that a `Release` vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// SHA-256, hex.
    pub sha256: String,
    /// Size in bytes.
    pub size: u64,
}

/// Looks a file up in the `SHA256` field of a `Release`.
#[must_use]
pub fn listed(release: &Stanza, file: &str) -> Option<Listed> {
    release.get("sha256").lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (hash, size, name) = (words.next()?, words.next()?, words.next()?);
        let fits = name == file && is_sha256(hash);
        fits.then(|| {
            Some(Listed {
                sha256: hash.to_owned(),
                size: size.parse().ok()?,
            })
        })?
    })
}

/// One entry of `Depends`, first alternative only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The package.
    pub name: String,
    /// `=`, `>=`, … and the version.
    pub version: Option<(String, String)>,
}

/// Reads a `Depends` field.
#[must_use]
pub fn depends(field: &str) -> Vec<Dependency> {
    let first = |entry: &str| {
        entry
            .split('|')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    field
        .split(',')
        .map(first)
        .filter(|e| !e.is_empty())
        .map(|e| dependency(&e))
        .collect()
}

fn dependency(entry: &str) -> Dependency {
    let (name, rest) = entry.split_once(['(', ' ']).unwrap_or((entry, ""));
    let mut words = rest.trim_matches(['(', ')', ' ']).split_whitespace();
    let version = words
        .next()
        .zip(words.next())
        .map(|(op, v)| (op.to_owned(), v.trim_end_matches(')').to_owned()));
    Dependency {
        name: name.split(':').next().unwrap_or(name).to_owned(),
        version,
    }
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// `Sat, 28 Nov 2026 14:05:09 UTC` as seconds since 1970.
#[must_use]
pub fn date(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace().skip(1);
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let zone = words.next().unwrap_or("UTC");
    if !["UTC", "GMT", "+0000"].contains(&zone) {
        return None;
    }
    let month = MONTHS.iter().position(|m| *m == month)?;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    if !(1..=31).contains(&day) || !(1970..=9999).contains(&year) {
        return None;
    }
    let parts: Vec<u64> = time
        .split(':')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let &[hours, minutes, seconds] = parts.as_slice() else {
        return None;
    };
    let in_range = hours < 24 && minutes < 60 && seconds < 61;
    let days = days_before(year, month) + day - 1;
    in_range.then(|| days * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

/// Days from 1970 to the first of a month (0 is January).
fn days_before(year: u64, month: usize) -> u64 {
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let years: u64 = (1970..year).map(|y| if leap(y) { 366 } else { 365 }).sum();
    let lengths = [
        31,
        if leap(year) { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    years + lengths.iter().take(month).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn reads_wanted_paragraphs() {
        let text = format!(
            "Package: zsh\nVersion: 1\n\nPackage: linux-x\nSource: linux (6.1)\nVersion: 2-1\nArchitecture: amd64\nDescription: a\n b\n\
             Filename: pool/x.deb\nSize: 12\nSHA256: {HASH}\n"
        );
        let all = stanzas(text.as_bytes(), |l| l.starts_with("Package: linux-")).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].source(), "linux");
        assert_eq!(all[0].get("description"), "a\nb");
        assert_eq!(
            all[0].package().map(|p| (p.name, p.size)),
            Some(("linux-x".to_owned(), 12))
        );
    }

    #[test]
    fn a_package_that_would_leave_the_mirror_is_none() {
        let text = format!(
            "Package: p\nVersion: 1\nArchitecture: all\nFilename: ../x\nSize: 1\nSHA256: {HASH}\n"
        );
        assert_eq!(
            stanzas(text.as_bytes(), |_| true).unwrap()[0].package(),
            None
        );
    }

    #[test]
    fn release_lists_files() {
        let text =
            format!("Codename: x\nSHA256:\n {HASH} 77 main/binary-amd64/Packages.xz\n bad 1 b\n");
        let release = &stanzas(text.as_bytes(), |_| true).unwrap()[0];
        assert_eq!(
            listed(release, "main/binary-amd64/Packages.xz").map(|l| l.size),
            Some(77)
        );
        assert_eq!(listed(release, "b"), None);
    }

    #[test]
    fn reads_dates() {
        assert_eq!(date("Thu, 01 Jan 1970 00:00:01 UTC"), Some(1));
        assert_eq!(date("Sat, 28 Nov 2026 14:05:09 UTC"), Some(1_795_874_709));
        assert_eq!(date("Thu, 29 Feb 2024 00:00:00 +0000"), Some(1_709_164_800));
        for bad in [
            "",
            "x",
            "Sat, 99 Nov 2026 0:0:0 UTC",
            "Sat, 1 Nov 99999999999999 0:0:0 UTC",
            "a 1 Jan 2000 99:0 UTC",
        ] {
            assert_eq!(date(bad), None, "{bad}");
        }
    }

    #[test]
    fn dependencies_take_the_first_alternative() {
        let all = depends("a-common (= 1-1), b | c, k:any (>= 2),d");
        let names: Vec<&str> = all.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["a-common", "b", "k", "d"]);
        assert_eq!(all[0].version, Some(("=".to_owned(), "1-1".to_owned())));
    }
}
