//! The abilities and the health of a provider.

/// How strongly a sandbox is kept apart from the host, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isolation {
    /// The host's kernel, with namespaces and cgroups (runc).
    Container,
    /// An application kernel between the workspace and the host's (gVisor).
    Gvisor,
    /// A virtual machine.
    Hardware,
}

/// The abilities of a provider. A capability that is false makes the call answer `Unsupported`, never something weaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The isolation that a sandbox gets.
    pub isolation: Isolation,
    /// Files survive stop and start.
    pub persistence: bool,
    /// Processes survive pause and unpause.
    pub pause: bool,
    /// The state can be copied into a new sandbox.
    pub snapshots: bool,
    /// Sandboxes can be made ahead of need.
    pub warm_pool: bool,
    /// Limits can be changed on a running sandbox.
    pub live_limits: bool,
    /// The disk limit is enforced rather than watched.
    pub disk_quota: bool,
    /// Guests are kept from the host, private ranges and the metadata address.
    pub network_filter: bool,
}

/// Whether a provider works now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The provider can make sandboxes.
    pub healthy: bool,
    /// The reason why the provider does not work, or what is worth knowing; ends with what to do.
    pub message: String,
    /// Weaknesses of a provider that works, such as a missing `runsc`; each says what to do.
    pub warnings: Vec<String>,
}
