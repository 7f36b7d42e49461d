//! The providers that this server has, and their health.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use emergent_provider::{Health, Provider, ProviderKind};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::timeout};

use crate::placement::requirements::{Requirements, Unavailable};

/// The time that a provider may take to report its health. Providers promise 10 s; a create has to fail before that.
const PROBE_TIME: Duration = Duration::from_secs(8);
/// The time for which a provider that has failed to make a workspace is left out of the choice.
pub(crate) const QUARANTINE: Duration = Duration::from_secs(30);

/// The kind of deployment (`WORKSPACE_DEPLOYMENT_MODE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeploymentMode {
    /// On machines of the users' own: local providers go before a cloud.
    #[default]
    SelfHosted,
    /// As a managed service: the cloud goes first.
    Managed,
}

/// A provider that this server has.
pub(crate) struct Registered {
    pub(crate) provider: Arc<dyn Provider>,
    health: Mutex<Health>,
    quarantine: Mutex<Option<Quarantine>>,
    /// Held during a health request that a caller waits for, so that many callers share one request.
    asking: tokio::sync::Mutex<()>,
    /// The number of times that the provider has answered.
    answers: AtomicU64,
    /// Wakes the guard of the provider's machine: files of a full workspace were removed.
    pub(crate) files_removed: Notify,
}

/// The quarantine of a provider that reports good health and has just failed all the same.
struct Quarantine {
    until: Instant,
    reason: String,
}

/// All providers of this server.
pub(crate) struct Providers {
    registered: Vec<Arc<Registered>>,
    pub(super) mode: DeploymentMode,
}

/// Returns the reason why a provider is absent from this server.
pub(crate) fn why_absent(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::Docker => "this server was started without it",
        ProviderKind::Firecracker => {
            "this server runs no microVMs; set WORKSPACE_FIRECRACKER_DIR, or WORKSPACE_FIRECRACKER_URL for a manager \
             elsewhere"
        }
        ProviderKind::E2b => "this release has no client for E2B's cloud; gvisor is available",
    }
}

// === impl Registered ===

impl Registered {
    pub(crate) fn health(&self) -> Health {
        self.health.lock().clone()
    }

    /// Asks the provider for its health.
    pub(crate) async fn probe(&self) -> Health {
        let health = timeout(PROBE_TIME, self.provider.health()).await;
        let health = health.unwrap_or_else(|_| unhealthy(format!("no answer within {} s", PROBE_TIME.as_secs())));
        self.set(health.clone());
        self.answers.fetch_add(1, Ordering::AcqRel);
        health
    }

    /// Asks a provider that was last unhealthy for its health: the engine may be back.
    pub(crate) async fn probe_if_unhealthy(&self) -> Health {
        let answers = self.answers.load(Ordering::Acquire);
        let known = self.health();
        if known.healthy {
            return known;
        }
        let _one = self.asking.lock().await;
        if self.answers.load(Ordering::Acquire) == answers { self.probe().await } else { self.health() }
    }

    /// Marks the provider unhealthy until the next answer, because the engine has just not answered.
    pub(crate) fn mark_unhealthy(&self, reason: String) {
        self.set(unhealthy(reason));
    }

    /// Leaves the provider out of the choice for [`QUARANTINE`]: the provider failed although it reports good health.
    pub(crate) fn quarantine(&self, reason: String) {
        tracing::warn!(provider = %self.provider.kind(), reason, "provider failed; others go before it for 30 s");
        let quarantine = Quarantine { until: Instant::now() + QUARANTINE, reason };
        *self.quarantine.lock() = Some(quarantine);
    }

    /// Returns the reason of the quarantine while it lasts.
    pub(crate) fn quarantined(&self) -> Option<String> {
        let quarantine = self.quarantine.lock();
        let Quarantine { until, reason } = quarantine.as_ref()?;
        let left = until.checked_duration_since(Instant::now())?;
        Some(format!("left out for another {} s, since it failed: {reason}", left.as_secs() + 1))
    }

    fn set(&self, health: Health) {
        let kind = self.provider.kind();
        let before = std::mem::replace(&mut *self.health.lock(), health.clone());
        match (before.healthy, health.healthy) {
            (false, true) => tracing::info!(provider = %kind, detail = health.message, "provider is healthy"),
            (_, false) if before.message != health.message => {
                tracing::warn!(provider = %kind, reason = health.message, "provider is unhealthy");
            }
            (true, true | false) | (false, false) => {}
        }
        for warning in health.warnings.iter().filter(|warning| !before.warnings.contains(warning)) {
            tracing::warn!(provider = %kind, warning, "provider is weakened");
        }
    }

    pub(super) async fn is_available(&self, requirements: &Requirements) -> Result<(), Unavailable> {
        let health = self.probe_if_unhealthy().await;
        if !health.healthy {
            return Err(Unavailable::Unhealthy(health.message));
        }
        requirements.unmet(&self.provider.capabilities()).map_or(Ok(()), |lacks| Err(Unavailable::Lacks(lacks)))
    }
}

fn unhealthy(message: String) -> Health {
    Health { healthy: false, message, warnings: Vec::new() }
}

// === impl Providers ===

impl Providers {
    pub(crate) fn new(providers: Vec<Arc<dyn Provider>>, mode: DeploymentMode) -> Self {
        let registered = providers.into_iter().map(|provider| Registered {
            provider,
            health: Mutex::new(unhealthy("not asked yet".to_owned())),
            quarantine: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            answers: AtomicU64::new(0),
            files_removed: Notify::new(),
        });
        Self { registered: registered.map(Arc::new).collect(), mode }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Registered>> {
        self.registered.iter()
    }

    pub(crate) fn get(&self, kind: ProviderKind) -> Option<&Arc<Registered>> {
        self.registered.iter().find(|registered| registered.provider.kind() == kind)
    }
}
