//! Rows of workspaces and their states.

use chrono::{TimeDelta, Utc};
use emergent_provider::Isolation;
use emergent_store::{ErrorReason, ListFilter, MadeSandbox, PageRequest, ProjectId, StateKind, WorkspaceState};
use emergent_types::{ServerId, WorkspaceId};

use crate::support::TestStore;

#[tokio::test]
async fn a_row_comes_back_as_it_was_recorded() {
    let store = TestStore::open().await;
    let mut new = store.new_row();
    new.expires_at = Some(Utc::now());
    let row = store.admitted(new).await;
    assert_eq!(store.workspaces_get(row.project, row.id).await.unwrap(), Some(row.clone()));
    assert_eq!(store.workspaces_get(ProjectId::generate(), row.id).await.unwrap(), None);
    assert_eq!(store.workspaces_find(WorkspaceId::generate()).await.unwrap(), None);

    let made = MadeSandbox { runtime: "runsc".into(), isolation: Isolation::Gvisor, warnings: vec!["weak".into()] };
    store.workspaces_record_made(row.id, &made).await.unwrap();
    let row = store.workspaces_find(row.id).await.unwrap().unwrap();
    assert_eq!(row.runtime.as_deref(), Some("runsc"));
    assert_eq!((row.isolation, row.warnings), (Some(Isolation::Gvisor), vec!["weak".to_owned()]));
}

#[tokio::test]
async fn a_state_is_recorded_only_from_the_states_it_may_follow() {
    let store = TestStore::open().await;
    let id = store.admitted(store.new_row()).await.id;
    let stopped = store.workspaces_record(id, &[StateKind::Stopping], &WorkspaceState::Stopped).await.unwrap();
    assert_eq!(stopped, None);
    assert_eq!(store.workspaces_find(id).await.unwrap().unwrap().state, WorkspaceState::Creating);

    let error = WorkspaceState::Error { reason: ErrorReason::Oom, message: "out of memory".into() };
    let failed = store.workspaces_record(id, &[StateKind::Creating], &error).await.unwrap().unwrap();
    assert_eq!(failed.state, error);
    let ready = store.workspaces_record(id, &[StateKind::Error], &WorkspaceState::Ready).await.unwrap().unwrap();
    assert_eq!(ready.state, WorkspaceState::Ready);
    assert!(ready.ready_at.is_some());
}

#[tokio::test]
async fn ready_at_is_the_first_time() {
    let store = TestStore::open().await;
    let id = store.admitted(store.new_row()).await.id;
    let first = store.workspaces_record(id, &StateKind::ALL, &WorkspaceState::Ready).await.unwrap().unwrap();
    store.workspaces_record(id, &StateKind::ALL, &WorkspaceState::Paused).await.unwrap().unwrap();
    let again = store.workspaces_record(id, &StateKind::ALL, &WorkspaceState::Ready).await.unwrap().unwrap();
    assert_eq!(first.ready_at, again.ready_at);
}

#[tokio::test]
async fn a_destroyed_row_forgets_its_environment_and_is_no_longer_driven() {
    let store = TestStore::open().await;
    let id = store.admitted(store.new_row()).await.id;
    let row = store.workspaces_record(id, &StateKind::ALL, &WorkspaceState::Destroyed).await.unwrap().unwrap();
    assert!(row.spec.environment_keys.is_empty() && row.destroyed_at.is_some());
    assert_eq!(store.workspaces_of(store.server_id()).await.unwrap(), []);
}

#[tokio::test]
async fn expired_workspaces_are_those_of_the_server_whose_time_is_up() {
    let store = TestStore::open().await;
    let (soon, later) = (Utc::now() + TimeDelta::minutes(1), Utc::now() + TimeDelta::minutes(3));
    let mut ids = Vec::new();
    for expires_at in [None, Some(soon), Some(later)] {
        let mut new = store.new_row();
        new.expires_at = expires_at;
        ids.push(store.admitted(new).await.id);
    }
    let expired = store.workspaces_expired(store.server_id(), Utc::now() + TimeDelta::minutes(2)).await.unwrap();
    assert_eq!(expired.iter().map(|row| row.id).collect::<Vec<_>>(), [ids[1]]);
    assert_eq!(store.workspaces_expired(ServerId::generate(), later).await.unwrap(), []);
}

#[tokio::test]
async fn use_is_recorded_for_many_at_once() {
    let store = TestStore::open().await;
    let used_at = chrono::DateTime::from_timestamp_micros(1_800_000_000_000_001).unwrap();
    let (one, two) = (store.admitted(store.new_row()).await.id, store.admitted(store.new_row()).await.id);
    store.workspaces_touch(&[(one, used_at), (two, used_at)]).await.unwrap();
    for id in [one, two] {
        assert_eq!(store.workspaces_find(id).await.unwrap().unwrap().last_used_at, Some(used_at));
    }
}

#[tokio::test]
async fn a_text_with_any_character_is_kept_or_found_by_every_database() {
    let store = TestStore::open().await;
    let id = store.admitted(store.new_row()).await.id;
    let error = WorkspaceState::Error { reason: ErrorReason::Killed, message: "a\0b\u{1}\u{1F600}".into() };
    let failed = store.workspaces_record(id, &StateKind::ALL, &error).await.unwrap().unwrap();
    let WorkspaceState::Error { message, .. } = failed.state else { panic!("{:?}", failed.state) };
    assert_eq!(message, "a\u{fffd}b\u{1}\u{1F600}");
    let filters = [
        ListFilter { name: Some("\0".into()), ..ListFilter::default() },
        ListFilter { label: Some(("team".into(), "\0".into())), ..ListFilter::default() },
    ];
    for filter in filters {
        let page = store.workspaces_list(store.default_project(), &filter, PageRequest::default()).await.unwrap();
        assert!(page.items.is_empty());
    }
    store.projects_ensure("a\0b").await.unwrap();
}
