//! Creating a workspace, and not creating one.

use std::time::Duration;

use emergent_core::{ErrorReason, NewWorkspace, NewWorkspaceError, ProjectId, StateKind, Unavailable, WorkspaceState};
use emergent_provider::{Isolation, ProviderKind};

use crate::support::{Fixture, config, eventually};

#[tokio::test]
async fn a_workspace_becomes_ready_when_its_guest_has_answered() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    let workspace = fixture.get(id).await;
    assert_eq!(workspace.row.provider, ProviderKind::Docker);
    assert_eq!(
        (workspace.row.isolation, workspace.row.runtime.as_deref()),
        (Some(Isolation::Container), Some("files"))
    );
    assert_eq!(workspace.row.warnings, ["not a real sandbox"]);
    assert!(workspace.ready_in_ms().is_some());
    let life = workspace.row.expires_at.unwrap() - workspace.row.created_at;
    assert!((life - config().default_ttl).num_seconds().abs() < 5, "{life}");
}

#[tokio::test]
async fn creating_is_shown_until_then() {
    let fixture = Fixture::start().await;
    fixture.engine.hold("create.sandbox_started");
    let created = fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap();
    assert_eq!(created.row.state, WorkspaceState::Creating);
    let still = fixture.service.wait_ready(fixture.project, created.row.id, Duration::from_millis(50)).await.unwrap();
    assert_eq!(still.row.state, WorkspaceState::Creating);
    fixture.engine.release("create.sandbox_started");
    fixture.becomes(created.row.id, StateKind::Ready).await;
}

#[tokio::test]
async fn a_create_that_fails_leaves_its_reason_and_nothing_else() {
    let fixture = Fixture::start().await;
    for step in ["create.image_present", "create.volume_created", "create.sandbox_created", "create.sandbox_started"] {
        fixture.engine.refuse(step);
        let id = fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap().row.id;
        let failed = fixture.becomes(id, StateKind::Error).await;
        let WorkspaceState::Error { reason, message } = failed.row.state else { panic!("{:?}", failed.row.state) };
        assert_eq!(reason, ErrorReason::CreateFailed);
        assert!(message.contains(step) && message.ends_with("told to"), "{message}");
        assert!(fixture.engine.sandboxes().is_empty());
        fixture.engine.accept(step);
    }
}

#[tokio::test]
async fn a_sandbox_in_which_nothing_answers_is_removed() {
    let fixture = Fixture::start().await;
    fixture.engine.set_short_lived(true);
    let id = fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap().row.id;
    let failed = fixture.becomes(id, StateKind::Error).await;
    assert!(matches!(failed.row.state, WorkspaceState::Error { reason: ErrorReason::CreateFailed, .. }));
    assert!(fixture.engine.sandboxes().is_empty());
}

#[tokio::test]
async fn failed_creates_hold_no_place() {
    let fixture = Fixture::start_with(emergent_core::CoreConfig { max_concurrent: 1, ..config() }).await;
    fixture.engine.refuse("create.image_present");
    for _ in 0..3 {
        let id = fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap().row.id;
        fixture.becomes(id, StateKind::Error).await;
    }
    fixture.engine.accept("create.image_present");
    fixture.ready().await;
    let refused = fixture.service.create(fixture.project, NewWorkspace::default(), None).await;
    assert!(matches!(refused, Err(NewWorkspaceError::LimitReached { limit: 1, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_a_create() {
    let fixture = Fixture::start().await;
    // Polled once, and dropped at its first wait.
    let create = fixture.service.create(fixture.project, NewWorkspace::default(), None);
    drop(futures::FutureExt::now_or_never(create));
    eventually("ready", async || fixture.all().await.iter().all(|one| one.row.state == WorkspaceState::Ready)).await;
}

#[tokio::test]
async fn the_same_key_makes_one_workspace_and_another_request_is_told_so() {
    let fixture = Fixture::start().await;
    let key = || Some("key-1".parse().unwrap());
    let first = fixture.service.create(fixture.project, NewWorkspace::default(), key()).await.unwrap();
    let again = fixture.service.create(fixture.project, NewWorkspace::default(), key()).await.unwrap();
    assert_eq!(first.row.id, again.row.id);
    let mut secret = NewWorkspace::default();
    secret.environment.insert("TOKEN".into(), "another".into());
    let other = fixture.service.create(fixture.project, secret, key()).await;
    assert!(matches!(other, Err(NewWorkspaceError::IdempotencyMismatch)), "{other:?}");
    assert_eq!(fixture.all().await.len(), 1);
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_refused_with_the_reason() {
    let fixture = Fixture::start().await;
    let request = NewWorkspace { provider: Some(ProviderKind::E2b), ..NewWorkspace::default() };
    let refused = fixture.service.create(fixture.project, request, None).await;
    let Err(NewWorkspaceError::NoProvider { reasons, .. }) = refused else { panic!("{refused:?}") };
    assert!(matches!(reasons[..], [(ProviderKind::E2b, Unavailable::Absent(_))]), "{reasons:?}");
    assert!(fixture.all().await.is_empty());
}

#[tokio::test]
async fn all_three_providers_are_always_shown() {
    let fixture = Fixture::start().await;
    fixture.ready().await;
    let providers = fixture.service.providers(None).await;
    assert_eq!(providers.iter().map(|status| status.kind).collect::<Vec<_>>(), ProviderKind::ALL);
    for status in providers {
        let ours = status.kind == ProviderKind::Docker;
        assert_eq!((status.registered, status.healthy, status.capabilities.is_some()), (ours, ours, ours));
        assert_eq!(status.active, u64::from(ours));
        assert!(!status.message.is_empty());
    }
}

#[tokio::test]
async fn switched_off_everything_says_so() {
    let fixture = Fixture::start_with(emergent_core::CoreConfig { enabled: false, ..config() }).await;
    let refused = fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap_err();
    assert!(refused.to_string().contains("ENABLE_AGENT_WORKSPACES"));
    let id = emergent_core::WorkspaceId::generate();
    assert!(matches!(fixture.service.get(fixture.project, id).await, Err(emergent_core::LookupError::Disabled)));
    assert!(matches!(fixture.service.guest(fixture.project, id).await, Err(emergent_core::CallError::Disabled)));
}

#[tokio::test]
async fn another_project_sees_no_workspace_and_changes_none() {
    let fixture = Fixture::start().await;
    let (id, stranger) = (fixture.ready().await, ProjectId::generate());
    assert!(matches!(fixture.service.get(stranger, id).await, Err(emergent_core::LookupError::NotFound)));
    assert!(matches!(fixture.service.guest(stranger, id).await, Err(emergent_core::CallError::NotFound)));
    let refused = fixture.service.destroy(stranger, id).await;
    assert!(matches!(refused, Err(emergent_core::TransitionError::NotFound)), "{refused:?}");
    assert_eq!(fixture.get(id).await.row.state, WorkspaceState::Ready);
}
