//! The ranges of addresses that no sandbox reaches, unless the operator allows a part of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// The IPv4 ranges that the network `outbound` does not reach.
pub const DENIED_V4: [Ipv4Net; 9] = [
    // This host.
    v4([0, 0, 0, 0], 8),
    // Private.
    v4([10, 0, 0, 0], 8),
    // Shared by the customers of a provider.
    v4([100, 64, 0, 0], 10),
    // Loopback.
    v4([127, 0, 0, 0], 8),
    // Link-local, with the metadata address of clouds, 169.254.169.254.
    v4([169, 254, 0, 0], 16),
    // Private.
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    // For tests of devices.
    v4([198, 18, 0, 0], 15),
    // Multicast, and reserved.
    v4([224, 0, 0, 0], 3),
];

/// The IPv6 ranges that the network `outbound` does not reach.
pub const DENIED_V6: [Ipv6Net; 4] = [
    // No address, and loopback.
    v6(0, 127),
    // Unique local, with the metadata address of clouds.
    v6(0xfc00, 7),
    // Link-local.
    v6(0xfe80, 10),
    // Multicast.
    v6(0xff00, 8),
];

/// Whether an address is in one of the ranges that sandboxes do not reach.
pub fn is_denied(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => DENIED_V4.iter().any(|range| range.contains(&address)),
        IpAddr::V6(address) => DENIED_V6.iter().any(|range| range.contains(&address)),
    }
}

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(first: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_address_is_denied_and_the_internet_is_not() {
        for denied in ["169.254.169.254", "fd00:ec2::254", "10.0.0.1", "127.0.0.1", "::1", "240.0.0.1"] {
            assert!(is_denied(denied.parse().unwrap()), "{denied}");
        }
        for reached in ["1.1.1.1", "2606:4700:4700::1111", "172.32.0.1", "223.255.255.255"] {
            assert!(!is_denied(reached.parse().unwrap()), "{reached}");
        }
    }
}
