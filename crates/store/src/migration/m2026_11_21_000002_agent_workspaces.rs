//! Workspaces, and the keys of the requests that made them.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(agent_workspaces()).await?;
        // Lists are read newest first; admission counts by state; cleanup asks what has expired.
        for (name, columns) in [
            ("agent_workspaces_newest", ["project_id", "created_at", "id"].as_slice()),
            ("agent_workspaces_state", &["state", "kind"]),
            ("agent_workspaces_expiry", &["expires_at"]),
        ] {
            let mut index = Index::create().name(name).table("agent_workspaces").to_owned();
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index).await?;
        }
        manager.create_table(idempotency_keys()).await
    }
}

fn agent_workspaces() -> TableCreateStatement {
    Table::create()
        .table("agent_workspaces")
        .col(pk_uuid("id"))
        .col(uuid("project_id"))
        .col(uuid("server_id"))
        .col(text_null("name"))
        .col(json_binary("labels"))
        .col(text("kind"))
        .col(text("state"))
        .col(boolean("starting"))
        .col(text_null("error_reason"))
        .col(text_null("error_message"))
        .col(text("provider"))
        .col(text_null("provider_requested"))
        .col(text_null("runtime"))
        .col(text_null("isolation"))
        .col(text("image"))
        .col(double("cpu"))
        .col(big_integer("memory_bytes"))
        .col(big_integer("disk_bytes"))
        .col(big_integer("pids"))
        .col(text("network"))
        .col(boolean("allow_root"))
        .col(json_binary("environment_keys"))
        .col(json_binary("warnings"))
        .col(timestamp_with_time_zone("created_at"))
        .col(timestamp_with_time_zone_null("ready_at"))
        .col(timestamp_with_time_zone_null("last_used_at"))
        .col(timestamp_with_time_zone_null("expires_at"))
        .col(timestamp_with_time_zone_null("destroyed_at"))
        .foreign_key(ForeignKey::create().from("agent_workspaces", "project_id").to("projects", "id"))
        .foreign_key(ForeignKey::create().from("agent_workspaces", "server_id").to("servers", "id"))
        .to_owned()
}

fn idempotency_keys() -> TableCreateStatement {
    Table::create()
        .table("idempotency_keys")
        .col(uuid("project_id"))
        .col(text("key"))
        .col(blob("request_hash"))
        .col(uuid("workspace_id"))
        .col(timestamp_with_time_zone("created_at"))
        .primary_key(Index::create().col("project_id").col("key"))
        .foreign_key(ForeignKey::create().from("idempotency_keys", "project_id").to("projects", "id"))
        .to_owned()
}
