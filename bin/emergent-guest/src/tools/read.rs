//! The read tool: a window of numbered lines, a directory listing, or what kind of binary a file is.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read as _, Seek as _},
    path::Path,
};

use content_inspector::ContentType;
use emergent_guest_proto::{
    GuestError, GuestPath,
    tools::{ReadRequest, ReadResult},
};

use super::open::{Opened, open};
use crate::{
    failure::{self, invalid},
    guest::Guest,
};

const DEFAULT_LIMIT: u64 = 2_000;
const MAX_LIMIT: u64 = 100_000;

/// Characters of a line that are shown.
const LINE_LIMIT: usize = 2_000;

/// Bytes of text in one answer.
const CONTENT_LIMIT: usize = 16 << 20;

/// Files longer than this are not read to the end only to count their lines.
const COUNT_LIMIT: u64 = 64 << 20;

/// How much of a file tells whether it is text.
const SAMPLE: u64 = 8 * 1024;

/// A window of lines, counted from 1.
#[derive(Debug, Clone, Copy)]
struct Window {
    first: u64,
    limit: u64,
}

/// Shows a file or a directory.
///
/// # Errors
/// That of the file system, or a field out of range.
pub async fn read(guest: &Guest, request: ReadRequest) -> Result<ReadResult, GuestError> {
    let window = Window { first: request.offset.unwrap_or(1), limit: request.limit.unwrap_or(DEFAULT_LIMIT) };
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
    number_lines(BufReader::with_capacity(128 * 1024, file), size, window)
}

fn mime_type(sample: &[u8], path: &Path) -> String {
    match infer::get(sample) {
        Some(kind) => kind.mime_type().to_owned(),
        None => mime_guess::from_path(path).first_or_octet_stream().to_string(),
    }
}

fn number_lines(mut reader: impl BufRead, size: u64, window: Window) -> io::Result<ReadResult> {
    let mut content = String::new();
    let (mut lines, mut truncated) = (0, false);
    let mut total = skip_lines(&mut reader, window.first - 1)?;
    let mut ended = total < window.first - 1;
    while !ended && lines < window.limit && content.len() < CONTENT_LIMIT {
        let Some(line) = next_line(&mut reader)? else {
            ended = true;
            break;
        };
        if lines > 0 {
            content.push('\n');
        }
        content.push_str(&format!("{}: {}", window.first + lines, line.text));
        if line.cut {
            content.push_str(" [line cut]");
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
            total += skip_lines(&mut reader, u64::MAX)?;
            ended = true;
        }
        ended |= !more;
    }
    let total_lines = ended.then_some(total);
    Ok(ReadResult::Text { content, first_line: window.first, lines, total_lines, size, truncated })
}

/// Passes over at most `count` lines and says how many there were.
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

struct Line {
    text: String,
    cut: bool,
}

/// The next line without its newline; of a long one only the beginning is kept in memory.
fn next_line(reader: &mut impl BufRead) -> io::Result<Option<Line>> {
    // Four bytes are the most that a character takes.
    const KEPT: usize = LINE_LIMIT * 4;
    let mut bytes = Vec::new();
    let mut started = false;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() && !started {
            return Ok(None);
        }
        started = true;
        let newline = memchr::memchr(b'\n', buffer);
        let part = &buffer[..newline.unwrap_or(buffer.len())];
        bytes.extend_from_slice(&part[..part.len().min((KEPT + 1).saturating_sub(bytes.len()))]);
        let (ended, used) = (buffer.is_empty() || newline.is_some(), newline.map_or(buffer.len(), |at| at + 1));
        reader.consume(used);
        if ended {
            break;
        }
    }
    Ok(Some(cut_line(&bytes)))
}

fn cut_line(bytes: &[u8]) -> Line {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(LINE_LIMIT) {
        Some((end, _)) => Line { text: text[..end].to_owned(), cut: true },
        None => Line { text: text.into_owned(), cut: false },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_of(bytes: &[u8], first: u64, limit: u64) -> ReadResult {
        // A tiny buffer, so that lines span several.
        number_lines(BufReader::with_capacity(3, bytes), bytes.len() as u64, Window { first, limit }).unwrap()
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
        assert_eq!(content, format!("1: {} [line cut]", "é".repeat(2_000)));
        assert!(truncated);
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
