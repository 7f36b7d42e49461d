//! The one place that writes to standard output and standard error.
//!
//! A reader that went away (`emergent … | head`) is no failure: what is left to say is dropped.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use comfy_table::{Table, presets::NOTHING};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Text on standard output, as it is.
pub(crate) fn out(text: &str) {
    write(&mut io::stdout().lock(), text.as_bytes());
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
        Ok(text) => line(&text),
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

/// Text for people on standard error, as it is.
pub(crate) fn notice(text: &str) {
    write(&mut io::stderr().lock(), text.as_bytes());
}

/// A failure, on standard error.
pub(crate) fn error(text: &str) {
    notice(&format!("error: {text}\n"));
}

/// Shown while something takes long: on standard error, and only where somebody looks at it.
pub(crate) fn spinner(message: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(message.to_owned());
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

/// Text from elsewhere (a name, a command) with nothing in it that a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn write(target: &mut impl io::Write, bytes: &[u8]) {
    // Whoever does not read has said what they want.
    target.write_all(bytes).and_then(|()| target.flush()).ok();
}
