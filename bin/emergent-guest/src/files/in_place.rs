//! Writing into a file itself, where another must not take its place: it has several names, or belongs to somebody else,
//! or its directory takes no new file.
//!
//! This cannot be done in one step, so it is done in the order that loses least. What the file needs beyond its length is
//! written first: a full disk shows then, and the file is cut to what it was. Then its beginning is written, where the file
//! system has room already; if that fails all the same, what stood there is put back. Only a crash in the middle leaves a
//! file that is half old and half new.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// So much of a file is remembered while it is written over.
const REMEMBERED: u64 = 32 << 20;

/// Bytes that are copied at once.
const CHUNK: usize = 1 << 20;

/// Makes what `from` holds the contents of `file`, whose contents up to now can be read from `before` where they can be
/// read at all.
///
/// # Errors
/// The kernel's; the file is then as it was, unless more than 32 MiB of it were to be written over.
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
    /// How many bytes there are.
    fn length(&self) -> io::Result<u64>;
    /// So many bytes from `offset`.
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
