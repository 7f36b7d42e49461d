//! Follows what happens in the engines, whoever caused it, and catches up on what was missed.

use std::{sync::Arc, time::Duration};

use emergent_provider::{EngineEvent, EngineEventKind, EngineState};
use emergent_types::error_chain;
use futures::{StreamExt as _, stream::BoxStream};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::Reconciler;
use crate::{
    lifecycle::{Wait, reconcile_action::ReconcileAction},
    placement::providers::Registered,
    workspace::state::WorkspaceStatus,
};

/// The interval at which rows and engine are compared even if no event says that they differ.
const COMPARE: Duration = Duration::from_secs(60);
/// How soon that is tried again while the store does not let it.
const RETRY: Duration = Duration::from_secs(5);
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

// === impl Reconciler ===

impl Reconciler {
    /// Watches one engine until the service goes down. `caught_up` is called each time rows and engine agree.
    pub(crate) async fn watch(self: Arc<Self>, registered: Arc<Registered>, caught_up: impl Fn()) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let began = Instant::now();
            tokio::select! {
                () = self.watch_once(&registered, &caught_up) => {}
                () = self.tasks.going_down() => return,
            }
            // The engine is away, or was for a moment. Nobody has to wait for the next regular question to know.
            registered.probe().await;
            if began.elapsed() > COMPARE {
                backoff = FIRST_BACKOFF;
            }
            tokio::select! {
                () = sleep(backoff) => {}
                () = self.tasks.going_down() => return,
            }
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    /// Watches until the stream of events ends. It is opened before the catch-up, so that nothing falls between.
    async fn watch_once(self: &Arc<Self>, registered: &Arc<Registered>, caught_up: &impl Fn()) {
        let events = match registered.provider.events().await {
            Ok(events) => events,
            Err(error) => {
                tracing::debug!(provider = %registered.provider.kind(), reason = error_chain(&error), "no events");
                return;
            }
        };
        // Events wait in the stream while the catch-up runs. It goes first: it alone knows which workspaces stand still
        // only because a snapshot of them was cut short.
        let compared = Notify::new();
        let follow = async {
            compared.notified().await;
            self.follow(events).await;
        };
        let compare = async {
            loop {
                if let Err(error) = self.lease.ensure().await {
                    tracing::warn!(reason = error_chain(&error), "rows and engine are not compared without a lease");
                    sleep(RETRY).await;
                    continue;
                }
                match self.reconcile(registered).await {
                    Ok(()) => {
                        caught_up();
                        registered.probe_if_unhealthy().await;
                    }
                    Err(error) => {
                        let kind = registered.provider.kind();
                        tracing::warn!(provider = %kind, reason = error_chain(&error), "the engine did not list its sandboxes");
                    }
                }
                compared.notify_one();
                sleep(COMPARE).await;
            }
        };
        tokio::select! {
            () = follow => {}
            () = compare => {}
        }
    }

    /// A member of the warm pool that has ended is nobody's loss: another takes its place.
    fn note_ended_member(&self, event: &EngineEvent) {
        let ended = match event.kind {
            EngineEventKind::Exited(_) | EngineEventKind::Removed | EngineEventKind::Paused => {
                self.pool.take_ended(event.workspace)
            }
            EngineEventKind::Started | EngineEventKind::Unpaused | EngineEventKind::OutOfMemory => return,
        };
        if !ended.is_empty() {
            tracing::warn!(workspace = %event.workspace, "a member of the warm pool has ended; another takes its place");
            let pool = Arc::clone(&self.pool);
            self.tasks.spawn(async move { pool.remove_all(ended).await });
        }
    }

    async fn follow(&self, mut events: BoxStream<'static, EngineEvent>) {
        while let Some(event) = events.next().await {
            let Some(entry) = self.registry.get(event.workspace) else {
                self.note_ended_member(&event);
                continue;
            };
            if event.kind == EngineEventKind::OutOfMemory {
                entry.note_out_of_memory();
            }
            if differs(entry.status(), &event.kind) {
                let lifecycle = Arc::clone(&self.lifecycle);
                self.tasks.spawn(async move { lifecycle.look_again(&entry, Wait::ForGuard).await });
            }
        }
    }
}

/// Whether an event may mean that row and engine differ. Most are echoes of the server's own doing.
fn differs(status: WorkspaceStatus, event: &EngineEventKind) -> bool {
    let state = match event {
        EngineEventKind::Started | EngineEventKind::Unpaused => Some(EngineState::Running),
        EngineEventKind::Paused => Some(EngineState::Paused),
        EngineEventKind::Exited(reason) => Some(EngineState::Exited(reason.clone())),
        EngineEventKind::Removed => None,
        EngineEventKind::OutOfMemory => return false,
    };
    match status {
        // It is to end, and whoever ends it sees how.
        WorkspaceStatus::Stopping(_) | WorkspaceStatus::Destroying | WorkspaceStatus::Destroyed => false,
        // It is to run: only an end is news.
        WorkspaceStatus::Creating | WorkspaceStatus::Starting => state != Some(EngineState::Running),
        WorkspaceStatus::Ready
        | WorkspaceStatus::Paused(_)
        | WorkspaceStatus::Stopped(_)
        | WorkspaceStatus::Failed(_) => ReconcileAction::choose(status, state.as_ref()) != ReconcileAction::Agree,
    }
}
