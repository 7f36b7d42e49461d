//! The holders of a workspace.

use std::{collections::BTreeSet, time::Duration};

use emergent_store::{Attachment, NewSession, PageRequest, SessionEnd, SessionId};
use emergent_types::WorkspaceId;

use crate::support::TestStore;

fn session(workspace: WorkspaceId, holder: &str) -> NewSession {
    NewSession { id: SessionId::generate(), workspace, holder: holder.to_owned(), lease: None }
}

#[tokio::test]
async fn of_all_who_attach_at_once_one_does() {
    let store = TestStore::open().await;
    let workspace = store.admitted(store.new_row()).await.id;
    let tasks = (0..20).map(|index| {
        let (store, new) = (store.store.clone(), session(workspace, &format!("agent {index}")));
        tokio::spawn(async move { store.sessions_attach(new, false).await.unwrap() })
    });
    let mut attached = Vec::new();
    let mut holders = BTreeSet::new();
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Attachment::Attached(row) => attached.push(row.holder),
            Attachment::Held(row) => drop(holders.insert(row.holder)),
            Attachment::Renewed(_) | Attachment::IdTaken => panic!("no id was used twice"),
        }
    }
    assert_eq!(attached.len(), 1);
    assert_eq!(holders, attached.into_iter().collect());
}

#[tokio::test]
async fn a_workspace_can_be_attached_again_once_it_is_let_go_or_taken_over() {
    let store = TestStore::open().await;
    let workspace = store.admitted(store.new_row()).await.id;
    let (first, second, third) = (session(workspace, "a"), session(workspace, "b"), session(workspace, "c"));
    assert!(matches!(store.sessions_attach(first.clone(), false).await.unwrap(), Attachment::Attached(_)));
    assert_eq!(store.sessions_end(workspace, Some(second.id), SessionEnd::Detached).await.unwrap(), None);
    assert!(store.sessions_end(workspace, Some(first.id), SessionEnd::Detached).await.unwrap().is_some());
    assert!(matches!(store.sessions_attach(second.clone(), false).await.unwrap(), Attachment::Attached(_)));
    assert!(matches!(store.sessions_attach(third.clone(), true).await.unwrap(), Attachment::Attached(_)));
    let open = store.sessions_open(&[workspace]).await.unwrap();
    assert_eq!(open.iter().map(|row| row.id).collect::<Vec<_>>(), [third.id]);

    let page = PageRequest { limit: 2, cursor: None };
    let newest = store.sessions_list(workspace, page).await.unwrap();
    let oldest = store.sessions_list(workspace, PageRequest { cursor: newest.next, ..page }).await.unwrap();
    let history: Vec<_> =
        newest.items.iter().chain(&oldest.items).map(|row| (row.id, row.ended.map(|(_, reason)| reason))).collect();
    let expected = [(third.id, None), (second.id, Some(SessionEnd::TakenOver)), (first.id, Some(SessionEnd::Detached))];
    assert_eq!(history, expected);
    assert_eq!(oldest.next, None);
}

#[tokio::test]
async fn repeating_an_attach_finds_the_session_and_another_holder_does_not_get_it() {
    let store = TestStore::open().await;
    let workspace = store.admitted(store.new_row()).await.id;
    let new = session(workspace, "a");
    let Attachment::Attached(first) = store.sessions_attach(new.clone(), false).await.unwrap() else { panic!() };
    let Attachment::Renewed(again) = store.sessions_attach(new.clone(), false).await.unwrap() else { panic!() };
    assert_eq!(first, again);
    let thief = NewSession { holder: "b".to_owned(), ..new.clone() };
    assert_eq!(store.sessions_attach(thief, false).await.unwrap(), Attachment::IdTaken);
    store.sessions_end(workspace, None, SessionEnd::Detached).await.unwrap();
    assert_eq!(store.sessions_attach(new, false).await.unwrap(), Attachment::IdTaken);
}

#[tokio::test]
async fn a_lease_that_is_over_keeps_nobody_out_and_a_renewed_one_does() {
    let store = TestStore::open().await;
    let workspace = store.admitted(store.new_row()).await.id;
    let brief = NewSession { lease: Some(Duration::from_millis(1)), ..session(workspace, "gone") };
    store.sessions_attach(brief.clone(), false).await.unwrap();
    while !store.sessions_open(&[workspace]).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let next = session(workspace, "next");
    assert!(matches!(store.sessions_attach(next.clone(), false).await.unwrap(), Attachment::Attached(_)));
    let gone = store.sessions_get(workspace, brief.id).await.unwrap().unwrap();
    assert_eq!(gone.ended.map(|(at, reason)| (Some(at), reason)), Some((gone.expires_at, SessionEnd::Expired)));

    store.sessions_end(workspace, Some(next.id), SessionEnd::Detached).await.unwrap();
    let renewed = NewSession { lease: Some(Duration::from_secs(60)), ..session(workspace, "alive") };
    store.sessions_attach(renewed.clone(), false).await.unwrap();
    store.sessions_renew(renewed.id, chrono::Utc::now() + chrono::TimeDelta::hours(1)).await.unwrap();
    let held = store.sessions_attach(session(workspace, "other"), false).await.unwrap();
    assert!(matches!(held, Attachment::Held(row) if row.id == renewed.id));
}
