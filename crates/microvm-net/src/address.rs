//! Addresses: the pool, the little subnet that each machine gets of it, and hardware addresses.
//!
//! Each machine gets a `/30`: an ordinary subnet with the host's end as the gateway, which the kernel's `ip=` argument
//! can express and any guest understands, and in which nobody else exists. A `/16` has 16,384 of them.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::MachineId;

const SUBNET_PREFIX: u8 = 30;
const SUBNET_SIZE: u32 = 4;

/// The range that machines get their addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPool(Ipv4Net);

/// A range that cannot be an [`AddressPool`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an address pool is a private IPv4 range from /8 to /30, such as 10.201.0.0/16, not {0:?}")]
pub struct InvalidPool(String);

/// The addresses of one machine in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    network: Ipv4Addr,
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

/// A text that is no hardware address of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hardware address is six pairs of hexadecimal digits, such as 02:00:00:00:00:01, and not a group's")]
pub struct InvalidMac;

// === impl AddressPool ===

impl AddressPool {
    /// The whole range.
    pub fn range(self) -> Ipv4Net {
        self.0
    }

    /// Returns the number of machines that the pool has room for.
    pub fn capacity(self) -> u32 {
        // At least a /8: the shift is 22 at most.
        1 << (SUBNET_PREFIX - self.0.prefix_len())
    }

    /// The subnet that a guest address belongs to; `None` where the address is not a guest's of this pool.
    pub fn subnet_of(self, guest: Ipv4Addr) -> Option<Subnet> {
        let subnet = Subnet::containing(guest);
        (self.0.contains(&guest) && subnet.guest() == guest).then_some(subnet)
    }

    /// A subnet that `is_taken` does not know. The search begins at a place that follows from the machine, so that a
    /// machine mostly gets the address that it had, and an address that was given back is not soon another machine's.
    pub fn free_subnet(self, machine: MachineId, is_taken: impl Fn(Subnet) -> bool) -> Option<Subnet> {
        let [.., a, b, c, d] = machine.tail();
        let first = u32::from_be_bytes([a, b, c, d]);
        (0..self.capacity()).map(|step| self.subnet(first.wrapping_add(step))).find(|subnet| !is_taken(*subnet))
    }

    /// The subnet at a place, counted round and round.
    fn subnet(self, place: u32) -> Subnet {
        let offset = (place % self.capacity()) * SUBNET_SIZE;
        Subnet { network: Ipv4Addr::from(u32::from(self.0.network()) + offset) }
    }
}

impl Default for AddressPool {
    fn default() -> Self {
        Self(Ipv4Net::new_assert(Ipv4Addr::new(10, 201, 0, 0), 16))
    }
}

impl FromStr for AddressPool {
    type Err = InvalidPool;

    fn from_str(text: &str) -> Result<Self, InvalidPool> {
        let invalid = || InvalidPool(text.chars().take(40).collect());
        let range = text.parse::<Ipv4Net>().map_err(|_| invalid())?;
        let is_private = range.network().is_private() && range.broadcast().is_private();
        let well_formed = is_private && (8..=SUBNET_PREFIX).contains(&range.prefix_len()) && range.trunc() == range;
        well_formed.then_some(Self(range)).ok_or_else(invalid)
    }
}

impl fmt::Display for AddressPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Subnet ===

impl Subnet {
    /// The number of bits of an address that name the subnet.
    pub const PREFIX: u8 = SUBNET_PREFIX;

    /// The subnet around any address.
    pub(crate) fn containing(address: Ipv4Addr) -> Self {
        Self { network: Ipv4Addr::from(u32::from(address) & !(SUBNET_SIZE - 1)) }
    }

    /// The host's end.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | 1)
    }

    /// The machine's end.
    pub fn guest(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | 2)
    }
}

// === impl MacAddress ===

impl MacAddress {
    /// The host's end of every TAP. Each is a link of two, so they may be the same, and a guest that is restored
    /// elsewhere finds the gateway where it remembers it.
    pub const HOST: Self = Self([0x02, 0x65, 0x6d, 0x76, 0x00, 0x01]);

    /// The address of a machine: locally administered, and always the same.
    pub fn of(machine: MachineId) -> Self {
        let [_, a, b, c, d, e] = machine.tail();
        Self([0x02, a, b, c, d, e])
    }

    /// Returns the address's bytes.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let pairs: Vec<_> = text.split(':').collect();
        let octets: [&str; 6] = pairs.try_into().map_err(|_| InvalidMac)?;
        let mut address = [0; 6];
        for (octet, pair) in address.iter_mut().zip(octets) {
            let is_pair = pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
            *octet = is_pair.then(|| u8::from_str_radix(pair, 16).ok()).flatten().ok_or(InvalidMac)?;
        }
        let is_group = address[0] & 1 == 1;
        if is_group || address == [0; 6] { Err(InvalidMac) } else { Ok(Self(address)) }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = InvalidMac;

    fn try_from(text: String) -> Result<Self, InvalidMac> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn machine(number: u128) -> MachineId {
        MachineId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn a_pool_gives_every_subnet_once_and_then_none() {
        let pool: AddressPool = "10.9.0.0/27".parse().unwrap();
        let mut taken = HashSet::new();
        for number in 0..8 {
            let subnet = pool.free_subnet(machine(number * 7), |subnet| taken.contains(&subnet)).unwrap();
            assert!(pool.range().contains(&subnet.guest()) && taken.insert(subnet));
        }
        assert_eq!(taken.len(), usize::try_from(pool.capacity()).unwrap());
        assert_eq!(pool.free_subnet(machine(1), |subnet| taken.contains(&subnet)), None);
    }

    #[test]
    fn only_private_ranges_are_pools() {
        for text in ["8.8.0.0/16", "10.0.0.0/7", "10.0.0.1/16", "10.0.0.0/31", "fd00::/64", "172.16.0.0/11", "x"] {
            assert!(text.parse::<AddressPool>().is_err(), "{text}");
        }
        for text in ["10.0.0.0/8", "192.168.4.0/30", "172.16.0.0/12"] {
            assert!(text.parse::<AddressPool>().is_ok(), "{text}");
        }
    }

    #[test]
    fn the_gateway_is_no_guest_address() {
        let pool = AddressPool::default();
        let subnet = pool.free_subnet(machine(5), |_| false).unwrap();
        assert_eq!(pool.subnet_of(subnet.guest()), Some(subnet));
        assert_eq!(pool.subnet_of(subnet.gateway()), None);
        assert_eq!(pool.subnet_of(Ipv4Addr::new(10, 202, 0, 2)), None);
    }

    proptest! {
        #[test]
        fn a_machine_has_one_address_of_its_own_kind(number: u128) {
            let mac = MacAddress::of(machine(number));
            prop_assert_eq!(mac.octets()[0], 2);
            prop_assert_eq!(mac.to_string().parse::<MacAddress>(), Ok(mac));
        }

        #[test]
        fn no_text_breaks_the_parsers(text in "\\PC{0,40}") {
            text.parse::<MacAddress>().ok();
            text.parse::<AddressPool>().ok();
        }
    }
}
