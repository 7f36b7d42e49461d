//! Interfaces, their addresses and neighbours, through the kernel's netlink socket.

use std::net::IpAddr;

use futures::TryStreamExt as _;
use ipnet::Ipv4Net;
use rtnetlink::{
    LinkUnspec,
    packet_route::{
        address::AddressAttribute,
        link::{LinkAttribute, LinkMessage},
        neighbour::NeighbourState,
    },
};
use tokio::task::JoinHandle;

use crate::{AttachedMachine, Attachment, MacAddress, NetworkError, Subnet, TapName, description};

/// A connection to the kernel.
pub(crate) struct Kernel {
    handle: rtnetlink::Handle,
    connection: JoinHandle<()>,
}

/// One of our interfaces.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) attachment: Attachment,
}

// === impl Kernel ===

impl Kernel {
    pub(crate) fn connect() -> Result<Self, NetworkError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| NetworkError::host("opening a netlink socket", error))?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Our interfaces, known by the shape of their names.
    pub(crate) async fn links(&self) -> Result<Vec<Link>, NetworkError> {
        let messages: Vec<_> =
            self.handle.link().get().execute().try_collect().await.map_err(failed("listing the interfaces"))?;
        Ok(messages.into_iter().filter_map(|message| link(&message)).collect())
    }

    /// Every IPv4 address of the host that is on none of our interfaces, and the index of its interface.
    pub(crate) async fn other_addresses(&self, ours: &[Link]) -> Result<Vec<(u32, Ipv4Net)>, NetworkError> {
        let messages: Vec<_> =
            self.handle.address().get().execute().try_collect().await.map_err(failed("listing the addresses"))?;
        let others = messages.into_iter().filter(|message| !ours.iter().any(|link| link.index == message.header.index));
        let addresses = others.filter_map(|message| {
            let address = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(IpAddr::V4(address)) => Some(*address),
                _ => None,
            })?;
            Some((message.header.index, Ipv4Net::new(address, message.header.prefix_len).ok()?))
        });
        Ok(addresses.collect())
    }

    /// The interface's name, or its number where it is gone.
    pub(crate) async fn name_of(&self, index: u32) -> String {
        let found = self.handle.link().get().match_index(index).execute().try_next().await;
        let name = found.ok().flatten().and_then(|message| name(&message).map(str::to_owned));
        name.unwrap_or_else(|| format!("interface {index}"))
    }

    /// Writes on the interface whose it is.
    pub(crate) async fn describe(&self, index: u32, machine: &AttachedMachine) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(index)
            .alias(description::write(machine))
            .address(MacAddress::HOST.octets().to_vec())
            .build();
        self.handle.link().set(message).execute().await.map_err(failed("describing the interface"))
    }

    /// Gives the interface the host's address and brings it up. The guest's hardware address is entered by hand, so
    /// that what the guest says about itself is never asked.
    pub(crate) async fn bring_up(&self, index: u32, subnet: Subnet, mac: MacAddress) -> Result<(), NetworkError> {
        let addresses = self.handle.address();
        let gateway = IpAddr::V4(subnet.gateway());
        addresses
            .add(index, gateway, Subnet::PREFIX)
            .replace()
            .execute()
            .await
            .map_err(failed("setting its address"))?;
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(message).execute().await.map_err(failed("bringing the interface up"))?;
        self.handle
            .neighbours()
            .add(index, IpAddr::V4(subnet.guest()))
            .link_layer_address(&mac.octets())
            .state(NeighbourState::Permanent)
            .replace()
            .execute()
            .await
            .map_err(failed("entering the guest's hardware address"))
    }

    /// Removes the interface; nothing where it is gone already.
    pub(crate) async fn remove(&self, index: u32) -> Result<(), NetworkError> {
        match self.handle.link().del(index).execute().await {
            Err(rtnetlink::Error::NetlinkError(message))
                if message.raw_code() == -rustix::io::Errno::NODEV.raw_os_error() =>
            {
                Ok(())
            }
            ended => ended.map_err(failed("removing the interface")),
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn failed(doing: &'static str) -> impl Fn(rtnetlink::Error) -> NetworkError {
    move |error| NetworkError::host(doing, error)
}

fn name(message: &LinkMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn link(message: &LinkMessage) -> Option<Link> {
    let name = TapName::parse(name(message)?)?;
    let machine = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfAlias(line) => description::read(line),
        _ => None,
    });
    Some(Link { index: message.header.index, attachment: Attachment { name, machine } })
}
