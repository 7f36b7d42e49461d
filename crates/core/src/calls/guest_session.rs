//! Calls to a workspace's guest.

use std::{sync::Arc, time::Duration};

use emergent_guest_client::{Guest, GuestCallError};
use emergent_store::StateKind;
use futures::{Stream, StreamExt as _};
use tokio::time::timeout;

use super::error::{CallError, WorkspaceEnd};
use crate::workspace::{
    entry::{CallGuard, Entry},
    state::WorkspaceStatus,
    transitions::{Operation, transition},
};

/// The time that a caller of a workspace that is still being made should wait before it tries again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The time that the engine may take to report the end of a sandbox after its connection broke.
const NEWS: Duration = Duration::from_secs(2);

/// The guest of one workspace, ready for a call. Cheap to make: take a new one for each call, so that the workspace's
/// state is checked and its use is noted.
#[derive(Clone)]
pub struct GuestSession {
    guest: Guest,
    pub(super) entry: Arc<Entry>,
    /// Keeps the workspace from being put to rest for idleness while this session or a clone of it exists.
    under_way: Arc<CallGuard>,
}

/// The effect of a call that needs room on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The call starts programs, which may write.
    Run,
    /// The call writes files itself.
    Write,
}

// === impl GuestSession ===

impl GuestSession {
    /// Calls the guest. Where the workspace ends during the call, the error says so instead of only reporting a broken
    /// connection.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<'a, T, F>(&'a self, call: impl FnOnce(&'a Guest) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, GuestCallError>>,
    {
        match call(&self.guest).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.explained(error).await),
        }
    }

    /// Begins a call to a workspace, if the workspace takes calls.
    pub(super) fn begin(entry: &Arc<Entry>) -> Option<Self> {
        let (guest, under_way) = entry.begin_call()?;
        entry.note_use();
        Some(Self { guest, entry: Arc::clone(entry), under_way: Arc::new(under_way) })
    }

    pub(crate) fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Turns a failed call into its error: the end of the workspace, where that is the cause.
    pub(crate) async fn explained(&self, error: GuestCallError) -> CallError {
        let (execution, may_have_happened) = match &error {
            GuestCallError::Interrupted { execution_id, .. } => (execution_id.clone(), true),
            GuestCallError::Unreachable(_) => (None, false),
            GuestCallError::Refused(_)
            | GuestCallError::Timeout { .. }
            | GuestCallError::Exhausted(_)
            | GuestCallError::Nonsense(_) => return error.into(),
        };
        let mut phase = self.entry.phases();
        let ended = timeout(NEWS, phase.wait_for(|phase| WorkspaceEnd::of(phase.status()).is_some())).await;
        match ended {
            Ok(Ok(phase)) => match WorkspaceEnd::of(phase.status()) {
                Some(ending) => CallError::Ended { ending, execution, may_have_happened },
                None => error.into(),
            },
            Ok(Err(_)) | Err(_) => error.into(),
        }
    }

    /// Wraps a stream out of the workspace so that it counts as a call under way until it ends or is dropped.
    pub fn keep_under_way<S: Stream>(&self, stream: S) -> impl Stream<Item = S::Item> + use<S> {
        let under_way = Arc::clone(&self.under_way);
        stream.inspect(move |_| {
            let _ = &under_way;
        })
    }
}

/// Returns the error of a call to a workspace of this status.
pub(crate) fn refusal(status: WorkspaceStatus) -> CallError {
    let state = status.word();
    match transition(Operation::Call, status).refused() {
        Some(_) if state == StateKind::Creating => CallError::Creating { retry_after: RETRY_AFTER },
        Some(advice) => CallError::WrongState { state, advice },
        None => CallError::WrongState { state, advice: "it changes just now; try again" },
    }
}
