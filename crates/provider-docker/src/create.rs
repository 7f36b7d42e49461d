//! Making a sandbox: each stage consumes the last, and undoes exactly what exists when it fails.
//!
//! ```text
//!   image, guest and network ready ──► Prepared (volume, filled) ──► Made (container) ──► started
//!                                          │ fails                      │ fails
//!                                          ▼                            ▼
//!                                    volume removed           container, then volume removed
//! ```
//!
//! (The volumes of an `mcp_server` outlive its sandboxes, and so are not removed.)
//!
//! gVisor mounts a file system in memory over `/tmp` where it finds that empty, and what is in it is lost with each
//! stop and in each copy. So a directory there has something mounted on it, which makes `/tmp` part of the root file
//! system.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bollard::{
    models::{
        ContainerCreateBody, ContainerUpdateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount,
        ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
    },
    query_parameters::CreateContainerOptionsBuilder,
};
use emergent_guest_proto::GUEST_BINARY;
use emergent_provider::{ByteStream, ContainerKind, CreateError, Created, Owner, SandboxSpec, UsedImage};
use emergent_types::{CreateStep, ResourceLimits, SnapshotId, StepObserver};

use crate::{
    before_start, channel,
    copy::{self, CopyError},
    engine::{EngineError, bounded, within},
    facts::{Facts, Runtime},
    host,
    image::{self, Image},
    labels::{self, name_of},
    network::Attachment,
    parts::Parts,
    removal, seccomp, shared_volumes,
    volumes::{self, IN_TMP, Role, SandboxVolume},
};

/// The capabilities that root keeps inside: enough for package managers, nothing that reaches the kernel's
/// configuration.
const CAPABILITIES: [&str; 6] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "KILL"];
/// Guests are to be ended before what else runs on the host.
const OOM_SCORE: i64 = 500;
/// Tasks of the host that a process inside gVisor costs at most, and the sandbox itself: 10 to 20, and 57, were counted
/// under release 20221219 with its `ptrace` platform, which needs more of them than later ones.
const HOST_TASKS: i64 = 32;
const HOST_TASKS_OF_SANDBOX: i64 = 512;
/// The most tasks that Linux counts (`PID_MAX_LIMIT`); a cgroup takes no larger limit.
const MOST_TASKS: i64 = 4 << 20;
/// The part of its machine's tasks that a sandbox may have: one of so many.
const SHARE: i64 = 4;
/// Making and starting containers may take longer than other calls on a busy host.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// The volumes exist.
struct Prepared<'a> {
    parts: &'a Parts,
    spec: &'a SandboxSpec,
    name: String,
    image: Image,
    volumes: Vec<SandboxVolume>,
    /// Names of the volumes that have the files of a snapshot's.
    filled: HashSet<String>,
}

/// The container exists too.
struct Made<'a> {
    prepared: Prepared<'a>,
    id: String,
}

/// Makes a sandbox and starts it.
pub(crate) async fn create(
    parts: &Parts,
    spec: &SandboxSpec,
    observer: &dyn StepObserver,
) -> Result<Created, CreateError> {
    let engine = &parts.engine;
    let facts = parts.facts().await.map_err(|error| engine.create_error("say what it is", error))?;
    let runtime = &facts.runtime;
    parts.check_isolation(runtime)?;
    let shared = async {
        let guest = async { parts.guest.ensure(engine).await.map_err(|e| engine.create_error("take the guest in", e)) };
        let network = async {
            let attached = parts.networks.attach(engine, spec.network).await;
            attached.map_err(|error| engine.create_error("make the network", error))
        };
        tokio::try_join!(guest, network)
    };
    // Both to their end: the guest's volume, cut short while it is filled, would leave its carrier behind.
    let (shared, image) = tokio::join!(shared, image::ensure(parts, spec, observer));
    let image = image?;
    let ((), attachment) = shared?;
    observer.created(spec.workspace, CreateStep::ImagePresent);
    let used = UsedImage { id: image.id.clone(), bytes: image.bytes };

    let prepared = Prepared::new(parts, spec, image).await?;
    observer.created(spec.workspace, CreateStep::VolumeCreated);
    let prepared = prepared.fill().await?;
    observer.created(spec.workspace, CreateStep::VolumeFilled);
    let made = prepared.make(&facts, &attachment).await?;
    observer.created(spec.workspace, CreateStep::SandboxCreated);
    let first_channel = made.start().await?;
    observer.created(spec.workspace, CreateStep::SandboxStarted);

    let warnings =
        [parts.runtime_warning(runtime), attachment.warning, fewer_processes(runtime, spec, host::tasks_of(parts))];
    let warnings = warnings.into_iter().flatten().collect();
    Ok(Created {
        first_channel: Some(first_channel),
        warnings,
        isolation: runtime.isolation(),
        runtime: runtime.name().to_owned(),
        image: Some(used),
    })
}

/// The reason for which a stage failed.
enum Failure {
    /// The engine, at this step.
    Step(&'static str, EngineError),
    /// The engine does not make the container.
    Make(EngineError),
    /// The container cannot be started.
    Start(EngineError),
    /// The files of the snapshot.
    Copy(SnapshotId, CopyError),
}

// === impl Prepared ===

impl<'a> Prepared<'a> {
    async fn new(parts: &'a Parts, spec: &'a SandboxSpec, image: Image) -> Result<Self, CreateError> {
        parts.forget_sandbox(spec.workspace);
        let volumes = volumes::of_sandbox(spec, &image.volumes);
        let volumes = volumes.map_err(|reason| CreateError::StartFailed { image: spec.image.clone(), reason })?;
        let name = name_of(spec.workspace);
        let prepared = Self { parts, spec, name, image, volumes, filled: HashSet::new() };
        let made = async {
            let docker = parts.engine.client().await?;
            shared_volumes::ensure(docker, spec).await?;
            for volume in &prepared.volumes {
                let own = volume.label.clone().map(|label| (labels::VOLUME.to_owned(), label));
                // Volumes may be all that is left of a sandbox, and then tell whether it was anybody's.
                let labels = prepared.owner().to_labels().into_iter().chain(own).chain(spec.warm_label());
                let request = VolumeCreateRequest {
                    name: Some(volume.name(spec.workspace)),
                    labels: Some(labels.collect()),
                    ..VolumeCreateRequest::default()
                };
                bounded(docker.create_volume(request)).await?;
            }
            // Volumes that are not wanted any more go. (No container of its is there.)
            if spec.kind == ContainerKind::McpServer {
                volumes::remove_besides(docker, spec.workspace, &prepared.volumes).await?;
            }
            Ok::<_, EngineError>(())
        };
        match made.await {
            Ok(()) => Ok(prepared),
            // It may have been made all the same when the answer did not come.
            Err(error) => Err(prepared.fail(Failure::Step("make the volumes", error)).await),
        }
    }

    /// Copies the snapshot's files, where it is made from one.
    async fn fill(mut self) -> Result<Self, CreateError> {
        let Some(snapshot) = self.spec.snapshot else { return Ok(self) };
        let copied = async {
            let docker = self.parts.engine.client().await?;
            let there = volumes::of_snapshot(docker, snapshot).await?;
            let pairs = self.volumes.iter().map(|it| (it.name_in(snapshot), it.name(self.spec.workspace)));
            let pairs = pairs.filter(|(from, _)| there.contains_key(from)).collect::<Vec<_>>();
            copy::between_volumes(self.parts, self.spec.workspace.as_uuid(), &pairs).await?;
            Ok(pairs.into_iter().map(|(_, to)| to).collect())
        };
        match copied.await {
            Ok(filled) => {
                self.filled = filled;
                Ok(self)
            }
            Err(error) => Err(self.fail(Failure::Copy(snapshot, error)).await),
        }
    }

    async fn make(self, facts: &Facts, attachment: &Attachment) -> Result<Made<'a>, CreateError> {
        let body = self.container(facts, attachment);
        let options = CreateContainerOptionsBuilder::default().name(&self.name).build();
        let made = async {
            let docker = self.parts.engine.client().await?;
            within(START_DEADLINE, docker.create_container(Some(options), body)).await
        };
        match made.await {
            Ok(created) => Ok(Made { prepared: self, id: created.id }),
            Err(error @ EngineError::Silent(_)) => {
                let made = Made { id: self.name.clone(), prepared: self };
                Err(made.fail(Failure::Step("make the container", error)).await)
            }
            Err(error) => {
                // The network may have been removed under us, or the runtime unregistered: look again next time.
                self.parts.forget().await;
                Err(self.fail(Failure::Make(error)).await)
            }
        }
    }

    async fn fail(self, failure: Failure) -> CreateError {
        self.undo().await;
        match failure {
            Failure::Step(step, error) => self.parts.engine.create_error(step, error),
            Failure::Make(error) => self.parts.engine.request_error("make the container", error),
            Failure::Start(error) if error.is_engine_down() => {
                self.parts.engine.create_error("start the container", error)
            }
            Failure::Start(error) => {
                let reason: String = error.message().chars().take(1000).collect();
                CreateError::StartFailed { image: self.spec.image.clone(), reason }
            }
            Failure::Copy(_, CopyError::Engine(error)) => self.parts.engine.create_error("copy the snapshot", error),
            Failure::Copy(snapshot, error) => CreateError::CopyFailed { snapshot, reason: error.to_string() },
        }
    }

    async fn undo(&self) {
        // Its volumes may hold what an earlier sandbox of its has left, and go when the server is deleted.
        if self.spec.kind == ContainerKind::McpServer {
            return;
        }
        let removed = async {
            if self.spec.snapshot.is_some() {
                copy::clear(self.parts.engine.client().await?, self.spec.workspace.as_uuid()).await?;
            }
            removal::volumes_of(&self.parts.engine, self.spec.workspace).await
        };
        if let Err(error) = removed.await {
            tracing::warn!(%error, sandbox = self.name, "volumes are left over; cleanup will find them by their labels");
        }
    }

    fn owner(&self) -> Owner {
        Owner { workspace: self.spec.workspace, server: self.parts.server, kind: self.spec.kind }
    }

    /// Returns the container's labels: those of the sandbox's owner, and those that say what the sandbox is made of.
    fn labels(&self) -> HashMap<String, String> {
        self.owner().to_labels().into_iter().chain(self.spec.origin_labels()).collect()
    }

    fn container(&self, facts: &Facts, attachment: &Attachment) -> ContainerCreateBody {
        let spec = self.spec;
        let mut command = ["serve", "--stdio", "--workspace-id"].map(str::to_owned).to_vec();
        command.push(spec.workspace.to_string());
        for volume in &self.volumes {
            let flag = match volume.role {
                Role::Workspace | Role::Private => continue,
                // The agent is to write there.
                Role::Named => "--own",
                Role::Declared => "--volume",
            };
            command.extend([flag.to_owned(), volume.path.clone()]);
        }
        let filled = shared_volumes::to_be_owned(spec);
        command.extend(filled.flat_map(|path| ["--own".to_owned(), path.to_owned()]));
        if let Runtime::Gvisor(_) = facts.runtime {
            // Only inside can they be counted, and a fork bomb that reaches the cgroup's limit ends the whole sandbox.
            command.extend(["--nproc".to_owned(), spec.limits.pids.to_string()]);
            // gVisor's network stack does not reach the engine's own resolver on a network of ours.
            let servers = attachment.name_servers.iter();
            command.extend(servers.flat_map(|server| ["--nameserver".to_owned(), server.to_string()]));
        }
        ContainerCreateBody {
            hostname: Some("workspace".to_owned()),
            // Root without a name, where the image does not name another: else the engine reads files of the container
            // whenever a channel is opened (`accounts.rs`).
            user: self.image.names_user.then(|| "0:0".to_owned()),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            open_stdin: Some(true),
            // The guest sees the end of its first channel when the server goes.
            stdin_once: Some(true),
            entrypoint: Some(vec![GUEST_BINARY.to_owned()]),
            cmd: Some(command),
            // The image's own check would cost an exec each time, of a program that does not run here.
            healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
            image: Some(self.image.id.clone()),
            working_dir: Some("/".to_owned()),
            stop_signal: Some("SIGTERM".to_owned()),
            labels: Some(self.labels()),
            host_config: Some(self.host_config(facts, attachment)),
            ..ContainerCreateBody::default()
        }
    }

    fn host_config(&self, facts: &Facts, attachment: &Attachment) -> HostConfig {
        let runtime = &facts.runtime;
        let spec = self.spec;
        let limits = &spec.limits;
        let ContainerUpdateBody { nano_cpus, memory, memory_swap, pids_limit, .. } =
            cgroup_limits(limits, runtime, host::tasks_of(self.parts));
        // Not for open files: the engine's own limit holds, and one above it makes the start fail.
        let no_core_dumps = ResourcesUlimits { name: Some("core".to_owned()), soft: Some(0), hard: Some(0) };
        let (dns, dns_options) = attachment.dns.clone().unzip();
        let is_filled = |volume: &SandboxVolume| self.filled.contains(&volume.name(spec.workspace));
        let volumes = self.volumes.iter().map(|volume| volume.mount(spec.workspace, is_filled(volume)));
        let shared = shared_volumes::mounts(spec, self.parts.server);
        let mut security = vec!["no-new-privileges".to_owned()];
        if let Runtime::Standard(_) = runtime
            && facts.filters_calls
        {
            security.push(seccomp::option());
        }
        let mut mounts = volumes.chain([self.parts.guest.mount()]).chain(shared).collect::<Vec<Mount>>();
        if let Runtime::Gvisor(_) = runtime {
            mounts.push(self.parts.guest.mount_at(IN_TMP));
        }
        HostConfig {
            runtime: Some(runtime.name().to_owned()),
            nano_cpus,
            memory,
            memory_swap,
            pids_limit,
            oom_score_adj: Some(OOM_SCORE),
            ulimits: Some(vec![no_core_dumps]),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
            security_opt: Some(security),
            init: Some(false),
            restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), ..RestartPolicy::default() }),
            // With json-file the engine would write all that goes through the first channel to its disk.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: Some(HashMap::new()) }),
            network_mode: Some(attachment.mode.clone()),
            dns,
            dns_options,
            mounts: Some(mounts),
            ..HostConfig::default()
        }
    }
}

// === impl Made ===

impl Made<'_> {
    async fn start(self) -> Result<ByteStream, CreateError> {
        let started = async {
            let docker = self.prepared.parts.engine.client().await?;
            let container = bounded(docker.inspect_container(&self.id, None)).await?;
            before_start::check(self.prepared.parts, container).await?;
            let channel = channel::attach(docker, &self.id).await?;
            within(START_DEADLINE, docker.start_container(&self.id, None)).await?;
            Ok(channel)
        };
        match started.await {
            Ok(channel) => Ok(channel),
            Err(error) => Err(self.fail(Failure::Start(error)).await),
        }
    }

    async fn fail(self, failure: Failure) -> CreateError {
        let removed = async { removal::container(self.prepared.parts.engine.client().await?, &self.id).await };
        if let Err(error) = removed.await {
            tracing::warn!(%error, container = self.id, "a container is left over; cleanup will find it by its label");
        }
        self.prepared.fail(failure).await
    }
}

/// Returns the number of tasks of its machine that a sandbox may have: the number that its processes may cost, but no
/// more than a share of the machine's, so that one sandbox never takes the tasks that the others need.
fn tasks(runtime: &Runtime, pids: i64, machine: Option<u64>) -> i64 {
    let wanted = match runtime {
        Runtime::Gvisor(_) => pids.saturating_mul(HOST_TASKS).saturating_add(HOST_TASKS_OF_SANDBOX),
        Runtime::Standard(_) => pids,
    };
    let share = machine.map_or(MOST_TASKS, |most| i64::try_from(most).unwrap_or(MOST_TASKS) / SHARE);
    wanted.min(share).min(MOST_TASKS)
}

/// Returns the warning for a sandbox that may have fewer processes than was asked for.
fn fewer_processes(runtime: &Runtime, spec: &SandboxSpec, machine: Option<u64>) -> Option<String> {
    let asked = i64::from(spec.limits.pids);
    let most = tasks(runtime, asked, machine);
    (most < asked).then(|| {
        format!("the workspace may have {most} processes and threads, a quarter of what its host may have, not {asked}")
    })
}

/// The limits that the engine keeps by cgroup, on a machine that may have so many tasks.
pub(crate) fn cgroup_limits(limits: &ResourceLimits, runtime: &Runtime, machine: Option<u64>) -> ContainerUpdateBody {
    let memory = i64::try_from(limits.memory_bytes).unwrap_or(i64::MAX);
    ContainerUpdateBody {
        nano_cpus: Some(nano_cpus(limits.cpu)),
        memory: Some(memory),
        // The same as the memory: no swap.
        memory_swap: Some(memory),
        pids_limit: Some(tasks(runtime, limits.pids.into(), machine)),
        ..ContainerUpdateBody::default()
    }
}

/// Cores in the engine's unit, a billionth of one.
fn nano_cpus(cores: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "a float is cut to the integer's range, and cores are few")]
    let nano_cpus = (cores * 1e9).round() as i64;
    nano_cpus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_has_no_more_than_a_share_of_its_machines_tasks() {
        let (gvisor, runc) = (Runtime::Gvisor("runsc".to_owned()), Runtime::Standard("runc".to_owned()));
        let small = Some(32_768);
        assert_eq!(tasks(&gvisor, 1_024, small), 8_192);
        assert_eq!(tasks(&gvisor, 64, small), 64 * HOST_TASKS + HOST_TASKS_OF_SANDBOX);
        assert_eq!(tasks(&runc, 256, small), 256);
        assert_eq!(tasks(&runc, 1_000_000, small), 8_192);
        assert_eq!(tasks(&gvisor, 1_000_000, None), MOST_TASKS, "the machine of a remote engine is not known");
    }
}
