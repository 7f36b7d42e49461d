//! The contents of a file. Blocks that were never written are holes.

use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt as _, path::Path, sync::Arc, time::SystemTime};

const BLOCK: usize = 4096;

/// The contents of a file. Clones share the blocks that neither changes.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    blocks: BTreeMap<u64, Arc<[u8; BLOCK]>>,
    length: u64,
    pub(crate) modified: SystemTime,
}

// === impl Contents ===

impl Contents {
    pub(crate) fn empty(made: SystemTime) -> Self {
        Self { blocks: BTreeMap::new(), length: 0, modified: made }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn allocated(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK as u64
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut rest = data;
        let mut place = offset;
        while !rest.is_empty() {
            let (number, within) = split(place);
            let now = rest.len().min(BLOCK - within);
            let block = self.blocks.entry(number).or_insert_with(|| Arc::new([0; BLOCK]));
            Arc::make_mut(block)[within..within + now].copy_from_slice(&rest[..now]);
            rest = &rest[now..];
            place += now as u64;
        }
        self.length = self.length.max(place);
    }

    pub(crate) fn set_length(&mut self, length: u64) {
        if length < self.length {
            let (number, within) = split(length);
            self.blocks.split_off(&(number + u64::from(within > 0)));
            if let Some(block) = self.blocks.get_mut(&number) {
                Arc::make_mut(block)[within..].fill(0);
            }
        }
        self.length = length;
    }

    pub(crate) fn read(&self, offset: u64, wanted: usize) -> Vec<u8> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; wanted.min(left)];
        let mut done = 0;
        while done < bytes.len() {
            let (number, within) = split(offset + done as u64);
            let now = (bytes.len() - done).min(BLOCK - within);
            if let Some(block) = self.blocks.get(&number) {
                bytes[done..done + now].copy_from_slice(&block[within..within + now]);
            }
            done += now;
        }
        bytes
    }

    /// The first place from `offset` on that is data, or that is none. The end of the file is a hole.
    pub(crate) fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        if offset >= self.length {
            return None;
        }
        let (mut number, _) = split(offset);
        if data {
            let (first, _) = self.blocks.range(number..).next()?;
            let place = offset.max(first * BLOCK as u64);
            return (place < self.length).then_some(place);
        }
        while self.blocks.contains_key(&number) {
            number += 1;
        }
        Some(offset.max(number * BLOCK as u64).min(self.length))
    }

    /// Writes it to a real file, with its holes and its time.
    pub(crate) fn put(&self, path: &Path) -> io::Result<()> {
        let file = File::create_new(path)?;
        for (number, block) in &self.blocks {
            file.write_all_at(&block[..], number * BLOCK as u64)?;
        }
        file.set_len(self.length)?;
        file.set_modified(self.modified)
    }
}

fn split(place: u64) -> (u64, usize) {
    let within = usize::try_from(place % BLOCK as u64).unwrap_or_default();
    (place / BLOCK as u64, within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_rest_is_a_hole() {
        let mut contents = Contents::empty(SystemTime::UNIX_EPOCH);
        contents.write(3 * BLOCK as u64 - 2, b"across");
        assert_eq!(contents.read(3 * BLOCK as u64 - 4, 100), b"\0\0across");
        assert_eq!((contents.seek(0, true), contents.seek(0, false)), (Some(2 * BLOCK as u64), Some(0)));
        contents.set_length(3 * BLOCK as u64 - 1);
        contents.set_length(3 * BLOCK as u64 + 1);
        assert_eq!(contents.read(3 * BLOCK as u64 - 2, 100), b"a\0\0");
        assert_eq!(
            (contents.seek(2 * BLOCK as u64, false), contents.seek(4 * BLOCK as u64, true)),
            (Some(3 * BLOCK as u64), None)
        );
    }
}
