//! The engine goes away and comes back, and the service stays.

use std::time::{Duration, Instant};

use emergent_core::{ErrorReason, NewWorkspace, NewWorkspaceError, StateKind, TransitionError, WorkspaceState};
use emergent_provider::{EngineState, ExitReason, ProviderKind};

use crate::support::{Fixture, eventually};

pub(crate) async fn healthy(fixture: &Fixture) -> bool {
    let providers = fixture.service.providers(None).await;
    providers.iter().find(|status| status.kind == ProviderKind::Docker).unwrap().healthy
}

#[tokio::test]
async fn creates_fail_at_once_with_the_reason_and_work_again_when_it_is_back() {
    let fixture = Fixture::start().await;
    fixture.reconciled().await;
    fixture.engine.set_away(true);
    eventually("unhealthy", async || !healthy(&fixture).await).await;
    let began = Instant::now();
    let refused = fixture.service.create(fixture.project, NewWorkspace::default(), None).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    let Err(error @ NewWorkspaceError::NoProvider { .. }) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("away"), "{error}");
    assert!(fixture.all().await.is_empty());

    fixture.engine.set_away(false);
    fixture.ready().await;
    eventually("healthy", async || healthy(&fixture).await).await;
}

#[tokio::test]
async fn an_engine_that_goes_away_during_a_create_leaves_the_reason() {
    let fixture = Fixture::start().await;
    fixture.engine.hold("create.sandbox_created");
    let id = fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap().row.id;
    eventually("the volume", async || fixture.engine.state(id).is_some()).await;
    fixture.engine.set_away(true);
    fixture.engine.release("create.sandbox_created");
    let failed = fixture.becomes(id, StateKind::Error).await;
    assert!(
        matches!(failed.row.state, WorkspaceState::Error { reason: ErrorReason::EngineUnavailable, .. }),
        "{failed:?}"
    );
    assert!(!healthy(&fixture).await);
    fixture.engine.set_away(false);
    eventually("what was left is removed", async || fixture.engine.sandboxes().is_empty()).await;
    assert_eq!(fixture.get(id).await.row.state, failed.row.state);
}

#[tokio::test]
async fn what_happened_meanwhile_is_caught_up_with() {
    let fixture = Fixture::start().await;
    let (kept, ended, gone) = (fixture.ready().await, fixture.ready().await, fixture.ready().await);
    fixture.engine.set_away(true);
    eventually("unhealthy", async || !healthy(&fixture).await).await;
    fixture.engine.touch_silently(ended, Some(EngineState::Exited(ExitReason::Code(255))));
    fixture.engine.touch_silently(gone, None);
    fixture.engine.set_away(false);
    fixture.becomes(ended, StateKind::Error).await;
    fixture.becomes(gone, StateKind::Error).await;
    assert_eq!(fixture.get(kept).await.row.state, WorkspaceState::Ready);
    fixture.service.guest(fixture.project, ended).await.unwrap().call(|guest| guest.hello()).await.unwrap();
}

#[tokio::test]
async fn a_stop_and_a_destroy_that_found_it_away_are_finished_when_it_is_back() {
    let fixture = Fixture::start().await;
    let (service, project) = (&fixture.service, fixture.project);
    let (stopped, destroyed) = (fixture.ready().await, fixture.ready().await);
    fixture.engine.set_away(true);
    assert!(matches!(service.stop(project, stopped).await, Err(TransitionError::Engine { .. })));
    assert!(matches!(service.destroy(project, destroyed).await, Err(TransitionError::DestroyedLater(_))));
    assert_eq!(fixture.get(stopped).await.row.state, WorkspaceState::Stopping);
    assert_eq!(fixture.get(destroyed).await.row.state, WorkspaceState::Destroying);
    fixture.engine.set_away(false);
    fixture.becomes(stopped, StateKind::Stopped).await;
    fixture.becomes(destroyed, StateKind::Destroyed).await;
    assert_eq!(fixture.engine.sandboxes(), [stopped].into());
}

#[tokio::test]
async fn a_listing_that_fails_changes_nothing() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    let fixture = {
        fixture.engine.refuse("list");
        fixture.restart().await
    };
    let stray = fixture.engine.stray(crate::engine::long_ago());
    eventually("listed in vain", async || fixture.engine.count("list") >= 2).await;
    assert_eq!(fixture.engine.sandboxes(), [id, stray].into());
    assert_eq!(fixture.get(id).await.row.state, WorkspaceState::Ready);
}
