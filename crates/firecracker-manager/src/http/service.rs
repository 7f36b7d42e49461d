//! The state of the service: health, capacity, templates.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use emergent_microvm::{Acceleration, Probe};

use super::{CapacityBody, HealthBody, Shared, TemplatesBody, done::Done};
use crate::Sandboxes;

/// `GET /health`
pub(super) async fn health(State(shared): State<Shared>) -> Response {
    let body = HealthBody::of(&shared.sandboxes).await;
    match body.reason.clone() {
        None => Done::well(body).into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, Done::badly(body, reason)).into_response(),
    }
}

/// `GET /capacity`
pub(super) async fn capacity(State(shared): State<Shared>) -> Done<CapacityBody> {
    Done::well(shared.sandboxes.capacity().into())
}

/// `GET /templates`
pub(super) async fn templates(State(shared): State<Shared>) -> Done<TemplatesBody> {
    Done::well(shared.sandboxes.templates().into())
}

// === impl HealthBody ===

impl HealthBody {
    /// Returns the state of a service. The first call may boot a machine.
    pub async fn of(sandboxes: &Sandboxes) -> Self {
        let (driver, network) = (sandboxes.vmm_kind().to_string(), sandboxes.network_unavailable());
        let mut body = Self {
            status: "healthy".to_owned(),
            driver,
            acceleration: None,
            version: None,
            reason: None,
            warnings: Vec::new(),
            network: network.is_none(),
        };
        match sandboxes.probe().await {
            Probe::Works { acceleration, version, warnings } => {
                let word = match acceleration {
                    Acceleration::Kvm => "kvm",
                    Acceleration::Emulated => "emulated",
                };
                (body.acceleration, body.version) = (Some(word.to_owned()), Some(version));
                body.warnings = warnings;
            }
            Probe::Fails { reason } => {
                (body.status, body.reason) = ("unhealthy".to_owned(), Some(reason));
            }
        }
        body.warnings.extend(network.map(|reason| format!("sandboxes have no network: {reason}")));
        body
    }

    /// Whether machines can be run.
    pub fn is_healthy(&self) -> bool {
        self.status == "healthy"
    }

    /// Whether the processor's virtualization runs machines.
    pub fn is_hardware(&self) -> bool {
        self.acceleration.as_deref() == Some("kvm")
    }
}
