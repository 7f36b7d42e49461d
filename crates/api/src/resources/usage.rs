//! What a workspace uses now.

use axum::{Json, extract::State};
use emergent_guest_proto::Usage;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::{Caller, NeedsRead},
    extract::WorkspacePath,
    params::WorkspaceParam,
    problem::{OnGuest, Refusal},
    state::ApiState,
};

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(get_usage))
}

/// Tells what a workspace uses now, as it is seen inside.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/usage",
    tag = "workspaces",
    security(("token" = ["admin:read"])),
    params(WorkspaceParam),
    responses((status = 200, description = "CPU, memory, processes and disk.", body = Usage), OnGuest)
)]
async fn get_usage(
    caller: Caller<NeedsRead>,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
) -> Result<Json<Usage>, Refusal> {
    Ok(Json(state.workspaces().guest(caller.project(), id).await?.usage().await?))
}
