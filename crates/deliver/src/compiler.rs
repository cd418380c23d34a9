//! Which compiler a package is built with: the one that the kernel was built with, where it is here; for a kernel of kspan's own
//! cache the one that was found to build for it, with the root that holds it.

use crate::session::{Session, Target};
use crate::sign::on_path;
use crate::{Result, Stop, kernels};
use kspan_kernel::shell::{Mount, Output, Script, USUAL_PATH, run_script};
use kspan_kernel::{Cache, Toolchain};
use std::ffi::OsString;
use std::path::PathBuf;

/// A kernel that kspan fetched.
pub struct CachedKernel {
    /// What builds for it.
    pub toolchain: Toolchain,
    /// What a build reads of it.
    pub dirs: Vec<PathBuf>,
    /// Where the compiler goes by the name that the kernel's headers call it by; one of `dirs`.
    pub named: Option<PathBuf>,
    /// The same where an installed kernel has it: a package may look there, whatever it is told.
    pub placed: Vec<Mount>,
}

impl Session<'_> {
    /// The kernel as kspan's cache knows it, when its build directory lies there.
    pub(crate) fn cached_kernel(&self, kernel: &str) -> Option<CachedKernel> {
        let dir = self.kernel_dir(kernel).canonicalize().ok()?;
        let cache = Cache::open().ok().filter(|c| dir.starts_with(c.root()))?;
        let name = kernel;
        let kernel = cache.resolve(&dir.display().to_string()).ok()?;
        let lib = PathBuf::from("/usr/lib/modules").join(&kernel.release);
        let place = |real: &PathBuf, name: &str| Mount {
            real: real.clone(),
            shown: lib.join(name),
        };
        let toolchain = cache.known_toolchain(&kernel)?;
        // Without it, what a package's configure asks fails, and says so in its own words.
        let named = self.named_compiler(name, &toolchain, &cache).ok().flatten();
        let mut dirs = cache.build_dirs(&kernel);
        dirs.extend(named.clone());
        Some(CachedKernel {
            placed: vec![
                place(&kernel.build_dir, "build"),
                place(&kernel.source_dir, "source"),
            ],
            toolchain,
            dirs,
            named,
        })
    }

    /// `CC` and friends: the compiler that the kernel was built with, where this machine has it.
    pub(crate) fn compilers(
        &self,
        target: &Target,
        cached: Option<&CachedKernel>,
    ) -> Result<Vec<(OsString, OsString)>> {
        if let Some(cached) = cached {
            let cc = || cached.toolchain.cc.clone().into();
            // Debian's headers name a compiler of their own in a makefile, which only a command line outweighs.
            let flags = format!("CC={}", cached.toolchain.cc).into();
            let mut found: Vec<(OsString, OsString)> = vec![
                ("CC".into(), cc()),
                ("KERNEL_CC".into(), cc()),
                ("MAKEFLAGS".into(), flags),
            ];
            if let Some(dir) = &cached.named {
                let mut path = dir.clone().into_os_string();
                path.push(":");
                path.push(USUAL_PATH);
                found.push(("PATH".into(), path));
            }
            return Ok(found);
        }
        let config =
            std::fs::read_to_string(self.kernel_config(&target.kernel)).unwrap_or_default();
        let mut found: Vec<(OsString, OsString)> = Vec::new();
        let mut set = |name: &str, kernel: &str, program: &str| {
            if on_path(program).is_some() {
                found.retain(|(n, _)| n != name && n != kernel);
                found.push((name.into(), program.into()));
                found.push((kernel.into(), program.into()));
                return true;
            }
            false
        };
        let text = kernels::config_value(&config, "CONFIG_CC_VERSION_TEXT").unwrap_or_default();
        let named = text
            .split_whitespace()
            .next()
            .is_some_and(|cc| set("CC", "KERNEL_CC", cc));
        if kernels::config_is_set(&config, "CONFIG_CC_IS_CLANG") {
            set("CC", "KERNEL_CC", "clang");
        }
        if kernels::config_is_set(&config, "CONFIG_LD_IS_LLD") {
            set("LD", "KERNEL_LD", "ld.lld");
        }
        if !named && let Some(cc) = self.kernel_variables(&target.kernel)? {
            found.push(("CC".into(), cc.into()));
        }
        Ok(found)
    }

    /// A directory where the compiler that the headers name is the one that builds for them, when this machine has none of that name: a
    /// package's configure script empties `MAKEFLAGS` before it tries the kernel's makefiles.
    fn named_compiler(
        &self,
        kernel: &str,
        toolchain: &Toolchain,
        cache: &Cache,
    ) -> Result<Option<PathBuf>> {
        // Another root is chosen for its compiler, which has the name there.
        let Some(real) = on_path(&toolchain.cc).filter(|_| toolchain.root.is_none()) else {
            return Ok(None);
        };
        let is_name = |n: &String| !n.contains(['/', ' ']) && on_path(n).is_none();
        let Some(named) = self.kernel_variables(kernel)?.filter(is_name) else {
            return Ok(None);
        };
        let dir = cache
            .root()
            .join("toolchains/named")
            .join(format!("{named}-is-{}", toolchain.cc));
        let link = dir.join(&named);
        if !link.exists() {
            std::fs::create_dir_all(&dir).map_err(Stop::io(&dir))?;
            // A link that leads nowhere since its compiler went.
            let _ = std::fs::remove_file(&link);
            match std::os::unix::fs::symlink(&real, &link) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => (),
                other => other.map_err(Stop::io(&link))?,
            }
        }
        Ok(Some(dir))
    }

    /// The compiler that Debian's headers name in `.kernelvariables`, a piece of a makefile.
    fn kernel_variables(&self, kernel: &str) -> Result<Option<String>> {
        let dir = self.kernel_dir(kernel);
        let file = dir.join(".kernelvariables");
        if !file.is_file() {
            return Ok(None);
        }
        let script = Script {
            text: "printf 'show-%%:\\n\\t@echo $($*)\\ninclude %s\\n' \"$1\" | make -f - show-CC"
                .to_owned(),
            arguments: vec![file.into()],
            dir: "/".into(),
            readable: vec![dir],
            ..Script::default()
        };
        let ended = run_script(&script, &Output::Capture)?;
        let said = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
        Ok((ended.status == 0 && !said.is_empty()).then_some(said))
    }
}
