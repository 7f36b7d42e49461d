//! What the provider is told, and which of it cannot be.

use emergent_provider::{Isolation, ServerId};
use ipnet::IpNet;

use crate::GuestBinary;

/// Where Docker listens when nothing else is said.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// What a [`DockerProvider`](crate::DockerProvider) is told.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// The engine's address, as `DOCKER_HOST` has it; the local default socket when absent.
    pub host: Option<String>,
    /// Whose containers these are, where several servers share an engine.
    pub server: ServerId,
    /// The name that gVisor is registered by (`WORKSPACE_GVISOR_RUNTIME`).
    pub runtime: String,
    /// The weakest isolation that is taken (`WORKSPACE_REQUIRE_ISOLATION`); [`Isolation::Container`] takes any.
    pub require_isolation: Isolation,
    /// The network for `outbound` (`WORKSPACE_NETWORK_NAME`), made if missing; one of our own when absent or empty.
    pub network_name: Option<String>,
    /// What guests may reach although it is the host or a private range.
    pub network_allow: Vec<IpNet>,
    /// Registries, as `host` or `host:port`, that projects' images may be pulled from although they are in a private network
    /// (`WORKSPACE_PRIVATE_REGISTRIES`).
    pub private_registries: Vec<String>,
    /// The guest, a static executable for the engine's architecture.
    pub guest_binary: GuestBinary,
}

/// Why a provider cannot be told this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The address is of no kind that is supported.
    #[error("DOCKER_HOST {0:?} is not supported; use unix:///path or tcp://host:port")]
    UnsupportedHost(String),
}

// === impl DockerConfig ===

impl DockerConfig {
    /// The engine's address, checked.
    pub(crate) fn checked_host(&self) -> Result<String, ConfigError> {
        let host = self.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(DEFAULT_HOST);
        let supported = ["unix://", "tcp://", "http://", "npipe://"];
        match supported.iter().any(|scheme| host.starts_with(scheme)) {
            true => Ok(host.to_owned()),
            false => Err(ConfigError::UnsupportedHost(host.to_owned())),
        }
    }
}
