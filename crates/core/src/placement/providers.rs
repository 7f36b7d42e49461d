//! The providers that this server has, their health, and the choice of the provider that makes a workspace.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use emergent_provider::{ContainerKind, Health, Provider, ProviderKind};
use emergent_store::PassedOver;
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::timeout};

use crate::placement::selection::{DeploymentMode, Requirements, Unavailable, candidates};

/// How long a provider may take to report its health. Providers promise 10 s; a create has to fail before that.
const PROBE_TIME: Duration = Duration::from_secs(8);
/// How long a provider that has failed to make a workspace is left out of the choice.
pub(crate) const QUARANTINE: Duration = Duration::from_secs(30);

/// A provider that this server has.
pub(crate) struct Registered {
    pub(crate) provider: Arc<dyn Provider>,
    health: Mutex<Health>,
    quarantine: Mutex<Option<Quarantine>>,
    /// Held during a health request that a caller waits for, so that many callers share one request.
    asking: tokio::sync::Mutex<()>,
    /// How many times the provider has answered.
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
    mode: DeploymentMode,
}

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

    async fn is_available(&self, requirements: &Requirements) -> Result<(), Unavailable> {
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
