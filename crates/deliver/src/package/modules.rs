//! Built modules for one kernel, as a package that the distribution's own tools install.

use super::{About, Depends, Error, Order, Package, Payload, Result, Scripts, read};
use crate::modinfo;
use kspan_kernel::{KbuildOptions, Kernel};
use kspan_port::Port;
use kspan_port::view::View;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

impl Order<'_> {
    /// The modules of one of the order's kernels.
    ///
    /// # Errors
    /// When they do not build (a change of the machine since the port was made), or `strip` is not there.
    pub fn modules(&self, view: &View, port: &Port) -> Result<Package> {
        let kernel = &view.kernel;
        let name = self.name();
        let package_name = format!("{name}-modules-{}", plain(&kernel.release));
        let mut payload = Payload::default();
        let mut facts = Facts::default();
        let place = PathBuf::from(format!("/usr/lib/modules/{}/updates/kspan", kernel.release));
        for module in self.build(kernel, port)? {
            let bytes = read(&module)?;
            facts.take(&bytes);
            let file = module.file_name().unwrap_or_default();
            payload.put(place.join(file), bytes);
        }
        payload.put(
            format!(
                "/usr/share/doc/{package_name}/provenance/{}.json",
                kernel.release
            ),
            Self::record(port),
        );
        self.companions(&mut payload)?;
        let mut package = Package {
            about: self.about_modules(package_name, view, &facts),
            payload,
            licence: "GPL-2.0-only".to_owned(),
        };
        self.documents(&mut package)?;
        Ok(package)
    }

    /// Builds a port in a place of its own; the modules, stripped of debug information.
    fn build(&self, kernel: &Kernel, port: &Port) -> Result<Vec<PathBuf>> {
        let from = port.dir.as_deref().unwrap_or(Path::new("."));
        let work = self.engine.cache.work_dir("package")?;
        let dir = work.path();
        for file in &port.files {
            let to = dir.join(file);
            let parent = to.parent().unwrap_or(dir);
            std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
            std::fs::copy(from.join(file), &to).map_err(Error::io(&to))?;
        }
        let options = KbuildOptions {
            // No path of this machine in the modules.
            variables: vec![format!("KCFLAGS=-ffile-prefix-map={}/=", dir.display())],
            jobs: 2,
            ..KbuildOptions::default()
        };
        let build = self.engine.cache.kbuild(kernel, dir, &options)?;
        if !build.ok {
            let end: Vec<&str> = build.log.lines().rev().take(5).collect();
            return Err(Error::Input(format!(
                "the port for {} no longer builds: {}",
                kernel.id,
                end.join(" | ")
            )));
        }
        // The caller reads them before the next build: one directory for each kernel.
        let kept = self
            .engine
            .cache
            .root()
            .join("packages-built")
            .join(&kernel.release);
        let _ = std::fs::remove_dir_all(&kept);
        std::fs::create_dir_all(&kept).map_err(Error::io(&kept))?;
        build
            .modules
            .iter()
            .map(|m| {
                let to = kept.join(m.file_name().unwrap_or_default());
                std::fs::copy(dir.join(m), &to).map_err(Error::io(&to))?;
                strip(&to)?;
                Ok(to)
            })
            .collect()
    }

    fn about_modules(&self, name: String, view: &View, facts: &Facts) -> About {
        let kernel = &view.kernel;
        let release = &kernel.release;
        let depmod = format!("depmod -a {release} || :\n");
        let exports = |symbol: &String| {
            let export = view.facts.export(symbol)?;
            Some((
                format!("kernel({symbol})"),
                Some(format!("{:#010x}", export.crc)),
            ))
        };
        let mut rpm: Vec<(String, Option<String>)> =
            vec![("kernel-uname-r".to_owned(), Some(release.clone()))];
        rpm.extend(self.built.imports.iter().filter_map(exports));
        let mut fields = Vec::new();
        if !facts.aliases.is_empty() {
            let aliases: Vec<&str> = facts.aliases.iter().map(String::as_str).collect();
            let driver = self.driver.manifest.name.replace('-', "_");
            fields.push((
                "Modaliases".to_owned(),
                format!("{driver}({})", aliases.join(", ")),
            ));
        }
        let firmware = match facts.firmware.is_empty() {
            true => String::new(),
            false => format!(
                "\n\nIt asks for firmware: {}.",
                facts
                    .firmware
                    .iter()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        };
        About {
            name,
            version: self.version.clone(),
            architecture: "amd64".to_owned(),
            maintainer: self.maintainer.clone(),
            summary: format!("Driver {}, built for {release}", self.driver.manifest.name),
            description: format!(
                "Modules that kspan derived from one source and built for this kernel.{firmware}"
            ),
            depends: Depends {
                deb: vec![
                    format!("linux-image-{release} | linux-image-{release}-unsigned"),
                    "kmod".to_owned(),
                ],
                rpm,
                rpm_supplements: facts
                    .aliases
                    .iter()
                    .map(|a| format!("modalias({a})"))
                    .collect(),
                ..Depends::default()
            },
            fields,
            scripts: Scripts {
                deb_postinst: format!(
                    "#!/bin/sh\nset -e\nif [ \"$1\" = configure ]; then\n    {depmod}fi\n"
                ),
                deb_postrm: format!(
                    "#!/bin/sh\nset -e\nif [ \"$1\" = remove ] && [ -d /lib/modules/{release} ]; then\n    {depmod}fi\n"
                ),
                rpm_post: depmod.clone(),
                rpm_postun: depmod,
                ..Scripts::default()
            },
            epoch: self.epoch,
        }
    }
}

/// What modules say of themselves.
#[derive(Debug, Default)]
struct Facts {
    aliases: BTreeSet<String>,
    firmware: BTreeSet<String>,
}

impl Facts {
    fn take(&mut self, module: &[u8]) {
        for (key, value) in modinfo::fields(module) {
            match key.as_str() {
                "alias" => drop(self.aliases.insert(value)),
                "firmware" => drop(self.firmware.insert(value)),
                _ => {}
            }
        }
    }
}

fn strip(module: &Path) -> Result<()> {
    let status = Command::new("strip")
        .arg("--strip-debug")
        .arg("-D")
        .arg(module)
        .status()
        .map_err(|e| {
            Error::Kernel(kspan_kernel::Error::Environment(format!(
                "strip cannot be run ({e}): `apt-get install binutils`"
            )))
        })?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::Input(format!(
            "{}: strip refused it",
            module.display()
        ))),
    }
}

/// A release as a package's name may have it.
fn plain(release: &str) -> String {
    release.to_lowercase().replace('_', "-")
}
