//! The choice of the provider that makes a workspace, and the fallback to the next one.

use emergent_provider::{ContainerKind, ProviderKind};
use emergent_store::PassedOver;
use futures::{StreamExt as _, stream};

use crate::placement::{
    providers::{DeploymentMode, Providers, why_absent},
    requirements::{Requirements, Unavailable},
};

/// The requirements of a request on its provider.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) named: Option<ProviderKind>,
    pub(crate) container: ContainerKind,
    pub(crate) requirements: Requirements,
}

/// The provider to try now, the providers passed over before it, and those left to try.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) provider: ProviderKind,
    pub(crate) passed_over: Vec<PassedOver>,
    rest: Vec<ProviderKind>,
    requirements: Requirements,
}

/// The reasons why no provider can be tried: each provider with its reason.
pub(crate) type Unselected = Vec<(ProviderKind, Unavailable)>;

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

// === impl Choice ===

impl Choice {
    /// Makes a choice of this provider alone.
    pub(crate) fn only(provider: ProviderKind) -> Self {
        Self { provider, passed_over: Vec::new(), rest: Vec::new(), requirements: Requirements::default() }
    }

    /// Returns whether no other provider is or was a candidate.
    pub(crate) fn is_alone(&self) -> bool {
        self.passed_over.is_empty() && self.rest.is_empty()
    }
}

// === impl Providers ===

impl Providers {
    /// Chooses the first provider for a new workspace. Asks all candidates at once.
    pub(crate) async fn choose(&self, wanted: Wanted) -> Result<Choice, Unselected> {
        let Wanted { named, container, requirements } = wanted;
        let order = candidates(named, container, self.mode);
        let asked = stream::iter(order).map(async |kind| (kind, self.is_available(kind, named, &requirements).await));
        let mut reasons = Vec::new();
        let mut asked = asked.buffered(ProviderKind::ALL.len()).collect::<Vec<_>>().await.into_iter();
        while let Some((provider, available)) = asked.next() {
            match available {
                Ok(()) => {
                    let passed_over = reasons.into_iter().map(passed_over).collect();
                    let rest = asked.map(|(kind, _)| kind).collect();
                    return Ok(Choice { provider, passed_over, rest, requirements });
                }
                Err(why) => reasons.push((provider, why)),
            }
        }
        Err(reasons)
    }

    /// Returns the next choice after the chosen provider has failed; an error when none is left to try.
    pub(crate) async fn fall_back(&self, choice: Choice, failure: String) -> Result<Choice, Vec<PassedOver>> {
        let Choice { provider, mut passed_over, rest, requirements } = choice;
        passed_over.push(PassedOver { provider, reason: failure });
        let mut rest = rest.into_iter();
        while let Some(provider) = rest.next() {
            match self.is_available(provider, None, &requirements).await {
                Ok(()) => {
                    return Ok(Choice { provider, passed_over, rest: rest.collect(), requirements });
                }
                Err(why) => {
                    passed_over.push(PassedOver { provider, reason: why.to_string() });
                }
            }
        }
        Err(passed_over)
    }

    /// Returns whether a provider can be tried. A quarantine does not count for a request that names the provider.
    async fn is_available(
        &self,
        kind: ProviderKind,
        named: Option<ProviderKind>,
        requirements: &Requirements,
    ) -> Result<(), Unavailable> {
        let registered = self.get(kind).ok_or(Unavailable::Absent(why_absent(kind)))?;
        match registered.quarantined() {
            Some(reason) if named.is_none() => Err(Unavailable::Unhealthy(reason)),
            _ => registered.is_available(requirements).await,
        }
    }
}

fn passed_over((provider, why): (ProviderKind, Unavailable)) -> PassedOver {
    PassedOver { provider, reason: why.to_string() }
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
}
