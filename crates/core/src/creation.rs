//! Makes workspaces: the row, the sandbox, the guest's first answer, and `ready` last.
//!
//! ```text
//!   place ──► admit ──► provision: claim a sandbox of the warm pool, or boot one ──► publish
//! ```
//!
//! `place` checks the request and chooses the provider, `admit` records the row, and a task of the service does the
//! rest (`creation/provision.rs`).

pub(crate) mod basis;
mod check;
mod error;
mod provision;
pub(crate) mod snapshot_locks;

use std::{collections::BTreeSet, sync::Arc};

use emergent_guest_proto::Configuration;
use emergent_provider::{ImageAccess, SandboxSpec};
use emergent_store::{Admission, NewSnapshotRow, ProjectId, Store, WorkspaceRow, WorkspaceSpec};
use emergent_types::{ServerId, WorkspaceId};
use tracing::Instrument as _;

pub use self::error::{NewWorkspaceError, SnapshotUnusable};
pub(crate) use self::provision::Order;
use self::{
    basis::Basis,
    check::{Checked, check},
    snapshot_locks::SnapshotLocks,
};
use crate::{
    audit::{Audit, AuditEnd, inherit},
    cluster::{lease::Lease, servers::Servers},
    config::CoreConfig,
    foundation::Foundation,
    guests::Guests,
    idempotency::IdempotencyKey,
    lifecycle::{Lifecycle, RETRY_AFTER},
    placement::{
        images::Images,
        providers::Providers,
        selection::{Choice, Wanted},
    },
    pool::{Need, Pool, PooledSandbox},
    quota::host_guard::HostGuard,
    recorder::StateRecorder,
    tasks::Tasks,
    workspace::{
        Workspace,
        admissions::{AdmissionGuard, Admissions},
        registry::Registry,
        request::NewWorkspace,
        steps::Steps,
        validate::idle_within,
    },
};

/// Makes workspaces.
pub(crate) struct Creation {
    config: Arc<CoreConfig>,
    store: Store,
    registry: Arc<Registry>,
    providers: Arc<Providers>,
    images: Arc<Images>,
    lease: Arc<Lease>,
    recorder: Arc<StateRecorder>,
    guests: Arc<Guests>,
    host: Arc<HostGuard>,
    steps: Arc<Steps>,
    admissions: Admissions,
    audit: Audit,
    tasks: Tasks,
    pool: Arc<Pool>,
    servers: Arc<Servers>,
    lifecycle: Arc<Lifecycle>,
    locks: Arc<SnapshotLocks>,
}

/// A request that was checked, with the provider that is to make the workspace.
pub(crate) struct Placed {
    request: NewWorkspace,
    checked: Checked,
    choice: Choice,
    basis: Option<Basis>,
}

// === impl Creation ===

impl Creation {
    pub(crate) fn new(
        base: &Foundation,
        pool: Arc<Pool>,
        servers: Arc<Servers>,
        lifecycle: Arc<Lifecycle>,
        locks: Arc<SnapshotLocks>,
    ) -> Self {
        Self {
            config: Arc::clone(&base.config),
            store: base.store.clone(),
            registry: Arc::clone(&base.registry),
            providers: Arc::clone(&base.providers),
            images: Arc::clone(&base.images),
            lease: Arc::clone(&base.lease),
            recorder: Arc::clone(&base.recorder),
            guests: Arc::clone(&base.guests),
            host: Arc::clone(&base.host),
            steps: Arc::clone(&base.steps),
            admissions: base.admissions.clone(),
            audit: base.audit.clone(),
            tasks: base.tasks.clone(),
            pool,
            servers,
            lifecycle,
            locks,
        }
    }

    /// Admits a workspace and has a task make it. The task owns the whole of it: a caller that goes away half-way
    /// leaves nothing behind without a task that finishes it.
    pub(crate) async fn create(
        self: &Arc<Self>,
        project: ProjectId,
        request: NewWorkspace,
        key: Option<IdempotencyKey>,
    ) -> Result<Workspace, NewWorkspaceError> {
        let mut act = self.audit.begin(project, None, "create");
        let result = self.admitted(project, request, key).await;
        match &result {
            Ok(workspace) => {
                act.about(workspace.row.id);
                act.end(AuditEnd::OK);
            }
            Err(error) => act.end(error),
        }
        result
    }

    async fn admitted(
        self: &Arc<Self>,
        project: ProjectId,
        request: NewWorkspace,
        key: Option<IdempotencyKey>,
    ) -> Result<Workspace, NewWorkspaceError> {
        let placed = self.place(project, request).await?;
        let creation = Arc::clone(self);
        let admit = async move { creation.admit(project, placed, key).await };
        self.tasks.run(admit.in_current_span()).await
    }

    /// Checks a request, and chooses the provider that is to make the workspace.
    async fn place(&self, project: ProjectId, request: NewWorkspace) -> Result<Placed, NewWorkspaceError> {
        if !self.config.enabled {
            return Err(NewWorkspaceError::Disabled);
        }
        if self.tasks.is_going_down() {
            return Err(NewWorkspaceError::ShuttingDown);
        }
        if self.lease.is_draining() {
            return Err(NewWorkspaceError::Draining { others: self.servers.names_of_others().await });
        }
        self.lease.ensure().await?;
        let (request, basis) = self.basis_of(project, request).await?;
        let checked = check(&request, &self.config, self.images.admitted())?;
        let wanted = Wanted {
            named: request.provider.or(self.config.default_provider),
            container: request.kind,
            requirements: request.requirements,
        };
        let chosen = self.providers.choose(wanted).await;
        let choice = chosen.map_err(|reasons| {
            let named = request.provider.is_some();
            NewWorkspaceError::NoProvider { named, reasons }
        })?;
        self.host.has_room(choice.provider, basis.as_ref().map_or(0, |basis| basis.bytes))?;
        self.host.has_cores(choice.provider, checked.limits.cpu)?;
        let idle = match self.providers.get(choice.provider) {
            Some(registered) => {
                let capabilities = registered.provider.capabilities();
                idle_within(checked.idle, request.idle, choice.provider, &capabilities)?
            }
            None => checked.idle,
        };
        Ok(Placed { checked: Checked { idle, ..checked }, request, choice, basis })
    }

    /// Records the workspace, and has a task provision it.
    async fn admit(
        self: Arc<Self>,
        project: ProjectId,
        placed: Placed,
        key: Option<IdempotencyKey>,
    ) -> Result<Workspace, NewWorkspaceError> {
        let claim = key.map(|key| key.of_create(&placed.request));
        // The pool's members begin with an image, and with nothing else.
        let taken = match placed.basis {
            Some(_) => None,
            None => self.take_member(&placed),
        };
        let (member, warm_admission) = taken.unzip();
        let row = placed.row(project, self.store.server_id(), member.as_ref());
        let admission = warm_admission.unwrap_or_else(|| self.admissions.begin(row.id));
        let (kind, limit) = (row.spec.kind, self.config.places(row.spec.kind));
        let admitted = self.store.admit(row, limit, claim).await;
        let row = match admitted {
            Ok(Admission::Admitted(row)) => *row,
            not_admitted => {
                match member {
                    Some(member) if not_admitted.is_ok() => self.pool.give_back(&placed.checked.image, member),
                    // It may have a row all the same, and must not become another workspace.
                    Some(member) => self.pool.remove_all(vec![member]).await,
                    None => {}
                }
                return match not_admitted? {
                    Admission::Admitted(row) | Admission::Repeated(row) => {
                        let pull = self.registry.get(row.id).and_then(|entry| entry.pull());
                        Ok(Workspace::new(*row, pull))
                    }
                    Admission::KeyTaken => Err(NewWorkspaceError::IdempotencyMismatch),
                    Admission::NameTaken(holder) => Err(NewWorkspaceError::NameTaken { holder }),
                    Admission::Full => Err(NewWorkspaceError::LimitReached { kind, limit, retry_after: RETRY_AFTER }),
                    Admission::OverQuota(reached) => {
                        Err(NewWorkspaceError::OverQuota { reached, retry_after: RETRY_AFTER })
                    }
                };
            }
        };
        let guard = self.guests.enter_new(&row).await;
        drop(admission);
        let span = tracing::info_span!("create", workspace = %row.id);
        let order = self.order(&row, placed, member);
        let creation = Arc::clone(&self);
        let provision = async move { creation.provision(guard, order).await };
        self.tasks.spawn(inherit(provision.instrument(span)));
        Ok(Workspace::new(row, None))
    }

    fn take_member(&self, placed: &Placed) -> Option<(PooledSandbox, AdmissionGuard)> {
        let Placed { request, checked, choice, .. } = placed;
        let capabilities = self.providers.get(choice.provider)?.provider.capabilities();
        let need = Need {
            kind: request.kind,
            provider: choice.provider,
            image: &checked.image,
            network: request.network.unwrap_or_default(),
            limits: &checked.limits,
            live_limits: capabilities.live_limits,
        };
        self.pool.take(&need, &self.admissions)
    }

    /// Places a copy of a workspace, which is made from a snapshot whose lock the caller has. Only the snapshot's own
    /// provider may make the copy.
    pub(crate) fn place_copy(&self, request: NewWorkspace, from: &NewSnapshotRow) -> Result<Placed, NewWorkspaceError> {
        let checked = check(&request, &self.config, self.images.admitted())?;
        Ok(Placed { request, checked, choice: Choice::only(from.provider), basis: Some(Basis::locked(from)) })
    }

    /// Makes the order for a workspace that was admitted.
    pub(crate) fn order(&self, row: &WorkspaceRow, placed: Placed, member: Option<PooledSandbox>) -> Order {
        let Placed { request, choice, basis, .. } = placed;
        let configuration = Configuration {
            environment: request.environment,
            allow_root: row.spec.allow_root,
            defaults: self.config.workspace_defaults.clone(),
        };
        Order { spec: spec(row), configuration, choice, member, basis }
    }
}

// === impl Placed ===

impl Placed {
    /// Returns the row of the workspace, which is the member of the warm pool where there is one.
    pub(crate) fn row(&self, project: ProjectId, server: ServerId, member: Option<&PooledSandbox>) -> WorkspaceRow {
        let Self { request, checked, choice, basis } = self;
        let inherited = basis.as_ref().map(|basis| basis.environment_keys.as_slice()).unwrap_or_default();
        let keys = request.environment.keys().chain(inherited).cloned().collect::<BTreeSet<_>>();
        let spec = WorkspaceSpec {
            kind: request.kind,
            image: checked.image.clone(),
            limits: checked.limits,
            network: request.network.unwrap_or_default(),
            allow_root: request.allow_root.unwrap_or(false),
            environment_keys: keys.into_iter().collect(),
        };
        let id = member.map_or_else(WorkspaceId::generate, |member| member.id);
        let row = WorkspaceRow {
            name: request.name.clone(),
            labels: request.labels.clone(),
            provider_requested: request.provider,
            passed_over: choice.passed_over.clone(),
            expires_at: checked.expires_at,
            idle: checked.idle,
            origin: basis.as_ref().map(|basis| basis.origin),
            ..WorkspaceRow::new(id, project, server, choice.provider, spec)
        };
        match member {
            Some(member) => row.with_sandbox(member.made.clone()),
            None => row,
        }
    }
}

/// Returns the sandbox that a workspace is to be.
fn spec(row: &WorkspaceRow) -> SandboxSpec {
    SandboxSpec {
        workspace: row.id,
        kind: row.spec.kind,
        image: row.spec.image.clone(),
        snapshot: row.origin.map(|origin| origin.snapshot),
        access: ImageAccess::Operator,
        registry: None,
        limits: row.spec.limits,
        network: row.spec.network,
        volumes: Vec::new(),
        warm: false,
    }
}
