//! The guest's root file system: busybox, the drivers' modules, the kernel's modules that they need, and the script that
//! tries them.

use crate::cpio::Archive;
use crate::modules::{ModuleTree, Order, Own};
use crate::programs::Busybox;
use kspan_kernel::{Error, Result};
use kspan_port::driver::Smoke;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

const INIT: &str = include_str!("guest/init.sh");
const SMOKE: &str = include_str!("guest/smoke.sh");

/// One driver as it goes into a guest.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its modules.
    pub own: Vec<Own>,
    /// What loads when.
    pub order: Order,
    /// Its smoke test.
    pub smoke: Option<Smoke>,
    /// Programs and libraries of the host that the smoke test runs.
    pub programs: Vec<PathBuf>,
    /// How often it is unloaded and loaded again.
    pub cycles: usize,
}

/// Writes the archive.
///
/// # Errors
/// When a module cannot be read or the disk refuses.
pub fn write(path: &Path, busybox: &Busybox, tree: &ModuleTree, guests: &[&Guest]) -> Result<()> {
    let file = File::create(path).map_err(Error::io(path))?;
    let mut archive = Archive::new(BufWriter::new(file));
    base(&mut archive, busybox).map_err(Error::io(path))?;
    kernel_modules(&mut archive, tree, guests, path)?;
    programs(&mut archive, guests)?;
    for (number, guest) in guests.iter().enumerate() {
        driver(&mut archive, number, guest).map_err(Error::io(path))?;
    }
    let mut out = archive.finish().map_err(Error::io(path))?;
    out.flush().map_err(Error::io(path))
}

type Out = Archive<BufWriter<File>>;

fn base(archive: &mut Out, busybox: &Busybox) -> std::io::Result<()> {
    for dir in [
        "proc", "sys", "dev", "run", "tmp", "sbin", "root", "mnt", "kspan/d",
    ] {
        archive.directory(dir)?;
    }
    archive.file("bin/busybox", 0o755, &busybox.bytes)?;
    for applet in &busybox.applets {
        archive.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file("kspan/smoke.sh", 0o755, SMOKE.as_bytes())
}

fn kernel_modules(
    archive: &mut Out,
    tree: &ModuleTree,
    guests: &[&Guest],
    path: &Path,
) -> Result<()> {
    let wanted: BTreeSet<&String> = guests
        .iter()
        .flat_map(|g| g.order.before.iter().chain(&g.order.cycled))
        .collect();
    for name in wanted {
        // Those of the drivers themselves are not in the kernel's tree, or are left out in their favour.
        let own = guests.iter().any(|g| g.own.iter().any(|o| o.name == *name));
        if own {
            continue;
        }
        if let Some(bytes) = tree.read(name)? {
            let place = format!("kspan/m/{name}.ko");
            archive
                .file(&place, 0o644, &bytes)
                .map_err(Error::io(path))?;
        }
    }
    Ok(())
}

/// At the same paths as here, so that the loader finds the libraries.
fn programs(archive: &mut Out, guests: &[&Guest]) -> Result<()> {
    let files: BTreeSet<&PathBuf> = guests.iter().flat_map(|g| &g.programs).collect();
    for file in files {
        let bytes = std::fs::read(file).map_err(Error::io(file))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let is_library = name.contains(".so");
        let place = match is_library {
            true => file.to_string_lossy().trim_start_matches('/').to_owned(),
            // Before busybox's own in the guest's PATH.
            false => format!("kspan/bin/{name}"),
        };
        archive
            .file(&place, 0o755, &bytes)
            .map_err(Error::io(file))?;
    }
    Ok(())
}

fn driver(archive: &mut Out, number: usize, guest: &Guest) -> std::io::Result<()> {
    let mut put = |name: &str, text: &str| {
        archive.file(&format!("kspan/d/{number}/{name}"), 0o644, text.as_bytes())
    };
    let mut backwards = guest.order.cycled.clone();
    backwards.reverse();
    put("before", &guest.order.before.join(" "))?;
    put("cycled", &guest.order.cycled.join(" "))?;
    put("backwards", &backwards.join(" "))?;
    put("cycles", &guest.cycles.to_string())?;
    put("own", &own_lines(&guest.own))?;
    let seconds = guest.smoke.as_ref().map_or(0, |s| s.seconds);
    put("seconds", &seconds.to_string())?;
    if let Some(smoke) = &guest.smoke {
        put("smoke", &named(&smoke.script, number, "/run"))?;
        if !smoke.release.is_empty() {
            put("release", &smoke.release)?;
        }
    }
    for own in &guest.own {
        let place = format!("kspan/d/{number}/{}.ko", own.name);
        archive.file(&place, 0o644, &own.bytes)?;
    }
    Ok(())
}

/// Each module with its srcversion, or `-`.
fn own_lines(own: &[Own]) -> String {
    let line = |o: &Own| {
        format!(
            "{} {}\n",
            o.name,
            o.info.srcversion.as_deref().unwrap_or("-")
        )
    };
    own.iter().map(line).collect()
}

/// `{id}` is a name that is the driver's own within a machine, `{dir}` the machine's directory for scratch files.
pub fn named(text: &str, number: usize, dir: &str) -> String {
    text.replace("{id}", &format!("k{number}"))
        .replace("{dir}", dir)
}
