//! One endpoint for many servers.
//!
//! A gateway is the child of a bridge that is no process: what the bridge writes to it is passed on to the servers
//! behind it, over their own endpoints, and what they say comes back. So a client of the gateway has sessions, streams,
//! cancelling and both eras as with any server.
//!
//! ```text
//!   client ──▶ Bridge ──line──▶ session ──▶ connection to `clock` ──HTTP──▶ its endpoint
//!                     ◀──line──     ──▶ connection to `files` ──HTTP──▶ its endpoint
//! ```
//!
//! Start at `client_messages` and `server_messages`, which decide where a message goes; `session` is the state that they
//! share. `names` makes the names of tools and prompts, `lists` merges the servers' offers (a `catalogue` each), `offers`
//! finds these, `known_offers` remembers them for one client and `catalogues` for all. `connection` speaks to one server,
//! in the era that the server knows, and `messages` reads the server's answers.

mod catalogue;
mod catalogues;
mod child;
mod client_messages;
mod connection;
mod known_offers;
mod lists;
mod messages;
mod names;
mod offers;
mod server_messages;
mod session;

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use emergent_budget::Account;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::watch;

use self::child::GatewayChild;
use crate::child::{Child, ChildId, ChildNote, LaunchError, Launcher};

pub use catalogues::Catalogues;
pub use names::public_name;

/// The body of a server's answer.
pub type UpstreamBody = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// One server behind a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The server's name, which no other has.
    pub name: String,
    /// The server's version, unique among all servers that have the same [`Catalogues`]; a change of the server gives
    /// it another one.
    pub version: String,
    /// The reason why the server takes no requests now, for the client.
    pub trouble: Option<String>,
}

/// The servers behind a gateway, as one caller may use them.
#[async_trait]
pub trait Upstreams: Send + Sync + 'static {
    /// Returns all servers behind the gateway, in order. A server that is in trouble is left out of lists; a call of
    /// one of its tools is still passed on, so that its own endpoint says why it cannot be.
    async fn list(&self) -> Vec<Upstream>;

    /// A counter that changes when [`list`](Self::list) returns something else. Each client asks for the list again
    /// then, and not otherwise: whoever counts does so once for all of them.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Whether the caller may use this tool of that server.
    fn allows_tool(&self, server: &str, tool: &str) -> bool;

    /// Whether the caller may use more of that server than its tools.
    fn allows_all_of(&self, server: &str) -> bool;

    /// Passes one request to a server's endpoint, whatever the request's URI. An answer that is none of the protocol's
    /// is a problem (RFC 9457), whose `detail` the client is told.
    async fn ask(&self, server: &str, request: Request<Bytes>) -> Response<UpstreamBody>;

    /// The result of a list as JSON, from a warm process of the server that is nobody's session: `null` where the
    /// process refuses, `None` where there is no such process or no answer in time. Parameters are JSON.
    async fn list_warm(&self, server: &str, method: &str, params: &str) -> Option<Bytes>;

    /// An account of the caller's: long messages of servers are held on others like it. `None` holds nothing.
    fn account(&self) -> Option<Account>;
}

/// The launcher of gateways: one for each session, and one for all requests without a session.
pub struct Gateway {
    upstreams: Arc<dyn Upstreams>,
    catalogues: Arc<Catalogues>,
    started: AtomicU64,
}

// === impl Gateway ===

impl Gateway {
    /// A gateway to these servers; what they offer is remembered for all that have the same catalogues.
    pub fn new(upstreams: Arc<dyn Upstreams>, catalogues: Arc<Catalogues>) -> Self {
        Self { upstreams, catalogues, started: AtomicU64::new(0) }
    }
}

#[async_trait]
impl Launcher for Gateway {
    async fn launch(&self, note: ChildNote) -> Result<Box<dyn Child>, LaunchError> {
        let id = ChildId::new(format!("gateway-{}", self.started.fetch_add(1, Ordering::Relaxed)));
        let (upstreams, catalogues) = (Arc::clone(&self.upstreams), Arc::clone(&self.catalogues));
        Ok(Box::new(GatewayChild::start(id, note, upstreams, catalogues)))
    }

    async fn adopt(&self) -> Result<Vec<Box<dyn Child>>, LaunchError> {
        // None outlives this process.
        Ok(Vec::new())
    }
}
