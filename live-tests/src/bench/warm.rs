//! The rows of the warm pool: one create after the other, and twenty at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use serde_json::json;

use super::{
    Row, Samples, Target,
    bare_engine::{bare_create_and_starts, docker},
    measure::millis,
};
use crate::{Runtime, Server, ServerOptions, api::WORKSPACES, engine, until};

/// The number of members of the pool, and of creates in a burst.
const BURST: usize = 20;

/// The time that the pool may take to be full.
const FULL_WITHIN: Duration = Duration::from_secs(180);

/// The rows of the warm pool on one runtime.
pub(super) async fn measured(runtime: Runtime) -> Vec<Row> {
    let target = if runtime == Runtime::Runc { 1.0 / 30.0 } else { 1.0 / 12.0 };
    let ready = async {
        let options = ServerOptions::on(runtime)
            .with("WORKSPACE_WARM_POOL_SIZE", BURST.to_string())
            .with("WORKSPACE_DEFAULT_MEMORY", "256M")
            .with("WORKSPACE_MAX_CONCURRENT", "100");
        Server::start(options).await
    };
    let server = match ready.await {
        Ok(server) => server,
        Err(error) => {
            let why = format!("{error:#}");
            return vec![Row::missing("warm create to first bash", runtime.name(), "ms", Target::AtMost(target), &why)];
        }
    };
    let row = |name, target, measured: anyhow::Result<(Samples, Option<Samples>)>| {
        let measured = measured.map_err(|error| format!("{error:#}"));
        Row { name, runtime: runtime.name(), unit: "ms", target, measured }
    };
    let warm = row("warm create to first bash", Target::AtMost(target), warm_create(&server, runtime).await);
    let mut rows = vec![warm];
    match burst(&server).await {
        Ok(burst) => {
            let (single, bare) = (Samples::single(burst.single_read), Samples::single(burst.bare_spawns));
            let read = Ok((Samples::single(burst.read_p95), Some(single)));
            let bash = Ok((Samples::single(burst.bash_all), Some(bare)));
            rows.push(row("burst of 20 creates: first read p95", Target::AtMost(3.0), read));
            rows.push(row("burst of 20 creates: all to first bash", Target::AtMost(1.3), bash));
        }
        Err(error) => rows.push(row("burst of 20 creates: first read p95", Target::AtMost(3.0), Err(error))),
    }
    rows
}

/// From the request to the end of the first command, with a pool that is full before each.
async fn warm_create(server: &Server, runtime: Runtime) -> anyhow::Result<(Samples, Option<Samples>)> {
    let mut ours = Vec::new();
    for _ in 0..20 {
        full(server).await?;
        let (took, id) = to_first(server, "bash").await?;
        ours.push(took);
        remove(server, &id).await?;
    }
    let baseline = bare_create_and_starts(server, runtime, "emergent-outbound").await?;
    Ok((Samples::new(ours)?, Some(baseline)))
}

struct Burst {
    single_read: f64,
    read_p95: f64,
    bash_all: f64,
    bare_spawns: f64,
}

/// Twenty creates at once, each followed by its first call, while the pool is being made good.
async fn burst(server: &Server) -> anyhow::Result<Burst> {
    let mut singles = Vec::new();
    for _ in 0..5 {
        full(server).await?;
        let (took, id) = to_first(server, "read").await?;
        singles.push(took);
        remove(server, &id).await?;
    }
    full(server).await?;
    let reads = try_join_all((0..BURST).map(|_| to_first(server, "read"))).await?;
    try_join_all(reads.iter().map(|(_, id)| remove(server, id))).await?;
    full(server).await?;
    let began = Instant::now();
    let made = try_join_all((0..BURST).map(|_| to_first(server, "bash"))).await?;
    let bash_all = began.elapsed().as_secs_f64() * 1000.0;
    // The same twenty containers, with the engine's own way to start a process in them.
    full(server).await?;
    let bare_spawns = millis(|| async {
        let spawns = made
            .iter()
            .map(|(_, id)| async move { docker(&["exec", &engine::container(id), "bash", "-c", "true"]).await });
        try_join_all(spawns).await.map(drop)
    })
    .await?;
    try_join_all(made.iter().map(|(_, id)| remove(server, id))).await?;
    let reads = Samples::new(reads.into_iter().map(|(took, _)| took).collect())?;
    let single_read = Samples::new(singles)?.percentile(50);
    Ok(Burst { single_read, read_p95: reads.percentile(95), bash_all, bare_spawns })
}

/// A create and its first call, in milliseconds; and the workspace.
async fn to_first(server: &Server, tool: &str) -> anyhow::Result<(f64, String)> {
    let began = Instant::now();
    let workspace = server.api.post(WORKSPACES, json!({})).await?.success()?;
    let id = workspace["id"].as_str().context("no id")?.to_owned();
    let call = match tool {
        "bash" => json!({ "command": "true" }),
        _ => json!({ "file_path": "/etc/hostname" }),
    };
    server.api.tool(&id, tool, call).await?.success()?;
    let took = began.elapsed().as_secs_f64() * 1000.0;
    ensure!(workspace["warm"] == true, "the pool had none: {workspace}");
    Ok((took, id))
}

async fn full(server: &Server) -> anyhow::Result<()> {
    until("the pool is full", FULL_WITHIN, || async {
        let pool = server.api.get("/api/v1/agent/warm-pool").await?.success()?["items"][0].clone();
        Ok(if pool["ready"] == pool["target"] { Ok(()) } else { Err(pool.to_string()) })
    })
    .await
}

async fn remove(server: &Server, id: &str) -> anyhow::Result<()> {
    server.api.delete(&format!("{WORKSPACES}/{id}")).await?.success().map(drop)
}
