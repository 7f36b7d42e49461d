//! Sandboxes made ahead of need, with the guest connected: a create that one of them fits is a hand-over.
//!
//! A member has no row: it is nobody's. It gets its workspace id when it is made, since an engine's labels cannot be
//! changed later, and the row when it is handed over. What a crash leaves of the pool are sandboxes of this server
//! that no row knows, which the next start removes like every other orphan.

mod keep;
mod shelf;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use emergent_guest_client::Guest;
use emergent_provider::{
    ContainerKind, EngineState, ImageRef, NetworkPolicy, Observed, ProviderKind, ResourceLimits, WorkspaceId,
};
use emergent_store::MadeSandbox;

use crate::{
    admissions::{AdmissionGuard, Admissions},
    telemetry,
};

pub(crate) use shelf::{Miss, Shelf};

/// What pool members may reach: what workspaces may when nobody says otherwise.
pub(crate) const NETWORK: NetworkPolicy = NetworkPolicy::Outbound;

/// A shelf for each image that is kept ready.
pub(crate) struct Pool {
    shelves: Vec<Arc<Shelf>>,
}

/// A sandbox that is nobody's yet.
pub(crate) struct Member {
    pub(crate) id: WorkspaceId,
    pub(crate) provider: ProviderKind,
    /// What its image's reference stood for when it was made.
    pub(crate) image_id: Option<String>,
    pub(crate) guest: Guest,
    pub(crate) made: MadeSandbox,
    pub(crate) limits: ResourceLimits,
}

/// What a create asks for, as far as a member could not give it.
pub(crate) struct Need<'a> {
    pub(crate) kind: ContainerKind,
    pub(crate) provider: ProviderKind,
    pub(crate) image: &'a ImageRef,
    pub(crate) network: NetworkPolicy,
    pub(crate) limits: &'a ResourceLimits,
    /// The provider can change the limits of what runs.
    pub(crate) live_limits: bool,
}

/// How one image's shelf stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// Which image.
    pub image: ImageRef,
    /// How many members there are to be.
    pub target: u32,
    /// How many wait to be handed over.
    pub ready: u32,
    /// How many are being made.
    pub making: u32,
    /// How many creates were hand-overs, since the server started.
    pub hits: u64,
    /// How many creates of this image were not, by reason.
    pub misses: BTreeMap<&'static str, u64>,
    /// Why the last member could not be made, until one is.
    pub failure: Option<String>,
}

// === impl Pool ===

impl Pool {
    /// `size` members of each image; none at all where it is 0.
    pub(crate) fn new(size: u32, images: &[ImageRef], limits: ResourceLimits) -> Self {
        let images = images.iter().filter(|_| size > 0);
        Self { shelves: images.map(|image| Shelf::new(image.clone(), size, limits).into()).collect() }
    }

    pub(crate) fn shelves(&self) -> &[Arc<Shelf>] {
        &self.shelves
    }

    /// A member that fits the need, if there is one, and its admission, which begins before the pool forgets it. What is
    /// taken and not used is given back by [`Pool::give_back`].
    pub(crate) fn take(&self, need: &Need<'_>, admissions: &Admissions) -> Option<(Member, AdmissionGuard)> {
        let shelf = self.shelf(need.image)?;
        match shelf.take(need, admissions) {
            Ok(taken) => Some(taken),
            Err(miss) => {
                shelf.note_miss(miss);
                None
            }
        }
    }

    /// Notes that a member has become a workspace.
    pub(crate) fn note_hit(&self, image: &ImageRef) {
        if let Some(shelf) = self.shelf(image) {
            shelf.note_hit();
        }
    }

    /// Notes that a member could not become one.
    pub(crate) fn note_failed_hand_over(&self, image: &ImageRef) {
        if let Some(shelf) = self.shelf(image) {
            shelf.note_miss(Miss::HandOver);
        }
    }

    /// Takes back a member that nothing has been done to.
    pub(crate) fn give_back(&self, image: &ImageRef, member: Member) {
        if let Some(shelf) = self.shelf(image) {
            shelf.put(member);
        }
    }

    /// Whether a sandbox is the pool's.
    pub(crate) fn has(&self, id: WorkspaceId) -> bool {
        self.shelves.iter().any(|shelf| shelf.has(id))
    }

    /// Takes out a member whose sandbox has ended.
    pub(crate) fn take_ended(&self, id: WorkspaceId) -> Vec<Member> {
        self.shelves.iter().flat_map(|shelf| shelf.retain(|member| member.id != id)).collect()
    }

    /// Takes out the members that do not run according to a listing of the engine. What was made after the listing is
    /// not in it, and is not old.
    pub(crate) fn take_not_running(&self, observed: &HashMap<WorkspaceId, Observed>) -> Vec<Member> {
        let runs =
            |member: &Member| observed.get(&member.id).is_none_or(|observed| observed.state == EngineState::Running);
        self.shelves.iter().flat_map(|shelf| shelf.retain(runs)).collect()
    }

    /// Has every shelf looked at now.
    pub(crate) fn look_again(&self) {
        for shelf in &self.shelves {
            shelf.wanting.notify_one();
        }
    }

    pub(crate) fn status(&self) -> Vec<PoolStatus> {
        self.shelves.iter().map(|shelf| shelf.status()).collect()
    }

    pub(crate) fn report(&self) {
        for status in self.status() {
            telemetry::pool(&status);
        }
    }

    fn shelf(&self, image: &ImageRef) -> Option<&Shelf> {
        self.shelves.iter().find(|shelf| shelf.image() == image).map(AsRef::as_ref)
    }
}
