//! The description of an interface: one line in its alias, the only record that there is.
//!
//! `emergent-microvm/1 MACHINE POLICY ADDRESS MAC FROM TO`, the limits as `rate/burst` or `-`. Whoever lists the
//! interfaces knows everything, after any crash and without a file.

use std::net::Ipv4Addr;

use emergent_types::NetworkPolicy;

use crate::{AttachedMachine, MachineId, NetworkLimits, RateLimit, Subnet};

const FIRST_WORD: &str = "emergent-microvm/1";
const NO_LIMIT: &str = "-";

/// The line for a machine.
pub(crate) fn write(machine: &AttachedMachine) -> String {
    let limit = |limit: Option<RateLimit>| {
        limit.map_or(NO_LIMIT.to_owned(), |limit| format!("{}/{}", limit.bytes_per_second(), limit.burst_bytes()))
    };
    format!(
        "{FIRST_WORD} {} {} {} {} {} {}",
        machine.id,
        machine.policy.as_str(),
        machine.subnet.guest(),
        machine.mac,
        limit(machine.limits.from_guest),
        limit(machine.limits.to_guest),
    )
}

/// The machine that a line tells of; `None` where it is no such line.
pub(crate) fn read(line: &str) -> Option<AttachedMachine> {
    let words: Vec<_> = line.split(' ').collect();
    let [first, id, policy, guest, mac, from_guest, to_guest] = words.try_into().ok()?;
    let guest = guest.parse::<Ipv4Addr>().ok()?;
    let subnet = Subnet::containing(guest);
    let limits = NetworkLimits { from_guest: limit(from_guest)?, to_guest: limit(to_guest)? };
    (first == FIRST_WORD && subnet.guest() == guest).then_some(AttachedMachine {
        id: MachineId(id.parse().ok()?),
        policy: self::policy(policy)?,
        subnet,
        mac: mac.parse().ok()?,
        limits,
    })
}

/// A policy by its word.
pub(crate) fn policy(word: &str) -> Option<NetworkPolicy> {
    let all = [NetworkPolicy::None, NetworkPolicy::Isolated, NetworkPolicy::Outbound];
    all.into_iter().find(|policy| policy.as_str() == word)
}

fn limit(word: &str) -> Option<Option<RateLimit>> {
    if word == NO_LIMIT {
        return Some(None);
    }
    let (rate, burst) = word.split_once('/')?;
    Some(Some(RateLimit::new(rate.parse().ok()?, burst.parse().ok()?).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::MacAddress;

    /// The kernel's `IFALIASZ` less the terminator.
    const LONGEST_ALIAS: usize = 255;

    proptest! {
        #[test]
        fn what_is_written_is_read_again_and_fits(
            number: u128,
            address: u32,
            rate in RateLimit::RATES,
            burst in RateLimit::BURSTS,
        ) {
            let id = MachineId(uuid::Uuid::from_u128(number));
            let limits = NetworkLimits { from_guest: RateLimit::new(rate, burst).ok(), to_guest: None };
            let subnet = Subnet::containing(Ipv4Addr::from(address));
            let machine =
                AttachedMachine { id, policy: NetworkPolicy::Outbound, subnet, mac: MacAddress::of(id), limits };
            let line = write(&machine);
            prop_assert!(line.len() <= LONGEST_ALIAS);
            prop_assert_eq!(read(&line), Some(machine));
        }

        #[test]
        fn no_text_breaks_the_reader(text in "(emergent-microvm/1 )?\\PC{0,80}") {
            read(&text);
        }
    }
}
