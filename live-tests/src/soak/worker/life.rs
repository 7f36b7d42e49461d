//! Making workspaces, and bringing them from one state to another.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Judged, SETTLES, Worker};
use crate::{
    api::WORKSPACES,
    soak::{
        answer::Answer,
        phase::{Circumstances, Op, Phase, Phases},
        snapshot::{KnownSnapshot, Use},
        testbed::LIMIT,
        workspace::{Contents, KnownWorkspace},
    },
};

/// An image that is nowhere.
const NO_IMAGE: &str = "localhost:1/nobody/nothing:1";
/// Two seconds: a worker is often away for as long.
const IDLE_MINUTES: f64 = 0.034;

/// A workspace to be made.
pub(super) struct CreateOrder {
    /// The name by which the workspace is found, whatever was answered.
    mark: String,
    pub(super) body: Value,
    /// The image is nowhere.
    bad: bool,
    expires: Option<Duration>,
    /// The phase in which the workspace comes to rest when nobody uses it.
    rests: Option<Phase>,
}

/// The properties that a workspace has from the beginning.
#[derive(Default)]
pub(super) struct New {
    /// The contents of the workspace.
    pub(super) contents: Contents,
    /// The time at which the workspace expires.
    pub(super) expires: Option<Instant>,
    /// The phase in which the workspace comes to rest when nobody uses it.
    pub(super) rests: Option<Phase>,
}

// === impl Worker ===

impl Worker {
    /// Makes a workspace, sometimes from an image that is not there.
    pub(super) async fn create(&mut self) {
        let mut order = self.order();
        // Of these, the pool has those that may reach the internet.
        let network = ["none", "isolated", "outbound", "outbound"][self.random.random_range(0..4)];
        order.body["network"] = json!(network);
        order.body["resource_limits"] = json!({ "memory": "256M" });
        order.bad = self.random.random_ratio(1, 12);
        if order.bad {
            order.body["base_image"] = json!(NO_IMAGE);
        }
        self.make("create", order, None).await;
    }

    /// A workspace with a mark of its own, that sometimes expires or comes to rest.
    pub(super) fn order(&mut self) -> CreateOrder {
        let mark = self.mark();
        let mut body = json!({ "name": mark, "labels": { "soak": mark }, "environment": { "SOAK": mark } });
        let mut expires = None;
        if self.random.random_ratio(1, 10) {
            let seconds = self.random.random_range(10..40);
            body["expires_in_seconds"] = json!(seconds);
            expires = Some(Duration::from_secs(seconds));
        }
        let mut rests = None;
        if self.random.random_ratio(1, 4) {
            let (action, rest) = [("pause", Phase::Dozing), ("stop", Phase::Asleep)][self.random.random_range(0..2)];
            body["idle"] = json!({ "action": action, "after_minutes": IDLE_MINUTES });
            rests = Some(rest);
        }
        CreateOrder { mark, body, bad: false, expires, rests }
    }

    /// A word that names nothing else.
    pub(super) fn mark(&mut self) -> String {
        self.made += 1;
        format!("s{}w{}n{}", self.testbed.seed, self.number, self.made)
    }

    /// Makes the ordered workspace, from a snapshot where one is given.
    pub(super) async fn make(&mut self, name: &str, order: CreateOrder, mut from: Option<&mut KnownSnapshot>) {
        let CreateOrder { mark, body, bad, expires, rests } = order;
        let request = self.subject().api.request(Method::POST, WORKSPACES).header("Idempotency-Key", &mark).json(&body);
        let asked = Instant::now();
        self.subject().census.set(&mark, true);
        let answer = Answer::to(request).await;
        let warm = if answer.json()["warm"] == true { " from the warm pool" } else { "" };
        let around = self.ground_since(asked);
        self.count(&format!("{name}{warm}"), &answer, &around.faults, asked);
        let as_expected = match (answer.status(), answer.problem()) {
            // How it ended could not be recorded yet.
            (Some(202), _) => around.faults.iter().any(|fault| fault.delays_rows()),
            (_, Some("workspace-failed")) => bad,
            (_, Some("limit-reached")) => around.limit_may_be_reached,
            _ => !bad && answer.status() == Some(201),
        };
        let excused = around.excuse(&answer);
        let fits = match &mut from {
            Some(kept) if !as_expected || answer.is_success() => {
                kept.states.judge(Use::MakeFrom, &answer, &around).map(drop)
            }
            _ if as_expected || excused => Ok(()),
            _ => Err(format!("it should be {}", if bad { "422 workspace-failed" } else { "201" })),
        };
        let fits = fits.and(answer.broken_rule().map_or(Ok(()), |rule| Err(rule.to_owned())));
        if let Err(expected) = fits {
            let counted = if answer.problem() == Some("limit-reached") { self.counted().await } else { String::new() };
            self.testbed.report.finding(format!(
                "{name} {mark} on {}: {expected}; got {}{counted}",
                self.subject().name,
                answer.shown()
            ));
        }
        let contents = from.map(|kept| kept.contents.clone()).unwrap_or_default();
        let new = New { contents, expires: expires.map(|after| asked + after), rests };
        self.adopt(&mark, &answer, new, excused || answer.status() == Some(202)).await;
        self.subject().census.set(&mark, false);
    }

    /// Shows the workspaces that count towards the limit now, as the model and as the server have them.
    async fn counted(&self) -> String {
        let listed = self.subject().workspaces().await.map(|items| {
            let shown = |item: &Value| format!("{} {}", text(item, "id"), text(item, "state"));
            items.iter().map(shown).collect::<Vec<_>>()
        });
        format!("; the model counts {:?}, the server lists {listed:?}", self.subject().census.active())
    }

    /// Returns the circumstances that may explain an answer to a request sent at `from`, a workspace's own aside.
    pub(super) fn ground_since(&self, from: Instant) -> Circumstances {
        let faults = self.testbed.fault_log.since(self.server, from);
        let limit_may_be_reached = self.subject().census.most_since(from) > LIMIT;
        Circumstances { faults, limit_may_be_reached, expiring: false }
    }

    /// Takes over the workspace that a create has left, whatever the create answered.
    async fn adopt(&mut self, mark: &str, answer: &Answer, new: New, open: bool) {
        let is_made = answer.status() == Some(201);
        // What was refused before it began has left nothing to look for.
        if matches!(answer.problem(), Some("limit-reached" | "snapshot-unusable" | "snapshot-not-found")) {
            return;
        }
        let ids = match answer.json()["id"].as_str() {
            Some(id) if is_made => vec![id.to_owned()],
            _ => self.find(WORKSPACES, mark).await,
        };
        if ids.len() > 1 {
            self.testbed.report.finding(format!("create {mark} has left {} workspaces: {ids:?}", ids.len()));
        }
        let phases = match (is_made, open) {
            (true, _) => Phases::only(Phase::Ready),
            (false, false) => Phases::only(Phase::Unmade),
            (false, true) => Phases::any([Phase::Unmade, Phase::Ready, Phase::Broken]),
        };
        for id in ids {
            self.take_on(id, phases.clone(), !is_made, &new).await;
        }
    }

    /// Takes over a workspace, which is looked at first if its phase is open.
    pub(super) async fn take_on(&mut self, id: String, phases: Phases, look: bool, new: &New) {
        let mut known = KnownWorkspace::new(id, self.server, phases, new.contents.clone());
        (known.expires, known.rests) = (new.expires, new.rests);
        self.note_census(&known);
        if look {
            self.settle(&mut known).await;
        }
        if !known.phases.is(Phase::Destroyed) {
            self.owned.push(known);
        }
    }

    /// Returns the ids of the items that have a mark, once the server can list them.
    pub(super) async fn find(&self, list: &str, mark: &str) -> Vec<String> {
        let mut deadline = Instant::now() + SETTLES;
        loop {
            let asked = Instant::now();
            let request = self.subject().api.request(Method::GET, &format!("{list}?label=soak:{mark}"));
            let answer = Answer::to(request).await;
            if !self.testbed.fault_log.since(self.server, asked).is_empty() {
                deadline = Instant::now() + SETTLES;
            }
            if answer.is_success() {
                let listed = answer.json();
                let items = listed["items"].as_array().map(Vec::as_slice).unwrap_or_default();
                return items.iter().filter_map(|item| item["id"].as_str().map(str::to_owned)).collect();
            }
            if Instant::now() > deadline {
                self.testbed.report.finding(format!("list for {mark} should be 200; got {}", answer.shown()));
                return Vec::new();
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// Looks at a workspace.
    pub(super) async fn look(&mut self, known: &mut KnownWorkspace) {
        let from = Instant::now();
        let answer = Answer::to(self.request(Method::GET, known, "")).await;
        let around = self.circumstances(known, from);
        self.count("look", &answer, &around.faults, from);
        let is_behind = around.faults.iter().any(|fault| fault.delays_rows());
        match Phase::shown(&answer.json()).filter(|_| answer.is_success() && !is_behind) {
            Some(phase) => self.take_in(known, phase, &answer, from),
            // It may be on its way to rest at this moment.
            None if !around.faults.is_empty() || around.expiring || known.rests.is_some() => self.settle(known).await,
            None => self.finding(known, "look", &format!("it should be {}; got {}", known.phases, answer.shown())),
        }
    }

    /// Looks at a workspace that should be gone by now.
    pub(super) async fn look_if_overdue(&mut self, known: &mut KnownWorkspace) {
        self.settle(known).await;
        let calm = self.testbed.fault_log.since(self.server, known.expires.unwrap_or(known.looked)).is_empty();
        if calm && !known.phases.is(Phase::Destroyed) {
            self.finding(known, "look", "it has expired and was not destroyed in time");
        }
        known.expires = None;
    }

    /// Lists all workspaces, and finds this one among them.
    pub(super) async fn list(&mut self, known: &mut KnownWorkspace) {
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

    /// Calls a workspace that should take no call, or start again first.
    pub(super) async fn call_in_vain(&mut self, known: &mut KnownWorkspace) {
        self.call(known, "bash", json!({ "command": "true" })).await;
    }

    pub(super) async fn resume(&mut self, known: &mut KnownWorkspace) {
        let request = self.post(known, "/resume", &json!({}));
        self.ask(known, Op::Resume, "resume", request).await;
    }

    pub(super) async fn stop(&mut self, known: &mut KnownWorkspace) {
        let request = self.post(known, "/stop", &json!({}));
        self.ask(known, Op::Stop, "stop", request).await;
    }

    pub(super) async fn pause(&mut self, known: &mut KnownWorkspace) {
        let request = self.post(known, "/pause", &json!({}));
        self.ask(known, Op::Pause, "pause", request).await;
    }

    /// Destroys a workspace; the engine must then have nothing of it any more.
    pub(super) async fn destroy(&mut self, known: &mut KnownWorkspace) {
        let from = Instant::now();
        let request = self.request(Method::DELETE, known, "");
        let Judged::Done(_) = self.ask(known, Op::Destroy, "destroy", request).await else { return };
        let left = self.testbed.engine.resources_of(&known.id).await;
        let calm = self.testbed.fault_log.since(self.server, from).is_empty();
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
