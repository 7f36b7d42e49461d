//! The client's messages: the session answers each itself, passes it on to one server, or tells it to all of them.
//!
//! A client's ids and progress tokens reach the servers as they are, because each of its requests goes to one server.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt as _, future::join_all};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    catalogue::{Catalogue, Offer},
    connection::{Connection, Lost},
    lists, names,
    session::{Flight, GatewaySession, Listener, Question, subscription},
};
use crate::{
    envelope::{IdKey, Kind, Message, string_of},
    modern::supported,
    rpc::{self, Failure},
    versions::{LEGACY_VERSIONS, NEWEST, NEWEST_LEGACY},
};

/// The longest parameters of a client that are kept for its session, in bytes.
const LONGEST_PARAMS: usize = 4 * 1024;
/// The parameters of `initialize` that servers are told in the place of longer ones.
const NAMELESS: &str =
    r#"{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"client","version":"0"}}"#;
const INSTRUCTIONS: &str = "The tools and prompts of several MCP servers. The name of each is its server's name, two \
                            underscores, and its own name there.";

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListenParams {
    notifications: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InitializeParams {
    #[serde(rename = "protocolVersion")]
    version: String,
}

impl GatewaySession {
    /// Takes one message of the client.
    pub(super) fn take(self: &Arc<Self>, line: Bytes) {
        let Ok(message) = Message::parse(line) else { return };
        match message.kind.clone() {
            Kind::Request(method) => self.requested(message, method),
            Kind::Notification(method) => self.told(&message, &method),
            Kind::Result | Kind::Error { .. } => self.answered(&message),
        }
    }

    fn requested(self: &Arc<Self>, message: Message, method: Box<str>) {
        let Some(key) = message.key() else { return };
        let cancelled = self.stop.child_token();
        self.lock().flights.insert(key.clone(), Flight { to: None, cancelled: cancelled.clone() });
        let gateway = Arc::clone(self);
        self.spawn(async move {
            let answer = cancelled.run_until_cancelled(gateway.answer(&message, &method, &key)).await;
            let id = message.raw_id();
            {
                let mut state = gateway.lock();
                state.flights.remove(&key);
                state.listeners.retain(|listener| Some(listener.id.as_ref()) != id);
            }
            match answer {
                Some(Ok(line)) => gateway.say(line).await,
                Some(Err(failure)) => gateway.say(failure.line(id)).await,
                None => {}
            }
        });
    }

    async fn answer(self: &Arc<Self>, message: &Message, method: &str, key: &IdKey) -> Result<Bytes, Failure> {
        let modern = method == "server/discover" || message.params().meta().is_some_and(|meta| meta.version.is_some());
        if modern {
            supported(message)?;
        }
        let result = match method {
            "initialize" if !modern => self.initialize(message),
            "ping" if !modern => json!({}).to_string(),
            "logging/setLevel" if !modern => self.set_log_level(message).await,
            "server/discover" => discovered(),
            "subscriptions/listen" if modern => return self.listen(message).await,
            "tools/list" => lists::page(self, Offer::Tools, message, modern).await?,
            "prompts/list" => lists::page(self, Offer::Prompts, message, modern).await?,
            "tools/call" => return self.pass_on(Offer::Tools, message, method, key).await,
            "prompts/get" => return self.pass_on(Offer::Prompts, message, method, key).await,
            _ => {
                let text = format!("there is no method {method:?} here; a server's own endpoint may have it");
                return Err(Failure::new(rpc::METHOD_NOT_FOUND, text));
            }
        };
        Ok(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, message.raw_id().unwrap_or("null")).into())
    }

    fn initialize(&self, message: &Message) -> String {
        let params = message.params_text().unwrap_or("{}");
        let InitializeParams { version } = serde_json::from_str(params).unwrap_or_default();
        // It is kept for as long as the session, and told to each server.
        let client = if params.len() <= LONGEST_PARAMS { params } else { NAMELESS };
        self.lock().client = Some(client.into());
        let known = LEGACY_VERSIONS.into_iter().find(|known| *known == version);
        json!({
            "protocolVersion": known.unwrap_or(NEWEST_LEGACY), "serverInfo": lists::server_info(), "instructions": INSTRUCTIONS,
            "capabilities": { "tools": { "listChanged": true }, "prompts": { "listChanged": true }, "logging": {} },
        })
        .to_string()
    }

    /// Sets the log level at the servers that are connected, and later at others when they are.
    async fn set_log_level(self: &Arc<Self>, message: &Message) -> String {
        let params = message.params_text().filter(|params| params.len() <= LONGEST_PARAMS).unwrap_or("{}");
        self.lock().log_level = Some(params.into());
        let connections = self.connections();
        join_all(connections.iter().map(|connection| connection.set_log_level(params).boxed())).await;
        json!({}).to_string()
    }

    /// Acknowledges a subscription, and leaves its request open until the client goes away.
    async fn listen(&self, message: &Message) -> Result<Bytes, Failure> {
        let id = message.raw_id().unwrap_or("null");
        let params = message.params_text().unwrap_or("{}");
        let ListenParams { notifications } = serde_json::from_str(params).unwrap_or_default();
        let wants = |offer: &Offer| notifications[offer.filter()] == true;
        let offers: Vec<Offer> = Offer::ALL.into_iter().filter(wants).collect();
        let granted: Value = offers.iter().map(|offer| (offer.filter().to_owned(), Value::Bool(true))).collect();
        self.lock().listeners.push(Listener { id: id.into(), offers });
        let params = format!(r#"{{"notifications":{granted},{}}}"#, subscription(id));
        self.say(rpc::notification("notifications/subscriptions/acknowledged", &params)).await;
        std::future::pending().await
    }

    /// Passes a request on to the server that its `name` names.
    async fn pass_on(
        self: &Arc<Self>,
        offer: Offer,
        message: &Message,
        method: &str,
        key: &IdKey,
    ) -> Result<Bytes, Failure> {
        let params = message.params();
        let public = params.name.and_then(string_of).unwrap_or_default();
        let nothing = || Failure::new(rpc::INVALID_PARAMS, format!("there is no {} {public:?}", offer.word()));
        let (server, within) = names::split(&public).ok_or_else(nothing)?;
        let mut connection = self.connection(server).await?;
        let name = self.original(&connection, offer, within).await;
        if !offer.is_allowed(&*self.upstreams, server, &name) {
            return Err(nothing());
        }
        let place = params.name.and_then(|name| message.place(name));
        let renamed = Message::parse(message.with([(place, names::quoted(&name))])).map_err(|_| nothing())?;
        let mut again = true;
        loop {
            if let Some(flight) = self.lock().flights.get_mut(key) {
                flight.to = Some(Arc::clone(&connection));
            }
            match connection.request(self, &renamed, method).await {
                Ok(answer) => return Ok(answer),
                // A session that is not there has not seen the request: it is sent once more, in a new one.
                Err(Lost::Session) if again => {
                    self.forget(&connection);
                    connection = self.connection(server).await?;
                    again = false;
                }
                Err(lost) => return Err(lost.into_failure(server)),
            }
        }
    }

    /// The name of a tool or prompt at its server.
    async fn original(self: &Arc<Self>, connection: &Arc<Connection>, offer: Offer, name: &str) -> String {
        if !names::may_be_changed(name) {
            return name.to_owned();
        }
        let public = names::public_name(connection.server(), name);
        let catalogue = connection.catalogue(self, offer).await;
        let original = |catalogue: &Arc<Catalogue>| {
            let changed = format!("{}__{name}", connection.server());
            catalogue
                .items
                .iter()
                .find(|item| item.public == changed || item.public == public)
                .map(|it| it.name.clone())
        };
        catalogue.ok().as_ref().and_then(original).unwrap_or_else(|| name.to_owned())
    }

    fn told(self: &Arc<Self>, message: &Message, method: &str) {
        let line = message.line.clone();
        match method {
            "notifications/cancelled" => {
                let wanted = message.params().request_id.map(|id| IdKey::of(id.get()));
                let Some(flight) = wanted.and_then(|key| self.lock().flights.remove(&key)) else { return };
                flight.cancelled.cancel();
                if let Some(connection) = flight.to {
                    self.tell(connection, line);
                }
            }
            "notifications/roots/list_changed" => {
                for connection in self.connections() {
                    self.tell(connection, line.clone());
                }
            }
            "notifications/progress" => {
                // Of a question: its token is its server's own, who alone has one that waits; others do not know it.
                let asking: Vec<_> = self.lock().questions.values().map(|it| Arc::clone(&it.from)).collect();
                for connection in asking {
                    self.tell(connection, line.clone());
                }
            }
            _ => {}
        }
    }

    /// Passes the client's answer on to the server that has asked.
    fn answered(self: &Arc<Self>, message: &Message) {
        let question = message.key().and_then(|key| self.lock().questions.remove(&key));
        if let Some(Question { from, id }) = question {
            self.tell(from, message.with([(message.id.clone(), id.to_string())]));
        }
    }
}

fn discovered() -> String {
    let mut result = json!({
        "supportedVersions": [NEWEST], "instructions": INSTRUCTIONS,
        "capabilities": { "tools": { "listChanged": true }, "prompts": { "listChanged": true } },
    });
    lists::complete(&mut result);
    result.to_string()
}
