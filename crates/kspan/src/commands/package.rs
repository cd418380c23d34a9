//! `kspan package`: a driver as packages.

use super::drivers;
use crate::output;
use anyhow::Context;
use kspan_deliver::package::{Order, Package, deb, rpm};
use kspan_kernel::{Cache, KbuildOptions};
use kspan_port::driver::Driver;
use kspan_port::view::View;
use kspan_port::{Engine, Port};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Make packages of a driver: a dkms source package, or built modules.
///
/// The dkms source package works with the real dkms, on a machine that has never heard of kspan: it holds the driver as it was
/// written, the ports derived ahead of time, and a small probe that picks the one that fits by what the kernel's headers declare.
/// Where none fits it refuses, or derives one if kspan is installed. The packages are the same to the byte every time
/// (SOURCE_DATE_EPOCH, else the time of the driver's newest file), with a list of contents (SPDX) and the provenance of every remedy.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The driver's directory (with a kspan.toml).
    driver: PathBuf,
    /// Kernels: ids, releases or aliases such as 6.1, separated by commas; `all` for every fetched one [default: the newest of each
    /// fetched series].
    #[arg(long, value_name = "K,K", value_delimiter = ',')]
    on: Vec<String>,
    /// Which formats.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "deb")]
    format: Vec<Format>,
    /// Built modules, one package for each kernel, instead of the dkms source package.
    #[arg(long)]
    prebuilt: bool,
    /// Where the packages go.
    #[arg(long, short, value_name = "DIR")]
    out: PathBuf,
    /// The version [default: of the driver's kspan.toml, else 0.1].
    #[arg(long, value_name = "VERSION")]
    package_version: Option<String>,
    /// `Name <address>` [default: DEBFULLNAME and DEBEMAIL, else root].
    #[arg(long, value_name = "WHO")]
    maintainer: Option<String>,
}

/// A format of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Debian's.
    Deb,
    /// Fedora's, RHEL's, SUSE's.
    Rpm,
}

/// Runs it.
///
/// # Errors
/// When the driver or a kernel is not there, or nothing can be packaged.
pub fn run(args: &Args, cache: Cache, json: bool) -> anyhow::Result<ExitCode> {
    let driver = drivers::load(&args.driver)?;
    let engine = Engine::new(cache)?;
    let on = kernels(args, &engine)?;
    let targets = drivers::targets(&on, &engine)?;
    let (ports, left_out) = ports(&engine, &driver, targets)?;
    let options = KbuildOptions::default();
    let (home, built) = engine.home(&driver, &options)?;
    let version = version(args, &driver)?;
    let order = Order {
        engine: &engine,
        driver: &driver,
        home,
        built,
        ports,
        version,
        maintainer: maintainer(args),
        epoch: epoch(&driver)?,
    };
    let mut made = Vec::new();
    if !order.ports.is_empty() {
        for (kernel, package) in packages(args, &order)? {
            for format in &args.format {
                made.push(write(&args.out, &package, *format, kernel.as_deref())?);
            }
        }
    }
    tell(&order, &made, &left_out, json)?;
    Ok(output::verdict(left_out.is_empty() && !made.is_empty()))
}

fn kernels(args: &Args, engine: &Engine) -> anyhow::Result<Vec<String>> {
    if args.on.iter().any(|k| k == "all") {
        let all = engine.cache.kernels()?;
        return Ok(all.into_iter().map(|k| k.id).collect());
    }
    Ok(args.on.clone())
}

type Ports = Vec<(Arc<View>, Port)>;

/// The ports that build, and the kernels without one, with the reason.
fn ports(
    engine: &Engine,
    driver: &Driver,
    targets: Vec<Arc<View>>,
) -> anyhow::Result<(Ports, Vec<(String, String)>)> {
    let (mut ports, mut left_out) = (Vec::new(), Vec::new());
    let options = KbuildOptions {
        jobs: 2,
        ..KbuildOptions::default()
    };
    for target in targets {
        let port = engine.port(driver, &target, &options)?;
        if port.builds() {
            ports.push((target, port));
        } else {
            let first = port.open.first().map(|g| g.why.clone());
            let why = first.unwrap_or_else(|| port.broken.lines().next().unwrap_or("").to_owned());
            left_out.push((target.kernel.id.clone(), why));
        }
    }
    Ok((ports, left_out))
}

fn packages(args: &Args, order: &Order<'_>) -> anyhow::Result<Vec<(Option<String>, Package)>> {
    if !args.prebuilt {
        return Ok(vec![(None, order.source()?)]);
    }
    order
        .ports
        .iter()
        .map(|(view, port)| Ok((Some(view.kernel.id.clone()), order.modules(view, port)?)))
        .collect()
}

/// A version that deb and rpm both take.
fn version(args: &Args, driver: &Driver) -> anyhow::Result<String> {
    let given = args.package_version.clone();
    let version = given
        .or_else(|| driver.manifest.version.clone())
        .unwrap_or_else(|| "0.1".to_owned());
    let fine = |c: char| c.is_ascii_alphanumeric() || ".+~".contains(c);
    let begins = version.starts_with(|c: char| c.is_ascii_digit());
    if begins && version.chars().all(fine) {
        return Ok(version);
    }
    let why = format!(
        "version {version:?}: packages take letters, digits and .+~, beginning with a digit; give one with --package-version"
    );
    anyhow::bail!(kspan_kernel::Error::Input(why))
}

fn maintainer(args: &Args) -> String {
    let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    args.maintainer.clone().unwrap_or_else(|| {
        let name = set("DEBFULLNAME").unwrap_or_else(|| "root".to_owned());
        let address = set("DEBEMAIL").unwrap_or_else(|| "root@localhost".to_owned());
        format!("{name} <{address}>")
    })
}

/// `SOURCE_DATE_EPOCH`, else the time of the driver's newest file.
fn epoch(driver: &Driver) -> anyhow::Result<u64> {
    if let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") {
        return text.parse().map_err(|_| {
            let why = format!("SOURCE_DATE_EPOCH={text:?} is no number of seconds");
            anyhow::Error::from(kspan_kernel::Error::Input(why))
        });
    }
    let mut newest = 0;
    for file in driver.sources()? {
        let path = driver.dir.join(file);
        let time = path.metadata().and_then(|m| m.modified());
        let time = time.with_context(|| path.display().to_string())?;
        let seconds = time
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        newest = newest.max(seconds);
    }
    Ok(newest)
}

/// Writes one package, whole or not at all; what is told of it.
fn write(
    dir: &Path,
    package: &Package,
    format: Format,
    kernel: Option<&str>,
) -> anyhow::Result<Value> {
    let about = &package.about;
    let (name, bytes) = match format {
        Format::Deb => (
            format!(
                "{}_{}_{}.deb",
                about.name, about.version, about.architecture
            ),
            deb(about, &package.payload)?,
        ),
        Format::Rpm => {
            let arch = if about.architecture == "all" {
                "noarch"
            } else {
                "x86_64"
            };
            (
                format!("{}-{}-1.{arch}.rpm", about.name, about.version),
                rpm(about, &package.payload, &package.licence)?,
            )
        }
    };
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let place = dir.join(name);
    let mut staged = tempfile::NamedTempFile::new_in(dir)?;
    staged.write_all(&bytes)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    staged.as_file().set_permissions(mode)?;
    staged.as_file().sync_all()?;
    staged
        .persist(&place)
        .with_context(|| place.display().to_string())?;
    Ok(
        json!({ "file": place, "package": about.name, "version": about.version, "kernel": kernel, "bytes": bytes.len() }),
    )
}

fn tell(
    order: &Order<'_>,
    made: &[Value],
    left_out: &[(String, String)],
    json: bool,
) -> anyhow::Result<()> {
    if json {
        let left_out: Vec<Value> = left_out
            .iter()
            .map(|(kernel, why)| json!({ "kernel": kernel, "why": why }))
            .collect();
        let forms: Vec<Value> = order
            .ports
            .iter()
            .map(|(v, p)| json!({ "kernel": v.kernel.id, "verdict": p.verdict, "remedies": p.remedies.len(), "risks": p.risks() }))
            .collect();
        let all = json!({ "packages": made, "forms": forms, "left_out": left_out });
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    for package in made {
        println!("{}", package["file"].as_str().unwrap_or_default());
    }
    for (view, port) in &order.ports {
        for risk in port.risks() {
            eprintln!("{}: may act otherwise: {risk}", view.kernel.id);
        }
    }
    for (kernel, why) in left_out {
        eprintln!("not for {kernel}: {why}");
    }
    Ok(())
}
