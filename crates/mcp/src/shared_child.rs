//! Children that are kept warm: started when they are first needed, and again after they ended.

use std::sync::Arc;

use http::StatusCode;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::{
    answer::{self, Answer},
    child::{Exit, LaunchError},
    child_connection::ChildConnection,
    context::Context,
    rpc,
};

/// A place for one warm child at most, with the facts about it.
pub(crate) struct SharedChild<T>(Mutex<State<T>>);

/// A child that lives, with the facts about it.
pub(crate) type Kept<T> = (Arc<ChildConnection>, Arc<T>);

/// The outcome of a start, once it is known.
type Outcome<T> = watch::Receiver<Option<Result<Kept<T>, StartError>>>;

struct State<T> {
    now: Option<Kept<T>>,
    starting: Option<Outcome<T>>,
}

/// The reason for which there is no child that can be asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("the server's process {0} before it was ready")]
    Exited(Exit),
    #[error("the server was not ready within {0} s")]
    Late(u64),
    #[error("the server refused to start a session: {0}")]
    Refused(String),
    #[error("the server speaks MCP 2025-11-25 and older: send `initialize` first")]
    NotModern,
}

/// A guard that ends a child unless somebody takes it over.
pub(crate) struct EndUnlessKept(Option<Arc<ChildConnection>>);

// === impl SharedChild ===

impl<T> Default for SharedChild<T> {
    fn default() -> Self {
        Self(Mutex::new(State { now: None, starting: None }))
    }
}

impl<T: Send + Sync + 'static> SharedChild<T> {
    /// The child, if one lives.
    pub(crate) fn alive(&self) -> Option<Kept<T>> {
        self.lock().now.clone().filter(|(connection, _)| connection.is_alive())
    }

    /// The child, or else the outcome of its start. The start is a task of its own: it goes on when those who wait for
    /// it go away, and serves the next caller.
    pub(crate) async fn alive_or_started<F>(
        &self,
        context: &Context,
        start: impl FnOnce() -> F,
    ) -> Result<Kept<T>, StartError>
    where
        F: Future<Output = Result<Kept<T>, StartError>> + Send + 'static,
    {
        let mut outcome = {
            let mut state = self.lock();
            if let Some(alive) = state.now.clone().filter(|(connection, _)| connection.is_alive()) {
                return Ok(alive);
            }
            match state.starting.clone().filter(|outcome| outcome.borrow().is_none() && outcome.has_changed().is_ok()) {
                Some(under_way) => under_way,
                None => {
                    let (tell, outcome) = watch::channel(None);
                    let (stop, starting) = (context.stop.clone(), start());
                    context.tasks.spawn(async move {
                        // Nobody may be waiting any more.
                        tell.send_replace(stop.run_until_cancelled(starting).await);
                    });
                    state.starting = Some(outcome.clone());
                    outcome
                }
            }
        };
        let told = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        told.unwrap_or_else(
            || Err(LaunchError::Unavailable { reason: "the server is shutting down".to_owned() }.into()),
        )
    }

    /// Keeps a child that was started.
    pub(crate) fn put(&self, connection: Arc<ChildConnection>, known: T) -> Kept<T> {
        let kept = (connection, Arc::new(known));
        self.lock().now = Some(kept.clone());
        kept
    }

    /// Forgets the child.
    pub(crate) fn clear(&self) {
        self.lock().now = None;
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock()
    }
}

// === impl StartError ===

impl StartError {
    /// The error as the answer to a request.
    pub(crate) fn answer(&self, id: Option<&str>) -> Answer {
        match self {
            Self::Launch(LaunchError::Unavailable { .. }) => {
                answer::busy(StatusCode::SERVICE_UNAVAILABLE, id, &self.to_string())
            }
            // Whoever tries the newer era first must be able to tell that this is none of its errors.
            Self::NotModern => answer::error(StatusCode::BAD_REQUEST, id, rpc::REFUSED, &self.to_string()),
            _ => answer::error(StatusCode::BAD_GATEWAY, id, rpc::INTERNAL_ERROR, &self.to_string()),
        }
    }
}

// === impl EndUnlessKept ===

impl EndUnlessKept {
    pub(crate) fn new(connection: &Arc<ChildConnection>) -> Self {
        Self(Some(Arc::clone(connection)))
    }

    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for EndUnlessKept {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.end_soon();
        }
    }
}
