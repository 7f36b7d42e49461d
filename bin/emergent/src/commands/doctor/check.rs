//! What one look at the host has shown.

use serde::Serialize;

use crate::print::{self, printable};

/// How it is, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Workspaces work, but weaker or with something missing.
    Warn,
    /// Workspaces do not work.
    Fail,
}

/// One look.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    /// What was seen.
    pub(super) detail: String,
    /// What to do; empty when there is nothing to do.
    pub(super) advice: String,
}

impl Check {
    pub(super) fn ok(name: &'static str, detail: &str) -> Self {
        Self { name, verdict: Verdict::Ok, detail: detail.to_owned(), advice: String::new() }
    }

    pub(super) fn warn(name: &'static str, detail: &str, advice: &str) -> Self {
        Self { name, verdict: Verdict::Warn, detail: detail.to_owned(), advice: advice.to_owned() }
    }

    pub(super) fn fail(name: &'static str, detail: &str, advice: &str) -> Self {
        Self { name, verdict: Verdict::Fail, detail: detail.to_owned(), advice: advice.to_owned() }
    }

    pub(super) fn show(&self) {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        let mut lines = self.detail.lines();
        print::line(&format!("{verdict:<5} {:<14} {}", self.name, printable(lines.next().unwrap_or_default())));
        lines.for_each(|line| print::line(&format!("{:<20} {}", "", printable(line))));
        if !self.advice.is_empty() {
            print::line(&format!("{:<20} → {}", "", printable(&self.advice)));
        }
    }
}
