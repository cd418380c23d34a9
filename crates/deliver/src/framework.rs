//! `/etc/dkms/framework.conf` and what lies in `framework.conf.d`.

use crate::evaluate::{self, Evaluated, Question};
use crate::{Result, evaluate::remember, evaluate::remembered};
use std::path::{Path, PathBuf};

/// Read at the start.
pub const GENERAL: [&str; 14] = [
    "source_tree",
    "dkms_tree",
    "install_tree",
    "tmp_location",
    "verbose",
    "symlink_modules",
    "autoinstall_all_kernels",
    "modprobe_on_install",
    "parallel_jobs",
    "compress_gzip_opts",
    "compress_xz_opts",
    "compress_zstd_opts",
    "build_environment",
    "post_transaction",
];
/// Read when signing, and may name the kernel.
pub const SIGNING: [&str; 4] = [
    "sign_file",
    "mok_signing_key",
    "mok_certificate",
    "try_sign_modules",
];
/// Read when all is done.
pub const TRANSACTION: [&str; 1] = ["post_transaction"];

/// The files, in order.
pub fn files() -> Vec<PathBuf> {
    let dir = Path::new("/etc/dkms/framework.conf.d");
    let mut files: Vec<PathBuf> = vec!["/etc/dkms/framework.conf".into()];
    files.extend(
        crate::disk::names(dir)
            .into_iter()
            .filter(|n| n.ends_with(".conf"))
            .map(|n| dir.join(n)),
    );
    files.retain(|f| f.exists());
    files
}

/// Reads some variables. No shell runs where the files say nothing, or only plain values, or said the same before.
///
/// # Errors
/// When bash cannot be run.
pub fn read(names: &[&str], variables: Vec<(&str, String)>, cache: &Path) -> Result<Evaluated> {
    let files = files();
    if let Some(plain) = plain(&files, names) {
        return Ok(plain);
    }
    let question = Question {
        names,
        files,
        variables,
        ..Question::default()
    };
    let key = evaluate::key(&question, "", "");
    if let Some(known) = remembered(cache, &key) {
        return Ok(known);
    }
    let answer = evaluate::ask(&question, "", "")?;
    remember(cache, &key, &answer);
    Ok(answer)
}

/// The values of files that hold nothing but comments and literal assignments.
fn plain(files: &[PathBuf], names: &[&str]) -> Option<Evaluated> {
    let mut out = Evaluated::default();
    for file in files {
        let text = std::fs::read_to_string(file).ok()?;
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = assignment(line)?;
            if names.contains(&name) {
                out.arrays
                    .entry(name.to_owned())
                    .or_default()
                    .insert(0, value);
            }
        }
    }
    Some(out)
}

/// `name=value` with nothing that a shell would expand.
fn assignment(line: &str) -> Option<(&str, String)> {
    let (name, value) = line.split_once('=')?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let inner = match value.as_bytes() {
        [q @ (b'"' | b'\''), .., last] if q == last && value.len() > 1 => {
            value.get(1..value.len() - 1)?
        }
        _ if value.contains(char::is_whitespace) => return None,
        _ => value,
    };
    let literal = !inner.contains([
        '$', '`', '\\', '"', '\'', ';', '&', '|', '<', '>', '(', ')', '*', '?', '[', '~', '#',
    ]);
    (is_name && literal).then(|| (name, inner.split_whitespace().collect::<Vec<_>>().join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literal_assignments_are_read_without_a_shell() {
        assert_eq!(assignment("a=\"x y\""), Some(("a", "x y".to_owned())));
        assert_eq!(assignment("a=/b/c"), Some(("a", "/b/c".to_owned())));
        assert_eq!(assignment("a="), Some(("a", String::new())));
        for shell in [
            "a=$b",
            "a=\"$(x)\"",
            "f() {",
            "a=b c",
            "export a=b",
            "a='\"'",
            "a[0]=x",
        ] {
            assert_eq!(assignment(shell), None, "{shell}");
        }
    }
}
