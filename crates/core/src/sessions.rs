//! Attaching to workspaces and detaching from them: one holder at a time.
//!
//! The store decides who holds a workspace, in one statement. Holding is an agreement among agents: a call that names
//! no session is an operator's, and is always allowed.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use emergent_store::{
    Attachment, NewSession, Page, PageRequest, ProjectId, SessionEnd, SessionId, SessionRow, Store, StoreError,
};
use emergent_types::{WorkspaceId, error_chain};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument as _;

use crate::{
    foundation::Foundation,
    lifecycle::{Lifecycle, TransitionError},
    recorder::StateRecorder,
    tasks::Tasks,
    workspace::{
        entry::{Entry, WorkspaceGuard},
        lookup::{Found, Lookup, LookupError},
        registry::Registry,
        session_cache::{SessionCache, SessionLease},
        state::WorkspaceStatus,
        transitions::{GONE, Operation, transition},
    },
};

/// A request to hold a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachRequest {
    /// The holder's name in its own words, which other callers are told while it holds the workspace.
    pub holder: String,
    /// The session's id, chosen by the caller, so that a request whose answer was lost can be repeated; `None` makes
    /// one.
    pub session: Option<SessionId>,
    /// The time for which the session holds the workspace without a call; `None`: until it detaches.
    pub lease: Option<Duration>,
    /// Whether to take the workspace over from its holder.
    pub take_over: bool,
}

/// A call that is made on behalf of a session. While this value exists, the session's lease does not run out, however
/// long the call takes.
#[must_use = "the session's lease may run out once this is dropped"]
pub struct SessionCall {
    _heartbeat: Option<DropGuard>,
}

/// The number of times that a call that goes on renews the lease within one term of the lease.
const BEATS: u32 = 3;

/// Attaches holders to workspaces, and detaches them.
pub struct Sessions {
    store: Store,
    registry: Arc<Registry>,
    lookup: Lookup,
    recorder: Arc<StateRecorder>,
    tasks: Tasks,
    lifecycle: Arc<Lifecycle>,
}

/// The reason for which a workspace was not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody else holds it.
    #[error("the workspace is attached by {:?} since {}", .0.holder, .0.attached_at)]
    Held(Box<SessionRow>),
    /// The session's id, chosen by the caller, names another session or one that has ended.
    #[error("this session id names another session, or one that has ended")]
    IdTaken,
    /// There is no such workspace, or it could not be made ready.
    #[error(transparent)]
    Workspace(#[from] TransitionError),
}

/// The reason for which an operation with a session, or on behalf of one, failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The workspace was not found.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The workspace has had no such session.
    #[error("the workspace has had no such session")]
    NoSuchSession,
    /// Another session is attached.
    #[error("the workspace is attached by {:?} since {}", .0.holder, .0.attached_at)]
    Held(Box<SessionRow>),
    /// The session is not attached, and no other one is.
    #[error("this session is not attached")]
    NotAttached,
    /// The store failed.
    #[error("the session could not be looked up or recorded")]
    Store(#[from] StoreError),
}

// === impl Sessions ===

impl Sessions {
    pub(crate) fn new(base: &Foundation, lifecycle: Arc<Lifecycle>) -> Self {
        Self {
            store: base.store.clone(),
            registry: Arc::clone(&base.registry),
            lookup: base.lookup.clone(),
            recorder: Arc::clone(&base.recorder),
            tasks: base.tasks.clone(),
            lifecycle,
        }
    }

    /// Attaches a holder to a workspace and makes the workspace ready: a paused or stopped one is resumed.
    ///
    /// # Errors
    /// [`AttachError`]; nobody else was detached then.
    pub async fn attach(
        self: &Arc<Self>,
        project: ProjectId,
        id: WorkspaceId,
        request: AttachRequest,
    ) -> Result<SessionRow, AttachError> {
        let found = self.lookup.find(project, id).await.map_err(TransitionError::from)?;
        if self.tasks.is_going_down() {
            return Err(TransitionError::ShuttingDown.into());
        }
        let entry = match found {
            Found::Entry(entry) => entry,
            Found::Destroyed => return Err(not_usable(WorkspaceStatus::Destroyed, GONE).into()),
        };
        // A create may take as long as the pull of its image: nobody waits for its guard only to be refused.
        can_be_used(entry.status())?;
        let span = tracing::info_span!("attach", workspace = %id);
        let sessions = Arc::clone(self);
        let task = async move {
            let mut guard = entry.guard().await;
            can_be_used(guard.status())?;
            sessions.attach_to(&mut guard, request).await
        };
        self.tasks.run(task.instrument(span)).await
    }

    async fn attach_to(&self, guard: &mut WorkspaceGuard, request: AttachRequest) -> Result<SessionRow, AttachError> {
        let AttachRequest { holder, session, lease, take_over } = request;
        let id = session.unwrap_or_else(SessionId::generate);
        let new = NewSession { id, workspace: guard.id, holder, lease };
        let mut known = guard.attached.lock().await;
        let (row, is_new) = match self.store.sessions_attach(new, take_over).await.map_err(TransitionError::from)? {
            Attachment::Attached(row) => (row, true),
            Attachment::Renewed(row) => (row, false),
            Attachment::Held(row) => {
                *known = SessionCache::By(row.clone());
                return Err(AttachError::Held(Box::new(row)));
            }
            Attachment::IdTaken => return Err(AttachError::IdTaken),
        };
        *known = SessionCache::By(row.clone());
        drop(known);
        if let Err(error) = self.lifecycle.perform(guard, Operation::Resume).await {
            // Nobody holds what cannot be used; one who held it before goes on holding it.
            if is_new && let Err(error) = self.recorder.end_session(guard, SessionEnd::Unusable).await {
                tracing::warn!(reason = error_chain(&error), "a session that came to nothing could not be ended");
            }
            return Err(error.into());
        }
        if is_new {
            tracing::info!(session = %row.id, holder = row.holder, "attached");
        }
        Ok(row)
    }

    /// Ends a session and returns it as it ended, now or before.
    ///
    /// # Errors
    /// [`SessionError`] when there is no such session.
    pub async fn detach(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        session: SessionId,
    ) -> Result<SessionRow, SessionError> {
        self.lookup.row(project, id).await?;
        if let Some(entry) = self.registry.get(id) {
            let mut known = entry.attached.lock().await;
            let ended = self.store.sessions_end(id, Some(session), SessionEnd::Detached).await?;
            if let Some(ended) = ended {
                *known = SessionCache::Free;
                tracing::info!(workspace = %id, %session, holder = ended.holder, "detached");
                return Ok(ended);
            }
        }
        self.store.sessions_get(id, session).await?.ok_or(SessionError::NoSuchSession)
    }

    /// Returns a page of a workspace's sessions, newest first. Does not check `page.limit`.
    ///
    /// # Errors
    /// [`SessionError`] when there is no such workspace.
    pub async fn list(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        page: PageRequest,
    ) -> Result<Page<SessionRow>, SessionError> {
        self.lookup.row(project, id).await?;
        Ok(self.store.sessions_list(id, page).await?)
    }

    /// Begins a call on behalf of the session that holds the workspace; the session's lease does not run out while the
    /// returned value exists. Reads no row; few calls write one.
    ///
    /// # Errors
    /// [`SessionError`] names who holds it.
    pub async fn begin_call(
        self: &Arc<Self>,
        project: ProjectId,
        id: WorkspaceId,
        session: SessionId,
    ) -> Result<SessionCall, SessionError> {
        let Some(entry) = self.lookup.entry(project, id) else { return Ok(SessionCall { _heartbeat: None }) };
        let lease = self.renew_session(&entry, session, Utc::now()).await?;
        let heartbeat = lease.map(|lease| {
            let end = CancellationToken::new();
            let beating = Arc::clone(self).keep_session(entry, session, lease / BEATS);
            let (tasks, ended) = (self.tasks.clone(), end.clone());
            self.tasks.spawn(async move { tasks.until_going_down(ended.run_until_cancelled(beating)).await });
            end.drop_guard()
        });
        Ok(SessionCall { _heartbeat: heartbeat })
    }

    /// Renews a session's lease at every interval, until another session holds the workspace.
    async fn keep_session(self: Arc<Self>, entry: Arc<Entry>, session: SessionId, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            match self.renew_session(&entry, session, Utc::now()).await {
                Ok(_) => {}
                Err(SessionError::Store(error)) => {
                    tracing::warn!(workspace = %entry.id, reason = error_chain(&error), "a session could not be renewed");
                }
                Err(_) => return,
            }
        }
    }

    /// Renews a session's lease, and returns how long the session may be silent from now on.
    async fn renew_session(
        &self,
        entry: &Entry,
        session: SessionId,
        at: DateTime<Utc>,
    ) -> Result<Option<Duration>, SessionError> {
        let mut known = entry.attached.lock().await;
        if *known == SessionCache::Nothing {
            *known = SessionCache::of(self.store.sessions_open(&[entry.id]).await?.into_iter().next());
        }
        match known.lease_of(session, at) {
            SessionLease::Holds => {}
            SessionLease::HoldsAndRenews(until) => {
                self.store.sessions_renew(session, until).await?;
                if let SessionCache::By(open) = &mut *known {
                    open.expires_at = Some(until);
                }
            }
            SessionLease::Other(open) => return Err(SessionError::Held(Box::new(open))),
            SessionLease::Free => return Err(SessionError::NotAttached),
        }
        Ok(known.lease())
    }
}

/// Refuses to attach to a workspace that cannot be made ready.
fn can_be_used(status: WorkspaceStatus) -> Result<(), TransitionError> {
    match transition(Operation::Resume, status).refused() {
        Some(advice) => Err(not_usable(status, advice)),
        None => Ok(()),
    }
}

fn not_usable(status: WorkspaceStatus, advice: &'static str) -> TransitionError {
    TransitionError::WrongState { state: status.word(), operation: "be attached", advice }
}
