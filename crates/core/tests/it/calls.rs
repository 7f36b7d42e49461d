//! Calls to workspaces in every state.

use emergent_core::{CallError, ErrorReason, NewWorkspace, StateKind, WorkspaceId, WorkspaceState};
use emergent_provider::{EngineEventKind, EngineState, ExitReason};

use crate::support::{Fixture, eventually};

#[tokio::test]
async fn a_ready_workspace_is_called_and_its_use_is_noted() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    fixture.service.guest(fixture.project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
    fixture.service.shutdown().await;
    assert!(fixture.get(id).await.row.last_used_at.is_some());
}

#[tokio::test]
async fn a_workspace_that_is_not_ready_says_what_to_do() {
    let fixture = Fixture::start().await;
    let (service, project) = (&fixture.service, fixture.project);
    fixture.engine.hold("create.image_present");
    let id = service.create(project, NewWorkspace::default(), None).await.unwrap().row.id;
    assert!(matches!(service.guest(project, id).await, Err(CallError::Creating { .. })));
    fixture.engine.release("create.image_present");
    fixture.becomes(id, StateKind::Ready).await;

    service.pause(project, id).await.unwrap();
    let paused = service.guest(project, id).await;
    assert!(matches!(paused, Err(CallError::WrongState { state: StateKind::Paused, .. })));
    service.stop(project, id).await.unwrap();
    let stopped = service.guest(project, id).await;
    assert!(matches!(stopped, Err(CallError::WrongState { state: StateKind::Stopped, .. })));
    service.destroy(project, id).await.unwrap();
    let destroyed = service.guest(project, id).await;
    assert!(matches!(destroyed, Err(CallError::WrongState { state: StateKind::Destroyed, .. })));
    assert!(matches!(service.guest(project, WorkspaceId::generate()).await, Err(CallError::NotFound)));
}

#[tokio::test]
async fn a_workspace_that_was_killed_says_so_and_the_next_call_starts_it_again() {
    for (exit, reason, told) in [
        (ExitReason::Code(137), ErrorReason::Killed, "the workspace was ended from outside"),
        (ExitReason::OutOfMemory, ErrorReason::Oom, "the workspace ran out of memory and was ended"),
    ] {
        let fixture = Fixture::start().await;
        let id = fixture.ready().await;
        fixture.service.stop(fixture.project, id).await.unwrap();
        fixture.service.resume(fixture.project, id).await.unwrap();
        assert_eq!(fixture.engine.guest(id).last_end(), None, "it was stopped in order");
        fixture.engine.touch(id, Some(EngineState::Exited(exit)));
        let failed = fixture.becomes(id, StateKind::Error).await;
        let WorkspaceState::Error { reason: shown, message } = failed.row.state else {
            panic!("{:?}", failed.row.state)
        };
        assert_eq!(shown, reason);
        assert!(message.contains("files are kept"), "{message}");
        let names_the_limit = |text: &str| text.contains("4096 MiB") && text.contains("--memory");
        assert_eq!(names_the_limit(&message), reason == ErrorReason::Oom, "{message}");

        fixture.service.guest(fixture.project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
        assert_eq!(fixture.get(id).await.row.state, WorkspaceState::Ready);
        let last_end = fixture.engine.guest(id).last_end().unwrap();
        assert!(last_end.starts_with(told), "{last_end}");
        assert_eq!(names_the_limit(&last_end), reason == ErrorReason::Oom, "{last_end}");
    }
}

#[tokio::test]
async fn a_call_that_finds_its_sandbox_ended_need_not_wait_for_the_engine_to_say_so() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    fixture.engine.touch_silently(id, Some(EngineState::Exited(ExitReason::Code(137))));
    assert!(service.guest(project, id).await.unwrap().call(|guest| guest.hello()).await.is_err());
    fixture.becomes(id, StateKind::Error).await;
    service.guest(project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
}

#[tokio::test]
async fn an_end_right_after_memory_ran_out_is_put_down_to_it() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    fixture.engine.emit(id, EngineEventKind::OutOfMemory);
    fixture.engine.touch(id, Some(EngineState::Exited(ExitReason::Code(137))));
    let failed = fixture.becomes(id, StateKind::Error).await;
    assert!(
        matches!(failed.row.state, WorkspaceState::Error { reason: ErrorReason::Oom, .. }),
        "{:?}",
        failed.row.state
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_to_a_killed_workspace_start_it_once() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    fixture.engine.touch(id, Some(EngineState::Exited(ExitReason::Code(137))));
    fixture.becomes(id, StateKind::Error).await;
    let calls = futures::future::join_all((0..20).map(|_| service.guest(project, id))).await;
    assert!(calls.iter().all(Result::is_ok));
    assert_eq!(fixture.engine.count("start"), 1);
}

#[tokio::test]
async fn a_restart_that_fails_says_why_and_is_tried_again_by_the_next_call() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    fixture.engine.touch(id, Some(EngineState::Exited(ExitReason::Code(137))));
    fixture.becomes(id, StateKind::Error).await;
    fixture.engine.set_short_lived(true);
    assert!(matches!(service.guest(project, id).await, Err(CallError::Restart(_))));
    let failed = fixture.get(id).await.row.state;
    assert!(matches!(failed, WorkspaceState::Error { reason: ErrorReason::StartFailed, .. }), "{failed:?}");
    fixture.engine.set_short_lived(false);
    service.guest(project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
}

#[tokio::test]
async fn a_workspace_whose_sandbox_was_removed_is_lost() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    fixture.engine.touch(id, None);
    let failed = fixture.becomes(id, StateKind::Error).await;
    assert!(matches!(failed.row.state, WorkspaceState::Error { reason: ErrorReason::EngineLost, .. }));
    assert!(matches!(service.guest(project, id).await, Err(CallError::WrongState { state: StateKind::Error, .. })));
    service.destroy(project, id).await.unwrap();
}

#[tokio::test]
async fn a_broken_channel_is_opened_again_by_the_next_call() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    fixture.engine.guest(id).cut();
    eventually("answers again", async || {
        service.guest(project, id).await.unwrap().call(|guest| guest.hello()).await.is_ok()
    })
    .await;
}
