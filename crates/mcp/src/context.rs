//! The state that all parts of one bridge share.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::broadcast, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    child::{ChildId, Launcher},
    config::BridgeConfig,
    event::BridgeEvent,
    event_buffer::Limits,
};

/// The longest that a client may hold up a child that others use too.
const SHARED_STALL: Duration = Duration::from_secs(2);

/// The state that all parts of one bridge share.
pub(crate) struct Context {
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) config: BridgeConfig,
    events: broadcast::Sender<BridgeEvent>,
    /// The tracker of every task.
    pub(crate) tasks: TaskTracker,
    /// Cancelled to let go of all children, without ending them.
    pub(crate) stop: CancellationToken,
    /// A random text that tells the event ids of this bridge from those of one before it.
    pub(crate) boot: String,
    /// The time at which a child last answered a request.
    answered: Mutex<Option<Instant>>,
}

// === impl Context ===

impl Context {
    pub(crate) fn new(launcher: Arc<dyn Launcher>, config: BridgeConfig) -> Self {
        let mut boot = uuid::Uuid::new_v4().simple().to_string();
        boot.truncate(8);
        let (events, stop) = (broadcast::Sender::new(256), CancellationToken::new());
        Self { launcher, config, events, tasks: TaskTracker::new(), stop, boot, answered: Mutex::default() }
    }

    /// Sends an event to the owner.
    pub(crate) fn tell(&self, event: BridgeEvent) {
        tracing::debug!(?event, "bridge");
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<BridgeEvent> {
        self.events.subscribe()
    }

    /// Notes that a child has answered a request.
    pub(crate) fn note_answer(&self) {
        *self.answered.lock() = Some(Instant::now());
    }

    /// The time at which a child last answered a request.
    pub(crate) fn answered(&self) -> Option<Instant> {
        *self.answered.lock()
    }

    /// Tells the owner that a call which began at `began` has run out of time.
    pub(crate) fn tell_timed_out(&self, child: ChildId, method: String, began: Option<Instant>) {
        let silent = began.is_none_or(|began| self.answered().is_none_or(|answered| answered < began));
        self.tell(BridgeEvent::TimedOut { child, method, silent });
    }

    /// The limits of a session's streams. Where others share the child, a client may not hold it up for long.
    pub(crate) fn limits(&self, shared: bool) -> Limits {
        let (replay, stall) = (self.config.replay_bytes, self.config.stall_after);
        Limits { replay, unsent: replay, stall: if shared { stall.min(SHARED_STALL) } else { stall } }
    }

    /// The limits of streams that cannot be resumed.
    pub(crate) fn limits_once(&self) -> Limits {
        Limits { replay: 0, ..self.limits(true) }
    }
}
