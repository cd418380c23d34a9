//! `match`: a kernel gets what another one has.

use crate::session::Session;
use crate::tree::State;
use crate::{Result, Stop};

impl Session<'_> {
    /// Builds and installs for the kernel what is installed for the template.
    pub(crate) fn match_kernel(&mut self) -> Result<()> {
        let target = self.first_target();
        let template = self.request.template.clone();
        if template.is_empty() {
            return Err(Stop::error(
                1,
                [
                    "Invalid number of parameters passed.",
                    "Usage: match --templatekernel=<kernel-version> -k <kernel-version>",
                    "   or: match --templatekernel=<kernel-version> -k <kernel-version> <module>",
                ],
            ));
        }
        if template == target.kernel {
            return Err(Stop::error(
                2,
                ["The templatekernel and the specified kernel version are the same."],
            ));
        }
        let module = self.request.module.clone();
        if !module.is_empty() && !self.tree.module(&module).is_dir() {
            return Err(Stop::error(
                3,
                [format!(
                    "The module: {module} is not located in the DKMS tree."
                )],
            ));
        }
        let installed: Vec<_> = self
            .tree
            .entries(&module, "", &template, &target.arch)
            .into_iter()
            .filter(|e| e.state == State::Installed)
            .collect();
        self.say(&format!(
            "\nMatching modules in kernel: {} ({})",
            target.kernel, target.arch
        ));
        self.say(&format!(
            "to the configuration of kernel: {template} ({})",
            target.arch
        ));
        if installed.is_empty() {
            self.say("\nThere is nothing to be done for this match.");
            return Ok(());
        }
        self.check_headers(&target.kernel)?;
        let mut worst = None;
        for entry in installed {
            let package = entry.package;
            self.say(&format!(
                "Module:  {}\nVersion: {}",
                package.name, package.version
            ));
            if let Err(stop) = self.apart(|s| s.install_unless_installed(&package, &target)) {
                self.tell(&stop);
                worst = Some(stop.code());
            }
        }
        worst.map_or(Ok(()), |code| Err(Stop::Exit(code)))
    }
}
