//! The facts of a call, which extractors and handlers collect for the audit.

mod arguments;

use std::sync::{Arc, OnceLock};

use emergent_auth::Principal;
use emergent_core::{ArgumentLevel, AuditOutcome, Origin, ProjectId, SessionCall};
use emergent_guest_proto::{ExecutionId, tools::BashResult};
use parking_lot::Mutex;
use serde_json::{Map, Value};

pub use self::arguments::Arguments;

/// The facts of one call, which travel with the request. Clones share them. The default belongs to calls that the audit
/// does not record, and discards every fact.
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
    pub(crate) fn new(origin: Origin, level: ArgumentLevel) -> Self {
        let (project, arguments, outcome) = (OnceLock::new(), Mutex::default(), OnceLock::new());
        Self(Some(Arc::new(Facts { origin, level, project, arguments, outcome, session: OnceLock::new() })))
    }

    /// Notes the principal who makes the call.
    pub(crate) fn caller(&self, principal: &Principal) {
        if let Some(facts) = &self.0 {
            facts.origin.is_by(principal.token);
            facts.project.get_or_init(|| principal.project);
        }
    }

    /// Keeps the session that the call is made for alive at least as long as the call.
    pub(crate) fn keep(&self, call: SessionCall) {
        if let Some(facts) = &self.0 {
            facts.session.get_or_init(|| call);
        }
    }

    /// Notes the arguments that `keep` picks out of a part of the request.
    pub(crate) fn arguments(&self, keep: impl FnOnce(&mut Arguments)) {
        let Some(facts) = &self.0 else { return };
        let mut arguments = Arguments::new(facts.level);
        keep(&mut arguments);
        facts.arguments.lock().extend(arguments.into_kept());
    }

    /// Notes the execution that the path names.
    pub(crate) fn execution(&self, id: &ExecutionId) {
        self.arguments(|arguments| arguments.name("execution_id", id));
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
        if let Some(facts) = &self.0 {
            facts.outcome.get_or_init(|| outcome);
        }
    }

    /// Returns the caller's project; `None` while no caller is facts.
    pub(crate) fn project(&self) -> Option<ProjectId> {
        self.0.as_ref()?.project.get().copied()
    }

    /// Returns the outcome, where it differs from the one that the answer's status stands for.
    pub(crate) fn outcome(&self) -> Option<AuditOutcome> {
        self.0.as_ref()?.outcome.get().copied()
    }

    /// Takes the arguments that were noted so far.
    pub(crate) fn take_arguments(&self) -> Map<String, Value> {
        let take = |facts: &Arc<Facts>| std::mem::take(&mut *facts.arguments.lock());
        self.0.as_ref().map(take).unwrap_or_default()
    }
}
