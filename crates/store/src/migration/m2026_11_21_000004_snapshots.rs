//! Snapshots, and which of them workspaces were made from.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(snapshots()).await?;
        let newest = Index::create()
            .name("snapshots_newest")
            .table("snapshots")
            .col("project_id")
            .col("created_at")
            .col("id")
            .to_owned();
        manager.create_index(newest).await?;
        // No foreign keys: a workspace outlives the snapshot that it was made from, and the other way round.
        for column in ["snapshot_id", "source_workspace_id"] {
            let add = Table::alter().table("agent_workspaces").add_column(uuid_null(column)).to_owned();
            manager.alter_table(add).await?;
        }
        let made_from =
            Index::create().name("agent_workspaces_snapshot").table("agent_workspaces").col("snapshot_id").to_owned();
        manager.create_index(made_from).await
    }
}

fn snapshots() -> TableCreateStatement {
    Table::create()
        .table("snapshots")
        .col(pk_uuid("id"))
        .col(uuid("project_id"))
        .col(uuid("server_id"))
        .col(uuid("workspace_id"))
        .col(text("provider"))
        .col(text_null("name"))
        .col(json_binary("labels"))
        .col(boolean("temporary"))
        .col(text("state"))
        .col(text_null("error_message"))
        .col(text("kind"))
        .col(text("image"))
        .col(double("cpu"))
        .col(big_integer("memory_bytes"))
        .col(big_integer("disk_bytes"))
        .col(big_integer("pids"))
        .col(text("network"))
        .col(boolean("allow_root"))
        .col(json_binary("environment_keys"))
        .col(big_integer_null("root_bytes"))
        .col(big_integer_null("workspace_bytes"))
        .col(timestamp_with_time_zone("created_at"))
        .col(timestamp_with_time_zone_null("ready_at"))
        .foreign_key(ForeignKey::create().from("snapshots", "project_id").to("projects", "id"))
        .foreign_key(ForeignKey::create().from("snapshots", "server_id").to("servers", "id"))
        .to_owned()
}
