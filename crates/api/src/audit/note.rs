//! The note that extractors and handlers fill with the facts of a call for the audit.

use std::sync::{Arc, OnceLock};

use emergent_core::{ArgumentLevel, AuditOutcome, Origin, ProjectId, SessionCall};
use emergent_guest_proto::{ExecutionId, tools::BashResult};
use emergent_store::Token;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::Arguments;
use crate::http::check::Check;

/// A call's note, which travels with the request. Clones stand for the same note. The default note belongs to calls
/// that the audit does not record, and discards every fact.
#[derive(Clone, Default)]
pub(crate) struct CallFacts(Option<Arc<Facts>>);

struct Facts {
    origin: Origin,
    level: ArgumentLevel,
    project: OnceLock<ProjectId>,
    arguments: Mutex<Map<String, Value>>,
    /// The outcome, where it differs from the one that the answer's status stands for.
    outcome: OnceLock<AuditOutcome>,
    /// The session's call, kept until the whole answer has been sent.
    session: OnceLock<SessionCall>,
}

// === impl CallFacts ===

impl CallFacts {
    pub(super) fn new(origin: Origin, level: ArgumentLevel) -> Self {
        let (project, arguments, outcome) = (OnceLock::new(), Mutex::default(), OnceLock::new());
        Self(Some(Arc::new(Facts { origin, level, project, arguments, outcome, session: OnceLock::new() })))
    }

    /// Notes the caller's token.
    pub(crate) fn caller(&self, token: &Token) {
        if let Some(known) = &self.0 {
            known.origin.is_by(token.id);
            known.project.get_or_init(|| token.project);
        }
    }

    /// Keeps the session that the call is made for alive at least as long as the call.
    pub(crate) fn keep(&self, call: SessionCall) {
        if let Some(known) = &self.0 {
            known.session.get_or_init(|| call);
        }
    }

    /// Notes the arguments in a part of the request.
    pub(crate) fn arguments_of(&self, part: &impl Check) {
        self.add(|arguments| part.arguments(arguments));
    }

    /// Notes the execution that the path names.
    pub(crate) fn execution(&self, id: &ExecutionId) {
        self.add(|arguments| arguments.name("execution_id", id));
    }

    /// Notes the result of a command.
    pub(crate) fn ran(&self, result: &BashResult) {
        if result.timed_out {
            self.ended(AuditOutcome::TimedOut);
        }
    }

    /// Notes that the call failed after its answer had begun.
    pub(crate) fn failed(&self) {
        self.ended(AuditOutcome::Failed);
    }

    fn ended(&self, outcome: AuditOutcome) {
        if let Some(known) = &self.0 {
            known.outcome.get_or_init(|| outcome);
        }
    }

    fn add(&self, note: impl FnOnce(&mut Arguments)) {
        let Some(known) = &self.0 else { return };
        let mut arguments = Arguments::new(known.level);
        note(&mut arguments);
        known.arguments.lock().extend(arguments.into_kept());
    }

    pub(super) fn project(&self) -> Option<ProjectId> {
        self.0.as_ref()?.project.get().copied()
    }

    pub(super) fn outcome(&self) -> Option<AuditOutcome> {
        self.0.as_ref()?.outcome.get().copied()
    }

    pub(super) fn take_arguments(&self) -> Map<String, Value> {
        let take = |known: &Arc<Facts>| std::mem::take(&mut *known.arguments.lock());
        self.0.as_ref().map(take).unwrap_or_default()
    }
}
