//! A workspace as callers see it, and the rules and records of the workspaces that this process drives.

pub(crate) mod activity;
pub(crate) mod admissions;
pub(crate) mod change;
pub(crate) mod entry;
pub(crate) mod fullness;
pub(crate) mod lookup;
pub(crate) mod messages;
pub(crate) mod recheck_queue;
pub(crate) mod registry;
pub(crate) mod request;
pub(crate) mod session_cache;
pub(crate) mod state;
pub(crate) mod steps;
pub(crate) mod transitions;
pub(crate) mod validate;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use emergent_provider::{ContainerKind, ImageRef, Isolation, ProviderKind};
use emergent_store::{
    DestroyReason, IdlePolicy, MadeFrom, PassedOver, ProjectId, SessionRow, StateKind, WorkspaceRow, WorkspaceState,
};
use emergent_types::{NetworkPolicy, PullProgress, ResourceLimits, WorkspaceId};

/// A workspace: its row, with the facts that only this process knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Workspace {
    /// The workspace's id.
    pub id: WorkspaceId,
    /// The project that owns the workspace.
    pub project: ProjectId,
    /// A display name.
    pub name: Option<String>,
    /// Labels for people and programs.
    pub labels: BTreeMap<String, String>,
    /// The workspace's purpose.
    pub kind: ContainerKind,
    /// The workspace's state; while it is starting, the state that it comes from.
    pub state: WorkspaceState,
    /// Whether the workspace is on its way out of `stopped` or `error` to `ready`.
    pub starting: bool,
    /// The provider that has the workspace.
    pub provider: ProviderKind,
    /// The provider that the request named.
    pub provider_requested: Option<ProviderKind>,
    /// The providers that were tried or considered before this one, and the reasons why they were passed over.
    pub passed_over: Vec<PassedOver>,
    /// Whether the workspace was a member of the warm pool.
    pub warm: bool,
    /// The sandbox's runtime, such as `runsc`; known once the sandbox is made.
    pub runtime: Option<String>,
    /// The sandbox's isolation; known once the sandbox is made.
    pub isolation: Option<Isolation>,
    /// The image that the workspace runs.
    pub image: ImageRef,
    /// The resource limits.
    pub limits: ResourceLimits,
    /// The networks that the workspace may reach.
    pub network: NetworkPolicy,
    /// Whether calls may run commands as root inside.
    pub allow_root: bool,
    /// The properties that are weaker than requested.
    pub warnings: Vec<String>,
    /// The progress of the image's pull, while it lasts.
    pub pull: Option<PullProgress>,
    /// The time of the request for the workspace.
    pub created_at: DateTime<Utc>,
    /// The time of the guest's first answer.
    pub ready_at: Option<DateTime<Utc>>,
    /// The time of the last call; a few seconds behind.
    pub last_used_at: Option<DateTime<Utc>>,
    /// The time from which on the workspace may be destroyed; `None` for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// The idle policy: the action on a workspace that nobody uses.
    pub idle: IdlePolicy,
    /// Whether the workspace is paused or stopped because nobody used it: the next call resumes it.
    pub idled: bool,
    /// The session that holds the workspace.
    pub attached: Option<SessionRow>,
    /// The reason why the workspace is being destroyed, or was.
    pub destroy_reason: Option<DestroyReason>,
    /// The snapshot that the workspace was made from, if there is one.
    pub origin: Option<MadeFrom>,
    /// The time from the request to the guest's first answer, in milliseconds.
    pub ready_in_ms: Option<u64>,
}

impl Workspace {
    /// Returns the state's name.
    pub fn word(&self) -> StateKind {
        if self.starting { StateKind::Starting } else { self.state.word() }
    }

    pub(crate) fn new(row: WorkspaceRow, pull: Option<PullProgress>) -> Self {
        let ready_in = row.ready_at.map(|ready_at| ready_at - row.created_at);
        Self {
            id: row.id,
            project: row.project,
            name: row.name,
            labels: row.labels,
            kind: row.kind,
            state: row.state,
            starting: row.starting,
            provider: row.provider,
            provider_requested: row.provider_requested,
            passed_over: row.passed_over,
            warm: row.warm,
            runtime: row.runtime,
            isolation: row.isolation,
            image: row.image,
            limits: row.limits,
            network: row.network,
            allow_root: row.allow_root,
            warnings: row.warnings.into_iter().chain(row.disk_warning).collect(),
            pull,
            created_at: row.created_at,
            ready_at: row.ready_at,
            last_used_at: row.last_used_at,
            expires_at: row.expires_at,
            idle: row.idle,
            idled: row.idled,
            attached: None,
            destroy_reason: row.destroy_reason,
            origin: row.origin,
            ready_in_ms: ready_in.and_then(|time| u64::try_from(time.num_milliseconds()).ok()),
        }
    }
}
