//! BUILD_DEPENDS_REBUILD: packages that were built against another version of what they depend on are built again.

use crate::Result;
use crate::conf::{Conf, Reading};
use crate::session::{Package, Session, Target};
use crate::tree::State;

impl Session<'_> {
    /// Builds and installs again what depends on something that changed for this kernel, dependencies first.
    pub(crate) fn rebuild_dependents(&mut self, target: &Target) -> Result<()> {
        if self.force {
            return Ok(());
        }
        let mut stale: Vec<(Package, Vec<String>)> = Vec::new();
        for entry in self.tree.entries("", "", &target.kernel, &target.arch) {
            if !matches!(entry.state, State::Built | State::Installed) {
                continue;
            }
            let file = self.tree.source_link(&entry.package).join("dkms.conf");
            let Ok(conf) = self.read_conf(&entry.package, target, &file, Reading::Lenient) else {
                continue;
            };
            if conf.depends_rebuild && self.is_stale(&entry.package, target, &conf) {
                stale.push((entry.package, conf.depends));
            }
        }
        while let Some(next) = next(&stale) {
            let (package, _) = stale.remove(next);
            self.say(&format!(
                "\nRebuilding module {package} due to updated dependencies\n"
            ));
            let installed = self.tree.is_installed(&package, target);
            if installed {
                self.uninstall_one(&package, target)?;
            }
            self.delete_built(&package, target)?;
            self.build_one(&package, target)?;
            if installed {
                self.install_one(&package, target)?;
            }
        }
        Ok(())
    }

    /// Was it built against other versions than are there now?
    fn is_stale(&self, package: &Package, target: &Target, conf: &Conf) -> bool {
        let base = self.tree.base(package, target);
        conf.depends.iter().any(|name| {
            let noted = std::fs::read_to_string(base.join(format!(".dep_{name}"))).ok();
            self.latest(name, target)
                .is_some_and(|now| noted.is_none_or(|n| n.trim() != now))
        })
    }
}

/// The first that depends on none of the others; in a circle, the first.
fn next(stale: &[(Package, Vec<String>)]) -> Option<usize> {
    let waits = |(_, depends): &(Package, Vec<String>)| {
        stale.iter().any(|(p, _)| depends.contains(&p.name))
    };
    stale
        .iter()
        .position(|s| !waits(s))
        .or(if stale.is_empty() { None } else { Some(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_a_circle_ends() {
        let p = |name: &str, on: &str| {
            let package = Package {
                name: name.into(),
                version: "1".into(),
            };
            (package, vec![on.to_owned()])
        };
        assert_eq!(next(&[p("a", "b"), p("b", "c")]), Some(1));
        assert_eq!(next(&[p("a", "b"), p("b", "a")]), Some(0));
        assert_eq!(next(&[]), None);
    }
}
