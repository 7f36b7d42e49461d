//! Workspaces that nobody uses: they come to rest, and the next call finds them as they were.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

use super::Worker;
use crate::soak::{answer::Answer, phase::Phase, workspace::KnownWorkspace};

/// The time that a workspace may take to come to rest that is to do so after two seconds.
const RESTS: Duration = Duration::from_secs(90);

// === impl Worker ===

impl Worker {
    /// Leaves a workspace alone until it comes to rest. Half the time a call then wakes it; otherwise the next step
    /// finds it at rest.
    pub(super) async fn await_rest(&mut self, known: &mut KnownWorkspace) {
        let began = Instant::now();
        let mut deadline = began + RESTS;
        loop {
            let asked = Instant::now();
            let answer = Answer::to(self.request(Method::GET, known, "")).await;
            if !self.testbed.fault_log.since(self.server, asked).is_empty() {
                // Its time runs from when all is well.
                deadline = Instant::now() + RESTS;
            }
            let is_behind = self.testbed.fault_log.since(self.server, asked).iter().any(|fault| fault.delays_rows());
            match Phase::shown(&answer.json()).filter(|_| answer.is_success() && !is_behind) {
                None | Some(Phase::Ready) => {}
                Some(phase) => {
                    self.take_in(known, phase, &answer, asked);
                    if known.rests == Some(phase) {
                        self.count("come to rest", &answer, &[].into(), began);
                        break;
                    }
                    return;
                }
            }
            if Instant::now() > deadline {
                self.finding(
                    known,
                    "look",
                    &format!("it should come to rest within {RESTS:?}; got {}", answer.shown()),
                );
                return self.settle(known).await;
            }
            sleep(Duration::from_millis(200)).await;
        }
        if self.random.random_bool(0.5) {
            self.call(known, "bash", json!({ "command": "true" })).await;
        }
    }
}
