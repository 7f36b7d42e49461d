//! Finding out the phase of a workspace, and the causes that may explain it.

use std::time::{Duration, Instant};

use reqwest::Method;
use tokio::time::sleep;

use super::{SETTLES, Worker};
use crate::soak::{
    answer::Answer,
    fault::Fault,
    phase::{Circumstances, Phase},
    testbed::LIMIT,
    workspace::KnownWorkspace,
};

// === impl Worker ===

impl Worker {
    /// Returns the circumstances that may explain an answer to a request sent at `from`; notes their effect in `known`.
    pub(super) fn circumstances(&self, known: &mut KnownWorkspace, from: Instant) -> Circumstances {
        let mut faults = self.testbed.fault_log.since(self.server, from);
        if self.testbed.fault_log.since(self.server, known.looked).contains(&Fault::EngineKilled) {
            known.phases.engine_died();
            known.sandbox_may_have_ended();
        }
        if self.testbed.fault_log.since(self.server, known.looked).contains(&Fault::DiskFull) {
            // What they wrote meanwhile is lost, as it is for any program that does not look.
            known.processes.clear();
        }
        if let Some(rest) = known.rests {
            known.phases.may_rest(rest);
        }
        if known.has_expired() {
            known.phases.or(Phase::Destroyed);
            known.sandbox_may_have_ended();
        }
        faults.extend(known.struck);
        if let Some(fault) = known.lingering() {
            faults.insert(fault);
            known.sandbox_may_have_ended();
            known.may_still_end();
        }
        let expiring = known.has_expired();
        let limit_may_be_reached = self.subject().census.most_since(from) > LIMIT;
        Circumstances { faults, limit_may_be_reached, expiring }
    }

    /// Whether the engine says that it cannot start the container, since the engine was killed during an earlier start.
    /// Docker 20.10 leaves a task behind then and stumbles over it ever after; no client of the engine can mend that.
    pub(super) fn is_wedged(&self, known: &mut KnownWorkspace, answer: &Answer) -> bool {
        let killed = self.testbed.fault_log.since(self.server, known.made).contains(&Fault::EngineKilled);
        // The standard runtime's words, and gVisor's.
        let words = [": already exists", ": id already in use"];
        let shown = answer.shown();
        let stumbles = answer.problem() == Some("engine-refused") && words.iter().any(|words| shown.contains(words));
        if killed && stumbles && !known.wedged {
            known.wedged = true;
            self.testbed
                .report
                .seen(Fault::EngineKilled, "Docker could not start a container again: task already exists");
        }
        killed && stumbles
    }

    /// Looks until the workspace is in a phase that stays, and compares that with the possible phases.
    pub(super) async fn settle(&mut self, known: &mut KnownWorkspace) {
        let from = Instant::now();
        let mut last = String::new();
        let mut deadline = from + SETTLES;
        while Instant::now() < deadline {
            let asked = Instant::now();
            let answer = Answer::to(self.request(Method::GET, known, "")).await;
            let faults = self.testbed.fault_log.since(self.server, asked);
            if !faults.is_empty() {
                // Its time runs from when all is well.
                deadline = Instant::now() + SETTLES;
            }
            if let Some(rule) = answer.broken_rule() {
                self.finding(known, "look", &format!("{rule}; got {}", answer.shown()));
                return;
            }
            let is_behind = faults.iter().any(|fault| fault.delays_rows());
            if answer.is_success()
                && !is_behind
                && let Some(phase) = Phase::shown(&answer.json())
            {
                self.take_in(known, phase, &answer, from);
                return;
            }
            last = answer.shown();
            sleep(Duration::from_millis(250)).await;
        }
        self.finding(known, "look", &format!("it stays between two states for {SETTLES:?}: {last}"));
    }

    /// Takes note of the phase that a look showed.
    pub(super) fn take_in(&self, known: &mut KnownWorkspace, phase: Phase, answer: &Answer, from: Instant) {
        self.circumstances(known, from);
        let before = known.phases.to_string();
        if phase == Phase::Broken {
            known.sandbox_may_have_ended();
        }
        if !known.see(phase) {
            self.finding(known, "look", &format!("it should be {before}, and is shown as {}", answer.shown()));
        }
        known.looked = Instant::now();
        self.note_census(known);
    }
}
