//! The warm pool: sandboxes made ahead of need, with the guest connected. A create that a member fits claims the member.
//!
//! A member has no row and belongs to no project. It gets its workspace id when it is made, since an engine's labels
//! cannot be changed later, and its row when it is claimed. After a crash, the pool's members are sandboxes of this
//! server that no row knows; the next start removes them like every other orphan.

mod image_pool;
mod refill;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use emergent_guest_client::Guest;
use emergent_provider::{ContainerKind, EngineState, ImageRef, Observed, ProviderKind};
use emergent_store::MadeSandbox;
use emergent_types::{NetworkPolicy, ResourceLimits, SandboxId, error_chain};

use futures::{StreamExt as _, stream};

pub(crate) use self::{
    image_pool::{ImagePool, Miss},
    refill::PoolKeeper,
};
use crate::{
    placement::providers::Providers,
    telemetry,
    workspace::{
        admissions::{AdmissionGuard, Admissions},
        steps::Undoing,
    },
};

/// The number of members that are removed at once.
const TOGETHER: usize = 8;

/// The networks that pool members may reach: those of workspaces whose request names none.
pub(crate) const NETWORK: NetworkPolicy = NetworkPolicy::Outbound;

/// The warm pool: an [`ImagePool`] for each image that is kept ready.
pub(crate) struct Pool {
    image_pools: Vec<Arc<ImagePool>>,
    providers: Arc<Providers>,
}

/// A sandbox of the pool, which belongs to no project yet.
pub(crate) struct PooledSandbox {
    pub(crate) id: SandboxId,
    pub(crate) provider: ProviderKind,
    /// The image id that the image's reference stood for when the member was made.
    pub(crate) image_id: Option<String>,
    pub(crate) guest: Guest,
    pub(crate) made: MadeSandbox,
    pub(crate) limits: ResourceLimits,
}

/// The properties that a create asks for and that a member may lack.
pub(crate) struct Need<'a> {
    pub(crate) kind: ContainerKind,
    pub(crate) provider: ProviderKind,
    pub(crate) image: &'a ImageRef,
    pub(crate) network: NetworkPolicy,
    pub(crate) limits: &'a ResourceLimits,
    /// Whether the provider can change the limits of a running sandbox.
    pub(crate) live_limits: bool,
}

/// The status of one image's pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// The image.
    pub image: ImageRef,
    /// The number of members that the pool should hold.
    pub target: u32,
    /// The number of members that wait to be claimed.
    pub ready: u32,
    /// The number of members that are being made.
    pub making: u32,
    /// The number of creates that have claimed a member since the server started.
    pub hits: u64,
    /// The number of creates of this image that claimed no member, by reason.
    pub misses: BTreeMap<&'static str, u64>,
    /// The reason why the last member could not be made; cleared once one is made.
    pub failure: Option<String>,
}

// === impl Pool ===

impl Pool {
    /// Makes a pool with `size` members of each image; an empty pool where `size` is 0.
    pub(crate) fn new(size: u32, images: &[ImageRef], limits: ResourceLimits, providers: Arc<Providers>) -> Self {
        let images = images.iter().filter(|_| size > 0);
        let image_pools = images.map(|image| ImagePool::new(image.clone(), size, limits).into()).collect();
        Self { image_pools, providers }
    }

    pub(crate) fn image_pools(&self) -> &[Arc<ImagePool>] {
        &self.image_pools
    }

    /// Takes a member that fits the need, if there is one, with its admission, which begins before the pool forgets the
    /// member. A member that is taken and not used is given back by [`Pool::give_back`].
    pub(crate) fn take(&self, need: &Need<'_>, admissions: &Admissions) -> Option<(PooledSandbox, AdmissionGuard)> {
        let image_pool = self.image_pool(need.image)?;
        match image_pool.take(need, admissions) {
            Ok(taken) => Some(taken),
            Err(miss) => {
                image_pool.note_miss(miss);
                None
            }
        }
    }

    /// Notes that a member has become a workspace.
    pub(crate) fn note_hit(&self, image: &ImageRef) {
        if let Some(image_pool) = self.image_pool(image) {
            image_pool.note_hit();
        }
    }

    /// Notes that a member could not become a workspace.
    pub(crate) fn note_failed_claim(&self, image: &ImageRef) {
        if let Some(image_pool) = self.image_pool(image) {
            image_pool.note_miss(Miss::Claim);
        }
    }

    /// Takes back a member that is unchanged.
    pub(crate) fn give_back(&self, image: &ImageRef, member: PooledSandbox) {
        if let Some(image_pool) = self.image_pool(image) {
            image_pool.put(member);
        }
    }

    /// Returns whether a sandbox is a member of the pool, or its workspace is being admitted.
    pub(crate) fn has_or_gives(&self, id: SandboxId, admissions: &Admissions) -> bool {
        self.image_pools.iter().any(|image_pool| image_pool.has_or_gives(id, admissions)) || admissions.has(id)
    }

    /// Takes out a member whose sandbox has ended.
    pub(crate) fn take_ended(&self, id: SandboxId) -> Vec<PooledSandbox> {
        self.image_pools.iter().flat_map(|image_pool| image_pool.retain(|member| member.id != id)).collect()
    }

    /// Takes out the members that do not run according to a listing of the engine. Members made after the listing are
    /// not in it and stay.
    pub(crate) fn take_not_running(&self, observed: &HashMap<SandboxId, Observed>) -> Vec<PooledSandbox> {
        let runs = |member: &PooledSandbox| {
            observed.get(&member.id).is_none_or(|observed| observed.state == EngineState::Running)
        };
        self.image_pools.iter().flat_map(|image_pool| image_pool.retain(runs)).collect()
    }

    /// Removes members that have been taken out, with their sandboxes.
    pub(crate) async fn remove_all(&self, members: Vec<PooledSandbox>) {
        let removals = stream::iter(members).for_each_concurrent(TOGETHER, async |member| {
            member.guest.close();
            let Some(registered) = self.providers.get(member.provider) else { return };
            if let Err(error) = registered.provider.destroy(member.id, &Undoing).await {
                tracing::warn!(workspace = %member.id, reason = error_chain(&error), "it goes with the next reconciliation");
            }
        });
        removals.await;
    }

    pub(crate) fn status(&self) -> Vec<PoolStatus> {
        self.image_pools.iter().map(|image_pool| image_pool.status()).collect()
    }

    pub(crate) fn report(&self) {
        for status in self.status() {
            for (state, members) in [("ready", status.ready), ("making", status.making), ("target", status.target)] {
                telemetry::pool(&status.image, state, members);
            }
        }
    }

    fn image_pool(&self, image: &ImageRef) -> Option<&ImagePool> {
        self.image_pools.iter().find(|image_pool| image_pool.image() == image).map(AsRef::as_ref)
    }
}
