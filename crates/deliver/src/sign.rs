//! Signing modules: which tool, which key, and whether at all.

use crate::kernels::config_value;
use crate::session::{Session, Target};
use crate::{Result, Stop, distro, framework};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How modules are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    tool: PathBuf,
    hash: String,
    keys: Keys,
}

/// The key and its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Keys {
    key: String,
    certificate: String,
}

impl Session<'_> {
    /// Looks at the kernel, and prepares signing for it; said once for each kernel.
    pub(crate) fn prepare(&mut self, target: &Target) -> Result<()> {
        if self.prepared.as_ref().is_some_and(|(t, _)| t == target) {
            return Ok(());
        }
        self.check_headers(&target.kernel)?;
        let signing = self.signing(target)?;
        self.prepared = Some((target.clone(), signing));
        self.say("");
        Ok(())
    }

    fn signing(&self, target: &Target) -> Result<Option<Signing>> {
        let said = framework::read(&framework::SIGNING, variables(target), &self.tree.cache())?;
        let value = |name: &str| value(&said, name);
        let refuse = |why: &str| {
            self.say(why);
            Ok(None)
        };
        match value("try_sign_modules").as_str() {
            "false" => {
                return refuse("Module signing is disabled by policy, modules won't be signed");
            }
            "true" => {}
            _ if in_chroot() => return refuse("Running in chroot, modules won't be signed"),
            _ => {}
        }
        let path = self.kernel_config(&target.kernel);
        let Ok(config) = std::fs::read_to_string(&path) else {
            return refuse(&format!(
                "Kernel config {} not found, modules won't be signed",
                path.display()
            ));
        };
        let Some(hash) = config_value(&config, "CONFIG_MODULE_SIG_HASH") else {
            return refuse(
                "The kernel is built without module signing facility, modules won't be signed",
            );
        };
        let tool = match value("sign_file") {
            said if said.is_empty() => self.sign_tool(&target.kernel),
            said => said.into(),
        };
        self.say(&format!("Sign command: {}", tool.display()));
        if !runnable(&tool) {
            return refuse(&format!(
                "Binary {} not found, modules won't be signed",
                tool.display()
            ));
        }
        let keys = self.keys(target, value("mok_signing_key"), value("mok_certificate"))?;
        Ok(keys.map(|keys| Signing { tool, hash, keys }))
    }

    /// Would modules be signed for a kernel, by a key that is there? Makes none.
    pub(crate) fn would_sign(&self, target: &Target) -> Result<bool> {
        let said = framework::read(&framework::SIGNING, variables(target), &self.tree.cache())?;
        let policy = value(&said, "try_sign_modules");
        let config =
            std::fs::read_to_string(self.kernel_config(&target.kernel)).unwrap_or_default();
        let facility = config_value(&config, "CONFIG_MODULE_SIG_HASH").is_some();
        let tool = match value(&said, "sign_file") {
            said if said.is_empty() => self.sign_tool(&target.kernel),
            said => said.into(),
        };
        let usual = match distro::is(&self.family, &["ubuntu"]) {
            true => "/var/lib/shim-signed/mok/MOK.priv",
            false => "/var/lib/dkms/mok.key",
        };
        let key = Some(value(&said, "mok_signing_key")).filter(|k| !k.is_empty());
        let key = key.unwrap_or_else(|| usual.to_owned());
        let there = key.starts_with("pkcs11:") || Path::new(&key).is_file();
        Ok(policy != "false" && facility && runnable(&tool) && there)
    }

    fn sign_tool(&self, kernel: &str) -> PathBuf {
        let candidates = if distro::is(&self.family, &["debian"]) {
            let series = kernel.rsplit_once('.').map_or(kernel, |(s, _)| s);
            vec![format!("/usr/lib/linux-kbuild-{series}/scripts/sign-file")]
        } else if distro::is(&self.family, &["ubuntu"]) {
            let kmodsign = on_path("kmodsign").map(|p| p.display().to_string());
            kmodsign
                .into_iter()
                .chain([format!("/usr/src/linux-headers-{kernel}/scripts/sign-file")])
                .collect()
        } else if distro::is(&self.family, &["gentoo"]) {
            vec![format!("/usr/src/linux-{kernel}/scripts/sign-file")]
        } else {
            Vec::new()
        };
        candidates
            .into_iter()
            .map(PathBuf::from)
            .find(|p| p.is_file())
            .unwrap_or_else(|| self.lib(kernel).join("build/scripts/sign-file"))
    }

    /// `generate_mok`.
    pub(crate) fn generate_mok(&mut self) -> Result<()> {
        let target = self.first_target();
        let said = framework::read(&framework::SIGNING, variables(&target), &self.tree.cache())?;
        let keys = self.keys(
            &target,
            value(&said, "mok_signing_key"),
            value(&said, "mok_certificate"),
        )?;
        match keys {
            Some(_) => Ok(()),
            None => Err(Stop::Exit(1)),
        }
    }

    /// The key and certificate, made if they are not there; none when they cannot be.
    fn keys(&self, target: &Target, key: String, certificate: String) -> Result<Option<Keys>> {
        let mut keys = Keys { key, certificate };
        if keys.key.is_empty() && !self.distro_keys(target, &mut keys)? {
            return Ok(None);
        }
        if keys.key.is_empty() {
            keys.key = "/var/lib/dkms/mok.key".to_owned();
        }
        self.say(&format!("Signing key: {}", keys.key));
        if keys.certificate.is_empty() {
            keys.certificate = "/var/lib/dkms/mok.pub".to_owned();
        }
        self.say(&format!("Public certificate (MOK): {}", keys.certificate));
        let there = Path::new(&keys.key).is_file() && Path::new(&keys.certificate).is_file();
        if !keys.key.starts_with("pkcs11:") && !there && !self.make_keys(&keys)? {
            return Ok(None);
        }
        if !Path::new(&keys.certificate).is_file() {
            self.say(&format!(
                "Certificate file {} not found and can't be generated, modules won't be signed",
                keys.certificate
            ));
            return Ok(None);
        }
        Ok(Some(keys))
    }

    /// Keys that a distribution keeps elsewhere. False when they cannot be had.
    fn distro_keys(&self, target: &Target, keys: &mut Keys) -> Result<bool> {
        if distro::is(&self.family, &["ubuntu"]) {
            keys.key = "/var/lib/shim-signed/mok/MOK.priv".to_owned();
            keys.certificate = "/var/lib/shim-signed/mok/MOK.der".to_owned();
            return Ok(self.ubuntu_keys(keys));
        }
        if distro::is(&self.family, &["gentoo"]) {
            let env = |name: &str| std::env::var(name).unwrap_or_default();
            let portage = std::fs::read_to_string("/etc/portage/make.conf").unwrap_or_default();
            let find = |name: &str| match env(name) {
                set if set.is_empty() => config_value(&portage, name).unwrap_or_default(),
                set => set,
            };
            keys.key = find("MODULES_SIGN_KEY");
            if keys.certificate.is_empty() {
                keys.certificate = find("MODULES_SIGN_CERT");
            }
            if keys.key.is_empty() {
                self.kernel_key(target, keys);
            }
        }
        Ok(true)
    }

    /// The key that the kernel itself was built with: one PEM file of key and certificate, relative to its source.
    fn kernel_key(&self, target: &Target, keys: &mut Keys) {
        let config =
            std::fs::read_to_string(self.kernel_config(&target.kernel)).unwrap_or_default();
        if let Some(key) = config_value(&config, "CONFIG_MODULE_SIG_KEY") {
            let path = self.kernel_dir(&target.kernel).join(key);
            keys.key = path.display().to_string();
            keys.certificate = keys.key.clone();
        }
    }

    fn ubuntu_keys(&self, keys: &Keys) -> bool {
        let there = |p: &str| Path::new(p).is_file();
        if there(&keys.key) && there(&keys.certificate) {
            return true;
        }
        if on_path("update-secureboot-policy").is_none() {
            self.say("Binary update-secureboot-policy not found, modules won't be signed");
            return false;
        }
        // It makes no new key while a certificate is there.
        let _ = std::fs::remove_file(&keys.certificate);
        self.say(
            "Certificate or key are missing, generating them using update-secureboot-policy...",
        );
        let run = |argument: &str| {
            let mut command = Command::new("update-secureboot-policy");
            command.arg(argument).env("SHIM_NOTRIGGER", "y");
            self.talk.child(&mut command);
            command.status()
        };
        // Whether it worked is seen by whether the files are there.
        let _ = run("--new-key").and_then(|_| run("--enroll-key"));
        true
    }

    /// Makes a key and a self-signed certificate; true when both are there.
    fn make_keys(&self, keys: &Keys) -> Result<bool> {
        self.say("Certificate or key are missing, generating self signed certificate for MOK...");
        if on_path("openssl").is_none() {
            self.say("openssl not found, can't generate key and certificate.");
            return Ok(false);
        }
        let made = Command::new("openssl")
            .args(["req", "-new", "-x509", "-nodes", "-days", "36500"])
            .args([
                "-subj",
                "/CN=DKMS module signing key",
                "-newkey",
                "rsa:2048",
            ])
            .args(["-addext", "extendedKeyUsage=codeSigning", "-outform", "DER"])
            .arg("-keyout")
            .arg(&keys.key)
            .arg("-out")
            .arg(&keys.certificate)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let key = Path::new(&keys.key);
        if key.is_file() {
            // Nobody but root may sign as this machine.
            std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600))
                .map_err(Stop::io(key))?;
        }
        if made.is_err() || !key.is_file() {
            self.say(&format!(
                "Key file {} not found and can't be generated, modules won't be signed",
                keys.key
            ));
            return Ok(false);
        }
        Ok(true)
    }

    /// Signs one module, if modules are signed. `shown` is its name for people.
    pub(crate) fn sign(&self, module: &Path, shown: &Path) {
        let Some((_, Some(signing))) = &self.prepared else {
            return;
        };
        self.say(&format!("Signing module {}", shown.display()));
        let output = Command::new(&signing.tool)
            .arg(&signing.hash)
            .arg(&signing.keys.key)
            .arg(&signing.keys.certificate)
            .arg(module)
            .stdin(Stdio::null())
            .output();
        let said = match &output {
            Ok(o) if o.status.success() => return,
            Ok(o) => [o.stdout.clone(), o.stderr.clone()].concat(),
            Err(e) => e.to_string().into_bytes(),
        };
        let said = String::from_utf8_lossy(&said);
        self.warn(&[
            &format!("Failed to sign module '{}'!", shown.display()),
            said.trim_end(),
        ]);
    }
}

/// A setting of the framework files, else of the environment.
fn value(said: &crate::evaluate::Evaluated, name: &str) -> String {
    match said.first(name) {
        "" => std::env::var(name).unwrap_or_default(),
        set => set.to_owned(),
    }
}

fn variables(target: &Target) -> Vec<(&'static str, String)> {
    vec![
        ("kernelver", target.kernel.clone()),
        ("arch", target.arch.clone()),
    ]
}

fn runnable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// A program of `$PATH`.
pub fn on_path(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|p| runnable(p));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|d| d.join(name))
        .find(|p| runnable(p))
}

/// Is this process's root another one than init's? Keys of a machine do not belong into an image that is being made.
pub fn in_chroot() -> bool {
    use std::os::unix::fs::MetadataExt;
    let fake = std::env::var("FAKECHROOT").is_ok_and(|v| v == "true")
        && std::env::var_os("FAKECHROOT_BASE").is_some()
        && std::env::var("LD_PRELOAD").is_ok_and(|v| v.contains("libfakechroot.so"));
    let mounts = |who: &str| std::fs::read(format!("/proc/{who}/mountinfo")).ok();
    let differ = matches!((mounts("1"), mounts("self")), (Some(init), Some(ours)) if init != ours);
    let id = |path: &str| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let moved = rustix::process::geteuid().is_root()
        && id("/proc/1/root").is_some()
        && id("/proc/1/root") != id("/");
    fake || differ || moved
}
