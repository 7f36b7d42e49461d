//! The provider itself: its making, and its description.

use std::sync::Arc;

use async_trait::async_trait;
use emergent_provider::{Capabilities, Health, Isolation, Provider, ProviderKind};

use crate::{
    config::{ConfigError, DockerConfig},
    facts::Runtime,
    health,
    parts::Parts,
};

/// Workspaces as containers of one Docker Engine.
pub struct DockerProvider {
    pub(crate) parts: Arc<Parts>,
}

// === impl DockerProvider ===

impl DockerProvider {
    /// Makes a provider for the engine that `config` names. Does not connect to the engine: it may be down now.
    ///
    /// # Errors
    /// [`ConfigError`] when the address can never work.
    pub fn connect(config: DockerConfig) -> Result<Self, ConfigError> {
        Ok(Self { parts: Arc::new(Parts::new(config)?) })
    }
}

#[async_trait]
impl Provider for DockerProvider {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Docker
    }

    fn capabilities(&self) -> Capabilities {
        let runtime = self.parts.known_facts().map(|facts| facts.runtime.clone());
        let is_gvisor = matches!(runtime, Some(Runtime::Gvisor(_)));
        Capabilities {
            isolation: runtime.map_or(Isolation::Container, |runtime| runtime.isolation()),
            persistence: self.parts.root_probe.keeps_root(),
            pause: true,
            snapshots: self.parts.root_probe.keeps_root(),
            warm_pool: true,
            live_limits: !is_gvisor,
            disk_quota: false,
            network_filter: self.parts.networks.is_filtered(),
        }
    }

    async fn health(&self) -> Health {
        health::check(&self.parts).await
    }
}
