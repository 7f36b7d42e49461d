//! The start, stop, freeze and removal of containers.

use std::time::Duration;

use async_trait::async_trait;
use bollard::{
    Docker,
    models::{ContainerInspectResponse, VolumeCreateRequest},
    query_parameters::StopContainerOptionsBuilder,
};
use emergent_provider::{
    ByteStream, CreateError, Created, ExitReason, Lifecycle, OperationError, Owner, Provider as _, SandboxSpec,
};
use emergent_types::{DestroyStep, ResourceLimits, SandboxId, StepObserver};

use crate::{
    DockerProvider, before_start, channel, copy, create,
    engine::{EngineError, bounded, within},
    host,
    labels::{self, name_of},
    removal, snapshots,
};

/// The time that the guest has to end its processes.
const STOP_GRACE_SECONDS: i32 = 10;
/// The time that a stop may take with all the engine's work around it.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
const START_DEADLINE: Duration = Duration::from_secs(60);

#[async_trait]
impl Lifecycle for DockerProvider {
    async fn create(&self, spec: &SandboxSpec, observer: &dyn StepObserver) -> Result<Created, CreateError> {
        create::create(&self.parts, spec, observer).await
    }

    async fn start(&self, workspace: SandboxId) -> Result<Option<ByteStream>, OperationError> {
        let container = name_of(workspace);
        let started = async {
            let docker = self.parts.engine.client().await?;
            let inspected = bounded(docker.inspect_container(&container, None)).await?;
            if runs(&inspected) {
                return Ok(None);
            }
            // After a reboot nothing filters yet.
            self.parts.networks.ensure_filtered(&self.parts.engine).await?;
            before_start::check(&self.parts, inspected).await?;
            let channel = channel::attach(docker, &container).await?;
            self.parts.forget_sandbox(workspace);
            within(START_DEADLINE, docker.start_container(&container, None)).await?;
            Ok(Some(channel))
        };
        started.await.map_err(|error| self.parts.engine.operation_error("start", error))
    }

    async fn stop(&self, workspace: SandboxId) -> Result<(), OperationError> {
        let container = name_of(workspace);
        let stopped = async {
            let docker = self.parts.engine.client().await?;
            // A frozen process cannot be told to end.
            if is_paused(docker, &container).await? {
                bounded(docker.unpause_container(&container)).await?;
            }
            let options = StopContainerOptionsBuilder::default().t(STOP_GRACE_SECONDS).build();
            within(STOP_DEADLINE, docker.stop_container(&container, Some(options))).await
        };
        stopped.await.map_err(|error| self.parts.engine.operation_error("stop", error))
    }

    async fn end(&self, workspace: SandboxId, why: ExitReason) -> Result<(), OperationError> {
        let ended = async {
            let docker = self.parts.engine.client().await?;
            self.parts.note_ending(workspace, why);
            match bounded(docker.kill_container(&name_of(workspace), None)).await {
                // It has ended already.
                Err(error) if error.is_conflict() => Ok(()),
                ended => ended,
            }
        };
        ended.await.map_err(|error| self.parts.engine.operation_error("end", error))
    }

    async fn pause(&self, workspace: SandboxId) -> Result<(), OperationError> {
        let container = name_of(workspace);
        let paused = async {
            let docker = self.parts.engine.client().await?;
            match bounded(docker.pause_container(&container)).await {
                Err(error) if error.is_conflict() && is_paused(docker, &container).await? => Ok(()),
                ended => ended,
            }
        };
        paused.await.map_err(|error| self.parts.engine.operation_error("pause", error))
    }

    async fn unpause(&self, workspace: SandboxId) -> Result<(), OperationError> {
        let container = name_of(workspace);
        let unpaused = async {
            let docker = self.parts.engine.client().await?;
            match bounded(docker.unpause_container(&container)).await {
                // The engine calls it an internal error that the container is not paused.
                Err(error) if !error.is_missing() && is_running(docker, &container).await? => Ok(()),
                ended => ended,
            }
        };
        unpaused.await.map_err(|error| self.parts.engine.operation_error("unpause", error))
    }

    async fn update_limits(&self, workspace: SandboxId, limits: ResourceLimits) -> Result<(), OperationError> {
        if !self.capabilities().live_limits {
            let reason = "gVisor cannot change the limits of a container that runs".to_owned();
            return Err(OperationError::Unsupported { operation: "update_limits", reason });
        }
        let updated = async {
            let facts = self.parts.facts().await?;
            let update = create::cgroup_limits(&limits, &facts.runtime, host::tasks_of(&self.parts));
            bounded(self.parts.engine.client().await?.update_container(&name_of(workspace), update)).await
        };
        updated.await.map_err(|error| self.parts.engine.operation_error("change the limits of", error))
    }

    async fn mark_claimed(&self, workspace: SandboxId) -> Result<(), OperationError> {
        let marked = async {
            let docker = self.parts.engine.client().await?;
            let sandbox = bounded(docker.inspect_container(&name_of(workspace), None)).await?;
            let labels = sandbox.config.and_then(|config| config.labels).unwrap_or_default();
            let owner = Owner::from_labels(&labels).map(Owner::to_labels).into_iter().flatten();
            let mark = (labels::HANDED_OVER.to_owned(), "true".to_owned());
            let request = VolumeCreateRequest {
                name: Some(labels::name_of_claim(workspace)),
                labels: Some(owner.chain([mark]).collect()),
                ..VolumeCreateRequest::default()
            };
            bounded(docker.create_volume(request)).await
        };
        let marked = marked.await.map_err(|error| self.parts.engine.operation_error("mark", error));
        marked.map(drop)
    }

    async fn discard(&self, workspace: SandboxId) -> Result<(), OperationError> {
        self.parts.forget_sandbox(workspace);
        let removed = removal::sandbox(&self.parts.engine, workspace).await;
        removed.map(drop).map_err(|error| self.parts.engine.operation_error("remove", error))
    }

    async fn destroy(&self, workspace: SandboxId, observer: &dyn StepObserver) -> Result<(), OperationError> {
        self.parts.forget_sandbox(workspace);
        let failed = |error| self.parts.engine.operation_error("remove", error);
        let docker = self.parts.engine.client().await.map_err(failed)?;
        let container = removal::sandbox(&self.parts.engine, workspace).await.map_err(failed)?;
        // What fills its volume, where it was to be made from a snapshot.
        copy::clear(docker, workspace.as_uuid()).await.map_err(failed)?;
        observer.destroyed(workspace, DestroyStep::SandboxRemoved);
        removal::sharers_of(docker, workspace).await.map_err(failed)?;
        removal::volumes_of(&self.parts.engine, workspace).await.map_err(failed)?;
        observer.destroyed(workspace, DestroyStep::VolumesRemoved);
        if let Some(snapshot) = container.and_then(|container| snapshots::of_labels(&container.config?.labels?)) {
            snapshots::let_go(docker, snapshot).await;
        }
        Ok(())
    }
}

async fn is_running(docker: &Docker, container: &str) -> Result<bool, EngineError> {
    Ok(runs(&bounded(docker.inspect_container(container, None)).await?))
}

fn runs(container: &ContainerInspectResponse) -> bool {
    container.state.as_ref().is_some_and(|state| state.running == Some(true) && state.paused != Some(true))
}

async fn is_paused(docker: &Docker, container: &str) -> Result<bool, EngineError> {
    Ok(bounded(docker.inspect_container(container, None)).await?.state.unwrap_or_default().paused == Some(true))
}
