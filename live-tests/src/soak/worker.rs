//! A worker: an agent with workspaces of its own. It asks, and holds every answer against what it knows.

mod life;
mod processes;
mod strikes;
mod tools;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tokio::time::sleep;

use super::{
    answer::Answer,
    fault::Fault,
    ground::{Ground, LIMIT, Subject},
    phase::{Circumstances, Fit, Op, Outcome, Phase},
    plan::{self, Step},
    workspace::Known,
};
use crate::api::WORKSPACES;

/// How many workspaces a worker has.
const OWNED: usize = 2;
/// How long the server may take to bring a workspace out of a state between two: the time of its regular comparison
/// of rows and engine, and what that then does.
const SETTLES: Duration = Duration::from_secs(60 + 60);

/// An agent.
pub struct Worker {
    ground: Arc<Ground>,
    number: usize,
    server: usize,
    random: StdRng,
    owned: Vec<Known>,
    made: u32,
}

/// What came of asking.
enum Asked {
    /// It was done; a call has reached the workspace.
    Done(Answer),
    /// Nothing happened, as expected.
    Refused,
    /// A fault was at work: it may or may not have happened.
    Open,
    /// It is a finding already.
    Wrong,
}

// === impl Worker ===

impl Worker {
    /// A worker of one server, with random numbers of its own.
    pub fn new(ground: Arc<Ground>, number: usize, server: usize) -> Self {
        let random = StdRng::seed_from_u64(ground.seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        Self { ground, number, server, random, owned: Vec::new(), made: 0 }
    }

    /// A worker that has just this workspace.
    pub fn taking_over(ground: Arc<Ground>, known: Known) -> Self {
        let mut worker = Self::new(ground, 0, known.server);
        worker.owned.push(known);
        worker
    }

    /// Brings what it has back to work, and compares every file, the history and every process with what it knows.
    pub async fn verify(mut self) {
        while let Some(mut known) = self.owned.pop() {
            self.settle(&mut known).await;
            if known.phases.may_be(Phase::Paused) || known.phases.may_be(Phase::Stopped) {
                self.resume(&mut known).await;
            }
            if known.wedged || !(known.phases.is(Phase::Ready) || known.phases.is(Phase::Broken)) {
                continue;
            }
            let paths: Vec<_> = known.files.paths().map(str::to_owned).collect();
            for path in paths {
                self.download(&mut known, &path).await;
            }
            self.glob(&mut known).await;
            self.log(&mut known).await;
            // One that still runs is waited for again.
            for _ in 0..3 * known.processes.len() {
                if !known.processes.is_empty() {
                    self.finish(&mut known).await;
                }
            }
        }
    }

    /// Works until the load ends; answers what it knows of the workspaces that it leaves.
    pub async fn work(mut self) -> Vec<Known> {
        while self.ground.goes_on() {
            self.step().await;
            let pause = self.random.random_range(0..60);
            sleep(Duration::from_millis(pause)).await;
        }
        self.owned
    }

    /// Does the next thing.
    async fn step(&mut self) {
        if self.owned.is_empty() || (self.owned.len() < OWNED && self.random.random_ratio(1, 6)) {
            self.create().await;
            return;
        }
        let index = self.random.random_range(0..self.owned.len());
        let mut known = self.owned.swap_remove(index);
        let step = plan::next(&mut self.random, &known);
        self.carry_out(step, &mut known).await;
        if known.is_overdue() && !known.phases.is(Phase::Destroyed) {
            self.look_if_overdue(&mut known).await;
        }
        self.note_census(&known);
        if !known.phases.is(Phase::Destroyed) {
            self.owned.push(known);
        }
    }

    async fn carry_out(&mut self, step: Step, known: &mut Known) {
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
            Step::StrikeKill => self.strike_kill(known).await,
            Step::StrikeRemove => self.strike_remove(known).await,
            Step::StrikePause => self.strike_pause(known).await,
            Step::StrikeUnpause => self.strike_unpause(known).await,
            Step::StrikeMemory => self.strike_memory(known).await,
            Step::StrikeUpload => self.strike_upload(known).await,
        }
    }

    fn subject(&self) -> &Subject {
        &self.ground.subjects[self.server]
    }

    fn request(&self, method: Method, known: &Known, rest: &str) -> RequestBuilder {
        self.subject().api.request(method, &format!("{WORKSPACES}/{}{rest}", known.id))
    }

    fn post(&self, known: &Known, rest: &str, body: &Value) -> RequestBuilder {
        self.request(Method::POST, known, rest).json(body)
    }

    /// Calls a tool.
    async fn call(&mut self, known: &mut Known, tool: &'static str, body: Value) -> Asked {
        let request = self.post(known, &format!("/{tool}"), &body);
        self.ask(known, Op::Call, tool, request).await
    }

    /// Sends a request, and judges what it gets.
    async fn ask(&mut self, known: &mut Known, op: Op, name: &str, request: RequestBuilder) -> Asked {
        let from = Instant::now();
        if matches!(op, Op::Call | Op::Resume) {
            self.subject().census.set(&known.id, true);
        }
        let answer = Answer::to(request).await;
        self.judge(known, op, name, from, answer).await
    }

    /// Judges what a request got that was sent then.
    async fn judge(&mut self, known: &mut Known, op: Op, name: &str, from: Instant, answer: Answer) -> Asked {
        let around = self.circumstances(known, from);
        self.count(name, &answer, &around.faults, from);
        if let Some(rule) = answer.broken_rule() {
            self.finding(known, name, &format!("{rule}; got {}", answer.shown()));
        }
        let before = known.phases.to_string();
        if self.is_wedged(known, &answer) {
            return Asked::Refused;
        }
        let fit = known.phases.judge(op, &answer, &around);
        known.looked = Instant::now();
        if matches!(op, Op::Stop | Op::Destroy) || known.phases.may_be(Phase::Broken) {
            known.sandbox_may_have_ended();
        }
        match fit {
            Ok(Fit::As(Outcome::Done)) => Asked::Done(answer),
            Ok(Fit::As(Outcome::WrongState) | Fit::LimitReached) => Asked::Refused,
            Ok(Fit::Excused) => {
                self.settle(known).await;
                Asked::Open
            }
            Err(expected) => {
                let faults: Vec<_> = around.faults.iter().map(|fault| fault.name()).collect();
                let around = if faults.is_empty() { "nothing was broken".to_owned() } else { faults.join(", ") };
                let what = format!("{expected} ({before}; {around}); got {}", answer.shown());
                self.finding(known, name, &what);
                self.settle(known).await;
                Asked::Wrong
            }
        }
    }

    /// What may explain an answer to a request that was sent then, with what it means for the workspace.
    fn circumstances(&self, known: &mut Known, from: Instant) -> Circumstances {
        let mut faults = self.ground.weather.since(self.server, from);
        if self.ground.weather.since(self.server, known.looked).contains(&Fault::EngineKilled) {
            known.phases.engine_died();
            known.sandbox_may_have_ended();
        }
        if self.ground.weather.since(self.server, known.looked).contains(&Fault::DiskFull) {
            // What they wrote meanwhile is lost, as it is for any program that does not look.
            known.processes.clear();
        }
        if known.has_expired() {
            known.phases.or(Phase::Destroyed);
            known.sandbox_may_have_ended();
        }
        faults.extend(known.struck);
        if let Some(fault) = known.lingering() {
            faults.insert(fault);
            known.sandbox_may_have_ended();
            if known.phases.may_be(Phase::Ready) {
                known.phases.or(Phase::Broken);
            }
        }
        let expiring = known.has_expired();
        let limit_may_be_reached = self.subject().census.most_since(from) > LIMIT;
        Circumstances { faults, limit_may_be_reached, expiring }
    }

    /// Whether the engine says that it cannot start the container, since it was killed in the middle of that. Docker
    /// 20.10 leaves a task behind then and stumbles over it ever after; no client of it can mend that.
    fn is_wedged(&self, known: &mut Known, answer: &Answer) -> bool {
        let killed = self.ground.weather.since(self.server, known.made).contains(&Fault::EngineKilled);
        // The standard runtime's words, and gVisor's.
        let words = [": already exists", ": id already in use"];
        let shown = answer.shown();
        let stumbles = answer.problem() == Some("engine-refused") && words.iter().any(|words| shown.contains(words));
        if killed && stumbles && !known.wedged {
            known.wedged = true;
            self.ground
                .report
                .seen(Fault::EngineKilled, "Docker could not start a container again: task already exists");
        }
        killed && stumbles
    }

    fn count(&self, name: &str, answer: &Answer, faults: &BTreeSet<Fault>, from: Instant) {
        let report = &self.ground.report;
        report.answered(&format!("{name} ({})", self.subject().runtime.name()), answer, from.elapsed());
        for fault in faults {
            report.answered_under(*fault, answer);
        }
    }

    /// Looks until the workspace stands somewhere, and holds that against what it may be.
    async fn settle(&mut self, known: &mut Known) {
        let from = Instant::now();
        let mut last = String::new();
        let mut deadline = from + SETTLES;
        while Instant::now() < deadline {
            let asked = Instant::now();
            let answer = Answer::to(self.request(Method::GET, known, "")).await;
            let faults = self.ground.weather.since(self.server, asked);
            if !faults.is_empty() {
                // Its time runs from when all is well.
                deadline = Instant::now() + SETTLES;
            }
            if let Some(rule) = answer.broken_rule() {
                self.finding(known, "look", &format!("{rule}; got {}", answer.shown()));
                return;
            }
            if answer.is_success()
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

    /// A look showed this phase.
    fn take_in(&self, known: &mut Known, phase: Phase, answer: &Answer, from: Instant) {
        self.circumstances(known, from);
        let before = known.phases.to_string();
        if phase == Phase::Broken {
            known.sandbox_may_have_ended();
        }
        if !known.phases.see(phase) {
            self.finding(known, "look", &format!("it should be {before}, and is shown as {}", answer.shown()));
        }
        known.looked = Instant::now();
        self.note_census(known);
    }

    fn note_census(&self, known: &Known) {
        let may_be_active = [Phase::Ready, Phase::Paused].into_iter().any(|phase| known.phases.may_be(phase));
        self.subject().census.set(&known.id, may_be_active);
    }

    fn finding(&self, known: &Known, name: &str, what: &str) {
        let (worker, runtime) = (self.number, self.subject().runtime.name());
        self.ground.report.finding(format!("worker {worker} on {runtime}, {name} of {}: {what}", known.id));
    }
}
