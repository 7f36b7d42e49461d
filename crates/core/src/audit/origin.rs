//! The request on whose behalf work is done: a task-local value, so that no function has to pass it on.

use std::{
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use emergent_store::{Actor, TokenId};

tokio::task_local! {
    static ORIGIN: Origin;
}

/// The origin of work: one request, as far as the audit needs it. Clones stand for the same request.
#[derive(Debug, Clone)]
pub struct Origin(Arc<Request>);

#[derive(Debug)]
struct Request {
    id: Option<String>,
    session: Option<String>,
    token: OnceLock<TokenId>,
    is_noted: AtomicBool,
}

/// Wraps work that moves to another task, so that it keeps the origin of the calling task.
pub(crate) fn inherit<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let origin = Origin::current();
    async move {
        match origin {
            Some(origin) => origin.scope(work).await,
            None => work.await,
        }
    }
}

// === impl Origin ===

impl Origin {
    /// Makes the origin of a request with this id, under this session.
    pub fn request(id: Option<String>, session: Option<String>) -> Self {
        Self(Arc::new(Request { id, session, token: OnceLock::new(), is_noted: AtomicBool::new(false) }))
    }

    /// Runs work on behalf of this request.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        ORIGIN.scope(self, work).await
    }

    /// Records the token that the request came with. Only the first call has an effect.
    pub fn is_by(&self, token: TokenId) {
        self.0.token.get_or_init(|| token);
    }

    /// Returns the actor: the request's token, or the server itself while no token is known.
    pub fn actor(&self) -> Actor {
        self.0.token.get().map_or(Actor::Server, |token| Actor::Token(*token))
    }

    /// Returns the request's id.
    pub fn id(&self) -> Option<&str> {
        self.0.id.as_deref()
    }

    /// Returns the session that the caller has named.
    pub fn session(&self) -> Option<&str> {
        self.0.session.as_deref()
    }

    /// Returns whether a step of a workspace's life was recorded that this request asked for.
    pub fn is_noted(&self) -> bool {
        self.0.is_noted.load(Ordering::Acquire)
    }

    pub(crate) fn note(&self) {
        self.0.is_noted.store(true, Ordering::Release);
    }

    pub(crate) fn current() -> Option<Self> {
        ORIGIN.try_with(Clone::clone).ok()
    }
}
