//! The two files that an execution writes to.
//!
//! They are files and not pipes, so that output outlives the caller's connection and the guest, and a descendant that
//! keeps one open holds up nobody. The processes get them open for appending; by path only root can write to them.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::FileExt as _,
    },
    path::{Path, PathBuf},
};

use emergent_guest_proto::{ExecutionId, RunAs, Stream};

use crate::own_files;

/// Both files, open.
#[derive(Debug)]
pub struct Logs([File; 2]);

impl Logs {
    /// Makes the files of a new execution.
    ///
    /// # Errors
    /// The kernel's; a first file may be left behind.
    pub fn create(directory: &Path, id: &ExecutionId, user: RunAs) -> io::Result<Self> {
        let [stdout, stderr] = paths(directory, id);
        // What root's commands say is not the agent's to read.
        let mode = if user == RunAs::Root { 0o600 } else { 0o644 };
        Ok(Self([own_files::create(&stdout, mode)?, own_files::create(&stderr, mode)?]))
    }

    /// Opens the files of an execution that has ended. `None` when its output is no longer kept.
    pub fn open(directory: &Path, id: &ExecutionId) -> Option<Self> {
        let [stdout, stderr] = paths(directory, id);
        Some(Self([own_files::open(&stdout).ok()??, own_files::open(&stderr).ok()??]))
    }

    /// Returns the length of a stream.
    pub fn size(&self, stream: Stream) -> u64 {
        self.0[index(stream)].metadata().map_or(0, |metadata| metadata.len())
    }

    /// The file as a process takes it.
    pub fn as_fd(&self, stream: Stream) -> BorrowedFd<'_> {
        self.0[index(stream)].as_fd()
    }

    /// At most `length` bytes from `offset`; fewer only at the end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&self, stream: Stream, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self.0[index(stream)].read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// The files of standard output and error.
pub fn paths(directory: &Path, id: &ExecutionId) -> [PathBuf; 2] {
    ["stdout", "stderr"].map(|suffix| directory.join(format!("{id}.{suffix}")))
}

/// Returns the index of a stream in a pair.
pub fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}
