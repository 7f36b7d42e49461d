//! The rows: all that this installation knows and keeps.
//!
//! [`Store`] is the whole public face, its methods grouped by concern in [`workspaces`], [`sessions`], [`snapshots`],
//! [`tokens`], [`projects`], [`pulled_images`], [`mcp_servers`](mod@mcp_servers) and [`installation`]. Rows are plain
//! structs; the entities behind them stay in here. One set of queries and migrations serves both databases, SQLite and
//! PostgreSQL.

mod connection;
mod entity;
mod migration;
pub mod model;
mod names;
mod store;
mod time;

pub mod admission;
pub mod audit;
pub mod backup;
pub mod change;
pub mod error;
pub mod forks;
pub mod installation;
pub mod leftovers;
pub mod mcp_servers;
pub mod open;
pub mod projects;
pub mod pulled_images;
pub mod quotas;
pub mod retention;
pub mod servers;
pub mod sessions;
pub mod snapshot_state;
pub mod snapshots;
pub mod tokens;
pub mod usage;
pub mod workspaces;

pub use admission::{Admission, IdempotencyClaim};
pub use audit::{Actor, AuditFilter, AuditKind, AuditOutcome, AuditRow, UnknownAuditWord};
pub use backup::{BackupError, backup};
pub use change::{Changed, WorkspaceChange};
pub use connection::{DatabaseUrl, InvalidDatabaseUrl};
pub use error::{OpenError, StoreError};
pub use forks::ForkAdmission;
pub use installation::DEFAULT_PROJECT;
pub use leftovers::{LeftoverKind, LeftoverRow};
pub use mcp_servers::{
    MCP_SERVERS_ON, McpChangeReach, McpPackage, McpServerAdmission, McpServerChange, McpServerExit, McpServerId,
    McpServerRow, McpServerSpec, McpServerState, McpShare, PackageRegistry, RestartPolicy, UnknownMcpServerState,
};
pub use model::destruction::DestroyReason;
pub use model::grants::{Grants, Scope, Tool, UnknownScope, UnknownTool};
pub use model::idle::{IdleAction, IdlePolicy};
pub use model::ids::{AuditId, ProjectId, SessionId, TokenId};
pub use model::mcp_allow_list::{InvalidMcpName, McpAllowList};
pub use model::page::{Cursor, InvalidCursor, Page, PageRequest};
pub use model::row::{MadeFrom, MadeSandbox, PassedOver, WorkspaceRow};
pub use model::snapshot_row::{NewSnapshotRow, SnapshotRow};
pub use model::state::{ErrorReason, StateKind, UnknownState, WorkspaceState};
pub use model::workspace_spec::WorkspaceSpec;
pub use pulled_images::PulledImage;
pub use quotas::{Measure, Project, Quota, QuotaReached, QuotaUse};
pub use servers::{Engines, LEASE, Renewal, ServerIdentity, ServerRow, TakenOver};
pub use sessions::{Attachment, NewSession, SessionEnd, SessionRow};
pub use snapshot_state::{SnapshotState, SnapshotStateKind, UnknownSnapshotState};
pub use snapshots::{SnapshotAdmission, SnapshotFilter};
pub use store::Store;
pub use tokens::{MOST_TOKENS, NewToken, NewTokenError, Token, TokenFilter};
pub use usage::{UsageSample, UsageTotals};
pub use workspaces::{ListFilter, StartClaim, is_label_key};
