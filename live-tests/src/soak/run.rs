//! One run: engine and servers started, load with faults, then the final check.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::future::join_all;
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use super::{
    database::Rows,
    dockerd::Dockerd,
    fault_log::FaultLog,
    final_check::FinalCheck,
    footprint::Footprint,
    injector::Injector,
    report::{Report, say},
    settings::Settings,
    testbed::{Store, Subject, Testbed},
    worker::Worker,
};
use crate::{Engine, Runtime, api::WORKSPACES, until};

/// Workers of each server.
const WORKERS: usize = 3;
/// The time that a warm pool may take to be full at first.
const FULL: Duration = Duration::from_secs(120);

/// Carries out one run.
///
/// # Errors
/// When a part of the harness itself failed.
pub async fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    tokio::spawn(end_with_the_outside());
    let seed = *settings.seeds.first().context("no seed")?;
    let dockerd = Dockerd::start().await?;
    say("loading the image into an engine of its own");
    dockerd.load_image().await?;
    let engine = Engine::connect()?;
    let rows = Rows::start().await?;
    let mut second = ("runsc", Runtime::Runsc);
    if !engine.has_runtime(Runtime::Runsc.name()).await? {
        say("the engine has no runtime runsc: the second server, too, makes its workspaces on runc");
        second = ("runc again", Runtime::Runc);
    }
    let subjects = vec![
        Subject::start("runc", Runtime::Runc, Store::Sqlite, &rows).await?,
        Subject::start(second.0, second.1, Store::Postgres, &rows).await?,
    ];
    let mut baselines = Vec::new();
    for subject in &subjects {
        baselines.push(baseline(subject).await?);
    }
    let deadline = Instant::now() + settings.length;
    let (fault_log, report) = (FaultLog::default(), Report::new(seed));
    let testbed = Arc::new(Testbed { seed, deadline, engine, rows, subjects, fault_log, report });
    let injector = tokio::spawn(Injector::new(Arc::clone(&testbed), settings.length, dockerd).work());
    let workers = (0..WORKERS * testbed.subjects.len()).map(|number| {
        let worker = Worker::new(Arc::clone(&testbed), number, number % testbed.subjects.len());
        tokio::spawn(worker.work())
    });
    let workers: Vec<_> = workers.collect();
    // Held until the end: the final check must find it.
    let _planted = match settings.leak {
        Some(leak) => Some(leak.plant(&testbed).await.context("planting a leak")?),
        None => None,
    };
    let dockerd = injector.await.context("the injector panicked")??;
    let left = join_all(workers).await.into_iter().collect::<Result<Vec<_>, _>>().context("a worker panicked")?;
    FinalCheck { testbed, dockerd, baselines }.reckon(left, settings).await
}

/// Returns the resources that a server holds after a little work, when it has nothing to do.
async fn baseline(subject: &Subject) -> anyhow::Result<Footprint> {
    let api = &subject.api;
    let id = api.create(json!({ "network": "outbound" })).await?;
    api.bash(&id, "true").await?;
    api.post(&format!("{WORKSPACES}/{id}/stop"), json!({})).await?.success()?;
    api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    until(&format!("the warm pool on {} is full", subject.name), FULL, || async {
        let pool = subject.pool().await?;
        Ok(if pool["ready"] == pool["target"] { Ok(()) } else { Err(pool.to_string()) })
    })
    .await?;
    Footprint::of(subject.server.lock().await.pid())
}

/// Ends this process, and with it all in its namespace, when the process outside is gone.
async fn end_with_the_outside() {
    // Ends by an error, too, when there is nobody to read from.
    tokio::io::stdin().read_to_end(&mut Vec::new()).await.ok();
    std::process::exit(130);
}
