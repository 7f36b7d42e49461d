//! The `firecracker` provider: workspaces as microVMs.
//!
//! A workspace's sandbox has the workspace's id, and carries its owner as labels. A manager runs it, in this process
//! ([`Where::Local`]) or elsewhere behind its REST API ([`Where::Remote`]); the code above `manager.rs` is the same for
//! both.

mod config;
mod create;
mod error;
mod health;
mod holder;
mod image;
mod inventory;
mod labels;
mod lifecycle;
mod manager;
mod provider;
mod snapshots;

pub use config::{FirecrackerConfig, Where};
pub use provider::FirecrackerProvider;
