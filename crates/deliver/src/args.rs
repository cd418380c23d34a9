//! The command line, read as dkms reads it: `-v 1`, `--kernelver=x`, `mod/1.0`, a directory, a tarball, in any order.

use crate::{Result, Stop};
use std::path::{Path, PathBuf};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Register a source.
    Add,
    /// Build modules.
    Build,
    /// Build and put them into a kernel's module tree.
    Install,
    /// Take them out of it.
    Uninstall,
    /// Delete what was built.
    Unbuild,
    /// Forget a source.
    Remove,
    /// Build and install all that wants to be.
    Autoinstall,
    /// Install what another kernel has.
    Match,
    /// Pack a source and its modules.
    Mktarball,
    /// Unpack one.
    Ldtarball,
    /// What is there.
    Status,
    /// Make a key to sign with.
    GenerateMok,
    /// A kernel is about to be installed.
    KernelPreinst,
    /// A kernel was installed.
    KernelPostinst,
    /// A kernel is about to be removed.
    KernelPrerm,
    /// Compare what is installed with what was recorded, and mend (not in dkms).
    Verify,
    /// Go back to the version that was installed before (not in dkms).
    Rollback,
    /// Say why a module is or is not there for a kernel (not in dkms).
    Why,
    /// Say, before a kernel is booted into, what will be missing there (not in dkms).
    Preflight,
    /// Show the port of a source that does not build for a kernel (not in dkms).
    Port,
}

const ACTIONS: [(&str, Action); 20] = [
    ("add", Action::Add),
    ("build", Action::Build),
    ("install", Action::Install),
    ("uninstall", Action::Uninstall),
    ("unbuild", Action::Unbuild),
    ("remove", Action::Remove),
    ("autoinstall", Action::Autoinstall),
    ("match", Action::Match),
    ("mktarball", Action::Mktarball),
    ("ldtarball", Action::Ldtarball),
    ("status", Action::Status),
    ("generate_mok", Action::GenerateMok),
    ("kernel_preinst", Action::KernelPreinst),
    ("kernel_postinst", Action::KernelPostinst),
    ("kernel_prerm", Action::KernelPrerm),
    ("verify", Action::Verify),
    ("rollback", Action::Rollback),
    ("why", Action::Why),
    ("preflight", Action::Preflight),
    ("port", Action::Port),
];

impl Action {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        ACTIONS
            .iter()
            .find(|(_, a)| *a == self)
            .map_or("", |(n, _)| n)
    }

    fn parse(word: &str) -> Option<Self> {
        ACTIONS.iter().find(|(n, _)| *n == word).map(|(_, a)| *a)
    }
}

/// What `--help` prints after `Usage: PROGRAM `.
pub const USAGE: &str = "[action] [options]
  [action]  = { add | remove | build | unbuild | install | uninstall | match |
               autoinstall | mktarball | ldtarball | status | generate_mok |
               kernel_preinst | kernel_postinst | kernel_prerm |
               verify | rollback | why | preflight | port }
  [options] = [-m module] [-v module-version] [-k kernel-version] [-a arch]
              [-c dkms.conf-location] [-q] [--force] [--force-version-override] [--all]
              [--templatekernel=kernel] [--directive='cli-directive=cli-value']
              [--config=kernel-include/config/auto.conf-location] [--archive=tarball-location]
              [--kernelsourcedir=source-location] [--rpm_safe_upgrade]
              [--dkmstree path] [--sourcetree path] [--installtree path]
              [--binaries-only] [--source-only] [--symlink-modules] [--verbose] [--json]
              [--no-depmod] [--modprobe-on-install] [-j number] [--no-repair] [--diff]
              [--version] [--help]
";

/// The command line.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The action's name, or none.
    pub action: Option<Action>,
    /// Words that are nothing known.
    pub unknown: Vec<String>,
    /// `-m`.
    pub module: String,
    /// `-v`.
    pub version: String,
    /// `-k`, each with its architecture if `k/arch` was given.
    pub kernels: Vec<String>,
    /// `-a`, and those of `-k k/arch`.
    pub arches: Vec<String>,
    /// `-c`.
    pub conf: Option<PathBuf>,
    /// `--config`.
    pub kernel_config: Option<PathBuf>,
    /// `--kernelsourcedir`.
    pub kernel_source: Option<PathBuf>,
    /// `--templatekernel`.
    pub template: String,
    /// `--archive`, or a file's name.
    pub archive: Option<PathBuf>,
    /// A directory with a dkms.conf, or such a file.
    pub source: Option<String>,
    /// `--directive NAME=VALUE`.
    pub directives: Vec<String>,
    /// `--dkmstree`.
    pub dkms_tree: Option<PathBuf>,
    /// `--sourcetree`.
    pub source_tree: Option<PathBuf>,
    /// `--installtree`.
    pub install_tree: Option<PathBuf>,
    /// `-j`.
    pub jobs: Option<String>,
    /// `--all`.
    pub all: bool,
    /// `--force`.
    pub force: bool,
    /// `--force-version-override`.
    pub force_version: bool,
    /// `--binaries-only`.
    pub binaries_only: bool,
    /// `--source-only`.
    pub source_only: bool,
    /// `--symlink-modules`.
    pub symlink: bool,
    /// `--no-depmod`.
    pub no_depmod: bool,
    /// `--modprobe-on-install`.
    pub modprobe: bool,
    /// `--no-repair` (not in dkms): a source that does not build is not ported.
    pub no_repair: bool,
    /// `--diff` (not in dkms): what a port changed.
    pub diff: bool,
    /// `--rpm_safe_upgrade`.
    pub rpm_safe_upgrade: bool,
    /// `--verbose`.
    pub verbose: bool,
    /// `-q`.
    pub quiet: bool,
    /// `--json` (not in dkms).
    pub json: bool,
    /// `--version`.
    pub show_version: bool,
    /// `--help`.
    pub show_help: bool,
    /// Options that are taken and do nothing.
    pub deprecated: Vec<String>,
}

/// The value of an option: after its `=`, else the next word.
fn value(word: &str, rest: &mut std::slice::Iter<'_, String>) -> String {
    match word.split_once('=') {
        Some((_, value)) => value.to_owned(),
        None => rest.next().cloned().unwrap_or_default(),
    }
    .trim()
    .to_owned()
}

impl Request {
    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// An unknown option, or what contradicts itself.
    pub fn parse(words: &[String]) -> Result<Self> {
        let mut request = Self::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            if !request.flag(word) && !request.option(word, &mut rest) {
                if word.starts_with('-') {
                    return Err(Stop::error(2, [format!("Unknown option: {word}")]));
                }
                request.word(word)?;
            }
            if request.show_version || request.show_help {
                return Ok(request);
            }
        }
        request.sane()?;
        Ok(request)
    }

    fn flag(&mut self, word: &str) -> bool {
        let flag = match word {
            "--quiet" | "-q" => &mut self.quiet,
            "--version" | "-V" => &mut self.show_version,
            "--help" | "-h" => &mut self.show_help,
            "--binaries-only" => &mut self.binaries_only,
            "--source-only" => &mut self.source_only,
            "--force" => &mut self.force,
            "--force-version-override" => &mut self.force_version,
            "--all" => &mut self.all,
            "--verbose" | "--debug" => &mut self.verbose,
            "--rpm_safe_upgrade" => &mut self.rpm_safe_upgrade,
            "--symlink-modules" => &mut self.symlink,
            "--no-depmod" => &mut self.no_depmod,
            "--modprobe-on-install" => &mut self.modprobe,
            "--no-repair" => &mut self.no_repair,
            "--diff" => &mut self.diff,
            "--json" => &mut self.json,
            "--no-initrd" | "--no-clean-kernel" | "--no-prepare-kernel" => {
                self.deprecated.push(word.to_owned());
                return true;
            }
            _ => return false,
        };
        *flag = true;
        true
    }

    fn option(&mut self, word: &str, rest: &mut std::slice::Iter<'_, String>) -> bool {
        let is = |long: &str| !long.is_empty() && word.starts_with(long);
        let short = word.split('=').next().unwrap_or(word);
        let path = |rest| Some(PathBuf::from(value(word, rest)));
        if is("--module") || short == "-m" {
            self.module_version(&value(word, rest));
        } else if short == "-v" {
            self.version = value(word, rest);
        } else if is("--kernelver") || short == "-k" {
            self.kernel(&value(word, rest));
        } else if is("--templatekernel") {
            self.template = value(word, rest);
        } else if short == "-c" {
            self.conf = path(rest);
        } else if is("--dkmstree") {
            self.dkms_tree = path(rest);
        } else if is("--sourcetree") {
            self.source_tree = path(rest);
        } else if is("--installtree") {
            self.install_tree = path(rest);
        } else if is("--config") {
            self.kernel_config = path(rest);
        } else if is("--archive") {
            self.archive = path(rest);
        } else if is("--arch") || short == "-a" {
            self.arches.push(value(word, rest));
        } else if is("--kernelsourcedir") {
            self.kernel_source = path(rest);
        } else if is("--directive") {
            self.directives.push(value(word, rest));
        } else if short == "-j" {
            self.jobs = Some(value(word, rest));
        } else {
            return false;
        }
        true
    }

    fn word(&mut self, word: &str) -> Result<()> {
        let path = Path::new(word);
        if let Some(action) = Action::parse(word) {
            if self.action.is_some() {
                return Err(Stop::error(4, ["Cannot specify more than one action."]));
            }
            self.action = Some(action);
        } else if path.is_file() && word.ends_with("dkms.conf") {
            self.source = Some(format!("{}./", word.trim_end_matches("dkms.conf")));
        } else if path.is_dir() && path.join("dkms.conf").is_file() {
            self.source = Some(word.to_owned());
        } else if path.is_file() {
            self.archive = Some(path.to_path_buf());
        } else if self.module.is_empty() {
            self.module_version(word);
        } else {
            self.unknown.push(word.to_owned());
        }
        Ok(())
    }

    fn module_version(&mut self, word: &str) {
        match word.split_once('/') {
            Some((module, version)) => {
                self.module = module.to_owned();
                self.version = version.to_owned();
            }
            None => self.module = word.to_owned(),
        }
    }

    fn kernel(&mut self, word: &str) {
        match word.split_once('/') {
            Some((kernel, arch)) => {
                self.kernels.push(kernel.to_owned());
                self.arches.push(arch.to_owned());
            }
            None => self.kernels.push(word.to_owned()),
        }
    }

    /// The word that stands where an action should: without one, the first word that is nothing else was taken for a module.
    pub fn instead_of_action(&self) -> &str {
        match self.module.as_str() {
            "" => self.unknown.first().map_or("", String::as_str),
            module => module,
        }
    }

    fn sane(&self) -> Result<()> {
        if self.binaries_only && self.source_only {
            return Err(Stop::error(
                8,
                [
                    "You have specified both --binaries-only and --source-only.",
                    "You cannot do this.",
                ],
            ));
        }
        if self.kernels.len() != self.arches.len() && self.arches.len() > 1 {
            return Err(Stop::error(
                1,
                [
                    "If more than one arch is specified on the command line, then there",
                    "must be an equal number of kernel versions also specified (1:1 relationship).",
                ],
            ));
        }
        if self.all && !self.kernels.is_empty() {
            return Err(Stop::error(
                2,
                [
                    "You cannot specify a kernel version and also specify",
                    "--all on the command line.",
                ],
            ));
        }
        if self.all && !self.arches.is_empty() {
            return Err(Stop::error(
                3,
                [
                    "You cannot specify an arch and also specify",
                    "--all on the command line.",
                ],
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request> {
        Request::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn all_spellings_of_a_module_and_a_kernel_are_read() {
        for line in [
            "build -m a/1 -k 6.1/x86_64",
            "build --module=a -v 1 --kernelver 6.1 -a x86_64",
            "a/1 build -k=6.1 --arch=x86_64",
        ] {
            let r = parse(line).unwrap();
            assert_eq!(
                (
                    r.action,
                    &r.module[..],
                    &r.version[..],
                    &r.kernels[..],
                    &r.arches[..]
                ),
                (
                    Some(Action::Build),
                    "a",
                    "1",
                    &["6.1".to_owned()][..],
                    &["x86_64".to_owned()][..]
                ),
                "{line}"
            );
        }
    }

    #[test]
    fn contradictions_are_refused() {
        assert_eq!(parse("add build").unwrap_err().code(), 4);
        assert_eq!(parse("status --nonsense").unwrap_err().code(), 2);
        assert_eq!(parse("remove --all -k 6.1").unwrap_err().code(), 2);
        assert_eq!(parse("remove --all -a x").unwrap_err().code(), 3);
        assert_eq!(
            parse("mktarball --source-only --binaries-only")
                .unwrap_err()
                .code(),
            8
        );
    }
}
