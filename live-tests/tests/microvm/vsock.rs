//! Channels by vsock, as Firecracker's machines have them, on an emulated machine: QEMU's device is the program
//! `vhost-device-vsock`, which takes the host's calls by Firecracker's handshake.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use emergent_guest_client::new_call_id;
use emergent_guest_proto::tools::BashRequest;
use emergent_live_tests::{Case, server::program_or, until};
use emergent_microvm::{GoneReason, MachineState, QemuChannels, VmmError};
use futures::{TryStreamExt as _, future::try_join_all, stream};
use serde_json::{from_value, json};

use crate::harness::{self, Machine};

/// More channels than a machine has serial ports.
const CHANNELS: usize = 12;

pub(crate) fn cases() -> Vec<Case> {
    let found = device().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let missing = found.err().map(|error| format!("vhost-device-vsock does not start ({error}); run `make live`"));
    vec![Case::new("a_workspace_is_reached_by_vsock", |_| workspace()).skipped_because(missing)]
}

fn device() -> Command {
    Command::new(program_or("LIVE_VHOST_VSOCK", "vhost-device-vsock"))
}

/// The device's process, ended when it is dropped.
struct Device(Child);

impl Device {
    /// Starts the device of a machine that is off, and waits until QEMU can use it.
    async fn start(dir: &Path) -> anyhow::Result<Self> {
        let (socket, calls) = (dir.join("vhost-vsock.sock"), dir.join("vsock.sock"));
        let mut command = device();
        command.arg("--guest-cid=3").arg("--socket").arg(&socket).arg("--uds-path").arg(&calls).stdin(Stdio::null());
        let device = Self(command.spawn().context("starting vhost-device-vsock")?);
        until("the device is there", Duration::from_secs(20), || async {
            Ok(if socket.exists() { Ok(()) } else { Err("there is no socket".to_owned()) })
        })
        .await?;
        Ok(device)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn workspace() -> anyhow::Result<()> {
    let machine = Machine::off(harness::qemu(QemuChannels::Vsock)).await?;
    let (vmm, dir) = (&machine.vmm, &machine.spec.dir);
    let _device = Device::start(dir).await?;
    machine.turn_on().await?;
    ensure!(machine.sh("ls /sys/class/virtio-ports 2>/dev/null | wc -l").await? == "0", "it has serial ports, too");
    tools(&machine).await?;
    bulk(&machine).await?;

    let channels = try_join_all((0..CHANNELS).map(|_| vmm.open(dir))).await.context("opening channels")?;
    ensure!(machine.sh("echo beside them").await? == "beside them");
    drop(channels);
    machine.guest.suspend();
    ensure!(machine.sh("echo again").await? == "again", "a client that comes back finds the guest");

    // Such a device cannot be saved, which the machine survives.
    vmm.freeze(dir).await?;
    let folder = tempfile::tempdir()?;
    let saved = vmm.save(dir, folder.path()).await;
    ensure!(saved.is_err() && std::fs::read_dir(folder.path())?.next().is_none(), "{saved:?}");
    vmm.thaw(dir).await?;
    ensure!(machine.sh("echo thawed").await? == "thawed");

    machine.guest.shutdown().await?;
    until("the machine is off", Duration::from_secs(60), || async {
        let state = vmm.state(dir).await?;
        Ok(if state == MachineState::Gone(GoneReason::Exited) { Ok(()) } else { Err(format!("{state:?}")) })
    })
    .await?;
    // The device still takes calls, which nobody answers.
    let opened = vmm.open(dir).await.err();
    ensure!(matches!(opened, Some(VmmError::Gone(GoneReason::Exited))), "{opened:?}");
    Ok(())
}

async fn tools(machine: &Machine) -> anyhow::Result<()> {
    let guest = &machine.guest;
    let failing: BashRequest = from_value(json!({ "command": "id -u; pwd; echo oops >&2; exit 7" }))?;
    let failed = guest.bash(failing).await?;
    ensure!((failed.stdout.as_str(), failed.stderr.as_str()) == ("1000\n/workspace\n", "oops\n"), "{failed:?}");
    ensure!(failed.exit_code == Some(7), "{failed:?}");
    guest.write(&new_call_id(), &from_value(json!({ "file_path": "a.txt", "content": "one\ntwo\n" }))?).await?;
    guest
        .edit(&new_call_id(), &from_value(json!({ "file_path": "a.txt", "old_string": "one", "new_string": "1" }))?)
        .await?;
    let read = serde_json::to_value(guest.read(&from_value(json!({ "file_path": "a.txt" }))?).await?)?;
    ensure!(read["content"] == "1: 1\n2: two", "{read}");
    let found = guest.grep(&from_value(json!({ "pattern": "two" }))?).await?;
    ensure!(found.matches.len() == 1 && found.matches[0].line_number == 2, "{found:?}");
    let files = serde_json::to_value(guest.glob(&from_value(json!({ "pattern": "*.txt" }))?).await?)?;
    ensure!(files["files"] == json!(["/workspace/a.txt"]), "{files}");
    Ok(())
}

/// Eight megabytes in and out, on a channel of their own.
async fn bulk(machine: &Machine) -> anyhow::Result<()> {
    let bytes: Vec<u8> = (0..8_u32 << 20).map(|n| u8::try_from(n % 251).unwrap_or(0)).collect();
    let pieces: Vec<_> = bytes.chunks(1 << 16).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    machine.guest.upload(&new_call_id(), &from_value(json!({ "path": "bulk" }))?, stream::iter(pieces)).await?;
    let back = machine.guest.download(&from_value(json!({ "path": "bulk" }))?, None).await?;
    let back: Vec<Bytes> = back.body.try_collect().await?;
    ensure!(back.concat() == bytes, "other bytes came back");
    Ok(())
}
