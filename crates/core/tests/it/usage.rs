//! Samples of use, and the watch over disks.

use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use emergent_core::{AuditConfig, AuditFilter, CoreConfig, UsageHistory, WorkspaceId};
use emergent_guest_proto::Usage;

use crate::support::{Fixture, config, eventually};

const MIB: u64 = 1 << 20;

async fn fixture() -> Fixture {
    let audit = AuditConfig { usage_interval: Duration::from_millis(50), ..AuditConfig::default() };
    Fixture::start_with(CoreConfig { audit, ..config() }).await
}

async fn history(fixture: &Fixture, id: WorkspaceId) -> UsageHistory {
    let (since, until) = (Utc::now() - TimeDelta::hours(1), Utc::now() + TimeDelta::hours(1));
    fixture.service.usage_history(fixture.project, id, since, until).await.unwrap()
}

fn holding(bytes: u64) -> Usage {
    Usage { workspace_bytes: Some(bytes), memory_bytes: Some(MIB), ..Usage::default() }
}

#[tokio::test]
async fn guests_that_do_not_answer_hold_up_nobody() {
    let fixture = fixture().await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(fixture.ready().await);
    }
    let id = fixture.ready().await;
    fixture.engine.guest(id).uses(holding(0));
    let began = Instant::now();
    eventually("it is sampled twice", async || history(&fixture, id).await.samples.len() >= 2).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let sampled = history(&fixture, id).await;
    assert!(sampled.totals.seconds > 0.0 && sampled.totals.memory_byte_seconds > 0.0, "{sampled:?}");
    assert!(history(&fixture, silent[0]).await.samples.is_empty());
    assert_eq!(fixture.get(id).await.row.last_used_at, None, "being asked is no use");
}

#[tokio::test]
async fn a_crossing_of_the_disk_limit_warns_once_until_it_is_over() {
    let fixture = fixture().await;
    let id = fixture.ready().await;
    let limit = fixture.get(id).await.row.spec.limits.disk_bytes;
    let guest = fixture.engine.guest(id);
    let warnings = async || {
        let warnings = fixture.get(id).await.warnings();
        warnings.into_iter().filter(|warning| warning.contains("disk limit of 10240 MiB")).count()
    };
    guest.uses(holding(limit + MIB));
    eventually("it is warned of", async || warnings().await == 1).await;
    guest.uses(holding(limit + 2 * MIB));
    let samples = history(&fixture, id).await.samples.len();
    eventually("it is looked at again", async || history(&fixture, id).await.samples.len() > samples + 1).await;
    guest.uses(holding(limit));
    eventually("the warning is gone", async || warnings().await == 0).await;
    let crossings = async || {
        let rows = fixture.told(AuditFilter { workspace: Some(id), ..AuditFilter::default() }).await;
        let actions = rows.into_iter().map(|row| row.action);
        actions.filter(|action| action.starts_with("disk_")).collect::<Vec<_>>()
    };
    eventually("both are told", async || crossings().await.len() >= 2).await;
    assert_eq!(crossings().await, ["disk_over_limit", "disk_below_limit"]);
}
