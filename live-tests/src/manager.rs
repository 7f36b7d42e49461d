//! A manager process with a base directory of its own.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use reqwest::{Client, Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    Machines,
    server::{free_port, program},
};

/// The time that the manager may take to answer after its start, or to end.
const READY: Duration = Duration::from_secs(120);

/// Memory of the machines here, in MiB: small, since all of it goes to disk with a pause.
pub const MEMORY_MB: u32 = 256;

/// A manager process.
pub struct Manager {
    child: Child,
    machines: Machines,
    starter: Vec<String>,
    port: u16,
    client: Client,
}

// === impl Manager ===

impl Manager {
    /// Starts a manager whose machines have no network, and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer; the error holds its log.
    pub async fn start(variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_under(Machines::new()?, Vec::new(), variables).await
    }

    /// The same in a directory of its own, started by a command line that becomes the manager at its end.
    ///
    /// # Errors
    /// As [`Manager::start`].
    pub async fn start_under(
        machines: Machines,
        starter: Vec<String>,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let client = Client::builder().timeout(Duration::from_secs(180)).build()?;
        let child = spawn(machines.base(), &starter, port, variables)?;
        let mut manager = Self { child, machines, starter, port, client };
        manager.await_ready().await?;
        Ok(manager)
    }

    /// Starts the process again on the same directory.
    ///
    /// # Errors
    /// As [`Manager::start`].
    pub async fn restart(&mut self, variables: &[(&str, &str)]) -> anyhow::Result<()> {
        self.child = spawn(self.machines.base(), &self.starter, self.port, variables)?;
        self.await_ready().await
    }

    /// Ends the process as a power cut would.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the process to end, and waits for it.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn terminate(&mut self) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id())?;
        kill_process(Pid::from_raw(id).context("a process has a number")?, Signal::TERM)?;
        self.await_exit().await
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// When it does not in time; the error holds its log.
    pub async fn await_exit(&mut self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + READY;
        while self.child.try_wait()?.is_none() {
            ensure!(tokio::time::Instant::now() < deadline, "the manager does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Calls the API; answers the status and the JSON.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn call(&self, request: &str, body: Option<Value>) -> anyhow::Result<(StatusCode, Value)> {
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
    ///
    /// # Errors
    /// When it cannot be reached, or refuses.
    pub async fn done(&self, request: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let (status, answer) = self.call(request, body).await?;
        ensure!(status.is_success(), "{request}: {status} {answer}\n{}", self.log());
        Ok(answer)
    }

    /// Makes a small sandbox; answers its id.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn create(&self) -> anyhow::Result<String> {
        let made = self.done("POST /sandboxes", Some(small())).await?;
        Ok(made["sandbox_id"].as_str().context("a sandbox has an id")?.to_owned())
    }

    /// Runs a command, which must succeed; answers its output.
    ///
    /// # Errors
    /// When it fails.
    pub async fn run(&self, id: &str, command: &str) -> anyhow::Result<String> {
        let ran = self.done(&format!("POST /sandboxes/{id}/exec"), Some(json!({ "command": command }))).await?;
        ensure!(ran["exit_code"] == 0, "{command}: {ran}");
        Ok(ran["stdout"].as_str().unwrap_or_default().trim().to_owned())
    }

    /// Returns the state of a sandbox.
    ///
    /// # Errors
    /// When there is none.
    pub async fn status(&self, id: &str) -> anyhow::Result<String> {
        let sandbox = self.done(&format!("GET /sandboxes/{id}"), None).await?;
        Ok(sandbox["status"].as_str().unwrap_or_default().to_owned())
    }

    /// The process of a sandbox's machine, if it is alive.
    pub fn machine(&self, id: &str) -> Option<Pid> {
        self.machines.process(id)
    }

    /// A path below the base.
    pub fn path(&self, below: &str) -> PathBuf {
        self.machines.base().join(below)
    }

    /// Returns the names in a directory below the base.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self, below: &str) -> anyhow::Result<Vec<String>> {
        Ok(self.machines.names(below)?)
    }

    /// The manager's address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the manager's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    async fn await_ready(&mut self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + READY;
        loop {
            // Not its health, whose first answer boots a machine.
            let answer = self.call("GET /capacity", None).await;
            if answer.as_ref().is_ok_and(|(status, _)| *status == StatusCode::OK) {
                return Ok(());
            }
            let ended = self.child.try_wait()?.is_some();
            let waits = !ended && tokio::time::Instant::now() < deadline;
            ensure!(waits, "the manager is not ready: {answer:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A small sandbox.
pub fn small() -> Value {
    json!({ "memory_mb": MEMORY_MB, "disk_mb": 256, "network": "none" })
}

fn spawn(base: &Path, starter: &[String], port: u16, variables: &[(&str, &str)]) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(base.join("log"))?;
    let program = program("emergent")?;
    let mut words = starter.iter().map(OsString::from).chain([program.into_os_string()]);
    let mut command = Command::new(words.next().context("a program")?);
    command.args(words).arg("firecracker-manager");
    command.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--dir").arg(base);
    command.env("FIRECRACKER_DRIVER", "qemu-tcg").env("FIRECRACKER_NETWORK", "none");
    command.env("EMERGENT_LOG", "info,emergent_firecracker_manager=debug").envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().context("starting the manager")
}
