//! The first process inside: makes the mounts that a run needs, starts the run, and reaps orphaned processes.

use std::{
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, WaitOptions, wait};

use crate::soak::{
    dockerd,
    run_folder::{disk, folder},
};

/// The size of the disk: as small as the image and a few workspaces allow, so that it can be filled quickly.
const DISK: &str = "4G";

/// The life of the first process: prepares, starts the run, and reaps until the run has ended.
///
/// # Errors
/// When something could not be prepared.
pub fn init(arguments: &[String]) -> anyhow::Result<ExitCode> {
    ensure!(std::process::id() == 1, "`soak init` is for the first process of a namespace; run `make soak`");
    prepare(&folder()?)?;
    let run = Command::new(std::env::current_exe().context("finding this program")?)
        .arg("run")
        .args(arguments)
        .env("DOCKER_HOST", dockerd::HOST)
        .env("TMPDIR", disk()?)
        .stdin(Stdio::inherit())
        .spawn()
        .context("starting the run")?;
    let run = i32::try_from(run.id()).ok().and_then(Pid::from_raw).context("the run's process id")?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == run => {
                let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
                return Ok(ExitCode::from(code.unwrap_or(1)));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for the run"),
        }
    }
}

fn prepare(folder: &Path) -> anyhow::Result<()> {
    perform("ip", &["link", "set", "lo", "up"])?;
    // What engines keep in /run, and the devices in /sys, are then those of this namespace.
    perform("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
    // PostgreSQL shares memory by files there.
    perform("mount", &["-t", "tmpfs", "tmpfs", "/dev/shm"])?;
    let sys = folder.join("sys");
    std::fs::create_dir_all(&sys).context("making a folder")?;
    let sys = sys.to_str().context("the folder's path is not UTF-8")?;
    perform("mount", &["-t", "sysfs", "sysfs", sys])?;
    perform("mount", &["--rbind", "/sys/fs/cgroup", &format!("{sys}/fs/cgroup")])?;
    perform("mount", &["--rbind", sys, "/sys"])?;
    let (image, disk) = (folder.join("disk.img"), folder.join("disk"));
    let (image, disk) = (image.to_str().context("not UTF-8")?, disk.to_str().context("not UTF-8")?);
    std::fs::create_dir_all(disk).context("making a folder")?;
    perform("truncate", &["--size", DISK, image])?;
    perform("mkfs.ext4", &["-q", "-m", "0", image])?;
    perform("mount", &["-o", "loop", image, disk])
}

fn perform(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(program).args(arguments).status().with_context(|| format!("running {program}"))?;
    ensure!(status.success(), "{program} {} failed", arguments.join(" "));
    Ok(())
}
