//! The facade of the core: [`Workspaces`].

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use emergent_provider::{Provider, ProviderKind};
use emergent_store::{
    AuditFilter, AuditRow, DestroyReason, LeftoverRow, ListFilter, Page, PageRequest, ProjectId, ServerRow, SessionId,
    SessionRow, SnapshotFilter, Store, StoreError,
};
use emergent_types::{ServerId, SnapshotId, WorkspaceId, error_chain};
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

use crate::{
    AdoptRequest, Adopted, AttachError, AttachRequest, Audit, CallError, Capacity, ChangeError, CoreConfig,
    GuestSession, IdempotencyKey, Images, LeftoverError, ListError, LookupError, NewForks, NewSnapshot, NewWorkspace,
    NewWorkspaceError, NoRoom, PoolStatus, ProviderStatus, Purpose, Readiness, SessionCall, SessionError, Snapshot,
    SnapshotError, StartError, TransitionError, UsageHistory, Workspace, WorkspaceOwner, WorkspaceUpdate,
    orchestrator::Orchestrator, placement::providers::why_absent, workspace::transitions::Operation,
};

/// How long a shutdown waits for operations under way.
const GRACE: Duration = Duration::from_secs(25);
/// How long start-up waits for the engines before calls are taken all the same.
const FIRST_LOOK: Duration = Duration::from_secs(20);

/// All workspaces of this server. Clones are the same service.
#[derive(Clone)]
pub struct Workspaces {
    core: Arc<Orchestrator>,
}

impl Workspaces {
    /// Starts the service. In the background, the service reconciles the state that an earlier process left
    /// ([`is_ready`](Self::is_ready) tells when that is done), watches the engines, and cleans up.
    /// [`shutdown`](Self::shutdown) ends all of it.
    ///
    /// # Errors
    /// [`StartError`] when a setting cannot be used or the store fails.
    pub async fn start(
        config: CoreConfig,
        store: Store,
        providers: Vec<Arc<dyn Provider>>,
    ) -> Result<Self, StartError> {
        let core = Arc::new(Orchestrator::new(config, store, providers).await?);
        let behind = Arc::new(AtomicUsize::new(core.providers.iter().count()));
        if behind.load(Ordering::Acquire) == 0 {
            core.note_reconciled();
        }
        for registered in core.providers.iter() {
            let (watcher, asker) = (Arc::clone(&core), Arc::clone(&core));
            let caught_up = catch_up_counter(Arc::clone(&core), Arc::clone(&behind));
            core.tasks.spawn(watcher.watch(Arc::clone(registered), caught_up));
            core.tasks.spawn(asker.keep_asking(Arc::clone(registered)));
            core.tasks.spawn(Arc::clone(&core).keep_guard(Arc::clone(registered)));
        }
        if core.config.enabled {
            for image_pool in core.pool.image_pools() {
                core.tasks.spawn(Arc::clone(&core).keep_warm(Arc::clone(image_pool)));
            }
        }
        core.tasks.spawn(take_calls_in_the_end(Arc::clone(&core)));
        core.tasks.spawn(Arc::clone(&core).keep_lease());
        core.tasks.spawn(Arc::clone(&core).keep_settling_doubts());
        core.tasks.spawn(Arc::clone(&core).keep_clean());
        core.tasks.spawn(Arc::clone(&core).keep_audit_short());
        core.tasks.spawn(Arc::clone(&core).keep_to_expiry());
        core.tasks.spawn(Arc::clone(&core).keep_recording_use());
        core.tasks.spawn(Arc::clone(&core).keep_counting());
        core.tasks.spawn(Arc::clone(&core).keep_sampling());
        core.tasks.spawn(Arc::clone(&core).keep_idle_at_rest());
        Ok(Self { core })
    }

    /// Shuts the service down: lets operations under way end, within a grace period. Workspaces run on.
    pub async fn shutdown(&self) {
        self.core.going_down.cancel();
        for entry in self.core.registry.all() {
            entry.unwanted.cancel();
        }
        self.core.tasks.close();
        if timeout(GRACE, self.core.tasks.wait()).await.is_err() {
            tracing::warn!("operations were still under way; the next start takes them up again");
        }
        self.core.record_use().await;
        self.core.audit.close().await;
    }

    /// Writes the audit's queued rows to the store, also after a [`shutdown`](Self::shutdown) that was not waited for.
    pub async fn close_audit(&self) {
        self.core.audit.close().await;
    }

    /// Returns whether the service takes calls. Does not ask the store.
    pub fn is_ready(&self) -> Readiness {
        if self.core.is_going_down() {
            Readiness::ShuttingDown
        } else if self.core.lease.is_draining() {
            Readiness::Draining
        } else if self.core.is_reconciled() {
            Readiness::Ready
        } else {
            Readiness::Reconciling
        }
    }

    /// The settings.
    pub fn config(&self) -> &CoreConfig {
        &self.core.config
    }

    /// Returns the images that projects may use, for code that makes sandboxes beside the service.
    pub fn images(&self) -> &Images {
        &self.core.images
    }

    /// This server's id.
    pub fn server_id(&self) -> ServerId {
        self.core.server_id()
    }

    /// Makes sure that this server may change its workspaces now. Code that works beside the service on the same lease
    /// asks first.
    ///
    /// # Errors
    /// [`StoreError`] says why not.
    pub async fn ensure_lease(&self) -> Result<(), StoreError> {
        self.core.ensure_lease().await
    }

    /// Renews the lease where it may have run out. Ignores a store that is away: meanwhile no other server can take
    /// workspaces over either. Costs nothing while the lease is fresh.
    pub async fn freshen(&self) {
        self.core.freshen().await;
    }

    /// Returns a counter that changes whenever rows may have become another server's, or this server's.
    pub fn changes_of_ownership(&self) -> watch::Receiver<u64> {
        self.core.ownership.subscribe()
    }

    /// Lists every server that shares the store, this one among them, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn servers(&self) -> Result<Vec<ServerRow>, StoreError> {
        self.core.store.servers_list().await
    }

    /// Makes this server refuse new workspaces, or accept them again; the choice outlasts restarts.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn set_draining(&self, draining: bool) -> Result<(), StoreError> {
        self.core.set_draining(draining).await
    }

    /// Returns whether this server refuses new workspaces. Does not ask the store.
    pub fn is_draining(&self) -> bool {
        self.core.lease.is_draining()
    }

    /// Lists the live servers besides this one that take new workspaces.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn others_that_take_new(&self) -> Result<Vec<ServerRow>, StoreError> {
        self.core.others_that_take_new().await
    }

    /// Finds the server that answers requests about a workspace. Reads no row where this server drives the workspace.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn locate_owner(&self, id: WorkspaceId) -> Result<WorkspaceOwner, StoreError> {
        self.core.locate_owner(id).await
    }

    /// Returns whether the project has such a workspace, in any state. True while workspaces are switched off, since
    /// calls are then refused for that reason. Reads no row where this server drives the workspace.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn has(&self, project: ProjectId, id: WorkspaceId) -> Result<bool, StoreError> {
        match self.core.registry.get(id) {
            Some(entry) => Ok(entry.project == project),
            None if !self.core.config.enabled => Ok(true),
            None => Ok(self.core.store.workspaces_get(project, id).await?.is_some()),
        }
    }

    /// Records a workspace as `creating` and returns; a task of the service makes it.
    ///
    /// # Errors
    /// [`NewWorkspaceError`]; nothing was made then.
    pub async fn create(
        &self,
        project: ProjectId,
        request: NewWorkspace,
        key: Option<IdempotencyKey>,
    ) -> Result<Workspace, NewWorkspaceError> {
        self.core.create(project, request, key).await
    }

    /// Waits until a workspace is no longer `creating`, for at most this time, and returns the workspace.
    ///
    /// # Errors
    /// [`LookupError`] when it is not there.
    pub async fn settle(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        at_most: Duration,
    ) -> Result<Workspace, LookupError> {
        if let Some(entry) = self.core.registry.get(id).filter(|entry| entry.project == project) {
            // Whether it is made or the time is up, it is returned as it is.
            timeout(at_most, entry.made.cancelled()).await.ok();
        }
        self.get(project, id).await
    }

    /// Returns one workspace.
    ///
    /// # Errors
    /// [`LookupError`] when it is not there.
    pub async fn get(&self, project: ProjectId, id: WorkspaceId) -> Result<Workspace, LookupError> {
        let row = self.core.row(project, id).await?;
        let pull = self.core.registry.get(id).and_then(|entry| entry.pull());
        let attached = self.core.store.sessions_open(&[id]).await.map_err(LookupError::Store)?.into_iter().next();
        Ok(Workspace { attached, ..Workspace::new(row, pull) })
    }

    /// Returns the id of the workspace with this name, if there is one.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn named(&self, project: ProjectId, name: &str) -> Result<Option<WorkspaceId>, StoreError> {
        self.core.store.workspace_named(project, name).await
    }

    /// Returns a page of the project's workspaces, newest first.
    ///
    /// # Errors
    /// [`ListError`] when the page cannot be.
    pub async fn list(
        &self,
        project: ProjectId,
        filter: ListFilter,
        page: PageRequest,
    ) -> Result<Page<Workspace>, ListError> {
        if !self.core.config.enabled {
            return Err(ListError::Disabled);
        }
        if !(1..=PageRequest::MOST).contains(&page.limit) {
            return Err(ListError::BadLimit { most: PageRequest::MOST });
        }
        let rows = self.core.store.workspaces_list(project, &filter, page).await?;
        let ids: Vec<_> = rows.items.iter().map(|row| row.id).collect();
        let mut open: HashMap<_, _> = self
            .core
            .store
            .sessions_open(&ids)
            .await?
            .into_iter()
            .map(|session| (session.workspace, session))
            .collect();
        Ok(rows.map(|row| {
            let pull = self.core.registry.get(row.id).and_then(|entry| entry.pull());
            let attached = open.remove(&row.id);
            Workspace { attached, ..Workspace::new(row, pull) }
        }))
    }

    /// Destroys a workspace. When the call returns, nothing of the workspace is left in the engine. Destroying a
    /// destroyed workspace changes nothing.
    ///
    /// # Errors
    /// [`TransitionError`]; the workspace stays `destroying` if the engine failed, and is destroyed when it is back.
    pub async fn destroy(&self, project: ProjectId, id: WorkspaceId) -> Result<(), TransitionError> {
        self.core.operate(project, id, Operation::Destroy(DestroyReason::Requested)).await
    }

    /// Stops a workspace; its files are kept.
    ///
    /// # Errors
    /// [`TransitionError`].
    pub async fn stop(&self, project: ProjectId, id: WorkspaceId) -> Result<Workspace, TransitionError> {
        self.change(project, id, Operation::Stop).await
    }

    /// Resumes a paused workspace, or starts a stopped one.
    ///
    /// # Errors
    /// [`TransitionError`].
    pub async fn resume(&self, project: ProjectId, id: WorkspaceId) -> Result<Workspace, TransitionError> {
        self.change(project, id, Operation::Resume).await
    }

    /// Freezes a workspace with its processes.
    ///
    /// # Errors
    /// [`TransitionError`].
    pub async fn pause(&self, project: ProjectId, id: WorkspaceId) -> Result<Workspace, TransitionError> {
        self.change(project, id, Operation::Pause).await
    }

    /// Changes the properties of a workspace that can change while it lives.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing was changed then.
    pub async fn update(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        update: WorkspaceUpdate,
    ) -> Result<Workspace, ChangeError> {
        self.core.update(project, id, update).await?;
        Ok(self.get(project, id).await?)
    }

    /// Attaches a holder to a workspace and makes the workspace ready: a paused or stopped one is resumed.
    ///
    /// # Errors
    /// [`AttachError`]; nobody else was detached then.
    pub async fn attach(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        request: AttachRequest,
    ) -> Result<SessionRow, AttachError> {
        self.core.attach(project, id, request).await
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
        self.core.detach(project, id, session).await
    }

    /// Returns a page of a workspace's sessions, newest first. Does not check `page.limit`.
    ///
    /// # Errors
    /// [`SessionError`] when there is no such workspace.
    pub async fn sessions(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        page: PageRequest,
    ) -> Result<Page<SessionRow>, SessionError> {
        self.core.sessions(project, id, page).await
    }

    /// Begins a call on behalf of the session that holds the workspace; the session's lease does not run out while the
    /// returned value exists. Reads no row; few calls write one.
    ///
    /// # Errors
    /// [`SessionError`] names who holds it.
    pub async fn begin_session_call(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        session: SessionId,
    ) -> Result<SessionCall, SessionError> {
        self.core.begin_session_call(project, id, session).await
    }

    /// Returns the guest of a workspace, for one call. First starts a workspace that had ended by itself, and resumes
    /// one that rests because nobody used it.
    ///
    /// # Errors
    /// [`CallError`] says what to do.
    pub async fn guest(&self, project: ProjectId, id: WorkspaceId) -> Result<GuestSession, CallError> {
        self.core.guest(project, id).await
    }

    /// Returns the guest of a workspace for a call that starts programs or writes files: like [`guest`](Self::guest),
    /// but fails where the disk has no room for that.
    ///
    /// # Errors
    /// [`CallError`], also where there is no room.
    pub async fn guest_for(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        purpose: Purpose,
    ) -> Result<GuestSession, CallError> {
        self.core.guest_for(project, id, purpose).await
    }

    /// Notes that a call to this guest has removed files, so that a workspace that was full is counted again at once: a
    /// call of [`guest_for`](Self::guest_for) that comes afterwards waits for the count.
    pub fn note_removal(&self, guest: &GuestSession) {
        self.core.note_removal(&guest.entry);
    }

    /// Checks whether the machine under a provider has room for one more sandbox.
    ///
    /// # Errors
    /// [`NoRoom`] where it does not.
    pub fn has_room(&self, provider: ProviderKind) -> Result<(), NoRoom> {
        self.core.has_room(provider, 0)
    }

    /// Records a snapshot of a workspace as `creating` and returns; a task of the service takes it.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing was recorded then.
    pub async fn take_snapshot(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        request: NewSnapshot,
        key: Option<IdempotencyKey>,
    ) -> Result<Snapshot, SnapshotError> {
        self.core.take_snapshot(project, id, request, key).await
    }

    /// Waits until a snapshot is no longer `creating`, for at most this time, and returns the snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`] when it is not there.
    pub async fn settle_snapshot(
        &self,
        project: ProjectId,
        id: SnapshotId,
        at_most: Duration,
    ) -> Result<Snapshot, SnapshotError> {
        self.core.settle_snapshot(project, id, at_most).await
    }

    /// Returns one snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`] when it is not there.
    pub async fn snapshot(&self, project: ProjectId, id: SnapshotId) -> Result<Snapshot, SnapshotError> {
        self.core.snapshot(project, id).await
    }

    /// Returns a page of the project's snapshots, newest first.
    ///
    /// # Errors
    /// [`ListError`] when the page cannot be.
    pub async fn snapshots(
        &self,
        project: ProjectId,
        filter: SnapshotFilter,
        page: PageRequest,
    ) -> Result<Page<Snapshot>, ListError> {
        self.core.snapshots(project, filter, page).await
    }

    /// Deletes a snapshot. Waits for the workspaces that are being made from it; finished ones are not affected.
    ///
    /// # Errors
    /// [`SnapshotError`]; the snapshot stays `deleting` if the engine failed, and goes when it is back.
    pub async fn delete_snapshot(&self, project: ProjectId, id: SnapshotId) -> Result<(), SnapshotError> {
        self.core.delete_snapshot(project, id).await
    }

    /// Records copies of a workspace as `creating` and returns; a task of the service makes them. Either all copies are
    /// admitted or none is.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing was made then.
    pub async fn fork(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        request: NewForks,
        key: Option<IdempotencyKey>,
    ) -> Result<Vec<Workspace>, SnapshotError> {
        self.core.fork(project, id, request, key).await
    }

    /// Lists the leftovers: sandboxes and snapshots of the engines that had been handed over and that no row accounts
    /// for, the newest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn leftovers(&self) -> Result<Vec<LeftoverRow>, StoreError> {
        self.core.store.leftovers_list().await
    }

    /// Turns a leftover into a workspace, which is stopped, or a snapshot, which is ready. Does not check quotas: the
    /// caller is an administrator.
    ///
    /// # Errors
    /// [`LeftoverError`]; nothing was changed then.
    pub async fn adopt_leftover(&self, id: Uuid, request: AdoptRequest) -> Result<Adopted, LeftoverError> {
        self.core.adopt_leftover(id, request).await
    }

    /// Removes a leftover with all its files.
    ///
    /// # Errors
    /// [`LeftoverError`]; the leftover stays then.
    pub async fn remove_leftover(&self, id: Uuid) -> Result<(), LeftoverError> {
        self.core.remove_leftover(id).await
    }

    /// Returns the status of the warm pool, image by image.
    pub fn pool(&self) -> Vec<PoolStatus> {
        self.core.pool.status()
    }

    /// Returns the audit, for actions that do not go through this service.
    pub fn audit(&self) -> &Audit {
        &self.core.audit
    }

    /// Returns a page of the audit of a project, or of one workspace of it, newest first. Actions on destroyed
    /// workspaces are included; actions of the last second may be missing.
    ///
    /// # Errors
    /// [`ListError`] when the page cannot be.
    pub async fn audit_list(
        &self,
        project: ProjectId,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditRow>, ListError> {
        if !(1..=PageRequest::MOST).contains(&page.limit) {
            return Err(ListError::BadLimit { most: PageRequest::MOST });
        }
        Ok(self.core.store.audit_list(project, &filter, page).await?)
    }

    /// Returns the resource usage of a workspace in a span of time; also of a destroyed one, for as long as samples are
    /// kept.
    ///
    /// # Errors
    /// [`LookupError`] when it is not there.
    pub async fn usage_history(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<UsageHistory, LookupError> {
        self.core.usage_history(project, id, since, until).await
    }

    /// Returns the capacity in use and its limits: of one project and, with `of_all`, of the whole installation.
    ///
    /// # Errors
    /// [`LookupError`] when the store fails, or workspaces are switched off.
    pub async fn capacity(&self, project: ProjectId, of_all: bool) -> Result<Capacity, LookupError> {
        self.core.capacity(project, of_all).await
    }

    /// Returns the status of all three providers, as of the last health request. Counts the workspaces of one project,
    /// or of all.
    pub async fn providers(&self, seen: Option<ProjectId>) -> Vec<ProviderStatus> {
        let active = self.core.store.workspaces_active(seen).await.unwrap_or_else(|error| {
            tracing::warn!(reason = error_chain(&error), "active workspaces could not be counted");
            Vec::new()
        });
        let status = |kind: ProviderKind| {
            let active = active.iter().find(|(of, _)| *of == kind).map_or(0, |(_, active)| *active);
            let Some(registered) = self.core.providers.get(kind) else { return absent(kind, active) };
            let health = registered.health();
            ProviderStatus {
                kind,
                registered: true,
                healthy: health.healthy,
                quarantine: registered.quarantined(),
                message: health.message,
                warnings: health.warnings,
                capabilities: Some(registered.provider.capabilities()),
                active,
            }
        };
        ProviderKind::ALL.map(status).into()
    }

    async fn change(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        operation: Operation,
    ) -> Result<Workspace, TransitionError> {
        self.core.operate(project, id, operation).await?;
        Ok(self.get(project, id).await?)
    }
}

fn absent(kind: ProviderKind, active: u64) -> ProviderStatus {
    ProviderStatus {
        kind,
        registered: false,
        healthy: false,
        quarantine: None,
        message: why_absent(kind).to_owned(),
        warnings: Vec::new(),
        capabilities: None,
        active,
    }
}

/// Returns a function that marks a provider as caught up with; only its first call counts.
fn catch_up_counter(core: Arc<Orchestrator>, behind: Arc<AtomicUsize>) -> impl Fn() + Send + Sync {
    let first = std::sync::Once::new();
    move || {
        first.call_once(|| {
            if behind.fetch_sub(1, Ordering::AcqRel) == 1 {
                core.note_reconciled();
            }
        });
    }
}

/// Lets the service take calls after [`FIRST_LOOK`], so that an absent engine does not block the workspaces of the
/// others.
async fn take_calls_in_the_end(core: Arc<Orchestrator>) {
    tokio::select! {
        () = tokio::time::sleep(FIRST_LOOK) => core.note_reconciled(),
        () = core.going_down.cancelled() => {}
    }
}
