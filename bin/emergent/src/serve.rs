//! The server: settings in, a running service out, and its orderly end.
//!
//! ```text
//!   Config ──build──► Server ──run──► drained
//! ```

mod bootstrap;
pub(crate) mod descriptors;
mod identity;
pub(crate) mod listener;
pub(crate) mod memory;
mod private_file;
mod secret;
pub(crate) mod signals;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use emergent_api::{ApiParts, ApiState, Hosts, Peers};
use emergent_budget::Budget;
use emergent_core::{HeldProvider, HoldError, ServerId, TakeOver, Workspaces};
use emergent_mcp_hosting::{Hosting, HostingConfig};
use emergent_provider::{Holder, Provider};
use emergent_provider_docker::{DockerConfig, DockerProvider, GuestBinary};
use emergent_provider_firecracker::{FirecrackerConfig, FirecrackerProvider, Where};
use emergent_store::{DatabaseUrl, LEASE, MCP_SERVERS_ON, OpenError, ServerIdentity, Store};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{task::spawn_blocking, time::Instant};
use tracing_subscriber::EnvFilter;

use self::{identity::DataLock, signals::StopSignals};
use crate::{
    config::{Config, FirecrackerSettings, env_vars, server_url_file},
    guest_binary,
};

/// The interval at which the metrics' memory, and the process's, is tidied.
const UPKEEP: Duration = Duration::from_secs(5);

/// The time that the core gets to end what is under way, after the calls.
const CORE_GRACE: Duration = Duration::from_secs(15);

/// The time for which a lease is still waited for after its end, and the interval between looks at it.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
const LEASE_LOOK: Duration = Duration::from_secs(1);

/// The time that each engine gets to be told that the server ends.
const HOLDING_GRACE: Duration = Duration::from_secs(5);

/// Upper bounds of the buckets of durations, in seconds.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Builds the server and runs it until it is told to stop.
pub(crate) async fn run(config: Config, claim: Claim) -> anyhow::Result<()> {
    log_to_stderr(&config.log.filter, config.log.json)?;
    memory::set_up();
    let descriptors = descriptors::raise_limit();
    for name in &config.without_effect {
        tracing::warn!("{name} has no effect in this release");
    }
    make_private_directory(&config.data_dir).with_context(|| {
        format!("the data directory {} cannot be used; set EMERGENT_DATA_DIR", config.data_dir.display())
    })?;
    // From here on a signal to stop is kept until it can be obeyed.
    let signals = StopSignals::listen()?;
    let listener = listener::bind(config.http.listen, env_vars::EMERGENT_LISTEN.name)?;
    let guest_binary = guest_binary(&config).await?;
    let lock = DataLock::take(&config.data_dir)?;
    let (store, held) = hold(&config, guest_binary, &lock, claim).await?;
    let providers = held.iter().map(|provider| Arc::clone(provider) as Arc<dyn Provider>).collect::<Vec<_>>();
    bootstrap::ensure_first_token(&store, &config.data_dir).await?;
    let metrics = record_metrics()?;
    let hosting_config = hosting_config(&config)?;
    let limits = config.http.connections.within(descriptors);
    let budget = Budget::new(config.http.memory_budget, limits.calls_of_a_project());
    // Servers are hosted where they prefer to be: in containers.
    let hosts_servers = providers.iter().find(|provider| provider.kind() == MCP_SERVERS_ON).cloned();
    let workspaces = Workspaces::start(config.core, store.clone(), providers).await?;
    let hosting =
        Hosting::start(hosting_config, store.clone(), hosts_servers, workspaces.clone(), budget.clone()).await?;

    let address = listener.local_addr()?;
    let hosts = Hosts::for_listener(address, config.http.allowed_hosts);
    let server = store.server_id();
    let peers = peers(config.http.peer_ca.as_deref())?;
    let public_url = config.http.advertise_url;
    let parts = ApiParts {
        workspaces: workspaces.clone(),
        hosting: hosting.clone(),
        public_url,
        store,
        metrics: metrics.clone(),
        hosts,
        peers,
        budget: budget.clone(),
        rate_limit: config.rate_limit,
    };
    let state = ApiState::new(parts);
    let router = emergent_api::router(state)?;
    memory::give_back();
    let background = tokio::spawn(keep_tidy(metrics, budget, descriptors));

    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    write_url(&config.data_dir, scheme, address)?;
    let workspaces_enabled = workspaces.config().enabled;
    tracing::info!(workspaces_enabled, %server, "listening on {scheme}://{address}");
    let installing = hosting.clone();
    let signals = signals.calling(move || installing.begin_shutdown());
    let served = listener::serve(listener, config.http.tls, router, signals, config.shutdown_grace, limits).await;
    hosting.shutdown().await;
    if tokio::time::timeout(CORE_GRACE, workspaces.shutdown()).await.is_err() {
        tracing::warn!("gave up waiting for operations under way; the next start sorts them out");
    }
    workspaces.close_audit().await;
    for provider in &held {
        if tokio::time::timeout(HOLDING_GRACE, provider.end()).await.is_err() {
            tracing::warn!("an engine was not told in time that this server ends; the next start makes it good");
        }
    }
    background.abort();
    tracing::info!("stopped");
    served
}

/// Tells the client commands on this machine where the server is.
fn write_url(data_dir: &Path, scheme: &str, mut address: SocketAddr) -> anyhow::Result<()> {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let path = server_url_file(data_dir);
    private_file::write(&path, &format!("{scheme}://{address}"))
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// Tidies up and reports what the process uses, for its life.
#[expect(clippy::cast_precision_loss, reason = "nobody holds 2^52 bytes")]
async fn keep_tidy(metrics: PrometheusHandle, budget: Budget, descriptors: u64) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        metrics::gauge!("emergent_request_memory_bytes").set(budget.held() as f64);
        let metrics = metrics.clone();
        let tidy = spawn_blocking(move || {
            metrics.run_upkeep();
            descriptors::report(descriptors);
            memory::give_back_much();
        });
        if let Err(error) = tidy.await {
            tracing::warn!(%error, "the process could not be tidied");
        }
    }
}

/// The action of a server whose engine knows another holder of the server's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The server does not start.
    AsKnown,
    /// The server goes on in the other holder's place.
    TakeOver,
    /// The server becomes another server, with an id of its own.
    NewIdentity,
}

/// Opens the store, and becomes the holder of the server's id on every engine. An engine that is away is claimed when
/// it is back, before anything is done to it.
async fn hold(
    config: &Config,
    guest_binary: Option<GuestBinary>,
    lock: &DataLock,
    claim: Claim,
) -> anyhow::Result<(Store, Vec<Arc<HeldProvider>>)> {
    let identity = lock.identity(config.http.advertise_url.clone());
    let shared_id = identity::server_id(&config.database, &config.data_dir)?;
    let held = |server| held_providers(config, guest_binary.clone(), server, lock.holder());
    // Where the id is known without the database, the engines are asked first: to open it claims a lease.
    let (store, server) = match shared_id {
        Some(server) => (None, server),
        None => {
            let store = match Store::open_as(&config.database, None, &identity).await {
                // The lock on the directory is this process's: the lease is that of a copy's original, or of a process
                // from before a reboot. The engines know which.
                Err(OpenError::ServerInUse { server }) => {
                    if claim != Claim::NewIdentity {
                        become_holder(&held(server)?, claim).await?;
                    }
                    open_after_lease(&config.database, &identity).await?
                }
                opened => opened?,
            };
            let server = store.server_id();
            (Some(store), server)
        }
    };
    let mut providers = held(server)?;
    if claim == Claim::NewIdentity {
        refuse_to_leave_own(&providers).await?;
    } else {
        become_holder(&providers, claim).await?;
    }
    let store = match (store, claim) {
        (Some(store), Claim::NewIdentity) => store.take_new_identity().await?,
        (Some(store), Claim::AsKnown | Claim::TakeOver) => store,
        (None, Claim::NewIdentity) => {
            let server = identity::replace_server_id(&config.data_dir)?;
            Store::open_as(&config.database, Some(server), &identity).await?
        }
        (None, Claim::AsKnown | Claim::TakeOver) => Store::open_as(&config.database, Some(server), &identity).await?,
    };
    if claim == Claim::NewIdentity {
        tracing::warn!(
            was = %server,
            is = %store.server_id(),
            "this server has a new id; the workspaces stay with the old one"
        );
        providers = held(store.server_id())?;
        become_holder(&providers, Claim::AsKnown).await?;
    }
    Ok((store, providers))
}

/// Opens the store once the lease in it has run out, which nobody renews.
async fn open_after_lease(database: &DatabaseUrl, identity: &ServerIdentity) -> Result<Store, OpenError> {
    tracing::info!(at_most = LEASE.as_secs(), "waiting until the lease that is in the database has run out");
    let deadline = Instant::now() + LEASE + LEASE_MARGIN;
    loop {
        match Store::open_as(database, None, identity).await {
            Err(OpenError::ServerInUse { .. }) if Instant::now() < deadline => tokio::time::sleep(LEASE_LOOK).await,
            opened => return opened,
        }
    }
}

/// Claims every engine that answers.
async fn become_holder(providers: &[Arc<HeldProvider>], claim: Claim) -> anyhow::Result<()> {
    let take_over = if claim == Claim::TakeOver { TakeOver::Wanted } else { TakeOver::Refused };
    for provider in providers {
        match provider.claim(take_over).await {
            Ok(()) => {}
            Err(HoldError::NotHolder(to)) => return Err(to.into()),
            Err(HoldError::Engine(error)) if take_over == TakeOver::Wanted => {
                return Err(error).context("--take-over could not ask the engine for the server's current holder");
            }
            Err(HoldError::Engine(error)) => {
                tracing::warn!(provider = %provider.kind(), %error, "the engine is claimed when it answers");
            }
        }
    }
    Ok(())
}

/// Refuses a new identity to the server that the engines know: it would leave its own workspaces behind.
async fn refuse_to_leave_own(providers: &[Arc<HeldProvider>]) -> anyhow::Result<()> {
    for provider in providers {
        let known = provider.is_known().await.context("--new-identity needs the engine to say whose server this is")?;
        anyhow::ensure!(
            !known,
            "this data directory is the one that provider {} knows as the server's, and not a copy: --new-identity would \
             leave its workspaces behind; start without it",
            provider.kind()
        );
    }
    Ok(())
}

/// The providers, each of which acts only while this process holds the server's id.
fn held_providers(
    config: &Config,
    guest_binary: Option<GuestBinary>,
    server: ServerId,
    holder: &Holder,
) -> anyhow::Result<Vec<Arc<HeldProvider>>> {
    let Some(guest_binary) = guest_binary else { return Ok(Vec::new()) };
    let providers = providers(config, guest_binary, server)?.into_iter();
    Ok(providers.map(|provider| Arc::new(HeldProvider::new(provider, server, holder.clone()))).collect())
}

/// The guest binary; none is needed while workspaces are switched off.
async fn guest_binary(config: &Config) -> anyhow::Result<Option<GuestBinary>> {
    if !config.core.enabled {
        tracing::warn!("workspaces are switched off; set ENABLE_AGENT_WORKSPACES=true");
        return Ok(None);
    }
    let path = guest_binary::find(config.guest_path.as_deref())?;
    Ok(Some(spawn_blocking(move || GuestBinary::open(&path)).await??))
}

/// How MCP servers are hosted. A key for their secrets is made where one server alone needs it.
fn hosting_config(config: &Config) -> anyhow::Result<HostingConfig> {
    let (core, mcp) = (&config.core, &config.mcp);
    let secret_key = match &mcp.secret_key {
        Some(key) => Some(key.clone()),
        None if config.database.is_shared() => None,
        None => Some(secret::key_of(&config.data_dir)?),
    };
    // On an address that others reach, whatever name they reach it by is as good as any.
    let allowed_hosts = config.http.listen.ip().is_loopback().then(|| config.http.allowed_hosts.clone());
    Ok(HostingConfig {
        enabled: core.enabled,
        default_image: core.default_image.clone(),
        secret_key,
        body_limit: mcp.body_limit,
        max_sessions: mcp.max_sessions,
        idle_after: mcp.idle_after,
        allowed_hosts,
        install_environment: mcp.install_environment.clone(),
        fault: core.fault,
    })
}

/// How other servers are reached, trusting the authority in a file besides the system's own.
fn peers(authority: Option<&Path>) -> anyhow::Result<Peers> {
    let Some(path) = authority else { return Ok(Peers::default()) };
    let trusted = std::fs::read(path).map_err(anyhow::Error::from).and_then(|pem| Ok(Peers::trusting(&pem)?));
    trusted.with_context(|| format!("EMERGENT_PEER_CA_FILE is {}, which cannot be used", path.display()))
}

/// The providers of this release.
fn providers(config: &Config, guest_binary: GuestBinary, server: ServerId) -> anyhow::Result<Vec<Arc<dyn Provider>>> {
    let docker = &config.docker;
    let gvisor = DockerProvider::connect(DockerConfig {
        host: docker.host.clone(),
        server,
        runtime: docker.runtime.clone(),
        require_isolation: docker.require_isolation,
        network_name: docker.network_name.clone(),
        network_allow: docker.network_allow.clone(),
        private_registries: docker.private_registries.clone(),
        guest_binary,
    })?;
    let mut providers: Vec<Arc<dyn Provider>> = vec![Arc::new(gvisor)];
    providers.extend(firecracker(config, server)?);
    Ok(providers)
}

/// The firecracker provider, where a manager or a directory is named.
fn firecracker(config: &Config, server: ServerId) -> anyhow::Result<Option<Arc<dyn Provider>>> {
    let place = match &config.firecracker {
        FirecrackerSettings::Absent => return Ok(None),
        FirecrackerSettings::Remote { url, token } => Where::Remote { url: url.clone(), token: token.clone() },
        FirecrackerSettings::Local(host) => Where::Local(host.clone()),
    };
    let provider = FirecrackerProvider::new(FirecrackerConfig {
        server,
        require_isolation: config.docker.require_isolation,
        default_image: config.core.default_image.clone(),
        place,
    });
    let provider = provider.map_err(|error| anyhow::anyhow!("the firecracker provider cannot be made: {error}"))?;
    Ok(Some(Arc::new(provider)))
}

fn record_metrics() -> anyhow::Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?;
    Ok(builder.install_recorder()?)
}

/// A directory that its owner alone can read. One that is there keeps its permissions.
fn make_private_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Logs from now on.
pub(crate) fn log_to_stderr(directives: &str, json: bool) -> anyhow::Result<()> {
    let filter: EnvFilter = directives.parse()?;
    // A line that cannot be written, as when the disk of the log is full, is dropped. To complain about it on the same
    // stream would panic, in the middle of whatever was to be logged.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    let installed = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init()
    };
    installed.map_err(|error| anyhow::anyhow!("the log could not be started: {error}"))
}
