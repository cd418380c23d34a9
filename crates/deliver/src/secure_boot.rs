//! Does this machine load unsigned modules? With Secure Boot on, or a kernel that insists on signatures, it does not.

use crate::conf::Conf;
use crate::kernels::config_is_set;
use crate::modinfo;
use crate::session::{Package, Session, Target};
use crate::{Result, Stop};
use std::path::{Path, PathBuf};

/// Where the firmware's variables are, unless `$KSPAN_EFIVARS` names another directory.
const EFIVARS: &str = "/sys/firmware/efi/efivars";

/// The firmware's word (EFI_GLOBAL_VARIABLE), and shim's, by which an owner has turned its own checks off (SHIM_LOCK).
const SECURE_BOOT: &str = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
const SETUP_MODE: &str = "SetupMode-8be4df61-93ca-11d2-aa0d-00e098032b8c";
const SHIM_IS_LAX: &str = "MokSBStateRT-605dab50-e046-4300-abb6-3dd810dd8b23";

/// Is Secure Boot on, by the variables in a directory?
fn is_on(dir: &Path) -> bool {
    // Four bytes of attributes, then the value.
    let set =
        |name: &str| std::fs::read(dir.join(name)).is_ok_and(|bytes| bytes.get(4) == Some(&1));
    set(SECURE_BOOT) && !set(SETUP_MODE) && !set(SHIM_IS_LAX)
}

impl Session<'_> {
    /// Why this machine would not load an unsigned module into a kernel; none if it would.
    pub(crate) fn insists_on_signatures(&self, target: &Target) -> Option<&'static str> {
        let config = std::fs::read_to_string(self.kernel_config(&target.kernel)).ok()?;
        if config_is_set(&config, "CONFIG_MODULE_SIG_FORCE") {
            return Some("this kernel loads signed modules only (CONFIG_MODULE_SIG_FORCE)");
        }
        let given = std::env::var_os("KSPAN_EFIVARS").filter(|v| !v.is_empty());
        let dir = given.as_ref().map_or_else(|| EFIVARS.into(), PathBuf::from);
        // An image that is made in a chroot boots on another machine.
        let here = given.is_some() || !crate::sign::in_chroot();
        let checks = config_is_set(&config, "CONFIG_MODULE_SIG");
        (here && checks && is_on(&dir)).then_some("Secure Boot is on")
    }

    /// Refuses modules that this machine would not load; by force they are installed with a warning.
    pub(crate) fn refuse_unsigned(
        &self,
        package: &Package,
        target: &Target,
        conf: &Conf,
        built: &Path,
    ) -> Result<()> {
        let unsigned = self.unsigned(conf, built);
        let Some(why) = self
            .insists_on_signatures(target)
            .filter(|_| !unsigned.is_empty())
        else {
            return Ok(());
        };
        let names = unsigned.join(", ");
        if self.force {
            self.warn(&[&format!(
                "{names} of {package} is not signed, and {why}: it will not load on {target}."
            )]);
            return Ok(());
        }
        Err(Stop::error(
            6,
            [
                format!("{names} of {package} is not signed, and {why}: it would not load on {target}."),
                "Make a key (`generate_mok`), enrol it (`mokutil --import /var/lib/dkms/mok.pub`), and build again.".to_owned(),
                "You may override by specifying --force.".to_owned(),
            ],
        ))
    }

    /// The modules of a build that bear no signature.
    pub(crate) fn unsigned(&self, conf: &Conf, built: &Path) -> Vec<String> {
        conf.wanted()
            .filter_map(|m| modinfo::find(built, &m.name).map(|file| (m, file)))
            .filter(|(_, file)| !modinfo::is_signed(file))
            .map(|(m, _)| m.name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmware_and_shim_both_have_a_word() {
        let dir = tempfile::tempdir().unwrap();
        let set = |name: &str, value: u8| {
            std::fs::write(dir.path().join(name), [6, 0, 0, 0, value]).unwrap();
        };
        assert!(!is_on(dir.path()));
        set(SECURE_BOOT, 0);
        assert!(!is_on(dir.path()));
        set(SECURE_BOOT, 1);
        assert!(is_on(dir.path()));
        set(SETUP_MODE, 1);
        assert!(!is_on(dir.path()));
        set(SETUP_MODE, 0);
        set(SHIM_IS_LAX, 1);
        assert!(!is_on(dir.path()));
        std::fs::write(dir.path().join(SECURE_BOOT), [6]).unwrap();
        assert!(!is_on(dir.path()));
    }
}
