//! One workspace as this process knows it, and its phase.
//!
//! A task that changes the workspace holds the [`WorkspaceGuard`], so that operations come one after the other; a task
//! that calls the workspace only looks at the phase, and never waits.
//!
//! The phase changes before the row where calls become possible, and before the row where they become impossible: a
//! client that reads `ready` in a row finds a workspace that takes calls.

mod guard;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use emergent_guest_client::Guest;
use emergent_provider::ProviderKind;
use emergent_store::{ErrorReason, ProjectId, WorkspaceRow, WorkspaceState};
use emergent_types::{PullProgress, ResourceLimits, WorkspaceId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use self::guard::WorkspaceGuard;
use crate::workspace::{
    activity::Activity,
    fullness::Fullness,
    session_cache::Attached,
    state::{SuspendReason, WorkspaceStatus},
};

/// The time after an out-of-memory event within which the end of a sandbox is ascribed to the event.
const OOM_MEMORY: Duration = Duration::from_secs(10);

/// The phase of a workspace, with the values that belong to it.
#[derive(Clone)]
pub(crate) enum RuntimePhase {
    Creating { pull: Option<PullProgress>, image_present: bool },
    Ready { guest: Guest },
    Paused { guest: Guest, rest: SuspendReason },
    Stopping(SuspendReason),
    Stopped(SuspendReason),
    Starting,
    Destroying,
    Destroyed,
    Failed(ErrorReason),
}

/// One workspace.
pub(crate) struct Entry {
    pub(crate) id: WorkspaceId,
    pub(crate) project: ProjectId,
    /// The provider; changes only while the workspace is being made.
    provider: Mutex<ProviderKind>,
    pub(crate) memory_bytes: u64,
    pub(crate) limits: ResourceLimits,
    phase: watch::Sender<RuntimePhase>,
    /// Cancelled when somebody wants the workspace destroyed, or the service shuts down: a create then stops pulling.
    unwanted: CancellationToken,
    /// Cancelled when the create has ended, with or without success, and the row says so.
    made: CancellationToken,
    /// The calls under way, and the time of the last use.
    pub(crate) activity: Activity,
    /// The holder of the workspace.
    pub(crate) attached: Attached,
    /// Locked by the guard of the task that changes the workspace.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// The time of the last call, in microseconds since 1970; 0 when that time is recorded.
    used_at: AtomicI64,
    out_of_memory_at: Mutex<Option<Instant>>,
    /// Whether the workspace may write.
    room: watch::Sender<Room>,
    /// Cancelled when another server has taken the workspace over: this server does nothing more to it.
    moved: CancellationToken,
}

/// Whether a workspace may write, and whether a count of its files is due that may change the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// The reason why the workspace may not write, while it may not.
    pub(crate) fullness: Option<Fullness>,
    pub(crate) recount: Recount,
}

/// The count that is due because files of a full workspace were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recount {
    /// Nothing was removed since the last count began.
    Idle,
    /// Files were removed, and their room is not counted yet.
    Wanted,
    /// The count is under way.
    UnderWay,
}

/// A call that is under way, for as long as this value exists.
pub(crate) struct CallGuard(Arc<Entry>);

// === impl RuntimePhase ===

impl RuntimePhase {
    pub(crate) fn status(&self) -> WorkspaceStatus {
        match self {
            Self::Creating { .. } => WorkspaceStatus::Creating,
            Self::Ready { .. } => WorkspaceStatus::Ready,
            Self::Paused { rest, .. } => WorkspaceStatus::Paused(*rest),
            Self::Stopping(rest) => WorkspaceStatus::Stopping(*rest),
            Self::Stopped(rest) => WorkspaceStatus::Stopped(*rest),
            Self::Starting => WorkspaceStatus::Starting,
            Self::Destroying => WorkspaceStatus::Destroying,
            Self::Destroyed => WorkspaceStatus::Destroyed,
            Self::Failed(reason) => WorkspaceStatus::Failed(*reason),
        }
    }

    /// Makes the phase of a workspace of this status; `guest` makes the client of its guest where it has one.
    pub(crate) fn of(status: WorkspaceStatus, guest: impl FnOnce() -> Guest) -> Self {
        match status {
            WorkspaceStatus::Creating => Self::Creating { pull: None, image_present: false },
            WorkspaceStatus::Ready => Self::Ready { guest: guest() },
            WorkspaceStatus::Paused(rest) => Self::Paused { guest: guest(), rest },
            WorkspaceStatus::Stopping(rest) => Self::Stopping(rest),
            WorkspaceStatus::Stopped(rest) => Self::Stopped(rest),
            WorkspaceStatus::Starting => Self::Starting,
            WorkspaceStatus::Destroying => Self::Destroying,
            WorkspaceStatus::Destroyed => Self::Destroyed,
            WorkspaceStatus::Failed(reason) => Self::Failed(reason),
        }
    }

    /// Returns the guest of a workspace that has processes.
    pub(crate) fn guest(&self) -> Option<&Guest> {
        if let Self::Ready { guest } | Self::Paused { guest, .. } = self { Some(guest) } else { None }
    }
}

// === impl Entry ===

impl Entry {
    pub(crate) fn new(row: &WorkspaceRow, guest: impl FnOnce() -> Guest) -> Self {
        let made = CancellationToken::new();
        if row.state != WorkspaceState::Creating {
            made.cancel();
        }
        Self {
            id: row.id,
            project: row.project,
            provider: Mutex::new(row.provider),
            memory_bytes: row.spec.limits.memory_bytes,
            limits: row.spec.limits,
            phase: watch::Sender::new(RuntimePhase::of(WorkspaceStatus::of(row), guest)),
            unwanted: CancellationToken::new(),
            made,
            activity: Activity::new(row.idle),
            attached: Attached::default(),
            changing: Arc::default(),
            used_at: AtomicI64::new(0),
            out_of_memory_at: Mutex::new(None),
            room: watch::Sender::new(Room { fullness: Fullness::of(row), recount: Recount::Idle }),
            moved: CancellationToken::new(),
        }
    }

    pub(crate) fn status(&self) -> WorkspaceStatus {
        self.phase.borrow().status()
    }

    /// Returns the provider that has the workspace.
    pub(crate) fn provider(&self) -> ProviderKind {
        *self.provider.lock()
    }

    /// Returns the phase's changes from now on.
    pub(crate) fn phases(&self) -> watch::Receiver<RuntimePhase> {
        self.phase.subscribe()
    }

    /// Returns the guest, if the workspace has processes.
    pub(crate) fn guest(&self) -> Option<Guest> {
        self.phase.borrow().guest().cloned()
    }

    /// Returns the guest, if the workspace takes calls.
    pub(crate) fn ready_guest(&self) -> Option<Guest> {
        if let RuntimePhase::Ready { guest } = &*self.phase.borrow() { Some(guest.clone()) } else { None }
    }

    /// Returns the progress of the image's pull.
    pub(crate) fn pull(&self) -> Option<PullProgress> {
        if let RuntimePhase::Creating { pull, image_present: false } = &*self.phase.borrow() {
            pull.clone()
        } else {
            None
        }
    }

    /// Begins a call: returns the guest, if the workspace takes calls. The call counts as under way until the guard is
    /// dropped.
    ///
    /// A task that puts the workspace to rest looks at the calls while nobody can look at the phase, and this function
    /// counts the call while nobody can change the phase: one of the two sees the other.
    pub(crate) fn begin_call(self: &Arc<Self>) -> Option<(Guest, CallGuard)> {
        let phase = self.phase.borrow();
        let RuntimePhase::Ready { guest } = &*phase else { return None };
        self.activity.begin();
        Some((guest.clone(), CallGuard(Arc::clone(self))))
    }

    /// Notes how far the pull of the image has come, while the workspace is being made.
    pub(crate) fn note_pull(&self, progress: PullProgress) {
        self.phase.send_if_modified(|phase| {
            let RuntimePhase::Creating { pull, .. } = phase else { return false };
            *pull = Some(progress);
            true
        });
    }

    /// Notes that the engine has the image, while the workspace is being made.
    pub(crate) fn note_image_present(&self) {
        self.phase.send_if_modified(|phase| {
            let RuntimePhase::Creating { image_present, .. } = phase else { return false };
            *image_present = true;
            true
        });
    }

    /// Waits for the right to change the workspace.
    pub(crate) async fn guard(self: &Arc<Self>) -> WorkspaceGuard {
        WorkspaceGuard::lock(Arc::clone(self)).await
    }

    /// Takes the right to change the workspace, unless another task has it.
    pub(crate) fn free_guard(self: &Arc<Self>) -> Option<WorkspaceGuard> {
        WorkspaceGuard::try_lock(Arc::clone(self))
    }

    /// Notes that nobody wants the workspace any more: a create stops pulling.
    pub(crate) fn give_up(&self) {
        self.unwanted.cancel();
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.unwanted.is_cancelled()
    }

    /// Completes when the create has ended, with or without success, and the row says so.
    pub(crate) async fn made(&self) {
        self.made.cancelled().await;
    }

    /// Completes when nobody wants the workspace any more while its image is still being pulled; otherwise never.
    /// (Later steps are quick, and are not left half done.)
    pub(crate) async fn unwanted_while_pulling(&self) {
        self.unwanted.cancelled().await;
        if matches!(&*self.phase.borrow(), RuntimePhase::Creating { image_present: true, .. }) {
            std::future::pending::<()>().await;
        }
    }

    /// Lets go of a workspace that another server drives from now on.
    pub(crate) fn let_go(&self) {
        self.moved.cancel();
        self.made.cancel();
        if let Some(guest) = self.phase.borrow().guest() {
            guest.close();
        }
    }

    pub(crate) fn is_moved(&self) -> bool {
        self.moved.is_cancelled()
    }

    pub(crate) fn note_use(&self) {
        self.used_at.store(Utc::now().timestamp_micros(), Ordering::Relaxed);
    }

    /// Returns the time of the last call, if it is not recorded yet. The time counts as recorded from now on.
    pub(crate) fn take_use(&self) -> Option<DateTime<Utc>> {
        match self.used_at.swap(0, Ordering::Relaxed) {
            0 => None,
            micros => DateTime::from_timestamp_micros(micros),
        }
    }

    pub(crate) fn fullness(&self) -> Option<Fullness> {
        self.room.borrow().fullness
    }

    pub(crate) fn set_fullness(&self, fullness: Option<Fullness>) {
        self.room.send_modify(|room| room.fullness = fullness);
    }

    /// Notes that files were removed. Returns whether that makes a count due which was not: only a full workspace has
    /// to be counted for it.
    pub(crate) fn note_removal(&self) -> bool {
        self.room.send_if_modified(|room| {
            room.fullness.is_some() && std::mem::replace(&mut room.recount, Recount::Wanted) != Recount::Wanted
        })
    }

    pub(crate) fn is_recount_wanted(&self) -> bool {
        self.room.borrow().recount == Recount::Wanted
    }

    /// Notes that a count begins, which sees what was removed until now.
    pub(crate) fn begin_recount(&self) {
        self.room.send_if_modified(|room| {
            let is_wanted = room.recount == Recount::Wanted;
            if is_wanted {
                room.recount = Recount::UnderWay;
            }
            is_wanted
        });
    }

    /// Notes that a count has ended, with or without a result. What was removed during the count needs another one.
    pub(crate) fn end_recount(&self) {
        self.room.send_if_modified(|room| {
            let is_under_way = room.recount == Recount::UnderWay;
            if is_under_way {
                room.recount = Recount::Idle;
            }
            is_under_way
        });
    }

    /// Waits until the workspace may write, or no count is due that could say so.
    pub(crate) async fn recounted(&self) {
        // The sender is a field of this entry: it is not dropped while somebody waits here.
        self.room.subscribe().wait_for(|room| room.fullness.is_none() || room.recount == Recount::Idle).await.ok();
    }

    pub(crate) fn note_out_of_memory(&self) {
        *self.out_of_memory_at.lock() = Some(Instant::now());
    }

    pub(crate) fn was_out_of_memory(&self) -> bool {
        let at = *self.out_of_memory_at.lock();
        at.is_some_and(|at| at.elapsed() < OOM_MEMORY)
    }
}

// === impl CallGuard ===

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.note_use();
        self.0.activity.end();
    }
}
