//! A whole API, in memory but for its store.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use emergent_api::{
    ApiParts, ApiState, Hosts, Peers,
    http::{problem::Problem, rates::RateLimit},
};
use emergent_auth::TokenSecret;
use emergent_budget::Budget;
use emergent_core::{CoreConfig, Readiness, SnapshotId, WorkspaceId, Workspaces};
use emergent_mcp_hosting::{Hosting, HostingConfig};
use emergent_provider::{ContainerKind, ProviderKind};
use emergent_store::{
    Admission, DatabaseUrl, Grants, NewSnapshotRow, NewToken, Scope, Store, WorkspaceRow, WorkspaceSpec,
};
use emergent_types::{NetworkPolicy, ResourceLimits};
use http_body_util::BodyExt as _;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::Value;
use tower::ServiceExt as _;

pub(crate) const WORKSPACES: &str = "/api/v1/agent/workspaces";

/// The number of calls of a project that may be under way.
pub(crate) const CALLS: usize = 16;

/// A whole API.
pub(crate) struct Api {
    pub(crate) store: Store,
    /// A token with both scopes.
    pub(crate) token: String,
    /// The budget for the memory that requests hold.
    pub(crate) budget: Budget,
    router: Router,
    _directory: tempfile::TempDir,
}

/// The status, the headers and the body of an answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::start_with(true).await
    }

    pub(crate) async fn start_with(enabled: bool) -> Self {
        Self::start_limited(enabled, None).await
    }

    /// One whose projects may call so often.
    pub(crate) async fn start_limited(enabled: bool, rate_limit: Option<RateLimit>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&DatabaseUrl::sqlite(directory.path().join("test.sqlite"))).await.unwrap();
        let workspaces = Workspaces::start(config(enabled), store.clone(), Vec::new()).await.unwrap();
        while workspaces.is_ready() == Readiness::Reconciling {
            tokio::task::yield_now().await;
        }
        let hosts = Hosts::for_listener(([127, 0, 0, 1], 7070).into(), vec!["agents.example".to_owned()]);
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let budget = Budget::new(192 << 20, CALLS);
        let hosting = Hosting::start(hosting(enabled), store.clone(), None, workspaces.clone(), budget.clone());
        let hosting = hosting.await.unwrap();
        let (peers, public_url) = (Peers::default(), None);
        let parts = ApiParts {
            workspaces,
            hosting,
            public_url,
            store: store.clone(),
            metrics,
            hosts,
            peers,
            budget: budget.clone(),
            rate_limit,
        };
        let state = ApiState::new(parts);
        let router = emergent_api::router(state).unwrap();
        let mut api = Self { store, token: String::new(), budget, router, _directory: directory };
        api.token = api.new_token(&Scope::ALL).await;
        api
    }

    /// A new token of the default project with these scopes.
    pub(crate) async fn new_token(&self, scopes: &[Scope]) -> String {
        let secret = TokenSecret::generate();
        let new = NewToken {
            project: self.store.default_project(),
            name: "test".to_owned(),
            grants: Grants { is_administrator: true, ..Grants::on_project(scopes.to_vec()) },
            hash: secret.hash(),
            expires_at: None,
        };
        self.store.tokens_create(new).await.unwrap();
        secret.expose().to_owned()
    }

    /// A row of a snapshot that nothing drives on, in the state `creating`.
    pub(crate) async fn new_snapshot(&self, workspace: WorkspaceId) -> SnapshotId {
        let row = NewSnapshotRow {
            id: SnapshotId::generate(),
            project: self.store.default_project(),
            server: self.store.server_id(),
            workspace,
            provider: ProviderKind::Docker,
            name: None,
            labels: Default::default(),
            temporary: false,
            spec: spec(),
        };
        let id = row.id;
        self.store.snapshots_admit(row, None).await.unwrap();
        id
    }

    /// A row of a workspace that nothing drives on, in the state `creating`.
    pub(crate) async fn new_row(&self, name: &str, labels: &[(&str, &str)]) -> WorkspaceId {
        let (project, server) = (self.store.default_project(), self.store.server_id());
        let row = WorkspaceRow {
            name: Some(name.to_owned()),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..WorkspaceRow::new(WorkspaceId::generate(), project, server, ProviderKind::Docker, spec())
        };
        match self.store.admit(row, 1000, None).await.unwrap() {
            Admission::Admitted(row) => row.id,
            other => panic!("{other:?}"),
        }
    }

    /// A request without anything but what is given.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = tokio::time::timeout(Duration::from_secs(60), body.collect()).await.unwrap().unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    /// A request whose answer may never end by itself.
    pub(crate) async fn open(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// A request with a token and, where there is one, a JSON body.
    pub(crate) async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Option<&str>) -> Answer {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        self.send(request.body(body.map(str::to_owned).map_or_else(Body::empty, Body::from)).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Some(&self.token), None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.call("POST", path, Some(&self.token), Some(body)).await
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The answer as a problem of this status and kind.
    pub(crate) fn problem(&self, status: u16, slug: &str) -> Problem {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        let problem: Problem = serde_json::from_str(&self.text).unwrap();
        assert_eq!(problem.kind, format!("/problems/{slug}"), "{}", self.text);
        assert_eq!(problem.status, status);
        assert!(!problem.title.is_empty() && !problem.detail.is_empty(), "{}", self.text);
        problem
    }

    /// The fields that a problem blames.
    pub(crate) fn blamed(&self, status: u16, slug: &str) -> Vec<String> {
        self.problem(status, slug).errors.into_iter().map(|error| error.field).collect()
    }
}

/// Hosting without a provider.
fn hosting(enabled: bool) -> HostingConfig {
    HostingConfig {
        enabled,
        default_image: "base:test".parse().unwrap(),
        secret_key: None,
        body_limit: 8 << 20,
        max_sessions: 4,
        idle_after: Duration::from_secs(60),
        allowed_hosts: None,
        install_environment: Vec::new(),
        fault: None,
    }
}

fn config(enabled: bool) -> CoreConfig {
    CoreConfig {
        enabled,
        default_provider: Some(ProviderKind::Docker),
        deployment_mode: emergent_core::DeploymentMode::default(),
        warm_pool_size: 0,
        warm_pool_images: Vec::new(),
        max_concurrent: 10,
        max_mcp_servers: 10,
        disk_reserve: 0,
        default_ttl: chrono::Duration::days(30),
        cleanup_interval: Duration::from_secs(3600),
        orphan_grace: chrono::TimeDelta::seconds(60),
        destroyed_retention: chrono::TimeDelta::days(30),
        leftover_retention: chrono::TimeDelta::days(14),
        default_idle: emergent_store::IdlePolicy::default(),
        alert_threshold_pct: 80,
        default_limits: limits(),
        default_image: "base:test".parse().unwrap(),
        allowed_images: vec!["base:*".to_owned()],
        registries: Vec::new(),
        workspace_defaults: Default::default(),
        pulled_image_retention: chrono::TimeDelta::days(30),
        audit: emergent_core::AuditConfig::default(),
        fault: None,
    }
}

fn spec() -> WorkspaceSpec {
    WorkspaceSpec {
        kind: ContainerKind::AgentWorkspace,
        image: "base:test".parse().unwrap(),
        limits: limits(),
        network: NetworkPolicy::None,
        allow_root: false,
        environment_keys: Vec::new(),
    }
}

fn limits() -> ResourceLimits {
    ResourceLimits { cpu: 1.0, memory_bytes: 1 << 30, disk_bytes: 1 << 30, pids: 100 }
}
