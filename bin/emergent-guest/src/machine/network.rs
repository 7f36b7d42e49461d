//! The machine's network interface, by the kernel's own messages (rtnetlink): no program of the image is needed.

use std::{fs, io, net::IpAddr, path::Path};

use emergent_guest_proto::machine::NetworkSettings;
use rustix::{
    fd::OwnedFd,
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType},
};

use crate::own_files;

const RESOLV_CONF: &str = "/etc/resolv.conf";

// Message types and flags of rtnetlink(7).
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const REQUEST_AND_ANSWER: u16 = 0x1 | 0x4;
const REPLACE_OR_CREATE: u16 = 0x100 | 0x400;
const ERROR: u16 = 2;
// Attributes of links, addresses and routes.
const LINK_ADDRESS: u16 = 1;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const ROUTE_GATEWAY: u16 = 5;
const ROUTE_INTERFACE: u16 = 4;
// Fixed values in their headers.
const INET: u8 = 2;
const UP: u32 = 0x1;
const MAIN_TABLE: u8 = 254;
const PROTOCOL_BOOT: u8 = 3;
const UNICAST: u8 = 1;
/// The gateway is reached directly, whatever the prefix says.
const ON_LINK: u32 = 4;

/// Brings the loopback interface up.
///
/// # Errors
/// When the kernel refuses.
pub fn loopback() -> io::Result<()> {
    Netlink::open()?.ask(NEW_LINK, 0, &link(index_of("lo")?, Some(true)), &[])
}

/// Gives the first interface that is not the loopback its addresses and route, in place of those of `before`.
///
/// # Errors
/// When there is no interface, or the kernel refuses.
pub fn configure(settings: &NetworkSettings, before: Option<&NetworkSettings>) -> io::Result<()> {
    let index = index_of(&first_interface()?)?;
    let kernel = Netlink::open()?;
    if let Some(before) = before.filter(|before| before.address != settings.address || before.prefix != settings.prefix)
    {
        let octets = before.address.octets();
        let attributes = [attribute(LOCAL, &octets), attribute(ADDRESS, &octets)].concat();
        match kernel.ask(DELETE_ADDRESS, 0, &address(index, before.prefix), &attributes) {
            // Somebody in the machine has removed it; it is gone, which is what is wanted.
            Err(error) if error.raw_os_error() == Some(Errno::ADDRNOTAVAIL.raw_os_error()) => {}
            other => other?,
        }
    }
    if let Some(mac) = &settings.mac {
        let bytes = mac_bytes(mac).ok_or_else(|| io::Error::other(format!("{mac:?} is not a hardware address")))?;
        // Most devices take another address only while they are down.
        kernel.ask(NEW_LINK, 0, &link(index, Some(false)), &[])?;
        kernel.ask(NEW_LINK, 0, &link(index, None), &attribute(LINK_ADDRESS, &bytes))?;
    }
    kernel.ask(NEW_LINK, 0, &link(index, Some(true)), &[])?;
    let octets = settings.address.octets();
    let attributes = [attribute(LOCAL, &octets), attribute(ADDRESS, &octets)].concat();
    kernel.ask(NEW_ADDRESS, REPLACE_OR_CREATE, &address(index, settings.prefix), &attributes)?;
    let attributes =
        [attribute(ROUTE_GATEWAY, &settings.gateway.octets()), attribute(ROUTE_INTERFACE, &index.to_ne_bytes())]
            .concat();
    kernel.ask(NEW_ROUTE, REPLACE_OR_CREATE, &default_route(), &attributes)?;
    announce(&settings.name_servers)
}

/// Writes the name servers down.
fn announce(servers: &[IpAddr]) -> io::Result<()> {
    if servers.is_empty() {
        return Ok(());
    }
    let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    // An image may have a link there, to a service that does not run here.
    own_files::replace(Path::new(RESOLV_CONF), 0o644, &[text.as_bytes()])
}

fn first_interface() -> io::Result<String> {
    let names = fs::read_dir("/sys/class/net")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let physical = names.filter(|name| Path::new("/sys/class/net").join(name).join("device").exists());
    physical.min().ok_or_else(|| io::Error::other("the machine has no network interface"))
}

fn index_of(name: &str) -> io::Result<u32> {
    let text = fs::read_to_string(Path::new("/sys/class/net").join(name).join("ifindex"))?;
    text.trim().parse().map_err(io::Error::other)
}

fn mac_bytes(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text.split(':').map(|pair| u8::from_str_radix(pair, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

/// `struct ifinfomsg`.
fn link(index: u32, up: Option<bool>) -> Vec<u8> {
    let (flags, change) = match up {
        Some(up) => (if up { UP } else { 0 }, UP),
        None => (0, 0),
    };
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()].concat()
}

/// `struct ifaddrmsg`.
fn address(index: u32, prefix: u8) -> Vec<u8> {
    [[INET, prefix, 0, 0], index.to_ne_bytes()].concat()
}

/// `struct rtmsg` of a route to everywhere, by a gateway that need not lie within the prefix.
fn default_route() -> Vec<u8> {
    let header = [INET, 0, 0, 0, MAIN_TABLE, PROTOCOL_BOOT, 0, UNICAST];
    [header.as_slice(), &ON_LINK.to_ne_bytes()].concat()
}

/// One attribute, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A conversation with the kernel.
struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    fn open() -> io::Result<Self> {
        // Protocol 0 is routes, links and addresses.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket })
    }

    /// Sends one request and waits for the kernel's answer.
    fn ask(&self, kind: u16, flags: u16, header: &[u8], attributes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(16 + header.len() + attributes.len()).unwrap_or(u32::MAX);
        let mut request = length.to_ne_bytes().to_vec();
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&(flags | REQUEST_AND_ANSWER).to_ne_bytes());
        request.extend_from_slice(&[0; 8]);
        request.extend_from_slice(header);
        request.extend_from_slice(attributes);
        rustix::net::send(&self.socket, &request, SendFlags::empty())?;
        let mut answer = [0; 4096];
        let (answered, _) = rustix::net::recv(&self.socket, &mut answer, RecvFlags::empty())?;
        let answer = answer.get(..answered).unwrap_or_default();
        match (number_at(answer, 4), answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes))
        {
            (Some(ERROR), Some(0)) => Ok(()),
            (Some(ERROR), Some(error)) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
            _ => Err(io::Error::other("the kernel's answer makes no sense")),
        }
    }
}

fn number_at(bytes: &[u8], place: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(place..place + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_say_their_own_length() {
        assert_eq!(
            attribute(1, &[1, 2, 3, 4, 5, 6]),
            [&10_u16.to_ne_bytes()[..], &[1, 0, 1, 2, 3, 4, 5, 6, 0, 0]].concat()
        );
    }

    #[test]
    fn hardware_addresses_are_six_bytes() {
        assert_eq!(mac_bytes("02:00:0a:00:00:ff"), Some([2, 0, 10, 0, 0, 255]));
        assert_eq!(mac_bytes("02:00:0a:00:00"), None);
    }
}
