//! Taking a snapshot: the sandbox stands still once, while both its parts are copied.

use std::{collections::HashMap, sync::Arc};

use bollard::{
    Docker,
    models::{ContainerConfig, ContainerInspectResponse, VolumeCreateRequest},
    query_parameters::CommitContainerOptionsBuilder,
};
use emergent_provider::{OperationError, Origin, SnapshotSpec, TakeError, Taken};
use emergent_types::{SnapshotStep, StepObserver};

use super::{labels_of, remove};
use crate::{
    copy::{COPY_DEADLINE, Copy, CopyError},
    engine::{EngineError, bounded, within},
    facts::Runtime,
    host,
    labels::{self, name_of, name_of_snapshot},
    parts::Parts,
    volumes,
};

const OPERATION: &str = "take a snapshot of";

/// Takes a snapshot.
pub(super) async fn take(
    parts: &Arc<Parts>,
    spec: &SnapshotSpec,
    observer: &dyn StepObserver,
) -> Result<Taken, TakeError> {
    let failed = |error| TakeError::from(parts.engine.operation_error(OPERATION, error));
    let docker = parts.engine.client().await.map_err(failed)?;
    let container = bounded(docker.inspect_container(&name_of(spec.workspace), None)).await.map_err(failed)?;
    require_visible_root(parts, &container).await?;
    if let Some(path) = host::mark_of_removal(parts, spec.workspace).await.map_err(failed)? {
        return Err(TakeError::MarkOfRemoval { path });
    }
    let taking = Taking { parts, docker, spec, observer };
    match taking.run(&container).await {
        Ok(taken) => Ok(taken),
        Err(error) => {
            if let Err(error) = remove(&parts.engine, spec.snapshot).await {
                tracing::warn!(%error, snapshot = %spec.snapshot, "a snapshot is left over; cleanup will find it");
            }
            Err(match error {
                CopyError::Engine(error) => failed(error),
                CopyError::Failed(reason) => TakeError::CopyFailed(reason),
            })
        }
    }
}

/// Refuses where the engine does not see what the sandbox has written outside `/workspace`.
async fn require_visible_root(parts: &Arc<Parts>, container: &ContainerInspectResponse) -> Result<(), OperationError> {
    let runtime = container.host_config.as_ref().and_then(|config| config.runtime.clone()).unwrap_or_default();
    let facts = parts.facts().await.map_err(|error| parts.engine.operation_error(OPERATION, error))?;
    if facts.runtime != Runtime::Gvisor(runtime.clone()) {
        return Ok(());
    }
    let reason = match parts.root_probe.found_out(&facts.runtime).await {
        Some(true) => return Ok(()),
        Some(false) => format!(
            "the runtime {runtime:?} keeps what workspaces write outside /workspace in memory, where a snapshot would \
             miss it; add --overlay2=none to its runtimeArgs in Docker's daemon.json and restart Docker"
        ),
        None => format!(
            "whether the runtime {runtime:?} lets Docker see what workspaces write outside /workspace could not be \
             found out; the server's log says why; try again"
        ),
    };
    Err(OperationError::Unsupported { operation: "snapshot", reason })
}

/// A snapshot that is being taken.
struct Taking<'a> {
    parts: &'a Parts,
    docker: &'a Docker,
    spec: &'a SnapshotSpec,
    observer: &'a dyn StepObserver,
}

// === impl Taking ===

impl Taking<'_> {
    async fn run(&self, container: &ContainerInspectResponse) -> Result<Taken, CopyError> {
        let (sandbox, name) = (name_of(self.spec.workspace), name_of_snapshot(self.spec.snapshot));
        let pairs = volumes::to_copy(container, self.spec.workspace, self.spec.snapshot);
        // Not on the image, whose labels become those of the containers that are made from it.
        let origin = container.config.as_ref().and_then(|config| Origin::from_labels(config.labels.as_ref()?));
        let origin = origin.map(|origin| origin.to_labels()).into_iter().flatten();
        let source = [(labels::SOURCE.to_owned(), self.spec.workspace.to_string())];
        let own = labels_of(self.spec.snapshot, self.parts.server).into_iter().chain(origin).chain(source);
        let own = own.collect::<HashMap<_, _>>();
        for (_, copied) in &pairs {
            let request = VolumeCreateRequest {
                name: Some(copied.clone()),
                labels: Some(own.clone()),
                ..VolumeCreateRequest::default()
            };
            bounded(self.docker.create_volume(request)).await?;
        }
        self.pass(SnapshotStep::VolumeCreated);
        let id = self.spec.snapshot.as_uuid();
        let copy = Copy::prepare(self.parts, id, &pairs).await?;

        let runs = container.state.as_ref().is_some_and(|it| it.running == Some(true) && it.paused != Some(true));
        if runs {
            bounded(self.docker.pause_container(&sandbox)).await?;
        }
        self.pass(SnapshotStep::SandboxFrozen);
        let copied = tokio::join!(copy.run(self.docker), self.commit(&sandbox, &name));
        self.pass(SnapshotStep::FilesCopied);
        if runs {
            // Before what has failed is looked at: the sandbox goes on in any case.
            bounded(self.docker.unpause_container(&sandbox)).await?;
        }
        self.pass(SnapshotStep::SandboxThawed);
        let (volumes, layer) = (copied.0?, copied.1?);
        crate::copy::clear(self.docker, id).await?;
        let (workspace_bytes, others) = volumes.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest));
        let root_bytes = others.iter().copied().fold(layer, u64::saturating_add);
        Ok(Taken { root_bytes, workspace_bytes })
    }

    /// Makes an image of the root file system; answers the size of its layer.
    async fn commit(&self, sandbox: &str, name: &str) -> Result<u64, EngineError> {
        let options = CommitContainerOptionsBuilder::default().container(sandbox).repo(name).pause(false).build();
        let config = ContainerConfig {
            labels: Some(labels_of(self.spec.snapshot, self.parts.server)),
            ..ContainerConfig::default()
        };
        within(COPY_DEADLINE, self.docker.commit_container(options, config)).await?;
        let layers = bounded(self.docker.image_history(name)).await?;
        Ok(layers.first().and_then(|newest| u64::try_from(newest.size).ok()).unwrap_or(0))
    }

    fn pass(&self, step: SnapshotStep) {
        self.observer.snapshot_taken(self.spec.snapshot, step);
    }
}
