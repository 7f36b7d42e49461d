//! Hosted MCP servers.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(mcp_servers()).await?;
        let names = Index::create()
            .name("mcp_servers_name")
            .table("mcp_servers")
            .col("project_id")
            .col("name")
            .unique()
            .to_owned();
        manager.create_index(names).await?;
        // Each server asks for its own at every start.
        let drivers = Index::create().name("mcp_servers_server").table("mcp_servers").col("server_id").to_owned();
        manager.create_index(drivers).await
    }
}

fn mcp_servers() -> TableCreateStatement {
    Table::create()
        .table("mcp_servers")
        .col(pk_uuid("id"))
        .col(uuid("project_id"))
        .col(uuid("server_id"))
        .col(text("name"))
        .col(json_binary("spec"))
        .col(json_binary("environment_keys"))
        .col(binary_null("environment_sealed"))
        .col(big_integer("revision"))
        .col(big_integer_null("made_revision"))
        .col(text("state"))
        .col(text_null("message"))
        .col(json_binary_null("last_exit"))
        .col(big_integer("restarts"))
        .col(text_null("era"))
        .col(text_null("runtime"))
        .col(json_binary("warnings"))
        .col(timestamp_with_time_zone("created_at"))
        .col(timestamp_with_time_zone("updated_at"))
        .foreign_key(ForeignKey::create().from("mcp_servers", "project_id").to("projects", "id"))
        .foreign_key(ForeignKey::create().from("mcp_servers", "server_id").to("servers", "id"))
        .to_owned()
}
