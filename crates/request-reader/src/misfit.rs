//! The reasons why a part of a request does not fit its type, in the words of the client that wrote the request: a
//! client knows whole numbers and objects, not `u64` and `struct`.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

/// The names that types give to themselves, and the clients' names for these.
const EXPECTED: [(&str, &str); 17] = [
    ("u8", "a whole number from 0 to 255"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0"),
    ("u64", "a whole number from 0"),
    ("usize", "a whole number from 0"),
    ("i8", "a whole number"),
    ("i16", "a whole number"),
    ("i32", "a whole number"),
    ("i64", "a whole number"),
    ("f32", "a number"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a map", "an object"),
    ("a sequence", "a list"),
    ("a borrowed string", "a string"),
    ("unit", "null"),
    ("string or map", "a word or an object"),
];

/// The reason why a value does not fit its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// The text around the value is not of its format.
    Malformed(String),
    /// The value is of another type.
    Type {
        /// The value, or its type.
        found: String,
        /// The type to which the value should belong.
        expected: String,
    },
    /// The value is of the right type, and the type has no such value.
    Value {
        /// The value.
        found: String,
        /// The values that the type has.
        expected: String,
    },
    /// The word is none of those that the field takes.
    UnknownWord {
        /// The word.
        word: String,
        /// The words that the field takes.
        known: &'static [&'static str],
    },
    /// The object has no such field.
    UnknownField {
        /// The field's name.
        field: String,
        /// The fields that the object has.
        known: Vec<&'static str>,
    },
    /// The object lacks a field.
    MissingField(&'static str),
    /// The object has a field twice.
    DuplicateField(&'static str),
    /// The value's own type refuses the value, in its own words.
    Refused(String),
}

/// A field at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {misfit}")]
pub struct FieldMisfit {
    /// The field, as a path such as `resource_limits.memory`; empty for the whole.
    pub field: String,
    /// The reason.
    pub misfit: Misfit,
}

// === impl Misfit ===

impl Misfit {
    /// Returns whether the request has another form than its type, as opposed to a value that makes no sense.
    #[must_use]
    pub fn is_of_form(&self) -> bool {
        match self {
            Self::Malformed(_)
            | Self::Type { .. }
            | Self::UnknownWord { .. }
            | Self::UnknownField { .. }
            | Self::MissingField(_)
            | Self::DuplicateField(_) => true,
            Self::Value { .. } | Self::Refused(_) => false,
        }
    }

    /// Returns the field that the misfit names itself, relative to its object.
    fn field(&self) -> Option<&str> {
        match self {
            Self::UnknownField { field, .. } => Some(field),
            Self::MissingField(field) | Self::DuplicateField(field) => Some(field),
            Self::Malformed(_)
            | Self::Type { .. }
            | Self::Value { .. }
            | Self::UnknownWord { .. }
            | Self::Refused(_) => None,
        }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(reason) | Self::Refused(reason) => f.write_str(reason),
            Self::Type { found, expected } | Self::Value { found, expected } => {
                write!(f, "it takes {expected}, not {found}")
            }
            Self::UnknownWord { word, known } => write!(f, "unknown variant `{word}`, {}", one_of(known, "variants")),
            Self::UnknownField { field, known } => write!(f, "unknown field `{field}`, {}", one_of(known, "fields")),
            Self::MissingField(field) => write!(f, "missing field `{field}`"),
            Self::DuplicateField(field) => write!(f, "duplicate field `{field}`"),
        }
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self::Refused(reason.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Type { found: as_found(found), expected: as_expected(&expected.to_string()).to_owned() }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Value { found: as_found(found), expected: as_expected(&expected.to_string()).to_owned() }
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Self::UnknownWord { word: word.to_owned(), known }
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::UnknownField { field: field.to_owned(), known: known.to_vec() }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::MissingField(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::DuplicateField(field)
    }
}

/// Returns the client's name for what a type expects. A type of the project's own says that in such words already.
fn as_expected(name: &str) -> &str {
    let known = EXPECTED.iter().find(|(expected, _)| *expected == name).map(|(_, plain)| *plain);
    let begins_with = |beginnings: &[&str]| beginnings.iter().any(|beginning| name.starts_with(beginning));
    known.unwrap_or(match name {
        _ if begins_with(&["struct ", "internally tagged enum ", "map with "]) => "an object",
        _ if begins_with(&["tuple struct ", "a tuple of size "]) => "a list",
        _ if begins_with(&["enum ", "unit variant ", "variant identifier"]) => "one of its words",
        other => other,
    })
}

fn as_found(value: Unexpected<'_>) -> String {
    match value {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number:?}"),
        Unexpected::Str(text) => format!("the string {text:?}"),
        Unexpected::Unit => "null".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        other => other.to_string(),
    }
}

/// Lists the names that are known, as serde does.
fn one_of(known: &[&str], kind: &str) -> String {
    match known {
        [] => format!("there are no {kind}"),
        [one] => format!("expected `{one}`"),
        [one, other] => format!("expected `{one}` or `{other}`"),
        many => format!("expected one of `{}`", many.join("`, `")),
    }
}

// === impl FieldMisfit ===

impl FieldMisfit {
    /// Blames the field to which a path leads, or the field of that object which the misfit names.
    pub(crate) fn new(error: serde_path_to_error::Error<Misfit>) -> Self {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        let misfit = error.into_inner();
        let field = match misfit.field() {
            Some(name) if path.is_empty() => name.to_owned(),
            // The path leads to a field that is unknown, but not to one that is missing.
            Some(name) if path != name && !path.ends_with(&format!(".{name}")) => format!("{path}.{name}"),
            Some(_) | None => path,
        };
        Self { field, misfit }
    }
}
