//! `dkms.conf` and its overrides, read and judged.

use crate::evaluate::{self, Evaluated, Question};
use crate::kernels::config_is_set;
use crate::session::{Package, Session, Target};
use crate::{Result, Stop, distro, padded};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Every variable that is taken.
const NAMES: [&str; 33] = [
    "PACKAGE_NAME",
    "PACKAGE_VERSION",
    "POST_ADD",
    "POST_BUILD",
    "POST_INSTALL",
    "POST_REMOVE",
    "PRE_BUILD",
    "PRE_INSTALL",
    "BUILD_DEPENDS",
    "BUILD_EXCLUSIVE_ARCH",
    "BUILD_EXCLUSIVE_CONFIG",
    "BUILD_EXCLUSIVE_KERNEL",
    "BUILD_EXCLUSIVE_KERNEL_MIN",
    "BUILD_EXCLUSIVE_KERNEL_MAX",
    "MAKE",
    "MAKE_MATCH",
    "PATCH",
    "PATCH_MATCH",
    "BUILT_MODULE_NAME",
    "BUILT_MODULE_LOCATION",
    "DEST_MODULE_NAME",
    "DEST_MODULE_LOCATION",
    "STRIP",
    "AUTOINSTALL",
    "NO_WEAK_MODULES",
    "BUILD_DEPENDS_REBUILD",
    "OBSOLETE_BY",
    "CLEAN",
    "REMAKE_INITRD",
    "MODULES_CONF",
    "MODULES_CONF_OBSOLETES",
    "MODULES_CONF_ALIAS_TYPE",
    "MODULES_CONF_OBSOLETE_ONLY",
];

/// Those that do nothing any more, in the order in which dkms tells them.
const DEPRECATED: [&str; 7] = [
    "CLEAN",
    "REMAKE_INITRD",
    "MODULES_CONF",
    "MODULES_CONF_OBSOLETES",
    "MODULES_CONF_ALIAS_TYPE",
    "MODULES_CONF_OBSOLETE_ONLY",
    "OBSOLETE_BY",
];

/// One module of a package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Module {
    /// What the build calls it.
    pub built: String,
    /// Where it lies in the build directory, with a slash at the end unless empty.
    pub directory: String,
    /// What it is installed as.
    pub name: String,
    /// Where this distribution wants it under the kernel's module directory; begins with a slash.
    pub location: String,
    /// Where the package wanted it.
    pub declared: String,
    /// Debug information goes.
    pub strip: bool,
    /// It is not for this kernel.
    pub excluded: bool,
}

/// A package's configuration for one kernel.
#[derive(Debug, Clone, Default)]
pub struct Conf {
    /// `PACKAGE_NAME` and `PACKAGE_VERSION`.
    pub package: Option<Package>,
    /// Its modules.
    pub modules: Vec<Module>,
    /// The build command; only a strict reading asks the kernel for its compiler.
    pub make: String,
    /// Patches to apply, in order.
    pub patches: Vec<String>,
    /// Packages that must be installed before.
    pub depends: Vec<String>,
    /// Build again when one of them changes.
    pub depends_rebuild: bool,
    /// Built for every new kernel.
    pub autoinstall: bool,
    /// No weak links.
    pub no_weak: bool,
    /// Nothing of it is for this kernel.
    pub excluded: bool,
    /// Any module has a condition on the kernel.
    pub exclusive: bool,
    /// `OBSOLETE_BY`.
    pub obsolete_by: String,
    /// Scripts by name: `pre_build`, ….
    pub scripts: Vec<(&'static str, String)>,
    /// What is wrong with it, as lines.
    pub errors: Vec<String>,
    /// All values, as they came.
    pub values: Evaluated,
}

impl Conf {
    /// The script of a step; empty when there is none.
    pub fn script(&self, step: &str) -> &str {
        self.scripts
            .iter()
            .find(|(n, _)| *n == step)
            .map_or("", |(_, s)| s)
    }

    /// The modules that are for this kernel.
    pub fn wanted(&self) -> impl Iterator<Item = &Module> {
        self.modules.iter().filter(|m| !m.excluded)
    }
}

/// How strictly a configuration is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// For status, uninstall and the like: what was read before counts, and nothing is said of old directives.
    Lenient,
    /// For add, build and install: evaluated anew, duplicates are errors.
    Strict,
}

impl Session<'_> {
    /// The configuration of a package for a kernel; what is wrong is told and is an error.
    pub(crate) fn conf(
        &mut self,
        package: &Package,
        target: &Target,
        reading: Reading,
    ) -> Result<Conf> {
        let file = self.conf_file(package);
        self.conf_at(package, target, &file, reading)
    }

    /// The file that holds it.
    pub(crate) fn conf_file(&self, package: &Package) -> PathBuf {
        let usual = || self.tree.source_link(package).join("dkms.conf");
        self.request.conf.clone().unwrap_or_else(usual)
    }

    /// The same of a given file.
    pub(crate) fn conf_at(
        &mut self,
        package: &Package,
        target: &Target,
        file: &Path,
        reading: Reading,
    ) -> Result<Conf> {
        let known = (
            package.clone(),
            target.clone(),
            file.canonicalize().unwrap_or_default(),
        );
        let again = self.last.as_ref() == Some(&known);
        let conf = self.read_conf(package, target, file, reading)?;
        if !again {
            self.tell_of(&conf, reading);
        }
        if conf.errors.is_empty() {
            self.last = Some(known);
        }
        let mut errors = conf.errors.clone();
        if reading == Reading::Strict && errors.is_empty() {
            if conf.modules.is_empty() {
                self.talk
                    .err("dkms.conf: Warning! Zero modules specified.\n");
            }
            errors = duplicates(&conf);
        }
        if errors.is_empty() {
            return Ok(conf);
        }
        errors.iter().for_each(|e| self.talk.err(&format!("{e}\n")));
        Err(Stop::error(
            8,
            [
                "Bad conf file.".to_owned(),
                format!(
                    "File: {} does not represent a valid dkms.conf file.",
                    file.display()
                ),
            ],
        ))
    }

    fn tell_of(&self, conf: &Conf, reading: Reading) {
        self.talk.err(&conf.values.complaints);
        for directive in &self.request.directives {
            let (name, value) = directive.split_once('=').unwrap_or((directive, directive));
            self.say(&format!("DIRECTIVE: {name}=\"{value}\""));
        }
        if reading == Reading::Strict {
            conf.values
                .deprecated
                .iter()
                .filter_map(|(name, file)| deprecation(conf, name, file))
                .for_each(|line| self.talk.err(&line));
        }
    }

    /// Reads without saying anything.
    pub(crate) fn read_conf(
        &self,
        package: &Package,
        target: &Target,
        file: &Path,
        reading: Reading,
    ) -> Result<Conf> {
        if std::fs::File::open(file).is_err() {
            return Err(Stop::error(
                4,
                [
                    "Could not locate dkms.conf file.".to_owned(),
                    format!("File: {} does not exist.", file.display()),
                ],
            ));
        }
        let question = self.question(package, target, file);
        let key = evaluate::key(&question, &target.kernel, &target.arch);
        let cache = self.tree.cache();
        let known = match reading {
            Reading::Lenient => evaluate::remembered(&cache, &key),
            Reading::Strict => None,
        };
        let mut values = match known {
            Some(values) => values,
            None => {
                let values = evaluate::ask(&question, &target.kernel, &target.arch)?;
                evaluate::remember(&cache, &key, &values);
                values
            }
        };
        self.warn_of_no_sandbox(values.unprotected.as_deref());
        self.direct(&mut values);
        let view = self.view(package, target, &values, reading);
        Ok(judge(values, &view))
    }

    /// Told once in a session.
    pub(crate) fn warn_of_no_sandbox(&self, why: Option<&str>) {
        if let Some(why) = why.filter(|_| !self.warned_of_no_sandbox.swap(true, Ordering::Relaxed))
        {
            self.warn(&[&format!(
                "packages' own commands run without a sandbox here: {why}"
            )]);
        }
    }

    fn question<'q>(&self, package: &Package, target: &Target, file: &Path) -> Question<'q> {
        let text = |p: &Path| p.display().to_string();
        Question {
            names: &NAMES,
            deprecated: &DEPRECATED,
            files: self.conf_files(package, target, file),
            variables: vec![
                ("kernelver", target.kernel.clone()),
                ("arch", target.arch.clone()),
                ("module", package.name.clone()),
                ("module_version", package.version.clone()),
                ("dkms_tree", text(&self.tree.dkms)),
                ("source_tree", text(&self.tree.source)),
                ("install_tree", text(&self.install_tree)),
                ("kernel_source_dir", text(&self.kernel_dir(&target.kernel))),
                ("kernel_config", text(&self.kernel_config(&target.kernel))),
                ("parallel_jobs", self.jobs()),
            ],
            clear: true,
            kernel_patterns: &["MAKE_MATCH", "PATCH_MATCH", "BUILD_EXCLUSIVE_KERNEL"],
            arch_patterns: &["BUILD_EXCLUSIVE_ARCH"],
        }
    }

    fn conf_files(&self, package: &Package, target: &Target, file: &Path) -> Vec<PathBuf> {
        let (m, v, k, a) = (
            &package.name,
            &package.version,
            &target.kernel,
            &target.arch,
        );
        let overrides = [
            format!("{m}.conf"),
            format!("{m}-{v}.conf"),
            format!("{m}-{v}-{k}.conf"),
            format!("{m}-{v}-{k}-{a}.conf"),
            format!("{m}--{k}.conf"),
            format!("{m}--{k}-{a}.conf"),
        ];
        let etc = Path::new("/etc/dkms");
        std::iter::once(file.to_path_buf())
            .chain(overrides.iter().map(|o| etc.join(o)).filter(|p| p.exists()))
            .collect()
    }

    /// `--directive` comes last and counts most.
    fn direct(&self, values: &mut Evaluated) {
        for directive in &self.request.directives {
            let (name, value) = directive.split_once('=').unwrap_or((directive, directive));
            let array = values.arrays.entry(name.to_owned()).or_default();
            array.insert(0, value.to_owned());
        }
    }

    /// What the kernel says, as far as it is needed: only a build asks for its compiler.
    fn view(
        &self,
        package: &Package,
        target: &Target,
        values: &Evaluated,
        reading: Reading,
    ) -> View {
        let strict = reading == Reading::Strict;
        let asks = values
            .all("BUILD_EXCLUSIVE_CONFIG")
            .any(|(_, v)| !v.is_empty());
        let config = || std::fs::read_to_string(self.kernel_config(&target.kernel)).ok();
        let addon = self.addon.as_ref().map(|d| format!("/{d}"));
        let kernel_dir = self.kernel_dir(&target.kernel);
        View {
            kernel: target.kernel.clone(),
            config: (strict || asks).then(config).flatten(),
            clang: strict.then(|| clang_built(&kernel_dir)).flatten(),
            default_make: format!(
                "make -C {} M={}",
                kernel_dir.display(),
                self.build_seen(package).display()
            ),
            location: addon.or(distro::module_location(&self.family).map(str::to_owned)),
        }
    }

    /// The number for `make -j`; empty for no limit.
    pub(crate) fn jobs(&self) -> String {
        let set = Some(self.settings.first("parallel_jobs").to_owned()).filter(|s| !s.is_empty());
        let env = || {
            std::env::var("parallel_jobs")
                .ok()
                .filter(|s| !s.is_empty())
        };
        let all = || {
            std::thread::available_parallelism()
                .map_or(1, usize::from)
                .to_string()
        };
        let jobs = self
            .request
            .jobs
            .clone()
            .or(set)
            .or_else(env)
            .unwrap_or_else(all);
        if jobs == "0" { String::new() } else { jobs }
    }
}

/// Was the kernel's vmlinux made by clang? `None` when there is no vmlinux that tells.
fn clang_built(kernel_dir: &Path) -> Option<bool> {
    use object::{Object, ObjectSection};
    let file = std::fs::File::open(kernel_dir.join("vmlinux")).ok()?;
    let cache = object::ReadCache::new(file);
    let elf = object::File::parse(&cache).ok()?;
    let comment = elf.section_by_name(".comment")?.data().ok()?.to_vec();
    Some(String::from_utf8_lossy(&comment).contains("clang"))
}

fn deprecation(conf: &Conf, name: &str, file: &str) -> Option<String> {
    if name == "CLEAN"
        && matches!(
            conf.values.first(name),
            "true" | "/bin/true" | "/usr/bin/true"
        )
    {
        return None;
    }
    let instead = match name {
        "OBSOLETE_BY" => ": use BUILD_EXCLUSIVE_KERNEL_MAX instead",
        _ => "",
    };
    Some(format!("Deprecated feature: {name} ({file}){instead}\n"))
}

fn duplicates(conf: &Conf) -> Vec<String> {
    let mut errors = Vec::new();
    let built: Vec<String> = conf
        .modules
        .iter()
        .map(|m| format!("{}{}", m.directory, m.built))
        .collect();
    let dest: Vec<String> = conf.modules.iter().map(|m| m.name.clone()).collect();
    for (names, variable) in [(built, "BUILT_MODULE_NAME"), (dest, "DEST_MODULE_NAME")] {
        for (i, name) in names.iter().enumerate() {
            if names.iter().take(i).any(|n| n == name) {
                errors.push(format!(
                    "dkms.conf: Error! Duplicate module '{name}' in '{variable}[{i}]'."
                ));
            }
        }
    }
    errors
}

/// What a configuration is judged against.
#[derive(Debug, Default)]
struct View {
    kernel: String,
    config: Option<String>,
    clang: Option<bool>,
    default_make: String,
    location: Option<String>,
}

fn judge(values: Evaluated, view: &View) -> Conf {
    let mut errors = Vec::new();
    for name in ["PACKAGE_NAME", "PACKAGE_VERSION"] {
        if values.first(name).is_empty() {
            errors.push(format!(
                "dkms.conf: Error! No '{name}' directive specified."
            ));
        }
    }
    let mut modules = modules(&values, view, &mut errors);
    exclude(&values, view, &mut modules);
    let flags: Vec<bool> = ["AUTOINSTALL", "BUILD_DEPENDS_REBUILD", "NO_WEAK_MODULES"]
        .iter()
        .map(|name| yes(&values, name, &mut errors))
        .collect();
    let flag = |i: usize| flags.get(i) == Some(&true);
    let script = |step: &'static str| (step, values.first(&step.to_uppercase()).to_owned());
    let exclusive = CONDITIONS.iter().any(|c| {
        values
            .all(c)
            .any(|(i, v)| i < modules.len() && !v.is_empty())
    });
    let conditions = exclusive || !values.first("OBSOLETE_BY").is_empty();
    Conf {
        package: package(&values),
        make: make(&values, view),
        patches: patches(&values),
        depends: values
            .all("BUILD_DEPENDS")
            .map(|(_, d)| d.to_owned())
            .collect(),
        autoinstall: flag(0),
        depends_rebuild: flag(1),
        no_weak: flag(2),
        excluded: conditions && !modules.is_empty() && modules.iter().all(|m| m.excluded),
        exclusive,
        obsolete_by: values.first("OBSOLETE_BY").to_owned(),
        scripts: [
            "pre_build",
            "post_build",
            "pre_install",
            "post_install",
            "post_add",
            "post_remove",
        ]
        .map(script)
        .to_vec(),
        modules,
        errors,
        values,
    }
}

/// The directives that keep a module from a kernel.
const CONDITIONS: [&str; 5] = [
    "BUILD_EXCLUSIVE_KERNEL",
    "BUILD_EXCLUSIVE_KERNEL_MIN",
    "BUILD_EXCLUSIVE_KERNEL_MAX",
    "BUILD_EXCLUSIVE_ARCH",
    "BUILD_EXCLUSIVE_CONFIG",
];

fn package(values: &Evaluated) -> Option<Package> {
    let package = Package {
        name: values.first("PACKAGE_NAME").to_owned(),
        version: values.first("PACKAGE_VERSION").to_owned(),
    };
    (!package.name.is_empty() && !package.version.is_empty()).then_some(package)
}

fn yes(values: &Evaluated, name: &str, errors: &mut Vec<String>) -> bool {
    let value = values.first(name);
    match value.to_lowercase().as_str() {
        "" | "no" => false,
        "yes" => true,
        _ => {
            errors.push(format!(
                "dkms.conf: Error! Unsupported {name} value '{value}'"
            ));
            true
        }
    }
}

fn modules(values: &Evaluated, view: &View, errors: &mut Vec<String>) -> Vec<Module> {
    // The arrays may have holes: the highest index counts.
    let arrays = [
        "BUILT_MODULE_NAME",
        "BUILT_MODULE_LOCATION",
        "DEST_MODULE_NAME",
        "DEST_MODULE_LOCATION",
    ];
    let highest = arrays
        .iter()
        .flat_map(|a| values.all(a))
        .map(|(i, _)| i)
        .max();
    let count = highest.map_or(0, |i| i.saturating_add(1));
    if count > MOST {
        errors.push(format!(
            "dkms.conf: Error! More than {MOST} modules specified."
        ));
        return Vec::new();
    }
    let mut modules: Vec<Module> = Vec::new();
    for index in 0..count {
        let strip_first = modules.first().is_none_or(|m| m.strip);
        let module = module(values, view, index, count, strip_first);
        complain(&module, index, errors);
        modules.push(module);
    }
    modules
}

/// No package has as many; an index of a thousand million would take all memory.
const MOST: usize = 10_000;

fn module(
    values: &Evaluated,
    view: &View,
    index: usize,
    count: usize,
    strip_first: bool,
) -> Module {
    let at = |name: &str| values.at(name, index).to_owned();
    let mut built = at("BUILT_MODULE_NAME");
    if built.is_empty() && count == 1 {
        built = values.first("PACKAGE_NAME").to_owned();
    }
    let dest = at("DEST_MODULE_NAME");
    let mut directory = at("BUILT_MODULE_LOCATION");
    if !directory.is_empty() && !directory.ends_with('/') {
        directory.push('/');
    }
    let declared = at("DEST_MODULE_LOCATION");
    let strip = match at("STRIP").chars().next() {
        Some('n' | 'N') => false,
        None => strip_first,
        Some(_) => true,
    };
    Module {
        name: if dest.is_empty() { built.clone() } else { dest },
        location: view.location.clone().unwrap_or_else(|| declared.clone()),
        built,
        directory,
        declared,
        strip,
        excluded: false,
    }
}

fn complain(module: &Module, index: usize, errors: &mut Vec<String>) {
    let object = |name: &str| name.ends_with(".o") || name.ends_with(".ko");
    if module.built.is_empty() {
        errors.push(format!(
            "dkms.conf: Error! No 'BUILT_MODULE_NAME' directive specified for record #{index}."
        ));
    }
    for (name, variable) in [
        (&module.built, "BUILT_MODULE_NAME"),
        (&module.name, "DEST_MODULE_NAME"),
    ] {
        if object(name) {
            errors.push(format!(
                "dkms.conf: Error! '{variable}' directive ends in '.o' or '.ko' in record #{index}."
            ));
        }
    }
    if module.name.contains('/') {
        errors.push(format!(
            "dkms.conf: Error! 'DEST_MODULE_NAME' contains '/' in record #{index}."
        ));
    }
    if module.declared.is_empty() {
        errors.push(format!(
            "dkms.conf: Error! No 'DEST_MODULE_LOCATION' directive specified for record #{index}."
        ));
    } else if !["/kernel", "/updates", "/extra"]
        .iter()
        .any(|d| module.declared.starts_with(d))
    {
        errors.push(
            "dkms.conf: Error! Directive 'DEST_MODULE_LOCATION' does not begin with".to_owned(),
        );
        errors.push(format!(
            "'/kernel', '/updates', or '/extra' in record #{index}."
        ));
    }
}

/// Marks the modules that are not for this kernel. The first of each directive counts for all modules.
fn exclude(values: &Evaluated, view: &View, modules: &mut [Module]) {
    let count = modules.len();
    let own_maximum = values
        .all("BUILD_EXCLUSIVE_KERNEL_MAX")
        .any(|(i, v)| i < count && !v.is_empty());
    let maximum = match values.first("OBSOLETE_BY") {
        old if !old.is_empty() && !own_maximum => Some(old.to_owned()),
        _ => None,
    };
    for (index, module) in modules.iter_mut().enumerate() {
        let allowed = |i| allows(values, view, i);
        let obsolete = maximum
            .as_ref()
            .is_some_and(|m| padded(&view.kernel) > padded(m));
        module.excluded = obsolete || !allowed(0) || !allowed(index);
    }
}

fn allows(values: &Evaluated, view: &View, index: usize) -> bool {
    let pattern = |name: &str| values.at(name, index).is_empty() || values.matched(name, index);
    let minimum = values.at("BUILD_EXCLUSIVE_KERNEL_MIN", index);
    let maximum = values.at("BUILD_EXCLUSIVE_KERNEL_MAX", index);
    let kernel = padded(&view.kernel);
    pattern("BUILD_EXCLUSIVE_KERNEL")
        && pattern("BUILD_EXCLUSIVE_ARCH")
        && (minimum.is_empty() || kernel >= padded(minimum))
        && (maximum.is_empty() || kernel <= padded(maximum))
        && configured(
            values.at("BUILD_EXCLUSIVE_CONFIG", index),
            view.config.as_deref(),
        )
}

/// Every symbol is set, and every one after `!` is not. Without the kernel's configuration all is well.
fn configured(wanted: &str, config: Option<&str>) -> bool {
    let Some(config) = config else { return true };
    wanted
        .split_whitespace()
        .all(|word| match word.strip_prefix('!') {
            Some(symbol) => !config_is_set(config, symbol),
            None => config_is_set(config, word),
        })
}

fn make(values: &Evaluated, view: &View) -> String {
    let mut make = String::new();
    if values.first("MAKE_MATCH").is_empty() {
        make = values.first("MAKE").to_owned();
    }
    for (index, command) in values.all("MAKE") {
        if !command.is_empty() && values.matched("MAKE_MATCH", index) {
            make = command.to_owned();
        }
    }
    if make.is_empty() {
        make = view.default_make.clone();
    }
    let by_config = || {
        view.config
            .as_deref()
            .is_some_and(|c| config_is_set(c, "CONFIG_CC_IS_CLANG"))
    };
    if view.clang.unwrap_or_else(by_config) {
        make.push_str(" LLVM=1");
    }
    make
}

fn patches(values: &Evaluated) -> Vec<String> {
    values
        .all("PATCH")
        .filter(|(i, p)| {
            !p.is_empty()
                && (values.at("PATCH_MATCH", *i).is_empty() || values.matched("PATCH_MATCH", *i))
        })
        .map(|(_, p)| p.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, usize, &str)]) -> Evaluated {
        let mut e = Evaluated::default();
        for (name, index, value) in pairs {
            e.arrays
                .entry((*name).to_owned())
                .or_default()
                .insert(*index, (*value).to_owned());
        }
        e
    }

    fn view() -> View {
        View {
            kernel: "6.1.0-56-amd64".into(),
            config: Some("CONFIG_A=y\nCONFIG_B=m\n".into()),
            default_make: "make -C K".into(),
            ..View::default()
        }
    }

    fn package_and(pairs: &[(&str, usize, &str)]) -> Conf {
        let base = [
            ("PACKAGE_NAME", 0, "p"),
            ("PACKAGE_VERSION", 0, "1"),
            ("DEST_MODULE_LOCATION", 0, "/extra"),
        ];
        judge(values(&[&base[..], pairs].concat()), &view())
    }

    #[test]
    fn one_module_is_named_after_its_package() {
        let conf = package_and(&[]);
        assert_eq!(conf.errors, Vec::<String>::new());
        assert_eq!(
            (
                conf.modules[0].built.as_str(),
                conf.modules[0].name.as_str()
            ),
            ("p", "p")
        );
        assert_eq!(conf.make, "make -C K");
    }

    #[test]
    fn a_hole_in_the_arrays_is_told_with_its_number() {
        let conf = package_and(&[
            ("BUILT_MODULE_NAME", 2, "c"),
            ("DEST_MODULE_LOCATION", 2, "/oops"),
        ]);
        assert_eq!(conf.modules.len(), 3);
        assert!(
            conf.errors
                .iter()
                .any(|e| e.contains("No 'BUILT_MODULE_NAME'") && e.contains("#1"))
        );
        assert!(conf.errors.iter().any(|e| e.contains("in record #2")));
        assert_eq!(
            package_and(&[("BUILT_MODULE_NAME", usize::MAX, "x")])
                .modules
                .len(),
            0
        );
    }

    #[test]
    fn the_first_condition_counts_for_all_modules_and_the_others_for_one() {
        let two = [
            ("BUILT_MODULE_NAME", 0, "a"),
            ("BUILT_MODULE_NAME", 1, "b"),
            ("DEST_MODULE_LOCATION", 1, "/extra"),
        ];
        let with = |c: (&'static str, usize, &'static str)| {
            let conf = package_and(&[&two[..], &[c]].concat());
            (
                conf.excluded,
                conf.modules.iter().map(|m| m.excluded).collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            with(("BUILD_EXCLUSIVE_KERNEL_MIN", 0, "6.2")),
            (true, vec![true, true])
        );
        assert_eq!(
            with(("BUILD_EXCLUSIVE_KERNEL_MIN", 1, "6.2")),
            (false, vec![false, true])
        );
        assert_eq!(
            with(("BUILD_EXCLUSIVE_CONFIG", 1, "CONFIG_A !CONFIG_B")),
            (false, vec![false, true])
        );
        assert_eq!(
            with(("BUILD_EXCLUSIVE_KERNEL_MAX", 0, "6.2")),
            (false, vec![false, false])
        );
        assert_eq!(with(("OBSOLETE_BY", 0, "5.4")), (true, vec![true, true]));
    }

    #[test]
    fn strip_follows_the_first_module() {
        let conf = package_and(&[
            ("STRIP", 0, "no"),
            ("BUILT_MODULE_NAME", 1, "b"),
            ("BUILT_MODULE_NAME", 2, "c"),
            ("STRIP", 2, "yes"),
        ]);
        assert_eq!(
            conf.modules.iter().map(|m| m.strip).collect::<Vec<_>>(),
            [false, false, true]
        );
    }

    #[test]
    fn the_last_make_that_matches_wins() {
        let mut v = values(&[
            ("MAKE", 0, "make all"),
            ("MAKE", 1, "make one"),
            ("MAKE_MATCH", 1, "^6"),
            ("MAKE", 2, "make two"),
            ("MAKE_MATCH", 2, "^5"),
        ]);
        v.matches.insert("MAKE_MATCH".into(), vec![1]);
        assert_eq!(make(&v, &view()), "make one");
        v.matches.clear();
        assert_eq!(make(&v, &view()), "make all");
    }
}
