//! How the service and its providers are.

use emergent_provider::{Capabilities, ProviderKind};

/// Whether the service takes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// What an earlier process left is still being looked at.
    Reconciling,
    /// It takes calls.
    Ready,
    /// It takes calls to the workspaces that it has, and no new ones.
    Draining,
    /// It is going down.
    ShuttingDown,
}

/// How a provider is.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderStatus {
    /// Which one.
    pub kind: ProviderKind,
    /// Whether this server has it.
    pub registered: bool,
    /// Whether it can make sandboxes, as last asked.
    pub healthy: bool,
    /// Why automatic choice leaves it out just now although it says that it works.
    pub quarantine: Option<String>,
    /// Why not, or what is worth knowing.
    pub message: String,
    /// What weakens it though it works.
    pub warnings: Vec<String>,
    /// What it can do; `None` for one that is not registered.
    pub capabilities: Option<Capabilities>,
    /// Its agent workspaces that are creating, ready or paused.
    pub active: u64,
}
