//! The check whether machines can be run, and with which isolation.

use std::time::Duration;

use emergent_firecracker_manager::http::HealthBody;
use emergent_provider::{CreateError, Health, Isolation};
use emergent_types::error_chain;
use parking_lot::Mutex;

use crate::{
    error,
    manager::{Manager, ManagerError},
};

/// Callers want an answer within 8 s; the first check boots a machine, which goes on after this deadline.
const DEADLINE: Duration = Duration::from_secs(7);

/// The warning about the weak isolation of emulated machines.
const EMULATED: &str = "machines are emulated, since KVM does not work here: they are slow, and the emulator is no \
                        wall of hardware; run the manager on a host with a working /dev/kvm";

/// The manager's state when it was last queried.
#[derive(Default)]
pub(crate) struct LastHealth(Mutex<Option<HealthBody>>);

// === impl LastHealth ===

impl LastHealth {
    /// Returns the state; `None` until the manager has answered once.
    pub(crate) fn get(&self) -> Option<HealthBody> {
        self.0.lock().clone()
    }

    /// Checks the manager's health.
    pub(crate) async fn check(&self, manager: &dyn Manager) -> Health {
        let unhealthy = |message| Health { healthy: false, message, warnings: Vec::new() };
        match tokio::time::timeout(DEADLINE, self.query(manager)).await {
            Ok(Ok(seen)) => describe(&seen),
            Ok(Err(ManagerError::Down { advice, source })) => unhealthy(format!("{}; {advice}", error_chain(&*source))),
            Ok(Err(error)) => unhealthy(error_chain(&error)),
            Err(_) => unhealthy(format!(
                "{} did not answer in time; it may be booting its first machine, so try again",
                manager.name()
            )),
        }
    }

    /// Returns the manager's state, queried on first use; an error if its machines' isolation is less than `required`.
    pub(crate) async fn strong_enough(
        &self,
        manager: &dyn Manager,
        required: Isolation,
    ) -> Result<HealthBody, CreateError> {
        let seen = match self.get() {
            Some(seen) => seen,
            None => {
                let asked = self.query(manager).await;
                asked.map_err(|error| error::create_error(manager, "say how it is", error))?
            }
        };
        if isolation(&seen) >= required {
            return Ok(seen);
        }
        let required = match required {
            Isolation::Hardware => "hardware",
            Isolation::Gvisor => "gvisor",
            Isolation::Container => "any",
        };
        let offered = "an emulated machine";
        let advice = "run the manager on a host with a working /dev/kvm".to_owned();
        Err(CreateError::IsolationTooWeak { required, offered, advice })
    }

    async fn query(&self, manager: &dyn Manager) -> Result<HealthBody, ManagerError> {
        let seen = manager.health().await?;
        *self.0.lock() = Some(seen.clone());
        Ok(seen)
    }
}

fn describe(seen: &HealthBody) -> Health {
    if !seen.is_healthy() {
        let reason = seen.reason.clone().unwrap_or_else(|| "no machine can be run".to_owned());
        return Health { healthy: false, message: reason, warnings: seen.warnings.clone() };
    }
    let version = seen.version.as_deref().unwrap_or("of an unknown version");
    let how = if seen.is_hardware() { "on KVM" } else { "emulated" };
    let mut warnings = seen.warnings.clone();
    warnings.extend(warning(seen));
    Health { healthy: true, message: format!("{} {version}, {how}", seen.driver), warnings }
}

/// Returns the warning about machines without hardware isolation, if they are.
pub(crate) fn warning(seen: &HealthBody) -> Option<String> {
    (!seen.is_hardware()).then(|| EMULATED.to_owned())
}

/// Returns the isolation that machines have. An emulator promises none, so its machines count as containers.
pub(crate) fn isolation(seen: &HealthBody) -> Isolation {
    if seen.is_hardware() { Isolation::Hardware } else { Isolation::Container }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(acceleration: Option<&str>) -> HealthBody {
        HealthBody {
            status: if acceleration.is_some() { "healthy" } else { "unhealthy" }.to_owned(),
            driver: "qemu".to_owned(),
            acceleration: acceleration.map(str::to_owned),
            version: Some("9".to_owned()),
            reason: Some("there is no kernel".to_owned()).filter(|_| acceleration.is_none()),
            warnings: Vec::new(),
            network: true,
        }
    }

    #[test]
    fn only_hardware_is_called_hardware() {
        assert_eq!(isolation(&seen(Some("kvm"))), Isolation::Hardware);
        assert!(isolation(&seen(Some("emulated"))) < Isolation::Gvisor);
        let health = describe(&seen(Some("emulated")));
        assert!(health.healthy && health.warnings.iter().any(|warning| warning.contains("emulated")), "{health:?}");
        assert!(describe(&seen(Some("kvm"))).warnings.is_empty());
    }

    #[test]
    fn why_no_machine_can_be_run_is_said() {
        assert_eq!(describe(&seen(None)).message, "there is no kernel");
    }
}
