//! Whether the caller's project has the workspace that the path names: asked before a byte of the body is read, so that
//! nobody makes the server read for a workspace of others.

use axum::http::{Method, request::Parts};
use emergent_core::{CallError, ProjectId};
use emergent_types::WorkspaceId;

use crate::{
    http::{
        extract::path_parameter,
        problem::Refusal,
        route::{RouteMetadata, Subject},
    },
    state::ApiState,
};

/// Refuses a request with a body about a workspace that the project does not have.
pub(super) async fn check(
    parts: &mut Parts,
    state: &ApiState,
    route: &RouteMetadata,
    project: ProjectId,
) -> Result<(), Refusal> {
    if route.subject != Subject::Workspace || matches!(parts.method, Method::GET | Method::HEAD | Method::DELETE) {
        return Ok(());
    }
    // What is no id is refused where the path is read.
    let Ok(id) = path_parameter(parts, state, "id").await?.parse::<WorkspaceId>() else { return Ok(()) };
    if state.workspaces().has(project, id).await? { Ok(()) } else { Err(CallError::NotFound.into()) }
}
