//! The rules for the network `outbound`: the internet, and nothing of the host's surroundings.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::{DENIED_V4, DENIED_V6};

/// The verdict that refuses a packet with an answer, so that its sender does not wait.
pub const REJECT: &str = "reject with icmpx type admin-prohibited";

/// The settings from which the rules for a packet of a guest follow, by its destination.
#[derive(Debug, Clone, Copy)]
pub struct OutboundRules<'a> {
    /// Ranges that the operator allows although they are denied.
    pub allow: &'a [IpNet],
    /// Name servers, which guests may ask for names.
    pub resolvers: &'a [IpAddr],
    /// Networks of the host's neighbours.
    pub neighbours: &'a [Ipv4Net],
    /// Whether the verdicts count packets.
    pub are_counted: bool,
}

// === impl OutboundRules ===

impl OutboundRules<'_> {
    /// Returns the rules in their order: an exception comes before the range that it is an exception from. A packet
    /// that none of them matches goes to the internet.
    pub fn render(&self) -> Vec<String> {
        let Self { allow, resolvers, neighbours, are_counted } = *self;
        let counter = if are_counted { "counter " } else { "" };
        let reject = format!("{counter}{REJECT}");
        let allowed = allow.iter().map(|range| format!("{} daddr {range} {counter}accept", family(range.addr())));
        let asked = resolvers
            .iter()
            .map(|server| format!("{} daddr {server} meta l4proto {{ tcp, udp }} th dport 53 accept", family(*server)));
        let host = std::iter::once(format!("fib daddr type local {reject}"));
        let next_door = neighbours.iter().map(|network| format!("ip daddr {network} {reject}"));
        let denied = [
            format!("ip daddr {{ {} }} {reject}", list(&DENIED_V4)),
            format!("ip6 daddr {{ {} }} {reject}", list(&DENIED_V6)),
        ];
        allowed.chain(asked).chain(host).chain(next_door).chain(denied).collect()
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

fn list(ranges: &[impl ToString]) -> String {
    ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_come_before_the_ranges_that_they_are_in() {
        let rules = OutboundRules {
            allow: &["10.1.2.0/24".parse().unwrap(), "fd00:1::/32".parse().unwrap()],
            resolvers: &["10.0.0.2".parse().unwrap()],
            neighbours: &["192.0.2.0/24".parse().unwrap()],
            are_counted: true,
        };
        assert_eq!(
            rules.render(),
            [
                "ip daddr 10.1.2.0/24 counter accept",
                "ip6 daddr fd00:1::/32 counter accept",
                "ip daddr 10.0.0.2 meta l4proto { tcp, udp } th dport 53 accept",
                "fib daddr type local counter reject with icmpx type admin-prohibited",
                "ip daddr 192.0.2.0/24 counter reject with icmpx type admin-prohibited",
                "ip daddr { 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, \
                 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3 } counter reject with icmpx type admin-prohibited",
                "ip6 daddr { ::/127, fc00::/7, fe80::/10, ff00::/8 } counter reject with icmpx type admin-prohibited",
            ]
        );
    }
}
