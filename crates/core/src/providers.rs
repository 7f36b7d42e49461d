//! The providers that this server has, and how they are.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use emergent_provider::{Health, Provider, ProviderKind};
use futures::{StreamExt as _, stream};
use tokio::time::timeout;

use crate::select::{Availability, Unselected, candidates, select};

/// How long a provider may take to say how it is. Providers promise 10 s; a create has to fail before that.
const PROBE_TIME: Duration = Duration::from_secs(8);

/// A provider that this server has.
pub(crate) struct Registered {
    pub(crate) provider: Arc<dyn Provider>,
    health: Mutex<Health>,
    /// Held while the provider is asked because somebody needs to know: many ask once.
    asking: tokio::sync::Mutex<()>,
    /// How often it has answered.
    answers: AtomicU64,
}

/// All of them.
pub(crate) struct Providers(Vec<Arc<Registered>>);

/// Why a provider that this server does not have is not there.
pub(crate) fn why_absent(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::Gvisor => "this server was started without it",
        ProviderKind::Firecracker => "this release has no Firecracker driver; gvisor is available",
        ProviderKind::E2b => "this release has no client for E2B's cloud; gvisor is available",
    }
}

// === impl Registered ===

impl Registered {
    pub(crate) fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the provider how it is.
    pub(crate) async fn probe(&self) -> Health {
        let health = timeout(PROBE_TIME, self.provider.health()).await;
        let health = health.unwrap_or_else(|_| unhealthy(format!("no answer within {} s", PROBE_TIME.as_secs())));
        self.set(health.clone());
        self.answers.fetch_add(1, Ordering::AcqRel);
        health
    }

    /// Asks a provider that was last unhealthy how it is. A bad word of before is not taken on trust: the engine may
    /// be back.
    pub(crate) async fn probe_if_unhealthy(&self) -> Health {
        let answers = self.answers.load(Ordering::Acquire);
        let known = self.health();
        if known.healthy {
            return known;
        }
        let _one = self.asking.lock().await;
        if self.answers.load(Ordering::Acquire) == answers { self.probe().await } else { self.health() }
    }

    /// Notes that the provider has just failed, until it is asked again.
    pub(crate) fn mark_unhealthy(&self, reason: String) {
        self.set(unhealthy(reason));
    }

    fn set(&self, health: Health) {
        let kind = self.provider.kind();
        let before =
            std::mem::replace(&mut *self.health.lock().unwrap_or_else(PoisonError::into_inner), health.clone());
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

    async fn availability(&self) -> Availability {
        let health = self.probe_if_unhealthy().await;
        if health.healthy { Availability::Available } else { Availability::Unavailable(health.message) }
    }
}

fn unhealthy(message: String) -> Health {
    Health { healthy: false, message, warnings: Vec::new() }
}

// === impl Providers ===

impl Providers {
    pub(crate) fn new(providers: Vec<Arc<dyn Provider>>) -> Self {
        let registered = providers.into_iter().map(|provider| Registered {
            provider,
            health: Mutex::new(unhealthy("not asked yet".to_owned())),
            asking: tokio::sync::Mutex::default(),
            answers: AtomicU64::new(0),
        });
        Self(registered.map(Arc::new).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Registered>> {
        self.0.iter()
    }

    pub(crate) fn get(&self, kind: ProviderKind) -> Option<&Arc<Registered>> {
        self.0.iter().find(|registered| registered.provider.kind() == kind)
    }

    /// Whether this server has a provider, or why not.
    pub(crate) fn is_here(&self, kind: ProviderKind) -> Result<(), &'static str> {
        self.get(kind).map(|_| ()).ok_or_else(|| why_absent(kind))
    }

    /// The provider for a new workspace.
    pub(crate) async fn choose(&self, named: Option<ProviderKind>) -> Result<ProviderKind, Unselected> {
        let asked = stream::iter(candidates(named)).map(|kind| async move {
            let availability = match self.get(kind) {
                Some(registered) => registered.availability().await,
                None => Availability::Unavailable(why_absent(kind).to_owned()),
            };
            (kind, availability)
        });
        select(named, asked.buffered(3).collect().await)
    }
}
