//! The rows of hosted MCP servers.
//!
//! ```text
//!     ┌──────► starting ──► running ──► backing_off ──┐
//!     │           │  │         │                      │
//!     │           ▼  ▼         ▼                      │
//!   failing, failed  └──► stopped                     │
//!     ▲ └───────────────────────────── starting ◄─────┘        any ──► deleting ──► (no row)
//! ```

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use emergent_provider::ProviderKind;
use emergent_types::{ResourceLimits, ServerId, WorkspaceId, uuid_newtype};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, UpdateMany,
    sea_query::{Expr, ExprTrait as _},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    ProjectId, QuotaReached, QuotaUse, Store, StoreError,
    admission::{has_mcp_place, insert_if},
    connection::Alone,
    entity::mcp_server::{ActiveModel, Column, Entity, Model},
    error::Doing as _,
    model::words::{from_integer, from_json, parse, signed, storable, storable_json},
    quotas,
    time::now,
};

uuid_newtype!(
    /// Names a hosted MCP server; its sandbox carries it as its workspace.
    McpServerId
);

/// The provider that makes the sandboxes of hosted servers.
pub const MCP_SERVERS_ON: ProviderKind = ProviderKind::Docker;

/// A hosted MCP server, as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct McpServerRow {
    /// The hosted server's id.
    pub id: McpServerId,
    /// The project that the hosted server belongs to.
    pub project: ProjectId,
    /// The server that drives the hosted server.
    pub server: ServerId,
    /// The hosted server's name, which no other of the project has.
    pub name: String,
    /// The hosted server's specification.
    pub spec: McpServerSpec,
    /// Names of the environment variables.
    pub environment_keys: Vec<String>,
    /// The variables themselves, encrypted.
    pub environment_sealed: Option<Vec<u8>>,
    /// The revision of the specification: grows with every change for which the sandbox is made anew.
    pub revision: u64,
    /// The revision that the sandbox was made from.
    pub made_revision: Option<u64>,
    /// The hosted server's state.
    pub state: McpServerState,
    /// A message for people about the state.
    pub message: Option<String>,
    /// The program's last end that nobody asked for.
    pub last_exit: Option<McpServerExit>,
    /// The number of times that the program was started again.
    pub restarts: u64,
    /// The era of the MCP protocol that the program was found to speak.
    pub era: Option<String>,
    /// The runtime of the sandbox.
    pub runtime: Option<String>,
    /// The warnings: each names something that is weaker than asked for.
    pub warnings: Vec<String>,
    /// The time at which the hosted server was registered.
    pub created_at: DateTime<Utc>,
    /// The time of the last change.
    pub updated_at: DateTime<Utc>,
}

/// The specification of a hosted MCP server. Kept as JSON: fields are added with defaults and never change meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct McpServerSpec {
    /// The image.
    pub image: String,
    /// The program and its arguments; absent: the image's own.
    #[serde(default)]
    pub cmd: Option<Vec<String>>,
    /// The directory in which the program runs; absent: the image's own directory, or `/workspace`.
    #[serde(default)]
    pub workdir: Option<String>,
    /// The program speaks MCP on its standard input and output; else it listens on `port`.
    pub stdio_bridge: bool,
    /// The port on which an HTTP server listens inside.
    #[serde(default)]
    pub port: Option<u16>,
    /// The path of an HTTP server's MCP endpoint.
    #[serde(default)]
    pub path: Option<String>,
    /// The package that is installed first.
    #[serde(default)]
    pub package: Option<McpPackage>,
    /// The action that follows when the program ends by itself.
    pub restart_policy: RestartPolicy,
    /// One process for all clients rather than one for each session.
    #[serde(default)]
    pub shared: bool,
    /// The server's processes run as root inside.
    #[serde(default)]
    pub run_as_root: bool,
    /// Volumes by name, each with its path inside.
    #[serde(default)]
    pub volumes: BTreeMap<String, String>,
    /// Workspaces whose `/workspace` the server sees, by a volume's name.
    #[serde(default)]
    pub shares: BTreeMap<String, McpShare>,
    /// CPU cores.
    pub cpu: f64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk.
    pub disk_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// The networks that the server may reach: `none`, `isolated` or `outbound`.
    pub network: String,
    /// The time that a call may take, in milliseconds.
    pub call_timeout_ms: u64,
}

/// A workspace whose `/workspace` a hosted server sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpShare {
    /// The workspace, of the same project.
    pub workspace: Uuid,
    /// The path of the workspace inside the server.
    pub path: String,
    /// The server cannot write there.
    pub read_only: bool,
}

/// A package from a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpPackage {
    /// The registry.
    pub registry: PackageRegistry,
    /// The package with its version, in the registry's own words.
    pub requirement: String,
    /// Further requirements that pin what it depends on.
    #[serde(default)]
    pub constraints: Vec<String>,
}

/// The registry of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackageRegistry {
    /// npm's.
    Npm,
    /// Python's.
    Pypi,
}

/// The action that follows when a hosted server's program has ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// The program is started again.
    Always,
    /// The program is started again unless it ended with 0.
    OnFailure,
    /// The program stays ended.
    Never,
}

/// The end of a hosted server's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpServerExit {
    /// The exit code.
    pub code: Option<i32>,
    /// The signal that ended the program.
    pub signal: Option<i32>,
    /// The reason, where the sandbox as a whole ended.
    pub reason: Option<String>,
    /// The last output on standard error.
    pub stderr: String,
    /// The time of the end.
    pub at: DateTime<Utc>,
}

/// The state of a hosted server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum McpServerState {
    /// The server is on its way to running.
    Starting,
    /// The server takes calls.
    Running,
    /// The server's program ends, or does not answer, before it is ready; the server waits for the next try.
    Failing,
    /// The server has crashed too often, and waits.
    BackingOff,
    /// The server does not run, because somebody stopped it or its restart policy says so.
    Stopped,
    /// The server's sandbox could not be made; the server waits for the next try.
    Failed,
    /// The server is on its way to be gone.
    Deleting,
}

/// The reach of a change of a hosted server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum McpChangeReach {
    /// The change concerns the server's supervision only; the running processes go on.
    Settings,
    /// The server's processes are started again.
    Processes,
    /// The server's sandbox is made anew.
    Sandbox,
}

/// A word that names no state of a hosted server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no state of an MCP server is called {0:?}")]
pub struct UnknownMcpServerState(String);

/// Whether a hosted server was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum McpServerAdmission {
    /// The server was let in; its row is recorded.
    Admitted,
    /// The project has one of this name. Nothing was recorded.
    NameTaken,
    /// There are as many as there may be on the whole. Nothing was recorded.
    Full,
    /// The project may not have that much more. Nothing was recorded.
    OverQuota(QuotaReached),
}

/// Whether a hosted server was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum McpServerChange {
    /// The server's row holds the change.
    Changed,
    /// The server does not exist, is on its way to be gone, or is another server's. Nothing was changed.
    Gone,
    /// The project may not have that much more. Nothing was changed.
    OverQuota(QuotaReached),
}

// === impl McpServerId ===

impl McpServerId {
    /// The id of the server's sandbox.
    pub fn sandbox(self) -> WorkspaceId {
        self.as_uuid().into()
    }
}

impl From<WorkspaceId> for McpServerId {
    fn from(sandbox: WorkspaceId) -> Self {
        Self::from(sandbox.as_uuid())
    }
}

// === impl McpServerSpec ===

impl McpServerSpec {
    /// The resources that the server's sandbox may use.
    pub fn limits(&self) -> ResourceLimits {
        let &Self { cpu, memory_bytes, disk_bytes, pids, .. } = self;
        ResourceLimits { cpu, memory_bytes, disk_bytes, pids }
    }
}

// === impl McpServerState ===

impl McpServerState {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::Starting, Self::Running, Self::Failing, Self::BackingOff, Self::Stopped, Self::Failed, Self::Deleting];

    /// The state's word in rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Failing => "failing",
            Self::BackingOff => "backing_off",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }
}

impl fmt::Display for McpServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for McpServerState {
    type Err = UnknownMcpServerState;

    fn from_str(text: &str) -> Result<Self, UnknownMcpServerState> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| UnknownMcpServerState(text.to_owned()))
    }
}

// === impl Store ===

impl Store {
    /// Lets a new server in if there are fewer than `limit` on the whole, and if its project's quotas have room.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails; nothing was recorded then.
    pub async fn mcp_servers_admit(&self, row: &McpServerRow, limit: u32) -> Result<McpServerAdmission, StoreError> {
        let transaction = self.writer.begin_alone(Alone::Places, "begin recording an MCP server").await?;
        let named = Entity::find()
            .filter(Column::ProjectId.eq(row.project.as_uuid()))
            .filter(Column::Name.eq(storable(&row.name)))
            .one(&transaction);
        if named.await.doing("find an MCP server")?.is_some() {
            return Ok(McpServerAdmission::NameTaken);
        }
        let wanted = QuotaUse::of_mcp_server(&row.spec.limits());
        let room = has_mcp_place(limit).and(quotas::has_room(row.project, &wanted));
        if !insert_if(&transaction, &values(row)?, room).await.doing("record an MCP server")? {
            let reached = quotas::over_quota(&transaction, row.project, &wanted).await?;
            return Ok(reached.map_or(McpServerAdmission::Full, McpServerAdmission::OverQuota));
        }
        transaction.commit().await.doing("record an MCP server")?;
        Ok(McpServerAdmission::Admitted)
    }

    /// One server of a project.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn mcp_servers_get(
        &self,
        project: ProjectId,
        id: McpServerId,
    ) -> Result<Option<McpServerRow>, StoreError> {
        Ok(self.mcp_servers_find(id).await?.filter(|row| row.project == project))
    }

    /// The server of this name in a project.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn mcp_servers_named(&self, project: ProjectId, name: &str) -> Result<Option<McpServerRow>, StoreError> {
        let select =
            Entity::find().filter(Column::ProjectId.eq(project.as_uuid())).filter(Column::Name.eq(storable(name)));
        let row = select.one(self.reader.connection()).await.doing("find an MCP server")?;
        row.map(McpServerRow::try_from).transpose()
    }

    /// Returns one hosted server, of any project.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn mcp_servers_find(&self, id: McpServerId) -> Result<Option<McpServerRow>, StoreError> {
        let row = Entity::find_by_id(id.as_uuid()).one(self.reader.connection()).await.doing("read an MCP server")?;
        row.map(McpServerRow::try_from).transpose()
    }

    /// A project's servers, by name.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn mcp_servers_list(&self, project: ProjectId) -> Result<Vec<McpServerRow>, StoreError> {
        let select = Entity::find().filter(Column::ProjectId.eq(project.as_uuid())).order_by_asc(Column::Name);
        let rows = select.all(self.reader.connection()).await.doing("list MCP servers")?;
        rows.into_iter().map(McpServerRow::try_from).collect()
    }

    /// Every hosted server that a server of ours drives.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn mcp_servers_of(&self, server: ServerId) -> Result<Vec<McpServerRow>, StoreError> {
        let select = Entity::find().filter(Column::ServerId.eq(server.as_uuid()));
        let rows = select.all(self.reader.connection()).await.doing("list a server's MCP servers")?;
        rows.into_iter().map(McpServerRow::try_from).collect()
    }

    /// Records the new specification of a hosted server, if its project's quotas have room for it. Where the sandbox is
    /// to be made anew, the hosted server has its next revision; where other processes are to run, the era of its
    /// protocol is forgotten.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn mcp_servers_change(
        &self,
        id: McpServerId,
        spec: &McpServerSpec,
        environment_keys: &[String],
        environment_sealed: Option<Vec<u8>>,
        reach: McpChangeReach,
    ) -> Result<McpServerChange, StoreError> {
        let transaction = self.writer.begin_alone(Alone::Places, "begin changing an MCP server").await?;
        let row = Entity::find_by_id(id.as_uuid()).one(&transaction).await.doing("read an MCP server")?;
        let row = row.map(McpServerRow::try_from).transpose()?;
        let Some(row) = row.filter(|row| row.state != McpServerState::Deleting) else {
            return Ok(McpServerChange::Gone);
        };
        let limits = spec.limits();
        let wanted = QuotaUse::of_mcp_server(&limits).beyond(&QuotaUse::of_mcp_server(&row.spec.limits()));
        let mut update = self
            .own_mcp_server(id)
            .filter(quotas::has_room(row.project, &wanted))
            .col_expr(Column::Spec, Expr::value(spec_json(spec)?))
            .col_expr(Column::Cpu, Expr::value(limits.cpu))
            .col_expr(Column::MemoryBytes, Expr::value(signed(limits.memory_bytes)))
            .col_expr(Column::DiskBytes, Expr::value(signed(limits.disk_bytes)))
            .col_expr(Column::Pids, Expr::value(i64::from(limits.pids)))
            .col_expr(Column::EnvironmentKeys, Expr::value(keys_json(environment_keys)))
            .col_expr(Column::EnvironmentSealed, Expr::value(environment_sealed))
            .col_expr(Column::UpdatedAt, Expr::value(now()));
        if reach >= McpChangeReach::Sandbox {
            update = update.col_expr(Column::Revision, Expr::col(Column::Revision).add(1));
        }
        if reach >= McpChangeReach::Processes {
            update = update.col_expr(Column::Era, Expr::value(None::<String>));
        }
        let changed = update.exec(&transaction).await.doing("change an MCP server")?.rows_affected > 0;
        if !changed {
            let reached = quotas::over_quota(&transaction, row.project, &wanted).await?;
            return Ok(reached.map_or(McpServerChange::Gone, McpServerChange::OverQuota));
        }
        transaction.commit().await.doing("change an MCP server")?;
        Ok(McpServerChange::Changed)
    }

    /// Records the state of a hosted server. One that is on its way to be gone stays there.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn mcp_servers_record(
        &self,
        id: McpServerId,
        state: McpServerState,
        message: Option<&str>,
    ) -> Result<(), StoreError> {
        let update = self
            .own_mcp_server(id)
            .filter(Column::State.ne(McpServerState::Deleting.as_str()))
            .col_expr(Column::State, Expr::value(state.as_str()))
            .col_expr(Column::Message, Expr::value(message.map(storable)));
        update.exec(self.writer.connection()).await.doing("record an MCP server's state")?;
        Ok(())
    }

    /// Records that a server's sandbox is made, and from which revision.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn mcp_servers_record_made(
        &self,
        id: McpServerId,
        revision: u64,
        runtime: &str,
        warnings: &[String],
    ) -> Result<(), StoreError> {
        let warnings = warnings.iter().map(|warning| storable(warning)).collect::<Vec<_>>();
        let update = self
            .own_mcp_server(id)
            .col_expr(Column::MadeRevision, Expr::value(i64::try_from(revision).unwrap_or(i64::MAX)))
            .col_expr(Column::Runtime, Expr::value(runtime))
            .col_expr(Column::Warnings, Expr::value(serde_json::Value::from(warnings)));
        update.exec(self.writer.connection()).await.doing("record an MCP server's sandbox")?;
        Ok(())
    }

    /// Records how a server ended by itself, and whether it is started again.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn mcp_servers_record_exit(
        &self,
        id: McpServerId,
        exit: &McpServerExit,
        restarted: bool,
    ) -> Result<(), StoreError> {
        let json = serde_json::to_value(exit).map_err(|error| unwritable("last_exit", &error))?;
        let update = self
            .own_mcp_server(id)
            .col_expr(Column::LastExit, Expr::value(storable_json(json)))
            .col_expr(Column::Restarts, Expr::col(Column::Restarts).add(i64::from(restarted)));
        update.exec(self.writer.connection()).await.doing("record an MCP server's end")?;
        Ok(())
    }

    /// Records the era of the protocol that a hosted server was found to speak.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn mcp_servers_record_era(&self, id: McpServerId, era: &str) -> Result<(), StoreError> {
        let update = self.own_mcp_server(id).col_expr(Column::Era, Expr::value(era));
        update.exec(self.writer.connection()).await.doing("record an MCP server's era")?;
        Ok(())
    }

    /// A statement that changes a hosted server only while this server of ours drives it.
    fn own_mcp_server(&self, id: McpServerId) -> UpdateMany<Entity> {
        let of = Entity::update_many().filter(Column::Id.eq(id.as_uuid()));
        of.filter(Column::ServerId.eq(self.server_id().as_uuid()))
    }

    /// Forgets a server of which nothing is left.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn mcp_servers_forget(&self, id: McpServerId) -> Result<(), StoreError> {
        Entity::delete_by_id(id.as_uuid()).exec(self.writer.connection()).await.doing("forget an MCP server")?;
        Ok(())
    }
}

fn values(row: &McpServerRow) -> Result<ActiveModel, StoreError> {
    Ok(ActiveModel {
        id: Set(row.id.as_uuid()),
        project_id: Set(row.project.as_uuid()),
        server_id: Set(row.server.as_uuid()),
        name: Set(storable(&row.name)),
        spec: Set(spec_json(&row.spec)?),
        cpu: Set(row.spec.cpu),
        memory_bytes: Set(signed(row.spec.memory_bytes)),
        disk_bytes: Set(signed(row.spec.disk_bytes)),
        pids: Set(row.spec.pids.into()),
        environment_keys: Set(keys_json(&row.environment_keys)),
        environment_sealed: Set(row.environment_sealed.clone()),
        revision: Set(i64::try_from(row.revision).unwrap_or(i64::MAX)),
        made_revision: Set(None),
        state: Set(row.state.as_str().to_owned()),
        message: Set(row.message.as_deref().map(storable)),
        last_exit: Set(None),
        restarts: Set(0),
        era: Set(None),
        runtime: Set(None),
        warnings: Set(serde_json::json!([])),
        created_at: Set(row.created_at),
        updated_at: Set(row.updated_at),
    })
}

fn spec_json(spec: &McpServerSpec) -> Result<serde_json::Value, StoreError> {
    serde_json::to_value(spec).map(storable_json).map_err(|error| unwritable("spec", &error))
}

fn keys_json(keys: &[String]) -> serde_json::Value {
    keys.iter().map(|key| storable(key)).collect::<Vec<_>>().into()
}

fn unwritable(column: &'static str, error: &serde_json::Error) -> StoreError {
    StoreError::UnknownValue { column, value: error.to_string() }
}

impl TryFrom<Model> for McpServerRow {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            project: row.project_id.into(),
            server: row.server_id.into(),
            name: row.name,
            spec: from_json("spec", row.spec)?,
            environment_keys: from_json("environment_keys", row.environment_keys)?,
            environment_sealed: row.environment_sealed,
            revision: from_integer("revision", row.revision)?,
            made_revision: row.made_revision.map(|number| from_integer("made_revision", number)).transpose()?,
            state: parse("state", &row.state)?,
            message: row.message,
            last_exit: row.last_exit.map(|json| from_json("last_exit", json)).transpose()?,
            restarts: from_integer("restarts", row.restarts)?,
            era: row.era,
            runtime: row.runtime,
            warnings: from_json("warnings", row.warnings)?,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}
