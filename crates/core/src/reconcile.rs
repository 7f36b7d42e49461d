//! Makes rows and engine agree: after a crash, after the engine was away, and after somebody else has changed the
//! engine.
//!
//! The row holds the wanted state, and [`verdict`] decides the correction of a difference. A listing that fails ends a
//! run before the run has changed anything.

pub(crate) mod action;
pub(crate) mod leftovers;
pub(crate) mod ownership;
pub(crate) mod pending_state_writes;
pub(crate) mod recheck_queue;
pub(crate) mod watch;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::Utc;
use emergent_provider::{ContainerKind, EngineState, ExitReason, Observed, OperationError, ProviderKind};
use emergent_store::{DestroyReason, ErrorReason, StateKind, WorkspaceState};
use emergent_types::{WorkspaceId, error_chain};
use futures::{StreamExt as _, stream};
use tracing::Instrument as _;

use crate::{
    TransitionError,
    audit::AuditEnd,
    error::told_memory_limit,
    orchestrator::{Orchestrator, propagate},
    placement::providers::Registered,
    quota::host_guard::Fullness,
    reconcile::{
        action::{ReconcileAction, verdict},
        leftovers::Inventory,
        ownership::{Claim, Maker, Makers, Orphan},
    },
    telemetry,
    workspace::{
        create::first_answer,
        registry::{Entry, RuntimePhase},
        state::WorkspaceStatus,
        steps::Undoing,
    },
};

/// How many workspaces are compared with the engine at once.
const TOGETHER: usize = 8;
/// How long the guest of an interrupted create may take to answer.
const ADOPTION: Duration = Duration::from_secs(10);
/// The message of a workspace whose create was cut short by the end of the server.
pub(crate) const CUT_SHORT: &str = "the server was stopped while this workspace was being made; create it again";

// === impl Orchestrator ===

impl Orchestrator {
    /// Makes all rows of a provider agree with its engine, and removes orphans.
    ///
    /// # Errors
    /// When the engine cannot say what it has; nothing was changed then.
    pub(crate) async fn reconcile(self: &Arc<Self>, registered: &Arc<Registered>) -> Result<(), OperationError> {
        let kind = registered.provider.kind();
        // First: it lets go of what stands still only because a snapshot of it was being taken.
        self.recover_snapshots(registered).await?;
        let listed = registered.provider.list().await?;
        // Whatever server made it: what was taken over still carries its maker's label.
        let observed = listed.into_iter().map(|observed| (observed.workspace, observed)).collect::<HashMap<_, _>>();
        let entries = self.registry.all().into_iter().filter(|entry| entry.provider() == kind).collect::<Vec<_>>();
        // A mark that is missing is made good: whatever becomes of the rows, the engine knows whose it is.
        for entry in entries.iter().filter(|entry| entry.status() != WorkspaceStatus::Creating) {
            if observed.get(&entry.id).is_some_and(|observed| observed.handed_over == Some(false)) {
                self.mark_handed_over(entry);
            }
        }
        let differing = entries.into_iter().filter(|entry| {
            let state = observed.get(&entry.id).map(|observed| &observed.state);
            verdict(entry.status(), state) != ReconcileAction::Agree
        });
        // Each in a task of its own: a run that is given up half-way leaves no workspace half-way.
        let look = |entry: Arc<Entry>| {
            let core = Arc::clone(self);
            self.tasks.spawn(async move { core.look_again(&entry, Wait::No).await })
        };
        let looks = stream::iter(differing).for_each_concurrent(TOGETHER, |entry| {
            let task = look(entry);
            async { task.await.unwrap_or_else(|error| propagate(error)) }
        });
        looks.await;
        self.remove_all(self.pool.take_not_running(&observed)).await;
        let present = observed.keys().map(|id| id.as_uuid()).collect::<HashSet<_>>();
        self.forget_gone(kind, Inventory::Sandboxes, &present).await;
        let strangers = observed.into_values().filter(|observed| self.is_nobodys(kind, observed)).collect::<Vec<_>>();
        if !strangers.is_empty() {
            let (core, registered) = (Arc::clone(self), Arc::clone(registered));
            let removals = self.tasks.spawn(async move { core.remove_orphans(&registered, &strangers).await });
            removals.await.unwrap_or_else(|error| propagate(error));
        }
        Ok(())
    }

    /// Returns whether a sandbox on this provider belongs neither to a workspace that has it here nor to the warm pool.
    /// Asks the pool and the admissions first, then the registry: a sandbox moves through them in this order.
    fn is_nobodys(&self, kind: ProviderKind, observed: &Observed) -> bool {
        let id = observed.workspace;
        !self.pool.has_or_gives(id, &self.admissions)
            && self.registry.get(id).is_none_or(|entry| entry.provider() != kind)
    }

    /// Compares some workspaces with the engine, each in a task of its own.
    pub(crate) async fn look_again_at_all(self: &Arc<Self>, ids: impl Iterator<Item = WorkspaceId>) {
        let entries = ids.filter_map(|id| self.registry.get(id)).collect::<Vec<_>>();
        let looks = stream::iter(entries).for_each_concurrent(TOGETHER, |entry| {
            let core = Arc::clone(self);
            let task = self.tasks.spawn(async move { core.look_again(&entry, Wait::ForTurn).await });
            async { task.await.unwrap_or_else(|error| propagate(error)) }
        });
        looks.await;
    }

    /// Compares one workspace with the engine and makes them agree.
    pub(crate) async fn look_again(&self, entry: &Entry, wait: Wait) {
        let turn = match wait {
            Wait::ForTurn => Some(entry.turn().await),
            // Whoever has the turn is bringing the workspace to where it belongs.
            Wait::No => entry.free_turn(),
        };
        if turn.is_none() {
            return;
        }
        if self.may_act_on(entry).await.is_err() {
            return;
        }
        let span = tracing::info_span!("reconcile", workspace = %entry.id);
        if let Err(error) = self.follow_engine(entry).instrument(span.clone()).await {
            span.in_scope(|| tracing::warn!(reason = error_chain(&error), "workspace could not be reconciled"));
        }
    }

    /// Makes a workspace's row agree with the engine; the caller has the turn.
    pub(crate) async fn follow_engine(&self, entry: &Entry) -> Result<(), TransitionError> {
        let registered = self.provider_of(entry)?;
        let observed = registered.provider.inspect(entry.id).await;
        let observed = observed.map_err(|source| TransitionError::Engine { operation: "inspect", source })?;
        let state = observed.map(|observed| observed.state);
        let verdict = verdict(entry.status(), state.as_ref());
        if verdict != ReconcileAction::Agree {
            tracing::info!(status = ?entry.status(), engine = ?state, ?verdict, "reconciling");
        }
        self.carry_out(entry, registered, verdict).await
    }

    async fn carry_out(
        &self,
        entry: &Entry,
        registered: &Registered,
        verdict: ReconcileAction,
    ) -> Result<(), TransitionError> {
        let act = self.audit.begin_verdict(entry, &verdict);
        let result = self.carry_out_untold(entry, registered, verdict).await;
        if let Some(act) = act {
            act.end(&result);
        }
        result
    }

    async fn carry_out_untold(
        &self,
        entry: &Entry,
        registered: &Registered,
        verdict: ReconcileAction,
    ) -> Result<(), TransitionError> {
        match verdict {
            ReconcileAction::Agree => Ok(()),
            ReconcileAction::Adopt => self.adopt(entry, registered).await,
            ReconcileAction::Abandon => self.abandon(entry, registered).await,
            ReconcileAction::Runs => self.becomes_ready(entry, None).await,
            ReconcileAction::IsPaused if self.is_being_copied(entry).await? => self.thaw(entry, registered).await,
            ReconcileAction::IsPaused => {
                let rest = self.record_rest(entry.id, &WorkspaceState::Paused).await?;
                let known = entry.phase.borrow().guest().cloned();
                let guest = known.unwrap_or_else(|| self.new_guest(entry.provider(), entry.id, None));
                guest.suspend();
                entry.set_phase(RuntimePhase::Paused { guest, rest });
                Ok(())
            }
            ReconcileAction::IsStopped => {
                let rest = self.record_rest(entry.id, &WorkspaceState::Stopped).await?;
                entry.set_phase(RuntimePhase::Stopped(rest));
                Ok(())
            }
            ReconcileAction::FinishStop => self.finish_stop(entry, registered).await,
            // Its row knows the reason, unless an earlier release has written it.
            ReconcileAction::FinishDestroy => self.destroy(entry, DestroyReason::Requested).await,
            ReconcileAction::Ended(reason) => {
                let (reason, message) = ending(entry, &reason);
                Ok(self.fail(entry, reason, message).await?)
            }
            ReconcileAction::NotStarted => {
                let message = "its start was cut short; its files are kept, and the next call starts it again";
                Ok(self.fail(entry, ErrorReason::StartFailed, message.to_owned()).await?)
            }
            ReconcileAction::Lost => {
                let message = "the engine no longer has this workspace: something other than this server removed it; \
                               destroy it and create another";
                Ok(self.fail(entry, ErrorReason::EngineLost, message.to_owned()).await?)
            }
        }
    }

    /// Continues a stop that did not come to its end. A stop that the engine refuses is given up: the workspace runs,
    /// and its row says so.
    async fn finish_stop(&self, entry: &Entry, registered: &Registered) -> Result<(), TransitionError> {
        match registered.provider.stop(entry.id).await {
            Ok(()) => {
                let rest = self.record_rest(entry.id, &WorkspaceState::Stopped).await?;
                entry.set_phase(RuntimePhase::Stopped(rest));
                Ok(())
            }
            Err(source @ (OperationError::EngineUnavailable { .. } | OperationError::Gone)) => {
                Err(TransitionError::Engine { operation: "stop", source })
            }
            Err(source) => {
                self.becomes_ready(entry, None).await?;
                Err(TransitionError::Engine { operation: "stop", source })
            }
        }
    }

    /// Adopts the running sandbox of an interrupted create, if its guest answers and its warnings have been recorded:
    /// nobody gets a workspace without its warnings.
    async fn adopt(&self, entry: &Entry, registered: &Registered) -> Result<(), TransitionError> {
        let row = self.store.workspaces_find(entry.id).await?;
        if row.is_none_or(|row| row.isolation.is_none()) {
            return self.abandon(entry, registered).await;
        }
        let guest = self.new_guest(entry.provider(), entry.id, None);
        match first_answer(registered, entry.id, &guest, ADOPTION).await {
            Ok(hello) if hello.handed_over => {
                self.becomes_ready(entry, Some(guest)).await?;
                self.audit.note(entry, "ready", AuditEnd::OK);
                Ok(())
            }
            Ok(_) => {
                tracing::info!("it was never handed over: it lacks its environment");
                self.abandon(entry, registered).await
            }
            Err(error) => {
                tracing::info!(reason = error_chain(&error), "nothing answers in it");
                self.abandon(entry, registered).await
            }
        }
    }

    async fn abandon(&self, entry: &Entry, registered: &Registered) -> Result<(), TransitionError> {
        let destroyed = registered.provider.destroy(entry.id, &Undoing).await;
        destroyed.map_err(|source| TransitionError::Engine { operation: "remove", source })?;
        telemetry::destroyed(DestroyReason::FailedCreate);
        tracing::info!(reason = %DestroyReason::FailedCreate, "what was left of a create is destroyed");
        if entry.status() == WorkspaceStatus::Creating {
            self.fail(entry, ErrorReason::CreateInterrupted, CUT_SHORT.to_owned()).await?;
        }
        Ok(())
    }

    /// Removes the sandboxes without an entry that nobody wants any more.
    async fn remove_orphans(&self, registered: &Registered, strangers: &[Observed]) {
        let servers = match self.ensure_lease().await {
            Ok(()) => self.store.servers_list().await,
            Err(error) => Err(error),
        };
        match servers {
            Ok(servers) => {
                let makers = Makers::new(self.store.server_id(), &servers, &self.acting_on(registered).await);
                for stranger in strangers {
                    self.remove_orphan(registered, stranger, makers.of(stranger.server)).await;
                }
            }
            Err(error) => {
                tracing::warn!(reason = error_chain(&error), "orphans could not be told from others' sandboxes")
            }
        }
    }

    /// Asks the guest of a sandbox whether it was handed over. Everything but a clear no counts as yes.
    async fn says_it_is_handed_over(&self, registered: &Registered, sandbox: &Observed) -> bool {
        if sandbox.state != EngineState::Running {
            return true;
        }
        let guest = self.new_guest(registered.provider.kind(), sandbox.workspace, None);
        let said = first_answer(registered, sandbox.workspace, &guest, ADOPTION).await;
        guest.close();
        said.map_or(true, |hello| hello.handed_over)
    }

    async fn remove_orphan(&self, registered: &Registered, orphan: &Observed, maker: Maker) {
        let id = orphan.workspace;
        let claim = match self.store.workspaces_find(id).await {
            Ok(Some(row)) if row.state.word() == StateKind::Destroyed => Claim::Nothing,
            Ok(Some(row)) if row.provider != registered.provider.kind() => Claim::Nothing,
            Ok(Some(_)) => Claim::Wanted,
            Ok(None) if orphan.kind == ContainerKind::McpServer => match self.store.mcp_servers_find(id.into()).await {
                // Whoever hosts it also sees to it that it goes.
                Ok(Some(_)) => Claim::Wanted,
                Ok(None) => Claim::NoRow,
                Err(error) => {
                    tracing::warn!(workspace = %id, reason = error_chain(&error), "a sandbox's row could not be read");
                    return;
                }
            },
            Ok(None) => Claim::NoRow,
            Err(error) => {
                tracing::warn!(workspace = %id, reason = error_chain(&error), "a sandbox's row could not be read");
                return;
            }
        };
        // What this server made before this process began has no row coming.
        let is_young = Utc::now() - orphan.created_at <= self.config.orphan_grace;
        let row_may_come = is_young && (maker != Maker::Own || orphan.created_at >= self.started_at);
        let handed_over = match orphan.handed_over {
            Some(known) => known,
            None if claim == Claim::NoRow && maker == Maker::Own => {
                self.says_it_is_handed_over(registered, orphan).await
            }
            None => true,
        };
        match ownership::orphan(maker, row_may_come, claim, handed_over) {
            Orphan::Leave => return,
            Orphan::PutAside => return self.put_aside(registered, orphan).await,
            Orphan::Remove => {}
        }
        match registered.provider.destroy(id, &Undoing).await {
            Ok(()) => {
                telemetry::destroyed(DestroyReason::Orphan);
                tracing::warn!(workspace = %id, reason = %DestroyReason::Orphan, "removed a sandbox that had no workspace");
            }
            Err(error) => {
                tracing::warn!(workspace = %id, reason = error_chain(&error), "an orphan could not be removed")
            }
        }
    }
}

/// Whether to wait for the turn of a workspace that another task is changing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    ForTurn,
    No,
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
