//! The creation of a workspace's sandbox.

use emergent_firecracker_manager::http::CreateBody;
use emergent_provider::{CreateError, Created, Owner, SandboxSpec};
use emergent_types::{CreateStep, ResourceLimits, StepObserver};

use crate::{FirecrackerProvider, error, health, image, manager::ManagerError};

/// The least memory that a machine is given, in MiB.
const LEAST_MEMORY: u32 = 128;
/// The smallest disk that a machine is given, in MiB.
const LEAST_DISK: u64 = 64;

/// Makes a sandbox and starts it.
pub(crate) async fn create(
    provider: &FirecrackerProvider,
    spec: &SandboxSpec,
    observer: &dyn StepObserver,
) -> Result<Created, CreateError> {
    let manager = &*provider.manager;
    let seen = provider.last_health.strong_enough(manager, provider.require_isolation).await?;
    let templates = manager.templates().await;
    let templates = templates.map_err(|failure| error::create_error(manager, "list its templates", failure))?;
    let template = image::template_for(&spec.image, &provider.default_image, &templates.templates);
    let template = template.ok_or_else(|| CreateError::ImageUnavailable {
        image: spec.image.clone(),
        reason: image::advice(&spec.image),
    })?;
    observer.created(spec.workspace, CreateStep::ImagePresent);

    let owner = Owner { workspace: spec.workspace, server: provider.server, kind: spec.kind };
    let body = CreateBody {
        sandbox_id: Some(spec.workspace.as_uuid()),
        template: Some(template),
        memory_mb: Some(memory_mb(&spec.limits)),
        vcpu_count: Some(vcpus(spec.limits.cpu)),
        disk_mb: Some(disk_mb(&spec.limits)),
        pids: Some(spec.limits.pids.max(1)),
        network: Some(spec.network.into()),
        labels: owner.to_labels().into_iter().chain(spec.origin_labels()).collect(),
        snapshot_id: spec.snapshot.map(|snapshot| snapshot.as_uuid()),
        // What belongs to the workspace is given to a guest that knows of no other: files, and no processes.
        boot: spec.snapshot.is_some(),
        hand_over_later: true,
        ..CreateBody::default()
    };
    let made = manager.create(body).await;
    made.map_err(|failure| match (failure, spec.snapshot) {
        (ManagerError::NotFound(_), Some(snapshot)) => CreateError::SnapshotMissing { snapshot },
        (failure, _) => error::create_error(manager, "make the machine", failure),
    })?;
    for step in
        [CreateStep::VolumeCreated, CreateStep::VolumeFilled, CreateStep::SandboxCreated, CreateStep::SandboxStarted]
    {
        observer.created(spec.workspace, step);
    }
    Ok(Created {
        image: None,
        first_channel: None,
        warnings: health::warning(&seen).into_iter().collect(),
        isolation: health::isolation(&seen),
        runtime: seen.driver,
    })
}

fn memory_mb(limits: &ResourceLimits) -> u32 {
    u32::try_from(limits.memory_bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX).max(LEAST_MEMORY)
}

fn disk_mb(limits: &ResourceLimits) -> u64 {
    limits.disk_bytes.div_ceil(1 << 20).max(LEAST_DISK)
}

/// Returns the number of whole CPUs: a part of one is rounded up.
fn vcpus(cores: f64) -> u8 {
    (1..=32_u8).find(|count| f64::from(*count) >= cores).unwrap_or(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_rounded_up_to_what_a_machine_can_have() {
        let limits = ResourceLimits { cpu: 1.5, memory_bytes: (512 << 20) + 1, disk_bytes: 1, pids: 1 };
        assert_eq!((vcpus(limits.cpu), memory_mb(&limits), disk_mb(&limits)), (2, 513, LEAST_DISK));
        assert_eq!((vcpus(0.1), vcpus(1.0), vcpus(1000.0)), (1, 1, 32));
    }
}
