//! Stop, resume, pause and destroy: one operation at a time for each workspace, each carried to its end by a task of
//! the service.

use std::sync::Arc;

use chrono::Utc;
use emergent_guest_client::Guest;
use emergent_guest_proto::{Hello, LAST_END_SINCE, LastEnd};
use emergent_provider::OperationError;
use emergent_store::{DestroyReason, ErrorReason, ProjectId, SessionEnd, StartClaim, StoreError, WorkspaceState};
use emergent_types::{DestroyStep, StepObserver as _, StopStep, WorkspaceId, error_chain};
use tracing::Instrument as _;

use crate::{
    TransitionError,
    audit::inherit,
    error::{told_failure, told_memory_limit},
    orchestrator::{Found, Orchestrator, propagate},
    placement::providers::Registered,
    telemetry,
    workspace::{
        create::{FIRST_ANSWER, RETRY_AFTER, first_answer},
        registry::{Entry, RuntimePhase},
        state::{SuspendReason, WorkspaceStatus},
        transitions::{Decision, Operation, decide},
    },
};

// === impl Orchestrator ===

impl Orchestrator {
    /// Carries out an operation on a project's workspace. Dropping the future does not end it.
    pub(crate) async fn operate(
        self: &Arc<Self>,
        project: ProjectId,
        id: WorkspaceId,
        operation: Operation,
    ) -> Result<(), TransitionError> {
        match self.find(project, id).await? {
            Found::Entry(entry) => self.operate_on(entry, operation).await,
            Found::Destroyed => match decide(operation, WorkspaceStatus::Destroyed).refused() {
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
        if self.is_going_down() {
            return Err(TransitionError::ShuttingDown);
        }
        let status = entry.status();
        match operation {
            // It ends the create.
            Operation::Destroy(_) => {}
            // A create may take as long as the pull of its image; nobody waits for its turn only to be refused.
            Operation::Stop | Operation::Resume | Operation::Pause | Operation::Idle(_) | Operation::Call => {
                if let (WorkspaceStatus::Creating, Decision::Refuse(advice)) = (status, decide(operation, status)) {
                    return Err(refusal(operation, status, advice));
                }
            }
        }
        let span = tracing::info_span!("operation", workspace = %entry.id, operation = operation.as_str());
        let core = Arc::clone(self);
        let task = async move {
            let act = core.audit.begin_operation(&entry, operation);
            if let (Operation::Destroy(reason), WorkspaceStatus::Creating) = (operation, status)
                && let Err(error) = core.end_create(&entry, reason).await
            {
                act.end(&error);
                tracing::warn!(reason = error_chain(&error), "a create could not be ended");
                return Err(error);
            }
            let _turn = entry.turn().await;
            let decision = decide(operation, entry.status());
            let result = core.perform(&entry, operation).await;
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
        self.tasks.spawn(inherit(task.instrument(span))).await.unwrap_or_else(|error| propagate(error))
    }

    /// Carries out an operation; the caller has the turn.
    pub(crate) async fn perform(&self, entry: &Entry, operation: Operation) -> Result<(), TransitionError> {
        self.may_act_on(entry).await?;
        let status = entry.status();
        match decide(operation, status) {
            Decision::Nothing => Ok(()),
            Decision::Refuse(advice) => Err(refusal(operation, status, advice)),
            Decision::Keep => self.keep_at_rest(entry, status).await,
            Decision::Stop(rest) => self.stop(entry, rest).await,
            Decision::Start => self.start(entry, status).await,
            Decision::Unpause => self.unpause(entry).await,
            Decision::Pause(rest) => self.pause(entry, rest).await,
            Decision::Destroy(reason) => self.destroy(entry, reason).await,
        }
    }

    /// Makes the rest of a workspace that nobody used a rest by somebody's will.
    async fn keep_at_rest(&self, entry: &Entry, status: WorkspaceStatus) -> Result<(), TransitionError> {
        self.store.workspaces_note_idled(entry.id, false).await?;
        // Not within the match: the phase cannot be changed while it is borrowed.
        let guest = entry.phase.borrow().guest().cloned();
        match (status, guest) {
            (WorkspaceStatus::Paused(_), Some(guest)) => {
                entry.set_phase(RuntimePhase::Paused { guest, rest: SuspendReason::Asked })
            }
            _ => entry.set_phase(RuntimePhase::Stopped(SuspendReason::Asked)),
        }
        Ok(())
    }

    async fn pause(&self, entry: &Entry, rest: SuspendReason) -> Result<(), TransitionError> {
        let registered = self.provider_of(entry)?;
        require(registered.provider.capabilities().pause, "pause")?;
        // No new calls first: one that came in between would find a connection that does not answer.
        let Some(guest) = entry.go_to_rest(rest, |guest| RuntimePhase::Paused { guest, rest }) else { return Ok(()) };
        if let Err(error) = self.store.workspaces_note_idled(entry.id, rest == SuspendReason::Idle).await {
            entry.set_phase(RuntimePhase::Ready { guest });
            return Err(error.into());
        }
        guest.suspend();
        if let Err(error) = registered.provider.pause(entry.id).await {
            entry.set_phase(RuntimePhase::Ready { guest });
            return self.engine_failed(entry, "pause", error).await;
        }
        self.record(entry.id, &WorkspaceState::Paused).await?;
        tracing::info!(?rest, "workspace is paused");
        Ok(())
    }

    async fn unpause(&self, entry: &Entry) -> Result<(), TransitionError> {
        let registered = self.provider_of(entry)?;
        if let Err(error) = registered.provider.unpause(entry.id).await {
            return self.engine_failed(entry, "resume", error).await;
        }
        self.becomes_ready(entry, None).await
    }

    async fn stop(&self, entry: &Entry, rest: SuspendReason) -> Result<(), TransitionError> {
        let registered = self.provider_of(entry)?;
        require(registered.provider.capabilities().persistence, "stop")?;
        let noted = || self.store.workspaces_note_idled(entry.id, rest == SuspendReason::Idle);
        if rest == SuspendReason::Idle && entry.status() == WorkspaceStatus::Ready {
            let Some(guest) = entry.go_to_rest(rest, |_| RuntimePhase::Stopping(rest)) else { return Ok(()) };
            // Before anything is done: a row that does not say why it rests is taken for somebody's will.
            if let Err(error) = noted().await {
                entry.set_phase(RuntimePhase::Ready { guest });
                return Err(error.into());
            }
            guest.close();
        } else {
            noted().await?;
        }
        self.record(entry.id, &WorkspaceState::Stopping).await?;
        entry.set_phase(RuntimePhase::Stopping(rest));
        self.steps.stopped(entry.id, StopStep::IntentRecorded);
        if let Err(error) = registered.provider.stop(entry.id).await {
            return self.engine_failed(entry, "stop", error).await;
        }
        self.steps.stopped(entry.id, StopStep::SandboxStopped);
        self.record(entry.id, &WorkspaceState::Stopped).await?;
        self.steps.stopped(entry.id, StopStep::StoppedRecorded);
        entry.set_phase(RuntimePhase::Stopped(rest));
        tracing::info!(?rest, "workspace is stopped");
        Ok(())
    }

    async fn start(&self, entry: &Entry, status: WorkspaceStatus) -> Result<(), TransitionError> {
        let registered = self.provider_of(entry)?;
        if let WorkspaceStatus::Stopping(rest) = status {
            // A stop that was cut short comes to its end first.
            self.stop(entry, rest).await?;
        }
        let limit = self.config.max_concurrent;
        match self.store.claim_start(entry.id, limit).await? {
            StartClaim::Claimed => entry.set_phase(RuntimePhase::Starting),
            StartClaim::OverQuota(reached) => {
                return Err(TransitionError::OverQuota { reached, retry_after: RETRY_AFTER });
            }
            StartClaim::Full => return Err(TransitionError::LimitReached { limit, retry_after: RETRY_AFTER }),
        }
        let first = match registered.provider.start(entry.id).await {
            Ok(first) => first,
            Err(error @ OperationError::Gone) => return self.engine_failed(entry, "start", error).await,
            Err(source) => {
                self.could_not_start(entry, status, error_chain(&source)).await?;
                return Err(TransitionError::Engine { operation: "start", source });
            }
        };
        let guest = self.new_guest(entry.provider(), entry.id, first);
        match first_answer(registered, entry.id, &guest, FIRST_ANSWER).await {
            Ok(hello) => explain_end(&guest, &hello, entry, status).await,
            Err(error) => {
                if let Err(error) = registered.provider.stop(entry.id).await {
                    tracing::warn!(
                        reason = error_chain(&error),
                        "a sandbox in which nothing answers could not be stopped"
                    );
                }
                let error = TransitionError::Guest(error);
                self.could_not_start(entry, status, error_chain(&error)).await?;
                return Err(error);
            }
        }
        self.becomes_ready(entry, Some(guest)).await
    }

    /// A start failed: what was stopped is stopped again, and what had failed says why it still does.
    async fn could_not_start(
        &self,
        entry: &Entry,
        before: WorkspaceStatus,
        why: String,
    ) -> Result<(), TransitionError> {
        match before {
            WorkspaceStatus::Stopped(rest) | WorkspaceStatus::Stopping(rest) => {
                self.record(entry.id, &WorkspaceState::Stopped).await?;
                entry.set_phase(RuntimePhase::Stopped(rest));
            }
            WorkspaceStatus::Creating
            | WorkspaceStatus::Ready
            | WorkspaceStatus::Paused(_)
            | WorkspaceStatus::Starting
            | WorkspaceStatus::Destroying
            | WorkspaceStatus::Destroyed
            | WorkspaceStatus::Failed(_) => {
                let message = format!("{why}; its files are kept, and the next call tries again");
                self.fail(entry, ErrorReason::StartFailed, message).await?;
            }
        }
        Ok(())
    }

    /// Lets a create stop pulling, once it is recorded that nobody wants the workspace: if that fails, the create goes
    /// on.
    async fn end_create(&self, entry: &Entry, reason: DestroyReason) -> Result<(), TransitionError> {
        self.may_act_on(entry).await?;
        let if_expired_at = (reason == DestroyReason::Expired).then(Utc::now);
        if self.store.workspaces_begin_destroy(entry.id, reason, if_expired_at).await?.is_some() {
            entry.unwanted.cancel();
        }
        Ok(())
    }

    pub(crate) async fn destroy(&self, entry: &Entry, reason: DestroyReason) -> Result<(), TransitionError> {
        let registered = self.provider_of(entry)?;
        let if_expired_at = (reason == DestroyReason::Expired).then(Utc::now);
        let begun = self.store.workspaces_begin_destroy(entry.id, reason, if_expired_at).await;
        if begun.is_err() && entry.unwanted.is_cancelled() {
            // It was recorded while the workspace was being made: the next comparison with the engine goes on with it.
            entry.set_phase(RuntimePhase::Destroying);
        }
        let row = begun?;
        if row.is_none() && if_expired_at.is_some() {
            // Its end was put off since it was found to have come.
            return Ok(());
        }
        let reason = row.and_then(|row| row.destroy_reason).unwrap_or(reason);
        entry.set_phase(RuntimePhase::Destroying);
        self.end_session(entry, SessionEnd::Destroyed).await?;
        self.steps.destroyed(entry.id, DestroyStep::IntentRecorded);
        let destroyed = registered.provider.destroy(entry.id, &self.steps).await;
        match destroyed {
            Ok(()) | Err(OperationError::Gone) => {}
            Err(source @ OperationError::EngineUnavailable { .. }) => {
                return Err(TransitionError::DestroyedLater(source));
            }
            Err(source) => return Err(TransitionError::Engine { operation: "destroy", source }),
        }
        self.record(entry.id, &WorkspaceState::Destroyed).await?;
        self.steps.destroyed(entry.id, DestroyStep::DestroyedRecorded);
        entry.set_phase(RuntimePhase::Destroyed);
        entry.made.cancel();
        self.registry.remove(entry.id);
        telemetry::destroyed(reason);
        tracing::info!(%reason, "workspace is destroyed");
        Ok(())
    }

    /// Records `ready` and lets calls in, through `guest` or through the one there is.
    pub(crate) async fn becomes_ready(&self, entry: &Entry, guest: Option<Guest>) -> Result<(), TransitionError> {
        let known = entry.phase.borrow().guest().cloned();
        let guest = guest.or(known).unwrap_or_else(|| self.new_guest(entry.provider(), entry.id, None));
        let before = entry.status();
        entry.set_phase(RuntimePhase::Ready { guest: guest.clone() });
        if let Err(error) = self.record(entry.id, &WorkspaceState::Ready).await {
            entry.set_phase(RuntimePhase::of(before, || guest));
            return Err(error.into());
        }
        entry.made.cancel();
        tracing::info!("workspace is ready again");
        Ok(())
    }

    /// Records that a workspace is in error.
    pub(crate) async fn fail(&self, entry: &Entry, reason: ErrorReason, message: String) -> Result<(), StoreError> {
        tracing::warn!(%reason, detail = message, "workspace is in error");
        telemetry::ended(reason.as_str());
        self.audit.note_end(entry, reason);
        entry.set_phase(RuntimePhase::Failed(reason));
        let recorded = self.record(entry.id, &WorkspaceState::Error { reason, message }).await;
        entry.made.cancel();
        recorded
    }

    /// The engine did not do what was asked. If it is there, the row follows what it really has; if it is not, the
    /// intent stays recorded and is taken up again when it is back.
    async fn engine_failed(
        &self,
        entry: &Entry,
        operation: &'static str,
        source: OperationError,
    ) -> Result<(), TransitionError> {
        match &source {
            OperationError::EngineUnavailable { .. } => {}
            OperationError::Gone | OperationError::Unsupported { .. } | OperationError::Refused { .. } => {
                if let Err(error) = self.follow_engine(entry).await {
                    tracing::warn!(reason = error_chain(&error), "what the engine has could not be found out");
                }
            }
        }
        Err(TransitionError::Engine { operation, source })
    }

    pub(crate) fn provider_of(&self, entry: &Entry) -> Result<&Registered, TransitionError> {
        let registered = self.providers.get(entry.provider());
        registered.map(AsRef::as_ref).ok_or(TransitionError::NoProvider(entry.provider()))
    }
}

/// Tells the guest of a workspace that had ended by itself why it had: its executions are lost for that reason. They
/// stay lost without one where that fails.
async fn explain_end(guest: &Guest, hello: &Hello, entry: &Entry, before: WorkspaceStatus) {
    let WorkspaceStatus::Failed(reason) = before else { return };
    if hello.generation < LAST_END_SINCE {
        return;
    }
    let limit = match reason {
        ErrorReason::Oom => format!(": {}", told_memory_limit(entry.memory_bytes)),
        _ => String::new(),
    };
    let last_end = LastEnd { reason: format!("the workspace {}{limit}", told_failure(reason)) };
    if let Err(error) = guest.last_end(&last_end).await {
        tracing::warn!(reason = error_chain(&error), "a workspace could not be told why it had ended");
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

pub(crate) fn refusal(operation: Operation, status: WorkspaceStatus, advice: &'static str) -> TransitionError {
    TransitionError::WrongState { state: status.word(), operation: operation.as_str(), advice }
}
