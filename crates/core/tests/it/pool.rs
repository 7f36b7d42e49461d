//! The warm pool: filled, handed over, refilled, renewed and emptied.

use emergent_core::{CoreConfig, LimitsRequest, NewWorkspace, PoolStatus, StateKind, WorkspaceId};
use emergent_provider::{EngineState, ExitReason};
use emergent_types::NetworkPolicy;

use crate::support::{Fixture, config, eventually};

async fn pooled(size: u32) -> Fixture {
    let config = config();
    let warm_pool_images = vec![config.default_image.clone()];
    let fixture = Fixture::start_with(CoreConfig { warm_pool_size: size, warm_pool_images, ..config }).await;
    full(&fixture).await;
    fixture
}

fn status(fixture: &Fixture) -> PoolStatus {
    let [status] = fixture.service.pool().try_into().unwrap();
    status
}

async fn full(fixture: &Fixture) {
    eventually("the pool is full", async || {
        let now = status(fixture);
        now.ready == now.target && now.making == 0
    })
    .await;
}

fn members(fixture: &Fixture) -> Vec<WorkspaceId> {
    fixture.engine.sandboxes().into_iter().collect()
}

#[tokio::test]
async fn a_create_that_fits_is_a_hand_over_and_the_pool_is_made_good() {
    let fixture = pooled(2).await;
    let before = members(&fixture);
    assert_eq!(before.len(), 2);
    assert!(fixture.all().await.is_empty(), "a member is no workspace");
    assert!(before.iter().all(|id| !fixture.engine.guest(*id).is_handed_over()));
    let id = fixture.ready().await;
    assert!(before.contains(&id));
    let workspace = fixture.get(id).await;
    assert!(workspace.row.warm && workspace.row.runtime.is_some() && !workspace.row.warnings.is_empty());
    assert!(fixture.engine.guest(id).is_handed_over());
    full(&fixture).await;
    assert_eq!((members(&fixture).len(), status(&fixture).hits), (3, 1));
}

#[tokio::test]
async fn what_no_member_can_become_starts_cold_and_is_counted_by_its_reason() {
    let fixture = pooled(1).await;
    let network = NewWorkspace { network: Some(NetworkPolicy::None), ..NewWorkspace::default() };
    let limits = LimitsRequest { cpu: Some(0.5), ..LimitsRequest::default() };
    let limits = NewWorkspace { limits, ..NewWorkspace::default() };
    let image = NewWorkspace { image: Some("another:1".parse().unwrap()), ..NewWorkspace::default() };
    for request in [network, limits, image] {
        let id = fixture.service.create(fixture.project, request, None).await.unwrap().row.id;
        assert!(!fixture.becomes(id, StateKind::Ready).await.row.warm);
    }
    let now = status(&fixture);
    assert_eq!((now.hits, now.ready), (0, 1));
    assert_eq!(now.misses, [("limits", 1), ("network", 1)].into());
}

#[tokio::test]
async fn a_hand_over_that_fails_gives_nobody_the_member() {
    let fixture = pooled(1).await;
    let member = members(&fixture)[0];
    fixture.engine.guest(member).refuse_hand_over(true);
    fixture.engine.hold("create.sandbox_created");
    let id = fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap().row.id;
    eventually("the member is removed", async || fixture.engine.count("destroy") == 1).await;
    fixture.engine.guest(member).refuse_hand_over(false);
    fixture.engine.release("create.sandbox_created");
    let workspace = fixture.becomes(id, StateKind::Ready).await;
    assert!(!workspace.row.warm);
    assert_eq!(status(&fixture).misses, [("hand_over", 1)].into());
}

#[tokio::test]
async fn a_member_that_ends_is_replaced() {
    let fixture = pooled(2).await;
    let ended = members(&fixture)[0];
    fixture.engine.touch(ended, Some(EngineState::Exited(ExitReason::Code(137))));
    eventually("another is in its place", async || {
        let now = members(&fixture);
        now.len() == 2 && !now.contains(&ended)
    })
    .await;
    full(&fixture).await;
}

#[tokio::test]
async fn members_of_an_image_that_has_changed_are_replaced() {
    let fixture = pooled(3).await;
    let before = members(&fixture);
    fixture.engine.set_image("sha256:new");
    let taken = fixture.ready().await;
    eventually("the others are replaced", async || {
        let now = members(&fixture);
        now.len() == 4 && now.iter().all(|id| *id == taken || !before.contains(id))
    })
    .await;
}

#[tokio::test]
async fn nothing_is_taken_by_a_create_that_finds_no_room() {
    let config = config();
    let warm_pool_images = vec![config.default_image.clone()];
    let config = CoreConfig { warm_pool_size: 1, max_concurrent: 1, warm_pool_images, ..config };
    let fixture = Fixture::start_with(config).await;
    full(&fixture).await;
    fixture.ready().await;
    full(&fixture).await;
    let before = members(&fixture);
    fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap_err();
    assert_eq!((members(&fixture), status(&fixture).ready), (before, 1));
}

#[tokio::test]
async fn it_is_emptied_while_the_server_drains() {
    let fixture = pooled(2).await;
    fixture.service.servers().set_draining(true).await.unwrap();
    eventually("it is empty", async || members(&fixture).is_empty()).await;
    fixture.service.servers().set_draining(false).await.unwrap();
    full(&fixture).await;
}

#[tokio::test]
async fn it_is_emptied_at_shutdown() {
    let fixture = pooled(3).await;
    let id = fixture.ready().await;
    fixture.service.shutdown().await;
    assert_eq!(members(&fixture), [id]);
}

#[tokio::test]
async fn what_a_crash_leaves_of_it_is_removed_at_the_next_start() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    fixture.service.shutdown().await;
    let left = fixture.engine.stray(std::time::SystemTime::now());
    let fixture = fixture.restart().await;
    eventually("it is gone", async || fixture.engine.state(left).is_none()).await;
    assert_eq!(members(&fixture), [id]);
}

#[tokio::test]
async fn a_member_whose_row_is_being_written_is_nobodys_orphan() {
    // The row is written within 5 s, or not at all: a machine that is busy for so long shows nothing.
    for _ in 0..5 {
        if member_survives_a_look_while_its_row_is_written().await {
            return;
        }
    }
    panic!("the engine could not be looked at in time");
}

async fn member_survives_a_look_while_its_row_is_written() -> bool {
    let config = config();
    let warm_pool_images = vec![config.default_image.clone()];
    // Nothing is too young to be taken for an orphan.
    let orphan_grace = chrono::TimeDelta::zero();
    let fixture = Fixture::start_with(CoreConfig { warm_pool_size: 1, warm_pool_images, orphan_grace, ..config }).await;
    full(&fixture).await;
    let [member] = members(&fixture).try_into().unwrap();
    let writing = fixture.keep_writers_out().await;
    // Its replacement stays away, so that the sandbox seen is the member that was taken.
    fixture.engine.hold("create.image_present");
    let (service, project) = (fixture.service.clone(), fixture.project);
    let create = tokio::spawn(async move { service.create(project, NewWorkspace::default(), None).await });
    eventually("the member is taken", async || status(&fixture).ready == 0).await;
    // An engine that comes back is compared with the rows.
    fixture.engine.set_away(true);
    eventually("it is missed", async || {
        fixture.service.providers(None).await.iter().any(|provider| provider.registered && !provider.healthy)
    })
    .await;
    let looks = fixture.engine.count("list");
    fixture.engine.set_away(false);
    eventually("the engine is looked at", async || fixture.engine.count("list") > looks).await;
    eventually("it is compared", async || {
        fixture.service.providers(None).await.iter().any(|provider| provider.registered && provider.healthy)
    })
    .await;
    writing.close().await.unwrap();
    let Ok(workspace) = create.await.unwrap() else { return false };
    assert_eq!(fixture.engine.count("destroy"), 0, "the member was removed as an orphan");
    assert_eq!(workspace.row.id, member);
    fixture.becomes(member, StateKind::Ready).await;
    fixture.engine.release("create.image_present");
    true
}
