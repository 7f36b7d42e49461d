//! Sessions: one holds a workspace, and every other one is refused, with the name of the holder.

use rand::RngExt as _;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::{Judged, Worker};
use crate::soak::{
    phase::Op,
    workspace::{Holder, KnownWorkspace},
};

// === impl Worker ===

impl Worker {
    /// Attaches a session to a workspace, which makes the workspace ready.
    pub(super) async fn attach(&mut self, known: &mut KnownWorkspace) {
        // Whoever is not sure whether an earlier attachment has come about takes it over.
        let take_over = known.holder == Holder::Doubtful;
        self.attach_as(known, "attach", take_over).await;
    }

    /// Takes a workspace over from its own session, which is then refused.
    pub(super) async fn take_over(&mut self, known: &mut KnownWorkspace) {
        let before = known.session();
        self.attach_as(known, "take over", true).await;
        if let Some(before) = before.filter(|before| known.session().is_some_and(|now| now != *before)) {
            self.call_for(known, before, "workspace-attached").await;
        }
    }

    async fn attach_as(&mut self, known: &mut KnownWorkspace, name: &str, take_over: bool) {
        let session = self.some_session();
        let body = json!({ "holder": holder(session), "session_id": session, "take_over": take_over });
        let request = self.post(known, "/attach", &body);
        match self.ask(known, Op::Resume, name, request).await {
            Judged::Done(answer) => {
                known.holder = Holder::Session(session);
                if answer.json()["session_id"] != session.to_string() {
                    self.finding(known, name, &format!("it should be session {session}; got {}", answer.shown()));
                }
            }
            Judged::Open | Judged::Wrong => known.holder = Holder::Doubtful,
            // One who cannot be given the workspace does not take it from anybody either, or ends with it.
            Judged::Refused if take_over => known.holder = Holder::Doubtful,
            Judged::Refused => {}
        }
    }

    /// Attaches and calls for others, who must be given the name of the holder.
    pub(super) async fn contend(&mut self, known: &mut KnownWorkspace) {
        let (Some(held_by), stranger) = (known.session(), self.some_session()) else { return };
        let body = json!({ "holder": holder(stranger), "session_id": stranger });
        let request = self.post(known, "/attach", &body);
        if let Judged::Done(answer) = self.ask(known, Op::Contend, "attach in vain", request).await {
            let refused = answer.problem() == Some("workspace-attached");
            if !(refused && answer.shown().contains(&holder(held_by)) || known.has_expired()) {
                let what = format!("it should be refused, naming {}; got {}", holder(held_by), answer.shown());
                self.finding(known, "attach in vain", &what);
            }
        }
        if known.session() == Some(held_by) {
            self.call_for(known, stranger, "workspace-attached").await;
        }
    }

    /// Calls for a session that does not hold the workspace.
    async fn call_for(&mut self, known: &mut KnownWorkspace, session: Uuid, refusal: &str) {
        let request = self.request_for(Some(session), Method::POST, known, "/bash").json(&json!({ "command": "true" }));
        if let Judged::Done(answer) = self.ask(known, Op::Contend, "call in vain", request).await
            && answer.problem() != Some(refusal)
            && !known.has_expired()
        {
            self.finding(known, "call in vain", &format!("it should be {refusal}; got {}", answer.shown()));
        }
    }

    /// Detaches a session, which is then refused.
    pub(super) async fn detach(&mut self, known: &mut KnownWorkspace) {
        let Some(session) = known.session() else { return };
        let request = self.post(known, "/detach", &json!({ "session_id": session }));
        match self.ask(known, Op::Aside, "detach", request).await {
            Judged::Done(answer) => {
                known.holder = Holder::Nobody;
                let ended = &answer.json()["end_reason"];
                if *ended != "detached" && !(known.has_expired() && *ended == "destroyed") {
                    self.finding(known, "detach", &format!("it should have ended; got {}", answer.shown()));
                }
                if self.random.random_bool(0.5) {
                    self.call_for(known, session, "session-ended").await;
                }
            }
            Judged::Open | Judged::Wrong | Judged::Refused => known.holder = Holder::Doubtful,
        }
    }

    fn some_session(&mut self) -> Uuid {
        Uuid::from_u128(self.random.random())
    }
}

/// The name of a session's holder.
fn holder(session: Uuid) -> String {
    format!("holder of {session}")
}
