//! Tests of the service on a machine whose disk or processes run out.

use emergent_core::{
    CallError, CoreConfig, ErrorReason, Fullness, LimitsRequest, NewForks, NewSnapshot, NewWorkspace,
    NewWorkspaceError, NoRoom, Purpose, SnapshotError, StateKind, WorkspaceState,
};
use emergent_provider::{EngineState, ExitReason, HostRoom};

use crate::support::{Fixture, config, eventually};

const GIB: u64 = 1 << 30;
const ROOM: HostRoom = HostRoom { disk_free: 100 * GIB, tasks: 100, most_tasks: 32_768, cores: Some(2) };

async fn fixture() -> Fixture {
    let fixture = Fixture::start_with(CoreConfig { disk_reserve: 2 * GIB, ..config() }).await;
    fixture.engine.set_room(ROOM);
    fixture
}

fn failure(state: WorkspaceState) -> (ErrorReason, String) {
    match state {
        WorkspaceState::Error { reason, message } => (reason, message),
        other => panic!("it did not fail: {other:?}"),
    }
}

#[tokio::test]
async fn a_workspace_over_its_disk_limit_is_ended_and_runs_programs_again_when_files_are_removed() {
    let fixture = fixture().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    let other = fixture.ready().await;
    fixture.engine.set_takes(other, 9 * GIB, 50);
    fixture.engine.set_takes(id, 12 * GIB, 50);
    fixture.engine.set_room(HostRoom { disk_free: 88 * GIB, ..ROOM });
    let (reason, message) = failure(fixture.becomes(id, StateKind::Error).await.row.state);
    assert_eq!(reason, ErrorReason::DiskFull);
    assert!(message.contains("10240 MiB") && message.contains("files/remove"), "{message}");

    for purpose in [Purpose::Run, Purpose::Write] {
        let refused = service.guest_for(project, id, purpose).await;
        assert!(matches!(refused, Err(CallError::Full(Fullness::Own { .. }))), "{purpose:?}");
    }
    assert_eq!(fixture.get(id).await.row.state.word(), StateKind::Error, "it is not started only to be refused");
    service.guest(project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
    fixture.engine.set_takes(id, 8 * GIB, 50);
    eventually("programs may run", async || service.guest_for(project, id, Purpose::Run).await.is_ok()).await;
    assert_eq!(fixture.get(id).await.row.state, WorkspaceState::Ready);
    assert_eq!(fixture.get(other).await.row.state, WorkspaceState::Ready);
    assert_eq!(fixture.engine.count("end"), 1);
}

#[tokio::test]
async fn a_call_after_a_removal_of_files_waits_for_the_count_and_not_for_the_next_regular_one() {
    let fixture = fixture().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    fixture.engine.set_takes(id, 12 * GIB, 50);
    fixture.engine.set_room(HostRoom { disk_free: 88 * GIB, ..ROOM });
    fixture.becomes(id, StateKind::Error).await;
    let guest = service.guest(project, id).await.unwrap();
    let refused = service.guest_for(project, id, Purpose::Run).await;
    assert!(matches!(refused, Err(CallError::Full(_))), "without a removal nothing is waited for");

    // No count ends until the call waits.
    let counts = fixture.engine.count("disk_use");
    fixture.engine.hold("disk_use");
    eventually("a count is held", async || fixture.engine.count("disk_use") > counts).await;
    fixture.engine.set_takes(id, 8 * GIB, 50);
    service.note_removal(&guest);
    let mut call = Box::pin(service.guest_for(project, id, Purpose::Run));
    assert!(futures::poll!(&mut call).is_pending(), "it was refused by an old count");
    fixture.engine.release("disk_use");
    call.await.unwrap().call(|guest| guest.hello()).await.unwrap();
    service.guest_for(project, id, Purpose::Write).await.unwrap();
}

#[tokio::test]
async fn a_host_that_is_nearly_full_ends_who_writes_and_takes_nothing_more() {
    let fixture = fixture().await;
    let (service, project) = (&fixture.service, fixture.project);
    let (writer, other) = (fixture.ready().await, fixture.ready().await);
    fixture.engine.set_takes(writer, GIB, 50);
    fixture.engine.set_takes(other, GIB, 50);
    // Counted once while there is room: what grows afterwards is seen to grow.
    fixture.engine.set_room(HostRoom { disk_free: 50 * GIB, ..ROOM });
    eventually("files are counted", async || fixture.engine.count("disk_use") > 1).await;
    fixture.engine.set_takes(writer, 2 * GIB, 50);
    fixture.engine.set_room(HostRoom { disk_free: GIB, ..ROOM });
    let (reason, message) = failure(fixture.becomes(writer, StateKind::Error).await.row.state);
    assert_eq!(reason, ErrorReason::DiskFull);
    assert!(message.contains("WORKSPACE_DISK_RESERVE"), "{message}");

    let refused = service.create(project, NewWorkspace::default(), None).await;
    assert!(matches!(refused, Err(NewWorkspaceError::NoRoom(NoRoom::Disk { .. }))), "{refused:?}");
    let refused = service.snapshots().take(project, other, NewSnapshot::default(), None).await;
    assert!(matches!(refused, Err(SnapshotError::Request(NewWorkspaceError::NoRoom(_)))), "{refused:?}");
    let refused =
        service.snapshots().fork(project, other, NewForks { count: 1, request: NewWorkspace::default() }, None).await;
    assert!(matches!(refused, Err(SnapshotError::Request(NewWorkspaceError::NoRoom(_)))), "{refused:?}");
    let refused = service.guest_for(project, other, Purpose::Write).await;
    assert!(matches!(refused, Err(CallError::Full(Fullness::Host))));
    service.guest_for(project, other, Purpose::Run).await.unwrap().call(|guest| guest.hello()).await.unwrap();
    assert_eq!(fixture.engine.state(other), Some(EngineState::Running));

    fixture.engine.set_room(ROOM);
    eventually("programs may run", async || service.guest_for(project, writer, Purpose::Run).await.is_ok()).await;
    service.create(project, NewWorkspace::default(), None).await.unwrap();
}

#[tokio::test]
async fn a_host_that_runs_out_of_tasks_ends_its_largest_sandbox_and_takes_no_more() {
    let fixture = fixture().await;
    let (large, small) = (fixture.ready().await, fixture.ready().await);
    fixture.engine.set_takes(large, GIB, 20_000);
    fixture.engine.set_takes(small, GIB, 2_000);
    fixture.engine.set_room(HostRoom { tasks: 25_000, ..ROOM });
    let (reason, message) = failure(fixture.becomes(large, StateKind::Error).await.row.state);
    assert_eq!(reason, ErrorReason::ProcessLimit);
    assert!(message.contains("processes"), "{message}");
    let refused = fixture.service.create(fixture.project, NewWorkspace::default(), None).await;
    assert!(matches!(refused, Err(NewWorkspaceError::NoRoom(NoRoom::Tasks { .. }))), "{refused:?}");
    assert_eq!(fixture.engine.state(small), Some(EngineState::Running));
}

#[tokio::test]
async fn more_cores_than_the_host_has_are_refused_with_their_number() {
    let fixture = fixture().await;
    let asking = |cpu| NewWorkspace {
        limits: LimitsRequest { cpu: Some(cpu), ..LimitsRequest::default() },
        ..NewWorkspace::default()
    };
    let refused = fixture.service.create(fixture.project, asking(2.5), None).await;
    let Err(NewWorkspaceError::Invalid { field, message }) = refused else { panic!("{refused:?}") };
    assert!(field == "limits.cpu" && message.contains("2 cores"), "{field}: {message}");
    fixture.service.create(fixture.project, asking(2.0), None).await.unwrap();
}

#[tokio::test]
async fn a_fork_bomb_is_told_as_what_it_was() {
    let fixture = fixture().await;
    let id = fixture.ready().await;
    fixture.engine.touch(id, Some(EngineState::Exited(ExitReason::ProcessLimit)));
    let (reason, message) = failure(fixture.becomes(id, StateKind::Error).await.row.state);
    assert_eq!(reason, ErrorReason::ProcessLimit);
    assert!(!message.contains("outside"), "{message}");
    fixture.service.guest(fixture.project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
}
