//! The packet filter: one nftables table of our own, `inet emergent_microvm`.
//!
//! ```text
//!  from a guest ─▶ prerouting ─▶ the machine's chain: its own addresses only, its rate, its number of connections
//!                      │              isolated: nothing
//!                      ├─▶ input   (to this host)  ─▶ reachable ─▶ refused
//!                      └─▶ forward (to elsewhere)  ─▶ reachable ─▶ postrouting: masquerade
//!  to a guest ───────────▶ forward: answers to its own connections only; its rate
//! ```
//!
//! An interface that no chain knows passes nothing. The standing part carries a version in the name of an empty chain,
//! so that one look shows whether it is in force and made from the same settings.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
};

use emergent_packet_filter::{OutboundRules, REJECT, version_of};
use emergent_types::NetworkPolicy;
use ipnet::{IpNet, Ipv4Net};

use crate::{AddressPool, AttachedMachine, RateLimit, TAP_PREFIX, TapName, kernel::Link};

/// The table's name.
pub(crate) const TABLE: &str = "emergent_microvm";
/// Connections that one machine may have open: the table of connections is the whole host's.
const MAX_CONNECTIONS: u32 = 8192;

/// The rules that follow from the settings.
pub(crate) struct Filter {
    standing: String,
    version: String,
}

// === impl Filter ===

impl Filter {
    pub(crate) fn new(pool: AddressPool, allow: &[Ipv4Net], resolvers: &[Ipv4Addr]) -> Self {
        let standing = standing(pool, allow, resolvers);
        let version = version_of(&standing);
        Self { standing, version }
    }

    /// The empty chain that shows which rules are in force.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// The transaction that puts everything in place of whatever is there.
    pub(crate) fn whole(&self, links: &[Link]) -> String {
        let Self { standing, version } = self;
        let mut script = format!(
            "table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n  chain {version} {{ }}\n{standing}}}\n"
        );
        links.iter().for_each(|link| {
            if let Some(machine) = &link.attachment.machine {
                script.push_str(&Self::add(link, machine));
            }
        });
        script
    }

    /// The transaction that sets one machine's rules in place of what it had.
    pub(crate) fn set(link: &Link, machine: &AttachedMachine) -> String {
        Self::unset(&link.attachment.name) + &Self::add(link, machine)
    }

    /// The transaction that removes one machine's rules. What is to be removed is added first, since removing what is
    /// not there would fail.
    pub(crate) fn unset(name: &TapName) -> String {
        format!(
            "add chain inet {TABLE} {name}
add chain inet {TABLE} {name}_in
add element inet {TABLE} sending {{ \"{name}\" : jump {name} }}
add element inet {TABLE} receiving {{ \"{name}\" : jump {name}_in }}
delete element inet {TABLE} sending {{ \"{name}\" }}
delete element inet {TABLE} receiving {{ \"{name}\" }}
delete chain inet {TABLE} {name}
delete chain inet {TABLE} {name}_in
"
        )
    }

    /// A connection carries the number of the interface that it began on, which is never given twice: what comes back
    /// to an address that was another machine's before is not for this one.
    fn add(link: &Link, machine: &AttachedMachine) -> String {
        let Link { index, attachment } = link;
        let name = &attachment.name;
        let mut script = format!("add chain inet {TABLE} {name}\nadd chain inet {TABLE} {name}_in\n");
        let mut rule = |chain: &str, text: &str| {
            // Writing into a string cannot fail.
            writeln!(script, "add rule inet {TABLE} {chain} {text}").ok();
        };
        match machine.policy {
            NetworkPolicy::None | NetworkPolicy::Isolated => rule(name.as_str(), "counter drop"),
            NetworkPolicy::Outbound => {
                rule(name.as_str(), &format!("ether saddr != {} counter drop", machine.mac));
                rule(name.as_str(), &format!("ip saddr != {} counter drop", machine.subnet.guest()));
                rule(name.as_str(), "ct state invalid counter drop");
                if let Some(limit) = machine.limits.from_guest {
                    rule(name.as_str(), &over(limit));
                }
                rule(name.as_str(), &format!("ct state new ct count over {MAX_CONNECTIONS} counter drop"));
                rule(name.as_str(), &format!("ct state new ct mark set {index}"));
                rule(name.as_str(), "counter accept");
                rule(&format!("{name}_in"), &format!("ct mark != {index} counter drop"));
                if let Some(limit) = machine.limits.to_guest {
                    rule(&format!("{name}_in"), &over(limit));
                }
            }
        }
        script
            + &format!(
                "add element inet {TABLE} sending {{ \"{name}\" : jump {name} }}
add element inet {TABLE} receiving {{ \"{name}\" : jump {name}_in }}
"
            )
    }

    /// The transaction that leaves nothing of us.
    pub(crate) fn nothing() -> String {
        format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
    }
}

/// The rules that stand whether there are machines or not.
fn standing(pool: AddressPool, allow: &[Ipv4Net], resolvers: &[Ipv4Addr]) -> String {
    let guests = format!("\"{TAP_PREFIX}*\"");
    let allow: Vec<_> = allow.iter().copied().map(IpNet::from).collect();
    let resolvers: Vec<_> = resolvers.iter().copied().map(IpAddr::from).collect();
    let rules = OutboundRules { allow: &allow, resolvers: &resolvers, neighbours: &[], are_counted: true };
    let mut reachable = vec!["ct state established,related accept".to_owned()];
    reachable.extend(rules.render());
    let reachable = reachable.join("\n    ");
    format!(
        "  map sending {{ type ifname : verdict; }}
  map receiving {{ type ifname : verdict; }}
  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    iifname {guests} meta nfproto != ipv4 counter drop
    iifname vmap @sending
    iifname {guests} counter drop
  }}
  chain reachable {{
    {reachable}
  }}
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname {guests} jump reachable
    iifname {guests} counter {REJECT}
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname {guests} oifname {guests} counter drop
    iifname {guests} jump reachable
    oifname {guests} ct state != {{ established, related }} counter drop
    oifname vmap @receiving
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {} oifname != {guests} counter masquerade
  }}
",
        pool.range()
    )
}

/// The rules that drop traffic over a limit. The kernel's bucket for bytes holds what it calls the burst and a second's
/// worth besides, so a burst of less than that cannot be had.
fn over(limit: RateLimit) -> String {
    let rate = limit.bytes_per_second();
    let burst = limit.burst_bytes().saturating_sub(rate);
    format!("limit rate over {rate} bytes/second burst {burst} bytes counter drop")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowed_range_comes_before_the_denied_ones() {
        let rules = standing(AddressPool::default(), &["10.1.2.0/24".parse().unwrap()], &[]);
        let (allowed, denied) = (rules.find("10.1.2.0/24 counter accept"), rules.find("10.0.0.0/8"));
        assert!(allowed.unwrap() < denied.unwrap(), "{rules}");
    }

    #[test]
    fn other_settings_have_another_version() {
        let with = Filter::new(AddressPool::default(), &["10.1.2.0/24".parse().unwrap()], &[]);
        let without = Filter::new(AddressPool::default(), &[], &[]);
        assert_ne!(with.version(), without.version());
    }
}
