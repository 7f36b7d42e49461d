//! A record of the journal: a line with the length, the checksum and the JSON of what it says.
//!
//! A record begins and ends with a line break, so that a record of which only a part was written costs none of its
//! neighbours.

use std::io::Write as _;

use super::Line;

/// Adds a record.
pub(super) fn add(records: &mut Vec<u8>, line: &Line) -> serde_json::Result<()> {
    let said = serde_json::to_vec(line)?;
    // Nothing can fail that is written into memory.
    let _ = write!(records, "\n{} {:08x} ", said.len(), crc32fast::hash(&said));
    records.extend_from_slice(&said);
    records.push(b'\n');
    Ok(())
}

/// The record on a line without its line breaks; `None` where it is not whole. Guests of before wrote the JSON alone.
pub(super) fn read(line: &[u8]) -> Option<Line> {
    let said = if line.starts_with(b"{") { line } else { whole(line)? };
    serde_json::from_slice(said).ok()
}

fn whole(line: &[u8]) -> Option<&[u8]> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (length, checksum) = (std::str::from_utf8(parts.next()?).ok()?, std::str::from_utf8(parts.next()?).ok()?);
    let said = parts.next()?;
    let is_whole =
        length.parse::<usize>() == Ok(said.len()) && u32::from_str_radix(checksum, 16) == Ok(crc32fast::hash(said));
    is_whole.then_some(said)
}
