//! The archive format that the kernel unpacks as its first root file system: "newc" cpio, written here since it is small
//! and since the same contents must give the same bytes.

use std::collections::BTreeSet;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const SYMLINK: u32 = 0o120_777;
const FILE: u32 = 0o100_000;

/// An archive that is being written. Directories above a file are added by themselves.
pub struct Archive<W: Write> {
    out: W,
    written: u64,
    inode: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self {
            out,
            written: 0,
            inode: 0,
            directories: BTreeSet::new(),
        }
    }

    /// A directory, `bin/x`, without a slash at either end.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        if path.is_empty() || !self.directories.insert(path.to_owned()) {
            return Ok(());
        }
        self.parents(path)?;
        self.entry(path, DIRECTORY, &[])
    }

    /// A file; `mode` is its permission bits.
    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, FILE | mode, bytes)
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &str, to: &str) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, SYMLINK, to.as_bytes())
    }

    /// Ends the archive and gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.out)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        let too_large = || io::Error::other(format!("{path}: too large for an initramfs"));
        let size = u32::try_from(bytes.len()).map_err(|_| too_large())?;
        let name = u32::try_from(path.len() + 1).map_err(|_| too_large())?;
        self.inode += 1;
        // inode, mode, uid, gid, links, mtime, size, device ×2, special device ×2, name's length, checksum (unused).
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        let mut head = String::from("070701");
        for field in fields {
            head.push_str(&format!("{field:08x}"));
        }
        self.write(head.as_bytes())?;
        self.write(path.as_bytes())?;
        self.write(&[0])?;
        self.pad()?;
        self.write(bytes)?;
        self.pad()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Entries and their contents begin at multiples of four bytes.
    fn pad(&mut self) -> io::Result<()> {
        while !self.written.is_multiple_of(4) {
            self.write(&[0])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpio_itself_reads_what_is_written() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a/b/odd", 0o644, b"12345").unwrap();
        archive.file("a/run", 0o755, b"").unwrap();
        archive.symlink("a/link", "run").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x.cpio"), bytes).unwrap();
        let shell = "cpio -idm <x.cpio && test -x a/run && test \"$(cat a/b/odd)\" = 12345 && test \"$(readlink a/link)\" = run";
        let done = std::process::Command::new("sh")
            .args(["-c", shell])
            .current_dir(dir.path())
            .status()
            .unwrap();
        assert!(done.success());
    }
}
