//! The reader of JSON bodies.

mod reader;

use serde::de::DeserializeOwned;

use self::reader::{Raised, Reader};
use crate::misfit::{FieldMisfit, Misfit};

/// The reason why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The body is JSON of another kind, or no JSON.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// The body is no JSON.
    #[error("the body is not well-formed JSON: {0}")]
    Malformed(String),
    /// Something stands behind the object.
    #[error("after the JSON: {0}")]
    Trailing(String),
    /// A field does not fit.
    #[error(transparent)]
    Field(#[from] FieldMisfit),
}

/// Reads a body, which is one JSON object.
///
/// # Errors
/// [`JsonError`] with the first fault.
pub fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, JsonError> {
    // A list would be read as an object's values in order, which no client means.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(JsonError::NotAnObject);
    }
    value(body)
}

/// Reads a JSON value of any type.
fn value<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let raised = Raised::default();
    let value = serde_path_to_error::deserialize(Reader::new(&mut json, &raised)).map_err(|error| {
        match FieldMisfit::new(error) {
            FieldMisfit { misfit: Misfit::Malformed(reason), .. } => JsonError::Malformed(reason),
            misfit => JsonError::Field(misfit),
        }
    })?;
    json.end().map_err(|error| JsonError::Trailing(error.to_string()))?;
    Ok(value)
}

#[cfg(test)]
mod tests;
