//! The facade of the core: [`Workspaces`].

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use emergent_provider::{Provider, ProviderKind};
use emergent_store::{
    AuditFilter, AuditRow, DestroyReason, ListFilter, Page, PageRequest, ProjectId, Store, StoreError, WorkspaceRow,
};
use emergent_types::{WorkspaceId, error_chain};
use tokio::time::timeout;

use crate::{
    Audit, CallError, Capacity, ChangeError, CoreConfig, GuestSession, IdempotencyKey, Images, Leftovers, ListError,
    LookupError, NewWorkspace, NewWorkspaceError, NoRoom, PoolStatus, ProviderStatus, Purpose, Readiness, Servers,
    Sessions, Snapshots, StartError, TransitionError, UsageHistory, Workspace, WorkspaceUpdate,
    orchestrator::Orchestrator,
    placement::providers::why_absent,
    workspace::{entry::Entry, lookup::check_limit, transitions::Operation},
};

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
        core.start();
        Ok(Self { core })
    }

    /// Shuts the service down: lets operations under way end, within a grace period. Workspaces run on.
    pub async fn shutdown(&self) {
        self.core.shutdown().await;
    }

    /// Writes the audit's queued rows to the store, also after a [`shutdown`](Self::shutdown) that was not waited for.
    pub async fn close_audit(&self) {
        self.core.base.audit.close().await;
    }

    /// Returns whether the service takes calls. Does not ask the store.
    pub fn is_ready(&self) -> Readiness {
        self.core.readiness()
    }

    /// The settings.
    pub fn config(&self) -> &CoreConfig {
        &self.core.base.config
    }

    /// Returns the servers of the installation, and this server's place among them.
    pub fn servers(&self) -> &Servers {
        &self.core.servers
    }

    /// Returns the sessions: who holds which workspace.
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.core.sessions
    }

    /// Returns the snapshots of workspaces, and the copies of workspaces.
    pub fn snapshots(&self) -> &Arc<Snapshots> {
        &self.core.snapshots
    }

    /// Returns the leftovers of the engines.
    pub fn leftovers(&self) -> &Leftovers {
        &self.core.leftovers
    }

    /// Returns the images that projects may use, for code that makes sandboxes beside the service.
    pub fn images(&self) -> &Images {
        &self.core.base.images
    }

    /// Returns whether the project has such a workspace, in any state. True while workspaces are switched off, since
    /// calls are then refused for that reason. Reads no row where this server drives the workspace.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn has(&self, project: ProjectId, id: WorkspaceId) -> Result<bool, StoreError> {
        match self.core.base.registry.get(id) {
            Some(entry) => Ok(entry.project == project),
            None if !self.core.base.config.enabled => Ok(true),
            None => Ok(self.core.base.store.workspaces_get(project, id).await?.is_some()),
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
        self.core.creation.create(project, request, key).await
    }

    /// Waits until a workspace is no longer `creating`, for at most this time, and returns the workspace.
    ///
    /// # Errors
    /// [`LookupError`] when it is not there.
    pub async fn wait_ready(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        at_most: Duration,
    ) -> Result<Workspace, LookupError> {
        let entry = self.core.base.lookup.entry(project, id);
        if let Some(entry) = &entry {
            // Whether it is made or the time is up, it is returned as it is.
            timeout(at_most, entry.made()).await.ok();
        }
        self.seen(project, id, entry).await
    }

    /// Returns one workspace.
    ///
    /// # Errors
    /// [`LookupError`] when it is not there.
    pub async fn get(&self, project: ProjectId, id: WorkspaceId) -> Result<Workspace, LookupError> {
        let entry = self.core.base.lookup.entry(project, id);
        self.seen(project, id, entry).await
    }

    /// Returns the id of the workspace with this name, if there is one.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn named(&self, project: ProjectId, name: &str) -> Result<Option<WorkspaceId>, StoreError> {
        self.core.base.store.workspace_named(project, name).await
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
        self.core.base.lookup.check_page(page)?;
        let rows = self.core.base.store.workspaces_list(project, &filter, page).await?;
        let ids: Vec<_> = rows.items.iter().map(|row| row.id).collect();
        let mut open: HashMap<_, _> = self
            .core
            .base
            .store
            .sessions_open(&ids)
            .await?
            .into_iter()
            .map(|session| (session.workspace, session))
            .collect();
        Ok(rows.map(|row| {
            let pull = self.core.base.registry.get(row.id).and_then(|entry| entry.pull());
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
        self.core.lifecycle.operate(project, id, Operation::Destroy(DestroyReason::Requested)).await
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
        let (row, entry) = self.core.changes.update(project, id, update).await?;
        Ok(self.present(row, entry).await?)
    }

    /// Returns the guest of a workspace, for one call. First starts a workspace that had ended by itself, and resumes
    /// one that rests because nobody used it.
    ///
    /// # Errors
    /// [`CallError`] says what to do.
    pub async fn guest(&self, project: ProjectId, id: WorkspaceId) -> Result<GuestSession, CallError> {
        self.core.calls.guest(project, id).await
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
        self.core.calls.guest_for(project, id, purpose).await
    }

    /// Notes that a call to this guest has removed files, so that a workspace that was full is counted again at once: a
    /// call of [`guest_for`](Self::guest_for) that comes afterwards waits for the count.
    pub fn note_removal(&self, guest: &GuestSession) {
        self.core.calls.note_removal(guest);
    }

    /// Checks whether the machine under a provider has room for one more sandbox.
    ///
    /// # Errors
    /// [`NoRoom`] where it does not.
    pub fn has_room(&self, provider: ProviderKind) -> Result<(), NoRoom> {
        self.core.base.host.has_room(provider, 0)
    }

    /// Returns the status of the warm pool, image by image.
    pub fn pool(&self) -> Vec<PoolStatus> {
        self.core.pool.status()
    }

    /// Returns the audit, for actions that do not go through this service.
    pub fn audit(&self) -> &Audit {
        &self.core.base.audit
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
        check_limit(page)?;
        Ok(self.core.base.store.audit_list(project, &filter, page).await?)
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
        self.core.usage.history(project, id, since, until).await
    }

    /// Returns the capacity in use and its limits: of one project and, with `of_all`, of the whole installation.
    ///
    /// # Errors
    /// [`LookupError`] when the store fails, or workspaces are switched off.
    pub async fn capacity(&self, project: ProjectId, of_all: bool) -> Result<Capacity, LookupError> {
        self.core.capacities.capacity(project, of_all).await
    }

    /// Returns the status of all three providers, as of the last health request. Counts the workspaces of one project,
    /// or of all.
    pub async fn providers(&self, seen: Option<ProjectId>) -> Vec<ProviderStatus> {
        let active = self.core.base.store.workspaces_active(seen).await.unwrap_or_else(|error| {
            tracing::warn!(reason = error_chain(&error), "active workspaces could not be counted");
            Vec::new()
        });
        let status = |kind: ProviderKind| {
            let active = active.iter().find(|(of, _)| *of == kind).map_or(0, |(_, active)| *active);
            let Some(registered) = self.core.base.providers.get(kind) else { return absent(kind, active) };
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

    async fn seen(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        entry: Option<Arc<Entry>>,
    ) -> Result<Workspace, LookupError> {
        let row = self.core.base.lookup.row(project, id).await?;
        Ok(self.present(row, entry).await?)
    }

    /// Adds to a row the facts that only this process knows, and the session that holds the workspace.
    async fn present(&self, row: WorkspaceRow, entry: Option<Arc<Entry>>) -> Result<Workspace, StoreError> {
        let pull = entry.and_then(|entry| entry.pull());
        let attached = self.core.base.store.sessions_open(&[row.id]).await?.into_iter().next();
        Ok(Workspace { attached, ..Workspace::new(row, pull) })
    }

    async fn change(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        operation: Operation,
    ) -> Result<Workspace, TransitionError> {
        self.core.lifecycle.operate(project, id, operation).await?;
        // A workspace that is still being made was refused, so that there is no pull to tell of.
        Ok(self.seen(project, id, None).await?)
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
