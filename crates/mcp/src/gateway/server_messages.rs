//! The servers' messages to the client, and the servers that come and go.
//!
//! The servers' requests to the client get ids of the session's, because two servers may choose the same.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use http::StatusCode;
use tokio::time::{sleep, timeout};

use super::{
    Upstream,
    catalogue::Offer,
    connection::{Client, Connection, StreamOutcome},
    session::{GatewaySession, Question},
};
use crate::{
    child_connection::next_id,
    envelope::{IdKey, Kind, LONGEST_NAME, Message},
    rpc,
};

/// The most questions of servers that may wait for the client's answer.
const QUESTIONS: usize = 1_000;
/// The interval at which servers that lists were answered without are read again, though nobody has told of a change.
const LOOK: Duration = Duration::from_secs(15);
/// The pause before a server's standing stream is asked for again after its end.
const AGAIN: Duration = Duration::from_secs(1);

impl Client for Arc<GatewaySession> {
    fn initialize_params(&self) -> Option<Arc<str>> {
        self.client()
    }

    fn log_level(&self) -> Option<Arc<str>> {
        GatewaySession::log_level(self)
    }

    fn deliver<'a>(&'a self, from: &'a Arc<Connection>, message: Message) -> BoxFuture<'a, ()> {
        async move {
            match message.kind.clone() {
                Kind::Request(method) => self.asked(from, &message, &method).await,
                Kind::Notification(method) => match method.as_ref() {
                    "notifications/progress" | "notifications/message" => self.say(message.line).await,
                    "notifications/tools/list_changed" => self.offer_changed(from, Offer::Tools),
                    "notifications/prompts/list_changed" => self.offer_changed(from, Offer::Prompts),
                    "notifications/cancelled" => self.taken_back(from, &message).await,
                    // There are no resources here.
                    method if method.starts_with("notifications/resources/") => {}
                    _ if self.client().is_some() => self.say(message.line).await,
                    _ => {}
                },
                Kind::Result | Kind::Error { .. } => {}
            }
        }
        .boxed()
    }

    fn forget(&self, connection: &Arc<Connection>) {
        GatewaySession::forget(self, connection);
    }
}

impl GatewaySession {
    /// Passes a server's request on to the client, or answers it where the client takes none.
    async fn asked(self: &Arc<Self>, from: &Arc<Connection>, message: &Message, method: &str) {
        let Some(id) = message.raw_id() else { return };
        if message.has_long_id() {
            let text = format!("the id of a request has at most {LONGEST_NAME} bytes");
            return self.tell(Arc::clone(from), rpc::error(None, rpc::INVALID_REQUEST, &text));
        }
        let own = next_id().to_string();
        let asks = {
            let mut state = self.lock();
            let asks = state.client.is_some() && state.questions.len() < QUESTIONS;
            if asks {
                state.questions.insert(IdKey::of(&own), Question { from: Arc::clone(from), id: id.into() });
            }
            asks
        };
        if asks {
            return self.say(message.with([(message.id.clone(), own)])).await;
        }
        let answer = if method == "ping" {
            rpc::empty_result(id)
        } else {
            rpc::error(Some(id), rpc::METHOD_NOT_FOUND, "this client takes no requests")
        };
        self.tell(Arc::clone(from), answer);
    }

    /// Tells the client that a server has given up a request to it.
    async fn taken_back(&self, from: &Arc<Connection>, message: &Message) {
        let params = message.params();
        let Some(wanted) = params.request_id else { return };
        let key = IdKey::of(wanted.get());
        let own = {
            let mut state = self.lock();
            let asked = |question: &Question| Arc::ptr_eq(&question.from, from) && IdKey::of(&question.id) == key;
            let own = state.questions.iter().find(|(_, question)| asked(question)).map(|(own, _)| own.clone());
            own.inspect(|own| {
                state.questions.remove(own);
            })
        };
        if let Some(own) = own {
            self.say(message.with([(message.place(wanted), own.written())])).await;
        }
    }

    /// Treats all offers of a server as changed, because its messages of the meantime reached nobody.
    fn everything_changed(self: &Arc<Self>, connection: &Arc<Connection>) {
        for offer in Offer::ALL {
            self.offer_changed(connection, offer);
        }
    }

    /// Tells the client of servers that come and go.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut changes = self.upstreams.changes();
        let mut known = self.upstreams.list().await;
        loop {
            match timeout(LOOK, changes.changed()).await {
                Ok(Ok(())) => {}
                // Nobody tells of changes any more.
                Ok(Err(_)) => return,
                Err(_) => {
                    self.read_left_out(&known);
                    continue;
                }
            }
            let now = self.upstreams.list().await;
            self.read_left_out(&now);
            if now == known {
                continue;
            }
            let (running, before) = (running(&now), running(&known));
            self.forget_offers(&now);
            self.lock().connections.retain(|name, _| {
                let of_name = |(other, _): &&(&str, &str)| *other == name;
                running.iter().find(of_name) == before.iter().find(of_name)
            });
            if running != before {
                for offer in Offer::ALL {
                    self.tell_change(offer).await;
                }
            }
            known = now;
        }
    }

    /// Listens to a server's standing stream for as long as its connection is used.
    pub(super) async fn stand_by(self: &Arc<Self>, connection: &Arc<Connection>) {
        let mut again = false;
        while self.is_current(connection) {
            let request = connection.standing();
            let response = self.upstreams.ask(connection.server(), request).await;
            match (connection.judge(&response), response.status()) {
                (StreamOutcome::Stream, _) => {
                    if std::mem::replace(&mut again, true) && connection.is_modern() {
                        self.everything_changed(connection);
                    }
                    if connection.hear(self, response).await.is_err() {
                        return;
                    }
                }
                (StreamOutcome::None, _) => return,
                (StreamOutcome::Lost, _) => {
                    self.forget(connection);
                    return self.everything_changed(connection);
                }
                (StreamOutcome::Later, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => return,
                (StreamOutcome::Later, _) => {}
            }
            sleep(AGAIN).await;
        }
    }
}

/// The servers that take requests, each with its version.
fn running(servers: &[Upstream]) -> Vec<(&str, &str)> {
    let running = servers.iter().filter(|server| server.trouble.is_none());
    running.map(|server| (server.name.as_str(), server.version.as_str())).collect()
}
