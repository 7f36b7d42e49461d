//! The test whether machines boot: boots one with nothing but a kernel that reports that it boots and turns itself off.

use std::{fs, io, path::Path, time::Duration};

use emergent_guest_proto::machine::PROBE_ANSWER;
use tokio::{process::Command, time::Instant};

use super::{Qemu, command, command::Start, console, qmp::Qmp};
use crate::{Acceleration, BootError, Disk, Kernel, MachineId, MachineSpec, Probe, Vmm as _, VmmError, vmm::ProbeDir};

/// The time that a machine may take to report that it boots. A processor that cannot boot it often reports nothing at
/// all.
const KVM_PATIENCE: Duration = Duration::from_secs(10);
const EMULATED_PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(20);

/// Enough memory for a kernel and its initial file system.
const MEMORY_MIB: u32 = 192;

/// Tests the acceleration that is set, or else KVM and then emulation.
pub(super) async fn probe(qemu: &Qemu, kernel: &Kernel) -> Probe {
    let version = match qemu.version().await {
        Ok(version) => version,
        Err(reason) => return Probe::Fails { reason },
    };
    let mut warnings = Vec::new();
    for acceleration in [Acceleration::Kvm, Acceleration::Emulated] {
        if qemu.settings.acceleration.is_some_and(|wanted| wanted != acceleration) {
            continue;
        }
        match try_to_boot(qemu, kernel, acceleration, &version).await {
            Ok(()) => return Probe::Works { acceleration, version, warnings },
            Err(why) => warnings.push(why),
        }
    }
    Probe::Fails { reason: warnings.join("; ") }
}

/// Asks QEMU's program for its version.
pub(super) async fn version(program: &Path) -> io::Result<String> {
    let output = Command::new(program).arg("--version").kill_on_drop(true).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default();
    let version = line.strip_prefix("QEMU emulator version ").unwrap_or(line);
    match output.status.success() && !version.is_empty() {
        true => Ok(version.to_owned()),
        false => Err(io::Error::other("it does not say its version")),
    }
}

/// Boots a machine and ends it. An error is a sentence for people.
async fn try_to_boot(qemu: &Qemu, kernel: &Kernel, acceleration: Acceleration, version: &str) -> Result<(), String> {
    if acceleration == Acceleration::Kvm {
        // Opened for writing, which is what using it takes.
        let opened = fs::File::options().read(true).write(true).open("/dev/kvm");
        opened.map_err(|error| format!("/dev/kvm cannot be opened: {error}"))?;
    }
    let work = ProbeDir::make(qemu.settings.probe_dir.as_deref())
        .map_err(|error| format!("no directory for a probe: {error}"))?;
    qemu.end(work.path()).await.map_err(|error| format!("a machine could not be ended: {error}"))?;
    let spec = spec(work.path(), kernel).map_err(|error| format!("no disk for a probe: {error}"))?;
    let booted = boots(qemu, &spec, acceleration, version).await;
    let ended = qemu.end(&spec.dir).await;
    let what = match acceleration {
        Acceleration::Kvm => "/dev/kvm opens, but a machine on it",
        Acceleration::Emulated => "an emulated machine",
    };
    match (booted, ended) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(why), _) => Err(format!("{what} {why}")),
        (_, Err(error)) => Err(format!("{what} could not be ended: {error}")),
    }
}

fn spec(dir: &Path, kernel: &Kernel) -> io::Result<MachineSpec> {
    let disk = dir.join("disk");
    fs::File::create(&disk)?.set_len(1 << 20)?;
    let mut kernel = kernel.clone();
    kernel.command_line.push("emergent.probe".to_owned());
    Ok(MachineSpec {
        id: MachineId::generate(),
        dir: dir.to_owned(),
        kernel,
        root: Disk::raw(disk),
        data: None,
        memory_mib: MEMORY_MIB,
        vcpus: 1,
        network: None,
        processes: None,
    })
}

async fn boots(qemu: &Qemu, spec: &MachineSpec, acceleration: Acceleration, version: &str) -> Result<(), String> {
    let patience = match acceleration {
        Acceleration::Kvm => KVM_PATIENCE,
        Acceleration::Emulated => EMULATED_PATIENCE,
    };
    let started = qemu.start(spec, acceleration, version, Start::Probe).await;
    let _process = started.map_err(|error: BootError| format!("does not start: {error}"))?;
    let silent = |error: VmmError| format!("does not answer: {error}");
    let mut qmp = Qmp::connect(&command::question_socket(&spec.dir)).await.map_err(silent)?;
    let deadline = Instant::now() + patience;
    let mut said = String::new();
    // Reading takes from what is kept, so pieces are put together.
    while Instant::now() < deadline {
        said.push_str(&console(&mut qmp).await.map_err(silent)?);
        if said.contains(PROBE_ANSWER) {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
    match said.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => Err(format!("does not boot within {patience:?}; its last words were {:?}", shortened(line))),
        None => Err(format!("does not boot within {patience:?} and says nothing")),
    }
}

fn shortened(line: &str) -> String {
    line.trim().chars().take(120).collect()
}
