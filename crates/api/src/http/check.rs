//! Values that have the right type and make no sense: checked here, before anything is done, so that an answer can
//! name every such field at once.

use std::{collections::BTreeMap, ops::RangeInclusive};

use emergent_guest_proto::{
    MAX_TIMEOUT_MS,
    execution::SignalRequest,
    files::{MoveRequest, PathRequest, RemoveRequest},
    tools::{BashRequest, EditRequest, GlobRequest, GrepRequest, ReadRequest, WriteRequest},
};

use crate::{
    facts::Arguments,
    http::problem::{FieldError, ProblemKind, Refusal},
};

/// The longest command line that Linux takes as one argument, in bytes.
const MAX_COMMAND: usize = 128 * 1024;

/// Something whose values can be out of range.
pub trait Check {
    /// The fields that an object of this kind has beside those that a refusal of an unknown field names by itself.
    const OUTER_FIELDS: &'static [&'static str] = &[];

    /// Notes every value that makes no sense.
    fn check(&self, faults: &mut Faults);

    /// Notes what the audit may keep of them; nothing unless said. Never contents, nor what may be a secret.
    fn arguments(&self, _: &mut Arguments) {}
}

/// The values that make no sense.
#[derive(Debug, Default)]
pub struct Faults(Vec<FieldError>);

// === impl Faults ===

impl Faults {
    /// Notes a fault.
    pub fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), message: message.into() });
    }

    /// Notes a fault unless the number, where there is one, is in range.
    pub fn range<T: PartialOrd + std::fmt::Display>(
        &mut self,
        field: &str,
        value: Option<T>,
        range: RangeInclusive<T>,
    ) {
        if let Some(value) = value
            && !range.contains(&value)
        {
            self.add(field, format!("{value} is out of range; it takes {} to {}", range.start(), range.end()));
        }
    }

    /// Notes a fault unless these can be environment variables.
    pub fn environment(&mut self, field: &str, environment: &BTreeMap<String, String>) {
        for (name, value) in environment {
            if name.is_empty() || name.contains(['=', '\0']) {
                self.add(format!("{field}.{name}"), "a variable's name is not empty and has no = and no NUL");
            } else if value.contains('\0') {
                self.add(format!("{field}.{name}"), "a variable's value has no NUL");
            }
        }
    }

    /// Notes a fault unless this can be an argument of a process.
    pub fn argument(&mut self, field: &str, argument: &str) {
        if argument.contains('\0') {
            self.add(field, "it contains a NUL, which no process takes");
        } else if argument.len() >= MAX_COMMAND {
            self.add(field, "it is longer than 128 KiB, which Linux does not take; write it to a file and run that");
        }
    }

    /// Notes a fault unless this is a command line that does something.
    pub fn command(&mut self, field: &str, command: &str) {
        if command.trim().is_empty() {
            self.add(field, "it is empty; give a command line, such as \"ls -la\"");
        } else {
            self.argument(field, command);
        }
    }

    /// Notes a fault if the text is empty.
    pub fn not_empty(&mut self, field: &str, text: &str) {
        if text.is_empty() {
            self.add(field, "it is empty");
        }
    }

    /// A refusal that names all the faults, if there are any.
    pub fn into_result(self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(Refusal::of_fields(ProblemKind::InvalidValue, self.0)) }
    }
}

// === The tools' requests ===

impl Check for BashRequest {
    fn check(&self, faults: &mut Faults) {
        faults.command("command", &self.command);
        faults.range("timeout_ms", self.timeout_ms, 1..=MAX_TIMEOUT_MS);
        faults.environment("env", &self.env);
    }

    fn arguments(&self, kept: &mut Arguments) {
        kept.command("command", &self.command);
        kept.optional("workdir", self.workdir.as_ref());
        kept.optional("execution_id", self.execution_id.as_ref());
    }
}

impl Check for ReadRequest {
    fn check(&self, faults: &mut Faults) {
        faults.range("offset", self.offset, 1..=u64::MAX);
        faults.range("limit", self.limit, 1..=100_000);
    }

    fn arguments(&self, kept: &mut Arguments) {
        kept.name("file_path", &self.file_path);
    }
}

impl Check for WriteRequest {
    fn check(&self, _: &mut Faults) {}

    fn arguments(&self, kept: &mut Arguments) {
        kept.name("file_path", &self.file_path);
    }
}

impl Check for EditRequest {
    fn check(&self, faults: &mut Faults) {
        faults.not_empty("old_string", &self.old_string);
        if self.old_string == self.new_string && !self.old_string.is_empty() {
            faults.add("new_string", "it is the same as old_string; there is nothing to change");
        }
    }

    fn arguments(&self, kept: &mut Arguments) {
        kept.name("file_path", &self.file_path);
    }
}

impl Check for GlobRequest {
    fn check(&self, faults: &mut Faults) {
        faults.not_empty("pattern", &self.pattern);
    }

    fn arguments(&self, kept: &mut Arguments) {
        kept.private("pattern", &self.pattern);
        kept.optional("path", self.path.as_ref());
    }
}

impl Check for GrepRequest {
    fn check(&self, faults: &mut Faults) {
        faults.not_empty("pattern", &self.pattern);
        faults.range("limit", self.limit, 1..=10_000);
    }

    fn arguments(&self, kept: &mut Arguments) {
        kept.private("pattern", &self.pattern);
        kept.optional("path", self.path.as_ref());
    }
}

impl Check for SignalRequest {
    fn check(&self, faults: &mut Faults) {
        faults.not_empty("signal", &self.signal);
    }

    fn arguments(&self, kept: &mut Arguments) {
        kept.name("signal", &self.signal);
    }
}

impl Check for PathRequest {
    fn check(&self, _: &mut Faults) {}

    fn arguments(&self, kept: &mut Arguments) {
        kept.name("path", &self.path);
    }
}

impl Check for MoveRequest {
    fn check(&self, _: &mut Faults) {}

    fn arguments(&self, kept: &mut Arguments) {
        kept.name("from", &self.from);
        kept.name("to", &self.to);
    }
}

impl Check for RemoveRequest {
    fn check(&self, _: &mut Faults) {}

    fn arguments(&self, kept: &mut Arguments) {
        kept.name("path", &self.path);
    }
}
