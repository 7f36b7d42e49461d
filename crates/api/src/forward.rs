//! Passes requests on to the server that drives the workspace that they are about.
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
use emergent_core::{Peer, ServerRow, Whereabouts, WorkspaceId};

pub use relay::{Peers, UnusableAuthority};

use crate::{
    auth::token_of,
    problem::{ProblemKind, Refusal},
    state::ApiState,
};

/// The server that has passed a request on.
const FORWARDED_BY: HeaderName = HeaderName::from_static("x-emergent-forwarded-by");
const WORKSPACES: &str = "/api/v1/agent/workspaces";
/// After how many seconds a workspace of a dead server has found another, if one shares its engine.
const TAKEN_OVER: u64 = 30;

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// A workspace that only its server can do this with.
    Workspace(WorkspaceId),
    /// A workspace that is to be made.
    NewWorkspace,
    /// Something that every server can answer.
    Anything,
}

pub(crate) async fn route(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let peer = match about(request.method(), request.uri().path()) {
        About::Anything => Ok(None),
        About::Workspace(id) => driver_of(&state, id, request.headers()).await,
        About::NewWorkspace => maker_instead(&state, request.headers()).await,
    };
    match peer {
        Ok(None) => next.run(request).await,
        Ok(Some(peer)) => relay::pass_on(&state, &peer, request).await.unwrap_or_else(Refusal::into_response),
        Err(refusal) => refusal.into_response(),
    }
}

fn about(method: &Method, path: &str) -> About {
    let Some(rest) = path.strip_prefix(WORKSPACES) else { return About::Anything };
    if rest.is_empty() {
        return if method == Method::POST { About::NewWorkspace } else { About::Anything };
    }
    let Some(rest) = rest.strip_prefix('/') else { return About::Anything };
    let (id, action) = rest.split_once('/').map_or((rest, None), |(id, action)| (id, Some(action)));
    match id.parse() {
        // What a workspace is stands in its row.
        Ok(_) if action.is_none() && matches!(*method, Method::GET | Method::HEAD) => About::Anything,
        Ok(id) => About::Workspace(id),
        Err(_) => About::Anything,
    }
}

/// The other server to ask about a workspace; `None` to answer here.
async fn driver_of(state: &ApiState, id: WorkspaceId, headers: &HeaderMap) -> Result<Option<ServerRow>, Refusal> {
    let Peer { server, project } = match state.workspaces().whereabouts(id).await? {
        Whereabouts::Here => return Ok(None),
        Whereabouts::Elsewhere(peer) => *peer,
    };
    // Where a workspace is, is told to those alone who may see it; what others are told is the handler's to say.
    if !token_of(headers, state).await.is_ok_and(|token| token.project == project) {
        return Ok(None);
    }
    if !server.alive {
        let detail = format!(
            "the workspace's server, {}, has not been heard of for a while and nobody has taken over yet; another server \
             that shares its engine does within a minute, and where there is none, start that one again",
            server.title()
        );
        return Err(Refusal::new(ProblemKind::ServerAway, detail).retry_after(TAKEN_OVER));
    }
    if server.url.is_none() || headers.contains_key(FORWARDED_BY) {
        let place = server.url.as_ref().map_or_else(String::new, |url| format!(" at {url}"));
        let advice = "ask that server, or set EMERGENT_ADVERTISE_URL there to where this one reaches it";
        let detail = format!("the server {}{place} drives this workspace; {advice}", server.title());
        return Err(Refusal::new(ProblemKind::WorkspaceElsewhere, detail));
    }
    Ok(Some(server))
}

/// The other server that makes new workspaces while this one is draining; `None` to answer here.
async fn maker_instead(state: &ApiState, headers: &HeaderMap) -> Result<Option<ServerRow>, Refusal> {
    if !state.workspaces().is_draining() || headers.contains_key(FORWARDED_BY) {
        return Ok(None);
    }
    let others = state.workspaces().others_that_take_new().await?;
    Ok(others.into_iter().find(|server| server.url.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_one_server_alone_can_answer_is_about_a_workspace() {
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
        ] {
            assert_eq!(about(&method, &path), expected, "{method} {path}");
        }
    }
}
