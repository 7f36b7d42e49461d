//! The kernel's own settings of an interface, and whether the host forwards packets.

use std::{fs, io};

use crate::{NetworkError, TapName};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Makes an interface answer for nothing but its own address, believe nothing but its own route, and speak no IPv6.
pub(crate) fn harden(name: &TapName) -> Result<(), NetworkError> {
    for (setting, value) in
        [("rp_filter", "1"), ("arp_ignore", "1"), ("accept_redirects", "0"), ("send_redirects", "0")]
    {
        write(&format!("/proc/sys/net/ipv4/conf/{name}/{setting}"), value)?;
    }
    let ipv6 = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    // A kernel without IPv6 has nothing to close.
    if fs::exists(&ipv6).unwrap_or(true) { write(&ipv6, "1") } else { Ok(()) }
}

/// Lets the host forward packets, without which no guest reaches anything.
pub(crate) fn forward() -> Result<(), NetworkError> {
    let is_on = fs::read_to_string(FORWARDING).is_ok_and(|text| text.trim() == "1");
    if is_on {
        return Ok(());
    }
    tracing::warn!("turning on net.ipv4.ip_forward: this host now forwards packets between its interfaces");
    write(FORWARDING, "1")
}

fn write(path: &str, value: &str) -> Result<(), NetworkError> {
    fs::write(path, value).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "; run with CAP_NET_ADMIN where /proc/sys/net can be written"
            }
            _ => "",
        };
        NetworkError::host(format!("writing {value} into {path}"), format!("{error}{advice}"))
    })
}
