//! The Docker Engine as the cases see it: the objects that really exist, whatever the API says.

use std::{collections::HashMap, process::Command, time::Duration};

use anyhow::Context as _;
use bollard::{
    Docker,
    query_parameters::{
        InspectContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
        ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
    },
};

/// A connection to the engine.
#[derive(Clone)]
pub struct Engine {
    docker: Docker,
}

impl Engine {
    /// Connects to the engine that the server uses too.
    ///
    /// # Errors
    /// When its address is malformed.
    pub fn connect() -> anyhow::Result<Self> {
        Ok(Self { docker: Docker::connect_with_defaults().context("connecting to Docker")? })
    }

    /// The client itself.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Whether the engine has a runtime of this name.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn has_runtime(&self, name: &str) -> anyhow::Result<bool> {
        let info = self.docker.info().await.context("asking Docker what it is")?;
        Ok(info.runtimes.is_some_and(|runtimes| runtimes.contains_key(name)))
    }

    /// Names of all containers and volumes that belong to a workspace.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn resources_of(&self, workspace: &str) -> anyhow::Result<Vec<String>> {
        self.labelled(&format!("emergent.workspace={workspace}")).await
    }

    /// Names of all containers, volumes and images that a server has made, without the record of who acts for it.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn resources_of_server(&self, server: &str) -> anyhow::Result<Vec<String>> {
        let label = format!("emergent.server={server}");
        let mut names = self.labelled(&label).await?;
        names.extend(self.images(&label).await?);
        names.retain(|name| !name.starts_with("emergent-holder-"));
        Ok(names)
    }

    /// Names of the volume and the image of a snapshot.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn resources_of_snapshot(&self, snapshot: &str) -> anyhow::Result<Vec<String>> {
        let filters = HashMap::from([("label", vec![format!("emergent.snapshot={snapshot}")])]);
        let volumes = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let volumes = self.docker.list_volumes(Some(volumes)).await.context("listing volumes")?;
        let mut names = volumes.volumes.into_iter().flatten().map(|volume| volume.name).collect::<Vec<_>>();
        names.extend(self.images(&format!("emergent.snapshot={snapshot}")).await?);
        Ok(names)
    }

    /// Whether there is a volume of this name.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn has_volume(&self, name: &str) -> anyhow::Result<bool> {
        let filters = HashMap::from([("name", vec![format!("^{name}$")])]);
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let listed = self.docker.list_volumes(Some(options)).await.context("listing volumes")?;
        Ok(listed.volumes.is_some_and(|volumes| volumes.iter().any(|volume| volume.name == name)))
    }

    async fn images(&self, label: &str) -> anyhow::Result<Vec<String>> {
        let filters = HashMap::from([("label", vec![label])]);
        let images = ListImagesOptionsBuilder::default().filters(&filters).build();
        let images = self.docker.list_images(Some(images)).await.context("listing images")?;
        Ok(images.into_iter().map(|image| image.repo_tags.into_iter().next().unwrap_or(image.id)).collect())
    }

    async fn labelled(&self, label: &str) -> anyhow::Result<Vec<String>> {
        let filters = HashMap::from([("label", vec![label])]);
        let containers = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let containers = self.docker.list_containers(Some(containers)).await.context("listing containers")?;
        let volumes = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let volumes = self.docker.list_volumes(Some(volumes)).await.context("listing volumes")?;
        let containers = containers.into_iter().filter_map(|container| container.names).flatten();
        let volumes = volumes.volumes.into_iter().flatten().map(|volume| volume.name);
        Ok(containers.chain(volumes).collect())
    }

    /// All containers, each as the engine describes it by itself: when its disk is full, Docker's list may go on saying
    /// what was true before.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn containers(&self) -> anyhow::Result<Vec<bollard::models::ContainerInspectResponse>> {
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let listed = self.docker.list_containers(Some(options)).await.context("listing containers")?;
        let mut containers = Vec::new();
        for id in listed.into_iter().filter_map(|container| container.id) {
            match self.docker.inspect_container(&id, None::<InspectContainerOptions>).await {
                Ok(container) => containers.push(container),
                // It has gone meanwhile.
                Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {}
                Err(error) => return Err(error).context("inspecting a container"),
            }
        }
        Ok(containers)
    }

    /// Ends a workspace's container with SIGKILL, behind the server's back.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn kill(&self, workspace: &str) -> anyhow::Result<()> {
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        self.docker.kill_container(&container(workspace), Some(options)).await.context("killing a container")
    }

    /// Removes a workspace's container by force, behind the server's back. Its volume stays.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn remove(&self, workspace: &str) -> anyhow::Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        self.docker.remove_container(&container(workspace), Some(options)).await.context("removing a container")
    }

    /// Freezes a workspace's container behind the server's back.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn pause(&self, workspace: &str) -> anyhow::Result<()> {
        self.docker.pause_container(&container(workspace)).await.context("pausing a container")
    }

    /// Thaws a workspace's container behind the server's back.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn unpause(&self, workspace: &str) -> anyhow::Result<()> {
        self.docker.unpause_container(&container(workspace)).await.context("unpausing a container")
    }

    /// A workspace's container as the engine describes it.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn inspect(&self, workspace: &str) -> anyhow::Result<bollard::models::ContainerInspectResponse> {
        let name = container(workspace);
        self.docker.inspect_container(&name, None::<InspectContainerOptions>).await.context("inspecting a container")
    }
}

/// The number of a workspace's parts in the engine: its container, `/workspace`, and the volume with the files that
/// were handed over. A snapshot has an image in the container's place.
pub const PARTS: usize = 3;

/// The name of a workspace's container.
pub fn container(workspace: &str) -> String {
    format!("emergent-{workspace}")
}

/// The number of times that a server's objects are removed until none is listed.
const REMOVALS: u32 = 20;
const BETWEEN_REMOVALS: Duration = Duration::from_millis(100);

/// Removes all objects that a server has made. For clean-up after a case, where nothing can be awaited any more.
pub(crate) fn remove_all_of(server: &str) {
    let label = format!("label=emergent.server={server}");
    for (list, remove) in [
        (["ps", "--all", "--quiet"].as_slice(), ["rm", "--force"]),
        (&["volume", "ls", "--quiet"], ["volume", "rm"]),
        (&["images", "--quiet"], ["rmi", "--force"]),
    ] {
        // Docker refuses what it is just removing for somebody else, such as the server that was killed meanwhile.
        for _ in 0..REMOVALS {
            let Ok(listing) = Command::new("docker").args(list).args(["--filter", &label]).output() else { return };
            let ids = String::from_utf8_lossy(&listing.stdout);
            if ids.trim().is_empty() {
                break;
            }
            // What is left is seen by the next round; a case has failed already when this does to the last.
            drop(Command::new("docker").args(remove).args(ids.split_whitespace()).output());
            std::thread::sleep(BETWEEN_REMOVALS);
        }
    }
}
