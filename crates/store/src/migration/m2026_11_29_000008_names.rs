//! Indexes: a workspace is found by its name, and a project's use is added up, without reading all of its rows.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, column) in [("agent_workspaces_named", "name"), ("agent_workspaces_states", "state")] {
            let index = Index::create().name(name).table("agent_workspaces").col("project_id").col(column).to_owned();
            manager.create_index(index).await?;
        }
        Ok(())
    }
}
