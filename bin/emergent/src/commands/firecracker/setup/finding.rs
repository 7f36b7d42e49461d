//! The result of one part of the set-up.

use serde::Serialize;

use crate::print::{self, printable};

/// The state of a part after the set-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// The part was there already.
    Present,
    /// The part was made.
    Done,
    /// The part would be made without --dry-run.
    Would,
    /// The part is missing, and microVMs do not need it.
    Optional,
    /// The part is missing.
    Missing,
}

/// The result of one part.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) name: String,
    pub(super) state: State,
    /// The findings or the action taken.
    pub(super) detail: String,
    /// The remedy; empty when none is needed.
    pub(super) advice: String,
}

impl Finding {
    pub(super) fn new(name: &str, state: State, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state, detail: detail.into(), advice: String::new() }
    }

    pub(super) fn missing(name: &str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), ..Self::new(name, State::Missing, detail) }
    }

    pub(super) fn optional(name: &str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), ..Self::new(name, State::Optional, detail) }
    }

    pub(super) fn show(&self) {
        let state = match self.state {
            State::Present => "ok",
            State::Done => "done",
            State::Would => "would",
            State::Optional => "none",
            State::Missing => "MISSING",
        };
        print::line(&format!("{state:<8} {:<16} {}", printable(&self.name), printable(&self.detail)));
        if !self.advice.is_empty() {
            print::line(&format!("{:<25} → {}", "", printable(&self.advice)));
        }
    }
}
