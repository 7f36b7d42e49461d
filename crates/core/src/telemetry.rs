//! The service's metrics: counters, gauges and durations.

use std::time::Duration;

use emergent_provider::{ImageRef, ProviderKind};
use emergent_store::DestroyReason;
use metrics::{counter, gauge, histogram};

pub(crate) fn created(provider: ProviderKind, outcome: &'static str, took: Duration) {
    counter!("emergent_workspaces_created_total", "provider" => provider.as_str(), "outcome" => outcome).increment(1);
    if outcome == "ready" {
        histogram!("emergent_workspace_create_seconds", "provider" => provider.as_str()).record(took);
    }
}

pub(crate) fn operated(operation: &'static str, ok: bool) {
    let outcome = if ok { "ok" } else { "error" };
    counter!("emergent_workspace_operations_total", "operation" => operation, "outcome" => outcome).increment(1);
}

pub(crate) fn destroyed(reason: DestroyReason) {
    counter!("emergent_workspaces_destroyed_total", "reason" => reason.as_str()).increment(1);
}

pub(crate) fn snapshot_taken(outcome: &'static str, took: Duration) {
    counter!("emergent_snapshots_taken_total", "outcome" => outcome).increment(1);
    if outcome == "ready" {
        histogram!("emergent_snapshot_seconds").record(took);
    }
}

pub(crate) fn ended(reason: &'static str) {
    counter!("emergent_workspaces_ended_total", "reason" => reason).increment(1);
}

pub(crate) fn active(by_provider: &[(ProviderKind, u64)]) {
    for provider in ProviderKind::ALL {
        let active = by_provider.iter().find(|(kind, _)| *kind == provider).map_or(0, |(_, active)| *active);
        // No server comes near the numbers that a float cannot tell apart.
        gauge!("emergent_workspaces_active", "provider" => provider.as_str())
            .set(u32::try_from(active).unwrap_or(u32::MAX));
    }
}

pub(crate) fn fell_back(from: ProviderKind) {
    counter!("emergent_provider_fallbacks_total", "from" => from.as_str()).increment(1);
}

/// Records how many members of an image's pool are in this state.
pub(crate) fn pool(image: &ImageRef, state: &'static str, members: u32) {
    gauge!("emergent_warm_pool_members", "image" => image.to_string(), "state" => state).set(members);
}

pub(crate) fn pool_hit(image: &ImageRef) {
    counter!("emergent_warm_pool_hits_total", "image" => image.to_string()).increment(1);
}

pub(crate) fn pool_miss(image: &ImageRef, reason: &'static str) {
    counter!("emergent_warm_pool_misses_total", "image" => image.to_string(), "reason" => reason).increment(1);
}

/// Records the active workspaces, their limit, and whether the number is near the limit.
pub(crate) fn capacity(active: u64, limit: u32, near: bool) {
    gauge!("emergent_workspaces_in_use").set(u32::try_from(active).unwrap_or(u32::MAX));
    gauge!("emergent_workspaces_limit").set(limit);
    gauge!("emergent_workspaces_near_limit").set(u8::from(near));
}

pub(crate) fn sampled(answered: bool) {
    let outcome = if answered { "ok" } else { "silent" };
    counter!("emergent_usage_samples_total", "outcome" => outcome).increment(1);
}

pub(crate) fn crossed_disk_limit(over: bool) {
    let direction = if over { "over" } else { "below" };
    counter!("emergent_workspaces_disk_limit_crossings_total", "direction" => direction).increment(1);
}

pub(crate) fn over_disk_limit(workspaces: usize) {
    gauge!("emergent_workspaces_over_disk_limit").set(u32::try_from(workspaces).unwrap_or(u32::MAX));
}
