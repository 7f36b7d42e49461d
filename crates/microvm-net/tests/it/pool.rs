//! Addresses: enough, too few, the same again.

use std::collections::HashSet;

use anyhow::{Context as _, ensure};
use emergent_microvm_net::{AttachRequest, MacAddress, MachineNetwork as _, NetworkError};
use emergent_test_netns::{HOST_AS_SEEN, INTERNET};
use emergent_types::NetworkPolicy;

use crate::{
    Case,
    world::{Options, USER, World, machine},
};

pub(crate) const CASES: &[Case] = &[
    ("a_full_pool_refuses_and_has_room_again_after_a_detach", a_full_pool_refuses),
    ("twenty_at_once_get_addresses_of_their_own", twenty_at_once),
    ("a_restored_machine_gets_the_addresses_that_it_remembers", addresses_are_given_again),
    ("a_pool_that_overlaps_the_hosts_addresses_is_refused", an_overlapping_pool_is_refused),
    ("attach_and_detach_may_be_repeated", repeated),
];

fn a_full_pool_refuses() -> anyhow::Result<()> {
    let world = World::make(&Options { pool: Some("10.201.7.0/28"), ..Options::default() })?;
    for number in 1..=4 {
        world.attach(number, NetworkPolicy::Outbound)?.context("an interface")?;
    }
    let refused = world.attach(5, NetworkPolicy::Outbound);
    ensure!(matches!(refused, Err(NetworkError::PoolExhausted { capacity: 4, .. })), "{refused:?}");
    ensure!(world.taps()?.len() == 4);
    world.detach(2)?;
    world.attach(5, NetworkPolicy::Outbound)?.context("an interface")?;
    Ok(())
}

fn twenty_at_once() -> anyhow::Result<()> {
    let world = World::make(&Options { pool: Some("10.201.7.0/25"), ..Options::default() })?;
    let begun = std::time::Instant::now();
    let taps = world.runtime.block_on(async {
        let requests: Vec<_> =
            (0..20).map(|number| AttachRequest::new(machine(number), NetworkPolicy::Outbound, USER)).collect();
        futures::future::try_join_all(requests.iter().map(|request| world.client.attach(request))).await
    })?;
    println!("20 attaches took {:?}", begun.elapsed());
    let distinct: HashSet<_> = taps.iter().flatten().map(|tap| (tap.subnet, &tap.name, tap.mac)).collect();
    ensure!(distinct.len() == 20);
    let removed = world.runtime.block_on(world.client.remove_strays(&[machine(3)]))?;
    ensure!(removed.len() == 19 && world.taps()? == [taps[3].as_ref().context("an interface")?.name.to_string()]);
    Ok(())
}

fn addresses_are_given_again() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    let first = world.attach(1, NetworkPolicy::Outbound)?.context("an interface")?;
    world.detach(1)?;
    let request = AttachRequest {
        guest_address: Some(first.subnet.guest()),
        mac: Some(first.mac),
        ..AttachRequest::new(machine(2), NetworkPolicy::Outbound, USER)
    };
    let restored = world.runtime.block_on(world.client.attach(&request))?.context("an interface")?;
    ensure!((restored.subnet, restored.mac) == (first.subnet, first.mac));
    let guest = crate::guest::Guest::boot(&world.host, restored)?;
    ensure!(guest.reach(INTERNET)? == HOST_AS_SEEN);

    let again = AttachRequest { machine: machine(3), ..request.clone() };
    let refused = world.runtime.block_on(world.client.attach(&again));
    ensure!(matches!(refused, Err(NetworkError::AddressTaken { .. })), "{refused:?}");
    let outside = AttachRequest { guest_address: Some([10, 77, 0, 2].into()), ..again };
    let refused = world.runtime.block_on(world.client.attach(&outside));
    ensure!(matches!(refused, Err(NetworkError::AddressOutside { .. })), "{refused:?}");
    // Without a wish the machine has what it had.
    let kept = world.attach(2, NetworkPolicy::Outbound)?.context("an interface")?;
    ensure!((kept.subnet, kept.mac) == (first.subnet, first.mac) && kept.mac != MacAddress::of(machine(2)));
    Ok(())
}

fn an_overlapping_pool_is_refused() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    world.host.ip("addr add 10.201.200.1/24 dev up0")?;
    let refused = world.attach(1, NetworkPolicy::Outbound);
    ensure!(matches!(&refused, Err(NetworkError::PoolOverlaps { interface, .. }) if interface == "up0"), "{refused:?}");
    ensure!(world.runtime.block_on(world.client.status())?.warnings.len() == 1);
    world.expect_nothing_left()
}

fn repeated() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    world.detach(1)?;
    let first = world.attach(1, NetworkPolicy::Outbound)?;
    let guest = crate::guest::Guest::boot(&world.host, first.clone().context("an interface")?)?;
    ensure!(world.attach(1, NetworkPolicy::Outbound)? == first);
    ensure!(guest.reach(INTERNET)? == HOST_AS_SEEN);
    let listed = world.runtime.block_on(world.client.list())?;
    let attached = listed.first().and_then(|attachment| attachment.machine).context("a machine")?;
    ensure!(listed.len() == 1 && attached.id == machine(1) && attached.subnet == guest.tap.subnet);
    world.detach(1)?;
    world.detach(1)?;
    world.expect_nothing_left()
}
