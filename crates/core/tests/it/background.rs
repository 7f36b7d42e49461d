//! Expiry, use, shutdown.

use std::time::{Duration, Instant};

use emergent_core::{
    ErrorReason, NewWorkspace, NewWorkspaceError, Readiness, StateKind, TransitionError, Ttl, WorkspaceState,
};
use emergent_provider::EngineState;

use crate::support::{Fixture, eventually};

#[tokio::test]
async fn an_expired_workspace_is_destroyed_and_others_are_not() {
    let fixture = Fixture::start().await;
    let ttl = |ttl| NewWorkspace { ttl: Some(ttl), ..NewWorkspace::default() };
    let brief = ttl(Ttl::After(Duration::from_secs(1)));
    let brief = fixture.service.create(fixture.project, brief, None).await.unwrap().row.id;
    let eternal = fixture.service.create(fixture.project, ttl(Ttl::Never), None).await.unwrap();
    assert_eq!(eternal.row.expires_at, None);
    fixture.becomes(brief, StateKind::Destroyed).await;
    assert_eq!(fixture.engine.state(brief), None);
    fixture.becomes(eternal.row.id, StateKind::Ready).await;
}

#[tokio::test]
async fn an_expiry_is_kept_however_seldom_the_rest_is_cleaned_up() {
    let config = emergent_core::CoreConfig { cleanup_interval: Duration::from_secs(3600), ..crate::support::config() };
    let fixture = Fixture::start_with(config).await;
    let ttl = Some(Ttl::After(Duration::from_secs(1)));
    let brief = NewWorkspace { ttl, ..NewWorkspace::default() };
    let brief = fixture.service.create(fixture.project, brief, None).await.unwrap().row.id;
    fixture.becomes(brief, StateKind::Destroyed).await;
}

#[tokio::test]
async fn use_is_recorded_while_the_service_runs() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    drop(fixture.service.guest(fixture.project, id).await.unwrap());
    eventually("recorded", async || fixture.get(id).await.row.last_used_at.is_some()).await;
}

#[tokio::test]
async fn a_shutdown_lets_operations_end_takes_no_more_and_leaves_workspaces_running() {
    let fixture = Fixture::start().await;
    let (project, kept, stopped) = (fixture.project, fixture.ready().await, fixture.ready().await);
    fixture.engine.hold("stop");
    let service = fixture.service.clone();
    let stop = tokio::spawn(async move { service.stop(project, stopped).await });
    fixture.becomes(stopped, StateKind::Stopping).await;
    let service = fixture.service.clone();
    let shutdown = tokio::spawn(async move { service.shutdown().await });
    eventually("going down", async || fixture.service.is_ready() == Readiness::ShuttingDown).await;
    let refused = fixture.service.create(project, NewWorkspace::default(), None).await;
    assert!(matches!(refused, Err(NewWorkspaceError::ShuttingDown)), "{refused:?}");
    let refused = fixture.service.pause(project, kept).await;
    assert!(matches!(refused, Err(TransitionError::ShuttingDown)), "{refused:?}");
    fixture.engine.release("stop");
    stop.await.unwrap().unwrap();
    shutdown.await.unwrap();
    assert_eq!(fixture.get(stopped).await.row.state, WorkspaceState::Stopped);
    assert_eq!(fixture.engine.state(kept), Some(EngineState::Running));
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_an_image() {
    let fixture = Fixture::start().await;
    fixture.engine.hold("create.image_present");
    let id = fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap().row.id;
    eventually("create reached the engine", async || fixture.engine.count("create") == 1).await;
    let began = Instant::now();
    fixture.service.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(10));
    let state = fixture.get(id).await.row.state;
    assert!(matches!(state, WorkspaceState::Error { reason: ErrorReason::CreateInterrupted, .. }), "{state:?}");
}
