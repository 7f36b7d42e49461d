//! The name servers of this host, which sandboxes may ask for names although they are often in a denied range.

use std::{fs, net::IpAddr, str::FromStr};

/// Files with name servers. Where the first names only a local stub, systemd-resolved keeps the servers in the second.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Returns the name servers of this host that a sandbox can reach, with addresses of one family
/// ([`Ipv4Addr`](std::net::Ipv4Addr)) or of both ([`IpAddr`]), at most `most`.
pub fn host_resolvers<A: FromStr + Into<IpAddr> + Copy>(most: usize) -> Vec<A> {
    let servers = FILES.map(|path| name_servers(&fs::read_to_string(path).unwrap_or_default(), most));
    servers.into_iter().find(|servers| !servers.is_empty()).unwrap_or_default()
}

/// Returns the name servers in a `resolv.conf`, without those that are the asking machine itself.
fn name_servers<A: FromStr + Into<IpAddr> + Copy>(text: &str, most: usize) -> Vec<A> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = servers.filter_map(|server| server.split_whitespace().next()?.parse::<A>().ok());
    addresses.filter(|address| !is_own((*address).into())).take(most).collect()
}

fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const TEXT: &str = "# comment\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch x\nnameserver fd00::1\n";

    #[test]
    fn loopback_name_servers_are_left_out() {
        let expected: [IpAddr; 2] = ["10.0.0.2".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(name_servers::<IpAddr>(TEXT, 8), expected);
    }

    #[test]
    fn name_servers_of_one_family_alone_are_found() {
        assert_eq!(name_servers::<Ipv4Addr>(TEXT, 8), [Ipv4Addr::new(10, 0, 0, 2)]);
        assert_eq!(name_servers::<Ipv6Addr>(TEXT, 8), ["fd00::1".parse::<Ipv6Addr>().unwrap()]);
    }
}
