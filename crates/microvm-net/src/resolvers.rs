//! The host's name servers, which are what its guests ask.

use std::net::Ipv4Addr;

/// As many as a guest's resolver uses.
const MOST: usize = 3;

/// The host's IPv4 name servers that a guest can reach: they are often in a private range, so the packet filter is
/// told of them. Those on a loopback address are left out.
pub fn host_resolvers() -> Vec<Ipv4Addr> {
    emergent_packet_filter::host_resolvers(MOST)
}
