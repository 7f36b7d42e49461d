//! One run: engine and servers started, load with faults, then the reckoning.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::future::join_all;
use serde_json::json;
use tokio::{io::AsyncReadExt as _, time::sleep};

use super::{
    agreement,
    dockerd::Dockerd,
    footprint::Footprint,
    ground::{Ground, Subject},
    injector::Injector,
    lab::inside,
    leak::{Finding, Leak, Planted},
    report::{Report, say},
    settings::Settings,
    weather::Weather,
    worker::Worker,
    workspace::Known,
};
use crate::{Engine, Runtime, api::WORKSPACES};

/// Workers of each server.
const WORKERS: usize = 3;
/// How long everything may take to come to rest when nothing is asked any more: more than a minute, after which the
/// servers compare rows and engine.
const REST: Duration = Duration::from_secs(100);

/// What remains to be reckoned with.
struct Reckoning {
    ground: Arc<Ground>,
    dockerd: Dockerd,
    baselines: Vec<Footprint>,
}

/// Carries out one run.
///
/// # Errors
/// When something of the harness's own failed.
pub async fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    tokio::spawn(end_with_the_outside());
    let seed = *settings.seeds.first().context("no seed")?;
    let dockerd = Dockerd::start().await?;
    say("loading the image into an engine of its own");
    dockerd.load_image().await?;
    let engine = Engine::connect()?;
    let mut subjects = Vec::new();
    for runtime in Runtime::ALL {
        if engine.has_runtime(runtime.name()).await? {
            subjects.push(Subject::start(runtime).await?);
        } else {
            say(&format!("the engine has no runtime {}: that half is left out", runtime.name()));
        }
    }
    let mut baselines = Vec::new();
    for subject in &subjects {
        baselines.push(baseline(subject).await?);
    }
    let deadline = Instant::now() + settings.length;
    let (weather, report) = (Weather::default(), Report::new(seed));
    let ground = Arc::new(Ground { seed, deadline, engine, subjects, weather, report });
    let injector = tokio::spawn(Injector::new(Arc::clone(&ground), settings.length, dockerd).work());
    let workers = (0..WORKERS * ground.subjects.len()).map(|number| {
        let worker = Worker::new(Arc::clone(&ground), number, number % ground.subjects.len());
        tokio::spawn(worker.work())
    });
    let workers: Vec<_> = workers.collect();
    // Held until the end: the reckoning must find it.
    let _planted = match settings.leak {
        Some(leak) => Some(leak.plant(&ground).await.context("planting a leak")?),
        None => None,
    };
    let dockerd = injector.await.context("the injector panicked")?;
    let left = join_all(workers).await.into_iter().collect::<Result<Vec<_>, _>>().context("a worker panicked")?;
    let reckoning = Reckoning { ground, dockerd, baselines };
    reckoning.reckon(left.into_iter().flatten().collect(), settings).await
}

/// What a server holds that has served a little and has nothing to do.
async fn baseline(subject: &Subject) -> anyhow::Result<Footprint> {
    let api = &subject.api;
    let id = api.create(json!({ "network": "outbound" })).await?;
    api.bash(&id, "true").await?;
    api.post(&format!("{WORKSPACES}/{id}/stop"), json!({})).await?.success()?;
    api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    Footprint::of(subject.server.lock().await.pid())
}

/// Ends this process, and with it all in its namespace, when the process outside is gone.
async fn end_with_the_outside() {
    // Ends by an error, too, when there is nobody to read from.
    tokio::io::stdin().read_to_end(&mut Vec::new()).await.ok();
    std::process::exit(130);
}

// === impl Reckoning ===

impl Reckoning {
    async fn reckon(self, left: Vec<Known>, settings: &Settings) -> anyhow::Result<ExitCode> {
        let report = &self.ground.report;
        report.note("the load has ended; comparing store, engine and API");
        // Now already, should the reckoning be interrupted.
        self.keep_logs().await?;
        let ids: BTreeSet<String> = left.iter().map(|known| known.id.clone()).collect();
        // Those that have expired may go at any moment.
        let expired: BTreeSet<_> =
            left.iter().filter(|known| known.expires.is_some()).map(|known| known.id.clone()).collect();
        self.settle(&ids, &expired, false).await?.into_iter().for_each(|finding| report.finding(finding.to_string()));
        let workers = left.into_iter().map(|known| Worker::taking_over(Arc::clone(&self.ground), known).verify());
        join_all(workers).await;
        report.note("every file, history and process is as its owner knows it; destroying all");
        for subject in &self.ground.subjects {
            for row in subject.rows().await? {
                let id = row["id"].as_str().unwrap_or_default();
                let planted = settings.leak == Some(Leak::Row) && row["name"] == "leaked";
                if !planted {
                    subject.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
                }
            }
        }
        let none = BTreeSet::new();
        self.settle(&none, &none, true).await?.into_iter().for_each(|finding| report.finding(finding.to_string()));
        if settings.prove && report.findings().is_empty() {
            self.prove().await?;
        }
        say(&report.summary());
        for (subject, baseline) in self.ground.subjects.iter().zip(&self.baselines) {
            let now = Footprint::of(subject.server.lock().await.pid())?;
            say(&format!("server on {}: at first {baseline:?}, at the end {now:?}", subject.runtime.name()));
        }
        self.keep_logs().await?;
        let findings = report.findings();
        say(&format!("seed {}: {} findings", self.ground.seed, findings.len()));
        Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// The disk goes with the namespace; what was logged on it stays.
    async fn keep_logs(&self) -> anyhow::Result<()> {
        let folder = PathBuf::from(format!("target/soak/seed-{}", self.ground.seed));
        fs::create_dir_all(&folder).context("making a folder for the logs")?;
        for subject in &self.ground.subjects {
            let name = format!("server-{}.log", subject.runtime.name());
            fs::write(folder.join(name), subject.server.lock().await.log()).context("keeping a log")?;
        }
        fs::copy(inside::folder()?.join("dockerd.log"), folder.join("dockerd.log")).context("keeping a log")?;
        say(&format!("logs: {}", folder.display()));
        Ok(())
    }

    /// Looks until nothing is left that should not be, or it stays.
    async fn settle(
        &self,
        known: &BTreeSet<String>,
        may_be_gone: &BTreeSet<String>,
        at_rest: bool,
    ) -> anyhow::Result<Vec<Finding>> {
        let deadline = Instant::now() + REST;
        loop {
            let findings = self.findings(known, may_be_gone, at_rest).await?;
            if findings.is_empty() || Instant::now() > deadline {
                return Ok(findings);
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn findings(
        &self,
        known: &BTreeSet<String>,
        may_be_gone: &BTreeSet<String>,
        at_rest: bool,
    ) -> anyhow::Result<Vec<Finding>> {
        let mut tolerated = vec![1, std::process::id()];
        tolerated.extend(self.dockerd.pids()?);
        let mut pids = Vec::new();
        for subject in &self.ground.subjects {
            pids.push(subject.server.lock().await.pid());
        }
        tolerated.extend(&pids);
        let mut there = BTreeSet::new();
        for subject in &self.ground.subjects {
            there.extend(subject.rows().await?.iter().filter_map(|row| row["id"].as_str().map(str::to_owned)));
        }
        let known = known.iter().filter(|id| there.contains(*id) || !may_be_gone.contains(*id)).cloned().collect();
        let mut findings = agreement::findings(&self.ground, &known, &tolerated).await?;
        if at_rest {
            for ((subject, baseline), pid) in self.ground.subjects.iter().zip(&self.baselines).zip(pids) {
                let who = format!("the server on {}", subject.runtime.name());
                findings.extend(Footprint::of(pid)?.grown_since(baseline, &who));
            }
        }
        Ok(findings)
    }

    /// Plants every kind of leak, one after the other, and sees each named; then none.
    async fn prove(&self) -> anyhow::Result<()> {
        let (report, none) = (&self.ground.report, BTreeSet::new());
        for leak in Leak::plantable() {
            let planted: Planted = leak.plant(&self.ground).await.with_context(|| format!("planting: {leak}"))?;
            let findings = self.findings(&none, &none, true).await?;
            planted.remove(&self.ground).await.with_context(|| format!("removing what was planted: {leak}"))?;
            match findings.iter().find(|finding| finding.leak == leak) {
                Some(finding) => report.note(&format!("planted a leak: {finding}")),
                None => report.finding(format!("a planted leak was not named: {leak}")),
            }
        }
        self.settle(&none, &none, true).await?.into_iter().for_each(|finding| report.finding(finding.to_string()));
        Ok(())
    }
}
