//! The connections that are open: how many there may be, in all and from one address, and which one makes room.
//!
//! A new connection is taken wherever one that has nothing under way can make room: first one that has never asked for
//! anything, then the one that has been idle for the longest time. So whoever only holds connections open keeps nobody
//! out. A part of the places is for this machine alone, so that its health checks and its operators get in.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use metrics::{counter, gauge};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::ConnectionLimits;

/// The places of connections.
pub(super) struct Places {
    limits: ConnectionLimits,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    last: u64,
    connections: BTreeMap<u64, (IpAddr, Arc<Activity>)>,
    addresses: HashMap<IpAddr, usize>,
}

/// The place of one connection, given back when it is dropped.
pub(super) struct ConnectionSlot {
    places: Arc<Places>,
    id: u64,
    activity: Arc<Activity>,
}

/// The requests of one connection: how many there are, and when the last one ended.
pub(super) struct Activity {
    began: Instant,
    under_way: AtomicUsize,
    /// How many requests there have been.
    requests: AtomicU64,
    /// When the last of them ended, in milliseconds after the beginning.
    idle_since: AtomicU64,
    /// The signal that the connection has to make room for another.
    unwanted: CancellationToken,
}

/// A request that is under way, until its answer was given away.
pub(super) struct UnderWay(Arc<Activity>);

// === impl Places ===

impl Places {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, open: Mutex::default() })
    }

    /// A place for a connection from this address; `None` where there is none and nobody can make room.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionSlot> {
        let address = counted_as(address);
        let local = address.is_loopback();
        let most = if local { self.limits.all } else { self.limits.all - self.limits.reserve() };
        let mut open = self.lock();
        let of_address = open.addresses.get(&address).copied().unwrap_or_default();
        let crowded = !local && of_address >= self.limits.one_address;
        let room = match (crowded, open.connections.len() >= most) {
            (true, _) => open.displace(|other| other == address),
            // Nobody else takes the places that are for this machine.
            (false, true) => open.displace(|other| local || !other.is_loopback()),
            (false, false) => true,
        };
        if !room {
            counter!("emergent_connections_refused_total").increment(1);
            tracing::debug!(%address, "a connection was refused: all places are taken");
            return None;
        }
        let activity = Arc::new(Activity::new());
        open.last += 1;
        let id = open.last;
        open.connections.insert(id, (address, Arc::clone(&activity)));
        *open.addresses.entry(address).or_default() += 1;
        open.report();
        drop(open);
        Some(ConnectionSlot { places: Arc::clone(self), id, activity })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock()
    }
}

/// An IPv6 network of one client counts as one address.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        other => other,
    }
}

// === impl Open ===

impl Open {
    /// Lets the connection go that is missed least, of those from such addresses; whether there was one.
    fn displace(&mut self, of: impl Fn(IpAddr) -> bool) -> bool {
        let idle = self.connections.iter().filter(|(_, (address, activity))| of(*address) && !activity.is_busy());
        let least_missed = idle.min_by_key(|(_, (_, activity))| (activity.has_asked(), activity.idle_since()));
        let Some((&id, _)) = least_missed else { return false };
        if let Some(activity) = self.remove(id) {
            activity.unwanted.cancel();
            counter!("emergent_connections_displaced_total").increment(1);
        }
        true
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Activity>> {
        let (address, activity) = self.connections.remove(&id)?;
        if let Some(count) = self.addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address);
            }
        }
        self.report();
        Some(activity)
    }

    #[expect(clippy::cast_precision_loss, reason = "there are not 2^52 connections")]
    fn report(&self) {
        gauge!("emergent_connections").set(self.connections.len() as f64);
    }
}

// === impl ConnectionSlot ===

impl ConnectionSlot {
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        // Nothing is there where it has made room.
        self.places.lock().remove(self.id);
    }
}

// === impl Activity ===

impl Activity {
    fn new() -> Self {
        let (under_way, requests, idle_since) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { began: Instant::now(), under_way, requests, idle_since, unwanted: CancellationToken::new() }
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.requests.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Acquire) > 0
    }

    /// Whether there was a request.
    pub(super) fn has_asked(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// When the last request ended, or the connection began.
    pub(super) fn idle_since(&self) -> Instant {
        self.began + std::time::Duration::from_millis(self.idle_since.load(Ordering::Acquire))
    }

    /// Ends when the connection has to make room.
    pub(super) async fn unwanted(&self) {
        self.unwanted.cancelled().await;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.idle_since.store(now, Ordering::Release);
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits { all: 32, one_address: 8 };
    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn is_displaced(place: &ConnectionSlot) -> bool {
        place.activity.unwanted.is_cancelled()
    }

    #[test]
    fn one_address_has_no_more_than_its_places_and_keeps_nobody_else_out() {
        let places = Places::new(LIMITS);
        let held: Vec<_> = (0..8).map(|_| places.take(address(1)).unwrap()).collect();
        let busy: Vec<_> = held.iter().map(|place| place.activity.begin()).collect();
        assert!(places.take(address(1)).is_none());
        assert!(places.take(address(2)).is_some());
        drop(busy);
        assert!(places.take(address(1)).is_some(), "an idle one makes room");
        assert_eq!(held.iter().filter(|place| is_displaced(place)).count(), 1);
    }

    #[test]
    fn whoever_never_asks_makes_room_before_whoever_has() {
        let places = Places::new(LIMITS);
        let asked = places.take(LOCAL).unwrap();
        drop(asked.activity.begin());
        let silent: Vec<_> = (1..32).map(|_| places.take(LOCAL).unwrap()).collect();
        let _new = places.take(LOCAL).unwrap();
        assert!(is_displaced(&silent[0]) && !is_displaced(&asked));
    }

    #[test]
    fn this_machine_gets_in_while_others_have_all_that_they_may_have() {
        let places = Places::new(LIMITS);
        let others: Vec<_> = (0..30).map(|n| places.take(address(n)).unwrap()).collect();
        let _busy: Vec<_> = others.iter().map(|place| place.activity.begin()).collect();
        assert!(places.take(address(99)).is_none());
        let local: Vec<_> = (0..2).map(|_| places.take(LOCAL).unwrap()).collect();
        assert!(places.take(address(99)).is_none(), "what is for this machine is for nobody else");
        assert!(places.take(LOCAL).is_some(), "one of its own makes room");
        drop(local);
    }

    #[test]
    fn addresses_of_one_network_are_counted_as_one() {
        let text = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(counted_as(text("2001:db8:1:2:3::4")), counted_as(text("2001:db8:1:2:ffff::1")));
        assert_ne!(counted_as(text("2001:db8:1:2::1")), counted_as(text("2001:db8:1:3::1")));
        assert_eq!(counted_as(text("::ffff:192.0.2.1")), text("192.0.2.1"));
        assert!(counted_as(text("::1")).is_loopback());
    }

    #[test]
    fn places_are_given_back() {
        let places = Places::new(LIMITS);
        for _ in 0..100 {
            drop(places.take(address(1)).unwrap());
        }
        let open = places.lock();
        assert!(open.connections.is_empty() && open.addresses.is_empty());
    }
}
