//! `/mcp`: all hosted servers that a token may use, as one MCP server.
//!
//! A request for a hosted server goes to that server's own endpoint with the caller's token. That endpoint decides who
//! may use the server and its tools, and which server of the installation hosts it. Each token has a bridge of its own,
//! so that nothing of one caller's is in another's reach.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
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
use emergent_budget::{Account, Limits};
use emergent_mcp::{
    Bridge, BridgeConfig, Catalogues, Era, Gateway, LINE_LIMIT, SessionLimit, SessionOwner, Upstream, UpstreamBody,
    Upstreams,
};
use emergent_mcp_hosting::HostingError;
use emergent_store::{McpAllowList, ProjectId, TokenId};
use http_body_util::BodyExt as _;
use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{OnceCell, watch},
    task::AbortHandle,
    time::timeout,
};
use tower::ServiceExt as _;

use super::{base_of, challenge, check_origin};
use crate::{
    auth::{Allowed, Caller},
    http::{
        observe::Verbatim,
        problem::{ProblemKind, Refusal},
        rates::Counted,
    },
    resources::mcp_servers::request::McpCall,
    state::ApiState,
};

/// The path of the endpoint.
pub(crate) const PATH: &str = "/mcp";
/// The time that sessions at the servers may take to end when a gateway does.
const GRACE: Duration = Duration::from_secs(5);
/// The time that a warm process of a server may take to list what it offers, in milliseconds.
const WARM_MS: u64 = 10_000;
/// The number of bytes that an answer to a plain call may have beside its result.
const AROUND_RESULT: usize = 1024;
/// The time for which a project's list of servers is taken for the truth while this process knows of no change.
const FRESH: Duration = Duration::from_secs(1);
/// The interval at which the servers of a project are listed again, though nobody has told of a change: other servers
/// of the installation do not.
const LOOK: Duration = Duration::from_secs(15);
/// The most gateways that are kept, each for one token. One more takes the place of one of the project that has most.
const MOST: usize = 1_000;
/// The most sessions that a project's tokens have together.
const MOST_SESSIONS: usize = 512;

/// The gateways of those tokens that have used one lately.
#[derive(Default)]
pub(super) struct Gateways(Mutex<HashMap<ProjectId, OfProject>>);

struct OfProject {
    tokens: HashMap<TokenId, Arc<OfToken>>,
    sessions: SessionLimit,
    /// The offers of the project's servers, whichever token has found them.
    catalogues: Arc<Catalogues>,
    servers: Arc<ProjectServers>,
}

/// The servers of a project, watched by one task for all of its clients: however many these are, a change costs the
/// store one query.
struct ProjectServers {
    state: ApiState,
    project: ProjectId,
    /// The count of changes that this process knows of.
    told: watch::Receiver<u64>,
    listing: Listing,
    watching: AbortHandle,
}

/// A list of servers as it was last read.
#[derive(Default)]
struct Listing {
    listed: tokio::sync::Mutex<Option<Listed>>,
    /// A counter that changes when the list was found to be another one.
    changes: watch::Sender<u64>,
}

struct Listed {
    /// The count of changes that were told before the query.
    told: u64,
    at: Instant,
    servers: Vec<Upstream>,
}

struct OfToken {
    bridge: OnceCell<Bridge>,
    sessions: SessionLimit,
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
    of_project: Arc<ProjectServers>,
    allowed: Option<McpAllowList>,
    /// The `Authorization` header of the token's latest request; another after the token was rotated.
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
    let caller = match Caller::from_request_parts(&mut parts, state).await {
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
    fn of(&self, caller: &Caller, authorization: HeaderValue, endpoints: Router, state: &ApiState) -> Arc<OfToken> {
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
        let of_project = all.entry(project).or_insert_with(|| OfProject::new(state, project));
        let catalogues = Arc::clone(&of_project.catalogues);
        let servers = Servers {
            state: state.clone(),
            endpoints,
            project,
            of_project: Arc::clone(&of_project.servers),
            allowed: caller.mcp().cloned(),
            authorization: Mutex::new(authorization),
        };
        let made = OfToken {
            bridge: OnceCell::new(),
            sessions: of_project.sessions.clone(),
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
    fn new(state: &ApiState, project: ProjectId) -> Self {
        Self {
            tokens: HashMap::new(),
            sessions: SessionLimit::new(MOST_SESSIONS),
            catalogues: Arc::default(),
            servers: ProjectServers::watched(state, project),
        }
    }

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
            together: self.sessions.clone(),
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

// === impl ProjectServers ===

impl ProjectServers {
    /// Watches the servers of a project for as long as anybody has the outcome.
    fn watched(state: &ApiState, project: ProjectId) -> Arc<Self> {
        let told = state.hosting().changes(project);
        Arc::new_cyclic(|servers| {
            let watching = tokio::spawn(watch(Weak::clone(servers), told.clone())).abort_handle();
            Self { state: state.clone(), project, told, listing: Listing::default(), watching }
        })
    }

    async fn read(&self) -> Vec<Upstream> {
        let told = *self.told.borrow();
        self.listing.read(told, || self.state.hosting().upstreams(self.project)).await
    }
}

impl Drop for ProjectServers {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

// === impl Listing ===

impl Listing {
    /// The servers: as they were a moment ago if no change was told since, and as they were last where the store does
    /// not answer.
    async fn read<F>(&self, told: u64, query: impl FnOnce() -> F) -> Vec<Upstream>
    where
        F: Future<Output = Result<Vec<Upstream>, HostingError>>,
    {
        let mut listed = self.listed.lock().await;
        if let Some(known) = listed.as_ref().filter(|known| known.told >= told && known.at.elapsed() < FRESH) {
            return known.servers.clone();
        }
        let before = listed.as_ref().map(|known| &known.servers);
        let servers = match query().await {
            Ok(servers) => servers,
            Err(error) => {
                tracing::warn!(%error, "the MCP servers of a project could not be listed");
                before.cloned().unwrap_or_default()
            }
        };
        let is_another = before.is_some_and(|before| *before != servers);
        *listed = Some(Listed { told, at: Instant::now(), servers: servers.clone() });
        if is_another {
            self.changes.send_modify(|count| *count += 1);
        }
        servers
    }
}

// === impl Servers ===

#[async_trait]
impl Upstreams for Servers {
    async fn list(&self) -> Vec<Upstream> {
        let servers = self.of_project.read().await;
        servers.into_iter().filter(|server| self.of(&server.name).is_some()).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.of_project.listing.changes.subscribe()
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

    async fn list_warm(&self, server: &str, method: &str, params: &str) -> Option<Bytes> {
        let params: &RawValue = serde_json::from_str(params).ok()?;
        let call = McpCall { method: method.to_owned(), params: Some(params.to_owned()), timeout_ms: Some(WARM_MS) };
        let request = Request::post("/").header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Bytes::from(serde_json::to_vec(&call).ok()?)).ok()?;
        let answer = self.pass_on(server, "call", request).await;
        result_of(answer, self.new_account()).await
    }

    fn account(&self) -> Option<Account> {
        Some(self.new_account())
    }
}

impl Servers {
    fn new_account(&self) -> Account {
        let account = self.state.budget().account();
        account.belongs_to(self.project.as_uuid().as_u128());
        account
    }

    /// Passes a request on to a route of one server. It counts as a call of the project's: one message of a client may
    /// become many.
    async fn pass_on(&self, server: &str, route: &str, request: axum::http::Request<Bytes>) -> Response {
        if let Err(refusal) = self.state.rates().admit(self.project) {
            return refusal.into_response();
        }
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

/// Lists a project's servers again whenever this process knows of a change, and now and then, while clients wait to be
/// told.
async fn watch(servers: Weak<ProjectServers>, mut told: watch::Receiver<u64>) {
    while !matches!(timeout(LOOK, told.changed()).await, Ok(Err(_))) {
        let Some(servers) = servers.upgrade() else { return };
        if servers.listing.changes.receiver_count() > 0 {
            servers.read().await;
        }
    }
}

/// The result in the answer to a plain call, held on an account for as long as any part of it is there. `None` where
/// the call has none, or it cannot be held.
async fn result_of(answer: Response, account: Account) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow, default)]
        result: Option<&'a RawValue>,
    }
    if !answer.status().is_success() {
        return None;
    }
    let reading = emergent_budget::read(answer.into_body(), Limits::bytes(LINE_LIMIT + AROUND_RESULT), None);
    let whole = account.clone().scope(reading).await.ok()?;
    let whole = account.keep(whole);
    let Answer { result } = serde_json::from_slice(&whole).ok()?;
    Some(result.map_or(Bytes::from_static(b"null"), |result| whole.slice_ref(result.get().as_bytes())))
}

fn boxed(body: Body) -> UpstreamBody {
    body.map_err(Into::into).boxed_unsync()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use emergent_budget::{Budget, SMALL};
    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn however_many_ask_for_a_list_a_change_costs_one_query_and_is_told_once() {
        let (listing, queries) = (Listing::default(), AtomicUsize::new(0));
        let mut changes = listing.changes.subscribe();
        let all = async |told: u64, name: &str| {
            let query = || async {
                queries.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(vec![Upstream { name: name.to_owned(), version: "1".to_owned(), trouble: None }])
            };
            let lists = join_all((0..500).map(|_| listing.read(told, query))).await;
            assert!(lists.iter().all(|list| list[0].name == name), "{lists:?}");
            queries.swap(0, Ordering::Relaxed)
        };
        // On a slow machine a list may grow old meanwhile.
        let at_most = |began: Instant| 1 + began.elapsed().as_millis() / FRESH.as_millis();
        for (told, name, is_another) in [(0, "a", false), (1, "a", false), (2, "b", true), (2, "b", false)] {
            let began = Instant::now();
            let queried = all(told, name).await;
            assert!(queried as u128 <= at_most(began), "{queried} queries");
            assert_eq!(changes.has_changed().unwrap(), is_another, "{told}");
            changes.mark_unchanged();
        }
    }

    #[tokio::test]
    async fn a_list_of_a_warm_process_is_held_for_as_long_as_any_part_of_it_is_there() {
        let budget = Budget::undivided(16 << 20);
        let list = format!(r#"{{"tools":["{}"]}}"#, "x".repeat(1 << 20));
        let result = result_of(Response::new(format!(r#"{{"result":{list}}}"#).into()), budget.account()).await;
        let result = result.unwrap();
        assert_eq!(result, list);
        assert!(budget.held() >= list.len(), "{}", budget.held());
        drop(result);
        assert_eq!(budget.held(), 0);

        let nothing = result_of(Response::new(r#"{"result":null}"#.into()), budget.account()).await;
        assert_eq!(nothing.unwrap(), "null");
        let small = Budget::undivided(SMALL);
        assert!(result_of(Response::new(format!(r#"{{"result":{list}}}"#).into()), small.account()).await.is_none());
        assert_eq!((budget.held(), small.held()), (0, 0));
    }
}
