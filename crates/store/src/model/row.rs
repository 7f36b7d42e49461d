//! A workspace's row, and how it is read from and written to its columns.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use emergent_provider::{Isolation, ProviderKind};
use emergent_types::{ServerId, SnapshotId, WorkspaceId};
use sea_orm::{ActiveValue::Set, JsonValue};
use serde_json::json;

use crate::{
    DestroyReason, ErrorReason, IdlePolicy, ProjectId, StateKind, StoreError, WorkspaceSpec, WorkspaceState,
    entity::workspace::{ActiveModel, Model},
    model::words::{Word as _, from_json, from_word, parse, signed, storable, to_json, unknown},
    model::workspace_spec::read_spec,
    time::now,
};

/// A workspace, as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkspaceRow {
    /// The workspace's id.
    pub id: WorkspaceId,
    /// The project that the workspace belongs to.
    pub project: ProjectId,
    /// The server that drives the workspace.
    pub server: ServerId,
    /// A name, for people.
    pub name: Option<String>,
    /// Labels, for people and programs.
    pub labels: BTreeMap<String, String>,
    /// The properties that the workspace is made by.
    pub spec: WorkspaceSpec,
    /// The workspace's state.
    pub state: WorkspaceState,
    /// A start out of `stopped` or `error` is under way and holds a place already.
    pub starting: bool,
    /// The provider that has the workspace.
    pub provider: ProviderKind,
    /// The provider that was asked for.
    pub provider_requested: Option<ProviderKind>,
    /// The better providers that could not be used, in the order in which they were passed over.
    pub passed_over: Vec<PassedOver>,
    /// The workspace was made ahead of need.
    pub warm: bool,
    /// The runtime of the sandbox, such as `runsc`; known once the sandbox is made.
    pub runtime: Option<String>,
    /// The isolation of the sandbox; known once the sandbox is made.
    pub isolation: Option<Isolation>,
    /// The warnings: each names something that is weaker than asked for.
    pub warnings: Vec<String>,
    /// The warning that is shown while the workspace is over its disk limit.
    pub disk_warning: Option<String>,
    /// The time at which the workspace was asked for.
    pub created_at: DateTime<Utc>,
    /// The time at which the workspace's guest first answered.
    pub ready_at: Option<DateTime<Utc>>,
    /// The time of the last call; a few seconds behind.
    pub last_used_at: Option<DateTime<Utc>>,
    /// The time from which the workspace may be destroyed; `None` for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// The time at which the workspace was destroyed.
    pub destroyed_at: Option<DateTime<Utc>>,
    /// The action that follows when nobody uses the workspace, and its delay.
    pub idle: IdlePolicy,
    /// The workspace is paused or stopped because nobody used it: the next call resumes it by itself.
    pub suspended_by_idle: bool,
    /// The reason for which the workspace is being destroyed, or was.
    pub destroy_reason: Option<DestroyReason>,
    /// The snapshot that the workspace was made from; `None` where it was made from its image alone.
    pub origin: Option<MadeFrom>,
}

/// The snapshot that a workspace was made from, and the workspace of that snapshot. Both may be gone by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MadeFrom {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The workspace that the snapshot was taken of.
    pub workspace: WorkspaceId,
}

/// A provider that would have been better and could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// The provider.
    pub provider: ProviderKind,
    /// The reason.
    pub reason: String,
}

/// The provider's report of a sandbox that it has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeSandbox {
    /// The runtime of the sandbox.
    pub runtime: String,
    /// The isolation of the sandbox.
    pub isolation: Isolation,
    /// The warnings: each names something that is weaker than asked for.
    pub warnings: Vec<String>,
}

// === impl WorkspaceRow ===

impl WorkspaceRow {
    /// Returns the row of a workspace that is to be made: in state `creating`, without a name, a policy or an end.
    pub fn new(
        id: WorkspaceId,
        project: ProjectId,
        server: ServerId,
        provider: ProviderKind,
        spec: WorkspaceSpec,
    ) -> Self {
        Self {
            id,
            project,
            server,
            name: None,
            labels: BTreeMap::new(),
            spec,
            state: WorkspaceState::Creating,
            starting: false,
            provider,
            provider_requested: None,
            passed_over: Vec::new(),
            warm: false,
            runtime: None,
            isolation: None,
            warnings: Vec::new(),
            disk_warning: None,
            created_at: now(),
            ready_at: None,
            last_used_at: None,
            expires_at: None,
            destroyed_at: None,
            idle: IdlePolicy::default(),
            suspended_by_idle: false,
            destroy_reason: None,
            origin: None,
        }
    }

    /// Returns the row of a workspace whose sandbox was made ahead of need.
    pub fn with_sandbox(self, made: MadeSandbox) -> Self {
        let MadeSandbox { runtime, isolation, warnings } = made;
        Self { warm: true, runtime: Some(runtime), isolation: Some(isolation), warnings, ..self }
    }
}

/// The columns of a row that is new: in state `creating`.
pub(crate) fn new_values(row: &WorkspaceRow) -> ActiveModel {
    ActiveModel {
        id: Set(row.id.as_uuid()),
        project_id: Set(row.project.as_uuid()),
        server_id: Set(row.server.as_uuid()),
        name: Set(row.name.as_deref().map(storable)),
        labels: Set(to_json(&row.labels)),
        kind: Set(row.spec.kind.as_str().to_owned()),
        state: Set(StateKind::Creating.as_str().to_owned()),
        starting: Set(false),
        error_reason: Set(None),
        error_message: Set(None),
        provider: Set(row.provider.as_str().to_owned()),
        provider_requested: Set(row.provider_requested.map(|provider| provider.as_str().to_owned())),
        passed_over: Set(passed_over_json(&row.passed_over)),
        warm: Set(row.warm),
        runtime: Set(row.runtime.clone()),
        isolation: Set(row.isolation.map(|isolation| isolation.word().to_owned())),
        image: Set(row.spec.image.to_string()),
        cpu: Set(row.spec.limits.cpu),
        memory_bytes: Set(signed(row.spec.limits.memory_bytes)),
        disk_bytes: Set(signed(row.spec.limits.disk_bytes)),
        pids: Set(row.spec.limits.pids.into()),
        network: Set(row.spec.network.as_str().to_owned()),
        allow_root: Set(row.spec.allow_root),
        environment_keys: Set(row.spec.environment_keys.clone().into()),
        warnings: Set(row.warnings.clone().into()),
        created_at: Set(row.created_at),
        ready_at: Set(None),
        last_used_at: Set(None),
        expires_at: Set(row.expires_at),
        destroyed_at: Set(None),
        disk_warning: Set(None),
        idle_action: Set(row.idle.action.as_str().to_owned()),
        idle_after_ms: Set(row.idle.after_ms()),
        idled: Set(false),
        destroy_reason: Set(None),
        snapshot_id: Set(row.origin.map(|origin| origin.snapshot.as_uuid())),
        source_workspace_id: Set(row.origin.map(|origin| origin.workspace.as_uuid())),
    }
}

/// The providers that were passed over, as their column has them.
pub(crate) fn passed_over_json(passed_over: &[PassedOver]) -> JsonValue {
    passed_over.iter().map(|it| json!({ "provider": it.provider.as_str(), "reason": it.reason })).collect()
}

fn passed_over(column: JsonValue) -> Result<Vec<PassedOver>, StoreError> {
    let items: Vec<BTreeMap<String, String>> = from_json("passed_over", column)?;
    let item = |mut item: BTreeMap<String, String>| {
        let provider = parse("passed_over", &item.remove("provider").unwrap_or_default())?;
        Ok(PassedOver { provider, reason: item.remove("reason").unwrap_or_default() })
    };
    items.into_iter().map(item).collect()
}

impl TryFrom<Model> for WorkspaceRow {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let state = state(&row)?;
        let provider_requested = row.provider_requested.as_deref();
        let spec = read_spec!(row);
        Ok(Self {
            id: row.id.into(),
            project: row.project_id.into(),
            server: row.server_id.into(),
            name: row.name,
            labels: from_json("labels", row.labels)?,
            spec,
            state,
            starting: row.starting,
            provider: parse("provider", &row.provider)?,
            provider_requested: provider_requested.map(|text| parse("provider_requested", text)).transpose()?,
            passed_over: passed_over(row.passed_over)?,
            warm: row.warm,
            runtime: row.runtime,
            isolation: row.isolation.map(|word| from_word("isolation", &word)).transpose()?,
            warnings: from_json("warnings", row.warnings)?,
            disk_warning: row.disk_warning,
            created_at: row.created_at,
            ready_at: row.ready_at,
            last_used_at: row.last_used_at,
            expires_at: row.expires_at,
            destroyed_at: row.destroyed_at,
            idle: IdlePolicy::of_columns(&row.idle_action, row.idle_after_ms)?,
            suspended_by_idle: row.idled,
            destroy_reason: row.destroy_reason.map(|word| from_word("destroy_reason", &word)).transpose()?,
            origin: row
                .snapshot_id
                .zip(row.source_workspace_id)
                .map(|(snapshot, workspace)| MadeFrom { snapshot: snapshot.into(), workspace: workspace.into() }),
        })
    }
}

fn state(row: &Model) -> Result<WorkspaceState, StoreError> {
    Ok(match parse("state", &row.state)? {
        // It is a column of its own.
        StateKind::Starting => return Err(unknown("state", &row.state)),
        StateKind::Creating => WorkspaceState::Creating,
        StateKind::Ready => WorkspaceState::Ready,
        StateKind::Paused => WorkspaceState::Paused,
        StateKind::Stopping => WorkspaceState::Stopping,
        StateKind::Stopped => WorkspaceState::Stopped,
        StateKind::Destroying => WorkspaceState::Destroying,
        StateKind::Destroyed => WorkspaceState::Destroyed,
        StateKind::Error => {
            let word = row.error_reason.as_deref().unwrap_or_default();
            let reason = ErrorReason::from_word(word).ok_or_else(|| unknown("error_reason", word))?;
            WorkspaceState::Error { reason, message: row.error_message.clone().unwrap_or_default() }
        }
    })
}
