//! `kspan.toml`: the small file that makes a Kbuild directory a driver.

use kspan_kernel::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

/// The manifest's file name.
pub const FILE: &str = "kspan.toml";

/// Where an imported driver came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The kernel whose source tree it stood in, for example `debian/7.3.4+deb13-amd64`.
    pub kernel: String,
    /// The path in that tree: a `.c` file or a directory.
    pub path: String,
}

/// How a driver is tried in an emulated machine: `[smoke]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smoke {
    /// Devices to plug in, each QEMU's option and value: `-device e1000e,netdev={id}`. `{id}` is a name of the driver's own,
    /// `{dir}` the machine's scratch directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub qemu: Vec<String>,
    /// The machine's kind, for devices that the usual one (`q35`) has no place for: `pc`. Such a driver has a machine to itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// A software TPM beside the machine; `{id}tpm` is its `tpmdev`: `-device tpm-tis,tpmdev={id}tpm`. Such a driver has a machine to
    /// itself, and where there is no `swtpm` it is skipped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tpm: bool,
    /// Modules of the kernel to load first, which a full system would load by itself; `NAME?` where the kernel has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// Programs of this machine that the script runs, beside busybox.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<String>,
    /// Scratch disks to make, 64 MiB each, at `{dir}/NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<String>,
    /// The test, a shell script for the guest that ends with `pass` or `fail WHY`.
    pub script: String,
    /// Commands that let go of the modules before they are unloaded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub release: String,
    /// How long the script may take.
    #[serde(default = "default_seconds")]
    pub seconds: u64,
    /// It needs a machine to itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// What a passed test ends with.
    #[serde(default)]
    pub ends: SmokeEnd,
}

/// What a passed smoke test ends with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmokeEnd {
    /// The script's `pass`.
    #[default]
    Pass,
    /// The machine's watchdog fires, and QEMU says so.
    Watchdog,
    /// The guest's panic is told to QEMU.
    Panic,
}

impl SmokeEnd {
    /// Its name in the manifest.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Watchdog => "watchdog",
            Self::Panic => "panic",
        }
    }
}

fn default_seconds() -> u64 {
    60
}

/// QEMU's options that a smoke test may use: those that plug in devices and their backends.
const QEMU_OPTIONS: [&str; 9] = [
    "-device",
    "-netdev",
    "-drive",
    "-blockdev",
    "-chardev",
    "-object",
    "-audiodev",
    "-global",
    "-fw_cfg",
];

impl Smoke {
    /// What TOML's types do not say.
    ///
    /// # Errors
    /// An option that plugs in nothing, a disk's name that is a path, a script without `pass`.
    pub fn check(&self) -> std::result::Result<(), String> {
        for argument in &self.qemu {
            let option = argument.split_whitespace().next().unwrap_or_default();
            if !QEMU_OPTIONS.contains(&option) {
                return Err(format!(
                    "qemu: {argument:?} begins with none of {}",
                    QEMU_OPTIONS.join(", ")
                ));
            }
        }
        if let Some(bad) = self.disks.iter().find(|d| d.is_empty() || d.contains('/')) {
            return Err(format!("disks: {bad:?} is no plain file name"));
        }
        if self.ends == SmokeEnd::Pass && !self.script.split_whitespace().any(|w| w == "pass") {
            return Err("script: it never says `pass`, so it cannot pass".to_owned());
        }
        if !(1..=3600).contains(&self.seconds) {
            return Err(format!("seconds = {}: from 1 to 3600", self.seconds));
        }
        Ok(())
    }
}

/// The contents of `kspan.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The driver's name.
    pub name: String,
    /// The kernel that the sources are written for, by name.
    pub home: String,
    /// The driver's own version, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Names of the modules it builds.
    pub modules: Vec<String>,
    /// Kernel headers (as one writes them in `#include <…>`) that only this driver includes; a port carries them whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private_headers: Vec<String>,
    /// Where it was imported from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Configuration symbols that belong to the driver (`CONFIG_X`), with their values at home (`y`, `m`, a number, `"text"`;
    /// `n` for one that is off).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// Evolutions that are for drivers which choose them (`opt_in` there), by id. What each may change is in its `meaning`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub opt_in: Vec<String>,
    /// How it is tried in an emulated machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoke: Option<Smoke>,
}

/// The value of a symbol that is off.
pub const OFF: &str = "n";

const HEAD: &str = "\
# This directory is a driver for kspan. It stays a plain Kbuild directory: make -C KDIR M=$PWD modules builds it.
# name, home (the kernel it is written for) and modules are required; version, private_headers (kernel headers that
# only this driver includes), opt_in (evolutions that a driver has to choose), [origin], [config] (CONFIG_ symbols of its
# own, with their values) and [smoke] (how `kspan test` tries it) are optional.
";

impl Manifest {
    /// Symbols of the driver's own that are off at home: what they would turn on is not among its files.
    pub fn off(&self) -> impl Iterator<Item = &str> {
        let off = self.config.iter().filter(|(_, value)| *value == OFF);
        off.map(|(name, _)| name.as_str())
    }

    /// Reads the text of a manifest.
    ///
    /// # Errors
    /// Malformed TOML, an unknown or missing key, or a value that cannot be: with the line.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let manifest: Self =
            toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        manifest.check()?;
        Ok(manifest)
    }

    /// What TOML's types do not say.
    fn check(&self) -> std::result::Result<(), String> {
        if self.name.trim().is_empty() || self.name.contains(['/', '\0', '\n']) {
            return Err(format!(
                "name = {:?}: a name is not empty and has no slash or line break",
                self.name
            ));
        }
        if self.home.trim().is_empty() {
            return Err(
                "home is empty: name the kernel that the sources are written for".to_owned(),
            );
        }
        let plain = |m: &str| {
            !m.is_empty()
                && m.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+' | b'.'))
        };
        if let Some(bad) = self.modules.iter().find(|m| !plain(m)) {
            return Err(format!("modules: {bad:?} is no module name"));
        }
        if let Some(bad) = self.config.keys().find(|k| !k.starts_with("CONFIG_")) {
            return Err(format!("[config]: {bad:?} does not begin with CONFIG_"));
        }
        self.smoke
            .as_ref()
            .map_or(Ok(()), Smoke::check)
            .map_err(|why| format!("[smoke]: {why}"))
    }

    /// Reads `kspan.toml` in a directory.
    ///
    /// # Errors
    /// There is none, or it is malformed.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Input(format!(
                    "{} is no driver: it has no {FILE}; write one with `kspan init {}`",
                    dir.display(),
                    dir.display()
                )));
            }
            Err(source) => return Err(Error::Io { path, source }),
        };
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::Input(format!("{}: not UTF-8 text", path.display())))?;
        Self::parse(&text).map_err(|why| Error::Input(format!("{}: {why}", path.display())))
    }

    /// The text of the file.
    ///
    /// # Errors
    /// When a value cannot be written as TOML.
    pub fn render(&self) -> Result<String> {
        let body = toml::to_string(self)
            .map_err(|e| Error::Input(format!("{FILE} of {}: {e}", self.name)))?;
        Ok(format!("{HEAD}{body}"))
    }

    /// Writes `kspan.toml` into a directory, whole or not at all.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        write_whole(&dir.join(FILE), self.render()?.as_bytes())
    }
}

/// Writes a file whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |source| Error::Io {
        path: path.to_path_buf(),
        source,
    };
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".kspan-")
        .tempfile_in(dir)
        .map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    let mut mode = file.as_file().metadata().map_err(io)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o644);
    file.as_file().set_permissions(mode).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(path).map_err(|e| io(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let m = Manifest {
            name: "jc42".into(),
            home: "debian/7.3.4+deb13-amd64".into(),
            modules: vec!["jc42".into()],
            origin: Some(Origin {
                kernel: "debian/7.3.4+deb13-amd64".into(),
                path: "drivers/hwmon/jc42.c".into(),
            }),
            config: BTreeMap::from([
                ("CONFIG_A".into(), "y".into()),
                ("CONFIG_S".into(), "\"t\"".into()),
            ]),
            private_headers: vec!["linux/x.h".into()],
            version: Some("1.2".into()),
            opt_in: vec!["x".into()],
            smoke: Some(Smoke {
                qemu: vec!["-device lsi53c895a".into()],
                machine: Some("pc".into()),
                tpm: true,
                modules: vec!["sd_mod".into()],
                programs: vec!["ip".into()],
                disks: vec!["d".into()],
                script: "true\npass\n".into(),
                release: String::new(),
                seconds: 5,
                alone: true,
                ends: SmokeEnd::Pass,
            }),
        };
        assert_eq!(Manifest::parse(&m.render().unwrap()).unwrap(), m);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let e =
            Manifest::parse("name = \"a\"\nhome = \"7.3\"\nmodules = []\nhorse = 1\n").unwrap_err();
        assert!(e.contains("line 4") && e.contains("horse"), "{e}");
        assert!(Manifest::parse("name = \"a/b\"\nhome = \"7.3\"\nmodules = []\n").is_err());
        assert!(Manifest::parse("\u{0}").is_err());
    }

    #[test]
    fn a_smoke_test_that_cannot_pass_or_reaches_out_is_refused() {
        let parse = |smoke: &str| {
            Manifest::parse(&format!(
                "name = \"a\"\nhome = \"7.3\"\nmodules = []\n[smoke]\n{smoke}"
            ))
        };
        assert!(parse("script = \"pass\"").is_ok());
        assert!(parse("script = \"true\"").unwrap_err().contains("pass"));
        assert!(parse("script = \"reboot\"\nends = \"watchdog\"").is_ok());
        let monitor = "script = \"pass\"\nqemu = [\"-monitor tcp::1\"]";
        assert!(parse(monitor).unwrap_err().contains("-monitor"));
        assert!(parse("script = \"pass\"\ndisks = [\"../x\"]").is_err());
    }

    #[test]
    fn a_directory_without_a_manifest_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            Manifest::load(dir.path())
                .unwrap_err()
                .to_string()
                .contains("kspan init")
        );
    }
}
