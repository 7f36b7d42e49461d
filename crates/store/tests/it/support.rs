//! A store of its own for each test, on the engine that the test program is for.

use std::{collections::BTreeMap, ops::Deref};

use emergent_provider::{ContainerKind, ProviderKind};
use emergent_store::{
    Admission, DatabaseUrl, McpServerId, McpServerRow, McpServerState, Store, WorkspaceRow, WorkspaceSpec,
};
use emergent_types::{NetworkPolicy, ResourceLimits, WorkspaceId};
use sea_orm::{ConnectionTrait as _, Database};
use tempfile::TempDir;

/// A store in a directory that is removed with it.
pub(crate) struct TestStore {
    pub(crate) store: Store,
    pub(crate) url: DatabaseUrl,
    _directory: TempDir,
}

/// Whether this is the program that runs the suite on PostgreSQL.
pub(crate) fn on_postgres() -> bool {
    env!("CARGO_CRATE_NAME") == "postgres"
}

/// The address of a new, empty database, and a directory that has to outlive it.
pub(crate) async fn new_database() -> (TempDir, DatabaseUrl) {
    let directory = tempfile::tempdir().unwrap();
    let url = if on_postgres() {
        emergent_test_postgres::database().await.unwrap().parse().unwrap()
    } else {
        DatabaseUrl::sqlite(directory.path().join("emergent.db"))
    };
    (directory, url)
}

/// A hosted MCP server of the default project with half a GiB of memory, which runs.
pub(crate) fn new_mcp_server(store: &Store, name: &str) -> McpServerRow {
    let spec = serde_json::json!({ "image": "a", "stdio_bridge": true, "restart_policy": "always", "cpu": 0.5,
        "memory_bytes": 512 << 20, "disk_bytes": 1 << 30, "pids": 64, "network": "none", "call_timeout_ms": 1 });
    let now = chrono::Utc::now();
    McpServerRow {
        id: McpServerId::generate(),
        project: store.default_project(),
        server: store.server_id(),
        name: name.to_owned(),
        spec: serde_json::from_value(spec).unwrap(),
        environment_keys: Vec::new(),
        environment_sealed: None,
        revision: 1,
        made_revision: None,
        state: McpServerState::Running,
        message: None,
        last_exit: None,
        restarts: 0,
        era: None,
        runtime: None,
        warnings: Vec::new(),
        created_at: now,
        updated_at: now,
    }
}

impl TestStore {
    pub(crate) async fn open() -> Self {
        let (directory, url) = new_database().await;
        Self { store: Store::open(&url).await.unwrap(), url, _directory: directory }
    }

    /// Changes rows behind the store's back.
    pub(crate) async fn execute(&self, sql: &str) {
        // Neither address holds a secret, so that its text is whole.
        let url = self.url.to_string().replace("sqlite://", "sqlite:");
        let database = Database::connect(url).await.unwrap();
        let found = if on_postgres() { "SET search_path = kb, core; " } else { "" };
        database.execute_unprepared(&format!("{found}{sql}")).await.unwrap();
        database.close().await.unwrap();
    }

    /// A workspace of the default project.
    pub(crate) fn new_row(&self) -> WorkspaceRow {
        let spec = WorkspaceSpec {
            kind: ContainerKind::AgentWorkspace,
            image: "ubuntu:22.04".parse().unwrap(),
            limits: ResourceLimits { cpu: 0.5, memory_bytes: 4 << 30, disk_bytes: 10 << 30, pids: 1024 },
            network: NetworkPolicy::Outbound,
            allow_root: true,
            environment_keys: vec!["TOKEN".to_owned()],
        };
        let (project, server) = (self.store.default_project(), self.store.server_id());
        WorkspaceRow {
            labels: BTreeMap::from([("team".to_owned(), "red".to_owned())]),
            ..WorkspaceRow::new(WorkspaceId::generate(), project, server, ProviderKind::Docker, spec)
        }
    }

    /// A workspace of the default project, and of this kind.
    pub(crate) fn new_row_of(&self, kind: ContainerKind) -> WorkspaceRow {
        let mut row = self.new_row();
        row.spec.kind = kind;
        row
    }

    /// Admits a workspace without a limit.
    pub(crate) async fn admitted(&self, new: WorkspaceRow) -> WorkspaceRow {
        match self.store.admit(new, u32::MAX, None).await.unwrap() {
            Admission::Admitted(row) => *row,
            other => panic!("not admitted: {other:?}"),
        }
    }
}

impl Deref for TestStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}
