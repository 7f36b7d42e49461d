//! The cases under Firecracker, where there is one and a KVM that runs it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use emergent_live_tests::Case;
use emergent_microvm::{
    Disk, Firecracker, FirecrackerSettings, GoneReason, JailChoice, MachineId, MachineSpec, MachineState, Probe, Vmm,
};

use crate::harness::{self, Machine};

pub(crate) fn cases() -> Vec<Case> {
    let without = (!is_there()).then(|| "firecracker is not on PATH".to_owned());
    let unjailed = (!starts("jailer") || !rustix::process::geteuid().is_root())
        .then(|| "there is no jailer on PATH, or no root to run it".to_owned());
    vec![
        Case::new("a_machine_boots_and_comes_back_from_disk_under_firecracker", |_| machine())
            .skipped_because(without.clone()),
        Case::new("a_second_saving_under_firecracker_writes_what_changed", |_| savings(JailChoice::None))
            .skipped_because(without.clone()),
        Case::new("the_same_in_a_jail", |_| savings(JailChoice::Auto)).skipped_because(without.clone().or(unjailed)),
        Case::new("a_firecracker_that_was_killed_is_said_to_be", |_| ends()).skipped_because(without),
    ]
}

fn is_there() -> bool {
    starts("firecracker")
}

fn starts(program: &str) -> bool {
    std::process::Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

async fn machine() -> anyhow::Result<()> {
    let kernel = tokio::task::spawn_blocking(harness::kernel).await??;
    let settings = FirecrackerSettings { probe_kernel: Some(kernel), ..FirecrackerSettings::default() };
    let vmm = Arc::new(Firecracker::new(settings));
    if let Probe::Fails { reason } = vmm.probe().await {
        println!("no machine under Firecracker: {reason}");
        ensure!(reason.contains("/dev/kvm"), "{reason}");
        return Ok(());
    }
    let machine = Machine::boot_on(vmm).await?;
    ensure!(machine.sh("echo here >/workspace/file; id -u").await? == "1000");
    let folder = tempfile::tempdir()?;
    machine.pass_through_disk(&folder.path().join("saved")).await?;
    ensure!(machine.vmm.state(&machine.spec.dir).await? == MachineState::Running);
    ensure!(machine.sh("cat /workspace/file").await? == "here");
    Ok(())
}

/// Firecracker with a machine that is set up and started, whether or not its kernel boots: where the processor runs no
/// ordinary kernel, all other work of the monitor is the same.
struct Started {
    vmm: Firecracker,
    spec: MachineSpec,
    folder: tempfile::TempDir,
}

impl Started {
    async fn new(jail: JailChoice) -> anyhow::Result<Option<Self>> {
        if let Err(error) = fs::File::options().read(true).write(true).open("/dev/kvm") {
            println!("no machine under Firecracker: /dev/kvm cannot be opened: {error}");
            return Ok(None);
        }
        let kernel = tokio::task::spawn_blocking(harness::kernel).await??;
        let output = std::process::Command::new("firecracker").arg("--version").output()?;
        let said = String::from_utf8(output.stdout)?;
        let version = said.lines().next().context("it says no version")?.trim_start_matches("Firecracker v").to_owned();
        let settings = FirecrackerSettings { jail, ..FirecrackerSettings::default() };
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("vm");
        fs::create_dir(&dir)?;
        fs::File::create(folder.path().join("root"))?.set_len(1 << 20)?;
        let spec = MachineSpec {
            id: MachineId::generate(),
            dir,
            kernel,
            root: Disk::raw(folder.path().join("root")),
            data: None,
            memory_mib: 128,
            vcpus: 1,
            network: None,
            processes: None,
        };
        let started = Self { vmm: Firecracker::unprobed(settings, version), spec, folder };
        started.vmm.boot(&started.spec).await.context("booting")?;
        Ok(Some(started))
    }

    /// Freezes the machine and saves its state.
    async fn save(&self, name: &str) -> anyhow::Result<PathBuf> {
        let into = self.folder.path().join(name);
        fs::create_dir(&into)?;
        self.vmm.freeze(&self.spec.dir).await.context("freezing")?;
        self.vmm.save(&self.spec.dir, &into).await.with_context(|| format!("saving {name}"))?;
        Ok(into)
    }

    async fn end(&self) -> anyhow::Result<()> {
        Ok(self.vmm.end(&self.spec.dir).await?)
    }

    async fn restore(&self, from: &Path) -> anyhow::Result<()> {
        self.vmm.restore(&self.spec, from).await.context("restoring")
    }

    async fn state(&self) -> anyhow::Result<MachineState> {
        Ok(self.vmm.state(&self.spec.dir).await?)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.spec.dir.join("vmm.pid")).ok().and_then(|text| text.trim().parse().ok());
        if let Some(process) = pid.and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(process, rustix::process::Signal::KILL).ok();
        }
    }
}

async fn savings(jail: JailChoice) -> anyhow::Result<()> {
    let jailed = jail != JailChoice::None;
    let Some(machine) = Started::new(jail).await? else { return Ok(()) };
    let user = machine.vmm.user(machine.spec.id);
    let socket = machine.spec.dir.join("firecracker.sock");
    ensure!(socket.is_symlink() == jailed && socket.exists(), "the socket is not where it is looked for");
    let pid = fs::read_to_string(machine.spec.dir.join("vmm.pid"))?;
    let process = fs::metadata(format!("/proc/{}", pid.trim()))?;
    ensure!(process.uid() == user && jailed == (user != rustix::process::geteuid().as_raw()), "it is user {user}");

    let first = machine.save("first").await?;
    let memory = fs::metadata(first.join("memory"))?;
    ensure!(memory.len() == 128 << 20 && memory.blocks() * 512 < 120 << 20, "pages that are not in use are written");
    let inode = memory.ino();
    machine.end().await?;
    ensure!(machine.state().await? == MachineState::Gone(GoneReason::NeverBooted));
    ensure!(fs::read_dir(&machine.spec.dir)?.next().is_none(), "something of the monitor is left");

    // The file is the machine's alone once what was saved is removed: what has changed is added to it.
    machine.restore(&first).await?;
    fs::remove_dir_all(&first)?;
    let second = machine.save("second").await?;
    ensure!(fs::metadata(second.join("memory"))?.ino() == inode, "all of the memory was written anew");
    let changed = fs::read(second.join("memory"))?;
    // The machine stands still: written as a whole it is the same, but it has a name elsewhere now.
    let third = machine.save("third").await?;
    ensure!(fs::metadata(third.join("memory"))?.ino() != inode, "a file that others may read was written to");
    ensure!(fs::read(third.join("memory"))? == changed, "what was added does not make up the memory");
    machine.end().await?;

    // Of two that read the same file neither writes to it.
    machine.restore(&second).await?;
    let fourth = machine.save("fourth").await?;
    ensure!(fs::metadata(fourth.join("memory"))?.ino() != inode, "what others are restored from was written to");
    ensure!(fs::read(second.join("memory"))? == changed, "what was saved has changed");
    machine.end().await?;
    machine.restore(&fourth).await?;
    ensure!(machine.state().await? == MachineState::Running, "it does not run");
    machine.end().await?;
    ensure!(fs::read_dir(&machine.spec.dir)?.next().is_none(), "something of the monitor is left");
    Ok(())
}

async fn ends() -> anyhow::Result<()> {
    let Some(machine) = Started::new(JailChoice::None).await? else { return Ok(()) };
    let pid: i32 = fs::read_to_string(machine.spec.dir.join("vmm.pid"))?.trim().parse()?;
    let process = rustix::process::Pid::from_raw(pid).context("a process has a number")?;
    rustix::process::kill_process(process, rustix::process::Signal::KILL)?;
    gone(&machine, &GoneReason::Killed).await?;
    machine.end().await?;
    ensure!(machine.state().await? == MachineState::Gone(GoneReason::NeverBooted), "something of it is left");
    // That a monitor which ends by itself is told from this is shown where a process can be made to: beside `Ending`.
    Ok(())
}

async fn gone(machine: &Started, wanted: &GoneReason) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        match machine.state().await? {
            MachineState::Gone(reason) => {
                ensure!(reason == *wanted, "{reason:?}");
                return Ok(());
            }
            state => ensure!(tokio::time::Instant::now() < deadline, "it is still {state:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
