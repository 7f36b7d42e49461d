//! Calls to a workspace's guest.

use std::{sync::Arc, time::Duration};

use emergent_guest_client::{Guest, GuestCallError};
use emergent_store::{ProjectId, StateKind};
use emergent_types::WorkspaceId;
use futures::{Stream, StreamExt as _};
use tokio::time::timeout;

use crate::{
    CallError, LookupError, TransitionError, WorkspaceEnd,
    orchestrator::{Found, Orchestrator},
    workspace::{
        registry::{CallGuard, Entry},
        state::WorkspaceStatus,
        transitions::{Operation, decide},
    },
};

/// How long a caller of a workspace that is still being made should wait before it tries again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long the engine may take to report the end of a sandbox after its connection broke.
const NEWS: Duration = Duration::from_secs(2);

/// The guest of one workspace, ready for a call. Cheap to make: take a new one for each call, so that the workspace's
/// state is checked and its use is noted.
#[derive(Clone)]
pub struct GuestSession {
    guest: Guest,
    pub(crate) entry: Arc<Entry>,
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
        let mut phase = self.entry.phase.subscribe();
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

// === impl Orchestrator ===

impl Orchestrator {
    /// Returns the guest of a workspace; for one that takes calls, waits for nothing and reads no row.
    pub(crate) async fn guest(
        self: &Arc<Self>,
        project: ProjectId,
        id: WorkspaceId,
    ) -> Result<GuestSession, CallError> {
        if !self.config.enabled {
            return Err(CallError::Disabled);
        }
        let entry = match self.registry.get(id) {
            Some(entry) if entry.project == project => entry,
            Some(_) => return Err(CallError::NotFound),
            None => match self.find(project, id).await? {
                Found::Entry(entry) => entry,
                Found::Destroyed => return Err(refusal(WorkspaceStatus::Destroyed)),
            },
        };
        self.session(entry).await
    }

    /// Returns the guest of a workspace for a call with this effect on the disk.
    pub(crate) async fn guest_for(
        self: &Arc<Self>,
        project: ProjectId,
        id: WorkspaceId,
        purpose: Purpose,
    ) -> Result<GuestSession, CallError> {
        // Not started again only to be refused.
        if let Some(entry) = self.registry.get(id).filter(|entry| entry.project == project) {
            match purpose {
                Purpose::Run => self.may_run(&entry).await?,
                Purpose::Write => self.may_write(&entry).await?,
            }
        }
        self.guest(project, id).await
    }

    /// Returns the guest of a workspace; first starts the workspace again if it had ended by itself.
    pub(crate) async fn session(self: &Arc<Self>, entry: Arc<Entry>) -> Result<GuestSession, CallError> {
        loop {
            if let Some((guest, under_way)) = entry.begin_call() {
                entry.note_use();
                return Ok(GuestSession { guest, entry, under_way: Arc::new(under_way) });
            }
            // It may be brought to rest again before the call has begun; each time round, an operation has ended.
            self.awaken(&entry).await?;
        }
    }

    async fn awaken(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<(), CallError> {
        let status = entry.status();
        if decide(Operation::Call, status).refused().is_some() {
            return Err(refusal(status));
        }
        match self.operate_on(Arc::clone(entry), Operation::Call).await {
            Ok(()) => Ok(()),
            Err(TransitionError::WrongState { .. }) => Err(refusal(entry.status())),
            Err(error) => Err(CallError::Restart(Box::new(error))),
        }
    }
}

/// Returns the error of a call to a workspace of this status.
pub(crate) fn refusal(status: WorkspaceStatus) -> CallError {
    let state = status.word();
    match decide(Operation::Call, status).refused() {
        Some(_) if state == StateKind::Creating => CallError::Creating { retry_after: RETRY_AFTER },
        Some(advice) => CallError::WrongState { state, advice },
        None => CallError::WrongState { state, advice: "it changes just now; try again" },
    }
}

impl From<LookupError> for CallError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Disabled => Self::Disabled,
            LookupError::NotFound => Self::NotFound,
            LookupError::Store(source) => Self::Store(source),
        }
    }
}
