//! The objects in Docker of servers that no longer exist, found by the label with its server that every object carries,
//! and by the record of the process that acts for each server.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use bollard::{
    Docker,
    models::Volume,
    query_parameters::{
        ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListVolumesOptionsBuilder,
        RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, RemoveVolumeOptionsBuilder,
    },
};
use chrono::{DateTime, Utc};
use emergent_api::http::size::ByteSize;
use emergent_provider::{HolderRecord, SERVER_LABEL, newest_of_each};
use emergent_types::ServerId;

use super::check::Check;

/// The time for which a server must be silent to count as gone, if its data directory cannot be checked.
const SILENT: Duration = Duration::from_secs(24 * 60 * 60);
/// The prefix of the names of volumes that record the process that acts for a server.
const RECORD_PREFIX: &str = "emergent-holder-";
const SNAPSHOT_LABEL: &str = "emergent.snapshot";

/// The containers, volumes and images that one server has made.
pub(super) struct Remains {
    server: ServerId,
    holder: Option<HolderRecord>,
    containers: Vec<Remainder>,
    volumes: Vec<Remainder>,
    images: Vec<Remainder>,
}

struct Remainder {
    name: String,
    /// The bytes of all files that this host can read.
    bytes: u64,
}

/// Whether a server exists.
#[derive(Debug, PartialEq, Eq)]
enum Existence {
    Exists(String),
    Gone(String),
    Unknown,
}

/// Lists every server's objects in Docker.
pub(super) async fn list(docker: &Docker) -> anyhow::Result<Vec<Remains>> {
    let labelled = HashMap::from([("label".to_owned(), vec![SERVER_LABEL.to_owned()])]);
    let options = ListVolumesOptionsBuilder::default().filters(&labelled).build();
    let volumes = docker.list_volumes(Some(options)).await.context("listing volumes")?.volumes.unwrap_or_default();
    let options = ListContainersOptionsBuilder::default().all(true).size(true).filters(&labelled).build();
    let containers = docker.list_containers(Some(options)).await.context("listing containers")?;
    let options = ListImagesOptionsBuilder::default().filters(&labelled).build();
    let images = docker.list_images(Some(options)).await.context("listing images")?;

    let mut all = BTreeMap::<ServerId, Remains>::new();
    let of = |labels: &HashMap<String, String>| labels.get(SERVER_LABEL)?.parse::<ServerId>().ok();
    for container in containers {
        let labels = container.labels.unwrap_or_default();
        if let (Some(server), Some(id)) = (of(&labels), container.id) {
            let name = container.names.into_iter().flatten().next();
            let name = name.map_or(id, |name| name.trim_start_matches('/').to_owned());
            let bytes = container.size_rw.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
            entry(&mut all, server).containers.push(Remainder { name, bytes });
        }
    }
    let holders = newest_of_each(volumes.iter().filter_map(holder));
    for volume in volumes {
        if let Some(server) = of(&volume.labels) {
            let bytes = size_of(Path::new(&volume.mountpoint));
            entry(&mut all, server).volumes.push(Remainder { name: volume.name, bytes });
        }
    }
    // A container's image carries the labels of a snapshot, and so does the container: only images of snapshots count.
    for image in images.into_iter().filter(|image| image.labels.contains_key(SNAPSHOT_LABEL)) {
        if let Some(server) = of(&image.labels) {
            let bytes = u64::try_from(image.size).unwrap_or(0);
            let name = image.repo_tags.into_iter().next().unwrap_or(image.id);
            entry(&mut all, server).images.push(Remainder { name, bytes });
        }
    }
    for record in holders {
        let server = record.server;
        entry(&mut all, server).holder = Some(record);
    }
    Ok(all.into_values().collect())
}

fn entry(all: &mut BTreeMap<ServerId, Remains>, server: ServerId) -> &mut Remains {
    let none = || Remains { server, holder: None, containers: Vec::new(), volumes: Vec::new(), images: Vec::new() };
    all.entry(server).or_insert_with(none)
}

fn holder(volume: &Volume) -> Option<HolderRecord> {
    let at = volume.created_at.as_deref().and_then(|text| text.parse().ok())?;
    HolderRecord::from_labels(volume.labels.get(SERVER_LABEL)?.parse().ok()?, at, &volume.labels)
}

/// Checks for leftovers of servers that no longer exist.
pub(super) fn check(all: &[Remains]) -> Check {
    let name = "leftovers";
    let gone = all.iter().filter_map(|remains| match remains.existence(Utc::now()) {
        Existence::Gone(why) => Some((remains, why)),
        Existence::Exists(_) | Existence::Unknown => None,
    });
    let gone = gone.collect::<Vec<_>>();
    let Some((first, _)) = gone.first() else {
        return Check::ok(name, "no server that is gone has left anything in Docker");
    };
    let lines = gone.iter().map(|(remains, why)| format!("{}: {why}; {}", remains.server, remains.summary()));
    let advice =
        format!("`emergent doctor --remove-leftovers {}` shows and removes what is left of that one", first.server);
    Check::warn(name, &lines.collect::<Vec<_>>().join("\n"), &advice)
}

// === impl Remains ===

impl Remains {
    /// Finds the remains of one server.
    pub(super) fn find(all: Vec<Self>, server: ServerId) -> Option<Self> {
        all.into_iter().find(|remains| remains.server == server)
    }

    /// Returns the reason why none of these may be removed, if there is one.
    pub(super) fn refusal(&self) -> Option<String> {
        match self.existence(Utc::now()) {
            Existence::Exists(why) => Some(format!("server {} exists: {why}; nothing is removed", self.server)),
            Existence::Gone(_) | Existence::Unknown => None,
        }
    }

    /// Returns the facts that a user should know before the removal, line by line.
    pub(super) fn lines(&self) -> Vec<String> {
        let existence = match self.existence(Utc::now()) {
            Existence::Exists(why) | Existence::Gone(why) => why,
            Existence::Unknown => {
                "it has no record in Docker: see that no server of an older release with this id runs".to_owned()
            }
        };
        let mut lines = vec![format!("server {}: {existence}", self.server)];
        for (kind, remainders) in [("container", &self.containers), ("volume", &self.volumes), ("image", &self.images)]
        {
            lines.extend(
                remainders.iter().map(|it| format!("  {kind:<9} {:>10}  {}", ByteSize(it.bytes).to_string(), it.name)),
            );
        }
        lines.push(self.summary());
        lines
    }

    fn summary(&self) -> String {
        let bytes = [&self.containers, &self.volumes, &self.images].into_iter().flatten().map(|it| it.bytes).sum();
        format!(
            "{} containers, {} volumes, {} snapshot images, about {}",
            self.containers.len(),
            self.volumes.len(),
            self.images.len(),
            ByteSize(bytes)
        )
    }

    fn existence(&self, now: DateTime<Utc>) -> Existence {
        let Some(record) = &self.holder else { return Existence::Unknown };
        let (host, path) = (&record.holder.host, &record.holder.path);
        if record.may_be_alive(now) {
            return Existence::Exists(format!("it runs, with the data directory {path} on host {host}"));
        }
        let is_here = *host == rustix::system::uname().nodename().to_string_lossy();
        let age = (now - record.at).to_std().unwrap_or_default();
        match (is_here, Path::new(path).exists()) {
            (true, false) => Existence::Gone(format!("its data directory {path} is gone")),
            (true, true) => {
                Existence::Exists(format!("its data directory {path} is there; start it, or remove that first"))
            }
            (false, _) if age >= SILENT => {
                let at = record.at.format("%Y-%m-%d %H:%M");
                Existence::Gone(format!("it was last heard of on host {host} at {at} UTC"))
            }
            (false, _) => Existence::Exists(format!("it was heard of on host {host} in the last day")),
        }
    }

    /// Removes all of them: containers first, since they use the rest.
    ///
    /// # Errors
    /// When Docker refuses; the rest can be removed by another call.
    pub(super) async fn remove(self, docker: &Docker) -> anyhow::Result<()> {
        for Remainder { name, .. } in self.containers {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            let removed = docker.remove_container(&name, Some(options)).await;
            gone(removed).with_context(|| format!("removing container {name}"))?;
        }
        for Remainder { name, .. } in self.images {
            let options = RemoveImageOptionsBuilder::default().force(false).build();
            gone(docker.remove_image(&name, Some(options), None).await.map(drop))
                .with_context(|| format!("removing image {name}"))?;
        }
        // The record of who acted goes with the last: until then what is left is found as the server's.
        let (records, rest) = self.volumes.into_iter().partition::<Vec<_>, _>(|it| it.name.starts_with(RECORD_PREFIX));
        for Remainder { name, .. } in rest.into_iter().chain(records) {
            let options = RemoveVolumeOptionsBuilder::default().build();
            gone(docker.remove_volume(&name, Some(options)).await)
                .with_context(|| format!("removing volume {name}"))?;
        }
        Ok(())
    }
}

/// Accepts that an object is gone already: it needs no removal.
fn gone(removed: Result<(), bollard::errors::Error>) -> Result<(), bollard::errors::Error> {
    match removed {
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
        other => other,
    }
}

/// Returns the bytes of the files below a directory, links not followed; 0 if the directory cannot be read from here.
fn size_of(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size_of(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use emergent_provider::Holder;

    use super::*;

    fn remains(host: &str, path: &Path) -> Remains {
        let server = ServerId::generate();
        let holder = Holder {
            directory: "d".to_owned(),
            boot: "b".to_owned(),
            device: "8".to_owned(),
            process: uuid::Uuid::new_v4(),
            host: host.to_owned(),
            path: path.display().to_string(),
        };
        let record = HolderRecord { server, holder, number: 1, ended: false, at: DateTime::UNIX_EPOCH };
        let holder = Some(record);
        Remains { server, holder, containers: Vec::new(), volumes: Vec::new(), images: Vec::new() }
    }

    fn at(seconds: u64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_server_is_gone_with_its_data_directory_or_when_it_is_silent_elsewhere() {
        let here = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (there, directory) = (format!("not-{here}"), tempfile::tempdir().unwrap());
        let missing = directory.path().join("missing");
        let is_gone = |remains: &Remains, seconds| matches!(remains.existence(at(seconds)), Existence::Gone(_));
        assert!(is_gone(&remains(&here, &missing), 60));
        assert!(!is_gone(&remains(&here, &missing), 10), "it may be alive, where its directory cannot be seen");
        assert!(!is_gone(&remains(&here, directory.path()), 10 * SILENT.as_secs()), "it can be started again");
        assert!(!is_gone(&remains(&there, &missing), 3600));
        assert!(is_gone(&remains(&there, &missing), SILENT.as_secs()));
        let unknown = Remains { holder: None, ..remains(&here, &missing) };
        assert_eq!((unknown.existence(at(60)), unknown.refusal()), (Existence::Unknown, None));
    }
}
