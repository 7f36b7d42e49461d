//! The networks that a sandbox may reach.

/// The networks that a sandbox may reach. The words mean the same on every provider; the server's own channel always
/// works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NetworkPolicy {
    /// Nothing: loopback only.
    None,
    /// A network interface, but nothing beyond it: no internet, no other sandbox, not the host.
    Isolated,
    /// The internet, but not the host, private ranges, the metadata address or other sandboxes.
    #[default]
    Outbound,
}

// === impl NetworkPolicy ===

impl NetworkPolicy {
    /// All policies.
    pub const ALL: [Self; 3] = [Self::None, Self::Isolated, Self::Outbound];

    /// The word for it in rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Isolated => "isolated",
            Self::Outbound => "outbound",
        }
    }
}
