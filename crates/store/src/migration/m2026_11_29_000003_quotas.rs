//! The quotas of a project on processes, hosted MCP servers, snapshots and disk; and the limits of hosted MCP servers
//! in columns of their own, so that they can be added up.

use sea_orm::{ConnectionTrait as _, DbBackend};
use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite adds one column at a time.
        for (table, column) in [
            ("projects", big_integer_null("quota_max_pids")),
            ("projects", big_integer_null("quota_max_disk_bytes")),
            ("projects", integer_null("quota_max_mcp_servers")),
            ("projects", integer_null("quota_max_snapshots")),
            ("mcp_servers", double("cpu").default(0.0).take()),
            ("mcp_servers", big_integer("memory_bytes").default(0).take()),
            ("mcp_servers", big_integer("disk_bytes").default(0).take()),
            ("mcp_servers", big_integer("pids").default(0).take()),
        ] {
            manager.alter_table(Table::alter().table(table).add_column(column).to_owned()).await?;
        }
        for (column, kind) in
            [("cpu", "double precision"), ("memory_bytes", "bigint"), ("disk_bytes", "bigint"), ("pids", "bigint")]
        {
            let said = match manager.get_database_backend() {
                DbBackend::Postgres => format!("spec ->> '{column}'"),
                _ => format!("json_extract(spec, '$.{column}')"),
            };
            let copy = format!("UPDATE mcp_servers SET {column} = CAST({said} AS {kind})");
            manager.get_connection().execute_unprepared(&copy).await?;
        }
        Ok(())
    }
}
