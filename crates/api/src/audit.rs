//! The audit's layer around every handler that reaches into a workspace or changes one: collects the facts of a request
//! for its row.
//!
//! The routes and their names in the audit come from the OpenAPI document (`actions`), so that a new route needs no
//! code here. A row is recorded once the whole answer has been sent, so that a stream's duration counts; a request
//! whose caller went away is recorded as abandoned when it is dropped.
//!
//! | fact | source |
//! | --- | --- |
//! | caller | the extractor of the token |
//! | arguments | the extractors of bodies and queries, through [`Check::arguments`](crate::http::check::Check::arguments) |
//! | problem | [`Refusal`](crate::http::problem::Refusal), with the answer |
//! | time-out of a command | the handlers of commands |

mod actions;
mod body;
mod pending;

use std::sync::{Arc, atomic::AtomicU64};

use axum::{
    body::{Body, HttpBody as _},
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::Response,
};
use emergent_core::{AuditKind, Origin, WorkspaceId, Workspaces};
use utoipa::openapi::OpenApi;
use uuid::Uuid;

use self::{
    actions::Actions,
    body::{Counted, Watched},
    pending::Pending,
};
use crate::{
    facts::CallFacts,
    http::{SESSION, observe::RequestId, problem::ProblemKind},
};

/// The parts that the audit's layer works with. Clones are cheap.
#[derive(Clone)]
pub(crate) struct AuditLayer {
    workspaces: Workspaces,
    actions: Arc<Actions>,
}

// === impl AuditLayer ===

impl AuditLayer {
    /// Makes a layer that records the calls in this document.
    pub(crate) fn new(workspaces: Workspaces, document: &OpenApi) -> Self {
        Self { workspaces, actions: Arc::new(Actions::of(document)) }
    }
}

/// Records a call; the function of the audit's layer.
pub(crate) async fn audit(State(layer): State<AuditLayer>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let action = route.and_then(|route| layer.actions.find(request.method(), route.as_str()));
    let Some((kind, action)) = action else { return next.run(request).await };
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
    let origin = Origin::request(id, session(&request));
    let facts = CallFacts::new(origin.clone(), layer.workspaces.config().audit.arguments);
    let bytes_in = Arc::new(AtomicU64::new(0));
    let workspace = workspace(request.uri().path());
    let audit = layer.workspaces.audit().clone();
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

/// Returns the workspace that a path names.
fn workspace(path: &str) -> Option<WorkspaceId> {
    path.strip_prefix(actions::WORKSPACES)?.split('/').find(|part| !part.is_empty())?.parse().ok()
}
