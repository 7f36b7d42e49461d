//! The requirements of a request on its provider, and the reasons why a provider cannot meet them.

use emergent_provider::{Capabilities, Isolation};

/// The requirements that a caller puts on the provider. `None` and false stand for no requirement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requirements {
    /// The weakest isolation that the caller accepts.
    pub isolation: Option<Isolation>,
    /// Files survive stop and start.
    pub persistence: bool,
    /// Processes survive pause and resume.
    pub pause: bool,
    /// The state can be copied into a new workspace.
    pub snapshots: bool,
    /// The disk limit is enforced rather than watched.
    pub disk_quota: bool,
}

/// The reason why a provider cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// This server does not have it.
    Absent(&'static str),
    /// The provider lacks a required ability.
    Lacks(String),
    /// The provider does not work now.
    Unhealthy(String),
}

// === impl Requirements ===

impl Requirements {
    /// Lists the required abilities that a provider lacks, in words; `None` when it has all.
    pub(crate) fn unmet(&self, capabilities: &Capabilities) -> Option<String> {
        let weak = self.isolation.is_some_and(|least| capabilities.isolation < least);
        let lacking = [
            (weak, "isolation"),
            (self.persistence && !capabilities.persistence, "persistence"),
            (self.pause && !capabilities.pause, "pause"),
            (self.snapshots && !capabilities.snapshots, "snapshots"),
            (self.disk_quota && !capabilities.disk_quota, "disk_quota"),
        ];
        let words = lacking.iter().filter(|(lacks, _)| *lacks).map(|(_, word)| *word).collect::<Vec<_>>();
        (!words.is_empty()).then(|| format!("it lacks the required {}", words.join(", ")))
    }
}

// === impl Unavailable ===

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent(reason) => f.write_str(reason),
            Self::Lacks(reason) | Self::Unhealthy(reason) => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_lacks_is_named() {
        let capabilities = Capabilities {
            isolation: Isolation::Gvisor,
            persistence: true,
            pause: false,
            snapshots: false,
            warm_pool: true,
            live_limits: false,
            disk_quota: false,
            network_filter: true,
        };
        assert_eq!(Requirements::default().unmet(&capabilities), None);
        let met = Requirements { isolation: Some(Isolation::Gvisor), persistence: true, ..Requirements::default() };
        assert_eq!(met.unmet(&capabilities), None);
        let unmet = Requirements { isolation: Some(Isolation::Hardware), snapshots: true, ..Requirements::default() };
        assert_eq!(unmet.unmet(&capabilities).as_deref(), Some("it lacks the required isolation, snapshots"));
    }
}
