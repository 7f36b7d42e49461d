//! The limits on the server's connections.

/// The limits on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    /// In all.
    pub(crate) all: usize,
    /// From one address that is not this machine's; IPv6 addresses of one /64 are one.
    pub(crate) one_address: usize,
}

// === impl ConnectionLimits ===

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { all: 4096, one_address: 256 }
    }
}

impl ConnectionLimits {
    /// These limits as far as so many descriptors suffice: half of them are for everything else.
    pub(crate) fn within(self, descriptors: u64) -> Self {
        let affordable = usize::try_from(descriptors / 2).unwrap_or(usize::MAX).max(16);
        Self { all: self.all.min(affordable), ..self }
    }

    /// Returns the number of calls of one project that may be under way: fewer than there may be connections, so that a
    /// project that has a call under way on each of its own leaves some to others.
    pub(crate) fn calls_of_a_project(self) -> usize {
        self.all.div_ceil(4)
    }

    /// Returns the number of connections reserved for loopback clients.
    pub(crate) fn reserve(self) -> usize {
        self.all.div_ceil(16)
    }
}
