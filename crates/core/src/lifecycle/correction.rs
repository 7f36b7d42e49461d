//! Makes the row of one workspace and the engine agree.

use std::{sync::Arc, time::Duration};

use emergent_provider::{ExitReason, OperationError};
use emergent_store::{DestroyReason, ErrorReason, SnapshotRow, SnapshotState, StoreError, WorkspaceState};
use emergent_types::error_chain;
use tracing::Instrument as _;

use super::{Lifecycle, TransitionError, reconcile_action::ReconcileAction};
use crate::{
    audit::AuditEnd,
    guests::first_answer,
    placement::providers::Registered,
    telemetry,
    workspace::{
        entry::{Entry, RuntimePhase, WorkspaceGuard},
        fullness::Fullness,
        messages::told_memory_limit,
        state::WorkspaceStatus,
        steps::Undoing,
    },
};

/// The time that the guest of an interrupted create may take to answer.
const ADOPTION: Duration = Duration::from_secs(10);
/// The message of a workspace whose create was cut short by the end of the server.
pub(crate) const CUT_SHORT: &str = "the server was stopped while this workspace was being made; create it again";

/// Whether to wait for the guard of a workspace that another task is changing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    ForGuard,
    No,
}

// === impl Lifecycle ===

impl Lifecycle {
    /// Compares one workspace with the engine and makes them agree.
    pub(crate) async fn look_again(&self, entry: &Arc<Entry>, wait: Wait) {
        let guard = match wait {
            Wait::ForGuard => Some(entry.guard().await),
            // Whoever has the guard is bringing the workspace to where it belongs.
            Wait::No => entry.free_guard(),
        };
        let Some(mut guard) = guard else { return };
        if self.lease.may_act_on(&guard).await.is_err() {
            return;
        }
        let span = tracing::info_span!("reconcile", workspace = %entry.id);
        if let Err(error) = self.follow_engine(&mut guard).instrument(span.clone()).await {
            span.in_scope(|| tracing::warn!(reason = error_chain(&error), "workspace could not be reconciled"));
        }
    }

    /// Makes a workspace's row agree with the engine.
    pub(crate) async fn follow_engine(&self, guard: &mut WorkspaceGuard) -> Result<(), TransitionError> {
        let registered = self.provider_of(guard)?;
        let observed = registered.provider.inspect(guard.id).await;
        let observed = observed.map_err(|source| TransitionError::Engine { operation: "inspect", source })?;
        let state = observed.map(|observed| observed.state);
        let action = ReconcileAction::choose(guard.status(), state.as_ref());
        if action != ReconcileAction::Agree {
            tracing::info!(status = ?guard.status(), engine = ?state, ?action, "reconciling");
        }
        self.carry_out(guard, registered, action).await
    }

    async fn carry_out(
        &self,
        guard: &mut WorkspaceGuard,
        registered: &Registered,
        action: ReconcileAction,
    ) -> Result<(), TransitionError> {
        let act = self.audit.begin_correction(guard, &action);
        let result = self.carry_out_untold(guard, registered, action).await;
        if let Some(act) = act {
            act.end(&result);
        }
        result
    }

    async fn carry_out_untold(
        &self,
        guard: &mut WorkspaceGuard,
        registered: &Registered,
        action: ReconcileAction,
    ) -> Result<(), TransitionError> {
        match action {
            ReconcileAction::Agree => Ok(()),
            ReconcileAction::Adopt => self.adopt(guard, registered).await,
            ReconcileAction::Abandon => self.abandon(guard, registered).await,
            ReconcileAction::Runs => self.becomes_ready(guard, None).await,
            ReconcileAction::IsPaused if self.is_being_copied(guard).await? => self.thaw(guard, registered).await,
            ReconcileAction::IsPaused => {
                let rest = self.recorder.record_rest(guard, &WorkspaceState::Paused).await?;
                let known = guard.guest();
                let guest = known.unwrap_or_else(|| self.guests.client(guard.provider(), guard.id, None));
                guest.suspend();
                guard.set_phase(RuntimePhase::Paused { guest, rest });
                Ok(())
            }
            ReconcileAction::IsStopped => {
                let rest = self.recorder.record_rest(guard, &WorkspaceState::Stopped).await?;
                guard.set_phase(RuntimePhase::Stopped(rest));
                Ok(())
            }
            ReconcileAction::FinishStop => self.finish_stop(guard, registered).await,
            // Its row knows the reason, unless an earlier release has written it.
            ReconcileAction::FinishDestroy => self.destroy(guard, DestroyReason::Requested).await,
            ReconcileAction::Ended(reason) => {
                let (reason, message) = ending(guard, &reason);
                Ok(self.fail(guard, reason, message).await?)
            }
            ReconcileAction::NotStarted => {
                let message = "its start was cut short; its files are kept, and the next call starts it again";
                Ok(self.fail(guard, ErrorReason::StartFailed, message.to_owned()).await?)
            }
            ReconcileAction::Lost => {
                let message = "the engine no longer has this workspace: something other than this server removed it; \
                               destroy it and create another";
                Ok(self.fail(guard, ErrorReason::EngineLost, message.to_owned()).await?)
            }
        }
    }

    /// Continues a stop that did not come to its end. A stop that the engine refuses is given up: the workspace runs,
    /// and its row says so.
    async fn finish_stop(&self, guard: &mut WorkspaceGuard, registered: &Registered) -> Result<(), TransitionError> {
        match registered.provider.stop(guard.id).await {
            Ok(()) => {
                let rest = self.recorder.record_rest(guard, &WorkspaceState::Stopped).await?;
                guard.set_phase(RuntimePhase::Stopped(rest));
                Ok(())
            }
            Err(source @ (OperationError::EngineUnavailable { .. } | OperationError::Gone)) => {
                Err(TransitionError::Engine { operation: "stop", source })
            }
            Err(source) => {
                self.becomes_ready(guard, None).await?;
                Err(TransitionError::Engine { operation: "stop", source })
            }
        }
    }

    /// Adopts the running sandbox of an interrupted create, if its guest answers and its warnings have been recorded:
    /// nobody gets a workspace without its warnings.
    async fn adopt(&self, guard: &mut WorkspaceGuard, registered: &Registered) -> Result<(), TransitionError> {
        let row = self.store.workspaces_find(guard.id).await?;
        if row.is_none_or(|row| row.isolation.is_none()) {
            return self.abandon(guard, registered).await;
        }
        let guest = self.guests.client(guard.provider(), guard.id, None);
        match first_answer(registered, guard.id, &guest, ADOPTION).await {
            Ok(hello) if hello.is_configured => {
                self.becomes_ready(guard, Some(guest)).await?;
                self.audit.note(guard, "ready", AuditEnd::OK);
                Ok(())
            }
            Ok(_) => {
                tracing::info!("it was never handed over: it lacks its environment");
                self.abandon(guard, registered).await
            }
            Err(error) => {
                tracing::info!(reason = error_chain(&error), "nothing answers in it");
                self.abandon(guard, registered).await
            }
        }
    }

    async fn abandon(&self, guard: &mut WorkspaceGuard, registered: &Registered) -> Result<(), TransitionError> {
        let destroyed = registered.provider.destroy(guard.id, &Undoing).await;
        destroyed.map_err(|source| TransitionError::Engine { operation: "remove", source })?;
        telemetry::destroyed(DestroyReason::FailedCreate);
        tracing::info!(reason = %DestroyReason::FailedCreate, "what was left of a create is destroyed");
        if guard.status() == WorkspaceStatus::Creating {
            self.fail(guard, ErrorReason::CreateInterrupted, CUT_SHORT.to_owned()).await?;
        }
        Ok(())
    }

    /// Returns whether a workspace whose row says that it runs is frozen only because it was being copied when a
    /// process ended. No task copies the workspace while the caller has its guard.
    async fn is_being_copied(&self, guard: &WorkspaceGuard) -> Result<bool, StoreError> {
        if guard.status() != WorkspaceStatus::Ready {
            return Ok(false);
        }
        let snapshots = self.store.snapshots_of(self.store.server_id()).await?;
        let cut_short = |row: &SnapshotRow| row.new.workspace == guard.id && row.state == SnapshotState::Creating;
        Ok(snapshots.iter().any(cut_short))
    }

    /// Lets the workspace go on.
    async fn thaw(&self, guard: &mut WorkspaceGuard, registered: &Registered) -> Result<(), TransitionError> {
        let thawed = registered.provider.unpause(guard.id).await;
        thawed.map_err(|source| TransitionError::Engine { operation: "resume", source })
    }
}

/// Returns the reason and the message of a sandbox that ended by itself.
fn ending(entry: &Entry, exit: &ExitReason) -> (ErrorReason, String) {
    const KEPT: &str = "its files are kept, its processes are gone, and the next call starts it again";
    match exit {
        ExitReason::Code(code) if !entry.was_out_of_memory() => {
            (ErrorReason::Killed, format!("something outside ended the workspace (exit code {code}); {KEPT}"))
        }
        ExitReason::Code(_) | ExitReason::OutOfMemory => {
            let limit = told_memory_limit(entry.memory_bytes);
            (ErrorReason::Oom, format!("the workspace ran out of memory: {limit}; {KEPT}"))
        }
        ExitReason::ProcessLimit => {
            let limit = entry.limits.pids;
            let why = format!(
                "the workspace started more processes than its limit of {limit} allows, or than its share of the host's \
                 processes; {KEPT}"
            );
            (ErrorReason::ProcessLimit, why)
        }
        ExitReason::DiskLimit => {
            let limit = entry.limits.disk_bytes;
            entry.set_fullness(Some(Fullness::Own { limit }));
            (ErrorReason::DiskFull, format!("{}; its processes are gone", Fullness::Own { limit }))
        }
        ExitReason::HostDisk => {
            entry.set_fullness(Some(Fullness::Host));
            (ErrorReason::DiskFull, format!("{}; its files are kept, its processes are gone", Fullness::Host))
        }
    }
}
