//! The QEMU of this machine: where it is, which devices it has, whether KVM really works.

use kspan_kernel::{Error, Result};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const PROGRAM: &str = "qemu-system-x86_64";

/// How long SeaBIOS may take to say its first word under KVM.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// How a guest's instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// By the processor.
    Kvm,
    /// By translation: slower, everywhere.
    Tcg,
}

impl Accelerator {
    /// QEMU's name for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// A QEMU that was found and asked what it has.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: PathBuf,
    /// Its own word for its version.
    pub version: String,
    parts: BTreeSet<String>,
}

impl Qemu {
    /// Finds QEMU and asks which devices, backends and objects it has.
    ///
    /// # Errors
    /// When there is none.
    pub fn find() -> Result<Self> {
        let program = find_program(PROGRAM).ok_or_else(|| {
            Error::Environment(format!(
                "{PROGRAM} is not in PATH: `apt-get install qemu-system-x86`, or run scripts/setup.sh"
            ))
        })?;
        let ask = |arguments: &[&str]| {
            let out = Command::new(&program)
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .map_err(Error::io(&program))?;
            Ok::<_, Error>(String::from_utf8_lossy(&out.stdout).into_owned())
        };
        let version = ask(&["--version"])?
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let mut parts = device_names(&ask(&["-device", "help"])?);
        for kind in ["-object", "-netdev", "-audiodev", "-tpmdev", "-chardev"] {
            parts.extend(ask(&[kind, "help"])?.split_whitespace().map(str::to_owned));
        }
        Ok(Self {
            program,
            version,
            parts,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn program(&self) -> &std::path::Path {
        &self.program
    }

    /// What some QEMU arguments want and this QEMU does not have.
    #[must_use]
    pub fn lacks(&self, arguments: &[String]) -> Option<String> {
        arguments.iter().find_map(|argument| {
            let (option, value) = argument.trim().split_once(' ')?;
            let wants = matches!(
                option,
                "-device" | "-object" | "-netdev" | "-audiodev" | "-tpmdev" | "-chardev"
            );
            let kind = value
                .trim()
                .split(',')
                .next()?
                .trim_start_matches("driver=");
            (wants && !self.parts.contains(kind)).then(|| {
                format!(
                    "this QEMU ({}) has no {} {kind}",
                    self.version,
                    option.trim_start_matches('-')
                )
            })
        })
    }

    /// KVM if a guest really runs under it here: `/dev/kvm` may be there and not work. The machine's firmware is run until
    /// it says its first word.
    #[must_use]
    pub fn accelerator(&self) -> Accelerator {
        if std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_err()
        {
            return Accelerator::Tcg;
        }
        match self.firmware_speaks() {
            Some(true) => Accelerator::Kvm,
            _ => Accelerator::Tcg,
        }
    }

    fn firmware_speaks(&self) -> Option<bool> {
        let mut child = Command::new(&self.program)
            .args([
                "-accel",
                "kvm",
                "-machine",
                "q35",
                "-m",
                "64",
                "-nodefaults",
                "-no-user-config",
            ])
            .args([
                "-display",
                "none",
                "-no-reboot",
                "-chardev",
                "stdio,id=d,signal=off",
            ])
            .args(["-device", "isa-debugcon,iobase=0x402,chardev=d"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut out = child.stdout.take()?;
        let (tell, told) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut byte = [0_u8; 1];
            let _ = tell.send(matches!(out.read(&mut byte), Ok(1)));
        });
        let spoke = told.recv_timeout(FIRST_WORD).unwrap_or(false);
        let _ = child.kill();
        let _ = child.wait();
        let _ = reader.join();
        Some(spoke)
    }
}

/// The names and aliases in the output of `-device help`.
fn device_names(help: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for key in ["name \"", "alias \""] {
        for rest in help.split(key).skip(1) {
            names.extend(rest.split('"').next().map(str::to_owned));
        }
    }
    names
}

/// A program in PATH or where Debian has those of the administrator.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let qemu = Qemu {
            program: PathBuf::new(),
            version: "QEMU 7.2".into(),
            parts: device_names(
                "name \"e1000e\", bus PCI, desc \"x\"\nname \"AC97\", bus PCI, alias \"ac97\"\n",
            ),
        };
        let arguments = |device: &str| vec![format!("-device {device},netdev=n")];
        assert_eq!(qemu.lacks(&arguments("e1000e")), None);
        assert_eq!(qemu.lacks(&arguments("ac97")), None);
        assert!(
            qemu.lacks(&arguments("igb"))
                .unwrap()
                .contains("no device igb")
        );
    }
}
