//! The types that every crate of the project speaks in: ids, limits, the steps of operations and the faults that tests
//! inject at them.
//!
//! Nothing here knows an engine, a row or a request, so that each crate may use this one.

pub mod error_chain;
pub mod fault;
pub mod id;
pub mod limits;
pub mod network;
pub mod step;

pub use error_chain::error_chain;
pub use fault::{Fault, UnknownStep};
pub use id::{SandboxId, ServerId, SnapshotId, WorkspaceId};
pub use limits::ResourceLimits;
pub use network::NetworkPolicy;
pub use step::{CreateStep, DestroyStep, PullProgress, SnapshotStep, StepObserver, StopStep};
