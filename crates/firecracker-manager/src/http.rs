//! The REST API over [`Sandboxes`].
//!
//! Answers are JSON; every answer without success is a problem (RFC 9457). Files and commands go to the guest over its
//! channel, as all tools do; nothing here runs anything in a sandbox by other means.

mod access;
mod answers;
mod channel;
mod done;
mod exec;
mod extract;
mod files;
mod problem;
mod sandboxes;
mod service;
mod snapshots;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, Uri},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use emergent_budget::{Budget, Kept};
use tower_http::catch_panic::CatchPanicLayer;

pub use access::{Access, ApiKey, InvalidKey};
pub use answers::{
    CapacityBody, CreateBody, HealthBody, SandboxBody, SnapshotBody, SnapshotRequestBody, TemplatesBody,
};
pub use channel::CHANNEL_PROTOCOL;
pub use problem::PROBLEM_JSON;
use problem::{Kind, Problem};

use crate::Sandboxes;

/// The state that handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) sandboxes: Sandboxes,
    pub(crate) access: Access,
    pub(crate) budget: Budget,
}

/// The most bytes of memory that the bodies and answers of all requests under way may hold.
const MEMORY: usize = 192 << 20;

/// The whole API as a service.
pub fn router(sandboxes: Sandboxes, access: Access) -> Router {
    let shared = Shared { sandboxes, access, budget: Budget::undivided(MEMORY) };
    let guarded = Router::new()
        .route("/capacity", get(service::capacity))
        .route("/templates", get(service::templates))
        .route("/sandboxes", get(sandboxes::list).post(sandboxes::create))
        .route("/sandboxes/{id}", get(sandboxes::get).delete(sandboxes::destroy))
        .route("/sandboxes/{id}/pause", post(sandboxes::pause))
        .route("/sandboxes/{id}/resume", post(sandboxes::resume))
        .route("/sandboxes/{id}/stop", post(sandboxes::stop))
        .route("/sandboxes/{id}/fork", post(sandboxes::fork))
        .route("/sandboxes/{id}/exec", post(exec::exec))
        .route("/sandboxes/{id}/files/write", post(files::write))
        .route("/sandboxes/{id}/files/read", get(files::read))
        .route("/sandboxes/{id}/files/list", get(files::list))
        .route("/sandboxes/{id}/files/upload", post(files::upload).put(files::upload))
        .route("/sandboxes/{id}/files/download", get(files::download))
        .route("/sandboxes/{id}/channel", get(channel::open))
        .route("/sandboxes/{id}/snapshots", post(snapshots::take))
        .route("/snapshots", get(snapshots::list))
        .route("/snapshots/{id}", axum::routing::delete(snapshots::delete))
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(shared.clone(), access::require_key));
    // Whoever watches over the service needs no key to ask how it is.
    Router::new()
        .route("/health", get(service::health))
        .merge(guarded)
        .layer(middleware::from_fn_with_state(shared.clone(), access::require_local))
        .layer(middleware::from_fn_with_state(shared.clone(), account))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .with_state(shared)
}

/// Gives a request an account of the memory that it holds, which lasts until its answer has been sent.
async fn account(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let account = shared.budget.account();
    let response = account.clone().scope(next.run(request)).await;
    response.map(|body| Body::new(Kept::new(body, account)))
}

async fn no_such_route(method: Method, uri: Uri) -> Problem {
    Problem::new(Kind::NoSuchRoute, format!("there is no {method} {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}; the Allow header names what it takes", uri.path());
    Problem::new(Kind::MethodNotAllowed, detail)
}
