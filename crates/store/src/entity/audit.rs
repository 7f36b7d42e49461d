//! The actions in workspaces and on them.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "workspace_audit")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub project_id: Uuid,
    pub workspace_id: Option<Uuid>,
    pub at: DateTimeUtc,
    pub actor: Option<Uuid>,
    pub session: Option<String>,
    pub kind: String,
    pub action: String,
    pub outcome: String,
    pub problem: Option<String>,
    pub duration_ms: i64,
    pub arguments: Json,
    pub bytes_in: i64,
    pub bytes_out: i64,
    pub request_id: Option<String>,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
