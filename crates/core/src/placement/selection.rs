//! The providers that may make a workspace, and the order in which they are tried.

use emergent_provider::{Capabilities, ContainerKind, Isolation, ProviderKind};

/// The kind of deployment (`WORKSPACE_DEPLOYMENT_MODE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeploymentMode {
    /// On machines of the users' own: local providers go before a cloud.
    #[default]
    SelfHosted,
    /// As a managed service: the cloud goes first.
    Managed,
}

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

/// Returns the candidate providers, in order. A provider that the request names stands alone: it never falls back to
/// another.
pub(crate) fn candidates(
    named: Option<ProviderKind>,
    container: ContainerKind,
    mode: DeploymentMode,
) -> Vec<ProviderKind> {
    use ProviderKind::{Docker, E2b, Firecracker};
    match (named, container, mode) {
        (Some(provider), _, _) => vec![provider],
        // Hosted servers stay for long and are many: containers suit them best.
        (None, ContainerKind::McpServer, DeploymentMode::SelfHosted) => vec![Docker, Firecracker, E2b],
        (None, ContainerKind::McpServer, DeploymentMode::Managed) => vec![Docker, E2b, Firecracker],
        (None, ContainerKind::AgentWorkspace, DeploymentMode::SelfHosted) => vec![Firecracker, Docker, E2b],
        (None, ContainerKind::AgentWorkspace, DeploymentMode::Managed) => vec![E2b, Firecracker, Docker],
    }
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
    fn mode_and_kind_decide_the_order() {
        use ProviderKind::{Docker, E2b, Firecracker};
        let order = |container, mode| candidates(None, container, mode);
        let (own, cloud) = (DeploymentMode::SelfHosted, DeploymentMode::Managed);
        assert_eq!(order(ContainerKind::AgentWorkspace, own), [Firecracker, Docker, E2b]);
        assert_eq!(order(ContainerKind::AgentWorkspace, cloud), [E2b, Firecracker, Docker]);
        assert_eq!(order(ContainerKind::McpServer, own)[0], Docker);
        assert_eq!(order(ContainerKind::McpServer, cloud)[0], Docker);
    }

    #[test]
    fn a_named_provider_stands_alone() {
        for provider in ProviderKind::ALL {
            for mode in [DeploymentMode::SelfHosted, DeploymentMode::Managed] {
                assert_eq!(candidates(Some(provider), ContainerKind::AgentWorkspace, mode), [provider]);
            }
        }
    }

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
