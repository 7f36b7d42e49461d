//! The writing into a file itself, if another must not take its place: it has several names, or belongs to another
//! user, or its directory takes no new file.
//!
//! This cannot be done in one step, so the order loses least. The part beyond the file's old length is written first: a
//! full disk shows then, and the file is cut to its old length. Then its beginning is written, for which the file
//! system has space already; if that fails all the same, the old contents are put back. Only a crash in the middle
//! leaves a file that is half old and half new.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// The most bytes of a file that are remembered while they are overwritten.
const REMEMBERED: u64 = 32 << 20;

/// The bytes that are copied at once.
const CHUNK: usize = 1 << 20;

/// Writes the contents of `from` to `file`, whose old contents can be read from `before`, if they can be read at all.
///
/// # Errors
/// The kernel's error; the file is then as it was, unless more than 32 MiB of it were to be overwritten.
pub(super) fn overwrite(file: &File, before: Option<&File>, from: &(impl ReadAt + ?Sized)) -> io::Result<()> {
    let (old, new) = (file.metadata()?.len(), from.length()?);
    let common = old.min(new);
    let remembered = before.filter(|_| common <= REMEMBERED).map(|before| remember(before, common)).transpose()?;
    let written = copy(file, from, common, new).and_then(|()| {
        copy(file, from, 0, common).inspect_err(|_| {
            if let Some(remembered) = &remembered {
                // The error that matters is the first.
                let _ = file.write_all_at(remembered, 0);
            }
        })
    });
    match written {
        Ok(()) => file.set_len(new),
        Err(error) => file.set_len(old).and(Err(error)),
    }
}

fn remember(file: &File, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn copy(file: &File, from: &(impl ReadAt + ?Sized), start: u64, end: u64) -> io::Result<()> {
    let mut offset = start;
    while offset < end {
        let bytes = from.read_from(offset, usize::try_from(end - offset).unwrap_or(CHUNK).min(CHUNK))?;
        file.write_all_at(&bytes, offset)?;
        offset += bytes.len() as u64;
    }
    Ok(())
}

/// New contents, in memory or in a file.
pub(super) trait ReadAt {
    /// Returns the number of bytes.
    fn length(&self) -> io::Result<u64>;
    /// Returns `length` bytes from `offset`.
    fn read_from(&self, offset: u64, length: usize) -> io::Result<std::borrow::Cow<'_, [u8]>>;
}

impl ReadAt for [u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_from(&self, offset: u64, length: usize) -> io::Result<std::borrow::Cow<'_, [u8]>> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        self.get(start..start + length).map(Into::into).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl ReadAt for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_from(&self, offset: u64, length: usize) -> io::Result<std::borrow::Cow<'_, [u8]>> {
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }
}
