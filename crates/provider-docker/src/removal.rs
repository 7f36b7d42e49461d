//! The removal of containers and volumes: a missing one is no error, and another's removal under way is waited for.

use std::{collections::HashMap, time::Duration};

use bollard::{
    Docker,
    query_parameters::{
        ListContainersOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
        RemoveVolumeOptionsBuilder,
    },
};
use emergent_provider::{ContainerKind, KIND_LABEL};
use emergent_types::SandboxId;
use tokio::time::{Instant, sleep};

use crate::{
    engine::{EngineError, bounded, found, within},
    labels,
};

/// How long to wait for a removal that is under way, or for a volume that is still in use.
const DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// Removes a container in any state, with its anonymous volumes.
pub(crate) async fn container(docker: &Docker, name: &str) -> Result<(), EngineError> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match found(within(DEADLINE, docker.remove_container(name, Some(options))).await) {
            // Somebody else removes it: it is gone when they are done.
            Err(error) if error.is_conflict() && Instant::now() < deadline => sleep(POLL).await,
            ended => return ended.map(drop),
        }
    }
}

/// Removes a volume.
pub(crate) async fn volume(docker: &Docker, name: &str) -> Result<(), EngineError> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let options = RemoveVolumeOptionsBuilder::default().build();
        match found(bounded(docker.remove_volume(name, Some(options))).await) {
            // The engine forgets a container a moment later than it says so.
            Err(error) if error.is_conflict() && Instant::now() < deadline => sleep(POLL).await,
            ended => return ended.map(drop),
        }
    }
}

/// Removes the hosted servers' containers that mount a workspace's volume, so that the volume can be removed; their own
/// volumes stay, and the code that drives the servers notices the loss.
pub(crate) async fn sharers_of(docker: &Docker, workspace: SandboxId) -> Result<(), EngineError> {
    let filters = HashMap::from([
        ("volume".to_owned(), vec![labels::name_of(workspace)]),
        ("label".to_owned(), vec![format!("{KIND_LABEL}={}", ContainerKind::McpServer.as_str())]),
    ]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    for sharer in bounded(docker.list_containers(Some(options))).await? {
        let Some(id) = sharer.id else { continue };
        tracing::info!(%workspace, container = id, "a hosted server loses the workspace that it shares");
        container(docker, &id).await?;
    }
    Ok(())
}

/// Removes every volume that carries a sandbox's label, and the one of `/workspace` last: while that volume exists,
/// parts of the sandbox are left.
pub(crate) async fn volumes_of(docker: &Docker, workspace: SandboxId) -> Result<(), EngineError> {
    let last = labels::name_of(workspace);
    let options = ListVolumesOptionsBuilder::default().filters(&labels::of(workspace)).build();
    let found = bounded(docker.list_volumes(Some(options))).await?.volumes.unwrap_or_default();
    for other in found.iter().filter(|found| found.name != last) {
        volume(docker, &other.name).await?;
    }
    volume(docker, &last).await
}
