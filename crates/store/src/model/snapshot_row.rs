//! A snapshot's row, and how it is read from and written to its columns.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use emergent_provider::{ProviderKind, Taken};
use emergent_types::{ServerId, SnapshotId, WorkspaceId};
use sea_orm::ActiveValue::Set;

use crate::{
    ProjectId, SnapshotState, SnapshotStateKind, StoreError, WorkspaceSpec,
    entity::snapshot::{ActiveModel, Model},
    model::words::{from_integer, from_json, parse, signed, storable, to_json},
    model::workspace_spec::read_spec,
};

/// A snapshot, as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotRow {
    /// The facts that were known of the snapshot from the beginning.
    pub new: NewSnapshotRow,
    /// The snapshot's state.
    pub state: SnapshotState,
    /// The snapshot's size; known once it is ready.
    pub taken: Option<Taken>,
    /// The time at which the snapshot was asked for.
    pub created_at: DateTime<Utc>,
    /// The time at which the snapshot was taken.
    pub ready_at: Option<DateTime<Utc>>,
}

/// A snapshot to record, with the properties that its workspace had then: workspaces that are made from it have the
/// same, unless others are asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSnapshotRow {
    /// The snapshot's id.
    pub id: SnapshotId,
    /// The project that the snapshot belongs to.
    pub project: ProjectId,
    /// The server that keeps the snapshot.
    pub server: ServerId,
    /// The workspace that the snapshot is taken of.
    pub workspace: WorkspaceId,
    /// The provider that has the snapshot.
    pub provider: ProviderKind,
    /// A name, for people.
    pub name: Option<String>,
    /// Labels, for people and programs.
    pub labels: BTreeMap<String, String>,
    /// The snapshot is made for a fork and is removed when the fork ends: nobody sees it.
    pub temporary: bool,
    /// The properties that the workspace was made by.
    pub spec: WorkspaceSpec,
}

/// The columns of a row that is new: in state `creating`.
pub(crate) fn new_values(row: &SnapshotRow) -> ActiveModel {
    let new = &row.new;
    ActiveModel {
        id: Set(new.id.as_uuid()),
        project_id: Set(new.project.as_uuid()),
        server_id: Set(new.server.as_uuid()),
        workspace_id: Set(new.workspace.as_uuid()),
        provider: Set(new.provider.as_str().to_owned()),
        name: Set(new.name.as_deref().map(storable)),
        labels: Set(to_json(&new.labels)),
        temporary: Set(new.temporary),
        state: Set(SnapshotStateKind::Creating.as_str().to_owned()),
        error_message: Set(None),
        kind: Set(new.spec.kind.as_str().to_owned()),
        image: Set(new.spec.image.to_string()),
        cpu: Set(new.spec.limits.cpu),
        memory_bytes: Set(signed(new.spec.limits.memory_bytes)),
        disk_bytes: Set(signed(new.spec.limits.disk_bytes)),
        pids: Set(new.spec.limits.pids.into()),
        network: Set(new.spec.network.as_str().to_owned()),
        allow_root: Set(new.spec.allow_root),
        environment_keys: Set(new.spec.environment_keys.clone().into()),
        root_bytes: Set(None),
        workspace_bytes: Set(None),
        created_at: Set(row.created_at),
        ready_at: Set(None),
    }
}

impl TryFrom<Model> for SnapshotRow {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let state = match parse("state", &row.state)? {
            SnapshotStateKind::Creating => SnapshotState::Creating,
            SnapshotStateKind::Ready => SnapshotState::Ready,
            SnapshotStateKind::Deleting => SnapshotState::Deleting,
            SnapshotStateKind::Error => SnapshotState::Error { message: row.error_message.unwrap_or_default() },
        };
        let taken = match (row.root_bytes, row.workspace_bytes) {
            (Some(root), Some(workspace)) => Some(Taken {
                root_bytes: from_integer("root_bytes", root)?,
                workspace_bytes: from_integer("workspace_bytes", workspace)?,
            }),
            _ => None,
        };
        let new = NewSnapshotRow {
            id: row.id.into(),
            project: row.project_id.into(),
            server: row.server_id.into(),
            workspace: row.workspace_id.into(),
            provider: parse("provider", &row.provider)?,
            name: row.name,
            labels: from_json("labels", row.labels)?,
            temporary: row.temporary,
            spec: read_spec!(row),
        };
        Ok(Self { new, state, taken, created_at: row.created_at, ready_at: row.ready_at })
    }
}
