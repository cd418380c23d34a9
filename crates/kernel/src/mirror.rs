//! Where Debian's archives are reached from this machine, and reading files from there.

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Base addresses of the two archives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrors {
    /// The main archive.
    pub debian: String,
    /// The security archive.
    pub security: String,
}

impl Mirrors {
    /// `KSPAN_MIRROR` and `KSPAN_SECURITY_MIRROR`, else what this machine's apt uses, else Debian's own.
    pub fn of_this_machine() -> Self {
        let sources = apt_sources();
        let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let base = |name, directory: &str| {
            let found = set(name).or_else(|| apt_mirror(&sources, directory));
            found
                .unwrap_or_else(|| format!("http://deb.debian.org/{directory}"))
                .trim_end_matches('/')
                .to_owned()
        };
        Self {
            debian: base("KSPAN_MIRROR", "debian"),
            security: base("KSPAN_SECURITY_MIRROR", "debian-security"),
        }
    }

    /// The archive that holds a suite.
    pub fn base(&self, suite: &str) -> &str {
        if suite.ends_with("-security") {
            &self.security
        } else {
            &self.debian
        }
    }
}

fn apt_sources() -> String {
    let listed = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path());
    let files = [Path::new("/etc/apt/sources.list").to_path_buf()]
        .into_iter()
        .chain(listed);
    files
        .filter_map(|f| fs::read_to_string(f).ok())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The first plain address in apt's sources whose last directory is the wanted one. Signatures guard the content, so
/// no TLS is needed and https addresses are passed over.
fn apt_mirror(sources: &str, directory: &str) -> Option<String> {
    let lines = sources
        .lines()
        .map(str::trim)
        .filter(|l| l.starts_with("deb ") || l.starts_with("URIs:"));
    let mut words = lines
        .flat_map(str::split_whitespace)
        .map(|w| w.trim_end_matches('/'));
    words
        .find(|w| w.starts_with("http://") && w.rsplit('/').next() == Some(directory))
        .map(str::to_owned)
}

/// A file on a mirror, being read.
pub struct Remote {
    /// Its content.
    pub body: Box<dyn Read>,
}

/// Opens a file of a mirror; `None` if the mirror says that there is none.
pub fn open(url: &str) -> Result<Option<Remote>> {
    if let Some(path) = url.strip_prefix("file://") {
        return open_file(Path::new(path));
    }
    if url.starts_with("https://") {
        return Err(Error::Environment(format!(
            "{url}: kspan reads http:// and file:// mirrors only (signatures guard what it reads); set KSPAN_MIRROR and KSPAN_SECURITY_MIRROR to such ones"
        )));
    }
    let mut last = None;
    for pause in [0, 1, 3, 8] {
        std::thread::sleep(Duration::from_secs(pause));
        match request(url) {
            Ok(found) => return Ok(found),
            Err(e) => last = Some(e),
        }
    }
    let why = last.map(|e| e.to_string()).unwrap_or_default();
    Err(Error::Environment(format!(
        "{url}: cannot be read ({why}). Is the network up? A proxy is taken from http_proxy, another mirror from KSPAN_MIRROR and KSPAN_SECURITY_MIRROR"
    )))
}

fn open_file(path: &Path) -> Result<Option<Remote>> {
    match File::open(path) {
        Ok(file) => Ok(Some(Remote {
            body: Box::new(file),
        })),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path)(e)),
    }
}

fn request(url: &str) -> std::result::Result<Option<Remote>, Box<ureq::Error>> {
    let config = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_recv_body(Some(Duration::from_secs(1800)))
        .user_agent("kspan");
    let agent: ureq::Agent = config.build().into();
    match agent.get(url).call() {
        Ok(response) => Ok(Some(Remote {
            body: Box::new(response.into_body().into_reader()),
        })),
        Err(ureq::Error::StatusCode(404 | 410)) => Ok(None),
        Err(e) => Err(Box::new(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_machines_mirror() {
        let sources = "Types: deb\nURIs: http://m.example/x/debian/\nSuites: s\n\ndeb [arch=amd64] http://m.example/debian-security s main\n";
        assert_eq!(
            apt_mirror(sources, "debian").as_deref(),
            Some("http://m.example/x/debian")
        );
        assert_eq!(
            apt_mirror(sources, "debian-security").as_deref(),
            Some("http://m.example/debian-security")
        );
        assert_eq!(
            apt_mirror("URIs: https://m.example/debian\n", "debian"),
            None
        );
    }
}
