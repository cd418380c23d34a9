//! The state tree under `/var/lib/dkms`, the same as dkms' own: what lies where, and what it says.

use crate::session::{Package, Target};
use std::path::{Path, PathBuf};

/// The two directories of state.
#[derive(Debug, Clone)]
pub struct Tree {
    /// `/var/lib/dkms`.
    pub dkms: PathBuf,
    /// `/usr/src`.
    pub source: PathBuf,
}

/// How far a package came for a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its source is gone.
    Broken,
    /// Registered.
    Added,
    /// Modules lie in the tree.
    Built,
    /// They are in the kernel's module tree.
    Installed,
}

/// One line of `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// How far it came.
    pub state: State,
    /// The package.
    pub package: Package,
    /// The kernel, for built and installed ones.
    pub target: Option<Target>,
}

impl Tree {
    /// A tree at these places.
    pub fn new(dkms: PathBuf, source: PathBuf) -> Self {
        Self { dkms, source }
    }

    /// What kspan keeps beside dkms' own files; its name is hidden from dkms' patterns.
    pub fn own(&self, name: &str) -> PathBuf {
        self.dkms.join(".kspan").join(name)
    }

    /// Remembered answers of configuration files.
    pub fn cache(&self) -> PathBuf {
        self.own("conf")
    }

    /// `MODULE`.
    pub fn module(&self, name: &str) -> PathBuf {
        self.dkms.join(name)
    }

    /// `MODULE/VERSION`.
    pub fn package(&self, package: &Package) -> PathBuf {
        self.module(&package.name).join(&package.version)
    }

    /// `MODULE/VERSION/source`: a link to the source.
    pub fn source_link(&self, package: &Package) -> PathBuf {
        self.package(package).join("source")
    }

    /// `MODULE/VERSION/build`: where it is built, and where the log of a build that failed is found.
    pub fn build(&self, package: &Package) -> PathBuf {
        self.package(package).join("build")
    }

    /// The name of [`Tree::build`] that a build's commands see: the same, unless the version holds what make cannot read in a name, as
    /// a `#` (GNU make, "4.2 Rule Syntax" and "5.1 Recipe Syntax"; kbuild puts names of directories into rules).
    pub fn shown(&self, package: &Package) -> PathBuf {
        let unread = |c: char| "#%:$=".contains(c) || c.is_whitespace();
        let last = format!("{}-{}", package.name, package.version);
        match last.contains(unread) {
            true => self.own("build").join(last.replace(unread, "_")),
            false => self.build(package),
        }
    }

    /// `/usr/src/MODULE-VERSION`.
    pub fn source_of(&self, package: &Package) -> PathBuf {
        self.source
            .join(format!("{}-{}", package.name, package.version))
    }

    /// `MODULE/VERSION/KERNEL/ARCH`.
    pub fn base(&self, package: &Package, target: &Target) -> PathBuf {
        self.package(package)
            .join(&target.kernel)
            .join(&target.arch)
    }

    /// `MODULE/kernel-KERNEL-ARCH`: the link that says which version is installed.
    pub fn active(&self, name: &str, target: &Target) -> PathBuf {
        self.module(name)
            .join(format!("kernel-{}-{}", target.kernel, target.arch))
    }

    /// `MODULE/original_module/KERNEL/ARCH`.
    pub fn originals(&self, name: &str, target: &Target) -> PathBuf {
        self.module(name)
            .join("original_module")
            .join(&target.kernel)
            .join(&target.arch)
    }

    /// Is the source, or the link to it, missing?
    pub fn is_broken(&self, package: &Package) -> bool {
        if package.name.is_empty() || package.version.is_empty() || !self.package(package).is_dir()
        {
            return false;
        }
        let link = self.source_link(package);
        let is_link = link.is_symlink();
        (is_link && !link.is_dir()) || (!is_link && self.source_of(package).is_dir())
    }

    /// Is it registered?
    pub fn is_added(&self, package: &Package) -> bool {
        let link = self.source_link(package);
        !package.name.is_empty()
            && !package.version.is_empty()
            && link.is_symlink()
            && link.is_dir()
    }

    /// Are there modules of it for this kernel?
    pub fn is_built(&self, package: &Package, target: &Target) -> bool {
        let named = [
            &package.name,
            &package.version,
            &target.kernel,
            &target.arch,
        ];
        named.iter().all(|w| !w.is_empty()) && self.base(package, target).join("module").is_dir()
    }

    /// Does the marker say that this version is the kernel's?
    pub fn is_active(&self, package: &Package, target: &Target) -> bool {
        let link = self.active(&package.name, target);
        let base = self.base(package, target);
        match std::fs::read_link(&link) {
            Ok(to) => {
                let wanted = Path::new(&package.version)
                    .join(&target.kernel)
                    .join(&target.arch);
                to == wanted
                    || link
                        .canonicalize()
                        .ok()
                        .is_some_and(|l| Some(l) == base.canonicalize().ok())
            }
            Err(_) => false,
        }
    }

    /// Built, and the kernel's.
    pub fn is_installed(&self, package: &Package, target: &Target) -> bool {
        self.is_built(package, target) && self.is_active(package, target)
    }

    /// Every `MODULE/VERSION`, also of what is no package; patterns as the shell has them, empty for all.
    pub fn packages(&self, name: &str, version: &str) -> Vec<Package> {
        let mut found = Vec::new();
        for module in matching(&self.dkms, name) {
            let dir = self.dkms.join(&module);
            for version in matching(&dir, version) {
                let marker = version
                    .strip_prefix("kernel-")
                    .is_some_and(|rest| rest.contains('-'));
                if !marker && dir.join(&version).is_dir() {
                    found.push(Package {
                        name: module.clone(),
                        version,
                    });
                }
            }
        }
        found
    }

    /// The kernels that a package is built for, with how far it came.
    pub fn built(&self, package: &Package, kernel: &str, arch: &str) -> Vec<Entry> {
        let dir = self.package(package);
        let kernels = matching(&dir, kernel);
        let is_release = |name: &str| {
            let rest = name.trim_start_matches(|c: char| c.is_ascii_digit());
            rest.len() < name.len() && rest.starts_with('.')
        };
        let mut found = Vec::new();
        for kernel in kernels
            .into_iter()
            .filter(|k| !kernel.is_empty() || is_release(k))
        {
            for arch in matching(&dir.join(&kernel), arch) {
                let target = Target {
                    kernel: kernel.clone(),
                    arch,
                };
                if self.is_built(package, &target) {
                    let installed = self.is_active(package, &target);
                    found.push(Entry {
                        state: if installed {
                            State::Installed
                        } else {
                            State::Built
                        },
                        package: package.clone(),
                        target: Some(target),
                    });
                }
            }
        }
        found
    }

    /// All that is known, in the order in which dkms tells it.
    pub fn entries(&self, name: &str, version: &str, kernel: &str, arch: &str) -> Vec<Entry> {
        let mut entries = Vec::new();
        for package in self.packages(name, version) {
            if self.is_broken(&package) {
                entries.push(Entry {
                    state: State::Broken,
                    package,
                    target: None,
                });
            } else if self.is_added(&package) {
                let built = self.built(&package, kernel, arch);
                if built.is_empty() {
                    entries.push(Entry {
                        state: State::Added,
                        package,
                        target: None,
                    });
                }
                entries.extend(built);
            }
        }
        entries
    }
}

/// The entries of a directory that a shell pattern names; an empty one names all.
fn matching(dir: &Path, pattern: &str) -> Vec<String> {
    if pattern.is_empty() || pattern == "*" {
        return crate::disk::names(dir);
    }
    if !pattern.contains(['*', '?', '[']) {
        let there = !pattern.contains('/') && dir.join(pattern).symlink_metadata().is_ok();
        return there.then(|| pattern.to_owned()).into_iter().collect();
    }
    let names = crate::disk::names(dir);
    match regex::Regex::new(&glob(pattern)) {
        Ok(regex) => names.into_iter().filter(|n| regex.is_match(n)).collect(),
        Err(_) => Vec::new(),
    }
}

/// A shell pattern as a regular expression.
fn glob(pattern: &str) -> String {
    let mut out = String::from("^");
    for c in pattern.chars() {
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '[' | ']' => out.push(c),
            _ => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    out.push('$');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package() -> Package {
        Package {
            name: "a".into(),
            version: "1".into(),
        }
    }

    fn target() -> Target {
        Target {
            kernel: "6.1.0".into(),
            arch: "x86_64".into(),
        }
    }

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path().join("dkms"), dir.path().join("src"));
        std::fs::create_dir_all(tree.package(&package())).unwrap();
        std::fs::create_dir_all(tree.source_of(&package())).unwrap();
        std::os::unix::fs::symlink(tree.source_of(&package()), tree.source_link(&package()))
            .unwrap();
        (dir, tree)
    }

    #[test]
    fn a_build_is_seen_under_a_name_that_make_can_read() {
        let (_dir, tree) = tree();
        assert_eq!(tree.shown(&package()), tree.build(&package()));
        let odd = Package {
            name: "a".into(),
            version: "#1:2 $3".into(),
        };
        let shown = tree.shown(&odd);
        assert!(
            shown.ends_with(".kspan/build/a-_1_2__3"),
            "{}",
            shown.display()
        );
    }

    #[test]
    fn a_package_goes_from_added_to_built_to_installed() {
        let (_dir, tree) = tree();
        let state = || {
            tree.entries("", "", "", "")
                .iter()
                .map(|e| e.state)
                .collect::<Vec<_>>()
        };
        assert_eq!(state(), [State::Added]);
        std::fs::create_dir_all(tree.base(&package(), &target()).join("module")).unwrap();
        assert_eq!(state(), [State::Built]);
        std::os::unix::fs::symlink("1/6.1.0/x86_64", tree.active("a", &target())).unwrap();
        assert_eq!(state(), [State::Installed]);
        std::fs::remove_dir_all(tree.source_of(&package())).unwrap();
        assert_eq!(state(), [State::Broken]);
    }

    #[test]
    fn patterns_are_the_shells() {
        let (_dir, tree) = tree();
        std::fs::create_dir_all(tree.base(&package(), &target()).join("module")).unwrap();
        assert_eq!(tree.entries("a*", "?", "6.*", "").len(), 1);
        assert_eq!(tree.entries("b*", "", "", "").len(), 0);
        assert_eq!(tree.built(&package(), "5.10", "").len(), 0);
        assert_eq!(tree.entries("../dkms", "", "", "").len(), 0);
    }
}
