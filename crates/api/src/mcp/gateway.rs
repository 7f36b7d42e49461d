//! `/mcp`: all hosted servers that a token may use, as one MCP server.
//!
//! What goes to a server is a request to that server's own endpoint with the caller's token: who may use what, and
//! which server of the installation hosts it, is decided there. Each token has a bridge of its own, so that nothing of
//! one caller's is in another's reach.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts as _, Request},
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, any},
};
use bytes::Bytes;
use emergent_budget::Account;
use emergent_mcp::{
    Bridge, BridgeConfig, Catalogues, Era, Gateway, LINE_LIMIT, SessionOwner, Upstream, UpstreamBody, Upstreams,
};
use emergent_mcp_hosting::HostingError;
use emergent_store::{McpAllowList, ProjectId, TokenId};
use http_body_util::{BodyExt as _, Limited};
use serde_json::value::RawValue;
use tokio::sync::{OnceCell, watch};
use tower::ServiceExt as _;

use super::{Allowed, base_of, challenge, check_origin};
use crate::{
    auth::{Caller, NeedsMcp},
    observe::Verbatim,
    problem::{ProblemKind, Refusal},
    rates::Counted,
    resources::mcp_servers::{request::McpCall, view::McpAnswer},
    state::ApiState,
};

/// The path of the endpoint.
pub(crate) const PATH: &str = "/mcp";
/// How long sessions at the servers may take to end when a gateway does.
const GRACE: Duration = Duration::from_secs(5);
/// How long a warm process of a server may take to list what it offers, in milliseconds.
const WARM_MS: u64 = 10_000;
/// How long a project's list of servers is taken for the truth while this process knows of no change.
const FRESH: Duration = Duration::from_secs(1);
/// The most gateways that are kept, each for one token. One more takes the place of one of the project that has most.
const MOST: usize = 1_000;

/// The gateways of those tokens that have used one lately.
#[derive(Default)]
pub(super) struct Gateways(Mutex<HashMap<ProjectId, OfProject>>);

#[derive(Default)]
struct OfProject {
    tokens: HashMap<TokenId, Arc<OfToken>>,
    /// The offers of the project's servers, whichever token has found them.
    catalogues: Arc<Catalogues>,
    listing: Arc<Listing>,
}

/// The servers of a project as its clients last saw them. All clients of a project share it, so that however many they
/// are, a change costs the store one query.
#[derive(Default)]
struct Listing(tokio::sync::Mutex<Option<Listed>>);

struct Listed {
    /// The count of changes before the query.
    changes: u64,
    at: Instant,
    servers: Vec<Upstream>,
}

struct OfToken {
    bridge: OnceCell<Bridge>,
    servers: Arc<Servers>,
    catalogues: Arc<Catalogues>,
    used: Mutex<Instant>,
}

/// The servers as one token may use them.
struct Servers {
    state: ApiState,
    /// The endpoints of the servers.
    endpoints: Router,
    project: ProjectId,
    listing: Arc<Listing>,
    allowed: Option<McpAllowList>,
    /// What the token is sent as; another after it was rotated.
    authorization: Mutex<HeaderValue>,
}

/// The endpoint, over the endpoints of the servers.
pub(super) fn route(gateways: Arc<Gateways>, endpoints: Router, state: ApiState) -> MethodRouter<ApiState> {
    any(move |request: Request| {
        let (gateways, endpoints, state) = (Arc::clone(&gateways), endpoints.clone(), state.clone());
        async move { answer(&gateways, endpoints, &state, request).await }
    })
}

async fn answer(gateways: &Gateways, endpoints: Router, state: &ApiState, request: Request) -> Response {
    let base = base_of(request.headers(), state);
    let (mut parts, body) = request.into_parts();
    let caller = match Caller::<NeedsMcp>::from_request_parts(&mut parts, state).await {
        Ok(caller) => caller,
        Err(refusal) => return challenge(refusal, &base, PATH),
    };
    let answered = async {
        check_origin(&parts.headers, state)?;
        if !state.hosting().config().enabled {
            return Err(HostingError::Disabled.into());
        }
        let Some(authorization) = parts.headers.remove(header::AUTHORIZATION) else {
            return Err(Refusal::new(ProblemKind::Unauthorized, "there is no Authorization header"));
        };
        let of_token = gateways.of(&caller, authorization, endpoints, state);
        let bridge = of_token.bridge(state).await?;
        parts.extensions.insert(SessionOwner(caller.token_id().to_string().into()));
        Ok(bridge.handle(Request::from_parts(parts, body)).await)
    };
    match answered.await {
        Ok(mut response) => {
            response.extensions_mut().insert(Verbatim);
            response.map(Body::new)
        }
        Err(refusal) => refusal.into_response(),
    }
}

// === impl Gateways ===

impl Gateways {
    /// The caller's, which is made if there is none. Those that nobody has used for long make room.
    fn of(
        &self,
        caller: &Caller<NeedsMcp>,
        authorization: HeaderValue,
        endpoints: Router,
        state: &ApiState,
    ) -> Arc<OfToken> {
        let (project, token) = (caller.project(), caller.token_id());
        let mut all = lock(&self.0);
        if let Some(known) = all.get(&project).and_then(|of_project| of_project.tokens.get(&token)) {
            *lock(&known.used) = Instant::now();
            *lock(&known.servers.authorization) = authorization;
            return Arc::clone(known);
        }
        let idle_after = state.hosting().config().idle_after;
        let mut gone: Vec<Arc<OfToken>> = Vec::new();
        for of_project in all.values_mut() {
            gone.extend(of_project.tokens.extract_if(|_, it| it.is_unused(idle_after)).map(|(_, it)| it));
        }
        let of_project = all.entry(project).or_default();
        let catalogues = Arc::clone(&of_project.catalogues);
        let servers = Servers {
            state: state.clone(),
            endpoints,
            project,
            listing: Arc::clone(&of_project.listing),
            allowed: caller.mcp().cloned(),
            authorization: Mutex::new(authorization),
        };
        let made = OfToken {
            bridge: OnceCell::new(),
            servers: Arc::new(servers),
            catalogues,
            used: Mutex::new(Instant::now()),
        };
        let made = Arc::new(made);
        of_project.tokens.insert(token, Arc::clone(&made));
        if all.values().map(|of_project| of_project.tokens.len()).sum::<usize>() > MOST {
            // Where several have as many, the newcomer's own gives one up.
            let largest = all.iter_mut().max_by_key(|(id, of_project)| (of_project.tokens.len(), **id == project));
            gone.extend(largest.and_then(|(_, of_project)| of_project.take_longest_unused(token)));
        }
        all.retain(|_, of_project| !of_project.tokens.is_empty());
        drop(all);
        for gone in gone {
            tokio::spawn(async move { gone.end().await });
        }
        made
    }

    /// Ends a token's gateway with all that is open through it. One that comes with a new secret begins anew.
    pub(super) async fn end(&self, token: TokenId) {
        let gone = lock(&self.0).values_mut().find_map(|of_project| of_project.tokens.remove(&token));
        if let Some(gone) = gone {
            gone.end().await;
        }
    }
}

// === impl OfProject ===

impl OfProject {
    /// Takes out the gateway that was unused for the longest time, but for the newest one.
    fn take_longest_unused(&mut self, newest: TokenId) -> Option<Arc<OfToken>> {
        let others = self.tokens.iter().filter(|(id, _)| **id != newest);
        let (_, id) = others.map(|(id, it)| (*lock(&it.used), *id)).min()?;
        self.tokens.remove(&id)
    }
}

// === impl OfToken ===

impl OfToken {
    async fn bridge(&self, state: &ApiState) -> Result<&Bridge, Refusal> {
        let hosting = state.hosting().config();
        // A gateway knows both eras, and whoever calls has come through the checks of hosts and origins.
        let config = BridgeConfig {
            max_sessions: hosting.max_sessions,
            idle_after: hosting.idle_after,
            body_limit: hosting.body_limit,
            grace: GRACE,
            allowed_hosts: None,
            allowed_origins: None,
            era: Some(Era::Modern),
            account: self.servers.account(),
            ..BridgeConfig::default()
        };
        let servers: Arc<dyn Upstreams> = Arc::clone(&self.servers) as _;
        let start = || Bridge::start(Arc::new(Gateway::new(servers, Arc::clone(&self.catalogues))), config);
        let started = self.bridge.get_or_try_init(start).await;
        started.map_err(|error| Refusal::new(ProblemKind::Internal, error.to_string()))
    }

    fn is_unused(&self, idle_after: Duration) -> bool {
        let sessions = self.bridge.get().map_or(0, |bridge| bridge.status().sessions);
        sessions == 0 && lock(&self.used).elapsed() > idle_after
    }

    async fn end(&self) {
        if let Some(bridge) = self.bridge.get() {
            bridge.shut_down(GRACE).await;
        }
    }
}

// === impl Listing ===

impl Listing {
    /// The project's servers: as they were a moment ago if none has changed since, and as they were last where the store
    /// does not answer.
    async fn read(&self, state: &ApiState, project: ProjectId) -> Vec<Upstream> {
        let mut listed = self.0.lock().await;
        let changes = *state.hosting().changes().borrow();
        if let Some(known) = listed.as_ref().filter(|known| known.changes == changes && known.at.elapsed() < FRESH) {
            return known.servers.clone();
        }
        let servers = match state.hosting().upstreams(project).await {
            Ok(servers) => servers,
            Err(error) => {
                tracing::warn!(%error, "the MCP servers of a project could not be listed");
                listed.take().map(|known| known.servers).unwrap_or_default()
            }
        };
        *listed = Some(Listed { changes, at: Instant::now(), servers: servers.clone() });
        servers
    }
}

// === impl Servers ===

#[async_trait]
impl Upstreams for Servers {
    async fn list(&self) -> Vec<Upstream> {
        let servers = self.listing.read(&self.state, self.project).await;
        servers.into_iter().filter(|server| self.of(&server.name).is_some()).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.state.hosting().changes()
    }

    fn allows_tool(&self, server: &str, tool: &str) -> bool {
        self.of(server).is_some_and(|allowed| allowed.has_tool(tool))
    }

    fn allows_all_of(&self, server: &str) -> bool {
        self.of(server).is_some_and(Allowed::is_all)
    }

    async fn ask(&self, server: &str, request: axum::http::Request<Bytes>) -> axum::http::Response<UpstreamBody> {
        self.pass_on(server, "mcp", request).await.map(boxed)
    }

    async fn list_warm(&self, server: &str, method: &str, params: &str) -> Option<Box<RawValue>> {
        let params: &RawValue = serde_json::from_str(params).ok()?;
        let call = McpCall { method: method.to_owned(), params: Some(params.to_owned()), timeout_ms: Some(WARM_MS) };
        let request = Request::post("/").header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Bytes::from(serde_json::to_vec(&call).ok()?)).ok()?;
        let answer = self.pass_on(server, "call", request).await;
        if !answer.status().is_success() {
            return None;
        }
        let body = Limited::new(answer.into_body(), LINE_LIMIT + 1024).collect().await.ok()?;
        let McpAnswer { result, .. } = serde_json::from_slice(&body.to_bytes()).ok()?;
        Some(result.unwrap_or_else(|| RawValue::NULL.to_owned()))
    }

    fn account(&self) -> Option<Account> {
        let account = self.state.budget().account();
        account.belongs_to(self.project.as_uuid().as_u128());
        Some(account)
    }
}

impl Servers {
    /// Passes a request on to a route of one server.
    async fn pass_on(&self, server: &str, route: &str, request: axum::http::Request<Bytes>) -> Response {
        let mut request = request.map(Body::from);
        // A server's name needs no escape, and what is no name leads nowhere.
        match format!("/api/v1/mcp/servers/{server}/{route}").parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(_) => return Refusal::from(HostingError::NotFound).into_response(),
        }
        request.headers_mut().insert(header::AUTHORIZATION, lock(&self.authorization).clone());
        request.extensions_mut().insert(Counted);
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
        self.endpoints.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    }

    fn of<'a>(&'a self, server: &'a str) -> Option<Allowed<'a>> {
        Allowed::of(self.allowed.as_ref(), server).ok()
    }
}

fn boxed(body: Body) -> UpstreamBody {
    body.map_err(Into::into).boxed_unsync()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
