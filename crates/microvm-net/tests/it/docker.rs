//! Beside others that drop what is forwarded.

use anyhow::ensure;
use emergent_microvm_net::MachineNetwork as _;
use emergent_test_netns::{DENIED, HOST_AS_SEEN, INTERNET};
use emergent_types::NetworkPolicy;

use crate::{
    Case,
    world::{Options, World},
};

pub(crate) const CASES: &[Case] = &[
    ("dockers_policy_of_dropping_does_not_keep_machines_from_the_internet", docker_drops),
    ("a_policy_of_dropping_that_nobody_opens_is_told", somebody_drops),
];

fn docker_drops() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    for rule in ["-P FORWARD DROP", "-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-A FORWARD -j DOCKER-USER"] {
        world.host.run(&format!("iptables {rule}"))?;
    }
    let before = world.host.run("iptables -S")?;
    let guest = world.boot(1, NetworkPolicy::Outbound)?;
    ensure!(guest.reach(INTERNET)? == HOST_AS_SEEN);
    ensure!(guest.reach(DENIED[0]).is_err());
    world.attach(2, NetworkPolicy::Outbound)?;
    let rules = world.host.run("iptables -S DOCKER-USER")?;
    ensure!(rules.matches("emergent_microvm").count() == 2, "{rules}");
    ensure!(world.runtime.block_on(world.client.status())?.warnings.is_empty());
    world.detach(1)?;
    world.detach(2)?;
    ensure!(world.host.run("iptables -S")? == before);
    Ok(())
}

fn somebody_drops() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    world.host.run("nft add table inet mine")?;
    world.host.run("nft add chain inet mine passing { type filter hook forward priority 0 ; policy drop ; }")?;
    let guest = world.boot(1, NetworkPolicy::Outbound)?;
    ensure!(guest.reach(INTERNET).is_err());
    let warnings = world.runtime.block_on(world.client.status())?.warnings;
    ensure!(
        warnings.len() == 1 && warnings[0].contains("`passing`") && warnings[0].contains("`inet mine`"),
        "{warnings:?}"
    );
    drop(guest);
    world.detach(1)?;
    ensure!(world.rules()?.contains("table inet mine"));
    Ok(())
}
