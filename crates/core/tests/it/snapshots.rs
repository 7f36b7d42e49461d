//! Snapshots and forks: what is refused, what waits for what, and what is left when something fails.

use std::time::Duration;

use emergent_core::{
    ErrorReason, NewForks, NewSnapshot, NewWorkspace, NewWorkspaceError, SnapshotError, SnapshotId, SnapshotRow,
    SnapshotState, SnapshotStateKind, SnapshotUnusable, StateKind, TransitionError, WorkspaceId, WorkspaceState,
};
use emergent_provider::{EngineState, OperationError};

use crate::support::{Fixture, config, eventually};

const PATIENCE: Duration = Duration::from_secs(10);

impl Fixture {
    async fn take(&self, id: WorkspaceId) -> Result<SnapshotRow, SnapshotError> {
        let begun = self.service.snapshots().take(self.project, id, NewSnapshot::default(), None).await?;
        self.service.snapshots().wait_ready(self.project, begun.new.id, PATIENCE).await
    }

    async fn taken(&self, id: WorkspaceId) -> SnapshotId {
        let snapshot = self.take(id).await.unwrap();
        assert_eq!(snapshot.state, SnapshotState::Ready);
        snapshot.new.id
    }

    async fn made_from(&self, snapshot: SnapshotId) -> Result<WorkspaceId, NewWorkspaceError> {
        let request = NewWorkspace { snapshot: Some(snapshot), ..NewWorkspace::default() };
        Ok(self.service.create(self.project, request, None).await?.row.id)
    }
}

fn forks(count: u32) -> NewForks {
    NewForks { count, request: NewWorkspace::default() }
}

#[tokio::test]
async fn a_workspace_made_from_a_snapshot_says_so() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    let snapshot = fixture.taken(id).await;
    let copy = fixture.made_from(snapshot).await.unwrap();
    let copy = fixture.becomes(copy, StateKind::Ready).await;
    assert!(copy.row.origin.is_some_and(|origin| origin.snapshot == snapshot && origin.workspace == id));
    fixture.service.snapshots().delete(fixture.project, snapshot).await.unwrap();
    assert!(fixture.engine.snapshots().is_empty());
    let gone = fixture.service.snapshots().delete(fixture.project, snapshot).await;
    assert!(matches!(gone, Err(SnapshotError::Unusable(SnapshotUnusable::NotFound))));
}

#[tokio::test]
async fn what_could_not_be_copied_leaves_a_row_that_says_why() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    fixture.engine.refuse("copy");
    let failed = fixture.take(id).await.unwrap();
    assert!(matches!(&failed.state, SnapshotState::Error { message } if message.contains("told to")), "{failed:?}");
    assert!(fixture.engine.snapshots().is_empty());
    assert_eq!(fixture.get(id).await.row.state, WorkspaceState::Ready);
    let refused = fixture.made_from(failed.new.id).await;
    assert!(matches!(refused, Err(NewWorkspaceError::Snapshot(SnapshotUnusable::NotReady(SnapshotStateKind::Error)))));
    fixture.service.snapshots().delete(fixture.project, failed.new.id).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_cannot_is_said_to_and_nothing_is_recorded() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    fixture.engine.set_weak(true);
    let unsupported = |error| {
        let Err(SnapshotError::Workspace(TransitionError::Engine { source, .. })) = error else { return false };
        matches!(source, OperationError::Unsupported { .. })
    };
    assert!(unsupported(fixture.take(id).await.map(drop)));
    assert!(unsupported(fixture.service.snapshots().fork(fixture.project, id, forks(1), None).await.map(drop)));
    let rows = fixture.service.snapshots().list(fixture.project, Default::default(), Default::default()).await.unwrap();
    assert!(rows.items.is_empty() && fixture.all().await.len() == 1);
}

#[tokio::test]
async fn a_workspace_is_only_copied_where_it_has_files() {
    let fixture = Fixture::start().await;
    fixture.engine.hold("create.sandbox_started");
    let creating = fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap().row.id;
    let refused = fixture.take(creating).await;
    assert!(matches!(refused, Err(SnapshotError::Workspace(TransitionError::WrongState { .. }))), "{refused:?}");
    fixture.engine.release("create.sandbox_started");
    fixture.becomes(creating, StateKind::Ready).await;
    fixture.service.pause(fixture.project, creating).await.unwrap();
    fixture.taken(creating).await;
    assert_eq!(fixture.engine.state(creating), Some(EngineState::Paused));
    fixture.service.destroy(fixture.project, creating).await.unwrap();
    let refused = fixture.take(creating).await;
    assert!(matches!(refused, Err(SnapshotError::Workspace(TransitionError::WrongState { .. }))), "{refused:?}");
}

#[tokio::test]
async fn a_snapshot_is_not_deleted_from_under_a_create() {
    let fixture = Fixture::start().await;
    let snapshot = fixture.taken(fixture.ready().await).await;
    fixture.engine.hold("create.volume_filled");
    let copy = fixture.made_from(snapshot).await.unwrap();
    let (service, project) = (fixture.service.clone(), fixture.project);
    let deletion = tokio::spawn(async move { service.snapshots().delete(project, snapshot).await });
    eventually("the create is under way", async || fixture.engine.state(copy).is_some()).await;
    assert!(fixture.engine.snapshots().contains(&snapshot) && !deletion.is_finished());
    fixture.engine.release("create.volume_filled");
    deletion.await.unwrap().unwrap();
    assert_eq!(fixture.get(copy).await.row.state, WorkspaceState::Ready);
    assert!(fixture.engine.snapshots().is_empty());
}

#[tokio::test]
async fn nothing_is_made_from_a_snapshot_that_is_being_taken() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    fixture.engine.hold("snapshot.files_copied");
    let begun = fixture.service.snapshots().take(fixture.project, id, NewSnapshot::default(), None).await.unwrap();
    let refused = fixture.made_from(begun.new.id).await;
    let creating = SnapshotUnusable::NotReady(SnapshotStateKind::Creating);
    assert!(matches!(refused, Err(NewWorkspaceError::Snapshot(why)) if why == creating));
    fixture.engine.release("snapshot.files_copied");
    fixture.service.snapshots().wait_ready(fixture.project, begun.new.id, PATIENCE).await.unwrap();
    fixture.made_from(begun.new.id).await.unwrap();
}

#[tokio::test]
async fn forks_are_let_in_all_or_none() {
    let fixture = Fixture::start_with(emergent_core::CoreConfig { max_concurrent: 3, ..config() }).await;
    let id = fixture.ready().await;
    let refused = fixture.service.snapshots().fork(fixture.project, id, forks(3), None).await;
    assert!(matches!(refused, Err(SnapshotError::Request(NewWorkspaceError::LimitReached { .. }))), "{refused:?}");
    assert!(fixture.all().await.len() == 1 && fixture.engine.count("take") == 0);
    let copies = fixture.service.snapshots().fork(fixture.project, id, forks(2), None).await.unwrap();
    for copy in copies {
        fixture.becomes(copy.row.id, StateKind::Ready).await;
    }
    eventually("the snapshot between is gone", async || fixture.engine.snapshots().is_empty()).await;
}

#[tokio::test]
async fn a_copy_that_fails_says_so_and_leaves_nothing() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    fixture.engine.refuse("create.sandbox_created");
    let copies = fixture.service.snapshots().fork(fixture.project, id, forks(2), None).await.unwrap();
    for copy in copies {
        let copy = fixture.becomes(copy.row.id, StateKind::Error).await;
        assert!(matches!(copy.row.state, WorkspaceState::Error { reason: ErrorReason::CreateFailed, .. }), "{copy:?}");
        assert_eq!(fixture.engine.state(copy.row.id), None);
    }
    eventually("the snapshot between is gone", async || fixture.engine.snapshots().is_empty()).await;
    fixture.engine.accept("create.sandbox_created");
    fixture.engine.refuse("copy");
    let copies = fixture.service.snapshots().fork(fixture.project, id, forks(1), None).await.unwrap();
    let copy = fixture.becomes(copies[0].row.id, StateKind::Error).await;
    assert!(matches!(copy.row.state, WorkspaceState::Error { message, .. } if message.contains("told to")));
    assert_eq!(fixture.get(id).await.row.state, WorkspaceState::Ready);
}

#[tokio::test]
async fn an_engine_that_goes_away_half_way_leaves_no_half_snapshot() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    fixture.engine.hold("snapshot.files_copied");
    let begun = fixture.service.snapshots().take(fixture.project, id, NewSnapshot::default(), None).await.unwrap();
    eventually("it stands still", async || fixture.engine.state(id) == Some(EngineState::Paused)).await;
    fixture.engine.set_away(true);
    fixture.engine.release("snapshot.files_copied");
    fixture.service.snapshots().wait_ready(fixture.project, begun.new.id, PATIENCE).await.unwrap();
    fixture.engine.set_away(false);
    eventually("it goes on", async || fixture.engine.state(id) == Some(EngineState::Running)).await;
    eventually("its row says so", async || {
        let now = fixture.service.snapshots().get(fixture.project, begun.new.id).await.unwrap();
        now.state.word() == SnapshotStateKind::Error
    })
    .await;
    assert!(fixture.engine.snapshots().is_empty());
    assert_eq!(fixture.get(id).await.row.state, WorkspaceState::Ready);
}

#[tokio::test]
async fn a_snapshot_that_the_engine_has_lost_says_so() {
    let fixture = Fixture::start().await;
    let snapshot = fixture.taken(fixture.ready().await).await;
    fixture.engine.lose_snapshot(snapshot);
    let fixture = fixture.restart().await;
    fixture.reconciled().await;
    let lost = fixture.service.snapshots().get(fixture.project, snapshot).await.unwrap();
    assert_eq!(lost.state.word(), SnapshotStateKind::Error);
}
