//! The packet filter that keeps guests from the host, private ranges and each other.
//!
//! Two nftables tables of our own, replaced as one transaction, beside those of Docker and others: a packet that our
//! tables drop is gone whatever other tables decide, and one that they accept still has to pass the others.
//!
//! - `inet`: routed packets. Hooks `forward` (to anywhere else) and `input` (to the host).
//! - `bridge`: frames between two guests on one bridge, which `inet` sees only where `br_netfilter` is loaded.

use std::{net::IpAddr, time::Duration};

use emergent_packet_filter::{Nft, OutboundRules, ProgramError, REJECT, version_of};
use ipnet::{IpNet, Ipv4Net};

use crate::bridges::Bridges;

const NFT: Nft = Nft::within(Duration::from_secs(3));

/// The rules for one server's bridges.
pub(crate) struct Firewall {
    table: String,
    /// The rules' fingerprint. A chain of this name in the table shows which rules are in force.
    version: String,
    /// The transaction; the second is for kernels that do not support the first.
    scripts: [String; 2],
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
        let version = version_of(&format!("{routed}{by_name}{by_subnet}"));
        let scripts = [by_name, by_subnet].map(|bridged| script(&table, &version, bridges, &routed, &bridged));
        Self { table, version, scripts }
    }

    /// Sets the rules unless they are in force.
    pub(crate) async fn ensure(&self) -> Result<(), ProgramError> {
        let is_in_force = async |family: &str| NFT.has_chain(family, &self.table, &self.version).await.unwrap_or(false);
        if is_in_force("inet").await && is_in_force("bridge").await {
            return Ok(());
        }
        tracing::info!(table = self.table, "setting the packet filter for workspaces");
        let [by_name, by_subnet] = &self.scripts;
        match NFT.apply(by_name).await {
            Err(ProgramError::Refused { .. }) => NFT.apply(by_subnet).await,
            ended => ended,
        }
    }
}

/// Returns a warning about the missing filter, with the reason and a remedy.
pub(crate) fn advice(error: &ProgramError) -> String {
    let consequence = "network: guests are not kept from the host, private ranges and the metadata address";
    match error {
        ProgramError::NotRun { .. } => format!("{consequence}: {error}; install nftables"),
        ProgramError::Refused { .. } => {
            format!("{consequence}: {error}; run the server as root, on a kernel with nf_tables")
        }
        ProgramError::Silent { .. } => format!("{consequence}: {error}; see what holds it up"),
    }
}

/// Returns the rules of both routed hooks for a packet that a guest sends.
fn routed(bridges: &Bridges, allow: &[IpNet], resolvers: &[IpAddr], neighbours: &[Ipv4Net]) -> String {
    let mut rules = vec!["ct state established,related accept".to_owned()];
    rules.push("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept".to_owned());
    rules.push(format!("iifname \"{}\" {REJECT}", bridges.isolated.name));
    rules.extend(OutboundRules { allow, resolvers, neighbours, are_counted: false }.render());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridges::Bridge;

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
}
