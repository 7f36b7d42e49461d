//! The sessions of workspaces, the policy for those that idle, and the reason for which one was destroyed.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // One statement for each column: SQLite takes no more.
        let columns = [
            text("idle_action").default("none").to_owned(),
            big_integer("idle_after_ms").default(1_800_000).to_owned(),
            boolean("idled").default(false).to_owned(),
            text_null("destroy_reason"),
        ];
        for column in columns {
            manager.alter_table(Table::alter().table("agent_workspaces").add_column(column).to_owned()).await?;
        }
        manager.create_table(workspace_sessions()).await?;
        // At most one session of a workspace is open: whatever asks, and on however many servers.
        let open = Index::create()
            .name("workspace_sessions_open")
            .table("workspace_sessions")
            .col("workspace_id")
            .unique()
            .and_where(Expr::col("ended_at").is_null())
            .to_owned();
        manager.create_index(open).await?;
        let newest = Index::create()
            .name("workspace_sessions_newest")
            .table("workspace_sessions")
            .col("workspace_id")
            .col("attached_at")
            .col("id")
            .to_owned();
        manager.create_index(newest).await?;
        // What is old enough to be forgotten.
        let destroyed =
            Index::create().name("agent_workspaces_destroyed").table("agent_workspaces").col("destroyed_at").to_owned();
        manager.create_index(destroyed).await
    }
}

fn workspace_sessions() -> TableCreateStatement {
    Table::create()
        .table("workspace_sessions")
        .col(pk_uuid("id"))
        .col(uuid("workspace_id"))
        .col(text("holder"))
        .col(timestamp_with_time_zone("attached_at"))
        .col(big_integer_null("lease_ms"))
        .col(timestamp_with_time_zone_null("expires_at"))
        .col(timestamp_with_time_zone_null("ended_at"))
        .col(text_null("end_reason"))
        .foreign_key(ForeignKey::create().from("workspace_sessions", "workspace_id").to("agent_workspaces", "id"))
        .to_owned()
}
