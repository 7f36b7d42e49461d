//! The run's own engine: started, killed, started again.

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::process::{Child, Command};

use super::{footprint::processes, programs::on_path, run_folder};
use crate::{Engine, Runtime, until};

/// The address at which the engine listens; in the run's own `/run`.
pub const HOST: &str = "unix:///run/emergent-soak.sock";
const EXEC_ROOT: &str = "/run/emergent-soak";
const PID_FILE: &str = "/run/emergent-soak.pid";
/// The platform of gVisor that works here is the one with which this host's engine has it.
const HOST_CONFIG: &str = "/etc/docker/daemon.json";
/// The time that the engine may take to answer: after a crash it first ends every container that it finds.
const START: Duration = Duration::from_secs(90);

/// A running dockerd.
pub struct Dockerd {
    child: Child,
    folder: PathBuf,
    /// Shims that lived when the engine was killed. Some stay for good: those of containers that the engine was just
    /// making and had not recorded yet. Nobody can reach them, and nothing that uses the engine is to blame.
    bereaved: BTreeSet<u32>,
}

impl Dockerd {
    /// Starts the engine and waits until it answers.
    ///
    /// # Errors
    /// When the engine does not answer; its log says why.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = run_folder::folder()?;
        std::fs::write(folder.join("daemon.json"), config()?.to_string()).context("writing daemon.json")?;
        let mut dockerd = Self { child: spawn(&folder)?, folder, bereaved: BTreeSet::new() };
        dockerd.await_answer().await?;
        Ok(dockerd)
    }

    /// Gives the engine the image that workspaces run.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn load_image(&self) -> anyhow::Result<()> {
        let image = self.folder.join("image.tar");
        let output = Command::new("docker").args(["load", "-i"]).arg(&image).output().await?;
        anyhow::ensure!(output.status.success(), "docker load: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::remove_file(image).context("removing the image's file")
    }

    /// Ends the engine as a crash would, with its containerd. The containers' shims live on; returns their number.
    ///
    /// # Errors
    /// When the engine cannot be ended.
    pub async fn kill(&mut self) -> anyhow::Result<usize> {
        self.child.kill().await.context("killing dockerd")?;
        until("containerd ends with dockerd", Duration::from_secs(20), || async {
            Ok(match containerd() {
                None => Ok(()),
                Some(pid) => {
                    kill_process(pid, Signal::KILL).ok();
                    Err(format!("process {}", pid.as_raw_nonzero()))
                }
            })
        })
        .await?;
        let shims = processes()?.into_iter().filter(|(_, process)| process.command.contains("containerd-shim"));
        let shims: BTreeSet<u32> = shims.map(|(pid, _)| pid).collect();
        let count = shims.len();
        self.bereaved.extend(shims);
        Ok(count)
    }

    /// Starts the engine again and waits until it answers.
    ///
    /// # Errors
    /// As [`Dockerd::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        // Its process id may be somebody else's by now.
        std::fs::remove_file(PID_FILE).ok();
        self.child = spawn(&self.folder)?;
        self.await_answer().await
    }

    /// The process ids of dockerd and its containerd.
    pub fn pids(&self) -> BTreeSet<u32> {
        let containerd = containerd().and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
        self.child.id().into_iter().chain(containerd).collect()
    }

    /// The shims that the engine has lost; the processes below them are lost, too.
    pub fn bereaved(&self) -> BTreeSet<u32> {
        self.bereaved.clone()
    }

    async fn await_answer(&mut self) -> anyhow::Result<()> {
        let answered = until("dockerd answers", START, || async {
            // There is no client as long as there is no socket.
            let asked = async { anyhow::Ok(Engine::connect()?.docker().ping().await?) };
            Ok(asked.await.map(drop).map_err(|error| format!("{error:#}")))
        });
        answered.await.with_context(|| format!("dockerd's log ends: {}", tail(&self.folder.join("dockerd.log"))))
    }
}

fn spawn(folder: &Path) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(folder.join("dockerd.log")).context("opening a log")?;
    Command::new("dockerd")
        .arg("--config-file")
        .arg(folder.join("daemon.json"))
        .arg("--data-root")
        .arg(folder.join("disk/docker"))
        .args(["--exec-root", EXEC_ROOT, "--pidfile", PID_FILE, "--host", HOST, "--bridge", "none"])
        .args(["--cgroup-parent", &std::env::var(run_folder::CGROUP).context("no cgroup")?])
        .env_remove("DOCKER_HOST")
        .stdout(log.try_clone().context("opening a log")?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("starting dockerd")
}

/// The runtimes as this host's engine has them.
fn config() -> anyhow::Result<serde_json::Value> {
    let host = std::fs::read_to_string(HOST_CONFIG).unwrap_or_else(|_| "{}".to_owned());
    let host: serde_json::Value = serde_json::from_str(&host).with_context(|| format!("reading {HOST_CONFIG}"))?;
    let runsc = host["runtimes"][Runtime::Runsc.name()].clone();
    Ok(match on_path("runsc") {
        Some(_) if runsc.is_object() => json!({ "runtimes": { "runsc": runsc } }),
        _ => json!({}),
    })
}

fn containerd() -> Option<Pid> {
    let pid = std::fs::read_to_string(Path::new(EXEC_ROOT).join("containerd/containerd.pid")).ok()?;
    let pid = pid.trim().parse::<i32>().ok()?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (name.trim() == "containerd").then(|| Pid::from_raw(pid)).flatten()
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(12).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
