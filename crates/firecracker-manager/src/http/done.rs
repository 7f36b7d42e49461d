//! The fields `success` and `error` that answers have beside their own, for clients that were written for other
//! services with this interface. `error` is set where `success` is false.

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
    /// Answers that the call and its action succeeded.
    pub(super) fn well(answer: T) -> Self {
        Self { success: true, error: None, answer }
    }

    /// Answers that the call was carried out and its action failed.
    pub(super) fn badly(answer: T, error: String) -> Self {
        Self { success: false, error: Some(error), answer }
    }
}

impl<T: Serialize> IntoResponse for Done<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}
