//! The servers that share a database or an engine: leases on rows, peers, and the engine's record of its holder.

pub(crate) mod holding;
pub(crate) mod lease;
pub(crate) mod servers;
