//! The connections that are open: how many there may be, in all and from one address, and which one makes room.
//!
//! A new connection is taken wherever one that has nothing under way can make room: first one that has never asked for
//! anything, then the one that has been idle for the longest time, then one that is only waiting for its peer to take
//! its answers. So whoever only holds connections open keeps nobody out. A part of the places is for this machine
//! alone, so that its health checks and its operators get in.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use metrics::{counter, gauge};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::ConnectionLimits;

/// The time for which a peer may take nothing of its answers before its connection makes room for another.
const UNTAKEN: Duration = Duration::from_secs(5);

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

/// The requests of one connection.
pub(super) struct Activity {
    work: Mutex<Work>,
    /// The signal that the connection has to make room for another.
    unwanted: CancellationToken,
}

struct Work {
    has_asked: bool,
    under_way: usize,
    /// The number of requests under way that have given bytes which the peer has not taken yet.
    untaken: usize,
    /// When the connection began, the last request ended, or the peer was last given something or took something.
    since: Instant,
}

/// The work of a connection, in the order in which they make room for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// There was no request.
    Silent,
    /// The last request has ended.
    Idle,
    /// All that is under way is waiting for the peer to take its answer.
    Untaken,
    /// Requests are under way.
    Busy,
}

/// A request that is under way, until its answer was taken.
pub(super) struct UnderWay {
    activity: Arc<Activity>,
    /// The bytes that were given and not taken; changed under the activity's lock only.
    given: AtomicUsize,
}

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
        let now = Instant::now();
        let may = self.connections.iter().filter(|(_, (address, _))| of(*address)).filter_map(|(id, (_, activity))| {
            let (standing, since) = activity.standing();
            let makes_room = match standing {
                Standing::Silent | Standing::Idle => true,
                Standing::Untaken => since + UNTAKEN <= now,
                Standing::Busy => false,
            };
            makes_room.then_some((standing, since, *id))
        });
        let Some((_, _, id)) = may.min() else { return false };
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
    pub(super) fn new() -> Self {
        let work = Work { has_asked: false, under_way: 0, untaken: 0, since: Instant::now() };
        Self { work: Mutex::new(work), unwanted: CancellationToken::new() }
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        let mut work = self.work.lock();
        work.under_way += 1;
        work.has_asked = true;
        UnderWay { activity: Arc::clone(self), given: AtomicUsize::new(0) }
    }

    /// The work of the connection; and when it began, the last request ended, or the peer was last given something or
    /// took something.
    pub(super) fn standing(&self) -> (Standing, Instant) {
        let work = self.work.lock();
        let standing = match (work.under_way, work.has_asked) {
            (0, false) => Standing::Silent,
            (0, true) => Standing::Idle,
            (under_way, _) if under_way == work.untaken => Standing::Untaken,
            (_, _) => Standing::Busy,
        };
        (standing, work.since)
    }

    /// Ends when the connection has to make room.
    pub(super) async fn unwanted(&self) {
        self.unwanted.cancelled().await;
    }
}

// === impl UnderWay ===

impl UnderWay {
    /// Bytes of the answer are there for the peer.
    pub(super) fn give(&self, bytes: usize) {
        self.change(|given| given + bytes);
    }

    /// The peer has taken bytes of the answer, or does not want them.
    pub(super) fn taken(&self, bytes: usize) {
        if bytes > 0 {
            self.change(|given| given - bytes);
        }
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        let mut work = self.activity.work.lock();
        let before = self.given.load(Ordering::Relaxed);
        let after = change(before);
        self.given.store(after, Ordering::Relaxed);
        work.untaken = work.untaken + usize::from(after > 0) - usize::from(before > 0);
        work.since = Instant::now();
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut work = self.activity.work.lock();
        work.under_way -= 1;
        work.since = Instant::now();
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

    #[tokio::test(start_paused = true)]
    async fn a_connection_makes_room_once_nobody_takes_any_of_its_answers() {
        let places = Places::new(LIMITS);
        let held: Vec<_> = (0..8).map(|_| places.take(address(1)).unwrap()).collect();
        let answers: Vec<_> = held.iter().map(|place| place.activity.begin()).collect();
        let _working = held[0].activity.begin();
        answers.iter().for_each(|answer| answer.give(10));
        assert!(places.take(address(1)).is_none(), "it may be about to take them");
        tokio::time::advance(UNTAKEN / 2).await;
        answers[1..7].iter().for_each(|answer| answer.taken(1));
        tokio::time::advance(UNTAKEN / 2).await;
        let _new = places.take(address(1)).unwrap();
        let displaced: Vec<_> = (0..8).filter(|index| is_displaced(&held[*index])).collect();
        assert_eq!(displaced, [7], "one has a call under way, others were taken from");
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
