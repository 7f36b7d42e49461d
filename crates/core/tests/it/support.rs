//! A fixture that gives each test a service of its own.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use emergent_core::{
    AuditFilter, AuditRow, CoreConfig, ListFilter, NewWorkspace, PageRequest, ProjectId, Readiness, StateKind,
    Workspace, WorkspaceId, Workspaces,
};
use emergent_provider::Provider;
use emergent_store::{DatabaseUrl, Store};
use emergent_types::ResourceLimits;
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::engine::FakeEngine;

/// The time that a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(20);

/// A service, its engine and its rows.
pub(crate) struct Fixture {
    pub(crate) service: Workspaces,
    pub(crate) engine: FakeEngine,
    pub(crate) store: Store,
    pub(crate) project: ProjectId,
    directory: TempDir,
}

/// Returns settings under which the service refuses nothing.
pub(crate) fn config() -> CoreConfig {
    CoreConfig {
        enabled: true,
        default_provider: Some(emergent_provider::ProviderKind::Docker),
        deployment_mode: emergent_core::DeploymentMode::default(),
        warm_pool_size: 0,
        warm_pool_images: Vec::new(),
        max_concurrent: 10,
        max_mcp_servers: 10,
        disk_reserve: 0,
        default_ttl: chrono::TimeDelta::days(30),
        cleanup_interval: Duration::from_millis(100),
        orphan_grace: chrono::TimeDelta::seconds(60),
        destroyed_retention: chrono::TimeDelta::days(30),
        leftover_retention: chrono::TimeDelta::days(14),
        default_idle: emergent_store::IdlePolicy::default(),
        alert_threshold_pct: 80,
        default_limits: ResourceLimits { cpu: 2.0, memory_bytes: 4 << 30, disk_bytes: 10 << 30, pids: 1024 },
        default_image: "emergent/workspace:latest".parse().unwrap(),
        allowed_images: Vec::new(),
        registries: Vec::new(),
        workspace_defaults: Default::default(),
        pulled_image_retention: chrono::TimeDelta::days(30),
        audit: emergent_core::AuditConfig::default(),
        fault: None,
    }
}

/// Opens the store in a directory, and the engine beside it.
pub(crate) async fn store_and_engine(directory: &Path) -> (Store, FakeEngine) {
    let store = Store::open(&DatabaseUrl::sqlite(directory.join("rows.db"))).await.unwrap();
    let engine = FakeEngine::new(&directory.join("engine"), store.server_id());
    (store, engine)
}

/// Waits until a condition holds, and fails with `what` when it does not in time.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

// === impl Fixture ===

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::start_with(config()).await
    }

    pub(crate) async fn start_with(config: CoreConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (store, engine) = store_and_engine(directory.path()).await;
        Self::start_in(directory, config, store, engine).await
    }

    pub(crate) async fn start_in(directory: TempDir, config: CoreConfig, store: Store, engine: FakeEngine) -> Self {
        let providers: Vec<Arc<dyn Provider>> = vec![Arc::new(engine.clone())];
        let service = Workspaces::start(config, store.clone(), providers).await.unwrap();
        let project = store.default_project();
        Self { service, engine, store, project, directory }
    }

    /// Ends the service and starts another on the same rows and engine.
    pub(crate) async fn restart(self) -> Self {
        self.service.shutdown().await;
        let Self { engine, store, directory, .. } = self;
        Self::start_in(directory, config(), store, engine).await
    }

    pub(crate) async fn reconciled(&self) {
        eventually("reconciled", async || self.service.is_ready() == Readiness::Ready).await;
    }

    /// Makes a workspace and waits until it is ready.
    pub(crate) async fn ready(&self) -> WorkspaceId {
        let id = self.service.create(self.project, NewWorkspace::default(), None).await.unwrap().row.id;
        let workspace = self.service.wait_ready(self.project, id, DEADLINE).await.unwrap();
        assert_eq!(workspace.row.state.word(), StateKind::Ready, "{:?}", workspace.row.state);
        id
    }

    pub(crate) async fn get(&self, id: WorkspaceId) -> Workspace {
        self.service.get(self.project, id).await.unwrap()
    }

    pub(crate) async fn becomes(&self, id: WorkspaceId, state: StateKind) -> Workspace {
        eventually(state.as_str(), async || self.get(id).await.row.state.word() == state).await;
        self.get(id).await
    }

    /// Returns the audit rows of the project, oldest first.
    pub(crate) async fn told(&self, filter: AuditFilter) -> Vec<AuditRow> {
        let page = PageRequest { limit: PageRequest::MOST, cursor: None };
        let mut rows = self.service.audit_list(self.project, filter, page).await.unwrap().items;
        rows.reverse();
        rows
    }

    /// Returns the path of the service's database.
    pub(crate) fn database(&self) -> PathBuf {
        self.directory.path().join("rows.db")
    }

    /// Keeps the service from writing rows until the returned connection is closed: its writes fail after 5 s.
    pub(crate) async fn keep_writers_out(&self) -> DatabaseConnection {
        let database = self.connect().await;
        database.execute_unprepared("BEGIN IMMEDIATE").await.unwrap();
        database
    }

    /// Opens a connection of the test's own to the service's database.
    pub(crate) async fn connect(&self) -> DatabaseConnection {
        let mut options = ConnectOptions::new(format!("sqlite:{}", self.database().display()));
        options.min_connections(1).max_connections(1).idle_timeout(None).max_lifetime(None);
        Database::connect(options).await.unwrap()
    }

    /// Returns all workspaces that are not destroyed.
    pub(crate) async fn all(&self) -> Vec<Workspace> {
        self.service.list(self.project, ListFilter::default(), PageRequest::default()).await.unwrap().items
    }
}
