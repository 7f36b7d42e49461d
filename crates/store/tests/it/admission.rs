//! Room, races for it, and idempotency.

use std::collections::BTreeSet;

use emergent_provider::ContainerKind;
use emergent_store::{Admission, IdempotencyClaim, StartClaim, StateKind, Store, WorkspaceState};
use emergent_types::WorkspaceId;
use tokio::task::JoinSet;

use crate::support::TestStore;

fn claim(key: &str, request: u8) -> Option<IdempotencyClaim> {
    Some(IdempotencyClaim { key: key.to_owned(), request_hash: [request; 32] })
}

/// The same store as another server sees it, through connections of its own.
async fn two_servers(first: &TestStore) -> [Store; 2] {
    [first.store.clone(), Store::open(&first.url).await.unwrap()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_parallel_creates_on_two_servers_never_exceed_the_limit() {
    let store = TestStore::open().await;
    let servers = two_servers(&store).await;
    let creates = (0..100).map(|turn| {
        let (server, new) = (servers[turn % 2].clone(), store.new_row());
        async move { server.admit(new, 10, None).await.unwrap() }
    });
    let mut admitted = 0;
    for admission in creates.collect::<JoinSet<_>>().join_all().await {
        match admission {
            Admission::Admitted(_) => admitted += 1,
            Admission::Full => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(admitted, 10);
    assert_eq!(store.workspaces_of(store.server_id()).await.unwrap().len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_starts_on_two_servers_never_exceed_the_limit() {
    let store = TestStore::open().await;
    let servers = two_servers(&store).await;
    let mut stopped = Vec::new();
    for _ in 0..30 {
        let id = store.admitted(store.new_row()).await.id;
        store.workspaces_record(id, &[StateKind::Creating], &WorkspaceState::Stopped).await.unwrap().unwrap();
        stopped.push(id);
    }
    let starts = stopped.into_iter().enumerate().map(|(turn, id)| {
        let server = servers[turn % 2].clone();
        async move { server.claim_start(id, 10).await.unwrap() }
    });
    let claims = starts.collect::<JoinSet<_>>().join_all().await;
    assert_eq!(claims.into_iter().filter(|claim| *claim == StartClaim::Claimed).count(), 10);
}

#[tokio::test]
async fn states_that_hold_no_place_leave_room() {
    let store = TestStore::open().await;
    for state in StateKind::ALL {
        let row = store.admitted(store.new_row()).await;
        let to = match state {
            StateKind::Creating => WorkspaceState::Creating,
            StateKind::Ready => WorkspaceState::Ready,
            StateKind::Paused => WorkspaceState::Paused,
            StateKind::Stopping => WorkspaceState::Stopping,
            StateKind::Stopped | StateKind::Starting => WorkspaceState::Stopped,
            StateKind::Destroying => WorkspaceState::Destroying,
            StateKind::Destroyed => WorkspaceState::Destroyed,
            StateKind::Error => {
                WorkspaceState::Error { reason: emergent_store::ErrorReason::Killed, message: String::new() }
            }
        };
        store.workspaces_record(row.id, &StateKind::ALL, &to).await.unwrap().unwrap();
        if state == StateKind::Starting {
            assert_eq!(store.claim_start(row.id, 1).await.unwrap(), StartClaim::Claimed);
        }
        let full = store.admit(store.new_row(), 1, None).await.unwrap() == Admission::Full;
        assert_eq!(full, StateKind::COUNTED.contains(&state), "{state}");
        store.workspaces_record(row.id, &StateKind::ALL, &WorkspaceState::Destroyed).await.unwrap();
        for other in store.workspaces_of(store.server_id()).await.unwrap() {
            store.workspaces_record(other.id, &StateKind::ALL, &WorkspaceState::Destroyed).await.unwrap();
        }
    }
}

#[tokio::test]
async fn hosted_servers_have_places_of_their_own() {
    let store = TestStore::open().await;
    let server = || store.new_row_of(ContainerKind::McpServer);
    assert_eq!(store.admit(server(), 0, None).await.unwrap(), Admission::Full);
    assert!(matches!(store.admit(server(), 1, None).await.unwrap(), Admission::Admitted(_)));
    assert_eq!(store.admit(server(), 1, None).await.unwrap(), Admission::Full);
    assert!(matches!(store.admit(store.new_row(), 1, None).await.unwrap(), Admission::Admitted(_)));
    assert_eq!(store.admit(store.new_row(), 1, None).await.unwrap(), Admission::Full);
}

#[tokio::test]
async fn a_start_holds_a_place_until_the_next_state_is_recorded() {
    let store = TestStore::open().await;
    let row = store.admitted(store.new_row()).await;
    assert_eq!(store.claim_start(row.id, 5).await.unwrap(), StartClaim::Full, "it is not stopped");
    store.workspaces_record(row.id, &[StateKind::Creating], &WorkspaceState::Stopped).await.unwrap().unwrap();
    let other = store.admitted(store.new_row()).await;
    assert_eq!(store.claim_start(row.id, 1).await.unwrap(), StartClaim::Full);
    store.workspaces_record(other.id, &[StateKind::Creating], &WorkspaceState::Destroyed).await.unwrap().unwrap();
    assert_eq!(store.claim_start(row.id, 1).await.unwrap(), StartClaim::Claimed);
    assert_eq!(store.claim_start(row.id, 1).await.unwrap(), StartClaim::Claimed, "its own place is no obstacle");
    assert_eq!(store.admit(store.new_row(), 1, None).await.unwrap(), Admission::Full);
    let ready = store.workspaces_record(row.id, &[StateKind::Stopped], &WorkspaceState::Ready).await.unwrap().unwrap();
    assert!(!ready.starting);
}

#[tokio::test]
async fn the_same_request_with_the_same_key_makes_one_workspace() {
    let store = TestStore::open().await;
    let Admission::Admitted(first) = store.admit(store.new_row(), 1, claim("a", 1)).await.unwrap() else {
        panic!("not admitted")
    };
    let Admission::Repeated(again) = store.admit(store.new_row(), 1, claim("a", 1)).await.unwrap() else {
        panic!("not repeated, though full")
    };
    assert_eq!(first, again);
    assert_eq!(store.admit(store.new_row(), 9, claim("a", 2)).await.unwrap(), Admission::KeyTaken);
    assert!(matches!(store.admit(store.new_row(), 9, claim("b", 1)).await.unwrap(), Admission::Admitted(_)));
}

#[tokio::test]
async fn a_key_whose_request_found_no_room_is_free_again() {
    let store = TestStore::open().await;
    assert_eq!(store.admit(store.new_row(), 0, claim("a", 1)).await.unwrap(), Admission::Full);
    assert!(matches!(store.admit(store.new_row(), 1, claim("a", 2)).await.unwrap(), Admission::Admitted(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_repetitions_of_a_request_make_one_workspace() {
    let store = TestStore::open().await;
    let servers = two_servers(&store).await;
    let requests = (0..20).map(|turn| {
        let (server, new) = (servers[turn % 2].clone(), store.new_row());
        async move { server.admit(new, 100, claim("same", 1)).await.unwrap() }
    });
    let mut ids = BTreeSet::<WorkspaceId>::new();
    for admission in requests.collect::<JoinSet<_>>().join_all().await {
        match admission {
            Admission::Admitted(row) | Admission::Repeated(row) => ids.insert(row.id),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day() {
    let store = TestStore::open().await;
    assert!(matches!(store.admit(store.new_row(), 9, claim("a", 1)).await.unwrap(), Admission::Admitted(_)));
    let back_then = chrono::Utc::now() - chrono::TimeDelta::hours(25);
    let sql = format!("UPDATE idempotency_keys SET created_at = '{}'", back_then.to_rfc3339());
    store.execute(&sql).await;
    assert!(matches!(store.admit(store.new_row(), 9, claim("a", 2)).await.unwrap(), Admission::Admitted(_)));
}
