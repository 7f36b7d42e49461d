//! The status of the service and of its providers.

use emergent_provider::{Capabilities, ProviderKind};

/// The service's readiness for calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The service still reconciles the state that an earlier process left.
    Reconciling,
    /// The service takes calls.
    Ready,
    /// The service takes calls to its workspaces, and makes no new workspaces.
    Draining,
    /// The service is shutting down.
    ShuttingDown,
}

/// The status of a provider.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderStatus {
    /// The provider's kind.
    pub kind: ProviderKind,
    /// Whether this server has the provider.
    pub registered: bool,
    /// Whether the provider can make sandboxes, as of the last health request.
    pub healthy: bool,
    /// The reason why the automatic choice leaves the provider out at present although it reports good health.
    pub quarantine: Option<String>,
    /// The reason why the provider is unhealthy, or a remark on a healthy one.
    pub message: String,
    /// Weaknesses of a provider that works.
    pub warnings: Vec<String>,
    /// The provider's capabilities; `None` for a provider that is not registered.
    pub capabilities: Option<Capabilities>,
    /// The number of the provider's agent workspaces that are creating, ready or paused.
    pub active: u64,
}
