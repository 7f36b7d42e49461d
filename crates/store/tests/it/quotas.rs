//! Quotas: raced for, and named when they refuse.

use emergent_provider::{ContainerKind, Taken};
use emergent_store::{
    Admission, ErrorReason, ForkAdmission, McpChangeReach, McpServerAdmission, McpServerChange, McpServerRow, Measure,
    Quota, QuotaReached, QuotaUse, SnapshotAdmission, StartClaim, StateKind, WorkspaceState,
};

use super::servers::another_server;
use crate::support::{TestStore, new_mcp_server};

const GIB: u64 = 1 << 30;

async fn with_quota(quota: Quota) -> TestStore {
    let store = TestStore::open().await;
    assert_eq!(store.projects_set_quota(store.default_project(), quota).await.unwrap(), Some(quota));
    store
}

fn reached(measure: Measure, most: u64, used: u64, wanted: u64) -> QuotaReached {
    QuotaReached { measure, most, used, wanted }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_parallel_creates_never_exceed_a_quota() {
    for (quota, room, reached) in [
        (Quota { max_active: Some(3), ..Quota::default() }, 3, reached(Measure::Active, 3, 3, 1)),
        (Quota { max_total: Some(4), ..Quota::default() }, 4, reached(Measure::Total, 4, 4, 1)),
        (Quota { max_cpu: Some(2.5), ..Quota::default() }, 5, reached(Measure::Cpu, 2_500, 2_500, 500)),
        (
            Quota { max_memory_bytes: Some(9 * GIB), ..Quota::default() },
            2,
            reached(Measure::Memory, 9 * GIB, 8 * GIB, 4 * GIB),
        ),
        (Quota { max_pids: Some(3_000), ..Quota::default() }, 2, reached(Measure::Pids, 3_000, 2_048, 1_024)),
        (
            Quota { max_disk_bytes: Some(25 * GIB), ..Quota::default() },
            2,
            reached(Measure::Disk, 25 * GIB, 20 * GIB, 10 * GIB),
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

/// A quota of nothing: every request of the project is refused, whichever way it comes.
#[tokio::test]
async fn a_quota_of_zeros_lets_nothing_in() {
    let store = TestStore::open().await;
    let source = store.admitted(store.new_row()).await;
    let zeros = Quota {
        max_active: Some(0),
        max_total: Some(0),
        max_cpu: Some(0.0),
        max_memory_bytes: Some(0),
        max_pids: Some(0),
        max_disk_bytes: Some(0),
        max_mcp_servers: Some(0),
        max_snapshots: Some(0),
    };
    store.projects_set_quota(store.default_project(), zeros).await.unwrap();
    for kind in ContainerKind::ALL {
        let refused = store.admit(store.new_row_of(kind), 100, None).await.unwrap();
        assert!(matches!(refused, Admission::OverQuota(_)), "{kind:?}: {refused:?}");
    }
    let server = new_mcp_server(&store, "one");
    let refused = store.mcp_servers_admit(&server, 100).await.unwrap();
    assert_eq!(refused, McpServerAdmission::OverQuota(reached(Measure::McpServers, 0, 0, 1)));
    assert_eq!(store.mcp_servers_find(server.id).await.unwrap(), None);
    let snapshot = store.new_snapshot(false);
    let refused = store.snapshots_admit(snapshot.clone(), None).await.unwrap();
    assert_eq!(refused, SnapshotAdmission::OverQuota(reached(Measure::Snapshots, 0, 0, 1)));
    assert_eq!(store.snapshots_find(snapshot.id).await.unwrap(), None);
    let between = store.new_snapshot(true);
    let refused = store.admit_forks(between.clone(), store.copies(&between, 1), 100, None).await.unwrap();
    assert!(matches!(refused, ForkAdmission::OverQuota(_)), "{refused:?}");
    store.workspaces_record(source.id, &StateKind::ALL, &WorkspaceState::Stopped).await.unwrap();
    let refused = store.claim_start(source.id, 100).await.unwrap();
    assert!(matches!(refused, StartClaim::OverQuota(_)), "{refused:?}");
}

#[tokio::test]
async fn a_fork_needs_room_for_the_snapshot_between() {
    let store = with_quota(Quota { max_snapshots: Some(0), ..Quota::default() }).await;
    let between = store.new_snapshot(true);
    let refused = store.admit_forks(between.clone(), store.copies(&between, 1), 100, None).await.unwrap();
    assert_eq!(refused, ForkAdmission::OverQuota(reached(Measure::Snapshots, 0, 0, 1)));
    assert_eq!(store.workspaces_of(store.server_id()).await.unwrap(), [], "the copies are taken back");
}

#[tokio::test]
async fn a_snapshot_counts_with_its_size_once_that_is_known() {
    let store = with_quota(Quota { max_disk_bytes: Some(11 * GIB), ..Quota::default() }).await;
    let first = store.new_snapshot(false);
    let admitted = store.snapshots_admit(first.clone(), None).await.unwrap();
    assert!(matches!(admitted, SnapshotAdmission::Admitted(_)), "{admitted:?}");
    let refused = store.snapshots_admit(store.new_snapshot(false), None).await.unwrap();
    assert_eq!(refused, SnapshotAdmission::OverQuota(reached(Measure::Disk, 11 * GIB, 10 * GIB, 10 * GIB)));
    store.snapshots_record_taken(first.id, Taken { root_bytes: GIB, workspace_bytes: 0 }).await.unwrap();
    let admitted = store.snapshots_admit(store.new_snapshot(false), None).await.unwrap();
    assert!(matches!(admitted, SnapshotAdmission::Admitted(_)), "{admitted:?}");
    let (_, used) = store.projects_quota(store.default_project()).await.unwrap();
    assert_eq!((used.snapshots, used.disk_bytes), (2, 11 * GIB));
}

/// Two stores on one database are two servers of an installation.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hosted_servers_have_a_limit_that_several_servers_agree_on() {
    let store = TestStore::open().await;
    let other = another_server(&store).await;
    let registered = (0..20).map(|number| {
        let store = if number % 2 == 0 { store.store.clone() } else { other.clone() };
        let row = new_mcp_server(&store, &format!("server-{number}"));
        tokio::spawn(async move { store.mcp_servers_admit(&row, 5).await.unwrap() })
    });
    let mut admitted = 0;
    for server in registered.collect::<Vec<_>>() {
        match server.await.unwrap() {
            McpServerAdmission::Admitted => admitted += 1,
            other => assert_eq!(other, McpServerAdmission::Full),
        }
    }
    assert_eq!(admitted, 5);
    let same_kind = store.new_row_of(ContainerKind::McpServer);
    assert_eq!(store.admit(same_kind, 5, None).await.unwrap(), Admission::Full, "a workspace of that kind is one, too");
    store.admitted(store.new_row()).await;
}

#[tokio::test]
async fn a_hosted_server_grows_only_as_far_as_the_quota_goes() {
    let store = with_quota(Quota { max_memory_bytes: Some(GIB), ..Quota::default() }).await;
    let row = new_mcp_server(&store, "one");
    assert_eq!(store.mcp_servers_admit(&row, 10).await.unwrap(), McpServerAdmission::Admitted);
    let again = McpServerRow { id: emergent_store::McpServerId::generate(), ..row.clone() };
    assert_eq!(store.mcp_servers_admit(&again, 10).await.unwrap(), McpServerAdmission::NameTaken);
    let mut larger = row.spec.clone();
    larger.memory_bytes = 2 * GIB;
    let refused = store.mcp_servers_change(row.id, &larger, &[], None, McpChangeReach::Sandbox).await.unwrap();
    let wanted = larger.memory_bytes - row.spec.memory_bytes;
    let expected = reached(Measure::Memory, GIB, row.spec.memory_bytes, wanted);
    assert_eq!(refused, McpServerChange::OverQuota(expected));
    larger.memory_bytes = GIB;
    assert_eq!(
        store.mcp_servers_change(row.id, &larger, &[], None, McpChangeReach::Sandbox).await.unwrap(),
        McpServerChange::Changed
    );
    let (_, used) = store.projects_quota(store.default_project()).await.unwrap();
    assert_eq!((used.mcp_servers, used.memory_bytes), (1, GIB));
    // What is over a quota that was lowered may still become smaller.
    let lower = Quota { max_memory_bytes: Some(0), ..Quota::default() };
    store.projects_set_quota(store.default_project(), lower).await.unwrap();
    larger.memory_bytes = GIB / 2;
    assert_eq!(
        store.mcp_servers_change(row.id, &larger, &[], None, McpChangeReach::Sandbox).await.unwrap(),
        McpServerChange::Changed
    );
}

#[tokio::test]
async fn a_stopped_workspace_gives_its_share_back_and_needs_it_to_start() {
    let store = with_quota(Quota { max_active: Some(1), max_total: Some(2), ..Quota::default() }).await;
    let first = store.admitted(store.new_row()).await;
    store.workspaces_record(first.id, &StateKind::ALL, &WorkspaceState::Stopped).await.unwrap();
    let second = store.admitted(store.new_row()).await;
    let refused = store.claim_start(first.id, 10).await.unwrap();
    assert_eq!(refused, StartClaim::OverQuota(reached(Measure::Active, 1, 1, 1)));
    let full = store.admit(store.new_row(), 10, None).await.unwrap();
    assert_eq!(full, Admission::OverQuota(reached(Measure::Total, 2, 2, 1)));
    let (_, used) = store.projects_quota(store.default_project()).await.unwrap();
    let expected = QuotaUse {
        active: 1,
        total: 2,
        cpu: 0.5,
        memory_bytes: 4 * GIB,
        pids: 1_024,
        disk_bytes: 20 * GIB,
        mcp_servers: 0,
        snapshots: 0,
    };
    assert_eq!(used, expected, "the disk of one that is stopped is still taken");
    let failed = WorkspaceState::Error { reason: ErrorReason::Killed, message: String::new() };
    store.workspaces_record(second.id, &StateKind::ALL, &failed).await.unwrap();
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
    assert_eq!(refused, Admission::OverQuota(reached(Measure::Active, 0, 0, 1)));
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
