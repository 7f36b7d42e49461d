//! Several providers: which one makes a workspace, and what is told when none can.

use std::sync::Arc;

use emergent_core::{
    CoreConfig, ErrorReason, NewWorkspace, NewWorkspaceError, Requirements, StateKind, Unavailable, Workspace,
    WorkspaceState, Workspaces,
};
use emergent_provider::{Isolation, Provider, ProviderKind};
use emergent_store::{ProjectId, Store};

use crate::{
    engine::FakeEngine,
    support::{config, eventually, store_and_engine},
};

/// A service with two engines: the first is preferred.
struct Two {
    service: Workspaces,
    first: FakeEngine,
    second: FakeEngine,
    project: ProjectId,
    _directory: tempfile::TempDir,
    _store: Store,
}

impl Two {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (store, second) = store_and_engine(directory.path()).await;
        let first = FakeEngine::of_kind(ProviderKind::Firecracker, &directory.path().join("first"), store.server_id());
        let providers: Vec<Arc<dyn Provider>> = vec![Arc::new(second.clone()), Arc::new(first.clone())];
        let config = CoreConfig { default_provider: None, ..config() };
        let service = Workspaces::start(config, store.clone(), providers).await.unwrap();
        let project = store.default_project();
        Self { service, first, second, project, _directory: directory, _store: store }
    }

    async fn create(&self, request: NewWorkspace) -> Workspace {
        let id = self.service.create(self.project, request, None).await.unwrap().row.id;
        self.service.wait_ready(self.project, id, std::time::Duration::from_secs(20)).await.unwrap()
    }
}

#[tokio::test]
async fn the_preferred_provider_makes_it_while_it_works() {
    let two = Two::start().await;
    let made = two.create(NewWorkspace::default()).await;
    assert_eq!((made.row.provider, made.row.passed_over.len()), (ProviderKind::Firecracker, 0));
}

#[tokio::test]
async fn a_provider_that_fails_is_passed_over_recorded_and_left_out_for_a_while() {
    let two = Two::start().await;
    two.first.refuse("create.sandbox_created");
    let made = two.create(NewWorkspace::default()).await;
    assert_eq!((made.row.state.word(), made.row.provider), (StateKind::Ready, ProviderKind::Docker));
    assert_eq!(made.row.passed_over.iter().map(|it| it.provider).collect::<Vec<_>>(), [ProviderKind::Firecracker]);
    assert!(made.row.passed_over[0].reason.contains("told to"), "{:?}", made.row.passed_over);
    assert!(two.first.sandboxes().is_empty(), "what it began is removed");

    two.first.accept("create.sandbox_created");
    let creates = two.first.count("create");
    let made = two.create(NewWorkspace::default()).await;
    assert_eq!((made.row.provider, two.first.count("create")), (ProviderKind::Docker, creates));
    assert!(made.row.passed_over[0].reason.contains("left out"), "{:?}", made.row.passed_over);
    let status = two.service.providers(None).await;
    let status = status.iter().find(|it| it.kind == ProviderKind::Firecracker).unwrap();
    assert!(status.healthy && status.quarantine.is_some());

    // Whoever names it gets it all the same.
    let named = NewWorkspace { provider: Some(ProviderKind::Firecracker), ..NewWorkspace::default() };
    assert_eq!(two.create(named).await.row.provider, ProviderKind::Firecracker);
}

#[tokio::test]
async fn a_provider_that_does_not_take_one_request_is_not_left_out_for_the_next() {
    let two = Two::start().await;
    two.first.refuse("create.unfit");
    let made = two.create(NewWorkspace::default()).await;
    assert_eq!(made.row.provider, ProviderKind::Docker);
    assert!(made.row.passed_over[0].reason.contains("that the request asks for"), "{:?}", made.row.passed_over);
    two.first.accept("create.unfit");
    assert_eq!(two.create(NewWorkspace::default()).await.row.provider, ProviderKind::Firecracker);
}

#[tokio::test]
async fn a_named_provider_never_falls_back() {
    let two = Two::start().await;
    two.first.refuse("create.sandbox_created");
    let named = NewWorkspace { provider: Some(ProviderKind::Firecracker), ..NewWorkspace::default() };
    let failed = two.create(named).await;
    assert!(matches!(failed.row.state, WorkspaceState::Error { reason: ErrorReason::CreateFailed, .. }), "{failed:?}");
    assert_eq!((failed.row.provider, two.second.count("create")), (ProviderKind::Firecracker, 0));
}

#[tokio::test]
async fn when_every_provider_fails_each_ones_reason_is_told() {
    let two = Two::start().await;
    two.first.refuse("create.sandbox_created");
    two.second.refuse("create.sandbox_created");
    let failed = two.create(NewWorkspace::default()).await;
    let WorkspaceState::Error { message, .. } = failed.row.state else { panic!("{failed:?}") };
    for provider in ProviderKind::ALL {
        assert!(message.contains(&format!("{provider}: ")), "{message}");
    }
    let refused = two.service.create(two.project, NewWorkspace::default(), None).await;
    let Err(NewWorkspaceError::NoProvider { reasons, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(reasons.len(), 3);
    assert!(matches!(&reasons[2], (ProviderKind::E2b, Unavailable::Absent(_))), "{reasons:?}");
}

#[tokio::test]
async fn what_an_engine_keeps_of_a_workspace_that_another_made_is_removed_when_it_is_back() {
    let two = Two::start().await;
    two.first.hold("create.sandbox_created");
    let id = two.service.create(two.project, NewWorkspace::default(), None).await.unwrap().row.id;
    eventually("the first has begun", async || two.first.state(id).is_some()).await;
    two.first.set_away(true);
    two.first.release("create.sandbox_created");
    let made = two.service.wait_ready(two.project, id, std::time::Duration::from_secs(20)).await.unwrap();
    assert_eq!((made.row.state.word(), made.row.provider), (StateKind::Ready, ProviderKind::Docker));
    two.first.set_away(false);
    eventually("the remains are gone", async || two.first.sandboxes().is_empty()).await;
    assert!(two.second.state(id).is_some());
}

#[tokio::test]
async fn requirements_choose_and_are_named_where_nobody_meets_them() {
    let two = Two::start().await;
    two.first.set_weak(true);
    let pause = Requirements { pause: true, ..Requirements::default() };
    let made = two.create(NewWorkspace { requirements: pause, ..NewWorkspace::default() }).await;
    assert_eq!(made.row.provider, ProviderKind::Docker);
    assert!(made.row.passed_over[0].reason.contains("pause"), "{:?}", made.row.passed_over);
    let hardware = Requirements { isolation: Some(Isolation::Hardware), ..Requirements::default() };
    let request = NewWorkspace { requirements: hardware, ..NewWorkspace::default() };
    let refused = two.service.create(two.project, request, None).await;
    let Err(NewWorkspaceError::NoProvider { reasons, .. }) = refused else { panic!("{refused:?}") };
    assert!(reasons.iter().all(|(_, why)| !matches!(why, Unavailable::Unhealthy(_))), "{reasons:?}");
}
