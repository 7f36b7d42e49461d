//! The client of this server: messages and questions to it, and the facts that it has told of itself.

use std::{
    collections::{HashMap, HashSet},
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use crate::PREFIX;

/// The client that speaks to this server.
pub(crate) struct Peer {
    pub(crate) only_legacy: bool,
    pub(crate) only_modern: bool,
    /// Counts calls, to show that state is kept.
    pub(crate) count: AtomicU64,
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u64, Sender<Value>>,
    client: Value,
    cancelled: Vec<Value>,
    subscribed: HashSet<String>,
    listening: Vec<(Value, Value)>,
}

/// A request, and the client that its answer goes to.
pub(crate) struct Request {
    pub(crate) id: Value,
    pub(crate) method: String,
    pub(crate) params: Value,
    pub(crate) peer: Arc<Peer>,
}

/// A JSON-RPC error.
pub(crate) struct Failure {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Option<Value>,
}

// === impl Peer ===

impl Peer {
    pub(crate) fn new(only_legacy: bool, only_modern: bool) -> Self {
        let (count, next) = (AtomicU64::new(0), AtomicU64::new(1));
        Self { only_legacy, only_modern, count, next, state: Mutex::default() }
    }

    /// Writes a text as it is.
    pub(crate) fn raw(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        // Whoever closed our stdout has ended us as well.
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }

    pub(crate) fn send(&self, message: &Value) {
        self.raw(&format!("{message}\n"));
    }

    pub(crate) fn notify(&self, method: &str, params: &Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    pub(crate) fn log(&self, text: &str) {
        self.notify("notifications/message", &json!({ "level": "info", "logger": "fixture", "data": text }));
    }

    /// Asks the client and waits for its answer.
    pub(crate) fn ask(&self, method: &str, params: &Value) -> Result<Value, Failure> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = channel();
        self.lock().waiting.insert(id, answer);
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        let answer = answered.recv_timeout(Duration::from_secs(30)).map_err(|_| Failure::new(-32603, "no answer"))?;
        match (answer.get("result"), answer.get("error")) {
            (Some(result), _) => Ok(result.clone()),
            (None, error) => Err(Failure::new(-32603, &format!("the client refused: {error:?}"))),
        }
    }

    pub(crate) fn answered(&self, id: &Value, message: &Value) {
        if let Some(waiting) = id.as_u64().and_then(|id| self.lock().waiting.remove(&id)) {
            // Who asked may have given up.
            let _ = waiting.send(message.clone());
        }
    }

    pub(crate) fn told(&self, method: &str, params: &Value) {
        if method == "notifications/cancelled" {
            let id = params.get("requestId").cloned().unwrap_or_default();
            let mut state = self.lock();
            state.listening.retain(|(listener, _)| *listener != id);
            state.cancelled.push(id);
        }
    }

    pub(crate) fn initialized(&self, params: &Value) {
        self.lock().client = params.clone();
    }

    /// The parameters of the client's `initialize`.
    pub(crate) fn client(&self) -> Value {
        self.lock().client.clone()
    }

    pub(crate) fn cancelled(&self) -> Vec<Value> {
        self.lock().cancelled.clone()
    }

    pub(crate) fn subscribe(&self, uri: Option<&str>, wanted: bool) {
        let Some(uri) = uri else { return };
        let mut state = self.lock();
        if wanted {
            state.subscribed.insert(uri.to_owned());
        } else {
            state.subscribed.remove(uri);
        }
    }

    pub(crate) fn is_subscribed(&self, uri: &str) -> bool {
        self.lock().subscribed.contains(uri)
    }

    /// Remembers a subscription of the newer era.
    pub(crate) fn listen(&self, id: &Value, wanted: &Value) {
        self.lock().listening.push((id.clone(), wanted.clone()));
    }

    /// Announces a change: to everybody, or in the newer era to the clients that listen for it.
    pub(crate) fn changed(&self, what: &str, modern: bool) {
        let method = format!("notifications/{what}/list_changed");
        if !modern {
            return self.notify(&method, &json!({}));
        }
        let wanted = format!("{what}ListChanged");
        let listening: Vec<Value> = {
            let state = self.lock();
            let wants = state.listening.iter().filter(|(_, filter)| filter.get(&wanted) == Some(&json!(true)));
            wants.map(|(id, _)| id.clone()).collect()
        };
        for id in listening {
            self.notify(&method, &json!({ "_meta": { (format!("{PREFIX}subscriptionId")): id } }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

// === impl Request ===

impl Request {
    pub(crate) fn meta(&self, name: &str) -> Option<&Value> {
        self.params.get("_meta")?.get(format!("{PREFIX}{name}"))
    }

    pub(crate) fn is_modern(&self) -> bool {
        self.meta("protocolVersion").is_some() || self.method == "server/discover"
    }

    pub(crate) fn result(&self, result: Value) {
        self.peer.send(&json!({ "jsonrpc": "2.0", "id": self.id, "result": result }));
    }

    pub(crate) fn fail(&self, failure: &Failure) {
        let mut error = json!({ "code": failure.code, "message": failure.message });
        if let Some(data) = &failure.data {
            error["data"] = data.clone();
        }
        self.peer.send(&json!({ "jsonrpc": "2.0", "id": self.id, "error": error }));
    }

    pub(crate) fn progress(&self, done: u64) {
        if let Some(token) = self.params.get("_meta").and_then(|meta| meta.get("progressToken")) {
            let params = json!({ "progressToken": token, "progress": done, "total": 100, "message": "so far" });
            self.peer.notify("notifications/progress", &params);
        }
    }
}

// === impl Failure ===

impl Failure {
    pub(crate) fn new(code: i64, message: &str) -> Self {
        Self { code, message: message.to_owned(), data: None }
    }

    pub(crate) fn unknown_method(method: &str) -> Self {
        Self::new(-32601, &format!("Method not found: {method}"))
    }
}
