//! The servers that share the database, and whether this one takes new workspaces.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use emergent_core::{ServerId, ServerRow};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::{
    auth::Caller,
    http::{
        problem::{ProblemKind, Refusal, Usual},
        route::{READ, Routes, WRITE, of_project},
    },
    state::ApiState,
};

/// A server.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServerView {
    /// The server's id, here and in the labels of the sandboxes that it made.
    pub id: Uuid,
    /// A display name.
    pub name: Option<String>,
    /// The URL at which the other servers reach it (`EMERGENT_ADVERTISE_URL`).
    pub url: Option<String>,
    /// Whether this is the server that answers.
    pub this: bool,
    /// Whether the server renewed its lease in the last 30 s.
    pub alive: bool,
    /// Whether the server refuses new workspaces.
    pub draining: bool,
    /// The time at which the server first started.
    pub created_at: DateTime<Utc>,
}

/// The servers that share the database.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServerList {
    /// The servers, the oldest first, dead ones too.
    pub items: Vec<ServerView>,
}

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(list_servers), of_project(READ))
        .operation(routes!(drain), of_project(WRITE))
        .operation(routes!(undrain), of_project(WRITE))
}

/// Lists the servers that share the database. Needs an administrator's token.
#[utoipa::path(
    get,
    path = "/api/v1/admin/servers",
    tag = "server",
    responses((status = 200, description = "The servers.", body = ServerList), Usual)
)]
async fn list_servers(caller: Caller, State(state): State<ApiState>) -> Result<Json<ServerList>, Refusal> {
    caller.require_administrator()?;
    let this = state.workspaces().servers().id();
    let servers = state.workspaces().servers().list().await?;
    Ok(Json(ServerList { items: servers.into_iter().map(|server| view(server, this)).collect() }))
}

/// Makes the server that answers refuse new workspaces, for maintenance. Its workspaces go on. Needs an
/// administrator's token.
#[utoipa::path(
    post,
    path = "/api/v1/admin/drain",
    tag = "server",
    responses((status = 200, description = "The server, draining.", body = ServerView), Usual)
)]
async fn drain(caller: Caller, State(state): State<ApiState>) -> Result<Json<ServerView>, Refusal> {
    switch(&caller, &state, true).await
}

/// Makes the server that answers accept new workspaces again. Needs an administrator's token.
#[utoipa::path(
    delete,
    path = "/api/v1/admin/drain",
    tag = "server",
    responses((status = 200, description = "The server, no longer draining.", body = ServerView), Usual)
)]
async fn undrain(caller: Caller, State(state): State<ApiState>) -> Result<Json<ServerView>, Refusal> {
    switch(&caller, &state, false).await
}

async fn switch(caller: &Caller, state: &ApiState, draining: bool) -> Result<Json<ServerView>, Refusal> {
    caller.require_administrator()?;
    state.workspaces().servers().set_draining(draining).await?;
    let this = state.workspaces().servers().id();
    let mut servers = state.workspaces().servers().list().await?.into_iter();
    let server = servers.find(|server| server.id == this);
    server.map(|server| Json(view(server, this))).ok_or_else(|| {
        Refusal::new(ProblemKind::Internal, "the server's own row is missing; start it again to have it made anew")
    })
}

fn view(server: ServerRow, this: ServerId) -> ServerView {
    ServerView {
        id: server.id.as_uuid(),
        name: server.name,
        url: server.url,
        this: server.id == this,
        alive: server.alive,
        draining: server.draining,
        created_at: server.created_at,
    }
}
