//! The work of the bare engine, which rows have as their baseline.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use bollard::{
    Docker,
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions},
};

use super::{Samples, measure::millis};
use crate::{Runtime, Server};

/// The image of all rows, as the server's default.
pub(super) const IMAGE: &str = "emergent/workspace:latest";

/// Measures the time that the engine itself takes to make and start a container with a volume.
pub(super) async fn bare_create_and_starts(
    server: &Server,
    runtime: Runtime,
    network: &str,
) -> anyhow::Result<Samples> {
    let docker = server.engine.docker();
    let mut samples = Vec::new();
    for round in 0..11 {
        let name = format!("emergent-bench-{}-{round}", std::process::id());
        let took = millis(|| bare_create_and_start(docker, runtime, &name, network)).await;
        let remove = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        docker.remove_container(&name, Some(remove)).await.context("removing a container")?;
        // A volume that has a name does not go with its container.
        docker.remove_volume(&name, None::<RemoveVolumeOptions>).await.context("removing a volume")?;
        if round > 0 {
            samples.push(took?);
        }
    }
    Samples::new(samples)
}

async fn bare_create_and_start(docker: &Docker, runtime: Runtime, name: &str, network: &str) -> anyhow::Result<()> {
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(vec!["sleep".to_owned(), "1000".to_owned()]),
        host_config: Some(HostConfig {
            runtime: Some(runtime.name().to_owned()),
            binds: Some(vec![format!("{name}:/workspace")]),
            network_mode: Some(network.to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    docker.create_container(Some(options), body).await.context("creating a container")?;
    docker.start_container(name, None).await.context("starting a container")
}

/// Runs Docker's own command line, as its user would.
pub(super) async fn docker(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let status = tokio::process::Command::from(command).status().await.context("running docker")?;
    ensure!(status.success(), "docker {arguments:?}: {status}");
    Ok(())
}
