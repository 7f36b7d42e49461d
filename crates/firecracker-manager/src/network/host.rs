//! Interfaces of this host, made in the process or by the privileged helper.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use async_trait::async_trait;
use emergent_microvm::{MacAddress, TapInterface};
use emergent_microvm_net::{AttachRequest, MachineId, MachineNetwork, Subnet};

use super::{Interfaces, NetworkError};
use crate::{SandboxId, record::NetworkWord};

/// Interfaces of this host.
pub struct HostInterfaces {
    network: Arc<dyn MachineNetwork>,
}

// === impl HostInterfaces ===

impl HostInterfaces {
    /// Makes interfaces by `network`.
    pub fn new(network: Arc<dyn MachineNetwork>) -> Self {
        Self { network }
    }
}

#[async_trait]
impl Interfaces for HostInterfaces {
    fn unavailable(&self) -> Option<String> {
        None
    }

    async fn attach(
        &self,
        id: SandboxId,
        policy: NetworkWord,
        owner: u32,
    ) -> Result<Option<TapInterface>, NetworkError> {
        let request = AttachRequest::new(machine(id), policy.into(), owner);
        let tap = self.network.attach(&request).await.map_err(failed)?;
        Ok(tap.map(|tap| TapInterface {
            name: tap.name.as_str().to_owned(),
            mac: MacAddress(tap.mac.octets()),
            address: tap.subnet.guest(),
            prefix: Subnet::PREFIX,
            gateway: tap.subnet.gateway(),
            name_servers: tap.name_servers.into_iter().map(IpAddr::V4).collect(),
            receive: None,
            send: None,
        }))
    }

    async fn detach(&self, id: SandboxId) -> Result<(), NetworkError> {
        self.network.detach(machine(id)).await.map_err(failed)
    }

    async fn remove_strays(&self, known: &HashSet<SandboxId>) -> Result<(), NetworkError> {
        let known: Vec<_> = known.iter().copied().map(machine).collect();
        let removed = self.network.remove_strays(&known).await.map_err(failed)?;
        for name in removed {
            tracing::info!(interface = name.as_str(), "an interface of no sandbox is removed");
        }
        Ok(())
    }
}

fn machine(id: SandboxId) -> MachineId {
    MachineId(id.as_uuid())
}

fn failed(error: emergent_microvm_net::NetworkError) -> NetworkError {
    NetworkError::Failed(Box::new(error))
}
