//! What the kernel's packages call: `kernel_preinst`, `kernel_postinst`, `kernel_prerm`.

use crate::args::Action;
use crate::conf::Reading;
use crate::session::{Session, Target};
use crate::{Result, Stop};

impl Session<'_> {
    /// Runs a hook for the one kernel that it was given.
    pub(crate) fn kernel_hook(&mut self, action: Action) -> Result<()> {
        self.one_kernel(action)?;
        match action {
            Action::KernelPostinst => self.autoinstall(),
            _ => self.clear_kernel(action),
        }
    }

    /// Takes all packages out of a kernel that goes, or that is about to be installed anew; depmod runs once.
    fn clear_kernel(&mut self, action: Action) -> Result<()> {
        let target = self.first_target();
        let mut failed = String::new();
        self.delayed_depmod = Some(false);
        for package in self.tree.packages("", "") {
            if !self.tree.is_built(&package, &target) {
                continue;
            }
            if action == Action::KernelPreinst {
                let file = self.tree.source_link(&package).join("dkms.conf");
                if !self
                    .conf_at(&package, &target, &file, Reading::Lenient)?
                    .autoinstall
                {
                    continue;
                }
            }
            self.talk
                .err(&format!("dkms: removing module {package} for {target}\n"));
            if let Err(stop) = self.apart(|s| s.unbuild_for(&package, &target)) {
                self.tell(&stop);
                failed.push_str(&format!(" {package}({})", stop.code()));
            }
            if action == Action::KernelPrerm {
                self.say("");
            }
        }
        if self.delayed_depmod.take() == Some(true) && !self.depmod(&target.kernel)? {
            failed.push_str(" depmod");
        }
        self.sweep_kernel(&target);
        if failed.is_empty() {
            return Ok(());
        }
        Err(Stop::error(
            14,
            [format!(
                "dkms {} for {target} failed for module(s){failed}.",
                action.name()
            )],
        ))
    }

    /// Deletes empty directories of the kernel's module tree, so that one that is gone leaves none.
    fn sweep_kernel(&self, target: &Target) {
        let lib = self.lib(&target.kernel);
        for entry in walkdir::WalkDir::new(&lib)
            .contents_first(true)
            .into_iter()
            .flatten()
        {
            if entry.file_type().is_dir() {
                // Only one that is empty goes.
                let _ = std::fs::remove_dir(entry.path());
            }
        }
    }
}
