//! The read tool: a window of numbered lines, a directory listing, or the kind of a binary file.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek as _, Write as _},
    path::Path,
};

use content_inspector::ContentType;
use emergent_guest_proto::{
    GuestError, GuestPath,
    tools::{ReadRequest, ReadResult},
};

use crate::{
    failure::{self, invalid},
    files::{
        hash::Hasher,
        open::{Opened, open},
    },
    guest::Guest,
};

const DEFAULT_LIMIT: u64 = 2_000;
const MAX_LIMIT: u64 = 100_000;

/// The most characters of a line that are shown.
const LINE_LIMIT: usize = 2_000;

/// The most characters of the first line that are shown if its beginning is left out: such a request is for that line.
const REST_LIMIT: usize = 50_000;

/// The most bytes of text in one answer.
const CONTENT_LIMIT: usize = 16 << 20;

/// The largest file that is read to the end only to count its lines.
const COUNT_LIMIT: u64 = 64 << 20;

/// The largest file that is hashed: no tool replaces a larger one.
const HASH_LIMIT: u64 = 32 << 20;

/// The bytes of a file that show whether it is text.
const SAMPLE: u64 = 8 * 1024;

/// A window of lines, counted from 1.
#[derive(Debug, Clone, Copy)]
struct Window {
    first: u64,
    limit: u64,
    /// The bytes of the first line that are left out.
    skipped: u64,
}

/// Shows a file or a directory.
///
/// # Errors
/// The file system's error, or a field out of range.
pub async fn read(guest: &Guest, request: ReadRequest) -> Result<ReadResult, GuestError> {
    let window = Window {
        first: request.offset.unwrap_or(1),
        limit: request.limit.unwrap_or(DEFAULT_LIMIT),
        skipped: request.byte_offset.unwrap_or(0),
    };
    if window.first == 0 {
        return Err(invalid("offset", "lines are counted from 1"));
    }
    if !(1..=MAX_LIMIT).contains(&window.limit) {
        return Err(invalid("limit", format!("the limit must be from 1 to {MAX_LIMIT}")));
    }
    let path = guest.resolve(&request.file_path);
    guest
        .as_agent(move || {
            let result = match open(&path)? {
                Opened::Directory => list(&path, window),
                Opened::File(file, metadata) => show(file, metadata.len(), &path, window),
            };
            result.map_err(|error| failure::at(&path, "read", &error))
        })
        .await
}

fn list(path: &Path, window: Window) -> io::Result<ReadResult> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let mut name = GuestPath::from(Path::new(&entry.file_name())).to_string();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            name.push('/');
        }
        names.push(name);
    }
    names.sort_unstable();
    let skipped = usize::try_from(window.first - 1).unwrap_or(usize::MAX);
    let limit = usize::try_from(window.limit).unwrap_or(usize::MAX);
    let shown: Vec<String> = names.into_iter().skip(skipped).take(limit.saturating_add(1)).collect();
    let truncated = shown.len() > limit;
    let shown = &shown[..shown.len().min(limit)];
    Ok(ReadResult::Directory { content: shown.join("\n"), entries: shown.len() as u64, truncated })
}

fn show(mut file: File, size: u64, path: &Path, window: Window) -> io::Result<ReadResult> {
    let mut sample = Vec::new();
    (&mut file).take(SAMPLE).read_to_end(&mut sample)?;
    if !matches!(content_inspector::inspect(&sample), ContentType::UTF_8 | ContentType::UTF_8_BOM) {
        return Ok(ReadResult::Binary { size, mime_type: mime_type(&sample, path) });
    }
    file.rewind()?;
    let hasher = (size <= HASH_LIMIT).then(Hasher::default);
    let mut reader = BufReader::with_capacity(128 * 1024, Hashing { file, hasher });
    let mut shown = number_lines(&mut reader, size, window)?;
    if let ReadResult::Text { total_lines: Some(_), sha256, .. } = &mut shown {
        // All lines were counted, so all bytes were read.
        let hasher = reader.into_inner().hasher;
        *sha256 = hasher.map(Hasher::finish);
    }
    Ok(shown)
}

/// A file that is hashed as it is read.
struct Hashing {
    file: File,
    hasher: Option<Hasher>,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.write_all(&buffer[..count])?;
        }
        Ok(count)
    }
}

fn mime_type(sample: &[u8], path: &Path) -> String {
    match infer::get(sample) {
        Some(kind) => kind.mime_type().to_owned(),
        None => mime_guess::from_path(path).first_or_octet_stream().to_string(),
    }
}

fn number_lines(reader: &mut impl BufRead, size: u64, window: Window) -> io::Result<ReadResult> {
    let mut content = String::new();
    let (mut lines, mut truncated) = (0, false);
    let mut total = skip_lines(reader, window.first - 1)?;
    let mut ended = total < window.first - 1;
    while !ended && lines < window.limit && content.len() < CONTENT_LIMIT {
        let number = window.first + lines;
        let (skipped, limit) = if lines == 0 { window.first_line() } else { (0, LINE_LIMIT) };
        let Some(line) = next_line(reader, skipped, limit)? else {
            ended = true;
            break;
        };
        if lines > 0 {
            content.push('\n');
        }
        content.push_str(&format!("{number}: {}", line.text));
        if let Some(at) = line.cut {
            let length = line.length;
            content.push_str(&format!(
                " [line cut: it has {length} bytes; read on with \"offset\": {number}, \"byte_offset\": {at}]"
            ));
            truncated = true;
        }
        lines += 1;
    }
    total += lines;
    if !ended {
        // Whether there is one more line, and how many in all where that is cheap enough.
        let more = !reader.fill_buf()?.is_empty();
        truncated |= more;
        if more && size <= COUNT_LIMIT {
            total += skip_lines(reader, u64::MAX)?;
            ended = true;
        }
        ended |= !more;
    }
    let total_lines = ended.then_some(total);
    Ok(ReadResult::Text { content, first_line: window.first, lines, total_lines, size, truncated, sha256: None })
}

/// Skips at most `count` lines; returns how many there were.
fn skip_lines(reader: &mut impl BufRead, count: u64) -> io::Result<u64> {
    let mut passed = 0;
    let mut inside = false;
    while passed < count {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(passed + u64::from(inside));
        }
        let wanted = usize::try_from(count - passed).unwrap_or(usize::MAX);
        let mut newlines = memchr::memchr_iter(b'\n', buffer).take(wanted);
        let mut found = 0;
        let mut last = None;
        for position in newlines.by_ref() {
            found += 1;
            last = Some(position);
        }
        passed += found;
        let used = match last {
            Some(position) if passed == count => position + 1,
            _ => buffer.len(),
        };
        inside = buffer.get(used - 1) != Some(&b'\n');
        reader.consume(used);
    }
    Ok(passed)
}

impl Window {
    /// Returns the bytes of the first line that are left out, and the most characters that are shown.
    fn first_line(self) -> (u64, usize) {
        (self.skipped, if self.skipped > 0 { REST_LIMIT } else { LINE_LIMIT })
    }
}

struct Line {
    text: String,
    /// The bytes of the whole line.
    length: u64,
    /// The number of bytes that are shown or were left out, if there are more.
    cut: Option<u64>,
}

/// Reads the next line without its newline and its first `skipped` bytes; of a long line only `limit` characters are
/// kept.
fn next_line(reader: &mut impl BufRead, skipped: u64, limit: usize) -> io::Result<Option<Line>> {
    // Four bytes are the most that a character takes.
    let kept = limit * 4;
    let mut bytes = Vec::new();
    let mut length = 0_u64;
    let mut started = false;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() && !started {
            return Ok(None);
        }
        started = true;
        let newline = memchr::memchr(b'\n', buffer);
        let part = &buffer[..newline.unwrap_or(buffer.len())];
        let wanted = &part[part.len().min(usize::try_from(skipped.saturating_sub(length)).unwrap_or(usize::MAX))..];
        bytes.extend_from_slice(&wanted[..wanted.len().min((kept + 1).saturating_sub(bytes.len()))]);
        length += part.len() as u64;
        let (ended, used) = (buffer.is_empty() || newline.is_some(), newline.map_or(buffer.len(), |at| at + 1));
        reader.consume(used);
        if ended {
            break;
        }
    }
    // A place inside of a character is that of the next one.
    let inside = if skipped > 0 { continuation(&bytes) } else { 0 };
    let shown = characters(&bytes[inside..], limit);
    let end = skipped + (inside + shown.len()) as u64;
    let text = String::from_utf8_lossy(shown).into_owned();
    Ok(Some(Line { text, length, cut: (end < length).then_some(end) }))
}

/// Returns how many bytes at the beginning belong to a character that begins before.
fn continuation(bytes: &[u8]) -> usize {
    bytes.iter().take(3).take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000).count()
}

/// Returns at most `limit` characters from the beginning; an invalid byte counts as one.
fn characters(bytes: &[u8], limit: usize) -> &[u8] {
    let mut left = limit;
    let mut end = 0;
    for chunk in bytes.utf8_chunks() {
        match chunk.valid().char_indices().nth(left) {
            Some((at, _)) => return &bytes[..end + at],
            None => left -= chunk.valid().chars().count(),
        }
        end += chunk.valid().len();
        if !chunk.invalid().is_empty() {
            if left == 0 {
                return &bytes[..end];
            }
            left -= 1;
            end += chunk.invalid().len();
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_of(bytes: &[u8], first: u64, limit: u64) -> ReadResult {
        // A tiny buffer, so that lines span several.
        let window = Window { first, limit, skipped: 0 };
        number_lines(&mut BufReader::with_capacity(3, bytes), bytes.len() as u64, window).unwrap()
    }

    #[test]
    fn the_last_line_needs_no_newline() {
        for text in ["a\nb", "a\nb\n"] {
            let ReadResult::Text { content, total_lines, truncated, .. } = text_of(text.as_bytes(), 1, 9) else {
                panic!()
            };
            assert_eq!((content.as_str(), total_lines, truncated), ("1: a\n2: b", Some(2), false));
        }
    }

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        let ReadResult::Text { content, truncated, .. } = text_of("é".repeat(5_000).as_bytes(), 1, 1) else {
            panic!()
        };
        let how = "[line cut: it has 10000 bytes; read on with \"offset\": 1, \"byte_offset\": 4000]";
        assert_eq!(content, format!("1: {} {how}", "é".repeat(2_000)));
        assert!(truncated);
    }

    #[test]
    fn a_long_line_is_read_piece_by_piece() {
        let text = format!("short\n{}\nlast", "aé\u{20ac}".repeat(60_000));
        let (mut read, mut skipped) = (String::new(), 0);
        loop {
            let window = Window { first: 2, limit: 1, skipped };
            let shown = number_lines(&mut BufReader::new(text.as_bytes()), text.len() as u64, window).unwrap();
            let ReadResult::Text { content, .. } = shown else { panic!() };
            let (piece, how) = content.strip_prefix("2: ").unwrap().split_once(" [").unwrap_or((&content[3..], ""));
            read.push_str(piece);
            let Some((_, at)) = how.rsplit_once("\"byte_offset\": ") else { break };
            let at = at.trim_end_matches(']').parse().unwrap();
            assert!(at > skipped, "it goes on: {at}");
            skipped = at;
        }
        assert_eq!(Some(read.as_str()), text.lines().nth(1));
    }

    #[test]
    fn a_place_inside_of_a_character_is_that_of_the_next() {
        let window = Window { first: 1, limit: 1, skipped: 2 };
        let shown = number_lines(&mut BufReader::new("aé!".as_bytes()), 4, window).unwrap();
        assert!(matches!(&shown, ReadResult::Text { content, .. } if content == "1: !"), "{shown:?}");
    }

    proptest! {
        #[test]
        fn every_window_shows_what_splitting_the_text_would(
            lines in prop::collection::vec("[a-c]{0,5}", 0..12),
            last_newline: bool,
            first in 1_u64..15,
            limit in 1_u64..15,
        ) {
            let mut text = lines.join("\n");
            if last_newline && !text.is_empty() {
                text.push('\n');
            }
            let all: Vec<&str> = text.lines().collect();
            let expected: Vec<String> = (1..).zip(&all)
                .filter(|(number, _)| (first..first + limit).contains(number))
                .map(|(number, line)| format!("{number}: {line}"))
                .collect();
            let ReadResult::Text { content, lines, total_lines, truncated, .. } = text_of(text.as_bytes(), first, limit)
            else { panic!() };
            prop_assert_eq!(content, expected.join("\n"));
            prop_assert_eq!(lines, expected.len() as u64);
            prop_assert_eq!(total_lines, Some(all.len() as u64));
            prop_assert_eq!(truncated, all.len() as u64 >= first + limit);
        }
    }
}
