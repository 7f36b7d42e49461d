//! The REST API: thin. It reads requests, asks [`emergent_core`], and writes answers; what a workspace is and does is
//! decided there.
//!
//! Start reading at [`router`](mod@router). Each resource has a file in [`resources`]; whatever is not a success is a
//! [`problem`]; who may call is decided in [`auth`].

mod extract;
mod forward;
mod hosts;
mod mcp;
mod memory;
mod names;
mod observe;
mod pages;
mod params;
mod span;
mod sse;
mod state;

pub mod audit;
pub mod auth;
pub mod check;
pub mod problem;
pub mod rates;
pub mod resources;
pub mod router;
pub mod size;

pub use forward::{Peers, UnusableAuthority};
pub use hosts::Hosts;
pub use router::{openapi, openapi_json, router};
pub use state::{ApiParts, ApiState};
