//! Makes workspaces: the row, the sandbox, the guest's first answer, and `ready` last.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use emergent_guest_client::{Guest, GuestCallError};
use emergent_guest_proto::{HandOver, Hello};
use emergent_provider::{CreateError, Created, ImageAccess, OperationError, ProviderKind, SandboxSpec};
pub(crate) use emergent_sandbox::FIRST_ANSWER;
use emergent_sandbox::{NoAnswer, configure};
use emergent_store::{
    Admission, DestroyReason, ErrorReason, IdempotencyClaim, MadeSandbox, NewWorkspaceRow, PassedOver, ProjectId,
    StoreError, WorkspaceRow, WorkspaceState,
};
use emergent_types::{CreateStep, ServerId, StepObserver as _, WorkspaceId, error_chain};
use tracing::Instrument as _;

use crate::{
    IdempotencyKey, ImageError, NewWorkspace, NewWorkspaceError, Workspace,
    audit::{AuditEnd, inherit},
    orchestrator::{Orchestrator, propagate},
    placement::providers::{Choice, Registered, Wanted},
    pool::{Need, PooledSandbox},
    reconcile::CUT_SHORT,
    snapshots::Basis,
    telemetry,
    workspace::{
        admissions::AdmissionGuard,
        registry::{Entry, RuntimePhase, WorkspaceGuard},
        request_hash::create_hash,
        steps::Undoing,
        validate::{Checked, check},
    },
};

/// How long a caller that found no room should wait before it tries again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// An admitted order for a workspace.
pub(crate) struct Order {
    spec: SandboxSpec,
    hand_over: HandOver,
    choice: Choice,
    /// The member of the warm pool that becomes the workspace, if there is one.
    member: Option<PooledSandbox>,
}

/// Why a provider did not make a workspace whose row was recorded.
#[derive(Debug, thiserror::Error)]
enum Unready {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error("the sandbox was made, but nothing answers in it")]
    Guest(#[source] GuestCallError),
    #[error("the sandbox was made, but could not be handed over")]
    HandOver(#[source] GuestCallError),
    #[error("its limits could not be changed")]
    Limits(#[source] OperationError),
    #[error("the workspace could not be recorded")]
    Store(#[from] StoreError),
    #[error("nobody wants it any more")]
    Unwanted,
}

// === impl Orchestrator ===

impl Orchestrator {
    /// Admits a workspace and has a task make it. The task owns the whole of it: a caller that goes away half-way
    /// leaves nothing behind without a task that finishes it.
    pub(crate) async fn create(
        self: &Arc<Self>,
        project: ProjectId,
        request: NewWorkspace,
        key: Option<IdempotencyKey>,
    ) -> Result<Workspace, NewWorkspaceError> {
        let mut act = self.audit.begin(project, None, "create");
        let result = self.take_in(project, request, key).await;
        match &result {
            Ok(workspace) => {
                act.about(workspace.id);
                act.end(AuditEnd::OK);
            }
            Err(error) => act.end(error),
        }
        result
    }

    async fn take_in(
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
        if self.lease.is_draining() {
            return Err(NewWorkspaceError::Draining { others: self.names_of_others().await });
        }
        self.ensure_lease().await?;
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
        self.has_room(choice.provider, basis.as_ref().map_or(0, |basis| basis.bytes))?;
        self.has_cores(choice.provider, checked.limits.cpu)?;
        let idle = self.idle_policy(checked.idle, request.idle, choice.provider)?;
        let checked = Checked { idle, ..checked };
        let core = Arc::clone(self);
        let admit = async move { core.admit(project, request, checked, choice, key, basis).await };
        self.tasks.spawn(inherit(admit.in_current_span())).await.unwrap_or_else(|error| propagate(error))
    }

    async fn admit(
        self: Arc<Self>,
        project: ProjectId,
        request: NewWorkspace,
        checked: Checked,
        choice: Choice,
        key: Option<IdempotencyKey>,
        basis: Option<Basis>,
    ) -> Result<Workspace, NewWorkspaceError> {
        let claim =
            key.map(|key| IdempotencyClaim { key: key.as_str().to_owned(), request_hash: create_hash(&request) });
        // The pool's members begin with an image, and with nothing else.
        let taken = match basis {
            Some(_) => None,
            None => self.take_member(&request, &checked, choice.provider),
        };
        let (member, warm_admission) = taken.unzip();
        let server = self.store.server_id();
        let row = new_row(project, server, &request, &checked, &choice, member.as_ref(), basis.as_ref());
        let admission = warm_admission.unwrap_or_else(|| self.admissions.begin(row.id));
        let (kind, limit) = (row.kind, self.config.places(row.kind));
        let admitted = self.store.admit(row, limit, claim).await;
        let row = match admitted {
            Ok(Admission::Admitted(row)) => *row,
            not_admitted => {
                match member {
                    Some(member) if not_admitted.is_ok() => self.pool.give_back(&checked.image, member),
                    // It may have a row all the same, and must not become another workspace.
                    Some(member) => self.remove_all(vec![member]).await,
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
        let (entry, turn) = self.enter_new(&row).await;
        drop(admission);
        let span = tracing::info_span!("create", workspace = %row.id);
        let hand_over = self.given_to(&row, request.environment);
        let order = Order { spec: self.spec(&row), hand_over, choice, member };
        let core = Arc::clone(&self);
        let drive = async move {
            core.drive(entry, turn, order).await;
            // Until now nobody could delete the snapshot.
            drop(basis);
        };
        self.tasks.spawn(inherit(drive.instrument(span)));
        Ok(Workspace::new(row, None))
    }

    fn take_member(
        &self,
        request: &NewWorkspace,
        checked: &Checked,
        provider: ProviderKind,
    ) -> Option<(PooledSandbox, AdmissionGuard)> {
        let capabilities = self.providers.get(provider)?.provider.capabilities();
        let need = Need {
            kind: request.kind,
            provider,
            image: &checked.image,
            network: request.network.unwrap_or_default(),
            limits: &checked.limits,
            live_limits: capabilities.live_limits,
        };
        self.pool.take(&need, &self.admissions)
    }

    /// Makes the order for a workspace that only its own provider may make, without a member of the warm pool.
    pub(crate) fn order(&self, row: &WorkspaceRow, environment: BTreeMap<String, String>) -> Order {
        let hand_over = self.given_to(row, environment);
        Order { spec: self.spec(row), hand_over, choice: Choice::only(row.provider), member: None }
    }

    fn given_to(&self, row: &WorkspaceRow, environment: BTreeMap<String, String>) -> HandOver {
        HandOver { environment, allow_root: row.allow_root, defaults: self.config.workspace_defaults.clone() }
    }

    fn spec(&self, row: &WorkspaceRow) -> SandboxSpec {
        SandboxSpec {
            workspace: row.id,
            kind: row.kind,
            image: row.image.clone(),
            snapshot: row.origin.map(|origin| origin.snapshot),
            access: ImageAccess::Operator,
            registry: None,
            limits: row.limits,
            network: row.network,
            volumes: Vec::new(),
            warm: false,
        }
    }

    /// Drives a create to its end, with or without success, and then releases the turn.
    pub(crate) async fn drive(self: Arc<Self>, entry: Arc<Entry>, turn: WorkspaceGuard, order: Order) {
        let began = Instant::now();
        self.steps.created(entry.id, CreateStep::IntentRecorded);
        let warm = order.member.is_some();
        let act = self.audit.begin(entry.project, Some(entry.id), "ready").with("warm", warm);
        let result = self.make(&entry, order).await;
        let took = began.elapsed();
        let outcome = match result {
            Ok(()) => {
                tracing::info!(provider = %entry.provider(), warm, ms = took.as_millis(), "workspace is ready");
                act.end(AuditEnd::OK);
                "ready"
            }
            Err(Unmade::Unwanted) => {
                act.forget();
                self.leave(&entry).await;
                "given_up"
            }
            Err(Unmade::Moved) => {
                tracing::warn!("create left to the server that has taken the workspace over");
                "given_up"
            }
            Err(Unmade::Failed(reason, message)) => {
                act.forget();
                if let Err(error) = self.fail(&entry, reason, message).await {
                    tracing::error!(reason = error_chain(&error), "the failure could not be recorded");
                }
                "error"
            }
        };
        telemetry::created(entry.provider(), outcome, took);
        drop(turn);
    }

    /// Makes a workspace: out of the member of the warm pool if there is one, else by the chosen provider, else by
    /// those that come after it.
    async fn make(&self, entry: &Entry, order: Order) -> Result<(), Unmade> {
        let Order { spec, hand_over, mut choice, member } = order;
        if let Some(member) = member {
            match self.adopt_member(entry, &spec, member, &hand_over).await {
                Ok(()) => {
                    self.pool.note_hit(&spec.image);
                    self.mark_handed_over(entry);
                    return Ok(());
                }
                Err(Unready::Store(StoreError::Moved(_))) => return Err(Unmade::Moved),
                // It may have part of what belongs to somebody: nobody else gets it.
                Err(error) => {
                    tracing::warn!(reason = error_chain(&error), "a member of the warm pool could not be handed over");
                    self.pool.note_failed_hand_over(&spec.image);
                    self.undo(entry).await;
                }
            }
        }
        loop {
            let error = match self.make_cold(entry, &spec, &hand_over).await {
                Ok(()) => return Ok(()),
                Err(Unready::Unwanted) => return Err(Unmade::Unwanted),
                Err(Unready::Store(StoreError::Moved(_))) => return Err(Unmade::Moved),
                Err(error) => error,
            };
            let (message, reason) = (error_chain(&error), self.blame(entry, &error));
            if reason != ErrorReason::EngineUnavailable {
                self.undo(entry).await;
            }
            let alone = choice.is_alone();
            choice = match self.providers.fall_back(choice, message.clone()).await {
                Ok(next) => next,
                Err(_) if alone => return Err(Unmade::Failed(reason, message)),
                Err(tried) => return Err(Unmade::Failed(reason, told(&tried))),
            };
            tracing::warn!(from = %entry.provider(), to = %choice.provider, reason = message, "falling back");
            telemetry::fell_back(entry.provider());
            let recorded = self.store.workspaces_record_provider(entry.id, choice.provider, &choice.passed_over).await;
            if let Err(error) = recorded {
                return Err(Unmade::Failed(reason, error_chain(&Unready::from(error))));
            }
            entry.set_provider(choice.provider);
        }
    }

    async fn make_cold(&self, entry: &Entry, spec: &SandboxSpec, hand_over: &HandOver) -> Result<(), Unready> {
        let Some(registered) = self.providers.get(entry.provider()) else { return Err(Unready::Unwanted) };
        let created = self.create_sandbox(entry, registered, spec).await?;
        let made = MadeSandbox { runtime: created.runtime, isolation: created.isolation, warnings: created.warnings };
        self.store.workspaces_record_made(entry.id, &made).await?;
        let guest = self.new_guest(entry.provider(), entry.id, created.first_channel);
        first_answer(registered, entry.id, &guest, FIRST_ANSWER).await.map_err(Unready::Guest)?;
        self.steps.created(entry.id, CreateStep::GuestAnswered);
        self.hand_over(entry, guest, hand_over).await
    }

    /// Has the provider make the sandbox: from the snapshot, or from an image that the project may use.
    async fn create_sandbox(
        &self,
        entry: &Entry,
        registered: &Registered,
        spec: &SandboxSpec,
    ) -> Result<Created, Unready> {
        let provider = registered.provider.as_ref();
        let create = async |spec: &SandboxSpec| {
            tokio::select! {
                created = provider.create(spec, &self.steps) => Ok(created?),
                () = entry.unwanted_while_pulling() => Err(Unready::Unwanted),
            }
        };
        if spec.snapshot.is_some() {
            return create(spec).await;
        }
        let image = self.images.begin(entry.project, &spec.image, provider).await?;
        let created = create(&image.apply(spec)).await;
        match &created {
            Ok(created) => self.images.record(&image, created.image.as_ref()).await?,
            Err(_) => self.images.give_up(&image).await,
        }
        created
    }

    /// Tells the engine that a member of the warm pool is a workspace now, for the case that its row is lost. Runs in
    /// the background: while the row exists, the row says the same.
    pub(crate) fn mark_handed_over(&self, entry: &Entry) {
        let Some(registered) = self.providers.get(entry.provider()).map(Arc::clone) else { return };
        let id = entry.id;
        self.tasks.spawn(async move {
            if let Err(error) = registered.provider.mark_handed_over(id).await {
                tracing::debug!(workspace = %id, reason = error_chain(&error), "its hand-over is marked later");
            }
        });
    }

    /// Makes a member of the warm pool the workspace.
    async fn adopt_member(
        &self,
        entry: &Entry,
        spec: &SandboxSpec,
        member: PooledSandbox,
        hand_over: &HandOver,
    ) -> Result<(), Unready> {
        let Some(registered) = self.providers.get(member.provider) else { return Err(Unready::Unwanted) };
        if spec.limits != member.limits {
            registered.provider.update_limits(entry.id, spec.limits).await.map_err(Unready::Limits)?;
        }
        self.hand_over(entry, member.guest, hand_over).await
    }

    /// Gives the sandbox what belongs to the workspace, and records that it is ready.
    async fn hand_over(&self, entry: &Entry, guest: Guest, hand_over: &HandOver) -> Result<(), Unready> {
        configure(&guest, entry.id, hand_over, &self.steps).await.map_err(Unready::HandOver)?;
        entry.set_phase(RuntimePhase::Ready { guest });
        self.record(entry.id, &WorkspaceState::Ready).await?;
        self.steps.created(entry.id, CreateStep::ReadyRecorded);
        entry.made.cancel();
        Ok(())
    }

    /// Leaves a create whose image was still being pulled: the task that destroys the workspace goes on, or the server
    /// shuts down.
    async fn leave(&self, entry: &Entry) {
        tracing::info!("create given up while the image was being pulled");
        if !self.is_going_down() {
            // Its row says so, too.
            entry.set_phase(RuntimePhase::Destroying);
        } else if let Err(error) = self.fail(entry, ErrorReason::CreateInterrupted, CUT_SHORT.to_owned()).await {
            tracing::warn!(reason = error_chain(&error), "the next start will say so in its row");
        }
    }

    /// Tells a provider's failure from the request's own failure: an image that cannot be pulled or started says
    /// nothing about the next request.
    fn blame(&self, entry: &Entry, error: &Unready) -> ErrorReason {
        let Some(registered) = self.providers.get(entry.provider()) else { return ErrorReason::CreateFailed };
        match error {
            Unready::Create(CreateError::EngineUnavailable { .. })
            | Unready::Image(ImageError::Engine(OperationError::EngineUnavailable { .. })) => {
                registered.mark_unhealthy(error_chain(error));
                ErrorReason::EngineUnavailable
            }
            Unready::Create(CreateError::Refused { .. } | CreateError::IsolationTooWeak { .. }) => {
                registered.quarantine(error_chain(error));
                ErrorReason::CreateFailed
            }
            Unready::Create(
                CreateError::ImageUnavailable { .. }
                | CreateError::RegistryRefused { .. }
                | CreateError::StartFailed { .. }
                | CreateError::Unfit { .. }
                | CreateError::SnapshotMissing { .. }
                | CreateError::CopyFailed { .. },
            )
            | Unready::Image(_)
            | Unready::Guest(_)
            | Unready::HandOver(_)
            | Unready::Limits(_)
            | Unready::Store(_)
            | Unready::Unwanted => ErrorReason::CreateFailed,
        }
    }

    /// Removes the remains of a sandbox.
    async fn undo(&self, entry: &Entry) {
        if let Err(error) = self.may_act_on(entry).await {
            // It may be another server's by now, and in use. The next reconciliation sees to it.
            return tracing::warn!(reason = error_chain(&error), "what is left of the workspace is not touched");
        }
        let Some(registered) = self.providers.get(entry.provider()) else { return };
        match registered.provider.destroy(entry.id, &Undoing).await {
            Ok(()) => {
                telemetry::destroyed(DestroyReason::FailedCreate);
                tracing::info!(reason = %DestroyReason::FailedCreate, "what was left of a create is destroyed");
            }
            Err(error) => {
                tracing::warn!(
                    reason = error_chain(&error),
                    "what is left of the workspace goes with the next reconciliation"
                );
            }
        }
    }
}

/// The reason for which a create made no workspace.
enum Unmade {
    Unwanted,
    /// Another server has taken the workspace over.
    Moved,
    Failed(ErrorReason, String),
}

/// Lists the failures of the providers, in the order in which they were tried.
fn told(tried: &[PassedOver]) -> String {
    let reasons = tried.iter().map(|PassedOver { provider, reason }| format!("{provider}: {reason}"));
    format!("no provider could make it: {}", reasons.collect::<Vec<_>>().join("; "))
}

/// Waits until the guest has answered once, as long as its sandbox runs.
pub(crate) async fn first_answer(
    registered: &Registered,
    workspace: WorkspaceId,
    guest: &Guest,
    within: Duration,
) -> Result<Hello, GuestCallError> {
    let answer = emergent_sandbox::first_answer(registered.provider.as_ref(), workspace, guest, within).await;
    answer.map_err(NoAnswer::into_call)
}

pub(crate) fn new_row(
    project: ProjectId,
    server: ServerId,
    request: &NewWorkspace,
    checked: &Checked,
    choice: &Choice,
    member: Option<&PooledSandbox>,
    basis: Option<&Basis>,
) -> NewWorkspaceRow {
    let inherited = basis.map(|basis| basis.environment_keys.as_slice()).unwrap_or_default();
    let keys = request.environment.keys().chain(inherited).cloned().collect::<BTreeSet<_>>();
    NewWorkspaceRow {
        id: member.map_or_else(WorkspaceId::generate, |member| member.id),
        project,
        server,
        name: request.name.clone(),
        labels: request.labels.clone(),
        kind: request.kind,
        provider: choice.provider,
        provider_requested: request.provider,
        passed_over: choice.passed_over.clone(),
        warm: member.map(|member| member.made.clone()),
        image: checked.image.clone(),
        limits: checked.limits,
        network: request.network.unwrap_or_default(),
        allow_root: request.allow_root.unwrap_or(false),
        environment_keys: keys.into_iter().collect(),
        expires_at: checked.expires_at,
        idle: checked.idle,
        origin: basis.map(|basis| basis.origin),
    }
}
