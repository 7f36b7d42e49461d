//! Starts a workspace that is stopped, or that has ended by itself.

use emergent_guest_client::Guest;
use emergent_guest_proto::{Hello, LAST_END_SINCE, LastEnd};
use emergent_provider::OperationError;
use emergent_store::{ErrorReason, StartClaim, WorkspaceState};
use emergent_types::error_chain;

use super::{Lifecycle, RETRY_AFTER, TransitionError};
use crate::{
    guests::{FIRST_ANSWER, first_answer},
    workspace::{
        entry::{Entry, RuntimePhase, WorkspaceGuard},
        messages::{told_failure, told_memory_limit},
        state::WorkspaceStatus,
    },
};

// === impl Lifecycle ===

impl Lifecycle {
    pub(super) async fn start(
        &self,
        guard: &mut WorkspaceGuard,
        status: WorkspaceStatus,
    ) -> Result<(), TransitionError> {
        let registered = self.provider_of(guard)?;
        if let WorkspaceStatus::Stopping(rest) = status {
            // A stop that was cut short comes to its end first.
            self.stop(guard, rest).await?;
        }
        let limit = self.max_concurrent;
        match self.store.claim_start(guard.id, limit).await? {
            StartClaim::Claimed => guard.set_phase(RuntimePhase::Starting),
            StartClaim::OverQuota(reached) => {
                return Err(TransitionError::OverQuota { reached, retry_after: RETRY_AFTER });
            }
            StartClaim::Full => return Err(TransitionError::LimitReached { limit, retry_after: RETRY_AFTER }),
        }
        let first = match registered.provider.start(guard.id).await {
            Ok(first) => first,
            Err(error @ OperationError::Gone) => return self.engine_failed(guard, "start", error).await,
            Err(source) => {
                self.could_not_start(guard, status, error_chain(&source)).await?;
                return Err(TransitionError::Engine { operation: "start", source });
            }
        };
        let guest = self.guests.client(guard.provider(), guard.id, first);
        match first_answer(registered, guard.id, &guest, FIRST_ANSWER).await {
            Ok(hello) => explain_end(&guest, &hello, guard, status).await,
            Err(error) => {
                if let Err(error) = registered.provider.stop(guard.id).await {
                    tracing::warn!(
                        reason = error_chain(&error),
                        "a sandbox in which nothing answers could not be stopped"
                    );
                }
                let error = TransitionError::Guest(error);
                self.could_not_start(guard, status, error_chain(&error)).await?;
                return Err(error);
            }
        }
        self.becomes_ready(guard, Some(guest)).await
    }

    /// A start failed: what was stopped is stopped again, and what had failed says why it still does.
    async fn could_not_start(
        &self,
        guard: &mut WorkspaceGuard,
        before: WorkspaceStatus,
        why: String,
    ) -> Result<(), TransitionError> {
        match before {
            WorkspaceStatus::Stopped(rest) | WorkspaceStatus::Stopping(rest) => {
                self.recorder.record(guard, &WorkspaceState::Stopped).await?;
                guard.set_phase(RuntimePhase::Stopped(rest));
            }
            WorkspaceStatus::Creating
            | WorkspaceStatus::Ready
            | WorkspaceStatus::Paused(_)
            | WorkspaceStatus::Starting
            | WorkspaceStatus::Destroying
            | WorkspaceStatus::Destroyed
            | WorkspaceStatus::Failed(_) => {
                let message = format!("{why}; its files are kept, and the next call tries again");
                self.fail(guard, ErrorReason::StartFailed, message).await?;
            }
        }
        Ok(())
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
