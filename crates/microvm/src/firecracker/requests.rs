//! The requests to Firecracker, in the order in which it wants them.
//!
//! Everything is named relative to the machine's directory, in which the monitor runs: what is saved has these names in
//! it, and means the files of the machine that is restored.

use serde_json::{Value, json};

use super::{
    api::Api,
    memory::Saving,
    place::{DATA, ROOT},
};
use crate::{Disk, MachineSpec, RateLimit, TapInterface, VmmError, vsock};

/// The guest's vsock address. Every machine has a vsock device of its own, so they all may have the same.
const GUEST_CID: u32 = 3;
const INTERFACE: &str = "eth0";

/// Sets a machine up and starts it.
pub(super) async fn boot(api: &Api, spec: &MachineSpec, console: bool) -> Result<(), VmmError> {
    let shape = json!({
        "vcpu_count": spec.vcpus, "mem_size_mib": spec.memory_mib, "smt": false, "track_dirty_pages": false,
    });
    api.put("set the machine's size", "/machine-config", shape).await?;
    let mut source = json!({ "kernel_image_path": spec.kernel.image, "boot_args": command_line(spec, console) });
    if let Some(initramfs) = &spec.kernel.initramfs {
        source["initrd_path"] = json!(initramfs);
    }
    api.put("take the kernel", "/boot-source", source).await?;
    api.put("take the root disk", "/drives/root", drive("root", ROOT, &spec.root)).await?;
    if let Some(data) = &spec.data {
        api.put("take the data disk", "/drives/data", drive("data", DATA, data)).await?;
    }
    if let Some(network) = &spec.network {
        api.put("take the network", &format!("/network-interfaces/{INTERFACE}"), interface(network)).await?;
    }
    api.put("make a vsock device", "/vsock", json!({ "guest_cid": GUEST_CID, "uds_path": vsock::SOCKET })).await?;
    api.put("make a source of random numbers", "/entropy", json!({})).await?;
    api.put("start the machine", "/actions", json!({ "action_type": "InstanceStart" })).await
}

/// Starts a machine from what was saved.
pub(super) async fn load(api: &Api, spec: &MachineSpec, snapshot: &str, memory: &str) -> Result<(), VmmError> {
    let mut request = json!({
        "snapshot_path": snapshot,
        // Mapped, not read: a page costs something when it is touched, and many machines share what they do not change.
        "mem_backend": { "backend_type": "File", "backend_path": memory },
        // So that the next saving writes what has changed, and no more.
        "track_dirty_pages": true,
        "resume_vm": true,
    });
    if let Some(network) = &spec.network {
        request["network_overrides"] = json!([{ "iface_id": INTERFACE, "host_dev_name": network.name }]);
    }
    api.put("load what was saved", "/snapshot/load", request).await
}

/// Writes a paused machine down; of its memory what `saving` says. The monitor adds what changed to a file that is
/// there.
pub(super) async fn save(api: &Api, saving: Saving, snapshot: &str, memory: &str) -> Result<(), VmmError> {
    let kind = match saving {
        Saving::Full => "Full",
        Saving::Changed => "Diff",
    };
    let request = json!({ "snapshot_type": kind, "snapshot_path": snapshot, "mem_file_path": memory });
    api.put("save the machine", "/snapshot/create", request).await
}

/// Stops or starts the virtual CPUs.
pub(super) async fn run(api: &Api, on: bool) -> Result<(), VmmError> {
    let (action, state) = match on {
        true => ("let the machine go on", "Resumed"),
        false => ("freeze the machine", "Paused"),
    };
    api.patch(action, "/vm", json!({ "state": state })).await
}

fn command_line(spec: &MachineSpec, console: bool) -> String {
    // A restart, by the keyboard controller, is how such a machine ends.
    let mut words = vec!["reboot=k".to_owned(), "panic=-1".to_owned(), "emergent.off=restart".to_owned()];
    words.push(match console {
        true => "console=ttyS0".to_owned(),
        // What a guest writes there would grow without bound on the host.
        false => "8250.nr_uarts=0".to_owned(),
    });
    words.push("quiet".to_owned());
    words.extend(spec.guest_words());
    words.extend(spec.kernel.command_line.iter().cloned());
    words.join(" ")
}

fn drive(id: &str, path: &str, disk: &Disk) -> Value {
    let mut drive = json!({
        "drive_id": id, "path_on_host": path, "is_root_device": false, "is_read_only": disk.read_only,
        // A guest that flushes has its writes on the host's disk. Without, the monitor takes no flushes at all.
        "cache_type": "Writeback",
    });
    limit(&mut drive, "rate_limiter", disk.bandwidth, disk.operations);
    drive
}

fn interface(network: &TapInterface) -> Value {
    let mut interface = json!({
        "iface_id": INTERFACE, "host_dev_name": network.name, "guest_mac": network.mac.to_string(),
    });
    limit(&mut interface, "rx_rate_limiter", network.receive, None);
    limit(&mut interface, "tx_rate_limiter", network.send, None);
    interface
}

fn limit(device: &mut Value, field: &str, bandwidth: Option<RateLimit>, operations: Option<RateLimit>) {
    let bucket =
        |limit: RateLimit| json!({ "size": limit.per_second, "one_time_burst": limit.burst, "refill_time": 1000 });
    let mut limiter = serde_json::Map::new();
    limiter.extend(bandwidth.map(|limit| ("bandwidth".to_owned(), bucket(limit))));
    limiter.extend(operations.map(|limit| ("ops".to_owned(), bucket(limit))));
    if !limiter.is_empty() {
        device[field] = Value::Object(limiter);
    }
}

#[cfg(test)]
mod tests;
