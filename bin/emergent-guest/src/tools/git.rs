//! The git tool: the image's own git, run as the agent, its answers made into structures.

mod command;
pub mod identity;
mod parse;
mod redact;

use std::sync::Arc;

use emergent_guest_proto::{
    ErrorCode, GuestError, GuestPath,
    tools::{GitAction, GitRequest, GitResult},
};

use self::command::{Git, Output};
use crate::{failure::invalid, guest::Guest};

/// Bytes of a diff in an answer.
const DIFF_LIMIT: usize = 50_000;

/// Commits in an answer.
const DEFAULT_COMMITS: u64 = 20;
const MAX_COMMITS: u64 = 1_000;

/// The longest commit message, in bytes: it is passed as an argument.
const MAX_MESSAGE: usize = 100 * 1024;

/// Works with a repository.
///
/// # Errors
/// `git_failed` with git's own words, `missing_program` without git in the image, or a field out of range.
pub async fn git(guest: &Arc<Guest>, request: GitRequest) -> Result<GitResult, GuestError> {
    let directory = guest.resolve_or_workspace(request.path.as_ref());
    let git = Git::new(guest, &directory);
    match request.action {
        GitAction::Status {} => status(&git).await,
        GitAction::Diff { staged, reference } => diff(&git, staged, reference.as_deref()).await,
        GitAction::Commit { message, files } => commit(git, &message, files.as_deref()).await,
        GitAction::Push { remote, branch } => push(&git, remote.as_deref(), branch.as_deref()).await,
        GitAction::Pull { remote, branch } => pull(&git, remote.as_deref(), branch).await,
        GitAction::Checkout { reference, create } => checkout(&git, &reference, create).await,
        GitAction::Log { limit, reference } => log(&git, limit, reference.as_deref()).await,
        GitAction::Branch { name } => branch(&git, name.as_deref()).await,
    }
}

async fn status(git: &Git<'_>) -> Result<GitResult, GuestError> {
    let arguments = ["status", "--porcelain=v2", "--branch", "-z", "--untracked-files=all"];
    let output = git.run(&arguments).await?;
    git.check_allowing_truncation(&output).await?;
    let mut status = parse::status(&output.stdout, output.truncated);
    if let GitResult::Status { branch: branch @ None, .. } = &mut status {
        // Detached, or a branch that is named like that.
        *branch = current_branch(git).await?;
    }
    Ok(status)
}

async fn diff(git: &Git<'_>, staged: bool, reference: Option<&str>) -> Result<GitResult, GuestError> {
    let mut arguments = vec!["diff", "--no-color", "--no-ext-diff"];
    arguments.extend(staged.then_some("--cached"));
    arguments.extend(reference.map(|reference| plain("reference", reference)).transpose()?);
    arguments.push("--");
    let output = git.run_for(&arguments, DIFF_LIMIT).await?;
    git.check_allowing_truncation(&output).await?;
    Ok(GitResult::Diff { diff: output.text(), truncated: output.truncated })
}

async fn commit(mut git: Git<'_>, message: &str, files: Option<&[GuestPath]>) -> Result<GitResult, GuestError> {
    if message.trim().is_empty() {
        return Err(invalid("message", "the commit message is empty"));
    }
    if message.len() > MAX_MESSAGE {
        return Err(invalid("message", "the commit message is longer than 100 KiB"));
    }
    match files {
        None => git.check(&git.run(&["add", "--all"]).await?).await?,
        Some([]) => {}
        Some(files) => stage(&git, files).await?,
    }
    // A git that is too old to know of the configuration that every command has.
    for (key, variables, default) in [
        ("user.name", ["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"], identity::NAME),
        ("user.email", ["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"], identity::EMAIL),
    ] {
        let configured = git.run(&["config", "--get", key]).await?.succeeded();
        for variable in variables {
            if !configured && !git.has_variable(variable) {
                git.set_variable(variable, default);
            }
        }
    }
    let output = git.run(&["commit", &format!("--message={message}")]).await?;
    git.check(&output).await?;
    Ok(GitResult::Commit { commit: head(&git).await?, summary: output.report() })
}

/// Stages paths relative to the repository, as `status` answers them, or else to the directory that the caller names.
async fn stage(git: &Git<'_>, files: &[GuestPath]) -> Result<(), GuestError> {
    let list: Vec<u8> = files.iter().flat_map(|file| file.as_bytes().iter().copied().chain([0])).collect();
    let add = ["add", "--all", "--pathspec-from-file=-", "--pathspec-file-nul"];
    let top = git.run(&["rev-parse", "--show-toplevel"]).await?;
    git.check(&top).await?;
    let top = top.path();
    let output = git.in_directory(&top).run_with(&add, &list).await?;
    if output.succeeded() || top == git.directory() {
        return git.check(&output).await;
    }
    let beside = git.run_with(&add, &list).await?;
    if beside.succeeded() { Ok(()) } else { git.check(&output).await }
}

async fn push(git: &Git<'_>, remote: Option<&str>, branch: Option<&str>) -> Result<GitResult, GuestError> {
    let remote = plain("remote", remote.unwrap_or("origin"))?;
    let branch = plain("branch", branch.unwrap_or("HEAD"))?;
    let output = git.run_on_network(&["push", "--set-upstream", remote, branch]).await?;
    git.check(&output).await?;
    Ok(GitResult::Push { summary: output.report() })
}

async fn pull(git: &Git<'_>, remote: Option<&str>, branch: Option<String>) -> Result<GitResult, GuestError> {
    let remote = plain("remote", remote.unwrap_or("origin"))?;
    let branch = match branch {
        Some(branch) => branch,
        None => current_branch(git).await?.ok_or_else(|| {
            let message = "HEAD is detached, so there is no current branch; name one";
            GuestError::new(ErrorCode::GitFailed, message).with_field("branch")
        })?,
    };
    let output = git.run_on_network(&["pull", "--ff-only", remote, plain("branch", &branch)?]).await?;
    git.check(&output).await?;
    Ok(GitResult::Pull { commit: head(git).await?, summary: output.report() })
}

async fn checkout(git: &Git<'_>, reference: &str, create: bool) -> Result<GitResult, GuestError> {
    let reference = plain("reference", reference)?;
    let output = match create {
        true => git.run(&["checkout", "-b", reference]).await?,
        false => git.run(&["checkout", reference, "--"]).await?,
    };
    git.check(&output).await?;
    let commit = git.run(&["rev-parse", "--verify", "--quiet", "HEAD"]).await?;
    let commit = commit.succeeded().then(|| commit.line());
    Ok(GitResult::Checkout { branch: current_branch(git).await?, commit })
}

async fn log(git: &Git<'_>, limit: Option<u64>, reference: Option<&str>) -> Result<GitResult, GuestError> {
    let limit = limit.unwrap_or(DEFAULT_COMMITS);
    if !(1..=MAX_COMMITS).contains(&limit) {
        return Err(invalid("limit", format!("the limit must be from 1 to {MAX_COMMITS}")));
    }
    let (format, count) = (format!("--format=tformat:{}", parse::LOG_FORMAT), format!("--max-count={limit}"));
    let mut arguments = vec!["log", "-z", "--no-color", &format, &count];
    arguments.extend(reference.map(|reference| plain("reference", reference)).transpose()?);
    arguments.push("--");
    let output = git.run(&arguments).await?;
    if !output.succeeded() && reference.is_none() && has_no_commit(git).await? {
        return Ok(GitResult::Log { commits: Vec::new() });
    }
    git.check_allowing_truncation(&output).await?;
    Ok(GitResult::Log { commits: parse::log(&output.stdout) })
}

async fn branch(git: &Git<'_>, name: Option<&str>) -> Result<GitResult, GuestError> {
    if let Some(name) = name {
        git.check(&git.run(&["branch", plain("name", name)?]).await?).await?;
    }
    let listed = git.run(&["for-each-ref", "--format=%(refname)", "refs/heads"]).await?;
    git.check(&listed).await?;
    let name = |line: &str| line.strip_prefix("refs/heads/").map(str::to_owned);
    let mut branches: Vec<_> = listed.text().lines().filter_map(name).collect();
    branches.sort_unstable();
    Ok(GitResult::Branch { current: current_branch(git).await?, branches })
}

async fn head(git: &Git<'_>) -> Result<String, GuestError> {
    let output = git.run(&["rev-parse", "--verify", "HEAD"]).await?;
    git.check(&output).await?;
    Ok(output.line())
}

async fn current_branch(git: &Git<'_>) -> Result<Option<String>, GuestError> {
    let output = git.run(&["symbolic-ref", "--quiet", "--short", "HEAD"]).await?;
    Ok(output.succeeded().then(|| output.line()))
}

async fn has_no_commit(git: &Git<'_>) -> Result<bool, GuestError> {
    let inside = git.run(&["rev-parse", "--git-dir"]).await?.succeeded();
    Ok(inside && !git.run(&["rev-parse", "--verify", "--quiet", "HEAD"]).await?.succeeded())
}

/// A name that git cannot take for an option.
fn plain<'a>(field: &str, name: &'a str) -> Result<&'a str, GuestError> {
    if name.is_empty() || name.starts_with('-') {
        return Err(invalid(field, format!("{name:?} is not a name; it must not be empty or begin with -")));
    }
    Ok(name)
}

impl Output {
    /// The first line of standard output.
    fn line(&self) -> String {
        self.text().lines().next().unwrap_or_default().to_owned()
    }
}
