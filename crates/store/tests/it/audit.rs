//! Actions: appended in batches, listed in pages, deleted in pieces.

use chrono::{TimeDelta, Utc};
use emergent_store::{
    Actor, AuditFilter, AuditId, AuditKind, AuditOutcome, AuditRow, PageRequest, ProjectId, Store, TokenId,
};
use emergent_types::WorkspaceId;
use serde_json::{Map, json};

use crate::support::TestStore;

fn row(project: ProjectId, workspace: WorkspaceId, number: i64) -> AuditRow {
    let base = "2026-11-21T10:00:00.123456Z".parse::<chrono::DateTime<Utc>>().unwrap();
    AuditRow {
        id: AuditId::generate(),
        project,
        workspace: Some(workspace),
        at: base + TimeDelta::seconds(number),
        actor: Actor::Token(TokenId::generate()),
        session: Some("planner".to_owned()),
        kind: AuditKind::Tool,
        action: "bash".to_owned(),
        outcome: AuditOutcome::Ok,
        problem: None,
        duration_ms: 12,
        arguments: Map::from_iter([("program".to_owned(), json!("git"))]),
        bytes_in: u64::MAX,
        bytes_out: 4,
        request_id: Some("request".to_owned()),
    }
}

async fn list(store: &Store, project: ProjectId, filter: AuditFilter) -> Vec<AuditRow> {
    store.audit_list(project, &filter, PageRequest { limit: 200, cursor: None }).await.unwrap().items
}

#[tokio::test]
async fn rows_come_back_as_they_were_newest_first_and_page_by_page() {
    let rows = TestStore::open().await;
    let (store, project, workspace) = (&rows.store, rows.store.default_project(), WorkspaceId::generate());
    let mut written: Vec<_> = (0..25).map(|number| row(project, workspace, number / 2)).collect();
    store.audit_append(&written).await.unwrap();
    store.audit_append(&written).await.unwrap();
    written.reverse();
    for row in &mut written {
        row.bytes_in = i64::MAX as u64;
    }
    let mut read = Vec::new();
    let mut page = PageRequest { limit: 10, cursor: None };
    loop {
        let found = store.audit_list(project, &AuditFilter::default(), page).await.unwrap();
        read.extend(found.items);
        page.cursor = found.next;
        if page.cursor.is_none() {
            break;
        }
    }
    assert_eq!(read, written);
    assert!(list(store, ProjectId::generate(), AuditFilter::default()).await.is_empty());
}

#[tokio::test]
async fn each_filter_narrows_the_list() {
    let rows = TestStore::open().await;
    let (store, project, workspace) = (&rows.store, rows.store.default_project(), WorkspaceId::generate());
    let plain = row(project, workspace, 0);
    let other = AuditRow {
        workspace: None,
        actor: Actor::Server,
        session: None,
        kind: AuditKind::Lifecycle,
        action: "destroy".to_owned(),
        outcome: AuditOutcome::TimedOut,
        request_id: None,
        ..row(project, workspace, 60)
    };
    let other = AuditRow { bytes_in: 0, ..other };
    let plain = AuditRow { bytes_in: 0, ..plain };
    store.audit_append(&[plain.clone(), other.clone()]).await.unwrap();
    let any = AuditFilter::default;
    for (filter, expected) in [
        (AuditFilter { workspace: Some(workspace), ..any() }, &plain),
        (AuditFilter { kind: Some(AuditKind::Lifecycle), ..any() }, &other),
        (AuditFilter { action: Some("bash".to_owned()), ..any() }, &plain),
        (AuditFilter { outcome: Some(AuditOutcome::TimedOut), ..any() }, &other),
        (AuditFilter { session: Some("planner".to_owned()), ..any() }, &plain),
        (AuditFilter { since: Some(other.at), ..any() }, &other),
        (AuditFilter { until: Some(other.at), ..any() }, &plain),
    ] {
        assert_eq!(list(store, project, filter.clone()).await, std::slice::from_ref(expected), "{filter:?}");
    }
}

#[tokio::test]
async fn what_is_old_goes_in_pieces_and_the_rest_stays() {
    let rows = TestStore::open().await;
    let (store, project, workspace) = (&rows.store, rows.store.default_project(), WorkspaceId::generate());
    let written: Vec<_> = (0..10).map(|number| row(project, workspace, number)).collect();
    store.audit_append(&written).await.unwrap();
    let before = written[7].at;
    let mut deleted = Vec::new();
    while deleted.last() != Some(&0) {
        deleted.push(store.audit_purge(before, 3).await.unwrap());
    }
    assert_eq!(deleted, [3, 3, 1, 0]);
    let left: Vec<_> = list(store, project, AuditFilter::default()).await.into_iter().map(|row| row.id).collect();
    assert_eq!(left, [written[9].id, written[8].id, written[7].id]);
}
