//! The reasons why git has failed: its own messages, and explanations where these do not help.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use emergent_guest_proto::{ErrorCode, GuestError};

use super::{Git, MESSAGE_LIMIT, Output};
use crate::tools::git::redact::redact;

impl Git<'_> {
    /// # Errors
    /// `git_failed` with git's own message, and an explanation where that does not help, when git failed or wrote too
    /// much.
    pub(in crate::tools::git) async fn check(&self, output: &Output) -> Result<(), GuestError> {
        if output.truncated {
            return Err(GuestError::new(ErrorCode::TooLarge, "git's answer is too long"));
        }
        self.check_allowing_truncation(output).await
    }

    /// # Errors
    /// The errors of [`Git::check`], except for a cut answer.
    pub(in crate::tools::git) async fn check_allowing_truncation(&self, output: &Output) -> Result<(), GuestError> {
        if output.succeeded() || output.truncated {
            return Ok(());
        }
        let mut said = output.complaint();
        if said.is_empty() {
            said = self.explain_silence().await?;
        } else if said.contains("Permission denied") {
            said.push_str(&self.explain_owner().await?);
        }
        Err(GuestError::new(ErrorCode::GitFailed, said))
    }

    /// Explains a failure without a message. git itself always gives the reason; a program that it runs need not.
    async fn explain_silence(&self) -> Result<String, GuestError> {
        let found = self.run(&["rev-parse", "--git-path", "hooks"]).await?;
        let directory = self.directory.join(found.path());
        let hooks = self.guest.as_agent(move || Ok(hooks_in(&directory))).await?;
        Ok(match hooks.as_slice() {
            [] => "git failed and said nothing".to_owned(),
            hooks => format!(
                "git failed and said nothing; a hook of the repository must have refused without a word ({}). Run it by \
                 bash to see why",
                hooks.join(", ")
            ),
        })
    }

    /// Explains a failure because of the repository's owner; returns an empty text if that is the agent.
    async fn explain_owner(&self) -> Result<String, GuestError> {
        let found = self.run(&["rev-parse", "--absolute-git-dir"]).await?;
        let (directory, agent) = (found.path(), self.guest.accounts.agent.uid);
        self.guest
            .as_agent(move || {
                let owner = fs::metadata(&directory).ok().map(|metadata| metadata.uid()).filter(|owner| *owner != agent);
                Ok(owner.map_or_else(String::new, |owner| {
                    let repository = directory.parent().unwrap_or(&directory).display();
                    format!(
                        "\nthe repository belongs to another user (uid {owner}), and git runs as uid {agent} here. Where \
                         the workspace allows root, run `chown -R {agent}:{agent} {repository}` as root; else clone it \
                         again and work there"
                    )
                }))
            })
            .await
    }
}

impl Output {
    /// Returns git's own message.
    fn complaint(&self) -> String {
        let said = if self.stderr.is_empty() { &self.stdout } else { &self.stderr };
        redact(String::from_utf8_lossy(&said[..said.len().min(MESSAGE_LIMIT)]).trim())
    }
}

/// Returns the names of hooks that git would run.
fn hooks_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let runs = |entry: &fs::DirEntry| entry.metadata().is_ok_and(|it| it.is_file() && it.mode() & 0o111 != 0);
    let names = entries.filter(runs).map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut hooks: Vec<_> = names.filter(|name| !name.ends_with(".sample")).collect();
    hooks.sort_unstable();
    hooks
}
