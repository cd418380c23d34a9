//! The two devices' files, as `drivers/p2p/p2p_uapi.h` has them.
//!
//! The only unsafe code of this program: ioctl. Each number goes with the structure that the header names beside it.
#![allow(unsafe_code)]

use rustix::io::Errno;
use rustix::ioctl::{NoArg, Updater, ioctl, opcode};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

const TYPE: u8 = b'P';
/// `P2P_ENGINE_SIZE`.
pub const ENGINE_SIZE: u32 = 2048;

/// How the engine reaches the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// From device to device.
    Peer,
    /// By way of system memory.
    Bounce,
}

/// Where a transfer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the dma-buf to the engine's memory.
    ToEngine = 0,
    /// Back.
    FromEngine = 1,
}

#[repr(C)]
struct Export {
    offset: u64,
    size: u64,
    flags: u32,
    fd: i32,
}

#[repr(C)]
struct Attach {
    fd: i32,
    path: u32,
    size: u64,
}

#[repr(C)]
struct Transfer {
    offset: u64,
    length: u32,
    engine_offset: u32,
    direction: u32,
    path: u32,
    nanoseconds: u64,
}

/// What one transfer did.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// Which way the bytes went.
    pub path: Path,
    /// From the engine's start to its interrupt.
    pub nanoseconds: u64,
}

fn path(word: u32) -> Result<Path, Errno> {
    match word {
        1 => Ok(Path::Peer),
        2 => Ok(Path::Bounce),
        _ => Err(Errno::PROTO),
    }
}

/// `/dev/p2p_mem`: the memory.
pub struct Memory(File);

impl Memory {
    /// Opens it.
    pub fn open() -> std::io::Result<Self> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/p2p_mem")
            .map(Self)
    }

    /// Writes by the processor.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    /// Reads by the processor.
    pub fn read(&self, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, offset).map(|()| bytes)
    }

    /// Makes a part of it a dma-buf; a size of 0 is all that follows.
    pub fn export(&self, offset: u64, size: u64, flags: u32) -> Result<OwnedFd, Errno> {
        const EXPORT: u32 = opcode::read_write::<Export>(TYPE, 0x50);
        let mut request = Export {
            offset,
            size,
            flags,
            fd: -1,
        };
        // SAFETY: the header's number and structure; the driver gives a descriptor that nobody else owns.
        unsafe {
            ioctl(&self.0, Updater::<EXPORT, Export>::new(&mut request))?;
            Ok(OwnedFd::from_raw_fd(request.fd))
        }
    }
}

/// `/dev/p2p_dma`: the engine, with at most one dma-buf.
pub struct Engine(File);

impl Engine {
    /// Opens it.
    pub fn open() -> std::io::Result<Self> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/p2p_dma")
            .map(Self)
    }

    /// Takes a dma-buf; the way to it, and its size.
    pub fn attach(&self, buffer: &impl AsRawFd) -> Result<(Path, u64), Errno> {
        const ATTACH: u32 = opcode::read_write::<Attach>(TYPE, 0x51);
        let mut request = Attach {
            fd: buffer.as_raw_fd(),
            path: 0,
            size: 0,
        };
        // SAFETY: the header's number and structure.
        unsafe { ioctl(&self.0, Updater::<ATTACH, Attach>::new(&mut request))? };
        Ok((path(request.path)?, request.size))
    }

    /// Moves bytes.
    pub fn transfer(
        &self,
        direction: Direction,
        offset: u64,
        length: u32,
        engine_offset: u32,
    ) -> Result<Done, Errno> {
        self.raw_transfer(direction as u32, offset, length, engine_offset)
    }

    /// Moves bytes, in a direction that may be none.
    pub fn raw_transfer(
        &self,
        direction: u32,
        offset: u64,
        length: u32,
        engine_offset: u32,
    ) -> Result<Done, Errno> {
        const TRANSFER: u32 = opcode::read_write::<Transfer>(TYPE, 0x52);
        let mut request = Transfer {
            offset,
            length,
            engine_offset,
            direction,
            path: 0,
            nanoseconds: 0,
        };
        // SAFETY: the header's number and structure.
        unsafe { ioctl(&self.0, Updater::<TRANSFER, Transfer>::new(&mut request))? };
        Ok(Done {
            path: path(request.path)?,
            nanoseconds: request.nanoseconds,
        })
    }

    /// Lets go of the dma-buf.
    pub fn detach(&self) -> Result<(), Errno> {
        const DETACH: u32 = opcode::none(TYPE, 0x53);
        // SAFETY: the header's number, without an argument.
        unsafe { ioctl(&self.0, NoArg::<DETACH>::new()) }
    }
}
