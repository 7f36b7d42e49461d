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
use utoipa_axum::router::OpenApiRouter;

use crate::{
    audit::{AuditLayer, audit},
    auth::{self, document_sessions},
    docs, forward,
    http::{
        hosts, memory, observe,
        problem::{Problem, ProblemKind, Refusal},
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
                       `/ready` needs a token: `Authorization: Bearer emt_…`. Whatever is not a success is a problem \
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

fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(Document::openapi())
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
    let mut document = routes().into_openapi();
    document_sessions(&mut document);
    document
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
    let audit_layer = AuditLayer::new(state.workspaces().clone(), &document);
    // What a call of a tool through MCP passes: it has come through the other layers already.
    let audited = || middleware::from_fn_with_state(audit_layer.clone(), audit);
    let held = || middleware::from_fn_with_state(state.budget().clone(), memory::account);
    let called = Router::from(routes()).layer(audited()).layer(held()).with_state(state.clone());
    let api = Router::from(routes())
        .route("/api/v1/agent/workspaces/{id}/mcp", tools::mcp::route(called, &document))
        .merge(mcp::routes(&state))
        .route("/", get(docs::root))
        .route("/openapi.json", get(serve_json))
        .route("/docs", get(serve_docs))
        .route("/problems", get(docs::problems))
        .route("/problems/{slug}", get(docs::problem))
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(auth::bind))
        .layer(audited())
        .layer(middleware::from_fn_with_state(state.clone(), forward::route))
        .layer(held())
        .layer(middleware::from_fn_with_state(state.hosts().clone(), hosts::check))
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(middleware::from_fn(observe::observe))
        .with_state(state.clone());
    // Around the whole router, which matches the path that this leaves.
    Ok(Router::new().fallback_service(api).layer(middleware::from_fn_with_state(state, names::resolve)))
}

async fn no_such_route(method: Method, uri: Uri) -> axum::response::Response {
    let detail = format!("there is no {method} {}; /docs and /openapi.json list what there is", uri.path());
    Refusal::new(ProblemKind::NoSuchRoute, detail).into_response()
}

async fn method_not_allowed(method: Method, uri: Uri) -> axum::response::Response {
    let detail = format!("{} does not take {method}; the Allow header names what it takes", uri.path());
    Refusal::new(ProblemKind::MethodNotAllowed, detail).into_response()
}
