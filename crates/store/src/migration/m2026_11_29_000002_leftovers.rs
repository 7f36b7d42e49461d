//! The table of leftovers: things in engines that no row accounts for, and that are kept for a while.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(leftovers()).await
    }
}

fn leftovers() -> TableCreateStatement {
    // No foreign keys: its maker may have no row here.
    Table::create()
        .table("leftovers")
        .col(pk_uuid("id"))
        .col(text("kind"))
        .col(text("provider"))
        .col(uuid("maker_id"))
        .col(uuid("server_id"))
        .col(timestamp_with_time_zone("made_at"))
        .col(timestamp_with_time_zone("found_at"))
        .to_owned()
}
