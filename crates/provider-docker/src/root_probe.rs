//! Whether what a sandbox writes outside `/workspace` survives a stop.
//!
//! Newer releases of gVisor keep such writes in an overlay of their own, inside the sandbox: `docker commit` does not
//! see them, and a stop loses them. The guest writes below its state directory as soon as it starts, so a sandbox
//! that runs nothing else tells: either the engine sees that directory in the container's file system, or it is lost.
//! The same sandbox tells whether the guest had to help programs with a flag of statx(2) that old releases refuse.
//! Asked once for each server, in the background; a standard runtime need not be asked.

use std::{sync::Arc, time::Duration};

use bollard::{
    Docker,
    models::{ContainerCreateBody, HostConfig, HostConfigLogConfig},
    query_parameters::{
        ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
    },
};
use chrono::Utc;
use emergent_guest_proto::{EXECUTIONS_FILE, GUEST_BINARY, PRELOAD_FILE, STATE_DIR};
use emergent_provider::SERVER_LABEL;
use emergent_types::ServerId;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    engine::{Engine, EngineError, bounded, found, within},
    facts::Runtime,
    guest_volume::{self, GuestVolume},
    labels, removal,
};

/// The time that the guest may take until its directory is there.
const PATIENCE: Duration = Duration::from_secs(10);
/// No probe takes longer.
const LONGEST: chrono::Duration = chrono::Duration::seconds(180);
const LABEL: &str = "probe";
const START_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// The probe: its sandbox, and its finding once there is one.
pub(crate) struct RootProbe {
    sandbox: Arc<ProbeSandbox>,
    state: Mutex<State>,
}

/// The sandbox that the probe asks with.
struct ProbeSandbox {
    engine: Arc<Engine>,
    guest: Arc<GuestVolume>,
    server: ServerId,
    /// The name of its container.
    container: String,
}

enum State {
    Unknown,
    Asking(JoinHandle<Option<Finding>>),
    Known(Finding),
}

/// The finding of the probe about the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    /// Files outside `/workspace` survive a stop.
    Kept {
        /// The runtime refuses a flag of statx(2).
        refuses_flag: bool,
    },
    /// They do not, and the engine sees nothing of them.
    Lost,
}

// === impl RootProbe ===

impl RootProbe {
    pub(crate) fn new(server: ServerId, engine: Arc<Engine>, guest: Arc<GuestVolume>) -> Self {
        let sandbox = ProbeSandbox { engine, guest, server, container: format!("emergent-probe-{server}") };
        Self { sandbox: Arc::new(sandbox), state: Mutex::new(State::Unknown) }
    }

    /// Whether files outside `/workspace` survive, as far as is known.
    pub(crate) fn keeps_root(&self) -> bool {
        !matches!(*self.lock(), State::Known(Finding::Lost))
    }

    /// Returns the warning about a runtime that refuses a flag which programs use; `None` until the probe has found
    /// that.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        let refuses = matches!(*self.lock(), State::Known(Finding::Kept { refuses_flag: true }));
        refuses.then_some(
            "the runtime is an old release that refuses statx(AT_NO_AUTOMOUNT), which `ls -l`, `stat` and `find` ask for; \
             the guest's library works around that for all programs but statically linked ones, and a newer release of \
             gVisor needs no help",
        )
    }

    /// Whether files outside `/workspace` survive under this runtime, found out if need be; `None` when that fails.
    pub(crate) async fn found_out(&self, runtime: &Runtime) -> Option<bool> {
        let deadline = Instant::now() + PATIENCE * 2;
        loop {
            self.warning(runtime).await;
            match *self.lock() {
                State::Known(finding) => return Some(finding != Finding::Lost),
                State::Unknown | State::Asking(_) if Instant::now() >= deadline => return None,
                State::Unknown | State::Asking(_) => {}
            }
            sleep(POLL).await;
        }
    }

    /// Returns the warning about a runtime that loses files outside `/workspace`; `None` until the probe has found
    /// that. Starts the probe if nobody has.
    pub(crate) async fn warning(&self, runtime: &Runtime) -> Option<String> {
        let Runtime::Gvisor(runtime) = runtime else { return None };
        let finished = {
            let mut state = self.lock();
            match &mut *state {
                State::Unknown => {
                    let (sandbox, runtime) = (Arc::clone(&self.sandbox), runtime.clone());
                    *state = State::Asking(tokio::spawn(async move { ask(&sandbox, &runtime).await }));
                    None
                }
                State::Asking(task) if task.is_finished() => match std::mem::replace(&mut *state, State::Unknown) {
                    State::Asking(task) => Some(task),
                    State::Unknown | State::Known(_) => None,
                },
                State::Asking(_) | State::Known(_) => None,
            }
        };
        if let Some(task) = finished {
            // An answer of nothing leaves the question open for the next time.
            if let Some(finding) = task.await.ok().flatten() {
                *self.lock() = State::Known(finding);
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
        self.state.lock()
    }
}

/// Asks with a sandbox of its own; `None` when it could not be found out.
async fn ask(sandbox: &ProbeSandbox, runtime: &str) -> Option<Finding> {
    let docker = sandbox.engine.client().await.ok()?;
    let name = &sandbox.container;
    sweep(docker, name).await.ok()?;
    let asked = ask_with(sandbox, docker, runtime).await;
    let removed = removal::container(docker, name).await;
    match asked.and_then(|found| removed.map(|()| found)) {
        Ok(found) => {
            tracing::info!(runtime, ?found, "found out whether files outside /workspace survive a stop");
            found
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

async fn ask_with(sandbox: &ProbeSandbox, docker: &Docker, runtime: &str) -> Result<Option<Finding>, EngineError> {
    let ProbeSandbox { engine, guest, server, container: name } = sandbox;
    guest.ensure(engine).await?;
    let body = ContainerCreateBody {
        image: Some(guest_volume::carrier_image()),
        user: Some("0:0".to_owned()),
        entrypoint: Some(vec![GUEST_BINARY.to_owned(), "serve".to_owned()]),
        labels: Some(
            [(labels::SHARED.to_owned(), LABEL.to_owned()), (SERVER_LABEL.to_owned(), server.to_string())].into(),
        ),
        host_config: Some(HostConfig {
            runtime: Some(runtime.to_owned()),
            network_mode: Some("none".to_owned()),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            mounts: Some(vec![guest.mount()]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    within(START_DEADLINE, docker.create_container(Some(options), body)).await?;
    within(START_DEADLINE, docker.start_container(name, None)).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if is_seen(docker, name, EXECUTIONS_FILE).await? {
            let refuses_flag = is_seen(docker, name, PRELOAD_FILE).await?;
            return Ok(Some(Finding::Kept { refuses_flag }));
        }
        if Instant::now() >= deadline {
            let state = bounded(docker.inspect_container(name, None)).await?.state.unwrap_or_default();
            // A guest that has ended may never have got to write.
            return Ok((state.running == Some(true)).then_some(Finding::Lost));
        }
        sleep(POLL).await;
    }
}

/// Whether the engine sees a file of the guest's state.
async fn is_seen(docker: &Docker, container: &str, file: &str) -> Result<bool, EngineError> {
    let options = ContainerArchiveInfoOptionsBuilder::default().path(&format!("{STATE_DIR}/{file}")).build();
    Ok(found(bounded(docker.get_container_archive_info(container, Some(options))).await)?.is_some())
}
