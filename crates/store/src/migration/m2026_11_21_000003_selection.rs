//! The choice of a workspace's provider, and whether the workspace was made ahead of need.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in [json_binary("passed_over").default("[]").to_owned(), boolean("warm").default(false).to_owned()] {
            manager.alter_table(Table::alter().table("agent_workspaces").add_column(column).to_owned()).await?;
        }
        Ok(())
    }
}
