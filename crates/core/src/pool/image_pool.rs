//! The members of one image: their number, their fit for a create, and the outcomes of creates.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use emergent_provider::{ContainerKind, ImageRef};
use emergent_types::{ResourceLimits, SandboxId};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::{NETWORK, Need, PoolStatus, PooledSandbox};
use crate::{
    telemetry,
    workspace::admissions::{AdmissionGuard, Admissions},
};

/// The members of one image.
pub(crate) struct ImagePool {
    image: ImageRef,
    target: u32,
    limits: ResourceLimits,
    stock: Mutex<Stock>,
    /// Notified when members are missing.
    pub(crate) wanting: Notify,
}

#[derive(Default)]
struct Stock {
    ready: VecDeque<PooledSandbox>,
    making: HashSet<SandboxId>,
    taken_at: Option<Instant>,
    hits: u64,
    misses: BTreeMap<&'static str, u64>,
    failure: Option<String>,
}

/// The reason why a create of a pooled image claimed no member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Miss {
    /// The create is not for an agent's workspace.
    Kind,
    /// The create names another provider.
    Provider,
    /// The create asks for another network.
    Network,
    /// The create asks for other limits, and the engine cannot change them.
    Limits,
    /// No member was ready.
    Empty,
    /// The ready member could not be claimed.
    Claim,
}

// === impl Miss ===

impl Miss {
    /// Returns the reason's name in metrics and JSON.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Provider => "provider",
            Self::Network => "network",
            Self::Limits => "limits",
            Self::Empty => "empty",
            Self::Claim => "hand_over",
        }
    }
}

// === impl ImagePool ===

impl ImagePool {
    pub(super) fn new(image: ImageRef, target: u32, limits: ResourceLimits) -> Self {
        Self { image, target, limits, stock: Mutex::default(), wanting: Notify::new() }
    }

    pub(crate) fn image(&self) -> &ImageRef {
        &self.image
    }

    /// Returns the resource limits of the pool's sandboxes.
    pub(crate) fn limits(&self) -> ResourceLimits {
        self.limits
    }

    pub(super) fn take(
        &self,
        need: &Need<'_>,
        admissions: &Admissions,
    ) -> Result<(PooledSandbox, AdmissionGuard), Miss> {
        let mut stock = self.lock();
        let at = stock.ready.iter().position(|member| member.provider == need.provider);
        fits(need, &self.limits)?;
        let Some(member) = at.and_then(|at| stock.ready.remove(at)) else {
            return Err(if stock.ready.is_empty() { Miss::Empty } else { Miss::Provider });
        };
        stock.taken_at = Some(Instant::now());
        let admission = admissions.begin(member.id);
        drop(stock);
        self.wanting.notify_one();
        Ok((member, admission))
    }

    /// Puts a taken member back. Its replacement may be under way, which makes one member too many.
    pub(super) fn put(&self, member: PooledSandbox) {
        self.lock().ready.push_front(member);
        self.wanting.notify_one();
    }

    /// Takes out the members that are beyond the target, the youngest first.
    pub(crate) fn surplus(&self) -> Vec<PooledSandbox> {
        let mut stock = self.lock();
        let kept = stock.ready.len().min(self.target as usize);
        stock.ready.split_off(kept).into()
    }

    /// Whether a sandbox is a member, or is being admitted. Both are asked as of one moment: a member that is taken and
    /// given back meanwhile would be missed in either place.
    pub(super) fn has_or_gives(&self, id: SandboxId, admissions: &Admissions) -> bool {
        let stock = self.lock();
        stock.making.contains(&id) || stock.ready.iter().any(|member| member.id == id) || admissions.has(id)
    }

    /// Keeps the members for which `keep` is true; returns the others.
    pub(crate) fn retain(&self, keep: impl Fn(&PooledSandbox) -> bool) -> Vec<PooledSandbox> {
        let mut stock = self.lock();
        let (kept, gone): (Vec<_>, Vec<_>) = stock.ready.drain(..).partition(keep);
        stock.ready = kept.into();
        drop(stock);
        if !gone.is_empty() {
            self.wanting.notify_one();
        }
        gone
    }

    /// Orders the missing members: returns their ids, of which at most `at_once` are being made at a time.
    pub(crate) fn order(&self, at_once: usize) -> Vec<SandboxId> {
        let mut stock = self.lock();
        let missing = (self.target as usize).saturating_sub(stock.ready.len() + stock.making.len());
        let ids = (0..missing.min(at_once.saturating_sub(stock.making.len())))
            .map(|_| SandboxId::generate())
            .collect::<Vec<_>>();
        stock.making.extend(&ids);
        ids
    }

    /// Adds a member that was ordered and has been made.
    pub(crate) fn deliver(&self, member: PooledSandbox) {
        let mut stock = self.lock();
        stock.making.remove(&member.id);
        stock.failure = None;
        stock.ready.push_back(member);
    }

    /// Takes back the order of a member that could not be made.
    pub(crate) fn cancel(&self, id: SandboxId, failure: String) {
        let mut stock = self.lock();
        stock.making.remove(&id);
        stock.failure = Some(failure);
    }

    /// Returns the time since the last member was taken.
    pub(crate) fn quiet_for(&self) -> Duration {
        self.lock().taken_at.map_or(Duration::MAX, |at| at.elapsed())
    }

    pub(super) fn note_hit(&self) {
        self.lock().hits += 1;
        telemetry::pool_hit(&self.image);
    }

    pub(super) fn note_miss(&self, miss: Miss) {
        tracing::info!(image = %self.image, reason = miss.as_str(), "no member of the warm pool fits; starting cold");
        *self.lock().misses.entry(miss.as_str()).or_default() += 1;
        telemetry::pool_miss(&self.image, miss.as_str());
    }

    pub(super) fn status(&self) -> PoolStatus {
        let stock = self.lock();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        PoolStatus {
            image: self.image.clone(),
            target: self.target,
            ready: count(stock.ready.len()),
            making: count(stock.making.len()),
            hits: stock.hits,
            misses: stock.misses.clone(),
            failure: stock.failure.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock()
    }
}

/// Checks whether a member with these limits can become the wanted workspace.
fn fits(need: &Need<'_>, limits: &ResourceLimits) -> Result<(), Miss> {
    match () {
        () if need.kind != ContainerKind::AgentWorkspace => Err(Miss::Kind),
        () if need.network != NETWORK => Err(Miss::Network),
        () if need.limits != limits && !need.live_limits => Err(Miss::Limits),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use emergent_guest_client::{Guest, Open};
    use emergent_provider::{ByteStream, ChannelError, Isolation, ProviderKind};
    use emergent_store::MadeSandbox;
    use emergent_test_interleavings::{Who, of};
    use emergent_types::NetworkPolicy;

    use super::*;
    use crate::{cluster::lease, workspace::registry::Registry};

    struct Nowhere;

    #[async_trait]
    impl Open for Nowhere {
        async fn open(&self) -> Result<ByteStream, ChannelError> {
            Err(ChannelError::NotRunning)
        }
    }

    fn member(id: SandboxId) -> PooledSandbox {
        let made = MadeSandbox { runtime: "runc".to_owned(), isolation: Isolation::Container, warnings: Vec::new() };
        let guest = Guest::new(Arc::new(Nowhere), None);
        PooledSandbox { id, provider: ProviderKind::Docker, image_id: None, guest, made, limits: LIMITS }
    }

    const LIMITS: ResourceLimits = ResourceLimits { cpu: 1.0, memory_bytes: 1 << 30, disk_bytes: 1 << 30, pids: 64 };

    fn image_pool() -> ImagePool {
        ImagePool::new("image:1".parse().unwrap(), 3, LIMITS)
    }

    #[test]
    fn a_member_is_somebodys_wherever_it_is_on_its_way() {
        let row = lease::tests::row();
        let id = row.id;
        let image = "image:1".parse().unwrap();
        let (kind, provider, network) = (ContainerKind::AgentWorkspace, ProviderKind::Docker, NETWORK);
        let need = Need { kind, provider, image: &image, network, limits: &LIMITS, live_limits: false };
        // Each time the member is given back, but for the last, when it becomes a workspace.
        for given_back in 0..3 {
            let mut tried = 0;
            for order in of(3, 3 * (given_back + 1)) {
                let (image_pool, admissions, registry) = (image_pool(), Admissions::default(), Registry::default());
                image_pool.deliver(member(id));
                let (mut taken, mut admission) = (None, None);
                let mut step = 0;
                let mut move_on = || {
                    match step % 3 {
                        0 => {
                            let (member, guard) = image_pool.take(&need, &admissions).unwrap();
                            (taken, admission) = (Some(member), Some(guard));
                        }
                        1 if step < 3 * given_back => image_pool.put(taken.take().unwrap()),
                        1 => registry.insert(lease::tests::entry(&row)),
                        _ => drop(admission.take()),
                    }
                    step += 1;
                };
                // As reconciliation asks.
                let mut asked = 0;
                let mut is_somebodys = false;
                for who in &order {
                    match who {
                        Who::Other => move_on(),
                        Who::One => {
                            is_somebodys |= match asked {
                                0 => image_pool.has_or_gives(id, &admissions),
                                1 => admissions.has(id),
                                _ => registry.get(id).is_some(),
                            };
                            asked += 1;
                        }
                    }
                }
                assert!(is_somebodys, "given back {given_back} times: {order:?}");
                tried += 1;
            }
            assert!(tried >= 20, "{tried}");
        }
    }

    #[test]
    fn only_what_a_running_sandbox_can_become_fits() {
        let image = "image:1".parse().unwrap();
        let other = ResourceLimits { cpu: 2.0, ..LIMITS };
        let kind = ContainerKind::AgentWorkspace;
        let (provider, network) = (ProviderKind::Docker, NETWORK);
        let need = Need { kind, provider, image: &image, network, limits: &LIMITS, live_limits: false };
        assert_eq!(fits(&need, &LIMITS), Ok(()));
        assert_eq!(fits(&Need { kind: ContainerKind::McpServer, ..need }, &LIMITS), Err(Miss::Kind));
        assert_eq!(fits(&Need { network: NetworkPolicy::None, ..need }, &LIMITS), Err(Miss::Network));
        assert_eq!(fits(&Need { limits: &other, ..need }, &LIMITS), Err(Miss::Limits));
        assert_eq!(fits(&Need { limits: &other, live_limits: true, ..need }, &LIMITS), Ok(()));
    }

    #[test]
    fn never_more_are_ordered_than_are_missing() {
        let image_pool = image_pool();
        let first = image_pool.order(2);
        assert_eq!(first.len(), 2);
        assert_eq!(image_pool.order(2).len(), 0);
        assert_eq!(image_pool.order(8).len(), 1);
        assert_eq!(image_pool.order(8).len(), 0);
        image_pool.cancel(first[0], "it failed".to_owned());
        assert_eq!(image_pool.order(8).len(), 1);
        let has = |id| image_pool.has_or_gives(id, &Admissions::default());
        assert!(has(first[1]) && !has(first[0]));
    }

    #[test]
    fn what_is_given_back_after_its_replacement_was_ordered_is_one_too_many() {
        let image_pool = ImagePool::new("image:1".parse().unwrap(), 1, LIMITS);
        let first = image_pool.order(8)[0];
        image_pool.deliver(member(first));
        let taken = image_pool.retain(|_| false).pop().unwrap();
        let replacement = image_pool.order(8)[0];
        image_pool.put(taken);
        assert!(image_pool.surplus().is_empty());
        image_pool.deliver(member(replacement));
        let surplus: Vec<_> = image_pool.surplus().into_iter().map(|member| member.id).collect();
        assert_eq!((surplus, image_pool.status().ready), (vec![replacement], 1));
    }
}
