//! What an answer says beside its own words: `success`, and `error` where there is none, for clients that were written for
//! other services of this interface.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// The answer of a call that was carried out.
#[derive(Debug, Serialize)]
pub(super) struct Done<T> {
    success: bool,
    error: Option<String>,
    #[serde(flatten)]
    answer: T,
}

// === impl Done ===

impl<T> Done<T> {
    /// All went well.
    pub(super) fn well(answer: T) -> Self {
        Self { success: true, error: None, answer }
    }

    /// The call was carried out, and what it was about failed.
    pub(super) fn badly(answer: T, error: String) -> Self {
        Self { success: false, error: Some(error), answer }
    }
}

impl<T: Serialize> IntoResponse for Done<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}
