//! The operations on one workspace: stop, resume, pause and destroy, and the corrections that make its row and the
//! engine agree. One at a time for each workspace, each carried to its end by a task of the service.

mod audit_rows;
mod correction;
mod error;
pub(crate) mod reconcile_action;
mod start;

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use emergent_guest_client::Guest;
use emergent_provider::OperationError;
use emergent_store::{DestroyReason, ErrorReason, ProjectId, SessionEnd, Store, StoreError, WorkspaceState};
use emergent_types::{DestroyStep, StepObserver as _, StopStep, WorkspaceId, error_chain};
use tracing::Instrument as _;

pub(crate) use self::correction::{CUT_SHORT, Wait};
pub use self::error::TransitionError;
use crate::{
    audit::Audit,
    cluster::lease::Lease,
    foundation::Foundation,
    guests::Guests,
    placement::providers::{Providers, Registered},
    recorder::StateRecorder,
    tasks::Tasks,
    telemetry,
    workspace::{
        entry::{Entry, RuntimePhase, WorkspaceGuard},
        lookup::{Found, Lookup},
        registry::Registry,
        state::{SuspendReason, WorkspaceStatus},
        steps::Steps,
        transitions::{Decision, Operation, transition},
    },
};

/// The time that a caller that found no room should wait before it tries again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Carries out the operations on workspaces.
pub(crate) struct Lifecycle {
    store: Store,
    registry: Arc<Registry>,
    providers: Arc<Providers>,
    lookup: Lookup,
    lease: Arc<Lease>,
    recorder: Arc<StateRecorder>,
    guests: Arc<Guests>,
    steps: Arc<Steps>,
    audit: Audit,
    tasks: Tasks,
    /// The number of agent workspaces that may be in use at once.
    max_concurrent: u32,
}

// === impl Lifecycle ===

impl Lifecycle {
    pub(crate) fn new(base: &Foundation) -> Self {
        Self {
            store: base.store.clone(),
            registry: Arc::clone(&base.registry),
            providers: Arc::clone(&base.providers),
            lookup: base.lookup.clone(),
            lease: Arc::clone(&base.lease),
            recorder: Arc::clone(&base.recorder),
            guests: Arc::clone(&base.guests),
            steps: Arc::clone(&base.steps),
            audit: base.audit.clone(),
            tasks: base.tasks.clone(),
            max_concurrent: base.config.max_concurrent,
        }
    }

    /// Carries out an operation on a project's workspace. Dropping the future does not end it.
    pub(crate) async fn operate(
        self: &Arc<Self>,
        project: ProjectId,
        id: WorkspaceId,
        operation: Operation,
    ) -> Result<(), TransitionError> {
        match self.lookup.find(project, id).await? {
            Found::Entry(entry) => self.operate_on(entry, operation).await,
            Found::Destroyed => match transition(operation, WorkspaceStatus::Destroyed).refused() {
                Some(advice) => Err(refusal(operation, WorkspaceStatus::Destroyed, advice)),
                None => Ok(()),
            },
        }
    }

    pub(crate) async fn operate_on(
        self: &Arc<Self>,
        entry: Arc<Entry>,
        operation: Operation,
    ) -> Result<(), TransitionError> {
        if self.tasks.is_going_down() {
            return Err(TransitionError::ShuttingDown);
        }
        let status = entry.status();
        match operation {
            // It ends the create.
            Operation::Destroy(_) => {}
            // A create may take as long as the pull of its image; nobody waits for its guard only to be refused.
            Operation::Stop | Operation::Resume | Operation::Pause | Operation::Idle(_) | Operation::Call => {
                if let (WorkspaceStatus::Creating, Decision::Refuse(advice)) = (status, transition(operation, status)) {
                    return Err(refusal(operation, status, advice));
                }
            }
        }
        let span = tracing::info_span!("operation", workspace = %entry.id, operation = operation.as_str());
        let lifecycle = Arc::clone(self);
        let task = async move {
            let act = lifecycle.audit.begin_operation(&entry, operation);
            if let (Operation::Destroy(reason), WorkspaceStatus::Creating) = (operation, status)
                && let Err(error) = lifecycle.end_create(&entry, reason).await
            {
                act.end(&error);
                tracing::warn!(reason = error_chain(&error), "a create could not be ended");
                return Err(error);
            }
            let mut guard = entry.guard().await;
            let decision = transition(operation, guard.status());
            let result = lifecycle.perform(&mut guard, operation).await;
            act.end_operation(operation, decision, &result);
            telemetry::operated(operation.as_str(), result.is_ok());
            match &result {
                Ok(()) => {}
                Err(
                    error @ (TransitionError::WrongState { .. }
                    | TransitionError::LimitReached { .. }
                    | TransitionError::OverQuota { .. }),
                ) => {
                    tracing::debug!(reason = error_chain(error), "operation refused");
                }
                Err(error) => tracing::warn!(reason = error_chain(error), "operation failed"),
            }
            result
        };
        self.tasks.run(task.instrument(span)).await
    }

    /// Carries out an operation.
    pub(crate) async fn perform(
        &self,
        guard: &mut WorkspaceGuard,
        operation: Operation,
    ) -> Result<(), TransitionError> {
        self.lease.may_act_on(guard).await?;
        let status = guard.status();
        match transition(operation, status) {
            Decision::Nothing => Ok(()),
            Decision::Refuse(advice) => Err(refusal(operation, status, advice)),
            Decision::Keep => self.keep_at_rest(guard, status).await,
            Decision::Stop(rest) => self.stop(guard, rest).await,
            Decision::Start => self.start(guard, status).await,
            Decision::Unpause => self.unpause(guard).await,
            Decision::Pause(rest) => self.pause(guard, rest).await,
            Decision::Destroy(reason) => self.destroy(guard, reason).await,
        }
    }

    /// Makes the rest of a workspace that nobody used a rest by somebody's will.
    async fn keep_at_rest(&self, guard: &mut WorkspaceGuard, status: WorkspaceStatus) -> Result<(), TransitionError> {
        self.store.workspaces_note_suspended_by_idle(guard.id, false).await?;
        match (status, guard.guest()) {
            (WorkspaceStatus::Paused(_), Some(guest)) => {
                guard.set_phase(RuntimePhase::Paused { guest, rest: SuspendReason::Asked })
            }
            _ => guard.set_phase(RuntimePhase::Stopped(SuspendReason::Asked)),
        }
        Ok(())
    }

    async fn pause(&self, guard: &mut WorkspaceGuard, rest: SuspendReason) -> Result<(), TransitionError> {
        let registered = self.provider_of(guard)?;
        require(registered.provider.capabilities().pause, "pause")?;
        // No new calls first: one that came in between would find a connection that does not answer.
        let Some(guest) = guard.go_to_rest(rest, |guest| RuntimePhase::Paused { guest, rest }) else { return Ok(()) };
        if let Err(error) = self.store.workspaces_note_suspended_by_idle(guard.id, rest == SuspendReason::Idle).await {
            guard.set_phase(RuntimePhase::Ready { guest });
            return Err(error.into());
        }
        guest.suspend();
        if let Err(error) = registered.provider.pause(guard.id).await {
            guard.set_phase(RuntimePhase::Ready { guest });
            return self.engine_failed(guard, "pause", error).await;
        }
        self.recorder.record(guard, &WorkspaceState::Paused).await?;
        tracing::info!(?rest, "workspace is paused");
        Ok(())
    }

    async fn unpause(&self, guard: &mut WorkspaceGuard) -> Result<(), TransitionError> {
        let registered = self.provider_of(guard)?;
        if let Err(error) = registered.provider.unpause(guard.id).await {
            return self.engine_failed(guard, "resume", error).await;
        }
        self.becomes_ready(guard, None).await
    }

    async fn stop(&self, guard: &mut WorkspaceGuard, rest: SuspendReason) -> Result<(), TransitionError> {
        let registered = self.provider_of(guard)?;
        require(registered.provider.capabilities().persistence, "stop")?;
        let id = guard.id;
        let noted = || self.store.workspaces_note_suspended_by_idle(id, rest == SuspendReason::Idle);
        if rest == SuspendReason::Idle && guard.status() == WorkspaceStatus::Ready {
            let Some(guest) = guard.go_to_rest(rest, |_| RuntimePhase::Stopping(rest)) else { return Ok(()) };
            // Before anything is done: a row that does not say why it rests is taken for somebody's will.
            if let Err(error) = noted().await {
                guard.set_phase(RuntimePhase::Ready { guest });
                return Err(error.into());
            }
            guest.close();
        } else {
            noted().await?;
        }
        self.recorder.record(guard, &WorkspaceState::Stopping).await?;
        guard.set_phase(RuntimePhase::Stopping(rest));
        self.steps.stopped(guard.id, StopStep::IntentRecorded);
        if let Err(error) = registered.provider.stop(guard.id).await {
            return self.engine_failed(guard, "stop", error).await;
        }
        self.steps.stopped(guard.id, StopStep::SandboxStopped);
        self.recorder.record(guard, &WorkspaceState::Stopped).await?;
        self.steps.stopped(guard.id, StopStep::StoppedRecorded);
        guard.set_phase(RuntimePhase::Stopped(rest));
        tracing::info!(?rest, "workspace is stopped");
        Ok(())
    }

    /// Lets a create stop pulling, once it is recorded that nobody wants the workspace: if that fails, the create goes
    /// on.
    async fn end_create(&self, entry: &Entry, reason: DestroyReason) -> Result<(), TransitionError> {
        self.lease.may_act_on(entry).await?;
        let if_expired_at = (reason == DestroyReason::Expired).then(Utc::now);
        if self.store.workspaces_begin_destroy(entry.id, reason, if_expired_at).await?.is_some() {
            entry.give_up();
        }
        Ok(())
    }

    pub(crate) async fn destroy(
        &self,
        guard: &mut WorkspaceGuard,
        reason: DestroyReason,
    ) -> Result<(), TransitionError> {
        let registered = self.provider_of(guard)?;
        let if_expired_at = (reason == DestroyReason::Expired).then(Utc::now);
        let begun = self.store.workspaces_begin_destroy(guard.id, reason, if_expired_at).await;
        if begun.is_err() && guard.is_given_up() {
            // It was recorded while the workspace was being made: the next comparison with the engine goes on with it.
            guard.set_phase(RuntimePhase::Destroying);
        }
        let row = begun?;
        if row.is_none() && if_expired_at.is_some() {
            // Its end was put off since it was found to have come.
            return Ok(());
        }
        let reason = row.and_then(|row| row.destroy_reason).unwrap_or(reason);
        guard.set_phase(RuntimePhase::Destroying);
        self.recorder.end_session(guard, SessionEnd::Destroyed).await?;
        self.steps.destroyed(guard.id, DestroyStep::IntentRecorded);
        let destroyed = registered.provider.destroy(guard.id, self.steps.as_ref()).await;
        match destroyed {
            Ok(()) | Err(OperationError::Gone) => {}
            Err(source @ OperationError::EngineUnavailable { .. }) => {
                return Err(TransitionError::DestroyedLater(source));
            }
            Err(source) => return Err(TransitionError::Engine { operation: "destroy", source }),
        }
        self.recorder.record(guard, &WorkspaceState::Destroyed).await?;
        self.steps.destroyed(guard.id, DestroyStep::DestroyedRecorded);
        guard.set_phase(RuntimePhase::Destroyed);
        guard.note_made();
        self.registry.remove(guard.id);
        telemetry::destroyed(reason);
        tracing::info!(%reason, "workspace is destroyed");
        Ok(())
    }

    /// Records `ready` and lets calls in, through `guest` or through the one there is.
    pub(crate) async fn becomes_ready(
        &self,
        guard: &mut WorkspaceGuard,
        guest: Option<Guest>,
    ) -> Result<(), TransitionError> {
        let known = guard.guest();
        let guest = guest.or(known).unwrap_or_else(|| self.guests.client(guard.provider(), guard.id, None));
        let before = guard.status();
        guard.set_phase(RuntimePhase::Ready { guest: guest.clone() });
        if let Err(error) = self.recorder.record(guard, &WorkspaceState::Ready).await {
            guard.set_phase(RuntimePhase::of(before, || guest));
            return Err(error.into());
        }
        guard.note_made();
        tracing::info!("workspace is ready again");
        Ok(())
    }

    /// Records that a workspace is in error.
    pub(crate) async fn fail(
        &self,
        guard: &mut WorkspaceGuard,
        reason: ErrorReason,
        message: String,
    ) -> Result<(), StoreError> {
        tracing::warn!(%reason, detail = message, "workspace is in error");
        telemetry::ended(reason.as_str());
        self.audit.note_end(guard, reason);
        guard.set_phase(RuntimePhase::Failed(reason));
        let recorded = self.recorder.record(guard, &WorkspaceState::Error { reason, message }).await;
        guard.note_made();
        recorded
    }

    /// The engine did not do what was asked. If it is there, the row follows what it really has; if it is not, the
    /// intent stays recorded and is taken up again when it is back.
    async fn engine_failed(
        &self,
        guard: &mut WorkspaceGuard,
        operation: &'static str,
        source: OperationError,
    ) -> Result<(), TransitionError> {
        match &source {
            OperationError::EngineUnavailable { .. } => {}
            OperationError::Gone | OperationError::Unsupported { .. } | OperationError::Refused { .. } => {
                if let Err(error) = self.follow_engine(guard).await {
                    tracing::warn!(reason = error_chain(&error), "what the engine has could not be found out");
                }
            }
        }
        Err(TransitionError::Engine { operation, source })
    }

    /// Tells the engine that a member of the warm pool is a workspace now, for the case that its row is lost. Runs in
    /// the background: while the row exists, the row says the same.
    pub(crate) fn mark_claimed(&self, entry: &Entry) {
        let Some(registered) = self.providers.get(entry.provider()).map(Arc::clone) else { return };
        let id = entry.id;
        self.tasks.spawn(async move {
            if let Err(error) = registered.provider.mark_claimed(id).await {
                tracing::debug!(
                    workspace = %id,
                    reason = error_chain(&error),
                    "the engine could not be told that the sandbox is a workspace; tried again later"
                );
            }
        });
    }

    /// Returns the provider that has a workspace.
    pub(crate) fn provider_of(&self, entry: &Entry) -> Result<&Registered, TransitionError> {
        let registered = self.providers.get(entry.provider());
        registered.map(AsRef::as_ref).ok_or(TransitionError::NoProvider(entry.provider()))
    }
}

/// Refuses what the provider cannot do, before anything is changed.
fn require(capability: bool, operation: &'static str) -> Result<(), TransitionError> {
    if capability {
        return Ok(());
    }
    let reason = "the provider cannot do it as it is set up; the list of providers says why".to_owned();
    Err(TransitionError::Engine { operation, source: OperationError::Unsupported { operation, reason } })
}

fn refusal(operation: Operation, status: WorkspaceStatus, advice: &'static str) -> TransitionError {
    TransitionError::WrongState { state: status.word(), operation: operation.as_str(), advice }
}
