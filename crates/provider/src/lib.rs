//! The interface that every way of making workspaces implements.
//!
//! A [`Provider`] drives one engine (Docker, a VMM, a cloud). It knows nothing of rows, tokens or HTTP: it makes,
//! starts, stops and removes what the engine calls a sandbox, says what the engine has, and opens byte streams to the
//! guest inside. Everything else is above it.

pub mod capabilities;
pub mod channel;
pub mod error;
pub mod holder;
pub mod host;
pub mod image;
pub mod observed;
pub mod origin;
pub mod owner;
pub mod provider;
pub mod snapshots;
pub mod spec;

pub use capabilities::{Capabilities, Health, Isolation};
pub use channel::{ByteStream, Duplex};
pub use error::{ChannelError, CreateError, OperationError};
pub use holder::{HOLDER_ALIVE, Holder, HolderRecord, Holders, newest_of_each};
pub use host::HostRoom;
pub use image::{ImageRef, InvalidImage};
pub use observed::{EngineEvent, EngineEventKind, EngineState, ExitReason, Observed};
pub use origin::Origin;
pub use owner::{KIND_LABEL, Owner, SERVER_LABEL, WORKSPACE_LABEL};
pub use provider::{Channels, Created, Inventory, Lifecycle, Provider, ProviderKind, UsedImage};
pub use snapshots::{ObservedSnapshot, SnapshotSpec, Snapshots, TakeError, Taken};
pub use spec::{ContainerKind, ImageAccess, ImageCommand, NamedVolume, RegistryCredentials, SandboxSpec, VolumeSource};
