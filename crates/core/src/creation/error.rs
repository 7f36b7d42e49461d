//! The errors of creating a workspace.

use std::time::Duration;

use emergent_provider::{ContainerKind, ImageRef, ProviderKind};
use emergent_store::{QuotaReached, SnapshotStateKind, StoreError};
use emergent_types::{ServerId, WorkspaceId};

use crate::{
    audit::AuditEnd,
    placement::requirements::Unavailable,
    quota::host_guard::NoRoom,
    workspace::{
        messages::{name_taken, no_place},
        validate::InvalidField,
    },
};

/// The reason for which no workspace was made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum NewWorkspaceError {
    /// The server takes no new workspaces.
    #[error("this server is draining and takes no new workspaces; {}", where_else(.others))]
    Draining {
        /// The servers that do.
        others: Vec<String>,
    },
    /// Workspaces are switched off.
    #[error("workspaces are switched off; set ENABLE_AGENT_WORKSPACES=true")]
    Disabled,
    /// The request asks for something that cannot be.
    #[error("{field}: {message}")]
    Invalid {
        /// The field that is to blame, such as `limits.cpu`.
        field: String,
        /// The values that the field takes.
        message: String,
    },
    /// The operator does not allow the image.
    #[error("image {image} is not allowed here; WORKSPACE_ALLOWED_IMAGES says which are")]
    ImageNotAllowed {
        /// The image.
        image: ImageRef,
    },
    /// Another workspace of the project has the name.
    #[error("{}", name_taken(.holder))]
    NameTaken {
        /// That workspace.
        holder: WorkspaceId,
    },
    /// There are as many workspaces of its kind as there may be.
    #[error("{}", no_place(*.kind, *.limit))]
    LimitReached {
        /// Of which kind.
        kind: ContainerKind,
        /// The most workspaces of that kind.
        limit: u32,
        /// When to try again.
        retry_after: Duration,
    },
    /// The project may not have that much more.
    #[error("{reached}")]
    OverQuota {
        /// The quota.
        reached: QuotaReached,
        /// When to try again.
        retry_after: Duration,
    },
    /// The machine under the engine has no room for more.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// No provider can make it now, or ever: `reasons` has each one that came into question.
    #[error("{}", told(.reasons))]
    NoProvider {
        /// The request named the one that it wants.
        named: bool,
        /// Each provider, and why not.
        reasons: Vec<(ProviderKind, Unavailable)>,
    },
    /// The snapshot that it is to be made from cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotUnusable),
    /// Another request came before with the same idempotency key.
    #[error("this Idempotency-Key was used for a different request in the last 24 hours")]
    IdempotencyMismatch,
    /// The server is going down.
    #[error("the server is shutting down; try again shortly")]
    ShuttingDown,
    /// The store failed.
    #[error("the workspace could not be recorded")]
    Store(#[from] StoreError),
}

/// The reason for which nothing can be made from a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotUnusable {
    /// The project has no such snapshot.
    #[error("there is no such snapshot")]
    NotFound,
    /// The snapshot is not ready.
    #[error("the snapshot is in state {0}; only one that is ready can be used")]
    NotReady(SnapshotStateKind),
    /// Another server keeps it.
    #[error("server {0} of this installation keeps the snapshot; ask that one")]
    Elsewhere(ServerId),
}

fn where_else(others: &[String]) -> String {
    match others {
        [] => "no other server is there; end it with `emergent server undrain`".to_owned(),
        others => format!("ask {}", others.join(" or ")),
    }
}

fn told(reasons: &[(ProviderKind, Unavailable)]) -> String {
    if let [(provider, why)] = reasons {
        return format!("provider {provider} is not available: {why}");
    }
    let reasons = reasons.iter().map(|(provider, why)| format!("{provider}: {why}"));
    format!("no provider is available: {}", reasons.collect::<Vec<_>>().join("; "))
}

// === impl NewWorkspaceError ===

impl From<InvalidField> for NewWorkspaceError {
    fn from(InvalidField { field, message }: InvalidField) -> Self {
        Self::Invalid { field, message }
    }
}

// === impl AuditEnd ===

impl From<&NewWorkspaceError> for AuditEnd {
    fn from(error: &NewWorkspaceError) -> Self {
        match error {
            NewWorkspaceError::Disabled => Self::refused("workspaces-disabled"),
            NewWorkspaceError::Draining { .. } => Self::refused("server-draining"),
            NewWorkspaceError::Invalid { .. } => Self::refused("invalid-value"),
            NewWorkspaceError::ImageNotAllowed { .. } => Self::refused("image-not-allowed"),
            NewWorkspaceError::NameTaken { .. } => Self::refused("name-taken"),
            NewWorkspaceError::LimitReached { .. } => Self::refused("limit-reached"),
            NewWorkspaceError::OverQuota { .. } => Self::refused("quota-reached"),
            NewWorkspaceError::NoRoom(NoRoom::Disk { .. }) => Self::refused("host-disk-full"),
            NewWorkspaceError::NoRoom(NoRoom::Tasks { .. }) => Self::refused("host-full"),
            NewWorkspaceError::NoProvider { .. } => Self::failed("no-provider"),
            NewWorkspaceError::Snapshot(error) => error.into(),
            NewWorkspaceError::IdempotencyMismatch => Self::refused("idempotency-mismatch"),
            NewWorkspaceError::ShuttingDown => Self::refused("not-ready"),
            NewWorkspaceError::Store(_) => Self::failed("store-unavailable"),
        }
    }
}

impl From<&SnapshotUnusable> for AuditEnd {
    fn from(error: &SnapshotUnusable) -> Self {
        match error {
            SnapshotUnusable::NotFound => Self::refused("snapshot-not-found"),
            SnapshotUnusable::NotReady(_) | SnapshotUnusable::Elsewhere(_) => Self::refused("snapshot-unusable"),
        }
    }
}
