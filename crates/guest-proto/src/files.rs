//! Raw files: contents of any size and kind, and the entries of directories.

use serde::{Deserialize, Serialize};

use crate::{GuestPath, RunAs, Sha256Hex};

/// Names a path in a query string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathQuery {
    /// Absolute, or relative to `/workspace`.
    pub path: GuestPath,
    /// The user whose rights the file system checks.
    #[serde(default)]
    pub user: RunAs,
}

/// Names the target of an upload in a query string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadQuery {
    /// Absolute, or relative to `/workspace`. Parents are made.
    pub path: GuestPath,
    /// Permission bits; a file that is replaced keeps its own by default, a new one gets 0644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// The user who owns the file.
    #[serde(default)]
    pub user: RunAs,
    /// Replace the file only if its contents have this hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_sha256: Option<Sha256Hex>,
}

/// Names a path in a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PathRequest {
    /// Absolute, or relative to `/workspace`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub path: GuestPath,
}

/// Moves a file or directory, as `rename(2)` does; across file systems too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The file or directory to move.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub from: GuestPath,
    /// The new path. A file at that path is replaced; a directory is not.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub to: GuestPath,
}

/// Removes a file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// The file or directory to remove. A link is removed, not its target.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub path: GuestPath,
    /// Remove a directory with all its contents; otherwise only an empty directory is removed.
    #[serde(default)]
    pub recursive: bool,
}

/// The kind of an entry of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A socket, pipe or device.
    Other,
}

/// A file or directory; a link is described itself, not its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileInfo {
    /// The absolute path.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub path: GuestPath,
    /// The kind of the entry.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// The owner's user id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
    /// When the contents last changed, in milliseconds since 1970.
    pub modified_at_ms: i64,
    /// The target of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub target: Option<GuestPath>,
}

/// The entries of a directory, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileList {
    /// At most 10,000 entries.
    pub entries: Vec<FileInfo>,
    /// Whether there are more entries than were sent.
    pub truncated: bool,
}
