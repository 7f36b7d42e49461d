//! The parts that the cases share: a provider, and sandboxes that are gone when the case is over.

use std::{collections::BTreeMap, path::PathBuf, process::Command, sync::Arc};

use anyhow::Context as _;
use async_trait::async_trait;
use emergent_guest_client::{Guest, Open};
use emergent_guest_proto::{
    Configuration, RunAs,
    tools::{BashRequest, BashResult},
};
use emergent_live_tests::{Engine, Runtime};
use emergent_provider::{
    ByteStream, ChannelError, Channels as _, ContainerKind, CreateError, Created, ImageAccess, Isolation,
    Lifecycle as _, SandboxSpec,
};
use emergent_provider_docker::{DockerConfig, DockerProvider, GuestBinary};
use emergent_types::{
    CreateStep, DestroyStep, NetworkPolicy, PullProgress, ResourceLimits, SandboxId, ServerId, SnapshotId,
    SnapshotStep, StepObserver,
};

/// A name that no runtime has: the provider then takes the standard one.
const NO_GVISOR: &str = "not-installed";

/// A provider for one case, and the engine beneath it. Dropping it removes all that the provider has made.
pub(crate) struct Bench {
    pub(crate) provider: Arc<DockerProvider>,
    pub(crate) engine: Engine,
    pub(crate) server: ServerId,
}

/// A running sandbox with a client for its guest.
pub(crate) struct Sandbox {
    pub(crate) workspace: SandboxId,
    pub(crate) guest: Guest,
    pub(crate) isolation: Isolation,
    pub(crate) runtime: String,
    pub(crate) warnings: Vec<String>,
}

/// An observer that watches nothing.
pub(crate) struct Unobserved;

struct Opener {
    provider: Arc<DockerProvider>,
    workspace: SandboxId,
}

// === impl Bench ===

impl Bench {
    pub(crate) fn new(runtime: Runtime) -> anyhow::Result<Self> {
        Self::with(runtime, |_| {})
    }

    pub(crate) fn with(runtime: Runtime, change: impl FnOnce(&mut DockerConfig)) -> anyhow::Result<Self> {
        let mut config = config(runtime)?;
        let server = config.server;
        change(&mut config);
        let provider = Arc::new(DockerProvider::connect(config)?);
        Ok(Self { provider, engine: Engine::connect()?, server })
    }

    pub(crate) async fn sandbox(&self, spec: &SandboxSpec) -> anyhow::Result<Sandbox> {
        let created = self.provider.create(spec, &Unobserved).await.map_err(full)?;
        let Created { first_channel, warnings, isolation, runtime, image: _ } = created;
        let opener = Opener { provider: Arc::clone(&self.provider), workspace: spec.workspace };
        let guest = Guest::new(Arc::new(opener), first_channel);
        let environment = BTreeMap::from([("GREETING".to_owned(), "hello there".to_owned())]);
        let configuration = Configuration { environment, allow_root: true, ..Configuration::default() };
        guest.configure(&configuration).await.map_err(full).context("handing the sandbox over")?;
        Ok(Sandbox { workspace: spec.workspace, guest, isolation, runtime, warnings })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let label = format!("label=emergent.server={}", self.server);
        let lists = [["ps", "--all", "--quiet"].as_slice(), &["volume", "ls", "--quiet"]];
        for (list, remove) in lists.into_iter().zip([["rm", "--force"], ["volume", "rm"]]) {
            let Ok(listing) = Command::new("docker").args(list).args(["--filter", &label]).output() else { return };
            let ids = String::from_utf8_lossy(&listing.stdout);
            if !ids.trim().is_empty() {
                drop(Command::new("docker").args(remove).args(ids.split_whitespace()).output());
            }
        }
    }
}

// === impl Sandbox ===

impl Sandbox {
    pub(crate) async fn bash(&self, command: &str) -> anyhow::Result<BashResult> {
        self.bash_as(command, RunAs::Agent).await
    }

    pub(crate) async fn bash_as(&self, command: &str, user: RunAs) -> anyhow::Result<BashResult> {
        let request = BashRequest { command: command.to_owned(), user, ..BashRequest::default() };
        self.guest.bash(request).await.map_err(full).with_context(|| format!("running {command}"))
    }

    /// Runs a command that must succeed; returns its output.
    pub(crate) async fn output(&self, command: &str) -> anyhow::Result<String> {
        let result = self.bash(command).await?;
        anyhow::ensure!(result.exit_code == Some(0), "{command}: {result:?}");
        Ok(result.stdout.trim().to_owned())
    }
}

#[async_trait]
impl Open for Opener {
    async fn open(&self) -> Result<ByteStream, ChannelError> {
        self.provider.open(self.workspace).await
    }
}

impl StepObserver for Unobserved {
    fn created(&self, _: SandboxId, _: CreateStep) {}
    fn destroyed(&self, _: SandboxId, _: DestroyStep) {}
    fn snapshot_taken(&self, _: SnapshotId, _: SnapshotStep) {}
    fn pulling(&self, _: SandboxId, _: PullProgress) {}
}

pub(crate) fn config(runtime: Runtime) -> anyhow::Result<DockerConfig> {
    Ok(DockerConfig {
        host: std::env::var("DOCKER_HOST").ok(),
        server: ServerId::generate(),
        runtime: if runtime == Runtime::Runsc { runtime.name() } else { NO_GVISOR }.to_owned(),
        require_isolation: Isolation::Container,
        network_name: None,
        network_allow: Vec::new(),
        private_registries: Vec::new(),
        guest_binary: GuestBinary::open(&guest_binary()?)?,
    })
}

/// A sandbox of the test image with small limits.
pub(crate) fn spec(network: NetworkPolicy) -> anyhow::Result<SandboxSpec> {
    let image = std::env::var("EMERGENT_TEST_IMAGE").unwrap_or_else(|_| "emergent/workspace:latest".to_owned());
    Ok(SandboxSpec {
        workspace: SandboxId::generate(),
        kind: ContainerKind::AgentWorkspace,
        image: image.parse().context("EMERGENT_TEST_IMAGE")?,
        access: ImageAccess::Operator,
        snapshot: None,
        registry: None,
        limits: ResourceLimits { cpu: 1.0, memory_bytes: 512 << 20, disk_bytes: 1 << 30, pids: 256 },
        network,
        volumes: Vec::new(),
        warm: false,
    })
}

/// The guest that `make build` leaves beside the server.
pub(crate) fn guest_binary() -> anyhow::Result<PathBuf> {
    let directory = std::env::var("LIVE_BIN_DIR").context("LIVE_BIN_DIR names the folder of `make build`")?;
    Ok(PathBuf::from(directory).join("emergent-guest"))
}

/// An error with its causes.
pub(crate) fn full(error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    anyhow::Error::new(error)
}

/// The error of a create that must fail.
pub(crate) async fn refused(provider: &DockerProvider, spec: &SandboxSpec) -> anyhow::Result<CreateError> {
    match provider.create(spec, &Unobserved).await {
        Ok(_) => anyhow::bail!("the sandbox was made"),
        Err(error) => Ok(error),
    }
}
