//! A snapshot as JSON.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use emergent_core::{Snapshot, SnapshotState as CoreState, SnapshotStateWord};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::resources::workspaces::view::{ContainerType, LimitsView, Network, ProviderName};

/// The state of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// Being taken.
    Creating,
    /// Workspaces can be made from it.
    Ready,
    /// On its way to be gone.
    Deleting,
    /// Not taken; `error` says why.
    Error,
}

/// A snapshot of a workspace: its files, and what the workspace was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Snapshot)]
pub struct SnapshotView {
    /// Names it, in its URL and as `snapshot_id` of workspaces to make.
    pub id: Uuid,
    /// The workspace that it was taken of, which may be gone by now.
    pub workspace_id: Uuid,
    /// For people.
    pub name: Option<String>,
    /// For people and programs.
    pub labels: BTreeMap<String, String>,
    /// Its state.
    pub state: SnapshotState,
    /// What went wrong and what to do, in the state `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Which provider has it.
    pub provider: ProviderName,
    /// What the workspace was for.
    pub container_type: ContainerType,
    /// What the workspace ran.
    pub base_image: String,
    /// What the workspace might use.
    pub resource_limits: LimitsView,
    /// What the workspace might reach.
    pub network: Network,
    /// Calls might run commands as root in the workspace.
    pub allow_root: bool,
    /// Bytes of the files outside `/workspace` that differ from the image's; null until it is ready.
    pub root_bytes: Option<u64>,
    /// Bytes of the files in `/workspace`; null until it is ready.
    pub workspace_bytes: Option<u64>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it was taken.
    pub ready_at: Option<DateTime<Utc>>,
}

// === impl SnapshotState ===

impl SnapshotState {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        SnapshotStateWord::from(self).as_str()
    }
}

impl From<SnapshotStateWord> for SnapshotState {
    fn from(word: SnapshotStateWord) -> Self {
        match word {
            SnapshotStateWord::Creating => Self::Creating,
            SnapshotStateWord::Ready => Self::Ready,
            SnapshotStateWord::Deleting => Self::Deleting,
            SnapshotStateWord::Error => Self::Error,
        }
    }
}

impl From<SnapshotState> for SnapshotStateWord {
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

impl From<Snapshot> for SnapshotView {
    fn from(snapshot: Snapshot) -> Self {
        let state = snapshot.state.word().into();
        let error = if let CoreState::Error { message } = snapshot.state { Some(message) } else { None };
        Self {
            id: snapshot.id.as_uuid(),
            workspace_id: snapshot.workspace.as_uuid(),
            name: snapshot.name,
            labels: snapshot.labels,
            state,
            error,
            provider: snapshot.provider.into(),
            container_type: snapshot.kind.into(),
            base_image: snapshot.image.to_string(),
            resource_limits: snapshot.limits.into(),
            network: snapshot.network.into(),
            allow_root: snapshot.allow_root,
            root_bytes: snapshot.taken.map(|taken| taken.root_bytes),
            workspace_bytes: snapshot.taken.map(|taken| taken.workspace_bytes),
            created_at: snapshot.created_at,
            ready_at: snapshot.ready_at,
        }
    }
}
