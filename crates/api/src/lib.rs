//! The REST API: thin. It reads requests, asks [`emergent_core`], and writes answers; what a workspace is and does is
//! decided there.
//!
//! Start reading at [`router`](mod@router). Each resource has a file in [`resources`]; whatever is not a success is a
//! [`problem`]; who may call is decided in [`auth`].

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
