//! Tables of actions and of used resources, the quotas of projects, and a warning for workspaces over their disk limit.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(workspace_audit()).await?;
        manager.create_table(workspace_usage()).await?;
        // Both are read newest first, by project or by workspace, and what is old is deleted by its age.
        for (table, name, columns) in [
            ("workspace_audit", "workspace_audit_project", ["project_id", "at", "id"].as_slice()),
            ("workspace_audit", "workspace_audit_workspace", &["workspace_id", "at", "id"]),
            ("workspace_audit", "workspace_audit_age", &["at"]),
            ("workspace_usage", "workspace_usage_age", &["at"]),
        ] {
            let mut index = Index::create().name(name).table(table).to_owned();
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index).await?;
        }
        // SQLite adds one column at a time.
        for column in [
            integer_null("quota_max_active"),
            integer_null("quota_max_total"),
            double_null("quota_max_cpu"),
            big_integer_null("quota_max_memory_bytes"),
        ] {
            manager.alter_table(Table::alter().table("projects").add_column(column).to_owned()).await?;
        }
        let warning = Table::alter().table("agent_workspaces").add_column(text_null("disk_warning")).to_owned();
        manager.alter_table(warning).await
    }
}

/// The table of actions, without foreign keys: an action stays known when the workspace's row is gone.
fn workspace_audit() -> TableCreateStatement {
    Table::create()
        .table("workspace_audit")
        .col(pk_uuid("id"))
        .col(uuid("project_id"))
        .col(uuid_null("workspace_id"))
        .col(timestamp_with_time_zone("at"))
        .col(uuid_null("actor"))
        .col(text_null("session"))
        .col(text("kind"))
        .col(text("action"))
        .col(text("outcome"))
        .col(text_null("problem"))
        .col(big_integer("duration_ms"))
        .col(json_binary("arguments"))
        .col(big_integer("bytes_in"))
        .col(big_integer("bytes_out"))
        .col(text_null("request_id"))
        .to_owned()
}

fn workspace_usage() -> TableCreateStatement {
    Table::create()
        .table("workspace_usage")
        .col(uuid("workspace_id"))
        .col(timestamp_with_time_zone("at"))
        .col(uuid("project_id"))
        .col(double("seconds"))
        .col(double("cpu_seconds"))
        .col(big_integer("memory_bytes"))
        .col(big_integer_null("disk_bytes"))
        .col(big_integer("processes"))
        .primary_key(Index::create().col("workspace_id").col("at"))
        .to_owned()
}
