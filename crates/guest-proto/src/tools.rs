//! The seven tools: what an agent asks and what it gets.
//!
//! Every path is absolute or relative to `/workspace`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ExecutionId, GuestPath, Outcome, RunAs, Sha256Hex};

/// Runs a command in the image's shell and waits for the shell to exit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BashRequest {
    /// A line for `bash -c` (`sh -c` where the image has no bash).
    pub command: String,
    /// The directory to run in; `/workspace` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub workdir: Option<GuestPath>,
    /// After so many milliseconds the process group gets SIGTERM and 5 s later the whole tree SIGKILL. 120,000 by
    /// default, 86,400,000 at most.
    #[serde(default, deserialize_with = "crate::whole::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400_000))]
    pub timeout_ms: Option<u64>,
    /// Added to the workspace's environment.
    #[serde(default, alias = "environment", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Whom the command runs as.
    #[serde(default)]
    pub user: RunAs,
    /// Chosen by the caller, so that the execution can be found again when the answer is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
}

/// The result of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BashResult {
    /// Names the execution for output, signals and reattachment.
    pub execution_id: ExecutionId,
    /// Standard output. Bytes that are not UTF-8 are replaced, and of a line that was written over after `\r`, as
    /// progress bars do, only the last is shown; the raw bytes are in `stdout_file`.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// The exit code; 128 + the signal's number after a signal. Absent when the execution is lost.
    pub exit_code: Option<i32>,
    /// The signal that ended the command, such as `SIGKILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// How the command ended.
    pub outcome: Outcome,
    /// The reason for which the execution was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Wall-clock time, in milliseconds.
    pub duration_ms: u64,
    /// The time limit ended the command.
    pub timed_out: bool,
    /// `stdout` or `stderr` is not complete here: the middle was cut, and the file has all of it.
    pub truncated: bool,
    /// Bytes written to standard output.
    pub stdout_bytes: u64,
    /// Bytes written to standard error.
    pub stderr_bytes: u64,
    /// The file inside the workspace that has all of standard output; present when not all of it is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub stdout_file: Option<GuestPath>,
    /// The file inside the workspace that has all of standard error; present when not all of it is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub stderr_file: Option<GuestPath>,
}

/// Shows a file or a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReadRequest {
    /// The file or directory.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub file_path: GuestPath,
    /// The first line wanted, counted from 1.
    #[serde(default, deserialize_with = "crate::whole::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub offset: Option<u64>,
    /// How many lines (or entries) at most; 2,000 by default, 100,000 at most.
    #[serde(default, deserialize_with = "crate::whole::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100_000))]
    pub limit: Option<u64>,
    /// How many bytes of the first line to leave out: reads on in a line that was cut, up to 50,000 characters of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byte_offset: Option<u64>,
}

/// The contents of the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ReadResult {
    /// A text file.
    Text {
        /// The lines, each as `N: text`; a line over 2,000 characters is cut and says how to read on.
        content: String,
        /// The number of the first line in `content`.
        first_line: u64,
        /// How many lines `content` has.
        lines: u64,
        /// How many lines the file has; absent when the file is too long (over 64 MiB) to count.
        total_lines: Option<u64>,
        /// Size of the file, in bytes.
        size: u64,
        /// There are lines after those in `content`, or a line was cut.
        truncated: bool,
        /// The SHA-256 of the whole file; absent when it is too long (over 32 MiB) to hash.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
        sha256: Option<Sha256Hex>,
    },
    /// A directory.
    Directory {
        /// Names, sorted, directories with a final `/`, one a line.
        content: String,
        /// How many names `content` has.
        entries: u64,
        /// There are more.
        truncated: bool,
    },
    /// A file that is not text.
    Binary {
        /// Size, in bytes.
        size: u64,
        /// The media type, from the contents or the name.
        mime_type: String,
    },
}

/// Writes a whole file, atomically. Parents are made; a file that is replaced keeps its permissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WriteRequest {
    /// The file. A symbolic link is followed and stays a link.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub file_path: GuestPath,
    /// All of its contents.
    pub content: String,
    /// The SHA-256 that the file's contents have to have, in hexadecimal: where they have another, nothing is written.
    /// `read`, `write` and `edit` answer it. Without it whatever stands there is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, pattern = "^[0-9a-fA-F]{64}$"))]
    pub expected_sha256: Option<Sha256Hex>,
}

/// The result of a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WriteResult {
    /// The absolute path.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub file_path: GuestPath,
    /// The file's size now, in bytes.
    pub bytes_written: u64,
    /// No file stood there before.
    pub created: bool,
    /// The SHA-256 of its contents now; absent from guests that are older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub sha256: Option<Sha256Hex>,
}

/// Replaces text in a file. Calls that change one file at the same time are done one after another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EditRequest {
    /// The file.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub file_path: GuestPath,
    /// The text to find, exactly. It must occur once, unless `replace_all` is set.
    pub old_string: String,
    /// The text to put in its place.
    pub new_string: String,
    /// Replace every occurrence.
    #[serde(default)]
    pub replace_all: bool,
}

/// The result of an edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EditResult {
    /// The absolute path.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub file_path: GuestPath,
    /// How many occurrences were replaced.
    pub replacements: u64,
    /// How many lines of the file the occurrences touched.
    pub lines_changed: u64,
    /// The SHA-256 of the file's contents now; absent from guests that are older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub sha256: Option<Sha256Hex>,
}

/// Finds files by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GlobRequest {
    /// A glob such as `src/**/*.rs` or `{a,b}*.py`: with a slash it is matched against paths relative to `path`,
    /// without one against names at any depth.
    pub pattern: String,
    /// The directory to look below; `/workspace` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub path: Option<GuestPath>,
}

/// The files found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GlobResult {
    /// Absolute paths, the file changed last first; at most 1,000.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub files: Vec<GuestPath>,
    /// There are more.
    pub truncated: bool,
}

/// Searches the contents of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GrepRequest {
    /// A regular expression in Rust's (and ripgrep's) syntax.
    pub pattern: String,
    /// The file or directory to search, also an ignored one; `/workspace` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub path: Option<GuestPath>,
    /// Only files that match this glob, which is taken as the tool `glob` does; directories that it names are searched
    /// also where `.gitignore` names them or their names begin with a dot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<String>,
    /// Search what .gitignore and hidden names would leave out, too.
    #[serde(default)]
    pub no_ignore: bool,
    /// Match letters of either case.
    #[serde(default)]
    pub ignore_case: bool,
    /// How many matches at most; 1,000 by default, 10,000 at most.
    #[serde(default, deserialize_with = "crate::whole::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 10_000))]
    pub limit: Option<u64>,
}

/// The lines found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GrepResult {
    /// Matches, sorted by path and line.
    pub matches: Vec<GrepMatch>,
    /// The limit was reached, so that there may be more; or a line was cut.
    pub truncated: bool,
    /// How many files and directories were not looked into, as `.gitignore` or the like names them or their names begin
    /// with a dot. Search them by `no_ignore`, or name them by `path` or `include`.
    #[serde(default)]
    pub left_out: u64,
}

/// One matching line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GrepMatch {
    /// The absolute path.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub file_path: GuestPath,
    /// Counted from 1.
    pub line_number: u64,
    /// The line; of one with over 2,000 characters as many around the match.
    pub line: String,
    /// Something of the line is left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

// An unknown field is refused by the public API, which knows the fields of each action; here `flatten` would not let it
// be seen.
/// Works with the git repository at `path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GitRequest {
    /// The repository; `/workspace` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub path: Option<GuestPath>,
    /// The action to carry out.
    #[serde(flatten)]
    pub action: GitAction,
}

/// The git actions, tagged by `action`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum GitAction {
    /// The changes, and where the branch stands.
    Status {},
    /// The changes as a patch.
    Diff {
        /// Whether to show the staged changes rather than the unstaged ones.
        #[serde(default)]
        staged: bool,
        /// Against this commit, branch or tag.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference: Option<String>,
    },
    /// Records changes.
    Commit {
        /// The commit message.
        message: String,
        /// Paths to stage first, relative to the repository, as `status` answers them; all changes when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<String>>))]
        files: Option<Vec<GuestPath>>,
    },
    /// Sends the branch to its remote.
    Push {
        /// `origin` by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remote: Option<String>,
        /// The current branch by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branch: Option<String>,
    },
    /// Brings the branch up to date, by fast-forward only.
    Pull {
        /// `origin` by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remote: Option<String>,
        /// The current branch by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branch: Option<String>,
    },
    /// Switches to a branch, tag or commit.
    Checkout {
        /// The branch, tag or commit.
        reference: String,
        /// Make the branch first.
        #[serde(default)]
        create: bool,
    },
    /// The newest commits.
    Log {
        /// How many; 20 by default, 1,000 at most.
        #[serde(default, deserialize_with = "crate::whole::option", skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
        /// From this commit, branch or tag.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference: Option<String>,
    },
    /// The branches, or a new one.
    Branch {
        /// Make a branch of this name, without switching to it; absent: list.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
}

impl GitAction {
    /// Whether it changes something: the repository, its working tree or a remote.
    pub fn changes_something(&self) -> bool {
        match self {
            Self::Status {} | Self::Diff { .. } | Self::Log { .. } | Self::Branch { name: None } => false,
            Self::Commit { .. }
            | Self::Push { .. }
            | Self::Pull { .. }
            | Self::Checkout { .. }
            | Self::Branch { name: Some(_) } => true,
        }
    }
}

/// The result of an action, structured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum GitResult {
    /// The changes, and where the branch stands.
    Status {
        /// The branch; absent when HEAD is detached.
        branch: Option<String>,
        /// The commit of HEAD; absent before the first commit.
        commit: Option<String>,
        /// The branch that this one follows.
        upstream: Option<String>,
        /// Commits that upstream does not have.
        ahead: u64,
        /// Commits that only upstream has.
        behind: u64,
        /// Nothing has changed.
        clean: bool,
        /// The paths that have changed.
        files: Vec<GitFile>,
        /// There are more than 10,000 changed paths.
        truncated: bool,
    },
    /// The changes as a patch.
    Diff {
        /// A unified diff, cut after 50 KB.
        diff: String,
        /// The diff was cut.
        truncated: bool,
    },
    /// The commit made.
    Commit {
        /// The commit's full id.
        commit: String,
        /// git's summary.
        summary: String,
    },
    /// The result of a push.
    Push {
        /// git's report.
        summary: String,
    },
    /// The result of a pull.
    Pull {
        /// The commit of HEAD now.
        commit: String,
        /// git's report.
        summary: String,
    },
    /// The result of a checkout: HEAD as it is now.
    Checkout {
        /// The branch; absent when HEAD is detached.
        branch: Option<String>,
        /// The commit.
        commit: Option<String>,
    },
    /// The newest commits.
    Log {
        /// Newest first.
        commits: Vec<GitCommit>,
    },
    /// The branches.
    Branch {
        /// The current one; absent when HEAD is detached.
        current: Option<String>,
        /// All local ones, sorted.
        branches: Vec<String>,
    },
}

/// A changed path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GitFile {
    /// Relative to the repository.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub path: GuestPath,
    /// The two letters of `git status --porcelain`: index and working tree, `.` for unchanged, `??` for untracked.
    pub status: String,
    /// The path before a rename or copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub original_path: Option<GuestPath>,
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GitCommit {
    /// The commit's full id.
    pub commit: String,
    /// Author's name.
    pub author_name: String,
    /// Author's address.
    pub author_email: String,
    /// Author's date, RFC 3339.
    pub authored_at: String,
    /// First line of the message.
    pub subject: String,
    /// The rest of the message.
    pub body: String,
}
