//! The networks of workspaces, and the check whether their traffic is filtered.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use bollard::models::{NetworkCreateRequest, NetworkInspect};
use emergent_packet_filter::{host_resolvers, neighbours};
use emergent_types::NetworkPolicy;
use ipnet::IpNet;
use tokio::sync::Mutex;

use crate::{
    bridges::{Bridge, Bridges},
    engine::{Engine, EngineError, bounded, found},
    firewall::{self, Firewall},
    labels,
};

/// The network of ours for `outbound`, and its bridge. Their names are fixed, so that the packet filter can name them.
const OUTBOUND: (&str, &str) = ("emergent-outbound", "emg-outbound");
/// The network of ours for `isolated`, and its bridge.
const ISOLATED: (&str, &str) = ("emergent-isolated", "emg-isolated");
const BRIDGE_NAME_OPTION: &str = "com.docker.network.bridge.name";
const ICC_OPTION: &str = "com.docker.network.bridge.enable_icc";
/// An address without a name server (of a range for documentation): no names are looked up outside for a network
/// without an outside, which older engines would do on a guest's behalf.
const NO_NAME_SERVER: &str = "192.0.2.1";
/// The resolver's options that keep a guest from waiting long for an answer that never comes.
const NO_PATIENCE: [&str; 2] = ["timeout:1", "attempts:1"];

/// The most name servers of the host that guests may ask.
const MOST_RESOLVERS: usize = 8;

/// The networks of this server's workspaces.
pub(crate) struct Networks {
    /// The name of the network for `outbound`.
    outbound: String,
    allow: Vec<IpNet>,
    state: Mutex<State>,
    /// Whether the state is filtered, for callers that cannot wait.
    is_filtered: AtomicBool,
}

/// The state of the networks when they were last checked.
#[derive(Debug, Clone, Default)]
struct State {
    /// Whether the networks exist and it is known if they are filtered.
    is_established: bool,
    /// The reason why guests are not filtered; `None` when they are.
    unfiltered: Option<String>,
}

/// The settings that put a container on its network.
pub(crate) struct Attachment {
    /// The engine's network mode.
    pub(crate) mode: String,
    /// Name servers and resolver options that replace the engine's choice, where that is not right.
    pub(crate) dns: Option<(Vec<String>, Vec<String>)>,
    /// Name servers of this host, for guests that do not reach the engine's own.
    pub(crate) name_servers: Vec<IpAddr>,
    /// A warning about weak isolation.
    pub(crate) warning: Option<String>,
}

// === impl Attachment ===

impl Attachment {
    fn to_nothing() -> Self {
        Self { mode: "none".to_owned(), dns: None, name_servers: Vec::new(), warning: None }
    }
}

// === impl Networks ===

impl Networks {
    pub(crate) fn new(outbound: Option<String>, allow: Vec<IpNet>) -> Self {
        let outbound = outbound.filter(|name| !name.is_empty()).unwrap_or_else(|| OUTBOUND.0.to_owned());
        Self { outbound, allow, state: Mutex::default(), is_filtered: AtomicBool::new(false) }
    }

    /// Ensures that a policy's network exists and is filtered, before a container is put on it.
    pub(crate) async fn attach(&self, engine: &Engine, policy: NetworkPolicy) -> Result<Attachment, EngineError> {
        let name = match policy {
            NetworkPolicy::None => return Ok(Attachment::to_nothing()),
            NetworkPolicy::Isolated => ISOLATED.0.to_owned(),
            NetworkPolicy::Outbound => self.outbound.clone(),
        };
        let unfiltered = self.ensure(engine, &name).await?;
        let dns = (policy == NetworkPolicy::Isolated)
            .then(|| (vec![NO_NAME_SERVER.to_owned()], NO_PATIENCE.map(str::to_owned).to_vec()));
        let name_servers = match policy {
            NetworkPolicy::None | NetworkPolicy::Isolated => Vec::new(),
            NetworkPolicy::Outbound => host_resolvers(MOST_RESOLVERS),
        };
        Ok(Attachment { mode: name, dns, name_servers, warning: unfiltered })
    }

    /// Ensures that guests are filtered, before one is started again.
    pub(crate) async fn ensure_filtered(&self, engine: &Engine) -> Result<(), EngineError> {
        self.ensure(engine, &self.outbound).await.map(drop)
    }

    /// Establishes networks and filter unless this was done before and the network still exists. Returns the same as
    /// [`verify`](Self::verify).
    async fn ensure(&self, engine: &Engine, network: &str) -> Result<Option<String>, EngineError> {
        let known = self.state.lock().await.clone();
        if known.is_established && find_network(engine, network).await?.is_some() {
            return Ok(known.unfiltered);
        }
        self.verify(engine).await
    }

    /// Checks networks and filter again, and repairs them. Returns the reason why guests are not filtered, if they are
    /// not.
    pub(crate) async fn verify(&self, engine: &Engine) -> Result<Option<String>, EngineError> {
        let mut state = self.state.lock().await;
        *state = self.establish(engine).await?;
        self.is_filtered.store(state.unfiltered.is_none(), Ordering::Relaxed);
        Ok(state.unfiltered.clone())
    }

    /// Whether guests were filtered at the last check.
    pub(crate) fn is_filtered(&self) -> bool {
        self.is_filtered.load(Ordering::Relaxed)
    }

    /// Forgets the state, since the engine's answers contradict it.
    pub(crate) async fn forget(&self) {
        *self.state.lock().await = State::default();
    }

    async fn establish(&self, engine: &Engine) -> Result<State, EngineError> {
        let bridge = bridge_for(&self.outbound);
        let (outbound, isolated) = tokio::try_join!(
            ensure_network(engine, &self.outbound, &bridge, false),
            ensure_network(engine, ISOLATED.0, ISOLATED.1, true),
        )?;
        let bridges = Bridges { outbound, isolated };
        let filtered = match missing_bridge(engine, &bridges) {
            Some(why) => Err(why),
            None => {
                let resolvers = host_resolvers(MOST_RESOLVERS);
                let firewall = Firewall::new(self.table(), &bridges, &self.allow, &resolvers, &neighbours());
                firewall.ensure().await.map_err(|error| firewall::advice(&error))
            }
        };
        Ok(State { is_established: true, unfiltered: filtered.err() })
    }

    /// Returns the name of the packet filter's table: one for each outbound network, so that servers with different
    /// networks do not replace each other's rules.
    fn table(&self) -> String {
        match self.outbound == OUTBOUND.0 {
            true => "emergent".to_owned(),
            false => format!("emergent_{:08x}", hash(&self.outbound)),
        }
    }
}

/// Returns the name of the bridge of a network that we make, 15 characters at most.
fn bridge_for(network: &str) -> String {
    match network == OUTBOUND.0 {
        true => OUTBOUND.1.to_owned(),
        false => format!("emg-{:08x}", hash(network)),
    }
}

/// FNV-1a: short, and the same for every server and release.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

async fn find_network(engine: &Engine, name: &str) -> Result<Option<NetworkInspect>, EngineError> {
    found(bounded(engine.client().await?.inspect_network(name, None)).await)
}

/// Makes the network if it does not exist; returns its bridge.
async fn ensure_network(engine: &Engine, name: &str, bridge: &str, internal: bool) -> Result<Bridge, EngineError> {
    let docker = engine.client().await?;
    if let Some(network) = find_network(engine, name).await? {
        return Ok(bridge_of(&network));
    }
    let request = NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".to_owned()),
        internal: Some(internal),
        options: Some(HashMap::from([
            (BRIDGE_NAME_OPTION.to_owned(), bridge.to_owned()),
            (ICC_OPTION.to_owned(), "false".to_owned()),
        ])),
        labels: Some([(labels::SHARED.to_owned(), "network".to_owned())].into()),
        ..NetworkCreateRequest::default()
    };
    let made = bounded(docker.create_network(request)).await;
    match (find_network(engine, name).await?, made) {
        // Even when it could not be made: another server may have been quicker, and its bridge was in the way.
        (Some(network), _) => Ok(bridge_of(&network)),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => {
            Err(EngineError::Docker(std::io::Error::other("a network is gone as soon as it is made").into()))
        }
    }
}

/// Returns the bridge of a network, by its set name or else by the engine's default name.
fn bridge_of(network: &NetworkInspect) -> Bridge {
    let named = network.options.as_ref().and_then(|options| options.get(BRIDGE_NAME_OPTION)).cloned();
    let id = network.id.as_deref().unwrap_or_default();
    let configs = network.ipam.as_ref().and_then(|ipam| ipam.config.as_deref()).unwrap_or_default();
    Bridge {
        name: named.unwrap_or_else(|| format!("br-{}", id.get(..12).unwrap_or(id))),
        subnets: configs.iter().filter_map(|config| config.subnet.as_deref()?.parse().ok()).collect(),
    }
}

/// Returns the reason why a packet filter of this host does not see the bridges, if so.
fn missing_bridge(engine: &Engine, bridges: &Bridges) -> Option<String> {
    let is_here = |bridge: &str| Path::new("/sys/class/net").join(bridge).exists();
    let here = engine.is_local() && is_here(&bridges.outbound.name) && is_here(&bridges.isolated.name);
    (!here).then(|| {
        "network: this server does not run on the Docker host's own network, so guests are not kept from the host, \
         private ranges and the metadata address; run it there as root, or filter these yourself"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridge_names_fit_the_kernel() {
        for network in ["emergent-outbound", "x", "a-very-long-network-name-of-a-user"] {
            assert!(bridge_for(network).len() <= 15);
        }
    }
}
