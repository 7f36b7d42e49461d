//! The neighbours of this host: the networks on its own links.

use std::{fs, net::Ipv4Addr};

use ipnet::Ipv4Net;

/// The most links of the host that are filtered; a host has a handful.
const MOST_LINKS: usize = 64;

/// Returns the networks on the links of this host: their members are the host's neighbours, also in public ranges.
pub fn neighbours() -> Vec<Ipv4Net> {
    on_link(&fs::read_to_string("/proc/net/route").unwrap_or_default())
}

/// Returns the destinations without a gateway in the kernel's table of IPv4 routes, whose numbers are hexadecimal and
/// in the machine's byte order. A destination wider than a /8 is left out: it is no link, but a tunnel's route to
/// everything.
fn on_link(routes: &str) -> Vec<Ipv4Net> {
    let networks = routes.lines().skip(1).filter_map(|route| {
        let fields: Vec<_> = route.split_whitespace().collect();
        let [_, destination, gateway, _, _, _, _, mask, ..] = fields.as_slice() else { return None };
        let address = |text: &str| Some(Ipv4Addr::from(u32::from_str_radix(text, 16).ok()?.to_ne_bytes()));
        let network = Ipv4Net::with_netmask(address(destination)?, address(mask)?).ok()?;
        (address(gateway)?.is_unspecified() && network.prefix_len() >= 8).then_some(network)
    });
    networks.take(MOST_LINKS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_networks_on_the_hosts_links_are_found() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            wg0\t00000080\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\nnonsense\n";
        assert_eq!(on_link(routes), ["192.0.2.0/24".parse().unwrap()]);
    }
}
