//! The REST API. It reads requests, asks [`emergent_core`], which decides everything about workspaces, and writes answers.
//!
//! Start reading at [`router`](mod@router). Each resource has a file in [`resources`]; an answer that is no success is a
//! [`problem`](http::problem); [`auth`] decides who may call.

mod docs;
mod forward;
pub mod http;
mod mcp;
mod state;

pub mod audit;
pub mod auth;
pub mod resources;
pub mod router;

pub use self::http::hosts::Hosts;
pub use forward::{Peers, UnusableAuthority};
pub use router::{openapi, openapi_json, router};
pub use state::{ApiParts, ApiState};
