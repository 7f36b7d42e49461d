//! The idle policy as JSON: the action on a workspace that nobody uses.

use std::time::Duration;

use emergent_core::{IdleAction, IdlePolicy, IdleRequest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::check::Faults;

/// The shortest time without use: a little more than a second.
const LEAST_MINUTES: f64 = 0.02;
const MOST_MINUTES: f64 = 525_600.0;

/// The action on a workspace that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdleActionName {
    /// The workspace runs on.
    None,
    /// The workspace is paused; the next call resumes it.
    Pause,
    /// The workspace is stopped; the next call starts it again, with its files.
    Stop,
}

/// The idle policy that a caller asks for. A part that is left out stays unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestedIdle {
    /// The action on a workspace that nobody uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<IdleActionName>,
    /// The minutes without a call under way and without a running process that was started through the API, after which
    /// the action is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.02, maximum = 525_600, example = 30)]
    pub after_minutes: Option<f64>,
}

/// The idle policy of a workspace that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = IdlePolicy)]
pub struct IdleView {
    /// The action on a workspace that nobody uses.
    pub action: IdleActionName,
    /// The minutes without use after which the action is taken.
    pub after_minutes: f64,
    /// Whether the action was taken: the workspace rests because nobody used it, and the next call resumes it.
    pub resting: bool,
}

// === impl RequestedIdle ===

impl RequestedIdle {
    pub(super) fn check(&self, faults: &mut Faults) {
        faults.range("idle.after_minutes", self.after_minutes, LEAST_MINUTES..=MOST_MINUTES);
    }

    /// Turns the checked request into the core's form.
    pub(super) fn into_core(self) -> IdleRequest {
        IdleRequest {
            action: self.action.map(Into::into),
            after: self.after_minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
        }
    }
}

impl IdleView {
    pub(super) fn new(policy: IdlePolicy, resting: bool) -> Self {
        let action = match policy.action {
            IdleAction::None => IdleActionName::None,
            IdleAction::Pause => IdleActionName::Pause,
            IdleAction::Stop => IdleActionName::Stop,
        };
        Self { action, after_minutes: policy.after.as_secs_f64() / 60.0, resting }
    }
}

impl From<IdleActionName> for IdleAction {
    fn from(name: IdleActionName) -> Self {
        match name {
            IdleActionName::None => Self::None,
            IdleActionName::Pause => Self::Pause,
            IdleActionName::Stop => Self::Stop,
        }
    }
}
