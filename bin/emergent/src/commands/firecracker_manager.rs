//! `emergent firecracker-manager`: assembles the manager and serves it until a stop signal.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use emergent_firecracker_manager::{
    Host, ManagerConfig,
    admission::Budget,
    http::{Access, ApiKey, HealthBody, router},
    step,
};

use crate::{
    cli::FirecrackerManagerArgs,
    config::{ConnectionLimits, env_vars},
    exit::ExitStatus,
    print,
    serve::{descriptors, listener, log_to_stderr, memory, signals::StopSignals},
};

/// The time that calls under way have to end.
const GRACE: Duration = Duration::from_secs(10);
/// The interval at which unused memory is given back.
const UPKEEP: Duration = Duration::from_secs(5);

/// Runs the manager until a stop signal.
pub(super) async fn run(arguments: FirecrackerManagerArgs) -> ExitStatus {
    match serve(arguments).await {
        Ok(()) => ExitStatus::Success,
        Err(error) => {
            print::error(&format!("{error:#}"));
            ExitStatus::Failure
        }
    }
}

async fn serve(arguments: FirecrackerManagerArgs) -> anyhow::Result<()> {
    log_to_stderr(&arguments.log, false)?;
    memory::set_up();
    let access = Access::new(arguments.listen, api_key(arguments.api_key_file.as_deref())?)?;
    // From here on a signal to stop is kept until it can be obeyed.
    let signals = StopSignals::listen()?;
    let listener = listener::bind(arguments.listen, env_vars::FIRECRACKER_LISTEN.name)?;
    let address = listener.local_addr()?;
    let checkpoint = arguments.fault.map_or_else(step::unhindered, step::ended_by);
    let sandboxes = host(&arguments).open(checkpoint).await?;
    let probed = sandboxes.clone();
    // The first answer about health would otherwise wait for a machine to boot.
    let probe = tokio::spawn(async move {
        let health = HealthBody::of(&probed).await;
        tracing::info!(
            status = health.status,
            driver = health.driver,
            acceleration = health.acceleration,
            reason = health.reason,
            "probed this host for microVMs"
        );
    });
    tracing::info!("listening on http://{address}");
    let background = tokio::spawn(async {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            memory::give_back_much();
        }
    });
    let limits = ConnectionLimits::default().within(descriptors::raise_limit());
    let served = listener::serve(listener, None, router(sandboxes.clone(), access), signals, GRACE, limits).await;
    probe.abort();
    background.abort();
    sandboxes.shutdown().await;
    tracing::info!("stopped; machines go on");
    served
}

fn host(arguments: &FirecrackerManagerArgs) -> Host {
    let mut manager = ManagerConfig::new(&arguments.dir);
    manager.budget = Budget {
        machines: usize::from(arguments.max_running),
        memory_mib: arguments.memory_mb.map_or(manager.budget.memory_mib, std::num::NonZero::get),
    };
    manager.default_ttl = arguments.default_ttl_seconds.map(|seconds| Duration::from_secs(seconds.get()));
    manager.boot_deadline = Duration::from_secs(arguments.boot_seconds.into());
    manager.template_snapshots = arguments.template_snapshots;
    let jail = arguments.jailer.clone();
    Host { manager, driver: arguments.driver, jail, network: arguments.network.clone() }
}

/// Reads the key from its file, else from the environment: never from an argument, which everybody on the host can
/// read.
fn api_key(file: Option<&Path>) -> anyhow::Result<Option<ApiKey>> {
    let text = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Some(text.with_context(|| format!("the API key's file {} cannot be read", path.display()))?)
        }
        None => std::env::var(env_vars::FIRECRACKER_API_KEY.name).ok(),
    };
    let key = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    Ok(key.map(|key| ApiKey::new(&key)).transpose()?)
}
