//! Faults of sandboxes and of the engine, and the provider's reports of them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, until};
use emergent_provider::{
    CreateError, EngineEventKind, EngineState, ExitReason, Inventory as _, Lifecycle as _, Provider as _, SandboxSpec,
};
use emergent_provider_docker::DockerProvider;
use emergent_types::NetworkPolicy;
use futures::StreamExt as _;

use crate::sandbox::{Bench, Unobserved, config, full, refused, spec};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("a_kill_from_outside_is_told_of", kill_is_told),
        Case::new("running_out_of_memory_is_told_apart_from_a_kill", out_of_memory),
        Case::new("a_missing_image_is_refused_soon_and_leaves_nothing", missing_image),
        Case::new("an_engine_that_is_down_is_said_to_be_and_recovers", engine_down),
        Case::new("a_volume_without_a_container_is_listed_as_remains", remains_are_listed),
        Case::new("creates_at_once_do_not_disturb_each_other", parallel_creates),
    ]
}

async fn kill_is_told(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    let sandbox = bench.sandbox(&spec(NetworkPolicy::None)?).await?;
    let mut events = bench.provider.events().await.map_err(full)?;
    bench.engine.kill(&sandbox.workspace.to_string()).await?;
    let exited = async {
        while let Some(event) = events.next().await {
            // What came a moment before is told once more.
            if event.workspace == sandbox.workspace && event.kind != EngineEventKind::Started {
                return Some(event.kind);
            }
        }
        None
    };
    let exited = tokio::time::timeout(Duration::from_secs(10), exited).await?;
    ensure!(exited == Some(EngineEventKind::Exited(ExitReason::Code(137))), "{exited:?}");
    let error = sandbox.guest.hello().await;
    ensure!(error.is_err(), "{error:?}");
    bench.provider.destroy(sandbox.workspace, &Unobserved).await.map_err(full)
}

async fn out_of_memory(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    let mut small = spec(NetworkPolicy::None)?;
    small.limits.memory_bytes = 192 << 20;
    let sandbox = bench.sandbox(&small).await?;
    let events = bench.provider.events().await.map_err(full)?;
    let eat = sandbox.bash("python3 -c 'x = bytearray(1 << 30)'; sleep 2");
    // A container loses the process that ate it all; under gVisor that is mostly the sandbox itself.
    let told = events.any(|event| {
        let kinds = [EngineEventKind::OutOfMemory, EngineEventKind::Exited(ExitReason::OutOfMemory)];
        std::future::ready(event.workspace == sandbox.workspace && kinds.contains(&event.kind))
    });
    tokio::select! {
        told = tokio::time::timeout(Duration::from_secs(60), told) => ensure!(told?, "no word of it"),
        _ = async { drop(eat.await); std::future::pending::<()>().await } => {}
    }
    Ok(())
}

async fn missing_image(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    let mut spec = spec(NetworkPolicy::None)?;
    spec.image = "registry.invalid/nobody/nothing:1".parse()?;
    let started = Instant::now();
    let error = refused(&bench.provider, &spec).await?;
    ensure!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    ensure!(matches!(&error, CreateError::ImageUnavailable { .. }), "{error:?}");
    ensure!(error.to_string().contains("cannot be reached"), "{error}");
    let left = bench.engine.resources_of(&spec.workspace.to_string()).await?;
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

async fn engine_down(runtime: Runtime) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("docker.sock");
    let mut config = config(runtime)?;
    config.host = Some(format!("unix://{}", socket.display()));
    let provider = DockerProvider::connect(config)?;
    let started = Instant::now();
    let health = provider.health().await;
    ensure!(!health.healthy && health.message.contains("start Docker"), "{health:?}");
    let error = refused(&provider, &spec(NetworkPolicy::None)?).await?;
    ensure!(matches!(error, CreateError::EngineUnavailable { .. }), "{error:?}");
    ensure!(started.elapsed() < Duration::from_secs(10));
    // It comes up: the same address leads to an engine now.
    std::os::unix::fs::symlink("/var/run/docker.sock", &socket)?;
    let health = provider.health().await;
    ensure!(health.healthy, "{health:?}");
    Ok(())
}

/// The remains of a sandbox say whether the sandbox was anybody's: one of the warm pool is not, until it is
/// claimed.
async fn remains_are_listed(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    for (warm, is_marked, claimed) in [(false, false, true), (true, false, false), (true, true, true)] {
        let sandbox = bench.sandbox(&SandboxSpec { warm, ..spec(NetworkPolicy::None)? }).await?;
        let id = sandbox.workspace;
        if is_marked {
            bench.provider.mark_claimed(id).await.map_err(full)?;
        }
        let removed =
            std::process::Command::new("docker").args(["rm", "--force", &format!("emergent-{id}")]).output()?;
        ensure!(removed.status.success(), "{removed:?}");
        let seen = async || -> anyhow::Result<_> {
            let listed = bench.provider.list().await.map_err(full)?;
            let seen = listed.into_iter().find(|seen| seen.workspace == id).context("the remains are listed")?;
            ensure!(seen.state == EngineState::Remains, "{seen:?}");
            ensure!(bench.provider.inspect(id).await.map_err(full)?.as_ref() == Some(&seen));
            Ok(seen)
        };
        ensure!(seen().await?.claimed == Some(claimed), "warm: {warm}, marked: {is_marked}");
        bench.provider.destroy(id, &Unobserved).await.map_err(full)?;
        ensure!(bench.provider.inspect(id).await.map_err(full)?.is_none());
    }
    Ok(())
}

async fn parallel_creates(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    let (a, b) = (spec(NetworkPolicy::Outbound)?, spec(NetworkPolicy::Outbound)?);
    let (a, b) = tokio::try_join!(bench.sandbox(&a), bench.sandbox(&b))?;
    tokio::try_join!(a.output("echo a > file"), b.output("echo b > file"))?;
    ensure!(a.output("cat file").await? == "a" && b.output("cat file").await? == "b");
    for sandbox in [&a, &b] {
        bench.provider.destroy(sandbox.workspace, &Unobserved).await.map_err(full)?;
    }
    until("nothing is left", Duration::from_secs(5), async || {
        let left = bench.engine.resources_of_server(&bench.server.to_string()).await?;
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })
    .await
}
