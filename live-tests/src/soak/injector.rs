//! Faults that strike everyone: the engine, the servers, the disk, the rows. One at a time, each until all is well
//! again.

use std::{
    fs::File,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bollard::models::ContainerStateStatusEnum;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use rustix::{
    fs::{FallocateFlags, fallocate, fstatvfs},
    process::{Pid, Signal, kill_process},
};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{
    connections,
    dockerd::{self, Dockerd},
    fault::Fault,
    run_folder,
    testbed::{Store, Subject, Testbed},
};
use crate::until;

/// How long it may take until all is well after a fault is over.
const RECOVERY: Duration = Duration::from_secs(120);
/// After this time without an answer about its containers the engine stands still.
const STANDS_STILL: Duration = Duration::from_secs(6);
/// How long a disk stays full.
const FULL: Duration = Duration::from_secs(4);
/// The time that a server may take to record data that the store did not take: it tries again every five seconds, and
/// PostgreSQL that found the disk full has to recover first.
const RECORDED: Duration = Duration::from_secs(14);
/// How often a server's channels are cut in a row.
const CUTS: usize = 8;
/// How long to wait for a change under which to cut them.
const CHANGE: Duration = Duration::from_secs(5);
/// After this share of the load no server is started again, so that leaks of the last ones have time to show.
const LAST_RESTART: f64 = 0.6;
/// The faults that strike everyone.
const KINDS: [Fault; 7] = [
    Fault::ChannelsCut,
    Fault::EngineKilled,
    Fault::ServerKilled,
    Fault::ServerTerminated,
    Fault::ServerFrozen,
    Fault::DiskFull,
    Fault::DatabaseStopped,
];

/// The maker of the faults.
pub struct Injector {
    testbed: Arc<Testbed>,
    length: Duration,
    random: StdRng,
    dockerd: Arc<Mutex<Dockerd>>,
}

impl Injector {
    /// Makes an injector with random numbers of its own.
    pub fn new(testbed: Arc<Testbed>, length: Duration, dockerd: Dockerd) -> Self {
        let random = StdRng::seed_from_u64(testbed.seed);
        Self { testbed, length, random, dockerd: Arc::new(Mutex::new(dockerd)) }
    }

    /// Makes faults until the load ends; every kind once before any twice. Hands the engine back.
    ///
    /// # Errors
    /// When the task that watches the engine has panicked.
    pub async fn work(mut self) -> anyhow::Result<Dockerd> {
        let watch = tokio::spawn(keep_engine_going(Arc::clone(&self.testbed), Arc::clone(&self.dockerd)));
        let mut bag = Vec::new();
        while self.testbed.goes_on() {
            let gap = self.random.random_range(1_500..6_000);
            sleep(Duration::from_millis(gap)).await;
            if bag.is_empty() {
                bag = KINDS.to_vec();
                bag.shuffle(&mut self.random);
            }
            let Some(fault) = bag.pop() else { continue };
            let restarts = matches!(fault, Fault::ServerKilled | Fault::ServerTerminated);
            if restarts && self.testbed.progress(self.length) > LAST_RESTART && self.testbed.report.times(fault) > 0 {
                continue;
            }
            if self.testbed.goes_on() {
                self.strike(fault).await;
            }
        }
        watch.await.context("the engine's watch panicked")?;
        let dockerd = Arc::into_inner(self.dockerd).context("somebody still has the engine")?;
        Ok(dockerd.into_inner())
    }

    /// Makes one fault, and waits until all is well again.
    async fn strike(&mut self, fault: Fault) {
        let testbed = Arc::clone(&self.testbed);
        let some = self.random.random_range(0..testbed.subjects.len());
        let struck = match fault {
            Fault::ChannelsCut | Fault::ServerKilled | Fault::ServerTerminated | Fault::ServerFrozen => Some(some),
            Fault::DatabaseStopped => testbed.subjects.iter().position(|subject| subject.store == Store::Postgres),
            _ => None,
        };
        testbed.report.struck(fault);
        testbed.fault_log.strikes(fault, struck);
        let subject = &testbed.subjects[some];
        let done = match fault {
            Fault::ChannelsCut => self.cut_channels(subject).await,
            Fault::EngineKilled => self.kill_engine().await,
            Fault::ServerKilled => kill_server(subject).await,
            Fault::ServerTerminated => terminate_server(subject).await,
            Fault::ServerFrozen => self.freeze_server(subject).await,
            Fault::DatabaseStopped => self.stop_database().await,
            _ => fill_disk().await,
        };
        let over = Instant::now();
        let well = match done {
            Ok(()) => all_is_well(&testbed).await,
            Err(error) => Err(error),
        };
        match well {
            Ok(()) => {
                testbed.report.recovered(fault, over.elapsed());
                testbed.report.seen(fault, "recovered");
            }
            Err(error) => testbed.report.finding(format!("after {}: {error:#}", fault.name())),
        }
        testbed.fault_log.ended(fault);
    }

    /// Breaks a server's connections to the engine some times, each time while it carries out a change.
    async fn cut_channels(&mut self, subject: &Subject) -> anyhow::Result<()> {
        let socket = dockerd::HOST.trim_start_matches("unix://");
        for _ in 0..CUTS {
            let (between, into) = (self.random.random_range(50..800), self.random.random_range(0..4_000));
            sleep(Duration::from_millis(between)).await;
            // When the load has ended, nobody changes anything any more.
            let under_way = timeout(CHANGE, subject.changes.some()).await.is_ok();
            // Some way into the change: before it is sent, while it happens, before its answer.
            sleep(Duration::from_micros(into)).await;
            let pid = subject.server.lock().await.pid();
            let count = connections::cut(pid, Path::new(socket)).context("cutting a server's channels")?;
            let seen = match (count, under_way) {
                (0, _) => "there was no connection",
                (_, true) => "cut during a change",
                (_, false) => "cut during no change",
            };
            self.testbed.report.seen(Fault::ChannelsCut, seen);
        }
        Ok(())
    }

    async fn kill_engine(&mut self) -> anyhow::Result<()> {
        let mut dockerd = self.dockerd.lock().await;
        let orphans = dockerd.kill().await?;
        self.testbed.report.seen(Fault::EngineKilled, &format!("{orphans} sandboxes ran"));
        let away = self.random.random_range(500..5_000);
        sleep(Duration::from_millis(away)).await;
        dockerd.restart().await
    }

    async fn stop_database(&mut self) -> anyhow::Result<()> {
        self.testbed.rows.stop()?;
        let away = self.random.random_range(500..6_000);
        sleep(Duration::from_millis(away)).await;
        self.testbed.rows.start_again()?;
        sleep(RECORDED).await;
        Ok(())
    }

    async fn freeze_server(&mut self, subject: &Subject) -> anyhow::Result<()> {
        let pid = subject.server.lock().await.pid();
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("the server's process id")?;
        kill_process(pid, Signal::STOP).context("stopping the server")?;
        let frozen = self.random.random_range(1_000..6_000);
        sleep(Duration::from_millis(frozen)).await;
        kill_process(pid, Signal::CONT).context("continuing the server")
    }
}

/// Restarts an engine that stands still: dockerd 20.10 can hold a container's lock for ever, so that everyone who asks
/// about the container waits. That counts as one more of the engine's deaths.
async fn keep_engine_going(testbed: Arc<Testbed>, dockerd: Arc<Mutex<Dockerd>>) {
    while testbed.goes_on() {
        sleep(Duration::from_secs(1)).await;
        if !stands_still(&testbed).await {
            continue;
        }
        testbed.fault_log.strikes(Fault::EngineKilled, None);
        let mut dockerd = dockerd.lock().await;
        // It may have been restarted meanwhile.
        if stands_still(&testbed).await {
            testbed.report.seen(Fault::EngineKilled, "Docker stood still over a container, and was restarted");
            let restarted = async {
                dockerd.kill().await?;
                dockerd.restart().await
            };
            if let Err(error) = restarted.await {
                testbed.report.finding(format!("Docker stood still, and could not be restarted: {error:#}"));
            }
        }
        if let Err(error) = all_is_well(&testbed).await {
            testbed.report.finding(format!("after Docker stood still: {error:#}"));
        }
        testbed.fault_log.ended(Fault::EngineKilled);
    }
}

async fn stands_still(testbed: &Testbed) -> bool {
    timeout(STANDS_STILL, testbed.engine.containers()).await.is_err()
}

async fn kill_server(subject: &Subject) -> anyhow::Result<()> {
    let mut server = subject.server.lock().await;
    server.kill()?;
    server.restart(|_| {}).await
}

async fn terminate_server(subject: &Subject) -> anyhow::Result<()> {
    let mut server = subject.server.lock().await;
    server.terminate().await?;
    server.restart(|_| {}).await
}

/// Takes all space of the disk that the engine and the servers share, for a while.
async fn fill_disk() -> anyhow::Result<()> {
    let path = run_folder::disk()?.join("ballast");
    let ballast = File::create(&path).context("making a file")?;
    let space = fstatvfs(&ballast).context("asking for the disk's space")?;
    let (mut offset, mut piece) = (0, space.f_bavail * space.f_frsize);
    while piece >= space.f_frsize {
        // What does not fit is tried in smaller pieces, until not a block is left.
        match fallocate(&ballast, FallocateFlags::empty(), offset, piece) {
            Ok(()) => offset += piece,
            Err(_) => piece /= 2,
        }
    }
    sleep(FULL).await;
    std::fs::remove_file(&path).context("emptying the disk")?;
    // Nothing shows from outside which states the servers have yet to record.
    sleep(RECORDED).await;
    Ok(())
}

/// Waits until every server is ready, has a healthy provider, and shows nothing as ready that does not run.
async fn all_is_well(testbed: &Testbed) -> anyhow::Result<()> {
    for subject in &testbed.subjects {
        until(&format!("the server on {} recovers", subject.name), RECOVERY, || async {
            Ok(is_well(testbed, subject).await.map_err(|error| format!("{error:#}")))
        })
        .await?;
    }
    Ok(())
}

async fn is_well(testbed: &Testbed, subject: &Subject) -> anyhow::Result<()> {
    subject.api.get("/ready").await?.success()?;
    let health = subject.api.get("/health").await?.success()?;
    ensure!(health["status"] == "ok", "{health}");
    let containers = testbed.engine.containers().await?;
    let runs = |id: &str| {
        let name = format!("/emergent-{id}");
        let container = containers.iter().find(|container| container.name.as_ref() == Some(&name));
        let state = container.and_then(|container| container.state.as_ref()).and_then(|state| state.status);
        state == Some(ContainerStateStatusEnum::RUNNING)
    };
    for row in subject.workspaces().await? {
        let id = row["id"].as_str().unwrap_or_default();
        ensure!(row["state"] != "ready" || runs(id), "{id} is shown as ready and does not run");
    }
    Ok(())
}
