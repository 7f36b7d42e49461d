//! One endpoint for many servers.
//!
//! A gateway is the child of a bridge that is no process: what the bridge writes to it is passed on to the servers
//! behind it, over their own endpoints, and what they say comes back. So a client of the gateway has sessions, streams,
//! cancelling and both eras as with any server.
//!
//! ```text
//!   client ──▶ Bridge ──line──▶ hub ──▶ connection to `clock` ──HTTP──▶ its endpoint
//!                     ◀──line──     ──▶ connection to `files` ──HTTP──▶ its endpoint
//! ```
//!
//! Start at `hub`, which decides where a message goes. `names` says what tools and prompts are called, `lists` merges
//! what servers offer, `offers` finds that out and `catalogues` remembers it, `connection` speaks to one server, in the
//! era that it knows, and `messages` reads its answers.

mod catalogues;
mod child;
mod connection;
mod hub;
mod lists;
mod messages;
mod names;
mod offers;

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use serde_json::value::RawValue;
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
    /// Its name, which no other has.
    pub name: String,
    /// Names the server as it is now among all that have the same [`Catalogues`]: another one after it was changed.
    pub version: String,
    /// Why it takes no requests now, for the client.
    pub trouble: Option<String>,
}

/// The servers behind a gateway, as one caller may use them.
#[async_trait]
pub trait Upstreams: Send + Sync + 'static {
    /// All of them, in order. A server that is in trouble is left out of lists; a call of one of its tools is still
    /// passed on, so that its own endpoint says why it cannot be.
    async fn list(&self) -> Vec<Upstream>;

    /// Changes when [`list`](Self::list) may answer something else. It is asked now and then all the same, for changes
    /// that nobody tells of.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Whether the caller may use this tool of that server.
    fn allows_tool(&self, server: &str, tool: &str) -> bool;

    /// Whether the caller may use more of that server than its tools.
    fn allows_all_of(&self, server: &str) -> bool;

    /// Passes one request to a server's endpoint, whatever the request's URI. What is no answer of the protocol is a
    /// problem (RFC 9457), whose `detail` the client is told.
    async fn ask(&self, server: &str, request: Request<Bytes>) -> Response<UpstreamBody>;

    /// The result of a list, as a process of the server tells it that is warm and nobody's session: `null`
    /// where it refuses, `None` where there is no such process or no answer in time. Parameters are JSON.
    async fn list_warm(&self, server: &str, method: &str, params: &str) -> Option<Box<RawValue>>;
}

/// Starts a gateway for each session, and one for all requests without.
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
