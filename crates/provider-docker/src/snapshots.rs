//! Snapshots: the root file system as an image layer, and each of the sandbox's volumes as another volume.
//!
//! ```text
//!   volume made ──► copy prepared ──► sandbox frozen ──► files copied, layer committed ──► sandbox thawed
//!        │ fails          │ fails          │ fails                    │ fails
//!        ▼                ▼                ▼                          ▼
//!   what there is of the snapshot is removed; a sandbox that was frozen is thawed first
//! ```
//!
//! The volume of `/workspace` and the image have one name. A snapshot is deleted by removing its volumes, that one
//! last; its image goes too, unless containers were made from it: then the image stays until the last of them is
//! destroyed. An image without that volume is therefore no longer needed.

mod take;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use async_trait::async_trait;
use bollard::{
    Docker,
    models::{ImageInspect, ImageSummary, Volume},
    query_parameters::{
        ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListVolumesOptionsBuilder, RemoveImageOptionsBuilder,
    },
};
use chrono::{DateTime, Utc};
use emergent_provider::{
    ObservedSnapshot, OperationError, Origin, SERVER_LABEL, SnapshotSpec, Snapshots, TakeError, Taken,
};
use emergent_types::{SandboxId, ServerId, SnapshotId, StepObserver};

use crate::{
    DockerProvider, copy,
    engine::{Engine, EngineError, bounded, found, within},
    labels::{self, name_of_snapshot},
    removal, volumes,
};

/// The time that the engine may take to remove an image. It waits for the locks of all containers meanwhile, and never
/// ends if one of them is stuck.
const IMAGE_DEADLINE: Duration = Duration::from_secs(60);

#[async_trait]
impl Snapshots for DockerProvider {
    async fn take(&self, spec: &SnapshotSpec, observer: &dyn StepObserver) -> Result<Taken, TakeError> {
        take::take(&self.parts, spec, observer).await
    }

    async fn delete(&self, snapshot: SnapshotId) -> Result<(), OperationError> {
        remove(&self.parts.engine, snapshot)
            .await
            .map_err(|error| self.parts.engine.operation_error("delete a snapshot of", error))
    }

    async fn list_snapshots(&self) -> Result<Vec<ObservedSnapshot>, OperationError> {
        let listed = async { list(self.parts.engine.client().await?).await };
        listed.await.map_err(|error| self.parts.engine.operation_error("list the snapshots of", error))
    }
}

/// Returns the image of a snapshot; `None` unless both parts of the snapshot exist.
pub(crate) async fn image(engine: &Engine, snapshot: SnapshotId) -> Result<Option<ImageInspect>, EngineError> {
    let (docker, name) = (engine.client().await?, name_of_snapshot(snapshot));
    let (volume, image) = tokio::join!(bounded(docker.inspect_volume(&name)), bounded(docker.inspect_image(&name)));
    let is_its = |image: &ImageInspect| {
        let labels = image.config.as_ref().and_then(|config| config.labels.as_ref());
        labels.and_then(of_labels) == Some(snapshot)
    };
    Ok(found(volume)?.and(found(image)?.filter(is_its)))
}

/// Returns the snapshot that labels name.
pub(crate) fn of_labels(labels: &HashMap<String, String>) -> Option<SnapshotId> {
    labels.get(labels::SNAPSHOT)?.parse().ok()
}

/// Removes the image of a snapshot that was deleted while a container that is now gone used it. An image that cannot be
/// removed is found again by its label.
pub(crate) async fn let_go(docker: &Docker, snapshot: SnapshotId) {
    let released = async {
        match found(bounded(docker.inspect_volume(&name_of_snapshot(snapshot))).await)? {
            Some(_) => Ok(()),
            None => remove_image(docker, snapshot).await,
        }
    };
    if let Err(error) = released.await {
        tracing::debug!(%error, %snapshot, "the image of a deleted snapshot stays for now");
    }
}

/// Removes all unused parts of a snapshot.
async fn remove(engine: &Engine, snapshot: SnapshotId) -> Result<(), EngineError> {
    let docker = engine.client().await?;
    copy::clear(docker, snapshot.as_uuid()).await?;
    let workspace = name_of_snapshot(snapshot);
    let found = volumes::of_snapshot(docker, snapshot).await?;
    removal::flatten(engine, found.values().cloned().collect()).await;
    for volume in found.keys().filter(|name| **name != workspace) {
        removal::volume(docker, volume).await?;
    }
    removal::volume(docker, &workspace).await?;
    remove_image(docker, snapshot).await
}

/// Removes a snapshot's image unless containers use it.
async fn remove_image(docker: &Docker, snapshot: SnapshotId) -> Result<(), EngineError> {
    // By its label: a commit whose end nobody saw may have made an image that has no name yet.
    for image in images(docker, &format!("{}={snapshot}", labels::SNAPSHOT)).await? {
        let named = image.repo_tags.into_iter().find(|tag| tag.starts_with(&name_of_snapshot(snapshot)));
        let options = RemoveImageOptionsBuilder::default().force(false).build();
        // Forced, the image would be taken from under containers that are stopped, and they could not be copied again.
        let name = named.unwrap_or(image.id);
        match found(within(IMAGE_DEADLINE, docker.remove_image(&name, Some(options), None)).await) {
            Ok(_) => {}
            Err(error) if error.is_conflict() => tracing::debug!(%snapshot, "the snapshot's image is still used"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn list(docker: &Docker) -> Result<Vec<ObservedSnapshot>, EngineError> {
    let filters = labels::having(labels::SNAPSHOT);
    // Volumes first: they are the first to be made.
    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    let volumes = bounded(docker.list_volumes(Some(options))).await?.volumes.unwrap_or_default();
    let images = images(docker, labels::SNAPSHOT).await?;
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let containers = bounded(docker.list_containers(Some(options))).await?;
    let used = containers.iter().filter_map(|container| of_labels(container.labels.as_ref()?)).collect::<HashSet<_>>();
    let imaged = images.iter().filter_map(|image| of_labels(&image.labels)).collect::<HashSet<_>>();
    // Its image, and the volume of `/workspace`: others may be missing where there was nothing to keep.
    let has_files = |snapshot: &SnapshotId| volumes.iter().any(|volume| volume.name == name_of_snapshot(*snapshot));
    let whole = imaged.into_iter().filter(has_files).collect::<HashSet<_>>();
    let of_volume = |volume| of_volume(volume, &whole);
    // A snapshot may have several volumes, and is one.
    let mut known = HashSet::new();
    let mut observed = volumes.iter().filter_map(of_volume).collect::<Vec<_>>();
    observed.retain(|snapshot| known.insert(snapshot.snapshot));
    let remains = images.iter().filter_map(of_image);
    observed.extend(remains.filter(|left| !known.contains(&left.snapshot) && !used.contains(&left.snapshot)));
    Ok(observed)
}

async fn images(docker: &Docker, label: &str) -> Result<Vec<ImageSummary>, EngineError> {
    let filters = labels::having(label);
    let options = ListImagesOptionsBuilder::default().filters(&filters).build();
    bounded(docker.list_images(Some(options))).await
}

fn of_volume(volume: &Volume, whole: &HashSet<SnapshotId>) -> Option<ObservedSnapshot> {
    let created_at = volume.created_at.as_deref().and_then(|text| text.parse().ok());
    let seen = observed(&volume.labels, created_at)?;
    Some(ObservedSnapshot { whole: whole.contains(&seen.snapshot), ..seen })
}

/// Describes an image as a snapshot that is not whole.
fn of_image(image: &ImageSummary) -> Option<ObservedSnapshot> {
    observed(&image.labels, DateTime::from_timestamp(image.created, 0))
}

fn observed(labels: &HashMap<String, String>, created_at: Option<DateTime<Utc>>) -> Option<ObservedSnapshot> {
    let server: ServerId = labels.get(SERVER_LABEL)?.parse().ok()?;
    // What has no date that can be read is new, so that nobody takes it for abandoned.
    let created_at = created_at.unwrap_or_else(Utc::now);
    Some(ObservedSnapshot { snapshot: of_labels(labels)?, server, created_at, whole: false })
}

/// Returns the workspace whose sandbox a snapshot was taken of, and that sandbox's origin, from the labels of the
/// snapshot's volume.
pub(crate) async fn origin(engine: &Engine, snapshot: SnapshotId) -> Result<Option<(SandboxId, Origin)>, EngineError> {
    let volume = bounded(engine.client().await?.inspect_volume(&name_of_snapshot(snapshot))).await;
    let Some(volume) = found(volume)? else { return Ok(None) };
    let source = volume.labels.get(labels::SOURCE).and_then(|text| text.parse().ok());
    Ok(source.zip(Origin::from_labels(&volume.labels)))
}

/// The labels of a snapshot's volume and image.
fn labels_of(snapshot: SnapshotId, server: ServerId) -> HashMap<String, String> {
    HashMap::from([(labels::SNAPSHOT.to_owned(), snapshot.to_string()), (SERVER_LABEL.to_owned(), server.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_their_snapshot_again() {
        let (snapshot, server) = (SnapshotId::generate(), ServerId::generate());
        let seen = observed(&labels_of(snapshot, server), None);
        assert!(seen.is_some_and(|seen| seen.snapshot == snapshot && seen.server == server));
        assert_eq!(observed(&HashMap::new(), None), None);
    }
}
