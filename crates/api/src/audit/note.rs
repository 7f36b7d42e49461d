//! What extractors and handlers tell the audit of the call that they serve.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use emergent_core::{ArgumentLevel, AuditOutcome, Origin, ProjectId, SessionCall};
use emergent_guest_proto::{ExecutionId, tools::BashResult};
use emergent_store::Token;
use serde_json::{Map, Value};

use super::Arguments;
use crate::check::Check;

/// Travels with a request. Clones are the same one. The default one is that of calls that the audit does not know,
/// and tells nobody.
#[derive(Clone, Default)]
pub(crate) struct Note(Option<Arc<Known>>);

struct Known {
    origin: Origin,
    level: ArgumentLevel,
    project: OnceLock<ProjectId>,
    arguments: Mutex<Map<String, Value>>,
    /// Says more than the status of the answer.
    outcome: OnceLock<AuditOutcome>,
    /// Kept until the answer has been given to the end.
    session: OnceLock<SessionCall>,
}

// === impl Note ===

impl Note {
    pub(super) fn new(origin: Origin, level: ArgumentLevel) -> Self {
        let (project, arguments, outcome) = (OnceLock::new(), Mutex::default(), OnceLock::new());
        Self(Some(Arc::new(Known { origin, level, project, arguments, outcome, session: OnceLock::new() })))
    }

    /// Who calls.
    pub(crate) fn caller(&self, token: &Token) {
        if let Some(known) = &self.0 {
            known.origin.is_by(token.id);
            known.project.get_or_init(|| token.project);
        }
    }

    /// The session that the call is made for lasts at least as long as the call.
    pub(crate) fn keep(&self, call: SessionCall) {
        if let Some(known) = &self.0 {
            known.session.get_or_init(|| call);
        }
    }

    /// What a part of the request asks for.
    pub(crate) fn arguments_of(&self, part: &impl Check) {
        self.add(|arguments| part.arguments(arguments));
    }

    /// Which execution the path names.
    pub(crate) fn execution(&self, id: &ExecutionId) {
        self.add(|arguments| arguments.name("execution_id", id));
    }

    /// What a command came to.
    pub(crate) fn ran(&self, result: &BashResult) {
        if result.timed_out {
            self.ended(AuditOutcome::TimedOut);
        }
    }

    /// The call went wrong after its answer had begun.
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
        known.arguments.lock().unwrap_or_else(PoisonError::into_inner).extend(arguments.into_kept());
    }

    pub(super) fn project(&self) -> Option<ProjectId> {
        self.0.as_ref()?.project.get().copied()
    }

    pub(super) fn outcome(&self) -> Option<AuditOutcome> {
        self.0.as_ref()?.outcome.get().copied()
    }

    pub(super) fn take_arguments(&self) -> Map<String, Value> {
        let take =
            |known: &Arc<Known>| std::mem::take(&mut *known.arguments.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.as_ref().map(take).unwrap_or_default()
    }
}
