//! The requests that make or list workspaces.

use std::{collections::BTreeMap, time::Duration};

use emergent_core::{Cursor, LimitsRequest, ListFilter, NewWorkspace, PageRequest, Requirements, StateKind, Ttl};
use emergent_provider::{ContainerKind, ImageRef, ProviderKind};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    idle::RequestedIdle,
    view::{ContainerType, IsolationName, Network},
};
use crate::http::{
    check::{Check, Faults},
    problem::{ProblemKind, Refusal},
    size::ByteSize,
};

const MOST_TTL_DAYS: f64 = 3650.0;
const MOST_TTL_SECONDS: u64 = 3650 * 24 * 60 * 60;
/// The time that a create waits for `ready` when the caller does not say, in seconds.
const DEFAULT_WAIT: u64 = 60;

/// A workspace to make. Everything may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWorkspace {
    /// For people, and for addresses in place of the id: up to 128 characters, without `/` and `:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^/:\x00-\x1f\x7f-\x9f]+$")]
    pub name: Option<String>,
    /// For people and programs; up to 64, keys up to 63 characters, values up to 256; 16 KiB at most in all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Only `agent_workspace` can be made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_type: Option<ContainerType>,
    /// `gvisor`, `firecracker` or `e2b`: that one or none. `auto`, or left out: the server's setting decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<RequestedProvider>)]
    pub provider: Option<RequestedProvider>,
    /// The abilities that the provider must have; a provider that lacks any of them is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirements: Option<RequirementsRequest>,
    /// An image such as `ubuntu:22.04`; left out: the server's default image, which has git and the usual tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255, example = "ubuntu:22.04")]
    pub base_image: Option<String>,
    /// The snapshot that it is made from. Then `base_image` is left out, and labels, limits, network and root are the
    /// copied workspace's where they are left out; its environment comes along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<Uuid>,
    /// The resources that the workspace may use; each limit that is left out is the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_limits: Option<RequestedLimits>,
    /// The network that the workspace may reach; `outbound` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// The workspace's environment, besides the image's own. Never shown again.
    #[serde(default, alias = "env", skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Let calls run commands as root inside (`"user": "root"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_root: Option<bool>,
    /// Days until it may be destroyed, from its creation; 0 for never. Left out: the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 3650)]
    pub ttl_days: Option<f64>,
    /// The same in seconds, 1 at least; not together with `ttl_days`.
    #[serde(
        default,
        deserialize_with = "emergent_guest_proto::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 315_360_000)]
    pub expires_in_seconds: Option<u64>,
    /// The policy for a workspace that nobody uses; each part that is left out is the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<RequestedIdle>,
}

/// The provider that is to make a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestedProvider {
    /// The server's setting decides.
    Auto,
    /// Containers of the Docker Engine, under gVisor where it is installed.
    Gvisor,
    /// Firecracker microVMs.
    Firecracker,
    /// E2B's cloud.
    E2b,
}

/// The abilities that a provider must have. One that is left out is not asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Requirements)]
pub struct RequirementsRequest {
    /// The weakest isolation that is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<IsolationName>,
    /// Files survive stop and resume.
    pub persistence: bool,
    /// Processes survive pause and resume.
    pub pause: bool,
    /// The state can be copied into a new workspace.
    pub snapshots: bool,
    /// The disk limit is enforced rather than watched.
    pub disk_quota: bool,
}

/// The resources that a workspace may use at most.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestedLimits {
    /// CPU cores; 0.5 is half a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.1, maximum = 256, example = 2)]
    pub cpu: Option<f64>,
    /// Memory, 64M to 16T.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Disk, 64M to 1024T.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<ByteSize>,
    /// Processes and threads.
    #[serde(
        default,
        deserialize_with = "emergent_guest_proto::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 64, maximum = 1_000_000)]
    pub pids: Option<u32>,
}

/// The time that a create waits.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// Seconds to wait for the workspace to be ready before the answer is 202; 60 by default.
    #[param(minimum = 0, maximum = 600)]
    wait_seconds: Option<u64>,
}

/// The workspaces to list.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// How many at most; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// In one of these states, separated by commas: `state=ready,paused`.
    state: Option<String>,
    /// Of this provider.
    provider: Option<super::view::ProviderName>,
    /// Of this type.
    container_type: Option<ContainerType>,
    /// With exactly this name.
    name: Option<String>,
    /// With this label: `label=key:value`.
    label: Option<String>,
    /// Destroyed ones too.
    #[serde(default)]
    include_destroyed: bool,
}

// === impl CreateWorkspace ===

impl Check for CreateWorkspace {
    fn check(&self, faults: &mut Faults) {
        if self.name.as_deref().is_some_and(|name| name.is_empty() || name.chars().count() > 128) {
            faults.add("name", "it takes 1 to 128 characters");
        }
        if self.labels.len() > 64 {
            faults.add("labels", "there are more than 64");
        }
        for (key, value) in &self.labels {
            if key.is_empty() || key.chars().count() > 63 || key.contains(':') || key.chars().any(char::is_control) {
                faults.add(format!("labels.{key}"), "a key takes 1 to 63 characters, without : and control characters");
            } else if value.chars().count() > 256 {
                faults.add(format!("labels.{key}"), "a value takes at most 256 characters");
            }
        }
        if self.container_type == Some(ContainerType::McpServer) {
            faults.add("container_type", "only agent_workspace can be made here");
        }
        if let Some(Err(error)) = self.base_image.as_deref().map(str::parse::<ImageRef>) {
            faults.add("base_image", error.to_string());
        }
        if let Some(limits) = &self.resource_limits {
            faults.range("resource_limits.cpu", limits.cpu, 0.1..=256.0);
            faults.range("resource_limits.memory", limits.memory, ByteSize(64 << 20)..=ByteSize(16 << 40));
            faults.range("resource_limits.disk", limits.disk, ByteSize(64 << 20)..=ByteSize(1 << 50));
            faults.range("resource_limits.pids", limits.pids, 64..=1_000_000);
        }
        faults.environment("environment", &self.environment);
        faults.range("ttl_days", self.ttl_days, 0.0..=MOST_TTL_DAYS);
        faults.range("expires_in_seconds", self.expires_in_seconds, 1..=MOST_TTL_SECONDS);
        if let Some(idle) = &self.idle {
            idle.check(faults);
        }
        if self.ttl_days.is_some() && self.expires_in_seconds.is_some() {
            faults.add("expires_in_seconds", "give either ttl_days or expires_in_seconds, not both");
        }
    }
}

impl CreateWorkspace {
    /// The core's words for it. To be called on what was checked.
    pub(crate) fn into_core(self) -> NewWorkspace {
        let limits = self.resource_limits.unwrap_or_default();
        let ttl_days = self.ttl_days.map(|days| {
            if days == 0.0 { Ttl::Never } else { Ttl::After(Duration::from_secs_f64(days * 24.0 * 60.0 * 60.0)) }
        });
        NewWorkspace {
            name: self.name,
            labels: self.labels,
            kind: self.container_type.map_or(ContainerKind::AgentWorkspace, Into::into),
            provider: self.provider.and_then(RequestedProvider::named),
            image: self.base_image.and_then(|text| text.parse().ok()),
            snapshot: self.snapshot_id.map(Into::into),
            limits: LimitsRequest {
                cpu: limits.cpu,
                memory_bytes: limits.memory.map(|size| size.0),
                disk_bytes: limits.disk.map(|size| size.0),
                pids: limits.pids,
            },
            network: self.network.map(Into::into),
            environment: self.environment,
            allow_root: self.allow_root,
            requirements: self.requirements.map_or_else(Requirements::default, Into::into),
            ttl: ttl_days.or_else(|| self.expires_in_seconds.map(|seconds| Ttl::After(Duration::from_secs(seconds)))),
            idle: self.idle.map(RequestedIdle::into_core).unwrap_or_default(),
        }
    }
}

impl From<RequirementsRequest> for Requirements {
    fn from(request: RequirementsRequest) -> Self {
        let RequirementsRequest { isolation, persistence, pause, snapshots, disk_quota } = request;
        Self { isolation: isolation.map(Into::into), persistence, pause, snapshots, disk_quota }
    }
}

impl RequestedProvider {
    fn named(self) -> Option<ProviderKind> {
        match self {
            Self::Auto => None,
            Self::Gvisor => Some(ProviderKind::Docker),
            Self::Firecracker => Some(ProviderKind::Firecracker),
            Self::E2b => Some(ProviderKind::E2b),
        }
    }
}

// === impl WaitQuery ===

impl Check for WaitQuery {
    fn check(&self, faults: &mut Faults) {
        faults.range("wait_seconds", self.wait_seconds, 0..=600);
    }
}

impl WaitQuery {
    pub(crate) fn wait(&self) -> Duration {
        Duration::from_secs(self.wait_seconds.unwrap_or(DEFAULT_WAIT))
    }
}

// === impl ListQuery ===

impl Check for ListQuery {
    fn check(&self, faults: &mut Faults) {
        faults.range("limit", self.limit, 1..=PageRequest::MOST);
    }
}

impl ListQuery {
    /// The core's words for it.
    ///
    /// # Errors
    /// A problem that names the part that cannot be read.
    pub(super) fn into_core(self) -> Result<(ListFilter, PageRequest), Refusal> {
        let invalid = |field: &str, message: String| Refusal::of_field(ProblemKind::InvalidValue, field, message);
        let words = self.state.as_deref().map(|text| text.split(',').map(str::trim).filter(|word| !word.is_empty()));
        let states = words
            .into_iter()
            .flatten()
            .map(|word| word.parse::<StateKind>().map_err(|error| invalid("state", error.to_string())))
            .collect::<Result<_, _>>()?;
        let label = match self.label {
            None => None,
            Some(text) => {
                let pair = text.split_once(':').map(|(key, value)| (key.to_owned(), value.to_owned()));
                Some(pair.ok_or_else(|| invalid("label", "write it as key:value".to_owned()))?)
            }
        };
        let cursor = match self.cursor {
            None => None,
            Some(text) => Some(text.parse::<Cursor>().map_err(|error| invalid("cursor", error.to_string()))?),
        };
        let filter = ListFilter {
            states,
            kind: self.container_type.map(Into::into),
            provider: self.provider.map(Into::into),
            name: self.name,
            label,
            include_destroyed: self.include_destroyed,
        };
        Ok((filter, PageRequest { limit: self.limit.unwrap_or(PageRequest::DEFAULT), cursor }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> NewWorkspace {
        serde_json::from_str::<CreateWorkspace>(body).unwrap().into_core()
    }

    #[test]
    fn one_request_may_be_written_in_several_ways() {
        let first =
            read(r#"{"name": "a", "labels": {"b": "1", "a": "2"}, "resource_limits": {"cpu": 1, "memory": "1G"}}"#);
        for same in [
            r#"{"resource_limits": {"memory": 1073741824, "cpu": 1.0}, "labels": {"a": "2", "b": "1"}, "name": "a"}"#,
            r#"{"name": "a", "labels": {"b": "1", "a": "2"}, "resource_limits": {"cpu": 1, "memory": "1024M", "pids": null},
                "provider": "auto", "container_type": "agent_workspace", "environment": {}, "ttl_days": null,
                "requirements": {"persistence": false}, "idle": {}}"#,
        ] {
            assert_eq!(read(same), first, "{same}");
        }
        for other in [
            r#"{"name": "a", "labels": {"b": "2", "a": "1"}, "resource_limits": {"cpu": 1, "memory": "1G"}}"#,
            r#"{"name": "a", "labels": {"b": "1", "a": "2"}, "resource_limits": {"cpu": 1, "memory": "2G"}}"#,
        ] {
            assert_ne!(read(other), first, "{other}");
        }
    }
}
