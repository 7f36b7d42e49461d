//! The sandboxes and images that the engine has, and the events of its sandboxes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bollard::{
    Docker,
    models::{ContainerState, ContainerStateStatusEnum, ContainerSummaryStateEnum, EventMessage, Volume},
    query_parameters::{
        EventsOptionsBuilder, InspectContainerOptionsBuilder, ListContainersOptionsBuilder, ListVolumesOptionsBuilder,
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use emergent_provider::{
    ByteStream, ChannelError, Channels, EngineEvent, EngineEventKind, EngineState, ExitReason, HostRoom, ImageCommand,
    ImageRef, Inventory, Observed, OperationError, Origin, Owner, WORKSPACE_LABEL,
};
use emergent_types::{SandboxId, SnapshotId};
use futures::{StreamExt as _, stream::BoxStream};

use crate::{
    DockerProvider, accounts, channel,
    engine::{EngineError, bounded, found},
    host, image,
    labels::{self, name_of},
    parts::Parts,
    snapshots, tidy,
};

/// Events so old are asked for, too: the engine lists a container as running for a moment after it has told its end.
/// To hear of an event twice does no harm.
const OVERLAP: TimeDelta = TimeDelta::seconds(15);
/// The exit code of a process that SIGKILL ended.
const KILLED: i64 = 137;

#[async_trait]
impl Channels for DockerProvider {
    async fn open(&self, workspace: SandboxId) -> Result<ByteStream, ChannelError> {
        let container = name_of(workspace);
        let opened = async {
            accounts::check_running(&self.parts, &container).await?;
            channel::connect(self.parts.engine.client().await?, &container).await
        };
        opened.await.map_err(|error| self.parts.engine.channel_error(error))
    }
}

#[async_trait]
impl Inventory for DockerProvider {
    async fn inspect(&self, workspace: SandboxId) -> Result<Option<Observed>, OperationError> {
        let name = name_of(workspace);
        let observed = async {
            let docker = self.parts.engine.client().await?;
            let observed = match container(&self.parts, docker, &name).await? {
                Some(container) => Some(container),
                None => found(bounded(docker.inspect_volume(&name)).await)?.as_ref().and_then(remains),
            };
            let Some(observed) = observed else { return Ok(None) };
            if observed.claimed == Some(true) {
                return Ok(Some(observed));
            }
            let mark = bounded(docker.inspect_volume(&labels::name_of_claim(workspace))).await;
            Ok(Some(Observed { claimed: Some(found(mark)?.is_some()), ..observed }))
        };
        observed.await.map_err(|error| self.parts.engine.operation_error("inspect", error))
    }

    async fn written_outside(&self, workspace: SandboxId) -> Result<Option<u64>, OperationError> {
        let sized = async {
            let docker = self.parts.engine.client().await?;
            let options = InspectContainerOptionsBuilder::default().size(true).build();
            found(bounded(docker.inspect_container(&name_of(workspace), Some(options))).await)
        };
        let container = sized.await.map_err(|error| self.parts.engine.operation_error("measure", error))?;
        Ok(container.and_then(|container| container.size_rw).and_then(|bytes| u64::try_from(bytes).ok()))
    }

    async fn disk_use(&self, workspace: SandboxId, enough: u64) -> Result<Option<u64>, OperationError> {
        let counted = host::disk_use(&self.parts, workspace, enough).await;
        counted.map_err(|error| self.parts.engine.operation_error("measure", error))
    }

    async fn copy_use(&self, workspace: SandboxId) -> Result<Option<u64>, OperationError> {
        let counted = host::copy_use(&self.parts, workspace).await;
        counted.map_err(|error| self.parts.engine.operation_error("measure", error))
    }

    async fn task_use(&self, workspace: SandboxId) -> Result<Option<u64>, OperationError> {
        let counted = host::task_use(&self.parts, workspace).await;
        counted.map_err(|error| self.parts.engine.operation_error("measure", error))
    }

    fn host_room(&self) -> Option<HostRoom> {
        host::room(&self.parts)
    }

    async fn list(&self) -> Result<Vec<Observed>, OperationError> {
        let listed = async {
            let docker = self.parts.engine.client().await?;
            let filters = labels::having(WORKSPACE_LABEL);
            let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
            let containers = bounded(docker.list_containers(Some(options)));
            let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
            // Volumes first: a container that is made meanwhile is then not missed while its volume is seen.
            let mut volumes = bounded(docker.list_volumes(Some(options))).await?.volumes.unwrap_or_default();
            // The workspace's own comes before those that are named after it: what is told of a remainder is of that
            // one.
            volumes.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            let mut observed = Vec::new();
            for summary in containers.await? {
                let Some(owner) = summary.labels.as_ref().and_then(Owner::from_labels) else { continue };
                let created_at = summary.created.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
                let state = match summary.state {
                    Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::RESTARTING) => {
                        EngineState::Running
                    }
                    Some(ContainerSummaryStateEnum::PAUSED) => EngineState::Paused,
                    Some(ContainerSummaryStateEnum::CREATED) => EngineState::Created,
                    // The list does not say how it ended.
                    _ => match container(&self.parts, docker, &name_of(owner.workspace)).await? {
                        Some(container) => container.state,
                        None => continue,
                    },
                };
                let labels = summary.labels.unwrap_or_default();
                observed.push(described(owner, &labels, created_at, state));
            }
            // A sandbox may have several volumes, and is one remainder.
            let mut known: HashSet<SandboxId> = observed.iter().map(|observed| observed.workspace).collect();
            observed.extend(volumes.iter().filter_map(remains).filter(|volume| known.insert(volume.workspace)));
            let marks = volumes.iter().filter(|volume| volume.labels.contains_key(labels::HANDED_OVER));
            let marked: HashSet<SandboxId> =
                marks.filter_map(|volume| Owner::from_labels(&volume.labels)).map(|owner| owner.workspace).collect();
            for sandbox in observed.iter_mut().filter(|sandbox| marked.contains(&sandbox.workspace)) {
                sandbox.claimed = Some(true);
            }
            Ok(observed)
        };
        listed.await.map_err(|error| self.parts.engine.operation_error("list", error))
    }

    async fn origin(&self, workspace: SandboxId) -> Result<Option<Origin>, OperationError> {
        let inspected = async {
            let docker = self.parts.engine.client().await?;
            let Some(container) = found(bounded(docker.inspect_container(&name_of(workspace), None)).await)? else {
                return Ok(None);
            };
            let origin = container.config.and_then(|config| config.labels).as_ref().and_then(Origin::from_labels);
            Ok(origin)
        };
        inspected.await.map_err(|error| self.parts.engine.operation_error("inspect", error))
    }

    async fn origin_of_snapshot(&self, snapshot: SnapshotId) -> Result<Option<(SandboxId, Origin)>, OperationError> {
        let inspected = snapshots::origin(&self.parts.engine, snapshot).await;
        inspected.map_err(|error| self.parts.engine.operation_error("inspect a snapshot of", error))
    }

    async fn image_id(&self, image: &ImageRef) -> Result<Option<String>, OperationError> {
        let found = image::find(&self.parts, image).await;
        let found = found.map_err(|error| self.parts.engine.operation_error("inspect the image", error))?;
        Ok(found.and_then(|image| image.id))
    }

    async fn image_command(&self, image: &ImageRef) -> Result<Option<ImageCommand>, OperationError> {
        let found = image::find(&self.parts, image).await;
        let found = found.map_err(|error| self.parts.engine.operation_error("inspect the image", error))?;
        Ok(found.and_then(|image| image.config).map(|config| ImageCommand {
            argv: [config.entrypoint, config.cmd].into_iter().flatten().flatten().collect(),
            workdir: config.working_dir.filter(|path| path.starts_with('/')),
        }))
    }

    fn pulls_images(&self) -> bool {
        true
    }

    async fn remove_image(&self, image: &ImageRef, id: &str) -> Result<bool, OperationError> {
        let removed = image::remove(&self.parts, image, id).await;
        removed.map_err(|error| self.parts.engine.operation_error("remove an image of", error))
    }

    async fn tidy(&self, older_than: Duration) -> Result<Vec<String>, OperationError> {
        let removed = tidy::guest_volumes(&self.parts.engine, &self.parts.guest, older_than).await;
        removed.map_err(|error| self.parts.engine.operation_error("tidy", error))
    }

    async fn engine_id(&self) -> Result<Option<String>, OperationError> {
        let asked = async { bounded(self.parts.engine.client().await?.info()).await };
        let info = asked.await.map_err(|error| self.parts.engine.operation_error("ask", error))?;
        // Machines made from one image may have engines of one id; they do not have the same name.
        let id = info.id.filter(|id| !id.is_empty());
        Ok(id.map(|id| format!("{id}@{}", info.name.unwrap_or_default())))
    }

    async fn events(&self) -> Result<BoxStream<'static, EngineEvent>, OperationError> {
        let docker = self.parts.engine.client().await;
        let docker = docker.map_err(|error| self.parts.engine.operation_error("watch", error))?.clone();
        // Asked for from the engine's own present, since the request goes out only when the stream is first read.
        let info = bounded(docker.info()).await;
        let since = info.map_err(|error| self.parts.engine.operation_error("watch", error))?.system_time;
        let since = since.as_deref().and_then(parse_time).unwrap_or_else(Utc::now) - OVERLAP;
        let since = format!("{}.{:09}", since.timestamp(), since.timestamp_subsec_nanos());
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("label".to_owned(), vec![WORKSPACE_LABEL.to_owned()]),
            ("event".to_owned(), ["start", "die", "oom", "pause", "unpause", "destroy"].map(str::to_owned).to_vec()),
        ]);
        let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
        let (parts, mut messages) = (Arc::clone(&self.parts), Box::pin(docker.events(Some(options))));
        Ok(async_stream::stream! {
            while let Some(Ok(message)) = messages.next().await {
                if let Some(event) = translate(&parts, &docker, message).await {
                    yield event;
                }
            }
        }
        .boxed())
    }
}

/// A container as it is now; `None` when there is none, or none of ours, by that name.
async fn container(parts: &Parts, docker: &Docker, name: &str) -> Result<Option<Observed>, EngineError> {
    let Some(container) = found(bounded(docker.inspect_container(name, None)).await)? else { return Ok(None) };
    let labels = container.config.and_then(|config| config.labels).unwrap_or_default();
    let created_at = container.created.as_deref().and_then(parse_time);
    let (id, state) = (container.id.unwrap_or_default(), state_of(container.state.unwrap_or_default()));
    Ok(Owner::from_labels(&labels).map(|owner| {
        let state = match state {
            EngineState::Exited(reason) => EngineState::Exited(parts.explain(owner.workspace, &id, reason)),
            other => other,
        };
        described(owner, &labels, created_at, state)
    }))
}

/// Describes a sandbox of which a labelled volume without a container is left.
fn remains(volume: &Volume) -> Option<Observed> {
    let created_at = volume.created_at.as_deref().and_then(parse_time);
    let owner = Owner::from_labels(&volume.labels)?;
    Some(described(owner, &volume.labels, created_at, EngineState::Remains))
}

/// Describes a sandbox by its labels. The mark of a hand-over is on a volume of its own, and is not looked for here.
fn described(
    owner: Owner,
    labels: &HashMap<String, String>,
    created_at: Option<DateTime<Utc>>,
    state: EngineState,
) -> Observed {
    // What has no date that can be read is new, so that nobody takes it for abandoned.
    let created_at = created_at.unwrap_or_else(Utc::now);
    let claimed = Some(!Origin::is_warm(labels));
    Observed { workspace: owner.workspace, server: owner.server, kind: owner.kind, created_at, state, claimed }
}

fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    text.parse().ok()
}

fn state_of(state: ContainerState) -> EngineState {
    match state.status {
        Some(ContainerStateStatusEnum::CREATED) => EngineState::Created,
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::RESTARTING) => EngineState::Running,
        Some(ContainerStateStatusEnum::PAUSED) => EngineState::Paused,
        // Somebody has begun to remove it: the engine will never start it again.
        Some(ContainerStateStatusEnum::DEAD | ContainerStateStatusEnum::REMOVING) => EngineState::Remains,
        _ => EngineState::Exited(exit_reason(&state)),
    }
}

fn exit_reason(state: &ContainerState) -> ExitReason {
    let code = state.exit_code.unwrap_or(0);
    // The flag stays set when a process ran out of memory and the guest lived on to be stopped in order.
    match state.oom_killed == Some(true) && code == KILLED {
        true => ExitReason::OutOfMemory,
        false => ExitReason::Code(code),
    }
}

async fn translate(parts: &Parts, docker: &Docker, message: EventMessage) -> Option<EngineEvent> {
    let attributes = message.actor?.attributes?;
    let workspace = Owner::from_labels(&attributes)?.workspace;
    let kind = match message.action.as_deref()? {
        "start" => EngineEventKind::Started,
        "pause" => EngineEventKind::Paused,
        "unpause" => EngineEventKind::Unpaused,
        "oom" => EngineEventKind::OutOfMemory,
        "destroy" => EngineEventKind::Removed,
        "die" => EngineEventKind::Exited(how_it_died(parts, docker, workspace, &attributes).await),
        _ => return None,
    };
    Some(EngineEvent { workspace, kind })
}

/// The event has the exit code; what the reason was has to be asked for, if there is still somebody to ask.
async fn how_it_died(
    parts: &Parts,
    docker: &Docker,
    workspace: SandboxId,
    attributes: &HashMap<String, String>,
) -> ExitReason {
    let code = attributes.get("exitCode").and_then(|code| code.parse().ok()).unwrap_or(0);
    match container(parts, docker, &name_of(workspace)).await {
        Ok(Some(Observed { state: EngineState::Exited(reason), .. })) if !matches!(reason, ExitReason::Code(_)) => {
            reason
        }
        _ => ExitReason::Code(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_has_begun_to_remove_is_not_taken_for_stopped() {
        for status in [ContainerStateStatusEnum::DEAD, ContainerStateStatusEnum::REMOVING] {
            let state = ContainerState { status: Some(status), exit_code: Some(137), ..ContainerState::default() };
            assert_eq!(state_of(state), EngineState::Remains);
        }
        let state = ContainerState { status: Some(ContainerStateStatusEnum::EXITED), ..ContainerState::default() };
        assert_eq!(state_of(state), EngineState::Exited(ExitReason::Code(0)));
    }
}
