//! The warm pool: its members have no rows, so they are told from leftovers by their number.

use bollard::models::ContainerStateStatusEnum;

use super::{Accounted, engine::Had};
use crate::soak::{
    leak::{Finding, Leak},
    testbed::Subject,
};

/// Accounts for as many sandboxes of a server's as its pool says to have ready, and finds out whether it is full.
pub(super) async fn findings(subject: &Subject, had: &Had, accounted: &mut Accounted) -> anyhow::Result<Vec<Finding>> {
    let pool = subject.pool().await?;
    let full = pool["ready"] == pool["target"] && pool["making"] == 0;
    let ready = pool["ready"].as_u64().and_then(|ready| usize::try_from(ready).ok()).unwrap_or(0);
    let is_member = |name: &&String| {
        let container = &had.containers[*name];
        container.server.as_ref() == Some(&subject.id) && !accounted.containers.contains(*name)
    };
    let members: Vec<_> = had.containers.keys().filter(is_member).cloned().collect();
    let run = members.iter().all(|name| had.containers[name].state == ContainerStateStatusEnum::RUNNING);
    if members.len() == ready && run {
        accounted.containers.extend(members.iter().cloned());
        accounted.volumes.extend(members);
    }
    // What is not accounted for is named by its own kind.
    let shown = format!("the warm pool on {} is to be full, and is {pool}", subject.name);
    Ok(if full { Vec::new() } else { vec![Finding::new(Leak::Disagreement, shown)] })
}
