//! Makes workspaces: the row, the sandbox, the guest's first answer, and `ready` last.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use emergent_guest_client::{Guest, GuestCallError};
use emergent_provider::{
    CreateError, CreateStep, EngineState, ProviderKind, SandboxSpec, ServerId, StepObserver as _, WorkspaceId,
};
use emergent_store::{
    Admission, ErrorReason, IdempotencyClaim, MadeSandbox, NewWorkspaceRow, ProjectId, StateWord, StoreError,
    WorkspaceRow, WorkspaceState,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tracing::Instrument as _;

use crate::{
    IdempotencyKey, NewWorkspace, NewWorkspaceError, Ttl, Workspace,
    inner::{Core, chain, propagate},
    providers::Registered,
    reconcile::CUT_SHORT,
    registry::{Entry, Phase, Turn},
    select::Unselected,
    steps::Undoing,
    telemetry,
    validate::{Checked, check},
};

/// How long a guest may take to answer first, however slow the host is.
pub(crate) const FIRST_ANSWER: Duration = Duration::from_secs(30);
/// The registry of images that name none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// When a caller that found no room should try again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a workspace whose row was recorded did not become ready.
#[derive(Debug, thiserror::Error)]
enum Unready {
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error("the sandbox was made, but nothing answers in it")]
    Guest(#[from] GuestCallError),
    #[error("the workspace could not be recorded")]
    Store(#[from] StoreError),
    #[error("nobody wants it any more")]
    Unwanted,
}

// === impl Core ===

impl Core {
    /// Admits a workspace and has a task make it. The whole of it is owned: a caller that goes away half-way leaves
    /// nothing behind that nobody drives.
    pub(crate) async fn create(
        self: &Arc<Self>,
        project: ProjectId,
        request: NewWorkspace,
        key: Option<IdempotencyKey>,
    ) -> Result<Workspace, NewWorkspaceError> {
        if !self.config.enabled {
            return Err(NewWorkspaceError::Disabled);
        }
        if self.is_going_down() {
            return Err(NewWorkspaceError::ShuttingDown);
        }
        let checked = check(&request, &self.config, &self.allowed_images)?;
        let named = request.provider.or(self.config.default_provider);
        if let Some(provider) = request.provider
            && let Err(reason) = self.providers.is_here(provider)
        {
            return Err(NewWorkspaceError::ProviderAbsent { provider, reason });
        }
        let provider = self.providers.choose(named).await?;
        let core = Arc::clone(self);
        let admit = async move { core.admit(project, request, checked, provider, key).await };
        self.tasks.spawn(admit.in_current_span()).await.unwrap_or_else(|error| propagate(error))
    }

    async fn admit(
        self: Arc<Self>,
        project: ProjectId,
        request: NewWorkspace,
        checked: Checked,
        provider: ProviderKind,
        key: Option<IdempotencyKey>,
    ) -> Result<Workspace, NewWorkspaceError> {
        let claim =
            key.map(|key| IdempotencyClaim { key: key.as_str().to_owned(), request_hash: request_hash(&request) });
        let row = new_row(project, self.store.server_id(), &request, &checked, provider);
        let limit = self.config.max_concurrent;
        let row = match self.store.admit(row, limit, claim).await? {
            Admission::Admitted(row) => *row,
            Admission::Repeated(row) => {
                let pull = self.registry.get(row.id).and_then(|entry| entry.pull());
                return Ok(Workspace::new(*row, pull));
            }
            Admission::KeyTaken => return Err(NewWorkspaceError::IdempotencyMismatch),
            Admission::Full => return Err(NewWorkspaceError::LimitReached { limit, retry_after: RETRY_AFTER }),
        };
        let entry = self.enter(&row);
        let turn = entry.turn().await;
        let span = tracing::info_span!("create", workspace = %row.id);
        let spec = self.spec(&row, request);
        let core = Arc::clone(&self);
        self.tasks.spawn(async move { core.drive(entry, turn, spec).await }.instrument(span));
        Ok(Workspace::new(row, None))
    }

    fn spec(&self, row: &WorkspaceRow, request: NewWorkspace) -> SandboxSpec {
        let host = row.image.registry_host().unwrap_or(DEFAULT_REGISTRY);
        let login = self.config.registries.iter().find(|(known, _)| known == host);
        SandboxSpec {
            workspace: row.id,
            kind: row.kind,
            image: row.image.clone(),
            registry: login.map(|(_, credentials)| credentials.clone()),
            limits: row.limits,
            network: row.network,
            environment: request.environment,
            allow_root: row.allow_root,
        }
    }

    /// Drives a create to its end, whatever that is, and lets the turn go.
    async fn drive(self: Arc<Self>, entry: Arc<Entry>, turn: Turn, spec: SandboxSpec) {
        let began = Instant::now();
        let result = self.make(&entry, &spec).await;
        let took = began.elapsed();
        let outcome = match result {
            Ok(()) => {
                tracing::info!(provider = %entry.provider, ms = took.as_millis(), "workspace is ready");
                "ready"
            }
            Err(Unready::Unwanted) => {
                self.leave(&entry).await;
                "given_up"
            }
            Err(error) => {
                self.give_up(&entry, &error).await;
                "error"
            }
        };
        telemetry::created(entry.provider, outcome, took);
        drop(turn);
    }

    async fn make(&self, entry: &Entry, spec: &SandboxSpec) -> Result<(), Unready> {
        self.steps.created(entry.id, CreateStep::IntentRecorded);
        let Some(registered) = self.providers.get(entry.provider) else { return Err(Unready::Unwanted) };
        let created = tokio::select! {
            created = registered.provider.create(spec, &self.steps) => created?,
            () = entry.unwanted_while_pulling() => return Err(Unready::Unwanted),
        };
        let made = MadeSandbox { runtime: created.runtime, isolation: created.isolation, warnings: created.warnings };
        self.store.workspaces_record_made(entry.id, &made).await?;
        let guest = self.new_guest(entry.provider, entry.id, created.first_channel);
        first_answer(registered, entry.id, &guest, FIRST_ANSWER).await?;
        self.steps.created(entry.id, CreateStep::GuestAnswered);
        entry.set_phase(Phase::Ready { guest });
        self.store.workspaces_record(entry.id, &[StateWord::Creating], &WorkspaceState::Ready).await?;
        self.steps.created(entry.id, CreateStep::ReadyRecorded);
        entry.made.cancel();
        Ok(())
    }

    /// Leaves a create whose image was still being pulled: whoever destroys it goes on, or the server goes down.
    async fn leave(&self, entry: &Entry) {
        tracing::info!("create given up while the image was being pulled");
        if self.is_going_down()
            && let Err(error) = self.fail(entry, ErrorReason::CreateInterrupted, CUT_SHORT.to_owned()).await
        {
            tracing::warn!(reason = chain(&error), "the next start will say so in its row");
        }
    }

    /// Removes what there is of a sandbox and says why in the row.
    async fn give_up(&self, entry: &Entry, error: &Unready) {
        let message = chain(error);
        let unavailable = matches!(error, Unready::Create(CreateError::EngineUnavailable { .. }));
        if let Some(registered) = self.providers.get(entry.provider) {
            if unavailable {
                registered.mark_unhealthy(message.clone());
            } else if let Err(error) = registered.provider.destroy(entry.id, &Undoing).await {
                // Its row is in state `error`: the next reconciliation removes it.
                tracing::warn!(reason = chain(&error), "what is left of the workspace could not be removed");
            }
        }
        let reason = if unavailable { ErrorReason::EngineUnavailable } else { ErrorReason::CreateFailed };
        if let Err(error) = self.fail(entry, reason, message).await {
            tracing::error!(reason = chain(&error), "the failure could not be recorded");
        }
    }
}

/// Waits until the guest has answered once, as long as its sandbox runs.
pub(crate) async fn first_answer(
    registered: &Registered,
    workspace: WorkspaceId,
    guest: &Guest,
    within: Duration,
) -> Result<(), GuestCallError> {
    let deadline = Instant::now() + within;
    loop {
        let Err(error) = guest.hello().await else { return Ok(()) };
        let observed = registered.provider.inspect(workspace).await;
        let runs = observed.is_ok_and(|observed| observed.is_some_and(|it| it.state == EngineState::Running));
        if !runs || Instant::now() > deadline {
            return Err(error);
        }
    }
}

fn new_row(
    project: ProjectId,
    server: ServerId,
    request: &NewWorkspace,
    checked: &Checked,
    provider: ProviderKind,
) -> NewWorkspaceRow {
    NewWorkspaceRow {
        id: WorkspaceId::generate(),
        project,
        server,
        name: request.name.clone(),
        labels: request.labels.clone(),
        kind: request.kind,
        provider,
        provider_requested: request.provider,
        image: checked.image.clone(),
        limits: checked.limits,
        network: request.network.unwrap_or_default(),
        allow_root: request.allow_root,
        environment_keys: request.environment.keys().cloned().collect(),
        expires_at: checked.expires_at,
    }
}

/// The same for the same request, and for no other.
fn request_hash(request: &NewWorkspace) -> [u8; 32] {
    let ttl = request.ttl.map(|ttl| match ttl {
        Ttl::Never => json!("never"),
        Ttl::After(life) => json!(life.as_millis().to_string()),
    });
    let limits = request.limits;
    let canonical = json!([
        request.name,
        request.labels,
        request.kind.as_str(),
        request.provider.map(ProviderKind::as_str),
        request.image.as_ref().map(|image| image.as_str()),
        [json!(limits.cpu), json!(limits.memory_bytes), json!(limits.disk_bytes), json!(limits.pids)],
        request.network.map(|network| network.as_str()),
        request.environment,
        request.allow_root,
        ttl,
    ]);
    Sha256::digest(canonical.to_string()).into()
}

impl From<Unselected> for NewWorkspaceError {
    fn from(unselected: Unselected) -> Self {
        match unselected {
            Unselected::Named { provider, reason } => Self::ProviderUnavailable { provider, reason },
            Unselected::All(reasons) => Self::NoProvider { reasons },
        }
    }
}
