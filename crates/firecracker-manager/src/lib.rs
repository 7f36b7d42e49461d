//! Sandboxes as microVMs: a self-hosted service with a small REST API.
//!
//! - [`sandboxes`]: the domain: the operations on a sandbox, each safe against a crash at any step.
//! - [`record`], [`layout`]: the state on disk, from which memory is rebuilt after a restart.
//! - [`admission`]: the check whether there is room for one more machine.
//! - [`http`]: the REST API over it.
//!
//! `emergent-microvm` runs the machines, networks are passed in from outside, and the guest acts inside the machines.

pub mod admission;
pub mod config;
pub mod error;
pub mod host;
pub mod http;
pub mod id;
pub mod layout;
pub mod network;
pub mod record;
pub mod request;
pub mod sandboxes;
pub mod step;
pub mod template;

pub use config::ManagerConfig;
pub use emergent_microvm::JailChoice;
pub use error::SandboxError;
pub use host::{DriverChoice, Host, HostError, NetworkChoice};
pub use id::SandboxId;
pub use network::{HostInterfaces, Interfaces, NetworkError, NoInterfaces};
pub use record::{NetworkWord, Phase, Record};
pub use request::{NewSandbox, Origin};
pub use sandboxes::{Capacity, NewSnapshot, Parts, Sandboxes, SnapshotInfo, StartError};
