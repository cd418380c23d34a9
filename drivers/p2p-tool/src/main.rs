//! Shows that the two reference drivers of `drivers/p2p` move bytes between two devices, and what they do when something is
//! wrong. Ends with 0 when all is well; its last line says which way the bytes went and how fast, or what failed.

mod device;

use anyhow::{Context, Result, bail, ensure};
use device::{Direction, ENGINE_SIZE, Engine, Memory, Path};
use rustix::io::Errno;
use std::fmt::Debug;
use std::fs::File;
use std::process::ExitCode;
use std::time::Duration;

const PAGE: u64 = 4096;
/// Users at once.
const MANY: u32 = 8;

fn main() -> ExitCode {
    let done = moves_bytes().and_then(|said| {
        refuses_nonsense()?;
        serves_many()?;
        exporter_goes()?;
        importer_goes()?;
        Ok(said)
    });
    match done {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Bytes that tell where they should be.
fn pattern(seed: u32, length: u32) -> Vec<u8> {
    (0..length)
        .map(|i| (i.wrapping_mul(131).wrapping_add(seed.wrapping_mul(17)) >> 3) as u8)
        .collect()
}

/// There and back, as much as the engine holds and odd pieces over a page's edge; the bytes around stay.
fn moves_bytes() -> Result<String> {
    let memory = Memory::open().context("/dev/p2p_mem")?;
    let engine = Engine::open().context("/dev/p2p_dma")?;
    let buffer = memory.export(0, 0, 0).context("export")?;
    let (path, size) = engine.attach(&buffer).context("attach")?;
    ensure!(size >= 16 * PAGE, "only {size} bytes are exported");
    let mut spent = 0;
    for (seed, from, to, length) in [
        (1, PAGE, 4 * PAGE, ENGINE_SIZE),
        (2, 2 * PAGE - 300, 6 * PAGE - 77, 777),
    ] {
        let wanted = pattern(seed, length);
        let around = vec![0xee; length as usize + 32];
        memory.write(from, &wanted)?;
        memory.write(to - 16, &around)?;
        let there = engine
            .transfer(Direction::ToEngine, from, length, 0)
            .context("to the engine")?;
        let back = engine
            .transfer(Direction::FromEngine, to, length, 0)
            .context("from the engine")?;
        ensure!(
            (there.path, back.path) == (path, path),
            "the way changed: {there:?}, {back:?}"
        );
        ensure!(
            memory.read(to, wanted.len())? == wanted,
            "other bytes came back ({length} of them)"
        );
        let edges = [
            memory.read(to - 16, 16)?,
            memory.read(to + u64::from(length), 16)?,
        ];
        ensure!(
            edges.iter().flatten().all(|b| *b == 0xee),
            "bytes around the transfer changed"
        );
        spent += there.nanoseconds + back.nanoseconds;
    }
    engine.detach()?;
    let moved = 2 * u64::from(ENGINE_SIZE + 777);
    let rate = moved.saturating_mul(1_000_000_000) / spent.max(1) / 1024;
    let way = match path {
        Path::Peer => "peer to peer",
        Path::Bounce => "by a bounce",
    };
    println!("{moved} bytes {way} in {:?}", Duration::from_nanos(spent));
    Ok(format!("{way}, {rate} KiB/s"))
}

/// Demands one error.
#[track_caller]
fn refused<T: Debug>(what: &str, result: Result<T, Errno>, wanted: Errno) -> Result<()> {
    match result {
        Err(e) if e == wanted => Ok(()),
        other => bail!("{what}: {other:?} instead of {wanted:?}"),
    }
}

/// Sizes, offsets, descriptors and states that are wrong.
fn refuses_nonsense() -> Result<()> {
    let memory = Memory::open()?;
    let engine = Engine::open()?;
    for (offset, size, flags) in [
        (1, PAGE, 0),
        (0, 1, 0),
        (0, u64::MAX - PAGE + 1, 0),
        (u64::MAX - PAGE + 1, PAGE, 0),
        (0, PAGE, 1),
        (1 << 40, 0, 0),
    ] {
        let what = format!("export of {size} at {offset}, flags {flags}");
        refused(&what, memory.export(offset, size, flags), Errno::INVAL)?;
    }
    refused(
        "transfer without a buffer",
        engine.transfer(Direction::ToEngine, 0, 1, 0),
        Errno::NOTCONN,
    )?;
    refused("detach without a buffer", engine.detach(), Errno::NOTCONN)?;
    refused(
        "attach of a plain file",
        engine.attach(&File::open("/dev/null")?),
        Errno::INVAL,
    )?;
    let buffer = memory.export(0, 2 * PAGE, 0)?;
    engine.attach(&buffer)?;
    refused("second attach", engine.attach(&buffer), Errno::BUSY)?;
    for (offset, length, own) in [
        (0, 0, 0),
        (2 * PAGE, 1, 0),
        (2 * PAGE - 1, 2, 0),
        (u64::MAX, 1, 0),
        (0, ENGINE_SIZE + 1, 0),
        (0, 1, ENGINE_SIZE),
        (0, 2, ENGINE_SIZE - 1),
        (0, 1, u32::MAX),
    ] {
        let what = format!("transfer of {length} at {offset}, engine at {own}");
        refused(
            &what,
            engine.transfer(Direction::ToEngine, offset, length, own),
            Errno::INVAL,
        )?;
    }
    refused(
        "transfer to nowhere",
        engine.raw_transfer(2, 0, 1, 0),
        Errno::INVAL,
    )?;
    println!("nonsense is refused");
    Ok(())
}

/// Many users at once, each with its own part of either memory.
fn serves_many() -> Result<()> {
    let share = ENGINE_SIZE / MANY;
    let one = |number: u32| -> Result<()> {
        let memory = Memory::open()?;
        let engine = Engine::open()?;
        let buffer = memory.export(u64::from(number) * PAGE, PAGE, 0)?;
        engine.attach(&buffer)?;
        let wanted = pattern(number + 100, share);
        let place = u64::from(number) * PAGE;
        memory.write(place, &wanted)?;
        engine.transfer(Direction::ToEngine, 0, share, number * share)?;
        memory.write(place, &vec![0; share as usize])?;
        engine.transfer(Direction::FromEngine, 0, share, number * share)?;
        ensure!(
            memory.read(place, wanted.len())? == wanted,
            "user {number} got other bytes"
        );
        Ok(())
    };
    std::thread::scope(|scope| {
        let users: Vec<_> = (0..MANY).map(|n| scope.spawn(move || one(n))).collect();
        users.into_iter().try_for_each(|user| match user.join() {
            Ok(result) => result.context("many users"),
            Err(_) => bail!("a user panicked"),
        })
    })?;
    println!("{MANY} users at once");
    Ok(())
}

/// The device that a driver of this name is bound to.
fn bound(driver: &str) -> Result<String> {
    let dir = format!("/sys/bus/pci/drivers/{driver}");
    let entries = std::fs::read_dir(&dir).context(dir)?;
    let names = entries
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned());
    names
        .into_iter()
        .find(|n| n.contains(':'))
        .with_context(|| format!("{driver} is bound to nothing"))
}

fn tell(driver: &str, what: &str, device: &str) -> Result<()> {
    let file = format!("/sys/bus/pci/drivers/{driver}/{what}");
    std::fs::write(&file, device).context(file)
}

/// The memory goes while it is attached: the next transfer and export say so, and it can come back.
fn exporter_goes() -> Result<()> {
    let memory = Memory::open()?;
    let engine = Engine::open()?;
    let buffer = memory.export(0, PAGE, 0)?;
    engine.attach(&buffer)?;
    engine.transfer(Direction::ToEngine, 0, 64, 0)?;
    let device = bound("p2p_mem")?;
    tell("p2p_mem", "unbind", &device)?;
    refused(
        "transfer from a memory that is gone",
        engine.transfer(Direction::ToEngine, 0, 64, 0),
        Errno::NODEV,
    )?;
    refused(
        "export of a memory that is gone",
        memory.export(0, PAGE, 0),
        Errno::NODEV,
    )?;
    drop((buffer, engine, memory));
    tell("p2p_mem", "bind", &device)?;
    println!("the memory may go, and come back");
    works_again()
}

/// The engine goes during a transfer: that one ends, the next says so, and it can come back.
fn importer_goes() -> Result<()> {
    let memory = Memory::open()?;
    let engine = Engine::open()?;
    let buffer = memory.export(0, PAGE, 0)?;
    engine.attach(&buffer)?;
    let device = bound("p2p_dma")?;
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            loop {
                if let Err(error) = engine.transfer(Direction::ToEngine, 0, ENGINE_SIZE, 0) {
                    break error;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(250));
        tell("p2p_dma", "unbind", &device)?;
        match busy.join() {
            Ok(Errno::NODEV) => Ok(()),
            other => bail!("transfers of an engine that went ended with {other:?}"),
        }
    })?;
    refused(
        "attach to an engine that is gone",
        engine.attach(&buffer),
        Errno::NODEV,
    )?;
    drop((buffer, engine, memory));
    tell("p2p_dma", "bind", &device)?;
    println!("the engine may go, and come back");
    works_again()
}

fn works_again() -> Result<()> {
    let memory = Memory::open()?;
    let engine = Engine::open()?;
    engine.attach(&memory.export(0, PAGE, 0)?)?;
    engine
        .transfer(Direction::ToEngine, 0, 64, 0)
        .context("after it came back")?;
    Ok(())
}
