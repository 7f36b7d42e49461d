//! The lookup of the image that a sandbox is made from.
//!
//! The engine understands more than references: ids, and prefixes of ids, of any image that it has. So the found image
//! is checked: it has to carry the exact reference, and must not be an image of ours. From then on the image is
//! addressed by its id, and a reference that is moved to another image changes nothing.

use std::time::Duration;

use bollard::{models::ImageInspect, query_parameters::RemoveImageOptionsBuilder};
use emergent_provider::{CreateError, ImageAccess, ImageRef, SandboxSpec};
use emergent_types::StepObserver;

use crate::{
    engine::{EngineError, bounded, found, within},
    image_pull::{explain, pull},
    labels,
    parts::Parts,
    snapshots,
};

/// The time that the engine may take to remove an image.
const REMOVAL: Duration = Duration::from_secs(60);

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// The image's id, which no other image has.
    pub(crate) id: String,
    /// The directories that the image declares as volumes.
    pub(crate) volumes: Vec<String>,
    /// Whether the image names the user that its processes are to run as.
    pub(crate) names_user: bool,
    /// The image's size in bytes, with layers that it shares with others.
    pub(crate) bytes: u64,
}

/// Returns the image of a sandbox: the snapshot's image, or the spec's, which is pulled if the engine does not have it
/// or the project may not use the engine's copy.
pub(crate) async fn ensure(
    parts: &Parts,
    spec: &SandboxSpec,
    observer: &dyn StepObserver,
) -> Result<Image, CreateError> {
    let engine = &parts.engine;
    if let Some(snapshot) = spec.snapshot {
        let image = snapshots::image(engine, snapshot).await;
        let image = image.map_err(|error| engine.create_error("look for the snapshot", error))?;
        return image.and_then(Image::of).ok_or(CreateError::SnapshotMissing { snapshot });
    }
    let look = async || {
        let image = find(parts, &spec.image).await;
        image.map_err(|error| engine.create_error("look for the image", error))
    };
    let present = look().await?.and_then(Image::of);
    if let Some(image) = present.filter(|image| is_admitted(&spec.access, &image.id)) {
        return Ok(image);
    }
    let names_registry = spec.access == ImageAccess::Operator || parts.registries.names(&spec.image);
    if !names_registry {
        let checked = parts.registries.check(&spec.image).await;
        checked.map_err(|reason| CreateError::RegistryRefused { image: spec.image.clone(), reason })?;
    }
    let unavailable = |reason| CreateError::ImageUnavailable { image: spec.image.clone(), reason };
    pull(engine, spec, observer).await.map_err(|error| match error.is_engine_down() {
        true => engine.create_error("pull the image", error),
        false => unavailable(explain(&spec.image, &error.message(), names_registry)),
    })?;
    let pulled = look().await?.and_then(Image::of);
    pulled.ok_or_else(|| unavailable("what the registry gave does not carry this name; ask for another tag".to_owned()))
}

/// Finds the image that carries this exact reference and is none of ours.
pub(crate) async fn find(parts: &Parts, image: &ImageRef) -> Result<Option<ImageInspect>, EngineError> {
    let docker = parts.engine.client().await?;
    let inspected = found(bounded(docker.inspect_image(image.as_str())).await)?;
    Ok(inspected.filter(|inspected| carries(inspected, image) && !is_ours(inspected)))
}

/// Removes a reference that names this id, and with the last reference the image. False when containers use the image.
pub(crate) async fn remove(parts: &Parts, image: &ImageRef, id: &str) -> Result<bool, EngineError> {
    if find(parts, image).await?.and_then(|found| found.id).as_deref() != Some(id) {
        return Ok(true);
    }
    let options = RemoveImageOptionsBuilder::default().force(false).build();
    let docker = parts.engine.client().await?;
    match found(within(REMOVAL, docker.remove_image(image.as_str(), Some(options), None)).await) {
        Ok(_) => Ok(true),
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

fn carries(inspected: &ImageInspect, image: &ImageRef) -> bool {
    let names = [&inspected.repo_tags, &inspected.repo_digests];
    names.into_iter().flatten().flatten().any(|name| name == image.as_str())
}

/// Whether an image is a snapshot, or another one that this software has made.
fn is_ours(inspected: &ImageInspect) -> bool {
    let labels = inspected.config.as_ref().and_then(|config| config.labels.as_ref());
    labels.is_some_and(|labels| labels.keys().any(|key| key.starts_with(labels::PREFIX)))
}

/// Whether the project may use the engine's copy of an image.
fn is_admitted(access: &ImageAccess, id: &str) -> bool {
    match access {
        ImageAccess::Operator | ImageAccess::Admitted => true,
        ImageAccess::Pulled(pulled) => pulled.as_deref() == Some(id),
    }
}

// === impl Image ===

impl Image {
    fn of(inspected: ImageInspect) -> Option<Self> {
        let bytes = inspected.size.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        let config = inspected.config.unwrap_or_default();
        let names_user = config.user.is_some_and(|user| !user.is_empty());
        Some(Self { id: inspected.id?, volumes: config.volumes.unwrap_or_default(), names_user, bytes })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bollard::models::ImageConfig;

    use super::*;

    fn inspected(tags: &[&str], labels: &[&str]) -> ImageInspect {
        let labels = labels.iter().map(|label| ((*label).to_owned(), String::new())).collect::<HashMap<_, _>>();
        ImageInspect {
            id: Some("sha256:e5".to_owned()),
            repo_tags: Some(tags.iter().map(|tag| (*tag).to_owned()).collect()),
            config: Some(ImageConfig { labels: Some(labels), ..ImageConfig::default() }),
            ..ImageInspect::default()
        }
    }

    #[test]
    fn what_is_found_by_its_id_does_not_carry_the_reference() {
        let found = inspected(&["private/app:1"], &[]);
        assert!(carries(&found, &"docker.io/private/app:1".parse().unwrap()));
        for other in ["private/app:2", "e5:latest", "other/app:1"] {
            assert!(!carries(&found, &other.parse().unwrap()), "{other}");
        }
        assert!(!carries(&found, &ImageRef::recorded("e5")));
    }

    #[test]
    fn what_has_a_label_of_ours_is_ours() {
        assert!(is_ours(&inspected(&["renamed:1"], &["emergent.snapshot"])));
        assert!(!is_ours(&inspected(&["a:1"], &["org.emergent.name", "maintainer"])));
    }

    #[test]
    fn a_project_takes_only_what_it_has_pulled() {
        let pulled = |id: Option<&str>| ImageAccess::Pulled(id.map(str::to_owned));
        assert!(is_admitted(&pulled(Some("a")), "a"));
        assert!(!is_admitted(&pulled(Some("b")), "a") && !is_admitted(&pulled(None), "a"));
        assert!(is_admitted(&ImageAccess::Operator, "a") && is_admitted(&ImageAccess::Admitted, "a"));
    }
}
