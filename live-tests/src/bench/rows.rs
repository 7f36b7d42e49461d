//! The rows, one function each.

mod snapshots;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::{future::try_join_all, stream};
use reqwest::{Body, Method};
use serde_json::json;

use super::{
    Row, Samples, Target,
    bare_engine::{bare_create_and_starts, docker},
    measure::{millis, repeat},
    warm,
};
use crate::{Runtime, Server, ServerOptions, api::WORKSPACES, engine};

/// The bulk rows move this much.
const BULK_BYTES: usize = 256 << 20;

/// A server with one workspace, ready to be measured.
pub struct Subject {
    runtime: Runtime,
    server: Server,
    id: String,
}

type Measured = anyhow::Result<(Samples, Option<Samples>)>;

impl Subject {
    /// Starts the server and makes the workspace.
    ///
    /// # Errors
    /// When either fails.
    pub async fn on(runtime: Runtime) -> anyhow::Result<Self> {
        let server = Server::start(ServerOptions::on(runtime).with("WORKSPACE_MAX_CONCURRENT", "300")).await?;
        let id = server.api.create_default().await?;
        server.api.tool(&id, "write", json!({ "file_path": "1k", "content": "x".repeat(1023) })).await?.success()?;
        Ok(Self { runtime, server, id })
    }

    /// Every row that this build can measure, in the order of the table.
    pub async fn rows(&self) -> Vec<Row> {
        let bash_target = if self.runtime == Runtime::Runc { 1.0 / 15.0 } else { 1.0 / 4.0 };
        let mut rows = vec![
            self.row("read of 1 KB", "ms", Target::AtMost(1.0 / 50.0), self.read().await),
            self.row("bash running true", "ms", Target::AtMost(bash_target), self.bash().await),
            self.row("read of 1 KB while 256 MB upload", "ms", Target::AtMost(5.0), self.read_under_upload().await),
            self.row("cold create to ready", "ms", Target::AtMost(1.2), self.cold_create("emergent-outbound").await),
            self.row(
                "cold create, baseline on default bridge",
                "ms",
                Target::AtMost(1.2),
                self.cold_create("bridge").await,
            ),
            self.row("100 parallel calls: throughput", "call/s", Target::AtLeast(20.0), self.parallel_calls().await),
            self.row("grep over 10,000 files", "ms", Target::AtMost(1.5), self.grep().await),
            self.row("upload of 256 MB", "MB/s", Target::AtLeast(1.0), self.upload().await),
            self.row("download of 256 MB", "MB/s", Target::AtLeast(1.0), self.download().await),
        ];
        rows.extend(warm::measured(self.runtime).await);
        rows.extend(self.snapshot_rows().await);
        if self.runtime == Runtime::Runc {
            rows.push(self.row("server memory, idle", "MB", Target::OursAtMost(40.0), self.memory_idle().await));
            rows.push(self.row("server memory, 200 known", "MB", Target::OursAtMost(120.0), self.memory_known().await));
        }
        rows
    }

    fn row(&self, name: &'static str, unit: &'static str, target: Target, measured: Measured) -> Row {
        let measured = measured.map_err(|error| format!("{error:#}"));
        Row { name, runtime: self.runtime.name(), unit, target, measured }
    }

    async fn read(&self) -> Measured {
        let ours = repeat(2000, || self.read_once()).await?;
        let baseline = repeat(30, || async { self.docker_exec(&["cat", "/workspace/1k"]).await }).await?;
        Ok((ours, Some(baseline)))
    }

    async fn read_once(&self) -> anyhow::Result<()> {
        let read = json!({ "file_path": "1k" });
        self.server.api.tool(&self.id, "read", read).await?.success().map(drop)
    }

    async fn bash(&self) -> Measured {
        let call = || async {
            let result = self.server.api.tool(&self.id, "bash", json!({ "command": "true" })).await?.success()?;
            ensure!(result["exit_code"] == 0, "{result}");
            Ok(())
        };
        let ours = repeat(200, call).await?;
        let baseline = repeat(30, || async { self.docker_exec(&["true"]).await }).await?;
        Ok((ours, Some(baseline)))
    }

    async fn read_under_upload(&self) -> Measured {
        let idle = repeat(300, || self.read_once()).await?;
        let upload = self.send_bulk();
        let reads = async {
            // The upload is under way before the first read counts.
            tokio::time::sleep(Duration::from_millis(200)).await;
            repeat(100, || self.read_once()).await
        };
        let (uploaded, busy) = futures::future::join(upload, reads).await;
        uploaded?;
        Ok((busy?, Some(idle)))
    }

    /// The engine's own network is not the workspace's: it has neither a resolver nor a filter. Hence two baselines.
    async fn cold_create(&self, baseline_network: &str) -> Measured {
        let mut ours = Vec::new();
        for round in 0..11 {
            let started = Instant::now();
            let id = self.server.api.create_default().await?;
            let took = started.elapsed().as_secs_f64() * 1000.0;
            self.server.api.delete(&format!("{WORKSPACES}/{id}")).await?.success()?;
            // The first one warms caches on both sides.
            if round > 0 {
                ours.push(took);
            }
        }
        let baseline = bare_create_and_starts(&self.server, self.runtime, baseline_network).await?;
        Ok((Samples::new(ours)?, Some(baseline)))
    }

    async fn parallel_calls(&self) -> Measured {
        const CALLS: u8 = 100;
        let reads = || async { try_join_all((0..CALLS).map(|_| self.read_once())).await.map(drop) };
        // The first round opens the connections, the second counts.
        reads().await?;
        let ours = millis(reads).await?;
        let baseline = millis(|| async {
            try_join_all((0..CALLS).map(|_| self.docker_exec(&["cat", "/workspace/1k"]))).await.map(drop)
        })
        .await?;
        let per_second = |millis: f64| 1000.0 * f64::from(CALLS) / millis;
        Ok((Samples::single(per_second(ours)), Some(Samples::single(per_second(baseline)))))
    }

    async fn grep(&self) -> Measured {
        let make = "mkdir -p many && cd many && python3 -c \"\nfor n in range(10000):\n    open(f'f{n}.txt', 'w').write(f'line one\\nneedle {n}\\n' * (10 if n % 1000 == 0 else 0) + 'hay\\n' * 60)\n\"";
        self.server.api.bash(&self.id, make).await?;
        let pattern = json!({ "pattern": "needle \\d+", "path": "many" });
        let ours = repeat(20, || async {
            let found = self.server.api.tool(&self.id, "grep", pattern.clone()).await?.success()?;
            ensure!(found["matches"].as_array().is_some_and(|matches| matches.len() == 100), "{found}");
            Ok(())
        })
        .await?;
        // Timed inside, so that the baseline pays neither for the call nor for a shell.
        let timing = "python3 - <<'E'\nimport subprocess, time\nfor _ in range(22):\n    t = time.monotonic(); subprocess.run(['rg', '-n', 'needle \\\\d+', 'many'], stdout=subprocess.DEVNULL, check=True)\n    print((time.monotonic() - t) * 1000)\nE";
        let printed = self.server.api.bash(&self.id, timing).await?;
        let baseline = printed.lines().skip(2).map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        Ok((ours, Some(Samples::new(baseline)?)))
    }

    async fn send_bulk(&self) -> anyhow::Result<()> {
        let chunk = bytes::Bytes::from(noise(1 << 20));
        let chunks = stream::iter((0..BULK_BYTES >> 20).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
        let path = format!("{WORKSPACES}/{}/files/content?path=bulk", self.id);
        let request = self.server.api.request(Method::PUT, &path).body(Body::wrap_stream(chunks));
        self.server.api.send(request).await?.success().map(drop)
    }

    async fn upload(&self) -> Measured {
        let ours = repeat(5, || self.send_bulk()).await?;
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), noise(1 << 20).repeat(BULK_BYTES >> 20))?;
        let target = format!("{}:/workspace/bulk-cp", engine::container(&self.id));
        let from = file.path().display().to_string();
        let baseline = repeat(5, || async { docker(&["cp", &from, &target]).await }).await?;
        Ok((speed(&ours), Some(speed(&baseline))))
    }

    async fn download(&self) -> Measured {
        let path = format!("{WORKSPACES}/{}/files/content?path=bulk", self.id);
        let ours = repeat(5, || async {
            let mut response = self.server.api.request(Method::GET, &path).send().await?.error_for_status()?;
            let mut received = 0;
            while let Some(chunk) = response.chunk().await? {
                received += chunk.len();
            }
            ensure!(received == BULK_BYTES, "{received} bytes came");
            Ok(())
        })
        .await?;
        let folder = tempfile::tempdir()?;
        let source = format!("{}:/workspace/bulk", engine::container(&self.id));
        let to = folder.path().join("bulk").display().to_string();
        let baseline = repeat(5, || async { docker(&["cp", &source, &to]).await }).await?;
        Ok((speed(&ours), Some(speed(&baseline))))
    }

    async fn memory_idle(&self) -> Measured {
        let server = Server::on(self.runtime).await?;
        Ok((Samples::single(resident_megabytes(server.pid())?), None))
    }

    async fn memory_known(&self) -> Measured {
        let server = Server::start(ServerOptions::on(self.runtime).with("WORKSPACE_MAX_CONCURRENT", "200")).await?;
        for _ in 0..50 {
            try_join_all((0..4).map(|_| server.api.create(json!({ "network": "none" })))).await?;
        }
        Ok((Samples::single(resident_megabytes(server.pid())?), None))
    }

    async fn docker_exec(&self, command: &[&str]) -> anyhow::Result<()> {
        let container = engine::container(&self.id);
        let arguments: Vec<_> = ["exec", &container].into_iter().chain(command.iter().copied()).collect();
        docker(&arguments).await
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    next.flatten().take(length).collect()
}

/// Megabytes a second from milliseconds for the bulk; the median of one is the median of the other.
fn speed(samples: &Samples) -> Samples {
    #[expect(clippy::cast_precision_loss, reason = "256 MB is a small number")]
    let megabytes = BULK_BYTES as f64 / 1e6;
    Samples::single(megabytes / (samples.percentile(50) / 1000.0))
}

fn resident_megabytes(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("reading the server's status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(kilobytes / 1024.0)
}
