//! The summary of an execution in a tool's result: both streams, cut in the middle when they are long.

use std::{borrow::Cow, path::Path};

use emergent_guest_proto::{GuestPath, OUTPUT_LIMIT, Outcome, Stream, tools::BashResult};

use super::{
    execution::{Ending, Run},
    logs::{Logs, index, paths},
};

/// Makes the result of the bash tool. Reads at most [`OUTPUT_LIMIT`] bytes of each stream.
pub fn summarize(run: &Run, ending: Ending, logs: Option<&Logs>, directory: &Path) -> BashResult {
    let [stdout_path, stderr_path] = paths(directory, &run.id);
    let shown = |stream, path| show(run, logs, stream, ending.written[index(stream)], path);
    let (stdout, stdout_cut) = shown(Stream::Stdout, &stdout_path);
    let (stderr, stderr_cut) = shown(Stream::Stderr, &stderr_path);
    let truncated = stdout_cut || stderr_cut;
    let [(stdout, stdout_shortened), (stderr, stderr_shortened)] = [stdout, stderr].map(|text| match settled(&text) {
        Cow::Borrowed(_) => (text, false),
        Cow::Owned(settled) => (settled, true),
    });
    let file = |shortened: bool, path: &Path| (truncated || shortened).then(|| GuestPath::from(path));
    BashResult {
        execution_id: run.id.clone(),
        stdout,
        stderr,
        exit_code: ending.exit_code,
        signal: ending.signal,
        timed_out: ending.outcome == Outcome::TimedOut,
        outcome: ending.outcome,
        reason: ending.reason,
        duration_ms: ending.duration_ms,
        truncated,
        stdout_bytes: ending.written[index(Stream::Stdout)],
        stderr_bytes: ending.written[index(Stream::Stderr)],
        stdout_file: file(stdout_shortened, &stdout_path),
        stderr_file: file(stderr_shortened, &stderr_path),
    }
}

/// Returns a stream as text, and whether parts of it are missing.
fn show(run: &Run, logs: Option<&Logs>, stream: Stream, size: u64, path: &Path) -> (String, bool) {
    const HALF: usize = OUTPUT_LIMIT / 2;
    let dropped = run.dropped(stream).min(size);
    // What cannot be read is shown as left out.
    let read = |offset, length| logs.and_then(|logs| logs.read(stream, offset, length).ok()).unwrap_or_default();
    let kept = size - dropped;
    if kept <= OUTPUT_LIMIT as u64 {
        let bytes = read(dropped, usize::try_from(kept).unwrap_or(OUTPUT_LIMIT));
        let missing = size - bytes.len() as u64;
        let text = String::from_utf8_lossy(&bytes);
        return match missing {
            0 => (text.into_owned(), false),
            _ => (format!("[{missing} bytes are no longer kept]\n{text}"), true),
        };
    }
    let head = read(dropped, HALF);
    let tail = read(size - HALF as u64, HALF);
    let (head, tail) = (whole_head(&head), whole_tail(&tail));
    let missing = size - head.len() as u64 - tail.len() as u64;
    let all = if dropped == 0 { "all of it is in" } else { "what is still kept is in" };
    let text = format!(
        "{}\n[{missing} bytes left out here; {all} {}]\n{}",
        String::from_utf8_lossy(head),
        path.display(),
        String::from_utf8_lossy(tail)
    );
    (text, true)
}

/// Returns a text as a terminal shows it in the end: of a line that was overwritten (after `\r`, as progress bars do)
/// only the last version.
fn settled(text: &str) -> Cow<'_, str> {
    let is_over = |line: &str| line.trim_end_matches(['\r', '\n']).contains('\r');
    if !text.split_inclusive('\n').any(is_over) {
        return text.into();
    }
    let last = |line: &str| {
        let said = line.trim_end_matches(['\r', '\n']);
        said.rfind('\r').map_or(0, |at| at + 1)
    };
    text.split_inclusive('\n').map(|line| &line[last(line)..]).collect::<String>().into()
}

/// Removes an incomplete character at the end.
fn whole_head(bytes: &[u8]) -> &[u8] {
    match bytes.utf8_chunks().last() {
        // An incomplete character is the whole of the last chunk's invalid part, and more bytes could complete it.
        Some(last) if std::str::from_utf8(last.invalid()).is_err_and(|error| error.error_len().is_none()) => {
            &bytes[..bytes.len() - last.invalid().len()]
        }
        _ => bytes,
    }
}

/// Removes an incomplete character at the beginning.
fn whole_tail(bytes: &[u8]) -> &[u8] {
    let continuation = bytes.iter().take(3).take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000).count();
    &bytes[continuation..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn of_a_line_that_is_written_over_the_last_is_shown() {
        for (text, shown) in [
            ("a\r\nb\n", "a\r\nb\n"),
            ("start\n 10%\r 50%\r100%\ndone\n", "start\n100%\ndone\n"),
            ("10%\r100%\r\n", "100%\r\n"),
            ("10%\r100%\r", "100%\r"),
            ("\r10%", "10%"),
            ("\r\r\n", "\r\r\n"),
        ] {
            assert_eq!(settled(text), shown, "{text:?}");
        }
    }

    #[test]
    fn only_what_a_cut_broke_is_left_out() {
        assert_eq!(whole_head("aé".as_bytes()), "aé".as_bytes());
        assert_eq!(whole_head(b"a\xc3"), b"a");
        assert_eq!(whole_head(b"a\xff"), b"a\xff");
        assert_eq!(whole_tail(b"\xa9b"), b"b");
    }

    proptest! {
        #[test]
        fn a_text_cut_anywhere_stays_text(text in "\\PC{0,20}", cut in 0_usize..80) {
            let cut = cut.min(text.len());
            let (head, tail) = text.as_bytes().split_at(cut);
            prop_assert!(std::str::from_utf8(whole_head(head)).is_ok());
            prop_assert!(std::str::from_utf8(whole_tail(tail)).is_ok());
        }
    }
}
