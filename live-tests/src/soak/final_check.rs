//! The end of a run: everything comes to rest, is compared with the owners' knowledge, and is removed; nothing is left.

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::future::join_all;
use tokio::time::sleep;

use super::{
    agreement::{self, Expected, Own},
    dockerd::Dockerd,
    footprint::Footprint,
    leak::{Finding, Leak, Planted},
    report::say,
    run_folder,
    settings::Settings,
    testbed::Testbed,
    worker::{Left, Worker},
};

/// The time that everything may take to come to rest when no requests are sent any more: more than a minute, after
/// which the servers compare rows and engine.
const REST: Duration = Duration::from_secs(150);

/// The facts that the final check needs.
pub struct FinalCheck {
    /// The state that all parts of the run share.
    pub testbed: Arc<Testbed>,
    /// The engine.
    pub dockerd: Dockerd,
    /// The resources that each server held before the load.
    pub baselines: Vec<Footprint>,
}

// === impl FinalCheck ===

impl FinalCheck {
    /// Compares the workspaces and snapshots that the workers have left with the real ones; reports the run's findings.
    ///
    /// # Errors
    /// When something could not be looked at.
    pub async fn reckon(self, left: Vec<Left>, settings: &Settings) -> anyhow::Result<ExitCode> {
        let report = &self.testbed.report;
        report.note("the load has ended; comparing store, engine and API");
        // Now already, should the final check be interrupted.
        self.keep_logs().await?;
        self.settle(&expected(&left), false).await?;
        report.note("comparing every file, history, process and session with what its owner knows, and destroying it");
        join_all(self.by_server(left).into_iter().enumerate().map(|(server, left)| {
            let mut worker = Worker::taking_over(Arc::clone(&self.testbed), server);
            async move { worker.verify(left).await }
        }))
        .await;
        report.note("all is destroyed; looking for what is left");
        self.settle(&Expected::default(), true).await?;
        if settings.prove && report.findings().is_empty() {
            self.prove().await?;
        }
        say(&report.summary());
        for (subject, baseline) in self.testbed.subjects.iter().zip(&self.baselines) {
            let now = Footprint::of(subject.server.lock().await.pid())?;
            let name = subject.name;
            say(&format!("server on {name}: at first {baseline:?}, at the end {now:?}"));
            say(&format!("warm pool on {name}, since its last start: {}", subject.pool().await?));
        }
        self.keep_logs().await?;
        let findings = report.findings();
        say(&format!("seed {}: {} findings", self.testbed.seed, findings.len()));
        Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Sorts the workspaces and snapshots by their servers.
    fn by_server(&self, left: Vec<Left>) -> Vec<Left> {
        let mut sorted: Vec<Left> = self.testbed.subjects.iter().map(|_| Left::default()).collect();
        for Left { workspaces, snapshots } in left {
            workspaces.into_iter().for_each(|known| sorted[known.server].workspaces.push(known));
            snapshots.into_iter().for_each(|kept| sorted[kept.server].snapshots.push(kept));
        }
        sorted
    }

    /// Keeps the logs, which are on a disk that is removed with the namespace.
    async fn keep_logs(&self) -> anyhow::Result<()> {
        let folder = PathBuf::from(format!("target/soak/seed-{}", self.testbed.seed));
        fs::create_dir_all(&folder).context("making a folder for the logs")?;
        for subject in &self.testbed.subjects {
            let name = format!("server-{}.log", subject.name.replace(' ', "-"));
            fs::write(folder.join(name), subject.server.lock().await.log()).context("keeping a log")?;
        }
        fs::copy(run_folder::folder()?.join("dockerd.log"), folder.join("dockerd.log")).context("keeping a log")?;
        say(&format!("logs: {}", folder.display()));
        Ok(())
    }

    /// Looks until nothing is left that should not be; the things that stay are findings.
    async fn settle(&self, expected: &Expected, at_rest: bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + REST;
        loop {
            let findings = self.findings(expected, at_rest).await?;
            if findings.is_empty() || Instant::now() > deadline {
                findings.into_iter().for_each(|finding| self.testbed.report.finding(finding.to_string()));
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn findings(&self, expected: &Expected, at_rest: bool) -> anyhow::Result<Vec<Finding>> {
        let mut pids = Vec::new();
        for subject in &self.testbed.subjects {
            pids.push(subject.server.lock().await.pid());
        }
        let mut own = Own { pids: self.dockerd.pids(), trees: self.dockerd.bereaved() };
        own.pids.extend([1, std::process::id()].iter().chain(&pids));
        own.trees.extend(self.testbed.rows.pids()?);
        let mut findings = agreement::findings(&self.testbed, expected, own).await?;
        if at_rest {
            for ((subject, baseline), pid) in self.testbed.subjects.iter().zip(&self.baselines).zip(pids) {
                findings.extend(Footprint::of(pid)?.grown_since(baseline, &format!("the server on {}", subject.name)));
            }
        }
        Ok(findings)
    }

    /// Plants every kind of leak, one after the other, and sees each named; then none.
    async fn prove(&self) -> anyhow::Result<()> {
        let (report, none) = (&self.testbed.report, Expected::default());
        for leak in Leak::plantable() {
            let planted: Planted = leak.plant(&self.testbed).await.with_context(|| format!("planting: {leak}"))?;
            let findings = self.findings(&none, true).await?;
            planted.remove(&self.testbed).await.with_context(|| format!("removing what was planted: {leak}"))?;
            match findings.iter().find(|finding| finding.leak == leak) {
                Some(finding) => report.note(&format!("planted a leak: {finding}")),
                None => report.finding(format!("a planted leak was not named: {leak}")),
            }
        }
        self.settle(&none, true).await
    }
}

/// Returns the ids of all that the workers know.
fn expected(left: &[Left]) -> Expected {
    let workspaces = || left.iter().flat_map(|left| &left.workspaces);
    let expired = workspaces().filter(|known| known.expires.is_some());
    let snapshots = left.iter().flat_map(|left| &left.snapshots);
    Expected {
        workspaces: workspaces().map(|known| known.id.clone()).collect(),
        expired: expired.map(|known| known.id.clone()).collect(),
        snapshots: snapshots.map(|kept| kept.id.clone()).collect(),
    }
}
