//! One suite for every database. It opens each through its URL, so that another database joins by another URL.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test itself does")]

mod admission;
mod audit;
mod backup;
mod installation;
mod keeping;
mod leftovers;
mod lists;
mod names;
mod projects;
mod pulled_images;
mod quotas;
mod servers;
mod sessions;
mod snapshots;
pub(crate) mod support;
mod tokens;
mod usage;
mod workspaces;
