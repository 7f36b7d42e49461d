//! The tasks of the service, which a shutdown waits for.

use std::{panic, time::Duration};

use tokio::{
    task::{JoinError, JoinHandle},
    time::{Interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::audit::inherit;

/// The tasks of the service, and the signal that the service shuts down. Clones share both.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    /// Cancelled when the service shuts down: loops end, operations under way go on.
    going_down: CancellationToken,
}

// === impl Tasks ===

impl Tasks {
    /// Runs work in a task of its own.
    pub(crate) fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.tracker.spawn(work)
    }

    /// Runs work in a task of its own, on behalf of the caller's request, and returns the work's result. The work goes
    /// on when the caller goes away.
    pub(crate) fn run<F>(&self, work: F) -> impl Future<Output = F::Output> + Send + use<F>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let task = self.tracker.spawn(inherit(work));
        async move { task.await.unwrap_or_else(|error| propagate(error)) }
    }

    /// Runs work until the service shuts down; returns `None` then.
    pub(crate) async fn until_going_down<F: Future>(&self, work: F) -> Option<F::Output> {
        self.going_down.run_until_cancelled(work).await
    }

    /// Waits for the next tick, of which the first is now; returns false when the service shuts down.
    pub(crate) async fn goes_on(&self, ticks: &mut Interval) -> bool {
        tokio::select! {
            _ = ticks.tick() => true,
            () = self.going_down.cancelled() => false,
        }
    }

    /// Completes when the service shuts down.
    pub(crate) async fn going_down(&self) {
        self.going_down.cancelled().await;
    }

    pub(crate) fn is_going_down(&self) -> bool {
        self.going_down.is_cancelled()
    }

    /// Tells all tasks that the service shuts down.
    pub(crate) fn go_down(&self) {
        self.going_down.cancel();
    }

    /// Waits until all tasks have ended, within a grace period; returns whether they have.
    pub(crate) async fn ended(&self, grace: Duration) -> bool {
        self.tracker.close();
        timeout(grace, self.tracker.wait()).await.is_ok()
    }
}

/// Continues the panic of an owned task. Tasks of the service are never aborted, except by the end of the runtime,
/// which then ends the caller, too.
fn propagate(error: JoinError) -> ! {
    match error.try_into_panic() {
        Ok(panic) => panic::resume_unwind(panic),
        Err(error) => panic!("a task outlived its runtime: {error}"),
    }
}
