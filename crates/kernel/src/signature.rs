//! Whether Debian signed an index: gpgv against the machine's Debian keyrings.

use crate::{Error, Result, files};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const KEYRINGS: &str = "/usr/share/keyrings";

/// Checks a clear-signed `InRelease` file, read from `url`, and returns the text that the signature covers.
pub fn signed_text(in_release: &Path, url: &str) -> Result<String> {
    let gpgv = files::find_program("gpgv").ok_or_else(|| {
        Error::Environment(
            "gpgv is needed to check Debian's signatures: `apt-get install gpgv`".to_owned(),
        )
    })?;
    let out = in_release.with_extension("text");
    let mut command = Command::new(gpgv);
    command
        .env("LC_ALL", "C")
        .args(["--status-fd", "1", "--output"])
        .arg(&out);
    for keyring in keyrings()? {
        command.arg("--keyring").arg(keyring);
    }
    let output = command
        .arg(in_release)
        .output()
        .map_err(|e| Error::Environment(format!("gpgv cannot be started: {e}")))?;
    if !is_good(&String::from_utf8_lossy(&output.stdout)) {
        return Err(Error::Environment(format!(
            "{url}: Debian's signature on this index does not verify, so nothing of it is used. A stale or altered mirror, or a keyring that is too \
             old (`apt-get install --only-upgrade debian-archive-keyring`). gpgv says:\n{}",
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    files::read_text(&out)
}

/// At least one good signature by a known, valid key, and none that is bad; unknown keys do not count.
fn is_good(status: &str) -> bool {
    let has = |word: &str| {
        status
            .lines()
            .filter_map(|l| l.strip_prefix("[GNUPG:] "))
            .any(|l| l.starts_with(word))
    };
    has("GOODSIG ") && !has("BADSIG ")
}

/// Debian's keyrings, and one that the user adds with `KSPAN_KEYRING` (a mirror signed by himself).
fn keyrings() -> Result<Vec<PathBuf>> {
    let own = std::env::var_os("KSPAN_KEYRING")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from);
    let is_debian = |p: &PathBuf| {
        let name = p.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("debian-archive-") && name.ends_with(".gpg") && !name.contains("removed")
    };
    let installed = fs::read_dir(KEYRINGS)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(is_debian);
    let mut all: Vec<PathBuf> = installed.chain(own).collect();
    all.sort();
    match all.is_empty() {
        false => Ok(all),
        true => Err(Error::Environment(format!(
            "no Debian keyring in {KEYRINGS}: `apt-get install debian-archive-keyring`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_good_and_no_bad_signature_is_needed() {
        assert!(is_good(
            "[GNUPG:] ERRSIG X\n[GNUPG:] GOODSIG ABC Debian\n[GNUPG:] VALIDSIG ABC\n"
        ));
        assert!(!is_good("[GNUPG:] GOODSIG A x\n[GNUPG:] BADSIG B y\n"));
        assert!(!is_good("[GNUPG:] EXPKEYSIG A x\n[GNUPG:] VALIDSIG A\n"));
        assert!(!is_good("GOODSIG forged in plain output\n"));
    }
}
