//! The parts of HTTP that all resources share: reading requests, checking values, bounds, problems, and streams of
//! events.

pub mod check;
pub(crate) mod extract;
pub(crate) mod hosts;
pub(crate) mod memory;
pub(crate) mod names;
pub(crate) mod observe;
pub mod problem;
pub mod rates;
pub mod size;
pub(crate) mod span;
pub(crate) mod sse;
