//! Passes requests on to the server that drives the workspace, or hosts the MCP server, that they are about.
//!
//! Servers that share a database are one to their callers: each answers for all workspaces. It is decided before the
//! body is read, so that the body can be streamed on; a workspace of this server's own costs no query. A request is
//! passed on once at most.

mod relay;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, Method},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use emergent_budget::Account;
use emergent_core::{Peer, ServerRow, WorkspaceId, WorkspaceOwner};
use emergent_mcp_hosting::HostingError;

use crate::{
    auth::grant_of,
    http::problem::{ProblemKind, Refusal},
    state::ApiState,
};

/// The server that has passed a request on.
const FORWARDED_BY: HeaderName = HeaderName::from_static("x-emergent-forwarded-by");
const WORKSPACES: &str = "/api/v1/agent/workspaces";
const MCP_SERVERS: &str = "/api/v1/mcp/servers";
/// After how many seconds a workspace of a dead server has found another, if one shares its engine.
const TAKEN_OVER: u64 = 30;

/// The subject of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About<'a> {
    /// A workspace that only its server can do this with.
    Workspace(WorkspaceId),
    /// A hosted MCP server, by its id or name, that only its host can do this with.
    McpServer(&'a str),
    /// A workspace that is to be made.
    NewWorkspace,
    /// Something that every server can answer.
    Anything,
}

pub(crate) async fn route(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let peer = match about(request.method(), request.uri().path()) {
        About::Anything => Ok(None),
        About::Workspace(id) => driver_of(&state, id, request.headers()).await,
        About::McpServer(id_or_name) => host_of(&state, id_or_name, request.headers()).await,
        About::NewWorkspace => maker_instead(&state, request.headers()).await,
    };
    match peer {
        Ok(None) => next.run(request).await,
        Ok(Some(peer)) => match count(&state, request.headers()).await {
            Ok(()) => relay::pass_on(&state, &peer, request).await.unwrap_or_else(Refusal::into_response),
            Err(refusal) => refusal.into_response(),
        },
        Err(refusal) => refusal.into_response(),
    }
}

/// Counts what is passed on as a call of its project here, too: it takes a connection of this server's.
async fn count(state: &ApiState, headers: &HeaderMap) -> Result<(), Refusal> {
    // Whoever has no valid token is told so by the other server.
    if let (Some(account), Ok(principal)) = (Account::current(), grant_of(headers, state).await) {
        account.begin_call(principal.project.as_uuid().as_u128())?;
    }
    Ok(())
}

fn about<'a>(method: &Method, path: &'a str) -> About<'a> {
    if path == WORKSPACES && method == Method::POST {
        return About::NewWorkspace;
    }
    // What a workspace is, and what an MCP server is, stands in its row.
    let looks = |action: Option<&str>| action.is_none() && matches!(*method, Method::GET | Method::HEAD);
    if let Some((id, action)) = one_of(WORKSPACES, path) {
        return match id.parse() {
            Ok(id) if !looks(action) => About::Workspace(id),
            Ok(_) | Err(_) => About::Anything,
        };
    }
    match one_of(MCP_SERVERS, path) {
        Some((id_or_name, action)) if !looks(action) => About::McpServer(id_or_name),
        Some(_) | None => About::Anything,
    }
}

/// Returns the name in a path below a collection, and the operation on what is named.
fn one_of<'a>(collection: &str, path: &'a str) -> Option<(&'a str, Option<&'a str>)> {
    let rest = path.strip_prefix(collection)?.strip_prefix('/')?;
    Some(rest.split_once('/').map_or((rest, None), |(one, action)| (one, Some(action))))
}

/// The other server to ask about a workspace; `None` to answer here.
async fn driver_of(state: &ApiState, id: WorkspaceId, headers: &HeaderMap) -> Result<Option<ServerRow>, Refusal> {
    let Peer { server, project } = match state.workspaces().servers().locate_owner(id).await? {
        WorkspaceOwner::Here => return Ok(None),
        WorkspaceOwner::Elsewhere(peer) => *peer,
    };
    // Where a workspace is, is told to those alone who may see it; what others are told is the handler's to say.
    if !grant_of(headers, state).await.is_ok_and(|principal| principal.project == project) {
        return Ok(None);
    }
    reachable(server, headers, "drives this workspace").map(Some)
}

/// The other server to ask about a hosted MCP server; `None` to answer here.
async fn host_of(state: &ApiState, id_or_name: &str, headers: &HeaderMap) -> Result<Option<ServerRow>, Refusal> {
    // Who may not see it is told the same as of one that is not there, by the handler.
    let Ok(principal) = grant_of(headers, state).await else { return Ok(None) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_one_server_alone_can_answer_is_about_what_it_has() {
        let id = WorkspaceId::generate();
        let path = |rest: &str| format!("{WORKSPACES}/{id}{rest}");
        for (method, path, expected) in [
            (Method::POST, path("/bash"), About::Workspace(id)),
            (Method::GET, path("/files/content"), About::Workspace(id)),
            (Method::DELETE, path(""), About::Workspace(id)),
            (Method::GET, path(""), About::Anything),
            (Method::POST, WORKSPACES.to_owned(), About::NewWorkspace),
            (Method::GET, WORKSPACES.to_owned(), About::Anything),
            (Method::GET, format!("{WORKSPACES}/providers"), About::Anything),
            (Method::POST, "/api/v1/tokens".to_owned(), About::Anything),
            (Method::GET, format!("{WORKSPACES}x/{id}/bash"), About::Anything),
            (Method::POST, format!("{MCP_SERVERS}/clock/mcp"), About::McpServer("clock")),
            (Method::GET, format!("{MCP_SERVERS}/clock/mcp"), About::McpServer("clock")),
            (Method::DELETE, format!("{MCP_SERVERS}/clock"), About::McpServer("clock")),
            (Method::GET, format!("{MCP_SERVERS}/clock"), About::Anything),
            (Method::POST, MCP_SERVERS.to_owned(), About::Anything),
        ] {
            assert_eq!(about(&method, &path), expected, "{method} {path}");
        }
    }
}
