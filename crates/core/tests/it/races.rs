//! Many at once.

use std::time::Duration;

use emergent_core::{NewWorkspace, NewWorkspaceError, StateKind, TransitionError, WorkspaceState};
use futures::future::join_all;

use crate::support::{Fixture, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_parallel_creates_never_exceed_the_limit() {
    let fixture = Fixture::start().await;
    fixture.engine.hold("create.image_present");
    let creates = (0..100).map(|_| {
        let (service, project) = (fixture.service.clone(), fixture.project);
        tokio::spawn(async move { service.create(project, NewWorkspace::default(), None).await })
    });
    let results = join_all(creates).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 10);
    let refused = |result: &&Result<_, _>| matches!(result, Err(NewWorkspaceError::LimitReached { limit: 10, .. }));
    assert_eq!(results.iter().filter(refused).count(), 90);
    fixture.engine.release("create.image_present");
    eventually("all ready", async || {
        fixture.all().await.iter().all(|workspace| workspace.row.state == WorkspaceState::Ready)
    })
    .await;
    assert_eq!(fixture.engine.sandboxes().len(), 10);
}

#[tokio::test]
async fn destroying_while_the_image_is_pulled_does_not_wait_for_it() {
    let fixture = Fixture::start().await;
    fixture.engine.hold("create.image_present");
    let id = fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap().row.id;
    eventually("create reached the engine", async || fixture.engine.count("create") == 1).await;
    fixture.service.destroy(fixture.project, id).await.unwrap();
    assert_eq!(fixture.get(id).await.row.state, WorkspaceState::Destroyed);
    fixture.engine.release("create.image_present");
    assert!(fixture.engine.sandboxes().is_empty());
}

#[tokio::test]
async fn other_operations_do_not_wait_for_a_create() {
    let fixture = Fixture::start().await;
    fixture.engine.hold("create.image_present");
    let id = fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap().row.id;
    let refused = fixture.service.stop(fixture.project, id).await;
    assert!(matches!(refused, Err(TransitionError::WrongState { state: StateKind::Creating, .. })), "{refused:?}");
    fixture.engine.release("create.image_present");
    fixture.becomes(id, StateKind::Ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_operation_many_times_at_once_is_done_once() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    let stops = join_all((0..8).map(|_| service.stop(project, id))).await;
    assert!(stops.iter().all(Result::is_ok), "{stops:?}");
    let resumes = join_all((0..8).map(|_| service.resume(project, id))).await;
    assert!(resumes.iter().all(Result::is_ok), "{resumes:?}");
    let destroys = join_all((0..8).map(|_| service.destroy(project, id))).await;
    assert!(destroys.iter().all(Result::is_ok), "{destroys:?}");
    for once in ["stop", "start", "destroy"] {
        assert_eq!(fixture.engine.count(once), 1, "{once}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operations_at_random_leave_a_workspace_whose_row_is_true() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    let storm = (0..40).map(|turn| async move {
        match turn % 4 {
            0 => drop(service.stop(project, id).await),
            1 => drop(service.pause(project, id).await),
            2 => drop(service.guest(project, id).await),
            _ => drop(service.resume(project, id).await),
        }
    });
    join_all(storm).await;
    service.resume(project, id).await.unwrap();
    assert_eq!(fixture.engine.state(id), Some(emergent_provider::EngineState::Running));
    service.guest(project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
}

#[tokio::test]
async fn an_operation_goes_on_when_its_caller_has_gone() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    fixture.engine.hold("stop");
    let stop = tokio::time::timeout(Duration::from_millis(20), service.stop(project, id)).await;
    assert!(stop.is_err(), "it was held");
    fixture.becomes(id, StateKind::Stopping).await;
    fixture.engine.release("stop");
    fixture.becomes(id, StateKind::Stopped).await;
}

#[tokio::test]
async fn a_destroy_that_could_not_be_recorded_leaves_the_create_as_it_was() {
    let fixture = Fixture::start().await;
    fixture.engine.hold("create.image_present");
    let id = fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap().row.id;
    eventually("create reached the engine", async || fixture.engine.count("create") == 1).await;
    let writing = fixture.keep_writers_out().await;
    let failed = fixture.service.destroy(fixture.project, id).await;
    assert!(matches!(failed, Err(TransitionError::Store(_))), "{failed:?}");
    writing.close().await.unwrap();
    fixture.engine.release("create.image_present");
    fixture.becomes(id, StateKind::Ready).await;
    fixture.service.destroy(fixture.project, id).await.unwrap();
    assert!(fixture.engine.sandboxes().is_empty());
}

#[tokio::test]
async fn a_destroy_with_the_engine_away_says_that_it_will_be_done_and_it_is() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    fixture.engine.set_away(true);
    let failed = fixture.service.destroy(fixture.project, id).await;
    assert!(matches!(failed, Err(TransitionError::DestroyedLater(_))), "{failed:?}");
    assert_eq!(fixture.get(id).await.row.state, WorkspaceState::Destroying);
    fixture.engine.set_away(false);
    fixture.becomes(id, StateKind::Destroyed).await;
    assert!(fixture.engine.sandboxes().is_empty());
}
