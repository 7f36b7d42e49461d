//! What happens to a workspace that nobody uses, as JSON.

use std::time::Duration;

use emergent_core::{IdleAction, IdlePolicy, IdleRequest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::check::Faults;

/// A little more than a second.
const LEAST_MINUTES: f64 = 0.02;
const MOST_MINUTES: f64 = 525_600.0;

/// What is done with a workspace that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdleActionName {
    /// Nothing: it runs on.
    None,
    /// It is paused; the next call lets it go on.
    Pause,
    /// It is stopped; the next call starts it again, with its files.
    Stop,
}

/// What is to happen to a workspace that nobody uses. A part that is left out stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestedIdle {
    /// What is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<IdleActionName>,
    /// After so many minutes without a call under way and without a running process that was started through the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.02, maximum = 525_600, example = 30)]
    pub after_minutes: Option<f64>,
}

/// What happens to a workspace that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = IdlePolicy)]
pub struct IdleView {
    /// What is done.
    pub action: IdleActionName,
    /// After so many minutes.
    pub after_minutes: f64,
    /// It was done: the workspace rests because nobody used it, and the next call resumes it by itself.
    pub resting: bool,
}

// === impl RequestedIdle ===

impl RequestedIdle {
    pub(super) fn check(&self, faults: &mut Faults) {
        faults.range("idle.after_minutes", self.after_minutes, LEAST_MINUTES..=MOST_MINUTES);
    }

    /// The core's words for it. To be called on what was checked.
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
