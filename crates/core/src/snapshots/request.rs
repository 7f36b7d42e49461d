//! The requests for snapshots and for copies of workspaces.

use std::collections::BTreeMap;

use crate::workspace::request::NewWorkspace;

/// A request for a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewSnapshot {
    /// A display name.
    pub name: Option<String>,
    /// Labels for people and programs; `None` takes over the workspace's own.
    pub labels: Option<BTreeMap<String, String>>,
}

/// A request for copies of a workspace.
#[derive(Debug, Clone, PartialEq)]
pub struct NewForks {
    /// The number of copies.
    pub count: u32,
    /// The properties of the copies where they differ from the workspace. Where there are several copies, each gets its
    /// number after the name.
    pub request: NewWorkspace,
}

// === impl NewForks ===

impl NewForks {
    /// The greatest number of copies that one call makes.
    pub const MOST: u32 = 32;
}
