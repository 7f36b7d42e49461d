//! The changes of a workspace while it lives.

use std::{collections::BTreeMap, time::Duration};

use axum::{Json, extract::State};
use emergent_core::{Expiry, WorkspaceUpdate};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{idle::RequestedIdle, view::WorkspaceView};
use crate::{
    auth::Caller,
    http::{
        check::{Check, Faults},
        extract::{JsonBody, WorkspacePath},
        problem::{OnWorkspace, Refusal},
    },
    resources::params::WorkspaceParam,
    state::ApiState,
};

const MOST_TTL_DAYS: f64 = 3650.0;
const MOST_TTL_SECONDS: u64 = 3650 * 24 * 60 * 60;

/// The changes of a workspace. A field that is left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateWorkspace {
    /// The workspace's name, up to 128 characters, without `/` and `:`; null takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, pattern = r"^[^/:\x00-\x1f\x7f-\x9f]+$")]
    pub name: Option<Option<String>>,
    /// Labels to set, and, with null, to take away. Others stay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
    /// Days until it may be destroyed, from its creation; 0 for never. What has passed already means at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 3650)]
    pub ttl_days: Option<f64>,
    /// Seconds until it may be destroyed, from now; 0 for at once. Not together with `ttl_days`.
    #[serde(
        default,
        deserialize_with = "emergent_guest_proto::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 0, maximum = 315_360_000)]
    pub expires_in_seconds: Option<u64>,
    /// The policy for a workspace that nobody uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<RequestedIdle>,
}

/// Tells null from a field that is left out.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Changes a workspace: its name, its labels, its end, and what happens when nobody uses it.
///
/// A workspace whose end has come is destroyed by the next look for expired ones, which the server takes every
/// `WORKSPACE_CLEANUP_INTERVAL_MIN` minutes.
#[utoipa::path(
    patch,
    path = "/api/v1/agent/workspaces/{id}",
    tag = "workspaces",
    params(WorkspaceParam),
    request_body = UpdateWorkspace,
    responses((status = 200, description = "The workspace, changed.", body = WorkspaceView), OnWorkspace)
)]
pub(super) async fn update_workspace(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    JsonBody(request): JsonBody<UpdateWorkspace>,
) -> Result<Json<WorkspaceView>, Refusal> {
    Ok(Json(state.workspaces().update(caller.project(), id, request.into_core()).await?.into()))
}

// === impl UpdateWorkspace ===

impl Check for UpdateWorkspace {
    fn check(&self, faults: &mut Faults) {
        faults.range("ttl_days", self.ttl_days, 0.0..=MOST_TTL_DAYS);
        faults.range("expires_in_seconds", self.expires_in_seconds, 0..=MOST_TTL_SECONDS);
        if self.ttl_days.is_some() && self.expires_in_seconds.is_some() {
            faults.add("expires_in_seconds", "give either ttl_days or expires_in_seconds, not both");
        }
        if let Some(idle) = &self.idle {
            idle.check(faults);
        }
    }
}

impl UpdateWorkspace {
    /// The core's words for it. To be called on what was checked.
    fn into_core(self) -> WorkspaceUpdate {
        let from_creation = self.ttl_days.map(|days| {
            if days == 0.0 { Expiry::Never } else { Expiry::FromCreation(Duration::from_secs_f64(days * 86_400.0)) }
        });
        let from_now = self.expires_in_seconds.map(|seconds| Expiry::FromNow(Duration::from_secs(seconds)));
        WorkspaceUpdate {
            name: self.name,
            labels: self.labels,
            expiry: from_creation.or(from_now),
            idle: self.idle.map(RequestedIdle::into_core).unwrap_or_default(),
        }
    }
}
