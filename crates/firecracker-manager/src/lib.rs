//! Sandboxes as microVMs: a self-hosted service with a small REST API.
//!
//! - [`sandboxes`]: the domain. What may be done with a sandbox, each operation safe against a crash at any step.
//! - [`record`], [`layout`]: what is on disk, which is all that there is to know.
//! - [`admission`]: whether there is room for one more machine.
//! - [`http`]: the REST API over it.
//!
//! What runs machines is `emergent-microvm`'s, what connects them is put in from outside, and what happens inside is the
//! guest's.

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
pub use error::{SandboxError, chain};
pub use host::{DriverChoice, Host, HostError, NetworkChoice};
pub use id::SandboxId;
pub use network::{HostInterfaces, Interfaces, NetworkError, NoInterfaces};
pub use record::{NetworkWord, Phase, Record};
pub use request::{NewSandbox, Origin};
pub use sandboxes::{Capacity, NewSnapshot, Parts, Sandboxes, SnapshotInfo, StartError};
