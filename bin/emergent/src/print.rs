//! The one place that writes to standard output and standard error.
//!
//! Most of what is shown comes from elsewhere: names, messages, what a hosted server has logged. All of it passes
//! [`shown`] here, so that a terminal is never told what to do; only the output of commands and the contents of files,
//! which somebody asked for byte by byte, are written as they are ([`raw_out`], [`raw_err`]).
//!
//! A reader that went away (`emergent … | head`) is no failure: what is left to say is dropped.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use comfy_table::{Table, presets::NOTHING};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// The character in place of one that is not shown.
const REPLACEMENT: &str = "\u{fffd}";

/// Lines on standard output.
pub(crate) fn out(text: &str) {
    write(&mut io::stdout().lock(), shown(text).as_bytes());
}

/// A line on standard output.
pub(crate) fn line(text: &str) {
    out(&format!("{text}\n"));
}

/// Bytes on standard output, at once.
pub(crate) fn raw_out(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Bytes on standard error, at once.
pub(crate) fn raw_err(bytes: &[u8]) -> io::Result<()> {
    io::stderr().lock().write_all(bytes)
}

/// A value as indented JSON on standard output.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(&escaped(&text)),
        Err(error) => self::error(&format!("the answer cannot be shown as JSON: {error}")),
    }
}

/// A table on standard output.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header.map(str::to_uppercase));
    for row in rows {
        table.add_row(row.map(|cell| printable(&cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().for_each(|row| line(row.trim_end()));
}

/// Lines for people on standard error.
pub(crate) fn notice(text: &str) {
    write(&mut io::stderr().lock(), shown(text).as_bytes());
}

/// A failure, on standard error.
pub(crate) fn error(text: &str) {
    notice(&format!("error: {text}\n"));
}

/// Asks whoever sits at the terminal; `None` where nobody does.
pub(crate) fn confirmed(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    notice(&format!("{question} [y/N] "));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).ok()?;
    Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Shown while something takes long: on standard error, and only where somebody looks at it.
pub(crate) fn spinner(message: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(printable(message));
    if !io::stderr().is_terminal() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Shown while bytes move; `total` where it is known.
pub(crate) fn transfer(total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(total) => {
            ProgressBar::new(total).with_style(style("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}"))
        }
        None => ProgressBar::new_spinner().with_style(style("{spinner} {bytes} {bytes_per_sec}")),
    };
    if !io::stderr().is_terminal() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    bar
}

/// Text from elsewhere on one line (a name, a command), with nothing in it that a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    shown(text).replace(['\n', '\t'], REPLACEMENT)
}

/// Text from elsewhere on any number of lines, with nothing in it that a terminal would obey or that would make it look
/// like other text.
pub(crate) fn shown(text: &str) -> String {
    let lines = text.replace("\r\n", "\n");
    lines.chars().map(|it| if matches!(it, '\n' | '\t') || !is_hidden(it) { it } else { '\u{fffd}' }).collect()
}

/// JSON that says the same with escapes for what is not to be seen: outside of strings JSON has no such characters.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if is_hidden(character) && character != '\n' {
            let units = &mut [0; 2];
            character.encode_utf16(units).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        } else {
            text.push(character);
        }
    }
    text
}

/// Whether a character controls a terminal, turns the direction of text, or cannot be seen at all.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Text of several lines from elsewhere, with nothing in it that a terminal would obey but line ends and tabs.
pub(crate) fn foreign(text: &str) -> String {
    text.replace("\r\n", "\n")
        .split_inclusive(['\n', '\t'])
        .map(|piece| match piece.strip_suffix(['\n', '\t']) {
            Some(plain) => printable(plain) + &piece[plain.len()..],
            None => printable(piece),
        })
        .collect()
}

/// The same, with the lines after the first set off from what comes before it.
pub(crate) fn indented(text: &str) -> String {
    foreign(text.trim_end()).replace('\n', "\n  ")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn write(target: &mut impl io::Write, bytes: &[u8]) {
    // Whoever does not read has said what they want.
    target.write_all(bytes).and_then(|()| target.flush()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[2J\u{9b}31m\rb\u{202e}c\u{200b}d\u{feff}e\u{7}\u{e0041}f\u{2066}g\u{200d}h";

    #[test]
    fn nothing_that_a_terminal_obeys_or_nobody_sees_is_printed() {
        for text in [printable(HOSTILE), shown(HOSTILE)] {
            assert!(!text.chars().any(is_hidden), "{text:?}");
            assert_eq!(text.replace('\u{fffd}', ""), "a[2J31mbcdefgh");
        }
        assert_eq!(shown("one\r\n\ttwo\n"), "one\n\ttwo\n");
        assert_eq!(printable("one\ntwo"), "one\u{fffd}two");
        assert_eq!(foreign("one\r\n\ttwo\u{7}\n"), "one\n\ttwo\u{fffd}\n");
        assert_eq!(indented("one\ntwo\u{1b}[2J\n"), "one\n  two\u{fffd}[2J");
        assert_eq!(printable("naïve 日本 → ✓"), "naïve 日本 → ✓");
    }

    #[test]
    fn json_stays_what_it_is_and_shows_nothing_hidden() {
        let value = serde_json::json!({ HOSTILE: [HOSTILE, "plain"] });
        let text = escaped(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!text.chars().any(|it| is_hidden(it) && it != '\n'), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
