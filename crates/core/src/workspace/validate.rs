//! Checks what a caller asks for, and fills in what it leaves to the settings.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use emergent_provider::{ContainerKind, ImageRef};
use emergent_store::{IdlePolicy, is_label_key};
use emergent_types::{ResourceLimits, WorkspaceId};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::{ChangeError, CoreConfig, IdleRequest, LimitsRequest, NewWorkspace, NewWorkspaceError, StartError, Ttl};

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
const LABELS: usize = 64;
const LABEL_VALUE: usize = 256;
/// The bytes of all labels of one thing: lists have them whole.
const LABELS_BYTES: usize = 16 * 1024;
const NAME: usize = 128;
const VARIABLES: usize = 256;
const VARIABLE_NAME: usize = 256;
/// The kernel takes no longer `NAME=value`.
const VARIABLE: usize = 128 * 1024 - 1;
const ENVIRONMENT: usize = 1024 * 1024;
const CPU: RangeInclusive<f64> = 0.1..=256.0;
const MEMORY: RangeInclusive<u64> = 64 * MIB..=16 * TIB;
const DISK: RangeInclusive<u64> = 64 * MIB..=1024 * TIB;
const PIDS: RangeInclusive<u32> = 64..=1_000_000;
const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10 * 365 * 24 * 60 * 60);
const IDLE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 60 * 60);

/// The images that may be used.
pub(crate) struct AllowedImages {
    patterns: Option<GlobSet>,
}

/// A field that asks for something that cannot be, and what it takes.
#[derive(Debug)]
pub(crate) struct InvalidField {
    pub(crate) field: String,
    pub(crate) message: String,
}

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

/// A policy with what is asked for in place of what it was.
pub(crate) fn idle(asked: IdleRequest, before: IdlePolicy) -> Result<IdlePolicy, InvalidField> {
    if asked.after.is_some_and(|after| !IDLE.contains(&after)) {
        let rule = format!("takes {} to {} seconds", IDLE.start().as_secs(), IDLE.end().as_secs());
        return Err(invalid("idle.after", rule));
    }
    Ok(IdlePolicy { action: asked.action.unwrap_or(before.action), after: asked.after.unwrap_or(before.after) })
}

pub(crate) fn name_is_fine(name: &str) -> Result<(), InvalidField> {
    let characters = name.chars().count();
    if name.parse::<WorkspaceId>().is_ok() {
        return Err(invalid("name", "takes no UUID, which would be taken for the id of a workspace"));
    }
    if (1..=NAME).contains(&characters) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(invalid("name", format!("takes 1 to {NAME} characters, none of them a control character")))
}

/// A workspace's name stands before a path too, as in `first:project/main.py`.
pub(crate) fn workspace_name_is_fine(name: &str) -> Result<(), InvalidField> {
    if name.contains(['/', ':']) {
        return Err(invalid(
            "name",
            "takes no / and no :, which stand between a workspace and a path; - and . are free",
        ));
    }
    name_is_fine(name)
}

pub(crate) fn labels_are_fine(labels: &BTreeMap<String, String>) -> Result<(), InvalidField> {
    if labels.len() > LABELS {
        return Err(invalid("labels", format!("takes {LABELS} labels at most")));
    }
    if labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > LABELS_BYTES {
        return Err(invalid("labels", format!("takes {LABELS_BYTES} bytes at most in all, keys and values together")));
    }
    for (key, value) in labels {
        if !is_label_key(key) {
            let rule = "a label's key is 1 to 63 of A-Z a-z 0-9 . _ / - and begins with a letter";
            return Err(invalid("labels", format!("{rule}; {:?} is not", shortened(key))));
        }
        if value.chars().count() > LABEL_VALUE || value.chars().any(char::is_control) {
            let rule = format!("takes {LABEL_VALUE} characters at most, none of them a control character");
            return Err(invalid(format!("labels.{key}"), rule));
        }
    }
    Ok(())
}

/// The messages name variables, never their values.
fn environment_is_fine(environment: &BTreeMap<String, String>) -> Result<(), InvalidField> {
    if environment.len() > VARIABLES {
        return Err(invalid("environment", format!("takes {VARIABLES} variables at most")));
    }
    let mut total = 0;
    for (name, value) in environment {
        let well_formed = (1..=VARIABLE_NAME).contains(&name.len())
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !well_formed {
            let rule = format!("a variable's name is 1 to {VARIABLE_NAME} of A-Z a-z 0-9 _ and begins with no digit");
            return Err(invalid("environment", format!("{rule}; {:?} is not", shortened(name))));
        }
        let size = name.len() + 1 + value.len();
        if size > VARIABLE || value.contains('\0') {
            let rule = format!("takes {VARIABLE} bytes at most with its name, none of them zero");
            return Err(invalid(format!("environment.{name}"), rule));
        }
        total += size;
    }
    if total > ENVIRONMENT {
        return Err(invalid("environment", format!("takes {ENVIRONMENT} bytes at most in all")));
    }
    Ok(())
}

fn limits(asked: LimitsRequest, default: ResourceLimits) -> Result<ResourceLimits, InvalidField> {
    let within = |field: &str, value: Option<u64>, range: RangeInclusive<u64>, default: u64| match value {
        Some(value) if !range.contains(&value) => {
            Err(invalid(format!("limits.{field}"), format!("takes {} to {}", size(*range.start()), size(*range.end()))))
        }
        Some(value) => Ok(value),
        None => Ok(default),
    };
    // NaN is in no range.
    let cpu = asked.cpu.unwrap_or(default.cpu);
    if asked.cpu.is_some() && !CPU.contains(&cpu) {
        return Err(invalid("limits.cpu", format!("takes {} to {} cores", CPU.start(), CPU.end())));
    }
    let pids = asked.pids.unwrap_or(default.pids);
    if asked.pids.is_some() && !PIDS.contains(&pids) {
        return Err(invalid("limits.pids", format!("takes {} to {}", PIDS.start(), PIDS.end())));
    }
    Ok(ResourceLimits {
        cpu,
        memory_bytes: within("memory_bytes", asked.memory_bytes, MEMORY, default.memory_bytes)?,
        disk_bytes: within("disk_bytes", asked.disk_bytes, DISK, default.disk_bytes)?,
        pids,
    })
}

/// An amount as people ask for it.
fn size(bytes: u64) -> String {
    if bytes >= TIB { format!("{}T", bytes / TIB) } else { format!("{}M", bytes / MIB) }
}

fn expiry(request: &NewWorkspace, config: &CoreConfig) -> Result<Option<DateTime<Utc>>, InvalidField> {
    let life = match (request.ttl, request.kind) {
        (Some(Ttl::Never), _) | (None, ContainerKind::McpServer) => return Ok(None),
        (Some(Ttl::After(life)), _) if !TTL.contains(&life) => {
            let rule = format!("takes {} to {} seconds", TTL.start().as_secs(), TTL.end().as_secs());
            return Err(invalid("ttl", rule));
        }
        (Some(Ttl::After(life)), _) => TimeDelta::from_std(life).unwrap_or(TimeDelta::MAX),
        (None, ContainerKind::AgentWorkspace) => config.default_ttl,
    };
    Ok(Utc::now().checked_add_signed(life))
}

pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> InvalidField {
    InvalidField { field: field.into(), message: message.into() }
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

impl From<InvalidField> for NewWorkspaceError {
    fn from(InvalidField { field, message }: InvalidField) -> Self {
        Self::Invalid { field, message }
    }
}

impl From<InvalidField> for ChangeError {
    fn from(InvalidField { field, message }: InvalidField) -> Self {
        Self::Invalid { field, message }
    }
}

// === impl AllowedImages ===

impl AllowedImages {
    /// Reads the operator's globs; `*` and `?` do not match `/`, `**` does.
    pub(crate) fn new(globs: &[String]) -> Result<Self, StartError> {
        if globs.is_empty() {
            return Ok(Self { patterns: None });
        }
        let unusable = |error: globset::Error| StartError::Setting {
            setting: "WORKSPACE_ALLOWED_IMAGES",
            reason: error.to_string(),
        };
        let mut patterns = GlobSetBuilder::new();
        for glob in globs {
            patterns.add(GlobBuilder::new(glob).literal_separator(true).build().map_err(unusable)?);
        }
        Ok(Self { patterns: Some(patterns.build().map_err(unusable)?) })
    }

    /// Whether an image is among those that are allowed, or all are.
    pub(crate) fn contain(&self, image: &ImageRef) -> bool {
        self.patterns.is_none() || self.name(image)
    }

    /// Whether a glob matches an image.
    pub(crate) fn name(&self, image: &ImageRef) -> bool {
        self.patterns.as_ref().is_some_and(|patterns| patterns.is_match(image.as_str()))
    }
}

#[cfg(test)]
mod tests;
