//! The end of a worker: all that it has is compared with its knowledge, and is destroyed.

use std::sync::Arc;

use reqwest::Method;

use super::{Left, Worker};
use crate::soak::{
    answer::Answer,
    phase::Phase,
    snapshot::State,
    testbed::Testbed,
    workspace::{Holder, KnownWorkspace},
};

/// The number of the first worker that takes over.
const TAKES_OVER: usize = 100;

// === impl Worker ===

impl Worker {
    /// Makes a worker that has nothing yet, for the workspaces and snapshots that others have left on a server.
    pub fn taking_over(testbed: Arc<Testbed>, server: usize) -> Self {
        // What it makes must not be called like what they have made.
        Self::new(testbed, TAKES_OVER + server, server)
    }

    /// Compares every file, the history, every process and the holder of each workspace with the worker's knowledge;
    /// then destroys the workspace. One after the other, so that there is room for each to be started.
    pub async fn verify(&mut self, mut left: Left) {
        // What runs makes room for what does not.
        left.workspaces.sort_by_key(|known| !known.phases.some(Phase::is_active));
        for mut known in left.workspaces {
            self.verify_one(&mut known).await;
            self.destroy(&mut known).await;
        }
        // Now that what they were taken of is gone.
        for mut kept in left.snapshots {
            self.look_at_snapshot(&mut kept).await;
            if kept.states.is(State::Whole) {
                self.make_from(&mut kept).await;
            }
            while let Some(mut known) = self.owned.pop() {
                self.verify_one(&mut known).await;
                self.destroy(&mut known).await;
            }
            self.delete_snapshot(&mut kept).await;
        }
    }

    async fn verify_one(&mut self, known: &mut KnownWorkspace) {
        self.settle(known).await;
        self.compare_holder(known).await;
        if known.phases.may_be(Phase::Paused) || known.phases.may_be(Phase::Stopped) {
            self.resume(known).await;
        }
        if known.wedged || !known.phases.all(Phase::takes_calls) {
            return;
        }
        let paths: Vec<_> = known.contents.files.paths().map(str::to_owned).collect();
        for path in paths {
            self.download(known, &path).await;
        }
        self.glob(known).await;
        self.log(known).await;
        // One that still runs is waited for again.
        for _ in 0..3 * known.processes.len() {
            if !known.processes.is_empty() {
                self.finish(known).await;
            }
        }
    }

    async fn compare_holder(&self, known: &KnownWorkspace) {
        let answer = Answer::to(self.request(Method::GET, known, "")).await;
        let shown = answer.json()["attached"]["session_id"].as_str().map(str::to_owned);
        let is_known = match known.holder {
            Holder::Doubtful => true,
            Holder::Nobody => shown.is_none(),
            Holder::Session(id) => shown == Some(id.to_string()),
        };
        if !is_known && known.phases.some(Phase::has_files) {
            self.finding(known, "look", &format!("{:?} should hold it; got {}", known.holder, answer.shown()));
        }
    }
}
