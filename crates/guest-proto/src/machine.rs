//! What a host says to a guest that is PID 1 of a virtual machine.
//!
//! The host configures such a guest by words on the kernel's command line, each `emergent.NAME=VALUE`, and once more by
//! [`Restored`] after the machine has been restored: what is on the command line is part of the memory that was saved.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use serde::{Deserialize, Serialize};

/// What the name of a virtio-serial port begins with that carries a channel; a number follows.
pub const PORT_PREFIX: &str = "emergent.";

/// The vsock port that the guest listens on for channels.
pub const VSOCK_PORT: u32 = 7070;

/// Random bytes that a restored guest is given at the least, and at the most.
pub const ENTROPY_BYTES: std::ops::RangeInclusive<usize> = 32..=512;

/// Written to the console, on a line of its own, by a guest that was booted only to see whether it boots.
pub const PROBE_ANSWER: &str = "emergent: this machine boots";

/// What a restored guest has to know before it is used.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The time now, in milliseconds since 1970.
    pub now_ms: u64,
    /// Bytes from the host's random number generator, as base64: [`ENTROPY_BYTES`] of them.
    pub entropy: String,
    /// Whether this machine is a copy of one that goes on elsewhere, and must not be taken for it: the guest draws
    /// another `boot_id`. Left out for a machine that goes on itself, whose callers know it by its old one.
    #[serde(default)]
    pub copy: bool,
    /// The host name from now on; absent, it stays.
    #[serde(default)]
    pub host_name: Option<String>,
    /// What `/etc/machine-id` says from now on, as 32 hexadecimal digits; absent, it stays.
    #[serde(default)]
    pub machine_id: Option<String>,
    /// The network from now on; absent, it stays.
    #[serde(default)]
    pub network: Option<NetworkSettings>,
}

/// How a guest uses its network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSettings {
    /// The interface's hardware address, as `02:00:0a:00:00:02`; absent, it stays.
    #[serde(default)]
    pub mac: Option<String>,
    /// Its address.
    pub address: Ipv4Addr,
    /// How many bits of it are the network's.
    pub prefix: u8,
    /// Where everything else is sent.
    pub gateway: Ipv4Addr,
    /// Name servers, the first one first.
    #[serde(default)]
    pub name_servers: Vec<IpAddr>,
}

// === impl Restored ===

impl fmt::Debug for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { now_ms, entropy: _, copy, host_name, machine_id, network } = self;
        f.debug_struct("Restored")
            .field("now_ms", now_ms)
            .field("copy", copy)
            .field("host_name", host_name)
            .field("machine_id", machine_id)
            .field("network", network)
            .finish_non_exhaustive()
    }
}
