//! A machine boots, and a workspace in it is a workspace.

use anyhow::{Context as _, ensure};
use emergent_live_tests::Case;
use emergent_microvm::{Acceleration, GoneReason, MachineState, Probe, Qemu, QemuSettings, Vmm as _};
use futures::future::try_join_all;

use crate::harness::{self, Machine};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("a_workspace_in_a_machine_has_its_disk_its_user_and_its_tools", |_| workspace()),
        Case::new("the_probe_says_what_works_and_why_not", |_| probe()),
    ]
}

async fn workspace() -> anyhow::Result<()> {
    let machine = Machine::boot().await?;
    ensure!(machine.sh("id -u; pwd").await? == "1000\n/workspace");
    let mounted = machine.sh("grep '^/dev/vd' /proc/mounts").await?;
    let has = |line: &str| mounted.lines().any(|mount| mount.starts_with(line));
    ensure!(has("/dev/vda / ext4 ") && has("/dev/vdb /workspace ext4 "), "{mounted}");
    machine.sh("echo text >file && test \"$(cat file)\" = text && git init -q . && python3 -c 'print(1)'").await?;
    // Several channels at once, more than a client's own two.
    let mut channels = Vec::new();
    for _ in 0..3 {
        channels.push(machine.vmm.open(&machine.spec.dir).await.context("opening one more channel")?);
    }
    drop(channels);
    for _ in 0..10 {
        drop(machine.vmm.open(&machine.spec.dir).await.context("opening a channel that was closed")?);
    }
    machine.guest.suspend();
    ensure!(machine.sh("echo again").await? == "again", "a client that comes back finds the guest");

    machine.vmm.freeze(&machine.spec.dir).await?;
    // Many may ask at once.
    let states = try_join_all((0..20).map(|_| machine.vmm.state(&machine.spec.dir))).await?;
    ensure!(states.iter().all(|state| *state == MachineState::Frozen), "{states:?}");
    machine.vmm.thaw(&machine.spec.dir).await?;
    ensure!(machine.sh("echo thawed").await? == "thawed");

    machine.guest.shutdown().await?;
    let gone = emergent_live_tests::until("the machine is off", std::time::Duration::from_secs(60), || async {
        let state = machine.vmm.state(&machine.spec.dir).await?;
        Ok(if state == MachineState::Gone(GoneReason::Exited) { Ok(()) } else { Err(format!("{state:?}")) })
    });
    gone.await
}

async fn probe() -> anyhow::Result<()> {
    let kernel = tokio::task::spawn_blocking(harness::kernel).await??;
    let any = Qemu::new(QemuSettings { probe_kernel: Some(kernel), ..QemuSettings::default() });
    match any.probe().await {
        Probe::Works { acceleration: Acceleration::Emulated, warnings, .. } => {
            println!("emulated, because {warnings:?}");
            ensure!(warnings.iter().any(|warning| warning.contains("/dev/kvm")), "it says why there is no KVM");
        }
        Probe::Works { acceleration: Acceleration::Kvm, warnings, .. } => ensure!(warnings.is_empty()),
        Probe::Fails { reason } => anyhow::bail!("{reason}"),
    }
    let none = Qemu::new(QemuSettings { program: "/nowhere/qemu".into(), ..any_settings()? });
    let Probe::Fails { reason } = none.probe().await else { anyhow::bail!("a program that is not there works") };
    ensure!(reason.contains("/nowhere/qemu") && reason.contains("install"), "{reason}");
    Ok(())
}

fn any_settings() -> anyhow::Result<QemuSettings> {
    Ok(QemuSettings { probe_kernel: Some(harness::kernel()?), ..QemuSettings::default() })
}
