//! Lists, their filters and their pages.

use emergent_provider::{ContainerKind, ProviderKind};
use emergent_store::{ListFilter, PageRequest, ProjectId, StateKind, WorkspaceState};
use emergent_types::WorkspaceId;

use crate::support::TestStore;

async fn all(store: &TestStore, filter: ListFilter) -> Vec<WorkspaceId> {
    let page = store.workspaces_list(store.default_project(), &filter, PageRequest::default()).await.unwrap();
    assert_eq!(page.next, None);
    page.items.into_iter().map(|row| row.id).collect()
}

#[tokio::test]
async fn pages_are_newest_first_and_miss_and_repeat_nothing_while_rows_come() {
    let store = TestStore::open().await;
    let mut expected = Vec::new();
    for _ in 0..7 {
        expected.insert(0, store.admitted(store.new_row()).await.id);
    }
    let mut seen = Vec::new();
    let mut page = PageRequest { limit: 3, cursor: None };
    loop {
        let got = store.workspaces_list(store.default_project(), &ListFilter::default(), page).await.unwrap();
        seen.extend(got.items.iter().map(|row| row.id));
        store.admitted(store.new_row()).await;
        let Some(next) = got.next else { break };
        page.cursor = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_page_that_is_exactly_full_is_the_last() {
    let store = TestStore::open().await;
    store.admitted(store.new_row()).await;
    let page = PageRequest { limit: 1, cursor: None };
    let got = store.workspaces_list(store.default_project(), &ListFilter::default(), page).await.unwrap();
    assert_eq!((got.items.len(), got.next), (1, None));
}

#[tokio::test]
async fn every_filter_narrows_the_list() {
    let store = TestStore::open().await;
    let plain = store.admitted(store.new_row()).await.id;
    let mut other = store.new_row();
    other.name = Some("two".into());
    other.spec.kind = ContainerKind::McpServer;
    other.provider = ProviderKind::E2b;
    other.labels = [("team".into(), "blue".into()), ("a.b/c-d".into(), "'; --".into())].into();
    let other = store.admitted(other).await.id;
    let label = |key: &str, value: &str| ListFilter { label: Some((key.into(), value.into())), ..Default::default() };

    assert_eq!(all(&store, ListFilter::default()).await, [other, plain]);
    assert_eq!(all(&store, ListFilter { name: Some("two".into()), ..Default::default() }).await, [other]);
    assert_eq!(all(&store, ListFilter { kind: Some(ContainerKind::McpServer), ..Default::default() }).await, [other]);
    assert_eq!(all(&store, ListFilter { provider: Some(ProviderKind::Docker), ..Default::default() }).await, [plain]);
    assert_eq!(all(&store, label("team", "red")).await, [plain]);
    assert_eq!(all(&store, label("a.b/c-d", "'; --")).await, [other]);
    for nothing in [("team", "green"), ("nobody", "red"), ("$", "red"), ("$.team", "red"), ("", ""), ("'\"", "x")] {
        assert_eq!(all(&store, label(nothing.0, nothing.1)).await, [], "{nothing:?}");
    }
}

#[tokio::test]
async fn destroyed_ones_are_listed_only_when_asked_for() {
    let store = TestStore::open().await;
    let gone = store.admitted(store.new_row()).await.id;
    store.workspaces_record(gone, &StateKind::ALL, &WorkspaceState::Destroyed).await.unwrap().unwrap();
    let here = store.admitted(store.new_row()).await.id;
    assert_eq!(all(&store, ListFilter::default()).await, [here]);
    assert_eq!(all(&store, ListFilter { include_destroyed: true, ..Default::default() }).await, [here, gone]);
    assert_eq!(all(&store, ListFilter { states: vec![StateKind::Destroyed], ..Default::default() }).await, [gone]);
}

#[tokio::test]
async fn another_project_sees_nothing() {
    let store = TestStore::open().await;
    store.admitted(store.new_row()).await;
    let everything = ListFilter::default();
    let page = store.workspaces_list(ProjectId::generate(), &everything, PageRequest::default()).await.unwrap();
    assert!(page.items.is_empty());
}

#[tokio::test]
async fn active_workspaces_are_counted_by_provider() {
    let store = TestStore::open().await;
    store.admitted(store.new_row()).await;
    let stopped = store.admitted(store.new_row()).await.id;
    store.workspaces_record(stopped, &StateKind::ALL, &WorkspaceState::Stopped).await.unwrap();
    let active = store.workspaces_active(None).await.unwrap();
    assert_eq!(active, [(ProviderKind::Docker, 1)]);
}
