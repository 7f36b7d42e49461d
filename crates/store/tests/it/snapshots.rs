//! Rows of snapshots, and the admission of copies.

use emergent_provider::Taken;
use emergent_store::{
    ForkAdmission, IdempotencyClaim, MadeFrom, NewSnapshotRow, PageRequest, ProjectId, SnapshotAdmission,
    SnapshotFilter, SnapshotRow, SnapshotState, SnapshotStateKind, WorkspaceRow,
};
use emergent_types::SnapshotId;

use crate::support::TestStore;

impl TestStore {
    pub(crate) fn new_snapshot(&self, temporary: bool) -> NewSnapshotRow {
        let of = self.new_row();
        NewSnapshotRow {
            id: SnapshotId::generate(),
            project: of.project,
            server: of.server,
            workspace: of.id,
            provider: of.provider,
            name: Some("before".to_owned()),
            labels: of.labels,
            temporary,
            spec: of.spec,
        }
    }

    async fn snapshot(&self) -> SnapshotRow {
        match self.snapshots_admit(self.new_snapshot(false), None).await.unwrap() {
            SnapshotAdmission::Admitted(row) => *row,
            other => panic!("not admitted: {other:?}"),
        }
    }

    pub(crate) fn copies(&self, of: &NewSnapshotRow, count: usize) -> Vec<WorkspaceRow> {
        let origin = Some(MadeFrom { snapshot: of.id, workspace: of.workspace });
        (0..count).map(|_| WorkspaceRow { origin, ..self.new_row() }).collect()
    }
}

fn claim(hash: u8) -> Option<IdempotencyClaim> {
    Some(IdempotencyClaim { key: "once".to_owned(), request_hash: [hash; 32] })
}

#[tokio::test]
async fn a_row_comes_back_as_it_was_recorded_and_is_forgotten_in_the_end() {
    let store = TestStore::open().await;
    let row = store.snapshot().await;
    let id = row.new.id;
    assert_eq!(store.snapshots_get(row.new.project, id).await.unwrap(), Some(row.clone()));
    assert_eq!(store.snapshots_get(ProjectId::generate(), id).await.unwrap(), None);
    let taken = Taken { root_bytes: 1, workspace_bytes: u64::MAX };
    store.snapshots_record_taken(id, taken).await.unwrap();
    let ready = store.snapshots_find(id).await.unwrap().unwrap();
    assert_eq!((ready.state, ready.taken.map(|taken| taken.root_bytes)), (SnapshotState::Ready, Some(1)));
    let failed = SnapshotState::Error { message: "lost".to_owned() };
    assert!(store.snapshots_record(id, &failed).await.unwrap());
    assert_eq!(store.snapshots_find(id).await.unwrap().unwrap().state, failed);
    store.snapshots_forget(id).await.unwrap();
    assert!(!store.snapshots_record(id, &SnapshotState::Deleting).await.unwrap());
    assert_eq!(store.snapshots_of(store.server_id()).await.unwrap(), []);
}

#[tokio::test]
async fn lists_are_newest_first_without_those_of_forks() {
    let store = TestStore::open().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(store.snapshot().await.new.id);
    }
    store.snapshots_admit(store.new_snapshot(true), None).await.unwrap();
    ids.reverse();
    let project = store.default_project();
    let first = PageRequest { limit: 2, cursor: None };
    let page = store.snapshots_list(project, &SnapshotFilter::default(), first).await.unwrap();
    assert_eq!(page.items.iter().map(|row| row.new.id).collect::<Vec<_>>(), ids[..2]);
    let rest = PageRequest { limit: 2, cursor: page.next };
    let page = store.snapshots_list(project, &SnapshotFilter::default(), rest).await.unwrap();
    assert_eq!((page.items.len(), page.next), (1, None));
    for (filter, found) in [
        (SnapshotFilter { label: Some(("team".to_owned(), "red".to_owned())), ..Default::default() }, 3),
        (SnapshotFilter { label: Some(("team".to_owned(), "blue".to_owned())), ..Default::default() }, 0),
        (SnapshotFilter { state: Some(SnapshotStateKind::Ready), ..Default::default() }, 0),
        (SnapshotFilter { name: Some("before".to_owned()), ..Default::default() }, 3),
    ] {
        let page = store.snapshots_list(project, &filter, PageRequest::default()).await.unwrap();
        assert_eq!(page.items.len(), found, "{filter:?}");
    }
}

#[tokio::test]
async fn copies_are_let_in_all_or_none() {
    let store = TestStore::open().await;
    store.admitted(store.new_row()).await;
    let between = store.new_snapshot(true);
    let full = store.admit_forks(between.clone(), store.copies(&between, 3), 3, claim(1)).await.unwrap();
    assert_eq!(full, ForkAdmission::Full);
    assert_eq!(store.workspaces_of(store.server_id()).await.unwrap().len(), 1);
    assert_eq!(store.snapshots_of(store.server_id()).await.unwrap(), []);

    let admitted = store.admit_forks(between.clone(), store.copies(&between, 2), 3, claim(1)).await.unwrap();
    assert!(matches!(&admitted, ForkAdmission::Admitted(_, rows) if rows.len() == 2), "{admitted:?}");
    let again = store.new_snapshot(true);
    let repeated = store.admit_forks(again.clone(), store.copies(&again, 2), 3, claim(1)).await.unwrap();
    assert_eq!(repeated, ForkAdmission::Repeated(between.id));
    let other = store.admit_forks(again.clone(), store.copies(&again, 2), 3, claim(2)).await.unwrap();
    assert_eq!(other, ForkAdmission::KeyTaken);
    let made = store.workspaces_made_from(between.project, between.id).await.unwrap();
    assert!(made.len() == 2 && made.iter().all(|row| row.origin.is_some_and(|from| from.snapshot == between.id)));
}
