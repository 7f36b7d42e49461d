//! The host's settings on the kernel's command line, as words `emergent.NAME=VALUE`.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use emergent_guest_proto::machine::NetworkSettings;

use super::identity::is_machine_id;

/// The host's settings for the machine. A malformed word is ignored with a warning: the machine should come up, so that
/// somebody can examine it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineSettings {
    /// Whether to report only that the machine boots, and turn it off.
    pub probe: bool,
    /// The block device with the root file system.
    pub root: Option<PathBuf>,
    /// The block device that is mounted at `/workspace`.
    pub data: Option<PathBuf>,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// Whether the machine ends by a restart, because its monitor knows no other end.
    pub restart_to_end: bool,
    /// The host name.
    pub host_name: Option<String>,
    /// The contents of `/etc/machine-id`.
    pub machine_id: Option<String>,
    /// The most processes of the agent's user.
    pub nproc: Option<u64>,
    /// The network interface, if there is one.
    pub network: Option<NetworkSettings>,
}

impl MachineSettings {
    /// Reads the kernel's command line.
    pub fn read(line: &str) -> Self {
        let mut settings = Self::default();
        let (mut address, mut gateway, mut name_servers) = (None, None, Vec::new());
        for word in line.split_whitespace().filter_map(|word| word.strip_prefix("emergent.")) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let understood = match name {
                "probe" => set(&mut settings.probe, Some(true)),
                "read-only" => set(&mut settings.read_only, Some(true)),
                "root" => set(&mut settings.root, device(value).map(Some)),
                "data" => set(&mut settings.data, device(value).map(Some)),
                "off" => set(&mut settings.restart_to_end, Some(value == "restart")),
                "host-name" => set(&mut settings.host_name, Some(Some(value.to_owned()))),
                "machine-id" => set(&mut settings.machine_id, is_machine_id(value).then(|| Some(value.to_owned()))),
                "nproc" => set(&mut settings.nproc, value.parse().ok().map(Some)),
                "address" => set(&mut address, with_prefix(value).map(Some)),
                "gateway" => set(&mut gateway, value.parse().ok().map(Some)),
                "name-server" => value.parse::<IpAddr>().map(|server| name_servers.push(server)).is_ok(),
                _ => false,
            };
            if !understood {
                tracing::warn!("the kernel's command line has a word that cannot be understood: emergent.{word}");
            }
        }
        if let (Some((address, prefix)), Some(gateway)) = (address, gateway) {
            settings.network = Some(NetworkSettings { mac: None, address, prefix, gateway, name_servers });
        }
        settings
    }
}

fn set<T>(place: &mut T, value: Option<T>) -> bool {
    value.map(|value| *place = value).is_some()
}

fn device(value: &str) -> Option<PathBuf> {
    value.starts_with("/dev/").then(|| value.into())
}

fn with_prefix(value: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = value.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok().filter(|prefix| *prefix <= 32)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_read_as_a_whole() {
        let line = "quiet emergent.root=/dev/vda emergent.address=10.1.2.3/30 emergent.gateway=10.1.2.1 \
            emergent.name-server=192.0.2.1 emergent.name-server=2001:db8::1 panic=-1";
        let settings = MachineSettings::read(line);
        let network = settings.network.unwrap();
        assert_eq!((network.address, network.prefix), (Ipv4Addr::new(10, 1, 2, 3), 30));
        assert_eq!(network.name_servers.len(), 2);
        assert_eq!(settings.root, Some("/dev/vda".into()));
        assert!(!settings.probe);
    }

    #[test]
    fn what_cannot_be_understood_changes_nothing() {
        let line = "emergent.address=10.1.2.3/33 emergent.root=vda emergent.nproc=-1 emergent.nonsense \
            emergent.machine-id=1 root=/dev/sda";
        assert_eq!(MachineSettings::read(line), MachineSettings::default());
    }
}
