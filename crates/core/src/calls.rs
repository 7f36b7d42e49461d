//! Calls to a workspace's guest: the session with the guest, the output that is followed, and the count of calls under
//! way.

pub(crate) mod activity;
pub(crate) mod guest_session;
pub(crate) mod output;
pub(crate) mod waiting;
