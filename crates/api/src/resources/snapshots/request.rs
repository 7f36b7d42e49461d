//! The requests that take or list snapshots, or copy workspaces.

use std::collections::BTreeMap;

use emergent_core::{Cursor, NewForks, NewSnapshot, PageRequest, SnapshotFilter};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::view::SnapshotState;
use crate::{
    http::{
        check::{Check, Faults},
        problem::{ProblemKind, Refusal},
    },
    resources::workspaces::{
        request::{CreateWorkspace, RequestedLimits},
        view::Network,
    },
};

/// A snapshot to take. Everything may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// For people; up to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128)]
    pub name: Option<String>,
    /// For people and programs; up to 64, keys up to 63 characters, values up to 256. Left out: the workspace's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Copies to make of a workspace. What is left out is as it is in the workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForkWorkspace {
    /// How many; 1 when left out.
    #[serde(default = "one", deserialize_with = "emergent_guest_proto::whole::number")]
    #[schema(minimum = 1, maximum = 32, default = 1)]
    pub count: u32,
    /// For people. Several copies have their numbers after it; left out, they have them after the workspace's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 120, pattern = r"^[^/:\x00-\x1f\x7f-\x9f]+$")]
    pub name: Option<String>,
    /// For people and programs, in place of the workspace's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The resources that each copy may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_limits: Option<RequestedLimits>,
    /// The network that the copies may reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Variables besides those that the workspace has, or in their place.
    #[serde(default, alias = "env", skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Let calls run commands as root inside (`"user": "root"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_root: Option<bool>,
    /// Days until they may be destroyed, from their creation; 0 for never. Left out: the server's default.
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
}

/// The snapshots to list.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListSnapshotsQuery {
    /// How many at most; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// In this state.
    state: Option<SnapshotState>,
    /// Of this workspace.
    workspace_id: Option<Uuid>,
    /// With exactly this name.
    name: Option<String>,
    /// With this label: `label=key:value`.
    label: Option<String>,
}

fn one() -> u32 {
    1
}

// === impl CreateSnapshot ===

impl Check for CreateSnapshot {
    fn check(&self, _: &mut Faults) {}
}

impl CreateSnapshot {
    /// The core's words for it.
    pub(super) fn into_core(self) -> NewSnapshot {
        NewSnapshot { name: self.name, labels: self.labels }
    }
}

// === impl ForkWorkspace ===

impl Default for ForkWorkspace {
    fn default() -> Self {
        Self {
            count: one(),
            name: None,
            labels: BTreeMap::new(),
            resource_limits: None,
            network: None,
            environment: BTreeMap::new(),
            allow_root: None,
            ttl_days: None,
            expires_in_seconds: None,
        }
    }
}

impl Check for ForkWorkspace {
    fn check(&self, faults: &mut Faults) {
        faults.range("count", Some(self.count), 1..=NewForks::MOST);
        if self.name.as_deref().is_some_and(|name| name.chars().count() > 120) {
            faults.add("name", "it takes 1 to 120 characters");
        }
        self.as_create().check(faults);
    }
}

impl ForkWorkspace {
    /// The core's words for it. To be called on what was checked.
    pub(super) fn into_core(self) -> NewForks {
        NewForks { count: self.count, request: self.as_create().into_core() }
    }

    /// One of the copies, as if it were asked for by itself.
    fn as_create(&self) -> CreateWorkspace {
        CreateWorkspace {
            name: self.name.clone(),
            labels: self.labels.clone(),
            resource_limits: self.resource_limits.clone(),
            network: self.network,
            environment: self.environment.clone(),
            allow_root: self.allow_root,
            ttl_days: self.ttl_days,
            expires_in_seconds: self.expires_in_seconds,
            ..CreateWorkspace::default()
        }
    }
}

// === impl ListSnapshotsQuery ===

impl Check for ListSnapshotsQuery {
    fn check(&self, faults: &mut Faults) {
        faults.range("limit", self.limit, 1..=PageRequest::MOST);
    }
}

impl ListSnapshotsQuery {
    /// The core's words for it.
    ///
    /// # Errors
    /// A problem that names the part that cannot be read.
    pub(super) fn into_core(self) -> Result<(SnapshotFilter, PageRequest), Refusal> {
        let invalid = |field: &str, message: &str| Refusal::of_field(ProblemKind::InvalidValue, field, message);
        let pair = |text: &str| text.split_once(':').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let label =
            self.label.as_deref().map(|text| pair(text).ok_or_else(|| invalid("label", "write it as key:value")));
        let cursor = self
            .cursor
            .as_deref()
            .map(|text| text.parse::<Cursor>().map_err(|error| invalid("cursor", &error.to_string())));
        let filter = SnapshotFilter {
            state: self.state.map(Into::into),
            workspace: self.workspace_id.map(Into::into),
            name: self.name,
            label: label.transpose()?,
        };
        let page = PageRequest { limit: self.limit.unwrap_or(PageRequest::DEFAULT), cursor: cursor.transpose()? };
        Ok((filter, page))
    }
}
