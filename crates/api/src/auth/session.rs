//! The header `Emergent-Session`: the session on whose behalf a call is made.
//!
//! A call that carries the header is refused while another session holds the workspace. A call without it is an
//! operator's and always allowed. Attaching, detaching and listing sessions are never refused, so that an agent can
//! always attach again.

use axum::http::request::Parts;
use emergent_core::{ProjectId, SessionCall, SessionId};
use emergent_types::WorkspaceId;

use crate::{
    http::{
        SESSION,
        extract::path_parameter,
        problem::{ProblemKind, Refusal},
        route::{RouteMetadata, SessionRule},
    },
    state::ApiState,
};

/// Refuses a call on behalf of a session that does not hold the workspace in the path. The returned value keeps the
/// session from running out while the call goes on.
pub(super) async fn begin(
    parts: &mut Parts,
    state: &ApiState,
    route: &RouteMetadata,
    project: ProjectId,
) -> Result<Option<SessionCall>, Refusal> {
    let Some(value) = parts.headers.get(SESSION) else { return Ok(None) };
    if route.session == SessionRule::Free {
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
