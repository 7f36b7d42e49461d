//! Tables as SeaORM sees them. Words and JSON are turned into types by the modules that own the rows.
//!
//! No entity names a schema: SQLite has none, and PostgreSQL finds the tables by its search path.
#![expect(unreachable_pub, reason = "the derives demand public structs, and these stay in here")]

pub(crate) mod audit;
pub(crate) mod leftover;
pub(crate) mod mcp_server;
pub(crate) mod pulled_image;
pub(crate) mod usage;

pub(crate) mod idempotency_key {
    //! The requests that idempotency keys stand for.

    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "idempotency_keys")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub project_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub key: String,
        pub request_hash: Vec<u8>,
        pub workspace_id: Uuid,
        pub created_at: DateTimeUtc,
    }

    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod project {
    //! The projects, which own the other rows.

    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "projects")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        #[sea_orm(unique)]
        pub name: String,
        pub created_at: DateTimeUtc,
        pub quota_max_active: Option<i32>,
        pub quota_max_total: Option<i32>,
        pub quota_max_cpu: Option<f64>,
        pub quota_max_memory_bytes: Option<i64>,
        pub quota_max_pids: Option<i64>,
        pub quota_max_disk_bytes: Option<i64>,
        pub quota_max_mcp_servers: Option<i32>,
        pub quota_max_snapshots: Option<i32>,
    }

    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod server {
    //! The servers that drive workspaces.

    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "servers")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub name: Option<String>,
        pub url: Option<String>,
        pub holder: Option<String>,
        pub process_id: Option<Uuid>,
        pub engine_ids: Option<Json>,
        pub lease_expires_at: Option<DateTimeUtc>,
        pub draining: bool,
    }

    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod snapshot {
    //! Snapshots of workspaces.

    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "snapshots")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub project_id: Uuid,
        pub server_id: Uuid,
        pub workspace_id: Uuid,
        pub provider: String,
        pub name: Option<String>,
        pub labels: Json,
        pub temporary: bool,
        pub state: String,
        pub error_message: Option<String>,
        pub kind: String,
        pub image: String,
        pub cpu: f64,
        pub memory_bytes: i64,
        pub disk_bytes: i64,
        pub pids: i64,
        pub network: String,
        pub allow_root: bool,
        pub environment_keys: Json,
        pub root_bytes: Option<i64>,
        pub workspace_bytes: Option<i64>,
        pub created_at: DateTimeUtc,
        pub ready_at: Option<DateTimeUtc>,
    }

    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod token {
    //! The tokens of those who may call.

    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "tokens")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub project_id: Uuid,
        pub name: String,
        pub scopes: Json,
        #[sea_orm(unique)]
        pub hash: Vec<u8>,
        pub created_at: DateTimeUtc,
        pub rotated_at: Option<DateTimeUtc>,
        pub expires_at: Option<DateTimeUtc>,
        pub revoked_at: Option<DateTimeUtc>,
        pub mcp_allow_list: Option<Json>,
        pub is_administrator: bool,
        pub is_operator: bool,
        pub workspace_id: Option<Uuid>,
        pub tools: Option<Json>,
    }

    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod token_changes {
    //! The number of changes to tokens: one row.

    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "token_changes")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i32,
        pub count: i64,
    }

    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod session {
    //! The sessions in which workspaces were held.

    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "workspace_sessions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub workspace_id: Uuid,
        pub holder: String,
        pub attached_at: DateTimeUtc,
        pub lease_ms: Option<i64>,
        pub expires_at: Option<DateTimeUtc>,
        pub ended_at: Option<DateTimeUtc>,
        pub end_reason: Option<String>,
    }

    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod workspace {
    //! Workspaces.

    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "agent_workspaces")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub project_id: Uuid,
        pub server_id: Uuid,
        pub name: Option<String>,
        pub labels: Json,
        pub kind: String,
        pub state: String,
        pub starting: bool,
        pub error_reason: Option<String>,
        pub error_message: Option<String>,
        pub provider: String,
        pub provider_requested: Option<String>,
        pub passed_over: Json,
        pub warm: bool,
        pub runtime: Option<String>,
        pub isolation: Option<String>,
        pub image: String,
        pub cpu: f64,
        pub memory_bytes: i64,
        pub disk_bytes: i64,
        pub pids: i64,
        pub network: String,
        pub allow_root: bool,
        pub environment_keys: Json,
        pub warnings: Json,
        pub created_at: DateTimeUtc,
        pub ready_at: Option<DateTimeUtc>,
        pub last_used_at: Option<DateTimeUtc>,
        pub expires_at: Option<DateTimeUtc>,
        pub destroyed_at: Option<DateTimeUtc>,
        pub disk_warning: Option<String>,
        pub idle_action: String,
        pub idle_after_ms: i64,
        pub idled: bool,
        pub destroy_reason: Option<String>,
        pub snapshot_id: Option<Uuid>,
        pub source_workspace_id: Option<Uuid>,
    }

    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
