//! The result of one check of the host.

use serde::Serialize;

use crate::print::{self, printable};

/// The verdict of a check, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// All is well.
    Ok,
    /// Workspaces work, but weaker or with something missing.
    Warn,
    /// Workspaces do not work.
    Fail,
}

/// One check.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    /// The findings.
    pub(super) detail: String,
    /// The remedy; empty when none is needed.
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
