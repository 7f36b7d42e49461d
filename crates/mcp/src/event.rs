//! The events that a bridge tells its owner.

use crate::{ChildId, Exit};

/// The era of a server's protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Era {
    /// 2025-11-25 and older: `initialize`, sessions.
    Legacy,
    /// A child answers `server/discover` (2026-07-28 and newer). It may know `initialize` too; a child is asked
    /// one or the other.
    Modern,
}

/// An event that the owner may act on. Events are told in order; an owner that does not listen loses the oldest.
#[derive(Clone, Debug)]
pub enum BridgeEvent {
    /// A child was started.
    Started {
        /// The child.
        child: ChildId,
    },
    /// A child ended although nobody had asked it to. The next request starts another: an owner that wants to hold that
    /// back (after many crashes) refuses in [`Launcher::launch`](crate::Launcher::launch).
    Crashed {
        /// The child.
        child: ChildId,
        /// The child's end, with the tail of its stderr.
        exit: Exit,
    },
    /// A child was ended, by its client, for idleness, or at shutdown.
    Ended {
        /// The child.
        child: ChildId,
        /// The child's end.
        exit: Exit,
    },
    /// A call ran out of time. Nothing is restarted; enough silent ones in a row mean an unresponsive server.
    TimedOut {
        /// The child.
        child: ChildId,
        /// The call's method.
        method: String,
        /// Whether no child has answered anything while the call waited.
        silent: bool,
    },
    /// A child wrote something that is no message of the protocol; told once for each child.
    Rubbish {
        /// The child.
        child: ChildId,
    },
    /// The server's era was found; worth keeping beside the image, and to be given back in the next bridge's settings.
    Era(Era),
}
