//! Problems: what every answer that is not a success says (RFC 9457), and the one place where failures become HTTP.

mod from_auth;
mod from_core;
mod from_guest;
mod from_mcp;
mod kind;
mod responses;

use axum::{
    Json,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(crate) use from_core::{of_failed_create, of_failed_snapshot};
pub use kind::ProblemKind;
pub use responses::{OnGuest, OnMcpServer, OnMcpServerFiles, OnSnapshot, OnWorkspace, Usual};

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A failure as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The stable address of this kind of problem, relative to the server; a page there explains it.
    #[serde(rename = "type")]
    #[schema(example = "/problems/workspace-not-found")]
    pub kind: String,
    /// The kind in a few words.
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// The details of this occurrence, and the caller's next step.
    pub detail: String,
    /// The fields that are to blame, where there are some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The path inside the workspace that is to blame, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The execution that the call was about: it may be running, and can be reattached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<String>,
    /// The call, where it changes something and may have happened: `GET …/calls/{call_id}` tells what came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// The workspace that could not be made, and is listed with its reason until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
}

/// A field that is to blame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// The field, as a path such as `resource_limits.memory`.
    pub field: String,
    /// The fault of the field and the values that it takes.
    pub message: String,
}

/// A problem on its way out: what is sent, and which headers go with it.
#[derive(Debug)]
pub struct Refusal {
    kind: ProblemKind,
    problem: Box<Problem>,
    retry_after_seconds: Option<u64>,
}

impl Refusal {
    /// A problem of a kind; `detail` says what happened and what to do next.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let problem = Problem {
            kind: kind.address(),
            title: kind.title().to_owned(),
            status: kind.status().as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
            path: None,
            execution_id: None,
            call_id: None,
            workspace_id: None,
        };
        Self { kind, problem: Box::new(problem), retry_after_seconds: None }
    }

    /// A problem that blames fields. The detail repeats the first one, for whoever shows only that.
    pub fn of_fields(kind: ProblemKind, errors: Vec<FieldError>) -> Self {
        let detail = errors.first().map(|first| match first.field.as_str() {
            "" => first.message.clone(),
            field => format!("{field}: {}", first.message),
        });
        let mut refusal = Self::new(kind, detail.unwrap_or_else(|| kind.title().to_owned()));
        refusal.problem.errors = errors;
        refusal
    }

    /// A problem that blames one field.
    pub fn of_field(kind: ProblemKind, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::of_fields(kind, vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// The same problem, saying when to try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// The same problem, naming an execution to reattach to.
    #[must_use]
    pub fn with_execution(mut self, id: Option<impl ToString>) -> Self {
        self.problem.execution_id = id.map(|id| id.to_string());
        self
    }

    /// The same problem, naming the call whose outcome can be asked for.
    #[must_use]
    pub fn with_call(mut self, id: Option<impl ToString>) -> Self {
        self.problem.call_id = id.map(|id| id.to_string());
        self
    }

    /// The same problem, naming the workspace that could not be made.
    #[must_use]
    pub fn with_workspace(mut self, id: impl ToString) -> Self {
        self.problem.workspace_id = Some(id.to_string());
        self
    }

    /// The same problem, naming a path in the workspace.
    #[must_use]
    pub fn with_path(mut self, path: Option<impl ToString>) -> Self {
        self.problem.path = path.map(|path| path.to_string());
        self
    }

    /// The kind of problem.
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// The problem that is sent.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.kind.status(), Json(self.problem)).into_response();
        // For the layers around the handler, such as the audit.
        response.extensions_mut().insert(self.kind);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.kind == ProblemKind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"emergent\""));
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_an_address_of_its_own_and_a_status_of_failure() {
        let slugs: HashSet<_> = ProblemKind::ALL.iter().map(|kind| kind.slug()).collect();
        assert_eq!(slugs.len(), ProblemKind::ALL.len());
        for kind in ProblemKind::ALL {
            assert!(kind.status().is_client_error() || kind.status().is_server_error(), "{kind:?}");
        }
    }
}
