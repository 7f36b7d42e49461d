//! The provider's settings, and the errors of settings that cannot work.

use emergent_provider::Isolation;
use emergent_types::ServerId;
use ipnet::IpNet;

use crate::GuestBinary;

/// The engine's address unless the operator sets one.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// The settings of a [`DockerProvider`](crate::DockerProvider).
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// The engine's address, as `DOCKER_HOST` has it; the local default socket when absent.
    pub host: Option<String>,
    /// The server that owns the containers, where several servers share an engine.
    pub server: ServerId,
    /// The name under which gVisor is registered with the engine (`WORKSPACE_GVISOR_RUNTIME`).
    pub runtime: String,
    /// The weakest isolation that is admitted (`WORKSPACE_REQUIRE_ISOLATION`); [`Isolation::Container`] admits any.
    pub require_isolation: Isolation,
    /// The network for `outbound` (`WORKSPACE_NETWORK_NAME`), made if missing; one of our own when absent or empty.
    pub network_name: Option<String>,
    /// The networks that guests may reach although they belong to the host or to a private range.
    pub network_allow: Vec<IpNet>,
    /// Registries, as `host` or `host:port`, that projects' images may be pulled from although they are in a private
    /// network (`WORKSPACE_PRIVATE_REGISTRIES`).
    pub private_registries: Vec<String>,
    /// The guest, a static executable for the engine's architecture.
    pub guest_binary: GuestBinary,
}

/// The reason why these settings are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The address is of a kind that is not supported.
    #[error("DOCKER_HOST {0:?} is not supported; use unix:///path or tcp://host:port")]
    UnsupportedHost(String),
}

// === impl DockerConfig ===

impl DockerConfig {
    /// Returns the engine's address, checked.
    pub(crate) fn checked_host(&self) -> Result<String, ConfigError> {
        let host = self.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(DEFAULT_HOST);
        let supported = ["unix://", "tcp://", "http://", "npipe://"];
        match supported.iter().any(|scheme| host.starts_with(scheme)) {
            true => Ok(host.to_owned()),
            false => Err(ConfigError::UnsupportedHost(host.to_owned())),
        }
    }
}
