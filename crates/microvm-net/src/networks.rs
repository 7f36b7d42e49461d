//! Networks made by this process, which needs `CAP_NET_ADMIN` for it.

use std::net::Ipv4Addr;

use async_trait::async_trait;
use emergent_types::NetworkPolicy;
use ipnet::Ipv4Net;
use tokio::sync::Mutex;

use crate::{
    AddressPool, AttachRequest, AttachedMachine, Attachment, MacAddress, MachineId, MachineNetwork, NetworkError,
    NetworkStatus, NetworkStep, TapInterface, TapName,
    filter::{Filter, TABLE},
    forwarding,
    kernel::{Kernel, Link},
    nft, sysctl, tap,
};

/// How networks are made. One of these for a host: its interfaces are known by their names alone.
#[derive(Debug, Clone, Default)]
pub struct NetworkConfig {
    /// The pool that addresses come from.
    pub pool: AddressPool,
    /// Ranges and addresses that guests reach although they are private, or this host's own.
    pub allow: Vec<Ipv4Net>,
    /// The name servers that guests ask.
    pub resolvers: Vec<Ipv4Addr>,
    /// The step at which the process kills itself, for tests of crashes.
    pub fault: Option<NetworkStep>,
}

/// Networks made by this process.
pub struct Networks {
    config: NetworkConfig,
    filter: Filter,
    /// One change at a time: an address that was found free is taken before anybody else looks.
    changing: Mutex<()>,
}

// === impl Networks ===

impl Networks {
    /// Networks of this host. Nothing is made before the first machine.
    pub fn new(config: NetworkConfig) -> Self {
        let filter = Filter::new(config.pool, &config.allow, &config.resolvers);
        Self { config, filter, changing: Mutex::new(()) }
    }

    /// Ends when no change is under way.
    pub(crate) async fn at_rest(&self) {
        drop(self.changing.lock().await);
    }

    fn passed(&self, step: NetworkStep) {
        step.strike(self.config.fault);
    }

    /// The plan for a machine's interface: the one that it has, the one that it must have, or a free one.
    async fn plan(
        &self,
        kernel: &Kernel,
        request: &AttachRequest,
        links: &[Link],
    ) -> Result<AttachedMachine, NetworkError> {
        let pool = self.config.pool;
        let taken: Vec<AttachedMachine> = links.iter().filter_map(|link| link.attachment.machine).collect();
        let own = taken.iter().find(|machine| machine.id == request.machine);
        let is_anothers = |subnet| taken.iter().any(|other| other.id != request.machine && other.subnet == subnet);
        let subnet = match (request.guest_address, own) {
            (Some(address), _) => {
                let outside = || NetworkError::AddressOutside { address, pool: pool.to_string() };
                let subnet = pool.subnet_of(address).ok_or_else(outside)?;
                if is_anothers(subnet) {
                    return Err(NetworkError::AddressTaken { address });
                }
                subnet
            }
            (None, Some(own)) => own.subnet,
            (None, None) => pool
                .free_subnet(request.machine, is_anothers)
                .ok_or_else(|| NetworkError::PoolExhausted { pool: pool.to_string(), capacity: pool.capacity() })?,
        };
        self.refuse_overlap(kernel, links).await?;
        let mac = request.mac.or(own.map(|own| own.mac)).unwrap_or_else(|| MacAddress::of(request.machine));
        Ok(AttachedMachine { id: request.machine, policy: request.policy, subnet, mac, limits: request.limits })
    }

    async fn refuse_overlap(&self, kernel: &Kernel, ours: &[Link]) -> Result<(), NetworkError> {
        let pool = self.config.pool.range();
        let overlaps = |net: &Ipv4Net| pool.contains(&net.addr()) || net.contains(&pool.network());
        let others = kernel.other_addresses(ours).await?;
        match others.into_iter().find(|(_, net)| overlaps(net)) {
            Some((index, _)) => {
                let interface = kernel.name_of(index).await;
                Err(NetworkError::PoolOverlaps { pool: pool.to_string(), interface })
            }
            None => Ok(()),
        }
    }

    /// Our interface of this name, made if it is not there.
    async fn ensure_tap(&self, kernel: &Kernel, name: &TapName, owner: u32) -> Result<Link, NetworkError> {
        tap::create(name, owner)?;
        self.passed(NetworkStep::TapCreated);
        let found = kernel.links().await?.into_iter().find(|link| link.attachment.name == *name);
        found.ok_or_else(|| NetworkError::host(format!("making the interface {name}"), "it went away again"))
    }

    /// Puts the standing rules in force, and with them those of every machine, unless they are.
    async fn ensure_rules(&self, links: &[Link]) -> Result<(), NetworkError> {
        if nft::has_chain(TABLE, self.filter.version()).await? {
            return Ok(());
        }
        tracing::info!(table = TABLE, "setting the packet filter for microVMs");
        self.set_all_rules(links).await
    }

    async fn set_all_rules(&self, links: &[Link]) -> Result<(), NetworkError> {
        nft::apply("setting the packet filter for microVMs", &self.filter.whole(links)).await
    }

    async fn remove(&self, kernel: &Kernel, link: &Link) -> Result<(), NetworkError> {
        let name = &link.attachment.name;
        // The rules first: an interface without rules passes nothing, and it is the interface that is found again.
        nft::apply("removing a machine's rules", &Filter::unset(name)).await?;
        self.passed(NetworkStep::RulesRemoved);
        kernel.remove(link.index).await?;
        self.passed(NetworkStep::TapRemoved);
        tracing::info!(interface = name.as_str(), "removed a machine's network");
        Ok(())
    }

    /// With the last interface goes everything else.
    async fn leave_nothing_unless_used(&self, kernel: &Kernel) -> Result<(), NetworkError> {
        if !kernel.links().await?.is_empty() {
            return Ok(());
        }
        forwarding::close().await?;
        nft::apply("removing the packet filter for microVMs", &Filter::nothing()).await
    }

    async fn detach_locked(&self, machine: MachineId) -> Result<(), NetworkError> {
        let kernel = Kernel::connect()?;
        let links = kernel.links().await?;
        let name = TapName::of(machine);
        let is_its = |link: &&Link| {
            link.attachment.name == name && link.attachment.machine.is_none_or(|attached| attached.id == machine)
        };
        if let Some(link) = links.iter().find(is_its) {
            self.ensure_rules(&links).await?;
            self.remove(&kernel, link).await?;
        }
        self.leave_nothing_unless_used(&kernel).await
    }

    async fn attach_locked(&self, request: &AttachRequest) -> Result<TapInterface, NetworkError> {
        let kernel = Kernel::connect()?;
        let links = kernel.links().await?;
        let name = TapName::of(request.machine);
        let present = links.iter().find(|link| link.attachment.name == name).and_then(|link| link.attachment.machine);
        if present.is_some_and(|machine| machine.id != request.machine) {
            return Err(NetworkError::NameTaken { name: name.to_string() });
        }
        let machine = self.plan(&kernel, request, &links).await?;
        if present.is_some_and(|present| present.subnet != machine.subnet) {
            // Its interface has another address; a new one is simpler than a changed one.
            self.detach_locked(request.machine).await?;
        }

        let link = self.ensure_tap(&kernel, &name, request.owner).await?;
        kernel.describe(link.index, &machine).await?;
        self.passed(NetworkStep::TapDescribed);
        sysctl::harden(&name)?;
        self.passed(NetworkStep::TapHardened);
        if machine.policy == NetworkPolicy::Outbound {
            sysctl::forward()?;
            for warning in forwarding::open().await? {
                tracing::warn!("{warning}");
            }
        }
        self.ensure_rules(&links).await?;
        nft::apply("setting a machine's rules", &Filter::set(&link, &machine)).await?;
        self.passed(NetworkStep::RulesSet);
        kernel.bring_up(link.index, machine.subnet, machine.mac).await?;
        self.passed(NetworkStep::TapUp);
        tracing::info!(machine = %machine.id, interface = name.as_str(), policy = machine.policy.as_str(), "attached");
        let name_servers = match machine.policy {
            NetworkPolicy::Outbound => self.config.resolvers.clone(),
            NetworkPolicy::None | NetworkPolicy::Isolated => Vec::new(),
        };
        Ok(TapInterface { name, mac: machine.mac, subnet: machine.subnet, name_servers })
    }
}

#[async_trait]
impl MachineNetwork for Networks {
    async fn attach(&self, request: &AttachRequest) -> Result<Option<TapInterface>, NetworkError> {
        let _changing = self.changing.lock().await;
        match request.policy {
            NetworkPolicy::None => self.detach_locked(request.machine).await.map(|()| None),
            NetworkPolicy::Isolated | NetworkPolicy::Outbound => self.attach_locked(request).await.map(Some),
        }
    }

    async fn detach(&self, machine: MachineId) -> Result<(), NetworkError> {
        let _changing = self.changing.lock().await;
        self.detach_locked(machine).await
    }

    async fn list(&self) -> Result<Vec<Attachment>, NetworkError> {
        Ok(Kernel::connect()?.links().await?.into_iter().map(|link| link.attachment).collect())
    }

    async fn remove_strays(&self, known: &[MachineId]) -> Result<Vec<TapName>, NetworkError> {
        let _changing = self.changing.lock().await;
        let kernel = Kernel::connect()?;
        let is_known = |link: &Link| link.attachment.machine.is_some_and(|machine| known.contains(&machine.id));
        let (kept, strays): (Vec<_>, Vec<_>) = kernel.links().await?.into_iter().partition(is_known);
        // All rules anew: those of interfaces that somebody else has removed go with it.
        self.set_all_rules(&kept).await?;
        for stray in &strays {
            self.remove(&kernel, stray).await?;
        }
        self.leave_nothing_unless_used(&kernel).await?;
        Ok(strays.into_iter().map(|link| link.attachment.name).collect())
    }

    async fn status(&self) -> Result<NetworkStatus, NetworkError> {
        let kernel = Kernel::connect()?;
        let links = kernel.links().await?;
        let mut warnings = forwarding::obstacles().await?;
        if let Err(error) = self.refuse_overlap(&kernel, &links).await {
            warnings.push(error.to_string());
        }
        if !links.is_empty() && !nft::has_chain(TABLE, self.filter.version()).await? {
            warnings.push("the packet filter is not in force; attach any machine, and it is set again".to_owned());
        }
        let attached = u32::try_from(links.len()).unwrap_or(u32::MAX);
        Ok(NetworkStatus { warnings, capacity: self.config.pool.capacity(), attached })
    }
}
