//! The copying of files' contents: cloned if the file system can share them, else copied by the kernel, else read and
//! written. Holes stay holes.

use std::os::fd::BorrowedFd;

use rustix::{fs::SeekFrom, io::Errno};

const BUFFER: usize = 256 * 1024;
/// The most bytes in one call of the kernel, so that it stays interruptible.
const AT_ONCE: u64 = 64 << 20;

/// Copies contents. Remembers the methods that do not work between these file systems.
pub(super) struct Contents {
    clones: bool,
    kernel_copies: bool,
    buffer: Vec<u8>,
}

// === impl Contents ===

impl Contents {
    pub(super) fn new() -> Self {
        Self { clones: true, kernel_copies: true, buffer: Vec::new() }
    }

    /// Copies `size` bytes into an empty file.
    pub(super) fn copy(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: u64) -> Result<(), Errno> {
        if size == 0 {
            return Ok(());
        }
        if self.clones {
            match rustix::fs::ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                Err(Errno::NOSPC | Errno::DQUOT) => return Err(Errno::NOSPC),
                Err(_) => self.clones = false,
            }
        }
        rustix::fs::ftruncate(to, size)?;
        let mut at = 0;
        while at < size {
            let Some((start, end)) = data(from, at, size)? else { break };
            self.range(from, to, start, end)?;
            at = end;
        }
        Ok(())
    }

    fn range(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> Result<(), Errno> {
        let mut at = start;
        while self.kernel_copies && at < end {
            let (mut read, mut write) = (at, at);
            let most = usize::try_from((end - at).min(AT_ONCE)).unwrap_or(BUFFER);
            match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut write), most) {
                // Shorter than it was said to be.
                Ok(0) => return Ok(()),
                Ok(_) => at = write,
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => {
                    self.kernel_copies = false;
                }
                Err(error) => return Err(error),
            }
        }
        self.buffer.resize(BUFFER, 0);
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
            let read = match rustix::io::pread(from, &mut self.buffer[..most], at) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            write_all(to, &self.buffer[..read], at)?;
            at += read as u64;
        }
        Ok(())
    }
}

/// Returns the range of the next data at or after `at`; `None` when only a hole is left.
fn data(file: BorrowedFd<'_>, at: u64, size: u64) -> Result<Option<(u64, u64)>, Errno> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => {
            let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size);
            Ok((start < end).then_some((start, end)))
        }
        Err(Errno::NXIO) => Ok(None),
        // A file system that knows no holes.
        Err(Errno::INVAL) => Ok(Some((at, size))),
        Err(error) => Err(error),
    }
}

fn write_all(file: BorrowedFd<'_>, bytes: &[u8], at: u64) -> Result<(), Errno> {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::pwrite(file, &bytes[written..], at + written as u64) {
            Ok(0) => return Err(Errno::IO),
            Ok(more) => written += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
