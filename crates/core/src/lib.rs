//! The domain: the life of a workspace. No HTTP types, no Docker types.
//!
//! Start reading at [`Workspaces`], the facade. The rules are pure: `decide` says what an operation means in each state,
//! `verdict` what a difference between row and engine means, `select` which providers may make a workspace.
//! (What a difference between a snapshot's row and the engine means is in `snapshots/verdict`.)
//! Everything else carries them out: the row first, the engine second, the row's success last.

mod activity;
mod admissions;
mod attached;
mod audit;
mod call;
mod capacity;
mod change;
mod config;
mod create;
mod decide;
mod doubts;
mod error;
mod guard;
mod holding;
mod idle;
mod images;
mod inner;
mod lease;
mod leftovers;
mod lifecycle;
mod output;
mod ownership;
mod peers;
mod pool;
mod providers;
mod reconcile;
mod registry;
mod request;
mod retention;
mod select;
mod service;
mod sessions;
mod situation;
mod snapshot;
mod snapshots;
mod status;
mod steps;
mod telemetry;
mod unrecorded;
mod upkeep;
mod usage;
mod validate;
mod verdict;
mod waiting;
mod watch;
mod workspace;

pub use audit::{ArgumentLevel, Audit, AuditConfig, Ending, Origin};
pub use call::{GuestSession, Purpose};
pub use capacity::Capacity;
pub use change::{Expiry, WorkspaceUpdate};
pub use config::CoreConfig;
pub use error::{
    AttachError, CallError, ChangeError, LeftoverError, ListError, LookupError, NewWorkspaceError, SessionError,
    SnapshotError, SnapshotUnusable, StartError, TransitionError, WorkspaceEnd,
};
pub use guard::{Fullness, NoRoom};
pub use holding::{HeldProvider, HoldError, NotHolder, TakeOver};
pub use images::{ImageError, ImageUse, Images, RegistryLogin};
pub use leftovers::{AdoptRequest, Adopted};
pub use peers::{Peer, Whereabouts};
pub use pool::PoolStatus;
pub use request::{IdempotencyKey, IdleRequest, InvalidIdempotencyKey, LimitsRequest, NewWorkspace, Ttl};
pub use select::{DeploymentMode, Requirements, Unavailable};
pub use service::Workspaces;
pub use sessions::{AttachRequest, SessionCall};
pub use snapshot::{NewForks, NewSnapshot, Snapshot};
pub use status::{ProviderStatus, Readiness};
pub use steps::step_names;
pub use usage::UsageHistory;
pub use workspace::Workspace;

pub use emergent_provider::{ServerId, SnapshotId, WorkspaceId};
pub use emergent_store::{
    Actor, AuditFilter, AuditId, AuditKind, AuditOutcome, AuditRow, Cursor, DestroyReason, ErrorReason, IdleAction,
    IdlePolicy, InvalidCursor, LeftoverKind, LeftoverRow, ListFilter, MadeFrom, Page, PageRequest, PassedOver,
    ProjectId, Quota, QuotaReached, QuotaUse, ServerRow, SessionEnd, SessionId, SessionRow, SnapshotFilter,
    SnapshotState, SnapshotStateWord, StateWord, StoreError, TokenId, UnknownSnapshotState, UnknownState, UsageSample,
    UsageTotals, WorkspaceState,
};
