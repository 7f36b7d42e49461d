//! The kernel's bridges below the networks of workspaces, by which the packet filter knows guests.

use ipnet::IpNet;

/// The bridges of the networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bridges {
    pub(crate) outbound: Bridge,
    pub(crate) isolated: Bridge,
}

/// A network's bridge in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bridge {
    /// The name of the interface.
    pub(crate) name: String,
    /// The addresses of the guests on it.
    pub(crate) subnets: Vec<IpNet>,
}
