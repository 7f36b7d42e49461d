//! Snapshots, workspaces made from them, and forks: a copy has the contents that its origin had at that moment.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Judged, MOST, MOST_KEPT, SETTLES, Worker, life::New};
use crate::{
    api::{SNAPSHOTS, WORKSPACES},
    soak::{
        answer::Answer,
        phase::{Fit, Op, Phase, Phases},
        possible::Outcome,
        snapshot::{KnownSnapshot, State, States, Use},
        workspace::KnownWorkspace,
    },
};

/// The number of copies that a fork makes at most.
const COPIES: u64 = 2;

// === impl Worker ===

impl Worker {
    /// Takes a snapshot of a workspace.
    pub(super) async fn take_snapshot(&mut self, known: &mut KnownWorkspace) {
        if self.kept.len() >= MOST_KEPT {
            return;
        }
        let (mark, from, contents) = (self.mark(), Instant::now(), known.contents.clone());
        let body = json!({ "name": mark, "labels": { "soak": mark } });
        let request = self.post(known, "/snapshots", &body).header("Idempotency-Key", &mark);
        let asked = self.ask(known, Op::Copy, "snapshot", request).await;
        let ids = match &asked {
            Judged::Refused => return,
            Judged::Done(answer) => answer.json()["id"].as_str().map(str::to_owned).into_iter().collect(),
            Judged::Open | Judged::Wrong => self.find(SNAPSHOTS, &mark).await,
        };
        // Of what was asked of it only a fault leaves anything open.
        let around = self.circumstances(known, from);
        let calm = around.faults.is_empty() && !around.expiring;
        let is_ready = matches!(&asked, Judged::Done(answer) if answer.status() == Some(201));
        let states = match asked {
            Judged::Done(_) if is_ready || calm => States::only(State::Whole),
            _ => States::any([State::Whole, State::Failed]),
        };
        for id in ids {
            let (server, states, contents) = (self.server, states.clone(), contents.clone());
            let mut kept = KnownSnapshot { id, server, states, contents };
            if !is_ready {
                self.settle_snapshot(&mut kept).await;
            }
            self.keep(kept);
        }
    }

    /// Takes over a snapshot, unless there is none.
    pub(super) fn keep(&mut self, kept: KnownSnapshot) {
        if !kept.states.is(State::Gone) {
            self.kept.push(kept);
        }
    }

    fn snapshot_request(&self, method: Method, kept: &KnownSnapshot) -> RequestBuilder {
        self.subject().api.request(method, &format!("{SNAPSHOTS}/{}", kept.id))
    }

    /// Looks until the snapshot is in a state that stays, and compares that with the possible states.
    async fn settle_snapshot(&self, kept: &mut KnownSnapshot) {
        let mut deadline = Instant::now() + SETTLES;
        loop {
            let asked = Instant::now();
            let answer = Answer::to(self.snapshot_request(Method::GET, kept)).await;
            if !self.testbed.fault_log.since(self.server, asked).is_empty() {
                // Its time runs from when all is well.
                deadline = Instant::now() + SETTLES;
            }
            if let Some(rule) = answer.broken_rule() {
                return self.snapshot_finding(kept, "look", &format!("{rule}; got {}", answer.shown()));
            }
            if let Some(state) = State::shown(&answer) {
                return self.see_snapshot(kept, state, &answer);
            }
            if Instant::now() > deadline {
                let what = format!("it stays between two states for {SETTLES:?}: {}", answer.shown());
                return self.snapshot_finding(kept, "look", &what);
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    fn see_snapshot(&self, kept: &mut KnownSnapshot, state: State, answer: &Answer) {
        let before = kept.states.to_string();
        if !kept.states.see(state) {
            self.snapshot_finding(kept, "look", &format!("it should be {before}, and is shown as {}", answer.shown()));
        }
    }

    /// Looks at a snapshot.
    pub(super) async fn look_at_snapshot(&mut self, kept: &mut KnownSnapshot) {
        let from = Instant::now();
        let answer = Answer::to(self.snapshot_request(Method::GET, kept)).await;
        let around = self.ground_since(from);
        self.count("look at a snapshot", &answer, &around.faults, from);
        match State::shown(&answer) {
            Some(state) => self.see_snapshot(kept, state, &answer),
            None if around.excuse(&answer) => self.settle_snapshot(kept).await,
            None => {
                self.snapshot_finding(kept, "look", &format!("it should be {}; got {}", kept.states, answer.shown()));
            }
        }
    }

    /// Lists all snapshots, and finds this one among them.
    pub(super) async fn list_snapshots(&mut self, kept: &mut KnownSnapshot) {
        let from = Instant::now();
        let request = self.subject().api.request(Method::GET, &format!("{SNAPSHOTS}?limit=200"));
        let answer = Answer::to(request).await;
        let around = self.ground_since(from);
        self.count("list snapshots", &answer, &around.faults, from);
        if !answer.is_success() {
            if answer.broken_rule().is_some() || !around.excuse(&answer) {
                self.snapshot_finding(kept, "list", &format!("it should be 200; got {}", answer.shown()));
            }
            return;
        }
        let listed = answer.json();
        let is_listed = items(&listed).iter().any(|item| item["id"] == *kept.id);
        if !is_listed && !kept.states.may_be(State::Gone) {
            self.snapshot_finding(kept, "list", "it is not listed");
        }
    }

    /// Makes a workspace from a snapshot.
    pub(super) async fn make_from(&mut self, kept: &mut KnownSnapshot) {
        if self.owned.len() >= MOST {
            return;
        }
        let mut order = self.order();
        order.body["snapshot_id"] = json!(kept.id);
        self.make("create from a snapshot", order, Some(&mut *kept)).await;
        if !kept.states.is(State::Whole) {
            self.settle_snapshot(kept).await;
        }
    }

    /// Deletes a snapshot. Workspaces that were made from it go on.
    pub(super) async fn delete_snapshot(&mut self, kept: &mut KnownSnapshot) {
        let from = Instant::now();
        let answer = Answer::to(self.snapshot_request(Method::DELETE, kept)).await;
        let around = self.ground_since(from);
        self.count("delete a snapshot", &answer, &around.faults, from);
        if let Some(rule) = answer.broken_rule() {
            self.snapshot_finding(kept, "delete", &format!("{rule}; got {}", answer.shown()));
        }
        match kept.states.judge(Use::Delete, &answer, &around) {
            Ok(Fit::As(Outcome::Done)) => {
                let volume = self.testbed.engine.has_volume(&format!("emergent-snapshot-{}", kept.id)).await;
                if volume.is_ok_and(|is_there| is_there) {
                    self.snapshot_finding(kept, "delete", "the engine still has its volume");
                }
            }
            Ok(Fit::As(_) | Fit::LimitReached) => {}
            Ok(Fit::Excused) => self.settle_snapshot(kept).await,
            Err(expected) => {
                self.snapshot_finding(kept, "delete", &format!("{expected}; got {}", answer.shown()));
                self.settle_snapshot(kept).await;
            }
        }
    }

    /// Makes copies of a workspace.
    pub(super) async fn fork(&mut self, known: &mut KnownWorkspace) {
        let count = self.random.random_range(1..=COPIES);
        // It is not among those that are owned just now.
        if self.owned.len() + usize::try_from(count).unwrap_or(MOST) >= MOST {
            return;
        }
        let (mark, from) = (self.mark(), Instant::now());
        let new = New { contents: known.contents.clone(), ..New::default() };
        let marks: Vec<_> = (0..count).map(|number| format!("{mark}-{number}")).collect();
        marks.iter().for_each(|mark| self.subject().census.set(mark, true));
        let body = json!({ "count": count, "name": mark, "labels": { "soak": mark } });
        let request = self.post(known, "/fork", &body).header("Idempotency-Key", &mark);
        let asked = self.ask(known, Op::Fork, "fork", request).await;
        let around = self.circumstances(known, from);
        let calm = around.faults.is_empty() && !around.expiring;
        match asked {
            Judged::Done(answer) => {
                let answered = answer.json();
                let copies = items(&answered);
                if copies.len() as u64 != count {
                    self.finding(known, "fork", &format!("{count} copies were asked for; got {}", answer.shown()));
                }
                for copy in copies {
                    let is_ready = copy["state"] == "ready";
                    let phases = if is_ready || calm { Phases::only(Phase::Ready) } else { anywhere() };
                    let id = copy["id"].as_str().unwrap_or_default();
                    self.take_on(id.to_owned(), phases, !is_ready, &new).await;
                }
            }
            Judged::Open | Judged::Wrong => {
                let ids = self.find(WORKSPACES, &mark).await;
                if !ids.is_empty() && ids.len() as u64 != count {
                    let what = format!("all {count} copies should be let in or none, and there are {ids:?}");
                    self.finding(known, "fork", &what);
                }
                for id in ids {
                    self.take_on(id, anywhere(), true, &new).await;
                }
            }
            Judged::Refused => {}
        }
        marks.iter().for_each(|mark| self.subject().census.set(mark, false));
    }

    fn snapshot_finding(&self, kept: &KnownSnapshot, name: &str, what: &str) {
        let (worker, server) = (self.number, self.subject().name);
        self.testbed.report.finding(format!("worker {worker} on {server}, {name} of snapshot {}: {what}", kept.id));
    }
}

/// The phases in which a copy may be whose making a fault has met.
fn anywhere() -> Phases {
    Phases::any([Phase::Unmade, Phase::Ready, Phase::Broken])
}

/// Returns the items of a list.
fn items(listed: &Value) -> &[Value] {
    listed["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}
