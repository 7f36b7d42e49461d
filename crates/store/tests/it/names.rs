//! A name stands for one live workspace of its project.

use emergent_store::{
    Admission, Changed, ProjectId, StateKind, StoreError, WorkspaceChange, WorkspaceRow, WorkspaceState,
};
use emergent_types::WorkspaceId;

use crate::support::TestStore;

fn called(store: &TestStore, name: &str) -> WorkspaceRow {
    WorkspaceRow { name: Some(name.to_owned()), ..store.new_row() }
}

#[tokio::test]
async fn a_second_workspace_of_a_name_is_refused_until_the_first_is_gone() {
    let store = TestStore::open().await;
    let first = store.admitted(called(&store, "first")).await;
    let refused = store.admit(called(&store, "first"), 100, None).await.unwrap();
    assert_eq!(refused, Admission::NameTaken(first.id));
    assert_eq!(store.workspace_named(first.project, "first").await.unwrap(), Some(first.id));
    assert_eq!(store.workspace_named(ProjectId::generate(), "first").await.unwrap(), None);

    let second = store.admitted(called(&store, "second")).await;
    let rename = || WorkspaceChange { name: Some(Some("first".to_owned())), ..WorkspaceChange::default() };
    let change = async |id: WorkspaceId| {
        store.workspaces_change::<StoreError>(second.project, id, |_| Ok(rename())).await.unwrap()
    };
    assert_eq!(change(second.id).await, Changed::NameTaken(first.id));
    assert!(matches!(change(first.id).await, Changed::Row(_)), "its own name is no other's");

    store.workspaces_record(first.id, &StateKind::ALL, &WorkspaceState::Destroyed).await.unwrap();
    assert!(matches!(change(second.id).await, Changed::Row(_)));
    assert_eq!(store.workspace_named(second.project, "first").await.unwrap(), Some(second.id));
}

#[tokio::test]
async fn of_creates_at_once_one_gets_the_name() {
    let store = TestStore::open().await;
    let creates = (0..8).map(|_| {
        let (store, new) = (store.store.clone(), called(&store, "wanted"));
        tokio::spawn(async move { store.admit(new, 100, None).await.unwrap() })
    });
    let mut ends = Vec::new();
    for create in creates.collect::<Vec<_>>() {
        ends.push(create.await.unwrap());
    }
    let admitted = ends.iter().filter(|end| matches!(end, Admission::Admitted(_))).count();
    let refused = ends.iter().filter(|end| matches!(end, Admission::NameTaken(_))).count();
    assert_eq!((admitted, refused), (1, 7), "{ends:?}");
}
