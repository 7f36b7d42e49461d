//! The holder of each workspace as this process knows it, so that a call need not ask the store.

use chrono::{DateTime, TimeDelta, Utc};
use emergent_store::{SessionId, SessionRow};
use tokio::sync::{Mutex, MutexGuard};

/// The holder of one workspace.
#[derive(Default)]
pub(crate) struct Attached {
    /// The known holder. Stays locked while the store is read or written, so that this value equals the store's. Only
    /// attaching, detaching and calls that name a session wait for the lock.
    known: Mutex<SessionCache>,
}

/// The knowledge that this process has of a workspace's holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum SessionCache {
    /// This process knows nothing of the holder; the store has to be asked.
    #[default]
    Nothing,
    /// Nobody holds the workspace.
    Free,
    /// The holder of this session holds the workspace.
    By(SessionRow),
}

/// The standing of a session that makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionLease {
    /// The session is the attached one; its lease, where it has one, needs no renewal yet.
    Holds,
    /// The session is the attached one, and its lease is to be renewed until this time.
    HoldsAndRenews(DateTime<Utc>),
    /// Another session is attached.
    Other(SessionRow),
    /// No session is attached.
    Free,
}

// === impl Attached ===

impl Attached {
    pub(crate) async fn lock(&self) -> MutexGuard<'_, SessionCache> {
        self.known.lock().await
    }
}

// === impl SessionCache ===

impl SessionCache {
    pub(crate) fn of(open: Option<SessionRow>) -> Self {
        open.map_or(Self::Free, Self::By)
    }

    /// Returns how long the holder may be silent; `None` where there is no holder or the lease has no limit.
    pub(crate) fn lease(&self) -> Option<std::time::Duration> {
        let Self::By(open) = self else { return None };
        open.lease
    }

    /// Returns the standing of a session at this time.
    pub(crate) fn lease_of(&self, session: SessionId, at: DateTime<Utc>) -> SessionLease {
        let Self::By(open) = self else { return SessionLease::Free };
        if open.expires_at.is_some_and(|end| end <= at) {
            return SessionLease::Free;
        }
        if open.id != session {
            return SessionLease::Other(open.clone());
        }
        renewal(open, at).map_or(SessionLease::Holds, SessionLease::HoldsAndRenews)
    }
}

/// Returns the new end of a lease that a call renews. A renewal is recorded once a third of the lease has passed, not
/// with every call.
fn renewal(open: &SessionRow, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let lease = TimeDelta::from_std(open.lease?).ok()?;
    let left = open.expires_at? - at;
    if left > lease - lease / 3 { None } else { at.checked_add_signed(lease) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use emergent_types::WorkspaceId;
    use proptest::prelude::*;

    use super::*;

    const LEASE: u64 = 90_000;

    fn session(lease_ms: Option<u64>, at: DateTime<Utc>) -> SessionRow {
        let lease = lease_ms.map(Duration::from_millis);
        SessionRow {
            id: SessionId::generate(),
            workspace: WorkspaceId::generate(),
            holder: "agent".to_owned(),
            attached_at: at,
            lease,
            expires_at: lease.map(|lease| at + lease),
            ended: None,
        }
    }

    proptest! {
        #[test]
        fn whoever_calls_often_enough_keeps_the_workspace(gaps in prop::collection::vec(0..LEASE * 2 / 3, 1..40)) {
            let mut now = DateTime::from_timestamp_millis(1_800_000_000_000).unwrap();
            let mut open = session(Some(LEASE), now);
            for gap in gaps {
                now += Duration::from_millis(gap);
                match SessionCache::By(open.clone()).lease_of(open.id, now) {
                    SessionLease::Holds => {}
                    SessionLease::HoldsAndRenews(until) => open.expires_at = Some(until),
                    lease_of @ (SessionLease::Other(_) | SessionLease::Free) => prop_assert!(false, "{lease_of:?}"),
                }
            }
        }

        #[test]
        fn a_lease_lasts_two_thirds_of_its_time_after_every_call_and_no_longer_than_all_of_it(after in 0..LEASE * 2) {
            let began = DateTime::from_timestamp_millis(1_800_000_000_000).unwrap();
            let open = session(Some(LEASE), began);
            let at = began + Duration::from_millis(after);
            let holds = !matches!(SessionCache::By(open.clone()).lease_of(open.id, at), SessionLease::Free);
            prop_assert_eq!(holds, after < LEASE);
            if let SessionLease::HoldsAndRenews(until) = SessionCache::By(open.clone()).lease_of(open.id, at) {
                prop_assert_eq!(until, at + Duration::from_millis(LEASE));
                prop_assert!(after >= LEASE / 3);
            }
        }

        #[test]
        fn without_a_lease_it_is_held_for_as_long_as_it_takes(after in 0..u64::from(u32::MAX)) {
            let began = DateTime::from_timestamp_millis(1_800_000_000_000).unwrap();
            let open = session(None, began);
            let (id, at) = (open.id, began + Duration::from_millis(after));
            prop_assert_eq!(SessionCache::By(open.clone()).lease_of(id, at), SessionLease::Holds);
            prop_assert_eq!(SessionCache::By(open.clone()).lease_of(SessionId::generate(), at), SessionLease::Other(open));
        }
    }
}
