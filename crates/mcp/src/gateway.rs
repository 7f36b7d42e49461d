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
//! what servers offer, `connection` speaks to one server, in the era that it knows, and `messages` reads its answers.

mod child;
mod connection;
mod hub;
mod lists;
mod messages;
mod names;

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
use tokio::sync::watch;

use self::child::GatewayChild;
use crate::child::{Child, ChildId, ChildNote, LaunchError, Launcher};

pub use names::public_name;

/// The body of a server's answer.
pub type UpstreamBody = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// The servers behind a gateway, as one caller may use them.
#[async_trait]
pub trait Upstreams: Send + Sync + 'static {
    /// The names of those that take requests now, in order. A server that is not among them is left out of lists; a
    /// call of one of its tools is still passed on, so that its own endpoint says why it cannot be.
    async fn list(&self) -> Vec<String>;

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
}

/// Starts a gateway for each session, and one for all requests without.
pub struct Gateway {
    upstreams: Arc<dyn Upstreams>,
    started: AtomicU64,
}

// === impl Gateway ===

impl Gateway {
    /// A gateway to these servers.
    pub fn new(upstreams: Arc<dyn Upstreams>) -> Self {
        Self { upstreams, started: AtomicU64::new(0) }
    }
}

#[async_trait]
impl Launcher for Gateway {
    async fn launch(&self, note: ChildNote) -> Result<Box<dyn Child>, LaunchError> {
        let id = ChildId::new(format!("gateway-{}", self.started.fetch_add(1, Ordering::Relaxed)));
        Ok(Box::new(GatewayChild::start(id, note, Arc::clone(&self.upstreams))))
    }

    async fn adopt(&self) -> Result<Vec<Box<dyn Child>>, LaunchError> {
        // None outlives this process.
        Ok(Vec::new())
    }
}
