//! Provisions an admitted workspace: claims a sandbox of the warm pool or boots one, configures its guest, and records
//! that the workspace is ready.

use std::time::Instant;

use emergent_guest_client::{Guest, GuestCallError};
use emergent_guest_proto::Configuration;
use emergent_provider::{CreateError, Created, OperationError, SandboxSpec};
use emergent_sandbox::configure;
use emergent_store::{DestroyReason, ErrorReason, MadeSandbox, PassedOver, StoreError, WorkspaceState};
use emergent_types::{CreateStep, StepObserver as _, error_chain};

use super::{Creation, basis::Basis};
use crate::{
    audit::AuditEnd,
    guests::{FIRST_ANSWER, first_answer},
    lifecycle::CUT_SHORT,
    placement::{images::ImageError, providers::Registered, selection::Choice},
    pool::PooledSandbox,
    telemetry,
    workspace::{
        entry::{Entry, RuntimePhase, WorkspaceGuard},
        steps::Undoing,
    },
};

/// An order for a workspace that was admitted.
pub(crate) struct Order {
    pub(super) spec: SandboxSpec,
    /// The configuration that the guest is given.
    pub(super) configuration: Configuration,
    pub(super) choice: Choice,
    /// The member of the warm pool that becomes the workspace, if there is one.
    pub(super) member: Option<PooledSandbox>,
    /// The snapshot that the workspace is made from; nobody can delete the snapshot while the order exists.
    pub(super) basis: Option<Basis>,
}

/// The reason for which a provider did not make a workspace whose row was recorded.
#[derive(Debug, thiserror::Error)]
enum Unready {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error("the sandbox was made, but nothing answers in it")]
    Guest(#[source] GuestCallError),
    #[error("the sandbox was made, but could not be handed over")]
    Configure(#[source] GuestCallError),
    #[error("its limits could not be changed")]
    Limits(#[source] OperationError),
    #[error("the workspace could not be recorded")]
    Store(#[from] StoreError),
    #[error("nobody wants the workspace any more")]
    Unwanted,
}

/// The reason for which a create made no workspace.
enum Unmade {
    Unwanted,
    /// Another server has taken the workspace over.
    Moved,
    Failed(ErrorReason, String),
}

// === impl Creation ===

impl Creation {
    /// Provisions an admitted workspace, with or without success, and then lets others change the workspace.
    pub(crate) async fn provision(&self, mut guard: WorkspaceGuard, mut order: Order) {
        let began = Instant::now();
        self.steps.created(guard.id, CreateStep::IntentRecorded);
        let warm = order.member.is_some();
        let basis = order.basis.take();
        let act = self.audit.begin(guard.project, Some(guard.id), "ready").with("warm", warm);
        let result = self.claim_or_boot(&mut guard, order).await;
        let took = began.elapsed();
        let outcome = match result {
            Ok(()) => {
                tracing::info!(provider = %guard.provider(), warm, ms = took.as_millis(), "workspace is ready");
                act.end(AuditEnd::OK);
                "ready"
            }
            Err(Unmade::Unwanted) => {
                act.forget();
                self.leave(&mut guard).await;
                "given_up"
            }
            Err(Unmade::Moved) => {
                tracing::warn!("create left to the server that has taken the workspace over");
                "given_up"
            }
            Err(Unmade::Failed(reason, message)) => {
                act.forget();
                if let Err(error) = self.lifecycle.fail(&mut guard, reason, message).await {
                    tracing::error!(reason = error_chain(&error), "the failure could not be recorded");
                }
                "error"
            }
        };
        telemetry::created(guard.provider(), outcome, took);
        // Until now nobody could delete the snapshot.
        drop(basis);
    }

    /// Makes a workspace: out of the member of the warm pool if there is one, else by the chosen provider, else by
    /// those that come after it.
    async fn claim_or_boot(&self, guard: &mut WorkspaceGuard, order: Order) -> Result<(), Unmade> {
        let Order { spec, configuration, mut choice, member, .. } = order;
        if let Some(member) = member {
            match self.claim(guard, &spec, member, &configuration).await {
                Ok(()) => {
                    self.pool.note_hit(&spec.image);
                    self.lifecycle.mark_claimed(guard);
                    return Ok(());
                }
                Err(Unready::Store(StoreError::Moved(_))) => return Err(Unmade::Moved),
                // It may have part of what belongs to somebody: nobody else gets it.
                Err(error) => {
                    tracing::warn!(reason = error_chain(&error), "a member of the warm pool could not be handed over");
                    self.pool.note_failed_claim(&spec.image);
                    self.undo(guard).await;
                }
            }
        }
        loop {
            let error = match self.boot(guard, &spec, &configuration).await {
                Ok(()) => return Ok(()),
                Err(Unready::Unwanted) => return Err(Unmade::Unwanted),
                Err(Unready::Store(StoreError::Moved(_))) => return Err(Unmade::Moved),
                Err(error) => error,
            };
            let (message, reason) = (error_chain(&error), self.blame(guard, &error));
            if reason != ErrorReason::EngineUnavailable {
                self.undo(guard).await;
            }
            let alone = choice.is_alone();
            choice = match self.providers.fall_back(choice, message.clone()).await {
                Ok(next) => next,
                Err(_) if alone => return Err(Unmade::Failed(reason, message)),
                Err(tried) => return Err(Unmade::Failed(reason, told(&tried))),
            };
            tracing::warn!(from = %guard.provider(), to = %choice.provider, reason = message, "falling back");
            telemetry::fell_back(guard.provider());
            let recorded = self.store.workspaces_record_provider(guard.id, choice.provider, &choice.passed_over).await;
            if let Err(error) = recorded {
                return Err(Unmade::Failed(reason, error_chain(&Unready::from(error))));
            }
            guard.set_provider(choice.provider);
        }
    }

    /// Claims a member of the warm pool: makes it the workspace.
    async fn claim(
        &self,
        guard: &mut WorkspaceGuard,
        spec: &SandboxSpec,
        member: PooledSandbox,
        configuration: &Configuration,
    ) -> Result<(), Unready> {
        let Some(registered) = self.providers.get(member.provider) else { return Err(Unready::Unwanted) };
        if spec.limits != member.limits {
            registered.provider.update_limits(guard.id, spec.limits).await.map_err(Unready::Limits)?;
        }
        self.publish(guard, member.guest, configuration).await
    }

    /// Boots a sandbox, and makes it the workspace.
    async fn boot(
        &self,
        guard: &mut WorkspaceGuard,
        spec: &SandboxSpec,
        configuration: &Configuration,
    ) -> Result<(), Unready> {
        let Some(registered) = self.providers.get(guard.provider()) else { return Err(Unready::Unwanted) };
        let created = self.create_sandbox(guard, registered, spec).await?;
        let made = MadeSandbox { runtime: created.runtime, isolation: created.isolation, warnings: created.warnings };
        self.store.workspaces_record_made(guard.id, &made).await?;
        let guest = self.guests.client(guard.provider(), guard.id, created.first_channel);
        first_answer(registered, guard.id, &guest, FIRST_ANSWER).await.map_err(Unready::Guest)?;
        self.steps.created(guard.id, CreateStep::GuestAnswered);
        self.publish(guard, guest, configuration).await
    }

    /// Has the provider make the sandbox: from the snapshot, or from an image that the project may use.
    async fn create_sandbox(
        &self,
        guard: &mut WorkspaceGuard,
        registered: &Registered,
        spec: &SandboxSpec,
    ) -> Result<Created, Unready> {
        let provider = registered.provider.as_ref();
        let create = async |spec: &SandboxSpec| {
            tokio::select! {
                created = provider.create(spec, self.steps.as_ref()) => Ok(created?),
                () = guard.unwanted_while_pulling() => Err(Unready::Unwanted),
            }
        };
        if spec.snapshot.is_some() {
            return create(spec).await;
        }
        let image = self.images.begin(guard.project, &spec.image, provider).await?;
        let created = create(&image.apply(spec)).await;
        match &created {
            Ok(created) => self.images.record(&image, created.image.as_ref()).await?,
            Err(_) => self.images.give_up(&image).await,
        }
        created
    }

    /// Configures the guest with what belongs to the workspace, and records that the workspace is ready.
    async fn publish(
        &self,
        guard: &mut WorkspaceGuard,
        guest: Guest,
        configuration: &Configuration,
    ) -> Result<(), Unready> {
        configure(&guest, guard.id, configuration, self.steps.as_ref()).await.map_err(Unready::Configure)?;
        guard.set_phase(RuntimePhase::Ready { guest });
        self.recorder.record(guard, &WorkspaceState::Ready).await?;
        self.steps.created(guard.id, CreateStep::ReadyRecorded);
        guard.note_made();
        Ok(())
    }

    /// Leaves a create whose image was still being pulled: the task that destroys the workspace goes on, or the server
    /// shuts down.
    async fn leave(&self, guard: &mut WorkspaceGuard) {
        tracing::info!("create given up while the image was being pulled");
        if !self.tasks.is_going_down() {
            // Its row says so, too.
            guard.set_phase(RuntimePhase::Destroying);
        } else if let Err(error) =
            self.lifecycle.fail(guard, ErrorReason::CreateInterrupted, CUT_SHORT.to_owned()).await
        {
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
            | Unready::Configure(_)
            | Unready::Limits(_)
            | Unready::Store(_)
            | Unready::Unwanted => ErrorReason::CreateFailed,
        }
    }

    /// Removes the remains of a sandbox.
    async fn undo(&self, guard: &mut WorkspaceGuard) {
        if let Err(error) = self.lease.may_act_on(guard).await {
            // It may be another server's by now, and in use. The next reconciliation sees to it.
            return tracing::warn!(reason = error_chain(&error), "what is left of the workspace is not touched");
        }
        let Some(registered) = self.providers.get(guard.provider()) else { return };
        match registered.provider.destroy(guard.id, &Undoing).await {
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

/// Lists the failures of the providers, in the order in which they were tried.
fn told(tried: &[PassedOver]) -> String {
    let reasons = tried.iter().map(|PassedOver { provider, reason }| format!("{provider}: {reason}"));
    format!("no provider could make it: {}", reasons.collect::<Vec<_>>().join("; "))
}
