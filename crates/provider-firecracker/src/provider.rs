//! The provider itself: the state that its parts share, and its description.

use std::sync::Arc;

use async_trait::async_trait;
use emergent_provider::{Capabilities, Health, ImageRef, Isolation, Provider, ProviderKind};
use emergent_types::ServerId;

use crate::{
    config::{FirecrackerConfig, Where},
    health::{self, LastHealth},
    manager::{Local, Manager, Remote},
};

/// Workspaces as microVMs.
pub struct FirecrackerProvider {
    pub(crate) manager: Arc<dyn Manager>,
    pub(crate) server: ServerId,
    pub(crate) default_image: ImageRef,
    pub(crate) require_isolation: Isolation,
    pub(crate) last_health: LastHealth,
}

// === impl FirecrackerProvider ===

impl FirecrackerProvider {
    /// Makes a provider. Connects to no manager yet: it may be down now.
    ///
    /// # Errors
    /// When the client of a remote manager cannot be made.
    pub fn new(config: FirecrackerConfig) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let manager: Arc<dyn Manager> = match config.place {
            Where::Local(host) => Arc::new(Local::new(*host)),
            Where::Remote { url, token } => Arc::new(Remote::new(url, token)?),
        };
        Ok(Self {
            manager,
            server: config.server,
            default_image: config.default_image,
            require_isolation: config.require_isolation,
            last_health: LastHealth::default(),
        })
    }
}

#[async_trait]
impl Provider for FirecrackerProvider {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Firecracker
    }

    fn capabilities(&self) -> Capabilities {
        let seen = self.last_health.get();
        Capabilities {
            isolation: seen.as_ref().map_or(Isolation::Container, health::isolation),
            persistence: true,
            pause: true,
            snapshots: true,
            warm_pool: true,
            live_limits: false,
            disk_quota: true,
            network_filter: seen.is_none_or(|seen| seen.network),
        }
    }

    async fn health(&self) -> Health {
        self.last_health.check(&*self.manager).await
    }
}
