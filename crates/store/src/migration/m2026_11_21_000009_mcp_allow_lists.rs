//! The MCP servers that a token may use.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Absent: all of them, as for every token from before.
        let column = json_binary_null("mcp_allow_list");
        manager.alter_table(Table::alter().table("tokens").add_column(column).to_owned()).await
    }
}
