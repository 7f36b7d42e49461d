//! The parts of HTTP that all resources share: reading requests, checking values, bounds, problems, and streams of
//! events.

pub mod check;
pub(crate) mod extract;
pub(crate) mod hosts;
pub(crate) mod memory;
pub(crate) mod observe;
pub mod problem;
pub mod rates;
pub(crate) mod route;
pub mod size;
pub(crate) mod span;
pub(crate) mod sse;

use axum::http::HeaderName;

/// The header that names the session on whose behalf a call is made.
pub(crate) const SESSION: HeaderName = HeaderName::from_static("emergent-session");
