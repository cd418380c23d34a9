//! Which distribution this is, as far as dkms cares.

use crate::{Result, Stop};
use std::path::Path;

/// The distribution's family: `ID`, or `ID_LIKE` where there is one; Ubuntu stays Ubuntu.
///
/// # Errors
/// When the system has no os-release file.
pub fn family() -> Result<String> {
    let text = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|f| std::fs::read_to_string(Path::new(f)).ok())
        .ok_or_else(|| Stop::error(4, ["System is missing os-release file."]))?;
    Ok(read(&text))
}

fn read(text: &str) -> String {
    let value = |key: &str| {
        text.lines()
            .filter_map(|l| l.trim().strip_prefix(key)?.strip_prefix('='))
            .next_back()
            .and_then(|v| shlex::split(v).and_then(|w| w.into_iter().next()))
    };
    let id = value("ID").unwrap_or_default();
    match value("ID_LIKE") {
        Some(like) if id != "ubuntu" => like,
        _ => id,
    }
}

/// Does the family's name begin with one of these?
pub fn is(family: &str, names: &[&str]) -> bool {
    names.iter().any(|n| family.starts_with(n))
}

/// Where this distribution wants out-of-tree modules, whatever the package says; `None` leaves it to the package.
pub fn module_location(family: &str) -> Option<&'static str> {
    if is(family, &["fedora", "centos", "rhel", "ovm"]) {
        Some("/extra")
    } else if is(family, &["sles", "suse", "opensuse"]) {
        Some("/updates")
    } else if is(family, &["debian", "ubuntu", "arch"]) {
        Some("/updates/dkms")
    } else {
        None
    }
}

/// The commands that add and remove weak links of modules on distributions with a stable kernel ABI.
pub fn weak_modules(family: &str) -> Option<(&'static str, &'static str)> {
    if is(family, &["rhel"]) {
        return Some((
            "/usr/sbin/weak-modules --no-initramfs --add-modules",
            "/usr/sbin/weak-modules --no-initramfs --remove-modules",
        ));
    }
    is(family, &["sles", "suse", "opensuse"]).then_some((
        "/usr/lib/module-init-tools/weak-modules2 --add-kernel-modules",
        "/usr/lib/module-init-tools/weak-modules2 --remove-kernel-modules",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derivative_is_of_its_parents_family_but_ubuntu_is_its_own() {
        assert_eq!(
            read("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"),
            "ubuntu debian"
        );
        assert_eq!(read("ID=ubuntu\nID_LIKE=debian\n"), "ubuntu");
        assert_eq!(read("NAME=x\nID='debian'\n"), "debian");
    }
}
