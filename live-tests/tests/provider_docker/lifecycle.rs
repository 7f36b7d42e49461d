//! Making, starting, stopping, freezing and removing sandboxes, and their remains.

use std::{io::Write as _, sync::Mutex, time::Duration};

use anyhow::ensure;
use emergent_guest_proto::RunAs;
use emergent_live_tests::{Case, Image, Runtime, until};
use emergent_provider::{
    Channels as _, ContainerKind, EngineState, ExitReason, Inventory as _, Isolation, Lifecycle as _, Provider as _,
    SandboxSpec,
};
use emergent_provider_docker::GuestBinary;
use emergent_types::{
    CreateStep, DestroyStep, NetworkPolicy, PullProgress, SandboxId, SnapshotId, SnapshotStep, StepObserver,
};
use futures::future::try_join_all;
use sha2::{Digest as _, Sha256};

use crate::sandbox::{Bench, Unobserved, full, guest_binary, spec};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("a_sandbox_lives_through_all_its_states_and_leaves_nothing", lives_through_all_states),
        Case::new("the_container_is_labelled_and_says_what_runs_it", is_labelled),
        Case::new("the_steps_are_told_in_order", steps_in_order),
        Case::new("files_outside_the_volume_survive_a_stop", root_survives),
        Case::new("declared_volumes_outlive_the_sandbox_of_a_hosted_server", declared_volumes),
        Case::new("a_dropped_channel_leaves_no_process_inside", dropped_channels),
        Case::new("a_carrier_that_a_dead_server_left_does_not_hold_up_its_next_life", carrier_left_behind),
        Case::new("the_guest_volume_is_filled_once_by_ten_creates_at_once", filled_once),
    ]
}

async fn lives_through_all_states(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    let provider = &bench.provider;
    let sandbox = bench.sandbox(&spec(NetworkPolicy::None)?).await?;
    let id = sandbox.workspace;
    let state = async || Ok::<_, anyhow::Error>(provider.inspect(id).await.map_err(full)?.map(|seen| seen.state));

    ensure!(state().await? == Some(EngineState::Running));
    sandbox.output("echo kept > file").await?;
    sandbox.guest.suspend();
    for _ in 0..2 {
        provider.pause(id).await.map_err(full)?;
        ensure!(state().await? == Some(EngineState::Paused));
    }
    for _ in 0..2 {
        provider.unpause(id).await.map_err(full)?;
    }
    ensure!(sandbox.output("cat file").await? == "kept");

    for _ in 0..2 {
        provider.stop(id).await.map_err(full)?;
    }
    ensure!(state().await? == Some(EngineState::Exited(ExitReason::Code(0))), "{:?}", state().await?);
    let boot = sandbox.guest.last_hello().map(|hello| hello.boot_id.clone());
    let channel = provider.start(id).await.map_err(full)?;
    sandbox.guest.set_first_channel(channel.ok_or_else(|| anyhow::anyhow!("no channel from the start"))?);
    ensure!(provider.start(id).await.map_err(full)?.is_none(), "it runs already");
    ensure!(sandbox.output("cat file").await? == "kept");
    ensure!(sandbox.guest.last_hello().map(|hello| hello.boot_id.clone()) != boot, "the guest is a new one");

    provider.pause(id).await.map_err(full)?;
    for _ in 0..2 {
        provider.destroy(id, &Unobserved).await.map_err(full)?;
    }
    ensure!(state().await?.is_none());
    let left = bench.engine.resources_of(&id.to_string()).await?;
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

async fn is_labelled(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    let sandbox = bench.sandbox(&spec(NetworkPolicy::None)?).await?;
    let container = bench.engine.inspect(&sandbox.workspace.to_string()).await?;
    let labels = container.config.and_then(|config| config.labels).unwrap_or_default();
    ensure!(labels.get("emergent.workspace") == Some(&sandbox.workspace.to_string()), "{labels:?}");
    ensure!(labels.get("emergent.server") == Some(&bench.server.to_string()), "{labels:?}");
    ensure!(labels.get("emergent.kind").is_some_and(|kind| kind == "agent_workspace"), "{labels:?}");
    ensure!(sandbox.runtime == runtime.name());
    let warns = runtime == Runtime::Runc;
    let isolation = if warns { Isolation::Container } else { Isolation::Gvisor };
    ensure!(sandbox.isolation == isolation);
    let warned = sandbox.warnings.iter().any(|warning| warning.starts_with("security:"));
    ensure!(warned == warns, "{:?}", sandbox.warnings);
    let health = bench.provider.health().await;
    ensure!(health.healthy, "{health:?}");
    ensure!(health.warnings.iter().any(|warning| warning.starts_with("security:")) == warns, "{health:?}");
    ensure!(bench.provider.capabilities().isolation == isolation);
    ensure!(sandbox.output("echo $GREETING").await? == "hello there");
    let listed = bench.provider.list().await.map_err(full)?;
    let seen = listed.iter().find(|seen| seen.workspace == sandbox.workspace);
    ensure!(seen.is_some_and(|seen| seen.state == EngineState::Running && seen.server == bench.server));
    Ok(())
}

/// A hosted server's container is made anew when it is changed.
async fn declared_volumes(runtime: Runtime) -> anyhow::Result<()> {
    let reference = format!("emergent-test/declared-{}:1", runtime.name());
    let declared =
        Image::with(&reference, "RUN mkdir /data /other && chmod 777 /data /other\nVOLUME /data\nVOLUME /other")?;
    let bench = Bench::new(runtime)?;
    let spec = SandboxSpec {
        kind: ContainerKind::McpServer,
        image: declared.reference.parse()?,
        ..spec(NetworkPolicy::None)?
    };
    let sandbox = bench.sandbox(&spec).await?;
    sandbox.output("echo kept > /data/file && echo kept > /other/file").await?;
    bench.provider.discard(spec.workspace).await.map_err(full)?;
    let again = bench.sandbox(&spec).await?;
    ensure!(again.output("cat /data/file /other/file").await? == "kept\nkept");
    // What another image does not declare goes.
    bench.provider.discard(spec.workspace).await.map_err(full)?;
    let less = Image::with(&format!("emergent-test/declared-less-{}:1", runtime.name()), "VOLUME /data")?;
    let again = bench.sandbox(&SandboxSpec { image: less.reference.parse()?, ..spec.clone() }).await?;
    ensure!(again.output("cat /data/file; test -e /other || echo gone").await? == "kept\ngone");
    bench.provider.destroy(spec.workspace, &Unobserved).await.map_err(full)?;
    ensure!(bench.engine.resources_of(&spec.workspace.to_string()).await?.is_empty());
    Ok(())
}

#[derive(Default)]
struct Steps(Mutex<Vec<&'static str>>);

impl StepObserver for Steps {
    fn created(&self, _: SandboxId, step: CreateStep) {
        self.0.lock().unwrap().push(step.name());
    }

    fn destroyed(&self, _: SandboxId, step: DestroyStep) {
        self.0.lock().unwrap().push(step.name());
    }

    fn snapshot_taken(&self, _: SnapshotId, _: SnapshotStep) {}
    fn pulling(&self, _: SandboxId, _: PullProgress) {}
}

async fn steps_in_order(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    let spec = spec(NetworkPolicy::None)?;
    let steps = Steps::default();
    bench.provider.create(&spec, &steps).await.map_err(full)?;
    bench.provider.destroy(spec.workspace, &steps).await.map_err(full)?;
    let create = &CreateStep::ALL[1..6];
    let destroy = &DestroyStep::ALL[1..3];
    let expected: Vec<_> =
        create.iter().map(|step| step.name()).chain(destroy.iter().map(|step| step.name())).collect();
    ensure!(*steps.0.lock().unwrap() == expected);
    Ok(())
}

async fn root_survives(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    let sandbox = bench.sandbox(&spec(NetworkPolicy::None)?).await?;
    sandbox.bash_as("echo installed > /opt/program", RunAs::Root).await?;
    bench.provider.stop(sandbox.workspace).await.map_err(full)?;
    bench.provider.start(sandbox.workspace).await.map_err(full)?;
    let survives = sandbox.bash("cat /opt/program").await?.stdout.trim() == "installed";
    // What the probe finds out in the background is what is the case.
    let probed = until("the probe's answer", Duration::from_secs(40), async || {
        let health = bench.provider.health().await;
        ensure!(health.healthy, "{health:?}");
        let says_lost = health.warnings.iter().any(|warning| warning.starts_with("persistence:"));
        Ok(if says_lost != survives { Ok(()) } else { Err(format!("{health:?}")) })
    });
    probed.await?;
    ensure!(bench.provider.capabilities().persistence == survives);
    Ok(())
}

async fn dropped_channels(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    let sandbox = bench.sandbox(&spec(NetworkPolicy::None)?).await?;
    let count = "grep -l connect /proc/[0-9]*/cmdline 2>/dev/null | grep -v self | wc -l";
    let before = sandbox.output(count).await?;
    let mut channels = Vec::new();
    for _ in 0..5 {
        channels.push(bench.provider.open(sandbox.workspace).await.map_err(full)?);
    }
    until("five more processes", Duration::from_secs(10), async || {
        let now = sandbox.output(count).await?;
        Ok(if now != before { Ok(()) } else { Err(now) })
    })
    .await?;
    drop(channels);
    until("no process left", Duration::from_secs(10), async || {
        let now = sandbox.output(count).await?;
        Ok(if now == before { Ok(()) } else { Err(format!("{now}, and {before} before")) })
    })
    .await
}

async fn carrier_left_behind(runtime: Runtime) -> anyhow::Result<()> {
    let (guest, volume) = unseen_guest()?;
    let bench = Bench::with(runtime, |config| config.guest_binary = guest)?;
    // What a server leaves that is killed in the middle: the empty volume, and the carrier.
    let docker = |arguments: &[&str]| std::process::Command::new("docker").args(arguments).output();
    let label = format!("emergent.server={}", bench.server);
    let mount = format!("{volume}:/.emergent");
    let carrier = format!("{volume}-carrier");
    let image = spec(NetworkPolicy::None)?.image.to_string();
    let made = docker(&["create", "--name", &carrier, "--label", &label, "--volume", &mount, &image, "true"])?;
    ensure!(made.status.success(), "{made:?}");
    let started = std::time::Instant::now();
    bench.sandbox(&spec(NetworkPolicy::None)?).await?;
    ensure!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    drop(bench);
    ensure!(docker(&["volume", "rm", &volume])?.status.success());
    Ok(())
}

/// A guest that no engine has seen, and the name of its volume. Bytes after the end of an executable do not change it.
fn unseen_guest() -> anyhow::Result<(GuestBinary, String)> {
    let mut binary = std::fs::read(guest_binary()?)?;
    binary.extend_from_slice(SandboxId::generate().as_uuid().as_bytes());
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(&binary)?;
    let hash = hex::encode(&Sha256::digest(&binary)[..8]);
    // It stays open when its name goes.
    Ok((GuestBinary::open(file.path())?, format!("emergent-guest-{hash}")))
}

async fn filled_once(runtime: Runtime) -> anyhow::Result<()> {
    let (guest, guest_volume) = unseen_guest()?;
    let first = Bench::with(runtime, |config| config.guest_binary = guest.clone())?;
    let second = Bench::with(runtime, |config| config.guest_binary = guest)?;
    let specs = (0..10).map(|_| spec(NetworkPolicy::None)).collect::<Result<Vec<_>, _>>()?;
    let sandboxes = specs.iter().enumerate().map(|(index, spec)| {
        let bench = if index % 2 == 0 { &first } else { &second };
        async move {
            let sandbox = bench.sandbox(spec).await?;
            sandbox.output("ls -i /.emergent/emergent-guest 2>/dev/null || find /.emergent -printf '%i %p\\n'").await
        }
    });
    let inodes = try_join_all(sandboxes).await?;
    let inodes: Vec<_> = inodes.iter().map(|listing| listing.split_whitespace().next()).collect();
    if runtime == Runtime::Runc {
        ensure!(inodes.iter().all(|inode| inode == &inodes[0]), "the binary was replaced meanwhile: {inodes:?}");
    }
    let volume = specs[0].workspace.to_string();
    let mounts = first.engine.inspect(&volume).await?.mounts.unwrap_or_default();
    let guest = mounts.iter().find(|mount| mount.destination.as_deref() == Some("/.emergent"));
    ensure!(guest.is_some_and(|mount| mount.rw == Some(false)), "{mounts:?}");
    drop((first, second));
    let removed = std::process::Command::new("docker").args(["volume", "rm", &guest_volume]).output()?;
    ensure!(removed.status.success(), "{removed:?}");
    Ok(())
}
