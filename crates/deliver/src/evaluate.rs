//! A bash configuration file, evaluated once in a sandbox and remembered by its content.
//!
//! dkms sources these files and then expands every value a second time inside double quotes. Packages rely on both, so bash
//! does both here; but it runs without network, can write nothing, and is stopped after [`LIMIT`].

use crate::{Result, Stop, disk};
use kspan_kernel::shell::{Ended, Output, Script, run_script};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A configuration file that has not ended by then is refused.
const LIMIT: Duration = Duration::from_secs(20);

/// Values by name and index. Every bash variable is an array; a plain one has index 0.
pub type Arrays = BTreeMap<String, BTreeMap<usize, String>>;

/// What the files said.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Evaluated {
    /// The values.
    pub arrays: Arrays,
    /// For each pattern variable, the indices whose pattern matches this kernel or architecture.
    pub matches: BTreeMap<String, Vec<usize>>,
    /// Variables that are no longer used, and the file after which each was seen.
    pub deprecated: Vec<(String, String)>,
    /// What bash said on stderr.
    #[serde(skip)]
    pub complaints: String,
    /// Why there was no sandbox.
    #[serde(skip)]
    pub unprotected: Option<String>,
}

impl Evaluated {
    /// The value at index 0, empty when there is none.
    pub fn first(&self, name: &str) -> &str {
        self.at(name, 0)
    }

    /// The value at an index, empty when there is none.
    pub fn at(&self, name: &str, index: usize) -> &str {
        self.arrays
            .get(name)
            .and_then(|a| a.get(&index))
            .map_or("", String::as_str)
    }

    /// All values in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = (usize, &str)> {
        self.arrays
            .get(name)
            .into_iter()
            .flatten()
            .map(|(i, v)| (*i, v.as_str()))
    }

    /// Did this index of a pattern variable match?
    pub fn matched(&self, name: &str, index: usize) -> bool {
        self.matches.get(name).is_some_and(|m| m.contains(&index))
    }
}

/// What is asked of bash.
#[derive(Debug, Clone, Default)]
pub struct Question<'a> {
    /// The variables to read.
    pub names: &'a [&'a str],
    /// Those whose use is deprecated.
    pub deprecated: &'a [&'a str],
    /// The files, in order; later ones see what earlier ones said.
    pub files: Vec<PathBuf>,
    /// Shell variables that the files may use.
    pub variables: Vec<(&'a str, String)>,
    /// Take no values of the same names from the environment.
    pub clear: bool,
    /// Patterns matched against the kernel's release.
    pub kernel_patterns: &'a [&'a str],
    /// Patterns matched against the architecture.
    pub arch_patterns: &'a [&'a str],
}

/// The program that bash runs. `$1` names, `$2` deprecated names, `$3` kernel patterns, `$4` arch patterns, then files.
const PROGRAM: &str = r#"
__names=$1 __old=$2 __kp=$3 __ap=$4; shift 4
__cr=$'\r'
for __file in "$@"; do
  __dump=$(
    . "$__file" >/dev/null
    set -f; unset IFS
    for __n in $__names; do
      eval "__idx=(\"\${!$__n[@]}\")"
      for __i in "${__idx[@]}"; do
        eval "__v=(\${$__n[\$__i]%\$__cr})"
        builtin printf '%s[%s]="%s"\n' "$__n" "$__i" "${__v[*]}"
      done
    done
    for __d in ${!DKMS_DIRECTIVE*}; do
      builtin printf '%s="%s"\n' "${!__d%%=*}" "${!__d#*=}"
    done
  )
  eval "$__dump"
  for __n in $__old; do
    eval "__c=\${#$__n[@]}"
    (( __c )) && builtin printf 'deprecated\0%s\0%s\0' "$__n" "$__file"
  done
done
set -f; unset IFS
for __n in $__names; do
  eval "__idx=(\"\${!$__n[@]}\")"
  for __i in "${__idx[@]}"; do
    eval "__v=\${$__n[\$__i]}"
    builtin printf '%s\0%s\0%s\0' "$__n" "$__i" "$__v"
  done
done
__try() {
  eval "__idx=(\"\${!$1[@]}\")"
  for __i in "${__idx[@]}"; do
    eval "__v=\${$1[\$__i]}"
    [[ -n $__v && $2 =~ $__v ]] && builtin printf 'match\0%s\0%s\0' "$1" "$__i"
  done
}
for __n in $__kp; do __try "$__n" "$__kernel"; done
for __n in $__ap; do __try "$__n" "$__arch"; done
exit 0
"#;

/// Asks bash.
///
/// # Errors
/// When bash cannot be run, or does not end in time.
pub fn ask(question: &Question<'_>, kernel: &str, arch: &str) -> Result<Evaluated> {
    let script = Script {
        text: program(question, kernel, arch),
        arguments: arguments(question),
        dir: "/".into(),
        readable: question
            .files
            .iter()
            .filter_map(|f| f.canonicalize().ok()?.parent().map(Path::to_path_buf))
            .chain(
                question
                    .files
                    .iter()
                    .filter_map(|f| f.parent().map(Path::to_path_buf)),
            )
            .collect(),
        limit: Some(LIMIT),
        ..Script::default()
    };
    let ended = run_script(&script, &Output::Capture)?;
    if ended.late {
        return Err(too_slow(question));
    }
    Ok(read(&ended))
}

fn too_slow(question: &Question<'_>) -> Stop {
    let files: Vec<String> = question
        .files
        .iter()
        .map(|f| f.display().to_string())
        .collect();
    Stop::error(
        8,
        [
            format!(
                "Bad conf file: it did not end within {} s.",
                LIMIT.as_secs()
            ),
            format!("File: {}", files.join(", ")),
            "Look for a loop or a command that waits in it.".to_owned(),
        ],
    )
}

fn program(question: &Question<'_>, kernel: &str, arch: &str) -> String {
    let mut text = String::new();
    if question.clear {
        text.push_str(&format!("unset {}\n", question.names.join(" ")));
    }
    let own = [("__kernel", kernel.to_owned()), ("__arch", arch.to_owned())];
    for (name, value) in question.variables.iter().chain(&own) {
        text.push_str(&format!("{name}={}\n", quoted(value)));
    }
    text.push_str(PROGRAM);
    text
}

/// A word that bash reads back as it is.
pub fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\0', "").replace('\'', r"'\''"))
}

fn arguments(question: &Question<'_>) -> Vec<std::ffi::OsString> {
    [
        question.names,
        question.deprecated,
        question.kernel_patterns,
        question.arch_patterns,
    ]
    .iter()
    .map(|names| names.join(" ").into())
    .chain(question.files.iter().map(|f| f.into()))
    .collect()
}

fn read(ended: &Ended) -> Evaluated {
    let mut out = parse(&ended.stdout);
    out.complaints = String::from_utf8_lossy(&ended.stderr).into_owned();
    out.unprotected = ended.unprotected.clone();
    out
}

/// Reads the triples that [`PROGRAM`] prints; what is cut or odd is left out.
pub fn parse(bytes: &[u8]) -> Evaluated {
    let text = String::from_utf8_lossy(bytes);
    let mut words = text.split('\0');
    let mut out = Evaluated::default();
    while let (Some(name), Some(index), Some(value)) = (words.next(), words.next(), words.next()) {
        match name {
            "deprecated" => out.deprecated.push((index.to_owned(), value.to_owned())),
            "match" => {
                let found = out.matches.entry(index.to_owned()).or_default();
                found.extend(value.parse::<usize>().ok());
            }
            _ => {
                if let Ok(index) = index.parse() {
                    let array = out.arrays.entry(name.to_owned()).or_default();
                    array.insert(index, value.to_owned());
                }
            }
        }
    }
    out
}

/// The key of an answer: everything that was asked, and the content of every file.
pub fn key(question: &Question<'_>, kernel: &str, arch: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    hasher.update(program(question, kernel, arch).as_bytes());
    for word in arguments(question) {
        hasher.update(word.as_encoded_bytes());
        hasher.update(&[0]);
    }
    for file in &question.files {
        hasher.update(&std::fs::read(file).unwrap_or_default());
        hasher.update(&[0]);
    }
    let directives =
        std::env::vars_os().filter(|(k, _)| k.as_encoded_bytes().starts_with(b"DKMS_DIRECTIVE"));
    for (name, value) in directives {
        hasher.update(name.as_encoded_bytes());
        hasher.update(value.as_encoded_bytes());
    }
    hasher.finalize().to_hex().as_str()[..32].to_owned()
}

/// A remembered answer.
pub fn remembered(cache: &Path, key: &str) -> Option<Evaluated> {
    let bytes = std::fs::read(cache.join(key)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Remembers an answer; a tree that cannot be written (no root) is none the worse.
pub fn remember(cache: &Path, key: &str, answer: &Evaluated) {
    if let Ok(bytes) = serde_json::to_vec(answer) {
        let _ = disk::write_quietly(&cache.join(key), &bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str, names: &[&str]) -> Evaluated {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dkms.conf");
        std::fs::write(&file, text).unwrap();
        let question = Question {
            names,
            files: vec![file],
            variables: vec![("kernelver", "6.1.0".to_owned())],
            kernel_patterns: &["MAKE_MATCH"],
            clear: true,
            ..Question::default()
        };
        ask(&question, "6.1.0", "x86_64").unwrap()
    }

    #[test]
    fn values_are_expanded_twice_as_dkms_does() {
        let e = asked("MAKE='make  K=${kernelver}'\r\nB[2]=x\r\n", &["MAKE", "B"]);
        assert_eq!(e.first("MAKE"), "make K=6.1.0");
        assert_eq!(e.at("B", 2), "x");
        assert_eq!(e.at("B", 0), "");
    }

    #[test]
    fn patterns_are_bash_patterns() {
        let e = asked(
            "MAKE_MATCH[0]='^5' \nMAKE_MATCH[1]='^6\\.[0-9]'\n",
            &["MAKE_MATCH"],
        );
        assert!(!e.matched("MAKE_MATCH", 0) && e.matched("MAKE_MATCH", 1));
    }

    #[test]
    fn a_file_that_defines_functions_or_exits_does_no_harm() {
        let e = asked("printf() { echo stolen; }\nA=1\n", &["A"]);
        assert_eq!(e.first("A"), "1");
        assert_eq!(asked("A=1; exit 3\n", &["A"]).first("A"), "");
    }

    #[test]
    fn odd_output_is_no_panic() {
        for bytes in [
            &b"\0\0"[..],
            b"A\0",
            b"A\0x\0v\0",
            b"match\0A\0-1\0",
            b"\xff\0\xff\0\xff",
        ] {
            parse(bytes);
        }
    }
}
