//! The helper killed at every step, and what the next one makes of it.

use anyhow::{Context as _, ensure};
use emergent_microvm_net::{MachineNetwork as _, NetworkError, NetworkStep};
use emergent_test_netns::{HOST_AS_SEEN, INTERNET};
use emergent_types::NetworkPolicy;

use crate::{
    Case,
    guest::Guest,
    world::{Options, World, machine},
};

pub(crate) const CASES: &[Case] = &[
    ("after_a_crash_at_any_step_strays_are_removed", strays_are_removed),
    ("after_a_crash_at_any_step_the_machine_is_attached_again", the_machine_is_attached_again),
    ("rules_that_somebody_removed_are_set_again", rules_are_set_again),
    ("running_machines_keep_their_network_while_the_helper_is_gone", machines_go_on),
];

fn crashed_at(step: NetworkStep) -> anyhow::Result<World> {
    let mut world = World::make(&Options::default())?;
    let is_of_detach = step.name().starts_with("detach");
    if is_of_detach {
        world.attach(1, NetworkPolicy::Outbound)?;
    }
    world.start_helper(&Options { fault: Some(step), ..Options::default() })?;
    let ended = if is_of_detach { world.detach(1) } else { world.attach(1, NetworkPolicy::Outbound).map(drop) };
    ensure!(matches!(ended, Err(NetworkError::NoHelper { .. })), "{}: {ended:?}", step.name());
    world.start_helper(&Options::default())?;
    Ok(world)
}

fn strays_are_removed() -> anyhow::Result<()> {
    for step in NetworkStep::ALL {
        let world = crashed_at(step)?;
        let left = world.taps()?.len();
        let removed = world.runtime.block_on(world.client.remove_strays(&[]))?;
        ensure!(removed.len() == left, "{}: {left} left, {removed:?} removed", step.name());
        world.expect_nothing_left().with_context(|| step.name())?;
    }
    Ok(())
}

fn the_machine_is_attached_again() -> anyhow::Result<()> {
    for step in NetworkStep::ALL {
        let world = crashed_at(step)?;
        let guest = world.boot(1, NetworkPolicy::Outbound).with_context(|| step.name())?;
        ensure!(guest.reach(INTERNET).with_context(|| step.name())? == HOST_AS_SEEN);
        ensure!(world.taps()?.len() == 1);
        world.detach(1)?;
        world.expect_nothing_left().with_context(|| step.name())?;
    }
    Ok(())
}

fn rules_are_set_again() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    let guest = world.boot(1, NetworkPolicy::Outbound)?;
    world.host.run("nft flush ruleset")?;
    let status = world.runtime.block_on(world.client.status())?;
    ensure!(status.warnings.len() == 1 && status.attached == 1, "{status:?}");
    world.runtime.block_on(world.client.remove_strays(&[machine(1)]))?;
    ensure!(guest.reach(INTERNET)? == HOST_AS_SEEN);
    world.host.run("nft flush ruleset")?;
    // Another machine's attach puts the first one's rules back, too.
    world.attach(2, NetworkPolicy::Isolated)?;
    ensure!(guest.reach(INTERNET)? == HOST_AS_SEEN);
    ensure!(world.runtime.block_on(world.client.status())?.warnings.is_empty());
    Ok(())
}

fn machines_go_on() -> anyhow::Result<()> {
    let mut world = World::make(&Options::default())?;
    let guest = world.boot(1, NetworkPolicy::Outbound)?;
    world.end_helper();
    ensure!(guest.reach(INTERNET)? == HOST_AS_SEEN);
    let unreachable = world.detach(1);
    ensure!(matches!(unreachable, Err(NetworkError::NoHelper { .. })), "{unreachable:?}");
    world.start_helper(&Options::default())?;
    ensure!(world.attach(1, NetworkPolicy::Outbound)?.as_ref() == Some(&guest.tap));
    // A machine that was restarted opens the same interface.
    let tap = guest.tap.clone();
    drop(guest);
    ensure!(Guest::boot(&world.host, tap)?.reach(INTERNET)? == HOST_AS_SEEN);
    Ok(())
}
