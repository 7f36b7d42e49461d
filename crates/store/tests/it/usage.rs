//! The use of resources: samples, totals, and the end of old samples.

use chrono::{DateTime, TimeDelta, Utc};
use emergent_store::{UsageSample, UsageTotals};
use emergent_types::WorkspaceId;

use crate::support::TestStore;

#[tokio::test]
async fn samples_add_up_over_the_time_asked_for_and_old_ones_go() {
    let rows = TestStore::open().await;
    let (store, workspace) = (&rows.store, WorkspaceId::generate());
    let base: DateTime<Utc> = "2026-11-21T10:00:00Z".parse().unwrap();
    let at = |minutes| base + TimeDelta::minutes(minutes);
    let sample = |minutes: u8| UsageSample {
        workspace,
        project: store.default_project(),
        at: at(minutes.into()),
        seconds: 60.0,
        cpu_seconds: 1.5 * f64::from(minutes),
        memory_bytes: 1 << 30,
        disk_bytes: (minutes > 1).then_some(u64::from(minutes)),
        processes: 3,
    };
    let samples = [sample(1), sample(2), sample(3)];
    store.usage_append(&samples).await.unwrap();
    store.usage_append(&samples[..1]).await.unwrap();
    assert_eq!(store.usage_list(workspace, at(1), at(3), 10).await.unwrap(), [samples[1], samples[0]]);
    assert_eq!(store.usage_list(workspace, at(0), at(9), 1).await.unwrap(), [samples[2]]);
    let totals = store.usage_totals(workspace, at(1), at(9)).await.unwrap();
    let byte_seconds = 180.0 * f64::from(1 << 30);
    let expected = UsageTotals { samples: 3, seconds: 180.0, cpu_seconds: 9.0, memory_byte_seconds: byte_seconds };
    assert_eq!(totals, expected);
    let nothing = store.usage_totals(WorkspaceId::generate(), at(0), at(9)).await.unwrap();
    assert_eq!(nothing, UsageTotals::default());
    assert_eq!(store.usage_purge(at(3), 1).await.unwrap(), 1);
    assert_eq!(store.usage_purge(at(3), 10).await.unwrap(), 1);
    assert_eq!(store.usage_list(workspace, at(0), at(9), 10).await.unwrap(), [samples[2]]);
}
