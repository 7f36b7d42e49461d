//! A place of its own for each run: namespaces, a disk, and their removal.
//!
//! Network, process, mount and IPC namespaces hold all that a run makes: when their first process ends, for any reason,
//! the kernel ends every process, unmounts every mount, and drops every bridge and packet filter. Only a folder and
//! empty cgroups are left then, which the process outside removes.

pub mod inside;

use std::{
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use super::{
    programs::{on_path, path},
    report::say,
    run_folder,
    settings::Settings,
};
use crate::server::program;

/// The image that workspaces run.
const IMAGE: &str = "emergent/workspace:latest";
/// Programs that a run needs.
const PROGRAMS: &[&str] = &["docker", "dockerd", "containerd", "runc", "unshare", "mount", "ip", "mkfs.ext4"];
/// A folder with the image and, later, the disk of one run.
struct Lab {
    folder: TempDir,
    cgroup: String,
}

/// Checks that a soak can run here.
///
/// # Errors
/// When it cannot; the message has the reason and the user's next step.
pub fn check() -> anyhow::Result<()> {
    ensure!(cfg!(target_os = "linux"), "a soak needs Linux: it makes namespaces");
    ensure!(rustix::process::geteuid().is_root(), "a soak needs root: it makes namespaces and starts its own dockerd");
    for name in PROGRAMS {
        ensure!(on_path(name).is_some(), "a soak needs the program {name}, and it is not on the path");
    }
    for name in ["emergent", "emergent-guest"] {
        let path = program(name)?;
        ensure!(path.exists(), "{} is missing; build it with `make build`", path.display());
    }
    Ok(())
}

/// Carries out one run for each seed; the first run with a finding ends the series.
///
/// # Errors
/// When a run could not be prepared.
pub async fn runs(settings: &Settings, arguments: &[String]) -> anyhow::Result<ExitCode> {
    check()?;
    for seed in &settings.seeds {
        let lab = Lab::prepare(*seed).await?;
        let code = lab.run(*seed, arguments).await?;
        if code != 0 {
            return Ok(ExitCode::from(code));
        }
    }
    Ok(ExitCode::SUCCESS)
}

// === impl Lab ===

impl Lab {
    async fn prepare(seed: u64) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("emergent-soak-").tempdir().context("making a folder")?;
        say(&format!("seed {seed}: saving {IMAGE} from the engine of this host"));
        let save = Command::new("docker").args(["save", "-o"]).arg(folder.path().join("image.tar")).arg(IMAGE).status();
        let saved = save.await.context("running docker save")?;
        ensure!(saved.success(), "{IMAGE} could not be saved from the engine of this host; run `make setup`");
        let cgroup = format!("emergent-soak-{}-{seed}", std::process::id());
        Ok(Self { folder, cgroup })
    }

    /// Runs to the end, or until somebody interrupts it.
    async fn run(&self, seed: u64, arguments: &[String]) -> anyhow::Result<u8> {
        let mut interrupted = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut child = self.enter(seed, arguments)?;
        // Waiting would close it.
        let _held_open = child.stdin.take();
        let status = tokio::select! {
            status = child.wait() => Some(status.context("waiting for the run")?),
            _ = interrupted.recv() => None,
            _ = terminated.recv() => None,
        };
        // Ends `unshare`, and with it everything inside.
        child.kill().await.ok();
        match status {
            Some(status) => Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
            None => {
                say("interrupted; removing everything");
                Ok(130)
            }
        }
    }

    fn enter(&self, seed: u64, arguments: &[String]) -> anyhow::Result<Child> {
        Command::new("unshare")
            .args(["--net", "--pid", "--mount", "--ipc", "--fork", "--kill-child", "--mount-proc", "--"])
            .arg(std::env::current_exe().context("finding this program")?)
            .arg("init")
            .args(arguments)
            .env("PATH", path())
            .env("SOAK_SEED", seed.to_string())
            .env(run_folder::FOLDER, self.folder.path())
            .env(run_folder::CGROUP, format!("/{}", self.cgroup))
            // Its end tells those inside that the process outside is gone, should it be killed.
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("running unshare")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let Ok(controllers) = std::fs::read_dir("/sys/fs/cgroup") else { return };
        // With cgroup v2 there is one hierarchy, at the root.
        let roots = controllers.flatten().map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
        for root in roots {
            remove_cgroup(&root.join(&self.cgroup));
        }
    }
}

/// Removes an empty cgroup and those below it. The last processes may take a moment to be gone.
fn remove_cgroup(folder: &Path) {
    let Ok(below) = std::fs::read_dir(folder) else { return };
    for entry in below.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&entry.path());
    }
    for _ in 0..50 {
        if std::fs::remove_dir(folder).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    say(&format!("the cgroup {} could not be removed", folder.display()));
}
