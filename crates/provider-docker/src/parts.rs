//! The state that the parts of the provider share.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use emergent_provider::{CreateError, ExitReason, Isolation};
use emergent_types::{SandboxId, ServerId};
use parking_lot::Mutex;

use crate::{
    config::{ConfigError, DockerConfig},
    engine::{Engine, EngineError, bounded},
    exit_reason::reason_of,
    facts::{Facts, Runtime},
    guest_volume::GuestVolume,
    network::Networks,
    places::Places,
    registry::Registries,
    root_probe::RootProbe,
};

/// The state that the parts of the provider share.
pub(crate) struct Parts {
    pub(crate) engine: Arc<Engine>,
    pub(crate) server: ServerId,
    pub(crate) guest: Arc<GuestVolume>,
    pub(crate) networks: Networks,
    pub(crate) root_probe: RootProbe,
    /// The reasons why containers have ended, where the engine does not tell.
    endings: Mutex<HashMap<SandboxId, ExitReason>>,
    pub(crate) registries: Registries,
    /// The directories of running containers' files, cached on first use.
    places: Mutex<HashMap<SandboxId, Arc<Places>>>,
    gvisor: String,
    require_isolation: Isolation,
    facts: Mutex<Option<Arc<Facts>>>,
    warned: AtomicBool,
}

// === impl Parts ===

impl Parts {
    /// Makes the state for the engine that `config` names. Does not connect to the engine: it may be down now.
    pub(crate) fn new(config: DockerConfig) -> Result<Self, ConfigError> {
        let engine = Arc::new(Engine::new(config.checked_host()?));
        let guest = Arc::new(GuestVolume::new(config.server, config.guest_binary));
        Ok(Self {
            root_probe: RootProbe::new(config.server, Arc::clone(&engine), Arc::clone(&guest)),
            engine,
            server: config.server,
            guest,
            networks: Networks::new(config.network_name, config.network_allow),
            endings: Mutex::default(),
            registries: Registries::new(config.private_registries),
            places: Mutex::default(),
            gvisor: config.runtime,
            require_isolation: config.require_isolation,
            facts: Mutex::new(None),
            warned: AtomicBool::new(false),
        })
    }

    /// Returns the engine's facts; queries the engine on first use.
    pub(crate) async fn facts(&self) -> Result<Arc<Facts>, EngineError> {
        match self.known_facts() {
            Some(facts) => Ok(facts),
            None => self.refresh_facts().await,
        }
    }

    /// Queries the engine for its facts.
    pub(crate) async fn refresh_facts(&self) -> Result<Arc<Facts>, EngineError> {
        let docker = self.engine.client().await?;
        let (version, info) = tokio::try_join!(bounded(docker.version()), bounded(docker.info()))?;
        let facts = Arc::new(Facts::new(version, info, &self.gvisor));
        *self.lock_facts() = Some(Arc::clone(&facts));
        Ok(facts)
    }

    pub(crate) fn known_facts(&self) -> Option<Arc<Facts>> {
        self.lock_facts().clone()
    }

    /// Forgets the engine's facts and networks, since its answers contradict them.
    pub(crate) async fn forget(&self) {
        *self.lock_facts() = None;
        self.networks.forget().await;
    }

    /// Notes the reason why a sandbox has ended or is about to.
    pub(crate) fn note_ending(&self, workspace: SandboxId, why: ExitReason) {
        self.endings.lock().insert(workspace, why);
    }

    /// Forgets the state of a sandbox that is removed or started anew.
    pub(crate) fn forget_sandbox(&self, workspace: SandboxId) {
        self.endings.lock().remove(&workspace);
        self.places.lock().remove(&workspace);
    }

    pub(crate) fn known_places(&self, workspace: SandboxId) -> Option<Arc<Places>> {
        self.places.lock().get(&workspace).cloned()
    }

    pub(crate) fn note_places(&self, workspace: SandboxId, places: &Arc<Places>) {
        self.places.lock().insert(workspace, Arc::clone(places));
    }

    /// Returns the reason why a sandbox has ended; `reason` is the engine's.
    pub(crate) fn explain(&self, workspace: SandboxId, container: &str, reason: ExitReason) -> ExitReason {
        let noted = self.endings.lock().get(&workspace).cloned();
        if let Some(noted) = noted {
            return noted;
        }
        let is_gvisor = self.known_facts().is_some_and(|facts| matches!(facts.runtime, Runtime::Gvisor(_)));
        match reason {
            ExitReason::Code(code) if is_gvisor && self.engine.is_local() => {
                let reason = reason_of(code, container);
                if reason == ExitReason::ProcessLimit {
                    self.note_ending(workspace, ExitReason::ProcessLimit);
                }
                reason
            }
            told => told,
        }
    }

    /// Checks that sandboxes under this runtime have the required isolation.
    pub(crate) fn check_isolation(&self, runtime: &Runtime) -> Result<(), CreateError> {
        if runtime.isolation() >= self.require_isolation {
            return Ok(());
        }
        let advice = match self.require_isolation {
            Isolation::Hardware => "use the firecracker provider".to_owned(),
            Isolation::Gvisor | Isolation::Container => {
                format!("install gVisor, and register it with Docker as {:?}", self.gvisor)
            }
        };
        Err(CreateError::IsolationTooWeak {
            required: isolation_word(self.require_isolation),
            offered: isolation_word(runtime.isolation()),
            advice,
        })
    }

    /// Returns the warning about the runtime, if there is one; logs it the first time.
    pub(crate) fn runtime_warning(&self, runtime: &Runtime) -> Option<String> {
        let warning = runtime.warning(&self.gvisor)?;
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!("{warning}");
        }
        Some(warning)
    }

    fn lock_facts(&self) -> parking_lot::MutexGuard<'_, Option<Arc<Facts>>> {
        self.facts.lock()
    }
}

/// Returns the word for an isolation in `WORKSPACE_REQUIRE_ISOLATION`.
fn isolation_word(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Container => "any",
        Isolation::Gvisor => "gvisor",
        Isolation::Hardware => "hardware",
    }
}
