//! The framework of the live suites: a real server process, a client for its API, and the engine beneath it.
//!
//! Every case gets a server of its own (its own port, data directory and server id), so cases run side by side. A case
//! leaves nothing behind: [`Server`] removes the remains of its workspaces when it is dropped.

pub mod api;
pub mod bench;
pub mod case;
pub mod engine;
pub mod image;
pub mod manager;
pub mod mcp;
pub mod microvm;
pub mod poll;
pub mod proxy;
pub mod registry;
pub mod server;
pub mod soak;

pub use api::{Api, Reply};
pub use case::{Case, Runtime};
pub use engine::Engine;
pub use image::Image;
pub use manager::Manager;
pub use microvm::Machines;
pub use poll::until;
pub use server::{Server, ServerOptions};
