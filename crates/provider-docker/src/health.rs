//! Whether the engine works, asked every so often for the life of the server.

use std::{sync::Arc, time::Duration};

use emergent_provider::Health;
use emergent_types::error_chain;
use tokio::time::timeout;

use crate::{engine::EngineError, host, parts::Parts};

/// A little less than the 10 s that a health check may take.
const DEADLINE: Duration = Duration::from_millis(9_500);

/// Asks the engine, and looks after what may have been lost since: networks and the packet filter.
pub(crate) async fn check(parts: &Arc<Parts>) -> Health {
    match timeout(DEADLINE, ask(parts)).await {
        Ok(Ok(health)) => health,
        Ok(Err(error)) => unhealthy(parts, &format!("{}: {}", parts.engine.name(), error_chain(&error))),
        Err(_) => unhealthy(parts, &format!("{} does not answer", parts.engine.name())),
    }
}

async fn ask(parts: &Arc<Parts>) -> Result<Health, EngineError> {
    let facts = parts.refresh_facts().await?;
    let name = parts.engine.name();
    let refused = |message: String| Health { healthy: false, message, warnings: Vec::new() };
    if facts.is_too_old() {
        return Ok(refused(format!(
            "{name} is {} (API {}); install Docker Engine 20.10 or later",
            facts.version, facts.api_version
        )));
    }
    let built_for = parts.guest.architecture().as_str();
    if facts.architecture != built_for {
        return Ok(refused(format!(
            "{name} runs on {}, and the guest of this server is built for {built_for}; install the server's release \
             for {}",
            facts.architecture, facts.architecture
        )));
    }
    if let Err(error) = parts.check_isolation(&facts.runtime) {
        return Ok(refused(error.to_string()));
    }
    let unfiltered = parts.networks.verify(&parts.engine).await?;
    let warnings = [parts.runtime_warning(&facts.runtime), unfiltered, parts.root_probe.warning(&facts.runtime).await];
    let refusal = parts.root_probe.refusal().map(|refusal| format!("; {refusal}")).unwrap_or_default();
    Ok(Health {
        healthy: true,
        message: format!(
            "{name}, release {}, runtime {}; {}{refusal}",
            facts.version,
            facts.runtime.name(),
            bounds(parts)
        ),
        warnings: warnings.into_iter().flatten().collect(),
    })
}

/// How the disk limits of workspaces are kept, and what the host bounds besides.
fn bounds(parts: &Parts) -> String {
    match host::room(parts).filter(|_| host::sees_files(parts)) {
        Some(room) => format!(
            "disk limits are watched twice a second, and what takes more is ended; the host may have {} processes and \
             threads",
            room.most_tasks
        ),
        None => "disk limits are reported only, since the engine's disk cannot be looked at from here".to_owned(),
    }
}

fn unhealthy(parts: &Parts, what: &str) -> Health {
    Health { healthy: false, message: format!("{what}; {}", parts.engine.advice()), warnings: Vec::new() }
}
