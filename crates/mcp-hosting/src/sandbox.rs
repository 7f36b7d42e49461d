//! The making of a server's sandbox: from any state to running, with its guest answering.

use std::collections::BTreeMap;

use emergent_core::ImageError;
use emergent_guest_client::GuestCallError;
use emergent_guest_proto::Configuration;
use emergent_provider::{
    ContainerKind, CreateError, Created, EngineState, ImageAccess, ImageRef, InvalidImage, NamedVolume, OperationError,
    Provider, SandboxSpec, VolumeSource,
};
use emergent_sandbox::{FIRST_ANSWER, NoAnswer, configure, first_answer};
use emergent_sealing::OpenError;
use emergent_store::{McpPackage, McpServerRow, PackageRegistry, StoreError};
use emergent_types::{CreateStep, NetworkPolicy};
use uuid::Uuid;

use crate::{
    inner::{Entry, Inner},
    install::{self, InstallError},
    step::HostStep,
};

/// The reason for which a server does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    #[error("this server has no provider for it")]
    NoProvider,
    #[error("its image is no image reference")]
    Image(#[from] InvalidImage),
    #[error(transparent)]
    NotAdmitted(#[from] ImageError),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error("the engine could not {operation} its sandbox")]
    Engine {
        operation: &'static str,
        #[source]
        source: OperationError,
    },
    #[error("nothing answers in its sandbox")]
    Guest(#[from] GuestCallError),
    #[error("its sandbox ended at once")]
    Ended,
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(
        "the environment could not be decrypted: EMERGENT_SECRET_KEY is not the key that it was encrypted with; put that \
         key back, or give the server its environment again"
    )]
    OtherKey,
    #[error("it has an environment, and there is no key to decrypt it with; set EMERGENT_SECRET_KEY")]
    NoKey,
    #[error("its image names no program; say which in `cmd`")]
    NoProgram,
    #[error("its row could not be read or recorded")]
    Store(#[from] StoreError),
    #[error(
        "its volume `{volume}` is the workspace {workspace}, which is gone; take it out with `emergent mcp update NAME \
         --no-volume {volume}`"
    )]
    WorkspaceGone { volume: String, workspace: Uuid },
    #[error("another server of this installation hosts it now")]
    Elsewhere,
    #[error("its installation was given up")]
    GivenUp,
    #[error("its children cannot be reached")]
    Launch(#[from] emergent_mcp::LaunchError),
}

/// Waits for a part of an installation, unless the server is not wanted any more, or is another server's.
async fn unless_given_up<T>(
    entry: &Entry,
    work: impl Future<Output = Result<T, InstallError>>,
) -> Result<T, MakeError> {
    tokio::select! {
        biased;
        () = entry.unwanted.cancelled() => Err(MakeError::GivenUp),
        () = entry.let_go.cancelled() => Err(MakeError::GivenUp),
        done = work => Ok(done?),
    }
}

pub(crate) fn engine(operation: &'static str) -> impl FnOnce(OperationError) -> MakeError {
    move |source| MakeError::Engine { operation, source }
}

impl From<NoAnswer> for MakeError {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::Ended(_) => Self::Ended,
            NoAnswer::Unknown { source, .. } => Self::Engine { operation: "inspect", source },
            NoAnswer::Silent(call) => Self::Guest(call),
        }
    }
}

impl Inner {
    pub(crate) fn provider(&self) -> Result<&dyn Provider, MakeError> {
        self.provider.as_deref().ok_or(MakeError::NoProvider)
    }

    /// Brings the sandbox to the state that its row describes; a current one is left as it is, with its processes.
    pub(crate) async fn ensure_sandbox(&self, entry: &Entry, row: &McpServerRow) -> Result<(), MakeError> {
        let (provider, sandbox) = (self.provider()?, row.id.sandbox());
        let observed = provider.inspect(sandbox).await.map_err(engine("inspect"))?;
        let is_current = row.made_revision == Some(row.revision);
        match observed.map(|observed| observed.state) {
            Some(EngineState::Running) if is_current => {}
            Some(EngineState::Paused) if is_current => provider.unpause(sandbox).await.map_err(engine("unpause"))?,
            Some(EngineState::Exited(_)) if is_current => {
                if let Some(channel) = provider.start(sandbox).await.map_err(engine("start"))? {
                    entry.guest.set_first_channel(channel);
                }
                self.pass(HostStep::SandboxStarted.name());
            }
            Some(_) => {
                provider.discard(sandbox).await.map_err(engine("remove"))?;
                self.pass(HostStep::SandboxDiscarded.name());
                return self.make_sandbox(entry, row).await;
            }
            None => return self.make_sandbox(entry, row).await,
        }
        self.first_answer(entry).await
    }

    async fn make_sandbox(&self, entry: &Entry, row: &McpServerRow) -> Result<(), MakeError> {
        self.check_shares(row).await?;
        if let Some(package) = &row.spec.package {
            self.install(entry, row, package).await?;
        }
        let created = self.create(entry, row, &self.spec(row)?).await?;
        self.pass(CreateStep::GuestAnswered.name());
        // Its environment is given to each process when that is started, and kept nowhere inside.
        let defaults = self.workspaces.config().workspace_defaults.clone();
        let configuration = Configuration { allow_root: row.spec.run_as_root, defaults, ..Configuration::default() };
        configure(&entry.guest, entry.id.sandbox(), &configuration, self).await?;
        self.store.mcp_servers_record_made(row.id, row.revision, &created.runtime, &created.warnings).await?;
        self.pass(CreateStep::ReadyRecorded.name());
        Ok(())
    }

    /// Makes a sandbox and waits for its guest.
    async fn create(&self, entry: &Entry, row: &McpServerRow, spec: &SandboxSpec) -> Result<Created, MakeError> {
        let mut created = self.create_sandbox(row, spec).await?;
        if let Some(channel) = created.first_channel.take() {
            entry.guest.set_first_channel(channel);
        }
        self.first_answer(entry).await?;
        Ok(created)
    }

    /// Removes a sandbox that has served its purpose.
    async fn discard(&self, entry: &Entry) -> Result<(), MakeError> {
        entry.guest.suspend();
        self.provider()?.discard(entry.id.sandbox()).await.map_err(engine("remove"))
    }

    /// Installs a server's package, in a sandbox that has a network. Where its image has no npm, Node.js is fetched
    /// first, once for all servers of the engine: in a sandbox of the server's default image, in which no package runs.
    /// A server that was made before keeps its volumes as they are, and brings its own Node.js if there is none. What
    /// workspaces are given by the operator, such as a mirror's address and authorities, the installation has, too.
    async fn install(&self, entry: &Entry, row: &McpServerRow, package: &McpPackage) -> Result<(), MakeError> {
        let spec = SandboxSpec { network: NetworkPolicy::Outbound, ..self.spec(row)? };
        let environment = &self.config.install_environment_of(&self.store.projects_name(row.project).await?);
        entry.explain_start(Some(format!("installing {}", package.requirement)));
        self.create_installer(entry, row, &spec).await?;
        let is_new_npm = row.made_revision.is_none() && package.registry == PackageRegistry::Npm;
        if is_new_npm && unless_given_up(entry, install::lacks_node(&entry.guest)).await? {
            self.discard(entry).await?;
            self.create_installer(entry, row, &self.node_spec(&spec)).await?;
            unless_given_up(entry, install::node(&entry.guest, environment)).await?;
            self.discard(entry).await?;
            self.create_installer(entry, row, &spec).await?;
        }
        unless_given_up(entry, install::package(&entry.guest, package, environment)).await?;
        self.pass(HostStep::PackageInstalled.name());
        entry.explain_start(None);
        self.discard(entry).await
    }

    /// Makes a sandbox in which something is installed.
    async fn create_installer(&self, entry: &Entry, row: &McpServerRow, spec: &SandboxSpec) -> Result<(), MakeError> {
        self.create(entry, row, spec).await?;
        let defaults = self.workspaces.config().workspace_defaults.clone();
        entry.guest.configure(&Configuration { defaults, ..Configuration::default() }).await?;
        Ok(())
    }

    /// The sandbox that fetches Node.js for all servers. The server's own volumes are mounted where no program looks
    /// for them.
    fn node_spec(&self, spec: &SandboxSpec) -> SandboxSpec {
        let image = self.config.default_image.clone();
        let volumes = spec.volumes.iter().filter_map(|volume| match volume.source {
            // A volume that is not named would go.
            VolumeSource::Own => Some(NamedVolume { path: format!("/mnt/{}", volume.name), ..volume.clone() }),
            VolumeSource::Engine { .. } => {
                Some(NamedVolume { source: VolumeSource::Engine { read_only: false }, ..volume.clone() })
            }
            VolumeSource::Workspace { .. } => None,
        });
        SandboxSpec { image, volumes: volumes.collect(), ..spec.clone() }
    }

    /// Has the provider make a sandbox from an image that the project may use.
    async fn create_sandbox(&self, row: &McpServerRow, spec: &SandboxSpec) -> Result<Created, MakeError> {
        let (provider, images) = (self.provider()?, self.workspaces.images());
        let image = images.begin(row.project, &spec.image, provider).await?;
        match provider.create(&image.apply(spec), self).await {
            Ok(created) => {
                images.record(&image, created.image.as_ref()).await?;
                Ok(created)
            }
            Err(error) => {
                images.give_up(&image).await;
                Err(error.into())
            }
        }
    }

    fn spec(&self, row: &McpServerRow) -> Result<SandboxSpec, MakeError> {
        let spec = &row.spec;
        let image: ImageRef = spec.image.parse()?;
        let volume =
            |name: &str, path: &str, source| NamedVolume { name: name.to_owned(), path: path.to_owned(), source };
        let mut volumes = Vec::new();
        if let Some(package) = &spec.package {
            volumes.push(volume(install::VOLUME, install::DIRECTORY, VolumeSource::Own));
            if package.registry == PackageRegistry::Npm {
                let source = VolumeSource::Engine { read_only: true };
                volumes.push(volume(install::NODE_VOLUME, install::NODE_DIRECTORY, source));
            }
        }
        volumes.extend(spec.volumes.iter().map(|(name, path)| volume(name, path, VolumeSource::Own)));
        volumes.extend(spec.shares.iter().map(|(name, share)| {
            let source = VolumeSource::Workspace { workspace: share.workspace.into(), read_only: share.read_only };
            volume(name, &share.path, source)
        }));
        Ok(SandboxSpec {
            workspace: row.id.sandbox(),
            kind: ContainerKind::McpServer,
            access: ImageAccess::Operator,
            registry: None,
            image,
            snapshot: None,
            limits: spec.limits(),
            network: [NetworkPolicy::None, NetworkPolicy::Isolated]
                .into_iter()
                .find(|network| network.as_str() == spec.network)
                .unwrap_or(NetworkPolicy::Outbound),
            volumes,
            warm: false,
        })
    }

    async fn first_answer(&self, entry: &Entry) -> Result<(), MakeError> {
        first_answer(self.provider()?, entry.id.sandbox(), &entry.guest, FIRST_ANSWER).await?;
        Ok(())
    }

    /// The environment of a server's processes: its own, over variables that make `npx` say soon what it fails for.
    pub(crate) fn environment(&self, row: &McpServerRow) -> Result<BTreeMap<String, String>, MakeError> {
        let mut environment: BTreeMap<_, _> =
            install::NPM_RETRIES.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        if let Some(sealed) = &row.environment_sealed {
            let key = self.config.secret_key.as_ref().ok_or(MakeError::NoKey)?;
            let own: BTreeMap<_, _> = key.open(row.id.as_uuid(), sealed).map_err(|OpenError| MakeError::OtherKey)?;
            environment.extend(own);
        }
        Ok(environment)
    }

    /// The command line of a server's processes, and their working directory.
    pub(crate) async fn command(&self, row: &McpServerRow) -> Result<(Vec<String>, Option<String>), MakeError> {
        let spec = &row.spec;
        if spec.package.is_some() {
            let program = std::iter::once(install::PROGRAM.to_owned());
            return Ok((program.chain(spec.cmd.iter().flatten().cloned()).collect(), spec.workdir.clone()));
        }
        if let Some(cmd) = &spec.cmd {
            return Ok((cmd.clone(), spec.workdir.clone()));
        }
        let image: ImageRef = spec.image.parse()?;
        let own = self.provider()?.image_command(&image).await.map_err(engine("look into the image of"))?;
        match own {
            Some(own) if !own.argv.is_empty() => Ok((own.argv, spec.workdir.clone().or(own.workdir))),
            _ => Err(MakeError::NoProgram),
        }
    }
}
