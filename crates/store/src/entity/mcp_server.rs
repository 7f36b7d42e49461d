//! Hosted MCP servers.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "mcp_servers")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub project_id: Uuid,
    pub server_id: Uuid,
    pub name: String,
    pub spec: Json,
    /// These four repeat the specification's figures, for sums.
    pub cpu: f64,
    pub memory_bytes: i64,
    pub disk_bytes: i64,
    pub pids: i64,
    pub environment_keys: Json,
    pub environment_sealed: Option<Vec<u8>>,
    pub revision: i64,
    pub made_revision: Option<i64>,
    pub state: String,
    pub message: Option<String>,
    pub last_exit: Option<Json>,
    pub restarts: i64,
    pub era: Option<String>,
    pub runtime: Option<String>,
    pub warnings: Json,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
