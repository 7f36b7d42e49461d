//! Snapshots: taken while the workspace has its turn, kept until somebody deletes them, used by creates.
//!
//! Each has a lock. Whoever takes or deletes it holds it alone; whoever makes a workspace from it shares it. So a
//! snapshot is never deleted from under a create, and a row in a state between two that nobody holds was left by a
//! process that ended.

mod basis;
mod fork;
mod locks;
mod reconcile_action;
mod recover;
pub(crate) mod request;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use emergent_provider::{OperationError, SnapshotSpec, TakeError};
use emergent_store::{
    IdempotencyClaim, NewSnapshotRow, Page, PageRequest, ProjectId, SnapshotAdmission, SnapshotFilter, SnapshotRow,
    SnapshotState, StoreError, WorkspaceRow,
};
use emergent_types::{SnapshotId, SnapshotStep, StepObserver as _, WorkspaceId, error_chain};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tracing::Instrument as _;

pub(crate) use self::{basis::Basis, locks::Locks};
use crate::{
    IdempotencyKey, ListError, LookupError, NewSnapshot, NewWorkspaceError, Snapshot, SnapshotError, SnapshotUnusable,
    TransitionError,
    audit::inherit,
    orchestrator::{Found, Orchestrator, propagate},
    placement::providers::Registered,
    telemetry,
    workspace::{
        create::RETRY_AFTER,
        registry::Entry,
        state::WorkspaceStatus,
        transitions,
        validate::{labels_are_fine, name_is_fine},
    },
};

/// Why a snapshot whose row was recorded did not become ready.
#[derive(Debug, thiserror::Error)]
enum Untaken {
    #[error(transparent)]
    Take(#[from] TakeError),
    #[error("the snapshot could not be recorded")]
    Store(#[from] StoreError),
}

// === impl Orchestrator ===

impl Orchestrator {
    /// Records a snapshot and has a task take it.
    pub(crate) async fn take_snapshot(
        self: &Arc<Self>,
        project: ProjectId,
        id: WorkspaceId,
        request: NewSnapshot,
        key: Option<IdempotencyKey>,
    ) -> Result<Snapshot, SnapshotError> {
        let act = self.audit.begin(project, Some(id), "snapshot");
        let result = self.take_in_snapshot(project, id, request, key).await;
        act.end(&result);
        result
    }

    async fn take_in_snapshot(
        self: &Arc<Self>,
        project: ProjectId,
        id: WorkspaceId,
        request: NewSnapshot,
        key: Option<IdempotencyKey>,
    ) -> Result<Snapshot, SnapshotError> {
        if let Some(name) = &request.name {
            name_is_fine(name)?;
        }
        if let Some(labels) = &request.labels {
            labels_are_fine(labels)?;
        }
        let entry = self.to_be_copied(project, id).await?;
        let core = Arc::clone(self);
        let begin = async move { core.begin_snapshot(entry, request, key).await };
        self.tasks.spawn(inherit(begin.in_current_span())).await.unwrap_or_else(|error| propagate(error))
    }

    /// The entry of a workspace that somebody wants to copy. One that is still being made is refused at once: nobody
    /// waits for its turn.
    async fn to_be_copied(&self, project: ProjectId, id: WorkspaceId) -> Result<Arc<Entry>, TransitionError> {
        if self.is_going_down() {
            return Err(TransitionError::ShuttingDown);
        }
        match self.find(project, id).await? {
            Found::Destroyed => Err(cannot_be_copied(WorkspaceStatus::Destroyed).unwrap_or(TransitionError::NotFound)),
            Found::Entry(entry) => match (entry.status(), cannot_be_copied(entry.status())) {
                (WorkspaceStatus::Creating, Some(refusal)) => Err(refusal),
                _ => Ok(entry),
            },
        }
    }

    /// Checks a workspace that is to be copied so many times, once nobody else changes it, and reads what it is.
    async fn copied_row(&self, entry: &Entry, copies: u32) -> Result<WorkspaceRow, SnapshotError> {
        if let Some(refusal) = cannot_be_copied(entry.status()) {
            return Err(refusal.into());
        }
        require_snapshots(self.provider_of(entry)?)?;
        self.has_room_for_copies(entry, copies).await.map_err(NewWorkspaceError::from)?;
        self.may_act_on(entry).await?;
        Ok(self.store.workspaces_find(entry.id).await?.ok_or(LookupError::NotFound)?)
    }

    async fn begin_snapshot(
        self: Arc<Self>,
        entry: Arc<Entry>,
        request: NewSnapshot,
        key: Option<IdempotencyKey>,
    ) -> Result<Snapshot, SnapshotError> {
        let turn = entry.turn().await;
        let row = self.copied_row(&entry, 1).await?;
        let claim = key.map(|key| claim(&key, json!(["snapshot", entry.id.to_string(), request.name, request.labels])));
        let new = snapshot_row(row, request, false);
        let id = new.id;
        let alone = self.snapshot_locks.of(id).write_owned().await;
        let row = match self.store.snapshots_admit(new, claim).await? {
            SnapshotAdmission::Admitted(row) => *row,
            SnapshotAdmission::Repeated(earlier) => return self.snapshot(entry.project, earlier).await,
            SnapshotAdmission::KeyTaken => return Err(NewWorkspaceError::IdempotencyMismatch.into()),
            SnapshotAdmission::OverQuota(reached) => {
                return Err(NewWorkspaceError::OverQuota { reached, retry_after: RETRY_AFTER }.into());
            }
        };
        let span = tracing::info_span!("snapshot", snapshot = %id, workspace = %entry.id);
        let core = Arc::clone(&self);
        let drive = async move {
            // A failure is in its row.
            core.drive_snapshot(&entry, id).await.ok();
            drop((alone, turn));
        };
        self.tasks.spawn(inherit(drive.instrument(span)));
        Ok(Snapshot::new(row))
    }

    /// Takes a snapshot whose row says `creating`, and records how that ended; the error is what the row says. The
    /// caller has the workspace's turn and the snapshot's lock.
    async fn drive_snapshot(&self, entry: &Entry, id: SnapshotId) -> Result<(), String> {
        let began = Instant::now();
        self.steps.snapshot_taken(id, SnapshotStep::IntentRecorded);
        let taken = self.capture(entry, id).await;
        let took = began.elapsed();
        telemetry::snapshot_taken(if taken.is_ok() { "ready" } else { "error" }, took);
        let Err(error) = taken else {
            tracing::info!(ms = took.as_millis(), "snapshot is ready");
            return Ok(());
        };
        let message = error_chain(&error);
        tracing::warn!(reason = message, "snapshot was not taken");
        if matches!(error, Untaken::Take(TakeError::Operation(OperationError::EngineUnavailable { .. }))) {
            // It stays `creating`: the next reconciliation undoes what there is of it.
            return Err(message);
        }
        if let Err(error) = self.follow_engine(entry).await {
            tracing::warn!(reason = error_chain(&error), "what the engine has of the workspace could not be found out");
        }
        if let Err(error) = self.abandon_snapshot(entry.provider(), id, message.clone()).await {
            tracing::warn!(reason = error_chain(&error), "what is left of the snapshot could not be removed");
        }
        Err(message)
    }

    async fn capture(&self, entry: &Entry, id: SnapshotId) -> Result<(), Untaken> {
        let Some(registered) = self.providers.get(entry.provider()) else { return Ok(()) };
        let spec = SnapshotSpec { snapshot: id, workspace: entry.id };
        let taken = registered.provider.take(&spec, &self.steps).await?;
        self.store.snapshots_record_taken(id, taken).await?;
        self.steps.snapshot_taken(id, SnapshotStep::ReadyRecorded);
        Ok(())
    }

    /// Waits until a snapshot is no longer being taken, and answers it as it is then.
    pub(crate) async fn settle_snapshot(
        &self,
        project: ProjectId,
        id: SnapshotId,
        at_most: Duration,
    ) -> Result<Snapshot, SnapshotError> {
        // Whether it is taken or the time is up, it is returned as it is.
        timeout(at_most, self.snapshot_locks.of(id).read_owned()).await.ok();
        self.snapshot(project, id).await
    }

    pub(crate) async fn snapshot(&self, project: ProjectId, id: SnapshotId) -> Result<Snapshot, SnapshotError> {
        self.snapshot_row(project, id).await.map(Snapshot::new)
    }

    async fn snapshot_row(&self, project: ProjectId, id: SnapshotId) -> Result<SnapshotRow, SnapshotError> {
        self.check_enabled()?;
        let row = self.store.snapshots_get(project, id).await?.filter(|row| !row.new.temporary);
        Ok(row.ok_or(SnapshotUnusable::NotFound)?)
    }

    pub(crate) async fn snapshots(
        &self,
        project: ProjectId,
        filter: SnapshotFilter,
        page: PageRequest,
    ) -> Result<Page<Snapshot>, ListError> {
        if !self.config.enabled {
            return Err(ListError::Disabled);
        }
        if !(1..=PageRequest::MOST).contains(&page.limit) {
            return Err(ListError::BadLimit { most: PageRequest::MOST });
        }
        Ok(self.store.snapshots_list(project, &filter, page).await?.map(Snapshot::new))
    }

    /// Deletes a project's snapshot. Dropping the future does not end it.
    pub(crate) async fn delete_snapshot(
        self: &Arc<Self>,
        project: ProjectId,
        id: SnapshotId,
    ) -> Result<(), SnapshotError> {
        let act = self.audit.begin(project, None, "delete_snapshot").with("snapshot", id.to_string());
        let result = self.delete_found(project, id).await;
        act.end(&result);
        result
    }

    async fn delete_found(self: &Arc<Self>, project: ProjectId, id: SnapshotId) -> Result<(), SnapshotError> {
        if self.is_going_down() {
            return Err(TransitionError::ShuttingDown.into());
        }
        let row = self.snapshot_row(project, id).await?;
        if row.new.server != self.store.server_id() {
            return Err(SnapshotUnusable::Elsewhere(row.new.server).into());
        }
        let core = Arc::clone(self);
        let delete = async move {
            let _alone = core.snapshot_locks.of(id).write_owned().await;
            core.ensure_lease().await?;
            core.remove_snapshot(&row).await
        };
        self.tasks.spawn(inherit(delete.in_current_span())).await.unwrap_or_else(|error| propagate(error))
    }

    /// Removes a snapshot: the row first says so, and goes last. The caller has its lock.
    async fn remove_snapshot(&self, row: &SnapshotRow) -> Result<(), SnapshotError> {
        let (id, kind) = (row.new.id, row.new.provider);
        if !self.store.snapshots_record(id, &SnapshotState::Deleting).await? {
            // Somebody else has just done it.
            return Ok(());
        }
        let registered = self.providers.get(kind).ok_or(TransitionError::NoProvider(kind))?;
        registered.provider.delete(id).await.map_err(SnapshotError::Delete)?;
        self.store.snapshots_forget(id).await?;
        tracing::info!(snapshot = %id, temporary = row.new.temporary, "snapshot is deleted");
        Ok(())
    }
}

fn cannot_be_copied(status: WorkspaceStatus) -> Option<TransitionError> {
    let advice = transitions::copy(status).err()?;
    Some(TransitionError::WrongState { state: status.word(), operation: "be copied", advice })
}

/// Refuses where the provider cannot do it, before anything is recorded.
fn require_snapshots(registered: &Registered) -> Result<(), TransitionError> {
    if registered.provider.capabilities().snapshots {
        return Ok(());
    }
    let warnings = registered.health().warnings;
    let reason = if warnings.is_empty() { "the provider has no snapshots".to_owned() } else { warnings.join("; ") };
    Err(TransitionError::Engine {
        operation: "copy",
        source: OperationError::Unsupported { operation: "snapshot", reason },
    })
}

/// A snapshot of a workspace as it is now.
fn snapshot_row(of: WorkspaceRow, request: NewSnapshot, temporary: bool) -> NewSnapshotRow {
    NewSnapshotRow {
        id: SnapshotId::generate(),
        project: of.project,
        server: of.server,
        workspace: of.id,
        provider: of.provider,
        name: request.name,
        labels: request.labels.unwrap_or(of.labels),
        temporary,
        kind: of.kind,
        image: of.image,
        limits: of.limits,
        network: of.network,
        allow_root: of.allow_root,
        environment_keys: of.environment_keys,
    }
}

/// A caller's word for a request; `canonical` is the same for the same request, and for no other.
fn claim(key: &IdempotencyKey, canonical: serde_json::Value) -> IdempotencyClaim {
    let request_hash = Sha256::digest(canonical.to_string()).into();
    IdempotencyClaim { key: key.as_str().to_owned(), request_hash }
}
