//! depmod, whose result counts.

use crate::session::Session;
use crate::{Result, disk};
use std::path::Path;
use std::process::{Command, Stdio};

/// What depmod leaves beside `modules.dep`, to be removed with the last module of a kernel that is gone.
const LEFT: [&str; 7] = [
    "alias",
    "dep",
    "devname",
    "softdep",
    "symbols",
    "weakdep",
    "builtin.modinfo",
];

impl Session<'_> {
    /// Runs depmod for a kernel, says so, and tells whether it went well.
    pub(crate) fn depmod(&self, kernel: &str) -> Result<bool> {
        let status = self.step(&format!("do_depmod {kernel}"), "Running depmod", || {
            self.depmod_quietly(kernel)
        })?;
        Ok(status == 0)
    }

    /// The same without a word; depmod's exit status.
    pub(crate) fn depmod_quietly(&self, kernel: &str) -> Result<i32> {
        let lib = self.lib(kernel);
        let dep = lib.join("modules.dep");
        if self.request.no_depmod {
            return Ok(0);
        }
        if !dep.is_file() {
            // The kernel's image is not installed: a modules.dep would pretend that it is.
            if self.verbose() {
                self.say(&format!(
                    "Skipping depmod because '{}' is missing.",
                    dep.display()
                ));
            }
            return Ok(0);
        }
        let mut command = Command::new("depmod");
        if let Some(base) = base(&self.install_tree) {
            command.arg("-b").arg(base);
        }
        command.args(["-a", kernel]);
        let map = Path::new("/boot").join(format!("System.map-{kernel}"));
        if map.is_file() {
            command.arg("-F").arg(map);
        }
        if self.verbose() {
            self.talk.child(&mut command);
        } else {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        let status = match command.status() {
            Ok(status) => status.code().unwrap_or(1),
            Err(_) => 127,
        };
        if status == 0 {
            self.settle(&lib)?;
        }
        Ok(status)
    }

    /// Flushes the new lists; an empty one goes, with the directory of a kernel that is no more.
    fn settle(&self, lib: &Path) -> Result<()> {
        let dep = lib.join("modules.dep");
        if dep.metadata().is_ok_and(|m| m.len() == 0) {
            for name in disk::names(lib) {
                let rest = name.strip_prefix("modules.").unwrap_or_default();
                if LEFT.contains(&rest) || rest.ends_with(".bin") {
                    disk::remove_file(&lib.join(name))?;
                }
            }
            // A directory with anything in it stays.
            let _ = std::fs::remove_dir(lib);
            return Ok(());
        }
        for name in ["modules.dep", "modules.dep.bin"] {
            let file = lib.join(name);
            if file.exists() {
                disk::sync_dir(&file)?;
            }
        }
        disk::sync_dir(lib)
    }
}

/// depmod's `-b` for an install tree elsewhere.
pub fn base(install_tree: &Path) -> Option<&Path> {
    let base = install_tree.to_str()?.strip_suffix("/lib/modules")?;
    (!base.is_empty()).then(|| Path::new(base))
}
