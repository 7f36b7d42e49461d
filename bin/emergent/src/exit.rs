//! The exit status of the program.

use std::process::ExitCode;

use crate::{cli::tips, print};

/// The exit status, by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// 0: success.
    Success,
    /// 1: failure.
    Failure,
    /// 2: the command line or a setting is wrong.
    Usage,
    /// 125: `exec` could not run the command or lost it; the same code as Docker's.
    ExecFailed,
    /// The exit code of the command that `exec` ran; 128 + the number of the signal that ended it.
    Command(u8),
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(match status {
            ExitStatus::Success => 0,
            ExitStatus::Failure => 1,
            ExitStatus::Usage => 2,
            ExitStatus::ExecFailed => 125,
            ExitStatus::Command(code) => code,
        })
    }
}

/// Shows clap's message: help on standard output, mistakes on standard error.
pub(crate) fn of_usage(mut error: clap::Error) -> ExitStatus {
    tips::add(&mut error);
    let text = error.render();
    if error.use_stderr() {
        print::notice(&text.to_string());
        ExitStatus::Usage
    } else {
        print::out(&text.to_string());
        ExitStatus::Success
    }
}
