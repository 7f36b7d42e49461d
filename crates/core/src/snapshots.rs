//! Snapshots: taken while nobody else changes the workspace, kept until somebody deletes them, used by creates.

mod error;
mod fork;
mod reconcile_action;
mod recover;
pub(crate) mod request;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use emergent_provider::{OperationError, SnapshotSpec, TakeError};
use emergent_store::{
    NewSnapshotRow, Page, PageRequest, ProjectId, SnapshotAdmission, SnapshotFilter, SnapshotRow, SnapshotState, Store,
    StoreError, WorkspaceRow,
};
use emergent_types::{SnapshotId, SnapshotStep, StepObserver as _, WorkspaceId, error_chain};
use tokio::time::timeout;
use tracing::Instrument as _;

pub use self::error::SnapshotError;
use self::request::NewSnapshot;
use crate::{
    audit::{Audit, inherit},
    cluster::lease::Lease,
    config::CoreConfig,
    creation::{Creation, NewWorkspaceError, SnapshotUnusable, snapshot_locks::SnapshotLocks},
    foundation::Foundation,
    guests::Guests,
    idempotency::IdempotencyKey,
    leftovers::Leftovers,
    lifecycle::{Lifecycle, RETRY_AFTER, TransitionError},
    placement::providers::{Providers, Registered},
    quota::host_guard::HostGuard,
    tasks::Tasks,
    telemetry,
    workspace::{
        admissions::Admissions,
        entry::{Entry, WorkspaceGuard},
        lookup::{Found, ListError, Lookup, LookupError},
        registry::Registry,
        state::WorkspaceStatus,
        steps::Steps,
        transitions,
        validate::{labels_are_fine, name_is_fine},
    },
};

/// Takes, copies and deletes snapshots.
pub struct Snapshots {
    store: Store,
    registry: Arc<Registry>,
    providers: Arc<Providers>,
    lookup: Lookup,
    lease: Arc<Lease>,
    guests: Arc<Guests>,
    host: Arc<HostGuard>,
    steps: Arc<Steps>,
    admissions: Admissions,
    audit: Audit,
    tasks: Tasks,
    lifecycle: Arc<Lifecycle>,
    creation: Arc<Creation>,
    leftovers: Arc<Leftovers>,
    locks: Arc<SnapshotLocks>,
    config: Arc<CoreConfig>,
    started_at: DateTime<Utc>,
}

/// The reason for which a snapshot whose row was recorded did not become ready.
#[derive(Debug, thiserror::Error)]
enum Untaken {
    #[error(transparent)]
    Take(#[from] TakeError),
    #[error("the snapshot could not be recorded")]
    Store(#[from] StoreError),
}

// === impl Snapshots ===

impl Snapshots {
    pub(crate) fn new(
        base: &Foundation,
        lifecycle: Arc<Lifecycle>,
        creation: Arc<Creation>,
        leftovers: Arc<Leftovers>,
        locks: Arc<SnapshotLocks>,
    ) -> Self {
        Self {
            store: base.store.clone(),
            registry: Arc::clone(&base.registry),
            providers: Arc::clone(&base.providers),
            lookup: base.lookup.clone(),
            lease: Arc::clone(&base.lease),
            guests: Arc::clone(&base.guests),
            host: Arc::clone(&base.host),
            steps: Arc::clone(&base.steps),
            admissions: base.admissions.clone(),
            audit: base.audit.clone(),
            tasks: base.tasks.clone(),
            lifecycle,
            creation,
            leftovers,
            locks,
            config: Arc::clone(&base.config),
            started_at: base.started_at,
        }
    }

    /// Records a snapshot of a workspace as `creating` and returns; a task of the service takes it.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing was recorded then.
    pub async fn take(
        self: &Arc<Self>,
        project: ProjectId,
        id: WorkspaceId,
        request: NewSnapshot,
        key: Option<IdempotencyKey>,
    ) -> Result<SnapshotRow, SnapshotError> {
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
    ) -> Result<SnapshotRow, SnapshotError> {
        if let Some(name) = &request.name {
            name_is_fine(name)?;
        }
        if let Some(labels) = &request.labels {
            labels_are_fine(labels)?;
        }
        let entry = self.to_be_copied(project, id).await?;
        let snapshots = Arc::clone(self);
        let begin = async move { snapshots.begin_snapshot(entry, request, key).await };
        self.tasks.run(begin.in_current_span()).await
    }

    /// The entry of a workspace that somebody wants to copy. One that is still being made is refused at once: nobody
    /// waits for its guard.
    async fn to_be_copied(&self, project: ProjectId, id: WorkspaceId) -> Result<Arc<Entry>, TransitionError> {
        if self.tasks.is_going_down() {
            return Err(TransitionError::ShuttingDown);
        }
        match self.lookup.find(project, id).await? {
            Found::Destroyed => Err(cannot_be_copied(WorkspaceStatus::Destroyed).unwrap_or(TransitionError::NotFound)),
            Found::Entry(entry) => match (entry.status(), cannot_be_copied(entry.status())) {
                (WorkspaceStatus::Creating, Some(refusal)) => Err(refusal),
                _ => Ok(entry),
            },
        }
    }

    /// Checks a workspace that is to be copied so many times, and reads what it is.
    async fn copied_row(&self, guard: &WorkspaceGuard, copies: u32) -> Result<WorkspaceRow, SnapshotError> {
        if let Some(refusal) = cannot_be_copied(guard.status()) {
            return Err(refusal.into());
        }
        require_snapshots(self.lifecycle.provider_of(guard)?)?;
        self.host.has_room_for_copies(guard, copies).await.map_err(NewWorkspaceError::from)?;
        self.lease.may_act_on(guard).await?;
        Ok(self.store.workspaces_find(guard.id).await?.ok_or(LookupError::NotFound)?)
    }

    async fn begin_snapshot(
        self: Arc<Self>,
        entry: Arc<Entry>,
        request: NewSnapshot,
        key: Option<IdempotencyKey>,
    ) -> Result<SnapshotRow, SnapshotError> {
        let mut guard = entry.guard().await;
        let row = self.copied_row(&guard, 1).await?;
        let claim = key.map(|key| key.of_snapshot(guard.id, request.name.as_deref(), request.labels.as_ref()));
        let new = snapshot_row(row, request, false);
        let id = new.id;
        let alone = self.locks.of(id).write_owned().await;
        let row = match self.store.snapshots_admit(new, claim).await? {
            SnapshotAdmission::Admitted(row) => *row,
            SnapshotAdmission::Repeated(earlier) => return self.get(guard.project, earlier).await,
            SnapshotAdmission::KeyTaken => return Err(NewWorkspaceError::IdempotencyMismatch.into()),
            SnapshotAdmission::OverQuota(reached) => {
                return Err(NewWorkspaceError::OverQuota { reached, retry_after: RETRY_AFTER }.into());
            }
        };
        let span = tracing::info_span!("snapshot", snapshot = %id, workspace = %guard.id);
        let snapshots = Arc::clone(&self);
        let drive = async move {
            // A failure is in its row.
            snapshots.drive_snapshot(&mut guard, id).await.ok();
            drop(alone);
        };
        self.tasks.spawn(inherit(drive.instrument(span)));
        Ok(row)
    }

    /// Takes a snapshot whose row says `creating`, and records how that ended; the error is what the row says. The
    /// caller has the snapshot's lock.
    async fn drive_snapshot(&self, guard: &mut WorkspaceGuard, id: SnapshotId) -> Result<(), String> {
        let began = Instant::now();
        self.steps.snapshot_taken(id, SnapshotStep::IntentRecorded);
        let taken = self.capture(guard, id).await;
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
        if let Err(error) = self.lifecycle.follow_engine(guard).await {
            tracing::warn!(reason = error_chain(&error), "what the engine has of the workspace could not be found out");
        }
        if let Err(error) = self.abandon_snapshot(guard.provider(), id, message.clone()).await {
            tracing::warn!(reason = error_chain(&error), "what is left of the snapshot could not be removed");
        }
        Err(message)
    }

    async fn capture(&self, guard: &mut WorkspaceGuard, id: SnapshotId) -> Result<(), Untaken> {
        let Some(registered) = self.providers.get(guard.provider()) else { return Ok(()) };
        let spec = SnapshotSpec { snapshot: id, workspace: guard.id };
        let taken = registered.provider.take(&spec, self.steps.as_ref()).await?;
        self.store.snapshots_record_taken(id, taken).await?;
        self.steps.snapshot_taken(id, SnapshotStep::ReadyRecorded);
        Ok(())
    }

    /// Waits until a snapshot is no longer `creating`, for at most this time, and returns the snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`] when it is not there.
    pub async fn wait_ready(
        &self,
        project: ProjectId,
        id: SnapshotId,
        at_most: Duration,
    ) -> Result<SnapshotRow, SnapshotError> {
        // Whether it is taken or the time is up, it is returned as it is.
        timeout(at_most, self.locks.of(id).read_owned()).await.ok();
        self.get(project, id).await
    }

    /// Returns one snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`] when it is not there.
    pub async fn get(&self, project: ProjectId, id: SnapshotId) -> Result<SnapshotRow, SnapshotError> {
        self.snapshot_row(project, id).await
    }

    async fn snapshot_row(&self, project: ProjectId, id: SnapshotId) -> Result<SnapshotRow, SnapshotError> {
        self.lookup.check_enabled()?;
        let row = self.store.snapshots_get(project, id).await?.filter(|row| !row.new.temporary);
        Ok(row.ok_or(SnapshotUnusable::NotFound)?)
    }

    /// Returns a page of the project's snapshots, newest first.
    ///
    /// # Errors
    /// [`ListError`] when the page cannot be.
    pub async fn list(
        &self,
        project: ProjectId,
        filter: SnapshotFilter,
        page: PageRequest,
    ) -> Result<Page<SnapshotRow>, ListError> {
        self.lookup.check_page(page)?;
        Ok(self.store.snapshots_list(project, &filter, page).await?)
    }

    /// Deletes a snapshot. Waits for the workspaces that are being made from it; finished ones are not affected.
    ///
    /// # Errors
    /// [`SnapshotError`]; the snapshot stays `deleting` if the engine failed, and goes when it is back.
    pub async fn delete(self: &Arc<Self>, project: ProjectId, id: SnapshotId) -> Result<(), SnapshotError> {
        let act = self.audit.begin(project, None, "delete_snapshot").with("snapshot", id.to_string());
        let result = self.delete_found(project, id).await;
        act.end(&result);
        result
    }

    async fn delete_found(self: &Arc<Self>, project: ProjectId, id: SnapshotId) -> Result<(), SnapshotError> {
        if self.tasks.is_going_down() {
            return Err(TransitionError::ShuttingDown.into());
        }
        let row = self.snapshot_row(project, id).await?;
        if row.new.server != self.store.server_id() {
            return Err(SnapshotUnusable::Elsewhere(row.new.server).into());
        }
        let snapshots = Arc::clone(self);
        let delete = async move {
            let _alone = snapshots.locks.of(id).write_owned().await;
            snapshots.lease.ensure().await?;
            snapshots.remove_snapshot(&row).await
        };
        self.tasks.run(delete.in_current_span()).await
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
        spec: of.spec,
    }
}
