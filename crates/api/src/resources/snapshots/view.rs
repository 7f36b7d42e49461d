//! A snapshot as JSON.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use emergent_core::{SnapshotRow, SnapshotState as CoreState, SnapshotStateKind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::resources::workspaces::view::{ContainerType, LimitsView, Network, ProviderName};

/// The state of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// The snapshot is being taken.
    Creating,
    /// Workspaces can be made from the snapshot.
    Ready,
    /// The snapshot is being deleted.
    Deleting,
    /// The snapshot was not taken, or is lost; `error` says why.
    Error,
}

/// A snapshot of a workspace: its files, and the workspace's properties.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Snapshot)]
pub struct SnapshotView {
    /// The snapshot's id, in its URL and as `snapshot_id` of workspaces to make.
    pub id: Uuid,
    /// The workspace that it was taken of, which may be gone by now.
    pub workspace_id: Uuid,
    /// A display name.
    pub name: Option<String>,
    /// Labels for people and programs.
    pub labels: BTreeMap<String, String>,
    /// The snapshot's state.
    pub state: SnapshotState,
    /// The failure and its remedy, in the state `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The provider that has the snapshot.
    pub provider: ProviderName,
    /// The purpose of the workspace.
    pub container_type: ContainerType,
    /// The image that the workspace ran.
    pub base_image: String,
    /// The resource limits of the workspace.
    pub resource_limits: LimitsView,
    /// The networks that the workspace might reach.
    pub network: Network,
    /// Whether calls might run commands as root in the workspace.
    pub allow_root: bool,
    /// The bytes of the files outside `/workspace` that differ from the image's; null until the snapshot is ready.
    pub root_bytes: Option<u64>,
    /// The bytes of the files in `/workspace`; null until the snapshot is ready.
    pub workspace_bytes: Option<u64>,
    /// The time at which the snapshot was requested.
    pub created_at: DateTime<Utc>,
    /// The time at which the snapshot was taken.
    pub ready_at: Option<DateTime<Utc>>,
}

// === impl SnapshotState ===

impl SnapshotState {
    /// Returns the state's name in JSON.
    pub fn as_str(self) -> &'static str {
        SnapshotStateKind::from(self).as_str()
    }
}

impl From<SnapshotStateKind> for SnapshotState {
    fn from(word: SnapshotStateKind) -> Self {
        match word {
            SnapshotStateKind::Creating => Self::Creating,
            SnapshotStateKind::Ready => Self::Ready,
            SnapshotStateKind::Deleting => Self::Deleting,
            SnapshotStateKind::Error => Self::Error,
        }
    }
}

impl From<SnapshotState> for SnapshotStateKind {
    fn from(state: SnapshotState) -> Self {
        match state {
            SnapshotState::Creating => Self::Creating,
            SnapshotState::Ready => Self::Ready,
            SnapshotState::Deleting => Self::Deleting,
            SnapshotState::Error => Self::Error,
        }
    }
}

// === impl SnapshotView ===

impl From<SnapshotRow> for SnapshotView {
    fn from(snapshot: SnapshotRow) -> Self {
        let SnapshotRow { new, state: core_state, taken, created_at, ready_at } = snapshot;
        let state = core_state.word().into();
        let error = if let CoreState::Error { message } = core_state { Some(message) } else { None };
        Self {
            id: new.id.as_uuid(),
            workspace_id: new.workspace.as_uuid(),
            name: new.name,
            labels: new.labels,
            state,
            error,
            provider: new.provider.into(),
            container_type: new.spec.kind.into(),
            base_image: new.spec.image.to_string(),
            resource_limits: new.spec.limits.into(),
            network: new.spec.network.into(),
            allow_root: new.spec.allow_root,
            root_bytes: taken.map(|taken| taken.root_bytes),
            workspace_bytes: taken.map(|taken| taken.workspace_bytes),
            created_at,
            ready_at,
        }
    }
}
