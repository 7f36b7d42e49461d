//! Snapshots as callers see them, and the requests for snapshots and for copies of workspaces.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use emergent_provider::{ContainerKind, ImageRef, ProviderKind, Taken};
use emergent_store::{ProjectId, SnapshotRow, SnapshotState};
use emergent_types::{NetworkPolicy, ResourceLimits, SnapshotId, WorkspaceId};

use crate::workspace::request::NewWorkspace;

/// A snapshot of a workspace.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The snapshot's id.
    pub id: SnapshotId,
    /// The project that owns the snapshot.
    pub project: ProjectId,
    /// The workspace that the snapshot was taken of.
    pub workspace: WorkspaceId,
    /// A display name.
    pub name: Option<String>,
    /// Labels for people and programs.
    pub labels: BTreeMap<String, String>,
    /// The snapshot's state.
    pub state: SnapshotState,
    /// The provider that has the snapshot.
    pub provider: ProviderKind,
    /// The purpose of the workspace.
    pub kind: ContainerKind,
    /// The image that the workspace ran.
    pub image: ImageRef,
    /// The resource limits of the workspace.
    pub limits: ResourceLimits,
    /// The networks that the workspace might reach.
    pub network: NetworkPolicy,
    /// Whether calls might run commands as root in the workspace.
    pub allow_root: bool,
    /// The snapshot's size; known once the snapshot is ready.
    pub taken: Option<Taken>,
    /// The time at which the snapshot was requested.
    pub created_at: DateTime<Utc>,
    /// The time at which the snapshot was taken.
    pub ready_at: Option<DateTime<Utc>>,
}

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

// === impl Snapshot ===

impl Snapshot {
    pub(crate) fn new(row: SnapshotRow) -> Self {
        let SnapshotRow { new, state, taken, created_at, ready_at } = row;
        Self {
            id: new.id,
            project: new.project,
            workspace: new.workspace,
            name: new.name,
            labels: new.labels,
            state,
            provider: new.provider,
            kind: new.kind,
            image: new.image,
            limits: new.limits,
            network: new.network,
            allow_root: new.allow_root,
            taken,
            created_at,
            ready_at,
        }
    }
}

// === impl NewForks ===

impl NewForks {
    /// The greatest number of copies that one call makes.
    pub const MOST: u32 = 32;
}
