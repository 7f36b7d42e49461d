//! Limits on traffic.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use emergent_microvm_net::{AttachRequest, MachineNetwork as _, NetworkLimits, RateLimit};
use emergent_test_netns::INTERNET;
use emergent_types::NetworkPolicy;

use crate::{
    Case,
    guest::Guest,
    world::{Options, USER, World, machine},
};

pub(crate) const CASES: &[Case] = &[("a_machine_is_held_to_its_rate", a_machine_is_held_to_its_rate)];

const SENT: usize = 1 << 20;
const RATE: u32 = 400_000;
const BURST: u32 = 131_072;

fn a_machine_is_held_to_its_rate() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    let limit = RateLimit::new(RATE.into(), BURST.into())?;
    let limits = NetworkLimits { from_guest: Some(limit), to_guest: Some(limit) };
    let request = AttachRequest { limits, ..AttachRequest::new(machine(1), NetworkPolicy::Outbound, USER) };
    let guest = Guest::boot(&world.host, world.runtime.block_on(world.client.attach(&request))?.context("a TAP")?)?;
    let took = |guest: &Guest| {
        let begun = Instant::now();
        guest.space.send(INTERNET, SENT, Duration::from_secs(60)).map(|_| begun.elapsed())
    };
    let limited = took(&guest)?;
    // A second's worth may go at once; what is over it cannot have gone faster than the rate.
    let least = Duration::from_secs_f64(f64::from(u32::try_from(SENT)?) / f64::from(RATE)) - Duration::from_secs(1);
    ensure!(limited >= least, "{SENT} bytes took {limited:?}, less than {least:?}");
    ensure!(world.rules()?.matches("limit rate over").count() == 2);

    world.attach(1, NetworkPolicy::Outbound)?;
    let free = took(&guest)?;
    ensure!(free < least, "without a limit {SENT} bytes took {free:?}");
    println!("1 MiB took {limited:?} at {RATE} bytes/s, {free:?} without a limit");
    Ok(())
}
