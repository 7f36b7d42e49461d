//! The header `Emergent-Session`: the session on whose behalf a call is made.
//!
//! A call that carries the header is refused while another session holds the workspace. A call without it is an
//! operator's and always allowed. Attaching, detaching and listing sessions are never refused, so that an agent can
//! always attach again.

use axum::{
    extract::MatchedPath,
    http::{Method, request::Parts},
};
use emergent_core::{ProjectId, SessionCall, SessionId};
use emergent_types::WorkspaceId;
use utoipa::openapi::{
    KnownFormat, ObjectBuilder, OpenApi, RefOr, SchemaFormat,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem},
    schema::Type,
};

use crate::{
    http::{
        SESSION,
        extract::path_parameter,
        problem::{ProblemKind, Refusal},
    },
    state::ApiState,
};

const WORKSPACE: &str = "/api/v1/agent/workspaces/{id}";
/// The calls below a workspace that need no session.
const FREE: [&str; 3] = ["/attach", "/detach", "/sessions"];

/// Refuses a call on behalf of a session that does not hold the workspace in the path. The returned value keeps the
/// session from running out while the call goes on.
pub(super) async fn begin(
    parts: &mut Parts,
    state: &ApiState,
    project: ProjectId,
) -> Result<Option<SessionCall>, Refusal> {
    let Some(value) = parts.headers.get(SESSION) else { return Ok(None) };
    let path = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
    if !is_bound(path, &parts.method) {
        return Ok(None);
    }
    let session = value.to_str().ok().and_then(|text| text.parse::<SessionId>().ok()).ok_or_else(|| {
        let message = "it is not a session id, which is the UUID that POST …/attach answered";
        Refusal::of_field(ProblemKind::InvalidRequest, "Emergent-Session", message)
    })?;
    // What is no id is refused where the path is read.
    let Ok(id) = path_parameter(parts, state, "id").await?.parse::<WorkspaceId>() else { return Ok(None) };
    Ok(Some(state.workspaces().sessions().begin_call(project, id, session).await?))
}

fn is_bound(path: &str, method: &Method) -> bool {
    match path.strip_prefix(WORKSPACE) {
        None => false,
        Some("") => method != Method::GET,
        Some(below) => !FREE.contains(&below),
    }
}

/// Documents the header for every call that can be bound to a session.
pub(crate) fn document(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let PathItem { get, put, post, delete, patch, .. } = item;
        let operations = [
            (Method::GET, get),
            (Method::PUT, put),
            (Method::POST, post),
            (Method::DELETE, delete),
            (Method::PATCH, patch),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation
                && is_bound(path, &method)
            {
                add_parameter(operation);
            }
        }
    }
}

fn add_parameter(operation: &mut Operation) {
    operation.parameters.get_or_insert_default().push(RefOr::T(parameter()));
}

fn parameter() -> Parameter {
    let uuid =
        ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)));
    ParameterBuilder::new()
        .name("Emergent-Session")
        .parameter_in(ParameterIn::Header)
        .description(Some(
            "The session that the call is made for, from `POST …/attach`. While another one holds the workspace, the \
             call is refused with 409. Left out: an operator's call, which is not held back.",
        ))
        .schema(Some(RefOr::T(uuid.build().into())))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_uses_a_workspace_is_bound_and_what_finds_the_way_back_in_is_not() {
        let bound = [
            ("/api/v1/agent/workspaces/{id}/bash", Method::POST, true),
            ("/api/v1/agent/workspaces/{id}/processes/{execution_id}", Method::GET, true),
            ("/api/v1/agent/workspaces/{id}", Method::DELETE, true),
            ("/api/v1/agent/workspaces/{id}", Method::PATCH, true),
            ("/api/v1/agent/workspaces/{id}", Method::GET, false),
            ("/api/v1/agent/workspaces/{id}/attach", Method::POST, false),
            ("/api/v1/agent/workspaces/{id}/detach", Method::POST, false),
            ("/api/v1/agent/workspaces/{id}/sessions", Method::GET, false),
            ("/api/v1/agent/workspaces", Method::POST, false),
            ("/api/v1/tokens/{id}", Method::DELETE, false),
        ];
        for (path, method, expected) in bound {
            assert_eq!(is_bound(path, &method), expected, "{method} {path}");
        }
    }
}
