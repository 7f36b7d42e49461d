//! A workspace as callers see it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use emergent_provider::{
    ContainerKind, ImageRef, Isolation, NetworkPolicy, ProviderKind, PullProgress, ResourceLimits, WorkspaceId,
};
use emergent_store::{
    DestroyReason, IdlePolicy, MadeFrom, PassedOver, ProjectId, SessionRow, StateWord, WorkspaceRow, WorkspaceState,
};

/// A workspace, with what only this process knows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Workspace {
    /// Names it.
    pub id: WorkspaceId,
    /// Whose it is.
    pub project: ProjectId,
    /// For people.
    pub name: Option<String>,
    /// For people and programs.
    pub labels: BTreeMap<String, String>,
    /// What it is for.
    pub kind: ContainerKind,
    /// Its state; while it is starting, where it comes from.
    pub state: WorkspaceState,
    /// It is out of `stopped` or `error`, on its way to `ready`.
    pub starting: bool,
    /// Which provider has it.
    pub provider: ProviderKind,
    /// Which provider was asked for.
    pub provider_requested: Option<ProviderKind>,
    /// The providers that came before it, and why they were passed over.
    pub passed_over: Vec<PassedOver>,
    /// It was made ahead of need.
    pub warm: bool,
    /// What runs it, such as `runsc`; known once the sandbox is made.
    pub runtime: Option<String>,
    /// The isolation that it has; known once the sandbox is made.
    pub isolation: Option<Isolation>,
    /// What it runs.
    pub image: ImageRef,
    /// What it may use.
    pub limits: ResourceLimits,
    /// What it may reach.
    pub network: NetworkPolicy,
    /// Calls may run commands as root inside.
    pub allow_root: bool,
    /// What is weaker than asked for.
    pub warnings: Vec<String>,
    /// How far the pull of its image is, while it is.
    pub pull: Option<PullProgress>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When its guest first answered.
    pub ready_at: Option<DateTime<Utc>>,
    /// When it was last called; a few seconds behind.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it may be destroyed; `None` for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// What happens to it when nobody uses it.
    pub idle: IdlePolicy,
    /// It is paused or stopped because nobody used it: the next call resumes it by itself.
    pub idled: bool,
    /// Who holds it.
    pub attached: Option<SessionRow>,
    /// Why it is being destroyed, or was.
    pub destroy_reason: Option<DestroyReason>,
    /// What it was made from, where that is not its image alone.
    pub origin: Option<MadeFrom>,
    /// How long it took from the request to the guest's first answer, in milliseconds.
    pub ready_in_ms: Option<u64>,
}

impl Workspace {
    /// Its state in one word.
    pub fn word(&self) -> StateWord {
        if self.starting { StateWord::Starting } else { self.state.word() }
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
