//! Checks a request for a workspace, and fills in what the request leaves to the settings.

use chrono::{DateTime, TimeDelta, Utc};
use emergent_provider::{ContainerKind, ImageRef};
use emergent_store::IdlePolicy;
use emergent_types::ResourceLimits;

use super::NewWorkspaceError;
use crate::{
    config::CoreConfig,
    placement::allowed_images::AllowedImages,
    workspace::{
        request::NewWorkspace,
        validate::{
            InvalidField, environment_is_fine, idle, labels_are_fine, lifetime, limits, workspace_name_is_fine,
        },
    },
};

/// The choices that the request leaves open, decided.
pub(crate) struct Checked {
    pub(crate) image: ImageRef,
    pub(crate) limits: ResourceLimits,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) idle: IdlePolicy,
}

/// Checks a request and decides what it leaves open.
pub(crate) fn check(
    request: &NewWorkspace,
    config: &CoreConfig,
    allowed: &AllowedImages,
) -> Result<Checked, NewWorkspaceError> {
    if let Some(name) = &request.name {
        workspace_name_is_fine(name)?;
    }
    labels_are_fine(&request.labels)?;
    environment_is_fine(&request.environment)?;
    let image = match &request.image {
        Some(image) if *image != config.default_image && !allowed.contain(image) => {
            return Err(NewWorkspaceError::ImageNotAllowed { image: image.clone() });
        }
        Some(image) => image.clone(),
        None => config.default_image.clone(),
    };
    let limits = limits(request.limits, config.default_limits)?;
    let idle = idle(request.idle, config.default_idle)?;
    Ok(Checked { image, limits, expires_at: expiry(request, config)?, idle })
}

fn expiry(request: &NewWorkspace, config: &CoreConfig) -> Result<Option<DateTime<Utc>>, InvalidField> {
    let life = match (request.ttl, request.kind) {
        (Some(ttl), _) => lifetime(ttl)?.map(|life| TimeDelta::from_std(life).unwrap_or(TimeDelta::MAX)),
        (None, ContainerKind::McpServer) => None,
        (None, ContainerKind::AgentWorkspace) => Some(config.default_ttl),
    };
    Ok(life.and_then(|life| Utc::now().checked_add_signed(life)))
}

#[cfg(test)]
mod tests;
