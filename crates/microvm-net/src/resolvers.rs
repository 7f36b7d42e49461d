//! The host's name servers, which are what its guests ask.

use std::{fs, net::Ipv4Addr};

/// As many as a guest's resolver uses.
const MOST: usize = 3;

/// The host's IPv4 name servers that a guest can reach: they are often in a private range, so the packet filter is
/// told of them. Those on a loopback address are left out.
pub fn host_resolvers() -> Vec<Ipv4Addr> {
    // Where the first names only a local stub, systemd-resolved keeps the servers in the second.
    let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
    let servers = files.map(|path| name_servers(&fs::read_to_string(path).unwrap_or_default()));
    servers.into_iter().find(|servers| !servers.is_empty()).unwrap_or_default()
}

fn name_servers(text: &str) -> Vec<Ipv4Addr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = servers.filter_map(|server| server.split_whitespace().next()?.parse::<Ipv4Addr>().ok());
    addresses.filter(|address| !address.is_loopback() && !address.is_unspecified()).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_name_servers_are_left_out() {
        let text = "# comment\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch x\nnameserver fd00::1\n";
        assert_eq!(name_servers(text), [Ipv4Addr::new(10, 0, 0, 2)]);
    }
}
