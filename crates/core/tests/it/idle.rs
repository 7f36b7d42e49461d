//! Workspaces that nobody uses.

use std::time::Duration;

use emergent_core::{
    CallError, CoreConfig, IdleAction, IdlePolicy, IdleRequest, NewWorkspace, NewWorkspaceError, StateKind,
    TransitionError, WorkspaceId,
};
use emergent_provider::{EngineState, ExitReason};
use emergent_store::DatabaseUrl;
use futures::future::join_all;
use sea_orm::{ConnectionTrait as _, Database};

use crate::support::{Fixture, config, eventually};

/// The least that is taken.
const AFTER: Duration = Duration::from_secs(1);

async fn made(fixture: &Fixture, action: IdleAction) -> WorkspaceId {
    let idle = IdleRequest { action: Some(action), after: Some(AFTER) };
    let request = NewWorkspace { idle, ..NewWorkspace::default() };
    let id = fixture.service.create(fixture.project, request, None).await.unwrap().row.id;
    fixture.becomes(id, StateKind::Ready).await;
    id
}

#[tokio::test]
async fn what_nobody_uses_rests_and_the_next_call_resumes_it() {
    let fixture = Fixture::start().await;
    for (action, state) in [(IdleAction::Pause, StateKind::Paused), (IdleAction::Stop, StateKind::Stopped)] {
        let id = made(&fixture, action).await;
        assert!(fixture.becomes(id, state).await.row.suspended_by_idle);
        fixture.service.guest(fixture.project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
        let resumed = fixture.get(id).await;
        assert_eq!((resumed.row.state.word(), resumed.row.suspended_by_idle), (StateKind::Ready, false));
    }
}

#[tokio::test]
async fn what_a_restarted_server_finds_at_rest_is_resumed_by_a_call_all_the_same() {
    let fixture = Fixture::start().await;
    let (paused, stopped) = (made(&fixture, IdleAction::Pause).await, made(&fixture, IdleAction::Stop).await);
    fixture.becomes(paused, StateKind::Paused).await;
    fixture.becomes(stopped, StateKind::Stopped).await;
    let fixture = fixture.restart().await;
    fixture.reconciled().await;
    for id in [paused, stopped] {
        fixture.service.guest(fixture.project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
    }
}

#[tokio::test]
async fn a_rest_that_cannot_be_recorded_is_not_begun() {
    let fixture = Fixture::start().await;
    let id = made(&fixture, IdleAction::Stop).await;
    let url = DatabaseUrl::sqlite(fixture.database()).to_string().replace("sqlite://", "sqlite:");
    let other = Database::connect(url).await.unwrap();
    let never = format!(
        "CREATE TRIGGER never BEFORE UPDATE OF idled ON agent_workspaces WHEN NEW.idled AND NEW.id = x'{}' \
         BEGIN SELECT RAISE(ABORT, 'not now'); END",
        id.to_string().replace('-', "")
    );
    other.execute_unprepared(&never).await.unwrap();
    // Another, of which nothing is used either, shows that the time was up.
    let unused = made(&fixture, IdleAction::Stop).await;
    fixture.becomes(unused, StateKind::Stopped).await;
    // What ends it then is nobody's will.
    fixture.engine.touch(id, Some(EngineState::Exited(ExitReason::Code(0))));
    fixture.becomes(id, StateKind::Error).await;
    other.execute_unprepared("DROP TRIGGER never").await.unwrap();
    fixture.service.guest(fixture.project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
}

#[tokio::test]
async fn what_somebody_wants_at_rest_stays_there() {
    let fixture = Fixture::start().await;
    let (service, project) = (&fixture.service, fixture.project);
    for (action, state) in [(IdleAction::Pause, StateKind::Paused), (IdleAction::Stop, StateKind::Stopped)] {
        let id = made(&fixture, action).await;
        fixture.becomes(id, state).await;
        let wanted = match action {
            IdleAction::Pause => service.pause(project, id).await.unwrap(),
            IdleAction::Stop | IdleAction::None => service.stop(project, id).await.unwrap(),
        };
        assert!(!wanted.row.suspended_by_idle);
        let refused = service.guest(project, id).await.map(drop);
        assert!(matches!(refused, Err(CallError::WrongState { .. })), "{refused:?}");
        service.resume(project, id).await.unwrap();
    }
}

#[tokio::test]
async fn a_call_under_way_and_a_running_process_keep_a_workspace_running() {
    let fixture = Fixture::start().await;
    let (called, busy) = (made(&fixture, IdleAction::Pause).await, made(&fixture, IdleAction::Stop).await);
    let call = fixture.service.guest(fixture.project, called).await.unwrap();
    fixture.engine.guest(busy).run();
    // A third one, of which nothing is used, shows that the time was up.
    let unused = made(&fixture, IdleAction::Pause).await;
    fixture.becomes(unused, StateKind::Paused).await;
    for id in [called, busy] {
        assert_eq!(fixture.get(id).await.row.state.word(), StateKind::Ready);
    }
    drop(call);
    fixture.engine.guest(busy).end();
    fixture.becomes(called, StateKind::Paused).await;
    fixture.becomes(busy, StateKind::Stopped).await;
}

#[tokio::test]
async fn calls_around_the_moment_of_rest_never_fail() {
    let fixture = Fixture::start().await;
    let (paused, stopped) = (made(&fixture, IdleAction::Pause).await, made(&fixture, IdleAction::Stop).await);
    let storm = [paused, stopped].into_iter().flat_map(|id| (0..6_u32).map(move |caller| (id, caller)));
    join_all(storm.map(|(id, caller)| {
        let (service, project) = (fixture.service.clone(), fixture.project);
        tokio::spawn(async move {
            for round in 0..4_u32 {
                service.guest(project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
                // Each a little apart from the others, all around the moment.
                tokio::time::sleep(AFTER + Duration::from_millis(u64::from(caller * 90 + round * 20))).await;
            }
        })
    }))
    .await
    .into_iter()
    .for_each(Result::unwrap);
    let rests = fixture.engine.count("pause") + fixture.engine.count("stop");
    assert!(rests > 0, "nothing ever rested");
}

#[tokio::test]
async fn resuming_what_was_stopped_needs_a_place() {
    let fixture = Fixture::start_with(CoreConfig { max_concurrent: 1, ..config() }).await;
    let first = made(&fixture, IdleAction::Stop).await;
    fixture.becomes(first, StateKind::Stopped).await;
    let second = fixture.ready().await;
    let Err(CallError::Restart(error)) = fixture.service.guest(fixture.project, first).await.map(drop) else {
        panic!("there was no place for it")
    };
    assert!(matches!(*error, TransitionError::LimitReached { .. }), "{error}");
    fixture.service.destroy(fixture.project, second).await.unwrap();
    fixture.service.guest(fixture.project, first).await.unwrap().call(|guest| guest.hello()).await.unwrap();
}

#[tokio::test]
async fn what_the_provider_cannot_do_is_refused_when_asked_for_and_left_out_when_only_set() {
    let default_idle = IdlePolicy { action: IdleAction::Pause, after: AFTER };
    let fixture = Fixture::start_with(CoreConfig { default_idle, ..config() }).await;
    fixture.engine.set_weak(true);
    for action in [IdleAction::Pause, IdleAction::Stop] {
        let idle = IdleRequest { action: Some(action), after: None };
        let request = NewWorkspace { idle, ..NewWorkspace::default() };
        let refused = fixture.service.create(fixture.project, request, None).await;
        assert!(matches!(&refused, Err(NewWorkspaceError::Invalid { field, .. }) if field == "idle.action"));
    }
    let id = fixture.ready().await;
    assert_eq!(fixture.get(id).await.row.idle.action, IdleAction::None);
}

#[tokio::test]
async fn an_engine_that_refuses_leaves_an_unused_workspace_running() {
    let fixture = Fixture::start().await;
    fixture.engine.refuse("pause");
    let id = made(&fixture, IdleAction::Pause).await;
    eventually("the engine was asked", async || fixture.engine.count("pause") > 0).await;
    fixture.becomes(id, StateKind::Ready).await;
    fixture.service.guest(fixture.project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
    fixture.engine.accept("pause");
    fixture.becomes(id, StateKind::Paused).await;
}
