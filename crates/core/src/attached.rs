//! Who holds a workspace, as this process knows it, so that a call need not ask the store.

use chrono::{DateTime, TimeDelta, Utc};
use emergent_store::{SessionId, SessionRow};
use tokio::sync::{Mutex, MutexGuard};

/// Who holds one workspace.
#[derive(Default)]
pub(crate) struct Attached {
    /// Kept locked while the store is asked or told, so that what is known here is what the store knows. Only attaching,
    /// detaching and calls that name a session wait for it.
    known: Mutex<Known>,
}

/// What is known of a workspace's holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: the store has to be asked.
    #[default]
    Nothing,
    /// Nobody holds it.
    Free,
    /// The holder of this session does.
    By(SessionRow),
}

/// What a session may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is the one that is attached; its lease, where it has one, lasts until then and need not be put off.
    Holds,
    /// The same, and its lease is to be put off until then.
    HoldsAndRenews(DateTime<Utc>),
    /// Another one is attached.
    Other(SessionRow),
    /// None is attached.
    Free,
}

// === impl Attached ===

impl Attached {
    pub(crate) async fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().await
    }
}

// === impl Known ===

impl Known {
    pub(crate) fn of(open: Option<SessionRow>) -> Self {
        open.map_or(Self::Free, Self::By)
    }

    /// How long the holder may be silent; `None`: for as long as it likes, or there is none.
    pub(crate) fn lease(&self) -> Option<std::time::Duration> {
        let Self::By(open) = self else { return None };
        open.lease
    }

    /// How a session stands at this moment.
    pub(crate) fn standing(&self, session: SessionId, at: DateTime<Utc>) -> Standing {
        let Self::By(open) = self else { return Standing::Free };
        if open.expires_at.is_some_and(|end| end <= at) {
            return Standing::Free;
        }
        if open.id != session {
            return Standing::Other(open.clone());
        }
        renewal(open, at).map_or(Standing::Holds, Standing::HoldsAndRenews)
    }
}

/// Until when a lease is put off by a call: it is recorded when a third of it has passed, not with every call.
fn renewal(open: &SessionRow, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let lease = TimeDelta::from_std(open.lease?).ok()?;
    let left = open.expires_at? - at;
    if left > lease - lease / 3 { None } else { at.checked_add_signed(lease) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use emergent_provider::WorkspaceId;
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
                match Known::By(open.clone()).standing(open.id, now) {
                    Standing::Holds => {}
                    Standing::HoldsAndRenews(until) => open.expires_at = Some(until),
                    standing @ (Standing::Other(_) | Standing::Free) => prop_assert!(false, "{standing:?}"),
                }
            }
        }

        #[test]
        fn a_lease_lasts_two_thirds_of_its_time_after_every_call_and_no_longer_than_all_of_it(after in 0..LEASE * 2) {
            let began = DateTime::from_timestamp_millis(1_800_000_000_000).unwrap();
            let open = session(Some(LEASE), began);
            let at = began + Duration::from_millis(after);
            let holds = !matches!(Known::By(open.clone()).standing(open.id, at), Standing::Free);
            prop_assert_eq!(holds, after < LEASE);
            if let Standing::HoldsAndRenews(until) = Known::By(open.clone()).standing(open.id, at) {
                prop_assert_eq!(until, at + Duration::from_millis(LEASE));
                prop_assert!(after >= LEASE / 3);
            }
        }

        #[test]
        fn without_a_lease_it_is_held_for_as_long_as_it_takes(after in 0..u64::from(u32::MAX)) {
            let began = DateTime::from_timestamp_millis(1_800_000_000_000).unwrap();
            let open = session(None, began);
            let (id, at) = (open.id, began + Duration::from_millis(after));
            prop_assert_eq!(Known::By(open.clone()).standing(id, at), Standing::Holds);
            prop_assert_eq!(Known::By(open.clone()).standing(SessionId::generate(), at), Standing::Other(open));
        }
    }
}
