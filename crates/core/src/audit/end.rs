//! The ending of a step, in the words of the audit. A problem has the same name as in the API.

use std::borrow::Cow;

use emergent_store::AuditOutcome;

/// The ending of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEnd {
    /// The outcome, as one word.
    pub outcome: AuditOutcome,
    /// The name of the problem that ended the step.
    pub problem: Option<Cow<'static, str>>,
}

// === impl AuditEnd ===

impl AuditEnd {
    /// The step succeeded.
    pub const OK: Self = Self { outcome: AuditOutcome::Ok, problem: None };

    /// The step was refused, which is no failure of the server.
    pub fn refused(problem: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome: AuditOutcome::Refused, problem: Some(problem.into()) }
    }

    /// The step failed.
    pub fn failed(problem: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome: AuditOutcome::Failed, problem: Some(problem.into()) }
    }
}
