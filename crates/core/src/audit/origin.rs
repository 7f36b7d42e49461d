//! Who asked for what is being done: carried along by the tasks that do it, so that no function has to pass it on.

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

/// A request, as far as the audit is concerned. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Origin(Arc<Request>);

#[derive(Debug)]
struct Request {
    id: Option<String>,
    session: Option<String>,
    token: OnceLock<TokenId>,
    is_noted: AtomicBool,
}

/// The same work, with the origin of the task that this is called in. For work that goes to a task of its own.
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
    /// A request with this id, under this session.
    pub fn request(id: Option<String>, session: Option<String>) -> Self {
        Self(Arc::new(Request { id, session, token: OnceLock::new(), is_noted: AtomicBool::new(false) }))
    }

    /// Does work that this request asks for.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        ORIGIN.scope(self, work).await
    }

    /// Whose request it turned out to be. The first word holds.
    pub fn is_by(&self, token: TokenId) {
        self.0.token.get_or_init(|| token);
    }

    /// Whose request it is; the server's own while no token was seen.
    pub fn actor(&self) -> Actor {
        self.0.token.get().map_or(Actor::Server, |token| Actor::Token(*token))
    }

    /// The request's id.
    pub fn id(&self) -> Option<&str> {
        self.0.id.as_deref()
    }

    /// The session that the caller has named.
    pub fn session(&self) -> Option<&str> {
        self.0.session.as_deref()
    }

    /// Whether a step of a workspace's life was noted that this request asked for.
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
