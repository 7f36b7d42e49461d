//! The networks that a machine reaches under each policy.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use emergent_microvm_net::{AttachRequest, MachineNetwork as _};
use emergent_test_netns::{DENIED, HOST_AS_SEEN, INTERNET, Space};
use emergent_types::NetworkPolicy;

use crate::{
    Case,
    guest::Guest,
    world::{Options, USER, World, machine, owner_of},
};

pub(crate) const CASES: &[Case] = &[
    ("outbound_reaches_the_internet_from_the_hosts_address", outbound_reaches_the_internet),
    ("outbound_reaches_neither_the_host_nor_private_ranges_nor_metadata", outbound_reaches_nothing_private),
    ("an_allowed_range_is_reached_and_nothing_beside_it", an_allowed_range_is_reached),
    ("machines_do_not_reach_each_other", machines_do_not_reach_each_other),
    ("isolated_reaches_nothing_and_none_has_no_interface", isolated_reaches_nothing),
    ("packets_from_another_address_are_dropped", packets_from_another_address_are_dropped),
    ("answers_to_a_machine_that_is_gone_are_not_given_to_the_next", answers_to_the_gone),
    ("the_policy_of_a_running_machine_changes", the_policy_changes),
    ("nobody_beyond_starts_a_connection_to_a_machine", nobody_calls_in),
];

fn outbound_reaches_the_internet() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    let guest = world.boot(1, NetworkPolicy::Outbound)?;
    // The internet has no route to the pool: only a masqueraded packet is answered.
    ensure!(guest.reach(INTERNET)? == HOST_AS_SEEN);
    ensure!(owner_of(&world.host, guest.tap.name.as_str())? == USER.to_string());
    drop(guest);
    world.detach(1)?;
    world.expect_nothing_left()
}

fn outbound_reaches_nothing_private() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    let guest = world.boot(1, NetworkPolicy::Outbound)?;
    for address in DENIED {
        world.host.reach(address).with_context(|| format!("the host itself reaches {address}"))?;
        ensure!(guest.reach(address).is_err(), "{address} was reached");
    }
    let gateway = guest.tap.subnet.gateway();
    for address in [format!("{gateway}:7001"), format!("{HOST_AS_SEEN}:7001"), "127.0.0.1:7001".to_owned()] {
        ensure!(guest.reach(&address).is_err(), "the host was reached at {address}");
    }
    ensure!(guest.space.run(&format!("ip -6 addr show dev {} scope link", guest.tap.name)).is_ok());
    let ipv6 = world.host.run(&format!("cat /proc/sys/net/ipv6/conf/{}/disable_ipv6", guest.tap.name));
    ensure!(ipv6.is_err() || ipv6?.trim() == "1", "IPv6 is open");
    ensure!(guest.reach(INTERNET)? == HOST_AS_SEEN);
    Ok(())
}

fn an_allowed_range_is_reached() -> anyhow::Result<()> {
    let world = World::make(&Options { allow: Some("10.99.0.1/32"), ..Options::default() })?;
    let guest = world.boot(1, NetworkPolicy::Outbound)?;
    ensure!(guest.reach("10.99.0.1:7000")? == HOST_AS_SEEN);
    ensure!(guest.reach("10.99.0.2:7000").is_err());
    let isolated = world.boot(2, NetworkPolicy::Isolated)?;
    ensure!(isolated.reach("10.99.0.1:7000").is_err());
    Ok(())
}

fn machines_do_not_reach_each_other() -> anyhow::Result<()> {
    // Not even where the pool's own range is allowed.
    let world = World::make(&Options { allow: Some("10.0.0.0/8"), ..Options::default() })?;
    let (one, two) = (world.boot(1, NetworkPolicy::Outbound)?, world.boot(2, NetworkPolicy::Outbound)?);
    two.space.serve(7002)?;
    let address = format!("{}:7002", two.tap.subnet.guest());
    world.host.reach(&address).context("the host itself reaches the machine")?;
    ensure!(one.reach(&address).is_err());
    // Nor by giving the packets to the host for the other's hardware address.
    let name = &one.tap.name;
    one.space.ip(&format!("route add {}/32 dev {name}", two.tap.subnet.guest()))?;
    one.space.ip(&format!("neigh add {} lladdr {} dev {name}", two.tap.subnet.guest(), two.tap.mac))?;
    ensure!(one.reach(&address).is_err());
    Ok(())
}

fn isolated_reaches_nothing() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    let guest = world.boot(1, NetworkPolicy::Isolated)?;
    let gateway = format!("{}:7001", guest.tap.subnet.gateway());
    for address in [INTERNET, DENIED[0], &gateway] {
        ensure!(guest.reach(address).is_err(), "{address} was reached");
    }
    ensure!(guest.tap.name_servers.is_empty());
    ensure!(world.attach(2, NetworkPolicy::None)?.is_none());
    ensure!(world.taps()?.len() == 1);
    Ok(())
}

/// The packets that a socket in the internet receives, in order. A packet that is overtaken by one that was sent later
/// does not come at all: they take the same way.
struct Inbox(UdpSocket);

impl Inbox {
    fn open(internet: &Space) -> anyhow::Result<Self> {
        let socket = internet.inside(|| UdpSocket::bind("198.51.100.7:7003"))??;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self(socket))
    }

    fn next(&self) -> anyhow::Result<String> {
        let mut letter = [0; 64];
        let (length, _) = self.0.recv_from(&mut letter).context("nothing came")?;
        Ok(String::from_utf8_lossy(&letter[..length]).into_owned())
    }
}

fn say(from: &Space, address: String, words: &'static str) -> anyhow::Result<()> {
    from.inside(move || UdpSocket::bind((address, 0))?.send_to(words.as_bytes(), "198.51.100.7:7003"))??;
    Ok(())
}

fn packets_from_another_address_are_dropped() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    // Nobody but our rules is to refuse them.
    world.host.run("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0")?;
    world.internet.run("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.up1.rp_filter=0")?;
    let (guest, other) = (world.boot(1, NetworkPolicy::Outbound)?, world.boot(2, NetworkPolicy::Outbound)?);
    world.host.run(&format!("sysctl -qw net.ipv4.conf.{}.rp_filter=0", guest.tap.name))?;
    let inbox = Inbox::open(&world.internet)?;
    let own = guest.tap.subnet.guest().to_string();
    say(&guest.space, own.clone(), "first")?;
    ensure!(inbox.next()? == "first");

    let anothers = other.tap.subnet.guest().to_string();
    for address in ["8.8.4.4", anothers.as_str(), HOST_AS_SEEN] {
        guest.space.ip(&format!("addr add {address}/32 dev {}", guest.tap.name))?;
        say(&guest.space, address.to_owned(), "spoofed address")?;
    }
    say(&guest.space, own.clone(), "second")?;
    ensure!(inbox.next()? == "second");

    guest.set_mac("02:00:00:00:00:99")?;
    say(&guest.space, own.clone(), "spoofed hardware address")?;
    guest.set_mac(&guest.tap.mac.to_string())?;
    say(&guest.space, own, "third")?;
    ensure!(inbox.next()? == "third");
    Ok(())
}

fn answers_to_the_gone() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    let inbox = Inbox::open(&world.internet)?;
    // From a port of its own a machine says something, and the other side knows where that came from.
    let correspond = |guest: &Guest, port: u16| -> anyhow::Result<(UdpSocket, SocketAddr)> {
        let address = guest.tap.subnet.guest();
        let socket = guest.space.inside(move || {
            let socket = UdpSocket::bind((address, port))?;
            socket.send_to(b"hello", "198.51.100.7:7003").map(|_| socket)
        })??;
        let (_, from) = inbox.0.recv_from(&mut [0; 64]).context("nothing came")?;
        Ok((socket, from))
    };
    let gone = world.boot(1, NetworkPolicy::Outbound)?;
    let (_, from_gone) = correspond(&gone, 5555)?;
    let address = gone.tap.subnet.guest();
    drop(gone);
    world.detach(1)?;

    let request =
        AttachRequest { guest_address: Some(address), ..AttachRequest::new(machine(2), NetworkPolicy::Outbound, USER) };
    let tap = world.runtime.block_on(world.client.attach(&request))?.context("an interface")?;
    let next = Guest::boot(&world.host, tap)?;
    let eavesdropper = next.space.inside(move || UdpSocket::bind((address, 5555)))??;
    eavesdropper.set_nonblocking(true)?;
    let (own, from_own) = correspond(&next, 5556)?;
    own.set_read_timeout(Some(Duration::from_secs(5)))?;
    inbox.0.send_to(b"for the one that is gone", from_gone)?;
    inbox.0.send_to(b"for the next", from_own)?;
    let (length, _) = own.recv_from(&mut [0; 64]).context("its own answer did not come")?;
    ensure!(length == b"for the next".len());
    let heard = eavesdropper.recv_from(&mut [0; 64]);
    ensure!(heard.is_err(), "the next machine heard {heard:?}");
    Ok(())
}

fn the_policy_changes() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    let guest = world.boot(1, NetworkPolicy::Isolated)?;
    ensure!(guest.reach(INTERNET).is_err());
    let again = world.attach(1, NetworkPolicy::Outbound)?.context("an interface")?;
    ensure!((&again.name, again.subnet, again.mac) == (&guest.tap.name, guest.tap.subnet, guest.tap.mac));
    ensure!(guest.reach(INTERNET)? == HOST_AS_SEEN);
    world.attach(1, NetworkPolicy::Isolated)?;
    ensure!(guest.reach(INTERNET).is_err());
    ensure!(world.attach(1, NetworkPolicy::None)?.is_none());
    world.expect_nothing_left()
}

fn nobody_calls_in() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    let guest = world.boot(1, NetworkPolicy::Outbound)?;
    guest.space.serve(7002)?;
    world.internet.ip(&format!("route add 10.201.0.0/16 via {HOST_AS_SEEN}"))?;
    let address = format!("{}:7002", guest.tap.subnet.guest());
    world.host.reach(&address).context("the host itself reaches the machine")?;
    ensure!(world.internet.reach(&address).is_err());
    Ok(())
}
