//! The facts that servers which share a database know of each other.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in [
            text_null("name"),
            text_null("url"),
            text_null("holder"),
            uuid_null("process_id"),
            json_binary_null("engine_ids"),
            timestamp_with_time_zone_null("lease_expires_at"),
            boolean("draining").default(false).take(),
        ] {
            // SQLite adds one column in a statement.
            manager.alter_table(Table::alter().table("servers").add_column(column).to_owned()).await?;
        }
        // Each server asks for its own at every start, and others' when they die.
        let index =
            Index::create().name("agent_workspaces_server").table("agent_workspaces").col("server_id").to_owned();
        manager.create_index(index).await
    }
}
