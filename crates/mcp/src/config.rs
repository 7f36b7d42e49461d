//! The settings of a bridge, which its owner decides.

use std::time::Duration;

use emergent_budget::Account;

use crate::SessionLimit;

/// The longest message that a server may write, in bytes; a longer one is dropped up to its end, and its caller is
/// told.
pub const LINE_LIMIT: usize = 16 << 20;

/// The least number of unacknowledged bytes of output that a launcher keeps: one message of the longest kind, and the
/// bytes that were read before it and are not delivered yet. A launcher that keeps less may wait for the bridge for
/// ever.
pub const OUTPUT_KEPT: usize = LINE_LIMIT + (4 << 20);

/// Settings of one bridge; [`Default`] suits a hosted server.
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// The way in which sessions share children.
    pub sharing: Sharing,
    /// The most sessions at once, where each has a process. One more takes the place of the one that was not used for
    /// the longest time, of the same owner if there is one; it is refused with 429 where all are connected or wait for
    /// an answer.
    pub max_sessions: usize,
    /// The most sessions at once where all share a process, so that a session costs memory alone.
    pub max_shared_sessions: usize,
    /// The limit of the sessions of this bridge and of others together.
    pub together: SessionLimit,
    /// The time for which a session may be unused before it ends, and its child with it.
    pub idle_after: Duration,
    /// The most calls that one child may have in flight; one more is refused.
    pub max_in_flight: usize,
    /// The longest request body, in bytes.
    pub body_limit: usize,
    /// The longest line that a child may write, in bytes and without its end; a longer one is dropped up to its end. At
    /// most [`LINE_LIMIT`], which launchers know of.
    pub line_limit: usize,
    /// The time that a call waits for its answer, from the last sign of progress. Nothing is restarted after it.
    pub call_timeout: Duration,
    /// The time that the first answer of a fresh child may take.
    pub start_timeout: Duration,
    /// The time that a child has between the end of its stdin and SIGKILL.
    pub grace: Duration,
    /// How much a session keeps to replay to a client that lost its connection, in bytes.
    pub replay_bytes: usize,
    /// The time for which a connected client that does not read may hold its child up.
    pub stall_after: Duration,
    /// The pause between comments on silent streams.
    pub keep_alive: Duration,
    /// The time that a client is told to wait before it connects a lost stream again.
    pub retry: Duration,
    /// The time that an answer may take and still be sent as plain JSON, if it comes before any other message of its
    /// request. A later one is sent as a stream. JSON is better for long answers: some clients take events of 1 MiB at
    /// most.
    pub json_within: Duration,
    /// `Origin` values that are let in beside those of this machine (scheme, host and port, as a browser sends them).
    /// `None` lets every origin in.
    pub allowed_origins: Option<Vec<String>>,
    /// `Host` names (without port) that are let in beside those of this machine. `None` lets every host in.
    pub allowed_hosts: Option<Vec<String>>,
    /// The era of the server, where the owner knows it from before (see [`BridgeEvent::Era`](crate::BridgeEvent)).
    pub era: Option<crate::Era>,
    /// An account of whoever the server belongs to: messages that are longer than [`SMALL`](emergent_budget::SMALL) are
    /// held on others like it, those of the server until their clients have them, and those for the server until it has
    /// read them. `None` holds nothing.
    pub account: Option<Account>,
}

/// The way in which sessions share children.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sharing {
    /// Each session has a child of its own; sessionless requests share a warm one.
    #[default]
    PerSession,
    /// One child for all, with ids and progress tokens rewritten.
    Shared,
}

// === impl BridgeConfig ===

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            sharing: Sharing::PerSession,
            max_sessions: 32,
            max_shared_sessions: 1_000,
            together: SessionLimit::default(),
            idle_after: Duration::from_secs(30 * 60),
            max_in_flight: 128,
            body_limit: 8 << 20,
            line_limit: LINE_LIMIT,
            call_timeout: Duration::from_secs(300),
            start_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            replay_bytes: 1 << 20,
            stall_after: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
            retry: Duration::from_secs(1),
            json_within: Duration::from_secs(10),
            allowed_origins: Some(Vec::new()),
            allowed_hosts: Some(Vec::new()),
            era: None,
            account: None,
        }
    }
}
