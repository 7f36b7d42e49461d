//! A call that is under way. However it ends, it leaves one row.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use axum::http::StatusCode;
use chrono::{DateTime, SubsecRound as _, Utc};
use emergent_core::{Audit, AuditEnd, AuditId, AuditKind, AuditOutcome, AuditRow, Origin, WorkspaceId};

use crate::{facts::CallFacts, http::problem::ProblemKind};

/// A call that is under way.
pub(super) struct Pending {
    audit: Audit,
    origin: Origin,
    facts: CallFacts,
    kind: AuditKind,
    action: Arc<str>,
    workspace: Option<WorkspaceId>,
    at: DateTime<Utc>,
    began: Instant,
    bytes_in: Arc<AtomicU64>,
    bytes_out: u64,
    /// How the call would end if its answer were complete.
    answer: Option<AuditEnd>,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    UnderWay,
    Complete,
    Broken,
    Forgotten,
}

// === impl Pending ===

impl Pending {
    pub(super) fn new(
        audit: Audit,
        origin: Origin,
        facts: CallFacts,
        kind: AuditKind,
        action: Arc<str>,
        workspace: Option<WorkspaceId>,
        bytes_in: Arc<AtomicU64>,
    ) -> Self {
        Self {
            audit,
            origin,
            facts,
            kind,
            action,
            workspace,
            at: Utc::now().trunc_subsecs(6),
            began: Instant::now(),
            bytes_in,
            bytes_out: 0,
            answer: None,
            progress: Progress::UnderWay,
        }
    }

    /// The answer has begun.
    pub(super) fn answered(&mut self, status: StatusCode, problem: Option<ProblemKind>) {
        self.answer = Some(ending(status, problem));
    }

    /// Counts bytes of the answer that were sent.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.bytes_out = self.bytes_out.saturating_add(bytes);
    }

    /// All of the answer was given away.
    pub(super) fn complete(&mut self) {
        self.progress = Progress::Complete;
    }

    /// The answer could not go on.
    pub(super) fn broken(&mut self) {
        self.progress = Progress::Broken;
    }

    /// Leaves no row.
    pub(super) fn forget(mut self) {
        self.progress = Progress::Forgotten;
    }

    fn ending(&mut self) -> AuditEnd {
        let ending = match (self.answer.take(), self.progress) {
            (Some(answer), Progress::Complete) => answer,
            (Some(answer), _) if answer.outcome != AuditOutcome::Ok => answer,
            (_, Progress::Broken) => AuditEnd::failed(ProblemKind::CallInterrupted.slug()),
            _ if thread::panicking() => AuditEnd::failed(ProblemKind::Internal.slug()),
            _ => AuditEnd { outcome: AuditOutcome::Abandoned, problem: None },
        };
        match self.facts.outcome() {
            Some(outcome) if ending.outcome == AuditOutcome::Ok => AuditEnd { outcome, ..ending },
            Some(_) | None => ending,
        }
    }
}

fn ending(status: StatusCode, problem: Option<ProblemKind>) -> AuditEnd {
    let outcome = match problem {
        Some(ProblemKind::CallTimedOut) => AuditOutcome::TimedOut,
        _ if status.is_server_error() => AuditOutcome::Failed,
        _ if status.is_client_error() => AuditOutcome::Refused,
        _ => AuditOutcome::Ok,
    };
    AuditEnd { outcome, problem: problem.map(|problem| problem.slug().into()) }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Nobody's call is in nobody's audit; the metrics count it.
        let Some(project) = self.facts.project().filter(|_| self.progress != Progress::Forgotten) else { return };
        let AuditEnd { outcome, problem } = self.ending();
        let origin = &self.origin;
        self.audit.record(AuditRow {
            id: AuditId::generate(),
            project,
            workspace: self.workspace,
            at: self.at,
            actor: origin.actor(),
            session: origin.session().map(str::to_owned),
            kind: self.kind,
            action: self.action.to_string(),
            outcome,
            problem: problem.map(Into::into),
            duration_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            arguments: self.facts.take_arguments(),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out,
            request_id: origin.id().map(str::to_owned),
        });
    }
}
