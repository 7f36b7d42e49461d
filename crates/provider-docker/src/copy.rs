//! The copying of files of volumes into other volumes.
//!
//! The guest's own program copies, in a container without an image, a network or a name for anything but the volumes:
//! the files are the agent's, and the server's host never reads them.

use std::{collections::HashMap, time::Duration};

use bollard::{
    Docker,
    models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions},
    query_parameters::{CreateContainerOptionsBuilder, WaitContainerOptions},
};
use emergent_guest_proto::GUEST_BINARY;
use emergent_provider::{ByteStream, SERVER_LABEL};
use futures::StreamExt as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    time::timeout,
};
use uuid::Uuid;

use crate::{
    channel,
    engine::{CALL_DEADLINE, EngineError, bounded, within},
    guest_volume, labels,
    parts::Parts,
    removal,
};

/// The time that the copying of a volume may take.
pub(crate) const COPY_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// The time that containers may take to be made and started, which is longer than other calls on a busy host.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// The runtime that every Docker Engine has. The container runs only our own program, and is quickest under this
/// runtime.
const RUNTIME: &str = "runc";
/// The capabilities to read others' files, and to give copies their owners and modes; nothing else.
const CAPABILITIES: [&str; 5] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD"];
/// The memory limit: room for the table of hard links of a tree with millions of files.
const MEMORY_BYTES: i64 = 512 << 20;
const PIDS: i64 = 16;
const FROM: &str = "/from";
const TO: &str = "/to";
/// The most bytes of the program's answer that are read.
const ANSWER_BYTES: u64 = 4096;

/// The reason why files were not copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// The engine failed.
    #[error("the engine failed")]
    Engine(#[from] EngineError),
    /// The program failed, with its reason.
    #[error("{0}")]
    Failed(String),
}

/// A container that copies on command. Its program ends when this is dropped before the command.
pub(crate) struct Copy {
    container: String,
    program: ByteStream,
}

/// Copies all files of the first volume of each pair into the second, which is empty. `id` distinguishes this copying
/// from others.
pub(crate) async fn between_volumes(parts: &Parts, id: Uuid, pairs: &[(String, String)]) -> Result<(), CopyError> {
    let docker = parts.engine.client().await?;
    let copy = Copy::prepare(parts, id, pairs).await?;
    copy.run(docker).await?;
    clear(docker, id).await?;
    Ok(())
}

/// Removes the container that copies, finished or not.
pub(crate) async fn clear(docker: &Docker, id: Uuid) -> Result<(), EngineError> {
    removal::container(docker, &name(id)).await
}

fn name(id: Uuid) -> String {
    format!("emergent-copy-{id}")
}

// === impl Copy ===

impl Copy {
    /// Makes and starts the container, so that only the copying is left to do. The caller [`clear`]s it in any case.
    pub(crate) async fn prepare(parts: &Parts, id: Uuid, pairs: &[(String, String)]) -> Result<Self, EngineError> {
        let docker = parts.engine.client().await?;
        parts.guest.ensure(&parts.engine).await?;
        let mut command = vec![GUEST_BINARY.to_owned(), "copy-trees".to_owned()];
        let mut mounts = vec![parts.guest.mount()];
        for (number, (from, to)) in pairs.iter().enumerate() {
            let (source, target) = (format!("{FROM}/{number}"), format!("{TO}/{number}"));
            mounts.extend([volume(from, &source, true), volume(to, &target, false)]);
            command.extend([source, target]);
        }
        let body = ContainerCreateBody {
            image: Some(guest_volume::carrier_image()),
            user: Some("0:0".to_owned()),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            open_stdin: Some(true),
            stdin_once: Some(true),
            entrypoint: Some(command),
            labels: Some(HashMap::from([
                (labels::SHARED.to_owned(), "copy".to_owned()),
                (SERVER_LABEL.to_owned(), parts.server.to_string()),
            ])),
            host_config: Some(HostConfig {
                runtime: Some(RUNTIME.to_owned()),
                network_mode: Some("none".to_owned()),
                cap_drop: Some(vec!["ALL".to_owned()]),
                cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                readonly_rootfs: Some(true),
                memory: Some(MEMORY_BYTES),
                pids_limit: Some(PIDS),
                log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: Some(HashMap::new()) }),
                mounts: Some(mounts),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&name(id)).build();
        let container = within(START_DEADLINE, docker.create_container(Some(options), body)).await?.id;
        let program = channel::attach(docker, &container).await?;
        within(START_DEADLINE, docker.start_container(&container, None)).await?;
        Ok(Self { container, program })
    }

    /// Copies the files; returns the number of bytes of each pair's files.
    pub(crate) async fn run(mut self, docker: &Docker) -> Result<Vec<u64>, CopyError> {
        let copying = async {
            // A program that has ended does not hear it, and says nothing.
            self.program.write_all(b"now\n").await.ok();
            self.program.flush().await.ok();
            let mut said = String::new();
            BufReader::new(self.program.take(ANSWER_BYTES)).read_line(&mut said).await.ok();
            said
        };
        let Ok(said) = timeout(COPY_DEADLINE, copying).await else {
            return Err(EngineError::Silent(COPY_DEADLINE).into());
        };
        let said = said.trim();
        if said.is_empty() {
            return Err(silent_end(docker, &self.container).await?);
        }
        let bytes = said.split(' ').map(str::parse).collect::<Result<Vec<_>, _>>();
        bytes.map_err(|_| CopyError::Failed(said.to_owned()))
    }
}

/// Returns the error for a program that has ended without an answer.
async fn silent_end(docker: &Docker, container: &str) -> Result<CopyError, EngineError> {
    let mut ended = Box::pin(docker.wait_container(container, None::<WaitContainerOptions>));
    // Whatever comes of it, the container is looked at.
    timeout(CALL_DEADLINE, ended.next()).await.ok();
    let state = bounded(docker.inspect_container(container, None)).await?.state.unwrap_or_default();
    let why = match (state.oom_killed, state.exit_code) {
        (Some(true), _) => "there are more hard links than fit into the memory for copying".to_owned(),
        (_, Some(code)) => format!("the copying ended with code {code}"),
        (_, None) => "the copying ended".to_owned(),
    };
    Ok(CopyError::Failed(why))
}

fn volume(name: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        target: Some(target.to_owned()),
        source: Some(name.to_owned()),
        typ: Some(MountType::VOLUME),
        read_only: Some(read_only),
        volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
        ..Mount::default()
    }
}
