//! Making workspaces, and bringing them from one state to another.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Asked, SETTLES, Worker};
use crate::{
    api::WORKSPACES,
    soak::{
        answer::Answer,
        fault::Fault,
        files::Files,
        ground::LIMIT,
        phase::{Op, Phase, Phases},
        workspace::Known,
    },
};

/// An image that is nowhere.
const NO_IMAGE: &str = "localhost:1/nobody/nothing:1";

// === impl Worker ===

impl Worker {
    /// Makes a workspace, sometimes from an image that is not there.
    pub(super) async fn create(&mut self) {
        self.made += 1;
        let mark = format!("s{}w{}n{}", self.ground.seed, self.number, self.made);
        let bad = self.random.random_ratio(1, 12);
        let network = ["none", "none", "isolated", "outbound"][self.random.random_range(0..4)];
        let mut body = json!({
            "name": mark,
            "labels": { "soak": mark },
            "network": network,
            "environment": { "SOAK": mark },
            "resource_limits": { "memory": "256M" },
        });
        if bad {
            body["base_image"] = json!(NO_IMAGE);
        }
        let mut expires = None;
        if self.random.random_ratio(1, 10) {
            let seconds = self.random.random_range(10..40);
            body["expires_in_seconds"] = json!(seconds);
            expires = Some(Duration::from_secs(seconds));
        }
        let request = self.subject().api.request(Method::POST, WORKSPACES).header("Idempotency-Key", &mark).json(&body);
        let from = Instant::now();
        self.subject().census.set(&mark, true);
        let answer = Answer::to(request).await;
        let around = self.ground.weather.since(self.server, from);
        self.count("create", &answer, &around, from);
        let crowd = self.subject().census.most_since(from);
        let expected = match (answer.status(), answer.problem()) {
            (Some(201), _) => !bad,
            // How it ended could not be recorded yet.
            (Some(202), _) => around.contains(&Fault::DiskFull),
            (_, Some("workspace-failed")) => bad,
            (_, Some("limit-reached")) => crowd > LIMIT,
            _ => false,
        };
        let excused = around.iter().any(|fault| fault.excuses(&answer));
        let wrong = answer.broken_rule().is_some() || !(expected || excused);
        if wrong {
            let wanted = if bad { "422 workspace-failed" } else { "201" };
            self.ground.report.finding(format!("create {mark} should be {wanted}; got {}", answer.shown()));
        }
        let expires = expires.map(|after| from + after);
        self.adopt(&mark, &answer, expires, excused || answer.status() == Some(202)).await;
        self.subject().census.set(&mark, false);
    }

    /// Takes over what a create has left, whatever it answered.
    async fn adopt(&mut self, mark: &str, answer: &Answer, expires: Option<Instant>, open: bool) {
        let phases = match answer.status() {
            Some(201) => Phases::only(Phase::Ready),
            _ => {
                let mut phases = Phases::only(Phase::Unmade);
                if open {
                    phases.or(Phase::Ready);
                    phases.or(Phase::Broken);
                }
                phases
            }
        };
        if answer.problem() == Some("limit-reached") {
            return;
        }
        let ids = match answer.json()["id"].as_str() {
            Some(id) if answer.status() == Some(201) => vec![id.to_owned()],
            _ => self.find(mark).await,
        };
        if ids.len() > 1 {
            self.ground.report.finding(format!("create {mark} has left {} workspaces: {ids:?}", ids.len()));
        }
        for id in ids {
            let mut known = Known {
                id,
                server: self.server,
                phases: phases.clone(),
                files: Files::default(),
                commits: None,
                processes: Vec::new(),
                expires,
                looked: Instant::now(),
                struck: None,
                lingers: None,
                made: Instant::now(),
                wedged: false,
                counter: 0,
            };
            self.note_census(&known);
            if answer.status() != Some(201) {
                self.settle(&mut known).await;
            }
            if !known.phases.is(Phase::Destroyed) {
                self.owned.push(known);
            }
        }
    }

    /// The ids of the workspaces with a mark, once the server can say.
    async fn find(&self, mark: &str) -> Vec<String> {
        let mut deadline = Instant::now() + SETTLES;
        loop {
            let asked = Instant::now();
            let request = self.subject().api.request(Method::GET, &format!("{WORKSPACES}?label=soak:{mark}"));
            let answer = Answer::to(request).await;
            if !self.ground.weather.since(self.server, asked).is_empty() {
                deadline = Instant::now() + SETTLES;
            }
            if answer.is_success() {
                let listed = answer.json();
                let items = listed["items"].as_array().map(Vec::as_slice).unwrap_or_default();
                return items.iter().filter_map(|item| item["id"].as_str().map(str::to_owned)).collect();
            }
            if Instant::now() > deadline {
                self.ground.report.finding(format!("list for {mark} should be 200; got {}", answer.shown()));
                return Vec::new();
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// Looks at it.
    pub(super) async fn look(&mut self, known: &mut Known) {
        let from = Instant::now();
        let answer = Answer::to(self.request(Method::GET, known, "")).await;
        let around = self.circumstances(known, from);
        self.count("look", &answer, &around.faults, from);
        match Phase::shown(&answer.json()).filter(|_| answer.is_success()) {
            Some(phase) => self.take_in(known, phase, &answer, from),
            None if !around.faults.is_empty() || around.expiring => self.settle(known).await,
            None => self.finding(known, "look", &format!("it should be {}; got {}", known.phases, answer.shown())),
        }
    }

    /// It should be gone by now.
    pub(super) async fn look_if_overdue(&mut self, known: &mut Known) {
        self.settle(known).await;
        let calm = self.ground.weather.since(self.server, known.expires.unwrap_or(known.looked)).is_empty();
        if calm && !known.phases.is(Phase::Destroyed) {
            self.finding(known, "look", "it has expired and was not destroyed in time");
        }
        known.expires = None;
    }

    /// Lists all, and finds it among them.
    pub(super) async fn list(&mut self, known: &mut Known) {
        let from = Instant::now();
        let answer = Answer::to(self.subject().api.request(Method::GET, &format!("{WORKSPACES}?limit=200"))).await;
        let around = self.circumstances(known, from);
        self.count("list", &answer, &around.faults, from);
        if !answer.is_success() {
            if answer.broken_rule().is_some() || !around.faults.iter().any(|fault| fault.excuses(&answer)) {
                self.finding(known, "list", &format!("it should be 200; got {}", answer.shown()));
            }
            return;
        }
        let listed = answer.json();
        let is_listed =
            listed["items"].as_array().is_some_and(|items| items.iter().any(|item| item["id"] == *known.id));
        if !is_listed && !known.phases.may_be(Phase::Destroyed) {
            self.finding(known, "list", "it is not listed");
        }
    }

    /// A call to a workspace that should take none, or start again first.
    pub(super) async fn call_in_vain(&mut self, known: &mut Known) {
        self.call(known, "bash", json!({ "command": "true" })).await;
    }

    pub(super) async fn resume(&mut self, known: &mut Known) {
        let request = self.post(known, "/resume", &json!({}));
        self.ask(known, Op::Resume, "resume", request).await;
    }

    pub(super) async fn stop(&mut self, known: &mut Known) {
        let request = self.post(known, "/stop", &json!({}));
        self.ask(known, Op::Stop, "stop", request).await;
    }

    pub(super) async fn pause(&mut self, known: &mut Known) {
        let request = self.post(known, "/pause", &json!({}));
        self.ask(known, Op::Pause, "pause", request).await;
    }

    /// Destroys it; the engine must then have nothing of it any more.
    pub(super) async fn destroy(&mut self, known: &mut Known) {
        let from = Instant::now();
        let request = self.request(Method::DELETE, known, "");
        let Asked::Done(_) = self.ask(known, Op::Destroy, "destroy", request).await else { return };
        let left = self.ground.engine.resources_of(&known.id).await;
        let calm = self.ground.weather.since(self.server, from).is_empty();
        match left {
            Ok(left) if left.is_empty() => {}
            Ok(left) => self.finding(known, "destroy", &format!("the engine still has {left:?}")),
            Err(error) if calm => self.finding(known, "destroy", &format!("{error:#}")),
            Err(_) => {}
        }
    }
}

/// A field of an answer's JSON as text.
pub(super) fn text<'a>(json: &'a Value, field: &str) -> &'a str {
    json[field].as_str().unwrap_or_default()
}
