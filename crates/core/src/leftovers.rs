//! Leftovers: sandboxes and snapshots of an engine that were handed over to somebody and that no row accounts for. A
//! missing row alone never removes a leftover: it is stopped, listed, kept for `WORKSPACE_LEFTOVER_RETENTION_DAYS`, and
//! can be adopted.
//!
//! ```text
//!   found ──► put aside ──► adopted: a stopped workspace, a ready snapshot
//!                 │
//!                 └──time is up, or somebody asks──► removed
//! ```

use std::{collections::HashSet, sync::Arc};

use chrono::{TimeDelta, Utc};
use emergent_provider::{ContainerKind, EngineState, Observed, ObservedSnapshot, OperationError, Origin, ProviderKind};
use emergent_store::{
    DestroyReason, IdlePolicy, LeftoverKind, LeftoverRow, NewSnapshotRow, ProjectId, SnapshotRow, SnapshotState, Store,
    StoreError, WorkspaceRow, WorkspaceSpec, WorkspaceState,
};
use emergent_types::{ServerId, SnapshotId, WorkspaceId, error_chain};
use uuid::Uuid;

use crate::{
    cluster::lease::Lease,
    foundation::Foundation,
    guests::Guests,
    lifecycle::{Lifecycle, Wait},
    placement::providers::{Providers, Registered},
    telemetry,
    workspace::{admissions::Admissions, steps::Undoing},
};

const OLDER_RELEASE: &str = "its image and limits are not known: an older release made it, or only its files are left";
const NOT_KNOWN: &str = "it was adopted after its row was lost: its environment is as it was handed over, but this server                          does not know the names of its variables";

/// The new owner of a leftover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptRequest {
    /// The project that owns the workspace or snapshot from now on.
    pub project: ProjectId,
    /// A display name.
    pub name: Option<String>,
}

/// The workspace or snapshot that a leftover has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// A workspace, which is stopped.
    Workspace(WorkspaceId),
    /// A snapshot, which is ready.
    Snapshot(SnapshotId),
}

/// The kind of things that an engine lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inventory {
    Sandboxes,
    Snapshots,
}

/// The leftovers of the engines: puts them aside, lists them, and turns them into workspaces and snapshots again.
pub struct Leftovers {
    store: Store,
    providers: Arc<Providers>,
    lease: Arc<Lease>,
    admissions: Admissions,
    guests: Arc<Guests>,
    lifecycle: Arc<Lifecycle>,
    /// The time for which a leftover is kept.
    retention: TimeDelta,
    /// The lifetime of an adopted workspace.
    default_ttl: TimeDelta,
    /// The idle policy of an adopted workspace.
    default_idle: IdlePolicy,
}

/// The reason for which a leftover was not adopted or removed.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// There is no such leftover.
    #[error("there is no such leftover; `emergent server leftovers` lists them")]
    NotFound,
    /// Another server found it.
    #[error("server {0} of this installation found the leftover; ask that server")]
    Elsewhere(ServerId),
    /// The leftover's provider is not part of this server.
    #[error("provider {0} is not part of this server")]
    NoProvider(ProviderKind),
    /// The leftover cannot become a workspace or a snapshot.
    #[error("the leftover cannot be adopted: {reason}; copy what you need out of it, or remove it")]
    NotAdoptable {
        /// The reason why the leftover cannot be adopted.
        reason: &'static str,
    },
    /// The engine refused or did not answer.
    #[error("the engine could not adopt or remove the leftover")]
    Engine(#[source] OperationError),
    /// The store failed.
    #[error("the change of the leftover could not be recorded")]
    Store(#[from] StoreError),
}

// === impl Leftovers ===

impl Leftovers {
    pub(crate) fn new(base: &Foundation, lifecycle: Arc<Lifecycle>) -> Self {
        Self {
            store: base.store.clone(),
            providers: Arc::clone(&base.providers),
            lease: Arc::clone(&base.lease),
            admissions: base.admissions.clone(),
            guests: Arc::clone(&base.guests),
            lifecycle,
            retention: base.config.leftover_retention,
            default_ttl: base.config.default_ttl,
            default_idle: base.config.default_idle,
        }
    }

    /// Lists the leftovers: sandboxes and snapshots of the engines that had been handed over and that no row accounts
    /// for, the newest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn list(&self) -> Result<Vec<LeftoverRow>, StoreError> {
        self.store.leftovers_list().await
    }

    /// Puts a sandbox aside, or removes it once it has been aside for as long as leftovers are kept.
    pub(crate) async fn put_aside(&self, registered: &Registered, sandbox: &Observed) {
        let kind = match sandbox.kind {
            ContainerKind::AgentWorkspace => LeftoverKind::Workspace,
            ContainerKind::McpServer => LeftoverKind::McpServer,
        };
        let leftover = LeftoverRow {
            id: sandbox.workspace.as_uuid(),
            kind,
            provider: registered.provider.kind(),
            maker: sandbox.server,
            server: self.store.server_id(),
            made_at: sandbox.created_at,
            found_at: Utc::now(),
        };
        if self.keep_leftover(registered, leftover).await
            && sandbox.state == EngineState::Running
            && let Err(error) = self.bring_to_rest(registered, sandbox.workspace).await
        {
            tracing::warn!(workspace = %sandbox.workspace, reason = error_chain(&error), "a leftover could not be stopped");
        }
    }

    /// Puts a snapshot aside, or removes it once it has been aside for as long as leftovers are kept.
    pub(crate) async fn put_snapshot_aside(&self, registered: &Registered, snapshot: &ObservedSnapshot) {
        let leftover = LeftoverRow {
            id: snapshot.snapshot.as_uuid(),
            kind: LeftoverKind::Snapshot,
            provider: registered.provider.kind(),
            maker: snapshot.server,
            server: self.store.server_id(),
            made_at: snapshot.created_at,
            found_at: Utc::now(),
        };
        self.keep_leftover(registered, leftover).await;
    }

    /// Records a leftover, or removes it once its time is up; returns whether it stays.
    async fn keep_leftover(&self, registered: &Registered, leftover: LeftoverRow) -> bool {
        let (id, kind) = (leftover.id, leftover.kind.as_str());
        let known = match self.store.leftovers_note(&leftover).await {
            Ok(true) => {
                let days = self.retention.num_days();
                tracing::warn!(
                    %id,
                    kind,
                    days,
                    "the engine has something that was handed over and that no row accounts for; it is put aside, and \
                     kept for some days: see `emergent server leftovers`"
                );
                return true;
            }
            Ok(false) => self.store.leftovers_find(id).await,
            Err(error) => Err(error),
        };
        match known {
            Ok(Some(known)) if Utc::now() - known.found_at >= self.retention => {
                match self.remove_known(registered, &known).await {
                    Ok(()) => tracing::warn!(%id, kind, "removed a leftover: its time was up"),
                    Err(error) => {
                        tracing::warn!(%id, kind, reason = error_chain(&error), "a leftover could not be removed")
                    }
                }
                false
            }
            Ok(Some(_)) => true,
            // It has just been adopted or removed.
            Ok(None) => false,
            Err(error) => {
                tracing::warn!(%id, kind, reason = error_chain(&error), "a leftover could not be recorded");
                false
            }
        }
    }

    /// Stops a sandbox, or freezes it where a stop would lose files.
    async fn bring_to_rest(&self, registered: &Registered, id: WorkspaceId) -> Result<(), OperationError> {
        let capabilities = registered.provider.capabilities();
        if capabilities.persistence || !capabilities.pause {
            registered.provider.stop(id).await
        } else {
            registered.provider.pause(id).await
        }
    }

    /// Forgets leftovers that an engine no longer has, given all that it has.
    pub(crate) async fn forget_gone(&self, provider: ProviderKind, inventory: Inventory, present: &HashSet<Uuid>) {
        let forgotten = async {
            let known = self.store.leftovers_list().await?;
            let gone = known.iter().filter(|row| row.server == self.store.server_id() && row.provider == provider);
            let gone = gone.filter(|row| Inventory::of(row.kind) == inventory && !present.contains(&row.id));
            let gone = gone.map(|row| row.id).collect::<Vec<_>>();
            if gone.is_empty() { Ok(()) } else { self.store.leftovers_forget(&gone).await }
        };
        if let Err(error) = forgotten.await {
            tracing::warn!(reason = error_chain(&error), "leftovers could not be compared with the engine");
        }
    }

    /// Turns a leftover into a workspace, which is stopped, or a snapshot, which is ready. Does not check quotas: the
    /// caller is an administrator.
    ///
    /// # Errors
    /// [`LeftoverError`]; nothing was changed then.
    pub async fn adopt(&self, id: Uuid, request: AdoptRequest) -> Result<Adopted, LeftoverError> {
        let (leftover, registered) = self.leftover(id).await?;
        match leftover.kind {
            LeftoverKind::Workspace => self.adopt_workspace(&leftover, registered, request).await,
            LeftoverKind::Snapshot => self.adopt_snapshot(&leftover, registered, request).await,
            LeftoverKind::McpServer => {
                let reason = "the settings of a hosted MCP server were in its row alone; register it again";
                Err(LeftoverError::NotAdoptable { reason })
            }
        }
    }

    /// Removes a leftover with all its files.
    ///
    /// # Errors
    /// [`LeftoverError`]; the leftover stays then.
    pub async fn remove(&self, id: Uuid) -> Result<(), LeftoverError> {
        let (leftover, registered) = self.leftover(id).await?;
        self.remove_known(registered, &leftover).await
    }

    async fn leftover(&self, id: Uuid) -> Result<(LeftoverRow, &Arc<Registered>), LeftoverError> {
        let leftover = self.store.leftovers_find(id).await?.ok_or(LeftoverError::NotFound)?;
        if leftover.server != self.store.server_id() {
            return Err(LeftoverError::Elsewhere(leftover.server));
        }
        self.lease.ensure().await?;
        let registered = self.providers.get(leftover.provider).ok_or(LeftoverError::NoProvider(leftover.provider))?;
        Ok((leftover, registered))
    }

    async fn adopt_workspace(
        &self,
        leftover: &LeftoverRow,
        registered: &Arc<Registered>,
        request: AdoptRequest,
    ) -> Result<Adopted, LeftoverError> {
        let id = WorkspaceId::from(leftover.id);
        let origin = registered
            .provider
            .origin(id)
            .await
            .map_err(LeftoverError::Engine)?
            .ok_or(LeftoverError::NotAdoptable { reason: OLDER_RELEASE })?;
        let (project, server) = (request.project, self.store.server_id());
        let row = WorkspaceRow {
            name: request.name,
            state: WorkspaceState::Stopped,
            isolation: Some(registered.provider.capabilities().isolation),
            warnings: vec![NOT_KNOWN.to_owned()],
            created_at: leftover.made_at,
            ready_at: Some(leftover.made_at),
            expires_at: Utc::now().checked_add_signed(self.default_ttl),
            idle: self.default_idle,
            ..WorkspaceRow::new(id, project, server, leftover.provider, adopted_spec(origin))
        };
        let admission = self.admissions.begin(id);
        if !self.store.leftovers_adopt_workspace(&row).await? {
            return Err(LeftoverError::NotFound);
        }
        let entry = self.guests.enter(&row);
        drop(admission);
        tracing::info!(workspace = %id, project = %request.project, "a leftover is a workspace again");
        // It may rest in another way than its row says.
        self.lifecycle.look_again(&entry, Wait::ForGuard).await;
        Ok(Adopted::Workspace(id))
    }

    async fn adopt_snapshot(
        &self,
        leftover: &LeftoverRow,
        registered: &Arc<Registered>,
        request: AdoptRequest,
    ) -> Result<Adopted, LeftoverError> {
        let id = SnapshotId::from(leftover.id);
        let origin = registered.provider.origin_of_snapshot(id).await.map_err(LeftoverError::Engine)?;
        let (workspace, origin) = origin.ok_or(LeftoverError::NotAdoptable { reason: OLDER_RELEASE })?;
        let new = NewSnapshotRow {
            id,
            project: request.project,
            server: self.store.server_id(),
            workspace,
            provider: leftover.provider,
            name: request.name,
            labels: Default::default(),
            temporary: false,
            spec: adopted_spec(origin),
        };
        let (created_at, ready_at) = (leftover.made_at, Some(leftover.made_at));
        let row = SnapshotRow { new, state: SnapshotState::Ready, taken: None, created_at, ready_at };
        if !self.store.leftovers_adopt_snapshot(&row).await? {
            return Err(LeftoverError::NotFound);
        }
        tracing::info!(snapshot = %id, project = %request.project, "a leftover is a snapshot again");
        Ok(Adopted::Snapshot(id))
    }

    /// Removes a leftover from the engine. Its row goes first, so that nobody adopts it meanwhile.
    async fn remove_known(&self, registered: &Registered, leftover: &LeftoverRow) -> Result<(), LeftoverError> {
        if !self.store.leftovers_take(leftover.id).await? {
            return Err(LeftoverError::NotFound);
        }
        let removed = match leftover.kind {
            LeftoverKind::Workspace | LeftoverKind::McpServer => {
                registered.provider.destroy(leftover.id.into(), &Undoing).await
            }
            LeftoverKind::Snapshot => registered.provider.delete(leftover.id.into()).await,
        };
        if let Err(error) = removed {
            // As if nobody had asked: its time goes on.
            self.store.leftovers_note(leftover).await?;
            return Err(LeftoverError::Engine(error));
        }
        telemetry::destroyed(DestroyReason::Orphan);
        Ok(())
    }
}

// === impl Inventory ===

impl Inventory {
    fn of(kind: LeftoverKind) -> Self {
        match kind {
            LeftoverKind::Workspace | LeftoverKind::McpServer => Self::Sandboxes,
            LeftoverKind::Snapshot => Self::Snapshots,
        }
    }
}

/// Returns the properties of an adopted workspace or snapshot: root and the environment are not known.
fn adopted_spec(origin: Origin) -> WorkspaceSpec {
    let Origin { image, limits, network } = origin;
    let kind = ContainerKind::AgentWorkspace;
    WorkspaceSpec { kind, image, limits, network, allow_root: false, environment_keys: Vec::new() }
}
