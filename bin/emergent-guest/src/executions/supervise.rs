//! The supervision of an execution: its timeout, its stop, and its end.

use std::{sync::Arc, time::Duration};

use emergent_guest_proto::{KILL_GRACE_MS, Outcome};
use tokio::sync::oneshot;

use super::{Executions, GIVE_UP, execution::Run, journal::Line};
use crate::{credentials, process::reaper::Exit};

impl Executions {
    /// Sees an execution to its end.
    pub(super) async fn supervise(
        self: Arc<Self>,
        run: Arc<Run>,
        mut exit: oneshot::Receiver<Exit>,
        timeout: Option<Duration>,
    ) {
        let mut stop = run.stop.subscribe();
        let stopped = async {
            let stopped = stop.wait_for(Option::is_some).await;
            stopped.ok().and_then(|outcome| outcome.clone()).unwrap_or(Outcome::Cancelled)
        };
        let timed_out = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
            Outcome::TimedOut
        };
        let (outcome, exit) = tokio::select! {
            biased;
            exit = &mut exit => (Outcome::Exited, exit.ok()),
            outcome = async { tokio::select! { outcome = stopped => outcome, outcome = timed_out => outcome } } => {
                run.family().terminate(Duration::from_millis(KILL_GRACE_MS)).await;
                (outcome, tokio::time::timeout(GIVE_UP, exit).await.ok().and_then(Result::ok))
            }
        };
        let reason = (outcome == Outcome::Lost).then(|| "the workspace was shut down".to_owned());
        let ending = run.ended(outcome, exit, reason);
        self.journal.write(Line::Ended { id: run.id.clone(), ending });
        *run.stdin.lock().await = None;
        let forgotten = self.table().finished(&run.id);
        if !forgotten.is_empty() {
            let forget = credentials::blocking(move || {
                self.forget(forgotten);
                Ok(())
            });
            let _ = forget.await;
        }
    }
}
