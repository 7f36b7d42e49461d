//! Projects.

use emergent_store::ProjectId;
use tokio::task::JoinSet;

use crate::support::TestStore;

#[tokio::test]
async fn a_project_is_made_once_however_many_name_it_at_once() {
    let store = TestStore::open().await;
    let callers = (0..50).map(|_| store.store.clone());
    let callers: JoinSet<_> =
        callers.map(|store| async move { store.projects_ensure("team").await.unwrap() }).collect();
    let ids = callers.join_all().await;
    let first = ids[0];
    assert_eq!(ids, [first; 50]);
    assert_eq!(store.projects_name(first).await.unwrap(), "team");
    assert_ne!(store.projects_ensure("Team").await.unwrap(), first);
}

#[tokio::test]
async fn the_default_project_has_a_name() {
    let store = TestStore::open().await;
    assert_eq!(store.projects_name(store.default_project()).await.unwrap(), "default");
    assert_eq!(store.projects_ensure("default").await.unwrap(), store.default_project());
    assert!(store.projects_name(ProjectId::generate()).await.is_err());
}
