//! The same under Firecracker, where there is one and a KVM that runs it.

use std::sync::Arc;

use anyhow::ensure;
use emergent_live_tests::Case;
use emergent_microvm::{Firecracker, FirecrackerSettings, MachineState, Probe, Vmm};

use crate::ground::{self, Machine};

pub(crate) fn cases() -> Vec<Case> {
    let case = Case::new("a_machine_boots_and_comes_back_from_disk_under_firecracker", |_| machine());
    vec![case.skipped_because((!is_there()).then(|| "firecracker is not on PATH".to_owned()))]
}

fn is_there() -> bool {
    std::process::Command::new("firecracker").arg("--version").output().is_ok_and(|output| output.status.success())
}

async fn machine() -> anyhow::Result<()> {
    let kernel = tokio::task::spawn_blocking(ground::kernel).await??;
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
