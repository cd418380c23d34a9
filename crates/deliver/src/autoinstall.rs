//! `autoinstall`: every package that wants it, for one kernel, dependencies first.

use crate::ahead::Ahead;
use crate::conf::Reading;
use crate::session::{Package, Session, Target};
use crate::tree::State;
use crate::{Result, Stop, padded};
use std::collections::BTreeMap;
use std::path::Path;

/// A package that is to be installed, and what it still waits for.
struct Job {
    package: Package,
    depends: Vec<String>,
}

/// What became of the packages.
#[derive(Default)]
struct Outcome {
    installed: Vec<String>,
    skipped: Vec<String>,
    failed: Vec<String>,
    /// A newer version failed, and an older one is installed instead.
    fallen_back: Vec<String>,
}

impl Session<'_> {
    /// Installs the latest version of every package that is not installed for the kernel.
    pub(crate) fn autoinstall(&mut self) -> Result<()> {
        if Path::new("/etc/dkms/no-autoinstall").is_file() {
            self.say("Automatic installation of modules has been disabled.");
            return Ok(());
        }
        let target = self.first_target();
        let known = self.latest_of_all();
        let mut outcome = Outcome::default();
        let mut jobs = self.jobs_for(&known, &target, &mut outcome)?;
        if jobs.is_empty() {
            return Ok(());
        }
        while self.round(&mut jobs, &target, &mut outcome)? {}
        let unresolved = self.report(&known, &jobs, &target, &outcome);
        if outcome.failed.is_empty() && !unresolved {
            return Ok(());
        }
        Err(Stop::error(
            11,
            [
                "One or more modules failed to install during autoinstall.",
                "Refer to previous errors for more information.",
            ],
        ))
    }

    /// The latest version of each package, in the order in which packages are first met.
    pub(crate) fn latest_of_all(&self) -> Vec<Package> {
        let mut known: Vec<Package> = Vec::new();
        for entry in self.tree.entries("", "", "", "") {
            let package = entry.package;
            if entry.state == State::Broken {
                self.tell(&Stop::error(
                    4,
                    [
                        format!(
                            "{package} is broken! Missing the source directory or the symbolic link pointing to it."
                        ),
                        "Manual intervention is required!".to_owned(),
                    ],
                ));
                continue;
            }
            match known.iter_mut().find(|k| k.name == package.name) {
                None => known.push(package),
                Some(k) if padded(&package.version) > padded(&k.version) => *k = package,
                Some(_) => {}
            }
        }
        known
    }

    fn jobs_for(
        &mut self,
        known: &[Package],
        target: &Target,
        outcome: &mut Outcome,
    ) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        for package in known {
            if self.tree.is_active(package, target) {
                outcome.installed.push(package.name.clone());
                continue;
            }
            let file = self.tree.source_link(package).join("dkms.conf");
            let conf = self.conf_at(package, target, &file, Reading::Lenient)?;
            if conf.autoinstall {
                let words = conf.depends.iter().flat_map(|d| d.split_whitespace());
                jobs.push(Job {
                    package: package.clone(),
                    depends: words.map(str::to_owned).collect(),
                });
            }
        }
        Ok(jobs)
    }

    /// Installs all that wait for nothing; true if that went well for any.
    fn round(
        &mut self,
        jobs: &mut Vec<Job>,
        target: &Target,
        outcome: &mut Outcome,
    ) -> Result<bool> {
        for job in jobs.iter_mut() {
            job.depends
                .retain(|d| !outcome.installed.contains(d) && !outcome.skipped.contains(d));
        }
        let mut progress = false;
        let (ready, waiting): (Vec<Job>, Vec<Job>) = std::mem::take(jobs)
            .into_iter()
            .partition(|j| j.depends.is_empty());
        let mut ahead = None;
        let mut left = ready.into_iter();
        while let Some(Job { package, .. }) = left.next() {
            if !self.tree.is_built(&package, target) {
                self.prepare(target)?;
                // From the first one that is to be built, all of this round: they do not wait for one another.
                ahead.get_or_insert_with(|| self.begin(&package, left.as_slice(), target));
            }
            self.say(&format!("Autoinstall of module {package} for {target}"));
            let installed = self.apart(|s| {
                if let Some(Some(ahead)) = &ahead {
                    ahead.finish(&package, s)?;
                }
                s.install_unless_installed(&package, target)
            });
            match installed {
                Ok(()) => {
                    outcome.installed.push(package.name);
                    progress = true;
                }
                Err(stop) => {
                    self.tell(&stop);
                    if stop.code() == 77 {
                        outcome.skipped.push(package.name);
                        progress = true;
                    } else if let Some(older) = self.fall_back(&package, target) {
                        outcome.fallen_back.push(format!("{package} ({older})"));
                        outcome.installed.push(package.name);
                        progress = true;
                    } else {
                        outcome
                            .failed
                            .push(format!("{}({})", package.name, stop.code()));
                    }
                }
            }
            self.say("");
        }
        *jobs = waiting;
        Ok(progress)
    }

    /// Begins the builds of a package and of those that come after it.
    fn begin(&self, first: &Package, others: &[Job], target: &Target) -> Option<Ahead> {
        let others = others.iter().map(|j| &j.package);
        let wanted = std::iter::once(first).chain(others);
        let wanted = wanted.filter(|p| !self.tree.is_built(p, target)).cloned();
        self.build_ahead(wanted.collect(), target)
    }

    /// After the latest version failed: the newest of the older ones that can be installed.
    fn fall_back(&mut self, failed: &Package, target: &Target) -> Option<String> {
        let mut older: Vec<Package> = self
            .tree
            .packages(&failed.name, "")
            .into_iter()
            .filter(|p| self.tree.is_added(p) && padded(&p.version) < padded(&failed.version))
            .collect();
        older.sort_by_key(|p| std::cmp::Reverse(padded(&p.version)));
        for package in older {
            self.talk.err(&format!(
                "{failed} cannot be installed for {target}; trying {package}.\n"
            ));
            match self.apart(|s| s.install_unless_installed(&package, target)) {
                Ok(()) => return Some(package.version),
                Err(stop) => self.tell(&stop),
            }
        }
        None
    }

    /// Says what became of everything; true if a dependency that is here could not be met.
    fn report(&self, known: &[Package], left: &[Job], target: &Target, outcome: &Outcome) -> bool {
        let on = format!("Autoinstall on {}", target.kernel);
        let groups = [
            (&outcome.installed, "succeeded for"),
            (&outcome.skipped, "was skipped for"),
            (&outcome.failed, "failed for"),
        ];
        for (names, words) in groups.iter().filter(|(names, _)| !names.is_empty()) {
            self.say(&format!("{on} {words} module(s) {}.", names.join(" ")));
        }
        for words in &outcome.fallen_back {
            self.say(&format!("{on} fell back to an older version of {words}."));
        }
        let is_known = |d: &String| known.iter().any(|k| k.name == *d);
        let mut deferred: BTreeMap<usize, String> = BTreeMap::new();
        let mut unresolved = false;
        for (i, job) in left.iter().enumerate() {
            let (here, elsewhere): (Vec<String>, Vec<String>) =
                job.depends.iter().cloned().partition(is_known);
            if here.is_empty() {
                let list = elsewhere.join(" ");
                self.say(&format!(
                    "{} autoinstall deferred: BUILD_DEPENDS not registered with DKMS: {list}.",
                    job.package
                ));
                deferred.insert(i, job.package.to_string());
            } else {
                self.say(&format!(
                    "{} autoinstall failed due to missing dependencies: {}.",
                    job.package,
                    here.join(" ")
                ));
                unresolved = true;
            }
        }
        if !deferred.is_empty() {
            let list: Vec<String> = deferred.into_values().collect();
            self.say(&format!(
                "{on} deferred module(s) {} due to BUILD_DEPENDS not yet registered with DKMS.",
                list.join(" ")
            ));
            self.say(
                "These may be provided externally or by a package not yet configured; autoinstall will retry on the next trigger.",
            );
        }
        unresolved
    }
}
