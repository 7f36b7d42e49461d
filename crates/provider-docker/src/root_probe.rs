//! Whether what a sandbox writes outside `/workspace` survives a stop.
//!
//! Newer releases of gVisor keep such writes in an overlay of their own, inside the sandbox: `docker commit` does not
//! see them, and a stop loses them. The guest writes below its state directory as soon as it starts, so a sandbox
//! that runs nothing else tells: either the engine sees that directory in the container's file system, or it is lost.
//! Asked once for each server, in the background; a standard runtime need not be asked.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bollard::{
    Docker,
    models::{ContainerCreateBody, HostConfig, HostConfigLogConfig},
    query_parameters::{
        ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
    },
};
use chrono::Utc;
use emergent_guest_proto::{GUEST_BINARY, STATE_DIR};
use emergent_provider::{SERVER_LABEL, ServerId};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    engine::{EngineError, bounded, found, within},
    facts::Runtime,
    guest_volume, labels,
    provider::Parts,
    removal,
};

/// How long the guest may take until its directory is there.
const PATIENCE: Duration = Duration::from_secs(10);
/// No probe takes longer.
const LONGEST: chrono::Duration = chrono::Duration::seconds(180);
const LABEL: &str = "probe";
const START_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// What is known of it.
pub(crate) struct RootProbe {
    container: String,
    state: Mutex<State>,
}

enum State {
    Unknown,
    Asking(JoinHandle<Option<bool>>),
    Kept,
    Lost,
}

// === impl RootProbe ===

impl RootProbe {
    pub(crate) fn new(server: ServerId) -> Self {
        Self { container: format!("emergent-probe-{server}"), state: Mutex::new(State::Unknown) }
    }

    /// Whether files outside `/workspace` survive, as far as is known.
    pub(crate) fn keeps_root(&self) -> bool {
        !matches!(*self.lock(), State::Lost)
    }

    /// Whether files outside `/workspace` survive under this runtime, found out if need be; `None` when that fails.
    pub(crate) async fn found_out(&self, parts: &Arc<Parts>, runtime: &Runtime) -> Option<bool> {
        let deadline = Instant::now() + PATIENCE * 2;
        loop {
            self.warning(parts, runtime).await;
            match *self.lock() {
                State::Kept => return Some(true),
                State::Lost => return Some(false),
                State::Unknown | State::Asking(_) if Instant::now() >= deadline => return None,
                State::Unknown | State::Asking(_) => {}
            }
            sleep(POLL).await;
        }
    }

    /// What is to be said of it, once it is known; asks if nobody has.
    pub(crate) async fn warning(&self, parts: &Arc<Parts>, runtime: &Runtime) -> Option<String> {
        let Runtime::Gvisor(runtime) = runtime else { return None };
        let finished = {
            let mut state = self.lock();
            match &mut *state {
                State::Unknown => {
                    let (parts, runtime) = (Arc::clone(parts), runtime.clone());
                    *state = State::Asking(tokio::spawn(async move { ask(&parts, &runtime).await }));
                    None
                }
                State::Asking(task) if task.is_finished() => match std::mem::replace(&mut *state, State::Unknown) {
                    State::Asking(task) => Some(task),
                    State::Unknown | State::Kept | State::Lost => None,
                },
                State::Asking(_) | State::Kept | State::Lost => None,
            }
        };
        if let Some(task) = finished {
            // An answer of nothing leaves the question open for the next time.
            match task.await.ok().flatten() {
                Some(true) => *self.lock() = State::Kept,
                Some(false) => *self.lock() = State::Lost,
                None => {}
            }
        }
        (!self.keeps_root()).then(|| {
            format!(
                "persistence: the runtime {runtime:?} keeps what workspaces write outside /workspace in memory, and a \
                 stop loses it; add --overlay2=none to its runtimeArgs in Docker's daemon.json and restart Docker"
            )
        })
    }

    /// Stops asking. Its container is the caller's to remove.
    pub(crate) async fn give_up(&self) {
        let task = {
            let mut state = self.lock();
            match std::mem::replace(&mut *state, State::Unknown) {
                State::Asking(task) => task,
                known => {
                    *state = known;
                    return;
                }
            }
        };
        task.abort();
        // Until it has ended it could still make its container.
        task.await.ok();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks with a sandbox of its own; `None` when it could not be found out.
async fn ask(parts: &Parts, runtime: &str) -> Option<bool> {
    let docker = parts.engine.client().await.ok()?;
    let name = &parts.root_probe.container;
    sweep(docker, name).await.ok()?;
    let asked = ask_with(parts, docker, name, runtime).await;
    let removed = removal::container(docker, name).await;
    match asked.and_then(|kept| removed.map(|()| kept)) {
        Ok(kept) => {
            tracing::info!(runtime, kept, "found out whether files outside /workspace survive a stop");
            kept
        }
        Err(error) => {
            tracing::warn!(runtime, %error, "could not find out whether files outside /workspace survive a stop");
            None
        }
    }
}

/// Removes what earlier servers left that ended while they asked: this one's by its name, others' by their age.
async fn sweep(docker: &Docker, own: &str) -> Result<(), EngineError> {
    removal::container(docker, own).await?;
    let filters = labels::having(&format!("{}={LABEL}", labels::SHARED));
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let oldest = (Utc::now() - LONGEST).timestamp();
    for probe in bounded(docker.list_containers(Some(options))).await? {
        if let (Some(id), Some(created)) = (probe.id, probe.created)
            && created < oldest
        {
            removal::container(docker, &id).await?;
        }
    }
    Ok(())
}

async fn ask_with(parts: &Parts, docker: &Docker, name: &str, runtime: &str) -> Result<Option<bool>, EngineError> {
    parts.guest.ensure(&parts.engine).await?;
    let body = ContainerCreateBody {
        image: Some(guest_volume::carrier_image()),
        user: Some("0:0".to_owned()),
        entrypoint: Some(vec![GUEST_BINARY.to_owned(), "serve".to_owned()]),
        labels: Some(
            [(labels::SHARED.to_owned(), LABEL.to_owned()), (SERVER_LABEL.to_owned(), parts.server.to_string())].into(),
        ),
        host_config: Some(HostConfig {
            runtime: Some(runtime.to_owned()),
            network_mode: Some("none".to_owned()),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            mounts: Some(vec![parts.guest.mount()]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    within(START_DEADLINE, docker.create_container(Some(options), body)).await?;
    within(START_DEADLINE, docker.start_container(name, None)).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(STATE_DIR).build();
        let seen = found(bounded(docker.get_container_archive_info(name, Some(options))).await)?.is_some();
        if seen {
            return Ok(Some(true));
        }
        if Instant::now() >= deadline {
            let state = bounded(docker.inspect_container(name, None)).await?.state.unwrap_or_default();
            // A guest that has ended may never have got to write.
            return Ok((state.running == Some(true)).then_some(false));
        }
        sleep(POLL).await;
    }
}
