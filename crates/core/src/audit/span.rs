//! A step of a workspace's life, from its beginning to its end.

use std::time::Instant;

use chrono::{SubsecRound as _, Utc};
use emergent_store::{Actor, AuditId, AuditKind, AuditOutcome, AuditRow, ProjectId};
use emergent_types::WorkspaceId;
use serde_json::{Map, Value};

use super::{Audit, AuditEnd, Origin};

/// A step that is under way. The step is recorded when it ends; one that is dropped before its end is recorded as
/// interrupted.
pub(crate) struct AuditSpan {
    audit: Audit,
    began: Instant,
    row: Option<AuditRow>,
}

// === impl Audit ===

impl Audit {
    /// Begins a step of a workspace's life, such as `stop`, on behalf of the request that this task works for.
    pub(crate) fn begin(&self, project: ProjectId, workspace: Option<WorkspaceId>, action: &str) -> AuditSpan {
        let origin = Origin::current();
        let origin = origin.as_ref().inspect(|origin| origin.note());
        let row = AuditRow {
            id: AuditId::generate(),
            project,
            workspace,
            at: Utc::now().trunc_subsecs(6),
            actor: origin.map_or(Actor::Server, Origin::actor),
            session: origin.and_then(Origin::session).map(str::to_owned),
            kind: AuditKind::Lifecycle,
            action: action.to_owned(),
            outcome: AuditOutcome::Ok,
            problem: None,
            duration_ms: 0,
            arguments: Map::new(),
            bytes_in: 0,
            bytes_out: 0,
            request_id: origin.and_then(Origin::id).map(str::to_owned),
        };
        AuditSpan { audit: self.clone(), began: Instant::now(), row: Some(row) }
    }
}

// === impl AuditSpan ===

impl AuditSpan {
    /// Adds an argument to the row. The value must not be a secret.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        if let Some(row) = &mut self.row {
            row.arguments.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Sets the workspace of the row, for a step whose workspace is known only after its beginning.
    pub(crate) fn about(&mut self, workspace: WorkspaceId) {
        if let Some(row) = &mut self.row {
            row.workspace = Some(workspace);
        }
    }

    /// Ends the step with this outcome and records it.
    pub(crate) fn end(mut self, ending: impl Into<AuditEnd>) {
        self.finish(ending.into());
    }

    /// Discards the step without a record: nothing was done.
    pub(crate) fn forget(mut self) {
        self.row = None;
    }

    fn finish(&mut self, ending: AuditEnd) {
        let Some(mut row) = self.row.take() else { return };
        row.duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        row.outcome = ending.outcome;
        row.problem = ending.problem.map(Into::into);
        self.audit.record(row);
    }
}

impl Drop for AuditSpan {
    fn drop(&mut self) {
        self.finish(AuditEnd::failed("interrupted"));
    }
}
