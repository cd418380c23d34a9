//! What goes into a package: files by their place, and what the package says of itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One file. Directories follow from the places; owners are always root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its bytes.
    pub content: Vec<u8>,
    /// It may be run.
    pub executable: bool,
}

/// A package before it has a format. Sorted by place, so that the same contents make the same bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    /// Absolute places.
    pub files: BTreeMap<PathBuf, File>,
}

/// What a package says of itself.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Its name, in lower case.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `all` or `amd64`; rpm's names are derived.
    pub architecture: String,
    /// `Name <address>`.
    pub maintainer: String,
    /// One line.
    pub summary: String,
    /// Paragraphs.
    pub description: String,
    /// What it needs, as deb and as rpm write it.
    pub depends: Depends,
    /// Further fields of a deb's control file.
    pub fields: Vec<(String, String)>,
    /// Scripts.
    pub scripts: Scripts,
    /// Seconds since 1970 of everything in it.
    pub epoch: u64,
}

/// What a package needs.
#[derive(Debug, Clone, Default)]
pub struct Depends {
    /// `Depends:` of a deb.
    pub deb: Vec<String>,
    /// `Requires:` of an rpm: name, and the version that it must equal.
    pub rpm: Vec<(String, Option<String>)>,
    /// `Provides:` of an rpm.
    pub rpm_provides: Vec<(String, String)>,
    /// `Supplements:` of an rpm: the hardware that calls for it.
    pub rpm_supplements: Vec<String>,
}

/// Scripts of a package. Each text is what a POSIX shell runs.
#[derive(Debug, Clone, Default)]
pub struct Scripts {
    /// After installing, as deb calls it (`$1` is `configure`).
    pub deb_postinst: String,
    /// Before removing.
    pub deb_prerm: String,
    /// After removing.
    pub deb_postrm: String,
    /// After installing, as rpm calls it (`$1` is how many are installed then).
    pub rpm_post: String,
    /// Before removing.
    pub rpm_preun: String,
    /// After removing.
    pub rpm_postun: String,
}

impl Payload {
    /// Adds a file.
    pub fn put(&mut self, place: impl Into<PathBuf>, content: impl Into<Vec<u8>>) {
        self.add(place, content, false);
    }

    /// Adds a program.
    pub fn put_program(&mut self, place: impl Into<PathBuf>, content: impl Into<Vec<u8>>) {
        self.add(place, content, true);
    }

    fn add(&mut self, place: impl Into<PathBuf>, content: impl Into<Vec<u8>>, executable: bool) {
        let content = content.into();
        self.files.insert(
            place.into(),
            File {
                content,
                executable,
            },
        );
    }

    /// Every directory above a file, without the root, parents first.
    pub fn directories(&self) -> Vec<PathBuf> {
        let mut all = std::collections::BTreeSet::new();
        for place in self.files.keys() {
            let ups = place.ancestors().skip(1);
            all.extend(
                ups.filter(|d| *d != Path::new("/") && !d.as_os_str().is_empty())
                    .map(Path::to_path_buf),
            );
        }
        all.into_iter().collect()
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.values().map(|f| f.content.len() as u64).sum()
    }
}
