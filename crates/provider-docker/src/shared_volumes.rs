//! Volumes that a sandbox shares with others: a workspace's, and those of the engine.

use bollard::{
    Docker,
    models::{Mount, MountType, MountVolumeOptions, VolumeCreateRequest},
};
use emergent_provider::{ContainerKind, NamedVolume, Owner, SandboxSpec, VolumeSource};
use emergent_types::ServerId;

use crate::{
    engine::{EngineError, bounded},
    labels,
};

/// Makes the engine's volumes if they are missing, and checks that the workspaces' volumes exist.
pub(crate) async fn ensure(docker: &Docker, spec: &SandboxSpec) -> Result<(), EngineError> {
    for volume in &spec.volumes {
        match volume.source {
            VolumeSource::Own => {}
            VolumeSource::Workspace { workspace, .. } => {
                bounded(docker.inspect_volume(&labels::name_of(workspace))).await?;
            }
            VolumeSource::Engine { .. } => {
                let request = VolumeCreateRequest {
                    name: Some(labels::name_of_engine_volume(&volume.name)),
                    labels: Some([(labels::SHARED.to_owned(), labels::FILLED.to_owned())].into()),
                    ..VolumeCreateRequest::default()
                };
                bounded(docker.create_volume(request)).await?;
            }
        }
    }
    Ok(())
}

/// Returns the mounts of these volumes in a container that this server makes.
pub(crate) fn mounts(spec: &SandboxSpec, server: ServerId) -> impl Iterator<Item = Mount> {
    spec.volumes.iter().filter_map(move |volume| {
        let (source, read_only, labels) = match volume.source {
            VolumeSource::Own => return None,
            VolumeSource::Workspace { workspace, read_only } => {
                // The engine makes a volume that is not there: one of a workspace that goes this moment is found by its
                // labels, and goes too.
                let owner = Owner { workspace, server, kind: ContainerKind::AgentWorkspace };
                (labels::name_of(workspace), read_only, Some(owner.to_labels().into()))
            }
            VolumeSource::Engine { read_only } => (labels::name_of_engine_volume(&volume.name), read_only, None),
        };
        // What the image has there is not for others to find.
        let options = MountVolumeOptions { no_copy: Some(true), labels, ..MountVolumeOptions::default() };
        Some(Mount {
            target: Some(volume.path.clone()),
            source: Some(source),
            typ: Some(MountType::VOLUME),
            read_only: Some(read_only),
            volume_options: Some(options),
            ..Mount::default()
        })
    })
}

/// Returns the paths of the engine's writable volumes, which the agent is made the owner of.
pub(crate) fn to_be_owned(spec: &SandboxSpec) -> impl Iterator<Item = &str> {
    let is_filled = |volume: &&NamedVolume| volume.source == VolumeSource::Engine { read_only: false };
    spec.volumes.iter().filter(is_filled).map(|volume| volume.path.as_str())
}
