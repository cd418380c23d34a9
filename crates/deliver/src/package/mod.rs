//! `kspan package`: a driver as packages. Never installs anything, and starts make only by way of the kernel room.
//!
//! Its main functions are [`Order::source`] (a dkms source package: the driver, its ports, and a probe that picks one by what the
//! kernel's headers say) and [`Order::modules`] (built modules for one kernel).

mod deb;
mod modules;
mod payload;
mod probes;
mod rpm;
mod sbom;
mod source;

pub use self::rpm::rpm;
pub use deb::deb;
pub use payload::{About, Depends, File, Payload, Scripts};

use kspan_port::driver::Driver;
use kspan_port::home::Home;
use kspan_port::view::View;
use kspan_port::{Engine, Port};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What went wrong in making a package.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The driver cannot be packaged so; says why and what to do.
    #[error("{0}")]
    Input(String),
    /// A kernel, its toolchain or its facts.
    #[error(transparent)]
    Kernel(#[from] kspan_kernel::Error),
    /// A port.
    #[error(transparent)]
    Port(#[from] kspan_port::Error),
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The operating system's word.
        source: std::io::Error,
    },
}

impl Error {
    /// The machine lacks something; else what was named cannot be packaged.
    #[must_use]
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Input(_) => false,
            Self::Kernel(e) | Self::Port(kspan_port::Error::Kernel(e)) => {
                !matches!(e, kspan_kernel::Error::Input(_))
            }
            Self::Port(e) => !matches!(e, kspan_port::Error::Input(_)),
            Self::Io { .. } => true,
        }
    }

    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }
}

/// The result type here.
pub type Result<T> = std::result::Result<T, Error>;

/// A driver to be packaged.
pub struct Order<'a> {
    /// The engine that made the ports.
    pub engine: &'a Engine,
    /// The driver.
    pub driver: &'a Driver,
    /// Its home kernel.
    pub home: Arc<View>,
    /// The driver there.
    pub built: Home,
    /// The kernels that the package is for, each with a port that builds.
    pub ports: Vec<(Arc<View>, Port)>,
    /// The package's version.
    pub version: String,
    /// `Name <address>`.
    pub maintainer: String,
    /// Seconds since 1970 of everything in the packages (`SOURCE_DATE_EPOCH`).
    pub epoch: u64,
}

/// A package that is ready to be written in any format.
#[derive(Debug, Clone)]
pub struct Package {
    /// What it says of itself.
    pub about: About,
    /// What it holds.
    pub payload: Payload,
    /// Its licence, as SPDX writes it.
    pub licence: String,
}

impl Order<'_> {
    /// The driver's name as packages may have it: lower case, no underscores.
    fn name(&self) -> String {
        let plain = |c: char| match c {
            'a'..='z' | '0'..='9' | '+' | '.' => c,
            'A'..='Z' => c.to_ascii_lowercase(),
            _ => '-',
        };
        let name: String = self.driver.manifest.name.chars().map(plain).collect();
        name.trim_matches(['-', '.', '+']).to_owned()
    }

    /// Files that a driver brings for the machine: `modprobe.d/*.conf` and `firmware/`, in its own directory.
    fn companions(&self, payload: &mut Payload) -> Result<()> {
        for file in self.driver.sources()? {
            let place = match file.strip_prefix("firmware") {
                Ok(inside) => Path::new("/usr/lib/firmware").join(inside),
                Err(_) if file.starts_with("modprobe.d") => {
                    Path::new("/usr/lib/modprobe.d").join(file.file_name().unwrap_or_default())
                }
                Err(_) => continue,
            };
            payload.put(place, read(&self.driver.dir.join(&file))?);
        }
        Ok(())
    }

    /// The record of a port, without what differs from run to run.
    fn record(port: &Port) -> Vec<u8> {
        let record = port.repeatable();
        let mut text = serde_json::to_vec_pretty(&record).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// Who holds the driver's copyright, and since when, as its files say it, each once; the authors, where they do not.
    fn holders(&self) -> Result<Vec<String>> {
        let mut holders = Vec::new();
        for file in self.driver.sources()? {
            if !file.extension().is_some_and(|e| e == "c" || e == "h") {
                continue;
            }
            let bytes = read(&self.driver.dir.join(&file))?;
            for holder in String::from_utf8_lossy(&bytes).lines().filter_map(holder) {
                if !holders.contains(&holder) {
                    holders.push(holder);
                }
            }
        }
        if holders.is_empty() {
            holders.push("the authors named in the sources".to_owned());
        }
        Ok(holders)
    }

    /// What every package of ours has: changelog, copyright and the list of its contents.
    fn documents(&self, package: &mut Package) -> Result<()> {
        let about = &package.about;
        let doc = Path::new("/usr/share/doc").join(&about.name);
        let changelog = format!(
            "{} ({}) unstable; urgency=medium\n\n  * Packaged by kspan from {}.\n\n -- {}  {}\n",
            about.name,
            about.version,
            self.driver.manifest.name,
            about.maintainer,
            rfc2822(about.epoch)
        );
        let copyright = format!(
            "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: {}\nLicense: {}\n On Debian systems, the text of the GNU General Public License is in\n /usr/share/common-licenses.\n",
            self.holders()?.join("\n           "),
            package.licence
        );
        let mut gz = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gz, changelog.as_bytes()).map_err(Error::io(&doc))?;
        let packed = gz.finish().map_err(Error::io(&doc))?;
        package.payload.put(doc.join("changelog.gz"), packed);
        package.payload.put(doc.join("copyright"), copyright);
        let sbom = sbom::spdx(package, &self.home.kernel.id);
        package.payload.put(doc.join("sbom.spdx.json"), sbom);
        Ok(())
    }
}

/// The years and the name in a notice of a comment: ` * Copyright (c) 2020 A. Author` gives `2020 A. Author`.
fn holder(line: &str) -> Option<String> {
    let at = line.find("Copyright")?;
    let before = &line[..at];
    let is_comment = before.contains(['/', '*']) || before.trim().is_empty();
    let rest = line.get(at + "Copyright".len()..)?;
    let rest = rest.trim_end().trim_end_matches("*/");
    let mark = |c: char| c.is_whitespace() || [':', ',', '©'].contains(&c);
    let mut rest = rest.trim_matches(mark);
    for sign in ["(C)", "(c)"] {
        rest = rest.strip_prefix(sign).unwrap_or(rest).trim_matches(mark);
    }
    (is_comment && rest.starts_with(|c: char| c.is_ascii_digit())).then(|| rest.to_owned())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::io(path))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Year, month, day, hour, minute, second and day of the week (0 is Sunday) in UTC.
fn civil(epoch: u64) -> (u64, u64, u64, u64, u64, u64, u64) {
    let (days, rest) = (epoch / 86_400, epoch % 86_400);
    // Days since 0000-03-01, in eras of 400 years.
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = era * 400 + yoe + u64::from(month <= 2);
    let day = doy - (153 * mp + 2) / 5 + 1;
    (
        year,
        month,
        day,
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        (days + 4) % 7,
    )
}

fn rfc2822(epoch: u64) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (year, month, day, h, m, s, weekday) = civil(epoch);
    let name = |list: &[&'static str], i: u64| {
        usize::try_from(i)
            .ok()
            .and_then(|i| list.get(i).copied())
            .unwrap_or_default()
    };
    format!(
        "{}, {day:02} {} {year} {h:02}:{m:02}:{s:02} +0000",
        name(&DAYS, weekday),
        name(&MONTHS, month - 1)
    )
}

fn iso8601(epoch: u64) -> String {
    let (year, month, day, h, m, s, _) = civil(epoch);
    format!("{year}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_name_years_and_holders() {
        let is = |line: &str, holder_: &str| assert_eq!(holder(line).as_deref(), Some(holder_));
        is(" * Copyright (c) 2020 A. Author", "2020 A. Author");
        is(
            "// Copyright 2019-2021, B <b@example.com>",
            "2019-2021, B <b@example.com>",
        );
        is("/* Copyright (C) 2001 C. */", "2001 C.");
        is("   Copyright \u{a9} 1999 D", "1999 D");
        for none in [
            " * Copyright notices follow",
            "pr_info(\"Copyright 2020 x\");",
            "int x;",
        ] {
            assert_eq!(holder(none), None, "{none}");
        }
    }

    #[test]
    fn dates_are_right() {
        assert_eq!(iso8601(0), "1970-01-01T00:00:00Z");
        assert_eq!(iso8601(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(rfc2822(951_827_696), "Tue, 29 Feb 2000 12:34:56 +0000");
    }
}
