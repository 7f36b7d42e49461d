//! The part of a call's arguments that the audit keeps: never contents, output or values of an environment, and only
//! short texts.

use std::fmt::Display;

use emergent_core::ArgumentLevel;
use serde_json::{Map, Value};

/// The greatest length of one text that is kept, in bytes.
const LONGEST: usize = 200;
/// The greatest number of arguments that are kept.
const MOST: usize = 12;

/// The kept arguments of a call.
#[derive(Debug)]
pub struct Arguments {
    level: ArgumentLevel,
    kept: Map<String, Value>,
}

// === impl Arguments ===

impl Arguments {
    pub(super) fn new(level: ArgumentLevel) -> Self {
        Self { level, kept: Map::new() }
    }

    pub(super) fn into_kept(self) -> Map<String, Value> {
        self.kept
    }

    /// Keeps a value that is no secret, such as a path or an id.
    pub fn name(&mut self, argument: &str, value: impl Display) {
        if self.level >= ArgumentLevel::Names {
            self.keep(argument, Value::from(shortened(&value.to_string())));
        }
    }

    /// Keeps a value that is no secret, if there is one.
    pub fn optional(&mut self, argument: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.name(argument, value);
        }
    }

    /// Keeps a number.
    pub fn number(&mut self, argument: &str, value: impl Into<u64>) {
        if self.level >= ArgumentLevel::Names {
            self.keep(argument, Value::from(value.into()));
        }
    }

    /// Keeps the length of a text that may hold a secret, and the beginning of the text where the operator wants that
    /// kept.
    pub fn private(&mut self, argument: &str, text: &str) {
        self.number(&format!("{argument}_bytes"), text.len() as u64);
        if self.level >= ArgumentLevel::Commands {
            self.keep(argument, Value::from(shortened(text)));
        }
    }

    /// Keeps the program at the beginning of a command line, and what [`private`](Self::private) keeps of the line.
    pub fn command(&mut self, argument: &str, line: &str) {
        if let Some(program) = program(line) {
            self.name("program", program);
        }
        self.private(argument, line);
    }

    fn keep(&mut self, argument: &str, value: Value) {
        if self.kept.len() < MOST {
            self.kept.insert(argument.to_owned(), value);
        }
    }
}

/// Shortens a text to its beginning, without control characters.
fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST);
    let mut short = text[..end].replace(char::is_control, " ");
    if end < text.len() {
        short.push('…');
    }
    short
}

/// Returns the program that a command line begins with, after assignments of variables, whose values may be secrets.
/// `None` where only the shell can tell the program.
fn program(line: &str) -> Option<&str> {
    let is_assignment = |word: &str| {
        let name = word.split_once('=').map(|(name, _)| name);
        name.is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
        })
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/+-".contains(&byte);
    // A quoted value may go on behind a space: what follows it is then no program.
    let mut words = line.split_ascii_whitespace();
    let word = words.by_ref().find(|word| !is_assignment(word) || word.contains(['"', '\'', '\\', '$', '`', '(']))?;
    let name = word.rsplit('/').next().unwrap_or(word);
    (word.bytes().all(plain) && (1..=64).contains(&name.len())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(level: ArgumentLevel, note: impl FnOnce(&mut Arguments)) -> String {
        let mut arguments = Arguments::new(level);
        note(&mut arguments);
        Value::Object(arguments.into_kept()).to_string()
    }

    #[test]
    fn the_program_is_found_where_nothing_secret_can_be_taken_for_it() {
        for (line, expected) in [
            ("git push origin main", Some("git")),
            ("TOKEN=secret A=1 /usr/bin/curl -H x", Some("curl")),
            ("./run.sh", Some("run.sh")),
            ("TOKEN='secret secret' curl", None),
            ("TOKEN=\"a secret\" curl", None),
            ("TOKEN=a\\ secret curl", None),
            ("$(secret)", None),
            ("\"sec ret\"", None),
            ("TOKEN=secret", None),
            ("", None),
        ] {
            assert_eq!(program(line), expected, "{line}");
        }
    }

    #[test]
    fn a_level_keeps_what_it_says() {
        let note = |arguments: &mut Arguments| arguments.command("command", "TOKEN=secret git push");
        assert_eq!(kept(ArgumentLevel::None, note), "{}");
        assert_eq!(kept(ArgumentLevel::Names, note), r#"{"command_bytes":21,"program":"git"}"#);
        assert!(kept(ArgumentLevel::Commands, note).contains("TOKEN=secret git push"));
    }

    #[test]
    fn nothing_long_is_kept_and_nothing_that_a_database_stumbles_over() {
        let long = "é\0\n".repeat(1_000);
        let text = kept(ArgumentLevel::Commands, |arguments| {
            arguments.name("path", &long);
            for number in 0..100_u32 {
                arguments.number(&number.to_string(), number);
            }
        });
        assert!(text.len() < 500 && !text.contains("\\u0000"), "{text}");
    }
}
