//! The kernels of this machine, as dkms looks at them: build directory, configuration, compression of their modules.

use crate::args::Action;
use crate::session::{Session, Target};
use crate::{Result, Stop, distro, version};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The running kernel's release.
pub fn running() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// The kernels that the command line means.
///
/// # Errors
/// When an action needs exactly one, or a name is empty.
pub fn targets(session: &Session<'_>) -> Result<Vec<Target>> {
    let request = &session.request;
    let hook = matches!(
        request.action,
        Some(Action::KernelPreinst | Action::KernelPostinst | Action::KernelPrerm)
    );
    if hook && request.kernels.len() != 1 {
        let name = request.action.map_or("", Action::name);
        return Err(Stop::error(
            4,
            [format!(
                "The action {name} requires exactly one kernel version parameter on the command line."
            )],
        ));
    }
    let looks = [Action::Status, Action::Why, Action::Preflight];
    if request.action.is_some_and(|a| looks.contains(&a)) {
        return Ok(named(request.kernels.clone(), &request.arches, ""));
    }
    if request.all {
        return Ok(all(session));
    }
    let kernels = if request.kernels.is_empty() {
        vec![running()]
    } else {
        request.kernels.clone()
    };
    let arch = if request.arches.is_empty() {
        architecture(session, kernels.first().map_or("", String::as_str))
    } else {
        String::new()
    };
    let targets = named(kernels, &request.arches, &arch);
    match targets
        .iter()
        .find(|t| t.kernel.is_empty() || t.arch.is_empty())
    {
        Some(t) if t.kernel.is_empty() => Err(Stop::error(16, ["Empty kernelver[0]"])),
        Some(_) => Err(Stop::error(16, ["Empty arch[0]"])),
        None => Ok(targets),
    }
}

fn named(kernels: Vec<String>, arches: &[String], default: &str) -> Vec<Target> {
    let arch = |i: usize| {
        arches
            .get(i)
            .or(arches.first())
            .map_or(default, String::as_str)
    };
    kernels
        .into_iter()
        .enumerate()
        .map(|(i, kernel)| Target {
            kernel,
            arch: arch(i).to_owned(),
        })
        .collect()
}

/// `--all`: every kernel that the package is built for.
fn all(session: &Session<'_>) -> Vec<Target> {
    let mut targets: Vec<Target> = session
        .tree
        .built(&session.package(), "", "")
        .into_iter()
        .filter_map(|e| e.target)
        .collect();
    targets
        .sort_by(|a, b| version::natural(&a.kernel, &b.kernel).then_with(|| a.arch.cmp(&b.arch)));
    targets
}

/// `uname -m`, or where rpm knows better, what the kernel's package says.
fn architecture(session: &Session<'_>, kernel: &str) -> String {
    let machine = rustix::system::uname()
        .machine()
        .to_string_lossy()
        .into_owned();
    if distro::is(&session.family, &["debian", "ubuntu", "arch", "gentoo"]) {
        return machine;
    }
    rpm_architecture(&session.install_tree.join(kernel)).unwrap_or(machine)
}

fn rpm_architecture(dir: &Path) -> Option<String> {
    let owner = Command::new("rpm").arg("-qf").arg(dir).output().ok()?;
    let owners = String::from_utf8_lossy(&owner.stdout).into_owned();
    let package = owners
        .lines()
        .find(|l| l.contains("kernel") && !l.contains("not owned"))?;
    let arch = Command::new("rpm")
        .args(["-q", "--queryformat", "%{ARCH}", package])
        .output()
        .ok()?;
    let arch = String::from_utf8_lossy(&arch.stdout).trim().to_owned();
    (!arch.is_empty() && arch.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .then_some(arch)
}

impl Session<'_> {
    /// What `make -C` takes for this kernel.
    pub(crate) fn kernel_dir(&self, kernel: &str) -> PathBuf {
        if let Some((_, dir)) = self.at_home.as_ref().filter(|(home, _)| home == kernel) {
            return dir.clone();
        }
        match &self.request.kernel_source {
            Some(dir) => dir.clone(),
            None => self.install_tree.join(kernel).join("build"),
        }
    }

    /// Its configuration.
    pub(crate) fn kernel_config(&self, kernel: &str) -> PathBuf {
        let elsewhere = self
            .at_home
            .as_ref()
            .is_some_and(|(home, _)| home == kernel);
        if let Some(config) = self.request.kernel_config.as_ref().filter(|_| !elsewhere) {
            return config.clone();
        }
        let dir = self.kernel_dir(kernel);
        let auto = dir.join("include/config/auto.conf");
        if auto.exists() {
            auto
        } else {
            dir.join(".config")
        }
    }

    /// Where its modules lie.
    pub(crate) fn lib(&self, kernel: &str) -> PathBuf {
        self.install_tree.join(kernel)
    }

    /// Makes sure that the kernel's headers are there.
    pub(crate) fn check_headers(&self, kernel: &str) -> Result<()> {
        if self.kernel_dir(kernel).join("include").exists() {
            return Ok(());
        }
        let lib = self.install_tree.display();
        Err(Stop::error(
            21,
            [
                format!(
                    "Your kernel headers for kernel {kernel} cannot be found at {lib}/{kernel}/build or {lib}/{kernel}/source."
                ),
                format!(
                    "Please install your distribution's kernel headers package matching {kernel}, or use the --kernelsourcedir option to tell DKMS where it's located."
                ),
            ],
        ))
    }
}

/// What follows `.ko` in a kernel's module tree: `.gz`, `.xz`, `.zst` or nothing.
///
/// Read from the tree, since it may differ from what the configuration says; `modules.dep` may not be there when a kernel goes.
pub fn suffix(lib: &Path) -> &'static str {
    const ALL: [&str; 3] = [".gz", ".xz", ".zst"];
    let mut found = [false; 3];
    let entries = walkdir::WalkDir::new(lib).into_iter().filter_entry(|e| {
        let name = e.file_name();
        e.depth() != 1 || (name != "build" && name != "source")
    });
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let packed = name.rsplit_once(".ko").map(|(_, rest)| rest.to_owned());
        let at = packed.and_then(|p| ALL.iter().position(|s| *s == p));
        if let Some(slot) = at.and_then(|i| found.get_mut(i)) {
            *slot = true;
            // The kernel's own modules are all alike; .zst wins over the others, as with dkms.
            if at == Some(2) || name.len() > 3 && entry.depth() > 2 && in_kernel(&entry, lib) {
                break;
            }
        }
    }
    (0..3)
        .rev()
        .find(|i| found.get(*i) == Some(&true))
        .and_then(|i| ALL.get(i))
        .copied()
        .unwrap_or("")
}

fn in_kernel(entry: &walkdir::DirEntry, lib: &Path) -> bool {
    entry
        .path()
        .strip_prefix(lib)
        .is_ok_and(|p| p.starts_with("kernel"))
}

/// A line `KEY=value` of a kernel's configuration, its quotes taken off.
pub fn config_value(config: &str, key: &str) -> Option<String> {
    config
        .lines()
        .find_map(|l| l.strip_prefix(key)?.strip_prefix('='))
        .map(|v| v.replace('"', ""))
}

/// Is a configuration symbol `y` or `m`?
pub fn config_is_set(config: &str, symbol: &str) -> bool {
    config
        .lines()
        .any(|l| matches!(l.strip_prefix(symbol).and_then(|r| r.strip_prefix('=')), Some(v) if v.starts_with(['y', 'm'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_is_what_lies_in_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(suffix(dir.path()), "");
        std::fs::create_dir_all(dir.path().join("kernel/fs")).unwrap();
        std::fs::write(dir.path().join("kernel/fs/a.ko"), "").unwrap();
        assert_eq!(suffix(dir.path()), "");
        std::fs::write(dir.path().join("kernel/fs/b.ko.xz"), "").unwrap();
        assert_eq!(suffix(dir.path()), ".xz");
    }

    #[test]
    fn configuration_is_read_with_and_without_quotes() {
        let text = "CONFIG_A=\"x\"\nCONFIG_B=m\n# CONFIG_C is not set\n";
        assert_eq!(config_value(text, "CONFIG_A").unwrap(), "x");
        assert!(
            config_is_set(text, "CONFIG_B")
                && !config_is_set(text, "CONFIG_C")
                && !config_is_set(text, "CONFIG_")
        );
    }
}
