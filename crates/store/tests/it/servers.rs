//! Leases, and the rows that change hands when one runs out.

use std::collections::BTreeMap;

use emergent_provider::ProviderKind;
use emergent_store::{
    McpServerAdmission, McpServerState, OpenError, Renewal, ServerIdentity, StateKind, Store, WorkspaceState,
};
use emergent_types::ServerId;
use tokio::task::JoinSet;

use crate::support::{TestStore, new_mcp_server};

const PROVIDERS: [ProviderKind; 1] = [ProviderKind::Docker];

pub(crate) async fn another_server(store: &TestStore) -> Store {
    let identity = ServerIdentity { name: Some("other".into()), ..held_by("other") };
    Store::open_as(&store.url, Some(ServerId::generate()), &identity).await.unwrap()
}

fn held_by(holder: &str) -> ServerIdentity {
    ServerIdentity { holder: holder.to_owned(), ..ServerIdentity::default() }
}

/// Lets the lease of a server run out.
async fn let_lapse(store: &TestStore, server: ServerId) {
    let then = (chrono::Utc::now() - chrono::TimeDelta::seconds(1)).to_rfc3339();
    // SQLite keeps an id as bytes, PostgreSQL as a UUID; both find it by its position in this test.
    let newest = "SELECT created_at FROM servers ORDER BY created_at DESC LIMIT 1";
    let which = if server == store.server_id() { "<" } else { "=" };
    store.execute(&format!("UPDATE servers SET lease_expires_at = '{then}' WHERE created_at {which} ({newest})")).await;
}

#[tokio::test]
async fn a_lease_is_renewed_with_the_engines_of_its_server() {
    let store = TestStore::open().await;
    let engines = BTreeMap::from([(ProviderKind::Docker, "engine".to_owned())]);
    let Renewal::Renewed(row) = store.servers_renew(&engines).await.unwrap() else { panic!("not renewed") };
    assert_eq!((row.id, row.alive, row.draining), (store.server_id(), true, false));
    assert_eq!(row.engines, engines);
    assert_eq!(store.servers_find(row.id).await.unwrap(), Some(row.clone()));
    assert_eq!(store.servers_list().await.unwrap(), [row]);
}

#[tokio::test]
async fn a_second_process_of_one_server_is_refused_unless_the_first_has_ended() {
    let store = TestStore::open().await;
    let (id, here) = (Some(ServerId::generate()), held_by("here"));
    let first = Store::open_as(&store.url, id, &here).await.unwrap();
    let copied = Store::open_as(&store.url, id, &held_by("elsewhere")).await.map(drop);
    assert!(matches!(copied, Err(OpenError::ServerInUse { server }) if Some(server) == id), "{copied:?}");
    // Whoever has the same holder knows that the first has ended; should it not have, it may do nothing more.
    Store::open_as(&store.url, id, &here).await.unwrap();
    assert_eq!(first.servers_renew(&BTreeMap::new()).await.unwrap(), Renewal::Usurped);
}

#[tokio::test]
async fn a_server_that_lives_keeps_its_workspaces() {
    let store = TestStore::open().await;
    let other = another_server(&store).await;
    let id = store.admitted(store.new_row()).await.id;
    assert_eq!(other.servers_take_over(store.server_id(), &PROVIDERS).await.unwrap().workspaces, []);
    assert_eq!(store.workspaces_find(id).await.unwrap().unwrap().server, store.server_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_workspaces_of_a_server_whose_lease_ran_out_go_to_one_other() {
    let store = TestStore::open().await;
    let heirs = [another_server(&store).await, another_server(&store).await];
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(store.admitted(store.new_row()).await.id);
    }
    let gone = ids.pop().unwrap();
    store.workspaces_record(gone, &StateKind::ALL, &WorkspaceState::Destroyed).await.unwrap().unwrap();
    let_lapse(&store, store.server_id()).await;
    let takes = (0..8).map(|turn| {
        let (heir, dead) = (heirs[turn % 2].clone(), store.server_id());
        async move { heir.servers_take_over(dead, &PROVIDERS).await.unwrap().workspaces }
    });
    let taken = takes.collect::<JoinSet<_>>().join_all().await.concat();
    let mut taken_ids = taken.iter().map(|row| row.id).collect::<Vec<_>>();
    taken_ids.sort();
    assert_eq!(taken_ids, ids, "each once, and none that is destroyed");
    assert!(taken.iter().all(|row| heirs.iter().any(|heir| heir.server_id() == row.server)));
}

#[tokio::test]
async fn other_engines_workspaces_are_left_where_they_are() {
    let store = TestStore::open().await;
    let other = another_server(&store).await;
    store.admitted(store.new_row()).await;
    let_lapse(&store, store.server_id()).await;
    assert_eq!(other.servers_take_over(store.server_id(), &[ProviderKind::E2b]).await.unwrap().workspaces, []);
    assert_eq!(other.servers_take_over(store.server_id(), &PROVIDERS).await.unwrap().workspaces.len(), 1);
}

#[tokio::test]
async fn hosted_mcp_servers_change_hands_and_only_their_host_records_anything() {
    let store = TestStore::open().await;
    let other = another_server(&store).await;
    let row = new_mcp_server(&store, "clock");
    assert_eq!(store.mcp_servers_admit(&row, 1).await.unwrap(), McpServerAdmission::Admitted);
    let_lapse(&store, store.server_id()).await;
    assert_eq!(other.servers_take_over(store.server_id(), &[ProviderKind::E2b]).await.unwrap().mcp_servers, 0);
    assert_eq!(other.servers_take_over(store.server_id(), &PROVIDERS).await.unwrap().mcp_servers, 1);
    assert_eq!(other.servers_take_over(store.server_id(), &PROVIDERS).await.unwrap().mcp_servers, 0);
    assert_eq!(other.mcp_servers_of(other.server_id()).await.unwrap().len(), 1);
    store.mcp_servers_record(row.id, McpServerState::Failed, None).await.unwrap();
    let named = async || other.mcp_servers_named(row.project, "clock").await.unwrap().unwrap();
    assert_eq!(named().await.state, McpServerState::Running);
    other.mcp_servers_record(row.id, McpServerState::Failed, None).await.unwrap();
    assert_eq!(named().await.state, McpServerState::Failed);
}

#[tokio::test]
async fn a_server_that_comes_back_learns_of_its_loss_before_it_can_record_anything() {
    let store = TestStore::open().await;
    let other = another_server(&store).await;
    let id = store.admitted(store.new_row()).await.id;
    let_lapse(&store, store.server_id()).await;
    other.servers_take_over(store.server_id(), &PROVIDERS).await.unwrap();
    assert_eq!(store.workspaces_record(id, &StateKind::ALL, &WorkspaceState::Destroying).await.unwrap(), None);
    assert!(matches!(store.servers_renew(&BTreeMap::new()).await.unwrap(), Renewal::ClaimedAnew(_)));
    assert!(matches!(store.servers_renew(&BTreeMap::new()).await.unwrap(), Renewal::Renewed(_)));
    assert_eq!(store.workspaces_of(store.server_id()).await.unwrap(), []);
    assert_eq!(other.workspaces_of(other.server_id()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_goes_on_draining_when_it_is_started_again() {
    let store = TestStore::open().await;
    store.servers_set_draining(true).await.unwrap();
    let again = Store::open(&store.url).await.unwrap();
    assert!(again.servers_find(store.server_id()).await.unwrap().unwrap().draining);
    again.servers_set_draining(false).await.unwrap();
    assert!(!store.servers_find(store.server_id()).await.unwrap().unwrap().draining);
}
