//! The packet filter that keeps guests from the host, private ranges and each other.
//!
//! Two nftables tables of our own, replaced as one transaction, beside those of Docker and others: a packet that our
//! tables drop is gone whatever other tables decide, and one that they accept still has to pass the others.
//!
//! - `inet`: routed packets. Hooks `forward` (to anywhere else) and `input` (to the host).
//! - `bridge`: frames between two guests on one bridge, which `inet` sees only where `br_netfilter` is loaded.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::Stdio,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use crate::network::Bridges;

/// The IPv4 ranges that `outbound` does not reach: this host, private, shared, link-local (the metadata address), test,
/// multicast and reserved ranges.
const DENIED_V4: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, \
                         192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3";
/// The IPv6 ranges that `outbound` does not reach: loopback, unique local, link-local, multicast.
const DENIED_V6: &str = "::/127, fc00::/7, fe80::/10, ff00::/8";
/// The verdict that refuses a packet with an answer, so that its sender does not wait.
const REJECT: &str = "reject with icmpx type admin-prohibited";
/// The most links of the host that are filtered; a host has a handful.
const MOST_LINKS: usize = 64;
const NFT_DEADLINE: Duration = Duration::from_secs(3);

/// The rules for one server's bridges.
pub(crate) struct Firewall {
    table: String,
    /// The rules' fingerprint. A chain of this name in the table shows which rules are in force.
    version: String,
    /// The transaction; the second is for kernels that do not support the first.
    scripts: [String; 2],
}

/// The reason why the rules could not be set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FirewallError {
    /// There is no `nft` program.
    #[error("nft could not be run")]
    NoNft(#[source] std::io::Error),
    /// `nft` refused the rules.
    #[error("nft refused: {0}")]
    Refused(String),
    /// `nft` hangs.
    #[error("nft did not answer")]
    Silent,
}

/// Whether an address is in one of the ranges that guests do not reach.
pub(crate) fn is_denied(address: IpAddr) -> bool {
    let ranges = [DENIED_V4, DENIED_V6].into_iter().flat_map(|ranges| ranges.split(", "));
    ranges.filter_map(|range| range.parse::<IpNet>().ok()).any(|range| range.contains(&address))
}

// === impl Firewall ===

impl Firewall {
    /// Makes the rules for these bridges: guests reach the allowed networks and the name servers, and no other
    /// neighbour of the host.
    pub(crate) fn new(
        table: String,
        bridges: &Bridges,
        allow: &[IpNet],
        resolvers: &[IpAddr],
        neighbours: &[Ipv4Net],
    ) -> Self {
        let routed = routed(bridges, allow, resolvers, neighbours);
        let [by_name, by_subnet] = bridged(bridges);
        let version = format!("rules_{:016x}", fingerprint(&format!("{routed}{by_name}{by_subnet}")));
        let scripts = [by_name, by_subnet].map(|bridged| script(&table, &version, bridges, &routed, &bridged));
        Self { table, version, scripts }
    }

    /// Sets the rules unless they are in force.
    pub(crate) async fn ensure(&self) -> Result<(), FirewallError> {
        let is_in_force =
            async |family: &str| nft(&["list", "chain", family, &self.table, &self.version], "").await.is_ok();
        if is_in_force("inet").await && is_in_force("bridge").await {
            return Ok(());
        }
        tracing::info!(table = self.table, "setting the packet filter for workspaces");
        let [by_name, by_subnet] = &self.scripts;
        match nft(&["-f", "-"], by_name).await {
            Err(FirewallError::Refused(_)) => nft(&["-f", "-"], by_subnet).await,
            ended => ended,
        }
    }
}

// === impl FirewallError ===

impl FirewallError {
    /// Returns a warning about the missing filter, with the reason and a remedy.
    pub(crate) fn advice(&self) -> String {
        let consequence = "network: guests are not kept from the host, private ranges and the metadata address";
        match self {
            Self::NoNft(_) => format!("{consequence}: {self}; install nftables"),
            Self::Refused(_) => format!("{consequence}: {self}; run the server as root, on a kernel with nf_tables"),
            Self::Silent => format!("{consequence}: {self}; see what holds it up"),
        }
    }
}

/// Returns the name servers that the engine gives containers on this host. They are often in a private range, and a
/// guest that may go out may ask them for names.
pub(crate) async fn resolvers() -> Vec<IpAddr> {
    // Where the first names only a local stub, the engine takes the second, as systemd-resolved keeps it.
    for path in ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] {
        let text = tokio::fs::read_to_string(Path::new(path)).await.unwrap_or_default();
        let servers = name_servers(&text);
        if !servers.is_empty() {
            return servers;
        }
    }
    Vec::new()
}

/// Returns the networks on the links of this host: their members are the host's neighbours, also in public ranges.
pub(crate) async fn neighbours() -> Vec<Ipv4Net> {
    on_link(&tokio::fs::read_to_string("/proc/net/route").await.unwrap_or_default())
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

/// Returns the name servers in a `resolv.conf` that are not on a loopback address.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = servers.filter_map(|server| server.split_whitespace().next()?.parse::<IpAddr>().ok());
    addresses.filter(|address| !address.is_loopback()).take(8).collect()
}

/// Returns the rules of both routed hooks for a packet that a guest sends.
fn routed(bridges: &Bridges, allow: &[IpNet], resolvers: &[IpAddr], neighbours: &[Ipv4Net]) -> String {
    let mut rules = vec!["ct state established,related accept".to_owned()];
    rules.push("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept".to_owned());
    rules.push(format!("iifname \"{}\" {REJECT}", bridges.isolated.name));
    let family = |is_v4: bool| if is_v4 { "ip" } else { "ip6" };
    rules.extend(allow.iter().map(|net| format!("{} daddr {net} accept", family(net.addr().is_ipv4()))));
    rules.extend(resolvers.iter().map(|server| {
        format!("{} daddr {server} meta l4proto {{ tcp, udp }} th dport 53 accept", family(server.is_ipv4()))
    }));
    rules.push(format!("fib daddr type local {REJECT}"));
    rules.extend(neighbours.iter().map(|network| format!("ip daddr {network} {REJECT}")));
    rules.push(format!("ip daddr {{ {DENIED_V4} }} {REJECT}"));
    rules.push(format!("ip6 daddr {{ {DENIED_V6} }} {REJECT}"));
    rules.join("\n    ")
}

/// Returns the rules for a frame from one guest to another on the same bridge: by the bridge's name, and, for kernels
/// that cannot match that, by the guests' addresses, which a guest without `NET_ADMIN` and `NET_RAW` cannot change.
fn bridged(bridges: &Bridges) -> [String; 2] {
    let by_name = format!("meta ibrname {} drop", guests(bridges));
    let subnets = bridges.outbound.subnets.iter().chain(&bridges.isolated.subnets);
    let by_subnet: Vec<_> = subnets
        .map(|net| {
            let family = if net.addr().is_ipv4() { "ip" } else { "ip6" };
            format!("{family} saddr {net} {family} daddr {net} drop")
        })
        .collect();
    [by_name, by_subnet.join("\n    ")]
}

/// Returns both bridges, as a set of interface names.
fn guests(bridges: &Bridges) -> String {
    format!("{{ \"{}\", \"{}\" }}", bridges.outbound.name, bridges.isolated.name)
}

/// Returns the whole transaction: both tables made if missing, dropped, and made anew.
fn script(table: &str, version: &str, bridges: &Bridges, routed: &str, bridged: &str) -> String {
    let guests = guests(bridges);
    let isolated = &bridges.isolated.name;
    format!(
        "table inet {table}
delete table inet {table}
table inet {table} {{
  chain {version} {{
    {routed}
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname {guests} oifname {guests} drop
    iifname {guests} jump {version}
    oifname \"{isolated}\" ct state != {{ established, related }} drop
  }}
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname {guests} jump {version}
    iifname {guests} {REJECT}
  }}
}}
table bridge {table}
delete table bridge {table}
table bridge {table} {{
  chain {version} {{
    {bridged}
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    jump {version}
  }}
}}
"
    )
}

/// FNV-1a, 64 bits.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

async fn nft(arguments: &[&str], input: &str) -> Result<(), FirewallError> {
    let run = async {
        let mut child = Command::new("nft")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(FirewallError::NoNft)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await.map_err(FirewallError::NoNft)?;
        }
        let output = child.wait_with_output().await.map_err(FirewallError::NoNft)?;
        let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect();
        if output.status.success() { Ok(()) } else { Err(FirewallError::Refused(said)) }
    };
    timeout(NFT_DEADLINE, run).await.unwrap_or(Err(FirewallError::Silent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Bridge;

    fn bridges() -> Bridges {
        let bridge =
            |name: &str, subnet: &str| Bridge { name: name.to_owned(), subnets: vec![subnet.parse().unwrap()] };
        Bridges { outbound: bridge("emg-outbound", "172.18.0.0/16"), isolated: bridge("emg-isolated", "172.19.0.0/16") }
    }

    #[test]
    fn an_allowed_range_comes_before_the_denied_ones() {
        let rules = routed(&bridges(), &["10.1.2.0/24".parse().unwrap()], &[], &["10.0.0.0/16".parse().unwrap()]);
        let (allowed, denied) = (rules.find("10.1.2.0/24 accept"), rules.find("10.0.0.0/8"));
        assert!(allowed.unwrap() < denied.unwrap(), "{rules}");
        assert!(allowed.unwrap() < rules.find("10.0.0.0/16 reject").unwrap(), "{rules}");
    }

    #[test]
    fn an_allowed_range_does_not_open_the_isolated_network() {
        let rules = routed(&bridges(), &["10.1.2.0/24".parse().unwrap()], &["10.0.0.2".parse().unwrap()], &[]);
        let (isolated, allowed) = (rules.find("emg-isolated"), rules.find("10.1.2.0/24"));
        assert!(isolated.unwrap() < allowed.unwrap(), "{rules}");
    }

    #[test]
    fn other_rules_have_another_version() {
        let with = Firewall::new("t".to_owned(), &bridges(), &["10.1.2.0/24".parse().unwrap()], &[], &[]);
        let without = Firewall::new("t".to_owned(), &bridges(), &[], &[], &[]);
        assert_ne!(with.version, without.version);
    }

    #[test]
    fn the_networks_on_the_hosts_links_are_found() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            wg0\t00000080\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\nnonsense\n";
        assert_eq!(on_link(routes), ["192.0.2.0/24".parse().unwrap()]);
    }

    #[test]
    fn loopback_name_servers_are_left_out() {
        let text = "# comment\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch x\nnameserver fd00::1\n";
        let expected: [IpAddr; 2] = ["10.0.0.2".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(name_servers(text), expected);
    }
}
