//! The dkms source package: works with the real dkms on a machine that has never heard of kspan.

use super::probes::Probes;
use super::{About, Depends, Error, Order, Package, Payload, Result, Scripts, read};
use kspan_kernel::Kernel;
use kspan_port::Port;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const PROBE: &str = include_str!("files/probe.sh");
const AWK: &str = include_str!("files/probe.awk");
const BUILD: &str = include_str!("files/build.sh");

impl Order<'_> {
    /// The dkms source package: the driver in home form, its ports, what each was derived for, and the probe that picks one.
    ///
    /// # Errors
    /// When a port brings modules that the driver at home does not have, or a kernel cannot be asked.
    pub fn source(&self) -> Result<Package> {
        let name = self.name();
        let root = PathBuf::from(format!("/usr/src/{name}-{}", self.version));
        let mut payload = Payload::default();
        self.programs(&root, &name, &mut payload)?;
        let probes = Probes::of(self);
        for (file, text) in probes.files() {
            payload.put(root.join("probes").join(file), text);
        }
        for file in self.driver.sources()? {
            let content = read(&self.driver.dir.join(&file))?;
            payload.put(root.join("home").join(file), content);
        }
        let mut forms: BTreeMap<String, Vec<(&Kernel, &Port)>> = BTreeMap::new();
        for (view, port) in &self.ports {
            let form = self.form(&root, port, &mut payload)?;
            forms.entry(form).or_default().push((&view.kernel, port));
        }
        for (form, kernels) in &forms {
            for (kernel, port) in kernels {
                let facts = format!(
                    "# form: {form}\n# made for: {}\n{}",
                    kernel.id,
                    self.ask(kernel, &root, &payload)?
                );
                payload.put(root.join(format!("facts/{}.facts", kernel.release)), facts);
                payload.put(
                    root.join(format!("provenance/{}.json", kernel.release)),
                    Self::record(port),
                );
            }
        }
        self.companions(&mut payload)?;
        let mut package = Package {
            about: self.about_source(&name),
            payload,
            licence: "GPL-2.0-only".to_owned(),
        };
        self.documents(&mut package)?;
        Ok(package)
    }

    fn programs(&self, root: &Path, name: &str, payload: &mut Payload) -> Result<()> {
        payload.put(root.join("dkms.conf"), self.dkms_conf(name)?);
        payload.put_program(root.join("kspan-build"), BUILD);
        payload.put_program(root.join("kspan-probe"), PROBE);
        payload.put(root.join("probe.awk"), AWK);
        Ok(())
    }

    fn dkms_conf(&self, name: &str) -> Result<String> {
        let mut text = format!(
            "# Written by kspan.\nPACKAGE_NAME=\"{name}\"\nPACKAGE_VERSION=\"{}\"\nAUTOINSTALL=\"yes\"\n\
             MAKE[0]=\"./kspan-build $kernel_source_dir $arch\"\n",
            self.version
        );
        for (i, module) in self.built.modules.iter().enumerate() {
            let stem = module.file_stem().unwrap_or_default().to_string_lossy();
            let dir = module.parent().unwrap_or(Path::new(""));
            let place = match dir.as_os_str().is_empty() {
                true => "chosen".to_owned(),
                false => format!("chosen/{}", dir.display()),
            };
            text.push_str(&format!(
                "BUILT_MODULE_NAME[{i}]=\"{stem}\"\nBUILT_MODULE_LOCATION[{i}]=\"{place}/\"\nDEST_MODULE_LOCATION[{i}]=\"/updates/dkms\"\n"
            ));
        }
        for (view, port) in &self.ports {
            let more: Vec<String> = port
                .modules
                .iter()
                .filter(|m| !self.built.modules.contains(m))
                .map(|m| m.display().to_string())
                .collect();
            if !more.is_empty() {
                return Err(Error::Input(format!(
                    "on {} the port brings {} along, which a dkms.conf cannot list for some kernels only: leave that kernel out of --on, or make prebuilt packages for it",
                    view.kernel.id,
                    more.join(", ")
                )));
            }
        }
        Ok(text)
    }

    /// Puts a port's tree into the package, once; the form's name. What builds as it is is `home`.
    fn form(&self, root: &Path, port: &Port, payload: &mut Payload) -> Result<String> {
        let home = self.driver.sources()?;
        let from = port.dir.as_deref().unwrap_or(Path::new("."));
        let mut files = BTreeMap::new();
        for file in &port.files {
            files.insert(file.clone(), read(&from.join(file))?);
        }
        let as_written = |file: &PathBuf| std::fs::read(self.driver.dir.join(file)).ok();
        let untouched = home.iter().all(|f| files.get(f) == as_written(f).as_ref());
        if untouched && files.len() == home.len() {
            return Ok("home".to_owned());
        }
        let mut hasher = blake3::Hasher::new();
        for (file, content) in &files {
            for part in [file.as_os_str().as_encoded_bytes(), content] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        let key = hasher.finalize().to_hex();
        let form = format!("ports/{}", key.get(..12).unwrap_or_default());
        for (file, content) in files {
            payload.put(root.join(&form).join(file), content);
        }
        Ok(form)
    }

    /// What a kernel answers to the package's own probe, run as the customer's machine will run it.
    fn ask(&self, kernel: &Kernel, root: &Path, payload: &Payload) -> Result<String> {
        let dir = self.engine.cache.work_dir("probe")?;
        for (place, file) in &payload.files {
            let Ok(inside) = place.strip_prefix(root) else {
                continue;
            };
            let asked = inside.components().count() == 1 || inside.starts_with("probes");
            if asked {
                let to = dir.path().join(inside);
                let parent = to.parent().unwrap_or(dir.path());
                std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
                std::fs::write(&to, &file.content).map_err(Error::io(&to))?;
            }
        }
        let mut command = self.engine.cache.sandboxed(kernel, "sh", dir.path(), &[])?;
        command
            .arg("./kspan-probe")
            .arg(&kernel.build_dir)
            .arg(&kernel.arch);
        let output = command.output().map_err(Error::io(dir.path()))?;
        if !output.status.success() || output.stdout.is_empty() {
            return Err(Error::Input(format!(
                "{}: its headers could not be asked: {}",
                kernel.id,
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn about_source(&self, name: &str) -> About {
        let kernels: Vec<&str> = self
            .ports
            .iter()
            .map(|(v, _)| v.kernel.release.as_str())
            .collect();
        About {
            name: format!("{name}-dkms"),
            version: self.version.clone(),
            architecture: "all".to_owned(),
            maintainer: self.maintainer.clone(),
            summary: format!("Driver {name} for kernels old and new (dkms source)"),
            description: format!(
                "One driver source with the forms that kspan derived from it. The form that\nfits is chosen by what a kernel's headers declare, never by its version.\n\nMade for: {}.",
                kernels.join(", ")
            ),
            depends: Depends {
                deb: vec![
                    "dkms (>= 2.8)".into(),
                    "diffutils".into(),
                    "gcc | c-compiler".into(),
                    "make".into(),
                ],
                rpm: ["dkms", "diffutils", "gcc", "make"]
                    .map(|n| (n.to_owned(), None))
                    .to_vec(),
                ..Depends::default()
            },
            scripts: scripts(name, &self.version),
            epoch: self.epoch,
            ..About::default()
        }
    }
}

/// Registers, builds and installs when the package comes, and takes all away before it goes.
fn scripts(name: &str, version: &str) -> Scripts {
    let remove = format!("dkms remove -m {name} -v {version} --all || :\n");
    let by_hand = format!(
        "dkms add -m {name} -v {version} || :\ndkms autoinstall || echo \"{name}: not built for every kernel; dkms status tells\" >&2\n"
    );
    Scripts {
        deb_postinst: format!(
            "#!/bin/sh\nset -e\nif [ \"$1\" = configure ]; then\n    if [ -x /usr/lib/dkms/common.postinst ]; then\n        /usr/lib/dkms/common.postinst {name} {version} /usr/share/{name}-dkms \"\" \"$2\"\n    else\n        {}    fi\nfi\n",
            by_hand.replace("\ndkms", "\n        dkms")
        ),
        deb_prerm: format!(
            "#!/bin/sh\nset -e\ncase $1 in\nremove | upgrade | deconfigure) {remove}    ;;\nesac\n"
        ),
        deb_postrm: String::new(),
        rpm_post: by_hand,
        rpm_preun: remove,
        rpm_postun: String::new(),
    }
}
