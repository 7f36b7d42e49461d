//! Passes requests on to the server that drives the workspace, or hosts the MCP server, that they are about.
//!
//! Servers that share a database are one to their callers: each answers for all workspaces. It is decided before the
//! body is read, so that the body can be streamed on; a workspace of this server's own costs no query. A request is
//! passed on once at most.

mod relay;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use emergent_budget::Account;
use emergent_core::{Peer, ServerRow, WorkspaceId, WorkspaceOwner};
use emergent_mcp_hosting::HostingError;

use crate::{
    auth::principal_of,
    http::{
        extract::path_parameter,
        problem::{ProblemKind, Refusal},
        route::{Affinity, RouteMetadata, Subject},
    },
    state::ApiState,
};

/// The server that has passed a request on.
const FORWARDED_BY: HeaderName = HeaderName::from_static("x-emergent-forwarded-by");
/// After how many seconds a workspace of a dead server has found another, if one shares its engine.
const TAKEN_OVER: u64 = 30;

/// The layer: passes a request on, or lets this server answer.
pub(crate) async fn route(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let peer = peer(&state, &mut parts).await;
    let request = Request::from_parts(parts, body);
    match peer {
        Ok(None) => next.run(request).await,
        Ok(Some(peer)) => match count(&state, request.headers()).await {
            Ok(()) => relay::pass_on(&state, &peer, request).await.unwrap_or_else(Refusal::into_response),
            Err(refusal) => refusal.into_response(),
        },
        Err(refusal) => refusal.into_response(),
    }
}

/// Returns the other server that is to answer a request; `None` to answer here.
async fn peer(state: &ApiState, parts: &mut Parts) -> Result<Option<ServerRow>, Refusal> {
    // What has no metadata is no route, or a page.
    let Ok(route) = RouteMetadata::of(parts) else { return Ok(None) };
    match (route.affinity, route.subject) {
        (Affinity::Any, _) | (Affinity::OwnerOfSubject, Subject::Project) => Ok(None),
        (Affinity::TakesNewWorkspaces, _) => maker_instead(state, &parts.headers).await,
        (Affinity::OwnerOfSubject, Subject::Workspace) => {
            // What is no id is refused where the path is read.
            let Ok(id) = path_parameter(parts, state, "id").await?.parse() else { return Ok(None) };
            driver_of(state, id, &parts.headers).await
        }
        (Affinity::OwnerOfSubject, Subject::McpServer) => {
            let id_or_name = path_parameter(parts, state, "id").await?;
            host_of(state, &id_or_name, &parts.headers).await
        }
    }
}

/// Counts what is passed on as a call of its project here, too: it takes a connection of this server's.
async fn count(state: &ApiState, headers: &HeaderMap) -> Result<(), Refusal> {
    // Whoever has no valid token is told so by the other server.
    if let (Some(account), Ok(principal)) = (Account::current(), principal_of(headers, state).await) {
        account.begin_call(principal.project.as_uuid().as_u128())?;
    }
    Ok(())
}

/// The other server to ask about a workspace; `None` to answer here.
async fn driver_of(state: &ApiState, id: WorkspaceId, headers: &HeaderMap) -> Result<Option<ServerRow>, Refusal> {
    let Peer { server, project } = match state.workspaces().servers().locate_owner(id).await? {
        WorkspaceOwner::Here => return Ok(None),
        WorkspaceOwner::Elsewhere(peer) => *peer,
    };
    // Where a workspace is, is told to those alone who may see it; what others are told is the handler's to say.
    if !principal_of(headers, state).await.is_ok_and(|principal| principal.project == project) {
        return Ok(None);
    }
    reachable(server, headers, "drives this workspace").map(Some)
}

/// The other server to ask about a hosted MCP server; `None` to answer here.
async fn host_of(state: &ApiState, id_or_name: &str, headers: &HeaderMap) -> Result<Option<ServerRow>, Refusal> {
    // Who may not see it is told the same as of one that is not there, by the handler.
    let Ok(principal) = principal_of(headers, state).await else { return Ok(None) };
    match state.hosting().host_elsewhere(principal.project, id_or_name).await {
        Ok(Some(server)) => reachable(server, headers, "hosts this MCP server").map(Some),
        Ok(None) | Err(HostingError::Disabled) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The server, if a request can be passed on to it.
fn reachable(server: ServerRow, headers: &HeaderMap, does: &str) -> Result<ServerRow, Refusal> {
    if !server.alive {
        let detail = format!(
            "the server {}, which {does}, has not been heard of for a while and nobody has taken over yet; another server \
             that shares its engine does within a minute, and where there is none, start that one again",
            server.title()
        );
        return Err(Refusal::new(ProblemKind::ServerAway, detail).retry_after(TAKEN_OVER));
    }
    if server.url.is_none() || headers.contains_key(FORWARDED_BY) {
        let place = server.url.as_ref().map_or_else(String::new, |url| format!(" at {url}"));
        let advice = "ask that server, or set EMERGENT_ADVERTISE_URL there to where this one reaches it";
        let detail = format!("the server {}{place} {does}; {advice}", server.title());
        return Err(Refusal::new(ProblemKind::WorkspaceElsewhere, detail));
    }
    Ok(server)
}

/// The other server that makes new workspaces while this one is draining; `None` to answer here.
async fn maker_instead(state: &ApiState, headers: &HeaderMap) -> Result<Option<ServerRow>, Refusal> {
    if !state.workspaces().servers().is_draining() || headers.contains_key(FORWARDED_BY) {
        return Ok(None);
    }
    let others = state.workspaces().servers().others_that_take_new().await?;
    Ok(others.into_iter().find(|server| server.url.is_some()))
}
