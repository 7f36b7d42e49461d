//! Makes rows and engine agree: after a crash, after the engine was away, and after somebody else has changed the
//! engine.
//!
//! The row holds the wanted state, and [`ReconcileAction::choose`] decides the correction of a difference. A listing that fails ends a
//! run before the run has changed anything.

mod ownership;
mod pending_state_writes;
mod recheck;
mod take_over;
mod watch;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use emergent_provider::{ContainerKind, EngineState, Observed, OperationError, ProviderKind};
use emergent_store::{DestroyReason, StateKind, Store};
use emergent_types::{WorkspaceId, error_chain};
use futures::{StreamExt as _, stream};

use self::ownership::{Claim, Maker, Makers, Orphan};
use crate::{
    cluster::lease::Lease,
    foundation::Foundation,
    guests::{Guests, first_answer},
    leftovers::{Inventory, Leftovers},
    lifecycle::{Lifecycle, Wait, reconcile_action::ReconcileAction},
    placement::providers::{Providers, Registered},
    pool::Pool,
    recorder::StateRecorder,
    snapshots::Snapshots,
    tasks::Tasks,
    telemetry,
    workspace::{
        admissions::Admissions, recheck_queue::RecheckQueue, registry::Registry, state::WorkspaceStatus, steps::Undoing,
    },
};

/// The number of workspaces that are compared with the engine at once.
const TOGETHER: usize = 8;
/// The time that the guest of an unknown sandbox may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Makes rows and engines agree.
pub(crate) struct Reconciler {
    store: Store,
    registry: Arc<Registry>,
    providers: Arc<Providers>,
    lease: Arc<Lease>,
    recorder: Arc<StateRecorder>,
    guests: Arc<Guests>,
    admissions: Admissions,
    tasks: Tasks,
    started_at: DateTime<Utc>,
    recheck: Arc<RecheckQueue>,
    /// The age from which on an unknown sandbox counts as an orphan.
    orphan_grace: TimeDelta,
    pool: Arc<Pool>,
    lifecycle: Arc<Lifecycle>,
    leftovers: Arc<Leftovers>,
    snapshots: Arc<Snapshots>,
}

// === impl Reconciler ===

impl Reconciler {
    pub(crate) fn new(
        base: &Foundation,
        pool: Arc<Pool>,
        lifecycle: Arc<Lifecycle>,
        leftovers: Arc<Leftovers>,
        snapshots: Arc<Snapshots>,
    ) -> Self {
        Self {
            store: base.store.clone(),
            registry: Arc::clone(&base.registry),
            providers: Arc::clone(&base.providers),
            lease: Arc::clone(&base.lease),
            recorder: Arc::clone(&base.recorder),
            guests: Arc::clone(&base.guests),
            admissions: base.admissions.clone(),
            tasks: base.tasks.clone(),
            started_at: base.started_at,
            recheck: Arc::clone(&base.recheck),
            orphan_grace: base.config.orphan_grace,
            pool,
            lifecycle,
            leftovers,
            snapshots,
        }
    }

    /// Makes all rows of a provider agree with its engine, and removes orphans.
    ///
    /// # Errors
    /// When the engine cannot say what it has; nothing was changed then.
    pub(crate) async fn reconcile(self: &Arc<Self>, registered: &Arc<Registered>) -> Result<(), OperationError> {
        let kind = registered.provider.kind();
        // First: it lets go of what stands still only because a snapshot of it was being taken.
        self.snapshots.recover(registered).await?;
        let listed = registered.provider.list().await?;
        // Whatever server made it: what was taken over still carries its maker's label.
        let observed = listed.into_iter().map(|observed| (observed.workspace, observed)).collect::<HashMap<_, _>>();
        let entries = self.registry.all().into_iter().filter(|entry| entry.provider() == kind).collect::<Vec<_>>();
        // A mark that is missing is made good: whatever becomes of the rows, the engine knows whose it is.
        for entry in entries.iter().filter(|entry| entry.status() != WorkspaceStatus::Creating) {
            if observed.get(&entry.id).is_some_and(|observed| observed.claimed == Some(false)) {
                self.lifecycle.mark_claimed(entry);
            }
        }
        let differing = entries.into_iter().filter(|entry| {
            let state = observed.get(&entry.id).map(|observed| &observed.state);
            ReconcileAction::choose(entry.status(), state) != ReconcileAction::Agree
        });
        // Each in a task of its own: a run that is given up half-way leaves no workspace half-way.
        let looks = stream::iter(differing).for_each_concurrent(TOGETHER, |entry| {
            let lifecycle = Arc::clone(&self.lifecycle);
            self.tasks.run(async move { lifecycle.look_again(&entry, Wait::No).await })
        });
        looks.await;
        self.pool.remove_all(self.pool.take_not_running(&observed)).await;
        let present = observed.keys().map(|id| id.as_uuid()).collect::<HashSet<_>>();
        self.leftovers.forget_gone(kind, Inventory::Sandboxes, &present).await;
        let strangers = observed.into_values().filter(|observed| self.is_nobodys(kind, observed)).collect::<Vec<_>>();
        if !strangers.is_empty() {
            let (reconciler, registered) = (Arc::clone(self), Arc::clone(registered));
            self.tasks.run(async move { reconciler.remove_orphans(&registered, &strangers).await }).await;
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
    pub(crate) async fn look_again_at_all(&self, ids: impl Iterator<Item = WorkspaceId>) {
        let entries = ids.filter_map(|id| self.registry.get(id)).collect::<Vec<_>>();
        let looks = stream::iter(entries).for_each_concurrent(TOGETHER, |entry| {
            let lifecycle = Arc::clone(&self.lifecycle);
            self.tasks.run(async move { lifecycle.look_again(&entry, Wait::ForGuard).await })
        });
        looks.await;
    }

    /// Removes the sandboxes without an entry that nobody wants any more.
    async fn remove_orphans(&self, registered: &Registered, strangers: &[Observed]) {
        let servers = match self.lease.ensure().await {
            Ok(()) => self.store.servers_list().await,
            Err(error) => Err(error),
        };
        match servers {
            Ok(servers) => {
                let makers = Makers::new(self.store.server_id(), &servers, &self.lease.acting_on(registered).await);
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
        let guest = self.guests.client(registered.provider.kind(), sandbox.workspace, None);
        let said = first_answer(registered, sandbox.workspace, &guest, ANSWER).await;
        guest.close();
        said.map_or(true, |hello| hello.is_configured)
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
        let is_young = Utc::now() - orphan.created_at <= self.orphan_grace;
        let row_may_come = is_young && (maker != Maker::Own || orphan.created_at >= self.started_at);
        let claimed = match orphan.claimed {
            Some(known) => known,
            None if claim == Claim::NoRow && maker == Maker::Own => {
                self.says_it_is_handed_over(registered, orphan).await
            }
            None => true,
        };
        match ownership::orphan(maker, row_may_come, claim, claimed) {
            Orphan::Leave => return,
            Orphan::PutAside => return self.leftovers.put_aside(registered, orphan).await,
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
