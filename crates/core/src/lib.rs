//! The domain: the life of a workspace. No HTTP types, no Docker types.
//!
//! Start reading at [`Workspaces`], the facade, and at `orchestrator`, which builds the concerns from the bottom up:
//! each holds the few handles that it needs, and knows no concern above it.
//!
//! Three modules hold rules without IO: `workspace/transitions` the effect of an operation in each state,
//! `lifecycle/reconcile_action` the correction of a difference between a row and the engine (for snapshots
//! `snapshots/reconcile_action`), `placement/selection` the providers that may make a workspace. The other modules carry
//! the rules out: the row first, the engine second, the row's success last.

mod audit;
mod background;
mod calls;
mod cluster;
mod config;
mod creation;
mod foundation;
mod guests;
mod idempotency;
mod idle;
mod leftovers;
mod lifecycle;
mod orchestrator;
mod placement;
mod pool;
mod quota;
mod reconcile;
mod recorder;
mod retention;
mod service;
mod sessions;
mod snapshots;
mod tasks;
mod telemetry;
mod usage;
mod workspace;

pub use audit::{ArgumentLevel, Audit, AuditConfig, AuditEnd, Origin};
pub use calls::{
    CallError, WorkspaceEnd,
    guest_session::{GuestSession, Purpose},
};
pub use cluster::holding::{HeldProvider, HoldError, NotHolder, TakeOver};
pub use cluster::servers::{Peer, Servers, WorkspaceOwner};
pub use config::CoreConfig;
pub use creation::{NewWorkspaceError, SnapshotUnusable};
pub use foundation::StartError;
pub use idempotency::{IdempotencyKey, InvalidIdempotencyKey};
pub use leftovers::{AdoptRequest, Adopted, LeftoverError, Leftovers};
pub use lifecycle::TransitionError;
pub use placement::images::{ImageError, ImageUse, Images, RegistryLogin};
pub use placement::status::{ProviderStatus, Readiness};
pub use placement::{
    providers::DeploymentMode,
    requirements::{Requirements, Unavailable},
};
pub use pool::PoolStatus;
pub use quota::capacity::Capacity;
pub use quota::host_guard::NoRoom;
pub use service::Workspaces;
pub use sessions::{AttachError, AttachRequest, SessionCall, SessionError, Sessions};
pub use snapshots::request::{NewForks, NewSnapshot};
pub use snapshots::{SnapshotError, Snapshots};
pub use usage::UsageHistory;
pub use workspace::Workspace;
pub use workspace::change::{ChangeError, Expiry, WorkspaceUpdate};
pub use workspace::fullness::Fullness;
pub use workspace::lookup::{ListError, LookupError};
pub use workspace::request::{IdleRequest, LimitsRequest, NewWorkspace, Ttl};
pub use workspace::steps::step_names;

pub use emergent_store::{
    Actor, AuditFilter, AuditId, AuditKind, AuditOutcome, AuditRow, Cursor, DestroyReason, ErrorReason, IdleAction,
    IdlePolicy, InvalidCursor, LeftoverKind, LeftoverRow, ListFilter, MadeFrom, Page, PageRequest, PassedOver,
    ProjectId, Quota, QuotaReached, QuotaUse, ServerRow, SessionEnd, SessionId, SessionRow, SnapshotFilter,
    SnapshotRow, SnapshotState, SnapshotStateKind, StateKind, StoreError, TokenId, UnknownSnapshotState, UnknownState,
    UsageSample, UsageTotals, WorkspaceState,
};
pub use emergent_types::{ServerId, SnapshotId, WorkspaceId};
