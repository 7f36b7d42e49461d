//! The network of microVMs: one TAP interface for each, an address from a pool, and a packet filter around it.
//!
//! [`MachineNetwork`] is what a manager asks for. [`Networks`] does it in the process, which needs `CAP_NET_ADMIN`;
//! [`NetworkClient`] asks a [`helper`] that has it, so that the manager itself has no privilege at all.
//!
//! The kernel is the only record: what belongs to which machine is written on the interfaces themselves, so whatever
//! a process that was killed had half done is found again by the next one.

mod address;
mod client;
mod description;
mod error;
mod filter;
mod forwarding;
pub mod helper;
mod kernel;
mod limits;
mod machine;
mod name;
mod network;
mod networks;
mod nft;
mod resolvers;
mod step;
mod sysctl;
mod tap;
mod wire;

pub use address::{AddressPool, InvalidPool, MacAddress, Subnet};
pub use client::NetworkClient;
pub use error::NetworkError;
pub use limits::{InvalidRateLimit, NetworkLimits, RateLimit, TokenBucket};
pub use machine::MachineId;
pub use name::{TAP_PREFIX, TapName};
pub use network::{AttachRequest, AttachedMachine, Attachment, MachineNetwork, NetworkStatus, TapInterface};
pub use networks::{NetworkConfig, Networks};
pub use resolvers::host_resolvers;
pub use step::NetworkStep;
pub use tap::open_tap;
