//! The removal of containers and volumes: a missing one is no error, and another's removal under way is waited for.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use bollard::{
    Docker,
    models::ContainerInspectResponse,
    query_parameters::{
        ListContainersOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
        RemoveVolumeOptionsBuilder, StopContainerOptionsBuilder,
    },
};
use emergent_provider::{ContainerKind, KIND_LABEL};
use emergent_types::SandboxId;
use tokio::time::{Instant, sleep};

use crate::{
    disk,
    engine::{Engine, EngineError, bounded, found, within},
    labels,
};

/// The time to wait for a removal that is under way, or for a volume that is still in use.
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

/// Removes the container of a sandbox, in any state, and makes its own files flat before the engine removes them. Returns
/// the container as it was.
pub(crate) async fn sandbox(
    engine: &Engine,
    workspace: SandboxId,
) -> Result<Option<ContainerInspectResponse>, EngineError> {
    let (docker, name) = (engine.client().await?, labels::name_of(workspace));
    let inspected = found(bounded(docker.inspect_container(&name, None)).await)?;
    if let Some(inspected) = &inspected {
        make_flat(engine, docker, &name, inspected).await;
    }
    container(docker, &name).await?;
    Ok(inspected)
}

/// Ends a container and makes its own files flat, as far as that can be done.
async fn make_flat(engine: &Engine, docker: &Docker, name: &str, inspected: &ContainerInspectResponse) {
    // gVisor does not end a frozen sandbox when it is killed: the engine would wait for 10 s.
    if inspected.state.as_ref().is_some_and(|state| state.paused == Some(true))
        && let Err(error) = bounded(docker.unpause_container(name)).await
    {
        return tracing::debug!(%error, name, "a paused container is removed as it is");
    }
    let layer = inspected.graph_driver.as_ref().and_then(|driver| driver.data.get("UpperDir"));
    let Some(layer) = layer.filter(|_| engine.is_local()) else { return };
    // A process that still runs could make directories meanwhile.
    let options = StopContainerOptionsBuilder::default().t(0).build();
    match within(DEADLINE, docker.stop_container(name, Some(options))).await {
        Ok(()) => flatten(engine, vec![layer.into()]).await,
        Err(error) => tracing::debug!(%error, name, "a container is removed as it is"),
    }
}

/// Makes trees flat that the engine is about to remove with a descriptor for each level. Those of an engine elsewhere
/// stay as they are, and those that are not this process's to change.
pub(crate) async fn flatten(engine: &Engine, trees: Vec<PathBuf>) {
    if !engine.is_local() {
        return;
    }
    let flat = move || {
        for tree in &trees {
            if let Err(error) = disk::flatten(tree) {
                tracing::debug!(%error, tree = %tree.display(), "a tree is removed as it is");
            }
        }
    };
    tokio::task::spawn_blocking(flat).await.ok();
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
pub(crate) async fn volumes_of(engine: &Engine, workspace: SandboxId) -> Result<(), EngineError> {
    let (docker, last) = (engine.client().await?, labels::name_of(workspace));
    let options = ListVolumesOptionsBuilder::default().filters(&labels::of(workspace)).build();
    let found = bounded(docker.list_volumes(Some(options))).await?.volumes.unwrap_or_default();
    flatten(engine, found.iter().map(|volume| PathBuf::from(&volume.mountpoint)).collect()).await;
    for other in found.iter().filter(|found| found.name != last) {
        volume(docker, &other.name).await?;
    }
    volume(docker, &last).await
}
