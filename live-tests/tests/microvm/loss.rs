//! A machine goes without being asked to, and the driver says why.

use std::{fs, time::Duration};

use anyhow::ensure;
use emergent_live_tests::Case;
use emergent_microvm::{GoneReason, MachineState, VmmError};

use crate::harness::Machine;

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("a_killed_monitor_and_a_panicked_kernel_are_told_apart", |_| told_apart())]
}

async fn told_apart() -> anyhow::Result<()> {
    let machine = Machine::boot().await?;
    let pid = fs::read_to_string(machine.spec.dir.join("vmm.pid"))?.trim().parse()?;
    let pid = rustix::process::Pid::from_raw(pid).ok_or_else(|| anyhow::anyhow!("no process"))?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    gone(&machine, |reason| *reason == GoneReason::Killed).await?;
    let opened = machine.vmm.open(&machine.spec.dir).await.err();
    ensure!(matches!(opened, Some(VmmError::Gone(GoneReason::Killed))), "{opened:?}");
    machine.vmm.end(&machine.spec.dir).await?;
    machine.vmm.end(&machine.spec.dir).await?;

    machine.vmm.boot(&machine.spec).await?;
    machine.guest.suspend();
    machine.answers().await?;
    machine.guest.configure(&emergent_guest_proto::Configuration { allow_root: true, ..Default::default() }).await?;
    let request = serde_json::json!({"command": "echo c >/proc/sysrq-trigger", "user": "root"});
    // Its answer does not come.
    drop(tokio::time::timeout(Duration::from_secs(20), machine.guest.bash(serde_json::from_value(request)?)).await);
    gone(&machine, |reason| matches!(reason, GoneReason::Panicked { message } if message.contains("sysrq"))).await
}

async fn gone(machine: &Machine, expected: impl Fn(&GoneReason) -> bool) -> anyhow::Result<()> {
    emergent_live_tests::until("the machine is gone", Duration::from_secs(60), || async {
        let state = machine.vmm.state(&machine.spec.dir).await?;
        Ok(match &state {
            MachineState::Gone(reason) if expected(reason) => Ok(()),
            _ => Err(format!("{state:?}")),
        })
    })
    .await
}
