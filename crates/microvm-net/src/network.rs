//! The network interface that a manager of microVMs uses.

use std::net::Ipv4Addr;

use async_trait::async_trait;
use emergent_types::NetworkPolicy;

use crate::{MacAddress, MachineId, NetworkError, NetworkLimits, Subnet, TapName};

/// Networks of machines. Every call may be repeated, after any failure and by another process: what is there already
/// is taken as it is, and what is missing is made.
#[async_trait]
pub trait MachineNetwork: Send + Sync {
    /// Makes the machine's interface, with its rules in force before a packet can pass. `None` where the policy is
    /// [`NetworkPolicy::None`]: what interface the machine had is removed then. Called again with another policy or
    /// other limits it changes the rules of a running machine; its addresses stay.
    ///
    /// # Errors
    /// See [`NetworkError`]. What was made before the failure stays to be found by [`Self::list`].
    async fn attach(&self, request: &AttachRequest) -> Result<Option<TapInterface>, NetworkError>;

    /// Removes the machine's interface and rules; nothing where there are none. A paused machine keeps both: its
    /// memory knows the addresses.
    ///
    /// # Errors
    /// See [`NetworkError`].
    async fn detach(&self, machine: MachineId) -> Result<(), NetworkError>;

    /// All interfaces of ours on this host.
    ///
    /// # Errors
    /// See [`NetworkError`].
    async fn list(&self) -> Result<Vec<Attachment>, NetworkError>;

    /// Removes every interface whose machine is not among the known ones, and tells their names. The known ones' rules
    /// are put back where somebody has removed them.
    ///
    /// # Errors
    /// See [`NetworkError`].
    async fn remove_strays(&self, known: &[MachineId]) -> Result<Vec<TapName>, NetworkError>;

    /// The obstacles that keep the network from being what the policies say.
    ///
    /// # Errors
    /// See [`NetworkError`].
    async fn status(&self) -> Result<NetworkStatus, NetworkError>;
}

/// A machine that is to have a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachRequest {
    /// The machine that the interface belongs to.
    pub machine: MachineId,
    /// The networks that the machine may reach.
    pub policy: NetworkPolicy,
    /// The user that the VMM runs as; it alone may open the interface.
    pub owner: u32,
    /// The limits that the packet filter enforces.
    pub limits: NetworkLimits,
    /// The address that the machine must have because its memory, restored from a snapshot, knows it already; `None`
    /// is any.
    pub guest_address: Option<Ipv4Addr>,
    /// The same for its hardware address; `None` is the one that follows from its id.
    pub mac: Option<MacAddress>,
}

/// A machine's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapInterface {
    /// The interface's name on the host.
    pub name: TapName,
    /// The machine's hardware address. Frames from another are dropped.
    pub mac: MacAddress,
    /// The machine's address and the host's end. Packets from another address are dropped.
    pub subnet: Subnet,
    /// The name servers that it may ask; none where it reaches nothing.
    pub name_servers: Vec<Ipv4Addr>,
}

/// An interface that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The interface's name.
    pub name: TapName,
    /// The machine that the interface belongs to; `None` where an attach was cut short before its description was
    /// written.
    pub machine: Option<AttachedMachine>,
}

/// The machine of an [`Attachment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedMachine {
    /// The machine's id.
    pub id: MachineId,
    /// The networks that the machine may reach.
    pub policy: NetworkPolicy,
    /// The subnet with the machine's address and the host's end.
    pub subnet: Subnet,
    /// The machine's hardware address.
    pub mac: MacAddress,
    /// The limits of the machine's traffic.
    pub limits: NetworkLimits,
}

/// How the network is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkStatus {
    /// The faults, with what to do, each a sentence for people. Empty where all is well.
    pub warnings: Vec<String>,
    /// The number of machines that the pool has room for.
    pub capacity: u32,
    /// The number of machines that have an interface.
    pub attached: u32,
}

// === impl AttachRequest ===

impl AttachRequest {
    /// A new machine without limits.
    pub fn new(machine: MachineId, policy: NetworkPolicy, owner: u32) -> Self {
        Self { machine, policy, owner, limits: NetworkLimits::default(), guest_address: None, mac: None }
    }
}

// === impl TapInterface ===

impl TapInterface {
    /// The kernel argument with which a guest that has no network set-up of its own gets one.
    pub fn kernel_argument(&self) -> String {
        let mut argument = format!("ip={}::{}:255.255.255.252::eth0:off", self.subnet.guest(), self.subnet.gateway());
        // The argument has room for two.
        self.name_servers.iter().take(2).for_each(|server| argument.push_str(&format!(":{server}")));
        argument
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trait_can_be_used_as_an_object() {
        fn takes(_: &dyn MachineNetwork) {}
        let _ = takes;
    }

    #[test]
    fn a_guest_gets_all_its_kernel_needs() {
        let machine = MachineId(uuid::Uuid::from_u128(1));
        let interface = TapInterface {
            name: TapName::of(machine),
            mac: MacAddress::of(machine),
            subnet: Subnet::containing(Ipv4Addr::new(10, 201, 0, 6)),
            name_servers: vec![Ipv4Addr::new(9, 9, 9, 9)],
        };
        assert_eq!(interface.kernel_argument(), "ip=10.201.0.6::10.201.0.5:255.255.255.252::eth0:off:9.9.9.9");
    }
}
