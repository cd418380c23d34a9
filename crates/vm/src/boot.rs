//! One machine, from power on to its end: starts QEMU in a sandbox, keeps the time, writes down what the guest says.

use crate::guest::{self, Guest};
use crate::protocol::{Line, Reader};
use crate::qemu::{Accelerator, Qemu, find_program};
use crate::qmp::{self, Qmp};
use crate::tpm::{self, Tpm};
use kspan_kernel::{Error, Result};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// A scratch disk's size.
const DISK: u64 = 64 << 20;
/// How often QEMU's events are looked at while the guest is silent.
const TICK: Duration = Duration::from_millis(200);
/// A powered-off machine's QEMU ends within this.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// What a machine is made of.
pub struct Machine<'a> {
    /// The QEMU.
    pub qemu: &'a Qemu,
    /// How it runs.
    pub accelerator: Accelerator,
    /// The kernel.
    pub vmlinuz: &'a Path,
    /// The root file system.
    pub initramfs: &'a Path,
    /// Where its files lie: console, disks, sockets.
    pub scratch: &'a Path,
    /// The drivers in it.
    pub guests: &'a [&'a Guest],
    /// How long it may take to come up.
    pub boot_limit: Duration,
    /// How long it may be silent afterwards.
    pub limit: Duration,
    /// MiB of memory.
    pub memory: u64,
    /// Processors.
    pub cpus: usize,
}

impl Machine<'_> {
    /// Whether a driver in it wants a TPM.
    fn wants_tpm(&self) -> bool {
        self.guests
            .iter()
            .any(|g| g.smoke.as_ref().is_some_and(|s| s.tpm))
    }
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It said that all is done.
    Done,
    /// QEMU ended before that.
    Exited,
    /// It was silent for too long, and was ended.
    Silent(Duration),
}

/// What was seen of a machine.
pub struct Record {
    /// Its lines, with the seconds since power on.
    pub lines: Vec<(f64, Line)>,
    /// The kernel's log, in full.
    pub console: String,
    /// QEMU's events.
    pub events: Vec<String>,
    /// What QEMU said on stderr.
    pub complaint: String,
    /// How it ended.
    pub end: End,
    /// Lines of the protocol that were lost.
    pub lost: u64,
    /// Seconds it ran.
    pub seconds: f64,
}

impl Record {
    /// Seconds from power on to the guest's first word; `None` when it never came.
    pub fn boot_seconds(&self) -> Option<f64> {
        let hello = |(at, line): &(f64, Line)| matches!(line, Line::Hello { .. }).then_some(*at);
        self.lines.iter().find_map(hello)
    }

    /// What QEMU said beside warnings.
    pub fn complaints(&self) -> impl Iterator<Item = &str> {
        let words = self.complaint.lines().map(str::trim);
        words.filter(|l| !l.is_empty() && !l.contains("warning:"))
    }
}

/// Runs a machine to its end.
///
/// # Errors
/// When QEMU or the sandbox cannot be started.
pub fn run(machine: &Machine<'_>) -> Result<Record> {
    make_disks(machine)?;
    let tpm = match machine.wants_tpm() {
        true => Some(Tpm::start(machine.scratch)?),
        false => None,
    };
    let start = Instant::now();
    let mut child = command(machine)?
        .spawn()
        .map_err(Error::io(machine.qemu.program()))?;
    let watched = watch(machine, &mut child, start);
    // However that went: no QEMU is left behind.
    let _ = child.kill();
    let _ = child.wait();
    drop(tpm);
    let (lines, end, events, lost) = watched;
    let mut complaint = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut complaint);
    }
    let console = std::fs::read(machine.scratch.join("console")).unwrap_or_default();
    Ok(Record {
        lines,
        console: String::from_utf8_lossy(&console).into_owned(),
        events,
        complaint,
        end,
        lost,
        seconds: start.elapsed().as_secs_f64(),
    })
}

type Watched = (Vec<(f64, Line)>, End, Vec<String>, u64);

fn watch(machine: &Machine<'_>, child: &mut Child, start: Instant) -> Watched {
    let (tell, told) = mpsc::channel();
    if let Some(out) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut reader = BufReader::new(out);
            let mut bytes = Vec::new();
            while matches!(reader.read_until(b'\n', &mut bytes), Ok(n) if n > 0) {
                if tell
                    .send(String::from_utf8_lossy(&bytes).into_owned())
                    .is_err()
                {
                    break;
                }
                bytes.clear();
            }
        });
    }
    let mut qmp = Qmp::connect(&machine.scratch.join("qmp"));
    let mut reader = Reader::default();
    let mut lines = Vec::new();
    let mut limit = machine.boot_limit;
    let mut deadline = start + limit;
    let end = loop {
        if let Some(qmp) = &mut qmp {
            qmp.poll();
        }
        match told.recv_timeout(TICK) {
            Ok(text) => {
                let line = reader.line(&text);
                limit = machine.limit;
                deadline = Instant::now() + limit;
                if let Line::Ask(question) = &line {
                    reply(child, qmp.as_mut(), question, machine.scratch);
                }
                let bye = line == Line::Bye;
                lines.push((start.elapsed().as_secs_f64(), line));
                if bye {
                    wait_for_end(child);
                    break End::Done;
                }
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                break End::Silent(limit);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break End::Exited,
        }
    };
    let mut events = Vec::new();
    if let Some(mut qmp) = qmp {
        std::thread::sleep(Duration::from_millis(20));
        qmp.poll();
        events = qmp.events;
    }
    (lines, end, events, reader.lost)
}

fn reply(child: &mut Child, qmp: Option<&mut Qmp>, question: &[String], scratch: &Path) {
    let answer = qmp.map_or_else(|| "no".to_owned(), |q| qmp::answer(q, question, scratch));
    if let Some(stdin) = &mut child.stdin {
        // A guest that is gone cannot be told; its end is noticed elsewhere.
        let _ = writeln!(stdin, "{answer}").and_then(|()| stdin.flush());
    }
}

fn wait_for_end(child: &mut Child) {
    let until = Instant::now() + LAST_BREATH;
    while Instant::now() < until && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn make_disks(machine: &Machine<'_>) -> Result<()> {
    let smokes = machine.guests.iter().map(|g| g.smoke.as_ref());
    for (number, smoke) in smokes.enumerate() {
        for disk in smoke.map(|s| s.disks.as_slice()).unwrap_or_default() {
            let path = machine.scratch.join(guest::named(disk, number, ""));
            let file = std::fs::File::create(&path).map_err(Error::io(&path))?;
            file.set_len(DISK).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// A sandbox to start a program in: no network, nothing writable but the machine's own directory, and gone when kspan is gone.
///
/// # Errors
/// When there is no bubblewrap or no such directory.
pub fn sandbox(scratch: &Path) -> Result<Command> {
    let bwrap = find_program("bwrap").ok_or_else(|| {
        Error::Environment("bubblewrap (bwrap) is needed to run machines apart from the system: `apt-get install bubblewrap`".to_owned())
    })?;
    let scratch = scratch.canonicalize().map_err(Error::io(scratch))?;
    let mut command = Command::new(bwrap);
    command.args([
        "--die-with-parent",
        "--unshare-net",
        "--unshare-pid",
        "--unshare-ipc",
    ]);
    command.args(["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]);
    command.args(["--dev-bind-try", "/dev/kvm", "/dev/kvm"]);
    command
        .arg("--bind")
        .arg(&scratch)
        .arg(&scratch)
        .arg("--chdir")
        .arg(&scratch);
    command.arg("--");
    Ok(command)
}

/// QEMU with all that the machine has.
fn command(machine: &Machine<'_>) -> Result<Command> {
    let scratch = machine
        .scratch
        .canonicalize()
        .map_err(Error::io(machine.scratch))?;
    let mut command = sandbox(&scratch)?;
    command.arg(machine.qemu.program());
    hardware(&mut command, machine);
    for (number, guest) in machine.guests.iter().enumerate() {
        let Some(smoke) = &guest.smoke else { continue };
        if smoke.tpm {
            let own = |a: &str| guest::named(a, number, "");
            command.args(tpm::arguments().map(own));
        }
        for argument in &smoke.qemu {
            let argument = guest::named(argument, number, &scratch.to_string_lossy());
            let (option, value) = argument.trim().split_once(' ').unwrap_or((&argument, ""));
            command.arg(option).arg(value.trim());
        }
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

fn hardware(command: &mut Command, machine: &Machine<'_>) {
    let kind = machine
        .guests
        .iter()
        .find_map(|g| g.smoke.as_ref()?.machine.clone());
    let cpu = match machine.accelerator {
        Accelerator::Kvm => "host",
        Accelerator::Tcg => "Nehalem",
    };
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-vga",
        "none",
        "-no-reboot",
    ]);
    command.args(["-accel", machine.accelerator.word(), "-cpu", cpu]);
    command
        .arg("-machine")
        .arg(kind.as_deref().unwrap_or("q35"));
    command.arg("-m").arg(format!("{}M", machine.memory));
    command.arg("-smp").arg(machine.cpus.max(1).to_string());
    command
        .arg("-kernel")
        .arg(machine.vmlinuz)
        .arg("-initrd")
        .arg(machine.initramfs);
    command.args(["-append", APPEND]);
    command.args([
        "-chardev",
        "file,id=console,path=console",
        "-serial",
        "chardev:console",
    ]);
    command.args([
        "-chardev",
        "stdio,id=line,signal=off",
        "-serial",
        "chardev:line",
    ]);
    command.args(["-qmp", "unix:qmp,server=on,wait=off"]);
}

/// The whole log on the console without delay; the machine ends when its kernel panics; interfaces keep the kernel's names; memory
/// that was freed or overrun is found out, and each object's allocator is kept (the older and the newer name of that option).
const APPEND: &str = "console=ttyS0 ignore_loglevel printk.devkmsg=on panic=-1 net.ifnames=0 nvme_core.multipath=0 \
                      random.trust_cpu=on no_timer_check tsc=unstable slub_debug=FZPU slab_debug=FZPU";
