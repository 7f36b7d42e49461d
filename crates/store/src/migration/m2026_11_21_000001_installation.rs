//! Servers, projects and tokens.

use sea_orm_migration::{prelude::*, schema::*};

use super::in_core;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let servers = Table::create()
            .table(in_core(manager, "servers"))
            .col(pk_uuid("id"))
            .col(timestamp_with_time_zone("created_at"))
            .to_owned();
        let projects = Table::create()
            .table(in_core(manager, "projects"))
            .col(pk_uuid("id"))
            .col(text_uniq("name"))
            .col(timestamp_with_time_zone("created_at"))
            .to_owned();
        let tokens = Table::create()
            .table(in_core(manager, "tokens"))
            .col(pk_uuid("id"))
            .col(uuid("project_id"))
            .col(text("name"))
            .col(json_binary("scopes"))
            .col(blob_uniq("hash"))
            .col(timestamp_with_time_zone("created_at"))
            .col(timestamp_with_time_zone_null("rotated_at"))
            .col(timestamp_with_time_zone_null("expires_at"))
            .col(timestamp_with_time_zone_null("revoked_at"))
            .foreign_key(ForeignKey::create().from("tokens", "project_id").to("projects", "id"))
            .to_owned();
        manager.create_table(servers).await?;
        manager.create_table(projects).await?;
        manager.create_table(tokens).await
    }
}
