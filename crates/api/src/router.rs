//! All routes, and the OpenAPI document that follows from them.

use axum::{
    Router,
    body::Bytes,
    http::{Method, Uri, header},
    middleware,
    response::IntoResponse as _,
    routing::get,
};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::{
    Modify, OpenApi as _,
    openapi::{
        OpenApi,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::{
    audit::audit,
    auth, docs, forward,
    http::{
        hosts, memory, observe,
        problem::{Problem, ProblemKind, Refusal},
        route::{READ, Routes, describe, of_workspace, public},
    },
    mcp, names,
    resources::{
        self, calls, files, health, leftovers, mcp_servers, processes, projects, providers, servers, snapshots, tokens,
        tools, usage, workspaces,
    },
    state::ApiState,
};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Emergent Workspaces",
        description = "Isolated workspaces for AI agents, with fast, structured tools.\n\nEvery call but `/health` and \
                       `/ready` needs a token: `Authorization: Bearer emt_…`, or `X-API-KEY: emt_…`. \
                       Whatever is not a success is a problem \
                       (RFC 9457, `application/problem+json`) whose `type` is stable and whose `detail` says what to \
                       do next. Every answer has an `x-request-id`, under which the server's log has it.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(Problem)),
    tags(
        (name = "workspaces", description = "Isolated environments and their states."),
        (name = "snapshots", description = "Copies of a workspace's state, and workspaces made from them."),
        (name = "tools", description = "What an agent does in a workspace."),
        (name = "processes", description = "Executions that outlive the caller's connection."),
        (name = "files", description = "Raw files of any size and kind."),
        (name = "mcp", description = "Hosted MCP servers. Each is an MCP endpoint (Streamable HTTP) at `/api/v1/mcp/servers/{id}/mcp`, and `/mcp` is one for all of them."),
        (name = "audit", description = "What was done, by whom, and how it ended."),
        (name = "projects", description = "How much each project may have."),
        (name = "providers", description = "Ways of making workspaces."),
        (name = "tokens", description = "Who may call."),
        (name = "server", description = "How the server is."),
    ),
    modifiers(&BearerToken),
)]
struct Document;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("emt_ and 43 characters")
            .description(Some("A token of this server, made with `emergent token create` or `POST /api/v1/tokens`."))
            .build();
        document.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

fn routes() -> Routes<ApiState> {
    Routes::documented_by(Document::openapi())
        .merge(workspaces::routes())
        .merge(workspaces::sessions::routes())
        .merge(snapshots::routes())
        .merge(providers::routes())
        .merge(tools::routes())
        .merge(calls::routes())
        .merge(processes::routes())
        .merge(files::routes())
        .merge(usage::routes())
        .merge(resources::audit::routes())
        .merge(projects::routes())
        .merge(tokens::routes())
        .merge(servers::routes())
        .merge(leftovers::routes())
        .merge(mcp_servers::routes())
        .merge(health::routes())
}

/// The OpenAPI document of this release.
pub fn openapi() -> OpenApi {
    routes().into_document()
}

/// The OpenAPI document as it is committed and served: indented JSON.
///
/// # Errors
/// When the document cannot be written as JSON, which is a defect.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    indented(&openapi())
}

fn indented(document: &OpenApi) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(document).map(|json| json + "\n")
}

/// The whole API as a service.
///
/// # Errors
/// When the OpenAPI document cannot be written as JSON, which is a defect.
pub fn router(state: ApiState) -> Result<Router, serde_json::Error> {
    let document = openapi();
    // The same bytes for all who ask: they need no token, so what each of them holds is on nobody's account.
    let json = Bytes::from(indented(&document)?);
    let docs = Bytes::from(docs::docs(&serde_json::from_slice(&json)?).into_string());
    let serve_json = move || async move { ([(header::CONTENT_TYPE, "application/json")], json) };
    let serve_docs = move || async move { docs::html(docs) };
    // What a call of a tool through MCP passes: it has come through the other layers already.
    let audited = || middleware::from_fn_with_state(state.workspaces().clone(), audit);
    let held = || middleware::from_fn_with_state(state.budget().clone(), memory::account);
    let (called, metadata) = routes().into_parts();
    let called = called
        .layer(audited())
        .layer(held())
        .layer(middleware::from_fn_with_state(metadata, describe))
        .with_state(state.clone());
    let (api, metadata) = routes()
        .undocumented("/api/v1/agent/workspaces/{id}/mcp", tools::mcp::route(called, &document), of_workspace(READ))
        .merge(mcp::routes(&state))
        .undocumented("/", get(docs::root), public())
        .undocumented("/openapi.json", get(serve_json), public())
        .undocumented("/docs", get(serve_docs), public())
        .undocumented("/problems", get(docs::problems), public())
        .undocumented("/problems/{slug}", get(docs::problem), public())
        .into_parts();
    let api = api
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(auth::bind))
        .layer(audited())
        .layer(middleware::from_fn_with_state(state.clone(), forward::route))
        .layer(held())
        .layer(middleware::from_fn_with_state(metadata, describe))
        .layer(middleware::from_fn_with_state(state.hosts().clone(), hosts::check))
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(middleware::from_fn(observe::observe))
        .with_state(state.clone());
    // Around the whole router, which matches the path that this leaves.
    let named = Router::new().fallback_service(api).layer(middleware::from_fn_with_state(state, names::resolve));
    Ok(named.layer(middleware::from_fn(auth::accept)))
}

async fn no_such_route(method: Method, uri: Uri) -> axum::response::Response {
    let detail = format!("there is no {method} {}; /docs and /openapi.json list what there is", uri.path());
    Refusal::new(ProblemKind::NoSuchRoute, detail).into_response()
}

async fn method_not_allowed(method: Method, uri: Uri) -> axum::response::Response {
    let detail = format!("{} does not take {method}; the Allow header names what it takes", uri.path());
    Refusal::new(ProblemKind::MethodNotAllowed, detail).into_response()
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    /// A new operation, and every change of who may call, which server answers, what sessions hold back and what the
    /// audit records, shows in the diff of one file.
    #[test]
    fn the_committed_table_of_routes_is_the_codes() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/router/routes.txt");
        let table = routes().table().to_string();
        if env::var_os("UPDATE_SNAPSHOTS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &table).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == table, "src/router/routes.txt is stale; look at the change, then set UPDATE_SNAPSHOTS=1");
    }
}
