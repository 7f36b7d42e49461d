//! Changes under names of the worker's own: when an answer is lost, the change's outcome is asked for by its name, and
//! the files must agree with it.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tokio::time::sleep;
use uuid::Uuid;

use super::{Judged, Worker};
use crate::soak::{answer::Answer, files::Content, phase::Op, workspace::KnownWorkspace};

/// The header that names a call.
const CALL: &str = "Emergent-Call";
/// The time that a change may go on after its answer was lost.
const GOES_ON: Duration = Duration::from_secs(60);

/// The outcome of a change.
enum Outcome {
    /// The change has happened; the result.
    Done(Value),
    /// The guest has refused the change: nothing has happened.
    Refused(Answer),
    /// The change has not happened, and never will.
    Never,
    /// The change may have happened, and nobody knows any more: the guest that knew has ended.
    Lost,
}

// === impl Worker ===

impl Worker {
    /// Changes the file at a path; returns the result of a change that has happened.
    pub(super) async fn change(
        &mut self,
        known: &mut KnownWorkspace,
        name: &str,
        request: RequestBuilder,
        (path, content): (&str, Content),
    ) -> Option<Value> {
        let (call, sent) = (Uuid::new_v4().to_string(), Instant::now());
        let asked = self.ask_under_name(known, name, request, &call).await;
        let (outcome, was_lost) = match asked {
            Judged::Done(answer) if answer.is_success() => {
                let result = answer.json();
                if self.random.random_ratio(1, 8) {
                    self.compare_outcome(known, name, (&call, sent), &result).await;
                }
                (Outcome::Done(result), false)
            }
            Judged::Done(answer) => (Outcome::Refused(answer), false),
            Judged::Refused => (Outcome::Never, false),
            Judged::Open | Judged::Wrong => (self.outcome_of(known, name, &call, sent).await, true),
        };
        let result = match outcome {
            Outcome::Done(result) => {
                known.contents.files.changed(path, content);
                Some(result)
            }
            Outcome::Refused(answer) => {
                self.refused_by_guest(known, name, &answer);
                None
            }
            Outcome::Never => None,
            Outcome::Lost => {
                known.contents.files.may_have_changed(path, content);
                return None;
            }
        };
        if was_lost {
            // The file must be as the outcome says.
            self.download(known, path).await;
        }
        result
    }

    /// Sends a change under a name, and judges its answer. Channels may be cut meanwhile.
    pub(super) async fn ask_under_name(
        &mut self,
        known: &mut KnownWorkspace,
        name: &str,
        request: RequestBuilder,
        call: &str,
    ) -> Judged {
        let from = Instant::now();
        self.subject().census.set(&known.id, true);
        let under_way = self.subject().changes.begin();
        let answer = Answer::to(request.header(CALL, call)).await;
        drop(under_way);
        let leaves_open = matches!(answer.problem(), Some("call-interrupted" | "call-timed-out"));
        if leaves_open && answer.json()["call_id"] != call {
            self.finding(known, name, &format!("its problem should name the call {call}; got {}", answer.shown()));
        }
        self.judge(known, Op::Call, name, from, answer).await
    }

    /// Asks for the outcome of a change whose answer was lost, until that is known.
    async fn outcome_of(&mut self, known: &mut KnownWorkspace, name: &str, call: &str, sent: Instant) -> Outcome {
        let deadline = Instant::now() + GOES_ON;
        loop {
            // A guest that would have to be started first knows nothing of it.
            if !known.phases.some(|phase| phase.takes_calls() && !phase.needs_start()) {
                return Outcome::Lost;
            }
            let Some(outcome) = self.ask_outcome(known, call).await else { return Outcome::Lost };
            let (seen, outcome) = match outcome["state"].as_str() {
                Some("running") if Instant::now() < deadline => {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
                Some("done") => ("done", Outcome::Done(outcome["answer"].clone())),
                Some("refused") => ("refused", Outcome::Refused(Answer::of_problem(&outcome["problem"]))),
                Some("not_begun") if is_known_since(&outcome, sent) => ("not begun", Outcome::Never),
                Some("not_begun") => ("forgotten", Outcome::Lost),
                _ => {
                    self.finding(known, name, &format!("call {call} should have an outcome by now; got {outcome}"));
                    return Outcome::Lost;
                }
            };
            self.testbed.report.lost_answer(seen);
            return outcome;
        }
    }

    /// Compares the outcome that is kept under a change's name with the answer that came.
    async fn compare_outcome(
        &mut self,
        known: &mut KnownWorkspace,
        name: &str,
        (call, sent): (&str, Instant),
        result: &Value,
    ) {
        let Some(outcome) = self.ask_outcome(known, call).await else { return };
        let is_same = outcome["state"] == "done" && outcome["answer"] == *result;
        // A guest that was started since knows nothing of it.
        let is_forgotten = outcome["state"] == "not_begun" && !is_known_since(&outcome, sent);
        if !is_same && !is_forgotten {
            self.finding(known, name, &format!("call {call} was answered with {result}, and its outcome is {outcome}"));
        }
    }

    /// Asks for the outcome of a call; `None` where there is no answer to that.
    pub(super) async fn ask_outcome(&mut self, known: &mut KnownWorkspace, call: &str) -> Option<Value> {
        let request = self.request(Method::GET, known, &format!("/calls/{call}"));
        match self.ask(known, Op::Call, "outcome", request).await {
            Judged::Done(answer) if answer.is_success() => Some(answer.json()),
            Judged::Done(answer) => {
                self.finding(known, "outcome", &format!("it should be 200; got {}", answer.shown()));
                None
            }
            Judged::Refused | Judged::Open | Judged::Wrong => None,
        }
    }
}

/// Whether the guest knows of every call that has begun since `sent`, so that one that it does not know never began.
pub(super) fn is_known_since(outcome: &Value, sent: Instant) -> bool {
    let known = outcome["known_for_ms"].as_u64();
    known.is_some_and(|known| u128::from(known) >= sent.elapsed().as_millis())
}
