//! The REST API. It reads requests, asks [`emergent_core`], which decides everything about workspaces, and writes answers.
//!
//! Start reading at [`router`](mod@router). Each resource has a file in [`resources`]; an answer that is no success is a
//! [`problem`](http::problem); [`auth`] decides who may call.
//!
//! A module knows only those above it in this list:
//!
//! 1. [`facts`]: the facts of a call, for the audit
//! 2. [`http`]: what all resources share, from reading requests to problems
//! 3. `peers`, `state`: what all handlers share
//! 4. [`auth`]: the callers, and what each may do
//! 5. `names`, `forward`, `audit`: layers around the handlers
//! 6. [`resources`], `mcp`, `docs`: the handlers
//! 7. [`router`](mod@router): all of these, put together

mod audit;
mod docs;
mod forward;
pub mod http;
mod mcp;
mod names;
mod peers;
mod state;

pub mod auth;
pub mod facts;
pub mod resources;
pub mod router;

pub use self::http::hosts::Hosts;
pub use peers::{Peers, UnusableAuthority};
pub use router::{openapi, openapi_json, router};
pub use state::{ApiParts, ApiState};
