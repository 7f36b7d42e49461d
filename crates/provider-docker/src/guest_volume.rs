//! The read-only volume that brings the guest binary into every container, whatever its image.
//!
//! There is one volume for each build of the guest, named for the hash of its contents. Servers fill it through a
//! container that never runs; that container's name is the lock, so that of all servers that find the volume empty one
//! fills it and the others wait. A marker file, written after the binary, says that the binary is whole:
//!
//! ```text
//!   volume of that name ──► carrier made ──► marker right? ──yes──► carrier removed: ready
//!                              │ name taken        │ no
//!                              ▼                   ▼
//!                      wait, then again      binary, then marker written
//! ```

use std::{io, time::Duration};

use bollard::{
    body_full,
    errors::Error,
    models::{ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest},
    query_parameters::{
        ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder, ImportImageOptionsBuilder,
        UploadToContainerOptionsBuilder,
    },
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use emergent_guest_proto::{GUEST_BINARY, GUEST_MOUNT};
use emergent_provider::SERVER_LABEL;
use emergent_types::ServerId;
use futures::TryStreamExt as _;
use tokio::{
    sync::Mutex,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::{
    GuestBinary,
    engine::{Engine, EngineError, bounded, found},
    guest_binary::{Architecture, sha256},
    labels, removal,
};

/// The prefix of these volumes' names.
const NAME: &str = "emergent-guest-";
/// An image without contents, for containers that never run.
const CARRIER_IMAGE: &str = "emergent-guest-carrier";
const CARRIER_TAG: &str = "1";
/// A carrier older than this was left by a server that died.
const CARRIER_AGE: chrono::Duration = chrono::Duration::seconds(30);
/// The time that the filling may take altogether, another server's included.
const FILL_DEADLINE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// The volume with one build of the guest.
pub(crate) struct GuestVolume {
    server: ServerId,
    binary: GuestBinary,
    /// The creation time of the volume that is known to be whole. Locked while the volume is filled.
    whole_since: Mutex<Option<String>>,
}

// === impl GuestVolume ===

impl GuestVolume {
    pub(crate) fn new(server: ServerId, binary: GuestBinary) -> Self {
        Self { server, binary, whole_since: Mutex::new(None) }
    }

    /// Returns the architecture that the guest was built for.
    pub(crate) fn architecture(&self) -> Architecture {
        self.binary.architecture()
    }

    /// Returns the mount of the volume in containers.
    pub(crate) fn mount(&self) -> Mount {
        Mount { read_only: Some(true), ..self.writable_mount() }
    }

    /// Returns the mount of the volume at another path.
    pub(crate) fn mount_at(&self, path: &str) -> Mount {
        Mount { target: Some(path.to_owned()), ..self.mount() }
    }

    /// Ensures that the volume exists and is whole. Costs one short call once that is known.
    pub(crate) async fn ensure(&self, engine: &Engine) -> Result<(), EngineError> {
        let docker = engine.client().await?;
        let mut whole_since = self.whole_since.lock().await;
        if let Some(known) = &*whole_since {
            let volume = found(bounded(docker.inspect_volume(&self.name())).await)?;
            if volume.is_some_and(|volume| volume.created_at.as_ref() == Some(known)) {
                return Ok(());
            }
        }
        *whole_since = None;
        let request = VolumeCreateRequest {
            name: Some(self.name()),
            labels: Some([(labels::SHARED.to_owned(), labels::GUEST.to_owned())].into()),
            ..VolumeCreateRequest::default()
        };
        let volume = bounded(docker.create_volume(request)).await?;
        self.fill(engine).await?;
        *whole_since = volume.created_at;
        Ok(())
    }

    /// The volume's name.
    pub(crate) fn name(&self) -> String {
        format!("{NAME}{}", &self.binary.hash()[..16])
    }

    fn marker(&self) -> String {
        format!("sha256-{}", self.binary.hash())
    }

    fn writable_mount(&self) -> Mount {
        Mount {
            target: Some(GUEST_MOUNT.to_owned()),
            source: Some(self.name()),
            typ: Some(MountType::VOLUME),
            volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
            ..Mount::default()
        }
    }

    async fn fill(&self, engine: &Engine) -> Result<(), EngineError> {
        let carrier = self.carrier(engine).await?;
        let filled = self.fill_through(engine, &carrier).await;
        let docker = engine.client().await?;
        filled.and(removal::container(docker, &carrier).await)
    }

    async fn fill_through(&self, engine: &Engine, carrier: &str) -> Result<(), EngineError> {
        let docker = engine.client().await?;
        let stat = async |path: String| {
            let options = ContainerArchiveInfoOptionsBuilder::default().path(&path).build();
            found(bounded(docker.get_container_archive_info(carrier, Some(options))).await)
        };
        let marker = stat(format!("{GUEST_MOUNT}/{}", self.marker())).await?;
        let binary = stat(GUEST_BINARY.to_owned()).await?;
        if marker.is_some() && binary.is_some_and(|binary| u64::try_from(binary.size) == Ok(self.binary.size())) {
            return Ok(());
        }
        let (guest, marker) = (self.binary.clone(), self.marker());
        let archive = spawn_blocking(move || archive(&guest, &marker)).await.map_err(io::Error::other);
        let archive = archive.flatten().map_err(|error| EngineError::Docker(Error::from(error)))?;
        let options = UploadToContainerOptionsBuilder::default().path(GUEST_MOUNT).build();
        bounded(docker.upload_to_container(carrier, Some(options), body_full(archive))).await
    }

    /// Makes the container that fills the volume; its existence is also the right to do so. Waits while another server
    /// has it.
    async fn carrier(&self, engine: &Engine) -> Result<String, EngineError> {
        let docker = engine.client().await?;
        let name = format!("{}-carrier", self.name());
        let deadline = Instant::now() + FILL_DEADLINE;
        loop {
            let body = ContainerCreateBody {
                image: Some(carrier_image()),
                entrypoint: Some(vec![GUEST_BINARY.to_owned()]),
                labels: Some(
                    [
                        (labels::SHARED.to_owned(), "carrier".to_owned()),
                        (SERVER_LABEL.to_owned(), self.server.to_string()),
                    ]
                    .into(),
                ),
                host_config: Some(HostConfig {
                    mounts: Some(vec![self.writable_mount()]),
                    network_mode: Some("none".to_owned()),
                    ..HostConfig::default()
                }),
                ..ContainerCreateBody::default()
            };
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            match bounded(docker.create_container(Some(options), body)).await {
                Ok(created) => return Ok(created.id),
                Err(error) if error.is_missing() => import_carrier_image(engine).await?,
                Err(error) if error.is_conflict() && Instant::now() < deadline => {
                    self.remove_if_left_behind(engine, &name).await?;
                    sleep(POLL).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes a carrier whose maker has died: an earlier process of this server, since a server makes one at a time,
    /// or another server a good while ago.
    async fn remove_if_left_behind(&self, engine: &Engine, name: &str) -> Result<(), EngineError> {
        let docker = engine.client().await?;
        let Some(carrier) = found(bounded(docker.inspect_container(name, None)).await)? else { return Ok(()) };
        let labels = carrier.config.and_then(|config| config.labels).unwrap_or_default();
        let is_ours = labels.get(SERVER_LABEL) == Some(&self.server.to_string());
        let made_at = carrier.created.as_deref().and_then(|text| text.parse::<DateTime<Utc>>().ok());
        let is_old = made_at.is_some_and(|made_at| Utc::now() - made_at > CARRIER_AGE);
        if let Some(id) = carrier.id
            && (is_ours || is_old)
        {
            tracing::warn!(name, "removing what a server left that died while it filled the guest's volume");
            // By its id, so that a new one of the same name stays.
            removal::container(docker, &id).await?;
        }
        Ok(())
    }
}

/// Returns a tar with the binary, and after it the marker that says that the binary is whole.
fn archive(binary: &GuestBinary, marker: &str) -> io::Result<Bytes> {
    let bytes = binary.read()?;
    let mut archive = tar::Builder::new(Vec::with_capacity(bytes.len() + 4096));
    let name = GUEST_BINARY.trim_start_matches(GUEST_MOUNT).trim_start_matches('/');
    append(&mut archive, name, 0o755, &bytes)?;
    append(&mut archive, marker, 0o444, b"")?;
    archive.into_inner().map(Bytes::from)
}

/// Whether a volume has a build of the guest, by its name.
pub(crate) fn is_one(volume: &str) -> bool {
    volume.starts_with(NAME)
}

/// Returns the name of the image without contents.
pub(crate) fn carrier_image() -> String {
    format!("{CARRIER_IMAGE}:{CARRIER_TAG}")
}

/// Loads the image into the engine. Every server makes the same image, so that of several that do so at the same time
/// none leaves an image without a name behind, as `docker import` would.
async fn import_carrier_image(engine: &Engine) -> Result<(), EngineError> {
    let docker = engine.client().await?;
    let architecture = bounded(docker.version()).await?.arch.unwrap_or_default();
    let archive = carrier_archive(&architecture).map_err(|error| EngineError::Docker(Error::from(error)))?;
    let options = ImportImageOptionsBuilder::default().quiet(true).build();
    bounded(docker.import_image(options, body_full(archive), None).try_collect::<Vec<_>>()).await.map(drop)
}

/// An image with one empty layer, in the form that `docker load` takes.
fn carrier_archive(architecture: &str) -> io::Result<Bytes> {
    const LAYER: [u8; 1024] = [0; 1024];
    let layer = sha256(&LAYER);
    let config =
        format!(r#"{{"architecture":"{architecture}","os":"linux","config":{{}},"created":"1970-01-01T00:00:00Z","#)
            + &format!(r#""rootfs":{{"type":"layers","diff_ids":["sha256:{layer}"]}},"history":[{{}}]}}"#);
    let config_name = format!("{}.json", sha256(config.as_bytes()));
    let manifest =
        format!(r#"[{{"Config":"{config_name}","RepoTags":["{}"],"Layers":["layer.tar"]}}]"#, carrier_image());
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, &config_name, 0o444, config.as_bytes())?;
    append(&mut archive, "layer.tar", 0o444, &LAYER)?;
    append(&mut archive, "manifest.json", 0o444, manifest.as_bytes())?;
    archive.into_inner().map(Bytes::from)
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(contents.len() as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, path, contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_carrier_is_the_same_image_whoever_makes_it() {
        let first = carrier_archive("amd64").unwrap();
        assert_eq!(first, carrier_archive("amd64").unwrap());
        let text = String::from_utf8_lossy(&first).into_owned();
        assert!(text.contains(r#""architecture":"amd64""#) && text.contains("emergent-guest-carrier:1"));
    }
}
