//! The programs of the kernel's packet filter: scripts on their standard input, and nothing of a request on their
//! command line.

use std::{io, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// The most characters of a program's message that an error keeps: the message has no bound of its own.
const LONGEST_MESSAGE: usize = 500;

/// The program `nft`.
#[derive(Debug, Clone, Copy)]
pub struct Nft {
    deadline: Duration,
}

/// The reason for which a program of the packet filter did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The program is missing, or may not be run.
    #[error("{program} could not be run")]
    NotRun {
        /// The program's name.
        program: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The program ended with an error.
    #[error("{program} refused: {message}")]
    Refused {
        /// The program's name.
        program: &'static str,
        /// The program's own words.
        message: String,
    },
    /// The program hangs.
    #[error("{program} did not answer within {} s", deadline.as_secs())]
    Silent {
        /// The program's name.
        program: &'static str,
        /// The time that the program had.
        deadline: Duration,
    },
}

// === impl Nft ===

impl Nft {
    /// Returns the program with a deadline for each of its runs.
    pub const fn within(deadline: Duration) -> Self {
        Self { deadline }
    }

    /// Carries out a script as one transaction: all of it is in force afterwards, or nothing.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub async fn apply(self, script: &str) -> Result<(), ProgramError> {
        self.run(&["-f", "-"], script).await.map(drop)
    }

    /// Checks whether a script could be carried out, without doing so.
    ///
    /// # Errors
    /// [`ProgramError`] when it could not.
    pub async fn check(self, script: &str) -> Result<(), ProgramError> {
        self.run(&["--check", "--file", "-"], script).await.map(drop)
    }

    /// Whether a table has a chain of this name.
    ///
    /// # Errors
    /// [`ProgramError`] when that is not known.
    pub async fn has_chain(self, family: &str, table: &str, chain: &str) -> Result<bool, ProgramError> {
        match self.run(&["list", "chain", family, table, chain], "").await {
            Ok(_) => Ok(true),
            Err(ProgramError::Refused { message, .. }) if message.contains("No such file or directory") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lists the chains of all tables, as JSON.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub async fn list_chains(self) -> Result<Vec<u8>, ProgramError> {
        self.run(&["-j", "list", "chains"], "").await
    }

    async fn run(self, arguments: &[&str], input: &str) -> Result<Vec<u8>, ProgramError> {
        run("nft", arguments, input, self.deadline).await
    }
}

/// Runs a program of the packet filter and returns its output. A program that takes longer than `deadline` is killed.
///
/// # Errors
/// [`ProgramError`].
pub async fn run(
    program: &'static str,
    arguments: &[&str],
    input: &str,
    deadline: Duration,
) -> Result<Vec<u8>, ProgramError> {
    let not_run = |source| ProgramError::NotRun { program, source };
    let ended = async {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(not_run)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read says why on standard error.
            stdin.write_all(input.as_bytes()).await.ok();
        }
        let output = child.wait_with_output().await.map_err(not_run)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().chars().take(LONGEST_MESSAGE).collect();
        Err(ProgramError::Refused { program, message })
    };
    timeout(deadline, ended).await.unwrap_or(Err(ProgramError::Silent { program, deadline }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_program_gets_its_input_and_its_output_comes_back() {
        assert_eq!(run("cat", &[], "rules", DEADLINE).await.unwrap(), b"rules");
    }

    #[tokio::test]
    async fn why_a_program_failed_is_told() {
        let missing = run("emergent-no-such-program", &[], "", DEADLINE).await.unwrap_err();
        assert!(matches!(missing, ProgramError::NotRun { .. }), "{missing}");
        let refused = run("sh", &["-c", "echo because >&2; exit 1"], "", DEADLINE).await.unwrap_err();
        assert_eq!(refused.to_string(), "sh refused: because");
        let silent = run("sleep", &["60"], "", Duration::ZERO).await.unwrap_err();
        assert!(matches!(silent, ProgramError::Silent { .. }), "{silent}");
    }
}
