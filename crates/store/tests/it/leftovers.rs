//! Leftovers are recorded once, and can be adopted once; a copied database becomes a server of its own.

use chrono::{DateTime, TimeDelta, Utc};
use emergent_provider::{ProviderKind, Taken};
use emergent_store::{
    DestroyReason, LeftoverKind, LeftoverRow, NewSnapshotRow, SnapshotRow, SnapshotState, Store, WorkspaceState,
};
use emergent_types::{ServerId, SnapshotId, WorkspaceId};
use uuid::Uuid;

use crate::support::TestStore;

fn second(number: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + number, 0).unwrap()
}

fn leftover(store: &TestStore, kind: LeftoverKind) -> LeftoverRow {
    LeftoverRow {
        id: Uuid::now_v7(),
        kind,
        provider: ProviderKind::Docker,
        maker: ServerId::generate(),
        server: store.server_id(),
        made_at: second(0),
        found_at: second(1),
    }
}

fn snapshot(store: &TestStore, id: SnapshotId) -> SnapshotRow {
    let like = store.new_row();
    let new = NewSnapshotRow {
        id,
        project: like.project,
        server: like.server,
        workspace: WorkspaceId::generate(),
        provider: like.provider,
        name: None,
        labels: like.labels,
        temporary: false,
        spec: like.spec,
    };
    let taken = Some(Taken { root_bytes: 1, workspace_bytes: 2 });
    SnapshotRow { new, state: SnapshotState::Ready, taken, created_at: second(0), ready_at: Some(second(0)) }
}

#[tokio::test]
async fn a_leftover_is_recorded_once_and_keeps_when_it_was_found() {
    let store = TestStore::open().await;
    let first = leftover(&store, LeftoverKind::Workspace);
    assert!(store.leftovers_note(&first).await.unwrap());
    let again = LeftoverRow { found_at: second(100), ..first.clone() };
    assert!(!store.leftovers_note(&again).await.unwrap());
    assert_eq!(store.leftovers_find(first.id).await.unwrap(), Some(first.clone()));
    assert_eq!(store.leftovers_list().await.unwrap(), std::slice::from_ref(&first));
    store.leftovers_forget(&[first.id]).await.unwrap();
    assert_eq!(store.leftovers_list().await.unwrap(), []);
}

#[tokio::test]
async fn a_leftover_is_adopted_once() {
    let store = TestStore::open().await;
    let found = leftover(&store, LeftoverKind::Workspace);
    store.leftovers_note(&found).await.unwrap();
    let unused = store.admitted(store.new_row()).await;
    let row = emergent_store::WorkspaceRow { id: found.id.into(), ready_at: Some(second(0)), ..unused };
    assert!(store.leftovers_adopt_workspace(&row).await.unwrap());
    let adopted = store.workspaces_find(row.id).await.unwrap().unwrap();
    assert_eq!((adopted.state, adopted.ready_at), (WorkspaceState::Stopped, Some(second(0))));
    assert!(!store.leftovers_adopt_workspace(&row).await.unwrap());

    let found = leftover(&store, LeftoverKind::Snapshot);
    store.leftovers_note(&found).await.unwrap();
    let row = snapshot(&store, found.id.into());
    assert!(store.leftovers_adopt_snapshot(&row).await.unwrap());
    assert_eq!(store.snapshots_find(row.new.id).await.unwrap(), Some(row.clone()));
    assert!(!store.leftovers_adopt_snapshot(&row).await.unwrap());
    assert_eq!(store.leftovers_list().await.unwrap(), []);
}

#[tokio::test]
async fn a_copy_that_becomes_another_server_lets_go_of_all_that_is_in_the_engine() {
    let store = TestStore::open().await;
    let workspace = store.admitted(store.new_row()).await;
    let found = leftover(&store, LeftoverKind::Snapshot);
    store.leftovers_note(&found).await.unwrap();
    store.leftovers_adopt_snapshot(&snapshot(&store, found.id.into())).await.unwrap();
    store.leftovers_note(&leftover(&store, LeftoverKind::McpServer)).await.unwrap();

    let before = store.server_id();
    let copy = store.store.clone().take_new_identity().await.unwrap();
    assert_ne!(copy.server_id(), before);
    let row = copy.workspaces_find(workspace.id).await.unwrap().unwrap();
    assert_eq!((row.state, row.server), (WorkspaceState::Destroyed, copy.server_id()));
    assert_eq!(row.destroy_reason, Some(DestroyReason::NewIdentity));
    assert!(row.destroyed_at.is_some_and(|at| Utc::now() - at < TimeDelta::hours(1)));
    assert_eq!(copy.workspaces_of(copy.server_id()).await.unwrap(), []);
    assert_eq!(copy.snapshots_of(before).await.unwrap(), []);
    assert_eq!(copy.leftovers_list().await.unwrap(), []);
    let servers = copy.servers_list().await.unwrap();
    assert_eq!(servers.iter().map(|server| server.id).collect::<Vec<_>>(), [copy.server_id()]);
    // It is the same one when it is opened again.
    assert_eq!(Store::open(&store.url).await.unwrap().server_id(), copy.server_id());
}
