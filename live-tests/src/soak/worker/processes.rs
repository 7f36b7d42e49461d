//! Background processes: their output is read in pieces, by any reader that happens to be connected, and must be whole.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use rand::RngExt as _;
use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use super::{Judged, Worker};
use crate::soak::{
    answer::Answer,
    fault::Fault,
    phase::Op,
    workspace::{KnownWorkspace, Process},
};

/// The longest time that a reader stays.
const STAYS: Duration = Duration::from_secs(4);
/// The most processes of one workspace at a time.
const MOST: usize = 3;

// === impl Worker ===

impl Worker {
    pub(super) async fn start(&mut self, known: &mut KnownWorkspace) {
        if known.processes.len() >= MOST {
            return self.finish(known).await;
        }
        let lines = self.random.random_range(1..3_000);
        let id = format!("w{}-{}", self.number, known.fresh("process"));
        let mut process =
            Process { id, lines, started: Instant::now(), read: 0, may_be_lost: false, may_be_unknown: false };
        let body = json!({ "command": process.command(), "execution_id": process.id });
        let request = self.post(known, "/processes", &body);
        match self.ask(known, Op::Call, "start", request).await {
            Judged::Done(answer) if answer.status() == Some(201) => known.processes.push(process),
            Judged::Done(answer) => self.process_refused(known, "start", &answer),
            Judged::Open => {
                process.may_be_unknown = true;
                process.may_be_lost = true;
                known.processes.push(process);
            }
            Judged::Refused | Judged::Wrong => {}
        }
    }

    fn process_refused(&self, known: &KnownWorkspace, name: &str, answer: &Answer) {
        let stormy = !self.testbed.fault_log.since(self.server, known.looked - Duration::from_secs(10)).is_empty();
        if !stormy {
            self.finding(known, name, &format!("it should succeed; got {}", answer.shown()));
        }
    }

    fn some_process(&mut self, known: &KnownWorkspace) -> usize {
        self.random.random_range(0..known.processes.len().max(1))
    }

    /// Follows output from where the last reader left, and goes away in the middle.
    pub(super) async fn follow(&mut self, known: &mut KnownWorkspace) {
        let index = self.some_process(known);
        let Some(process) = known.processes.get(index).cloned() else { return };
        let enough = process.read + self.random.random_range(1..8_000);
        let path = format!("/processes/{}/output?stream=stdout&offset={}&follow=true", process.id, process.read);
        let from = Instant::now();
        self.subject().census.set(&known.id, true);
        let response = match self.request(Method::GET, known, &path).send().await {
            Ok(response) if response.status().is_success() => response,
            Ok(response) => {
                return self.no_output(known, index, from, Answer::of(response).await).await;
            }
            Err(error) => return self.no_output(known, index, from, Answer::Nothing(error.to_string())).await,
        };
        let mut got = Vec::new();
        let mut body = response.bytes_stream();
        let broke = loop {
            let Ok(next) = timeout(STAYS.saturating_sub(from.elapsed()), body.next()).await else { break None };
            match next {
                Some(Ok(chunk)) => got.extend_from_slice(&chunk),
                Some(Err(error)) => break Some(error.to_string()),
                None => break None,
            }
            if process.read + got.len() >= enough {
                self.testbed.report.struck(Fault::StreamCut);
                break None;
            }
        };
        drop(body);
        self.compare_output(known, index, &got);
        let answer = Answer::Reply { status: 200, problem: None, retry_after: false, body: Bytes::new() };
        self.judge(known, Op::Call, "follow", from, answer).await;
        if let Some(error) = broke {
            let calm = self.testbed.fault_log.since(self.server, from).is_empty() && known.lingering().is_none();
            if calm && !known.has_expired() {
                self.finding(known, "follow", &format!("the output broke off: {error}"));
            }
        }
    }

    async fn no_output(&mut self, known: &mut KnownWorkspace, index: usize, from: Instant, answer: Answer) {
        if let Judged::Done(answer) = self.judge(known, Op::Call, "follow", from, answer).await {
            self.forget_unknown(known, index, &answer);
        }
    }

    /// Drops a process that the guest does not know. That is a finding, unless the process's start was in doubt, or a
    /// fault that was at work meanwhile has made the guest forget it.
    fn forget_unknown(&self, known: &mut KnownWorkspace, index: usize, answer: &Answer) {
        if index >= known.processes.len() {
            return;
        }
        let process = known.processes.swap_remove(index);
        if !(process.may_be_unknown && answer.problem() == Some("unknown-execution")) {
            self.process_refused(known, "process", answer);
        }
    }

    fn compare_output(&self, known: &mut KnownWorkspace, index: usize, got: &[u8]) {
        let Some(process) = known.processes.get_mut(index) else { return };
        let expected = process.output_from(process.read);
        if expected.get(..got.len()) == Some(got) {
            if process.read > 0 && !got.is_empty() {
                self.testbed.report.seen(Fault::StreamCut, "went on where it was cut");
            }
            process.read += got.len();
            process.may_be_unknown = false;
        } else {
            let (id, read, started) = (process.id.clone(), process.read, process.started);
            known.processes.swap_remove(index);
            if self.testbed.fault_log.since(self.server, started).contains(&Fault::DiskFull) {
                // Lines that found no space are missing, as for any program that does not look.
                return;
            }
            let shown = String::from_utf8_lossy(&got[..got.len().min(80)]).into_owned();
            self.finding(known, "output", &format!("{id} from {read} on has other bytes: {shown:?}"));
        }
    }

    /// Waits for a process's end, and reads the rest of its output.
    pub(super) async fn finish(&mut self, known: &mut KnownWorkspace) {
        let index = self.some_process(known);
        let Some(id) = known.processes.get(index).map(|process| process.id.clone()) else { return };
        let request = self.request(Method::GET, known, &format!("/processes/{id}/wait?wait_seconds=15"));
        let Judged::Done(answer) = self.ask(known, Op::Call, "wait", request).await else { return };
        match answer.status() {
            Some(200) => {}
            Some(202) => return,
            _ => return self.forget_unknown(known, index, &answer),
        }
        let Some(process) = known.processes.get(index).cloned() else { return };
        let result = answer.json();
        let whole =
            result["outcome"] == "exited" && result["exit_code"] == 0 && result["stdout_bytes"] == process.len();
        let excused = process.may_be_lost || !self.testbed.fault_log.since(self.server, known.looked).is_empty();
        if !whole && !excused {
            let bytes = process.len();
            self.finding(known, "wait", &format!("{id} should exit 0 after {bytes} bytes; got {}", answer.shown()));
        }
        let path = format!("/processes/{id}/output?stream=stdout&offset={}", process.read);
        let request = self.request(Method::GET, known, &path);
        let Judged::Done(answer) = self.ask(known, Op::Call, "output", request).await else { return };
        if !answer.is_success() {
            return self.forget_unknown(known, index, &answer);
        }
        let complete = process.read + answer.body().len() == process.len();
        self.compare_output(known, index, answer.body());
        if whole && !complete {
            self.finding(known, "output", &format!("{id} has {} bytes, and shows fewer", process.len()));
        }
        known.processes.retain(|other| other.id != id);
    }

    pub(super) async fn cancel(&mut self, known: &mut KnownWorkspace) {
        let index = self.some_process(known);
        let Some(process) = known.processes.get(index).cloned() else { return };
        let request = self.post(known, &format!("/processes/{}/cancel", process.id), &json!({}));
        match self.ask(known, Op::Call, "cancel", request).await {
            Judged::Done(answer) if answer.is_success() => {
                if answer.json()["status"] != "ended" {
                    self.finding(known, "cancel", &format!("it should have ended; got {}", answer.shown()));
                }
                known.processes.retain(|other| other.id != process.id);
            }
            Judged::Done(answer) => self.forget_unknown(known, index, &answer),
            Judged::Open | Judged::Wrong => {
                if let Some(process) = known.processes.get_mut(index) {
                    process.may_be_lost = true;
                }
            }
            Judged::Refused => {}
        }
    }
}
