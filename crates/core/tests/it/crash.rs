//! Tests that kill a process at each step of each operation, and check what the next process makes of the remains.
//!
//! The process is real: this test program starts itself again as a child, which does one operation on rows and
//! sandboxes in files until its fault point kills it.

use std::{env, os::unix::process::ExitStatusExt as _, path::Path, process::Command, time::Duration};

use emergent_core::{CoreConfig, ErrorReason, NewSnapshot, NewWorkspace, SnapshotStateKind, StateKind, WorkspaceState};
use emergent_provider::{EngineState, ExitReason};
use emergent_types::{CreateStep, DestroyStep, Fault, SnapshotStep, StopStep};

use crate::support::{Fixture, config, store_and_engine};

const DIRECTORY: &str = "EMERGENT_TEST_CRASH_DIRECTORY";
const STEP: &str = "EMERGENT_TEST_CRASH_STEP";
const SIGKILL: i32 = 9;

/// The state that is expected after the restart.
struct Aftermath {
    state: StateKind,
    engine: Option<EngineState>,
}

fn after_create(step: CreateStep) -> Aftermath {
    match step {
        CreateStep::IntentRecorded
        | CreateStep::ImagePresent
        | CreateStep::VolumeCreated
        | CreateStep::VolumeFilled
        | CreateStep::SandboxCreated
        | CreateStep::SandboxStarted
        | CreateStep::GuestAnswered => Aftermath { state: StateKind::Error, engine: None },
        CreateStep::HandedOver | CreateStep::ReadyRecorded => {
            Aftermath { state: StateKind::Ready, engine: Some(EngineState::Running) }
        }
    }
}

fn after_stop(step: StopStep) -> Aftermath {
    match step {
        StopStep::IntentRecorded | StopStep::SandboxStopped | StopStep::StoppedRecorded => {
            Aftermath { state: StateKind::Stopped, engine: Some(EngineState::Exited(ExitReason::Code(0))) }
        }
    }
}

fn after_destroy(step: DestroyStep) -> Aftermath {
    match step {
        DestroyStep::IntentRecorded
        | DestroyStep::SandboxRemoved
        | DestroyStep::VolumesRemoved
        | DestroyStep::DestroyedRecorded => Aftermath { state: StateKind::Destroyed, engine: None },
    }
}

#[tokio::test]
async fn after_a_crash_at_any_step_of_a_create_nothing_leaks_and_nothing_alive_is_killed() {
    for step in CreateStep::ALL {
        crash_and_check(step.name(), after_create(*step)).await;
    }
}

#[tokio::test]
async fn after_a_crash_at_any_step_of_a_stop_the_workspace_is_stopped() {
    for step in StopStep::ALL {
        crash_and_check(step.name(), after_stop(*step)).await;
    }
}

#[tokio::test]
async fn after_a_crash_at_any_step_of_a_destroy_the_workspace_is_gone() {
    for step in DestroyStep::ALL {
        crash_and_check(step.name(), after_destroy(*step)).await;
    }
}

async fn crash_and_check(step: &'static str, expected: Aftermath) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let status = tokio::task::spawn_blocking(move || crash(&path, step)).await.unwrap();
    assert_eq!(status.signal(), Some(SIGKILL), "{step}: {status}");

    let (store, engine) = store_and_engine(directory.path()).await;
    let fixture = Fixture::start_in(directory, config(), store, engine).await;
    fixture.reconciled().await;
    let rows = fixture.service.list(
        fixture.project,
        emergent_core::ListFilter { include_destroyed: true, ..Default::default() },
        Default::default(),
    );
    let workspace = rows.await.unwrap().items.pop().unwrap();
    assert_eq!(workspace.row.state.word(), expected.state, "{step}: {:?}", workspace.row.state);
    assert_eq!(fixture.engine.state(workspace.row.id), expected.engine, "{step}");
    let kept = expected.engine.iter().map(|_| workspace.row.id).collect();
    assert_eq!(fixture.engine.sandboxes(), kept, "{step}");
    match workspace.row.state {
        WorkspaceState::Ready => {
            fixture
                .service
                .guest(fixture.project, workspace.row.id)
                .await
                .unwrap()
                .call(|guest| guest.hello())
                .await
                .unwrap();
        }
        WorkspaceState::Error { reason, .. } => assert_eq!(reason, ErrorReason::CreateInterrupted, "{step}"),
        _ => {}
    }
}

#[tokio::test]
async fn after_a_crash_at_any_step_of_a_snapshot_the_workspace_goes_on_and_nothing_is_half_made() {
    for step in SnapshotStep::ALL {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let status = tokio::task::spawn_blocking(move || crash(&path, step.name())).await.unwrap();
        assert_eq!(status.signal(), Some(SIGKILL), "{step:?}: {status}");

        let (store, engine) = store_and_engine(directory.path()).await;
        let fixture = Fixture::start_in(directory, config(), store, engine).await;
        fixture.reconciled().await;
        let workspace = fixture.all().await.pop().unwrap();
        assert_eq!(workspace.row.state, WorkspaceState::Ready, "{step:?}");
        assert_eq!(fixture.engine.state(workspace.row.id), Some(EngineState::Running), "{step:?}");
        fixture
            .service
            .guest(fixture.project, workspace.row.id)
            .await
            .unwrap()
            .call(|guest| guest.hello())
            .await
            .unwrap();
        let rows =
            fixture.service.snapshots().list(fixture.project, Default::default(), Default::default()).await.unwrap();
        let (left, state) = (fixture.engine.snapshots().len(), rows.items[0].state.word());
        let expected = match step {
            SnapshotStep::ReadyRecorded => (1, SnapshotStateKind::Ready),
            SnapshotStep::IntentRecorded
            | SnapshotStep::VolumeCreated
            | SnapshotStep::SandboxFrozen
            | SnapshotStep::FilesCopied
            | SnapshotStep::SandboxThawed => (0, SnapshotStateKind::Error),
        };
        assert_eq!((left, state), expected, "{step:?}");
    }
}

fn crash(directory: &Path, step: &str) -> std::process::ExitStatus {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--ignored", "--quiet"])
        .env(DIRECTORY, directory)
        .env(STEP, step)
        .status()
        .unwrap()
}

#[tokio::test]
#[ignore = "is the child of the tests above"]
async fn child() {
    let (Ok(directory), Ok(step)) = (env::var(DIRECTORY), env::var(STEP)) else { return };
    let fault = Fault::among(emergent_core::step_names(), &step).unwrap();
    let (store, engine) = store_and_engine(Path::new(&directory)).await;
    // A directory of its own, so that nothing is removed if the child should end in another way.
    let unused = tempfile::tempdir().unwrap();
    let fixture = Fixture::start_in(unused, CoreConfig { fault: Some(fault), ..config() }, store, engine).await;
    let id = fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap().row.id;
    fixture.service.wait_ready(fixture.project, id, Duration::from_secs(10)).await.unwrap();
    if step.starts_with("stop.") {
        fixture.service.stop(fixture.project, id).await.unwrap();
    } else if step.starts_with("snapshot.") {
        let taken = fixture.service.snapshots().take(fixture.project, id, NewSnapshot::default(), None).await.unwrap();
        fixture.service.snapshots().wait_ready(fixture.project, taken.new.id, Duration::from_secs(10)).await.unwrap();
    } else {
        fixture.service.destroy(fixture.project, id).await.unwrap();
    }
    panic!("step {step} was never passed");
}
