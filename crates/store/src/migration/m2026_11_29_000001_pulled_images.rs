//! The images that were pulled for each project.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table("pulled_images")
            .col(uuid("server_id"))
            .col(uuid("project_id"))
            .col(text("reference"))
            // Absent while the pull is under way, or where it was cut short.
            .col(text_null("image_id"))
            .col(big_integer("bytes"))
            .col(timestamp_with_time_zone("last_used_at"))
            .primary_key(Index::create().col("server_id").col("project_id").col("reference"))
            .to_owned();
        manager.create_table(table).await?;
        let mut by_project = Index::create().name("pulled_images_project").table("pulled_images").to_owned();
        manager.create_index(by_project.col("project_id").to_owned()).await
    }
}
