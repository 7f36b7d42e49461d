//! The guest's errors.

use serde::{Deserialize, Serialize};

use crate::GuestPath;

/// The body of every answer of the guest that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct GuestError {
    /// The kind of the failure; stable, for programs.
    pub code: ErrorCode,
    /// The failure in words, and the next step; for people and agents.
    pub message: String,
    /// The request field that is to blame, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The path that is to blame, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<GuestPath>,
}

impl GuestError {
    /// An error that blames no field and no path.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None, path: None }
    }

    /// The same error, blaming a request field.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The same error, blaming a path.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<GuestPath>) -> Self {
        self.path = Some(path.into());
        self
    }
}

/// The kinds of failure, each with one HTTP status ([`ErrorCode::status`]) on the channel and in the public API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed or a value is out of range.
    InvalidRequest,
    /// No such file or directory.
    NotFound,
    /// No execution or child has this id.
    UnknownExecution,
    /// Another execution or child has this id.
    ExecutionExists,
    /// Another call has this id, or it was asked for before this call came.
    CallExists,
    /// The execution or child has ended, or takes no standard input (any more).
    NotRunning,
    /// The path is a directory where a file is needed.
    IsDirectory,
    /// The path is not a directory where one is needed.
    NotADirectory,
    /// Something stands at the path already.
    AlreadyExists,
    /// The workspace's user may not do this.
    PermissionDenied,
    /// `old_string` does not occur.
    StringNotFound,
    /// `old_string` occurs more than once and `replace_all` is not set.
    SeveralMatches,
    /// The file does not hold what the caller expects.
    ContentChanged,
    /// The file is not text.
    BinaryFile,
    /// The file or the request is larger than this tool takes.
    TooLarge,
    /// The command and its environment are longer than the kernel takes.
    ArgumentsTooLong,
    /// No space is left.
    DiskFull,
    /// The limit on processes or memory of the workspace is reached.
    ResourceLimit,
    /// The program that the tool needs is not in the image.
    MissingProgram,
    /// git refused; the message is git's own.
    GitFailed,
    /// The route is not known to this generation of the guest.
    Unsupported,
    /// A defect of the guest, or an input/output error that has no better name.
    Internal,
    /// A kind that a newer guest knows and this build does not.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The HTTP status that carries this kind of failure.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::PermissionDenied => 403,
            Self::NotFound | Self::UnknownExecution | Self::Unsupported => 404,
            Self::ExecutionExists | Self::CallExists | Self::NotRunning | Self::AlreadyExists => 409,
            Self::ContentChanged => 412,
            Self::TooLarge => 413,
            Self::IsDirectory
            | Self::NotADirectory
            | Self::StringNotFound
            | Self::SeveralMatches
            | Self::BinaryFile
            | Self::ArgumentsTooLong
            | Self::MissingProgram
            | Self::GitFailed => 422,
            Self::ResourceLimit => 429,
            Self::Internal | Self::Unknown => 500,
            Self::DiskFull => 507,
        }
    }
}
