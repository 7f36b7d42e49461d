//! The requests that make workspaces.

use std::{collections::BTreeMap, fmt, time::Duration};

use emergent_provider::{ContainerKind, ImageRef, ProviderKind};
use emergent_store::IdleAction;
use emergent_types::{NetworkPolicy, SnapshotId};

use crate::placement::requirements::Requirements;

/// A request for a workspace. The settings decide every field that is `None`. The `Debug` output hides the values of
/// the environment.
#[derive(Clone, PartialEq)]
pub struct NewWorkspace {
    /// A display name.
    pub name: Option<String>,
    /// Labels for people and programs.
    pub labels: BTreeMap<String, String>,
    /// The workspace's purpose.
    pub kind: ContainerKind,
    /// The provider that makes the workspace. A provider that the request names never falls back to another.
    pub provider: Option<ProviderKind>,
    /// The image that the workspace runs.
    pub image: Option<ImageRef>,
    /// The snapshot that the workspace is made from. Fields that the request leaves open are then those of the
    /// snapshot's workspace, and the image cannot be chosen.
    pub snapshot: Option<SnapshotId>,
    /// The resource limits.
    pub limits: LimitsRequest,
    /// The networks that the workspace may reach.
    pub network: Option<NetworkPolicy>,
    /// The environment, in addition to the image's own. Values may be secrets: they reach the guest and nothing else.
    pub environment: BTreeMap<String, String>,
    /// Whether calls may run commands as root inside; `None` means no.
    pub allow_root: Option<bool>,
    /// The workspace's lifetime, from its creation.
    pub ttl: Option<Ttl>,
    /// The abilities that the provider must have.
    pub requirements: Requirements,
    /// The idle policy: the action on a workspace that nobody uses.
    pub idle: IdleRequest,
}

/// The limits that a caller asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LimitsRequest {
    /// CPU cores; 0.5 is half a core.
    pub cpu: Option<f64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Disk, in bytes.
    pub disk_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// The idle policy that a caller asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdleRequest {
    /// The action on a workspace that nobody uses.
    pub action: Option<IdleAction>,
    /// The time without use after which the action is taken.
    pub after: Option<Duration>,
}

/// The lifetime of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// The workspace lives until somebody destroys it.
    Never,
    /// The workspace lives for this time from its creation.
    After(Duration),
}

// === impl NewWorkspace ===

impl Default for NewWorkspace {
    fn default() -> Self {
        Self {
            name: None,
            labels: BTreeMap::new(),
            kind: ContainerKind::AgentWorkspace,
            provider: None,
            image: None,
            snapshot: None,
            limits: LimitsRequest::default(),
            network: None,
            environment: BTreeMap::new(),
            allow_root: None,
            ttl: None,
            requirements: Requirements::default(),
            idle: IdleRequest::default(),
        }
    }
}

impl fmt::Debug for NewWorkspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Taken apart, so that a new field cannot be forgotten.
        let Self {
            name,
            labels,
            kind,
            provider,
            image,
            snapshot,
            limits,
            network,
            environment,
            allow_root,
            ttl,
            requirements,
            idle,
        } = self;
        f.debug_struct("NewWorkspace")
            .field("name", name)
            .field("labels", labels)
            .field("kind", kind)
            .field("provider", provider)
            .field("image", image)
            .field("snapshot", snapshot)
            .field("limits", limits)
            .field("network", network)
            .field("environment", &environment.keys())
            .field("allow_root", allow_root)
            .field("ttl", ttl)
            .field("requirements", requirements)
            .field("idle", idle)
            .finish()
    }
}
