//! A manager process with a base directory of its own.

use std::{
    fs::{self, File},
    net::TcpListener,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use reqwest::{Client, Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long the manager may take to answer after its start: its first answer about health boots a machine.
const READY: Duration = Duration::from_secs(120);

/// Memory of the machines here, in MiB: small, since all of it goes to disk with a pause.
const MEMORY_MB: u32 = 256;

/// A manager process.
pub(crate) struct Manager {
    child: Child,
    base: TempDir,
    port: u16,
    client: Client,
}

/// The directory with what machines boot.
pub(crate) fn images() -> Option<PathBuf> {
    std::env::var_os("LIVE_MICROVM").map(PathBuf::from)
}

impl Manager {
    /// Starts a manager and waits until it answers.
    pub(crate) async fn start(variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        // A socket's path has 107 bytes at most.
        let base = tempfile::Builder::new().prefix("emvm-").tempdir_in("/tmp").context("making a base directory")?;
        let images = images().context("LIVE_MICROVM is not set")?;
        for part in ["kernels", "rootfs"] {
            fs::create_dir(base.path().join(part))?;
            for file in fs::read_dir(images.join(part)).context("looking for what machines boot")?.flatten() {
                symlink(file.path(), base.path().join(part).join(file.file_name()))?;
            }
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let client = Client::builder().timeout(Duration::from_secs(180)).build()?;
        let mut manager = Self { child: spawn(base.path(), port, variables)?, base, port, client };
        manager.await_ready().await?;
        Ok(manager)
    }

    /// Starts the process again on the same directory.
    pub(crate) async fn restart(&mut self, variables: &[(&str, &str)]) -> anyhow::Result<()> {
        self.child = spawn(self.base.path(), self.port, variables)?;
        self.await_ready().await
    }

    /// Ends the process as a power cut would.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the process to end, and waits for it.
    pub(crate) async fn terminate(&mut self) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id())?;
        kill_process(Pid::from_raw(id).context("a process has a number")?, Signal::TERM)?;
        self.await_exit().await
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn await_exit(&mut self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + READY;
        while self.child.try_wait()?.is_none() {
            ensure!(tokio::time::Instant::now() < deadline, "the manager does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Calls the API; answers the status and the JSON.
    pub(crate) async fn call(&self, request: &str, body: Option<Value>) -> anyhow::Result<(StatusCode, Value)> {
        let (method, path) = request.split_once(' ').context("METHOD PATH")?;
        let mut request = self.client.request(method.parse::<Method>()?, format!("{}{path}", self.url()));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let status = response.status();
        Ok((status, response.json().await.unwrap_or(Value::Null)))
    }

    /// Calls the API, which must not refuse.
    pub(crate) async fn done(&self, request: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let (status, answer) = self.call(request, body).await?;
        ensure!(status.is_success(), "{request}: {status} {answer}\n{}", self.log());
        Ok(answer)
    }

    /// Makes a small sandbox; answers its id.
    pub(crate) async fn create(&self) -> anyhow::Result<String> {
        let made = self.done("POST /sandboxes", Some(small())).await?;
        Ok(made["sandbox_id"].as_str().context("a sandbox has an id")?.to_owned())
    }

    /// Runs a command, which must succeed; answers its output.
    pub(crate) async fn run(&self, id: &str, command: &str) -> anyhow::Result<String> {
        let ran = self.done(&format!("POST /sandboxes/{id}/exec"), Some(json!({ "command": command }))).await?;
        ensure!(ran["exit_code"] == 0, "{command}: {ran}");
        Ok(ran["stdout"].as_str().unwrap_or_default().trim().to_owned())
    }

    /// Where in its life a sandbox is.
    pub(crate) async fn status(&self, id: &str) -> anyhow::Result<String> {
        let sandbox = self.done(&format!("GET /sandboxes/{id}"), None).await?;
        Ok(sandbox["status"].as_str().unwrap_or_default().to_owned())
    }

    /// The process of a sandbox's machine, if it is alive.
    pub(crate) fn machine(&self, id: &str) -> Option<Pid> {
        machine_in(&self.path(&format!("sandboxes/{id}")))
    }

    /// A path below the base.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.base.path().join(below)
    }

    /// What stands in a directory below the base.
    pub(crate) fn names(&self, below: &str) -> anyhow::Result<Vec<String>> {
        let entries = fs::read_dir(self.path(below))?;
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    async fn await_ready(&mut self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + READY;
        loop {
            let health = self.call("GET /health", None).await;
            if health.as_ref().is_ok_and(|(status, _)| *status == StatusCode::OK) {
                return Ok(());
            }
            let ended = self.child.try_wait()?.is_some();
            let waits = !ended && tokio::time::Instant::now() < deadline;
            ensure!(waits, "the manager is not ready: {health:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        for name in self.names("sandboxes").unwrap_or_default() {
            if let Some(process) = self.machine(&name) {
                kill_process(process, Signal::KILL).ok();
            }
        }
    }
}

/// A small sandbox.
pub(crate) fn small() -> Value {
    json!({ "memory_mb": MEMORY_MB, "disk_mb": 256, "network": "none" })
}

fn machine_in(directory: &Path) -> Option<Pid> {
    let number = fs::read_to_string(directory.join("vmm.pid")).ok()?.trim().parse().ok()?;
    Pid::from_raw(number).filter(|process| test_kill_process(*process).is_ok())
}

fn spawn(base: &Path, port: u16, variables: &[(&str, &str)]) -> anyhow::Result<Child> {
    let programs = std::env::var_os("LIVE_BIN_DIR").map(PathBuf::from).context("LIVE_BIN_DIR is not set")?;
    let log = File::options().create(true).append(true).open(base.join("log"))?;
    let mut command = Command::new(programs.join("emergent"));
    command.args(["firecracker-manager", "--driver", "qemu", "--network", "none"]);
    command.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--dir").arg(base);
    command.envs(variables.iter().copied()).env("EMERGENT_LOG", "info,emergent_firecracker_manager=debug");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().context("starting the manager")
}
