//! Raw files: contents of any size and kind, and what stands in a directory.

use serde::{Deserialize, Serialize};

use crate::{GuestPath, RunAs, Sha256Hex};

/// Names a path in a query string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathQuery {
    /// Absolute, or relative to `/workspace`.
    pub path: GuestPath,
    /// Whom the file system sees.
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
    /// Who owns the file.
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
    /// What to move.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub from: GuestPath,
    /// Its new path. A file that stands there is replaced; a directory is not.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub to: GuestPath,
}

/// Removes a file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// What to remove. A link is removed, not what it points to.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub path: GuestPath,
    /// Take a directory with all that is in it; without it only an empty directory is removed.
    #[serde(default)]
    pub recursive: bool,
}

/// What stands at a path.
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

/// A file or directory, its link not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileInfo {
    /// The absolute path.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub path: GuestPath,
    /// What stands there.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change, in milliseconds since 1970.
    pub modified_at_ms: i64,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub target: Option<GuestPath>,
}

/// What stands in a directory, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileList {
    /// At most 10,000 entries.
    pub entries: Vec<FileInfo>,
    /// There are more entries than were sent.
    pub truncated: bool,
}
