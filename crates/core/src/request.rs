//! What a caller asks for when it asks for a workspace.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use emergent_provider::{ContainerKind, ImageRef, NetworkPolicy, ProviderKind, SnapshotId};
use emergent_store::IdleAction;

use crate::Requirements;

/// A workspace to make. What is `None` is decided by the settings. Its `Debug` hides the values of the environment.
#[derive(Clone, PartialEq)]
pub struct NewWorkspace {
    /// For people.
    pub name: Option<String>,
    /// For people and programs.
    pub labels: BTreeMap<String, String>,
    /// What it is for.
    pub kind: ContainerKind,
    /// Which provider makes it. A named one never falls back to another.
    pub provider: Option<ProviderKind>,
    /// What it runs.
    pub image: Option<ImageRef>,
    /// The snapshot that it is made from. What the request leaves open is then as it was in the snapshot's workspace,
    /// and the image cannot be chosen.
    pub snapshot: Option<SnapshotId>,
    /// What it may use.
    pub limits: LimitsRequest,
    /// What it may reach.
    pub network: Option<NetworkPolicy>,
    /// Its environment, besides the image's own. Values may be secrets: they reach the guest and nothing else.
    pub environment: BTreeMap<String, String>,
    /// Calls may run commands as root inside; they may not when nothing is said.
    pub allow_root: Option<bool>,
    /// How long it lives, from its creation.
    pub ttl: Option<Ttl>,
    /// What the provider must be able to do.
    pub requirements: Requirements,
    /// What happens to it when nobody uses it.
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

/// What a caller asks for when nobody uses the workspace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdleRequest {
    /// What is done.
    pub action: Option<IdleAction>,
    /// After how long.
    pub after: Option<Duration>,
}

/// How long a workspace lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// Until somebody destroys it.
    Never,
    /// So long, from its creation.
    After(Duration),
}

/// A caller's word that two requests with the same key are one, for 24 hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// A text that cannot be an [`IdempotencyKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key is 1 to 255 visible ASCII characters")]
pub struct InvalidIdempotencyKey;

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

// === impl IdempotencyKey ===

impl IdempotencyKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = InvalidIdempotencyKey;

    fn from_str(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        let well_formed = (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if well_formed { Ok(Self(text.to_owned())) } else { Err(InvalidIdempotencyKey) }
    }
}
