//! Brings workspaces to rest that nobody uses.
//!
//! A workspace is used while a call is under way and while a process runs that was started through the server. The
//! guest is asked for such processes only when a workspace has been without calls for as long as its policy says, and
//! what it answers can only put the rest off: a lying guest keeps its own workspace running and no other.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use emergent_guest_proto::{Execution, ExecutionState};
use emergent_store::{IdleAction, IdlePolicy};
use emergent_types::error_chain;
use tokio::time::{interval, timeout};
use tracing::Instrument as _;

use crate::{
    audit::Audit,
    foundation::Foundation,
    lifecycle::Lifecycle,
    tasks::Tasks,
    workspace::{
        entry::{Entry, WorkspaceGuard},
        registry::Registry,
        state::WorkspaceStatus,
        transitions::Operation,
    },
};

/// The interval between looks at workspaces.
const LOOK: Duration = Duration::from_millis(500);
/// The time that a guest may take to say what runs. One that does not is left alone.
const ANSWER: Duration = Duration::from_secs(5);

/// Whether a workspace has been without calls for long enough to ask what runs in it.
fn is_due(policy: IdlePolicy, status: WorkspaceStatus, quiet_for: Duration) -> bool {
    status == WorkspaceStatus::Ready && policy.action != IdleAction::None && quiet_for >= policy.after
}

/// Returns the time for which nothing has run; `None` while something does.
fn still_for(executions: &[Execution], now_ms: u64) -> Option<Duration> {
    let mut still_for = Duration::MAX;
    for execution in executions {
        match execution.state {
            ExecutionState::Running => return None,
            ExecutionState::Ended { duration_ms, .. } => {
                let ended_at = execution.started_at_ms.saturating_add(duration_ms).min(now_ms);
                still_for = still_for.min(Duration::from_millis(now_ms - ended_at));
            }
        }
    }
    Some(still_for)
}

/// Brings to rest what nobody uses.
pub(crate) struct IdleKeeper {
    registry: Arc<Registry>,
    audit: Audit,
    tasks: Tasks,
    lifecycle: Arc<Lifecycle>,
}

// === impl IdleKeeper ===

impl IdleKeeper {
    pub(crate) fn new(base: &Foundation, lifecycle: Arc<Lifecycle>) -> Self {
        Self { registry: Arc::clone(&base.registry), audit: base.audit.clone(), tasks: base.tasks.clone(), lifecycle }
    }

    /// Brings to rest what nobody uses, for the life of the service.
    pub(crate) async fn keep_idle_at_rest(self: Arc<Self>) {
        let mut ticks = interval(LOOK);
        while self.tasks.goes_on(&mut ticks).await {
            for entry in self.registry.all() {
                if !is_due(entry.activity.policy(), entry.status(), entry.activity.quiet_for()) {
                    continue;
                }
                // Whoever has the guard changes it: it is looked at again afterwards.
                let Some(guard) = entry.free_guard() else { continue };
                let span = tracing::info_span!("idle", workspace = %entry.id);
                let keeper = Arc::clone(&self);
                self.tasks.spawn(async move { keeper.rest_if_unused(guard).await }.instrument(span));
            }
        }
    }

    async fn rest_if_unused(&self, mut guard: WorkspaceGuard) {
        let policy = guard.activity.policy();
        if !is_due(policy, guard.status(), guard.activity.quiet_for()) {
            return;
        }
        let still_for = self.still_for(&guard).await.unwrap_or(Duration::ZERO);
        if still_for < policy.after {
            // Nobody needs to ask again before that makes up the whole time.
            guard.activity.note_ago(still_for);
            return;
        }
        let act = self.audit.begin_operation(&guard, Operation::Idle(policy.action));
        let result = self.lifecycle.perform(&mut guard, Operation::Idle(policy.action)).await;
        match guard.status() {
            // Somebody began to use it meanwhile: nothing was done.
            WorkspaceStatus::Ready if result.is_ok() => act.forget(),
            _ => act.end(&result),
        }
        if let Err(error) = result {
            tracing::warn!(reason = error_chain(&error), action = %policy.action, "an unused workspace was not brought to rest");
            guard.activity.note();
        }
    }

    /// For how long nothing has run in a workspace; `None` when something does, or nobody knows.
    async fn still_for(&self, entry: &Entry) -> Option<Duration> {
        let guest = entry.ready_guest()?;
        match timeout(ANSWER, guest.executions()).await {
            Ok(Ok(list)) => still_for(&list.executions, u64::try_from(Utc::now().timestamp_millis()).ok()?),
            Ok(Err(error)) => {
                tracing::debug!(reason = error_chain(&error), "the guest did not say what runs");
                None
            }
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use emergent_guest_proto::{ExecutionId, Outcome};
    use proptest::{prelude::*, sample::select};

    use super::*;

    fn execution(started_at_ms: u64, duration_ms: Option<u64>) -> Execution {
        let state = duration_ms.map_or(ExecutionState::Running, |duration_ms| ExecutionState::Ended {
            outcome: Outcome::Exited,
            exit_code: Some(0),
            signal: None,
            duration_ms,
            reason: None,
        });
        Execution {
            execution_id: ExecutionId::new("one").unwrap(),
            command: String::new(),
            pid: 2,
            started_at_ms,
            state,
            stdout_bytes: 0,
            stderr_bytes: 0,
            dropped_bytes: 0,
            stdout_file: "/out".parse().unwrap(),
            stderr_file: "/err".parse().unwrap(),
        }
    }

    proptest! {
        #[test]
        fn whatever_a_guest_says_is_bounded(
            list in prop::collection::vec((any::<u64>(), prop::option::of(any::<u64>())), 0..8),
            now_ms in any::<u64>(),
        ) {
            let executions: Vec<_> = list.iter().map(|(at, took)| execution(*at, *took)).collect();
            let still_for = still_for(&executions, now_ms);
            prop_assert_eq!(still_for.is_none(), list.iter().any(|(_, took)| took.is_none()));
            if let Some(still_for) = still_for.filter(|_| !list.is_empty()) {
                prop_assert!(still_for <= Duration::from_millis(now_ms));
            }
        }

        #[test]
        fn only_what_runs_unused_for_as_long_as_its_policy_says_is_due(
            status in select(WorkspaceStatus::all().collect::<Vec<_>>()),
            action in select(vec![IdleAction::None, IdleAction::Pause, IdleAction::Stop]),
            after_ms in 0..10_000_u64,
            quiet_ms in 0..10_000_u64,
        ) {
            let (after, quiet_for) = (Duration::from_millis(after_ms), Duration::from_millis(quiet_ms));
            let due = is_due(IdlePolicy { action, after }, status, quiet_for);
            prop_assert_eq!(due, status == WorkspaceStatus::Ready && action != IdleAction::None && quiet_ms >= after_ms);
        }
    }

    #[test]
    fn the_last_process_to_end_counts() {
        let executions = [execution(1_000, Some(500)), execution(2_000, Some(3_000)), execution(3_000, Some(1))];
        assert_eq!(still_for(&executions, 6_000), Some(Duration::from_secs(1)));
        assert_eq!(still_for(&[], 6_000), Some(Duration::MAX));
    }
}
