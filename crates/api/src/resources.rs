//! The REST resources, one file each.

pub mod audit;
pub mod calls;
pub mod files;
pub mod health;
pub mod leftovers;
pub mod mcp_servers;
pub(crate) mod params;
pub mod processes;
pub mod projects;
pub mod providers;
pub mod servers;
pub mod snapshots;
pub mod tokens;
pub mod tools;
pub mod usage;
pub mod workspaces;
