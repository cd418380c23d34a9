//! Many cells: which go into one machine, how many machines at once, and what happens to the others when one goes down.

use crate::boot::{self, End, Machine, Record};
use crate::guest::{self, Guest};
use crate::judge::{self, Outcome, Verdict};
use crate::modules::{self, ModuleTree, Own};
use crate::programs::{self, Busybox};
use crate::qemu::{Accelerator, Qemu};
use crate::tpm;
use kspan_kernel::{Cache, Error, Result};
use kspan_port::driver::Smoke;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A machine under KVM that has not said a word by then is tried again without.
const KVM_BOOT: Duration = Duration::from_secs(30);

/// A cell to try.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The driver.
    pub driver: String,
    /// The kernel's id.
    pub kernel: String,
    /// Its smoke test.
    pub smoke: Option<Smoke>,
    /// Its modules that the kernel's configuration has built in, for kernels whose archive does not list them.
    pub built_in: BTreeSet<String>,
    /// The directory and the modules of a port that builds, or why there is none.
    pub port: std::result::Result<(PathBuf, Vec<PathBuf>), String>,
}

/// What is booted.
#[derive(Debug, Clone)]
pub struct KernelFiles {
    /// The image.
    pub vmlinuz: PathBuf,
    /// Its modules.
    pub modules: ModuleTree,
}

/// How to try them.
#[derive(Debug, Clone)]
pub struct Options {
    /// Machines at once.
    pub jobs: usize,
    /// Drivers in one machine, at most.
    pub share: usize,
    /// How often each is unloaded and loaded again.
    pub cycles: usize,
    /// How long a guest may be silent.
    pub limit: Duration,
    /// How long it may take to come up.
    pub boot_limit: Duration,
    /// MiB of memory of each.
    pub memory: u64,
    /// Processors of each.
    pub cpus: usize,
    /// Named, or else found out.
    pub accelerator: Option<Accelerator>,
    /// Where consoles (`KERNEL/DRIVER.log`) and records (`KERNEL/DRIVER.json`) are kept.
    pub logs: PathBuf,
}

/// What progress is shown for.
pub enum Step<'a> {
    /// A cell is judged.
    Cell(&'a Outcome),
}

/// Kernels' files, by kernel's id; or why one cannot be booted.
pub type Kernels = BTreeMap<String, std::result::Result<Arc<KernelFiles>, String>>;

/// Tries all candidates; the outcomes in their order.
///
/// # Errors
/// When this machine lacks QEMU, busybox or the sandbox, or the disk refuses.
pub fn run(
    cache: &Cache,
    kernels: &Kernels,
    candidates: &[Candidate],
    options: &Options,
    step: &(dyn Fn(Step<'_>) + Sync),
) -> Result<Vec<Outcome>> {
    let qemu = Qemu::find()?;
    let accelerator = options.accelerator.unwrap_or_else(|| qemu.accelerator());
    let house = House {
        cache,
        busybox: programs::busybox()?,
        kvm: AtomicBool::new(accelerator == Accelerator::Kvm),
        qemu,
        options,
        step,
    };
    let mut outcomes: Vec<Option<Outcome>> = vec![None; candidates.len()];
    let mut ready: Vec<Ready> = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        match house.prepare(candidate, kernels)? {
            Ok((guest, files)) => ready.push(Ready {
                index,
                blank: Outcome::untried(
                    &candidate.driver,
                    &candidate.kernel,
                    Verdict::Fails,
                    String::new(),
                ),
                guest,
                files,
            }),
            Err(outcome) => {
                let outcome = house.keep(outcome, None)?;
                if let Some(place) = outcomes.get_mut(index) {
                    *place = Some(outcome);
                }
            }
        }
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.jobs.max(1))
        .build()
        .map_err(|e| Error::Environment(format!("cannot start threads: {e}")))?;
    let crews = crews(&ready, options.share);
    let judged: Vec<Vec<(usize, Outcome)>> = pool.install(|| {
        crews
            .par_iter()
            .with_max_len(1)
            .map(|crew| house.try_crew(crew))
            .collect::<Result<_>>()
    })?;
    for (index, outcome) in judged.into_iter().flatten() {
        if let Some(place) = outcomes.get_mut(index) {
            *place = Some(outcome);
        }
    }
    Ok(outcomes.into_iter().flatten().collect())
}

/// A cell that can be booted.
struct Ready {
    index: usize,
    blank: Outcome,
    guest: Guest,
    files: Arc<KernelFiles>,
}

/// What all machines share.
struct House<'a> {
    cache: &'a Cache,
    busybox: Busybox,
    qemu: Qemu,
    /// Whether KVM is still believed to work.
    kvm: AtomicBool,
    options: &'a Options,
    step: &'a (dyn Fn(Step<'_>) + Sync),
}

type Prepared = std::result::Result<(Guest, Arc<KernelFiles>), Outcome>;

impl House<'_> {
    /// Finds out what a cell needs; an outcome at once where it cannot be tried.
    fn prepare(&self, candidate: &Candidate, kernels: &Kernels) -> Result<Prepared> {
        let end = |verdict, why: String| {
            Ok(Err(Outcome::untried(
                &candidate.driver,
                &candidate.kernel,
                verdict,
                why,
            )))
        };
        let (dir, files) = match &candidate.port {
            Ok(port) => port,
            Err(why) => return end(Verdict::NoPort, why.clone()),
        };
        let kernel = match kernels.get(&candidate.kernel) {
            Some(Ok(kernel)) => kernel,
            Some(Err(why)) => return end(Verdict::Skipped, why.clone()),
            None => {
                return end(
                    Verdict::Skipped,
                    "no image of this kernel is known".to_owned(),
                );
            }
        };
        let own = modules::own_modules(dir, files)?;
        let is_built_in =
            |o: &&Own| kernel.modules.is_built_in(&o.name) || candidate.built_in.contains(&o.name);
        if let Some(built_in) = own.iter().find(is_built_in) {
            let why = format!(
                "this kernel has {} built in: a module cannot take its place",
                built_in.name
            );
            return end(Verdict::Skipped, why);
        }
        let programs = match self.outfit(candidate.smoke.as_ref())? {
            Ok(programs) => programs,
            Err(why) => return end(Verdict::Skipped, why),
        };
        let first = first_modules(candidate.smoke.as_ref(), &own, &kernel.modules)?;
        if let Err(why) = kernel.modules.order(&own_only(&own, &first), &first)? {
            return end(
                Verdict::Skipped,
                format!("{why}, which the smoke test wants"),
            );
        }
        let order = match kernel.modules.order(&own, &first)? {
            Ok(order) => order,
            Err(why) => return end(Verdict::Fails, why),
        };
        let guest = Guest {
            own,
            order,
            smoke: candidate.smoke.clone(),
            programs,
            cycles: self.options.cycles,
        };
        Ok(Ok((guest, kernel.clone())))
    }

    /// The programs of a smoke test; or what this machine lacks for it.
    fn outfit(&self, smoke: Option<&Smoke>) -> Result<std::result::Result<Vec<PathBuf>, String>> {
        let Some(smoke) = smoke else {
            return Ok(Ok(Vec::new()));
        };
        if let Some(lack) = self.qemu.lacks(&smoke.qemu) {
            return Ok(Err(lack));
        }
        if let Some(lack) = smoke.tpm.then(tpm::lacking).flatten() {
            return Ok(Err(lack));
        }
        let mut files = Vec::new();
        for name in &smoke.programs {
            match programs::with_libraries(name)? {
                Some(found) => files.extend(found),
                None => {
                    return Ok(Err(format!(
                        "this machine has no program {name} for the guest"
                    )));
                }
            }
        }
        Ok(Ok(files))
    }

    /// Tries some drivers in one machine, and those that it did not come to in another.
    fn try_crew(&self, crew: &[&Ready]) -> Result<Vec<(usize, Outcome)>> {
        let mut left: Vec<&Ready> = crew.to_vec();
        let mut done = Vec::new();
        while !left.is_empty() {
            let kvm = self.kvm.load(Ordering::Relaxed);
            let scratch = self.cache.work_dir("vm")?;
            let record = self.boot(&left, scratch.path(), kvm)?;
            if kvm && record.boot_seconds().is_none() {
                self.kvm.store(false, Ordering::Relaxed);
                continue;
            }
            let before = left.len();
            let mut next = Vec::new();
            for (number, ready) in left.into_iter().enumerate() {
                let blank = Outcome {
                    accelerator: Some(accelerator(kvm)),
                    ..ready.blank.clone()
                };
                match judge::judge(&record, number, &ready.guest, &blank) {
                    Some(outcome) => done.push((ready.index, self.keep(outcome, Some(&record))?)),
                    None => next.push(ready),
                }
            }
            if next.len() == before {
                // One driver's devices may keep QEMU from starting: then each of them is tried by itself.
                for ready in next.drain(..) {
                    if before > 1 {
                        done.extend(self.try_crew(&[ready])?);
                    } else {
                        let outcome = self.keep(never_up(ready, &record), Some(&record))?;
                        done.push((ready.index, outcome));
                    }
                }
            }
            left = next;
        }
        Ok(done)
    }

    fn boot(&self, crew: &[&Ready], scratch: &Path, kvm: bool) -> Result<Record> {
        let guests: Vec<&Guest> = crew.iter().map(|r| &r.guest).collect();
        let Some(first) = crew.first() else {
            return Err(Error::Input("no driver to boot a machine for".to_owned()));
        };
        let initramfs = scratch.join("initramfs");
        guest::write(&initramfs, &self.busybox, &first.files.modules, &guests)?;
        let slowest = guests
            .iter()
            .filter_map(|g| Some(g.smoke.as_ref()?.seconds))
            .max()
            .unwrap_or(0);
        boot::run(&Machine {
            qemu: &self.qemu,
            accelerator: accelerator(kvm),
            vmlinuz: &first.files.vmlinuz,
            initramfs: &initramfs,
            scratch,
            guests: &guests,
            boot_limit: if kvm {
                KVM_BOOT
            } else {
                self.options.boot_limit
            },
            limit: self.options.limit.max(Duration::from_secs(slowest + 30)),
            memory: self.options.memory,
            cpus: self.options.cpus,
        })
    }

    /// Keeps the console, if there is one, and the record beside it (a run that is ended early leaves what it found), and tells.
    fn keep(&self, mut outcome: Outcome, record: Option<&Record>) -> Result<Outcome> {
        let kernel = outcome.kernel.rsplit('/').next().unwrap_or(&outcome.kernel);
        let place = self.options.logs.join(kernel);
        let full = |e: kspan_port::Error| Error::Environment(e.to_string());
        if let Some(record) = record {
            let console = place.join(format!("{}.log", outcome.driver));
            kspan_port::store::write_bytes(&console, record.console.as_bytes()).map_err(full)?;
            outcome.console = Some(console);
        }
        let json = place.join(format!("{}.json", outcome.driver));
        kspan_port::store::write(&json, &outcome).map_err(full)?;
        (self.step)(Step::Cell(&outcome));
        Ok(outcome)
    }
}

fn accelerator(kvm: bool) -> Accelerator {
    if kvm {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    }
}

/// The verdict on a machine that never came to any driver.
fn never_up(ready: &Ready, record: &Record) -> Outcome {
    let said = record.complaints().next().unwrap_or_default();
    let (verdict, why) = match &record.end {
        End::Silent(limit) => (
            Verdict::Hangs,
            format!("the kernel did not come up within {} s", limit.as_secs()),
        ),
        End::Exited | End::Done if said.is_empty() => (
            Verdict::Crashes,
            "the kernel went down before any driver".to_owned(),
        ),
        End::Exited | End::Done => (Verdict::Fails, format!("QEMU: {said}")),
    };
    Outcome {
        verdict,
        why,
        seconds: record.seconds,
        ..ready.blank.clone()
    }
}

/// The kernel's modules that a smoke test wants first; those marked optional only where they are.
fn first_modules(smoke: Option<&Smoke>, own: &[Own], tree: &ModuleTree) -> Result<Vec<String>> {
    let mut first = Vec::new();
    for name in smoke.map(|s| s.modules.as_slice()).unwrap_or_default() {
        let plain = modules::module_name(name.trim_end_matches('?'));
        let optional = name.ends_with('?');
        let is_own = own.iter().any(|o| o.name == plain);
        if !optional || is_own || tree.read(&plain)?.is_some() {
            first.push(plain);
        }
    }
    Ok(first)
}

/// The driver's own modules among those that a smoke test names.
fn own_only(own: &[Own], first: &[String]) -> Vec<Own> {
    own.iter()
        .filter(|o| first.contains(&o.name))
        .cloned()
        .collect()
}

/// Which cells share a machine: of one kernel, none that wants to be alone, no two with a module of the same name.
fn crews(ready: &[Ready], share: usize) -> Vec<Vec<&Ready>> {
    let mut crews: Vec<Vec<&Ready>> = Vec::new();
    for cell in ready {
        let place = crews.iter_mut().find(|crew| {
            crew.len() < share.max(1) && crew.iter().all(|other| compatible(cell, other))
        });
        match place {
            Some(crew) => crew.push(cell),
            None => crews.push(vec![cell]),
        }
    }
    crews
}

fn compatible(one: &Ready, other: &Ready) -> bool {
    let alone = |r: &Ready| {
        let smoke = r.guest.smoke.as_ref();
        smoke.is_some_and(|s| {
            s.alone || s.tpm || s.machine.is_some() || s.ends != kspan_port::driver::SmokeEnd::Pass
        })
    };
    let uses = |r: &Ready, name: &String| {
        r.guest.order.before.contains(name) || r.guest.order.cycled.contains(name)
    };
    let clash = |a: &Ready, b: &Ready| a.guest.own.iter().any(|o| uses(b, &o.name));
    one.blank.kernel == other.blank.kernel
        && !alone(one)
        && !alone(other)
        && !clash(one, other)
        && !clash(other, one)
}
