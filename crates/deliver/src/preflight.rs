//! `preflight`: before a kernel is booted into, what will be missing there. Modules that are not built yet are built on trial; nothing
//! is kept or changed.

use crate::conf::{Conf, Reading};
use crate::session::{Package, Session, Target};
use crate::{Result, Stop, initramfs, modinfo};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What was found of one package, or of a kernel as a whole.
struct Finding {
    target: Target,
    package: Option<Package>,
    /// `headers`, `build`, `signature` or `initramfs`.
    about: &'static str,
    words: String,
    well: bool,
}

/// An image, and the modules in it.
struct Image {
    path: PathBuf,
    modules: BTreeMap<String, Vec<u8>>,
}

impl Session<'_> {
    /// Looks at the kernels of the command line, by default at all that are here. Ends well if nothing will be missing.
    pub(crate) fn preflight(&mut self) -> Result<()> {
        let mut findings = Vec::new();
        for target in self.kernels_at_hand() {
            self.look_ahead(&target, &mut findings)?;
        }
        if self.request.json {
            let rows: Vec<_> = findings.iter().map(row).collect();
            let text = serde_json::to_string_pretty(&serde_json::json!({ "findings": rows }));
            self.say(&text.map_err(|e| Stop::error(1, [e.to_string()]))?);
        } else {
            findings.iter().for_each(|f| self.say(&line(f)));
        }
        match findings.iter().all(|f| f.well) {
            true => Ok(()),
            false => Err(Stop::Exit(1)),
        }
    }

    fn look_ahead(&mut self, target: &Target, findings: &mut Vec<Finding>) -> Result<()> {
        let mut find = |package: Option<&Package>, about, words: String, well| {
            findings.push(Finding {
                target: target.clone(),
                package: package.cloned(),
                about,
                words,
                well,
            });
        };
        if self.check_headers(&target.kernel).is_err() {
            let dir = self.kernel_dir(&target.kernel);
            let words = format!(
                "no headers in {}: nothing can be built for it",
                dir.display()
            );
            find(None, "headers", words, false);
            return Ok(());
        }
        let images = self.images(target);
        if let Err(words) = &images {
            find(None, "initramfs", words.clone(), false);
        }
        for package in self.wanted_packages(target)? {
            let file = self.tree.source_link(&package).join("dkms.conf");
            let conf = self.read_conf(&package, target, &file, Reading::Strict)?;
            let (words, well) = self.would_build(&package, target, &conf)?;
            let here = self.tree.is_built(&package, target);
            find(Some(&package), "build", words, well);
            if !well {
                continue;
            }
            if let Some(words) = self.would_not_load(&package, target, &conf)? {
                find(Some(&package), "signature", words, false);
            }
            if let (Ok(images), false) = (&images, conf.excluded) {
                let built = here.then(|| self.tree.base(&package, target).join("module"));
                for words in missing(images, &conf, built.as_deref()) {
                    find(Some(&package), "initramfs", words, false);
                }
            }
        }
        Ok(())
    }

    /// The newest version of every package that is built for new kernels by itself, or is installed for some kernel; of those that the
    /// command line names, if it names any.
    fn wanted_packages(&mut self, target: &Target) -> Result<Vec<Package>> {
        let mut wanted = Vec::new();
        for package in self.latest_of_all() {
            let asked = &self.request.module;
            if !asked.is_empty() && *asked != package.name {
                continue;
            }
            let file = self.tree.source_link(&package).join("dkms.conf");
            let conf = self.read_conf(&package, target, &file, Reading::Lenient)?;
            let installed = self.tree.built(&package, "", "");
            let installed = installed
                .iter()
                .any(|e| e.state == crate::tree::State::Installed);
            if conf.autoinstall || installed || !asked.is_empty() {
                wanted.push(package);
            }
        }
        Ok(wanted)
    }

    /// Is it built, or does it build? In words, and whether that is well.
    fn would_build(
        &mut self,
        package: &Package,
        target: &Target,
        conf: &Conf,
    ) -> Result<(String, bool)> {
        if let Some(error) = conf.errors.first() {
            return Ok((format!("its dkms.conf is not valid: {error}"), false));
        }
        if conf.excluded {
            return Ok(("not for this kernel (BUILD_EXCLUSIVE)".to_owned(), true));
        }
        if self.tree.is_installed(package, target) {
            return Ok(("installed".to_owned(), true));
        }
        if self.tree.is_built(package, target) {
            return Ok(("built".to_owned(), true));
        }
        let source = self.tree.source_link(package);
        let shop = self.workshop(package, target, &source)?;
        let builds = self.built_quietly(&shop, conf, target);
        let reason = first_error(&shop.real.join("make.log"));
        crate::disk::remove_tree(&shop.real)?;
        crate::disk::remove_tree(&shop.shown)?;
        if builds? {
            return Ok(("builds".to_owned(), true));
        }
        let ported = match self.request.no_repair {
            true => None,
            false => self.port_of(package, target)?,
        };
        Ok(match ported {
            Some(_) => ("builds as a port of its source".to_owned(), true),
            None => (format!("does not build: {reason}"), false),
        })
    }

    /// Why the kernel would not load its modules; none if it would.
    fn would_not_load(
        &mut self,
        package: &Package,
        target: &Target,
        conf: &Conf,
    ) -> Result<Option<String>> {
        let Some(why) = self.insists_on_signatures(target) else {
            return Ok(None);
        };
        if self.tree.is_built(package, target) {
            let unsigned = self.unsigned(conf, &self.tree.base(package, target).join("module"));
            let words = format!("{} is not signed, and {why}", unsigned.join(", "));
            return Ok((!unsigned.is_empty()).then_some(words));
        }
        let signs = conf.excluded || self.would_sign(target)?;
        Ok((!signs).then(|| format!("it would not be signed, and {why}")))
    }

    /// The kernel's own image, if there is one yet, and all others.
    fn images(&self, target: &Target) -> std::result::Result<Images, String> {
        let boot = crate::depmod::base(&self.install_tree)
            .unwrap_or(Path::new("/"))
            .join("boot");
        let listed = boot.with_file_name("etc/initramfs-tools/modules");
        let mut images = Images {
            listed: listed_modules(&listed),
            ..Images::default()
        };
        for name in crate::disk::names(&boot) {
            let Some(kernel) = kernel_of(&name) else {
                continue;
            };
            let path = boot.join(&name);
            let read = || initramfs::modules(&path).map_err(|e| format!("{}: {e}", path.display()));
            if kernel == target.kernel {
                let modules = read()?;
                images.own = Some(Image { path, modules });
            } else if let Ok(modules) = read() {
                images.elsewhere.extend(modules.into_keys());
            }
        }
        Ok(images)
    }
}

/// What is in the images of a machine.
#[derive(Default)]
struct Images {
    own: Option<Image>,
    /// The names of the modules in the other kernels' images.
    elsewhere: BTreeSet<String>,
    /// Those that the administrator wants in every image.
    listed: BTreeSet<String>,
}

/// The kernel that an image is for, by its name: `initrd.img-K` (Debian), `initramfs-K.img` (dracut), `initrd-K` (SUSE).
fn kernel_of(name: &str) -> Option<&str> {
    let dracut = || name.strip_prefix("initramfs-")?.strip_suffix(".img");
    name.strip_prefix("initrd.img-")
        .or_else(dracut)
        .or_else(|| name.strip_prefix("initrd-"))
}

fn listed_modules(file: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(|l| l.split('#').next()?.split_whitespace().next())
        .map(|m| m.replace('-', "_"))
        .collect()
}

/// What misses from an image, or is another build there.
fn missing(images: &Images, conf: &Conf, built: Option<&Path>) -> Vec<String> {
    let mut found = Vec::new();
    let update = "update the kernel's initramfs";
    for module in conf.wanted() {
        let name = module.name.replace('-', "_");
        let wanted = images.listed.contains(&name) || images.elsewhere.contains(&name);
        let Some(own) = &images.own else {
            if wanted {
                found.push(format!(
                    "{name} belongs into an initramfs, and there is none yet: {update}"
                ));
            }
            continue;
        };
        match own.modules.get(&name) {
            None if wanted => found.push(format!(
                "{name} is in the initramfs of other kernels and not in {}: {update}",
                own.path.display()
            )),
            Some(bytes) if built.is_some_and(|dir| is_another(dir, &module.name, bytes)) => found
                .push(format!(
                    "the {name} in {} is not the one that is built: {update}",
                    own.path.display()
                )),
            _ => {}
        }
    }
    found
}

/// Is a module in an image another one than the built one? Tools strip what they put into an image, so sources are compared.
fn is_another(dir: &Path, name: &str, bytes: &[u8]) -> bool {
    let Some(ours) = modinfo::find(dir, name).and_then(|f| modinfo::unpacked(&f).ok()) else {
        return false;
    };
    let (ours, theirs) = (modinfo::parse(&ours), modinfo::parse(bytes));
    ours != theirs
}

/// The first line of a log that names an error.
fn first_error(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let signs = ["error: ", "ERROR: ", "*** "];
    let found = signs
        .iter()
        .find_map(|s| text.lines().find(|l| l.contains(s)));
    found.unwrap_or("make failed").trim().to_owned()
}

fn line(f: &Finding) -> String {
    let what = f
        .package
        .as_ref()
        .map_or("kernel".to_owned(), ToString::to_string);
    let word = if f.well { "" } else { "NOT READY: " };
    format!(
        "{what}, {}, {}: {word}{}",
        f.target.kernel, f.target.arch, f.words
    )
}

fn row(f: &Finding) -> serde_json::Value {
    serde_json::json!({
        "kernel": f.target.kernel,
        "arch": f.target.arch,
        "module": f.package.as_ref().map(|p| &p.name),
        "version": f.package.as_ref().map(|p| &p.version),
        "about": f.about,
        "words": f.words,
        "well": f.well,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_in_three_ways() {
        assert_eq!(kernel_of("initrd.img-6.1.0-1-amd64"), Some("6.1.0-1-amd64"));
        assert_eq!(kernel_of("initramfs-6.1.0.img"), Some("6.1.0"));
        assert_eq!(kernel_of("initrd-6.4-default"), Some("6.4-default"));
        assert_eq!(kernel_of("vmlinuz-6.1.0"), None);
        assert_eq!(kernel_of("initrd.img"), None);
    }
}
