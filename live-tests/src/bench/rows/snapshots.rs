//! Snapshots of 100 MB, workspaces made from them, and forks, beside what Docker's own command line does for the same.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::{Measured, Subject};
use crate::{
    api::WORKSPACES,
    bench::{Row, Samples, Target, bare_engine::IMAGE, measure::millis},
    engine,
};

const SNAPSHOTS: &str = "/api/v1/agent/snapshots";
const ROUNDS: usize = 6;
/// Prints the longest time in milliseconds for which the program did not run, within four seconds.
const GAPS: &str = "import time\nlongest = 0\nlast = time.monotonic()\nend = last + 4\n\
    while last < end:\n    time.sleep(0.001)\n    now = time.monotonic()\n    longest = max(longest, now - last)\n    last = now\n\
    print(longest * 1000)";
/// The command that fills /workspace. The files outside are a tenth of it.
const FILL: &str = "mkdir big && for n in $(seq 100); do head -c 1000000 /dev/urandom > big/$n; done; \
                    head -c 10000000 /dev/urandom > ~/outside";

impl Subject {
    /// The rows about snapshots.
    pub(super) async fn snapshot_rows(&self) -> Vec<Row> {
        let source = match self.source().await {
            Ok(source) => source,
            Err(error) => {
                let (target, why) = (Target::AtMost(1.2), format!("{error:#}"));
                return vec![Row::missing("snapshots", self.runtime.name(), "ms", target, &why)];
            }
        };
        vec![
            self.row("snapshot of 100 MB", "ms", Target::AtMost(1.2), self.snapshot(&source).await),
            self.row("standstill of a snapshot of 100 MB", "ms", Target::AtMost(0.8), self.standstill(&source).await),
            self.row("create from a snapshot of 100 MB", "ms", Target::AtMost(1.2), self.create_from(&source).await),
            self.row("fork of 100 MB", "ms", Target::AtMost(1.2), self.fork(&source).await),
        ]
    }

    async fn source(&self) -> anyhow::Result<String> {
        let id = self.server.api.create_default().await?;
        self.server.api.bash(&id, FILL).await?;
        Ok(id)
    }

    async fn snapshot(&self, source: &str) -> Measured {
        let (mut ours, mut baseline) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let mut taken = None;
            let took = millis(async || {
                taken = Some(self.take(source).await?);
                Ok(())
            });
            let took = took.await?;
            self.forget(&taken.context("nothing was taken")?).await?;
            let bare = Bare::new(source, round);
            let bare_took = millis(async || bare.snapshot()).await?;
            // The first one warms caches on both sides.
            if round > 0 {
                ours.push(took);
                baseline.push(bare_took);
            }
        }
        Ok((Samples::new(ours)?, Some(Samples::new(baseline)?)))
    }

    /// Measures the time for which a process of the workspace does not run. The baseline is a workspace that is paused
    /// by hand around commit and copy, which the server would end a call for.
    async fn standstill(&self, source: &str) -> Measured {
        let gap = async || -> anyhow::Result<f64> {
            let gaps = json!({ "command": format!("python3 -c '{GAPS}'") });
            let result = self.server.api.tool(source, "bash", gaps).await?.success()?;
            Ok(result["stdout"].as_str().context("no stdout")?.trim().parse()?)
        };
        let (mut ours, mut baseline) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let take = async {
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                self.take(source).await
            };
            let (longest, taken) = tokio::join!(gap(), take);
            self.forget(&taken?).await?;
            let bare = Bare::new(source, round);
            let pausing = async {
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                tokio::task::block_in_place(|| bare.paused_snapshot())
            };
            let container = bare.container.clone();
            let gap = tokio::task::spawn_blocking(move || docker(&["exec", &container, "python3", "-c", GAPS]));
            let (bare_longest, paused) = tokio::join!(gap, pausing);
            paused?;
            let bare_longest: f64 = bare_longest??.trim().parse()?;
            if round > 0 {
                ours.push(longest?);
                baseline.push(bare_longest);
            }
        }
        Ok((Samples::new(ours)?, Some(Samples::new(baseline)?)))
    }

    async fn create_from(&self, source: &str) -> Measured {
        let snapshot = self.take(source).await?;
        let bare = Bare::new(source, 100);
        bare.snapshot()?;
        let (mut ours, mut baseline) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let mut made = None;
            let took = millis(async || {
                made = Some(self.server.api.create(json!({ "snapshot_id": snapshot })).await?);
                Ok(())
            });
            let took = took.await?;
            let id = made.context("nothing was made")?;
            self.server.api.delete(&format!("{WORKSPACES}/{id}")).await?.success()?;
            let copy = format!("{}-{round}", bare.name);
            let bare_took = millis(async || bare.create(&copy, self.runtime.name())).await?;
            remove(&copy);
            if round > 0 {
                ours.push(took);
                baseline.push(bare_took);
            }
        }
        self.forget(&snapshot).await?;
        Ok((Samples::new(ours)?, Some(Samples::new(baseline)?)))
    }

    async fn fork(&self, source: &str) -> Measured {
        let (mut ours, mut baseline) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let mut made = None;
            let took = millis(async || {
                let forked =
                    self.server.api.post(&format!("{WORKSPACES}/{source}/fork"), json!({})).await?.success()?;
                ensure!(forked["items"][0]["state"] == "ready", "{forked}");
                made = forked["items"][0]["id"].as_str().map(str::to_owned);
                Ok(())
            });
            let took = took.await?;
            let id = made.context("nothing was made")?;
            self.server.api.delete(&format!("{WORKSPACES}/{id}")).await?.success()?;
            let bare = Bare::new(source, round);
            let copy = format!("{}-copy", bare.name);
            let bare_took = millis(async || {
                bare.snapshot()?;
                bare.create(&copy, self.runtime.name())
            });
            let bare_took = bare_took.await;
            remove(&copy);
            if round > 0 {
                ours.push(took);
                baseline.push(bare_took?);
            }
        }
        Ok((Samples::new(ours)?, Some(Samples::new(baseline)?)))
    }

    async fn take(&self, source: &str) -> anyhow::Result<String> {
        let taken = self.server.api.post(&format!("{WORKSPACES}/{source}/snapshots"), json!({})).await?.success()?;
        ensure!(taken["state"] == "ready", "{taken}");
        Ok(taken["id"].as_str().context("no id")?.to_owned())
    }

    async fn forget(&self, snapshot: &str) -> anyhow::Result<()> {
        self.server.api.delete(&format!("{SNAPSHOTS}/{snapshot}")).await?.success().map(drop)
    }
}

/// The same by Docker's command line. Dropping it removes the image and the volume.
struct Bare {
    container: String,
    name: String,
}

impl Bare {
    fn new(source: &str, round: usize) -> Self {
        let name = format!("emergent-bench-snapshot-{}-{round}", std::process::id());
        Self { container: engine::container(source), name }
    }

    fn snapshot(&self) -> anyhow::Result<()> {
        docker(&["commit", &self.container, &self.name])?;
        copy_volume(&self.container, &self.name)
    }

    fn paused_snapshot(&self) -> anyhow::Result<()> {
        docker(&["pause", &self.container])?;
        let copied = docker(&["commit", "--pause=false", &self.container, &self.name])
            .and_then(|_| copy_volume(&self.container, &self.name));
        docker(&["unpause", &self.container])?;
        copied
    }

    fn create(&self, copy: &str, runtime: &str) -> anyhow::Result<()> {
        copy_volume(&self.name, copy)?;
        let volume = format!("{copy}:/workspace");
        let network = "--network=emergent-outbound";
        let start = ["run", "--detach", "--name", copy, "--runtime", runtime, network, "--volume", &volume];
        docker(&[start.as_slice(), &["--entrypoint", "sleep", &self.name, "1000"]].concat()).map(drop)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn copy_volume(from: &str, to: &str) -> anyhow::Result<()> {
    let (from, to) = (format!("{from}:/from:ro"), format!("{to}:/to"));
    docker(&["run", "--rm", "--network=none", "--volume", &from, "--volume", &to, IMAGE, "cp", "-a", "/from/.", "/to/"])
        .map(drop)
}

/// Removes the container, the volume and the image of this name, where they exist.
fn remove(name: &str) {
    for arguments in [["rm", "--force", name], ["volume", "rm", name], ["rmi", "--force", name]] {
        drop(docker(&arguments));
    }
}

/// Runs Docker's command line; returns its output.
fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("docker").args(arguments).stdin(Stdio::null()).output().context("running docker")?;
    ensure!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
