//! Attaching to workspaces and detaching from them: one holder at a time.
//!
//! The store decides who holds a workspace, in one statement. Holding is an agreement among agents: a call that names
//! no session is an operator's, and is always allowed.

pub(crate) mod session_cache;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use emergent_store::{
    Attachment, NewSession, Page, PageRequest, ProjectId, SessionEnd, SessionId, SessionRow, StoreError,
};
use emergent_types::{WorkspaceId, error_chain};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument as _;

use crate::{
    AttachError, SessionError, TransitionError,
    orchestrator::{Found, Orchestrator, propagate},
    sessions::session_cache::{SessionCache, SessionLease},
    workspace::{
        registry::Entry,
        state::WorkspaceStatus,
        transitions::{GONE, Operation, decide},
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
    /// How long the session holds the workspace without a call; `None`: until it detaches.
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

/// How many times a call that goes on renews the lease within one term of the lease.
const BEATS: u32 = 3;

// === impl Orchestrator ===

impl Orchestrator {
    /// Attaches a holder, and makes the workspace ready for it. The work goes on when the future is dropped.
    pub(crate) async fn attach(
        self: &Arc<Self>,
        project: ProjectId,
        id: WorkspaceId,
        request: AttachRequest,
    ) -> Result<SessionRow, AttachError> {
        let found = self.find(project, id).await.map_err(TransitionError::from)?;
        if self.is_going_down() {
            return Err(TransitionError::ShuttingDown.into());
        }
        let entry = match found {
            Found::Entry(entry) => entry,
            Found::Destroyed => return Err(not_usable(WorkspaceStatus::Destroyed, GONE).into()),
        };
        // A create may take as long as the pull of its image: nobody waits for its turn only to be refused.
        can_be_used(entry.status())?;
        let span = tracing::info_span!("attach", workspace = %id);
        let core = Arc::clone(self);
        let task = async move {
            let _turn = entry.turn().await;
            can_be_used(entry.status())?;
            core.attach_to(&entry, request).await
        };
        self.tasks.spawn(task.instrument(span)).await.unwrap_or_else(|error| propagate(error))
    }

    /// Attaches a holder; the caller has the turn.
    async fn attach_to(&self, entry: &Entry, request: AttachRequest) -> Result<SessionRow, AttachError> {
        let AttachRequest { holder, session, lease, take_over } = request;
        let id = session.unwrap_or_else(SessionId::generate);
        let new = NewSession { id, workspace: entry.id, holder, lease };
        let mut known = entry.attached.lock().await;
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
        if let Err(error) = self.perform(entry, Operation::Resume).await {
            // Nobody holds what cannot be used; one who held it before goes on holding it.
            if is_new && let Err(error) = self.end_session(entry, SessionEnd::Unusable).await {
                tracing::warn!(reason = error_chain(&error), "a session that came to nothing could not be ended");
            }
            return Err(error.into());
        }
        if is_new {
            tracing::info!(session = %row.id, holder = row.holder, "attached");
        }
        Ok(row)
    }

    /// Ends a session. Ending one that has ended changes nothing.
    pub(crate) async fn detach(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        session: SessionId,
    ) -> Result<SessionRow, SessionError> {
        self.row(project, id).await?;
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

    /// Returns a page of a workspace's sessions, newest first.
    pub(crate) async fn sessions(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        page: PageRequest,
    ) -> Result<Page<SessionRow>, SessionError> {
        self.row(project, id).await?;
        Ok(self.store.sessions_list(id, page).await?)
    }

    /// Begins a call on behalf of a session; refuses a session that is not the attached one. Does not check whether the
    /// workspace exists.
    pub(crate) async fn begin_session_call(
        self: &Arc<Self>,
        project: ProjectId,
        id: WorkspaceId,
        session: SessionId,
    ) -> Result<SessionCall, SessionError> {
        let entry = self.registry.get(id).filter(|entry| entry.project == project);
        let Some(entry) = entry else { return Ok(SessionCall { _heartbeat: None }) };
        let lease = self.renew_session(&entry, session, Utc::now()).await?;
        let heartbeat = lease.map(|lease| {
            let end = CancellationToken::new();
            let beating = Arc::clone(self).keep_session(entry, session, lease / BEATS);
            let (going_down, ended) = (self.going_down.clone(), end.clone());
            self.tasks.spawn(async move { going_down.run_until_cancelled(ended.run_until_cancelled(beating)).await });
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

    /// Ends the open session of a workspace, if there is one.
    pub(crate) async fn end_session(&self, entry: &Entry, reason: SessionEnd) -> Result<(), StoreError> {
        let mut known = entry.attached.lock().await;
        self.store.sessions_end(entry.id, None, reason).await?;
        *known = SessionCache::Free;
        Ok(())
    }
}

/// Refuses to attach to a workspace that cannot be made ready.
fn can_be_used(status: WorkspaceStatus) -> Result<(), TransitionError> {
    match decide(Operation::Resume, status).refused() {
        Some(advice) => Err(not_usable(status, advice)),
        None => Ok(()),
    }
}

fn not_usable(status: WorkspaceStatus, advice: &'static str) -> TransitionError {
    TransitionError::WrongState { state: status.word(), operation: "be attached", advice }
}
