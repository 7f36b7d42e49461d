//! The settings that a host gives to a guest that is PID 1 of a virtual machine.
//!
//! The host passes them as words on the kernel's command line, each `emergent.NAME=VALUE`, and passes them again with
//! [`Restored`] after the machine has been restored: the command line is part of the saved memory and may be outdated.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use serde::{Deserialize, Serialize};

/// The prefix of the name of a virtio-serial port that carries a channel; a number follows.
pub const PORT_PREFIX: &str = "emergent.";

/// The vsock port that the guest listens on for channels.
pub const VSOCK_PORT: u32 = 7070;

/// The least and the most random bytes that a restored guest is given.
pub const ENTROPY_BYTES: std::ops::RangeInclusive<usize> = 32..=512;

/// A line that a guest writes to the console if it was booted only to test whether the machine boots.
pub const PROBE_ANSWER: &str = "emergent: this machine boots";

/// The facts that a restored guest needs before it is used.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The time now, in milliseconds since 1970.
    pub now_ms: u64,
    /// Bytes from the host's random number generator, as base64: [`ENTROPY_BYTES`] of them.
    pub entropy: String,
    /// Whether this machine is a copy of another that goes on elsewhere, and must not be mistaken for it: the guest
    /// draws a new `boot_id`. Left out for a machine that goes on itself, which its callers know by its old `boot_id`.
    #[serde(default)]
    pub copy: bool,
    /// The host name from now on; absent: it stays.
    #[serde(default)]
    pub host_name: Option<String>,
    /// The contents of `/etc/machine-id` from now on, as 32 hexadecimal digits; absent: they stay.
    #[serde(default)]
    pub machine_id: Option<String>,
    /// The network settings from now on; absent: they stay.
    #[serde(default)]
    pub network: Option<NetworkSettings>,
}

/// How a guest uses its network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSettings {
    /// The interface's hardware address, as `02:00:0a:00:00:02`; absent: it stays.
    #[serde(default)]
    pub mac: Option<String>,
    /// The interface's address.
    pub address: Ipv4Addr,
    /// The length of the network's prefix, in bits of the address.
    pub prefix: u8,
    /// The router to all other networks.
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
