//! The same under Firecracker, where there is one and a KVM that runs it.

use std::sync::Arc;

use anyhow::ensure;
use emergent_microvm::{Firecracker, FirecrackerSettings, MachineState, Probe, Vmm};
use libtest_mimic::Trial;

use crate::{
    case,
    ground::{self, Machine},
};

pub(crate) fn cases() -> Vec<Trial> {
    vec![case("firecracker::a_machine_boots_and_comes_back_from_disk", machine).with_ignored_flag(!is_there())]
}

/// What is said about it before the cases.
pub(crate) fn about() -> &'static str {
    if is_there() { "firecracker is on PATH" } else { "the case of Firecracker is skipped: it is not on PATH" }
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
