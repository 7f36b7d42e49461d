//! Words and JSON in columns, as the types that they stand for.

use std::collections::BTreeMap;

use emergent_provider::{ContainerKind, Isolation};
use emergent_types::NetworkPolicy;
use sea_orm::JsonValue;
use serde::de::DeserializeOwned;

use crate::StoreError;

/// An enum that a column holds as a word.
pub(crate) trait Word: Sized + Copy + 'static {
    const ALL: &'static [Self];

    fn word(self) -> &'static str;
}

impl Word for ContainerKind {
    const ALL: &'static [Self] = &[Self::AgentWorkspace, Self::McpServer];

    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl Word for NetworkPolicy {
    const ALL: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl Word for Isolation {
    const ALL: &'static [Self] = &[Self::Container, Self::Gvisor, Self::Hardware];

    fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Gvisor => "gvisor",
            Self::Hardware => "hardware",
        }
    }
}

/// A text as every database keeps it: PostgreSQL takes all characters but NUL.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// JSON as every database keeps it.
pub(crate) fn storable_json(json: JsonValue) -> JsonValue {
    match json {
        JsonValue::String(text) => JsonValue::String(storable(&text)),
        JsonValue::Array(items) => JsonValue::Array(items.into_iter().map(storable_json).collect()),
        JsonValue::Object(fields) => {
            JsonValue::Object(fields.into_iter().map(|(key, value)| (storable(&key), storable_json(value))).collect())
        }
        JsonValue::Null | JsonValue::Bool(_) | JsonValue::Number(_) => json,
    }
}

/// The enum that a column's word stands for.
pub(crate) fn from_word<T: Word>(column: &'static str, word: &str) -> Result<T, StoreError> {
    let known = T::ALL.iter().copied().find(|value| value.word() == word);
    known.ok_or_else(|| unknown(column, word))
}

/// The value that a column's text stands for.
pub(crate) fn parse<T: std::str::FromStr>(column: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| unknown(column, text))
}

/// The value that a column's JSON stands for.
pub(crate) fn from_json<T: DeserializeOwned>(column: &'static str, json: JsonValue) -> Result<T, StoreError> {
    T::deserialize(&json).map_err(|_| unknown(column, &json.to_string()))
}

/// A map of texts as a column's JSON.
pub(crate) fn to_json(map: &BTreeMap<String, String>) -> JsonValue {
    JsonValue::Object(map.iter().map(|(key, value)| (key.clone(), JsonValue::from(storable(value)))).collect())
}

/// A number of bytes as a column has it. No engine has 8 EiB: the largest number says as much.
pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A number that a column holds as a signed one.
pub(crate) fn from_integer<T: TryFrom<i64>>(column: &'static str, number: i64) -> Result<T, StoreError> {
    T::try_from(number).map_err(|_| unknown(column, &number.to_string()))
}

pub(crate) fn unknown(column: &'static str, value: &str) -> StoreError {
    StoreError::UnknownValue { column, value: value.to_owned() }
}
