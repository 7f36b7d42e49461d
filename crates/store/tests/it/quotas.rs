//! Quotas: raced for, and named when they refuse.

use emergent_store::{Admission, ErrorReason, Quota, QuotaReached, QuotaUse, StartClaim, StateWord, WorkspaceState};

use crate::support::TestStore;

async fn with_quota(quota: Quota) -> TestStore {
    let store = TestStore::open().await;
    assert_eq!(store.projects_set_quota(store.default_project(), quota).await.unwrap(), Some(quota));
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_parallel_creates_never_exceed_a_quota() {
    for (quota, room, reached) in [
        (Quota { max_active: Some(3), ..Quota::default() }, 3, QuotaReached::Active(3)),
        (Quota { max_total: Some(4), ..Quota::default() }, 4, QuotaReached::Total(4)),
        (Quota { max_cpu: Some(2.5), ..Quota::default() }, 5, QuotaReached::Cpu { most: 2.5, used: 2.5 }),
        (
            Quota { max_memory_bytes: Some(9 << 30), ..Quota::default() },
            2,
            QuotaReached::Memory { most: 9 << 30, used: 8 << 30 },
        ),
    ] {
        let store = with_quota(quota).await;
        let creates = (0..50).map(|_| {
            let (store, new) = (store.store.clone(), store.new_row());
            tokio::spawn(async move { store.admit(new, 1_000, None).await.unwrap() })
        });
        let mut admitted = 0;
        for create in creates.collect::<Vec<_>>() {
            match create.await.unwrap() {
                Admission::Admitted(_) => admitted += 1,
                other => assert_eq!(other, Admission::OverQuota(reached)),
            }
        }
        assert_eq!(admitted, room, "{quota:?}");
    }
}

#[tokio::test]
async fn a_stopped_workspace_gives_its_share_back_and_needs_it_to_start() {
    let store = with_quota(Quota { max_active: Some(1), max_total: Some(2), ..Quota::default() }).await;
    let first = store.admitted(store.new_row()).await;
    store.workspaces_record(first.id, &StateWord::ALL, &WorkspaceState::Stopped).await.unwrap();
    let second = store.admitted(store.new_row()).await;
    assert_eq!(store.claim_start(first.id, 10).await.unwrap(), StartClaim::OverQuota(QuotaReached::Active(1)));
    let full = store.admit(store.new_row(), 10, None).await.unwrap();
    assert_eq!(full, Admission::OverQuota(QuotaReached::Total(2)));
    let (_, used) = store.projects_quota(store.default_project()).await.unwrap();
    assert_eq!(used, QuotaUse { active: 1, total: 2, cpu: 0.5, memory_bytes: 4 << 30 });
    let failed = WorkspaceState::Error { reason: ErrorReason::Killed, message: String::new() };
    store.workspaces_record(second.id, &StateWord::ALL, &failed).await.unwrap();
    assert_eq!(store.claim_start(first.id, 10).await.unwrap(), StartClaim::Claimed);
    let (_, used) = store.projects_quota(store.default_project()).await.unwrap();
    assert_eq!(used.active, 1, "one that is being started counts");
}

#[tokio::test]
async fn quotas_are_a_projects_own_and_can_be_lifted() {
    let store = with_quota(Quota { max_active: Some(0), ..Quota::default() }).await;
    let other = store.projects_ensure("other").await.unwrap();
    let mut theirs = store.new_row();
    theirs.project = other;
    store.admitted(theirs).await;
    let refused = store.admit(store.new_row(), 10, None).await.unwrap();
    assert_eq!(refused, Admission::OverQuota(QuotaReached::Active(0)));
    let listed = store.projects_list().await.unwrap();
    let quotas: Vec<_> = listed.iter().map(|project| (project.name.as_str(), project.quota.max_active)).collect();
    assert_eq!(quotas, [("default", Some(0)), ("other", None)]);
    store.projects_set_quota(store.default_project(), Quota::default()).await.unwrap();
    store.admitted(store.new_row()).await;
    assert_eq!(store.projects_set_quota(emergent_store::ProjectId::generate(), Quota::default()).await.unwrap(), None);
}

#[tokio::test]
async fn a_crossing_of_the_disk_limit_is_news_once() {
    let store = TestStore::open().await;
    let id = store.admitted(store.new_row()).await.id;
    let news = async |warning| store.workspaces_disk_warning(id, warning).await.unwrap();
    assert!(!news(None).await);
    assert!(news(Some("full")).await);
    assert!(!news(Some("fuller")).await);
    assert_eq!(store.workspaces_find(id).await.unwrap().unwrap().disk_warning.as_deref(), Some("full"));
    assert!(news(None).await);
    assert!(!news(None).await);
}
