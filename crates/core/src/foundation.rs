//! The handles that several concerns of the service share. Each concern takes those that it needs, and keeps them to
//! itself.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use emergent_provider::Provider;
use emergent_store::{Store, StoreError};

use crate::{
    audit::Audit,
    cluster::lease::Lease,
    config::CoreConfig,
    guests::Guests,
    placement::{allowed_images::InvalidPattern, images::Images, providers::Providers},
    quota::host_guard::HostGuard,
    recorder::StateRecorder,
    tasks::Tasks,
    workspace::{
        admissions::Admissions, lookup::Lookup, recheck_queue::RecheckQueue, registry::Registry, steps::Steps,
    },
};

/// The handles that several concerns share.
pub(crate) struct Foundation {
    pub(crate) config: Arc<CoreConfig>,
    pub(crate) store: Store,
    pub(crate) audit: Audit,
    pub(crate) tasks: Tasks,
    pub(crate) providers: Arc<Providers>,
    pub(crate) images: Arc<Images>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) admissions: Admissions,
    pub(crate) recheck: Arc<RecheckQueue>,
    pub(crate) steps: Arc<Steps>,
    pub(crate) lookup: Lookup,
    pub(crate) recorder: Arc<StateRecorder>,
    pub(crate) guests: Arc<Guests>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) host: Arc<HostGuard>,
    pub(crate) started_at: DateTime<Utc>,
}

/// The reason for which the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting cannot be used.
    #[error("{setting} is not usable: {reason}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// The reason why the setting cannot be used.
        reason: String,
    },
    /// The store failed.
    #[error("the rows of this server's workspaces could not be read")]
    Store(#[from] StoreError),
}

// === impl Foundation ===

impl Foundation {
    pub(crate) async fn new(
        config: CoreConfig,
        store: Store,
        providers: Vec<Arc<dyn Provider>>,
    ) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let server = store.servers_find(store.server_id()).await?;
        let operators = config.warm_pool_images.iter().chain([&config.default_image]).cloned().collect();
        let logins = config.registries.clone();
        let images = Arc::new(Images::new(store.clone(), operators, &config.allowed_images, logins)?);
        let tasks = Tasks::default();
        let registry = Arc::<Registry>::default();
        let admissions = Admissions::default();
        let recheck = Arc::<RecheckQueue>::default();
        let providers = Arc::new(Providers::new(providers, config.deployment_mode));
        let guests = Arc::new(Guests::new(Arc::clone(&providers), Arc::clone(&registry), Arc::clone(&recheck)));
        let lease = Lease::new(
            server.as_ref(),
            store.clone(),
            Arc::clone(&providers),
            Arc::clone(&registry),
            admissions.clone(),
            Arc::clone(&guests),
        );
        let host = HostGuard::new(
            store.clone(),
            Arc::clone(&registry),
            Arc::clone(&providers),
            tasks.clone(),
            config.disk_reserve,
        );
        Ok(Self {
            audit: Audit::start(store.clone()),
            steps: Arc::new(Steps::new(config.fault, Arc::clone(&registry))),
            lookup: Lookup::new(config.enabled, store.clone(), Arc::clone(&registry)),
            recorder: Arc::new(StateRecorder::new(store.clone(), Arc::clone(&registry))),
            lease: Arc::new(lease),
            host: Arc::new(host),
            started_at: Utc::now(),
            config,
            store,
            tasks,
            providers,
            images,
            registry,
            admissions,
            recheck,
            guests,
        })
    }
}

impl From<InvalidPattern> for StartError {
    fn from(error: InvalidPattern) -> Self {
        Self::Setting { setting: "WORKSPACE_ALLOWED_IMAGES", reason: error.to_string() }
    }
}
