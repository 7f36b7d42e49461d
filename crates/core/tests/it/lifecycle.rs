//! Stop, resume, pause, destroy.

use emergent_core::{CoreConfig, StateKind, TransitionError, WorkspaceState};
use emergent_provider::{EngineState, ExitReason, OperationError};

use crate::support::{Fixture, config};

#[tokio::test]
async fn a_workspace_goes_through_all_its_states() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    assert_eq!(service.pause(project, id).await.unwrap().row.state, WorkspaceState::Paused);
    assert_eq!(fixture.engine.state(id), Some(EngineState::Paused));
    assert_eq!(service.resume(project, id).await.unwrap().row.state, WorkspaceState::Ready);
    assert_eq!(service.stop(project, id).await.unwrap().row.state, WorkspaceState::Stopped);
    assert_eq!(fixture.engine.state(id), Some(EngineState::Exited(ExitReason::Code(0))));
    assert_eq!(service.resume(project, id).await.unwrap().row.state, WorkspaceState::Ready);
    service.guest(project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
    service.pause(project, id).await.unwrap();
    assert_eq!(service.stop(project, id).await.unwrap().row.state, WorkspaceState::Stopped);
    service.destroy(project, id).await.unwrap();
    assert_eq!(fixture.engine.state(id), None);
    let destroyed = fixture.get(id).await;
    assert_eq!(destroyed.row.state, WorkspaceState::Destroyed);
}

#[tokio::test]
async fn every_operation_can_be_repeated() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    for _ in 0..2 {
        service.pause(project, id).await.unwrap();
    }
    for _ in 0..2 {
        service.resume(project, id).await.unwrap();
    }
    for _ in 0..2 {
        service.stop(project, id).await.unwrap();
    }
    for _ in 0..2 {
        service.destroy(project, id).await.unwrap();
    }
    for once in ["pause", "stop", "destroy"] {
        assert_eq!(fixture.engine.count(once), 1, "{once}");
    }
}

#[tokio::test]
async fn an_operation_that_makes_no_sense_says_what_to_do() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    service.stop(project, id).await.unwrap();
    let refused = service.pause(project, id).await;
    let Err(TransitionError::WrongState { state: StateKind::Stopped, operation: "pause", advice }) = refused else {
        panic!("{refused:?}")
    };
    assert!(advice.contains("resume"));
    service.destroy(project, id).await.unwrap();
    let refused = service.resume(project, id).await;
    assert!(matches!(refused, Err(TransitionError::WrongState { state: StateKind::Destroyed, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_stopped_workspace_holds_no_place_and_needs_one_to_start() {
    let fixture = Fixture::start_with(CoreConfig { max_concurrent: 1, ..config() }).await;
    let (service, project, first) = (&fixture.service, fixture.project, fixture.ready().await);
    service.stop(project, first).await.unwrap();
    let second = fixture.ready().await;
    let refused = service.resume(project, first).await;
    assert!(matches!(refused, Err(TransitionError::LimitReached { limit: 1, .. })), "{refused:?}");
    assert_eq!(fixture.get(first).await.row.state, WorkspaceState::Stopped);
    service.destroy(project, second).await.unwrap();
    service.resume(project, first).await.unwrap();
}

#[tokio::test]
async fn what_the_engine_refuses_is_told_and_the_row_stays_true() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    for (operation, wanted) in [("pause", WorkspaceState::Ready), ("stop", WorkspaceState::Ready)] {
        fixture.engine.refuse(operation);
        let refused = match operation {
            "pause" => service.pause(project, id).await,
            _ => service.stop(project, id).await,
        };
        assert!(matches!(refused, Err(TransitionError::Engine { .. })), "{refused:?}");
        assert_eq!(fixture.get(id).await.row.state, wanted, "{operation}");
        service.guest(project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
        fixture.engine.accept(operation);
    }
    service.stop(project, id).await.unwrap();
    fixture.engine.refuse("start");
    assert!(matches!(service.resume(project, id).await, Err(TransitionError::Engine { operation: "start", .. })));
    assert_eq!(fixture.get(id).await.row.state, WorkspaceState::Stopped);
    fixture.engine.accept("start");
    service.resume(project, id).await.unwrap();
}

#[tokio::test]
async fn a_destruction_that_the_engine_refuses_is_finished_by_the_next() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    fixture.engine.refuse("destroy");
    assert!(matches!(service.destroy(project, id).await, Err(TransitionError::Engine { operation: "destroy", .. })));
    assert_eq!(fixture.get(id).await.row.state, WorkspaceState::Destroying);
    fixture.engine.accept("destroy");
    service.destroy(project, id).await.unwrap();
    assert_eq!(fixture.get(id).await.row.state, WorkspaceState::Destroyed);
    assert!(fixture.engine.sandboxes().is_empty());
}

#[tokio::test]
async fn what_the_provider_cannot_do_is_refused_before_anything_is_changed() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    fixture.engine.set_weak(true);
    for refused in [service.pause(project, id).await, service.stop(project, id).await] {
        let Err(TransitionError::Engine { source: OperationError::Unsupported { .. }, .. }) = refused else {
            panic!("{refused:?}")
        };
    }
    assert_eq!(fixture.engine.count("pause") + fixture.engine.count("stop"), 0);
    service.guest(project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
}
