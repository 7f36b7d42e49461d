//! Changes of a workspace, the reason of its destruction, and the time for which its row stays.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use emergent_store::{
    Changed, DestroyReason, IdleAction, IdlePolicy, NewSession, PageRequest, ProjectId, SessionId, StateKind,
    StoreError, WorkspaceChange, WorkspaceRow, WorkspaceState,
};

use crate::support::TestStore;

#[tokio::test]
async fn a_change_touches_what_it_names_and_nothing_else() {
    let store = TestStore::open().await;
    let row = store.admitted(WorkspaceRow { name: Some("one".to_owned()), ..store.new_row() }).await;
    let idle = IdlePolicy { action: IdleAction::Stop, after: Duration::from_millis(1500) };
    let change = WorkspaceChange { name: Some(None), idle: Some(idle), ..WorkspaceChange::default() };
    let changed = store.workspaces_change::<StoreError>(row.project, row.id, |_| Ok(change)).await.unwrap();
    let Changed::Row(changed) = changed else { panic!("{changed:?}") };
    assert_eq!((changed.name.clone(), changed.idle), (None, idle));
    assert_eq!((&changed.labels, changed.expires_at), (&row.labels, row.expires_at));
    assert_eq!(store.workspaces_find(row.id).await.unwrap(), Some(*changed));

    let stranger = ProjectId::generate();
    assert_eq!(
        store.workspaces_change::<StoreError>(stranger, row.id, |_| unreachable!()).await.unwrap(),
        Changed::Gone
    );
    store.workspaces_record(row.id, &StateKind::ALL, &WorkspaceState::Destroyed).await.unwrap();
    assert_eq!(
        store.workspaces_change::<StoreError>(row.project, row.id, |_| unreachable!()).await.unwrap(),
        Changed::Gone
    );
}

#[tokio::test]
async fn the_first_reason_of_a_destruction_stays() {
    let store = TestStore::open().await;
    let id = store.admitted(store.new_row()).await.id;
    let not_yet = store.workspaces_begin_destroy(id, DestroyReason::Expired, Some(Utc::now())).await.unwrap();
    assert_eq!(not_yet, None, "it never expires");
    store.workspaces_begin_destroy(id, DestroyReason::Requested, None).await.unwrap().unwrap();
    let again = store.workspaces_begin_destroy(id, DestroyReason::Expired, Some(Utc::now())).await.unwrap().unwrap();
    assert_eq!((again.state, again.destroy_reason), (WorkspaceState::Destroying, Some(DestroyReason::Requested)));
}

#[tokio::test]
async fn rest_is_nobodys_will_until_it_ends_or_somebody_wants_it() {
    let store = TestStore::open().await;
    let id = store.admitted(store.new_row()).await.id;
    let record =
        async |state| store.workspaces_record(id, &StateKind::ALL, &state).await.unwrap().unwrap().suspended_by_idle;
    store.workspaces_note_suspended_by_idle(id, true).await.unwrap();
    assert!(record(WorkspaceState::Stopping).await && record(WorkspaceState::Stopped).await);
    assert!(!record(WorkspaceState::Ready).await);
    assert!(!record(WorkspaceState::Paused).await);
}

#[tokio::test]
async fn what_was_destroyed_long_ago_is_forgotten_with_its_sessions_and_nothing_else_is() {
    let store = TestStore::open().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        let id = store.admitted(store.new_row()).await.id;
        let holder = "agent".to_owned();
        let new = NewSession { id: SessionId::generate(), workspace: id, holder, lease: None };
        store.sessions_attach(new, false).await.unwrap();
        ids.push(id);
    }
    for id in &ids[..3] {
        store.workspaces_record(*id, &StateKind::ALL, &WorkspaceState::Destroyed).await.unwrap();
    }
    assert_eq!(store.workspaces_forget(Utc::now() - TimeDelta::days(1), 2).await.unwrap(), 0);
    let now = Utc::now() + TimeDelta::seconds(1);
    assert_eq!(store.workspaces_forget(now, 2).await.unwrap(), 2);
    assert_eq!(store.workspaces_forget(now, 2).await.unwrap(), 1);
    for (index, id) in ids.iter().enumerate() {
        let kept = index == 3;
        assert_eq!(store.workspaces_find(*id).await.unwrap().is_some(), kept);
        let sessions = store.sessions_list(*id, PageRequest::default()).await.unwrap();
        assert_eq!(!sessions.items.is_empty(), kept);
    }
}
