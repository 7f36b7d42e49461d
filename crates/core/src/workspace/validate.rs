//! The rules for each field of a request.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use emergent_provider::{Capabilities, ProviderKind};
use emergent_store::{IdleAction, IdlePolicy, is_label_key};
use emergent_types::{ResourceLimits, WorkspaceId};

use crate::workspace::request::{IdleRequest, LimitsRequest, Ttl};

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
pub(crate) const CPU: RangeInclusive<f64> = 0.1..=256.0;
const MEMORY: RangeInclusive<u64> = 64 * MIB..=16 * TIB;
const DISK: RangeInclusive<u64> = 64 * MIB..=1024 * TIB;
const PIDS: RangeInclusive<u32> = 64..=1_000_000;
const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10 * 365 * 24 * 60 * 60);
const IDLE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 60 * 60);

/// A field that asks for something that cannot be, and what it takes.
#[derive(Debug)]
pub(crate) struct InvalidField {
    pub(crate) field: String,
    pub(crate) message: String,
}

/// A policy with what is asked for in place of what it was.
pub(crate) fn idle(asked: IdleRequest, before: IdlePolicy) -> Result<IdlePolicy, InvalidField> {
    if asked.after.is_some_and(|after| !IDLE.contains(&after)) {
        let rule = format!("takes {} to {} seconds", IDLE.start().as_secs(), IDLE.end().as_secs());
        return Err(invalid("idle.after", rule));
    }
    Ok(IdlePolicy { action: asked.action.unwrap_or(before.action), after: asked.after.unwrap_or(before.after) })
}

/// A policy that the provider can carry out. What somebody asks for is refused where it cannot; what only the settings
/// say is left out.
pub(crate) fn idle_within(
    policy: IdlePolicy,
    asked: IdleRequest,
    provider: ProviderKind,
    capabilities: &Capabilities,
) -> Result<IdlePolicy, InvalidField> {
    let is_able = match policy.action {
        IdleAction::None => true,
        IdleAction::Pause => capabilities.pause,
        IdleAction::Stop => capabilities.persistence,
    };
    match asked.action {
        _ if is_able => Ok(policy),
        None => Ok(IdlePolicy { action: IdleAction::None, ..policy }),
        Some(action) => Err(invalid(
            "idle.action",
            format!(
                "provider {provider} cannot {action} a workspace as it is set up; the list of providers says what it can"
            ),
        )),
    }
}

/// The lifetime that is asked for; `None` for one without end.
pub(crate) fn lifetime(ttl: Ttl) -> Result<Option<Duration>, InvalidField> {
    match ttl {
        Ttl::Never => Ok(None),
        Ttl::After(life) if !TTL.contains(&life) => {
            let rule = format!("takes {} to {} seconds", TTL.start().as_secs(), TTL.end().as_secs());
            Err(invalid("ttl", rule))
        }
        Ttl::After(life) => Ok(Some(life)),
    }
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
pub(crate) fn environment_is_fine(environment: &BTreeMap<String, String>) -> Result<(), InvalidField> {
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

/// Returns the limits that are asked for, and the default ones in place of those that are not.
pub(crate) fn limits(asked: LimitsRequest, default: ResourceLimits) -> Result<ResourceLimits, InvalidField> {
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

pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> InvalidField {
    InvalidField { field: field.into(), message: message.into() }
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
