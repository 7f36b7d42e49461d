//! Keeps the pools of images full: makes what is missing, replaces what is stale, and removes everything when the
//! server goes down.

use std::{sync::Arc, time::Duration};

use emergent_provider::{ContainerKind, ImageAccess, ProviderKind, SandboxSpec};
use emergent_store::MadeSandbox;
use emergent_types::{SandboxId, error_chain};
use futures::{StreamExt as _, stream};
use tokio::time::sleep;

use super::{ImagePool, NETWORK, Pool, PooledSandbox};
use crate::{
    cluster::lease::Lease,
    foundation::Foundation,
    guests::{FIRST_ANSWER, Guests, first_answer},
    placement::{
        images::Images,
        providers::{Providers, Registered},
        requirements::Requirements,
        selection::Wanted,
    },
    quota::host_guard::HostGuard,
    tasks::Tasks,
    workspace::steps::Undoing,
};

/// The number of members of one image that are made together when the server starts.
const TOGETHER_AT_FIRST: usize = 8;
/// The number of members that are made together later, beside creates that are under way.
const TOGETHER: usize = 2;
/// The time for which no member must have been taken before others are made: a burst is served first, and then made
/// good.
const QUIET: Duration = Duration::from_millis(150);
/// The interval at which members are compared with their image.
const LOOK: Duration = Duration::from_secs(30);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// Keeps the warm pool full.
pub(crate) struct PoolKeeper {
    providers: Arc<Providers>,
    images: Arc<Images>,
    guests: Arc<Guests>,
    host: Arc<HostGuard>,
    lease: Arc<Lease>,
    tasks: Tasks,
    /// The provider of creates that name none.
    default_provider: Option<ProviderKind>,
    pool: Arc<Pool>,
}

// === impl PoolKeeper ===

impl PoolKeeper {
    pub(crate) fn new(base: &Foundation, pool: Arc<Pool>) -> Self {
        Self {
            providers: Arc::clone(&base.providers),
            images: Arc::clone(&base.images),
            guests: Arc::clone(&base.guests),
            host: Arc::clone(&base.host),
            lease: Arc::clone(&base.lease),
            tasks: base.tasks.clone(),
            default_provider: base.config.default_provider,
            pool,
        }
    }

    /// Keeps the pool of an image full until the service goes down, and then removes its sandboxes.
    pub(crate) async fn keep_warm(self: Arc<Self>, image_pool: Arc<ImagePool>) {
        let mut together = TOGETHER_AT_FIRST;
        let mut draining = self.lease.draining();
        let mut backoff = FIRST_BACKOFF;
        while !self.tasks.is_going_down() {
            self.remove_stale(&image_pool).await;
            let pause = match self.fill(&image_pool, together).await {
                Ok(()) => {
                    (together, backoff) = (TOGETHER, FIRST_BACKOFF);
                    LOOK
                }
                Err(reason) => {
                    tracing::warn!(image = %image_pool.image(), reason, "the warm pool could not be filled");
                    let pause = backoff;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                    pause
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = members_wanted(&image_pool), if pause == LOOK => {}
                _ = draining.changed(), if pause == LOOK => {}
                () = self.tasks.going_down() => {}
            }
        }
        self.pool.remove_all(image_pool.retain(|_| false)).await;
    }

    /// Makes members until none is missing, or one fails, and removes those that are too many.
    async fn fill(self: &Arc<Self>, image_pool: &Arc<ImagePool>, together: usize) -> Result<(), String> {
        if self.lease.is_draining() {
            // Nobody is going to take them.
            self.pool.remove_all(image_pool.retain(|_| false)).await;
            return Ok(());
        }
        let provider = self.pool_provider().await?;
        loop {
            self.host.has_room(provider, 0).map_err(|error| error.to_string())?;
            self.pool.remove_all(image_pool.surplus()).await;
            let ordered = image_pool.order(together);
            if ordered.is_empty() || self.tasks.is_going_down() {
                ordered.into_iter().for_each(|id| image_pool.cancel(id, "the server goes down".to_owned()));
                return Ok(());
            }
            // Each in a task of its own: what has begun is brought to its end whoever stops waiting.
            let making = stream::iter(ordered).map(|id| {
                let (keeper, image_pool) = (Arc::clone(self), Arc::clone(image_pool));
                self.tasks.run(async move { keeper.add_member(&image_pool, provider, id).await })
            });
            making.buffer_unordered(together).collect::<Vec<_>>().await.into_iter().collect::<Result<(), _>>()?;
        }
    }

    /// The provider of creates that name none.
    async fn pool_provider(&self) -> Result<ProviderKind, String> {
        let wanted = Wanted {
            named: self.default_provider,
            container: ContainerKind::AgentWorkspace,
            requirements: Requirements::default(),
        };
        let choice = self.providers.choose(wanted).await;
        choice.map(|choice| choice.provider).map_err(|reasons| {
            let reasons = reasons.iter().map(|(provider, why)| format!("{provider}: {why}"));
            reasons.collect::<Vec<_>>().join("; ")
        })
    }

    async fn add_member(&self, image_pool: &ImagePool, provider: ProviderKind, id: SandboxId) -> Result<(), String> {
        let Some(registered) = self.providers.get(provider) else { return Ok(()) };
        match self.make_member(image_pool, registered, id).await {
            Ok(member) => {
                tracing::debug!(workspace = %id, image = %image_pool.image(), "a member of the warm pool is ready");
                image_pool.deliver(member);
                Ok(())
            }
            Err(reason) => {
                if let Err(error) = registered.provider.destroy(id, &Undoing).await {
                    tracing::warn!(workspace = %id, reason = error_chain(&error), "it goes with the next reconciliation");
                }
                image_pool.cancel(id, reason.clone());
                Err(reason)
            }
        }
    }

    async fn make_member(
        &self,
        image_pool: &ImagePool,
        registered: &Registered,
        id: SandboxId,
    ) -> Result<PooledSandbox, String> {
        let image = image_pool.image();
        let spec = SandboxSpec {
            workspace: id,
            kind: ContainerKind::AgentWorkspace,
            image: image.clone(),
            snapshot: None,
            access: ImageAccess::Operator,
            registry: self.images.operators_login(image),
            limits: image_pool.limits(),
            network: NETWORK,
            volumes: Vec::new(),
            warm: true,
        };
        let provider = registered.provider.as_ref();
        // Before, so that an image that changes meanwhile makes the member stale; after, where it had to be pulled.
        let before = provider.image_id(image).await.map_err(|error| error_chain(&error))?;
        let created = provider.create(&spec, &Undoing).await.map_err(|error| error_chain(&error))?;
        let guest = self.guests.client(provider.kind(), id, created.first_channel);
        first_answer(registered, id, &guest, FIRST_ANSWER).await.map_err(|error| error_chain(&error))?;
        let image_id = match before {
            Some(image_id) => Some(image_id),
            None => provider.image_id(image).await.map_err(|error| error_chain(&error))?,
        };
        let made = MadeSandbox { runtime: created.runtime, isolation: created.isolation, warnings: created.warnings };
        Ok(PooledSandbox { id, provider: provider.kind(), image_id, guest, made, limits: image_pool.limits() })
    }

    /// Removes members whose image's reference stands for another image now.
    async fn remove_stale(&self, image_pool: &ImagePool) {
        for registered in self.providers.iter() {
            let provider = registered.provider.kind();
            // An engine that does not answer says nothing, and what is gone cannot be made anew.
            let Ok(now @ Some(_)) = registered.provider.image_id(image_pool.image()).await else { continue };
            let stale = image_pool.retain(|member| member.provider != provider || member.image_id == now);
            if !stale.is_empty() {
                tracing::info!(image = %image_pool.image(), members = stale.len(), "the image has changed: members replaced");
            }
            self.pool.remove_all(stale).await;
        }
    }
}

/// Waits until members are missing and nobody is just taking more.
async fn members_wanted(image_pool: &ImagePool) {
    image_pool.wanting.notified().await;
    while let Some(left) = QUIET.checked_sub(image_pool.quiet_for()).filter(|left| !left.is_zero()) {
        sleep(left).await;
    }
}
