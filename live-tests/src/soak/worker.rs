//! A worker: an agent with workspaces of its own. It sends requests, and compares every answer with its own knowledge.

mod changes;
mod idle;
mod inspection;
mod life;
mod processes;
mod sessions;
mod snapshots;
mod strikes;
mod tools;
mod verify;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    answer::Answer,
    fault::Fault,
    phase::{Fit, Op, Phase},
    plan::{self, KeptStep, Step},
    possible::Outcome,
    snapshot::KnownSnapshot,
    testbed::{Subject, Testbed},
    workspace::KnownWorkspace,
};
use crate::api::WORKSPACES;

/// The number of workspaces that a worker makes anew.
const OWNED: usize = 2;
/// The most workspaces that a worker has, with the copies that it makes of them.
const MOST: usize = 4;
/// The most snapshots that a worker keeps.
const MOST_KEPT: usize = 2;
/// The time that the server may take to bring a workspace out of a state between two: the time of its regular
/// comparison of rows and engine, and of the work that follows.
const SETTLES: Duration = Duration::from_secs(60 + 60);

/// An agent.
pub struct Worker {
    testbed: Arc<Testbed>,
    number: usize,
    server: usize,
    random: StdRng,
    owned: Vec<KnownWorkspace>,
    kept: Vec<KnownSnapshot>,
    made: u32,
}

/// The workspaces and snapshots that a worker leaves at the end of the load.
#[derive(Default)]
pub struct Left {
    /// The worker's workspaces.
    pub workspaces: Vec<KnownWorkspace>,
    /// The worker's snapshots.
    pub snapshots: Vec<KnownSnapshot>,
}

/// The result of a request, judged.
enum Judged {
    /// The operation was done; a call has reached the workspace.
    Done(Answer),
    /// The operation did not happen, as expected.
    Refused,
    /// A fault was at work: the operation may or may not have happened.
    Open,
    /// The answer is a finding already.
    Wrong,
}

// === impl Worker ===

impl Worker {
    /// Makes a worker of one server, with random numbers of its own.
    pub fn new(testbed: Arc<Testbed>, number: usize, server: usize) -> Self {
        let random = StdRng::seed_from_u64(testbed.seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        Self { testbed, number, server, random, owned: Vec::new(), kept: Vec::new(), made: 0 }
    }

    /// Works until the load ends; returns the workspaces and snapshots that are left.
    pub async fn work(mut self) -> Left {
        while self.testbed.goes_on() {
            self.step().await;
            let pause = self.random.random_range(0..60);
            sleep(Duration::from_millis(pause)).await;
        }
        Left { workspaces: self.owned, snapshots: self.kept }
    }

    /// Does the next step.
    async fn step(&mut self) {
        if !self.kept.is_empty() && self.random.random_ratio(1, 10) {
            self.step_with_snapshot().await;
            return;
        }
        if self.owned.is_empty() || (self.owned.len() < OWNED && self.random.random_ratio(1, 6)) {
            self.create().await;
            return;
        }
        let index = self.random.random_range(0..self.owned.len());
        let mut known = self.owned.swap_remove(index);
        let is_crowded = self.owned.len() >= OWNED && self.random.random_ratio(1, 6);
        let step = if is_crowded { Step::Destroy } else { plan::next(&mut self.random, &known) };
        self.carry_out(step, &mut known).await;
        if known.is_overdue() && !known.phases.is(Phase::Destroyed) {
            self.look_if_overdue(&mut known).await;
        }
        self.note_census(&known);
        if !known.phases.is(Phase::Destroyed) {
            self.owned.push(known);
        }
    }

    async fn step_with_snapshot(&mut self) {
        let index = self.random.random_range(0..self.kept.len());
        let mut kept = self.kept.swap_remove(index);
        match plan::next_with_snapshot(&mut self.random, &kept) {
            KeptStep::Look => self.look_at_snapshot(&mut kept).await,
            KeptStep::List => self.list_snapshots(&mut kept).await,
            KeptStep::MakeFrom => self.make_from(&mut kept).await,
            KeptStep::Delete => self.delete_snapshot(&mut kept).await,
        }
        self.keep(kept);
    }

    async fn carry_out(&mut self, step: Step, known: &mut KnownWorkspace) {
        match step {
            Step::Look => self.look(known).await,
            Step::List => self.list(known).await,
            Step::CallInVain => self.call_in_vain(known).await,
            Step::Resume => self.resume(known).await,
            Step::Destroy | Step::Discard => self.destroy(known).await,
            Step::Stop => self.stop(known).await,
            Step::Pause => self.pause(known).await,
            Step::Write => self.write(known).await,
            Step::Read => self.read_one(known).await,
            Step::Edit => self.edit(known).await,
            Step::Glob => self.glob(known).await,
            Step::Grep => self.grep(known).await,
            Step::Remove => self.remove(known).await,
            Step::Bash => self.bash(known).await,
            Step::BashTimeout => self.bash_timeout(known).await,
            Step::Upload => self.upload(known).await,
            Step::Download => self.download_one(known).await,
            Step::Commit => self.commit(known).await,
            Step::Log => self.log(known).await,
            Step::Start => self.start(known).await,
            Step::Follow => self.follow(known).await,
            Step::Finish => self.finish(known).await,
            Step::Cancel => self.cancel(known).await,
            Step::Burst => self.burst(known).await,
            Step::AwaitRest => self.await_rest(known).await,
            Step::Attach => self.attach(known).await,
            Step::Contend => self.contend(known).await,
            Step::TakeOver => self.take_over(known).await,
            Step::Detach => self.detach(known).await,
            Step::Snapshot => self.take_snapshot(known).await,
            Step::Fork => self.fork(known).await,
            Step::StrikeKill => self.strike_kill(known).await,
            Step::StrikeRemove => self.strike_remove(known).await,
            Step::StrikeShim => self.strike_shim(known).await,
            Step::StrikePause => self.strike_pause(known).await,
            Step::StrikeUnpause => self.strike_unpause(known).await,
            Step::StrikeMemory => self.strike_memory(known).await,
            Step::StrikeUpload => self.strike_upload(known).await,
        }
    }

    fn subject(&self) -> &Subject {
        &self.testbed.subjects[self.server]
    }

    /// A request for the session that holds the workspace, if there is one.
    fn request(&self, method: Method, known: &KnownWorkspace, rest: &str) -> RequestBuilder {
        self.request_for(known.session(), method, known, rest)
    }

    fn request_for(&self, session: Option<Uuid>, method: Method, known: &KnownWorkspace, rest: &str) -> RequestBuilder {
        let request = self.subject().api.request(method, &format!("{WORKSPACES}/{}{rest}", known.id));
        match session {
            Some(id) => request.header("Emergent-Session", id.to_string()),
            None => request,
        }
    }

    fn post(&self, known: &KnownWorkspace, rest: &str, body: &Value) -> RequestBuilder {
        self.request(Method::POST, known, rest).json(body)
    }

    /// Calls a tool.
    async fn call(&mut self, known: &mut KnownWorkspace, tool: &'static str, body: Value) -> Judged {
        let request = self.post(known, &format!("/{tool}"), &body);
        self.ask(known, Op::Call, tool, request).await
    }

    /// Sends a request, and judges its result.
    async fn ask(&mut self, known: &mut KnownWorkspace, op: Op, name: &str, request: RequestBuilder) -> Judged {
        let from = Instant::now();
        if matches!(op, Op::Call | Op::Resume) {
            self.subject().census.set(&known.id, true);
        }
        let answer = Answer::to(request).await;
        self.judge(known, op, name, from, answer).await
    }

    /// Judges the result of a request that was sent at `from`.
    async fn judge(&mut self, known: &mut KnownWorkspace, op: Op, name: &str, from: Instant, answer: Answer) -> Judged {
        let around = self.circumstances(known, from);
        self.count(name, &answer, &around.faults, from);
        if let Some(rule) = answer.broken_rule() {
            self.finding(known, name, &format!("{rule}; got {}", answer.shown()));
        }
        let before = known.phases.to_string();
        if self.is_wedged(known, &answer) {
            return Judged::Refused;
        }
        let fit = known.phases.judge(op, &answer, &around);
        if matches!(fit, Ok(Fit::Excused)) && answer.problem() == Some("engine-unavailable") {
            known.may_start_late();
        }
        known.may_still_end();
        known.looked = Instant::now();
        if matches!(op, Op::Stop | Op::Destroy) || known.phases.may_be(Phase::Broken) {
            known.sandbox_may_have_ended();
        }
        match fit {
            Ok(Fit::As(Outcome::Done | Outcome::Barred)) => Judged::Done(answer),
            Ok(Fit::As(Outcome::WrongState | Outcome::Unusable | Outcome::Missing) | Fit::LimitReached) => {
                Judged::Refused
            }
            Ok(Fit::Excused) => {
                self.settle(known).await;
                Judged::Open
            }
            Err(expected) => {
                let faults: Vec<_> = around.faults.iter().map(|fault| fault.name()).collect();
                let around = if faults.is_empty() { "nothing was broken".to_owned() } else { faults.join(", ") };
                let what = format!("{expected} ({before}; {around}); got {}", answer.shown());
                self.finding(known, name, &what);
                self.settle(known).await;
                Judged::Wrong
            }
        }
    }

    fn count(&self, name: &str, answer: &Answer, faults: &BTreeSet<Fault>, from: Instant) {
        let report = &self.testbed.report;
        report.answered(&format!("{name} ({})", self.subject().name), answer, from.elapsed());
        for fault in faults {
            report.answered_under(*fault, answer);
        }
    }

    fn note_census(&self, known: &KnownWorkspace) {
        self.subject().census.set(&known.id, known.phases.some(Phase::is_active));
    }

    fn finding(&self, known: &KnownWorkspace, name: &str, what: &str) {
        let (worker, server) = (self.number, self.subject().name);
        self.testbed.report.finding(format!("worker {worker} on {server}, {name} of {}: {what}", known.id));
    }
}
