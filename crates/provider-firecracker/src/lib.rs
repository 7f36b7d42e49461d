//! The `firecracker` provider: workspaces as microVMs.
//!
//! A workspace's sandbox has the workspace's id, and carries whose it is as labels. What runs it is a manager, in this
//! process ([`Where::Local`]) or elsewhere behind its REST API ([`Where::Remote`]); which of the
//! two makes no difference above `manager.rs`.

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
