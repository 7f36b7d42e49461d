//! A snapshot as callers see it, and what they ask for when they ask for one, or for copies.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use emergent_provider::{
    ContainerKind, ImageRef, NetworkPolicy, ProviderKind, ResourceLimits, SnapshotId, Taken, WorkspaceId,
};
use emergent_store::{ProjectId, SnapshotRow, SnapshotState};

use crate::NewWorkspace;

/// A snapshot of a workspace.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Names it.
    pub id: SnapshotId,
    /// Whose it is.
    pub project: ProjectId,
    /// Of which workspace it is.
    pub workspace: WorkspaceId,
    /// For people.
    pub name: Option<String>,
    /// For people and programs.
    pub labels: BTreeMap<String, String>,
    /// Its state.
    pub state: SnapshotState,
    /// Which provider has it.
    pub provider: ProviderKind,
    /// What the workspace was for.
    pub kind: ContainerKind,
    /// What the workspace ran.
    pub image: ImageRef,
    /// What the workspace might use.
    pub limits: ResourceLimits,
    /// What the workspace might reach.
    pub network: NetworkPolicy,
    /// Calls might run commands as root in the workspace.
    pub allow_root: bool,
    /// How large it is; known once it is ready.
    pub taken: Option<Taken>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it was taken.
    pub ready_at: Option<DateTime<Utc>>,
}

/// A snapshot to take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewSnapshot {
    /// For people.
    pub name: Option<String>,
    /// For people and programs; the workspace's own when left out.
    pub labels: Option<BTreeMap<String, String>>,
}

/// Copies to make of a workspace.
#[derive(Debug, Clone, PartialEq)]
pub struct NewForks {
    /// How many.
    pub count: u32,
    /// What they are to be where they differ from the workspace. Each gets its number after the name, where there are
    /// several.
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
    /// The most copies that one call makes.
    pub const MOST: u32 = 32;
}
