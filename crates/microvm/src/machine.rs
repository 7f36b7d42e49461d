//! The description of a machine. Plain data: nothing here touches the system.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    str::FromStr,
};

use sha2::{Digest as _, Sha256};

emergent_types::uuid_newtype!(
    /// Names a machine, in its directory, its network interface and its process.
    MachineId
);

/// All that a driver needs to boot a machine, or to restore one.
///
/// A machine is restored with the `memory_mib`, `vcpus` and number of disks that it was saved with; its id, its
/// directory and the paths of its disks differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSpec {
    /// The machine's id.
    pub id: MachineId,
    /// The machine's own directory. It exists, and nobody else puts anything into it but the disks. The path is short:
    /// a Unix socket's path may have 107 bytes, and the driver adds up to 30.
    pub dir: PathBuf,
    /// The kernel to boot. A restored machine has its kernel in its memory and does not use this.
    pub kernel: Kernel,
    /// The disk with the root file system.
    pub root: Disk,
    /// The disk that is mounted at `/workspace`; `None` if the root file system holds the workspace.
    pub data: Option<Disk>,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs, at least one.
    pub vcpus: u8,
    /// The network interface; none means no network at all.
    pub network: Option<TapInterface>,
    /// The most processes and threads that the agent may have; `None` is the limit of the guest's kernel.
    pub processes: Option<u32>,
}

/// A kernel with its initial file system and command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The file that the driver loads: an uncompressed ELF image.
    pub image: PathBuf,
    /// The initial file system: the guest as `/init`, and the kernel's modules. `None` if all needed modules are built
    /// into the kernel, and the guest is in the root file system.
    pub initramfs: Option<PathBuf>,
    /// Further words for the kernel's command line, after the driver's own.
    pub command_line: Vec<String>,
}

/// A disk image on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The image.
    pub path: PathBuf,
    /// The format of the image.
    pub format: DiskFormat,
    /// Whether the guest may only read the disk.
    pub read_only: bool,
    /// The most bytes a second, in both directions together.
    pub bandwidth: Option<RateLimit>,
    /// The most operations a second.
    pub operations: Option<RateLimit>,
}

/// How a disk image is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskFormat {
    /// Byte for byte, with holes. Every driver takes it.
    Raw,
    /// QEMU's format, for an overlay over a shared image where files cannot be cloned. Firecracker does not take it.
    Qcow2,
}

/// A token bucket: how much may be used at once, and how fast the bucket fills again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// The units that come back each second.
    pub per_second: u64,
    /// The units that a rested machine may use at once in addition.
    pub burst: u64,
}

/// A TAP interface that exists on the host, and the guest's settings for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapInterface {
    /// The interface's name on the host.
    pub name: String,
    /// The guest's hardware address.
    pub mac: MacAddress,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// The length of the network's prefix, in bits of the address.
    pub prefix: u8,
    /// The guest's router to all other networks.
    pub gateway: Ipv4Addr,
    /// Name servers for the guest, the first one first.
    pub name_servers: Vec<IpAddr>,
    /// The most bytes a second into the guest.
    pub receive: Option<RateLimit>,
    /// The most bytes a second out of the guest.
    pub send: Option<RateLimit>,
}

/// A hardware address, as `02:00:0a:00:00:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

/// A text that is no hardware address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a hardware address; write six pairs of hexadecimal digits, as in 02:00:0a:00:00:02")]
pub struct InvalidMac(String);

// === impl MachineId ===

impl MachineId {
    /// Returns the contents of `/etc/machine-id` (machine-id(5)), which stay the same for the machine's whole life.
    /// They do not reveal the id that they are made from, so a copy cannot learn it from the memory that it began with.
    pub fn machine_id(self) -> String {
        let digest = Sha256::digest([b"emergent machine-id ".as_slice(), self.as_uuid().as_bytes()].concat());
        hex::encode(&digest[..16])
    }

    /// Returns the machine's host name.
    pub fn host_name(self) -> String {
        format!("workspace-{}", &self.machine_id()[..8])
    }
}

// === impl MachineSpec ===

impl MachineSpec {
    /// Returns the words for the guest on the kernel's command line.
    pub(crate) fn guest_words(&self) -> Vec<String> {
        let mut words = vec![
            "emergent.root=/dev/vda".to_owned(),
            format!("emergent.host-name={}", self.id.host_name()),
            format!("emergent.machine-id={}", self.id.machine_id()),
        ];
        if self.root.read_only {
            words.push("emergent.read-only".to_owned());
        }
        if self.data.is_some() {
            words.push("emergent.data=/dev/vdb".to_owned());
        }
        words.extend(self.processes.map(|processes| format!("emergent.nproc={processes}")));
        if let Some(network) = &self.network {
            words.push(format!("emergent.address={}/{}", network.address, network.prefix));
            words.push(format!("emergent.gateway={}", network.gateway));
            words.extend(network.name_servers.iter().map(|server| format!("emergent.name-server={server}")));
        }
        words
    }
}

// === impl Disk ===

impl Disk {
    /// A raw image that the guest may write to without a limit of speed.
    pub fn raw(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), format: DiskFormat::Raw, read_only: false, bandwidth: None, operations: None }
    }
}

// === impl MacAddress ===

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let invalid = || InvalidMac(text.to_owned());
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or_else(invalid)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
        }
        pairs.next().map_or(Ok(Self(bytes)), |_| Err(invalid()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_names_of_its_own_for_life() {
        let (one, other) = (MachineId::generate(), MachineId::generate());
        assert_eq!(one.machine_id(), one.machine_id());
        assert_ne!(one.machine_id(), other.machine_id());
        assert_ne!(one.host_name(), other.host_name());
        assert!(one.machine_id().len() == 32 && !one.to_string().contains(&one.machine_id()[..8]));
    }

    #[test]
    fn hardware_addresses_are_written_as_they_are_read() {
        let text = "02:00:0a:ff:00:02";
        assert_eq!(text.parse::<MacAddress>().unwrap().to_string(), text);
        for wrong in ["", "02:00:0a:ff:00", "02:00:0a:ff:00:02:03", "2:00:0a:ff:00:02", "02:00:0a:ff:00:xx"] {
            assert!(wrong.parse::<MacAddress>().is_err(), "{wrong}");
        }
    }
}
