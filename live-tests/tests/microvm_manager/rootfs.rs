//! The script that makes the kernel and the root file system of machines, from nothing.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Machines, Manager, microvm, server::program};
use tokio::process::Command;

/// A kernel is unpacked, and an image built.
const PATIENCE: Duration = Duration::from_secs(400);

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("what_the_script_makes_boots", |_| script()).within(PATIENCE)]
}

async fn script() -> anyhow::Result<()> {
    let machines = Machines::empty()?;
    create_rootfs(machines.base(), Some(&package()?)).await?;
    let root = machines.base().join("rootfs/default-rootfs.ext4");
    let made = fs::metadata(&root)?;
    ensure!(made.len() == 1 << 30, "the root has {} bytes", made.len());
    // A second time there is a kernel, and the root is the one of its image.
    create_rootfs(machines.base(), None).await?;
    ensure!(fs::metadata(&root)?.ino() == made.ino(), "the same root was made again");
    let manager = Manager::start_under(machines, Vec::new(), &[]).await?;
    let id = manager.create().await?;
    ensure!(manager.run(&id, "id -u && git --version").await?.starts_with("1000\ngit version"));
    Ok(())
}

/// Runs the script with a small root; it takes the kernel of a package, or the one that is there.
async fn create_rootfs(base: &Path, kernel: Option<&Path>) -> anyhow::Result<()> {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/create-rootfs.sh"));
    command.args(["--size", "1"]).env("WORKSPACE_FIRECRACKER_DIR", base).env("EMERGENT_BIN", program("emergent")?);
    command.env_remove("KERNEL_FROM").envs(kernel.map(|kernel| ("KERNEL_FROM", kernel)));
    let output = command.kill_on_drop(true).output().await.context("starting the script")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{out}\n{err}");
    Ok(())
}

/// The kernel's package, which was downloaded for all suites.
fn package() -> anyhow::Result<PathBuf> {
    let prepared = microvm::prepared().context("LIVE_MICROVM is not set; run `make live`")?;
    let files = fs::read_dir(&prepared)?.flatten().map(|file| file.path());
    let package = files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    package.with_context(|| format!("no package in {}; run `make live`", prepared.display()))
}
