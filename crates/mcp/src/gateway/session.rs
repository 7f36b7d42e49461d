//! A session of the gateway: its client, its connections to servers, and the requests that wait for an answer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Catalogues, Upstreams, catalogue::Offer, connection::Connection, known_offers::KnownOffers};
use crate::{
    envelope::IdKey,
    rpc::{self, Failure},
};

/// The session between one client (or all that have no session) and the servers.
pub(super) struct GatewaySession {
    pub(super) upstreams: Arc<dyn Upstreams>,
    pub(super) catalogues: Arc<Catalogues>,
    out: mpsc::Sender<Bytes>,
    /// The tracker of every task.
    tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    state: Mutex<State>,
    known: Mutex<KnownOffers>,
}

/// A connection to a server, or why there is none, once that is known.
pub(super) type Opening = watch::Receiver<Option<Result<Arc<Connection>, Failure>>>;

/// The parts of a session that its messages change.
#[derive(Default)]
pub(super) struct State {
    /// The parameters of the client's `initialize`; none in the newer era.
    pub(super) client: Option<Arc<str>>,
    /// The parameters of its last `logging/setLevel`.
    pub(super) log_level: Option<Arc<str>>,
    pub(super) connections: BTreeMap<String, Opening>,
    /// Requests of the client that were not answered yet.
    pub(super) flights: HashMap<IdKey, Flight>,
    /// The servers' requests to the client, by the session's ids.
    pub(super) questions: HashMap<IdKey, Question>,
    pub(super) listeners: Vec<Listener>,
}

/// A request of the client that was not answered yet.
pub(super) struct Flight {
    /// The connection that the request was passed on to.
    pub(super) to: Option<Arc<Connection>>,
    pub(super) cancelled: CancellationToken,
}

/// A server's request to the client.
pub(super) struct Question {
    pub(super) from: Arc<Connection>,
    /// The request's id at the server, as it was written.
    pub(super) id: Box<str>,
}

/// A client of the newer era that wants to be told of changes.
pub(super) struct Listener {
    /// The id of its request, as it was written.
    pub(super) id: Box<str>,
    pub(super) offers: Vec<Offer>,
}

// === impl GatewaySession ===

impl GatewaySession {
    pub(super) fn start(
        upstreams: Arc<dyn Upstreams>,
        catalogues: Arc<Catalogues>,
        out: mpsc::Sender<Bytes>,
    ) -> Arc<Self> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (state, known) = Default::default();
        let gateway = Arc::new(Self { upstreams, catalogues, out, tasks, stop, state, known });
        gateway.spawn(Arc::clone(&gateway).watch());
        gateway
    }

    /// Ends the sessions at the servers, and then everything.
    pub(super) async fn end(&self) {
        let connections = self.connections();
        join_all(connections.iter().map(|connection| connection.end().boxed())).await;
        self.stop();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Ends everything here at once.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the end.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// The parameters of the client's `initialize`, in the older era.
    pub(super) fn client(&self) -> Option<Arc<str>> {
        self.lock().client.clone()
    }

    /// The parameters of the client's last `logging/setLevel`.
    pub(super) fn log_level(&self) -> Option<Arc<str>> {
        self.lock().log_level.clone()
    }

    /// The connection to a server, opened if there is none. The opening goes on when its caller goes away: the next
    /// caller finds its outcome.
    pub(super) async fn connection(self: &Arc<Self>, server: &str) -> Result<Arc<Connection>, Failure> {
        let mut opening = {
            let mut state = self.lock();
            match state.connections.get(server) {
                Some(opening) => opening.clone(),
                None => {
                    let (tell, opening) = watch::channel(None);
                    state.connections.insert(server.to_owned(), opening.clone());
                    self.spawn(Arc::clone(self).open(server.to_owned(), tell));
                    opening
                }
            }
        };
        let opened = opening.wait_for(Option::is_some).await.ok().and_then(|opened| opened.clone());
        opened.unwrap_or_else(|| Err(Failure::new(rpc::INTERNAL_ERROR, "the session is ending".to_owned())))
    }

    /// Opens a connection and listens to its server's standing stream for as long as the connection is used. Boxed: a
    /// message of the stream may open another connection.
    fn open(
        self: Arc<Self>,
        server: String,
        tell: watch::Sender<Option<Result<Arc<Connection>, Failure>>>,
    ) -> BoxFuture<'static, ()> {
        async move {
            let opened = Connection::open(&self.upstreams, &server, &self).await.map(Arc::new);
            if opened.is_err() {
                // A client may make up names without end.
                let this = tell.subscribe();
                self.lock().connections.retain(|_, other| !other.same_channel(&this));
            }
            tell.send_replace(Some(opened.clone()));
            if let Ok(connection) = opened {
                self.stand_by(&connection).await;
            }
        }
        .boxed()
    }

    /// Tells the client that a list is another now.
    pub(super) async fn tell_change(&self, offer: Offer) {
        let lines: Vec<Bytes> = {
            let state = self.lock();
            let listeners = state.listeners.iter().filter(|listener| listener.offers.contains(&offer));
            let tagged = listeners.map(|listener| format!("{{{}}}", subscription(&listener.id)));
            let untagged = state.client.iter().map(|_| "{}".to_owned());
            tagged.chain(untagged).map(|params| rpc::notification(offer.changed(), &params)).collect()
        };
        for line in lines {
            self.say(line).await;
        }
    }

    pub(super) fn is_current(&self, connection: &Arc<Connection>) -> bool {
        let current = self.lock().connections.get(connection.server()).and_then(open);
        current.is_some_and(|current| Arc::ptr_eq(&current, connection))
    }

    /// Forgets a connection that is of no use any more.
    pub(super) fn forget(&self, connection: &Arc<Connection>) {
        self.lock().connections.retain(|_, opening| open(opening).is_none_or(|other| !Arc::ptr_eq(&other, connection)));
    }

    /// The connections that are open.
    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        self.lock().connections.values().filter_map(open).collect()
    }

    /// Passes on a message that has no answer.
    pub(super) fn tell(&self, connection: Arc<Connection>, line: Bytes) {
        self.spawn(async move { connection.tell(line).await });
    }

    /// Writes one message to the client.
    pub(super) async fn say(&self, line: Bytes) {
        // Nobody reads any more when the bridge has let go.
        let _ = self.out.send(line).await;
    }

    /// Reads or changes the known offers of the servers.
    pub(super) fn with_known<T>(&self, look: impl FnOnce(&mut KnownOffers) -> T) -> T {
        look(&mut self.known.lock())
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(task).await });
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// The connection, if it was opened.
fn open(opening: &Opening) -> Option<Arc<Connection>> {
    opening.borrow().as_ref()?.as_ref().ok().cloned()
}

/// The `_meta` of a notification to one listener.
pub(super) fn subscription(id: &str) -> String {
    format!(r#""_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}"#)
}
