//! The checks of a container that is about to start: files that the engine reads, and paths at which it mounts.
//!
//! Root inside, and the maker of an image, may put links on the path of a mount. The runtime follows them within the
//! container, so that a volume would hide the guest's binary, or the guest's private directory would be missing.

use bollard::models::ContainerInspectResponse;

use crate::{
    accounts,
    engine::{EngineError, MisplacedMount},
    layers::{self, RootFs},
    parts::Parts,
    volumes,
};

/// Checks a container that does not run. Where this process does not see the engine's files, there is nothing to check
/// with, and the check passes.
pub(crate) async fn check(parts: &Parts, container: ContainerInspectResponse) -> Result<(), EngineError> {
    if !parts.engine.is_local() {
        return Ok(());
    }
    layers::look(container, look).await
}

fn look(root: &RootFs, container: &ContainerInspectResponse) -> Result<(), EngineError> {
    accounts::check(root)?;
    let paths: Vec<_> = container.mounts.iter().flatten().filter_map(|mount| mount.destination.as_deref()).collect();
    for path in &paths {
        let leads_to = root.find_mount_point(path).map_err(EngineError::Unseen)?.path;
        let others = paths.iter().copied().filter(|other| other != path);
        if leads_to != *path && !volumes::may_lead_to(path, &leads_to, others) {
            return Err(MisplacedMount { path: (*path).to_owned(), leads_to }.into());
        }
    }
    Ok(())
}
