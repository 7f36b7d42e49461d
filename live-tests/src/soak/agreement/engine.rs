//! The engine's containers, volumes, networks and images against the rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::Context as _;
use bollard::{
    models::ContainerStateStatusEnum,
    query_parameters::{ListImagesOptions, ListNetworksOptions, ListVolumesOptions},
};
use serde_json::Value;

use super::{Accounted, NETWORKS};
use crate::soak::{
    leak::{Finding, Leak},
    testbed::Testbed,
};

/// The objects in the engine.
pub(super) struct Had {
    /// By name.
    pub(super) containers: BTreeMap<String, Container>,
    volumes: BTreeSet<String>,
    networks: BTreeSet<String>,
    /// By name, or by id where they have none.
    images: BTreeSet<String>,
}

/// A container.
pub(super) struct Container {
    pub(super) id: String,
    pub(super) state: ContainerStateStatusEnum,
    /// The server that has made it, by its label.
    pub(super) server: Option<String>,
    /// Standing connections into it.
    pub(super) channels: usize,
}

// === impl Had ===

impl Had {
    pub(super) async fn look(testbed: &Testbed) -> anyhow::Result<Self> {
        let docker = testbed.engine.docker();
        let containers = testbed.engine.containers().await?.into_iter().filter_map(|container| {
            let name = container.name?.trim_start_matches('/').to_owned();
            let server = container.config.and_then(|config| config.labels?.remove("emergent.server"));
            let channels = container.exec_ids.map_or(0, |ids| ids.len());
            Some((name, Container { id: container.id?, state: container.state?.status?, server, channels }))
        });
        let volumes = docker.list_volumes(None::<ListVolumesOptions>).await.context("listing volumes")?;
        // A create that found the disk full leaves a directory, which Docker calls a volume from its next start on. It
        // can hold nothing, and no label tells whose it was.
        let volumes = volumes.volumes.into_iter().flatten().filter(|volume| Path::new(&volume.mountpoint).is_dir());
        let volumes = volumes.map(|volume| volume.name).collect();
        let networks = docker.list_networks(None::<ListNetworksOptions>).await.context("listing networks")?;
        let networks = networks.into_iter().filter_map(|network| network.name).collect();
        let images = docker.list_images(None::<ListImagesOptions>).await.context("listing images")?;
        let names = |image: bollard::models::ImageSummary| {
            let named: Vec<_> = image.repo_tags.into_iter().filter(|tag| !tag.starts_with("<none>")).collect();
            if named.is_empty() { vec![image.id] } else { named }
        };
        let images = images.into_iter().flat_map(names).collect();
        Ok(Self { containers: containers.collect(), volumes, networks, images })
    }

    /// Returns a finding for each object that no row accounts for.
    pub(super) fn strangers(&self, accounted: &Accounted) -> Vec<Finding> {
        let strange = |leak: Leak, names: Vec<&String>| {
            names.into_iter().map(move |name| Finding::new(leak, format!("{leak} {name}"))).collect::<Vec<_>>()
        };
        let containers = self.containers.keys().filter(|name| !accounted.containers.contains(*name));
        // A workspace and a snapshot have other volumes, called as the one of `/workspace` with a suffix.
        let owner = |name: &String| name.split('.').next().unwrap_or(name).to_owned();
        let of_servers = ["emergent-guest-", "emergent-holder-"];
        let is_strange = |name: &&String| {
            !accounted.volumes.contains(&owner(name)) && !of_servers.iter().any(|prefix| name.starts_with(prefix))
        };
        let networks = self.networks.iter().filter(|name| !NETWORKS.contains(&name.as_str()));
        let images = self.images.difference(&accounted.images);
        [
            strange(Leak::Container, containers.collect()),
            strange(Leak::Volume, self.volumes.iter().filter(is_strange).collect()),
            strange(Leak::Network, networks.collect()),
            strange(Leak::Image, images.collect()),
        ]
        .concat()
    }
}

pub(super) fn volume_of_snapshot(id: &str) -> String {
    format!("emergent-snapshot-{id}")
}

pub(super) fn image_of_snapshot(id: &str) -> String {
    format!("emergent-snapshot-{id}:latest")
}

/// The state of a workspace's row against the state of its container, and whether the volume is there.
pub(super) fn workspace(row: &Value, name: &str, had: &Had) -> Option<Finding> {
    use ContainerStateStatusEnum::{CREATED, DEAD, EXITED, PAUSED, RUNNING};
    let container = had.containers.get(name).map(|container| &container.state);
    let volume = had.volumes.contains(name);
    let agree = match (row["state"].as_str()?, row["error"]["reason"].as_str().unwrap_or_default()) {
        ("ready", _) => container == Some(&RUNNING) && volume,
        ("paused", _) => container == Some(&PAUSED) && volume,
        ("stopped", _) | ("error", "killed" | "oom" | "start_failed") => {
            matches!(container, Some(EXITED | CREATED)) && volume
        }
        // What somebody else removed stays removed, or half removed; the volume goes with the workspace.
        ("error", "engine_lost") => matches!(container, None | Some(DEAD)),
        ("error", _) => container.is_none() && !volume,
        // Nobody is doing anything any more.
        _ => false,
    };
    let (state, error) = (&row["state"], &row["error"]);
    let shown = format!("{name} is shown as {state} {error}; container {container:?}, volume: {volume}");
    (!agree).then(|| Finding::new(Leak::Disagreement, shown))
}

/// The state of a snapshot's row against its volume and its image.
pub(super) fn snapshot(row: &Value, id: &str, had: &Had) -> Option<Finding> {
    let (volume, image) = (had.volumes.contains(&volume_of_snapshot(id)), had.images.contains(&image_of_snapshot(id)));
    let agree = match row["state"].as_str()? {
        "ready" => volume && image,
        "error" => !volume && !image,
        // Nobody is doing anything any more.
        _ => false,
    };
    let (state, error) = (&row["state"], &row["error"]);
    let shown = format!("snapshot {id} is shown as {state} {error}; volume: {volume}, image: {image}");
    (!agree).then(|| Finding::new(Leak::Disagreement, shown))
}
