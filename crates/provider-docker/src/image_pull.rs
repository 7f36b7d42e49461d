//! The pull of an image from its registry.

use std::{collections::HashMap, time::Duration};

use bollard::{auth::DockerCredentials, models::CreateImageInfo, query_parameters::CreateImageOptionsBuilder};
use emergent_provider::{ImageRef, SandboxSpec};
use emergent_types::{PullProgress, StepObserver};
use futures::StreamExt as _;
use tokio::time::timeout;

use crate::engine::{Engine, EngineError};

/// The time that a registry may take for its first message.
const FIRST_SIGN: Duration = Duration::from_secs(9);
/// The time for which a pull may show no progress after that.
const STALL: Duration = Duration::from_secs(120);
/// The most layers whose progress is kept; an image with more layers is no real one, but an invention of the registry.
const MOST_LAYERS: usize = 1_000;
/// The default registry, under the name that its credentials have.
const DEFAULT_REGISTRY: &str = "https://index.docker.io/v1/";

/// Has the engine pull the image of a spec.
pub(crate) async fn pull(engine: &Engine, spec: &SandboxSpec, observer: &dyn StepObserver) -> Result<(), EngineError> {
    let credentials = spec.registry.as_ref().map(|registry| DockerCredentials {
        username: Some(registry.username.clone()),
        password: Some(registry.password.clone()),
        serveraddress: Some(spec.image.registry_host().unwrap_or(DEFAULT_REGISTRY).to_owned()),
        ..DockerCredentials::default()
    });
    let docker = engine.client().await?;
    let options = CreateImageOptionsBuilder::default().from_image(spec.image.as_str()).build();
    let mut messages = docker.create_image(Some(options), None, credentials);
    let mut layers = Layers::default();
    let mut patience = FIRST_SIGN;
    loop {
        let Ok(message) = timeout(patience, messages.next()).await else {
            return Err(silent_registry(patience));
        };
        let Some(message) = message else { return Ok(()) };
        observer.pulling(spec.workspace, layers.take(message?));
        patience = STALL;
    }
}

fn silent_registry(patience: Duration) -> EngineError {
    let error = format!("the registry showed no sign of life for {} s", patience.as_secs());
    EngineError::Docker(bollard::errors::Error::DockerStreamError { error })
}

/// Returns a message about a failed pull, with a remedy. The engine's words are repeated only if the registry is the
/// default one or the operator's: they contain the answer of the other side, which may be any host.
pub(crate) fn explain(image: &ImageRef, words: &str, names_registry: bool) -> String {
    let host = image.registry_host();
    let registry = host.unwrap_or("Docker Hub");
    let lower = words.to_lowercase();
    let says = |signs: &[&str]| signs.iter().any(|sign| lower.contains(sign));
    let meaning = if says(&[
        "no such host",
        "dial tcp",
        "connection refused",
        "timeout",
        "sign of life",
        "unreachable",
        "eof",
    ]) {
        format!(
            "{registry} cannot be reached from the engine; check its network, or load the image with `docker load` and admit it with WORKSPACE_ALLOWED_IMAGES"
        )
    } else if says(&["unauthorized", "authentication required", "denied", "no basic auth"]) {
        format!(
            "{registry} wants a login or has no such repository; check the name and its login in WORKSPACE_REGISTRY_AUTH_FILE"
        )
    } else if says(&["not found", "manifest unknown", "no matching manifest", "unknown manifest"]) {
        format!("{registry} has no such image for this architecture; check name and tag")
    } else {
        "the pull failed".to_owned()
    };
    if !names_registry && host.is_some() {
        return meaning;
    }
    let words: String = words.chars().filter(|c| !c.is_control()).take(500).collect();
    format!("{meaning} (the engine says: {words})")
}

/// The progress of each layer.
#[derive(Default)]
struct Layers(HashMap<String, (u64, u64)>);

// === impl Layers ===

impl Layers {
    /// Takes in a message; returns the progress of the whole pull.
    fn take(&mut self, message: CreateImageInfo) -> PullProgress {
        let status = message.status.unwrap_or_default();
        let bytes = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
        match (status.as_str(), message.id, message.progress_detail) {
            ("Downloading", Some(layer), Some(detail)) if self.0.len() < MOST_LAYERS || self.0.contains_key(&layer) => {
                self.0.insert(layer, (bytes(detail.current), bytes(detail.total)));
            }
            ("Download complete", Some(layer), _) => {
                self.0.entry(layer).and_modify(|(current, total)| *current = *total);
            }
            _ => {}
        }
        let sum = |of: fn(&(u64, u64)) -> u64| self.0.values().map(of).fold(0, u64::saturating_add);
        PullProgress { bytes: sum(|layer| layer.0), total_bytes: sum(|layer| layer.1), status }
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    fn image(text: &str) -> ImageRef {
        text.parse().unwrap()
    }

    #[test]
    fn reasons_say_what_to_do() {
        let explained = |name: &str, words: &str| explain(&image(name), words, false);
        let reach = explained("registry.example/a:1", "dial tcp: lookup registry.example: no such host");
        assert!(reach.starts_with("registry.example cannot be reached"), "{reach}");
        let login = explained("a:1", "pull access denied for a, repository does not exist or may require login");
        assert!(login.starts_with("Docker Hub wants a login"), "{login}");
        let missing = explained("a:1", "manifest for a:1 not found: manifest unknown");
        assert!(missing.contains("has no such image") && missing.contains("manifest for a:1"), "{missing}");
    }

    #[test]
    fn what_a_strangers_registry_answers_is_not_repeated() {
        let words = "error parsing HTTP 404 response body: invalid character: \"an internal page\"";
        let stranger = image("registry.example:8080/a:1");
        assert!(!explain(&stranger, words, false).contains("internal"));
        assert!(explain(&stranger, words, true).contains("internal"), "the operator names this one");
    }

    #[test]
    fn progress_adds_up_over_layers() {
        let mut layers = Layers::default();
        let downloading = |id: &str, current, total| CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some("Downloading".to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..CreateImageInfo::default()
        };
        layers.take(downloading("a", 1, 10));
        let progress = layers.take(downloading("b", 2, 20));
        assert_eq!((progress.bytes, progress.total_bytes), (3, 30));
    }
}
