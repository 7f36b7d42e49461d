//! The audit's layer around every handler that reaches into a workspace or changes one: collects the facts of a request
//! for its row.
//!
//! The metadata of a route says whether its calls are recorded, and under which name. A row is recorded once the whole
//! answer has been sent, so that a stream's duration counts; a request whose caller went away is recorded as abandoned
//! when it is dropped.
//!
//! | fact | source |
//! | --- | --- |
//! | caller | the extractor of the token |
//! | arguments | the extractors of bodies and queries, through [`Check::arguments`](crate::http::check::Check::arguments) |
//! | problem | [`Refusal`](crate::http::problem::Refusal), with the answer |
//! | time-out of a command | the handlers of commands |

mod body;
mod pending;

use std::sync::{Arc, atomic::AtomicU64};

use axum::{
    body::{Body, HttpBody as _},
    extract::{Request, State},
    http::{header, request::Parts},
    middleware::Next,
    response::Response,
};
use emergent_core::{AuditKind, Origin, WorkspaceId, Workspaces};
use uuid::Uuid;

use self::{
    body::{Counted, Watched},
    pending::Pending,
};
use crate::{
    facts::CallFacts,
    http::{
        SESSION,
        extract::path_parameter,
        observe::RequestId,
        problem::ProblemKind,
        route::{AuditedAs, RouteMetadata, Subject},
    },
};

/// Records a call; the function of the audit's layer.
pub(crate) async fn audit(State(workspaces): State<Workspaces>, request: Request, next: Next) -> Response {
    let Some(route) = request.extensions().get::<Arc<RouteMetadata>>().cloned() else { return next.run(request).await };
    let Some(AuditedAs { kind, action }) = route.audit.clone() else { return next.run(request).await };
    let (mut parts, body) = request.into_parts();
    let workspace = workspace(&route, &mut parts).await;
    let mut request = Request::from_parts(parts, body);
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
    let origin = Origin::request(id, session(&request));
    let facts = CallFacts::new(origin.clone(), workspaces.config().audit.arguments);
    let bytes_in = Arc::new(AtomicU64::new(0));
    let audit = workspaces.audit().clone();
    let mut pending =
        Pending::new(audit, origin.clone(), facts.clone(), kind, action, workspace, Arc::clone(&bytes_in));
    request.extensions_mut().insert(facts);
    let request = request.map(|body| Body::new(Counted::new(body, bytes_in)));
    let response = origin.clone().scope(next.run(request)).await;

    pending.answered(response.status(), response.extensions().get::<ProblemKind>().copied());
    // The core has noted what it did itself, and knows better.
    if kind == AuditKind::Lifecycle && origin.is_noted() {
        pending.forget();
        return response;
    }
    // Whoever sends the answer asks for no more of its body than its head has promised: for nothing, if that is
    // nothing.
    let promised = response.headers().get(header::CONTENT_LENGTH);
    let promised: Option<u64> = promised.and_then(|length| length.to_str().ok()?.parse().ok());
    match response.body().size_hint().exact().or(promised.filter(|bytes| *bytes == 0)) {
        Some(length) => {
            pending.sent(length);
            pending.complete();
            response
        }
        None => response.map(|body| Body::new(Watched::new(body, promised, pending))),
    }
}

/// Returns the session that the caller names. A text that is no session id is refused elsewhere.
fn session(request: &Request) -> Option<String> {
    let text = request.headers().get(SESSION)?.to_str().ok()?;
    Uuid::try_parse(text).ok().map(|id| id.to_string())
}

/// Returns the workspace that the path names, if the call is about one.
async fn workspace(route: &RouteMetadata, parts: &mut Parts) -> Option<WorkspaceId> {
    if route.subject != Subject::Workspace {
        return None;
    }
    path_parameter(parts, &(), "id").await.ok()?.parse().ok()
}
